"""A fresh login is worth one transaction, or one declared batch: never everything that follows in the next minutes.

A permit that holds only because of a step-up uses the login up. The same transaction may be asked about again; another one needs another login.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec
from sqlalchemy import Connection

from aftergate.authz.advice import STEP_UP
from aftergate.authz.decide import Decision, Snapshot, decide
from aftergate.authz.entities import ACTION
from aftergate.authz.facts import Facts
from aftergate.authz.wire import EvaluationRequest
from aftergate.stores.database import Database
from aftergate.stores.used import first_use

LONGEST_MS: Final = 31 * 86_400_000  # how long a login is remembered that no policy lets grow old
_CANONICAL = msgspec.json.Encoder(order="deterministic").encode


def step_up_age_ms(request: EvaluationRequest, snapshot: Snapshot) -> int | None:
    """The greatest age, in milliseconds, at which a login still lifts a step-up that may concern this request; None if there is no such step-up."""
    held = snapshot.slicer.of(
        (request.subject.type, request.subject.id), (ACTION, request.action.name), (request.resource.type, request.resource.id)
    )
    asked = [policy.advice for policy in held.policies if policy.advice is not None and policy.advice.kind == STEP_UP]
    if not asked:
        return None
    return max(LONGEST_MS if each.max_age_s is None else each.max_age_s * 1000 for each in asked)


def depends_on_proof(request: EvaluationRequest, snapshot: Snapshot, facts: Facts, decision: Decision) -> bool:
    """Whether a permit holds only because of the login that came with the request, where a policy asked for it as step-up."""
    if not decision.allowed or facts.auth is None or step_up_age_ms(request, snapshot) is None:
        return False
    return not decide(request, snapshot, msgspec.structs.replace(facts, auth=None)).allowed


def take(database: Database, connection: Connection, request: EvaluationRequest, batch: str, keep_ms: int, now_ms: int) -> bool:
    """Use the login up for this transaction, or for the batch it came in; false if it was used for another.

    INVARIANT: the caller rolls back when it is told no, since looking left a mark.
    """
    auth, context = request.context.get("auth"), request.context
    proof = [request.subject.type, request.subject.id, context.get("session_id")]
    proof += [auth.get(name) for name in ("acr", "auth_time", "jti")] if isinstance(auth, dict) else []
    scope = [batch] if batch else [request.subject, request.action, request.resource, context.get("transaction")]
    of_proof = hashlib.sha256(_CANONICAL(proof)).hexdigest()
    of_both = of_proof + hashlib.sha256(_CANONICAL(scope)).hexdigest()
    until_ms = now_ms + keep_ms + 60_000
    first = first_use(database, connection, "step-up", of_proof, until_ms)
    new_here = first_use(database, connection, "step-up-for", of_both, until_ms)
    return first or not new_here
