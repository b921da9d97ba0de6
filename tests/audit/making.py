"""Logs in memory, and an authenticator in software: what the audit tests are made of."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from aftergate.audit.bundle import Dated, Member
from aftergate.audit.evidence import BATCH_PREFIX, PREFIX
from aftergate.audit.export import members
from aftergate.audit.jcs import canonical
from aftergate.audit.keys import DatedKey, KeyRing
from aftergate.audit.merkle import Frontier, leaf_hash
from aftergate.audit.notes import Checkpoint, Note, Signer
from aftergate.audit.records import Actor, ApprovalRef, Attachment, Kept, Party, Record, seal
from aftergate.events.clock import to_iso

ORIGIN = "log.example/aftergate"
T0 = 1_790_000_000_000


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def salts() -> Callable[[], bytes]:
    """Salts that are the same in every run."""
    state = [0]

    def fresh() -> bytes:
        state[0] += 1
        return hashlib.sha256(b"salt%d" % state[0]).digest()[:16]

    return fresh


class Log:
    """A log held in lists: the `Source` port of an export, and a signer."""

    def __init__(self, signer: Signer | None = None, *, origin: str = ORIGIN) -> None:
        self.signer = signer or Signer(origin, b"\x07" * 32)
        self.origin = origin
        self.leaves: list[bytes] = []
        self.kept: list[tuple[int, Kept]] = []
        self.beside: list[tuple[int, Attachment]] = []
        self.checkpoints: list[Dated] = []
        self.ring = KeyRing(origin, (DatedKey(self.signer.verifier, T0 - 1),))
        self._salt = salts()

    def add(self, record: Record, ts_ms: int | None = None) -> int:
        seq = len(self.leaves)
        sealed = seal(record, seq, T0 + seq * 1000 if ts_ms is None else ts_ms, self._salt)
        self.leaves.append(sealed.leaf)
        self.kept += [(seq, k) for k in sealed.kept]
        self.beside += [(seq, a) for a in sealed.attachments]
        return seq

    def sign(self, signers: Sequence[Signer] = (), size: int | None = None) -> bytes:
        size = len(self.leaves) if size is None else size
        root = Frontier.of(leaf_hash(e) for e in self.leaves[:size]).root()
        text = Checkpoint(self.origin, size, root).text()
        note = Note(text, tuple(s.sign(text) for s in signers or (self.signer,))).encode()
        self.checkpoints.append(Dated(size, to_iso(T0 + size * 1000), note))
        return note

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        span = 256**level
        rows = [leaf_hash(e) for e in self.leaves]
        return [Frontier.of(rows[i * span : (i + 1) * span]).root() for i in range(first, first + count)]

    def entries(self, first: int, count: int) -> list[bytes]:
        return self.leaves[first : first + count]

    def attachments(self, first: int, count: int) -> list[tuple[int, Attachment]]:
        return [row for row in self.beside if first <= row[0] < first + count]

    def personal(self, first: int, count: int) -> list[tuple[int, Kept]]:
        return [row for row in self.kept if first <= row[0] < first + count]

    def export(self, *, personal: bool = True) -> list[Member]:
        keys = self.ring.encode()
        return list(
            members(self, origin=self.origin, size=len(self.leaves), keys=keys, checkpoints=self.checkpoints, at_ms=T0, personal=personal)
        )


class Authenticator:
    """ES256, with a counter: what a security key does, in forty lines, and none of our code in it."""

    def __init__(self, number: int = 1, *, rp_id: str = "pay.example", origin: str = "https://pay.example") -> None:
        self._private = ec.derive_private_key(number + 1000, ec.SECP256R1())
        self.rp_id, self.origin, self.count = rp_id, origin, 0
        self.credential_id = b64url(hashlib.sha256(b"credential%d" % number).digest())
        point = self._private.public_key().public_numbers()
        # COSE_Key: {1: 2, 3: -7, -1: 1, -2: x, -3: y}
        self.public = (
            b"\xa5\x01\x02\x03\x26\x20\x01\x21\x58\x20" + point.x.to_bytes(32, "big") + b"\x22\x58\x20" + point.y.to_bytes(32, "big")
        )

    @property
    def public_sha256(self) -> str:
        return b64url(hashlib.sha256(self.public).digest())

    def sign(
        self, challenge: bytes, *, client: dict[str, Any] | None = None, flags: int = 0x05, rp_id: str = "", rises: bool = True
    ) -> dict[str, str]:
        """The assertion's parts as evidence holds them."""
        self.count += rises
        said = {"type": "webauthn.get", "challenge": b64url(challenge), "origin": self.origin, "crossOrigin": False} | (client or {})
        client_data = json.dumps(said).encode()
        data = hashlib.sha256((rp_id or self.rp_id).encode()).digest() + bytes([flags]) + struct.pack(">I", self.count)
        signature = self._private.sign(data + hashlib.sha256(client_data).digest(), ec.ECDSA(hashes.SHA256()))
        return {
            "client_data_json": b64url(client_data),
            "authenticator_data": b64url(data),
            "signature": b64url(signature),
            "public_key": b64url(self.public),
            "credential_id": self.credential_id,
            "rp_id": self.rp_id,
            "origin": self.origin,
        }


