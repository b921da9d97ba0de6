"""A software authenticator: an ES256 key in a file, unlocked by a passphrase, that makes real WebAuthn registrations and assertions.

It is for terminals and tests. It says what it is: its own AAGUID, and backup-eligible, since a file can be copied; so a policy that asks for a
device-bound authenticator, or takes no software keys, refuses it. The passphrase is what verifies the user.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import cbor2
import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec import Struct
from msgspec.structs import replace

from aftergate.authz.transactions.canonical import b64url, unb64url
from aftergate.authz.transactions.webauthn import SOFTWARE_KEY_AAGUID
from aftergate.errors import AftergateError

VERSION: Final = "aftergate-software-key/v1"
UP, UV, BE, BS, AT = 0x01, 0x04, 0x08, 0x10, 0x40
SCRYPT_N: Final = 1 << 15
Entropy = Callable[[int], bytes]


class KeyFileError(AftergateError):
    """A key file that cannot be read, or a passphrase that does not open it."""

    code = "key-file"


class SoftKey(Struct, frozen=True):
    """One credential. `flags` are what it states of itself; tests set others to see them refused."""

    rp_id: str
    credential_id: bytes
    user_handle: bytes
    private: bytes  # PKCS#8 DER
    sign_count: int = 0
    flags: int = UP | UV | BE
    aaguid: str = SOFTWARE_KEY_AAGUID

    def _key(self) -> ec.EllipticCurvePrivateKey:
        key = serialization.load_der_private_key(self.private, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key

    def public_key(self) -> bytes:
        """The public key as COSE (RFC 9053, section 2.1): ES256 on P-256."""
        numbers = self._key().public_key().public_numbers()
        return cbor2.dumps({1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")})

    def register(self, challenge: bytes, origin: str) -> tuple[SoftKey, dict[str, Any]]:
        """`RegistrationResponseJSON` with attestation `none`, and the key with its counter moved on."""
        moved = replace(self, sign_count=self.sign_count + 1)
        attested = UUID(self.aaguid).bytes + struct.pack(">H", len(self.credential_id)) + self.credential_id + self.public_key()
        data = moved._authenticator_data(AT) + attested  # noqa: SLF001  # its own
        client_data = _client_data("webauthn.create", challenge, origin)
        return moved, self._wire(
            {
                "clientDataJSON": b64url(client_data),
                "attestationObject": b64url(cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})),
                "transports": ["internal"],
            }
        )

    def assertion(self, challenge: bytes, origin: str, more: dict[str, Any] | None = None) -> tuple[SoftKey, dict[str, Any]]:
        """`AuthenticationResponseJSON`, and the key with its counter moved on. `more` goes into the client data."""
        moved = replace(self, sign_count=self.sign_count + 1)
        data = moved._authenticator_data(0)  # noqa: SLF001  # its own
        client_data = _client_data("webauthn.get", challenge, origin, more)
        digest = hashes.Hash(hashes.SHA256())
        digest.update(client_data)
        signature = self._key().sign(data + digest.finalize(), ec.ECDSA(hashes.SHA256()))
        return moved, self._wire(
            {
                "clientDataJSON": b64url(client_data),
                "authenticatorData": b64url(data),
                "signature": b64url(signature),
                "userHandle": b64url(self.user_handle),
            }
        )

    def _authenticator_data(self, more: int) -> bytes:
        digest = hashes.Hash(hashes.SHA256())
        digest.update(self.rp_id.encode())
        return digest.finalize() + bytes([self.flags | more]) + struct.pack(">I", self.sign_count)

    def _wire(self, response: dict[str, Any]) -> dict[str, Any]:
        name = b64url(self.credential_id)
        return {"id": name, "rawId": name, "type": "public-key", "clientExtensionResults": {}, "response": response}


def new_key(rp_id: str, user_handle: bytes, entropy: Entropy) -> SoftKey:
    """A fresh credential for a relying party. `entropy(n)` gives n random bytes for its id."""
    private = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return SoftKey(rp_id, entropy(32), user_handle, private)


def sealed(key: SoftKey, passphrase: str, entropy: Entropy) -> bytes:
    """The key as the text of its file, encrypted under the passphrase (scrypt, AES-256-GCM)."""
    salt, nonce = entropy(16), entropy(12)
    plain = msgspec.json.encode(
        {
            "rp_id": key.rp_id,
            "credential_id": b64url(key.credential_id),
            "user_handle": b64url(key.user_handle),
            "private": b64url(key.private),
            "sign_count": key.sign_count,
        }
    )
    box = AESGCM(_stretched(passphrase, salt, SCRYPT_N)).encrypt(nonce, plain, VERSION.encode())
    return (
        json.dumps({"v": VERSION, "scrypt_n": SCRYPT_N, "salt": b64url(salt), "nonce": b64url(nonce), "box": b64url(box)}).encode() + b"\n"
    )


def unsealed(data: bytes, passphrase: str) -> SoftKey:
    """The key from the text of its file.

    Raises: KeyFileError.
    """
    try:
        held = json.loads(data)
        if held["v"] != VERSION or held["scrypt_n"] > 1 << 20:
            raise KeyFileError(f"not a key file of the form `{VERSION}`")
        stretched = _stretched(passphrase, unb64url(held["salt"]), held["scrypt_n"])
        plain = AESGCM(stretched).decrypt(unb64url(held["nonce"]), unb64url(held["box"]), VERSION.encode())
        opened = json.loads(plain)
        return SoftKey(
            opened["rp_id"],
            unb64url(opened["credential_id"]),
            unb64url(opened["user_handle"]),
            unb64url(opened["private"]),
            opened["sign_count"],
        )
    except InvalidTag:
        raise KeyFileError("the passphrase does not open this key", hint="try again; there is no way round it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise KeyFileError("not a key file", hint="make one with `aftergate approve --new-key FILE`") from error


def load(path: Path, passphrase: str) -> SoftKey:
    """The key in a file; one that others may read is refused.

    Raises: KeyFileError.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise KeyFileError("others may read this key file", where=str(path), hint=f"chmod 600 {path}")
        return unsealed(path.read_bytes(), passphrase)
    except OSError as error:
        raise KeyFileError(f"cannot read the key file: {error.strerror}", where=str(path)) from error


def save(path: Path, key: SoftKey, passphrase: str, entropy: Entropy, *, new: bool = False) -> None:
    """Write the key, with its counter, in one step, readable by its owner alone. `new` refuses a file that is there.

    The counter is to be saved before an assertion is sent: a crash then skips a count, which is fine, and never repeats one, which would look like a clone.
    Raises: KeyFileError.
    """
    beside = path.with_name(f"{path.name}.part")
    try:
        if new and path.exists():
            raise KeyFileError("the file is there already", where=str(path), hint="name another")
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(sealed(key, passphrase, entropy))
            out.flush()
            os.fsync(out.fileno())
        beside.replace(path)
    except OSError as error:
        raise KeyFileError(f"cannot write the key file: {error.strerror}", where=str(path)) from error


def _stretched(passphrase: str, salt: bytes, n: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=n, r=8, p=1).derive(passphrase.encode())


def _client_data(kind: str, challenge: bytes, origin: str, more: dict[str, Any] | None = None) -> bytes:
    held: dict[str, Any] = {"type": kind, "challenge": b64url(challenge), "origin": origin, "crossOrigin": False, **(more or {})}
    return json.dumps(held, separators=(",", ":")).encode()
