"""WebAuthn, checked line by line: what an authenticator must prove before a person counts as having said yes, or as registered.

The numbered steps are those of docs/approvals.md and follow Web Authentication Level 3, sections 7.1 and 7.2. The library `webauthn` decodes and
verifies signatures; the rules that decide are here, in an order that lets nobody provoke a clone suspicion without the key. Answers are values.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct
from webauthn import verify_authentication_response, verify_registration_response
from webauthn.helpers import decode_credential_public_key, parse_attestation_object, parse_authenticator_data
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.exceptions import WebAuthnException

from aftergate.authz.transactions.canonical import b64url, unb64url

# ES256, EdDSA, RS256: what authenticators have in the field, and what the evidence's verifiers know.
ALGORITHMS: Final = (
    COSEAlgorithmIdentifier.ECDSA_SHA_256,
    COSEAlgorithmIdentifier.EDDSA,
    COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256,
)
SOFTWARE_KEY_AAGUID: Final = "c2f27a74-5a1b-4c69-9d1e-af7e56a7e001"  # authenticators made by transactions/softkey.py
MAX_CLIENT_DATA: Final = 8192


class Authenticator(Struct, frozen=True):
    """A registered authenticator, as the server holds it."""

    credential_id: bytes
    person: str
    public_key: bytes  # COSE
    sign_count: int
    backup_eligible: bool
    aaguid: str = ""
    user_handle: bytes = b""
    revoked: bool = False


class Expected(Struct, frozen=True):
    """What this server asked for. `challenge` is recomputed from the stored object, never taken from the client."""

    challenge: bytes
    rp_id: str
    origins: frozenset[str]
    device_bound: bool = False
    software_keys: bool = True
    user_verification: bool = True


class Failure(Struct, frozen=True):
    """Which step an assertion or registration failed. For the audit trail: people are told only that it failed (PSD2 RTS 4(3)(a))."""

    step: str
    detail: str
    clone_suspected: bool = False


class Assertion(Struct, frozen=True):
    """A verified assertion."""

    credential_id: bytes
    sign_count: int
    backed_up: bool
    backup_eligible: bool
    origin: str
    client_data: bytes
    authenticator_data: bytes
    signature: bytes
    public_key: bytes

    def evidence(self, approval_object: Mapping[str, Any], rp_id: str, gathered: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All that an auditor needs to verify this again, offline (docs/formats/audit-evidence.md)."""
        made: dict[str, Any] = {
            "form": "webauthn",
            "object": dict(approval_object),
            "client_data_json": b64url(self.client_data),
            "authenticator_data": b64url(self.authenticator_data),
            "signature": b64url(self.signature),
            "credential_id": b64url(self.credential_id),
            "public_key": b64url(self.public_key),
            "rp_id": rp_id,
            "origin": self.origin,
        }
        if gathered is not None:
            made["gathered"] = dict(gathered)
        return made


class Registration(Struct, frozen=True):
    """A verified registration: what to store."""

    credential_id: bytes
    public_key: bytes
    sign_count: int
    aaguid: str
    backup_eligible: bool
    backed_up: bool
    user_verified: bool
    transports: tuple[str, ...]
    attestation: str


