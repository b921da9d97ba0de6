"""Google Workspace Reports API activities: one record may tell several events.

Each entry of `events` becomes one Event with `part` 0, 1, ... Panther's flattened form (`name`, `type` and a plain `parameters`
object at the top) is read as well.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from msgspec import Struct

from aftergate.connectors.base import Source
from aftergate.connectors.google.operations import meaning
from aftergate.connectors.oauth.shared import decode, flag, items, mapping, moment, number, person, required, short, text, words
from aftergate.errors import NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.events.redact import secret_key
from aftergate.vocabulary import Actor, Change, Detail, Event, Kind, Origin, Target
from aftergate.vocabulary.patterns import regex

SLUG: Final = "google.workspace"

_DEFENCE = regex(
    r"2-?step|two.?step|2sv|mfa|session|password|less secure|api (access|control)|audit|alert|recovery|advanced protection|security code"
    r"|oauth|third.party|dlp|data protection|context.aware|login challenge|spoof|phish|attachment safety"
    r"|deep ?scanning|sandbox|delayed ?delivery|suspicious ?email|malware|spam ?filter",
    re.IGNORECASE,
)
_SHARING = regex(r"shar(e|ing)|outside|external|public", re.IGNORECASE)
_MAIL = regex(r"forward|routing|message.security.rule|delegat", re.IGNORECASE)
_SSO = regex(r"\bsso\b|\bsaml\b|identity provider", re.IGNORECASE)

_KEPT: Final = (
    "visibility",
    "old_visibility",
    "visibility_change",
    "target_domain",
    "target_user",
    "owner",
    "doc_type",
    "primary_event",
    "login_type",
    "login_challenge_method",
    "is_suspicious",
    "client_type",
    "product_bucket",
    "email_forwarding_destination_address",
    "ROLE_NAME",
    "PRIVILEGE_NAME",
    "SETTING_NAME",
    "APPLICATION_NAME",
    "ORG_UNIT_NAME",
    "EMAIL_FORWARDING_DESTINATION",
    "originating_app_id",
    "orgunit_path",
    "application_name",
)
_TARGETS: Final = (
    ("USER_EMAIL", "user"),
    ("GROUP_EMAIL", "group"),
    ("API_CLIENT_NAME", "client"),
    ("OAUTH2_APP_ID", "client"),
    ("doc_id", "file"),
    ("member_id", "user"),
    ("group_id", "group"),
    ("affected_email_address", "user"),
    ("calendar_id", "calendar"),
    ("application_name", "application"),
    ("DOMAIN_NAME", "domain"),
    ("APPLICATION_NAME", "application"),
    ("ROLE_NAME", "role"),
)
_SUSPICIOUS: Final = frozenset(
    {
        "suspicious_login",
        "suspicious_login_less_secure_app",
        "suspicious_programmatic_login",
        "gov_attack_warning",
        "user_signed_out_due_to_suspicious_session_cookie",
        "account_disabled_hijacked",
        "account_disabled_password_leak",
    }
)


class _Record(Struct, gc=False):
    """The fields read. `name`, `type` and `parameters` at the top belong to the flattened form."""

    id: Any = None
    actor: Any = None
    ipAddress: Any = None
    networkInfo: Any = None
    events: Any = None
    name: Any = None
    type: Any = None
    parameters: Any = None


class WorkspaceNormaliser:
    """Keeps only the interner's caches."""

    def __init__(self, interner: Interner) -> None:
        self._in = interner
        self._decoder = msgspec.json.Decoder(_Record)

    def parse(self, line: bytes) -> Event | list[Event]:
        """The events of one activity. Raises: NotMine, Reject, msgspec.DecodeError, msgspec.ValidationError."""
        record = decode(self._decoder, line)
        head = mapping(record.id)
        app = text(head.get("applicationName"))
        if app is None:
            raise NotMine("no application name", where="id.applicationName")
        time = moment(head.get("time"), "id.time")
        event_id = required(head.get("uniqueQualifier"), "id.uniqueQualifier")
        entries = [entry for entry in items(record.events) if isinstance(entry, dict)]
        if not entries and text(record.name) is not None:
            entries = [{"name": record.name, "type": record.type, "parameters": record.parameters}]
        if not entries:
            raise Reject("holds no events", where="events")
        account = text(head.get("customerId"))
        network = mapping(record.networkInfo)
        asns = network.get("ipAsn")
        asn = number(asns[0]) if isinstance(asns, list) and asns else number(asns)
        region = text(network.get("regionCode"))
        origin = self._in.origin(text(record.ipAddress), asn, region.upper() if region is not None and len(region) == 2 else None)
        found = [
            self._event(entry, part, app, time, event_id, mapping(record.actor), origin, account) for part, entry in enumerate(entries)
        ]
        return found[0] if len(found) == 1 else found

    def _event(
        self,
        entry: dict[str, Any],
        part: int,
        app: str,
        time: int,
        event_id: str,
        raw_actor: dict[str, Any],
        origin: Origin,
        account: str | None,
    ) -> Event:
        make = self._in
        event = required(entry.get("name"), "events.name")
        values = _parameters(entry.get("parameters"))
        actor = self._actor(raw_actor, values, account)
        action = make.action(SLUG, _name(app, event, values), meaning)

        client = text(values.get("client_id")) or text(values.get("API_CLIENT_NAME")) or text(values.get("OAUTH2_APP_ID"))
        client_name = text(values.get("app_name")) or text(values.get("OAUTH2_APP_NAME"))
        scopes = words(values.get("scope")) or words(values.get("API_SCOPES")) or _scope_names(values.get("scope_data"))
        grant_id = f"{client}:{actor.id}" if app == "token" and client is not None else None
        issued: tuple[str, ...] = ()
        credential = None
        targets = _targets(values)
        if app == "token" and grant_id is not None and client is not None:
            if event == "authorize":
                issued, targets = (grant_id,), (Target(client, "client", _some(client_name)),)
            elif event == "revoke":
                targets = (Target(grant_id, "grant", (client,)),)
            else:
                credential = grant_id

        error = _error(app, event, values)
        silent = None
        if action.kind is Kind.SILENT_SIGN_IN:
            silent = "session_continuation"
        suspicious = flag(values.get("is_suspicious"))
        resource = text(values.get("api_name")) if app == "token" else text(values.get("application_name")) if app == "saml" else None
        shape = make.shape(
            SLUG,
            action,
            actor,
            origin,
            make.agent(text(values.get("user_agent")) or text(values.get("USER_AGENT"))),
            error,
            client,
            client_name,
            resource,
            text(values.get("device_id")) or text(values.get("DEVICE_ID")),
            silent,
            account,
        )
        signs_in = action.kind is Kind.SIGN_IN
        detail = Detail(
            issued=issued,
            issued_class="refresh_token" if issued else None,
            grant="authorization_code" if issued else "saml" if signs_in and text(values.get("login_type")) == "saml" else None,
            scopes=scopes,
            interactive=True if signs_in else None,
            mfa=_second_factor(event, values) if signs_in else None,
            risk="high" if event in _SUSPICIOUS or suspicious else "none" if suspicious is False else None,
            targets=targets,
            changes=_changes(values),
            params=_params(values),
            status=text(values.get("login_failure_type")) or text(values.get("failure_type")),
        )
        size = number(values.get("num_response_bytes")) or number(values.get("bytes_downloaded")) or 0
        return Event(
            time=time,
            id=event_id,
            shape=shape,
            credential=credential,
            target=targets[0].id if targets else None,
            size=max(size, 0),
            part=part,
            detail=detail,
        )

    def _actor(self, raw: dict[str, Any], values: dict[str, Any], account: str | None) -> Actor:
        make = self._in
        email, profile = person(raw.get("email")), text(raw.get("profileId"))
        if email is not None:
            kind = "workload" if email.endswith(".gserviceaccount.com") else "human"
            return make.actor(email, _some(profile), kind, account, email)
        key = text(raw.get("key"))
        if key is not None:
            return make.actor(key, _some(profile), "service" if key == "SYSTEM" else "workload", account, first_party=key == "SYSTEM")
        affected = person(values.get("affected_email_address"))
        if affected is not None:
            return make.actor(affected, (), "human", account, affected)
        application = text(mapping(raw.get("applicationInfo")).get("oauthClientId"))
        if application is not None:
            return make.actor(application, _some(profile), "workload", account)
        return make.actor(profile or "unknown", (), "human" if profile is not None else "unknown", account)


