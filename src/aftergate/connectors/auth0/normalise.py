"""Auth0 tenant logs: log stream form (`log_id` beside `data`), or the bare record that the Management API lists."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct, field

from aftergate.connectors.auth0.operations import FAILED, GRANT_OF, meaning
from aftergate.connectors.base import Source
from aftergate.connectors.oauth.shared import (
    SILENT_OF_GRANT,
    decode,
    flag,
    items,
    mapping,
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
from aftergate.vocabulary import Actor, Change, Detail, Event, Kind, Tag, Target
from aftergate.vocabulary.patterns import regex

SLUG: Final = "auth0"

_PLAIN = regex(r"^[a-z]+(?:-[a-z]+)*$")
_VERSION = regex(r"^/(?:api/)?v\d+(?=/)")
_MINTS: Final = frozenset({Kind.TOKEN_ISSUE, Kind.TOKEN_REFRESH, Kind.TOKEN_EXCHANGE})
_SECRET_KEYS: Final = ("secret", "password", "token", "credential", "assertion", "private")


class _Record(Struct, gc=False):
    """The fields read, of either form."""

    log_id: Any = None
    object_id: Any = field(default=None, name="_id")
    data: Any = None
    date: Any = None
    type: Any = None
    description: Any = None
    client_id: Any = None
    client_name: Any = None
    ip: Any = None
    user_agent: Any = None
    details: Any = None
    user_id: Any = None
    user_name: Any = None
    audience: Any = None
    scope: Any = None
    tenant_name: Any = None
    tenant: Any = None
    hostname: Any = None
    session_id: Any = None
    connection: Any = None
    strategy: Any = None
    location_info: Any = None
    security_context: Any = None


class Auth0Normaliser:
    """Keeps only the interner's caches."""

    def __init__(self, interner: Interner) -> None:
        self._in = interner
        self._decoder = msgspec.json.Decoder(_Record)

    def parse(self, line: bytes) -> Event:
        """One log event. Raises: NotMine, Reject, msgspec.DecodeError, msgspec.ValidationError."""
        record = decode(self._decoder, line)
        if isinstance(record.data, dict):
            inner = msgspec.convert(record.data, _Record)
            inner.log_id = record.log_id or inner.log_id
            record = inner
        code = text(record.type)
        if code is None:
            raise NotMine("no `type`", where="type")
        return self._event(record, code)

    def _event(self, record: _Record, code: str) -> Event:
        make = self._in
        time = moment(record.date, "date")
        event_id = required(record.log_id or record.object_id, "log_id")
        details = mapping(record.details)
        request = mapping(details.get("request"))
        status = number(mapping(details.get("response")).get("statusCode"))
        management = bool(request.get("path")) and bool(request.get("method"))
        targets: tuple[Target, ...] = ()
        if management:
            name, targets = _route(request)
        else:
            name = code
        action = make.action(SLUG, name, meaning)
        description = short(record.description, 160)
        failed = code in FAILED or (code.startswith("f") and code != "finish") or code.endswith(("_failed", "_rejected"))
        error = (description or code) if failed else str(status) if status is not None and status >= 400 else None

        account = text(record.tenant_name) or text(record.tenant) or text(record.hostname)
        client = text(record.client_id)
        grant = GRANT_OF.get(code)
        actor = self._actor(record, request, client, grant, account)
        auth = mapping(request.get("auth"))

        family, counter = text(details.get("familyId")), number(details.get("tokenCounter"))
        token = text(details.get("access_token_jti"))
        issued: list[str] = []
        spent = credential = None
        if family is not None and counter is not None and action.kind in _MINTS:
            if error is None:
                issued.append(f"{family}.{counter}")
                if action.kind is Kind.TOKEN_REFRESH and counter > 1:
                    spent = credential = f"{family}.{counter - 1}"
            else:
                spent = credential = f"{family}.{counter}"
        elif family is not None and action.kind is Kind.TOKEN_REVOKE:
            targets = (Target(f"{family}.{counter}" if counter is not None else family, "refresh_token", (family,)),)
        if token is not None and error is None:
            issued.append(token)
        if management:
            credential = text(mapping(auth.get("credentials")).get("jti"))
            if Tag.CREDENTIAL_ADD in action.tags and error is None:
                made = mapping(mapping(details.get("response")).get("body"))
                issued += [found for key in ("client_id", "id", "kid") if (found := text(made.get(key))) is not None][:1]

        session = (
            text(details.get("session_id"))
            or text(mapping(details.get("refresh_token")).get("session_id"))
            or text(mapping(details.get("session")).get("id"))
            or text(record.session_id)
        )
        place = mapping(record.location_info)
        country = text(place.get("country_code"))
        security = mapping(record.security_context)
        origin = make.origin(
            text(record.ip),
            number(place.get("asn")) or number(security.get("asn")),
            country.upper() if country is not None and len(country) == 2 else None,
        )
        silent = (
            SILENT_OF_GRANT.get(grant or "")
            if action.kind in _MINTS
            else "session_continuation"
            if action.kind is Kind.SILENT_SIGN_IN
            else None
        )
        if not targets and action.tags & {
            Tag.IDENTITY_DISABLE,
            Tag.PASSWORD_CHANGE,
            Tag.FACTOR_ADD,
            Tag.FACTOR_REMOVE,
            Tag.IDENTITY_CREATE,
        }:
            user = text(record.user_id)
            if user is not None:
                name_of = person(record.user_name)
                targets = (Target(user, "user", (name_of,) if name_of is not None else ()),)
        shape = make.shape(
            SLUG,
            action,
            actor,
            origin,
            make.agent(text(record.user_agent)),
            error,
            client,
            text(record.client_name),
            text(record.audience),
            None,
            silent,
            account,
        )
        latest = number(details.get("latestCounter"))
        kept = {"latest_generation": latest, "connection": text(record.connection), "strategy": text(record.strategy)}
        params = {key: value for key, value in kept.items() if value is not None}
        detail = Detail(
            issued=tuple(issued),
            issued_class=None
            if not issued
            else "refresh_token"
            if family is not None
            else "access_token"
            if token is not None
            else "client_secret",
            spent=spent,
            family=family,
            generation=counter,
            grant=grant,
            scopes=words(record.scope),
            interactive=True if action.kind is Kind.SIGN_IN else None,
            mfa=True if code == "gd_auth_succeed" else None,
            risk=_risk(details, code),
            act=(client,) if grant == "token_exchange" and client is not None else (),
            audience=words(record.audience),
            targets=targets,
            changes=_changes(request),
            params=params or None,
            status=description,
        )
        return Event(
            time=time,
            id=event_id,
            shape=shape,
            credential=credential,
            session=session,
            target=targets[0].id if targets else None,
            detail=detail,
        )

    def _actor(self, record: _Record, request: dict[str, Any], client: str | None, grant: str | None, account: str | None) -> Actor:
        make = self._in
        user = mapping(mapping(request.get("auth")).get("user"))
        user_id = text(user.get("user_id"))
        if user_id is not None:
            names = tuple(n for n in (person(user.get("email")), text(user.get("name"))) if n is not None)
            return make.actor(user_id, names, "human", account, names[0] if names else None)
        user_id, name = text(record.user_id), person(record.user_name)
        if grant == "client_credentials" or (user_id is None and name is None and client is not None):
            label = text(record.client_name)
            names = tuple(n for n in (label, user_id) if n is not None and n != client)
            return make.actor(client or user_id or "unknown", names, "workload", account, label)
        if user_id is not None and user_id.endswith("@clients"):
            return make.actor(user_id.removesuffix("@clients"), (user_id,), "workload", account, text(record.client_name))
        identity = user_id or name or "unknown"
        return make.actor(
            identity, (name,) if name is not None and name != identity else (), "human" if user_id is not None else "unknown", account, name
        )


