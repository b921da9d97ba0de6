"""The decision: a function of (request, policies, entities, facts), time included, and it names its reasons.

Nothing that fails allows. What an erring policy and a missing fact do is in docs/decisions/0006; why slices are sound, in 0007.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, Final, Literal

import cedarpy
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from aftergate.authz.advice import STEP_UP, Advice
from aftergate.authz.cedar import Policies, Policy
from aftergate.authz.entities import ACTION, EntityStore
from aftergate.authz.facts import Facts, live
from aftergate.authz.reads import EntityKey
from aftergate.authz.slices import Slice, Slicer
from aftergate.authz.values import Unmappable, is_type_name, projected, to_cedar
from aftergate.authz.wire import Entity, EvaluationRequest

Outcome = Literal["permit", "deny", "step_up", "approval"]
RESERVED: Final = ("live", "action")  # members of the Cedar context that the server sets
NEAREST: Final = 5  # permits named when none applied
REMEMBERED: Final = 16_384  # answers
LONGEST_REMEMBERED: Final = 2048  # characters of context: what callers send is remembered only if it is short

_ENCODE: Final = msgspec.json.Encoder().encode


class PolicyFault(Struct, frozen=True):
    """A policy that erred. An empty policy: the request itself could not be asked."""

    policy: str
    message: str


class Decision(Struct, frozen=True, gc=False):
    """One answer.

    `reason` is a closed set: permitted, forbidden, no_permit, step_up_required, approval_required, policy_error, request_unmappable, trust_unknown.
    `missing` says in words what would change a denial. `conflicts` names properties where the request said something else than the store.
    """

    allowed: bool
    outcome: Outcome
    reason: str
    policy_digest: str
    determining: tuple[str, ...] = ()
    advice: tuple[Advice, ...] = ()
    errors: tuple[PolicyFault, ...] = ()
    reasons: tuple[str, ...] = ()  # `@reason` of the determining policies
    missing: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    high_risk: bool = False


class Snapshot:
    """Policies and entities that go together: what one decision is made from. Immutable; a reload makes another.

    `remembered` answers a question that was asked before. That is the same answer and no older one: Cedar's answer depends on nothing but the
    policies and entities, which this object holds for good, and the question, which is the key. Facts that policies read, time included, are
    part of the question; those that none reads are not in it.
    """

    __slots__ = ("entities", "mark", "policies", "remembered", "slicer")

    def __init__(self, policies: Policies, entities: EntityStore) -> None:
        self.policies = policies
        self.entities = entities
        self.mark = object()  # by which an answer knows this snapshot without keeping it alive
        self.slicer = Slicer(policies, entities.action_ancestors)
        self.remembered = lru_cache(maxsize=REMEMBERED)(partial(_on_stored, policies, entities.handle, self.slicer))


class Question(Struct, frozen=True, gc=False):
    """A request in Cedar's form."""

    principal: EntityKey
    action: EntityKey
    resource: EntityKey
    context: str
    entities: cedarpy.Entities
    conflicts: tuple[str, ...] = ()


def decide(request: EvaluationRequest, snapshot: Snapshot, facts: Facts, *, whole: bool = False) -> Decision:
    """Permit, deny, or what would lift the denial. `whole` asks all policies instead of a slice: the same answer, slower."""
    principal = (request.subject.type, request.subject.id)
    action = (ACTION, request.action.name)
    resource = (request.resource.type, request.resource.id)
    slicer = snapshot.slicer
    held = slicer.whole() if whole else slicer.of(principal, action, resource)
    digest = snapshot.policies.digest
    if facts.trust is None:
        return Decision(
            allowed=False,
            outcome="deny",
            reason="trust_unknown",
            policy_digest=digest,
            missing=("live trust is not known: the findings cannot be read",),
            high_risk=held.high_risk,
        )
    try:
        question = ask(request, held, snapshot, facts)
        if question.entities is snapshot.entities.handle and len(question.context) <= LONGEST_REMEMBERED:
            made = snapshot.remembered(held, question.principal, question.action, question.resource, question.context)
        else:
            made = _decided(snapshot.policies, slicer, held, question)
    except Unmappable as wrong:
        return Decision(
            allowed=False,
            outcome="deny",
            reason="request_unmappable",
            policy_digest=digest,
            errors=(PolicyFault("", str(wrong)),),
            missing=(f"a value for {wrong.where} that Cedar can hold",),
            high_risk=held.high_risk,
        )
    return replace(made, conflicts=question.conflicts) if question.conflicts else made


