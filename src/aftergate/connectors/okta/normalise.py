"""Okta System Log: one LogEvent to one Event."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from msgspec import Struct

from aftergate.connectors.base import Source
from aftergate.connectors.oauth.shared import (
    SILENT_OF_GRANT,
    credential_type,
    decode,
    flag,
    grant_name,
    items,
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
from aftergate.connectors.okta.countries import COUNTRIES
from aftergate.connectors.okta.operations import meaning
from aftergate.errors import NotMine
from aftergate.events.interning import Interner
from aftergate.events.redact import secret_key
from aftergate.vocabulary import NO_DETAIL, Action, Actor, Change, Detail, Event, Kind, Origin, Tag, Target
from aftergate.vocabulary.patterns import regex

SLUG: Final = "okta"

_LEVEL = regex(r"level[=:\" ]+([A-Za-z]+)")
_POSITIVE = regex(r"([A-Z][A-Za-z -]*?)=POSITIVE")
_ADMIN_GROUP = regex(r"(?<![a-z])(super)?(admins?|administrators?)(?![a-z])|privileged", re.IGNORECASE)

_FAILED: Final = frozenset({"FAILURE", "DENY", "DENIED", "ABANDONED", "UNANSWERED", "RATE_LIMIT", "ERROR"})
_REUSE: Final = frozenset({"app.oauth2.as.token.detect_reuse", "app.oauth2.token.detect_reuse", "app.token.reuse"})
_TOKEN_TYPES: Final = ("access_token", "refresh_token")
_SERVICE_ACTORS: Final = frozenset({"systemprincipal", "system", "service"})
_WORKLOAD_ACTORS: Final = frozenset({"publicclientapp", "appinstance", "app", "application", "oauthclient", "agent", "apitoken"})
_DELEGATED: Final = frozenset({"authorization_code", "refresh_token", "device_code", "password", "ciba", "mfa", "passwordless", "implicit"})

_INTERNAL_AGENTS: Final = ("okta-integrations", "okta-internal", "okta-admin-console", "okta-workflows")
_INTERNAL_ASNS: Final = frozenset({14618, 16509, 8987, 398810})
"""Amazon's networks, where Okta's cells run, and Okta's own."""

_TELLING: Final = frozenset(
    {
        Tag.PRIVILEGE_GRANT,
        Tag.CREDENTIAL_ADD,
        Tag.SECRET_READ,
        Tag.DEFENCE_CHANGE,
        Tag.TRUST_CHANGE,
        Tag.FACTOR_RESET,
        Tag.FACTOR_ADD,
        Tag.FACTOR_REMOVE,
        Tag.PASSWORD_CHANGE,
        Tag.CONSOLE_LOGIN,
        Tag.IMPERSONATE,
        Tag.IDENTITY_DISABLE,
        Tag.APP_CREATE,
        Tag.REDIRECT_CHANGE,
    }
)
"""What the console's own calls never do. Anybody can send their agent, so it excuses nothing of this kind."""


class _Record(Struct, gc=False):
    """The fields read. `Any` where Okta's own schema has been seen to vary."""

    eventType: str = ""
    published: Any = None
    uuid: Any = None
    actor: Any = None
    client: Any = None
    device: Any = None
    outcome: Any = None
    target: Any = None
    transaction: Any = None
    authenticationContext: Any = None
    securityContext: Any = None
    debugContext: Any = None


_LOWER: Final = {name.lower(): name for name in _Record.__struct_fields__}


