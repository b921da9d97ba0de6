"""An approval that comes with an evaluation: what it is worth, and its one use.

`present` looks, before the policies are asked; `consume` acts, inside the transaction that records the permit, and only after a permit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection

from aftergate.audit.records import Actor, ApprovalRef, Record
from aftergate.authz.advice import APPROVAL
from aftergate.authz.decide import decide
from aftergate.authz.transactions import machine
from aftergate.authz.transactions.binding import Presented, holds_key
from aftergate.authz.transactions.canonical import NotCanonical, transaction_digest
from aftergate.authz.transactions.objects import Executor, Risk, asked_of, bound_context, rfc3339
from aftergate.authz.wire import EvaluationRequest
from aftergate.service.approvals.offering import action_wire, entity_wire
from aftergate.service.approvals.recording import keep, record, records_of, scored
from aftergate.service.approvals.votes import counted
from aftergate.stores import approvals as store
from aftergate.stores.approvals import Approval
from aftergate.stores.used import first_use

if TYPE_CHECKING:
    from aftergate.service.core import Core

EVALUATIONS: Final = ("/access/v1/evaluation", "/access/v1/evaluations")
# The profile's reasons for a denied re-evaluation.
Reason = Literal["approval_expired", "out_of_scope", "grant_pending", "policy_denied", "approval_unverifiable"]


class Presentation(Struct, frozen=True):
    """What an approval that came with an evaluation is worth.

    With `reason` it is worth nothing: evaluate without it, and if that denies, say the reason. Otherwise `facts` are `context.live.approval`,
    and a permit must be sent only if `consume` takes it in the transaction that records the permit.
    """

    approval_id: str
    reason: Reason | None = None
    detail: str = ""
    facts: dict[str, Any] | None = None
    number: int = 0
    place: int = 0
    request: str = ""  # the request's handle: joins the records of one transaction
    once: str = ""
    once_until_ms: int = 0

    @property
    def holds(self) -> bool:
        return self.reason is None


class Consumption(Struct, frozen=True):
    """What `consume` did. `records` go into the same transaction as the decision's record, whether it was taken or not."""

    records: list[Record]
    reason: Reason | None = None
    detail: str = ""
    approval: ApprovalRef | None = None
    transaction: str = ""
    context: dict[str, Any] = {}  # for the answer's context

    @property
    def taken(self) -> bool:
        return self.reason is None


def presented_id(request: EvaluationRequest) -> str | None:
    """The approval id that came with a request, if any."""
    given = request.context.get("approval")
    if not isinstance(given, dict):
        return None
    held = given.get("id")
    return held if isinstance(held, str) else None


def present(core: Core, request: EvaluationRequest, presented: Presented, now_ms: int) -> Presentation | None:
    """Look at the approval that came with a request; None if none came. Uses nothing up; voids it if something was found since.

    Raises: StoreUnavailable.
    """
    approval_id = presented_id(request)
    if approval_id is None:
        return None
    with core.db.read() as connection:
        found = store.by_item(connection, approval_id) if len(approval_id) <= 64 and "\0" not in approval_id else None
        counts = None if found is None else counted(connection, found[0].state, now_ms)
    # 1. There is one, and this caller is one of those it was made for. Whether there is one is nobody else's business.
    if found is None or counts is None or presented.caller not in found[0].object["callers"]:
        return Presentation(approval_id, "approval_unverifiable", "no such approval for this caller")
    approval, place, digest = found
    # 2. It is for exactly this.
    if not _same_transaction(request, approval, digest):
        return Presentation(approval_id, "out_of_scope", "subject, action, resource or transaction are not those that were approved")
    # 3. It holds at this time.
    refusal = machine.usable(approval.state, place, now_ms)
    if refusal is not None:
        return Presentation(approval_id, refusal.code, refusal.detail)  # type: ignore[arg-type]  # `usable` speaks the profile's codes
    # 4. Whoever presents it holds the key it names. Without a proof nothing is consumed, and nothing permitted.
    proof = presented.proof or _member(request, "proof")
    urls = presented.urls or tuple(core.url + path for path in EVALUATIONS)
    held = holds_key(_executor(approval), Presented(presented.caller, presented.method, urls, proof, presented.x5t), approval_id, now_ms)
    if isinstance(held, str):
        return Presentation(approval_id, "approval_unverifiable", held)
    # 5. Nothing was found about the requester since, and whoever approved still may.
    about = approval.about
    standing = core.trust.of(about.identity, about.session, about.credential, now_ms)
    if counts.emit or machine.observe(approval.state, standing.marks, now_ms).emit:
        detail = _void(core, approval.number, now_ms)
        if detail is not None:
            return Presentation(approval_id, "policy_denied", detail)
    approval = replace(approval, state=counts.state)  # what policies are told of
    # 6. The policies ask for no more than was given. What else they say of the request they say after this.
    if _asks_more(core, request, approval, place, now_ms):
        return Presentation(approval_id, "policy_denied", "the policies ask for more than was approved")
    return Presentation(
        approval_id,
        facts=_facts(approval, place, approval_id),
        number=approval.number,
        place=place,
        request=approval.id,
        once=held.once,
        once_until_ms=held.until_ms,
    )