def _route(request: dict[str, Any]) -> tuple[str, tuple[Target, ...]]:
    """`PATCH /clients/{id}` of a Management API call, and the ids taken out of its path.

    `:blocked`, `:password` and `:off` are added where the body decides what the call does.
    """
    method = (text(request.get("method")) or "").upper()
    path = _VERSION.sub("", short(request.get("path"), 300) or "/")
    parts, targets = [], []
    previous = ""
    for part in path.split("?")[0].split("/"):
        if not part or _PLAIN.match(part):
            parts.append(part)
            previous = part or previous
        else:
            parts.append("{id}")
            targets.append(Target(part.replace("%7C", "|"), previous.removesuffix("s")))
    route = "/".join(parts)
    body = request.get("body")
    if route == "/users/{id}" and method == "PATCH":
        fields = mapping(body)
        route += ":blocked" if flag(fields.get("blocked")) else ":password" if "password" in fields else ""
    elif route.startswith(("/guardian/", "/attack-protection", "/anomaly", "/risk-assessment")) and _turns_off(route, method, body):
        route += ":off"
    return f"{method} {route}", tuple(targets)


def _turns_off(route: str, method: str, body: Any) -> bool:
    """Whether the call by its body can only weaken: a policy list emptied, or `enabled` set to false."""
    if method == "DELETE":
        return True
    if isinstance(body, list):
        return not body and route.endswith("/policies")
    fields = mapping(body)
    return any(flag(fields.get(name)) is False for name in ("enabled", "AfterAuthentication")) or fields.get("shields") == []