class OktaNormaliser:
    """Keeps only the interner's caches."""

    def __init__(self, interner: Interner) -> None:
        self._in = interner
        self._decoder = msgspec.json.Decoder(_Record)
        self._loose = msgspec.json.Decoder(dict[str, Any])

    def parse(self, line: bytes) -> Event:
        """One System Log event. Raises: NotMine, Reject, msgspec.DecodeError, msgspec.ValidationError."""
        record = decode(self._decoder, line)
        if not record.eventType:
            record = self._unusual(line)
        return self._event(record)

    def _unusual(self, line: bytes) -> _Record:
        """The record under other spellings: keys in lower case (some warehouses), or wrapped in `detail` (EventBridge)."""
        raw = decode(self._loose, line)
        inner = raw.get("detail")
        if isinstance(inner, dict) and "eventType" in inner:
            raw = inner
        found = {_LOWER[key.lower()]: value for key, value in raw.items() if key.lower() in _LOWER}
        if not found.get("eventType"):
            raise NotMine("no `eventType`", where="eventType")
        return msgspec.convert(found, _Record)

    def _event(self, record: _Record) -> Event:
        make = self._in
        time = moment(record.published, "published")
        uuid = required(record.uuid, "uuid")
        debug = mapping(mapping(record.debugContext).get("debugData"))
        client = mapping(record.client)
        raw_actor = mapping(record.actor)
        transaction = mapping(mapping(record.transaction).get("detail"))
        context = mapping(record.authenticationContext)
        targets = tuple(_targets(record.target))
        grant = grant_name(debug.get("grantType"))

        name = record.eventType
        if grant is not None and ".token.grant" in name:
            name = f"{name}:{grant}"
        elif name == "group.user_membership.add" and any(t.type == "UserGroup" and _is_admin_group(t) for t in targets):
            name = f"{name}:admin"
        action = make.action(SLUG, name, meaning)

        error = _error(record, debug)
        acting, subject, app = self._actor(raw_actor, debug, targets, grant)
        client_id = text(client.get("id")) or app
        session, other = _session(context)
        device = mapping(record.device)
        agent_raw = text(mapping(client.get("userAgent")).get("rawUserAgent"))
        origin, internal = self._origin(record, client, debug, agent_raw, action, session)
        if internal:
            acting = make.actor(acting.id, acting.names, acting.kind, acting.account, acting.display, acting.role, first_party=True)

        resource = None
        if action.kind is Kind.SILENT_SIGN_IN:
            resource = next((t.id for t in targets if t.type in ("AppInstance", "AppUser")), None)
        elif grant is not None:
            resource = text(debug.get("authorizationServer")) or text(debug.get("authorizationServerName"))
        device_hash = text(debug.get("dtHash"))
        shape = make.shape(
            SLUG,
            action,
            acting,
            origin,
            make.agent(agent_raw),
            error,
            client_id,
            text(raw_actor.get("displayName")) if app is not None and client_id == app else None,
            resource,
            device_hash or text(device.get("id")),
            _silent(action, grant),
        )

        issued, issued_class, ttl = _issued(action, record.target, time, error)
        params = _params(debug, context, other, device, device_hash)
        scopes = words(debug.get("grantedScopes")) or words(debug.get("requestedScopes"))
        detail = Detail(
            issued=issued,
            issued_class=issued_class,
            spent=_spent(record.eventType, targets),
            grant=grant,
            issued_ttl_s=ttl,
            scopes=scopes,
            credential_type=credential_type(debug.get("clientAuthType")),
            binding="bound" if text(debug.get("dpopJkt")) or text(debug.get("dpopBound")) == "true" else None,
            interactive=True if action.kind is Kind.SIGN_IN else None,
            mfa=True if record.eventType == "user.authentication.auth_via_mfa" and error is None else None,
            managed=flag(device.get("managed")),
            risk=_risk(record.eventType, debug),
            act=(acting.id,) if grant == "token_exchange" and subject is not None else (),
            subject=subject if grant == "token_exchange" else None,
            correlation=text(mapping(record.transaction).get("id")),
            targets=targets,
            changes=_changes(record.target, debug),
            params=params,
            status=text(mapping(record.outcome).get("reason")),
        )
        return Event(
            time=time,
            id=uuid,
            shape=shape,
            credential=text(transaction.get("requestApiTokenId")),
            session=session,
            target=_main_target(action, targets),
            detail=detail if detail != NO_DETAIL else None,
        )

    def _actor(
        self, raw: dict[str, Any], debug: dict[str, Any], targets: tuple[Target, ...], grant: str | None
    ) -> tuple[Actor, str | None, str | None]:
        """Who acts, the user a token is for, and the application.

        Okta names the application as actor of every grant. Where a public client (no secret of its own) gets a token for a user, the
        caller is that user's own device, so the user acts and the application is the client. A client with a secret of its own calls from
        its server: there the application acts, and the user stands among the targets.
        """
        make = self._in
        kind = (text(raw.get("type")) or "").lower()
        raw_id = text(raw.get("id"))
        display = text(raw.get("displayName"))
        alternate = person(raw.get("alternateId"))
        if kind in _WORKLOAD_ACTORS:
            user = next((t for t in targets if t.type == "User"), None)
            public = (text(debug.get("clientAuthType")) or "none") == "none"
            if user is not None and grant in _DELEGATED and public:
                return make.actor(user.id, user.names, "human", display=user.names[0] if user.names else None), user.id, raw_id
            names = _names(raw_id, alternate, display)
            return make.actor(raw_id or alternate or "unknown", names, "workload", display=display), user.id if user else None, raw_id
        names = _names(raw_id, alternate, display)
        identity = raw_id or alternate or display or "unknown"
        if kind in _SERVICE_ACTORS:
            return make.actor(identity, names, "service", display=display, first_party=True), None, None
        human = "human" if kind == "user" and raw_id is not None else "unknown"
        return make.actor(identity, names, human, display=alternate or display), None, None

    def _origin(
        self,
        record: _Record,
        client: dict[str, Any],
        debug: dict[str, Any],
        agent: str | None,
        action: Action,
        session: str | None,
    ) -> tuple[Origin, bool]:
        """Where the call came from, and whether Okta's own console made it inside somebody's session (panther-analysis#1086)."""
        security = mapping(record.securityContext)
        asn = number(security.get("asNumber"))
        organisation = text(security.get("asOrg"))
        country = text(mapping(client.get("geographicalContext")).get("country"))
        code = None
        if country is not None:
            code = country if len(country) == 2 and country.isupper() and country.isascii() else COUNTRIES.get(country)
        internal = (
            agent is not None
            and agent.lower().startswith(_INTERNAL_AGENTS)
            and session is not None
            and "dtHash" not in debug
            and (asn in _INTERNAL_ASNS or "okta" in (organisation or "").lower())
            and not (action.tags & _TELLING)
        )
        origin = self._in.origin(
            text(client.get("ipAddress")), asn, code, organisation, proxy=flag(security.get("isProxy")) is True, trustworthy=not internal
        )
        return origin, internal


