"""`aftergate.client`: the whole way against a real server, and against one that answers nothing clear, which is never a permit."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "approvals"))
from company import POLICIES, payment
from remote import Remote

from aftergate.client import Ask, Client, DpopKey, Refused, Unanswered
from aftergate.client import Action as Doing
from aftergate.client import Entity as Named
from aftergate.errors import AftergateError, ConfigError

pytestmark = pytest.mark.serving
MORE = """
@id("reads") permit (principal is user, action == Action::"read", resource is document);
@id("keeps-away") forbid (principal is user, action == Action::"read", resource == document::"secret");
@id("starts") permit (principal, action in [Action::"task.start", Action::"token.exchange"], resource is task);
@id("trusted-only") forbid (principal is user, action == Action::"read", resource) when { context.live.trust.lowest < 50 };
"""


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    with Remote(tmp_path_factory.mktemp("client"), policies=POLICIES + MORE) as made:
        made.person("bob", "finance")
        yield made


@pytest.fixture
def gate(remote: Remote) -> Iterator[Client]:
    with Client(remote.url, remote.server.key, proof=DpopKey.generate()) as made:
        yield made


def asked(**more: Any) -> Ask:
    held = payment(**more)
    return Ask(Named(**held["subject"]), Doing(**held["action"]), Named(**held["resource"]), held["context"])


def use(gate: Client, ask: Ask, approval: Any = "") -> Any:
    return gate.evaluate(ask.subject, ask.action, ask.resource, context=ask.context, approval=approval)


def test_a_permit_and_a_denial_are_values(gate: Client) -> None:
    assert gate.ready()
    assert gate.permitted("user:alice", "read", "document:d") is True
    assert gate.permitted("user:alice", "read", "document:secret") is False
    told = gate.evaluate("user:alice", "read", "document:secret")
    assert not told
    assert told.reason == "forbidden"
    assert told.context["policies"] == ["keeps-away"]
    assert told.id
    assert told.offer is None


def test_several_answers_come_in_order_and_stop_where_told(gate: Client) -> None:
    items = [Ask(Named("user", "alice"), Doing("read"), Named("document", name)) for name in ("a", "secret", "b")]
    assert [bool(each) for each in gate.evaluations(items)] == [True, False, True]
    assert [bool(each) for each in gate.evaluations(items, semantic="deny_on_first_deny")] == [True, False]
    assert [bool(each) for each in gate.evaluations(items, semantic="permit_on_first_permit")] == [True]
    assert gate.evaluations([]) == []


def test_a_search_finds_what_is_permitted(gate: Client) -> None:
    assert {"name": "read"} in list(gate.search("action", subject="user:alice", resource="document:d", limit=1))
    assert {"name": "read"} not in list(gate.search("action", subject="user:alice", resource="document:secret"))


def test_asked_approved_and_used_once_by_the_key_that_asked(remote: Remote, gate: Client) -> None:
    ask = asked()
    denial = use(gate, ask)
    assert not denial
    held = gate.request_access(ask, denial, key="once")
    assert not held.approved
    assert held.approval == {}
    assert gate.request_access(ask, denial, key="once").task.id == held.task.id, "the same key is the same request"
    assert not gate.wait(held.task.id, timeout_s=0).task.ended
    desk = remote.desks["bob"]
    deciding = threading.Timer(0.3, lambda: desk.approve(desk.view(held.task.id)))
    deciding.start()
    done = gate.wait(held.task.id, timeout_s=20, every_s=0.1)
    deciding.join()
    assert done.approved
    with Client(remote.url, remote.server.key, proof=DpopKey.generate()) as thief:
        assert not use(thief, ask, done.approval)
    with Client(remote.url, remote.server.key) as without:
        assert not use(without, ask, done.approval)
    assert not use(gate, asked(resource={**payment()["resource"], "id": "p-other"}), done.approval)
    assert use(gate, ask, done.approval)
    assert use(gate, ask, str(done.approval["id"])).reason == "approval_consumed"
    story = gate.transaction(held.task.id)
    assert "bob" in json.dumps(story)


def test_a_request_may_be_called_back(gate: Client) -> None:
    ask = asked()
    held = gate.request_access(ask, use(gate, ask))
    assert gate.cancel_request(held.task.id, "not needed").task.status == "cancelled"
    with pytest.raises(Refused):
        gate.cancel_request("arq_0000000000000000")
    with pytest.raises(ConfigError, match="no approval"):
        gate.request_access(ask, gate.evaluate("user:alice", "read", "document:secret"))


def test_a_task_lives_until_it_is_done_and_so_do_its_tokens(gate: Client) -> None:
    task = gate.create_task("mail", actions=["read"], ttl_s=60)
    assert task.state == "active"
    assert task.id in {each.id for each in gate.tasks(state="active")}
    token = gate.exchange(
        subject_token=task.id, subject_token_type="urn:aftergate:params:oauth:token-type:task", scope="read", audience="https://api.example"
    )
    assert token.access_token not in repr(token)
    assert gate.introspect(token.access_token)["active"] is True
    gate.revoke(token.access_token)
    assert gate.introspect(token.access_token) == {"active": False}
    assert gate.complete_task(task.id, "done").state == "completed"
    assert gate.task(task.id).state == "completed"
    assert gate.cancel_task(gate.create_task("mail", actions=["read"]).id).state == "cancelled"
    killed = gate.create_task("mail", actions=["read"])
    assert gate.kill_tasks("stolen", task=killed.id)["tasks"] == [killed.id]


def test_findings_lower_trust_until_they_are_closed(gate: Client) -> None:
    told = {
        "id": "f-1", "detection": "tok-family-fork", "severity": "critical", "time": "2026-11-22T00:00:00Z", "title": "t", "narrative": "n",
        "subject": {"identity": ["mallory"]}, "evidence": [], "sources": [],
    }  # fmt: skip
    told["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    got = gate.send_findings([json.dumps(told).encode(), b'{"not": "a finding"}'])
    assert (got.received, got.new, [each.line for each in got.set_aside]) == (2, 1, [2])
    assert gate.send_findings([json.dumps(told).encode()]).known == 1
    assert [each["finding"]["id"] for each in gate.findings("mallory")] == ["f-1"]
    assert gate.trust(identity=["mallory"]).lowest < 50
    assert gate.permitted("user:mallory", "read", "document:d") is False
    gate.close_finding("f-1", "it was a test")
    assert gate.trust(identity=["mallory"]).lowest == 100
    assert list(gate.findings("mallory")) == []


def test_keys_policies_and_status(remote: Remote, gate: Client) -> None:
    made = gate.create_key("small", ["decide"])
    assert made.key not in repr(made)
    with Client(remote.url, made.key) as small:
        assert small.permitted("user:alice", "read", "document:d")
        with pytest.raises(Refused) as told:
            small.list_keys()
        assert told.value.status == 403
        gate.revoke_key(made.entry.id)
        assert small.permitted("user:alice", "read", "document:d") is False
        with pytest.raises(Refused) as told:
            small.evaluate("user:alice", "read", "document:d")
        assert told.value.status == 401
    assert made.entry.id in {key.id for key in gate.list_keys()}
    assert gate.reload_policies()["sets"]
    assert gate.policies()["sets"]
    assert gate.status().problems == {}


def test_the_exported_log_verifies_offline(gate: Client, tmp_path: Path) -> None:
    gate.export_audit(tmp_path / "a.tar.gz", personal=True)
    assert gate.checkpoint().count("\n")
    done = subprocess.run(
        [sys.executable, "-m", "aftergate.cli.main", "audit", "verify", str(tmp_path / "a.tar.gz")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.raises(FileExistsError):
        gate.export_audit(tmp_path / "a.tar.gz")


# What is unclear is no permit.

PERMIT = b'{"decision": true}'
Answer = tuple[int, dict[str, str], bytes]


class Odd:
    """A server on this machine that answers as it is told, in turn (the last answer stays), and counts."""

    def __init__(self) -> None:
        self.turns: list[Answer | str] = []
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        odd = self

        class Handler(BaseHTTPRequestHandler):
            def handle_all(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                held = {name.lower(): value for name, value in self.headers.items()}
                odd.requests.append((self.command, self.path, held, body))
                turn = odd.turns.pop(0) if len(odd.turns) > 1 else odd.turns[0]
                if turn == "hang":
                    time.sleep(1.0)
                    return
                if turn == "cut":
                    self.wfile.write(b'HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\n{"decision": true')
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, headers, text = turn
                self.send_response(status)
                for name, value in {"content-length": str(len(text)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_DELETE = handle_all  # noqa: N815  the names that the library calls

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def says(self, *turns: Answer | str) -> None:
        self.turns = list(turns)
        self.requests.clear()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture(scope="module")
def odd() -> Iterator[Odd]:
    made = Odd()
    yield made
    made.close()


@pytest.fixture
def lost(odd: Odd) -> Iterator[Client]:
    with Client(odd.url, "key", timeout_s=0.3, proof=DpopKey.generate()) as made:
        yield made


def refuses(client: Client) -> AftergateError:
    """Neither way of asking reads it as a permit."""
    assert client.permitted("user:alice", "read", "document:d", context={"task_id": "task-1"}) is False
    with pytest.raises((Unanswered, Refused)) as told:
        client.evaluate("user:alice", "read", "document:d", context={"task_id": "task-1"})
    return told.value


UNCLEAR: list[Any] = [
    *[(200, {}, text) for text in (
        b"", b"{", b"true", b"null", b"[]", b'"true"', b"{}", b'{"decision": "true"}', b'{"decision": 1}', b'{"decision": null}', b'{"decision": [true]}',
        b'{"Decision": true}', b'{"allowed": true}', b'{"decision": true', b'{"decision": true} {"decision": false}', b"\xff\xfe", b"<html>true</html>",
        b"[" * 5000, b'{"decision": true, "context": 7}',
    )],
    *[(status, {}, PERMIT) for status in (300, 304, 400, 401, 403, 404, 409, 418, 500, 501)],
    (302, {"location": "/elsewhere"}, PERMIT),
    (307, {"location": "/elsewhere"}, PERMIT),
    "cut",
    "hang",
]  # fmt: skip


@pytest.mark.parametrize("turn", UNCLEAR, ids=lambda turn: str(turn)[:60])
def test_nothing_unclear_is_a_permit(odd: Odd, lost: Client, turn: Answer | str) -> None:
    odd.says(turn)
    refuses(lost)
    assert len(odd.requests) == 2, "asked once each: such a request may have used something up"
    assert {path for _, path, _, _ in odd.requests} == {"/access/v1/evaluation"}, "no redirect is followed"


def test_a_clear_permit_is_one(odd: Odd, lost: Client) -> None:
    odd.says((200, {}, PERMIT))
    assert lost.permitted("user:alice", "read", "document:d") is True
    assert lost.evaluate("user:alice", "read", "document:d").decision is True
    odd.says((200, {}, b'{"decision": false}'))
    assert lost.permitted("user:alice", "read", "document:d") is False


def test_nobody_there_is_no_permit() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with Client(url, "key", timeout_s=0.3) as nobody:
            refuses(nobody)
            assert not nobody.ready()


BUSY: Answer = (503, {"retry-after": "0"}, b'"busy"')


def test_what_is_safe_is_tried_again_with_a_new_proof_each_time(odd: Odd, lost: Client) -> None:
    odd.says(BUSY, "hang", "cut", (200, {}, PERMIT))
    assert lost.evaluate("user:alice", "read", "document:d")
    assert len(odd.requests) == 4
    proofs = [held["dpop"] for _, _, held, _ in odd.requests]
    assert len(set(proofs)) == 4
    odd.says(BUSY)
    assert lost.permitted("user:alice", "read", "document:d") is False
    assert 1 < len(odd.requests) <= 4, "not for ever"


@pytest.mark.parametrize("context", [{"approval": {"id": "apr_1"}}, {"auth": {"acr": "x"}}, {"task_id": "task-1"}], ids=str)
def test_what_may_use_something_up_is_sent_once(odd: Odd, lost: Client, context: dict[str, Any]) -> None:
    odd.says(BUSY, (200, {}, PERMIT))
    assert lost.permitted("user:alice", "read", "document:d", context=context) is False
    assert len(odd.requests) == 1
    odd.says(BUSY, (200, {}, b'{"evaluations": [{"decision": true}]}'))
    with pytest.raises(Unanswered):
        lost.evaluations([Ask(Named("user", "a"), Doing("read"), Named("document", "d"), context)])
    assert len(odd.requests) == 1


ONCE: list[Callable[[Client], Any]] = [
    lambda c: c.evaluate("user:a", "read", "document:d", approval="apr_1"),
    lambda c: c.create_task("mail"),
    lambda c: c.start_task("task-1", {"id": "apr_1"}),
    lambda c: c.complete_task("task-1"),
    lambda c: c.exchange(subject_token="t"),
    lambda c: c.tool_call({"method": "tools/call"}),
    lambda c: c.create_key("n", ["decide"]),
    lambda c: c.revoke_key("k"),
    lambda c: c.close_finding("f", "r"),
    lambda c: c.rotate_token_key(),
]
AGAIN: list[Callable[[Client], Any]] = [
    lambda c: c.task("task-1"),
    lambda c: c.status(),
    lambda c: c.trust(identity=["a"]),
    lambda c: c.introspect("t"),
    lambda c: c.list_keys(),
    lambda c: c.send_findings([b"{}"]),
]


@pytest.mark.parametrize("call", ONCE)
def test_changes_are_not_repeated(odd: Odd, lost: Client, call: Callable[[Client], Any]) -> None:
    odd.says(BUSY)
    with pytest.raises(Unanswered):
        call(lost)
    assert len(odd.requests) == 1


def test_an_access_request_is_repeated_under_one_key(odd: Odd, lost: Client) -> None:
    from aftergate.client import Decision

    odd.says(BUSY, (202, {}, b'{"task": {"id": "arq_1", "status": "pending"}}'))
    denial = Decision(False, {"access_request": {"binding_token": "b", "expires_at": "x"}})
    assert lost.request_access(asked(), denial).task.id == "arq_1"
    assert len({held["idempotency-key"] for _, _, held, _ in odd.requests}) == 1
    assert len(odd.requests) == 2


@pytest.mark.parametrize("call", AGAIN)
def test_reads_are_repeated(odd: Odd, lost: Client, call: Callable[[Client], Any]) -> None:
    odd.says(BUSY)
    with pytest.raises(Unanswered):
        call(lost)
    assert len(odd.requests) == 4


@pytest.mark.parametrize(
    "said",
    [[], [{"decision": True}], [{"decision": True}] * 3, [{"decision": True}, {"decision": "true"}], [{"decision": True}, {}], "x"],
    ids=str,
)
def test_answers_that_do_not_fit_the_questions_are_none(odd: Odd, lost: Client, said: Any) -> None:
    odd.says((200, {}, json.dumps({"evaluations": said}).encode()))
    items = [Ask(Named("user", "a"), Doing("read"), Named("document", "d"))] * 2
    with pytest.raises(Unanswered):
        lost.evaluations(items)
    with pytest.raises(Unanswered):
        lost.evaluations(items, semantic="deny_on_first_deny") if said != [{"decision": True}] * 3 else lost.evaluations(items)


@pytest.mark.parametrize("task", [{"status": "pending"}, {"status": "Approved"}, {"status": "weird"}, {"status": "approved"}], ids=str)
def test_only_approved_with_an_approval_is_approved(odd: Odd, lost: Client, task: dict[str, Any]) -> None:
    result = {"approval": {"id": "apr_1"}} if task["status"] != "approved" else {}
    odd.says((200, {}, json.dumps({"task": {"id": "arq_1", **task}, "result": result}).encode()))
    assert not lost.wait("arq_1", timeout_s=0.1, every_s=0.05).approved


def test_pages_of_a_search_are_followed(odd: Odd, lost: Client) -> None:
    odd.says(
        (200, {}, b'{"results": [{"type": "document", "id": "a"}], "page": {"next_token": "t1"}}'),
        (200, {}, b'{"results": [{"type": "document", "id": "b"}], "page": {"next_token": ""}}'),
    )
    assert [each["id"] for each in lost.search("resource", subject="user:a", action="read", resource="document")] == ["a", "b"]
    assert json.loads(odd.requests[1][3])["page"] == {"token": "t1"}


def test_an_export_that_breaks_off_is_not_left_behind(odd: Odd, lost: Client, tmp_path: Path) -> None:
    odd.says("cut")
    with pytest.raises(Unanswered):
        lost.export_audit(tmp_path / "a.tar.gz")
    assert not (tmp_path / "a.tar.gz").exists()


@pytest.mark.parametrize("url", ["ftp://x", "gate.example", "http://gate.example", "https://gate.example/?q=1", "https://"])
def test_an_address_that_would_show_the_key_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as told:
        Client(url, "a-secret-key")
    assert "a-secret-key" not in str(told.value)


@pytest.mark.parametrize("named", ["alice", ":alice", "user:", ""])
def test_what_is_no_entity_is_refused_before_it_is_sent(odd: Odd, lost: Client, named: str) -> None:
    odd.says((200, {}, PERMIT))
    assert lost.permitted(named, "read", "document:d") is False
    with pytest.raises(ConfigError):
        lost.evaluate(named, "read", "document:d")
    assert odd.requests == []
