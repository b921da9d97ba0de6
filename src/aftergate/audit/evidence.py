"""An approval's proof, verified again from what the log keeps of it: no server, no network, no trust in what the server concluded.

The evidence is described in docs/formats/audit-evidence.md. Steps are numbered as in WebAuthn Level 3 section 7.2 is followed: what was signed,
by which key, for which site, with the person verified. A refusal is a value.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from webauthn.helpers import decode_credential_public_key, decoded_public_key_to_cryptography, verify_signature
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.exceptions import WebAuthnException

from aftergate.audit.errors import NotCanonical
from aftergate.audit.jcs import canonical_parsed
from aftergate.audit.merkle import Frontier, leaf_hash
from aftergate.errors import Reject
from aftergate.events.clock import from_iso

PREFIX: Final = b"tx-approval/v1\n"
BATCH_PREFIX: Final = b"tx-approval-batch/v1\n"
ALGORITHMS: Final = frozenset({-7, -8, -257})  # ES256, EdDSA, RS256
# What differs between the objects that several approvers of one request sign; everything else must be equal.
OWN_MEMBERS: Final = frozenset({"approver", "nonce", "risk", "approved_items", "approved_totals"})
FORMS: Final = frozenset({"webauthn", "policy", "break_glass"})


class Granted(NamedTuple):
    """A yes that holds."""

    form: str
    request_id: str
    approver: str  # empty for a policy
    subject: str
    approvals: frozenset[str]  # ids of what may be used
    needed: int
    groups: tuple[str, ...]
    base: bytes  # canonical bytes of what all approvers of the request must have agreed on
    usable_ms: int  # how long after the grant it may be used
    until_ms: int | None  # the requester's own end of use
    expires_ms: int  # end of deciding
    credential_id: str = ""
    key_sha256: str = ""
    sign_count: int = 0
    object: Mapping[str, Any] = {}


class Refused(NamedTuple):
    """Why the evidence does not hold: `code` is stable."""

    code: str
    why: str


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64url(text: Any) -> bytes | None:
    """Bytes of base64url without padding; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if b64url(data) == text else None


def object_digest(approval_object: Mapping[str, Any]) -> bytes:
    """SHA-256("tx-approval/v1\\n" || JCS(object)). Raises: NotCanonical."""
    return hashlib.sha256(PREFIX + canonical_parsed(approval_object)).digest()


def verify(evidence: Mapping[str, Any], tx_hash: str, *, rp_ids: Sequence[str] = (), origins: Sequence[str] = ()) -> Granted | Refused:
    """Whether the evidence of one `approval.granted` (or `breakglass.opened`) record holds. `tx_hash` is the record's.

    `rp_ids` and `origins`, if given, are the auditor's own list; otherwise what the evidence names must at least agree with itself.
    """
    form, approval_object = evidence.get("form"), evidence.get("object")
    if not isinstance(form, str) or form not in FORMS or not isinstance(approval_object, dict):
        return Refused("evidence-malformed", "not evidence of a form that this program knows")
    # 1. The digest is recomputed from the object, never taken from the client.
    try:
        digest = object_digest(approval_object)
    except NotCanonical as error:
        return Refused("evidence-malformed", error.message)
    if not hmac.compare_digest(b64url(digest), tx_hash):
        return Refused("object-digest", "the approval object is not the one whose digest stands in the record")
    granted = _terms(form, approval_object)
    if granted is None:
        return Refused("evidence-malformed", "the approval object lacks what it must bind")
    if form != "webauthn":
        return granted
    # 2. One challenge for one object, or for a declared batch of objects that names this one.
    challenge: bytes | None = digest
    if "gathered" in evidence:
        challenge = _gathered(evidence["gathered"], digest, approval_object)
        if challenge is None:
            return Refused("batch-digest", "the batch that was signed does not hold this approval object")
    return _assertion(evidence, challenge, granted, rp_ids, origins)


def _terms(form: str, o: Mapping[str, Any]) -> Granted | None:
    try:
        single = "items" not in o
        chosen = o.get("approved_items")
        items = [o] if single else [o["items"][i] for i in (range(len(o["items"])) if chosen is None else chosen)]
        for item in items:
            if not (item["action"]["name"] and item["resource"]["type"] and item["resource"]["id"]):
                return None
        base = {name: value for name, value in o.items() if name not in OWN_MEMBERS}
        until = o.get("usable_until")
        made = Granted(
            form=form,
            request_id=o["request_id"],
            approver=o.get("approver", ""),
            subject=o["subject"]["id"],
            approvals=frozenset(item["approval_id"] for item in items),
            needed=o["quorum"]["needed"],
            groups=tuple(o["quorum"].get("groups", ())),
            base=canonical_parsed(base),
            usable_ms=o["usable_s"] * 1000,
            until_ms=None if until is None else from_iso(until),
            expires_ms=from_iso(o["expires_at"]),
            object=o,
        )
    except (KeyError, TypeError, IndexError, AttributeError, Reject, NotCanonical):
        return None
    if type(made.needed) is not int or made.needed < (form == "webauthn") or not made.approvals or (form == "webauthn" and not _fresh(o)):
        return None
    return made


