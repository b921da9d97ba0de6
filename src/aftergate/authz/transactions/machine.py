"""A request for approval, step by step: frozen state, plain functions, every refusal a value.

    pending  -> approved | denied | expired | cancelled | failed       each item on its own
    approved -> consumed | voided                                      each item once

INVARIANT: an item that left `pending` never returns to it, and only `approved` leads to `consumed`; so what was denied, expired, cancelled or
voided is never used, and nothing is used twice. Time, findings and identities are arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

ItemStatus = Literal["pending", "approved", "denied", "expired", "cancelled", "failed", "voided", "consumed"]
WireStatus = Literal["pending", "approved", "denied", "expired", "cancelled", "failed", "partial"]
FAILURES: Final = 5  # PSD2 RTS article 4(3)(b)


class Refusal(Struct, frozen=True):
    """Why a step was not taken. `code` is stable; `detail` is for people and holds no secret."""

    code: str
    detail: str


class Happening(Struct, frozen=True):
    """What a step brought about, in the audit vocabulary."""

    type: str
    reason: str = ""
    items: tuple[int, ...] = ()
    person: str = ""


class Approver(Struct, frozen=True):
    """Who decides: a person with all their names, and what they prove themselves with."""

    person: str
    names: frozenset[str]  # person id and every alias, folded
    groups: frozenset[str]
    session: str
    authenticator: str = ""  # credential id, base64url; empty when denying


class Terms(Struct, frozen=True):
    """What does not change over a request's life."""

    items: int
    needs: tuple[tuple[frozenset[str], int], ...]  # each: so many people of these groups; none: no person is asked
    requester: frozenset[str]  # folded names of the requester, the caller if a person, and everyone on whose behalf
    sessions: frozenset[str]  # sessions the request came from
    authenticators: frozenset[str]  # credentials the requester proved themselves with
    decide_by_ms: int
    ttl_ms: int
    until_ms: int = 0  # the requester's own end of use; 0: none
    failures: int = FAILURES


class Vote(Struct, frozen=True):
    person: str
    names: frozenset[str]
    authenticator: str
    groups: frozenset[str]  # as they were then
    items: frozenset[int]  # the items said yes to; all others of the request are said no to
    at_ms: int


class State(Struct, frozen=True):
    """One request. `findings` are those that were open when it was made, each as it stood then: see `as_it_stands`."""

    terms: Terms
    items: tuple[ItemStatus, ...]
    findings: frozenset[str] = frozenset()
    votes: tuple[Vote, ...] = ()
    failed: tuple[tuple[str, int], ...] = ()  # failed tries by person
    until_ms: int = 0  # end of use, once something is approved
    approved_ms: int = 0
    closed_ms: int = 0
    reason: str = ""
    break_glass: bool = False
    glass_by: str = ""  # who broke it
    by_policy: tuple[str, ...] = ()


class Step(NamedTuple):
    state: State
    emit: tuple[Happening, ...] = ()
    refused: Refusal | None = None


def folded(names: Iterable[str]) -> frozenset[str]:
    """Names as they are compared: the same person may be written in another case."""
    return frozenset(name.strip().casefold() for name in names if name.strip())


def opened(terms: Terms, findings: Iterable[str] = ()) -> State:
    """A new request.

    Raises: ValueError, for terms under which anybody could approve.
    """
    if terms.items < 1 or terms.ttl_ms <= 0 or any(not groups or quorum < 1 for groups, quorum in terms.needs):
        raise ValueError("a request has items, groups that approve it, and time to be used")
    pending: ItemStatus = "pending"
    return State(terms, (pending,) * terms.items, frozenset(findings))


def status(state: State) -> str:
    """One word for people: as on the wire, and `consumed` or `voided` when that is what became of all that was approved."""
    held = set(state.items)
    if held <= {"consumed"}:
        return "consumed"
    if held <= {"voided"}:
        return "voided"
    return wire_status(state)


