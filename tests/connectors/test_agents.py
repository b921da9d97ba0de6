"""Gateway lines become the events that the table says."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cloudlike import event, facts, raw, survives

from aftergate.connectors.agents.normalise import SOURCES
from aftergate.errors import NotMine, Reject

(GATEWAY,) = SOURCES
CALL = {
    "ts": "2026-02-16T09:33:21.882Z",
    "id": "tc_1",
    "agent_id": "agent:desk",
    "run_id": "run-1",
    "principal": "Mira@brasshollow.example",
    "act": [{"sub": "spiffe://brasshollow.example/desk"}, "planner"],
    "server": "crm",
    "tool": "search",
    "args_class": "ticket.query",
    "args_hash": "sha256:99",
    "decision": "allow",
    "token_jti": "jti-1",
    "task_id": "task-1",
    "bytes_in": 598,
    "bytes_out": 5977,
}
ALLOW = [{"server": "crm", "tools": ["search"], "args_class": ["ticket.query"]}, {"server": "kb", "tools": ["find"]}]
RECORDS: dict[str, dict[str, Any]] = {
    "run": {"ts": CALL["ts"], "id": "r1", "record": "run", "phase": "end", "agent_id": "agent:desk", "run_id": "run-1", "token_jti": "jti-1", "status": "completed"},
    "task": {
        "ts": CALL["ts"], "id": "t1", "record": "task", "task_id": "task-1", "agent_id": "agent:desk", "purpose": "answer", "allow": ALLOW,
        "data_classes": ["ticket"], "not_before": "2026-02-16T09:00:00Z", "not_after": "2026-02-16T11:00:00Z", "cleanup_grace_s": 60,
    },
    "grant": {
        "ts": CALL["ts"], "id": "g1", "record": "grant", "agent_id": "agent:desk", "allow": [], "granted_by": "Olu@brasshollow.example", "not_after": None,
        "named_chains": [{"name": "answer", "steps": ["crm.search:ticket.query"], "max_per_run": 3, "max_bytes_out": 20000}],
    },
    "delegation": {
        "ts": CALL["ts"], "id": "d1", "record": "delegation", "status": "revoked", "delegation_id": "dlg-1", "principal": "Mira@brasshollow.example",
        "agent_id": "agent:desk", "scope": ["crm"], "standing": True, "not_after": "2026-06-16T00:00:06Z",
    },
    "registry": {
        "ts": CALL["ts"], "id": "x1", "record": "registry", "change": "tool_renamed", "object": "server:crm", "tool_from": "search", "tool_to": "search_v2",
        "scopes_added": [], "changed_by": "pipeline:release", "review": "pr-1", "signed": True,
    },
}  # fmt: skip


def test_call() -> None:
    """A call names agent, run, token, task and the chain of who acts for whom."""
    assert GATEWAY.recognise(CALL)
    found = facts(event(GATEWAY, CALL))
    wanted = {
        "id": "tc_1", "kind": "tool_call", "action": "crm.search", "klass": "agent-crm:execute", "actor": "agent:desk", "actor_kind": "agent", "session": "run-1",
        "credential": "jti-1", "task": "task-1", "run": "run-1", "size": 5977, "silent": "agent_tool", "act": ("spiffe://brasshollow.example/desk", "planner"),
    }  # fmt: skip
    assert {key: found.get(key) for key in wanted} == wanted
    params = event(GATEWAY, CALL).d.params
    assert params is not None
    assert (params["principal"], params["args_class"], params["decision"]) == ("mira@brasshollow.example", "ticket.query", "allow")


def test_denied_call_is_an_error() -> None:
    """A denied call did not happen."""
    assert event(GATEWAY, {**CALL, "decision": "deny"}).shape.error == "deny"
    assert event(GATEWAY, {**CALL, "decision": None}).ok


def test_call_without_id_is_known_by_its_bytes() -> None:
    """The same bytes are the same event, whatever blank stands around them."""
    line = raw({key: value for key, value in CALL.items() if key != "id"})
    wanted = hashlib.sha256(line).hexdigest()[:32]
    assert event(GATEWAY, line).id == event(GATEWAY, line + b"\r\n").id == wanted


@pytest.mark.parametrize(
    ("record", "kind", "params"),
    [
        ("run", "other", {"phase": "end", "status": "completed"}),
        (
            "task",
            "policy_change",
            {
                "allow": [
                    {"server": "crm", "tools": ["search"], "args_class": ["ticket.query"]},
                    {"server": "kb", "tools": ["find"], "args_class": None},
                ],
                "not_before": 1_771_232_400_000,
                "not_after": 1_771_239_600_000,
                "cleanup_grace_s": 60,
                "data_classes": ["ticket"],
            },
        ),
        (
            "grant",
            "policy_change",
            {
                "allow": [],
                "granted_by": "olu@brasshollow.example",
                "named_chains": [{"name": "answer", "steps": ["crm.search:ticket.query"], "max_per_run": 3, "max_bytes_out": 20000}],
            },
        ),
        (
            "delegation",
            "identity_lifecycle",
            {"status": "revoked", "principal": "mira@brasshollow.example", "scope": ["crm"], "standing": True},
        ),
        (
            "registry",
            "policy_change",
            {"change": "tool_renamed", "tool_to": "search_v2", "signed": True, "review": "pr-1", "changed_by": "pipeline:release"},
        ),
    ],
)
def test_records(record: str, kind: str, params: dict[str, Any]) -> None:
    """The gateway's other facts carry what rules read; an empty allow list stays, since it forbids everything."""
    line = RECORDS[record]
    assert GATEWAY.recognise(line)
    found = event(GATEWAY, line)
    assert found.kind == kind
    assert found.action.name == f"agent:{record}"
    assert found.d.params is not None
    assert {key: found.d.params.get(key) for key in params} == params


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ({"ts": "2026-02-16T09:33:21Z", "agent_id": "a"}, NotMine),
        ({**CALL, "record": 5}, NotMine),
        ({**CALL, "record": "weather"}, Reject),
        ({**RECORDS["run"], "agent_id": None}, Reject),
        ({**CALL, "ts": None}, Reject),
        ({**CALL, "ts": "later"}, Reject),
    ],
)
def test_refusals(line: dict[str, Any], error: type[Exception]) -> None:
    """What is no gateway line, or lacks agent or time, is refused."""
    with pytest.raises(error):
        event(GATEWAY, line)


def test_wrong_types_only_reject() -> None:
    """Whatever stands in a field, nothing but a refusal comes out."""
    assert survives(GATEWAY, [CALL, *RECORDS.values()]) > 300
