"""Decisions of a running server: limits, identity of requests, advice, proofs, reload, shadow, faults."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from asking import Caller, serve
from serving import KEY, Server, until

import aftergate.authz
from aftergate.audit.records import Actor
from aftergate.service.core import Ground
from aftergate.settings import load

pytestmark = pytest.mark.serving
STARTER = Path(aftergate.authz.__path__[0]) / "starter"
READ = {"subject": {"type": "user", "id": "alice"}, "action": {"name": "read"}, "resource": {"type": "document", "id": "welcome"}}


def now() -> float:
    return datetime.now(UTC).timestamp()


def payment(amount: int, name: str = "p", **context: Any) -> dict[str, Any]:
    resource = {"type": "payment", "id": name, "properties": {"amount": amount}}
    return {"subject": READ["subject"], "action": {"name": "release_payment"}, "resource": resource, "context": context}


def login(age_s: int = 5, **more: Any) -> dict[str, Any]:
    return {"acr": "urn:aftergate:acr:passkey", "auth_time": int(now()) - age_s, **more}


def records(server: Server, kind: str) -> list[dict[str, Any]]:
    """The audit log's leaves of one type, read beside the running server."""
    with closing(sqlite3.connect(f"file:{server.data / 'aftergate.db'}?mode=ro", uri=True)) as connection:
        return [json.loads(body) for (body,) in connection.execute("SELECT body FROM audit_leaves WHERE type = ? ORDER BY seq", (kind,))]


AUDITOR = "a-key-for-the-audit-only-0123"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("starter")
    (folder / "keys.txt").write_text(f"{KEY} test\n{AUDITOR} audit audit\n")
    with serve(folder) as running:
        yield running


@pytest.fixture
def caller(server: Server) -> Caller:
    return Caller(server)


def test_with_nothing_configured_it_answers_and_says_why(caller: Caller) -> None:
    status, headers, told = caller.evaluate(READ, x_request_id="mine-1")
    assert status == 200
    assert told["decision"] is True
    assert told["context"]["policies"] == ["users-read-documents"]
    assert headers["x-request-id"] == "mine-1"
    assert headers["cache-control"] == "no-store"


def test_who_is_not_known_gets_no_decision(caller: Caller) -> None:
    for header in ("Bearer wrong-key-of-somebody-else", "Basic eA==", None):
        status, headers, told = caller.evaluate(READ, authorization=header, x_request_id="mine-2")
        assert status == 401
        assert headers["www-authenticate"].startswith("Bearer")
        assert headers["x-request-id"] == "mine-2"
        assert isinstance(told, str)
        assert caller.ask("POST", "/access/v1/evaluations", READ, authorization=header)[0] == 401
        assert caller.ask("POST", "/access/v1/search/subject", READ, authorization=header)[0] == 401


def test_a_refused_decision_is_a_line_of_the_log_that_names_its_request(server: Server, caller: Caller) -> None:
    """Also of a caller who was let in before, for whom nothing else writes one."""
    assert caller.evaluate(READ)[0] == 200
    for number in range(2):
        assert caller.evaluate({"subject": {}}, x_request_id=f"refused-{number}")[0] == 400
        lines = until(lambda: [line for line in server.text().splitlines() if f"refused-{number}" in line])  # noqa: B023
        assert "status" in lines[0]
        assert "400" in lines[0]


@pytest.mark.parametrize("path", ["/access/v1/evaluation", "/access/v1/evaluations"])
def test_a_key_is_good_as_soon_as_it_is_made(server: Server, path: str) -> None:
    """Also one that another process made in the server's data directory, before the server looks for changes by itself."""
    ground = Ground.open(load({"data": str(server.data), "trust_refresh_ms": 500}, {}))
    try:
        for _ in range(3):
            time.sleep(0.25)  # the server looks a few times a second at most
            clear, _ = ground.keys.create("new", ["decide"], by=Actor("operator", "tests"))
            caller = Caller(server)
            caller.key = clear
            assert caller.ask("POST", path, READ)[0] == 200
    finally:
        ground.close()


def test_a_key_without_the_scope_may_not_ask(caller: Caller) -> None:
    caller.key = AUDITOR
    assert caller.evaluate(READ)[0] == 403
    assert caller.ask("POST", "/access/v1/evaluations", READ)[0] == 403
    assert caller.ask("POST", "/v1/policies/reload")[0] == 403
    assert caller.ask("GET", "/v1/policies")[0] == 403


