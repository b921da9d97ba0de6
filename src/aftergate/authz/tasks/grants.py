"""What one token exchange may give: never more than what it is given for.

Sources: RFC 8693 (subject, actor, `act`, `may_act`), RFC 9396 section 6 (details narrow), RFC 9700 (audience and binding).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from aftergate.authz.tasks import details as d
from aftergate.authz.tasks.answers import Refusal
from aftergate.authz.tasks.jose import audience, seconds
from aftergate.authz.tasks.machine import Limits, Principal, Task

MAX_AUDIENCES: Final = 8


class Binding(Struct, frozen=True, omit_defaults=True):
    """The key that a token is bound to: RFC 9449 (`jkt`) or RFC 8705 (`x5t#S256`). Both empty: a bearer token."""

    jkt: str = ""
    x5t: str = ""

    def __bool__(self) -> bool:
        return bool(self.jkt or self.x5t)

    def cnf(self) -> dict[str, str]:
        return {name: value for name, value in (("jkt", self.jkt), ("x5t#S256", self.x5t)) if value}

    @property
    def kind(self) -> str:
        return "dpop" if self.jkt else "mtls" if self.x5t else "none"


UNBOUND: Final = Binding()


def binding_of(claims: Mapping[str, Any]) -> Binding | Refusal:
    """The `cnf` of a token. One that we cannot check is refused rather than taken for unbound."""
    cnf = claims.get("cnf")
    if cnf is None:
        return UNBOUND
    if not isinstance(cnf, dict) or not cnf or set(cnf) - {"jkt", "x5t#S256"} or not all(isinstance(v, str) and v for v in cnf.values()):
        return Refusal("invalid_request", "the token is bound in a way that is not known here")
    return Binding(cnf.get("jkt", ""), cnf.get("x5t#S256", ""))


class Actor(Struct, frozen=True):
    """One link of an `act` chain. `iss` is empty for those that this server names itself."""

    sub: str
    iss: str = ""

    def claim(self) -> dict[str, Any]:
        return {"sub": self.sub, **({"iss": self.iss} if self.iss else {})}


class Subject(Struct, frozen=True, kw_only=True):
    """What a subject token says, whoever issued it. `scope` or `details` None: it does not speak of them, so it does not bound them."""

    principal: Principal
    issuer: str
    exp_ms: int
    jti: str = ""
    scope: frozenset[str] | None = None
    details: tuple[Mapping[str, Any], ...] | None = None
    act: tuple[Actor, ...] = ()  # nearest first
    may_act: Mapping[str, Any] | None = None
    aud: tuple[str, ...] = ()
    binding: Binding = UNBOUND
    acr: str = ""
    amr: tuple[str, ...] = ()
    auth_time: int | None = None  # seconds
    session: str = ""
    own: bool = False  # this server issued it
    txn: str = ""


class Request(Struct, frozen=True, kw_only=True):
    """What an exchange asks for. None takes all that may be had."""

    actor: Actor
    client: Principal  # who authenticated at the token endpoint
    scope: frozenset[str] | None = None
    details: tuple[Mapping[str, Any], ...] | None = None
    audience: tuple[str, ...] = ()
    binding: Binding = UNBOUND
    ttl_ms: int | None = None


class Grant(Struct, frozen=True, kw_only=True):
    """What the new token says."""

    task: str
    subject: Principal
    client: Principal
    scope: frozenset[str]
    details: tuple[Mapping[str, Any], ...]
    act: tuple[Actor, ...]
    audience: tuple[str, ...]
    iat_ms: int
    exp_ms: int
    binding: Binding
    acr: str = ""
    amr: tuple[str, ...] = ()
    auth_time: int | None = None


def act_of(claims: Mapping[str, Any], bound: int = 64) -> tuple[Actor, ...] | Refusal:
    """The `act` chain of a token, nearest first (RFC 8693 section 4.1)."""
    chain: list[Actor] = []
    act = claims.get("act")
    while act is not None:
        if not isinstance(act, dict) or not isinstance(act.get("sub"), str) or not act["sub"] or not isinstance(act.get("iss", ""), str):
            return Refusal("invalid_request", "`act` of the subject token is not of the form")
        chain.append(Actor(act["sub"], act.get("iss", "")))
        if len(chain) > bound:
            return Refusal("invalid_request", "the chain of actors is too long")
        act = act.get("act")
    return tuple(chain)


def act_claim(chain: Sequence[Actor]) -> dict[str, Any] | None:
    """The claim for a chain, nearest first; None for an empty one."""
    made: dict[str, Any] | None = None
    for actor in reversed(chain):
        made = actor.claim() if made is None else {**actor.claim(), "act": made}
    return made


def may_act(wanted: Mapping[str, Any] | None, actor: Actor, client: Principal, own_issuer: str) -> bool:
    """Whether `may_act` of a subject token lets this actor act (RFC 8693 section 4.4). Members that we don't know can't be met."""
    if wanted is None:
        return True
    if not wanted or set(wanted) - {"sub", "iss", "client_id"}:
        return False
    if "sub" in wanted and wanted["sub"] != actor.sub:
        return False
    if "iss" in wanted and wanted["iss"] != (actor.iss or own_issuer):
        return False
    return "client_id" not in wanted or wanted["client_id"] == client.id


def derive(task: Task, subject: Subject, request: Request, now_ms: int, limits: Limits, types: d.Types, own_issuer: str) -> Grant | Refusal:
    """The grant for one exchange in a live task, or why not.

    INVARIANT: scope and details lie within the task's and the subject token's, expiry within both and the operator's limit, and the chain of
    actors within its bound.
    """
    owner = task.on_behalf_of or task.who
    if subject.principal != owner:
        return Refusal("invalid_request", "the subject token is not of whom the task is for")
    if not may_act(subject.may_act, request.actor, request.client, own_issuer):
        return Refusal("invalid_request", "`may_act` of the subject token does not name this actor")
    act = subject.act
    if request.actor.sub != subject.principal.id or act:
        nearest = act[0] if act else None
        act = act if nearest == request.actor else (request.actor, *act)
    if len(act) > limits.act_depth:
        return Refusal("invalid_request", f"the chain of actors would be longer than {limits.act_depth}")
    scope = _scope(task, subject, request)
    if isinstance(scope, Refusal):
        return scope
    details = _details(task, subject, request, scope, types)
    if isinstance(details, Refusal):
        return details
    scope &= d.actions_of(details)  # narrower details narrow the scope with them
    target = _audience(subject, request, details, own_issuer)
    if isinstance(target, Refusal):
        return target
    ttl_ms = limits.token_ttl_ms if request.ttl_ms is None else request.ttl_ms
    if ttl_ms <= 0:
        return Refusal("invalid_request", "the life asked for is not positive")
    exp_ms = min(now_ms + min(ttl_ms, limits.token_ttl_ms), task.until_ms, subject.exp_ms)
    if exp_ms - exp_ms % 1000 <= now_ms:
        return Refusal("invalid_request", "the subject token or the task is about to expire")
    return Grant(
        task=task.id,
        subject=subject.principal,
        client=request.client,
        scope=scope,
        details=details,
        act=act,
        audience=target,
        iat_ms=now_ms,
        exp_ms=exp_ms - exp_ms % 1000,
        binding=request.binding,
        acr=subject.acr,
        amr=subject.amr,
        auth_time=subject.auth_time,
    )


def _audience(subject: Subject, request: Request, details: tuple[Mapping[str, Any], ...], own_issuer: str) -> tuple[str, ...] | Refusal:
    """Where the new token may be used. Details that name locations bound it; a token of ours may always go where it was for already."""
    if len(request.audience) > MAX_AUDIENCES:
        return Refusal("invalid_target", f"more than {MAX_AUDIENCES} audiences")
    bounded = bool(details) and all("locations" in detail for detail in details)
    places = {place for detail in details for place in detail.get("locations", ())}
    already = subject.aud if subject.own else ()
    if not request.audience:
        return already or (tuple(sorted(places)) if bounded else (own_issuer,))
    if bounded and not set(request.audience) <= places.union(already):
        return Refusal("invalid_target", "the task does not name that audience among its locations")
    return tuple(dict.fromkeys(request.audience))


def _scope(task: Task, subject: Subject, request: Request) -> frozenset[str] | Refusal:
    allowed = task.scope if subject.scope is None else task.scope & subject.scope
    if request.scope is None:
        if not allowed and task.scope:
            return Refusal("invalid_scope", "nothing of the task's scope is in the subject token's")
        return allowed
    if not request.scope <= allowed:
        return Refusal("invalid_scope", "scope is wider than the task's or the subject token's")
    return request.scope


def _details(
    task: Task, subject: Subject, request: Request, scope: frozenset[str], types: d.Types
) -> tuple[Mapping[str, Any], ...] | Refusal:
    wanted = request.details
    if wanted is None:
        # All that may be had: the narrower of the two lists where one lies within the other.
        wanted = task.details
        if subject.details is not None and d.all_within(task.details, subject.details, types) is not None:
            wanted = subject.details
    wanted = tuple(cut for cut in (_within_scope(detail, scope) for detail in wanted) if cut is not None)
    if not wanted:
        return Refusal("invalid_scope", "no right of the task is within the scope")
    refused = d.all_within(wanted, task.details, types)
    if refused is None and subject.details is not None:
        refused = d.all_within(wanted, subject.details, types)
    return wanted if refused is None else refused


def _within_scope(detail: Mapping[str, Any], scope: frozenset[str]) -> Mapping[str, Any] | None:
    """A detail cut to the actions of a scope; None if nothing is left of it. One without actions is no matter of scope."""
    if "actions" not in detail:
        return detail
    actions = [action for action in detail["actions"] if action in scope]
    return {**detail, "actions": actions} if actions else None


def subject_of(claims: Mapping[str, Any], principal: Principal, types: d.Types, *, own: bool) -> Subject | Refusal:
    """A verified token's claims as the subject of an exchange. The caller has checked signature, issuer, audience and times."""
    act = act_of(claims)
    if isinstance(act, Refusal):
        return act
    binding = binding_of(claims)
    if isinstance(binding, Refusal):
        return binding
    scope: frozenset[str] | None = None
    if "scope" in claims:
        held = claims["scope"]
        if not isinstance(held, str):
            return Refusal("invalid_request", "`scope` of the subject token is not a string")
        scope = frozenset(part for part in held.split(" ") if part)
    details: tuple[Mapping[str, Any], ...] | None = None
    if "authorization_details" in claims:
        parsed = d.parse(claims["authorization_details"], types)
        if isinstance(parsed, Refusal):
            return Refusal("invalid_request", f"subject token: {parsed.reason}")
        details = parsed
    wanted = claims.get("may_act")
    if wanted is not None and not isinstance(wanted, dict):
        return Refusal("invalid_request", "`may_act` of the subject token is not an object")
    auth_time = seconds(claims.get("auth_time"))
    amr = claims.get("amr")
    return Subject(
        principal=principal,
        issuer=str(claims.get("iss", "")),
        exp_ms=int((seconds(claims.get("exp")) or 0) * 1000),
        jti=_text(claims.get("jti")),
        scope=scope,
        details=details,
        act=act,
        may_act=wanted,
        aud=audience(claims) or (),
        binding=binding,
        acr=_text(claims.get("acr")),
        amr=tuple(each for each in amr if isinstance(each, str)) if isinstance(amr, list) else (),
        auth_time=int(auth_time) if auth_time is not None else None,
        session=_text(claims.get("sid")),
        own=own,
        txn=_text(claims.get("txn")),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= 512 else ""