def _on_stored(
    policies: Policies,
    handle: cedarpy.Entities,
    slicer: Slicer,
    held: Slice,
    principal: EntityKey,
    action: EntityKey,
    resource: EntityKey,
    context: str,
) -> Decision:
    return _decided(policies, slicer, held, Question(principal, action, resource, context, handle))


def _decided(policies: Policies, slicer: Slicer, held: Slice, question: Question) -> Decision:
    """The decision on one question: a function of its arguments."""
    allowed, determining, errors = run(held, question)
    by_id, digest = policies.by_id, policies.digest
    high = held.high_risk or any(by_id[name].high_risk for name in determining)
    reasons = tuple(dict.fromkeys(by_id[name].reason for name in determining if by_id[name].reason))
    if errors:
        return Decision(
            allowed=False,
            outcome="deny",
            reason="policy_error",
            policy_digest=digest,
            determining=determining,
            errors=errors,
            reasons=reasons,
            missing=tuple(_repair(fault) for fault in errors),
            high_risk=high,
        )
    if allowed:
        return Decision(
            allowed=True,
            outcome="permit",
            reason="permitted",
            policy_digest=digest,
            determining=determining,
            reasons=reasons,
            high_risk=high,
        )
    outcome, reason, advice, missing = _denied(held, question, [by_id[name] for name in determining], slicer)
    return Decision(
        allowed=False,
        outcome=outcome,
        reason=reason,
        policy_digest=digest,
        determining=determining,
        advice=advice,
        reasons=reasons,
        missing=missing,
        high_risk=high,
    )


def reads_time(request: EvaluationRequest, snapshot: Snapshot) -> bool:
    """Whether the answer may be another one at another time, all other facts being the same."""
    subject, target = request.subject, request.resource
    return snapshot.slicer.of((subject.type, subject.id), (ACTION, request.action.name), (target.type, target.id)).reads_time


def ask(request: EvaluationRequest, held: Slice, snapshot: Snapshot, facts: Facts) -> Question:
    """The request as Cedar takes it: of context and properties only what the slice reads.

    Raises: Unmappable, for a type name or a value that is read and that Cedar cannot hold; trust unknown is the caller's to refuse first.
    """
    subject, target = request.subject, request.resource
    for where, name in (("subject.type", subject.type), ("resource.type", target.type)):
        if not is_type_name(name):
            raise Unmappable(where, f"`{name[:80]}` cannot be the name of a Cedar type")
    principal, resource = (subject.type, subject.id), (target.type, target.id)
    conflicts: tuple[str, ...] = ()
    context = dict(request.context)
    if "live" in context or "action" in context:
        conflicts = tuple(f"context.{name}" for name in RESERVED if context.pop(name, None) is not None)
    if request.action.properties:
        context["action"] = request.action.properties
    if "live" in held.context.members or held.context.whole:
        if facts.trust is None:
            raise Unmappable("context.live", "trust is not known")
        context["live"] = live(facts, facts.trust)
    seen = projected(context, held.context, "context")
    entities = snapshot.entities.handle
    if subject.properties or target.properties:
        entities, found = _entities(subject, target, held, snapshot.entities, (ACTION, request.action.name))
        conflicts += found
    return Question(principal, (ACTION, request.action.name), resource, _ENCODE(seen).decode(), entities, conflicts)


def brought(entity: Entity, held: Slice, where: str) -> dict[str, Any]:
    """The properties of a request's entity that some policy of the slice reads, in Cedar's JSON form. Raises: Unmappable."""
    names = held.attributes
    return {
        name: to_cedar(value, f"{where}.properties.{name}")
        for name, value in entity.properties.items()
        if name in names and value is not None
    }


def _entities(
    subject: Entity, target: Entity, held: Slice, store: EntityStore, action: EntityKey
) -> tuple[cedarpy.Entities, tuple[str, ...]]:
    """The shared set if the request brings nothing that is read and new; else a small one of its own."""
    extra: dict[EntityKey, dict[str, Any]] = {}
    conflicts: list[str] = []
    for where, entity in (("subject", subject), ("resource", target)):
        attributes = brought(entity, held, where)
        if not attributes:
            continue
        key = (entity.type, entity.id)
        new, found = store.merged(key, attributes)
        conflicts.extend(f"{where}.{name}" for name in found)
        if new:
            before = extra.get(key)  # subject and resource may be one entity: what the subject says stands
            if before:
                conflicts.extend(f"{where}.{name}" for name in new if name in before and before[name] != new[name])
            extra[key] = {**new, **before} if before else new
    if not extra:
        return store.handle, tuple(conflicts)
    roots = {(subject.type, subject.id), (target.type, target.id), action, *held.literals}
    try:
        return store.closure(roots, extra), tuple(conflicts)
    except ValueError as error:
        raise Unmappable("properties", str(error)) from None


