"""A decision as AuthZEN answers it: `decision` and `context` (Information Model; Obligations Profile draft for what is mandatory)."""

from __future__ import annotations

from typing import Any, Final

from aftergate.authz.advice import STEP_UP, challenge, joined
from aftergate.authz.decide import Decision
from aftergate.authz.errors import BadRequest

SUPPORTED_OBLIGATIONS: Final = ("step-up",)
_WORDS: Final[dict[str, str]] = {
    "permitted": "permitted",
    "forbidden": "a policy forbids this",
    "no_permit": "no policy permits this",
    "step_up_required": "a stronger or fresher login is needed",
    "approval_required": "an approval of this transaction is needed",
    "policy_error": "a policy could not be evaluated, so the answer is no",
    "request_unmappable": "the request holds what policies cannot read, so the answer is no",
    "trust_unknown": "live trust is not known, so the answer is no",
}


def context_of(decision: Decision) -> dict[str, Any]:
    """The `context` of an answer: policies by `@id`, why, and what would change it. Empty members are left out."""
    made: dict[str, Any] = {
        "reason": decision.reason,
        "policies": list(decision.determining),
        "policy_version": version_of(decision.policy_digest),
    }
    if not decision.allowed:
        said = "; ".join(decision.reasons) or _WORDS[decision.reason]
        made["reason_admin"] = {"403": f"{_WORDS[decision.reason]}: {', '.join(decision.determining) or 'no policy held'}"}
        made["reason_user"] = {"403": said}
        if decision.missing:
            made["would_change"] = list(decision.missing)
    if decision.errors:
        made["errors"] = [{"policy": fault.policy, "message": fault.message} for fault in decision.errors]
    if decision.conflicts:
        made["conflicts"] = list(decision.conflicts)
    asked = [each for each in decision.advice if each.kind == STEP_UP]
    if decision.outcome == "step_up" and asked:
        acr, amr, max_age = joined(asked)
        properties: dict[str, Any] = {"acr_value": acr[0]}
        made["acr_values"] = " ".join(acr)
        if amr:
            properties["amr_values"] = list(amr)
            made["amr_values"] = " ".join(amr)
        if max_age is not None:
            properties["max_age"] = max_age
            made["max_age"] = max_age
        made["obligations"] = [{"id": f"step-up:{asked[0].policy}", "type": "step-up", "properties": properties}]
        made["challenge"] = challenge(decision.advice)
    return made


def wire(allowed: bool, context: dict[str, Any]) -> dict[str, Any]:
    """An answer as AuthZEN writes it."""
    return {"decision": allowed, "context": context} if context else {"decision": allowed}


def version_of(digest: str) -> str:
    """The short form of a digest that people read."""
    return digest.removeprefix("sha256:")[:12]


def error_context(error: BadRequest) -> dict[str, Any]:
    """The `context` of an item that could not be evaluated (Access Evaluations API)."""
    return {"error": {"status": 400, "message": error.message}}
