"""The product's own record of what agents do through a tool gateway: calls, runs, tasks, grants, delegations, registry changes.

A line without `record` is a tool call. `agent_id` is the agent as the gateway authenticated it, so it is the actor of every line that
has one; whoever declared, granted or changed something stands in the parameters.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from aftergate.connectors.base import Source
from aftergate.connectors.loose import content_id, decode, items, kept, mail, mapping, moment, moment_or_none, number, text, texts
from aftergate.errors import NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.vocabulary import Detail, Event, Kind, Tag, Target

SOURCE: Final = "agent.gateway"

_RECORDS: dict[str, tuple[Kind, str]] = {
    "run": (Kind.OTHER, "auth"),
    "task": (Kind.POLICY_CHANGE, "admin"),
    "grant": (Kind.POLICY_CHANGE, "admin"),
    "delegation": (Kind.IDENTITY_LIFECYCLE, "admin"),
    "registry": (Kind.POLICY_CHANGE, "admin"),
}


def operation(name: str) -> tuple[Kind, str, str, tuple[Tag, ...]]:
    """`SERVER.TOOL` is a call; `agent:RECORD` one of the gateway's other facts."""
    record = name.removeprefix("agent:")
    if record != name and record in _RECORDS:
        kind, family = _RECORDS[record]
        return kind, "agent-gateway", family, ()
    return Kind.TOOL_CALL, f"agent-{name.partition('.')[0]}", "execute", ()


class Record(Struct, gc=False):
    ts: Any = None
    id: Any = None
    record: Any = None
    agent_id: Any = None
    run_id: Any = None
    principal: Any = None
    act: Any = None
    server: Any = None
    tool: Any = None
    args_class: Any = None
    args_hash: Any = None
    decision: Any = None
    token_jti: Any = None
    task_id: Any = None
    bytes_in: Any = None
    bytes_out: Any = None
    phase: Any = None
    status: Any = None
    purpose: Any = None
    allow: Any = None
    data_classes: Any = None
    declared_by: Any = None
    granted_by: Any = None
    not_before: Any = None
    not_after: Any = None
    cleanup_grace_s: Any = None
    named_chains: Any = None
    delegation_id: Any = None
    scope: Any = None
    standing: Any = None
    reason: Any = None
    change: Any = None
    object: Any = None
    tool_from: Any = None
    tool_to: Any = None
    manifest_hash: Any = None
    previous_hash: Any = None
    scopes_added: Any = None
    scopes_removed: Any = None
    description_changed: Any = None
    changed_by: Any = None
    review: Any = None
    signed: Any = None


_record = msgspec.json.Decoder(Record)


def _allowed(value: Any) -> list[dict[str, Any]]:
    """What may be called: server, tools, argument classes. A missing list of classes is no limit, and stays None."""
    found = []
    for entry in items(value)[:200]:
        one = mapping(entry)
        classes = one.get("args_class")
        found.append(
            {
                "server": text(one.get("server")),
                "tools": list(texts(one.get("tools"))),
                "args_class": None if classes is None else list(texts(classes)),
            }
        )
    return found


def _chains(value: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": text(one.get("name")),
            "steps": list(texts(one.get("steps"))),
            "max_per_run": number(one.get("max_per_run")),
            "max_bytes_out": number(one.get("max_bytes_out")),
        }
        for one in (mapping(entry) for entry in items(value)[:100])
    ]


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


