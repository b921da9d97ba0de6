"""A candidate set beside the live one: which answers would change, and how."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct

from aftergate.authz.decide import Decision, Snapshot, decide
from aftergate.authz.facts import Facts
from aftergate.authz.wire import EvaluationRequest

ChangeKind = Literal["opened", "closed", "outcome", "policies"]


class Asked(Struct, frozen=True):
    """A request and the facts it was decided on. `id` names it to people: a decision's id, a case, a line."""

    id: str
    request: EvaluationRequest
    facts: Facts


class Change(Struct, frozen=True):
    """One answer that the candidate set would give otherwise.

    `kind`: `opened` (deny to permit), `closed` (permit to deny), `outcome` (another kind of denial), `policies` (same answer, determined otherwise).
    """

    id: str
    kind: ChangeKind
    request: EvaluationRequest
    before: Decision
    after: Decision


def compared(asked: Asked, before: Decision, after: Decision) -> Change | None:
    """What changed, or None. Texts do not count, only answers and what determined them."""
    if before.allowed != after.allowed:
        return Change(asked.id, "opened" if after.allowed else "closed", asked.request, before, after)
    if before.outcome != after.outcome or _erring(before) != _erring(after):
        return Change(asked.id, "outcome", asked.request, before, after)
    if set(before.determining) != set(after.determining):
        return Change(asked.id, "policies", asked.request, before, after)
    return None


def _erring(decision: Decision) -> set[str]:
    return {fault.policy for fault in decision.errors}


def shadow(live: Snapshot, candidate: Snapshot, requests: Iterable[Asked]) -> Iterator[Change]:
    """Every changed answer, in the order of the requests. Facts are those of then: only the policies differ."""
    for asked in requests:
        change = compared(asked, decide(asked.request, live, asked.facts), decide(asked.request, candidate, asked.facts))
        if change is not None:
            yield change
