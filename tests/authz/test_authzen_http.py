"""The working group's data over real HTTP, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from asking import DATA, Caller, serve
from serving import new_database

pytestmark = pytest.mark.serving
Callers = dict[str, Caller]
# The published runner of this set takes an item with a context for a failure.
OPTIONS = {"todo": ("--answers", "short")}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def callers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    """A server for each of the three sets, on one kind of database."""
    with ExitStack() as stack:
        made = {}
        for name in ("todo", "search", "certification"):
            database = new_database(request.getfixturevalue("postgres_uri")) if request.param == "postgresql" else ""
            made[name] = Caller(stack.enter_context(serve(tmp_path_factory.mktemp(name), name, *OPTIONS.get(name, ()), database=database)))
        yield made


def test_every_todo_case_is_answered_as_published(callers: Callers) -> None:
    cases = json.loads((DATA / "todo/decisions.json").read_bytes())
    for case in cases["evaluation"]:
        status, _, told = callers["todo"].evaluate(case["request"])
        assert (status, told["decision"]) == (200, case["expected"]), case
    for case in cases["evaluations"]:
        status, _, told = callers["todo"].ask("POST", "/access/v1/evaluations", case["request"])
        assert status == 200
        assert told == {"evaluations": case["expected"]}, case


@pytest.mark.parametrize("kind", ["subject", "action"])
def test_every_published_search_finds_the_published_results(callers: Callers, kind: str) -> None:
    for case in json.loads((DATA / f"search/{kind}-results.json").read_bytes())["evaluation"]:
        status, _, told = callers["search"].ask("POST", f"/access/v1/search/{kind}", case["request"])
        assert status == 200
        wanted = {json.dumps(each, sort_keys=True) for each in case["expected"]["results"]}
        assert {json.dumps(each, sort_keys=True) for each in told["results"]} == wanted, case
        assert list(told) == ["page", "results"]


def test_every_certification_case_passes(callers: Callers) -> None:
    caller = callers["certification"]
    seen: dict[str, Any] = {}
    for case in json.loads((DATA / "certification/cases.json").read_bytes())["cases"]:
        expect = case["expect"]
        raw = case["raw"].encode() if "raw" in case else json.dumps(case["body"]).encode()
        headers = {"content-type": case.get("content_type", "application/json"), **case.get("headers", {})}
        for _ in range(case.get("repeat", 1)):
            status, answered, told = caller.ask(case["method"], case["path"], raw=raw, **headers)
            assert status == expect["status"], case
            assert answered["content-type"] == "application/json"
            if status == 400:
                assert isinstance(told, str)
                assert told
            for name, value in expect.get("headers", {}).items():
                assert answered[name.lower()] == value
            if "decision" in expect:
                assert told["decision"] is expect["decision"], case
            if "evaluations" in expect:
                assert "decision" not in told
                assert all(
                    wanted in (None, each["decision"]) for each, wanted in zip(told["evaluations"], expect["evaluations"], strict=True)
                )
            for result in expect.get("results_include", ()):
                assert result in told["results"], case
            if "result_type" in expect:
                assert {each["type"] for each in told["results"]} == {expect["result_type"]}
            if "same_as" in expect:
                assert told["results"] == seen[expect["same_as"]]["results"]
            if expect.get("page_valid"):
                assert len(told["results"]) <= 1
                assert told["page"]["next_token"]
        seen[case["id"]] = told


def test_an_administrator_sees_which_set_is_in_force(callers: Callers) -> None:
    status, _, told = callers["todo"].ask("GET", "/v1/policies")
    assert status == 200
    assert told["sets"][0]["set"] == "live"
    assert told["sets"][0]["problems"] == []
