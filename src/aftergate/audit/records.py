"""What one audit record says, and how it is sealed: the leaf that is hashed for ever, and beside it what may be erased.

The leaf is canonical JSON. A person's id, the fields of `personal`, the request and the evidence of an approval stand in it as salted commitments only:
deleting salt and value erases them, and the tree stays whole.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from aftergate.audit.errors import BadRecord, NotCanonical
from aftergate.audit.jcs import MAX_INT, canonical, canonical_parsed, parse
from aftergate.audit.tiles import MAX_ENTRY
from aftergate.errors import Reject
from aftergate.events.clock import from_iso, to_iso

VERSION: Final = 1
SALT_BYTES: Final = 16
MAX_ID: Final = 1024  # characters; of a longer id the beginning and the hash are recorded

# A closed vocabulary: a new type is one more line here, and one more row in docs/formats/audit-record.md.
RECORD_TYPES: Final = frozenset(
    """
    decision decision.batch
    access_request
    approval.granted approval.denied approval.cancelled approval.expired approval.voided approval.consumed approval.refused
    breakglass.opened breakglass.closed
    task.created task.token task.completed task.cancelled task.expired task.killed task.use_after_death
    tool.allowed tool.denied
    policy.changed policy.refused
    admin.key.created admin.key.revoked
    admin.person.added admin.person.changed admin.person.removed
    admin.enrolment.created admin.authenticator.added admin.authenticator.removed
    admin.login admin.login.refused admin.logout
    admin.client.added admin.client.changed admin.client.removed
    admin.token_key.rotated admin.audit_key.rotated
    admin.settings.changed admin.entities.changed admin.audit.exported admin.audit.restarted admin.message.retried
    findings.received findings.closed
    erasure heartbeat server.started server.stopped
