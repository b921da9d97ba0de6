"""`/oauth/token`: a token for a task, by exchange (RFC 8693) or, for a workload acting for itself, by client credentials.

Checked first, asked of the policies next, and written last in one transaction that sees task and parent token alive and holds them so.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from aftergate.audit.records import TokenRef
from aftergate.authz.advice import challenge
from aftergate.authz.errors import BadRequest
from aftergate.authz.strict_json import decode as decode_json
from aftergate.authz.tasks import details as d
from aftergate.authz.tasks import grants as g
from aftergate.authz.tasks import tokens as t
from aftergate.authz.tasks.answers import Refusal
from aftergate.authz.tasks.jose import peek
from aftergate.authz.tasks.machine import Task
from aftergate.authz.wire import ActionRef, Entity, EvaluationRequest
from aftergate.service.decisions import Answer, Asker
from aftergate.service.tasks import life
from aftergate.service.tasks.asking import Asking, Presented, prove
from aftergate.service.tasks.subjects import Shown, as_workload, subject_of
from aftergate.stores import tasks as store

if TYPE_CHECKING:
    from aftergate.service.tasks import Tasks

EXCHANGE: Final = "token.exchange"
GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
CLIENT_CREDENTIALS: Final = "client_credentials"
REQUESTED: Final = frozenset({"", t.ACCESS_TOKEN, t.JWT, t.TXN_TOKEN})


class Issued(Struct, frozen=True):
    """A new token and what the answer says of it."""

    token: str
    issued_type: str
    token_type: str
    expires_in: int
    scope: str
    details: tuple[Mapping[str, Any], ...]


class Refused(Struct, frozen=True):
    """No token. `challenge` is for WWW-Authenticate when a stronger login would help, `access_request` when an approval would."""

    error: str
    reason: str
    challenge: str = ""
    access_request: Mapping[str, Any] | None = None


def exchange(tasks: Tasks, asking: Asking, presented: Presented, now_ms: int) -> Issued | Refused:
    """Answer a token request. Raises: StoreUnavailable, ConfigError (no key)."""
    made = _prepared(tasks, asking, presented, now_ms)
    if isinstance(made, Refusal):
        return Refused(made.error, made.reason)
    task, shown, grant, kind = made
    extra = _contexts(presented) if kind == "txn" else ({}, {})
    if isinstance(extra, Refusal):
        return Refused(extra.error, extra.reason)
    answer = tasks.core.decider.evaluate(_question(task, shown, grant, asking, kind), _asker(asking, presented))
    if not answer.allowed:
        return _denied(answer)
    return _issue(tasks, asking, task, shown, grant, kind, extra, answer.id, now_ms)


def _prepared(tasks: Tasks, asking: Asking, presented: Presented, now_ms: int) -> tuple[Task, Shown, g.Grant, str] | Refusal:
    requested = presented.one("requested_token_type")
    if requested not in REQUESTED:
        return Refusal("invalid_request", "requested_token_type is not given out here")
    kind = "txn" if requested == t.TXN_TOKEN else "access"
    grant_type = presented.one("grant_type")
    shown: Shown | None = None
    if grant_type == GRANT:
        found = subject_of(tasks, asking, presented, now_ms)
        if isinstance(found, Refusal):
            return found
        shown = found
    elif grant_type != CLIENT_CREDENTIALS:
        return Refusal(
            "unsupported_grant_type" if grant_type else "invalid_request", "grant_type must be token exchange or client_credentials"
        )
    if shown is not None and presented.one("subject_token_type") == t.TXN_TOKEN and kind != "txn":
        return Refusal("invalid_request", "a transaction token is exchanged for its replacement only")
    task = _task(tasks, asking, presented, shown, now_ms)
    if isinstance(task, Refusal):
        return task
    if shown is None:
        if task.on_behalf_of is not None:
            return Refusal("invalid_request", "a task on somebody's behalf needs a subject token: use token exchange")
        shown = Shown(g.Subject(principal=asking.principal, issuer=tasks.core.url, exp_ms=task.until_ms))
    owner = task.on_behalf_of or task.who
    if shown.subject.principal != owner and shown.parent is None:
        # A CI job or workload is named by its client entry, not by its issuer's subject.
        proved = as_workload(tasks, presented.one("subject_token"), asking, now_ms)
        if proved is not None and proved == owner:
            shown = msgspec.structs.replace(shown, subject=msgspec.structs.replace(shown.subject, principal=proved))
    request = _request(tasks, asking, presented, kind, now_ms)
    if isinstance(request, Refusal):
        return request
    foreign = _may_present(shown, asking)
    if foreign is not None:
        return foreign
    if kind == "access" and not request.binding:
        return Refusal("invalid_request", "tokens are bound to a key: send a DPoP proof, or come with a client certificate")
    grant = g.derive(task, shown.subject, request, now_ms, tasks.limits, tasks.known.types, tasks.core.url)
    if isinstance(grant, Refusal):
        return grant
    return task, shown, grant, kind


def _task(tasks: Tasks, asking: Asking, presented: Presented, shown: Shown | None, now_ms: int) -> Task | Refusal:
    """The task that the token is for: the one of the subject token, one right below it, or the one named. The client must be its workload."""
    name = presented.one("task_id")
    above = str(shown.claims.get("task", "")) if shown is not None and shown.parent is not None else ""
    name = name or above
    if not name:
        return Refusal("invalid_request", "task_id is missing: declare a task at /v1/tasks first")
    chain = life.pulse(tasks, name, now_ms)
    if not chain:
        return Refusal("invalid_grant", "the task is not known or not alive")
    task = chain[0]
    if above and above not in {one.id for one in chain}:
        return Refusal("invalid_grant", "the subject token is of another task")
    # Whoever was given a token as its audience may derive from it; else the client is the task's own workload.
    received = above == name and shown is not None and bool({asking.client, *asking.audience} & set(shown.subject.aud))
    if task.who != asking.principal and not received:
        return Refusal("invalid_grant", "the task is not known or not alive")
    return task


def _request(tasks: Tasks, asking: Asking, presented: Presented, kind: str, now_ms: int) -> g.Request | Refusal:
    actor = _actor(tasks, asking, presented, now_ms)
    if isinstance(actor, Refusal):
        return actor
    scope: frozenset[str] | None = None
    if presented.one("scope"):
        parsed = d.parse_scope(presented.one("scope"))
        if isinstance(parsed, Refusal):
            return parsed
        scope = parsed
    details: tuple[d.Detail, ...] | None = None
    if presented.one("authorization_details"):
        try:
            raw = decode_json(presented.one("authorization_details").encode())
        except BadRequest as error:
            return Refusal(d.INVALID, f"authorization_details: {error.message}")
        checked = d.parse(raw, tasks.known.types)
        if isinstance(checked, Refusal):
            return checked
        details = checked
    targets = (*presented.form.get("audience", ()), *presented.form.get("resource", ()))
    wrong = next((one for one in presented.form.get("resource", ()) if "#" in one or "://" not in one), None)
    if wrong is not None or any(not 0 < len(one) <= 512 for one in targets):
        return Refusal("invalid_target", "a resource is an absolute address without fragment")
    if kind == "txn":
        if targets and targets != (tasks.known.trust_domain,):
            return Refusal("invalid_target", "a transaction token is for this trust domain only")
        targets = ()
    ttl = presented.one("requested_ttl_s")
    if ttl and not (ttl.isascii() and ttl.isdigit() and len(ttl) < 10):
        return Refusal("invalid_request", "requested_ttl_s is a number of seconds")
    return g.Request(
        actor=actor,
        client=asking.principal,
        scope=scope,
        details=details,
        audience=targets,
        binding=asking.binding if kind == "access" else g.UNBOUND,
        ttl_ms=int(ttl) * 1000 if ttl else None,
    )


def _actor(tasks: Tasks, asking: Asking, presented: Presented, now_ms: int) -> g.Actor | Refusal:
    """The party that will act: of the actor token if there is one, which must be the client's own, else the client (RFC 8693 section 2.1)."""
    token, kind = presented.one("actor_token"), presented.one("actor_token_type")
    if bool(token) != bool(kind):
        return Refusal("invalid_request", "actor_token and actor_token_type go together")
    if not token:
        return g.Actor(asking.client)
    seen = peek(token)
    if seen is None or kind not in {t.JWT, t.ACCESS_TOKEN, t.ID_TOKEN}:
        return Refusal("invalid_request", "the actor token is not accepted")
    if seen[1].get("iss") == tasks.core.url:
        found = tasks.verified(token, now_ms)
        if isinstance(found, Refusal) or tasks.death_of(found.claims, now_ms) is not None or found.claims["client_id"] != asking.client:
            return Refusal("invalid_request", "the actor token is dead or not the client's")
        return g.Actor(asking.client)
    proved = prove(tasks, token, seen[1], now_ms)
    if isinstance(proved, Refusal) or proved.principal != asking.principal:
        return Refusal("invalid_request", "the actor token does not prove the client")
    return g.Actor(asking.client)