def _fresh(o: Mapping[str, Any]) -> bool:
    """A nonce of 16 bytes keeps the digest from being guessed, and an approver is named."""
    nonce = unb64url(o.get("nonce"))
    return nonce is not None and len(nonce) >= 16 and isinstance(o.get("approver"), str) and bool(o["approver"])


def _gathered(batch: Any, digest: bytes, approval_object: Mapping[str, Any]) -> bytes | None:
    """Digest of the signed batch, if it lists this object, its root and count are those of the list, and it is the same approver's."""
    if (
        not isinstance(batch, dict)
        or batch.get("approver") != approval_object.get("approver")
        or batch.get("rp_id") != approval_object.get("rp_id")
    ):
        return None
    listed = batch.get("objects")
    if not isinstance(listed, list) or b64url(digest) not in listed or len(set(listed)) != len(listed) or batch.get("count") != len(listed):
        return None
    leaves = [unb64url(each) for each in listed]
    if any(each is None for each in leaves) or batch.get("root") != b64url(Frontier.of(leaf_hash(each or b"") for each in leaves).root()):
        return None
    try:
        return hashlib.sha256(BATCH_PREFIX + canonical_parsed(batch)).digest()
    except NotCanonical:
        return None


def _assertion(
    evidence: Mapping[str, Any], challenge: bytes | None, granted: Granted, rp_ids: Sequence[str], origins: Sequence[str]
) -> Granted | Refused:
    client, data, signature, key = (
        unb64url(evidence.get(name)) for name in ("client_data_json", "authenticator_data", "signature", "public_key")
    )
    rp_id, origin = evidence.get("rp_id"), evidence.get("origin")
    if (
        client is None
        or data is None
        or signature is None
        or not key
        or challenge is None
        or not isinstance(rp_id, str)
        or not isinstance(origin, str)
    ):
        return Refused("evidence-malformed", "the assertion lacks a part")
    # 3. What the browser says it signed for (section 7.2, steps 10 to 14).
    try:
        said = msgspec.json.decode(client)
    except (msgspec.DecodeError, ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        return Refused("client-data", "clientDataJSON is not a JSON object")
    if said.get("type") != "webauthn.get":
        return Refused("client-data-type", "the signature was not made for an assertion")
    signed_for = unb64url(said.get("challenge"))
    if signed_for is None or not hmac.compare_digest(signed_for, challenge):
        return Refused("challenge", "the challenge that was signed is not the digest of what was approved")
    if said.get("origin") != origin or (origins and origin not in origins):
        return Refused("origin", "the assertion was made on another site")
    if said.get("crossOrigin", False) is not False or "topOrigin" in said:
        return Refused("cross-origin", "the assertion was made inside another site's page")
    # 4. What the authenticator says: for this relying party, person present and verified (steps 15 to 19).
    if len(data) < 37:
        return Refused("authenticator-data", "authenticatorData is too short")
    if granted.object.get("rp_id") != rp_id or (rp_ids and rp_id not in rp_ids):
        return Refused("rp-id", "the assertion belongs to another relying party")
    if not hmac.compare_digest(data[:32], hashlib.sha256(rp_id.encode()).digest()):
        return Refused("rp-id", "the authenticator signed for another relying party")
    flags = data[32]
    if not flags & 0x01:
        return Refused("user-presence", "nobody was present at the authenticator")
    if not flags & 0x04:
        return Refused("user-verification", "the authenticator did not verify the person")
    if flags & 0x10 and not flags & 0x08:
        return Refused("backup-flags", "a credential that is backed up but cannot be")
    if granted.object["quorum"].get("device_bound") is True and flags & 0x08:
        return Refused("device-bound", "a credential that can be copied, where one bound to its device was asked for")
    # 5. The signature, with the key and its own algorithm (steps 20 and 21).
    try:
        decoded = decode_credential_public_key(key)
        if int(decoded.alg) not in ALGORITHMS:
            return Refused("algorithm", "a signature algorithm that is not accepted")
        verify_signature(
            public_key=decoded_public_key_to_cryptography(decoded),
            signature_alg=COSEAlgorithmIdentifier(int(decoded.alg)),
            signature=signature,
            data=data + hashlib.sha256(client).digest(),
        )
    except (InvalidSignature, WebAuthnException, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return Refused("signature", "the signature is not good")
    credential = evidence.get("credential_id")
    return granted._replace(
        credential_id=credential if isinstance(credential, str) else "",
        key_sha256=b64url(hashlib.sha256(key).digest()),
        sign_count=int.from_bytes(data[33:37], "big"),
    )