@pytest.mark.parametrize(
    ("raw", "headers", "status"),
    [
        (b"", {}, 400),
        (b"[]", {}, 400),
        (b"{", {}, 400),
        (b'{"subject":1,"subject":2}', {}, 400),
        (b'{"a":"\xff"}', {}, 400),
        (b"[" * 4000, {}, 400),
        (json.dumps(READ).encode(), {"content-type": "text/plain"}, 400),
        (json.dumps(READ).encode(), {"content-type": "application/json; charset=latin-1"}, 400),
        (json.dumps(READ).encode(), {"content-type": None}, 400),
        (json.dumps(READ).encode(), {"content-type": "application/json; charset=UTF-8"}, 200),
        (json.dumps({**READ, "resource": {"type": "document", "id": "i" * 1025}}).encode(), {}, 400),
    ],
)
def test_a_body_that_cannot_be_read_is_a_fault_of_the_caller(caller: Caller, raw: bytes, headers: dict[str, Any], status: int) -> None:
    for path in ("/access/v1/evaluation", "/access/v1/evaluations"):
        assert caller.ask("POST", path, raw=raw, **headers)[0] == status, path


def test_odd_names_and_values_are_denied_not_faults(caller: Caller) -> None:
    for subject in ({"type": "a-b", "id": "x"}, {"type": "", "id": ""}, {"type": "user", "id": "\n\ud83d\ude00'\";"}):
        status, _, told = caller.evaluate({**READ, "action": {"name": "write"}, "subject": subject})
        assert (status, told["decision"]) == (200, False)
    assert caller.evaluate(payment({"__entity": {"type": "user", "id": "alice"}}))[2]["context"]["reason"] == "request_unmappable"  # type: ignore[arg-type]
    told = caller.evaluate({**payment(50), "resource": {"type": "payment", "id": "x"}})[2]
    assert told["context"]["reason"] == "policy_error"
    assert told["context"]["errors"][0]["policy"] == "huge-payment-needs-approval"


def test_boxcar_semantics_stop_where_they_should(caller: Caller) -> None:
    items = [{"action": {"name": name}} for name in ("read", "write", "fly", "read")]

    def decisions(semantic: str, chosen: list[dict[str, Any]]) -> list[bool]:
        body = {**READ, "evaluations": chosen, "options": {"evaluations_semantic": semantic}}
        return [each["decision"] for each in caller.ask("POST", "/access/v1/evaluations", body)[2]["evaluations"]]

    assert decisions("execute_all", items) == [True, True, False, True]
    assert decisions("deny_on_first_deny", items) == [True, True, False]
    assert decisions("permit_on_first_permit", items[2:]) == [False, True]
    status, _, told = caller.ask("POST", "/access/v1/evaluations", {**READ, "evaluations": [{"resource": {"id": "x"}}, 3]})
    assert status == 200
    assert [each["context"]["error"]["status"] for each in told["evaluations"]] == [400, 400]


def test_a_step_up_is_asked_with_obligation_hints_and_challenge(caller: Caller) -> None:
    told = caller.evaluate(payment(5000))[2]
    context = told["context"]
    assert told["decision"] is False
    assert context["obligations"][0]["type"] == "step-up"
    assert context["obligations"][0]["properties"]["acr_value"] == "urn:aftergate:acr:passkey"
    assert (context["acr_values"], context["max_age"]) == ("urn:aftergate:acr:passkey", 300)
    assert context["challenge"].startswith('Bearer error="insufficient_user_authentication"')
    assert caller.evaluate(payment(5000, auth=login(age_s=301)))[2]["decision"] is False
    assert caller.evaluate(payment(5000, auth={**login(), "auth_time": int(now()) + 3600}))[2]["decision"] is False
    assert caller.evaluate(payment(5000, auth={"acr": "urn:aftergate:acr:passkey", "iat": int(now())}))[2]["decision"] is False


def test_a_login_is_worth_one_transaction_or_one_declared_batch(caller: Caller) -> None:
    proof = login(jti="proof-1")
    assert caller.evaluate(payment(5000, "one", auth=proof))[2]["decision"] is True
    assert caller.evaluate(payment(5000, "one", auth=proof))[2]["decision"] is True  # the same question again
    refused = caller.evaluate(payment(5000, "two", auth=proof))[2]
    assert refused["decision"] is False
    assert refused["context"]["reason"] == "step_up_required"
    assert "already used" in refused["context"]["reason_admin"]["403"]
    assert refused["context"]["obligations"]
    assert caller.evaluate(payment(6000, "one", auth=proof))[2]["decision"] is False
    assert caller.evaluate(payment(10, "small", auth=proof))[2]["decision"] is True  # which needs no login
    batch = {
        **payment(5000, auth=login(jti="proof-2")),
        "evaluations": [{"resource": payment(5000 + at, f"b{at}")["resource"]} for at in range(5)],
    }
    told = caller.ask("POST", "/access/v1/evaluations", batch)[2]
    assert [each["decision"] for each in told["evaluations"]] == [True] * 5
    assert caller.evaluate(payment(5000, "b0", auth=batch["context"]["auth"]))[2]["decision"] is False
    assert [each["decision"] for each in caller.ask("POST", "/access/v1/evaluations", batch)[2]["evaluations"]] == [True] * 5