def _changes(request: dict[str, Any]) -> tuple[Change, ...]:
    """What a Management API call set; values of anything that may be a secret are left out."""
    body = request.get("body")
    if isinstance(body, list):
        return (Change("body", None, short(body)),)
    found = []
    for key, value in list(mapping(body).items())[:20]:
        hidden = any(word in key.lower() for word in _SECRET_KEYS) or isinstance(value, dict)
        found.append(Change(key[:60], None, None if hidden else short(value)))
    return tuple(found)


def _risk(details: dict[str, Any], code: str) -> str | None:
    if code in ("pwd_leak", "signup_pwd_leak", "reset_pwd_leak"):
        return "high"
    level = mapping(details.get("riskAssessment")).get("confidence")
    return {"low": "high", "medium": "medium", "high": "low", "neutral": None}.get(level.lower()) if isinstance(level, str) else None


def recognise(record: dict[str, Any]) -> bool:
    """`log_id` of a tenant log, beside `data` with `type` and `date`, or with those two itself."""
    inner = record.get("data")
    if isinstance(inner, dict):
        return isinstance(record.get("log_id") or inner.get("log_id"), str) and isinstance(inner.get("type"), str) and "date" in inner
    if not isinstance(record.get("type"), str) or "date" not in record or not (record.get("log_id") or record.get("_id")):
        return False
    return (
        "tenant_name" in record
        or "$event_schema" in record
        or "connection_id" in record
        or "client_id" in record
        or bool(items(record.get("auth0_client")))
    )


SOURCES = (
    Source(
        slug=SLUG,
        title="Auth0 tenant logs",
        recognise=recognise,
        normaliser=Auth0Normaliser,
        provides=frozenset(
            {
                "origin.ip",
                "agent",
                "session",
                "credential",
                "client",
                "resource",
                "token.refresh_chain",
                "scopes",
                "credential.change",
                "identity.lifecycle",
                "privilege",
                "policy",
                "trust",
                "factor",
                "device_code",
                "leak",
            }
        ),
        misleads=(
            "The first refresh token of a family is minted without its family being logged, so mints cannot be counted complete.",
            "Retries within the rotation's overlap are accepted and logged like any refresh.",
            "A refresh may carry another session id than the login that began its family.",
        ),
        priority=45,
    ),
)