def _may_present(shown: Shown, asking: Asking) -> Refusal | None:
    """A bound subject token is exchanged by the holder of its key, or by the resource that it was sent to."""
    bound = shown.subject.binding
    if not bound or {asking.client, *asking.audience} & set(shown.subject.aud):
        return None
    held = asking.binding
    if (bound.jkt and bound.jkt != held.jkt) or (bound.x5t and bound.x5t != held.x5t):
        return Refusal("invalid_request", "the subject token is bound to another key")
    return None


def _contexts(presented: Presented) -> tuple[dict[str, Any], dict[str, Any]] | Refusal:
    """`request_details` and `request_context` of a transaction token's request: what becomes `tctx` and `rctx`."""
    made: list[dict[str, Any]] = []
    for name in ("request_details", "request_context"):
        text = presented.one(name)
        if len(text) > t.MAX_CONTEXT:
            return Refusal("invalid_request", f"{name} is longer than {t.MAX_CONTEXT} characters")
        try:
            held = decode_json(text.encode()) if text else {}
        except BadRequest as error:
            return Refusal("invalid_request", f"{name}: {error.message}")
        if not isinstance(held, dict):
            return Refusal("invalid_request", f"{name} must be a JSON object")
        made.append(held)
    return made[0], made[1]


def _question(task: Task, shown: Shown, grant: g.Grant, asking: Asking, kind: str) -> EvaluationRequest:
    properties: dict[str, Any] = {
        "purpose": task.purpose,
        "actions": sorted(task.scope),
        "scope": sorted(grant.scope),
        "audience": list(grant.audience),
        "token": kind,
        "issuer": shown.subject.issuer,
        "depth": len(grant.act),
    }
    if task.on_behalf_of is not None:
        properties["on_behalf_of"] = task.on_behalf_of.id
    context: dict[str, Any] = {"task_id": task.id, "credential": {"class": asking.how, "bound": grant.binding.kind}}
    auth = {"acr": grant.acr, "amr": list(grant.amr), "auth_time": grant.auth_time}
    if grant.acr or grant.auth_time is not None:
        context["auth"] = {name: value for name, value in auth.items() if value}
    if shown.subject.session:
        context["session_id"] = shown.subject.session
    return EvaluationRequest(
        Entity(asking.principal.type, asking.principal.id, {}), ActionRef(EXCHANGE, {}), Entity("task", task.id, properties), context
    )