""".split()
)
DECISIONS: Final = frozenset({"", "permit", "deny", "step_up", "approval"})
# Types of subjects that are people; compared without regard to case. Their ids never stand in a leaf.
PERSONAL_TYPES: Final = frozenset({"user", "person", "human", "customer", "employee", "patient", "member"})
ATTACHMENTS: Final = ("evidence", "request")
_TOKEN: Final = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)*")


class Party(Struct, frozen=True, omit_defaults=True):
    """Somebody or something, in AuthZEN terms."""

    type: str
    id: str


class Actor(Struct, frozen=True, omit_defaults=True):
    """Who acted: `act` are those it acts for or through, nearest first."""

    type: str
    id: str
    act: tuple[Party, ...] = ()


class Risk(Struct, frozen=True, omit_defaults=True):
    score: int | None = None  # 0 to 100
    band: str = ""
    signals: tuple[str, ...] = ()  # slugs of findings


class PolicyRef(Struct, frozen=True, omit_defaults=True):
    id: str = ""
    version: str = ""
    digest: str = ""


class ApprovalRef(Struct, frozen=True, omit_defaults=True):
    id: str
    tx_hash: str = ""  # base64url of the approver's challenge: SHA-256("tx-approval/v1\n" || JCS(approval object))
    approver: str = ""  # a person: stands in the leaf as commitment
    credential_id: str = ""  # base64url
    quorum: int = 0  # how many approvers are needed; 0 where the record does not say


class TokenRef(Struct, frozen=True, omit_defaults=True):
    """A token by its keyed hash; never the token."""

    jti_hash: str = ""
    family: str = ""
    cnf: str = ""
    issued_at: int = 0  # seconds
    exp: int = 0  # seconds


class SourceEvent(Struct, frozen=True, omit_defaults=True):
    hash: str
    class_uid: int = 0


class Emitter(Struct, frozen=True, omit_defaults=True):
    """Who counted this record before it came to the log: `n` rises by one, so that a record lost on the way leaves a gap."""

    id: str
    n: int


class Record(Struct, frozen=True, omit_defaults=True):
    """One thing that happened. Number, time and commitments are added when the log takes it."""

    type: str
    actor: Actor | None = None
    subject: Party | None = None
    action: str = ""
    resource: Party | None = None
    decision: str = ""
    reasons: tuple[str, ...] = ()
    obligations: tuple[Any, ...] = ()
    risk: Risk | None = None
    policy: PolicyRef | None = None
    request_id: str = ""
    evaluation_id: str = ""
    approval: ApprovalRef | None = None
    token: TokenRef | None = None
    source_event: SourceEvent | None = None
    emitter: Emitter | None = None
    tenant: str = ""
    transaction: str = ""  # joins all records of one transaction, from the request to the last use
    task: str = ""
    detail: Mapping[str, Any] = {}  # JSON; no secrets, no personal data
    personal: Mapping[str, str] = {}  # each value is committed to, and erasable
    evidence: Mapping[str, Any] | None = None  # of an approval, see docs/formats/audit-evidence.md; outside the leaf
    request: Mapping[str, Any] | None = None  # as it was asked; outside the leaf


class Kept(NamedTuple):
    """An erasable value beside the leaf: `subject.id` and its like."""

    field: str
    salt: bytes
    value: str


class Attachment(NamedTuple):
    """An erasable JSON document beside the leaf: `evidence` or `request`."""

    kind: str
    salt: bytes
    body: bytes  # canonical JSON


class Sealed(NamedTuple):
    leaf: bytes
    kept: tuple[Kept, ...]
    attachments: tuple[Attachment, ...]


def commitment(salt: bytes, field: str, value: bytes) -> str:
    """base64url(HMAC-SHA-256(salt, "audit-personal/v1\\n" || field || "\\n" || value)): without the salt it tells nothing about the value."""
    digest = hmac.digest(salt, b"audit-personal/v1\n" + field.encode() + b"\n" + value, hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def seal(record: Record, seq: int, ts_ms: int, salt: Callable[[], bytes], personal_types: frozenset[str] = PERSONAL_TYPES) -> Sealed:
    """The leaf of `record` at place `seq`, and what stays beside it. `salt` gives 16 fresh random bytes at each call.

    Raises: BadRecord, for an unknown type or decision, a value that JSON has not, or a leaf of more than 65,535 bytes.
    """
    if record.type not in RECORD_TYPES or record.decision not in DECISIONS:
        what = f"record type `{record.type}`" if record.type not in RECORD_TYPES else f"decision `{record.decision}`"
        raise BadRecord(f"unknown {what}")
    kept: list[Kept] = []
    attachments: list[Attachment] = []

    def hide(field: str, value: str) -> dict[str, str]:
        fresh = salt()
        kept.append(Kept(field, fresh, value))
        return {"commitment": commitment(fresh, field, _utf8(value))}

    leaf: dict[str, Any] = {"v": VERSION, "seq": seq, "ts": to_iso(ts_ms)}
    for name in _PLAIN:
        value = getattr(record, name)
        if value:
            leaf[name] = value
    for name in _STRUCTS:
        value = getattr(record, name)
        if value is not None:
            leaf[name] = msgspec.to_builtins(value)
    for name in ("actor", "subject", "resource"):
        party = leaf.get(name)
        if party is not None:
            _hide_ids(party, name, personal_types, hide)
    approval = leaf.get("approval")
    if approval is not None and "approver" in approval:
        approval["approver"] = hide("approval.approver", approval["approver"])
    if record.personal:
        leaf["personal"] = {field: hide(f"personal.{field}", value) for field, value in record.personal.items()}
    try:
        for kind in ATTACHMENTS:
            document = getattr(record, kind)
            if document is not None:
                body = canonical_parsed(document) if kind == "evidence" else canonical(mask(document))
                fresh = salt()
                attachments.append(Attachment(kind, fresh, body))
                leaf[kind] = {"commitment": commitment(fresh, kind, body)}
        made = canonical(leaf)
        if b"eyJ" in made:
            made = canonical(mask(leaf))
    except NotCanonical as error:
        raise BadRecord(f"a record of type `{record.type}` holds {error.message}", hint=error.advice()) from None
    if len(made) > MAX_ENTRY:
        raise BadRecord(
            f"a record of type `{record.type}` has {len(made)} bytes", hint="a record holds up to 65,535: give long lists by their digest"
        )
    return Sealed(made, tuple(kept), tuple(attachments))


_STRUCTS: Final = ("actor", "subject", "resource", "risk", "policy", "approval", "token", "source_event", "emitter")
_PLAIN: Final = tuple(f for f in Record.__struct_fields__ if f not in (*_STRUCTS, "personal", "evidence", "request"))


def _utf8(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise BadRecord("text with half a surrogate pair") from None


def _hide_ids(party: dict[str, Any], field: str, personal_types: frozenset[str], hide: Callable[[str, str], dict[str, str]]) -> None:
    if party["type"].casefold() in personal_types:
        party["id"] = hide(f"{field}.id", party["id"])
    elif len(party["id"]) > MAX_ID:
        party["id"] = f"{party['id'][:MAX_ID]}... sha256:{hashlib.sha256(_utf8(party['id'])).hexdigest()}"
    for place, behind in enumerate(party.get("act", ())):
        _hide_ids(behind, f"{field}.act.{place}", personal_types, hide)


def mask(value: Any) -> Any:
    """The same JSON with everything that looks like a signed token cut to its hash: a token handed over as an id must not live in the log.

    Integers beyond 2^53-1 become strings, since canonical JSON has none.
    """
    if isinstance(value, str):
        return _TOKEN.sub(_masked, value) if "eyJ" in value else value
    if type(value) is int and not -MAX_INT <= value <= MAX_INT:
        return str(value)  # a caller's large number must not keep its request out of the log
    if isinstance(value, Mapping):
        return {mask(k): mask(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask(v) for v in value]
    return value


def _masked(match: re.Match[str]) -> str:
    return "token:sha256:" + hashlib.sha256(match.group().encode()).hexdigest()[:16]


class Leaf(NamedTuple):
    """A leaf as read back. `raw` is the whole object."""

    seq: int
    ts_ms: int
    type: str
    raw: dict[str, Any]


def read(data: bytes) -> Leaf:
    """Read a leaf.

    Raises: BadRecord, unless it is canonical JSON, of a known version and type, with a number and a time.
    """
    try:
        raw = parse(data)
    except NotCanonical as error:
        raise BadRecord(error.message) from None
    if not isinstance(raw, dict):
        raise BadRecord("a record is a JSON object")
    version, seq, ts, kind = raw.get("v"), raw.get("seq"), raw.get("ts"), raw.get("type")
    if version != VERSION or kind not in RECORD_TYPES or not isinstance(seq, int) or isinstance(seq, bool) or not isinstance(ts, str):
        raise BadRecord("not a record of a version and type that this program knows", hint="a newer one may")
    try:
        return Leaf(seq, from_iso(ts), kind, raw)
    except Reject:
        raise BadRecord("a record whose time is no time") from None


def commitments(raw: Mapping[str, Any]) -> dict[str, str]:
    """Every commitment of a leaf: field -> commitment, in the names of `Kept.field` and `Attachment.kind`."""
    found: dict[str, str] = {}

    def look(field: str, value: Any) -> None:
        if isinstance(value, dict) and isinstance(value.get("commitment"), str):
            found[field] = value["commitment"]

    for name in ("actor", "subject", "resource"):
        party = raw.get(name)
        if isinstance(party, dict):
            look(f"{name}.id", party.get("id"))
            for place, behind in enumerate(party.get("act", ())):
                look(f"{name}.act.{place}.id", behind.get("id"))
    look("approval.approver", (raw.get("approval") or {}).get("approver"))
    for field, value in (raw.get("personal") or {}).items():
        look(f"personal.{field}", value)
    for kind in ATTACHMENTS:
        look(kind, raw.get(kind))
    return found