def approval_object(approver: str = "bea", *, quorum: int = 1, approval_id: str = "ap-1", nonce: int = 1, **change: Any) -> dict[str, Any]:
    """An approval object of one payment, in the form of docs/formats/approval-object.md."""
    return {
        "v": "tx-approval/v1",
        "request_id": "req-1",
        "subject": {"type": "user", "id": "anna"},
        "context": {"transaction": {"amount": "950.00", "currency": "EUR", "payee": "DE02"}},
        "callers": ["key:pay"],
        "executor": {"jkt": "thumb-1"},
        "policy": {"digest": "sha256:abc", "ids": ["pay-needs-approval"]},
        "quorum": {"needed": quorum, "denials": 1, "groups": ["finance"], "device_bound": False, "software_keys": True},
        "expires_at": to_iso(T0 + 3_600_000),
        "usable_s": 600,
        "rp_id": "pay.example",
        "approval_id": approval_id,
        "evaluation_id": "ev-1",
        "resource": {"type": "payment", "id": "p-17"},
        "action": {"name": "release_payment"},
        "digest": "d",
        "approver": approver,
        "nonce": b64url(hashlib.sha256(b"nonce%d" % nonce).digest()),
        "risk": {"score": 12, "band": "low", "findings": [], "detections": []},
    } | change


def challenge_of(o: dict[str, Any]) -> bytes:
    return hashlib.sha256(PREFIX + canonical(o)).digest()


def batch_challenge_of(o: dict[str, Any]) -> bytes:
    return hashlib.sha256(BATCH_PREFIX + canonical(o)).digest()


def granted(o: dict[str, Any], key: Authenticator, **signing: Any) -> Record:
    """An `approval.granted` record with real evidence."""
    challenge = challenge_of(o)
    evidence = {"form": "webauthn", "object": o} | key.sign(challenge, **signing)
    return grant_record(o, evidence, key.credential_id)


def grant_record(o: dict[str, Any], evidence: dict[str, Any] | None, credential_id: str = "", kind: str = "approval.granted") -> Record:
    return Record(
        kind,
        actor=Actor("person", o.get("approver", "policy")),
        subject=Party("user", o["subject"]["id"]),
        approval=ApprovalRef(
            o.get("approval_id", o["request_id"]), b64url(challenge_of(o)), approver=o.get("approver", ""), credential_id=credential_id
        ),
        transaction=o["request_id"],
        evidence=evidence,
    )


def registered(key: Authenticator) -> Record:
    return Record(
        "admin.authenticator.added",
        actor=Actor("person", "bea"),
        detail={"authenticator": "auth-1", "credential_id": key.credential_id, "public_key_sha256": key.public_sha256},
    )


def consumed(approval_id: str = "ap-1", **change: Any) -> Record:
    fields: dict[str, Any] = {
        "actor": Actor("api-key", "pay"),
        "subject": Party("user", "anna"),
        "action": "release_payment",
        "resource": Party("payment", "p-17"),
        "decision": "permit",
        "approval": ApprovalRef(approval_id),
        "transaction": "req-1",
    }
    return Record("approval.consumed", **(fields | change))


def ordinary(number: int) -> Record:
    return Record(
        "decision",
        actor=Actor("api-key", "gateway"),
        subject=Party("user", f"person-{number}"),
        action="read",
        resource=Party("document", f"doc-{number}"),
        decision="permit",
        reasons=("readers",),
        request={"subject": {"type": "user", "id": f"person-{number}"}, "context": {"n": number}},
    )
