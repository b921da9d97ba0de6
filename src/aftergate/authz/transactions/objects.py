"""The approval object: everything a person agrees to, in one canonical JSON text whose digest is the WebAuthn challenge.

The form is written down, with an example, in docs/formats/approval-object.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Struct

from aftergate.authz.advice import APPROVAL, Advice
from aftergate.authz.transactions.canonical import b64url, canonical, merkle_root, transaction_digest

PREFIX: Final = b"tx-approval/v1\n"
BATCH_PREFIX: Final = b"tx-approval-batch/v1\n"
VERSION: Final = "tx-approval/v1"
BATCH_VERSION: Final = "tx-approval-batch/v1"
DEFAULT_TTL_S: Final = 600

# Members of the evaluation's context that belong to the transaction. The rest (time, address, session) may differ between
# denial and execution: policies judge it again then.
BOUND_CONTEXT: Final[tuple[str, ...]] = ("transaction",)


class Item(Struct, frozen=True):
    """One (resource, action) pair of a request; a single request has one."""

    resource: dict[str, Any]
    action: dict[str, Any]
    approval_id: str  # the id the executor presents; unguessable
    evaluation_id: str  # the denial it answers


class Risk(Struct, frozen=True):
    """Risk as it was scored at one time: 0 (none) to 100, with the open findings behind it."""

    score: int
    findings: tuple[str, ...] = ()  # ids, sorted
    slugs: tuple[str, ...] = ()  # detections of those findings, sorted
    marks: tuple[str, ...] = ()  # the same findings as they stand: see `machine.as_it_stands`; not on the wire

    @property
    def band(self) -> str:
        return "low" if self.score < 25 else "medium" if self.score < 50 else "high" if self.score < 80 else "critical"

    def wire(self) -> dict[str, Any]:
        return {"score": self.score, "band": self.band, "findings": list(self.findings), "detections": list(self.slugs)}


class Executor(Struct, frozen=True, omit_defaults=True):
    """The key that may use the approval: a DPoP key's thumbprint (RFC 7638) or a certificate's (RFC 8705). Exactly one is set."""

    jkt: str = ""
    x5t: str = msgspec.field(default="", name="x5t#S256")

    def wire(self) -> dict[str, str]:
        return {"jkt": self.jkt} if self.jkt else {"x5t#S256": self.x5t}


class Need(Struct, frozen=True):
    """So many people, each of one of these groups. Each forbid to be lifted has its own."""

    groups: tuple[str, ...]
    quorum: int = 1

    def wire(self) -> dict[str, Any]:
        return {"needed": self.quorum, "groups": sorted(self.groups)}


class Asked(Struct, frozen=True):
    """What the denying policies ask for, all of them together."""

    needs: tuple[Need, ...] = ()
    ttl_s: int = DEFAULT_TTL_S  # how long approvers have, and then how long the approval may be used
    device_bound: bool = False
    batch: bool = False  # one approval may cover a declared list
    policies: tuple[str, ...] = ()
    break_glass: tuple[tuple[str, ...], ...] = ()  # a member of one group of each may go ahead and be reviewed after; empty: nobody
    machine: tuple[str, ...] = ()  # actions whose permits, all of them, stand for people's yes

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(sorted({group for need in self.needs for group in need.groups}))

    @property
    def quorum(self) -> int:
        """The least number of people that can be enough."""
        return max((need.quorum for need in self.needs), default=1)


def asked_of(advice: Sequence[Advice], everywhere: Sequence[str] = (), *, ttl_s: int = DEFAULT_TTL_S) -> Asked | None:
    """What several forbids ask for at once, or None if no approval could lift them all. `everywhere` are groups that may break any glass;
    `ttl_s` holds where a policy names no time.
    """
    if not advice or any(one.kind != APPROVAL for one in advice):
        return None
    machine = tuple(sorted({one.machine for one in advice})) if all(one.machine for one in advice) else ()
    needs = tuple(dict.fromkeys(Need(tuple(sorted(one.approvers)), one.quorum) for one in advice))
    if any(not need.groups for need in needs):
        if not machine:
            return None
        needs = ()
    glass = tuple(tuple(sorted({*one.break_glass, *everywhere})) for one in advice)
    return Asked(
        needs,
        min(one.ttl_s or ttl_s for one in advice),
        any(one.device_bound for one in advice),
        all(one.batch for one in advice),
        tuple(sorted(one.policy for one in advice)),
        tuple(dict.fromkeys(glass)) if all(glass) else (),
        machine,
    )


def bound_context(context: Mapping[str, Any] | None) -> dict[str, Any]:
    """The members of an evaluation's context that the approval binds."""
    return {name: context[name] for name in BOUND_CONTEXT if context is not None and name in context}


