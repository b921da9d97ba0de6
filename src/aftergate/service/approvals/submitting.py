"""Asking for an approval, looking at the request, cancelling it (AuthZEN Access Request and Approval Profile)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from sqlalchemy import Connection

from aftergate.audit.records import Actor, Record
from aftergate.authz import dpop
from aftergate.authz.errors import BadRequest
from aftergate.authz.transactions import binding, machine
from aftergate.authz.transactions.canonical import NotCanonical, canonical
from aftergate.authz.transactions.machine import State, Terms, folded
from aftergate.authz.transactions.objects import (
    Asked,
    Executor,
    Item,
    base_object,
    bound_context,
    encoded,
    from_rfc3339,
    leaf_digests,
    rfc3339,
)
from aftergate.authz.wire import ActionRef, Entity, EvaluationRequest, action_of, entity_of
from aftergate.service.approvals import glass, machines
from aftergate.service.approvals.following import Fault
from aftergate.service.approvals.offering import REQUESTS, Keys, action_wire, entity_wire
from aftergate.service.approvals.recording import keep, new_id, notify, record, scored
from aftergate.service.approvals.standing import Requester, requester_of
from aftergate.service.callbacks import refuse_endpoint
from aftergate.stores import approvals as store
from aftergate.stores import people
from aftergate.stores.approvals import Approval, Callback
from aftergate.stores.used import first_use

if TYPE_CHECKING:
    from aftergate.service.core import Core

EXECUTOR: Final = "urn:aftergate:executor"  # member of `requested_access` that names the executor's key
MAX_ITEMS: Final = 500
THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")


class Submission(Struct, frozen=True):
    """One POST to the access request endpoint, with what came around its body."""

    body: dict[str, Any]
    caller: str
    actor: Actor
    person: str = ""  # the caller, if a person
    session: str = ""
    idempotency_key: str = ""
    proof: str = ""  # the DPoP header
    x5t: str = ""  # of the client certificate, from a trusted proxy


class Bound(Struct, frozen=True):
    """One (resource, action) with the denial it answers."""

    resource: Entity
    action: ActionRef
    binding: binding.Binding


def submit(core: Core, keys: Keys, given: Submission, now_ms: int) -> Approval:
    """Take a request, or give the one that the same idempotency key made.

    Raises: Fault, BadRequest, StoreUnavailable.
    """
    try:
        body = hashlib.sha256(canonical(given.body)).digest()
    except NotCanonical as error:
        raise BadRequest(error.message) from error
    once = hashlib.sha256(f"{given.caller}\0{given.idempotency_key}".encode()).digest() if given.idempotency_key else None
    if once is not None:
        with core.db.read() as connection:
            before = store.by_idempotency(connection, once)
        if before is not None:
            return _same(before, body)
    subject = entity_of(given.body.get("subject"), "subject")
    context = _object(given.body, "context")
    bound = _bound(keys, given.body, subject, context, now_ms)
    asked = _asked(bound)
    executor, proof = _executor(core, given, now_ms)
    callback = _callback(core, given.body)
    wanted = _object(given.body, "requested_access")
    until_ms = _until(wanted, now_ms)
    reason = context.get("business_justification")
    reason = reason.strip()[:2000] if isinstance(reason, str) else ""
    batch = "items" in given.body
    client = _object(given.body, "client")
    items = [Item(entity_wire(b.resource), action_wire(b.action), new_id("apr"), b.binding.evaluation_id) for b in bound]
    ask = EvaluationRequest(subject, bound[0].action, bound[0].resource, context)
    with core.db.write() as connection:
        if once is not None:
            before = store.by_idempotency(connection, once)
            if before is not None:
                return _same(before, body)
        for one in bound:
            if not first_use(core.db, connection, "binding", one.binding.jti, one.binding.exp * 1000 + 60_000):
                # Another try with the same key may have been quicker by a moment: then it is that one's request.
                before = store.by_idempotency(connection, once) if once is not None else None
                if before is not None:
                    return _same(before, body)
                raise Fault("invalid_denial_binding", "this denial was asked on before")
        if proof is not None and not first_use(core.db, connection, "dpop", proof.once, proof.until_ms):
            raise Fault("", "the DPoP proof was used before")
        who = requester_of(connection, ask, client, given, [b.binding for b in bound])
        risk = scored(core, connection, who.about)
        id_ = new_id("arq")
        decide_by = now_ms + asked.ttl_s * 1000
        base = base_object(
            request_id=id_,
            subject=entity_wire(subject),
            on_behalf_of=who.behind,
            items=items,
            batch=batch,
            context=bound_context(context),
            callers=sorted({given.caller, *(b.binding.caller for b in bound)}),
            executor=executor,
            policy_digest=bound[0].binding.policy_digest,
            asked=asked,
            expires_ms=decide_by,
            until_ms=until_ms,
            rp_id=core.approvals.rp_id,
            reason=reason,
        )
        terms = Terms(
            items=len(items),
            needs=tuple((frozenset(need.groups), need.quorum) for need in asked.needs),
            requester=who.names,
            sessions=who.sessions,
            authenticators=who.authenticators,
            decide_by_ms=decide_by,
            ttl_ms=asked.ttl_s * 1000,
            until_ms=until_ms,
            failures=core.settings.approval_failures,
        )
        state = machine.opened(terms, risk.marks)
        new = store.New(
            id_, encoded(base), asked, f"{subject.type}:{subject.id}"[:512], who.about, risk, reason, client, callback, once, body
        )
        digests = leaf_digests(entity_wire(subject), items, bound_context(context))
        number = store.add(connection, new, state, [(i.approval_id, d) for i, d in zip(items, digests, strict=True)], now_ms)
        approval = store.by_number(connection, number)
        assert approval is not None
        records = [_asked_record(approval, given, now_ms)]
        step = _at_once(core, connection, approval, ask, bound, who, wanted, reason, now_ms, records)
        keep(core, connection, approval, step, now_ms)
        if machine.wire_status(step) == "pending":
            told = [p.id for p in people.members(connection, asked.groups) if not folded(p.names) & who.names]
            notify(connection, told, "approval.waiting", id_, f"{subject.type} {subject.id} asks: {_words(items)}", now_ms)
        core.db.touch(connection, store.TOPIC)
        core.audit.append(connection, records)
        made = store.by_number(connection, number)
        assert made is not None
        return made


def _at_once(
    core: Core,
    connection: Connection,
    approval: Approval,
    ask: EvaluationRequest,
    bound: list[Bound],
    who: Requester,
    wanted: Mapping[str, Any],
    reason: str,
    now_ms: int,
    records: list[Record],
) -> State:
    """What decides a request without waiting: broken glass, or policies that may say yes."""
    if wanted.get("emergency") is True:
        opened = glass.breaking(connection, approval, who, reason, now_ms, records)
        if opened is not None:
            return opened
    if approval.asked.machine:
        # INVARIANT: of the context only what the denial was about: who submits is not believed about logins and sessions, who evaluates is.
        requests = [
            EvaluationRequest(
                ask.subject,
                b.action,
                b.resource,
                {name: ask.context[name] for name in b.binding.binding_context_members if name in ask.context},
            )
            for b in bound
        ]
        return machines.asking(core, approval, requests, now_ms, records)
    return approval.state


def _same(before: Approval, body: bytes) -> Approval:
    if before.body != body:
        raise Fault("duplicate_request", "this Idempotency-Key was used for another request")
    return before


def _object(held: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = held.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest(f"{name} must be an object", where=name)
    return value


def _bound(keys: Keys, body: dict[str, Any], subject: Entity, context: dict[str, Any], now_ms: int) -> list[Bound]:
    """Every item with its verified denial. Raises: Fault, BadRequest."""
    listed = body.get("items")
    if listed is None:
        pairs = [(body, body.get("denial"))]
    else:
        if not isinstance(listed, list) or not listed or not all(isinstance(one, dict) for one in listed):
            raise BadRequest("items must be a list of objects, and not empty", where="items")
        if "resource" in body or "action" in body:
            raise BadRequest("resource and action stand in items, or beside them, not both", where="items")
        if len(listed) > MAX_ITEMS:
            raise BadRequest(f"more than {MAX_ITEMS} items in one request", where="items")
        pairs = [(one, one.get("denial", body.get("denial"))) for one in listed]
    made: list[Bound] = []
    for held, denial in pairs:
        resource, action = entity_of(held.get("resource"), "resource"), action_of(held.get("action"))
        if not isinstance(denial, dict):
            raise Fault("invalid_denial_binding", "`denial` is missing")
        token = denial.get("binding_token")
        if not isinstance(token, str):
            raise Fault("invalid_denial_binding", "`denial.binding_token` is missing: this server binds a request by it")
        answer = keys.verify(token, now_ms)
        if isinstance(answer, binding.Refusal):
            raise Fault(answer.fault, answer.detail)
        refusal = binding.matches(
            answer, subject=entity_wire(subject), resource=entity_wire(resource), action=action_wire(action), context=context, denial=denial
        )
        if refusal is not None:
            raise Fault(refusal.fault, refusal.detail)
        made.append(Bound(resource, action, answer))
    if len({one.binding.jti for one in made}) != len(made):
        raise Fault("invalid_denial_binding", "two items answer one denial")
    return made


def _asked(bound: list[Bound]) -> Asked:
    """What is asked for all items alike; a batch is one transaction, so its items must ask for the same people."""
    first = bound[0].binding
    if len(bound) == 1:
        return first.asked
    for one in bound:
        if not one.binding.asked.batch:
            raise Fault("not_requestable", "the policy takes no batch for one of these items: ask for it alone")
        if one.binding.asked != first.asked or one.binding.policy_digest != first.policy_digest:
            raise Fault("not_requestable", "the items need different approvals: ask for each kind apart")
    return first.asked


def _executor(core: Core, given: Submission, now_ms: int) -> tuple[Executor, dpop.Proof | None]:
    """The key that may use the approval: named, or the one that proves itself with the request."""
    named = _object(given.body, "requested_access").get(EXECUTOR)
    if named is not None:
        if not isinstance(named, dict) or len(named) != 1:
            raise BadRequest("name one key: jkt or x5t#S256", where=f"requested_access.{EXECUTOR}")
        kind, value = next(iter(named.items()))
        if kind not in {"jkt", "x5t#S256"} or not isinstance(value, str) or not THUMBPRINT.match(value):
            raise BadRequest("a thumbprint is 43 characters of base64url: SHA-256", where=f"requested_access.{EXECUTOR}")
        return (Executor(jkt=value) if kind == "jkt" else Executor(x5t=value)), None
    if given.proof:
        answer = dpop.verify_proof(given.proof, "POST", core.url + REQUESTS, now_ms)
        if isinstance(answer, dpop.Refusal):
            raise Fault("", f"the DPoP proof does not hold: {answer.detail}")
        return Executor(jkt=answer.jkt), answer
    if given.x5t:
        return Executor(x5t=given.x5t), None
    raise Fault(
        "",
        f"an approval names its executor's key: send a DPoP proof with the request, or `requested_access.{EXECUTOR}` with its jkt or x5t#S256",
    )


def _callback(core: Core, body: dict[str, Any]) -> Callback | None:
    held = _object(body, "callback")
    if not held:
        return None
    endpoint, events = held.get("endpoint"), held.get("events")
    if not isinstance(endpoint, str):
        raise BadRequest("callback.endpoint must be a string", where="callback.endpoint")
    if events is not None and not (isinstance(events, list) and all(isinstance(one, str) for one in events)):
        raise BadRequest("callback.events must be a list of names", where="callback.events")
    wrong = refuse_endpoint(endpoint, core.settings.callback_hosts)
    if wrong:
        raise Fault("", f"the callback is refused: {wrong}")
    return Callback(endpoint, held.get("state"), tuple(events or ()))


def _until(wanted: Mapping[str, Any], now_ms: int) -> int:
    text = wanted.get("requested_until")
    if text is None:
        return 0
    try:
        until = from_rfc3339(text)
    except (TypeError, ValueError) as error:
        raise BadRequest("requested_until is an RFC 3339 time", where="requested_access.requested_until") from error
    if until <= now_ms:
        raise BadRequest("requested_until is over", where="requested_access.requested_until")
    return until


def _asked_record(approval: Approval, given: Submission, now_ms: int) -> Record:
    held = approval.object
    return record(
        "access_request",
        approval,
        actor=given.actor,
        risk=approval.risk,
        decision="approval",
        evaluation_id=str(held.get("evaluation_id", "")),
        detail={
            "digest": held.get("digest") or held["batch"]["root"],
            "executor": held["executor"],
            "quorum": held["quorum"],
            "expires_at": held["expires_at"],
            "received_at": rfc3339(now_ms),
        },
        personal={"reason": approval.reason} if approval.reason else {},
        request={"object": held, "client": approval.client},
    )


def _words(items: Iterable[Item]) -> str:
    listed = [f"{item.action['name']} on {item.resource['type']} {item.resource['id']}" for item in items]
    return listed[0] if len(listed) == 1 else f"{listed[0]} and {len(listed) - 1} more"