def _names(raw_id: str | None, alternate: str | None, display: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in (alternate, display) if name is not None and name != raw_id))


def _targets(raw: Any) -> list[Target]:
    found = []
    for entry in items(raw):
        if not isinstance(entry, dict):
            continue
        target_id = text(entry.get("id"))
        kind = text(entry.get("type")) or ""
        alternate = person(entry.get("alternateId"))
        display = None if kind.endswith("_token") else text(entry.get("displayName"))  # "Access Token" names nothing
        identity = target_id or alternate or display
        if identity is not None:
            found.append(Target(identity, kind, _names(identity, alternate, display)))
    return found


def _main_target(action: Action, targets: tuple[Target, ...]) -> str | None:
    """The first target; for a session cleared or a life ended the user, whom Okta may put behind other entries."""
    if not targets:
        return None
    if action.tags & {Tag.REVOKE, Tag.IDENTITY_DISABLE} and action.kind in (Kind.SESSION_END, Kind.IDENTITY_LIFECYCLE):
        return next((t.id for t in targets if t.type == "User"), targets[0].id)
    if action.kind is Kind.TOKEN_REVOKE:
        return next((t.id for t in targets if t.type.lower() in _TOKEN_TYPES), targets[0].id)
    return targets[0].id


def _is_admin_group(group: Target) -> bool:
    return any(_ADMIN_GROUP.search(name) for name in group.names)


def _session(context: dict[str, Any]) -> tuple[str | None, str | None]:
    """The session that stays, and the other id where it differs: Okta uses a transaction's id until the login is done."""
    root, external = text(context.get("rootSessionId")), text(context.get("externalSessionId"))
    session = root or external
    return session, external if external != session else None


def _error(record: _Record, debug: dict[str, Any]) -> str | None:
    outcome = mapping(record.outcome)
    result = (text(outcome.get("result")) or "").upper()
    reason = short(outcome.get("reason"), 100) or None
    if record.eventType in _REUSE:
        return reason if reason is not None and result in _FAILED else "refresh_token_reuse"
    if result in _FAILED:
        return reason or text(debug.get("loginResult")) or result
    if record.eventType.startswith(("user.mfa.attempt_bypass", "user.mfa.okta_verify.deny_push")):
        return reason or record.eventType.rpartition(".")[2]
    return None


def _silent(action: Action, grant: str | None) -> str | None:
    if action.kind in (Kind.TOKEN_ISSUE, Kind.TOKEN_REFRESH, Kind.TOKEN_EXCHANGE):
        return "token_refresh" if action.kind is Kind.TOKEN_REFRESH else SILENT_OF_GRANT.get(grant or "")
    return "session_continuation" if action.kind is Kind.SILENT_SIGN_IN else None