def test_a_denial_that_an_approval_lifts_says_where_to_ask(caller: Caller) -> None:
    told = caller.evaluate(payment(50_000, auth=login(jti="proof-3")))[2]
    assert told["context"]["reason"] == "approval_required"
    assert told["context"]["evaluated_at"]
    assert told["context"]["access_request"]["binding_token"]
    made_up = caller.evaluate(payment(50_000, auth=login(jti="proof-4"), approval={"id": "apr_made-up"}))[2]
    assert made_up["decision"] is False
    assert made_up["context"]["reason"] == "approval_unverifiable"


def test_what_matters_is_recorded_before_its_answer_and_the_rest_soon_after(server: Server, caller: Caller) -> None:
    told = caller.evaluate(payment(77, "recorded"))[2]
    own = [each for each in records(server, "decision") if each["evaluation_id"] == told["context"]["evaluation_id"]]
    assert own[0]["decision"] == "permit"
    assert own[0]["reasons"] == ["finance-releases-payments"]
    assert "alice" not in json.dumps(own)  # a person's id stands beside the leaf, where it can be erased
    plain = caller.evaluate(READ)[2]["context"]["evaluation_id"]
    batches = until(lambda: [each for each in records(server, "decision.batch") if each["detail"]["last"] == plain])
    assert batches[0]["detail"]["groups"][0]["policies"] == ["users-read-documents"]


def test_searches_come_in_pages_whose_tokens_are_their_own(caller: Caller) -> None:
    body = {"subject": {"type": "user"}, "action": {"name": "read"}, "resource": READ["resource"], "page": {"limit": 1}}
    first = caller.ask("POST", "/access/v1/search/subject", body)[2]
    assert first["results"] == [{"type": "user", "id": "alice"}]
    token = first["page"]["next_token"]
    second = caller.ask("POST", "/access/v1/search/subject", {**body, "page": {"limit": 1, "token": token}})[2]
    assert second == {"page": {"next_token": "", "count": 1}, "results": [{"type": "user", "id": "bob"}]}
    for changed in ({**body, "context": {"a": 1}}, {**body, "action": {"name": "write"}}, {**body, "page": {"limit": 2}}):
        changed = {**changed, "page": {**changed["page"], "token": token}}
        assert caller.ask("POST", "/access/v1/search/subject", changed)[0] == 400
    for forged in (token[:-1], token + "x", "x", "é"):
        assert caller.ask("POST", "/access/v1/search/subject", {**body, "page": {"limit": 1, "token": forged}})[0] == 400


def test_metadata_names_what_there_is_and_needs_no_key(server: Server, caller: Caller) -> None:
    status, headers, told = caller.ask("GET", "/.well-known/authzen-configuration", authorization=None)
    assert status == 200
    assert told["policy_decision_point"] == server.url
    for name in ("access_evaluation", "access_evaluations", "search_subject", "search_resource", "search_action", "access_request"):
        assert told[f"{name}_endpoint"].startswith(server.url)
    assert told["supported_obligations"] == ["step-up"]
    assert caller.ask("GET", "/.well-known/authzen-configuration", if_none_match=headers["etag"])[0] == 304


