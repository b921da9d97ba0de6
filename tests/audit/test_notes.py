"""Signed notes, keys, checkpoints, cosignatures and proof files: what is good opens, what is not is refused."""

from __future__ import annotations

import base64
import struct

import pytest
from making import ORIGIN, Log, ordinary

from aftergate.audit.errors import BadNote
from aftergate.audit.keys import DatedKey, KeyRing, pins
from aftergate.audit.merkle import inclusion_proof, leaf_hash, over
from aftergate.audit.notes import COSIGNATURE, Checkpoint, Note, Signature, Signer, Verifier, open_checkpoint, open_note, parse_note
from aftergate.audit.proof import TlogProof

SIGNER = Signer(ORIGIN, b"\x01" * 32)
OTHER = Signer("witness.example/w", b"\x02" * 32)
TEXT = Checkpoint(ORIGIN, 7, b"\x05" * 32).text()

# From the documentation of Go's sumdb/note.
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SKEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()


def note(*signers: Signer) -> bytes:
    return Note(TEXT, tuple(s.sign(TEXT) for s in signers)).encode()


def test_gos_own_example_opens_and_is_made_again() -> None:
    verifier = Verifier.parse(GO_VKEY)
    assert open_note(parse_note(GO_NOTE), [verifier]) == (verifier,)
    signer = Signer.parse(GO_SKEY)
    assert signer.verifier == verifier
    assert signer.encode() == GO_SKEY
    text = parse_note(GO_NOTE).text
    assert Note(text, (signer.sign(text),)).encode() == GO_NOTE


def test_a_checkpoint_round_trip() -> None:
    checkpoint, _, keys = open_checkpoint(note(SIGNER, OTHER), [SIGNER.verifier])
    assert checkpoint == Checkpoint(ORIGIN, 7, b"\x05" * 32)
    assert keys == (SIGNER.verifier,)


def test_unknown_signatures_are_ignored_even_under_a_known_name() -> None:
    impostor = Signer(ORIGIN, b"\x03" * 32)
    assert open_checkpoint(note(impostor, SIGNER), [SIGNER.verifier])[2] == (SIGNER.verifier,)
    with pytest.raises(BadNote, match="no known key"):
        open_checkpoint(note(impostor), [SIGNER.verifier])


def test_a_bad_signature_of_a_known_key_refuses_the_note_though_another_is_good() -> None:
    bad = Signature(ORIGIN, SIGNER.verifier.key_id, b"\x00" * 64)
    data = Note(TEXT, (OTHER.sign(TEXT), bad)).encode()
    with pytest.raises(BadNote, match="not good"):
        open_note(parse_note(data), [SIGNER.verifier, OTHER.verifier])


def test_a_checkpoint_signed_by_others_only_is_none_of_the_logs() -> None:
    with pytest.raises(BadNote, match="no key of the log"):
        open_checkpoint(note(OTHER), [SIGNER.verifier, OTHER.verifier])
    cosigned = Note(TEXT, (SIGNER.cosign(TEXT, 1),)).encode()
    with pytest.raises(BadNote, match="no key of the log"):
        open_checkpoint(cosigned, [SIGNER.cosigner()])


def test_every_changed_byte_of_the_text_is_noticed() -> None:
    data = note(SIGNER)
    for at in range(len(TEXT.encode())):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(BadNote):
            open_checkpoint(bytes(changed), [SIGNER.verifier])


def test_the_signature_covers_the_last_newline_and_not_the_blank_line() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    signature = SIGNER.sign(TEXT)
    assert TEXT.endswith("\n")
    Ed25519PublicKey.from_public_bytes(SIGNER.verifier.public).verify(signature.blob, TEXT.encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"text\n\nno signature line\n",
        "text\n\n\u2014 name AAAA\n".encode(),
        "text\n\n\u2014 name notbase64!\n".encode(),
        "text\n\n\u2014 na+me AAAAAAAAAAA=\n".encode(),
        "text\n\n\u2014 name AAAAAAAAAAA=".encode(),
        "text\n\n\u2014 name AAAAAAAAAAA=\n\n".encode(),
        "te\rxt\n\n\u2014 name AAAAAAAAAAA=\n".encode(),
        b"text\n\n- name AAAAAAAAAAA=\n",
        b"te\xffxt\n\n\xe2\x80\x94 name AAAAAAAAAAA=\n",
        ("text\n\n" + "\u2014 name AAAAAAAAAAA=\n" * 65).encode(),
        b"x" * (1 << 20) + b"\n\n",
    ],
)
def test_malformed_notes_are_refused(data: bytes) -> None:
    with pytest.raises(BadNote):
        parse_note(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "origin\n7\n",
        "origin\n07\n" + "A" * 43 + "=\n",
        "origin\n-7\n" + "A" * 43 + "=\n",
        "origin\n7 \n" + "A" * 43 + "=\n",
        "origin\n\u0667\n" + "A" * 43 + "=\n",
        "origin\n7\nAAAA\n",
        "origin\n7\n" + "A" * 42 + "B=\n",
        "\n7\n" + "A" * 43 + "=\n",
        "origin\n7\n" + "A" * 43 + "=",
        "origin\n7\n" + "A" * 43 + "=\n\n",
    ],
)
def test_malformed_checkpoints_are_refused(text: str) -> None:
    with pytest.raises(BadNote):
        Checkpoint.parse(text)