def _issued(action: Action, raw: Any, time: int, error: str | None) -> tuple[tuple[str, ...], str | None, int | None]:
    """Ids minted, the class of the first, and the access token's life in seconds."""
    if error is not None:
        return (), None, None
    if action.kind is Kind.CREDENTIAL_CREATE:
        ids = [text(entry.get("id")) for entry in items(raw) if isinstance(entry, dict) and text(entry.get("type")) in ("Token", "token")]
        found = tuple(i for i in ids if i is not None)
        return found, "api_key" if found else None, None
    if action.kind not in (Kind.TOKEN_ISSUE, Kind.TOKEN_REFRESH, Kind.TOKEN_EXCHANGE):
        return (), None, None
    issued: list[str] = []
    first = ttl = None
    for entry in items(raw):
        if not isinstance(entry, dict):
            continue
        kind, token = text(entry.get("type")), text(entry.get("id"))
        if kind not in _TOKEN_TYPES or token is None:
            continue
        issued.append(token)
        first = first or kind
        expires = maybe_moment(mapping(entry.get("detailEntry")).get("expires"))
        if kind == "access_token" and expires is not None and expires >= time:
            ttl = (expires - time) // 1000
    return tuple(issued), first, ttl


def _spent(event_type: str, targets: tuple[Target, ...]) -> str | None:
    """Only a detected reuse names the refresh token that was presented."""
    if event_type in _REUSE:
        return next((t.id for t in targets if t.type.lower() == "refresh_token"), None)
    return None


def _risk(event_type: str, debug: dict[str, Any]) -> str | None:
    if event_type in (
        "security.threat.detected",
        "security.breached_credential.detected",
        "user.account.report_suspicious_activity_by_enduser",
    ):
        return "high"
    for key in ("risk", "logOnlySecurityData"):
        found = _LEVEL.search(short(debug.get(key), 500) or "")
        if found is not None:
            level = found[1].lower()
            return level if level in ("none", "low", "medium", "high") else None
    return "high" if text(debug.get("threatSuspected")) == "true" else None


def _changes(raw: Any, debug: dict[str, Any]) -> tuple[Change, ...]:
    """Old and new values, where the target carries `changeDetails`; else the privilege that was granted."""
    found = []
    for entry in items(raw):
        change = mapping(entry.get("changeDetails")) if isinstance(entry, dict) else {}
        old, new = mapping(change.get("from")), mapping(change.get("to"))
        found += [
            Change(str(key)[:60], short(old.get(key)), short(new.get(key))) for key in list({**old, **new})[:20] if not secret_key(key)
        ]
    privilege = short(debug.get("privilegeGranted"))
    if privilege:
        found.append(Change("privilege", None, privilege))
    revoked = short(debug.get("privilegeRevoked"))
    if revoked:
        found.append(Change("privilege", revoked, None))
    return tuple(found)


def _params(
    debug: dict[str, Any], context: dict[str, Any], other: str | None, device: dict[str, Any], device_hash: str | None
) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    if other is not None:
        found["external_session"] = other
    device_id = text(device.get("id"))
    if device_id is not None and device_hash is not None:
        found["device_id"] = device_id
    news = _POSITIVE.findall(short(debug.get("behaviors"), 600) or "")
    if news:
        found["behaviors"] = news
    for key, name in (("factor", "factor"), ("privilegeGranted", "privilege"), ("tunnels", "tunnels")):
        value = short(debug.get(key))
        if value:
            found[name] = value
    requested, granted = words(debug.get("requestedScopes")), words(debug.get("grantedScopes"))
    if granted and requested and set(requested) != set(granted):
        found["requested_scopes"] = list(requested)
    provider = text(context.get("credentialProvider"))
    if provider is not None:
        found["credential_provider"] = provider
    return found or None


def recognise(record: dict[str, Any]) -> bool:
    """`eventType` of dotted words beside `published` and `actor`, in Okta's spelling or all lower case."""
    name = record.get("eventType") or record.get("eventtype")
    if not isinstance(name, str):
        inner = record.get("detail")
        return isinstance(inner, dict) and isinstance(inner.get("eventType"), str) and "published" in inner and "actor" in inner
    return "." in name and "published" in record and isinstance(record.get("actor"), dict) and ("uuid" in record or "outcome" in record)


SOURCES = (
    Source(
        slug=SLUG,
        title="Okta System Log",
        recognise=recognise,
        normaliser=OktaNormaliser,
        provides=frozenset(
            {
                "origin.ip",
                "origin.asn",
                "agent",
                "device",
                "session",
                "credential",
                "client",
                "resource",
                "token.mint",
                "scopes",
                "credential.change",
                "identity.lifecycle",
                "privilege",
                "policy",
                "trust",
                "secret.read",
                "factor",
                "act",
                "consent",
                "device_code",
            }
        ),
        misleads=(
            "During a sign-in `externalSessionId` is the login transaction's id; only `rootSessionId` stays.",
            "Calls of Okta's own admin console show another address and agent inside the administrator's session.",
            "Grants name the application as actor, also where the caller is a person's device.",
            "A refresh does not name the refresh token it spent; only a detected reuse does.",
        ),
        priority=40,
    ),
)
