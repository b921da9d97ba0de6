"""Signed notes, checkpoints and cosignatures (C2SP signed-note, tlog-checkpoint, tlog-cosignature), Ed25519.

Text, a blank line, then a line per signature. The signature covers the text with its final newline, not the blank line.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from aftergate.audit.errors import BadNote

ED25519: Final = 0x01
COSIGNATURE: Final = 0x04
MAX_NOTE: Final = 1 << 20
MAX_SIGNATURES: Final = 64
_MARK: Final = "\u2014 "
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def unb64(text: str) -> bytes:
    """Strict standard base64. Raises: BadNote, for other alphabets, white space, missing or odd padding, stray bits."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if b64(data) != text:
        raise BadNote("not standard base64")
    return data


def valid_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() for c in name) and not _CONTROL.search(name)


def key_id(name: str, kind: int, public: bytes) -> bytes:
    """Four bytes that name a key beside its name."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


class Signature(NamedTuple):
    name: str
    key_id: bytes
    blob: bytes

    def line(self) -> str:
        return f"{_MARK}{self.name} {b64(self.key_id + self.blob)}\n"


class Verifier(NamedTuple):
    """A public key: `kind` 1 signs notes, 4 cosigns checkpoints."""

    name: str
    kind: int
    public: bytes  # 32 bytes

    @classmethod
    def parse(cls, vkey: str) -> Verifier:
        """From `name+keyid+base64`. Raises: BadNote, if malformed, of unknown kind, or its id is not that of its key."""
        name, _, rest = vkey.strip().partition("+")
        ident, _, encoded = rest.partition("+")
        if not valid_name(name) or not re.fullmatch(r"[0-9a-f]{8}", ident):
            raise BadNote("not a verifier key", hint="it looks like `name+0123abcd+base64`")
        data = unb64(encoded)
        if len(data) != 33 or data[0] not in (ED25519, COSIGNATURE):
            raise BadNote(f"the key of `{name}` is no Ed25519 key")
        made = cls(name, data[0], data[1:])
        if made.key_id.hex() != ident:
            raise BadNote(f"the id of the key of `{name}` is not that of its key")
        return made

    @property
    def key_id(self) -> bytes:
        return key_id(self.name, self.kind, self.public)

    @property
    def vkey(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{b64(bytes([self.kind]) + self.public)}"

    def verify(self, text: str, blob: bytes) -> bool:
        message = text.encode()
        if self.kind == COSIGNATURE:
            if len(blob) != 72:
                return False
            message, blob = _cosigned(text, int.from_bytes(blob[:8], "big")), blob[8:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(blob, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class Signer:
    """A private key that signs notes under a name; for a log, its origin."""

    def __init__(self, name: str, seed: bytes) -> None:
        if not valid_name(name):
            raise BadNote(f"`{name}` cannot name a key", hint="no spaces, no plus sign")
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self._seed = seed
        self.verifier = Verifier(name, ED25519, self._private.public_key().public_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> Signer:
        """From `PRIVATE+KEY+name+keyid+base64`. Raises: BadNote; the message never holds the key."""
        parts = text.strip().split("+", 4)
        if len(parts) != 5 or parts[:2] != ["PRIVATE", "KEY"]:
            raise BadNote("not a signing key")
        try:
            data = unb64(parts[4])
        except BadNote:
            data = b""
        if len(data) != 33 or data[0] != ED25519:
            raise BadNote("not an Ed25519 signing key")
        made = cls(parts[2], data[1:])
        if made.verifier.key_id.hex() != parts[3]:
            raise BadNote("the signing key's id is not that of its key")
        return made

    def encode(self) -> str:
        """The secret form. For the key file only."""
        return f"PRIVATE+KEY+{self.verifier.name}+{self.verifier.key_id.hex()}+{b64(bytes([ED25519]) + self._seed)}"

    def sign(self, text: str) -> Signature:
        return Signature(self.verifier.name, self.verifier.key_id, self._private.sign(text.encode()))

    def cosigner(self) -> Verifier:
        """The verifier of this key's cosignatures."""
        return self.verifier._replace(kind=COSIGNATURE)

    def cosign(self, text: str, time_s: int) -> Signature:
        """A witness's cosignature. The caller has checked that the checkpoint is consistent with every one cosigned before."""
        blob = struct.pack(">Q", time_s) + self._private.sign(_cosigned(text, time_s))
        return Signature(self.verifier.name, self.cosigner().key_id, blob)