def test_a_changed_directory_comes_into_force_and_a_broken_one_does_not(tmp_path: Path) -> None:
    shutil.copytree(STARTER / "policies", tmp_path / "policies")
    extra = tmp_path / "policies/extra.cedar"
    with Server(
        tmp_path / "s", "--policies", str(tmp_path / "policies"), "--entities", str(STARTER / "entities.json"), "--reload-s", "1"
    ) as running:
        caller = Caller(running)
        assert caller.evaluate({**READ, "action": {"name": "fly"}})[2]["decision"] is False
        extra.write_text('@id("fly") permit (principal, action == Action::"fly", resource);')
        until(lambda: caller.evaluate({**READ, "action": {"name": "fly"}})[2]["decision"])
        extra.write_text('@id("fly") permit (principal, action == Action::"fly", resource;')
        until(lambda: caller.ask("GET", "/v1/policies")[2]["sets"][0]["problems"])
        assert caller.evaluate({**READ, "action": {"name": "fly"}})[2]["decision"] is True
        assert until(lambda: records(running, "policy.refused"))[0]["detail"]["problems"][0].startswith("extra.cedar:1")
        (tmp_path / "policies").rename(tmp_path / "gone")
        told = caller.ask("POST", "/v1/policies/reload")[2]
        assert "cannot be read" in told["sets"][0]["problems"][0]
        assert caller.evaluate({**READ, "action": {"name": "fly"}})[2]["decision"] is True
        (tmp_path / "gone/extra.cedar").unlink()
        (tmp_path / "gone").rename(tmp_path / "policies")
        assert caller.ask("POST", "/v1/policies/reload")[2]["sets"][0]["problems"] == []
        assert caller.evaluate({**READ, "action": {"name": "fly"}})[2]["decision"] is False
        changed = records(running, "policy.changed")
        assert [one["actor"]["type"] for one in changed] == ["server", "server", "api-key"], "who asked for the reload is who changed it"


def test_recorded_decisions_are_decided_again_with_a_candidate(server: Server, caller: Caller, tmp_path: Path) -> None:
    shutil.copytree(STARTER / "policies", tmp_path / "candidate")
    payments = tmp_path / "candidate/payments.cedar"
    payments.write_text(payments.read_text().replace("resource.amount > 1000 ", "resource.amount > 50 "))
    caller.evaluate(payment(60, "again"))
    caller.evaluate({**READ, "resource": {"type": "document", "id": "again"}})
    time.sleep(0.5)
    command = [
        sys.executable,
        "-m",
        "aftergate.cli.main",
        "policy",
        "shadow",
        str(tmp_path / "candidate"),
        "--data",
        str(server.data),
        "--json",
    ]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    changed = [each for each in told["changes"] if each["resource"] == 'payment::"again"']
    assert [(each["kind"], each["after"]["decision"]) for each in changed] == [("closed", "step_up")]
    assert told["decisions"] > told["changed"]


def test_a_broken_set_keeps_the_server_from_starting_and_says_where(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/p.cedar").write_text("permit (principal, action, resource);")
    with pytest.raises(AssertionError, match=r"p\.cedar:1.*@id"):
        Server(tmp_path / "s", "--policies", str(tmp_path / "policies")).start()


def test_a_shadow_follows_live_traffic(tmp_path: Path) -> None:
    shutil.copytree(STARTER / "policies", tmp_path / "candidate")
    documents = tmp_path / "candidate/documents.cedar"
    documents.write_text(documents.read_text().replace('action == Action::"read"', 'action == Action::"look"'))
    with Server(tmp_path / "s", "--shadow-policies", str(tmp_path / "candidate"), "--entities", str(STARTER / "entities.json")) as running:
        caller = Caller(running)
        assert caller.evaluate(READ)[2]["decision"] is True
        assert caller.evaluate(payment(5))[2]["decision"] is True
        told = until(lambda: (held := caller.ask("GET", "/v1/policies/shadow")[2]["shadow"])["decisions"] == 2 and held)
        assert told["changed"] == 1
        assert told["changes"][0]["kind"] == "closed"
        assert told["changes"][0]["before"]["policies"] == ["users-read-documents"]


def test_without_its_database_nothing_is_answered_and_it_recovers_without_hands(tmp_path: Path) -> None:
    running = serve(tmp_path / "s")
    try:
        caller = Caller(running)
        assert caller.evaluate(payment(5))[2]["decision"] is True
        (running.data / "aftergate.db").rename(running.data / "away.db")
        status, headers, told = caller.evaluate(payment(5, "q"))
        assert status == 503
        assert headers["retry-after"] == "2"
        assert isinstance(told, str)
        until(lambda: caller.evaluate(READ)[0] == 503)
        (running.data / "away.db").rename(running.data / "aftergate.db")
        until(lambda: caller.evaluate(payment(6, "r"))[2]["decision"] is True if caller.evaluate(READ)[0] == 200 else False)
        permitted = [each for each in records(running, "decision") if each["decision"] == "permit"]
        assert len(permitted) == 2
    finally:
        running.kill()
    # After `kill -9` it goes on from what was recorded.
    with running.start():
        assert Caller(running).evaluate(payment(7, "s"))[2]["decision"] is True
        assert len([each for each in records(running, "decision") if each["decision"] == "permit"]) == 3
