"""Whose yes still counts: an approver may be gone by the time an approval is used, or have lost the group or the authenticator it rested on."""

from __future__ import annotations

from msgspec.structs import replace
from sqlalchemy import Connection

from aftergate.authz.transactions import machine
from aftergate.authz.transactions.canonical import unb64url
from aftergate.authz.transactions.machine import State, Step, Vote
from aftergate.stores import people


def counted(connection: Connection, state: State, now_ms: int) -> Step:
    """The state with the votes that count now; an approval that was given and is no longer borne out by them ends. A no stays a no."""
    if state.glass_by:
        breaker = people.person(connection, state.glass_by)
        gone = breaker is None or breaker.removed_ms is not None
        return machine.void(state, "whoever broke the glass has been removed since", now_ms) if gone else Step(state)
    votes: list[Vote] = []
    lost: list[str] = []
    for vote in state.votes:
        why = _lost(connection, vote) if vote.items else ""
        if why:
            lost.append(why)
            continue
        person = people.person(connection, vote.person) if vote.items else None
        votes.append(vote if person is None or vote.groups <= person.groups else replace(vote, groups=vote.groups & person.groups))
    if not lost:
        lost = ["an approver has left the group that approves this"]
    return machine.recount(state, tuple(votes), "; ".join(lost), now_ms)


def _lost(connection: Connection, vote: Vote) -> str:
    """Why a yes counts no more; empty if it does."""
    person = people.person(connection, vote.person)
    if person is None or person.removed_ms is not None:
        return "an approver has been removed since"
    key = people.passkey(connection, unb64url(vote.authenticator))
    if key is None or key.revoked_ms is not None:
        return "an approver's authenticator has been removed since"
    return ""
