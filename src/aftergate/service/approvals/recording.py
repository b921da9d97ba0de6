"""What a step brought about, as audit records, messages and rows: written in the transaction that made the step."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection

from aftergate.audit.records import Actor, ApprovalRef, Party, PolicyRef, Record
from aftergate.audit.records import Risk as RecordedRisk
from aftergate.authz.transactions import machine
from aftergate.authz.transactions.machine import Happening, State
from aftergate.authz.transactions.objects import Risk
from aftergate.service.trust import Standing
from aftergate.stores import approvals as store
from aftergate.stores.approvals import About, Approval

if TYPE_CHECKING:
    from aftergate.service.core import Core

NOTICE: Final = "notice"
CALLBACK: Final = "callback"
SERVER: Final = Actor("server", "approvals")
# Outcomes that a requester can ask to be told of (ARAP, Callback Completion).
EVENTS: Final = ("approved", "denied", "expired", "cancelled", "failed", "partial")


def new_id(kind: str) -> str:
    """An id nobody can guess: 192 bits."""
    return f"{kind}_{secrets.token_urlsafe(24)}"


def risk_of(standing: Standing) -> Risk:
    """Risk as the object states it: what is missing to full trust, and the findings behind it."""
    return Risk(100 - standing.lowest, standing.ids, standing.findings, standing.marks)


def scored(core: Core, connection: Connection, about: About) -> Risk:
    """Risk now, from the findings as this transaction sees them."""
    return risk_of(core.trust.read(connection, about.identity, about.session, about.credential))


def recorded(risk: Risk) -> RecordedRisk:
    return RecordedRisk(risk.score, risk.band, risk.slugs)


def record(
    kind: str,
    approval: Approval,
    *,
    actor: Actor = SERVER,
    items: Sequence[int] = (),
    risk: Risk | None = None,
    ref: ApprovalRef | None = None,
    reasons: Iterable[str] = (),
    detail: dict[str, Any] | None = None,
    **more: Any,
) -> Record:
    """One record about a request; `items` says about which of it, so that a single item's action and resource stand in it."""
    held = approval.object
    listed = held.get("items") or [held]
    named = [listed[i] for i in items] if items else listed
    one = named[0] if len(named) == 1 else None
    subject = held["subject"]
    said = dict(detail or {})
    said["approvals"] = [item["approval_id"] for item in named]
    if "items" in held:
        said["items"] = [int(i) for i in items] if items else list(range(len(listed)))
        said["batch"] = {"count": len(listed), "root": held["batch"]["root"]}
    return Record(
        type=kind,
        actor=actor,
        subject=Party(subject["type"], subject["id"]),
        action="" if one is None else str(one["action"]["name"]),
        resource=None if one is None else Party(one["resource"]["type"], one["resource"]["id"]),
        reasons=tuple(reasons),
        risk=None if risk is None else recorded(risk),
        policy=PolicyRef(",".join(held["policy"]["ids"]), "", held["policy"]["digest"]),
        approval=ref or ApprovalRef(approval.id, quorum=held["quorum"]["needed"]),
        transaction=approval.id,
        detail=said,
        **more,
    )


def records_of(approval: Approval, happenings: Iterable[Happening], *, actor: Actor = SERVER, risk: Risk | None = None) -> list[Record]:
    """The records of what a step brought about, where nothing more is to be said."""
    return [
        record(one.type, approval, actor=actor, items=one.items, risk=risk, reasons=(one.reason,) if one.reason else ())
        for one in happenings
    ]


def keep(core: Core, connection: Connection, approval: Approval, after: State, now_ms: int) -> None:
    """Write the state a step gave, and tell who wants to know if the request was decided by it. Nothing, if nothing changed."""
    if after == approval.state:
        return
    store.save(connection, approval.number, after)
    core.db.touch(connection, store.TOPIC)
    before, now = machine.wire_status(approval.state), machine.wire_status(after)
    if before == "pending" and now != "pending":
        call_back(connection, approval, now, now_ms)


def call_back(connection: Connection, approval: Approval, status: str, now_ms: int) -> None:
    """Queue the requester's callback for this outcome, if it asked for one."""
    wanted = approval.callback
    if wanted is None or (wanted.events and status not in wanted.events):
        return
    store.tell(connection, CALLBACK, [{"endpoint": wanted.endpoint, "state": wanted.state, "task": approval.id, "status": status}], now_ms)


def notify(connection: Connection, people: Iterable[str], kind: str, approval_id: str, text: str, now_ms: int) -> None:
    """A message to each of these persons, shown in their inbox."""
    told = [{"to": person, "kind": kind, "request": approval_id, "text": text, "at_ms": now_ms} for person in sorted(set(people))]
    store.tell(connection, NOTICE, told, now_ms)
