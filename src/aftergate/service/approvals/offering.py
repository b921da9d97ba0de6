"""Telling a denied caller that it may ask: the signed note of the denial, and the keys that sign it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from joserfc import jws
from joserfc.jwk import ECKey, KeySet

from aftergate.authz.decide import Decision
from aftergate.authz.tasks.keys import SigningKey
from aftergate.authz.transactions import binding
from aftergate.authz.transactions.objects import BOUND_CONTEXT, asked_of, rfc3339
from aftergate.authz.wire import ActionRef, Entity, EvaluationRequest

if TYPE_CHECKING:
    from aftergate.service.core import Core

REQUESTS: Final = "/access/v1/requests"
ALGORITHM: Final = "ES256"
TOKEN_S: Final = 600  # a denial can be asked on for so long
MAX_ID: Final = 1000  # a longer id of a session or credential is nobody's


class Keys:
    """The keys that sign binding tokens and callbacks: those that sign this server's tokens, published in its JWK Set, other processes' included."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def mint(self, made: binding.Binding, now_ms: int) -> str:
        """Raises: ConfigError, StoreUnavailable, where no key can sign."""
        held = self._core.tasks.signing.signer(now_ms)
        return binding.mint(made, _key(held), held.kid, ALGORITHM)

    def verify(self, token: str, now_ms: int) -> binding.Binding | binding.Refusal:
        """A binding token of this server. Raises: StoreUnavailable."""
        known = self._core.tasks.signing.for_kid(binding.kid_of(token), now_ms)
        return binding.verify(
            token,
            KeySet([ECKey.import_key(each) for each in known["keys"]]),
            iss=self._core.url,
            aud=self._core.url + REQUESTS,
            now_ms=now_ms,
        )

    def detached(self, body: bytes, now_ms: int) -> str:
        """A JWS over a body that travels beside it (RFC 7515, appendix F)."""
        held = self._core.tasks.signing.signer(now_ms)
        made = jws.serialize_compact({"alg": ALGORITHM, "kid": held.kid, "typ": "callback+jws"}, body, _key(held))
        head, _, signature = made.split(".")
        return f"{head}..{signature}"


def _key(held: SigningKey) -> ECKey:
    assert held.private is not None, "a signer has its private half"
    return ECKey.import_key(held.private)


def overruled(decision: Decision) -> bool:
    """Whether the store holds other values than the request gives for its subject or resource."""
    return any(name.startswith(("subject.", "resource.")) for name in decision.conflicts)


def entity_wire(entity: Entity) -> dict[str, Any]:
    """A subject or resource as it is bound: empty properties are none."""
    return {"type": entity.type, "id": entity.id, **({"properties": entity.properties} if entity.properties else {})}


def action_wire(action: ActionRef) -> dict[str, Any]:
    return {"name": action.name, **({"properties": action.properties} if action.properties else {})}


def offer(
    core: Core,
    keys: Keys,
    request: EvaluationRequest,
    decision: Decision,
    now_ms: int,
    *,
    evaluation_id: str,
    caller: str,
    behind: Sequence[str] = (),
) -> dict[str, Any] | None:
    """`context.access_request` of a denial that an approval would lift; None if none would.

    `behind` are the names on whose behalf the caller acts, as this server knows them (a task's `on_behalf_of`).
    """
    if decision.allowed or decision.outcome != "approval":
        return None
    if overruled(decision):
        return None  # policies judged what is stored, while people would be shown what the request says
    everywhere = (core.settings.breakglass_group,) if core.settings.breakglass_group else ()
    asked = asked_of(decision.advice, everywhere, ttl_s=core.settings.approval_ttl_s)
    if asked is None:
        return None
    task_id = request.context.get("task_id")
    task = core.tasks.live(task_id, request, now_ms) if isinstance(task_id, str) else None
    behind = [*behind, *([str(task["on_behalf_of"])] if task and task.get("on_behalf_of") else [])]
    expires_at = rfc3339(now_ms + TOKEN_S * 1000)
    # Policies that say yes in people's place judge the context as a whole, so there all of it is bound; people see the transaction.
    members = sorted(set(request.context) - {"approval"}) if asked.machine else [name for name in BOUND_CONTEXT if name in request.context]
    made = binding.Binding(
        iss=core.url,
        aud=core.url + REQUESTS,
        iat=now_ms // 1000,
        exp=now_ms // 1000 + TOKEN_S,
        jti=secrets.token_urlsafe(18),
        denial_expires_at=expires_at,
        binding_context_members=members,
        binding_hash=binding.binding_hash(
            entity_wire(request.subject), entity_wire(request.resource), action_wire(request.action), request.context, members
        ),
        evaluation_id=evaluation_id,
        caller=caller,
        policy_digest=decision.policy_digest,
        asked=asked,
        behind=sorted(set(behind)),
        session=_text(request.context.get("session_id")),
        credential=_text(request.context.get("credential_id")),
    )
    who = f"{asked.quorum} of {', '.join(asked.groups)}" if asked.groups else "a policy"
    return {
        "endpoint": core.url + REQUESTS,
        "expires_at": expires_at,
        "binding_token": keys.mint(made, now_ms),
        "template": "transaction-approval",
        "display": {
            "title": "Approval needed",
            "description": "; ".join(decision.reasons) or f"approval of exactly this transaction by {who}",
        },
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= MAX_ID else ""
