"""Keycloak user events and admin events: as a JSON event listener writes them, and as the admin interface lists them."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec
from msgspec import Struct

from aftergate.connectors.base import Source
from aftergate.connectors.keycloak.operations import GRANT_OF, USER_EVENTS, meaning
from aftergate.connectors.oauth.shared import (
    SILENT_OF_GRANT,
    credential_type,
    decode,
    flag,
    grant_name,
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
from aftergate.vocabulary import NO_DETAIL, Actor, Change, Detail, Event, Kind, Target
from aftergate.vocabulary.patterns import regex

SLUG: Final = "keycloak"

_ID = regex(r"^[0-9a-fA-F]{8}-[0-9a-fA-F-]{20,}$")
_MINTS: Final = frozenset({Kind.TOKEN_ISSUE, Kind.TOKEN_REFRESH, Kind.TOKEN_EXCHANGE, Kind.SIGN_IN})
_BY_CLIENT: Final = frozenset({"CLIENT_LOGIN", "TOKEN_EXCHANGE", "INTROSPECT_TOKEN", "CLIENT_REGISTER", "CLIENT_UPDATE", "CLIENT_DELETE"})
"""Here the client calls; `userId`, where given, is its service account or the user the token speaks for."""


class _Record(Struct, gc=False):
    """The fields read. `event` is the body where a listener nests it."""

    id: Any = None
    time: Any = None
    timestamp: Any = None
    type: Any = None
    realmId: Any = None
    realmName: Any = None
    clientId: Any = None
    userId: Any = None
    sessionId: Any = None
    ipAddress: Any = None
    error: Any = None
    details: Any = None
    operationType: Any = None
    resourceType: Any = None
    resourcePath: Any = None
    representation: Any = None
    authDetails: Any = None
    event: Any = None


class KeycloakNormaliser:
    """Keeps only the interner's caches."""

    def __init__(self, interner: Interner) -> None:
        self._in = interner
        self._decoder = msgspec.json.Decoder(_Record)

    def parse(self, line: bytes) -> Event:
        """One user or admin event. Raises: NotMine, Reject, msgspec.DecodeError, msgspec.ValidationError."""
        record = decode(self._decoder, line)
        if isinstance(record.event, dict):
            inner = msgspec.convert(record.event, _Record)
            inner.timestamp = inner.timestamp or record.timestamp
            inner.id = inner.id or record.id
            record = inner
        if isinstance(record.operationType, str) and isinstance(record.resourceType, str):
            return self._admin(record)
        if isinstance(record.type, str) and record.type:
            return self._user(record)
        raise NotMine("neither `type` nor `operationType`", where="type")

    def _when(self, record: _Record) -> tuple[int, int]:
        """Event time, and when the listener wrote it if that is later."""
        written = maybe_moment(record.timestamp)
        if record.time is None and written is not None:
            return written, 0
        time = moment(record.time, "time")
        return time, written if written is not None and written > time else 0

    def _user(self, record: _Record) -> Event:
        make = self._in
        time, known_at = self._when(record)
        event_id = required(record.id, "id")
        name = required(record.type, "type")
        details = mapping(record.details)
        error = None
        if name.endswith("_ERROR"):
            name = name[: -len("_ERROR")]
            error = short(record.error, 100) or "error"
        elif record.error:
            error = short(record.error, 100)
        base = name
        if name == "UPDATE_CREDENTIAL" and text(details.get("credential_type")) == "password":
            name = "UPDATE_CREDENTIAL:password"
        action = make.action(SLUG, name, meaning)
        client, user = text(record.clientId), text(record.userId)
        session = text(record.sessionId)
        grant = GRANT_OF.get(base) or grant_name(details.get("grant_type"))
        account = text(record.realmName) or text(record.realmId)
        actor = self._actor(base, client, user, details, account)

        refresh, token = text(details.get("refresh_token_id")), text(details.get("token_id"))
        updated = text(details.get("updated_refresh_token_id"))
        issued: tuple[str, ...] = ()
        issued_class = spent = credential = None
        if base == "REFRESH_TOKEN":
            spent = credential = refresh
            found = (updated, token)
        else:
            found = (refresh, token)
            if base == "CODE_TO_TOKEN":
                code = text(details.get("code"))
                spent = None if code is None else "sha256:" + hashlib.sha256(code.encode("utf-8", "replace")).hexdigest()[:32]
        if error is None and action.kind in _MINTS:
            issued = tuple(i for i in found if i is not None)
            issued_class = "refresh_token" if found[0] is not None else "access_token" if issued else None
        targets: tuple[Target, ...] = ()
        if base in ("INTROSPECT_TOKEN", "REVOKE_GRANT"):
            ids = (token, refresh, text(details.get("revoked_client")), session if base == "REVOKE_GRANT" else None)
            types = ("access_token", "refresh_token", "client", "session")
            targets = tuple(Target(i, t) for i, t in zip(ids, types, strict=True) if i is not None)
        elif base == "USER_INFO_REQUEST":
            credential = token
        elif base == "TOKEN_EXCHANGE" and user is not None:
            targets = (Target(user, "user", _some(person(details.get("username")))),)
        elif base in ("GRANT_CONSENT", "UPDATE_CONSENT", "CLIENT_REGISTER", "CLIENT_UPDATE", "CLIENT_DELETE") and client is not None:
            targets = (Target(client, "client"),)
        if not targets and action.kind is Kind.TOKEN_REVOKE and client is not None:
            targets = (Target(client, "client"),)

        impersonator = text(details.get("impersonator"))
        ttl = number(details.get("access_token_expiration_time"))
        silent = None
        if action.kind in (Kind.TOKEN_ISSUE, Kind.TOKEN_REFRESH, Kind.TOKEN_EXCHANGE):
            silent = SILENT_OF_GRANT.get(grant or "")
        shape = make.shape(
            SLUG,
            action,
            actor,
            make.origin(text(record.ipAddress)),
            make.agent(text(details.get("user_agent"))),
            error,
            client,
            None,
            text(details.get("audience")),
            None,
            silent,
            account,
        )
        exchange = base == "TOKEN_EXCHANGE"
        kept = {
            k: v
            for k in ("refresh_token_type", "age_of_refresh_token", "redirect_uri", "consent", "credential_type")
            if (v := short(details.get(k)))
        }
        detail = Detail(
            issued=issued,
            issued_class=issued_class,
            spent=spent,
            family=session if base in ("REFRESH_TOKEN", "CODE_TO_TOKEN") else None,
            grant=grant,
            issued_ttl_s=ttl if issued else None,
            scopes=words(details.get("scope")),
            credential_type=credential_type(details.get("client_auth_method")) if base == "CLIENT_LOGIN" else None,
            binding="bound" if details.get("cnf") or details.get("dpop_jkt") or text(details.get("token_type")) == "DPoP" else None,
            interactive=True if action.kind is Kind.SIGN_IN and grant != "password" else None,
            act=(client,) if exchange and client is not None else (impersonator,) if impersonator is not None else (),
            subject=user if exchange else None,
            audience=words(details.get("audience")),
            correlation=text(details.get("code_id")),
            targets=targets,
            params=kept or None,
            status=short(details.get("reason")) or short(details.get("error_description")),
        )
        return Event(
            time=time,
            id=event_id,
            shape=shape,
            credential=credential,
            session=session,
            target=targets[0].id if targets else None,
            known_at=known_at,
            detail=detail if detail != NO_DETAIL else None,
        )

    def _actor(self, base: str, client: str | None, user: str | None, details: dict[str, Any], account: str | None) -> Actor:
        username = person(details.get("username"))
        if base in _BY_CLIENT or (user is None and username is None and client is not None and base not in ("LOGIN", "REGISTER")):
            own = user if base == "CLIENT_LOGIN" else None
            names = tuple(dict.fromkeys(n for n in (client, username if base == "CLIENT_LOGIN" else None) if n is not None and n != own))
            if own is None:
                return self._in.actor(client or username or "unknown", tuple(n for n in names if n != client), "workload", account)
            return self._in.actor(own, names, "workload", account, client)
        if username is not None and username.startswith("service-account-"):
            return self._in.actor(
                user or username, tuple(n for n in (username, client) if n is not None and user is not None), "workload", account
            )
        identity = user or username or "unknown"
        return self._in.actor(
            identity, _some(username) if user is not None else (), "human" if user is not None else "unknown", account, username
        )

    def _admin(self, record: _Record) -> Event:
        make = self._in
        time, known_at = self._when(record)
        event_id = required(record.id, "id")
        verb, resource = required(record.operationType, "operationType").upper(), required(record.resourceType, "resourceType").upper()
        path = [part for part in (text(record.resourcePath) or "").split("/") if part]
        representation = _representation(record.representation)
        name = f"admin/{resource}:{verb}{_variant(verb, resource, path, representation)}"
        action = make.action(SLUG, name, meaning)
        auth = mapping(record.authDetails)
        account = text(record.realmName) or text(record.realmId)
        client, user = text(auth.get("clientId")), text(auth.get("userId"))
        username = person(auth.get("username"))
        workload = username is not None and username.startswith("service-account-")
        actor = make.actor(
            user or username or client or "unknown",
            _some(username) if user is not None else (),
            "workload" if workload else "human",
            account,
            username,
        )
        error = short(record.error, 100) if record.error else None
        target = path[1] if len(path) > 1 else path[0] if path else None
        targets: tuple[Target, ...] = ()
        if target is not None:
            names = _some(
                person(representation.get("username")) or text(representation.get("clientId")) or text(representation.get("alias"))
            )
            targets = (Target(target, path[0].rstrip("s") if len(path) > 1 else resource.lower(), names),)
        shape = make.shape(
            SLUG, action, actor, make.origin(text(auth.get("ipAddress"))), make.agent(None), error, client, None, None, None, None, account
        )
        detail = Detail(targets=targets, changes=_settings(representation), params={"path": "/".join(path)[:200]} if path else None)
        return Event(time=time, id=event_id, shape=shape, target=target, known_at=known_at, detail=detail)