def verify_assertion(given: Any, expected: Expected, authenticator: Authenticator | None, person: str) -> Assertion | Failure:
    """Check an assertion (`AuthenticationResponseJSON`, decoded) for one person.

    `authenticator` is the stored one with the id that `credential_id_of(given)` names, or None if there is none.
    Source: WebAuthn Level 3, section 7.2; steps as in docs/approvals.md.
    """
    parts = _parts(given, ("clientDataJSON", "authenticatorData", "signature"))
    if isinstance(parts, Failure):
        return parts
    credential_id, held = parts
    # 1. The credential is known, this person's, and not revoked.
    if authenticator is None or not hmac.compare_digest(authenticator.credential_id, credential_id):
        return Failure("1 credential", "unknown credential")
    if authenticator.person != person:
        return Failure("1 credential", "another person's credential")
    if authenticator.revoked:
        return Failure("1 credential", "revoked credential")
    handle = given["response"].get("userHandle")
    if handle is not None and authenticator.user_handle and not _same(handle, authenticator.user_handle):
        return Failure("1 credential", "the user handle is another person's")
    if not expected.software_keys and authenticator.aaguid == SOFTWARE_KEY_AAGUID:
        return Failure("1 credential", "the policy does not take software keys")
    # 2. The client data is of this ceremony, challenge and origin.
    origin = _client_data(held["clientDataJSON"], "webauthn.get", expected)
    if isinstance(origin, Failure):
        return origin
    # 3. The authenticator data is of this relying party, the user was there and verified, and the backup flags make sense.
    failure = _flags(held["authenticatorData"], expected, authenticator.backup_eligible)
    if failure is not None:
        return failure
    # 4. The signature holds, under the stored key and its algorithm.
    try:
        if decode_credential_public_key(authenticator.public_key).alg not in ALGORITHMS:
            return Failure("4 signature", "the stored key's algorithm is not accepted")
        verified = verify_authentication_response(
            credential=_plain(given),
            expected_challenge=expected.challenge,
            expected_rp_id=expected.rp_id,
            expected_origin=sorted(expected.origins),
            credential_public_key=authenticator.public_key,
            credential_current_sign_count=0,  # step 5 is ours: a wrong signature must not look like a clone
            require_user_verification=expected.user_verification,
        )
    except WebAuthnException as error:
        return Failure("4 signature", str(error))
    except Exception as error:  # noqa: BLE001  # INVARIANT: whatever a caller's bytes do to a decoder, the answer is no
        return Failure("4 signature", f"cannot be decoded: {type(error).__name__}")
    # 5. The counter went up, where there is one.
    count = verified.new_sign_count
    if (count or authenticator.sign_count) and count <= authenticator.sign_count:
        return Failure("5 counter", f"counter {count} after {authenticator.sign_count}", clone_suspected=True)
    return Assertion(
        credential_id,
        count,
        verified.credential_backed_up,
        authenticator.backup_eligible,
        origin,
        held["clientDataJSON"],
        held["authenticatorData"],
        held["signature"],
        authenticator.public_key,
    )


def verify_registration(given: Any, expected: Expected) -> Registration | Failure:
    """Check a registration (`RegistrationResponseJSON`, decoded). Attestation `none` is taken; any other is verified in itself.

    Source: WebAuthn Level 3, section 7.1.
    """
    parts = _parts(given, ("clientDataJSON", "attestationObject"))
    if isinstance(parts, Failure):
        return parts
    credential_id, held = parts
    origin = _client_data(held["clientDataJSON"], "webauthn.create", expected)
    if isinstance(origin, Failure):
        return origin
    try:
        attested = parse_attestation_object(held["attestationObject"])
        flags = attested.auth_data.flags
        if flags.bs and not flags.be:
            return Failure("3 flags", "backed up without being eligible for it")
        if expected.device_bound and flags.be:
            return Failure("3 flags", "the policy asks for a device-bound authenticator")
        verified = verify_registration_response(
            credential=_plain(given),
            expected_challenge=expected.challenge,
            expected_rp_id=expected.rp_id,
            expected_origin=sorted(expected.origins),
            require_user_verification=expected.user_verification,
            supported_pub_key_algs=list(ALGORITHMS),
        )
    except WebAuthnException as error:
        return Failure("4 attestation", str(error))
    except Exception as error:  # noqa: BLE001  # INVARIANT: as above
        return Failure("4 attestation", f"cannot be decoded: {type(error).__name__}")
    if not hmac.compare_digest(verified.credential_id, credential_id):
        return Failure("1 credential", "the id is not that of the attested key")
    if len(credential_id) > 1023:
        return Failure("1 credential", "the id is too long")
    if not expected.software_keys and verified.aaguid == SOFTWARE_KEY_AAGUID:
        return Failure("1 credential", "software keys are not taken")
    transports = given["response"].get("transports")
    return Registration(
        verified.credential_id,
        verified.credential_public_key,
        verified.sign_count,
        verified.aaguid,
        flags.be,
        flags.bs,
        verified.user_verified,
        tuple(sorted({str(one)[:32] for one in transports})) if isinstance(transports, list) else (),
        str(getattr(verified.fmt, "value", verified.fmt)),
    )