def rfc3339(at_ms: int) -> str:
    """A time in milliseconds as RFC 3339 text in UTC, to the millisecond where there is a fraction."""
    at = datetime.fromtimestamp(at_ms // 1000, UTC).replace(microsecond=at_ms % 1000 * 1000)
    return at.isoformat(timespec="milliseconds" if at_ms % 1000 else "seconds").replace("+00:00", "Z")


def from_rfc3339(text: str) -> int:
    """Milliseconds of RFC 3339 text; a time without an offset is refused.

    Raises: ValueError.
    """
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("a time needs its offset")
    return round(at.timestamp() * 1000)


def totals(items: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Sums over a batch: each numeric member of the resources' properties, one sum for each `currency` or `unit` beside it.

    An order's total is what PSD2 RTS article 5(3)(b) asks a batch code to be specific to.
    """
    sums: dict[tuple[str, str], Decimal] = {}
    for item in items:
        properties = item["resource"].get("properties") or {}
        unit = next((str(properties[name]) for name in ("currency", "unit") if name in properties), "")
        for name, value in properties.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                sums[name, unit] = sums.get((name, unit), Decimal(0)) + Decimal(repr(value))
    return [{"member": name, "unit": unit, "sum": f"{total.normalize():f}"} for (name, unit), total in sorted(sums.items())]


def leaf_digests(subject: Mapping[str, Any], items: Sequence[Item], context: Mapping[str, Any]) -> tuple[bytes, ...]:
    """The transaction digest of each item, in order."""
    return tuple(transaction_digest(subject, item.resource, item.action, context) for item in items)


def base_object(
    *,
    request_id: str,
    subject: Mapping[str, Any],
    on_behalf_of: Sequence[str],
    items: Sequence[Item],
    batch: bool,
    context: Mapping[str, Any],
    callers: Sequence[str],
    executor: Executor,
    policy_digest: str,
    asked: Asked,
    expires_ms: int,
    until_ms: int,
    rp_id: str,
    reason: str,
) -> dict[str, Any]:
    """What does not change from the request to the execution. Each approver's object adds who, when, under which risk.

    `context` holds the bound members only; `until_ms` is the requester's own end of use, 0 for none.
    Raises: ValueError, if there is no item, or several without `batch`.
    """
    digests = leaf_digests(subject, items, context)
    if not batch and len(items) != 1:
        raise ValueError("several items are a batch")
    made: dict[str, Any] = {
        "v": VERSION,
        "request_id": request_id,
        "subject": dict(subject),
        "context": dict(context),
        "callers": sorted(callers),
        "executor": executor.wire(),
        "policy": {"digest": policy_digest, "ids": list(asked.policies)},
        "quorum": {"needed": asked.quorum, "groups": list(asked.groups), "device_bound": asked.device_bound},
        "expires_at": rfc3339(expires_ms),
        "usable_s": asked.ttl_s,
        "rp_id": rp_id,
    }
    if len(asked.needs) > 1:
        made["quorum"]["each"] = [need.wire() for need in asked.needs]
    if on_behalf_of:
        made["on_behalf_of"] = sorted(on_behalf_of)
    if until_ms:
        made["usable_until"] = rfc3339(until_ms)
    if reason:
        made["reason"] = reason
    if batch:
        made["items"] = [msgspec.to_builtins(item) for item in items]
        made["batch"] = {"count": len(items), "root": b64url(merkle_root(digests)), "totals": totals(made["items"])}
    else:
        only = items[0]
        made |= {"approval_id": only.approval_id, "evaluation_id": only.evaluation_id, "resource": only.resource, "action": only.action}
        made["digest"] = b64url(digests[0])
    return made


def for_approver(
    base: Mapping[str, Any], *, approver: str, nonce: bytes, risk: Risk, leaves: Sequence[int] | None = None
) -> dict[str, Any]:
    """The object one approver signs: the base, and who approves, the risk shown, and a nonce that makes its digest unguessable.

    `leaves` names the items of a batch that are approved; None is all of them.
    Raises: ValueError, for a nonce below 16 bytes or a selection that is not of this batch.
    """
    if len(nonce) < 16:
        raise ValueError("a nonce has at least 16 bytes")
    made: dict[str, Any] = {**base, "approver": approver, "nonce": b64url(nonce), "risk": risk.wire()}
    if "items" in base:
        count = len(base["items"])
        chosen = sorted(set(range(count) if leaves is None else leaves))
        if not chosen or chosen[0] < 0 or chosen[-1] >= count:
            raise ValueError("the items chosen are not of this batch")
        made["approved_items"] = chosen
        if len(chosen) < count:
            made["approved_totals"] = totals([base["items"][i] for i in chosen])
    elif leaves is not None and list(leaves) != [0]:
        raise ValueError("this approval has one item")
    return made


def challenge(approval_object: bytes) -> bytes:
    """The WebAuthn challenge over the canonical bytes of one approver's object: 32 bytes."""
    return hashlib.sha256(PREFIX + approval_object).digest()


def gathered(objects: Sequence[bytes], *, approver: str, nonce: bytes, rp_id: str) -> dict[str, Any]:
    """One declared batch of several requests: the Merkle root over their objects for this approver, in the order shown.

    Raises: ValueError, for an empty batch, one request twice, or a short nonce.
    """
    if len(nonce) < 16:
        raise ValueError("a nonce has at least 16 bytes")
    if len(set(objects)) != len(objects):
        raise ValueError("a batch names each request once")
    return {
        "v": BATCH_VERSION,
        "approver": approver,
        "nonce": b64url(nonce),
        "rp_id": rp_id,
        "count": len(objects),
        "root": b64url(merkle_root([challenge(one) for one in objects])),
        "objects": [b64url(challenge(one)) for one in objects],
    }


def batch_challenge(batch_object: bytes) -> bytes:
    """The WebAuthn challenge over the canonical bytes of a gathered batch: 32 bytes."""
    return hashlib.sha256(BATCH_PREFIX + batch_object).digest()


def encoded(approval_object: Mapping[str, Any]) -> bytes:
    """The object's canonical bytes: what is stored, hashed, and kept as evidence."""
    return canonical(approval_object)