def item_wire(item: ItemStatus) -> WireStatus:
    # On the wire `approved` is final: whether an approval still holds is answered at the next evaluation.
    return "approved" if item in {"consumed", "voided"} else item  # type: ignore[return-value]  # the others are wire words


def wire_status(state: State) -> WireStatus:
    """The aggregate of the items (ARAP, Access Request Response)."""
    held = {item_wire(item) for item in state.items}
    if "pending" in held:
        return "pending"
    return held.pop() if len(held) == 1 else "partial"


def locked_out(state: State, person: str) -> bool:
    return dict(state.failed).get(person, 0) >= state.terms.failures


def eligible(state: State, by: Approver) -> Refusal | None:
    """Whether this person may decide at all: of a named group, and not the requester under any name, key or session."""
    terms = state.terms
    if locked_out(state, by.person):
        return Refusal("locked_out", "too many failed tries: somebody else must decide")
    if by.names & terms.requester:
        return Refusal("self_approval", "nobody approves their own request, nor one made on their behalf")
    if by.session and by.session in terms.sessions:
        return Refusal("same_session", "the request came from this session")
    if by.authenticator and by.authenticator in terms.authenticators:
        return Refusal("same_authenticator", "the requester proved themselves with this authenticator")
    if not any(by.groups & groups for groups, _ in terms.needs):
        return Refusal("not_an_approver", "you are in none of the groups that approve this")
    for vote in state.votes:
        if vote.person == by.person:
            return Refusal("already_decided", "you have decided on this request")
        if vote.names & by.names or (by.authenticator and vote.authenticator == by.authenticator):
            return Refusal("same_person", "somebody with one of your names or authenticators has decided on this request")
    return None


def tick(state: State, at_ms: int) -> Step:
    """Let time pass: what nobody decided by its deadline expires."""
    if at_ms < state.terms.decide_by_ms or "pending" not in state.items:
        return Step(state)
    return _closing(state, "pending", "expired", "nobody decided in time", at_ms, "approval.expired")


def as_it_stands(finding: str, severity: str, time_ms: int) -> str:
    """A finding by what makes it worth another look: a worse severity, or abuse that went on."""
    return f"{finding} {severity} {time_ms}"


def observe(state: State, findings: Iterable[str], at_ms: int) -> Step:
    """A finding that was not there when the request was made, or is worse now, voids it, and is named. `findings` are as of `as_it_stands`."""
    new = frozenset(findings) - state.findings
    if not new or not {"pending", "approved"} & set(state.items):
        return Step(state)
    known = {one.partition(" ")[0] for one in state.findings}
    named = sorted({one.partition(" ")[0] for one in new})
    fresh, worse = [name for name in named if name not in known], [name for name in named if name in known]
    said = ["new finding " + ", ".join(fresh)] * bool(fresh) + ["worse than at the request: finding " + ", ".join(worse)] * bool(worse)
    return void(state, "; ".join(said), at_ms)


def recount(state: State, votes: tuple[Vote, ...], reason: str, at_ms: int) -> Step:
    """Go on with the votes that still count. An approval that rested on the others, and was not used, ends."""
    if votes == state.votes:
        return Step(state)
    counted = replace(state, votes=votes)
    if all(held != "approved" or _enough(counted, i) for i, held in enumerate(state.items)):
        return Step(counted)
    return void(counted, reason, at_ms)


def void(state: State, reason: str, at_ms: int) -> Step:
    """End what is not used yet, whatever it waits for."""
    gone = tuple(i for i, item in enumerate(state.items) if item in {"pending", "approved"})
    if not gone:
        return Step(state)
    change: dict[str, ItemStatus] = {"pending": "cancelled", "approved": "voided"}
    items = tuple(change.get(item, item) for item in state.items)
    made = replace(state, items=items, reason=reason, closed_ms=at_ms)
    return Step(made, (Happening("approval.voided", reason, gone),))


