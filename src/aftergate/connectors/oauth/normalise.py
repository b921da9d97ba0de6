"""OAuth server events in one small, vendor-neutral form, e.g. from Ory Hydra behind a log mapper, or from your own server.

    {"id": "…", "time": "2026-02-16T10:00:04Z", "type": "token_refreshed", "issuer": "https://as.example",
     "clientId": "planner", "userId": "u-17", "sessionId": "s-9", "ipAddress": "203.0.113.7", "userAgent": "…", "error": null,
     "details": {"grant_type": "refresh_token", "refresh_token_id": "r1", "updated_refresh_token_id": "r2", "token_id": "a2",
                 "scope": "openid files", "client_auth_method": "none", "audience": "files",
                 "cnf": {"jkt": "…"}, "act": {"sub": "agent-1"}},
     "claims": {"jti": "a2", "sid": "s-9", "iat": 1771236004, "exp": 1771239604, "aud": "files", "azp": "planner"}}

Required are `id` (or `event_id`), `time` (or `timestamp`, `ts`), `type` (or `event`, `event_type`). Names in snake case do as well.
`details` may be left out and its fields put beside the others; `claims` are those of the token issued or presented. Token values do
not belong here, ids do.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from aftergate.connectors.base import Source
from aftergate.connectors.oauth.shared import (
    SILENT_OF_GRANT,
    Meaning,
    actors_of,
    bound_by,
    credential_type,
    decode,
    grant_name,
    kind_of_grant,
    mapping,
    maybe_moment,
    moment,
    number,
    person,
    required,
    short,
    text,
    words,
)
from aftergate.errors import NotMine
from aftergate.events.interning import Interner
from aftergate.vocabulary import Detail, Event, Kind, Tag, Target
from aftergate.vocabulary.patterns import regex

SLUG: Final = "oauth.server"

_CAMEL = regex(r"(?<=[a-z0-9])(?=[A-Z])")
_WORDS = regex(r"[^a-z0-9]+")

_Row = tuple[Kind, tuple[Tag, ...]]

EVENTS: Final[dict[str, _Row]] = {
    "login": (Kind.SIGN_IN, ()),
    "logout": (Kind.SESSION_END, ()),
    "session_ended": (Kind.SESSION_END, ()),
    "session_revoked": (Kind.SESSION_END, (Tag.REVOKE,)),
    "consent_granted": (Kind.CONSENT, (Tag.CONSENT,)),
    "consent_revoked": (Kind.TOKEN_REVOKE, (Tag.REVOKE,)),
    "device_code_requested": (Kind.OTHER, ()),
    "device_code_approved": (Kind.DEVICE_CODE_APPROVAL, ()),
    "token_issued": (Kind.TOKEN_ISSUE, ()),
    "token_refreshed": (Kind.TOKEN_REFRESH, ()),
    "token_exchanged": (Kind.TOKEN_EXCHANGE, ()),
    "token_revoked": (Kind.TOKEN_REVOKE, (Tag.REVOKE,)),
    "token_reused": (Kind.TOKEN_REFRESH, ()),
    "token_introspected": (Kind.OTHER, ()),
    "userinfo_read": (Kind.DATA_READ, ()),
    "client_created": (Kind.IDENTITY_LIFECYCLE, (Tag.APP_CREATE,)),
    "client_updated": (Kind.CONFIG_CHANGE, (Tag.REDIRECT_CHANGE,)),
    "client_deleted": (Kind.IDENTITY_LIFECYCLE, (Tag.IDENTITY_DISABLE,)),
    "client_secret_added": (Kind.CREDENTIAL_CREATE, (Tag.CREDENTIAL_ADD,)),
    "client_secret_removed": (Kind.CREDENTIAL_DELETE, (Tag.CREDENTIAL_REMOVE,)),
    "key_rotated": (Kind.TRUST_CHANGE, (Tag.TRUST_CHANGE,)),
    "issuer_trusted": (Kind.TRUST_CHANGE, (Tag.TRUST_CHANGE,)),
}
"""The event names of the form. `token_issued` by grant: refreshes and exchanges count as such."""

SPELLINGS: Final = {
    "sign_in": "login",
    "user_login": "login",
    "login_accepted": "login",
    "login_failed": "login",
    "sign_out": "logout",
    "user_logout": "logout",
    "consent": "consent_granted",
    "grant_consent": "consent_granted",
    "consent_accepted": "consent_granted",
    "revoke_consent": "consent_revoked",
    "device_authorization": "device_code_requested",
    "device_auth": "device_code_requested",
    "device_approved": "device_code_approved",
    "device_verified": "device_code_approved",
    "device_verify_user_code": "device_code_approved",
    "token": "token_issued",
    "token_issue": "token_issued",
    "issue_token": "token_issued",
    "access_token_issued": "token_issued",
    "code_to_token": "token_issued",
    "client_login": "token_issued",
    "client_credentials": "token_issued",
    "token_refresh": "token_refreshed",
    "refresh_token": "token_refreshed",
    "refresh": "token_refreshed",
    "token_exchange": "token_exchanged",
    "token_revoke": "token_revoked",
    "revoke": "token_revoked",
    "revocation": "token_revoked",
    "revoke_grant": "token_revoked",
    "revoke_token": "token_revoked",
    "refresh_token_reuse": "token_reused",
    "refresh_token_reused": "token_reused",
    "token_reuse": "token_reused",
    "token_reuse_detected": "token_reused",
    "introspect": "token_introspected",
    "introspection": "token_introspected",
    "introspect_token": "token_introspected",
    "token_introspection": "token_introspected",
    "userinfo": "userinfo_read",
    "user_info_request": "userinfo_read",
    "client_register": "client_created",
    "client_registered": "client_created",
    "client_update": "client_updated",
    "client_delete": "client_deleted",
    "client_secret_rotated": "client_secret_added",
}
"""Other names that servers use for the same events."""

_GRANT_OF: Final = {"client_login": "client_credentials", "client_credentials": "client_credentials", "code_to_token": "authorization_code"}
_MINTS: Final = frozenset({Kind.TOKEN_ISSUE, Kind.TOKEN_REFRESH, Kind.TOKEN_EXCHANGE})


def meaning(name: str) -> Meaning:
    """Kind, service, verb family and tags of `token_issued:device_code`."""
    base, _, grant = name.partition(":")
    kind, tags = EVENTS.get(base, (Kind.OTHER, ()))
    if kind is Kind.TOKEN_ISSUE and grant:
        kind = kind_of_grant(grant)
    admin = kind in (Kind.IDENTITY_LIFECYCLE, Kind.CONFIG_CHANGE, Kind.CREDENTIAL_CREATE, Kind.CREDENTIAL_DELETE, Kind.TRUST_CHANGE)
    return kind, "oauth", "admin" if admin else "read" if kind is Kind.DATA_READ else "auth", tags


class OAuthNormaliser:
    """Keeps only the interner's caches."""

    def __init__(self, interner: Interner) -> None:
        self._in = interner
        self._decoder = msgspec.json.Decoder(dict[str, Any])

    def parse(self, line: bytes) -> Event:
        """One server event. Raises: NotMine, Reject, msgspec.DecodeError, msgspec.ValidationError."""
        make = self._in
        record = _snake(decode(self._decoder, line))
        raw_type = text(record.get("type")) or text(record.get("event")) or text(record.get("event_type"))
        if raw_type is None:
            raise NotMine("no `type`", where="type")
        time = moment(next((record[k] for k in ("time", "timestamp", "ts") if record.get(k) is not None), None), "time")
        event_id = required(record.get("id") or record.get("event_id"), "id")
        details = {**record, **_snake(mapping(record.get("details")))}
        claims = mapping(record.get("claims")) or mapping(details.get("claims"))

        named = _WORDS.sub("_", _CAMEL.sub("_", raw_type).lower()).strip("_")
        failed = named.endswith(("_error", "_failed", "_failure"))
        for ending in ("_error", "_failed", "_failure"):
            named = named.removesuffix(ending)
        base = SPELLINGS.get(named, named)
        grant = grant_name(details.get("grant_type")) or _GRANT_OF.get(named)
        if base == "token_refreshed" or base == "token_reused":
            grant = "refresh_token"
        elif base == "token_exchanged":
            grant = "token_exchange"
        action = make.action(SLUG, f"{base}:{grant}" if base == "token_issued" and grant is not None else base, meaning)
        error = short(record.get("error"), 100) or ("refresh_token_reuse" if base == "token_reused" else "error" if failed else None)

        client = text(details.get("client_id")) or text(claims.get("azp")) or text(claims.get("client_id"))
        subject = text(details.get("user_id")) or text(details.get("sub")) or text(claims.get("sub"))
        username = person(details.get("username")) or person(details.get("email"))
        account = text(details.get("realm")) or text(details.get("tenant")) or text(details.get("issuer")) or text(claims.get("iss"))
        chain = actors_of(claims.get("act") or details.get("act"))
        exchange = action.kind is Kind.TOKEN_EXCHANGE
        asks = base == "token_introspected"
        if asks or (exchange and client is not None) or grant == "client_credentials" or subject is None or subject == client:
            actor = make.actor(client or subject or "unknown", (), "workload" if client is not None else "unknown", account)
        else:
            actor = make.actor(subject, (username,) if username is not None and username != subject else (), "human", account, username)

        refresh, updated = text(details.get("refresh_token_id")), text(details.get("updated_refresh_token_id"))
        token = text(details.get("token_id")) or text(claims.get("jti"))
        presented = text(details.get("subject_token_id"))
        issued: tuple[str, ...] = ()
        spent = credential = None
        targets: list[Target] = []
        if action.kind is Kind.TOKEN_REFRESH:
            spent = credential = refresh
        elif exchange:
            spent, credential = None, presented
        elif action.kind is Kind.TOKEN_ISSUE:
            spent = text(details.get("code_id"))
        elif base == "userinfo_read":
            credential = token
        elif asks or action.kind is Kind.TOKEN_REVOKE:
            targets = [Target(i, t) for i, t in ((refresh, "refresh_token"), (token, "access_token")) if i is not None]
        if error is None and action.kind in _MINTS:
            minted = (updated, token) if action.kind is Kind.TOKEN_REFRESH else (refresh, token)
            issued = tuple(i for i in minted if i is not None)
        if not targets:
            thing = text(details.get("target")) or (
                client if base.startswith("client_") else subject if exchange and subject != client else None
            )
            if thing is not None:
                targets = [Target(thing, "client" if thing == client else "user")]

        issued_at, expires_at = maybe_moment(claims.get("iat")), maybe_moment(claims.get("exp"))
        minting = bool(issued)
        ttl = number(details.get("expires_in"))
        if ttl is None and issued_at is not None and expires_at is not None:
            ttl = (expires_at - issued_at) // 1000
        audience = words(claims.get("aud")) or words(details.get("audience")) or words(details.get("aud"))
        silent = SILENT_OF_GRANT.get(grant or "") if action.kind in _MINTS else None
        shape = make.shape(
            SLUG,
            action,
            actor,
            make.origin(
                text(details.get("ip_address")) or text(details.get("ip")), number(details.get("asn")), _country(details.get("country"))
            ),
            make.agent(text(details.get("user_agent"))),
            error,
            client,
            text(details.get("client_name")),
            audience[0] if audience else None,
            text(details.get("device_id")),
            silent,
            account,
        )
        kept = {"redirect_uri": short(details.get("redirect_uri")), "resource_server": text(details.get("resource_server"))}
        params = {key: value for key, value in kept.items() if value is not None}
        detail = Detail(
            issued=issued,
            issued_class=None
            if not minting
            else "refresh_token"
            if (updated or (refresh and action.kind is Kind.TOKEN_ISSUE))
            else "access_token",
            spent=spent,
            family=text(details.get("family_id")) or text(details.get("family")),
            generation=number(details.get("generation")),
            grant=grant,
            token_issued_at=None if minting else issued_at,
            token_expires_at=None if minting else expires_at,
            issued_ttl_s=ttl if minting else None,
            scopes=words(details.get("scope")) or words(details.get("scopes")) or words(claims.get("scope")),
            credential_type=credential_type(details.get("client_auth_method")),
            binding=bound_by(claims.get("cnf")) or bound_by(details.get("cnf")) or _binding(details, claims),
            interactive=True if action.kind is Kind.SIGN_IN else None,
            mfa=True if "mfa" in words(claims.get("amr")) else None,
            act=chain or ((client,) if exchange and client is not None else ()),
            subject=subject if exchange else None,
            issuer=text(claims.get("iss")) if exchange else None,
            audience=audience,
            correlation=text(details.get("correlation_id")) or text(claims.get("txn")),
            targets=tuple(targets),
            params=params or None,
            status=short(details.get("error_description")) or short(details.get("reason")),
        )
        return Event(
            time=time,
            id=event_id,
            shape=shape,
            credential=credential,
            session=text(details.get("session_id")) or text(claims.get("sid")),
            target=targets[0].id if targets else None,
            detail=detail,
        )