def _some(name: str | None) -> tuple[str, ...]:
    return (name,) if name is not None else ()


def _parameters(raw: Any) -> dict[str, Any]:
    """Name to value, from Google's list of typed values or from a plain object."""
    if isinstance(raw, dict):
        return raw
    found: dict[str, Any] = {}
    for entry in items(raw):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            continue
        for key in ("value", "intValue", "boolValue", "multiValue", "multiIntValue", "messageValue", "multiMessageValue"):
            if key in entry:
                found[name] = entry[key]
                break
    return found


def _scope_names(raw: Any) -> tuple[str, ...]:
    """Scope names of `scope_data`, where `scope` itself is left out."""
    found = []
    for entry in items(raw):
        values = _parameters(mapping(entry).get("parameter")) if isinstance(entry, dict) else {}
        found.append(text(values.get("scope_name")) or text(mapping(entry).get("scope_name")))
    return tuple(name for name in found if name is not None)


def _name(app: str, event: str, values: dict[str, Any]) -> str:
    """`admin/ASSIGN_ROLE`; `api/drive/files.get` for API use; a setting's concern as `:defence`, `:sharing`, `:mail`, `:sso`."""
    if app == "token" and event == "activity":
        api, method = text(values.get("api_name")) or "", text(values.get("method_name")) or ""
        method = method.removeprefix(f"{api}.")
        return f"api/{api[:60]}/{method[:100]}"
    setting = text(values.get("SETTING_NAME"))
    if app == "admin" and setting is not None:
        setting = f"{text(values.get('APPLICATION_NAME')) or ''} {setting}".replace("_", " ")
        for variant, pattern in (("sso", _SSO), ("mail", _MAIL), ("sharing", _SHARING), ("defence", _DEFENCE)):
            if pattern.search(setting):
                return f"admin/{event}:{variant}"
    return f"{app}/{event}"


