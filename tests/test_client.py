"""The client against answers that a server should never give: none of them reads as a permit, and only what is safe is sent twice."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import stamina

from aftergate.client import Ask, Client, Decision, DpopKey, Entity, Refused, Unanswered
from aftergate.client.answers import Action
from aftergate.errors import ConfigError

pytestmark = pytest.mark.serving
KEY = "test-key-of-all-scopes-0123456789"


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


@contextlib.contextmanager
def answering(*answers: tuple[int, bytes] | None) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that gives these answers in turn, the last for ever; None hangs up. What it was asked comes along."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            seen.append({"path": self.path, "body": body, "headers": dict(self.headers)})
            answer = answers[min(len(seen), len(answers)) - 1]
            if answer is None:
                self.close_connection = True
                self.connection.close()
                return
            self.send_response(answer[0])
            self.send_header("content-length", str(len(answer[1])))
            self.end_headers()
            self.wfile.write(answer[1])

        do_GET = do_POST = do_DELETE = _answer

        def log_message(self, *_: Any) -> None:
            pass

        def handle_one_request(self) -> None:
            with contextlib.suppress(ValueError, OSError):
                super().handle_one_request()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


PERMIT = (200, b'{"decision":true}')
UNCLEAR = [
    (200, b""),
    (200, b"true"),
    (200, b"null"),
    (200, b"{}"),
    (200, b'{"decision":"true"}'),
    (200, b'{"decision":1}'),
    (200, b'{"decision":null}'),
    (200, b'{"decision":[true]}'),
    (200, b'{"decision":true'),
    (200, b"<html>permit</html>"),
    (200, b"\xff\xfe{"),
    (200, b"[" * 5000),
    (204, b""),
    (301, b'{"decision":true}'),
    (302, b'{"decision":true}'),
    (400, b'{"decision":true}'),
    (401, b'{"decision":true}'),
    (403, b'"no"'),
    (404, b""),
    (429, b'{"decision":true}'),
    (500, b'{"decision":true}'),
    (503, b'{"decision":true}'),
    None,
]


@pytest.mark.parametrize("answer", UNCLEAR)
def test_what_is_unclear_raises_and_is_no_permit(answer: tuple[int, bytes] | None) -> None:
    with answering(answer) as (url, _), Client(url, KEY, timeout_s=2) as gate:
        assert gate.permitted("user:a", "read", "doc:1") is False
        with pytest.raises((Refused, Unanswered)):
            gate.evaluate("user:a", "read", "doc:1")
        with pytest.raises((Refused, Unanswered)):
            gate.evaluations([Ask(Entity("user", "a"), Action("read"), Entity("doc", "1"))])


def test_a_permit_is_a_permit() -> None:
    with answering(PERMIT) as (url, seen), Client(url, KEY) as gate:
        assert gate.permitted("user:a", Action("read", {"how": "slowly"}), Entity("doc", "1", {"owner": "b"}))
    assert json.loads(seen[0]["body"]) == {
        "subject": {"type": "user", "id": "a"},
        "action": {"name": "read", "properties": {"how": "slowly"}},
        "resource": {"type": "doc", "id": "1", "properties": {"owner": "b"}},
    }


@pytest.mark.parametrize("first", [(503, b""), (502, b""), (429, b""), None])
def test_a_question_is_asked_again(first: tuple[int, bytes] | None) -> None:
    with answering(first, PERMIT) as (url, seen), Client(url, KEY) as gate:
        assert gate.permitted("user:a", "read", "doc:1")
    assert len(seen) == 2


@pytest.mark.parametrize("first", [(503, b""), (500, b""), None])
@pytest.mark.parametrize(
    "work",
    [
        lambda gate: gate.evaluate("user:a", "pay", "payment:1", approval="apr_1"),
        lambda gate: gate.evaluate("user:a", "pay", "payment:1", context={"auth": {"acr": "x"}}),
        lambda gate: gate.evaluate("user:a", "pay", "payment:1", context={"task_id": "t"}),
        lambda gate: gate.evaluations([Ask(Entity("user", "a"), Action("pay"), Entity("p", "1"), {"approval": {"id": "x"}})]),
        lambda gate: gate.create_key("x", ["decide"]),
        lambda gate: gate.revoke_key("x"),
        lambda gate: gate.create_task("why"),
        lambda gate: gate.exchange(task_id="t"),
        lambda gate: gate.close_finding("f", "why"),
    ],
)
def test_what_could_happen_twice_is_sent_once(first: tuple[int, bytes] | None, work: Callable[[Client], Any]) -> None:
    with answering(first, PERMIT) as (url, seen), Client(url, KEY) as gate:
        with pytest.raises(Unanswered):
            work(gate)
        assert len(seen) == 1


def test_a_request_for_approval_carries_one_key_through_all_its_tries() -> None:
    task = {"task": {"id": "arq_1", "status": "pending"}}
    offer = {"access_request": {"binding_token": "b", "expires_at": "2026-01-01T00:00:00Z", "endpoint": "x"}, "evaluation_id": "e-1"}
    with answering((503, b""), (202, json.dumps(task).encode())) as (url, seen), Client(url, KEY) as gate:
        held = gate.request_access(Ask(Entity("user", "a"), Action("pay"), Entity("p", "1")), Decision(False, offer))
    assert not held.approved
    assert not held.task.ended
    assert len({each["headers"]["idempotency-key"] for each in seen}) == 1
    assert json.loads(seen[0]["body"])["denial"] == {"binding_token": "b", "expires_at": "2026-01-01T00:00:00Z", "evaluation_id": "e-1"}


@pytest.mark.parametrize(
    "result",
    [
        {"task": {"id": "a", "status": "denied"}, "result": {"approval": {"id": "x"}}},
        {"task": {"id": "a", "status": "glorious"}, "result": {"approval": {"id": "x"}}},
        {"task": {"id": "a", "status": "approved"}},
        {"task": {"id": "a", "status": "approved"}, "result": {"approval": {}}},
        {"task": {"id": "a", "status": "approved"}, "result": {"approval": "x"}},
    ],
)
def test_only_an_approved_request_with_an_approval_is_one(result: dict[str, Any]) -> None:
    with answering((200, json.dumps(result).encode())) as (url, _), Client(url, KEY) as gate:
        assert not gate.access_request("a").approved


def test_fewer_answers_than_questions_are_none() -> None:
    items = [Ask(Entity("user", "a"), Action("read"), Entity("doc", str(n))) for n in range(3)]
    two = json.dumps({"evaluations": [{"decision": True}, {"decision": True}]}).encode()
    with answering((200, two)) as (url, _), Client(url, KEY) as gate:
        with pytest.raises(Unanswered, match="2 answers to 3"):
            gate.evaluations(items)
        with pytest.raises(Unanswered):
            gate.evaluations(items, semantic="deny_on_first_deny")
        assert len(gate.evaluations(items, semantic="permit_on_first_permit")) == 2


def test_each_try_has_a_proof_of_its_own() -> None:
    key = DpopKey.generate()
    with answering((503, b""), PERMIT) as (url, seen), Client(url, KEY, proof=key) as gate:
        assert gate.permitted("user:a", "read", "doc:1")
    proofs = [each["headers"]["dpop"] for each in seen]
    assert len(set(proofs)) == 2


def test_a_proof_is_one_that_the_server_takes() -> None:
    import time

    from aftergate.authz.dpop import Proof, verify_proof

    key = DpopKey.generate()
    made = key("POST", "https://gate.example/oauth/token?x=1")
    now = int(time.time() * 1000)
    held = verify_proof(made, "POST", "https://gate.example/oauth/token", now)
    assert isinstance(held, Proof), held
    assert held.jkt == key.thumbprint


def test_a_redirect_is_not_followed_with_the_key() -> None:
    with answering(PERMIT) as (_, seen), answering((307, b"")) as (url, _), Client(url, KEY) as gate:
        assert not gate.permitted("user:a", "read", "doc:1")
    assert seen == []


def test_pages_of_a_search_are_followed_to_the_last() -> None:
    first = {"results": [{"type": "doc", "id": "1"}], "page": {"next_token": "p2"}}
    last = {"results": [{"type": "doc", "id": "2"}], "page": {"next_token": ""}}
    with answering((200, json.dumps(first).encode()), (200, json.dumps(last).encode())) as (url, seen), Client(url, KEY) as gate:
        found = list(gate.search("resource", subject="user:a", action="read", resource="doc", limit=1))
    assert [each["id"] for each in found] == ["1", "2"]
    bodies = [json.loads(each["body"]) for each in seen]
    assert [body["page"] for body in bodies] == [{"limit": 1}, {"token": "p2", "limit": 1}]
    assert bodies[0]["resource"] == {"type": "doc"}


def test_an_export_that_breaks_off_is_not_left_behind(tmp_path: Path) -> None:
    with answering(None) as (url, _), Client(url, KEY) as gate, pytest.raises(Unanswered):
        gate.export_audit(tmp_path / "audit.tar.gz")
    assert list(tmp_path.iterdir()) == []


def test_an_export_of_before_stays_when_nobody_answers(tmp_path: Path) -> None:
    kept = tmp_path / "audit.tar.gz"
    kept.write_bytes(b"of before")
    with Client("http://127.0.0.1:1", KEY) as gate, pytest.raises(Unanswered):
        gate.export_audit(kept)
    assert kept.read_bytes() == b"of before"


@pytest.mark.parametrize("named", ["alice", ":alice", "user:", ""])
def test_what_is_no_entity_is_refused_before_it_is_sent(named: str) -> None:
    with answering(PERMIT) as (url, seen), Client(url, KEY) as gate, pytest.raises(ConfigError):
        gate.evaluate(named, "read", "doc:1")
    assert seen == []
