"""What the OAuth issuers' normalisers share: grant names, scopes, and reading values whose type a log does not promise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec

from aftergate.errors import Reject
from aftergate.events.clock import from_epoch, from_iso
from aftergate.vocabulary import Kind, Tag
from aftergate.vocabulary.patterns import regex

T = TypeVar("T")
Meaning = tuple[Kind, str, str, Iterable[Tag]]

GRANTS: Final = {
    "authorization_code": "authorization_code",
    "interaction_code": "authorization_code",
    "implicit": "implicit",
    "hybrid": "implicit",
    "refresh_token": "refresh_token",
    "client_credentials": "client_credentials",
    "password": "password",
    "device_code": "device_code",
    "token-exchange": "token_exchange",
    "token_exchange": "token_exchange",
    "jwt-bearer": "jwt_bearer",
    "jwt_bearer": "jwt_bearer",
    "saml2-bearer": "saml",
    "ciba": "ciba",
    "uma-ticket": "uma_ticket",
    "mfa-otp": "mfa",
    "mfa-oob": "mfa",
    "mfa-recovery-code": "mfa",
    "otp": "passwordless",
    "oob": "passwordless",
}

SILENT_OF_GRANT: Final = {
    "refresh_token": "token_refresh",
    "client_credentials": "background_service",
    "jwt_bearer": "background_service",
    "token_exchange": "delegated_application",
}
"""Why nobody was present when a token of this grant was issued. Other grants follow a person's act."""

_SCOPES = regex(r"[\s,]+")
_ABSENT = frozenset({"", "unknown", "null", "none", "-", "anonymous"})


def decode(decoder: msgspec.json.Decoder[T], line: bytes) -> T:
    """One record.

    Raises: msgspec.DecodeError, msgspec.ValidationError, or Reject for what the decoder has no error of its own for.
    """
    try:
        return decoder.decode(line)
    except UnicodeDecodeError:
        raise Reject("the record is not UTF-8") from None
    except RecursionError:
        raise Reject("the record is nested too deeply") from None


def moment(value: Any, field: str) -> int:
    """Milliseconds of a time that is text or a number. Raises: Reject, naming `field`."""
    try:
        if isinstance(value, str):
            return from_iso(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return from_epoch(value)
    except (OverflowError, ValueError):
        pass
    except Reject as error:
        raise Reject(error.message, where=field) from None
    raise Reject(f"`{str(value)[:40]}` is not a time", where=field)


def maybe_moment(value: Any) -> int | None:
    """Milliseconds of a time, or None where it is missing or unreadable."""
    if value is None or value == "":
        return None
    try:
        return moment(value, "")
    except Reject:
        return None


def required(value: Any, field: str) -> str:
    """Text that a record cannot do without. Raises: Reject, naming `field`."""
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Reject("is missing or is not text", where=field)


def text(value: Any) -> str | None:
    """Text, or a whole number as text; None for everything else and for what logs write instead of nothing."""
    if isinstance(value, str):
        return None if value.lower() in _ABSENT else value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def mapping(value: Any) -> dict[str, Any]:
    """An object, or an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """A list, or an empty one."""
    return value if isinstance(value, list) else []


def number(value: Any) -> int | None:
    """A whole number, also from text; None for everything else, and beyond 2**53, which no JSON reader keeps exact."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and len(value) < 20:
        try:
            value = int(value)
        except ValueError:
            return None
    if isinstance(value, (int, float)) and abs(value) <= 1 << 53:
        return int(value)
    return None


def flag(value: Any) -> bool | None:
    """True or False, also from text; None for everything else."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return None


def short(value: Any, limit: int = 200) -> str | None:
    """A value as short text, for changes and params. Text stays as it is; objects become JSON."""
    if value is None:
        return None
    if isinstance(value, str):
        return value[:limit]
    try:
        return msgspec.json.encode(value).decode()[:limit]
    except (TypeError, ValueError, RecursionError):
        return None


def words(value: Any) -> tuple[str, ...]:
    """Scopes or audiences: a list, or text parted by blanks or commas. Order is kept, doubles are dropped."""
    if isinstance(value, str):
        found: Iterable[Any] = _SCOPES.split(value.strip("[]{} "))
    elif isinstance(value, list):
        found = value
    else:
        return ()
    return tuple(dict.fromkeys(word for word in found if isinstance(word, str) and word))


def person(value: Any) -> str | None:
    """A name; an e-mail address lower-case, since it joins sources."""
    found = text(value)
    return found.lower() if found is not None and "@" in found else found


def grant_name(raw: Any) -> str | None:
    """The vocabulary's name of a grant type, e.g. `device_code` of `urn:ietf:params:oauth:grant-type:device_code`."""
    name = text(raw)
    if name is None:
        return None
    last = name.rpartition(":")[2].rpartition("/")[2]
    return GRANTS.get(last.lower(), last.lower())


def kind_of_grant(grant: str | None) -> Kind:
    """What issuing a token by this grant is."""
    if grant == "refresh_token":
        return Kind.TOKEN_REFRESH
    if grant == "token_exchange":
        return Kind.TOKEN_EXCHANGE
    return Kind.TOKEN_ISSUE


def actors_of(act: Any) -> tuple[str, ...]:
    """Who acts, nearest first: the subjects of a nested `act` claim (RFC 8693, 4.1)."""
    found: list[str] = []
    while isinstance(act, dict) and len(found) < 16:
        name = text(act.get("sub")) or text(act.get("client_id"))
        if name is not None:
            found.append(name)
        act = act.get("act")
    if not found and isinstance(act, (str, list)):
        return words(act)
    return tuple(found)


def bound_by(cnf: Any) -> str | None:
    """`bound` where a confirmation claim ties the token to a key or certificate (RFC 7800), else None: its absence proves nothing."""
    return "bound" if isinstance(cnf, dict) and any(cnf.values()) else None


CREDENTIAL_TYPES: Final = {
    "client-secret": "secret",
    "client_secret": "secret",
    "client_secret_basic": "secret",
    "client_secret_post": "secret",
    "client_secret_jwt": "secret",
    "client-secret-jwt": "secret",
    "private_key_jwt": "certificate",
    "client-jwt": "certificate",
    "client-x509": "certificate",
    "tls_client_auth": "certificate",
    "self_signed_tls_client_auth": "certificate",
    "federated-jwt": "federated",
    "none": "none",
}
"""Client authentication methods, as RFC 8414 and Keycloak spell them, to credential types."""


def credential_type(method: Any) -> str | None:
    """The credential type of a client authentication method; None for one that is not known."""
    return CREDENTIAL_TYPES.get(method) if isinstance(method, str) else None