def _asker(asking: Asking, presented: Presented) -> Asker:
    return Asker(
        asking.caller or asking.client, asking.actor(), presented.request_id, presented.method, (presented.url,), "", presented.x5t
    )


def _denied(answer: Answer) -> Refused:
    said = answer.context.get("reason_user", {}).get("403") or "the policies deny it"
    named = ", ".join(answer.decision.determining)
    reason = f"{said} ({named})" if named else said
    if answer.decision.outcome == "step_up":
        return Refused("unmet_authentication_requirements", reason, challenge(answer.decision.advice))
    return Refused("access_denied", reason, access_request=answer.context.get("access_request"))


def _issue(
    tasks: Tasks,
    asking: Asking,
    task: Task,
    shown: Shown,
    grant: g.Grant,
    kind: str,
    contexts: tuple[dict[str, Any], dict[str, Any]],
    evaluation_id: str,
    now_ms: int,
) -> Issued | Refused:
    key = tasks.signing.signer(now_ms)
    jti = secrets.token_urlsafe(18)
    digest = tasks.digest(jti)
    if kind == "txn":
        replaced = shown.claims if shown.subject.txn else {}
        claims = t.txn_claims(
            grant,
            tasks.core.url,
            jti,
            trust_domain=tasks.known.trust_domain,
            txn=shown.subject.txn or "txn-" + secrets.token_urlsafe(18),
            requester=t.replacement_chain(replaced, asking.client) if replaced else (asking.client,),
            # What a transaction is does not change along its way: only the first token takes it from the request.
            tctx=replaced.get("tctx", {}) if replaced else contexts[0],
            rctx=replaced.get("rctx", {}) if replaced else contexts[1],
        )
    else:
        claims = t.access_claims(grant, tasks.core.url, jti)
    token = t.issue(claims, t.TXN_TYP if kind == "txn" else t.ACCESS_TYP, key)
    ref = TokenRef(
        jti_hash=digest.hex(), family=(shown.family or b"").hex(), cnf=grant.binding.jkt or grant.binding.x5t,
        issued_at=grant.iat_ms // 1000, exp=grant.exp_ms // 1000,
    )  # fmt: skip
    with tasks.core.db.write() as connection:
        # INVARIANT: task and parent token are seen alive and held until the new token is written.
        if not life.beat(tasks, connection, task.id, now_ms):
            return Refused("invalid_grant", "the task is not known or not alive")
        if shown.parent is not None:
            parent = store.find_token(connection, shown.parent, lock=True)
            if parent is None or parent.revoked_ms is not None:
                return Refused("invalid_request", "the subject token is dead")
        row = store.Token(digest, task.id, kind, str(asking.principal), now_ms, grant.exp_ms, shown.parent, shown.family)
        store.add_token(connection, row)
        detail = {
            "event": "issued", "kind": kind, "scope": sorted(grant.scope)[:100], "audience": list(grant.audience), "bound": grant.binding.kind,
            "act": [actor.sub for actor in grant.act],
        }  # fmt: skip
        told = life.record("task.token", task, asking.actor(), detail=detail, token=ref, evaluation_id=evaluation_id)
        tasks.core.audit.append(connection, [told])
    kinds = {"dpop": "DPoP", "mtls": "Bearer", "none": "Bearer"}
    return Issued(
        token,
        t.TXN_TOKEN if kind == "txn" else t.ACCESS_TOKEN,
        "N_A" if kind == "txn" else kinds[grant.binding.kind],
        (grant.exp_ms - now_ms) // 1000,
        " ".join(sorted(grant.scope)),
        () if kind == "txn" else grant.details,
    )