def _some(name: str | None) -> tuple[str, ...]:
    return (name,) if name is not None else ()


def _representation(raw: Any) -> dict[str, Any]:
    """The object sent, which Keycloak keeps as JSON inside text; a list of roles becomes `roles`."""
    if isinstance(raw, str) and len(raw) < 100_000:
        try:
            raw = msgspec.json.decode(raw)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return {}
    if isinstance(raw, list):
        return {"roles": [text(entry.get("name")) for entry in raw if isinstance(entry, dict)]}
    return mapping(raw)


def _variant(verb: str, resource: str, path: list[str], representation: dict[str, Any]) -> str:
    """What the path or the object adds to resource and verb: the last word that is no id, or `disabled`."""
    if resource in ("USER", "CLIENT") and verb == "UPDATE" and len(path) <= 2 and flag(representation.get("enabled")) is False:
        return ":disabled"
    if (
        resource == "REALM"
        and verb == "UPDATE"
        and any(flag(representation.get(k)) is False for k in ("eventsEnabled", "adminEventsEnabled"))
    ):
        return ":disabled"
    tail = [part for part in path[2:] if not _ID.match(part)]
    if not tail and resource == "REALM" and path and verb in ("ACTION", "DELETE"):
        tail = [part for part in path[-1:] if not _ID.match(part)]
    if not tail or resource.endswith("_MAPPING"):
        return ""
    word = "credentials" if "credentials" in tail and "consents" not in tail and resource == "USER" else tail[0]
    return f":{word}" if word.replace("-", "").isalpha() else ""


