"""The working group's data, decided in process: what the HTTP tests ask again over the wire."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aftergate.authz import cedar, entities
from aftergate.authz.decide import Snapshot, decide
from aftergate.authz.errors import BadRequest
from aftergate.authz.facts import Facts, TrustFacts
from aftergate.authz.search import find
from aftergate.authz.wire import parse_evaluation, parse_evaluations, parse_search

FACTS = Facts(1_767_614_400_000, TrustFacts(100))


def snapshot_of(folder: Path) -> Snapshot:
    return Snapshot(cedar.load(folder / "policies"), entities.load((folder / "entities.json").read_bytes()))


@pytest.fixture(scope="module")
def authzen(data: Path) -> Path:
    return data / "authzen"


def test_every_todo_evaluation_is_decided_as_published(authzen: Path) -> None:
    snapshot = snapshot_of(authzen / "todo")
    cases = json.loads((authzen / "todo/decisions.json").read_bytes())
    for case in cases["evaluation"]:
        request = parse_evaluation(json.dumps(case["request"]).encode())
        assert decide(request, snapshot, FACTS).allowed is case["expected"], case
    for case in cases["evaluations"]:
        boxcar = parse_evaluations(json.dumps(case["request"]).encode())
        answers = [decide(item.request, snapshot, FACTS).allowed for item in boxcar.items if item.request]
        assert answers == [each["decision"] for each in case["expected"]], case
    assert len(cases["evaluation"]) == 40


@pytest.mark.parametrize("kind", ["subject", "action"])
def test_every_published_search_finds_exactly_the_published_results(authzen: Path, kind: str) -> None:
    snapshot = snapshot_of(authzen / "search")
    cases = json.loads((authzen / f"search/{kind}-results.json").read_bytes())["evaluation"]
    member = "name" if kind == "action" else "id"
    for case in cases:
        search = parse_search(json.dumps(case["request"]).encode(), kind)  # type: ignore[arg-type]
        found = find(search, snapshot, lambda _: FACTS, None)
        assert set(found.results) == {each[member] for each in case["expected"]["results"]}, case
        assert found.after is None


def certification_cases() -> list[dict]:
    path = Path(__file__).parent.parent / "data/authzen/certification/cases.json"
    return json.loads(path.read_bytes())["cases"]


@pytest.mark.parametrize("case", certification_cases(), ids=lambda case: case["id"])
def test_certification_case_in_process(authzen: Path, case: dict) -> None:
    """What belongs to HTTP (content type, request id) is asked in the HTTP tests."""
    if case.get("content_type"):
        return
    snapshot = snapshot_of(authzen / "certification")
    body = case["raw"].encode() if "raw" in case else json.dumps(case["body"]).encode()
    expect = case["expect"]
    last = case["path"].rpartition("/")[2]
    try:
        if last == "evaluation":
            boxcar = None
            allowed = decide(parse_evaluation(body), snapshot, FACTS).allowed
        elif last == "evaluations":
            boxcar = parse_evaluations(body)
            allowed = None
        else:
            found = find(parse_search(body, last), snapshot, lambda _: FACTS, None)  # type: ignore[arg-type]
            for result in expect.get("results_include", ()):
                assert (result.get("id") or result["name"]) in found.results
            assert not expect.get("page_valid") or found.after is not None
            assert expect["status"] == 200
            return
    except BadRequest:
        assert expect["status"] == 400
        return
    assert expect["status"] == 200
    if boxcar is not None:
        answers = [item.request is not None and decide(item.request, snapshot, FACTS).allowed for item in boxcar.items]
        if "decision" in expect:
            assert boxcar.single
            assert answers == [expect["decision"]]
        else:
            assert len(answers) == len(expect["evaluations"])
            assert all(wanted in (None, is_) for is_, wanted in zip(answers, expect["evaluations"], strict=True))
    else:
        assert allowed is expect.get("decision", True)
