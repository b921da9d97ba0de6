"""`aftergate.client` the whole way against a real server: asked, approved, used; tasks and their tokens; the log's export."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "approvals"))
from company import POLICIES, payment
from remote import Remote

from aftergate.client import Action, Ask, Client, Decision, DpopKey, Entity, Refused
from aftergate.errors import ConfigError

pytestmark = pytest.mark.serving
MORE = """
@id("reads") permit (principal is user, action == Action::"read", resource is document);
@id("keeps-away") forbid (principal is user, action == Action::"read", resource == document::"secret");
@id("starts") permit (principal, action in [Action::"task.start", Action::"token.exchange"], resource is task);
"""
ALICE = Entity("user", "alice", {"known": True})  # of whom nothing is known, nothing is found


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
    return Ask(Entity(**held["subject"]), Action(**held["action"]), Entity(**held["resource"]), held["context"])


def use(gate: Client, ask: Ask, approval: Any = "") -> Decision:
    return gate.evaluate(ask.subject, ask.action, ask.resource, context=ask.context, approval=approval)


def test_answers_and_searches(gate: Client) -> None:
    assert gate.permitted("user:alice", "read", "document:d") is True
    assert gate.permitted("user:alice", "read", "document:secret") is False
    items = [Ask(Entity("user", "alice"), Action("read"), Entity("document", name)) for name in ("a", "secret", "b")]
    assert [bool(each) for each in gate.evaluations(items)] == [True, False, True]
    assert [bool(each) for each in gate.evaluations(items, semantic="deny_on_first_deny")] == [True, False]
    assert [bool(each) for each in gate.evaluations(items, semantic="permit_on_first_permit")] == [True]
    for name, there in (("d", True), ("secret", False)):
        found = list(gate.search("action", subject=ALICE, resource=Entity("document", name, {"known": True}), limit=1))
        assert ({"name": "read"} in found) is there


def test_asked_approved_and_used_once_by_the_key_that_asked(remote: Remote, gate: Client) -> None:
    ask = asked()
    denial = use(gate, ask)
    assert (bool(denial), denial.reason) == (False, "approval_required")
    held = gate.request_access(ask, denial, key="once")
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
    assert use(gate, ask, str(done.approval["id"])).reason == "approval_unverifiable"


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
    assert task.id in {each.id for each in gate.tasks(state="active")}
    token = gate.exchange(grant_type="client_credentials", task_id=task.id, scope="read", audience="https://api.example")
    assert token.access_token not in repr(token)
    assert gate.introspect(token.access_token)["active"] is True
    assert gate.complete_task(task.id, "done").state == "completed"
    assert gate.introspect(token.access_token) == {"active": False}
    assert gate.cancel_task(gate.create_task("mail", actions=["read"]).id).state == "cancelled"
    killed = gate.create_task("mail", actions=["read"])
    assert gate.kill_tasks("stolen", task=killed.id)["tasks"] == [killed.id]


def test_the_exported_log_verifies_offline(gate: Client, tmp_path: Path) -> None:
    gate.export_audit(tmp_path / "a.tar.gz", personal=True)
    command = [sys.executable, "-m", "aftergate.cli.main", "audit", "verify", str(tmp_path / "a.tar.gz")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.raises(FileExistsError):
        gate.export_audit(tmp_path / "a.tar.gz")