def approve(state: State, by: Approver, items: Sequence[int] | None, findings: Iterable[str], at_ms: int) -> Step:
    """One person's yes to some or all items, with an assertion that was verified. Items not named are said no to."""
    step = _before(state, by, findings, at_ms)
    if step.refused is not None:
        return step
    chosen = frozenset(range(state.terms.items)) if items is None else frozenset(items)
    if not chosen or min(chosen) < 0 or max(chosen) >= state.terms.items:
        return Step(state, (), Refusal("no_such_item", "the items chosen are not of this request"))
    if not by.authenticator:
        return Step(state, (), Refusal("no_assertion", "approving needs an assertion"))
    vote = Vote(by.person, by.names, by.authenticator, by.groups, chosen, at_ms)
    voted = replace(state, votes=(*state.votes, vote))
    given = Happening("approval.granted", "", tuple(sorted(chosen)), by.person)
    return _tallied(voted, at_ms, (given,))


def deny(state: State, by: Approver, reason: str, findings: Iterable[str], at_ms: int) -> Step:
    """One person's no, with a reason."""
    if not reason.strip():
        return Step(state, (), Refusal("reason_required", "say why"))
    step = _before(state, by, findings, at_ms)
    if step.refused is not None:
        return step
    vote = Vote(by.person, by.names, by.authenticator, by.groups, frozenset(), at_ms)
    voted = replace(state, votes=(*state.votes, vote), reason=reason)
    return _tallied(voted, at_ms, (Happening("approval.denied", reason, tuple(range(state.terms.items)), by.person),))


def fail(state: State, person: str) -> Step:
    """A try to approve that did not hold. After the last one allowed this person is locked out of the request; others are not."""
    counts = dict(state.failed)
    counts[person] = counts.get(person, 0) + 1
    counted = replace(state, failed=tuple(sorted(counts.items())))
    return Step(counted, (Happening("approval.refused", "the assertion was refused", (), person),))


def end(state: State, to: Literal["denied", "failed"], reason: str, at_ms: int) -> Step:
    """End what nobody decided: by a policy's no where no person is asked, or by an error."""
    return _closing(state, "pending", to, reason, at_ms, "approval.denied" if to == "denied" else "approval.cancelled")


def cancel(state: State, reason: str, at_ms: int) -> Step:
    """Take back what is not decided yet. A request that is decided cannot be cancelled (ARAP, Cancellation)."""
    state = tick(state, at_ms).state
    if "pending" not in state.items:
        return Step(state, (), Refusal("invalid_task_state", f"the request is {status(state)}"))
    return _closing(state, "pending", "cancelled", reason or "cancelled", at_ms, "approval.cancelled")


def revoke(state: State, reason: str, at_ms: int) -> Step:
    """Take back an approval that was given and not used."""
    if "approved" not in state.items:
        return Step(state, (), Refusal("invalid_task_state", f"the request is {status(state)}"))
    return void(state, reason or "taken back", at_ms)


def approve_by_policy(state: State, policies: tuple[str, ...], at_ms: int) -> Step:
    """The machine-to-machine form: policies, not people, say yes to everything."""
    if not policies or state.votes or set(state.items) != {"pending"} or at_ms >= state.terms.decide_by_ms:
        return Step(state, (), Refusal("invalid_task_state", "a policy approves a fresh request or none"))
    given = Happening("approval.granted", "by policy " + ", ".join(policies), tuple(range(state.terms.items)))
    return Step(_usable(replace(state, items=("approved",) * state.terms.items, by_policy=policies), at_ms), (given,))


def break_glass(state: State, reason: str, person: str, at_ms: int) -> Step:
    """Go ahead now, be reviewed after. The caller has checked the role."""
    if not reason.strip():
        return Step(state, (), Refusal("reason_required", "breaking glass needs a reason"))
    if state.votes or set(state.items) != {"pending"} or at_ms >= state.terms.decide_by_ms:
        return Step(state, (), Refusal("invalid_task_state", "glass is broken for a fresh request or not at all"))
    made = _usable(replace(state, items=("approved",) * state.terms.items, break_glass=True, glass_by=person, reason=reason), at_ms)
    return Step(made, (Happening("breakglass.opened", reason, tuple(range(state.terms.items)), person),))