def _error(app: str, event: str, values: dict[str, Any]) -> str | None:
    if event in ("login_failure", "risky_sensitive_action_blocked") or event.startswith("ACCESS_DENY"):
        return text(values.get("login_failure_type")) or text(values.get("failure_type")) or event
    if event == "login_verification" and text(values.get("login_challenge_status")) not in (None, "passed"):
        return text(values.get("login_challenge_status"))
    code = text(values.get("saml_status_code")) or text(values.get("saml_second_level_status_code"))
    return code if app == "saml" and event == "login_failure" else None


def _second_factor(event: str, values: dict[str, Any]) -> bool | None:
    """Whether a second factor was shown: named outright, or told by the challenge methods."""
    second = flag(values.get("is_second_factor"))
    if second is not None and event == "login_verification":
        return second and text(values.get("login_challenge_status")) in (None, "passed")
    methods = set(words(values.get("login_challenge_method")))
    if not methods:
        return None
    return bool(methods - {"password", "none", "exchange", "saml", "reauth", "unknown"})


def _targets(values: dict[str, Any]) -> tuple[Target, ...]:
    found: list[Target] = []
    for key, kind in _TARGETS:
        target = person(values.get(key))
        if target is not None and all(target != other.id for other in found):
            title = text(values.get("doc_title")) if kind == "file" else None
            found.append(Target(target[:200], kind, _some(title)))
    return tuple(found)


def _changes(values: dict[str, Any]) -> tuple[Change, ...]:
    old = values.get("OLD_VALUE", values.get("old_value"))
    new = values.get("NEW_VALUE", values.get("new_value"))
    if old is None and new is None:
        return ()
    name = text(values.get("SETTING_NAME")) or "value"
    return () if secret_key(name) else (Change(name, short(old), short(new)),)


def _params(values: dict[str, Any]) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for key in _KEPT:
        value = values.get(key)
        if isinstance(value, bool) or (isinstance(value, int) and number(value) is not None):
            found[key] = value
        elif isinstance(value, str) and value:
            found[key] = value[:200]
        elif isinstance(value, list):
            found[key] = [entry for entry in value[:10] if isinstance(entry, (str, bool)) or number(entry) is not None]
    user = found.get("target_user")
    if "target_domain" not in found and isinstance(user, str) and "@" in user:
        found["target_domain"] = user.rpartition("@")[2].lower()
    destination = found.get("email_forwarding_destination_address")
    if isinstance(destination, str) and "@" in destination:
        found["target_domain"] = destination.rpartition("@")[2].lower()
    return found or None


def recognise(record: dict[str, Any]) -> bool:
    """The Reports API's `kind`, or its `id` with application name beside events or a flattened event."""
    head = record.get("id")
    if not isinstance(head, dict) or not isinstance(head.get("applicationName"), str):
        return False
    return record.get("kind") == "admin#reports#activity" or isinstance(record.get("events"), list) or isinstance(record.get("name"), str)


SOURCES = (
    Source(
        slug=SLUG,
        title="Google Workspace Reports activities",
        recognise=recognise,
        normaliser=WorkspaceNormaliser,
        provides=frozenset(
            {
                "origin.ip",
                "origin.asn",
                "credential",
                "client",
                "resource",
                "scopes",
                "bytes",
                "credential.change",
                "identity.lifecycle",
                "privilege",
                "policy",
                "trust",
                "mail.rule",
                "mail.read",
                "factor",
                "consent",
                "leak",
                "share",
                "discovery",
            }
        ),
        misleads=(
            "Records arrive minutes to hours after the event.",
            "Token activity shows the application's own server where it has one, not the person.",
            "No session and no token id: an application's grant by one person is taken as the credential.",
            "The login and user_accounts applications report one password or forwarding change each.",
        ),
        priority=40,
    ),
)