def _snake(record: dict[str, Any]) -> dict[str, Any]:
    """The same object with its own keys in snake case; the first spelling wins."""
    found: dict[str, Any] = {}
    for key, value in record.items():
        found.setdefault(_CAMEL.sub("_", key).lower(), value)
    return found


def _binding(details: dict[str, Any], claims: dict[str, Any]) -> str | None:
    """Said outright, or told by the token type; a shown set of claims without `cnf` is an unbound token."""
    said = text(details.get("binding"))
    if said in ("bound", "unbound"):
        return said
    kind = (text(details.get("token_type")) or "").lower()
    if kind == "dpop":
        return "bound"
    return "unbound" if claims or kind == "bearer" else None


def _country(value: Any) -> str | None:
    code = text(value)
    return code.upper() if code is not None and len(code) == 2 and code.isalpha() else None


def recognise(record: dict[str, Any]) -> bool:
    """A known event name beside a client, a time and an id, and no other vendor's marks."""
    name = record.get("type") or record.get("event") or record.get("event_type")
    if not isinstance(name, str) or "realmId" in record or "log_id" in record or "eventType" in record:
        return False
    named = _WORDS.sub("_", _CAMEL.sub("_", name).lower()).strip("_")
    for ending in ("_error", "_failed", "_failure"):
        named = named.removesuffix(ending)
    if SPELLINGS.get(named, named) not in EVENTS:
        return False
    details = mapping(record.get("details"))
    client = any(key in record or key in details for key in ("clientId", "client_id")) or isinstance(record.get("claims"), dict)
    return client and any(key in record for key in ("time", "timestamp", "ts")) and ("id" in record or "event_id" in record)


SOURCES = (
    Source(
        slug=SLUG,
        title="OAuth server events (generic JSON)",
        recognise=recognise,
        normaliser=OAuthNormaliser,
        provides=frozenset(
            {
                "origin.ip",
                "agent",
                "session",
                "credential",
                "client",
                "resource",
                "token.mint",
                "token.refresh_chain",
                "token.times",
                "binding",
                "scopes",
                "credential.change",
                "trust",
                "act",
                "consent",
                "device_code",
            }
        ),
        misleads=(
            "An introspection shows the address of the service that asks, not of the token's holder.",
            "Refreshes by a web back end show its address, not the person's.",
        ),
        priority=70,
    ),
)