def _settings(representation: dict[str, Any]) -> tuple[Change, ...]:
    """The settings a rule reads; Keycloak logs only the new value. Never secrets or credentials."""
    names = (
        "enabled",
        "redirectUris",
        "webOrigins",
        "roles",
        "providerId",
        "eventsEnabled",
        "adminEventsEnabled",
        "requirement",
        "accessTokenLifespan",
    )
    return tuple(Change(n, None, short(representation[n])) for n in names if representation.get(n) is not None)


def recognise(record: dict[str, Any]) -> bool:
    """A listener's logger name, or a realm beside a known event type or an admin operation."""
    inner = record.get("event") if isinstance(record.get("event"), dict) else record
    logger = record.get("loggerName")
    if isinstance(logger, str) and logger.startswith("org.keycloak.events"):
        return True
    if not isinstance(inner, dict) or not ("realmId" in inner or "realmName" in inner):
        return False
    if isinstance(inner.get("operationType"), str) and isinstance(inner.get("resourceType"), str):
        return True
    kind = inner.get("type")
    return isinstance(kind, str) and (kind.removesuffix("_ERROR") in USER_EVENTS or (kind.isupper() and "ipAddress" in inner))


SOURCES = (
    Source(
        slug=SLUG,
        title="Keycloak events",
        recognise=recognise,
        normaliser=KeycloakNormaliser,
        provides=frozenset(
            {
                "origin.ip",
                "session",
                "credential",
                "client",
                "token.mint",
                "token.refresh_chain",
                "scopes",
                "credential.change",
                "identity.lifecycle",
                "privilege",
                "policy",
                "trust",
                "factor",
                "act",
                "consent",
                "device_code",
            }
        ),
        misleads=(
            "No client program and no network name: only the address tells callers apart.",
            "Refresh and introspection events are not stored unless the realm is told to store them.",
            "`client_auth_method` names the client's configured method, also for public clients.",
        ),
        priority=45,
    ),
)