def test_extension_lines_are_kept() -> None:
    assert Checkpoint.parse(TEXT + "more\n").extensions == ("more",)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        "name+12345678+AAAA",
        GO_VKEY.replace("c74f20a3", "c74f20a4"),
        GO_VKEY.replace("c74f20a3", "C74F20A3"),
        GO_VKEY.replace("Peter", "Piotr"),
        GO_VKEY[:-4],
        GO_VKEY.replace("+ARpc", "+Axpc"),
        "two words+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ],
)
def test_malformed_verifier_keys_are_refused(vkey: str) -> None:
    with pytest.raises(BadNote):
        Verifier.parse(vkey)


@pytest.mark.parametrize(
    "text", ["", "PRIVATE+KEY+x", GO_SKEY[:-8], GO_SKEY.replace("c74f20a3", "00000000"), GO_SKEY.replace("PRIVATE", "PUBLIC")]
)
def test_a_malformed_signing_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(BadNote) as caught:
        Signer.parse(text)
    assert "AYEKFALVFGyN" not in str(caught.value)


def test_a_cosignature_is_timestamped_and_checked() -> None:
    line = OTHER.cosign(TEXT, 1_679_315_147)
    assert struct.unpack(">Q", line.blob[:8]) == (1_679_315_147,)
    verifier = OTHER.cosigner()
    assert verifier.kind == COSIGNATURE
    assert verifier.key_id != OTHER.verifier.key_id
    assert verifier.verify(TEXT, line.blob)
    assert Verifier.parse(verifier.vkey) == verifier
    later = struct.pack(">Q", 1_679_315_148) + line.blob[8:]
    assert not verifier.verify(TEXT, later)
    assert not verifier.verify(TEXT, line.blob[8:])
    assert not verifier.verify(TEXT + "x", line.blob)
    assert not OTHER.verifier.verify(TEXT, line.blob[8:])


def test_a_keys_file_round_trip_and_its_refusals() -> None:
    ring = KeyRing(ORIGIN, (DatedKey(SIGNER.verifier, 0, 5000), DatedKey(Signer(ORIGIN, b"\x09" * 32).verifier, 4000)))
    assert KeyRing.parse(ring.encode()) == ring
    assert ring.keys[0].covers(5000)
    assert not ring.keys[0].covers(5001)
    for bad in (b"", b"[]", b'{"origin": "x"}', b'{"origin": "x", "keys": [1]}', ring.encode().replace(b"log.example", b"lag.example", 1)):
        with pytest.raises(BadNote):
            KeyRing.parse(bad)


def test_pinned_keys_are_read_from_text() -> None:
    assert pins([f"# mine\n\n{GO_VKEY}\n"]) == [Verifier.parse(GO_VKEY)]


@pytest.fixture
def log() -> Log:
    log = Log(SIGNER)
    for n in range(11):
        log.add(ordinary(n))
    return log


def proof_of(log: Log, index: int) -> TlogProof:
    path = inclusion_proof(index, len(log.leaves), over([leaf_hash(e) for e in log.leaves]))
    return TlogProof(index, tuple(path), log.sign())


def test_a_proof_file_holds_offline(log: Log) -> None:
    for index in range(11):
        data = proof_of(log, index).encode()
        assert data.startswith(b"c2sp.org/tlog-proof@v1\nindex ")
        again = TlogProof.parse(data)
        assert again.encode() == data
        assert again.verify(log.leaves[index], [SIGNER.verifier], ORIGIN).size == 11


def test_a_proof_file_holds_for_its_record_log_and_key_only(log: Log) -> None:
    proof = proof_of(log, 4)
    for entry, verifiers, origin in (
        (log.leaves[5], [SIGNER.verifier], ORIGIN),
        (log.leaves[4], [OTHER.verifier], ORIGIN),
        (log.leaves[4], [SIGNER.verifier], "other.example"),
    ):
        with pytest.raises(BadNote):
            proof.verify(entry, verifiers, origin)


def test_extra_data_goes_along_unauthenticated(log: Log) -> None:
    proof = proof_of(log, 3)
    data = TlogProof(proof.index, proof.path, proof.checkpoint, b"note").encode()
    assert b"\nextra " + base64.b64encode(b"note") + b"\n" in data
    assert TlogProof.parse(data).extra == b"note"


def test_malformed_proof_files_are_refused(log: Log) -> None:
    data = proof_of(log, 3).encode()
    for bad in (
        b"",
        data.replace(b"@v1", b"@v2"),
        data.replace(b"index 3", b"index 03"),
        data.replace(b"index 3", b"index -3"),
        data.replace(b"index 3\n", b""),
        data.replace(b"=\n", b"\n", 1),
        data.split(b"\n\n", 1)[0],
        data.replace(b"index 3\n", b"index 3\nAAAA\n"),
    ):
        with pytest.raises(BadNote):
            TlogProof.parse(bad)