def _cosigned(text: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


class Note(NamedTuple):
    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        return (self.text + "\n" + "".join(s.line() for s in self.signatures)).encode()


def parse_note(data: bytes) -> Note:
    """Raises: BadNote, if it is not UTF-8, holds control characters, has no text, no signature, or a malformed one."""
    if len(data) > MAX_NOTE:
        raise BadNote("a note of more than a megabyte")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadNote("a note that is not UTF-8") from None
    if _CONTROL.search(whole):
        raise BadNote("a note with control characters")
    cut = whole.rfind("\n\n")
    if cut < 0 or not whole.endswith("\n"):
        raise BadNote("a note without signatures")
    text, lines = whole[: cut + 1], whole[cut + 2 :].split("\n")[:-1]
    if not lines or len(lines) > MAX_SIGNATURES:
        raise BadNote("a note without signatures" if not lines else "a note with too many signatures")
    signatures: list[Signature] = []
    for line in lines:
        name, space, encoded = line.removeprefix(_MARK).partition(" ")
        blob = unb64(encoded) if space and line.startswith(_MARK) and valid_name(name) else b""
        if len(blob) < 5:
            raise BadNote("a malformed signature line")
        signatures.append(Signature(name, blob[:4], blob[4:]))
    return Note(text, tuple(signatures))


def open_note(note: Note, verifiers: Sequence[Verifier]) -> tuple[Verifier, ...]:
    """The known keys that signed. Signatures of unknown keys are ignored.

    Raises: BadNote, if a known key's signature is bad, or no known key signed.
    """
    known = {(v.name, v.key_id): v for v in verifiers}
    good: dict[Verifier, None] = {}
    for each in note.signatures:
        verifier = known.get((each.name, each.key_id))
        if verifier is None:
            continue
        if not verifier.verify(note.text, each.blob):
            raise BadNote(f"the signature of `{each.name}` is not good")
        good[verifier] = None
    if not good:
        raise BadNote("no known key signed this note")
    return tuple(good)


class Checkpoint(NamedTuple):
    """A tree head: which log, how many leaves, which root."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """From a note's text. Raises: BadNote, if it is none."""
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop() or not all(lines):
            raise BadNote("a checkpoint has an origin, a size and a root, a line each")
        origin, size, root, *extensions = lines
        if not _SIZE.fullmatch(size):
            raise BadNote("a checkpoint's size is a plain decimal number")
        digest = unb64(root)
        if len(digest) != 32:
            raise BadNote("a checkpoint's root is 32 bytes")
        return cls(origin, int(size), digest, tuple(extensions))

    def text(self) -> str:
        return "\n".join([self.origin, str(self.size), b64(self.root), *self.extensions]) + "\n"


def open_checkpoint(data: bytes, verifiers: Sequence[Verifier]) -> tuple[Checkpoint, Note, tuple[Verifier, ...]]:
    """A checkpoint signed by its own log: at least one good signature of kind 1 is by a key whose name is the origin.

    Raises: BadNote otherwise.
    """
    note = parse_note(data)
    signed = open_note(note, verifiers)
    checkpoint = Checkpoint.parse(note.text)
    if not any(v.kind == ED25519 and v.name == checkpoint.origin for v in signed):
        raise BadNote(f"no key of the log `{checkpoint.origin}` signed this checkpoint")
    return checkpoint, note, signed
