"""Signing keys that overlap: the next is published before it signs, the last stays published until nothing it signed can be valid.

    published ── active ───────── retiring ─────── gone
    next:        the next key is in the set, so that callers who cache it know it in time
    current:     the youngest active key signs
    retiring:    signs nothing; verifies what it signed

The ring is a value; files and tables are kept elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwk
from msgspec import Struct

ALGORITHM: Final = "ES256"
Phase = Literal["next", "current", "retiring", "gone"]
Maker = Callable[[], ec.EllipticCurvePrivateKey]  # randomness comes from outside


class Timing(Struct, frozen=True):
    """How long each phase lasts, in milliseconds. `overlap_ms` is at least the longest life of a token and the time that callers cache the set."""

    sign_ms: int = 30 * 86_400_000
    ahead_ms: int = 86_400_000
    overlap_ms: int = 86_400_000


class SigningKey(Struct, frozen=True):
    """One key and its windows. `private` is the JWK with its secret part, or None where only the public part is held."""

    kid: str
    public: dict[str, Any]
    published_ms: int
    active_ms: int
    retire_ms: int
    gone_ms: int
    private: dict[str, Any] | None = None

    def phase(self, now_ms: int) -> Phase:
        if now_ms < self.active_ms:
            return "next"
        if now_ms < self.retire_ms:
            return "current"
        return "retiring" if now_ms < self.gone_ms else "gone"

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r})"  # INVARIANT: a secret never gets into a log through repr


def named(key: ec.EllipticCurvePrivateKey, now_ms: int, active_ms: int, timing: Timing) -> SigningKey:
    """A P-256 key, published now and signing from `active_ms`; its id is its RFC 7638 thumbprint."""
    made = jwk.ECKey.import_key(_pem(key))
    kid = made.thumbprint()
    labels = {"use": "sig", "alg": ALGORITHM, "kid": kid}
    public = {**made.as_dict(private=False), **labels}
    private = {**made.as_dict(private=True), **labels}
    return SigningKey(kid, public, now_ms, active_ms, active_ms + timing.sign_ms, active_ms + timing.sign_ms + timing.overlap_ms, private)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def signer(ring: Iterable[SigningKey], now_ms: int) -> SigningKey | None:
    """The key that signs now: of those that are current and held with their secret, the youngest."""
    able = [key for key in ring if key.private is not None and key.phase(now_ms) == "current"]
    return max(able, key=lambda key: (key.active_ms, key.kid), default=None)


def renewed(ring: Iterable[SigningKey], now_ms: int, timing: Timing, make: Maker) -> tuple[tuple[SigningKey, ...], tuple[SigningKey, ...]]:
    """The ring as it should be now, and which of its keys are new: a current key, a next one when the current is about to retire, none that are gone.

    Only keys held with their secret count: each process signs with its own, and verifies with all.
    """
    kept = [key for key in ring if key.phase(now_ms) != "gone"]
    new: list[SigningKey] = []
    own = [key for key in kept if key.private is not None]
    current = signer(own, now_ms)
    if current is None:
        waiting = min((key.active_ms for key in own if key.phase(now_ms) == "next"), default=None)
        # Nothing can sign: either this is the first start, or the server slept through a rotation. A waiting key begins at once.
        if waiting is not None:
            kept = [_begun(key, now_ms) if key.private is not None and key.active_ms == waiting else key for key in kept]
            new = [key for key in kept if key.active_ms == now_ms]
        else:
            new = [named(make(), now_ms, now_ms, timing)]
            kept += new
    elif current.retire_ms - now_ms <= timing.ahead_ms and not any(key.phase(now_ms) == "next" for key in own):
        new = [named(make(), now_ms, max(current.retire_ms, now_ms), timing)]
        kept += new
    return tuple(kept), tuple(new)


def _begun(key: SigningKey, now_ms: int) -> SigningKey:
    import msgspec

    return msgspec.structs.replace(key, active_ms=now_ms)


def rotated(ring: Iterable[SigningKey], now_ms: int, timing: Timing, make: Maker) -> tuple[tuple[SigningKey, ...], SigningKey]:
    """Rotate by hand, as after a suspected theft: own keys stop signing at once and a new one begins. What they signed stays verifiable for the overlap."""
    import msgspec

    new = named(make(), now_ms, now_ms, timing)
    changed = [
        msgspec.structs.replace(
            key, active_ms=min(key.active_ms, now_ms), retire_ms=now_ms, gone_ms=min(key.gone_ms, now_ms + timing.overlap_ms)
        )
        if key.private is not None and key.phase(now_ms) in {"next", "current"}
        else key
        for key in ring
        if key.phase(now_ms) != "gone"
    ]
    return (*changed, new), new


def jwks(ring: Iterable[SigningKey], now_ms: int) -> dict[str, Any]:
    """The public set: next, current and retiring keys, never a secret part."""
    shown = sorted((key for key in ring if key.phase(now_ms) != "gone"), key=lambda key: (-key.active_ms, key.kid))
    return {"keys": [{name: value for name, value in key.public.items() if name != "d"} for key in shown]}
