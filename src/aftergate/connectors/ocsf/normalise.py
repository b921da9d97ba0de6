"""OCSF records of the identity classes, from any producer: authentication, API activity, account and access changes.

Source: schema.ocsf.io 1.0 to 1.5. `unmapped` and `raw_data` are never read. The event id is `metadata.uid`; `metadata.correlation_uid`
is shared by related events, so it is kept as correlation and not as id.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from msgspec import Struct

from aftergate.connectors.base import Source
from aftergate.connectors.loose import (
    address,
    content_id,
    decode,
    inner,
    items,
    kept,
    mail,
    mapping,
    moment,
    moment_or_none,
    number,
    text,
    texts,
    unique,
)
from aftergate.errors import NotMine
from aftergate.events.interning import Interner
from aftergate.vocabulary import NO_ORIGIN, Actor, Detail, Event, Kind, Origin, Tag, Target
from aftergate.vocabulary.patterns import regex

SOURCE: Final = "ocsf"

Operation = tuple[Kind, str, str, tuple[Tag, ...]]

_CLASSES: dict[int, str] = {
    3001: "account_change",
    3002: "authentication",
    3003: "authorize_session",
    3004: "entity_management",
    3005: "user_access",
    3006: "group_management",
    6003: "api_activity",
}
_ACTIVITIES: dict[tuple[int, int], tuple[str, Kind, str, tuple[Tag, ...]]] = {
    (3001, 1): ("create", Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_CREATE,)),
    (3001, 2): ("enable", Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_ENABLE,)),
    (3001, 3): ("password_change", Kind.FACTOR_CHANGE, "admin", (Tag.PASSWORD_CHANGE,)),
    (3001, 4): ("password_reset", Kind.FACTOR_CHANGE, "admin", (Tag.PASSWORD_CHANGE, Tag.FACTOR_RESET)),
    (3001, 5): ("disable", Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    (3001, 6): ("delete", Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    (3001, 7): ("attach_policy", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    (3001, 8): ("detach_policy", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    (3001, 9): ("lock", Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    (3001, 10): ("mfa_enable", Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_ADD,)),
    (3001, 11): ("mfa_disable", Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_REMOVE,)),
    (3001, 12): ("unlock", Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_ENABLE,)),
    (3002, 1): ("logon", Kind.SIGN_IN, "auth", ()),
    (3002, 2): ("logoff", Kind.SESSION_END, "auth", ()),
    (3002, 3): ("ticket", Kind.TOKEN_ISSUE, "auth", ()),
    (3002, 4): ("service_ticket_request", Kind.TOKEN_ISSUE, "auth", ()),
    (3002, 5): ("service_ticket_renew", Kind.TOKEN_REFRESH, "auth", ()),
    (3002, 6): ("preauth", Kind.OTHER, "auth", ()),
    (3003, 1): ("assign_privileges", Kind.OTHER, "auth", ()),
    (3003, 2): ("assign_groups", Kind.OTHER, "auth", ()),
    (3004, 1): ("create", Kind.IDENTITY_LIFECYCLE, "admin", ()),
    (3004, 2): ("read", Kind.DISCOVERY, "discover", ()),
    (3004, 3): ("update", Kind.CONFIG_CHANGE, "admin", ()),
    (3004, 4): ("delete", Kind.IDENTITY_LIFECYCLE, "admin", ()),
    (3004, 5): ("move", Kind.CONFIG_CHANGE, "admin", ()),
    (3004, 6): ("enroll", Kind.FACTOR_CHANGE, "admin", ()),
    (3004, 8): ("enable", Kind.IDENTITY_LIFECYCLE, "admin", ()),
    (3004, 9): ("disable", Kind.IDENTITY_LIFECYCLE, "admin", ()),
    (3005, 1): ("assign_privileges", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    (3005, 2): ("revoke_privileges", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    (3006, 1): ("assign_privileges", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    (3006, 2): ("revoke_privileges", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    (3006, 3): ("add_user", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    (3006, 4): ("remove_user", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
}
_ENTITY_TAGS: dict[int, tuple[Tag, ...]] = {
    1: (Tag.IDENTITY_CREATE,),
    4: (Tag.IDENTITY_DISABLE,),
    8: (Tag.IDENTITY_ENABLE,),
    9: (Tag.IDENTITY_DISABLE,),
}
_DISCOVER = regex(r"^(list|describe|search|lookup|query|enumerate|check|test|simulate|batchget)", re.IGNORECASE)
_READ = regex(r"^(get|read|head|fetch|download|view|select|scan)", re.IGNORECASE)
_DELETE = regex(r"^(delete|remove|destroy|terminate|purge|detach|disassociate)", re.IGNORECASE)
_SECRET = regex(r"(getsecretvalue|accesssecretversion|secretget)$", re.IGNORECASE)
_KEY = regex(r"^(create|add|upload|import).*(accesskey|loginprofile|serviceaccountkey|sshpublickey|credential)", re.IGNORECASE)
_GRANT = regex(r"^(attach|put|set|add).*(policy|iampolicy|usertogroup|roletouser)$", re.IGNORECASE)
_DEFENCE = regex(r"^(stop|delete|disable|update|put).*(logging|trail|detector|sink|eventselectors|auditsetting)", re.IGNORECASE)
_ASSUME = regex(r"^(assumerole|getsessiontoken|getfederationtoken|generateaccesstoken)", re.IGNORECASE)


def operation(name: str) -> Operation:
    """`class:activity`, for API activity `api:SERVICE:OPERATION:ACTIVITY`."""
    if name.startswith("api:"):
        _, service, called, activity = name.split(":", 3)
        return _api(service, called, activity)
    for (class_uid, _), (activity, kind, family, tags) in _ACTIVITIES.items():
        if name == f"{_CLASSES[class_uid]}:{activity}":
            return kind, f"ocsf-{_CLASSES[class_uid]}", family, tags
    base, _, entity = name.partition("@")
    if entity == "user":
        for activity_id, tags in _ENTITY_TAGS.items():
            activity, kind, family, _tags = _ACTIVITIES[(3004, activity_id)]
            if base == f"{_CLASSES[3004]}:{activity}":
                return kind, f"ocsf-{_CLASSES[3004]}", family, tags
    return Kind.OTHER, f"ocsf-{name.partition(':')[0]}", "write", ()


def _api(service: str, called: str, activity: str) -> Operation:
    if _ASSUME.match(called):
        return Kind.TOKEN_ISSUE, service, "auth", ()
    if _SECRET.search(called):
        return Kind.SECRET_READ, service, "read", (Tag.SECRET_READ,)
    if _KEY.match(called):
        return Kind.CREDENTIAL_CREATE, service, "admin", (Tag.CREDENTIAL_ADD,)
    if _DEFENCE.match(called):
        weak = called.lower().startswith(("stop", "delete", "disable"))
        return Kind.POLICY_CHANGE, service, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN) if weak else (Tag.DEFENCE_CHANGE,)
    if _GRANT.match(called) and service not in ("s3", "sqs", "sns", "kms"):
        return Kind.ROLE_CHANGE, service, "admin", (Tag.PRIVILEGE_GRANT,)
    if _DISCOVER.match(called):
        return Kind.DISCOVERY, service, "discover", ()
    if _READ.match(called) or activity == "2":
        return (Kind.DATA_READ if "object" in called.lower() else Kind.OTHER), service, "read", ()
    if _DELETE.match(called) or activity == "4":
        return Kind.CONFIG_CHANGE, service, "delete", ()
    return Kind.CONFIG_CHANGE, service, "write", ()


class Record(Struct, gc=False):
    class_uid: int | None = None
    activity_id: Any = None
    type_uid: Any = None
    time: Any = None
    time_dt: Any = None
    metadata: Any = None
    actor: Any = None
    user: Any = None
    entity: Any = None
    group: Any = None
    session: Any = None
    authentication_token: Any = None
    src_endpoint: Any = None
    http_request: Any = None
    device: Any = None
    api: Any = None
    service: Any = None
    cloud: Any = None
    resources: Any = None
    privileges: Any = None
    status: Any = None
    status_id: Any = None
    status_code: Any = None
    status_detail: Any = None
    is_mfa: Any = None
    auth_protocol: Any = None
    is_remote: Any = None
    logged_time: Any = None


_record = msgspec.json.Decoder(Record)
_SERVICE_TYPES = {1: "human", 2: "human", 3: "service", 4: "workload"}  # user.type_id: user, admin, system, service


class Records:
    """One OCSF event a line."""

    def __init__(self, interner: Interner) -> None:
        self.intern = interner

    def parse(self, line: bytes) -> Event:
        record = decode(_record, line)
        class_uid = record.class_uid
        if class_uid is None or class_uid not in _CLASSES:
            raise NotMine(f"OCSF class {class_uid} is not of identity or API activity")
        activity_id = number(record.activity_id)
        if activity_id is None:
            type_uid = number(record.type_uid)
            activity_id = type_uid - class_uid * 100 if type_uid is not None else 0
        time = moment(record.time, record.time_dt)
        metadata = mapping(record.metadata)
        logged = moment_or_none(metadata.get("logged_time"), metadata.get("processed_time")) or 0
        acting = mapping(record.actor)
        actor_user = mapping(acting.get("user"))
        named_user = mapping(record.user)
        # a sign-in is the act of its user; any other class has an actor, and the user is whom it acted on
        user = named_user or actor_user if class_uid in (3002, 3003) else actor_user or mapping(acting.get("process")).get("user") or {}
        actor = self._actor(mapping(user), acting)
        session = mapping(record.session) or mapping(acting.get("session"))
        token = mapping(record.authentication_token)
        name, api = self._name(record, class_uid, activity_id)
        action = self.intern.action(SOURCE, name, operation)
        targets = self._targets(record, class_uid)
        endpoint = mapping(record.src_endpoint)
        mfa = record.is_mfa if isinstance(record.is_mfa, bool) else session.get("is_mfa")
        expires = moment_or_none(token.get("expiration_time"), token.get("expiration_time_dt"), session.get("expiration_time"))
        issued_at = moment_or_none(token.get("created_time"), token.get("created_time_dt"), session.get("created_time"))
        token_id = text(token.get("uid"))
        minted = action.kind in (Kind.TOKEN_ISSUE, Kind.TOKEN_REFRESH) and token_id is not None
        cloud = mapping(record.cloud)
        account = text(mapping(cloud.get("account")).get("uid")) or text(mapping(mapping(user).get("account")).get("uid"))
        http = mapping(record.http_request)
        group = text(mapping(record.group).get("name"))
        detail = Detail(
            issued=(token_id,) if minted and token_id else (),
            issued_class="access_token" if minted else None,
            token_issued_at=None if minted else issued_at,
            token_expires_at=None if minted else expires,
            scopes=texts(token.get("scope")),
            interactive=None,
            mfa=mfa if isinstance(mfa, bool) else None,
            issuer=text(session.get("issuer")),
            correlation=text(metadata.get("correlation_uid")),
            targets=targets,
            params=kept(
                {
                    "producer": text(mapping(metadata.get("product")).get("name")),
                    "auth_protocol": text(record.auth_protocol),
                    "privileges": list(texts(record.privileges)) if isinstance(record.privileges, list) else None,
                    "group": group,
                    "region": text(cloud.get("region")),
                }
            ),
            status=text(record.status_detail),
        )
        shape = self.intern.shape(
            SOURCE,
            action,
            actor,
            self._origin(endpoint),
            self.intern.agent(text(http.get("user_agent"))),
            self._error(record, api),
            client=text(acting.get("app_uid")),
            client_name=text(acting.get("app_name")),
            resource=text(mapping(record.service).get("name")) or text(mapping(api.get("service")).get("name")),
            device=text(mapping(record.device).get("uid")) or text(endpoint.get("uid")),
            account=account,
        )
        credential = None if minted else token_id or text(session.get("credential_uid")) or text(mapping(user).get("credential_uid"))
        return Event(
            time,
            text(metadata.get("uid")) or content_id(line),
            shape,
            credential=credential,
            session=text(session.get("uid")),
            target=targets[0].id if targets else None,
            known_at=logged if logged > time else 0,
            detail=detail,
        )

    @staticmethod
    def _name(record: Record, class_uid: int, activity_id: int) -> tuple[str, dict[str, Any]]:
        api = mapping(record.api)
        if class_uid == 6003:
            service = (text(mapping(api.get("service")).get("name")) or "unknown").partition(".")[0].replace(":", "-")
            called = (text(api.get("operation")) or "unknown").replace(":", ".")
            return f"api:{service[:60]}:{called[:100]}:{activity_id}", api
        known = _ACTIVITIES.get((class_uid, activity_id))
        name = f"{_CLASSES[class_uid]}:{known[0] if known else 'other'}"
        if (
            class_uid == 3004
            and activity_id in _ENTITY_TAGS
            and str(mapping(record.entity).get("type", "")).lower() in ("user", "account", "service account")
        ):
            name += "@user"
        return name, api

    def _actor(self, user: dict[str, Any], acting: dict[str, Any]) -> Actor:
        address_of = mail(user.get("email_addr"))
        uid, name, alternate = text(user.get("uid")), mail(user.get("name")), text(user.get("uid_alt"))
        invoked = text(acting.get("invoked_by"))
        identity = (
            uid or address_of or name or alternate or text(acting.get("app_uid")) or text(acting.get("app_name")) or invoked or "unknown"
        )
        kind = _SERVICE_TYPES.get(number(user.get("type_id")) or 0)
        if kind is None:
            kind = "human" if address_of else "third_party_app" if not user and acting.get("app_uid") else "unknown"
        role = (
            text(mapping(mapping(acting.get("session")).get("issuer")).get("uid"))
            if isinstance(mapping(acting.get("session")).get("issuer"), dict)
            else None
        )
        account = text(mapping(user.get("account")).get("uid"))
        return self.intern.actor(
            identity, unique((address_of, name, alternate), identity), kind, account, role=role, first_party=kind == "service"
        )

    def _origin(self, endpoint: dict[str, Any]) -> Origin:
        place = text(endpoint.get("ip"))
        found = address(place) if place else None
        if found is None:
            return self.intern.origin(place[:60], trustworthy=False) if place else NO_ORIGIN
        system = mapping(endpoint.get("autonomous_system"))
        location = mapping(endpoint.get("location"))
        return self.intern.origin(
            found, number(system.get("number")), text(location.get("country")), text(system.get("name")), trustworthy=not inner(found)
        )

    @staticmethod
    def _error(record: Record, api: dict[str, Any]) -> str | None:
        response = mapping(api.get("response"))
        if number(record.status_id) == 2 or (record.status_id is None and record.status == "Failure"):
            return text(record.status_code) or text(response.get("error")) or text(record.status_detail) or "failure"
        return text(response.get("error")) if number(record.status_id) is None else None

    @staticmethod
    def _targets(record: Record, class_uid: int) -> tuple[Target, ...]:
        found: list[Target] = []
        whom = mapping(record.user)
        if class_uid not in (3002, 3003) and whom:
            names = unique((text(whom.get("uid")), mail(whom.get("email_addr")), mail(whom.get("name"))))
            if names:
                found.append(Target(names[0], "user", names[1:]))
        for value, kind in ((record.entity, "entity"), (record.group, "group")):
            one = mapping(value)
            names = unique((text(one.get("uid")), mail(one.get("name"))))
            if names:
                found.append(Target(names[0], text(one.get("type")) or kind, names[1:]))
        for item in items(record.resources)[:20]:
            one = mapping(item)
            names = unique((text(one.get("uid")), text(one.get("name"))))
            if names:
                found.append(Target(names[0], text(one.get("type")) or "resource", names[1:]))
        return tuple(found)


def _recognise(record: dict[str, Any]) -> bool:
    class_uid = record.get("class_uid")
    return (
        isinstance(class_uid, int)
        and class_uid in _CLASSES
        and isinstance(record.get("metadata"), dict)
        and ("activity_id" in record or "type_uid" in record)
    )


SOURCES = (
    Source(
        SOURCE,
        "OCSF identity and API activity",
        _recognise,
        Records,
        frozenset(
            [
                "origin.ip",
                "origin.asn",
                "agent",
                "device",
                "session",
                "credential",
                "client",
                "resource",
                "identity.lifecycle",
                "privilege",
                "factor",
            ]
            + ["secret.read", "discovery", "credential.change", "token.times", "scopes"]
        ),
        (
            "What a producer left unmapped is not read, so a record may say less than the log it was made from.",
            "Records without `metadata.uid` are known by the hash of their bytes: the same event written in another order counts twice.",
        ),
        priority=5,
    ),
)
