"""Assertions and registrations: each line of WebAuthn Level 3, sections 7.1 and 7.2, has its refusal."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from msgspec.structs import replace

from aftergate.authz.transactions import softkey
from aftergate.authz.transactions.canonical import b64url, unb64url
from aftergate.authz.transactions.softkey import BE, BS, UP, UV, KeyFileError, SoftKey
from aftergate.authz.transactions.webauthn import (
    SOFTWARE_KEY_AAGUID,
    Assertion,
    Authenticator,
    Expected,
    Failure,
    Registration,
    credential_id_of,
    verify_assertion,
    verify_registration,
)

ORIGIN = "https://approve.example"
CHALLENGE = b"c" * 32
EXPECTED = Expected(CHALLENGE, "approve.example", frozenset({ORIGIN, "https://also.example"}))
Break = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def key() -> SoftKey:
    return softkey.new_key("approve.example", b"bob-handle", os.urandom)


def held(key: SoftKey, **more: Any) -> Authenticator:
    given: dict[str, Any] = {
        "credential_id": key.credential_id,
        "person": "bob",
        "public_key": key.public_key(),
        "sign_count": key.sign_count,
        "backup_eligible": bool(key.flags & BE),
        "aaguid": key.aaguid,
        "user_handle": key.user_handle,
    }
    return Authenticator(**{**given, **more})


def check(key: SoftKey, made: dict[str, Any], expected: Expected = EXPECTED, **more: Any) -> Assertion | Failure:
    return verify_assertion(made, expected, held(key, **more), "bob")


def fails(answer: Assertion | Registration | Failure | None, step: str) -> Failure:
    assert isinstance(answer, Failure), answer
    assert answer.step == step, answer
    return answer


def client_data(made: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads(unb64url(made["response"]["clientDataJSON"]))
    change(data)
    made["response"]["clientDataJSON"] = b64url(json.dumps(data).encode())


def test_a_true_assertion_holds_and_keeps_its_evidence(key: SoftKey) -> None:
    moved, made = key.assertion(CHALLENGE, ORIGIN)
    answer = check(key, made)
    assert isinstance(answer, Assertion)
    assert (answer.sign_count, answer.origin, answer.backup_eligible) == (moved.sign_count, ORIGIN, True)
    kept = answer.evidence({"rp_id": "approve.example"}, "approve.example")
    assert {
        "object",
        "client_data_json",
        "authenticator_data",
        "signature",
        "public_key",
        "rp_id",
        "origin",
        "credential_id",
    } <= kept.keys()


# 1. The credential.


def test_1_an_unknown_credential_is_refused(key: SoftKey) -> None:
    _, made = key.assertion(CHALLENGE, ORIGIN)
    fails(verify_assertion(made, EXPECTED, None, "bob"), "1 credential")
    fails(check(key, made, credential_id=b"another"), "1 credential")


def test_1_another_persons_credential_is_refused(key: SoftKey) -> None:
    _, made = key.assertion(CHALLENGE, ORIGIN)
    fails(check(key, made, person="eve"), "1 credential")


def test_1_a_revoked_credential_is_refused(key: SoftKey) -> None:
    _, made = key.assertion(CHALLENGE, ORIGIN)
    fails(check(key, made, revoked=True), "1 credential")


def test_1_another_persons_user_handle_is_refused(key: SoftKey) -> None:
    _, made = key.assertion(CHALLENGE, ORIGIN)
    made["response"]["userHandle"] = b64url(b"eve-handle")
    fails(check(key, made), "1 credential")


def test_1_no_user_handle_is_fine_where_the_credential_was_named(key: SoftKey) -> None:
    _, made = key.assertion(CHALLENGE, ORIGIN)
    del made["response"]["userHandle"]
    assert isinstance(check(key, made), Assertion)


def test_1_a_software_key_is_refused_where_none_is_taken(key: SoftKey) -> None:
    assert key.aaguid == SOFTWARE_KEY_AAGUID
    _, made = key.assertion(CHALLENGE, ORIGIN)
    fails(check(key, made, replace(EXPECTED, software_keys=False)), "1 credential")


# 2. The client data.


def test_2_another_challenge_is_refused(key: SoftKey) -> None:
    _, made = key.assertion(b"d" * 32, ORIGIN)
    fails(check(key, made), "2 client data")


def test_2_a_registration_is_no_assertion(key: SoftKey) -> None:
    _, made = key.assertion(CHALLENGE, ORIGIN, {"type": "webauthn.create"})
    fails(check(key, made), "2 client data")


def test_2_a_payment_ceremony_is_no_assertion(key: SoftKey) -> None:
    _, made = key.assertion(CHALLENGE, ORIGIN, {"type": "payment.get"})
    fails(check(key, made), "2 client data")


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://approve.example",
        ORIGIN + ":444",
        ORIGIN + "/",
        ORIGIN.upper(),
        "null",
        "https://approve.example.evil",
    ],
)
def test_2_another_origin_is_refused(key: SoftKey, origin: str) -> None:
    _, made = key.assertion(CHALLENGE, origin)
    fails(check(key, made), "2 client data")


@pytest.mark.parametrize(
    "more", [{"crossOrigin": True}, {"crossOrigin": "false"}, {"crossOrigin": 1}, {"topOrigin": ORIGIN}, {"topOrigin": None}]
)
def test_2_an_assertion_from_inside_another_page_is_refused(key: SoftKey, more: dict[str, Any]) -> None:
    _, made = key.assertion(CHALLENGE, ORIGIN, more)
    fails(check(key, made), "2 client data")


@pytest.mark.parametrize(
    "raw", [b"[]", b"{", b"\xff{}", b'{"type":"webauthn.get","type":"webauthn.get"}', b"[" * 9000, b"{}" + b" " * 9000]
)
def test_2_client_data_that_is_no_plain_object_is_refused(key: SoftKey, raw: bytes) -> None:
    _, made = key.assertion(CHALLENGE, ORIGIN)
    made["response"]["clientDataJSON"] = b64url(raw)
    fails(check(key, made), "2 client data")


# 3. The authenticator data.


@pytest.mark.parametrize(
    ("flags", "why"), [(UV | BE, "presence"), (UP | BE, "verification"), (UP | UV | BS, "backed up"), (UP | UV, "eligibility changed")]
)
def test_3_flags_that_do_not_do_are_refused(key: SoftKey, flags: int, why: str) -> None:
    _, made = replace(key, flags=flags).assertion(CHALLENGE, ORIGIN)
    fails(check(key, made), "3 flags")


def test_3_a_key_that_became_eligible_for_backup_is_refused(key: SoftKey) -> None:
    bound = replace(key, flags=UP | UV)
    _, made = replace(bound, flags=UP | UV | BE).assertion(CHALLENGE, ORIGIN)
    fails(check(bound, made), "3 flags")


def test_3_another_relying_party_is_refused(key: SoftKey) -> None:
    _, made = replace(key, rp_id="evil.example").assertion(CHALLENGE, ORIGIN)
    fails(check(key, made), "3 flags")


def test_3_where_a_bound_device_is_asked_another_is_refused(key: SoftKey) -> None:
    _, made = key.assertion(CHALLENGE, ORIGIN)
    fails(check(key, made, replace(EXPECTED, device_bound=True)), "3 flags")
    bound = replace(key, flags=UP | UV)
    _, made = bound.assertion(CHALLENGE, ORIGIN)
    assert isinstance(check(bound, made, replace(EXPECTED, device_bound=True)), Assertion)


@pytest.mark.parametrize("length", [0, 36, 38, 500])
def test_3_authenticator_data_of_another_length_is_refused(key: SoftKey, length: int) -> None:
    _, made = key.assertion(CHALLENGE, ORIGIN)
    data = unb64url(made["response"]["authenticatorData"])
    made["response"]["authenticatorData"] = b64url((data + b"\0" * 500)[:length])
    answer = check(key, made)
    assert isinstance(answer, Failure)
    assert answer.step in {"0 form", "3 flags"}


# 4. The signature.


def test_4_a_changed_byte_anywhere_is_refused(key: SoftKey) -> None:
    _, made = key.assertion(CHALLENGE, ORIGIN)
    for name in ("clientDataJSON", "authenticatorData", "signature"):
        data = bytearray(unb64url(made["response"][name]))
        for place in range(0, len(data), 7):
            data[place] ^= 1
            broken = {**made, "response": {**made["response"], name: b64url(bytes(data))}}
            assert isinstance(check(key, broken), Failure), (name, place)
            data[place] ^= 1


def test_4_another_key_is_refused(key: SoftKey) -> None:
    _, made = key.assertion(CHALLENGE, ORIGIN)
    fails(check(key, made, public_key=softkey.new_key("approve.example", b"", os.urandom).public_key()), "4 signature")


@pytest.mark.parametrize("algorithm", [-8, -257, -35, -39])
def test_4_the_stored_algorithm_decides(key: SoftKey, algorithm: int) -> None:
    _, made = key.assertion(CHALLENGE, ORIGIN)
    cose = cbor2.loads(key.public_key())
    cose[3] = algorithm
    fails(check(key, made, public_key=cbor2.dumps(cose)), "4 signature")


@pytest.mark.parametrize("kind", ["EdDSA", "RS256"])
def test_4_the_other_algorithms_hold(key: SoftKey, kind: str) -> None:
    _, made = key.assertion(CHALLENGE, ORIGIN)
    data = unb64url(made["response"]["authenticatorData"]) + hashlib.sha256(unb64url(made["response"]["clientDataJSON"])).digest()
    if kind == "EdDSA":
        edwards = ed25519.Ed25519PrivateKey.generate()
        cose = {1: 1, 3: -8, -1: 6, -2: edwards.public_key().public_bytes_raw()}
        signature = edwards.sign(data)
    else:
        big = rsa.generate_private_key(65537, 2048)
        numbers = big.public_key().public_numbers()
        cose = {1: 3, 3: -257, -1: numbers.n.to_bytes(256, "big"), -2: numbers.e.to_bytes(3, "big")}
        signature = big.sign(data, padding.PKCS1v15(), hashes.SHA256())
    made["response"]["signature"] = b64url(signature)
    assert isinstance(check(key, made, public_key=cbor2.dumps(cose)), Assertion)


# 5. The counter.


@pytest.mark.parametrize(("stored", "new", "ok"), [(0, 0, True), (0, 1, True), (5, 6, True), (5, 5, False), (5, 4, False), (5, 0, False)])
def test_5_the_counter_goes_up_or_there_is_none(key: SoftKey, stored: int, new: int, ok: bool) -> None:
    _, made = replace(key, sign_count=new - 1).assertion(CHALLENGE, ORIGIN) if new else counted(key, 0)
    answer = check(key, made, sign_count=stored)
    assert isinstance(answer, Assertion) == ok
    if not ok:
        assert fails(answer, "5 counter").clone_suspected


def counted(key: SoftKey, count: int) -> tuple[SoftKey, dict[str, Any]]:
    """An assertion of an authenticator that does not count."""
    _, made = key.assertion(CHALLENGE, ORIGIN)
    data = unb64url(made["response"]["authenticatorData"])[:33] + struct.pack(">I", count)
    made["response"]["authenticatorData"] = b64url(data)
    private = key._key()
    signature = private.sign(data + hashlib.sha256(unb64url(made["response"]["clientDataJSON"])).digest(), ec.ECDSA(hashes.SHA256()))
    made["response"]["signature"] = b64url(signature)
    return key, made


def test_5_nobody_without_the_key_provokes_a_clone_suspicion(key: SoftKey) -> None:
    _, made = key.assertion(CHALLENGE, ORIGIN)
    data = unb64url(made["response"]["authenticatorData"])[:33] + struct.pack(">I", 0)
    made["response"]["authenticatorData"] = b64url(data)
    assert not fails(check(key, made, sign_count=5), "4 signature").clone_suspected


# 0. The form.


@pytest.mark.parametrize(
    "given",
    [
        None, [], "x", 5, {}, {"id": "YQ", "rawId": "YQ", "type": "public-key"}, {"id": "YQ", "rawId": "YQ", "type": "password", "response": {}},
        {"id": "YQ", "rawId": "Yg", "type": "public-key", "response": {}}, {"id": "YQ==", "rawId": "YQ==", "type": "public-key", "response": {}},
        {"id": 5, "rawId": 5, "type": "public-key", "response": {}}, {"id": "YQ", "rawId": "YQ", "type": "public-key", "response": {"clientDataJSON": 5}},
    ],
)  # fmt: skip
def test_0_what_is_no_assertion_is_refused_quietly(key: SoftKey, given: Any) -> None:
    fails(check(key, given), "0 form")
    assert credential_id_of(given) in {None, b"a"}


def test_0_an_unknown_hint_changes_nothing(key: SoftKey) -> None:
    _, made = key.assertion(CHALLENGE, ORIGIN)
    made["authenticatorAttachment"] = "implanted"
    assert isinstance(check(key, made), Assertion)


# Registration.


def test_a_registration_says_what_to_store(key: SoftKey) -> None:
    moved, made = key.register(CHALLENGE, ORIGIN)
    answer = verify_registration(made, EXPECTED)
    assert isinstance(answer, Registration)
    assert (answer.credential_id, answer.public_key, answer.sign_count) == (key.credential_id, key.public_key(), moved.sign_count)
    assert (answer.aaguid, answer.backup_eligible, answer.user_verified, answer.attestation) == (SOFTWARE_KEY_AAGUID, True, True, "none")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, replace(EXPECTED, challenge=b"e" * 32)),
        ({}, replace(EXPECTED, origins=frozenset({"https://else.example"}))),
        ({}, replace(EXPECTED, rp_id="else.example")),
        ({}, replace(EXPECTED, device_bound=True)),
        ({}, replace(EXPECTED, software_keys=False)),
        ({"flags": UP | BE}, EXPECTED),
        ({"flags": UV | BE}, EXPECTED),
        ({"flags": UP | UV | BS}, EXPECTED),
        ({"credential_id": b"x" * 1024}, EXPECTED),
    ],
)
def test_a_registration_that_does_not_do_is_refused(key: SoftKey, change: dict[str, Any], expected: Expected) -> None:
    _, made = replace(key, **change).register(CHALLENGE, ORIGIN)
    assert isinstance(verify_registration(made, expected), Failure)


def test_a_registration_from_inside_another_page_is_refused(key: SoftKey) -> None:
    _, made = key.register(CHALLENGE, ORIGIN)
    client_data(made, lambda data: data.update(crossOrigin=True))
    fails(verify_registration(made, EXPECTED), "2 client data")


def test_a_registration_under_another_keys_id_is_refused(key: SoftKey) -> None:
    _, made = key.register(CHALLENGE, ORIGIN)
    made["id"] = made["rawId"] = b64url(b"another")
    fails(verify_registration(made, EXPECTED), "1 credential")


def test_an_attestation_that_is_garbage_is_refused(key: SoftKey) -> None:
    _, made = key.register(CHALLENGE, ORIGIN)
    for garbage in (b"\x00", b"\xa0", b"\xff" * 50, cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": b"\0" * 37}), cbor2.dumps([1])):
        made["response"]["attestationObject"] = b64url(garbage)
        assert isinstance(verify_registration(made, EXPECTED), Failure)


# The key file.


def test_a_key_file_opens_with_its_passphrase_alone(key: SoftKey, tmp_path: Path) -> None:
    path = tmp_path / "bob.key"
    softkey.save(path, key, "correct horse", os.urandom, new=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert softkey.load(path, "correct horse") == key
    assert key.private not in path.read_bytes()
    assert b64url(key.private).encode() not in path.read_bytes()
    with pytest.raises(KeyFileError, match="does not open"):
        softkey.load(path, "wrong horse")
    with pytest.raises(KeyFileError, match="there already"):
        softkey.save(path, key, "x", os.urandom, new=True)


def test_a_key_file_that_others_may_read_is_refused(key: SoftKey, tmp_path: Path) -> None:
    path = tmp_path / "bob.key"
    softkey.save(path, key, "p", os.urandom)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="others may read"):
        softkey.load(path, "p")


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"v":"x","scrypt_n":2}', b'{"v":"aftergate-software-key/v1","scrypt_n":1073741824}', b"[1]"]
)
def test_a_file_that_is_no_key_file_is_refused(data: bytes) -> None:
    with pytest.raises(KeyFileError):
        softkey.unsealed(data, "p")
