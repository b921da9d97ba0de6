"""Is this token alive, and for whom: introspection (RFC 7662, RFC 9701) and revocation (RFC 7009). A dead token tells nothing, and its use is written down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from aftergate.audit.records import Actor, TokenRef
from aftergate.authz.tasks import machine as m
from aftergate.authz.tasks import tokens as t
from aftergate.authz.tasks.answers import Refusal
from aftergate.authz.tasks.grants import binding_of
from aftergate.authz.tasks.jose import audience, peek
from aftergate.service.tasks import life
from aftergate.service.tasks.asking import Asking
from aftergate.stores import tasks as store

if TYPE_CHECKING:
    from aftergate.service.tasks import Tasks

INACTIVE: Final[dict[str, Any]] = {"active": False}
SERVER: Final = Actor("server", "tasks")


def verified(tasks: Tasks, token: str, now_ms: int) -> t.Verified | Refusal:
    """A token of this server whose signature, issuer, audience and times hold; whether it is alive is `death_of`'s to say."""
    seen = peek(token)
    if seen is None:
        return Refusal("invalid_token", "not a signed JWT in compact form")
    keys = tasks.signing.for_kid(seen[0].get("kid"), now_ms)
    if str(seen[0].get("typ", "")).lower().removeprefix("application/") == t.TXN_TYP:
        return t.verify_txn(token, keys, tasks.known.trust_domain, now_ms)
    return t.verify_access(token, keys, tasks.core.url, now_ms)


def death_of(tasks: Tasks, claims: Mapping[str, Any], now_ms: int) -> str | None:
    """What a verified token died of; None while it lives. The use of one that was killed is recorded, at most once a minute.

    Raises: StoreUnavailable.
    """
    digest = tasks.digest(str(claims.get("jti", "")))
    with tasks.core.db.read() as connection:
        row = store.find_token(connection, digest)
    if row is None:
        return "it is not known"
    if row.revoked_ms is None and life.pulse(tasks, row.task, now_ms):
        return "it has expired" if now_ms >= row.exp_ms else None
    with tasks.core.db.write() as connection:
        chain = store.chain(connection, row.task)
        ended = next((task for task in reversed(chain) if task.state is not m.State.ACTIVE), None)
        cause = f"its task is {ended.state}" if ended is not None else "it was revoked"
        uses = store.dead_use(connection, digest, now_ms)
        if uses and chain:
            detail = {"cause": cause, "uses": uses, "kind": row.kind, "client": row.client}
            ref = TokenRef(jti_hash=digest.hex(), issued_at=row.issued_ms // 1000, exp=row.exp_ms // 1000)
            tasks.core.audit.append(connection, [life.record("task.use_after_death", chain[0], SERVER, detail=detail, token=ref)])
    return cause


def introspect(tasks: Tasks, asking: Asking, token: str, now_ms: int) -> dict[str, Any]:
    """RFC 7662 section 2.2. Anything not active, and anything that is not the caller's to know, is `{"active": false}` alone.

    Raises: StoreUnavailable.
    """
    found = verified(tasks, token, now_ms)
    if isinstance(found, Refusal) or death_of(tasks, found.claims, now_ms) is not None or not may_know(asking, found.claims):
        return INACTIVE
    bound = binding_of(found.claims)
    kind = "N_A" if "txn" in found.claims else "Bearer" if isinstance(bound, Refusal) or bound.kind != "dpop" else "DPoP"
    return t.introspection(found.claims, kind)


def may_know(asking: Asking, claims: Mapping[str, Any]) -> bool:
    """Decision points, whom the token was issued to, and the resources that it is for."""
    mine = {asking.client, asking.principal.id, *asking.audience}
    return asking.verifies or claims.get("client_id") == asking.client or bool(mine & set(audience(claims) or ()))


def as_jwt(tasks: Tasks, asking: Asking, answer: dict[str, Any], now_ms: int) -> str:
    """RFC 9701 section 5: the answer signed, for this caller. Raises: StoreUnavailable, ConfigError."""
    claims = {"iss": tasks.core.url, "aud": asking.client, "iat": now_ms // 1000, "token_introspection": answer}
    return t.issue(claims, t.INTROSPECTION_TYP, tasks.signing.signer(now_ms))


def revoke(tasks: Tasks, asking: Asking, token: str, now_ms: int) -> None:
    """RFC 7009: the token and all derived from it. Says nothing, whether it was there or not, or is another client's.

    Raises: StoreUnavailable.
    """
    found = verified(tasks, token, now_ms)
    if isinstance(found, Refusal):
        return
    digest = tasks.digest(str(found.claims.get("jti", "")))
    with tasks.core.db.read() as connection:
        row = store.find_token(connection, digest)
    if row is None or not (asking.admin or row.client == str(asking.principal)):
        return
    revoke_all(tasks, asking.actor(), [digest], now_ms)


def revoke_all(tasks: Tasks, actor: Actor, roots: list[bytes], now_ms: int) -> int:
    """Revoke families of tokens; how many were alive. Raises: StoreUnavailable."""
    with tasks.core.db.write() as connection:
        gone = store.revoke_family(connection, roots, now_ms)
        records = []
        for row in gone:
            task = store.find(connection, row.task)
            if task is not None:
                ref = TokenRef(jti_hash=row.digest.hex(), issued_at=row.issued_ms // 1000, exp=row.exp_ms // 1000)
                records.append(life.record("task.token", task, actor, detail={"event": "revoked", "kind": row.kind}, token=ref))
        tasks.core.audit.append(connection, records)
    return len(gone)