class Gateway:
    """One JSON object a line."""

    def __init__(self, interner: Interner) -> None:
        self.intern = interner

    def parse(self, line: bytes) -> Event:
        record = decode(_record, line)
        kind = record.record
        if kind is not None and not isinstance(kind, str):
            raise NotMine("`record` is not a name")
        if kind is not None and kind not in _RECORDS:
            raise Reject(f"unknown record `{kind[:40]}`")
        server, tool = text(record.server), text(record.tool)
        agent_id = text(record.agent_id)
        if kind is None and (agent_id is None or server is None or tool is None):
            raise NotMine("a tool call names agent_id, server and tool")
        if kind is not None and agent_id is None and kind != "registry":
            raise Reject(f"{kind} record has no agent_id")
        time = moment(record.ts)
        intern = self.intern
        event_id = text(record.id) or content_id(line)
        principal = mail(record.principal)
        run, task, token = text(record.run_id), text(record.task_id), text(record.token_jti)
        if agent_id is not None:
            actor = intern.actor(agent_id, kind="agent")
        else:
            changed_by = mail(record.changed_by) or "unknown"
            actor = intern.actor(changed_by, kind="human" if "@" in changed_by else "workload" if ":" in changed_by else "unknown")
        detail = Detail(
            act=tuple(
                name for item in items(record.act) if (name := text(item.get("sub") if isinstance(item, dict) else item)) is not None
            ),
            run=run,
            task=task,
        )
        error = None
        silent = None
        if kind is None:
            decision = text(record.decision)
            error = None if decision in (None, "allow") else decision
            silent = "agent_tool"
            detail.params = kept(
                {
                    "principal": principal,
                    "server": server,
                    "tool": tool,
                    "args_class": text(record.args_class),
                    "args_hash": text(record.args_hash),
                    "decision": decision,
                    "bytes_in": number(record.bytes_in),
                }
            )
            name = f"{server}.{tool}"
            target: str | None = server
            detail.targets = (Target(server, "server"),) if server else ()
        else:
            name = f"agent:{kind}"
            phase = text(record.phase)
            detail.phase = phase if phase in ("start", "end") else None
            detail.status = text(record.status)
            detail.params = self._params(record, principal)
            detail.scopes = texts(record.scope)
            target = text(record.object) or text(record.delegation_id) or task or agent_id
            detail.targets = (Target(target, kind),) if target else ()
        shape = intern.shape(SOURCE, intern.action(SOURCE, name[:160], operation), actor, error=error, resource=server, silent=silent)
        return Event(
            time,
            event_id,
            shape,
            credential=token,
            session=run,
            target=target,
            size=max(number(record.bytes_out) or 0, 0),
            detail=detail,
        )

    @staticmethod
    def _params(record: Record, principal: str | None) -> dict[str, Any] | None:
        found: dict[str, Any] = {
            "principal": principal,
            "agent_id": text(record.agent_id),
            "status": text(record.status),
            "phase": text(record.phase),
            "purpose": text(record.purpose),
            "data_classes": list(texts(record.data_classes)),
            "declared_by": mail(record.declared_by),
            "granted_by": mail(record.granted_by),
            "not_before": moment_or_none(record.not_before),
            "not_after": moment_or_none(record.not_after),
            "cleanup_grace_s": number(record.cleanup_grace_s),
            "delegation_id": text(record.delegation_id),
            "standing": _flag(record.standing),
            "reason": text(record.reason),
            "change": text(record.change),
            "object": text(record.object),
            "server": text(record.server),
            "tool": text(record.tool),
            "tool_from": text(record.tool_from),
            "tool_to": text(record.tool_to),
            "manifest_hash": text(record.manifest_hash),
            "previous_hash": text(record.previous_hash),
            "scopes_added": list(texts(record.scopes_added)),
            "scopes_removed": list(texts(record.scopes_removed)),
            "description_changed": _flag(record.description_changed),
            "changed_by": mail(record.changed_by),
            "review": text(record.review),
            "signed": _flag(record.signed),
        }
        # an empty allow list forbids everything and an absent one says nothing, so emptiness must survive here
        lists = {
            "allow": _allowed(record.allow) if isinstance(record.allow, list) else None,
            "named_chains": _chains(record.named_chains) if isinstance(record.named_chains, list) else None,
            "scope": list(texts(record.scope)) if isinstance(record.scope, list) else None,
        }
        return {**(kept(found) or {}), **{key: value for key, value in lists.items() if value is not None}} or None


def _recognise(record: dict[str, Any]) -> bool:
    if "ts" not in record:
        return False
    kind = record.get("record")
    if kind is None:
        return isinstance(record.get("agent_id"), str) and isinstance(record.get("tool"), str) and "server" in record
    return kind == "registry" or (isinstance(kind, str) and kind in _RECORDS and "agent_id" in record)


SOURCES = (
    Source(
        SOURCE,
        "Agent and tool gateway",
        _recognise,
        Gateway,
        frozenset(["session", "credential", "bytes", "act", "tool_call", "agent.grant", "policy", "scopes"]),
        (
            "Where a gateway writes no delegation lines, nothing is known about delegation.",
            "Calls name no address: where an agent runs is for other logs to say.",
        ),
        priority=10,
    ),
)
