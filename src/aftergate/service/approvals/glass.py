"""Broken glass: go ahead now, with a reason, everybody told, and a review that stays open until somebody else closes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import Connection

from aftergate.audit.records import Actor, ApprovalRef, Record
from aftergate.authz.errors import BadRequest
from aftergate.authz.transactions import machine
from aftergate.authz.transactions.canonical import b64url
from aftergate.authz.transactions.machine import State, folded
from aftergate.authz.transactions.objects import challenge, encoded, rfc3339
from aftergate.errors import AftergateError
from aftergate.service.approvals.recording import new_id, notify, record
from aftergate.service.approvals.standing import Requester
from aftergate.stores import approvals as store
from aftergate.stores import people
from aftergate.stores.approvals import Approval

if TYPE_CHECKING:
    from aftergate.service.core import Core

log = structlog.get_logger("aftergate")


class NotYours(AftergateError):
    """A review that this person may not close: their own, or closed already."""

    code = "review"


def breaking(connection: Connection, approval: Approval, who: Requester, reason: str, now_ms: int, records: list[Record]) -> State | None:
    """Open it, if the requester is one person who may; None if not, and the request waits for people like any other.

    Raises: BadRequest, if no reason is given.
    """
    person = who.persons[0] if len(who.persons) == 1 else None
    if person is None or not approval.asked.break_glass or any(not person.groups & set(groups) for groups in approval.asked.break_glass):
        return None
    if not reason:
        raise BadRequest("breaking glass needs a reason", where="context.business_justification")
    step = machine.break_glass(approval.state, reason, person.id, now_ms)
    if step.refused is not None:
        return None
    review = new_id("rev")
    store.open_review(connection, review, approval.number, person.id, reason, now_ms)
    told = [p.id for p in people.members(connection, approval.asked.groups) if p.id != person.id]
    held = approval.object
    notify(connection, told, "breakglass.opened", approval.id, f"{person.name} broke glass: {reason}", now_ms)
    approved = {**held, "risk": approval.risk.wire(), "break_glass": {"person": person.id, "review": review}}
    digest = b64url(challenge(encoded(approved)))
    records.append(
        record(
            "breakglass.opened",
            approval,
            actor=Actor("person", person.id),
            risk=approval.risk,
            ref=ApprovalRef(approval.id, digest, person.id, quorum=held["quorum"]["needed"]),
            detail={"review": review, "told": len(told), "groups": list(approval.asked.groups)},
            personal={"reason": reason},
            evidence={"form": "break_glass", "object": approved},
        )
    )
    log.warning("glass broken", request=approval.id, review=review)
    return step.state


def close(core: Core, review_id: str, person: people.Person, note: str, now_ms: int) -> dict[str, Any]:
    """Close a review, as somebody else than who broke the glass, with what was found.

    Raises: NotYours, BadRequest, StoreUnavailable.
    """
    if not note.strip():
        raise BadRequest("say what you found", where="note")
    with core.db.write() as connection:
        held = store.review(connection, review_id)
        approval = None if held is None else store.by_number(connection, held.approval)
        if held is None or approval is None or not may_see(approval, person):
            raise NotYours("no such review")
        if folded(person.names) & approval.state.terms.requester:
            raise NotYours("who broke the glass does not close its review")
        if not store.close_review(connection, review_id, person.id, note.strip()[:4000], now_ms):
            raise NotYours("the review is closed already")
        closed = record(
            "breakglass.closed",
            approval,
            actor=Actor("person", person.id),
            detail={"review": review_id, "opened_at": rfc3339(held.opened_ms)},
            personal={"note": note.strip()[:4000]},
        )
        core.audit.append(connection, [closed])
        core.db.touch(connection, store.TOPIC)
    return {"id": review_id, "closed_at": rfc3339(now_ms), "closed_by": person.id}


def may_see(approval: Approval, person: people.Person) -> bool:
    """Those who approve such requests see their reviews."""
    return bool(person.groups & set(approval.asked.groups))


def listed(core: Core, person: people.Person, *, open_only: bool) -> list[dict[str, Any]]:
    """Reviews of what this person's groups approve, newest first."""
    made: list[dict[str, Any]] = []
    with core.db.read() as connection:
        for row in store.review_list(connection, open_only=open_only):
            approval = store.by_number(connection, row.approval)
            if approval is None or not may_see(approval, person):
                continue
            made.append(
                {
                    "id": row.id,
                    "request": row.request,
                    "opened_at": rfc3339(row.opened_ms),
                    "opened_by": row.person,
                    "reason": row.reason,
                    "closed_at": rfc3339(row.closed_ms) if row.closed_ms else None,
                    "closed_by": row.closed_by,
                    "note": row.note,
                    "used": any(item == "consumed" for item in approval.state.items),
                }
            )
    return made
