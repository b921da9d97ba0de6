"""The description of the interface holds: what it allows never makes the server fail, and answers are what it says (schemathesis, on a real server)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving import KEY, Server

from aftergate.cli.approving import Desk

pytestmark = pytest.mark.serving

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance]
# The same requests every time, so that a failure is one of the change in hand.
BOUNDED = settings(
    max_examples=6,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def schema(server: Server, stranger: httpx2.Client) -> Any:
    document = stranger.get("/openapi.json").json()
    made = schemathesis.openapi.from_dict(document)
    made.config.update(base_url=server.url)
    return made


def operations(schema: Any) -> Iterator[Any]:
    for result in schema.get_all_operations():
        yield result.ok()


def statuses(operation: Any) -> set[int]:
    """What an operation may answer: its own statuses, and the refusals that the description of every operation's `default` counts up."""
    held = operation.definition.raw["responses"]
    own = {int(each) for each in held if each != "default"}
    return own | {int(each) for each in re.findall(r"\b[45]\d\d\b", held["default"]["description"])}


def wrong(operation: Any, case: Any, headers: dict[str, str], session: Any) -> list[str]:
    """What is wrong with the answer to one request, in a line each."""
    response = case.call(headers=headers, session=session, timeout=20)
    found = []
    if response.status_code not in statuses(operation):
        found.append(f"{operation.label}: {response.status_code} is not described: {response.text[:200]}")
    try:
        case.validate_response(response, checks=CHECKS)
    except* schemathesis.core.failures.Failure as group:
        found += [f"{operation.label}: {' '.join(str(each).split())[:400]}" for each in group.exceptions]
    return found


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    with requests.Session() as made:
        made.trust_env = False
        yield made


def tried(operation: Any, mode: GenerationMode, headers: dict[str, str], session: Any) -> tuple[int, list[str]]:
    """How many requests were made, and what was wrong with their answers."""
    found: list[str] = []
    made = 0

    @BOUNDED
    @given(case=operation.as_strategy(mode))
    def run(case: Any) -> None:
        nonlocal made
        made += 1
        found.extend(wrong(operation, case, headers, session))

    with contextlib.suppress(Unsatisfiable):  # nothing can be wrong in a request that takes nothing
        run()
    return made, found


def as_described(schema: Any, session: Any, mode: GenerationMode, headers: dict[str, str]) -> int:
    """To how many operations requests were made."""
    found: list[str] = []
    asked = 0
    for operation in operations(schema):
        made, lines = tried(operation, mode, headers, session)
        asked += bool(made)
        found += lines
    assert not found, "\n" + "\n".join(dict.fromkeys(found))
    return asked


def test_what_the_description_allows_is_answered_as_described(schema: Any, session: Any) -> None:
    assert as_described(schema, session, GenerationMode.POSITIVE, {"authorization": f"Bearer {KEY}"}) == len(list(operations(schema)))


def test_what_the_description_does_not_allow_is_answered_as_described(schema: Any, session: Any) -> None:
    assert as_described(schema, session, GenerationMode.NEGATIVE, {"authorization": f"Bearer {KEY}"}) > 30


def test_what_people_ask_is_answered_as_described(schema: Any, server: Server, http: httpx2.Client, tmp_path: Path) -> None:
    """Routes for people let no key in, so they are asked with a session, too; each mode in one go, without what would end it."""
    made = http.post("/v1/people", json={"id": "ann", "groups": ["finance"]})
    assert made.status_code == 201, made.text
    desk = Desk(server.url)
    desk.register(made.json()["link"], tmp_path / "ann.key", "correct horse", "test")
    desk.login()
    with requests.Session() as by_person:
        by_person.trust_env = False
        by_person.headers["origin"] = server.url
        for name, value in desk._http.cookies.items():
            by_person.cookies.set(name, value)
        assert by_person.get(server.url + "/v1/me").status_code == 200
        for_people = schema.include(path_regex="^/v1/(approvals|reviews|me)").exclude(path="/v1/logout")
        assert as_described(for_people, by_person, GenerationMode.POSITIVE, {}) > 10
        assert as_described(for_people, by_person, GenerationMode.NEGATIVE, {}) > 5
        assert by_person.get(server.url + "/v1/me").status_code == 200
    desk.close()


def test_operations_with_a_body_describe_it(schema: Any) -> None:
    """A handler that reads its body by hand says itself what it takes: nothing tells if it does not, and then nothing above sends one."""
    bare = {
        operation.label
        for operation in operations(schema)
        if operation.method in {"post", "patch"} and "requestBody" not in operation.definition.raw
    }
    assert bare == {
        "POST /v1/logout",
        "POST /v1/me/authenticators/options",
        "POST /v1/messages/{number}/retry",
        "POST /v1/people/{person_id}/link",
        "POST /v1/policies/reload",
        "POST /v1/tasks/keys/rotate",
    }


def test_parameters_are_called_what_the_server_calls_them(schema: Any, http: httpx2.Client) -> None:
    """One that is described by another name than it is read by would be ignored without a word: so each must mind what cannot be its value."""
    checked = 0
    for operation in operations(schema):
        if not any("key" in way for way in operation.definition.raw.get("security", [])):
            continue  # public, and without parameters; or for people alone
        for parameter in operation.query:
            kinds = str(parameter.definition["schema"])
            if "integer" not in kinds and "boolean" not in kinds and "enum" not in kinds and "$ref" not in kinds:
                continue
            checked += 1
            needed = {each.name: "0" for each in operation.query if each.is_required and each.name != parameter.name}
            answer = http.request(operation.method, operation.path, params={**needed, parameter.name: "certainly-not"})
            assert answer.status_code == 400, (operation.label, parameter.name, answer.status_code)
    assert checked > 10


def test_the_state_of_tasks_is_minded(http: httpx2.Client) -> None:
    made = http.post("/v1/tasks", json={"purpose": "to be counted", "actions": ["read"], "ttl_s": 60})
    assert made.status_code == 201, made.text
    ids = [each["id"] for each in http.get("/v1/tasks", params={"state": "active"}).json()["tasks"]]
    assert made.json()["id"] in ids
    assert all(each["state"] == "cancelled" for each in http.get("/v1/tasks", params={"state": "cancelled"}).json()["tasks"])
    assert http.get("/v1/tasks", params={"state": "no-such-state"}).status_code == 400
