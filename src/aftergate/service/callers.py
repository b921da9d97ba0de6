"""Callers that show an access token of the named issuer instead of a key: RFC 9068, section 4, read strictly.

Only signatures that a public key verifies count (`none` and HS* are no choice: RFC 8725, 3.1 and 3.2), only access tokens (`typ` at+jwt keeps ID tokens
out: 3.11), only of the one issuer and for this server. A token that is bound to a key is not taken as a bearer token (RFC 9449, 7.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import structlog
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from msgspec import Struct

from aftergate.authz import strict_json
from aftergate.authz.errors import BadRequest
from aftergate.errors import AftergateError
from aftergate.service.keys import SCOPES

if TYPE_CHECKING:
    from aftergate.service.core import Ground

log = structlog.get_logger("aftergate")
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
TYPES: Final = frozenset({"at+jwt", "application/at+jwt"})
SKEW_S: Final = 60
MOST_BYTES: Final = 8192
MOST_LIFE_S: Final = 86_400


class NotNow(AftergateError):
    """Whether a token is good cannot be known now: its issuer's keys cannot be had."""

    code = "issuer-unavailable"


class Keys(Protocol):
    """What fetches and keeps an issuer's keys."""

    def keys(self, issuer: str, kid: str | None) -> Mapping[str, Any]:
        """The issuer's JWK Set, fetched again for a key id it does not hold. Raises: AftergateError."""


class Claims(Struct, frozen=True):
    """What an access token says of its bearer."""

    client: str
    subject: str
    scopes: frozenset[str]


class Tokens:
    """Access tokens of one issuer for one audience."""

    def __init__(self, issuer: str, audience: str, keys: Keys, clock: Callable[[], int]) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = keys
        self._clock = clock

    @classmethod
    def of(cls, ground: Ground) -> Tokens:
        from aftergate.service.tasks.issuers import IssuerKeys

        settings = ground.settings
        return cls(settings.caller_issuer, settings.caller_audience or ground.url, IssuerKeys(ground.clock), ground.clock)

    def claims(self, token: str) -> Claims | None:
        """The claims of a good token; None for any other, whatever it is (why is in the log).

        Raises: NotNow.
        """
        try:
            return self._checked(token)
        except (_Bad, BadRequest, JoseError, msgspec.MsgspecError, ValueError, TypeError, KeyError) as error:
            log.info("access token refused", why=str(error) if isinstance(error, _Bad) else type(error).__name__)
            return None

    def _checked(self, token: str) -> Claims:
        if len(token) > MOST_BYTES or not token.isascii():
            raise _Bad("it is too long, or not ASCII")
        # 1. What the header says, before any key is looked for.
        loaded = jws.extract_compact(token.encode())
        header = loaded.headers()
        if str(header.get("typ", "")).lower() not in TYPES:
            raise _Bad("`typ` is not at+jwt: it is no access token (RFC 9068, 2.1)")
        if header.get("alg") not in ALGORITHMS:
            raise _Bad("its algorithm is not one that a public key verifies")
        if "crit" in header:
            raise _Bad("it has critical header parameters that this server does not know")
        # 2. Whose it claims to be: only the named issuer is asked for keys.
        claims = strict_json.decode(loaded.payload)
        if not isinstance(claims, dict) or claims.get("iss") != self._issuer:
            raise _Bad("it is of another issuer")
        # 3. The signature.
        kid = header.get("kid")
        try:
            held = self._keys.keys(self._issuer, kid if isinstance(kid, str) else None)
        except AftergateError as error:
            log.warning("access tokens cannot be checked", problem=str(error))
            raise NotNow("the issuer's keys cannot be had") from None
        jws.deserialize_compact(token.encode(), _usable(held, kid), algorithms=list(ALGORITHMS))
        # 4. For whom, and when.
        audience = claims.get("aud")
        if self._audience not in (audience if isinstance(audience, list) else [audience]):
            raise _Bad("`aud` does not name this server")
        now = self._clock() / 1000
        expires, issued = _number(claims, "exp"), _number(claims, "iat")
        if now >= expires:
            raise _Bad("it has expired")
        if issued > now + SKEW_S or ("nbf" in claims and _number(claims, "nbf") > now + SKEW_S):
            raise _Bad("it is not valid yet")
        if expires - issued > MOST_LIFE_S:
            raise _Bad("it lives longer than a day")
        if "cnf" in claims:
            raise _Bad("it is bound to a key and was sent as a bearer token (RFC 9449, 7.1)")
        # 5. Who.
        client, subject, scope = claims.get("client_id"), claims.get("sub"), claims.get("scope", "")
        if not isinstance(client, str) or not isinstance(subject, str) or not isinstance(scope, str) or not client or not subject:
            raise _Bad("`client_id` or `sub` is missing, or `scope` is no text (RFC 9068, 2.2)")
        if not isinstance(claims.get("jti"), str):
            raise _Bad("`jti` is missing")
        return Claims(client, subject, frozenset(scope.split()).intersection(SCOPES))


def _usable(held: Mapping[str, Any], kid: object) -> KeySet:
    """The keys that may have signed: public, not for encryption, with the id that the header names if it names one."""
    found = [
        key
        for key in held["keys"]
        if key.get("kty") in {"RSA", "EC", "OKP"} and key.get("use", "sig") == "sig" and (not isinstance(kid, str) or key.get("kid") == kid)
    ]
    if not found or (not isinstance(kid, str) and len(found) > 1):
        raise _Bad("no key of the issuer has this id")
    return KeySet.import_key_set({"keys": found})


def _number(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Bad(f"`{name}` is missing or no number")
    return value


class _Bad(Exception):
    """Why a token is no good."""
