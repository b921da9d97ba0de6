"""A client's own key, and the proofs that it holds it (RFC 9449)."""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from pathlib import Path
from typing import Final, Self

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from aftergate.errors import ConfigError

ALGORITHM: Final = "ES256"
_REGISTRY: Final = jws.JWSRegistry(algorithms=[ALGORITHM], strict_check_header=False)


class DpopKey:
    """An ES256 key. Calling it makes a proof for one request: `Client(url, key, proof=DpopKey.generate())`."""

    def __init__(self, key: ECKey) -> None:
        self._key = key
        self._public = key.as_dict(private=False)

    @classmethod
    def generate(cls) -> Self:
        return cls(ECKey.generate_key("P-256"))

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a PEM file with the private key.

        Raises: ConfigError.
        """
        try:
            return cls(ECKey.import_key(path.read_bytes()))
        except (OSError, ValueError, JoseError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no PEM file with an EC key"
            raise ConfigError(f"cannot read the key: {reason}", where=str(path)) from None

    @property
    def thumbprint(self) -> str:
        """RFC 7638, by which approvals and tokens name it."""
        return self._key.thumbprint()

    def __call__(self, method: str, url: str, ath: str = "") -> str:
        """A fresh proof; each serves one request. `ath` binds it to a token or an approval as well, of which it holds the hash."""
        header = {"typ": "dpop+jwt", "alg": ALGORITHM, "jwk": {name: self._public[name] for name in ("kty", "crv", "x", "y")}}
        now = int(time.time())  # noqa: TID251  the proof says when it was made
        claims: dict[str, str | int] = {"jti": str(uuid.uuid4()), "htm": method, "htu": url.split("?", 1)[0].split("#", 1)[0], "iat": now}
        if ath:
            claims["ath"] = base64.urlsafe_b64encode(hashlib.sha256(ath.encode()).digest()).rstrip(b"=").decode()
        return jws.serialize_compact(header, msgspec.json.encode(claims), self._key, registry=_REGISTRY)