def consume(
    core: Core, connection: Connection, presentation: Presentation, now_ms: int, *, evaluation_id: str, actor: Actor
) -> Consumption:
    """Use the approval up, in the transaction that records the permit. If it is not taken the answer must be a denial.

    Of any number that try at the same moment, in any number of processes, exactly one is taken: the request's row is locked, and the item is
    marked by one statement that only finds it unused.
    """
    assert presentation.holds
    approval = store.by_number(connection, presentation.number, lock=True)
    if approval is None:
        return Consumption([], "approval_unverifiable", "the approval is gone")
    risk = scored(core, connection, approval.about)
    counts = counted(connection, approval.state, now_ms)
    step = machine.consume(counts.state, presentation.place, risk.marks, now_ms)
    ref = ApprovalRef(presentation.approval_id, quorum=approval.object["quorum"]["needed"])
    if step.refused is not None:
        keep(core, connection, approval, step.state, now_ms)
        records = records_of(approval, counts.emit + step.emit, risk=risk)
        return Consumption(records, step.refused.code, step.refused.detail, ref, approval.id)  # type: ignore[arg-type]  # as above
    if presentation.once and not first_use(core.db, connection, "dpop", presentation.once, presentation.once_until_ms):
        return Consumption([], "approval_unverifiable", "the proof was used before", ref, approval.id)
    if not store.take_item(connection, approval.number, presentation.place, evaluation_id, now_ms):
        return Consumption([], "approval_unverifiable", "the approval has been used", ref, approval.id)
    keep(core, connection, approval, step.state, now_ms)
    used = record(
        "approval.consumed",
        approval,
        actor=actor,
        items=(presentation.place,),
        risk=risk,
        ref=ref,
        evaluation_id=evaluation_id,
        detail={"executor": approval.object["executor"], "break_glass": approval.state.break_glass},
    )
    context = {"approval": {"id": presentation.approval_id, "approved_until": rfc3339(approval.state.until_ms)}}
    return Consumption([used], None, "", ref, approval.id, context)


def _same_transaction(request: EvaluationRequest, approval: Approval, digest: bytes) -> bool:
    subject = entity_wire(request.subject)
    try:
        made = transaction_digest(subject, entity_wire(request.resource), action_wire(request.action), bound_context(request.context))
    except NotCanonical:
        return False
    # The digest leaves `act` out, since a PEP may send the actor elsewhere; one that is sent must be the one that was approved.
    acting = request.subject.properties.get("act")
    bound = approval.object["subject"].get("properties", {}).get("act") or approval.client.get("actor")
    return made == digest and (acting is None or acting == bound)


def _asks_more(core: Core, request: EvaluationRequest, approval: Approval, place: int, now_ms: int) -> bool:
    """Whether the policies would ask, now and for this request, for an approval that this one is not: of more people, of others, with a bound
    device, or a younger one.

    The same policies may ask for more than they did: context that is not bound (address, environment), live trust and stored entities may be
    others than at the denial, and to a policy any approval is an approval.
    """
    snapshot = core.decider.snapshot
    answer = decide(request, snapshot, core.decider.facts(request, now_ms))
    spoke = [snapshot.policies.by_id[name].advice for name in answer.determining if not answer.allowed]
    advice = [one for one in spoke if one is not None and one.kind == APPROVAL]
    if not advice:
        return False  # without it they say yes, or no for reasons that no approval lifts: then they say it again after this
    everywhere = (core.settings.breakglass_group,) if core.settings.breakglass_group else ()
    asked = asked_of(advice, everywhere, ttl_s=core.settings.approval_ttl_s)
    if asked is None or now_ms >= approval.state.approved_ms + asked.ttl_s * 1000:
        return True
    if approval.state.by_policy:
        return asked.machine != approval.asked.machine
    if approval.state.break_glass:
        return not asked.break_glass or not set(asked.break_glass) <= set(approval.asked.break_glass)
    yes = [vote for vote in approval.state.votes if place in vote.items]
    short = any(sum(bool(vote.groups & set(need.groups)) for vote in yes) < need.quorum for need in asked.needs)
    return short or not asked.needs or (asked.device_bound and not approval.asked.device_bound)


def _executor(approval: Approval) -> Executor:
    held = approval.object["executor"]
    return Executor(held.get("jkt", ""), held.get("x5t#S256", ""))


def _member(request: EvaluationRequest, name: str) -> str:
    held = request.context["approval"].get(name)
    return held if isinstance(held, str) else ""


def _facts(approval: Approval, place: int, approval_id: str) -> dict[str, Any]:
    state = approval.state
    return {
        "id": approval_id,
        "approvers": sorted(vote.person for vote in state.votes if place in vote.items),
        "quorum": sum(place in vote.items for vote in state.votes),
        "batch": state.terms.items > 1 or "items" in approval.object,
        "break_glass": state.break_glass,
    }


def _void(core: Core, number: int, now_ms: int) -> str | None:
    """Write down what ended the approval, and give the reason; None if the database knows of nothing: the view in memory was behind it."""
    with core.db.write() as connection:
        approval = store.by_number(connection, number, lock=True)
        if approval is None:
            return "the approval is gone"
        risk: Risk = scored(core, connection, approval.about)
        counts = counted(connection, approval.state, now_ms)
        step = machine.observe(counts.state, risk.marks, now_ms)
        emit = counts.emit + step.emit
        if emit:
            keep(core, connection, approval, step.state, now_ms)
            core.audit.append(connection, records_of(approval, emit, risk=risk))
        return step.state.reason if emit or "voided" in step.state.items else None