def run(held: Slice, question: Question) -> tuple[bool, tuple[str, ...], tuple[PolicyFault, ...]]:
    """Ask Cedar: allowed, the determining policies, and the policies that erred. No policy, no question: deny."""
    return run_many(held, [question])[0]


def run_many(held: Slice, questions: list[Question]) -> list[tuple[bool, tuple[str, ...], tuple[PolicyFault, ...]]]:
    """Several questions to the same slice and the same entities (those of the first)."""
    if held.handle is None:
        return [(False, (), ())] * len(questions)
    asked = [
        {
            "principal": {"type": each.principal[0], "id": each.principal[1]},
            "action": {"type": each.action[0], "id": each.action[1]},
            "resource": {"type": each.resource[0], "id": each.resource[1]},
            "context": each.context,
        }
        for each in questions
    ]
    return [_answer(result) for result in cedarpy.is_authorized_batch(asked, held.handle, questions[0].entities)]


def _answer(result: cedarpy.AuthzResult) -> tuple[bool, tuple[str, ...], tuple[PolicyFault, ...]]:
    diagnostics = result.diagnostics
    decision = result.decision
    if decision is cedarpy.Decision.NoDecision:
        raise Unmappable("request", "; ".join(diagnostics.errors) or "Cedar could not build it")
    errors = tuple(sorted((_fault(text) for text in diagnostics.errors), key=lambda fault: (fault.policy, fault.message)))
    return decision is cedarpy.Decision.Allow, tuple(sorted(diagnostics.reasons)), errors


def _fault(text: str) -> PolicyFault:
    """Cedar's words are: error while evaluating policy `ID`: what went wrong."""
    head, found, message = text.partition("`: ")
    _, opened, name = head.partition("evaluating policy `")
    return PolicyFault(name, message) if found and opened else PolicyFault("", text)


def _repair(fault: PolicyFault) -> str:
    if not fault.policy:
        return fault.message
    if "does not have the attribute" in fault.message or "does not exist" in fault.message:
        return f"`{fault.policy}` reads what is not there: {fault.message}; give it, or let the policy ask with `has`"
    return f"`{fault.policy}` must not err: {fault.message}"


def _denied(
    held: Slice, question: Question, forbids: list[Policy], slicer: Slicer
) -> tuple[Outcome, str, tuple[Advice, ...], tuple[str, ...]]:
    """What kind of denial: requestable when every forbid that spoke has advice and, without them, a permit holds."""
    if not forbids:
        return "deny", "no_permit", (), _nearest(held)
    advice = tuple(policy.advice for policy in forbids if policy.advice is not None)
    if len(advice) < len(forbids):
        return "deny", "forbidden", (), tuple(_must_not(policy) for policy in forbids)
    allowed, _, errors = run(slicer.without(held, [policy.id for policy in forbids]), question)
    if errors or not allowed:
        return "deny", "no_permit", (), (*_nearest(held), *(_lifting(each) for each in advice))
    missing = tuple(_lifting(each) for each in advice)
    # Who must prove himself again does that first; the answer to the next evaluation then asks for the approval.
    if any(each.kind == STEP_UP for each in advice):
        return "step_up", "step_up_required", advice, missing
    return "approval", "approval_required", advice, missing


def _nearest(held: Slice) -> tuple[str, ...]:
    permits = [policy for policy in held.policies if policy.effect == "permit"]
    if not permits:
        return ("no permit names this action, subject type and resource type",)
    named = tuple(f"permit `{policy.id}` would have to hold" + _because(policy) for policy in permits[:NEAREST])
    return named if len(permits) <= NEAREST else (*named, f"or one of {len(permits) - NEAREST} more permits")


def _must_not(policy: Policy) -> str:
    return f"forbid `{policy.id}` must not hold{_because(policy)}" if policy.advice is None else _lifting(policy.advice)


def _because(policy: Policy) -> str:
    return f" ({policy.reason})" if policy.reason else ""


def _lifting(advice: Advice) -> str:
    """What would lift one forbid, in words."""
    if advice.kind == STEP_UP:
        age = f", not older than {advice.max_age_s} s" if advice.max_age_s is not None else ""
        return f"`{advice.policy}` is lifted by an authentication with acr {' or '.join(advice.acr_values)}{age}"
    who = f"{advice.quorum} of {', '.join(advice.approvers)}" if advice.approvers else f"the policies for `{advice.machine}`"
    return f"`{advice.policy}` is lifted by an approval of exactly this transaction by {who}"
