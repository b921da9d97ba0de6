"""What an approver sees: the inbox, and one request in full, rendered from what is stored and bound, from nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection

from aftergate.authz.transactions import machine
from aftergate.authz.transactions.machine import Approver, as_it_stands, folded
from aftergate.authz.transactions.objects import rfc3339
from aftergate.service.approvals.deciding import Acting, Undecided, may_see
from aftergate.service.approvals.recording import NOTICE, scored
from aftergate.stores import approvals as store
from aftergate.stores import findings, people
from aftergate.stores.approvals import Approval
from aftergate.stores.people import Person

if TYPE_CHECKING:
    from aftergate.service.core import Core

LATELY_MS: Final = 7 * 86_400_000
NOTICES_MS: Final = 30 * 86_400_000


def inbox(core: Core, acting: Acting, now_ms: int, *, everything: bool = False) -> list[dict[str, Any]]:
    """Requests this person may see: those that wait, oldest first; or with `everything` all, newest first."""
    with core.db.read() as connection:
        person = _person(connection, acting)
        held = store.newest(connection) if everything else store.waiting(connection)
        return [_line(core, connection, one, person, acting, now_ms) for one in held if may_see(one, person)]


def view(core: Core, acting: Acting, id_: str, now_ms: int) -> dict[str, Any]:
    """One request in full.

    `object` holds exactly the fields that an approval binds. Raises: Undecided (no_such_request), StoreUnavailable.
    """
    with core.db.read() as connection:
        person = _person(connection, acting)
        approval = store.by_id(connection, id_) if len(id_) <= 64 else None
        if approval is None or not may_see(approval, person):
            raise Undecided("no_such_request", "no such request for you", status=404)
        risk = scored(core, connection, approval.about)
        about = approval.about
        named = [*about.identity, *about.session, *about.credential]
        why = [
            {"id": f.id, "detection": f.detection, "severity": f.severity, "title": f.title, "narrative": f.narrative, "time": rfc3339(f.time),
             "new": as_it_stands(f.id, f.severity, f.time) not in approval.state.findings}
            for f, _ in findings.open_about(connection, named)
        ]  # fmt: skip
        lately = [
            {"id": one.id, "what": summary(one), "status": machine.status(one.state), "at": rfc3339(one.created_ms)}
            for one in store.lately(connection, approval.subject, now_ms - LATELY_MS)
            if one.id != approval.id
        ]
        votes = [
            {"person": row.person, "verdict": row.verdict, "reason": row.reason, "at": rfc3339(row.at_ms)}
            for row in store.votes_of(connection, approval.number)
        ]
        made = _line(core, connection, approval, person, acting, now_ms)
        used = [
            {"item": row.place, "at": rfc3339(row.consumed_ms)} for row in store.items_of(connection, approval.number) if row.consumed_ms
        ]
    made |= {
        "object": approval.object,
        "risk": {"now": risk.wire(), "at_request": approval.risk.wire(), "findings": why},
        "lately": lately,
        "votes": votes,
        "items": list(approval.state.items),
        "used": used,
        "outcome": approval.state.reason,
    }
    return made


def notices(core: Core, acting: Acting, now_ms: int) -> list[dict[str, Any]]:
    """What this person was told of, newest first."""
    import msgspec

    with core.db.read() as connection:
        _person(connection, acting)
        rows = store.notes_for(connection, NOTICE, now_ms - NOTICES_MS)
    held = [msgspec.json.decode(row.body) for row in rows]
    return [
        {"kind": one["kind"], "request": one["request"], "text": one["text"], "at": rfc3339(one["at_ms"])}
        for one in held
        if one["to"] == acting.person
    ]


def summary(approval: Approval) -> str:
    """One line: what is asked."""
    held = approval.object
    listed = held.get("items") or [held]
    first = f"{listed[0]['action']['name']} on {listed[0]['resource']['type']} {listed[0]['resource']['id']}"
    return first if len(listed) == 1 else f"{first} and {len(listed) - 1} more"


def _line(core: Core, connection: Connection, approval: Approval, person: Person, acting: Acting, now_ms: int) -> dict[str, Any]:
    held, state = approval.object, machine.tick(approval.state, now_ms).state
    refusal = machine.eligible(state, Approver(person.id, folded(person.names), person.groups, acting.session))
    if "pending" not in state.items:
        refusal = machine.Refusal("not_pending", f"the request is {machine.status(state)}")
    return {
        "id": approval.id,
        "status": machine.status(state),
        "what": summary(approval),
        "subject": held["subject"],
        "resource": held.get("resource"),
        "reason": approval.reason,
        "risk_band": scored(core, connection, approval.about).band,
        "batch": held.get("batch"),
        "asked_at": rfc3339(approval.created_ms),
        "expires_at": held["expires_at"],
        "usable_until": rfc3339(state.until_ms) if state.until_ms else None,
        "needed": held["quorum"],
        "approved_by": [vote.person for vote in state.votes if vote.items],
        "break_glass": state.break_glass,
        "can_decide": refusal is None,
        "why_not": None if refusal is None else {"reason": refusal.code, "detail": refusal.detail},
    }


def _person(connection: Connection, acting: Acting) -> Person:
    person = people.person(connection, acting.person)
    if person is None or person.removed_ms is not None:
        raise Undecided("not_an_approver", "you are not known any more", status=403)
    return person