def credential_id_of(given: Any) -> bytes | None:
    """The credential id an assertion names, to look it up; None if it names none."""
    try:
        return unb64url(given["rawId"]) if isinstance(given, dict) and given.get("id") == given["rawId"] else None
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def _parts(given: Any, names: tuple[str, ...]) -> tuple[bytes, dict[str, bytes]] | Failure:
    """Step 0: the JSON has its form. Every byte field is strict base64url, so that no two texts mean one value."""
    if not isinstance(given, dict) or given.get("type") != "public-key" or not isinstance(given.get("response"), dict):
        return Failure("0 form", "not a public-key credential")
    credential_id = credential_id_of(given)
    if not credential_id:
        return Failure("0 form", "`id` and `rawId` are not one base64url value")
    held: dict[str, bytes] = {}
    for name in names:
        text = given["response"].get(name)
        try:
            held[name] = unb64url(text) if isinstance(text, str) else b""
        except ValueError:
            held[name] = b""
        if not held[name]:
            return Failure("0 form", f"`{name}` is not base64url")
    return credential_id, held


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    """The members that the library is to see: hints such as an unknown `authenticatorAttachment` decide nothing and must not fail it."""
    return {name: given[name] for name in ("id", "rawId", "type", "response")}


def _client_data(data: bytes, kind: str, expected: Expected) -> str | Failure:
    """Step 2, giving the origin."""
    if len(data) > MAX_CLIENT_DATA:
        return Failure("2 client data", "too long")
    try:
        held = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
        if not isinstance(held, dict):
            raise TypeError("not an object")
    except (ValueError, TypeError, RecursionError):
        return Failure("2 client data", "not a JSON object with unique names")
    if held.get("type") != kind:
        return Failure("2 client data", f"the ceremony is not `{kind}`")
    if not _same(held.get("challenge"), expected.challenge):
        return Failure("2 client data", "another challenge")
    if not isinstance(held.get("origin"), str) or held["origin"] not in expected.origins:
        return Failure("2 client data", "the origin is not allowed")
    if held.get("crossOrigin") not in {None, False} or "topOrigin" in held:
        return Failure("2 client data", "made inside another site's page")
    return str(held["origin"])


def _flags(data: bytes, expected: Expected, backup_eligible: bool) -> Failure | None:
    """Step 3."""
    try:
        held = parse_authenticator_data(data)
    except Exception as error:  # noqa: BLE001  # INVARIANT: as above
        return Failure("3 flags", f"cannot be decoded: {type(error).__name__}")
    if not hmac.compare_digest(held.rp_id_hash, hashlib.sha256(expected.rp_id.encode()).digest()):
        return Failure("3 flags", "another relying party")
    if not held.flags.up:
        return Failure("3 flags", "the user was not present")
    if expected.user_verification and not held.flags.uv:
        return Failure("3 flags", "the user was not verified")
    if held.flags.bs and not held.flags.be:
        return Failure("3 flags", "backed up without being eligible for it")
    if held.flags.be != backup_eligible:
        return Failure("3 flags", "backup eligibility changed since registration")
    if expected.device_bound and held.flags.be:
        return Failure("3 flags", "the policy asks for a device-bound authenticator")
    return None


def _same(text: Any, data: bytes) -> bool:
    """Whether base64url text is these bytes, in constant time."""
    return isinstance(text, str) and hmac.compare_digest(text.encode("utf-8", "replace"), b64url(data).encode())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name given twice")
    return made