def usable(state: State, item: int, at_ms: int) -> Refusal | None:
    """Whether this item could be used now, findings aside. Codes are the profile's reasons for a denied re-evaluation."""
    held = state.items[item] if 0 <= item < len(state.items) else None
    if held is None:
        return Refusal("approval_unverifiable", "no such item")
    if held == "pending":
        late = at_ms >= state.terms.decide_by_ms
        return Refusal("approval_expired", "nobody decided in time") if late else Refusal("grant_pending", "not decided yet")
    if held == "expired":
        return Refusal("approval_expired", "nobody decided in time")
    if held == "voided":
        return Refusal("policy_denied", state.reason)
    if held == "consumed":
        return Refusal("approval_unverifiable", "the approval has been used")
    if held != "approved":
        return Refusal("approval_unverifiable", f"the request is {held}")
    if at_ms >= state.until_ms:
        return Refusal("approval_expired", "the approval has run out")
    return None


def consume(state: State, item: int, findings: Iterable[str], at_ms: int) -> Step:
    """Use one item: the only way to `consumed`."""
    seen = observe(state, findings, at_ms)
    refusal = usable(seen.state, item, at_ms)
    if refusal is not None:
        return Step(seen.state, seen.emit, refusal)
    items = tuple("consumed" if i == item else held for i, held in enumerate(state.items))
    return Step(replace(state, items=items), (Happening("approval.consumed", "", (item,)),))


def _before(state: State, by: Approver, findings: Iterable[str], at_ms: int) -> Step:
    """What stops any decision: it is over, its time is up, something was found, or this person may not."""
    late = tick(state, at_ms)
    seen = observe(late.state, findings, at_ms)
    emit = late.emit + seen.emit
    if "pending" not in seen.state.items:
        return Step(seen.state, emit, Refusal("not_pending", f"the request is {status(seen.state)}"))
    refusal = eligible(state, by)
    return Step(state, (), refusal)


def _tallied(state: State, at_ms: int, emit: tuple[Happening, ...]) -> Step:
    """Decide each pending item by its votes: one no ends it, enough of yes for every need grants it."""
    items = list(state.items)
    for i, held in enumerate(items):
        if held != "pending":
            continue
        if any(i not in vote.items for vote in state.votes):
            items[i] = "denied"
        elif _enough(state, i):
            items[i] = "approved"
    made = replace(state, items=tuple(items))
    if "approved" in items and not state.approved_ms:
        made = _usable(made, at_ms)
    if "pending" not in items and not made.closed_ms:
        made = replace(made, closed_ms=at_ms)
    return Step(made, emit)


def _enough(state: State, item: int) -> bool:
    """Whether the votes for an item meet every need."""
    yes = [vote for vote in state.votes if item in vote.items]
    return all(sum(bool(vote.groups & groups) for vote in yes) >= quorum for groups, quorum in state.terms.needs)


def _usable(state: State, at_ms: int) -> State:
    until = at_ms + state.terms.ttl_ms
    if state.terms.until_ms:
        until = min(until, state.terms.until_ms)
    return replace(state, approved_ms=at_ms, until_ms=until, closed_ms=0 if "pending" in state.items else at_ms)


def _closing(state: State, of: ItemStatus, to: ItemStatus, reason: str, at_ms: int, told: str) -> Step:
    gone = tuple(i for i, item in enumerate(state.items) if item == of)
    items = tuple(to if item == of else item for item in state.items)
    return Step(replace(state, items=items, reason=state.reason or reason, closed_ms=at_ms), (Happening(told, reason, gone),))
