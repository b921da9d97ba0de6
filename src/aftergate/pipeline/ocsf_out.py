"""Events and findings as OCSF, version 1.8.0. Pure: one value in, one JSON-ready dict out.

Mapping: sign-ins, tokens and session ends are Authentication (3002); factors, passwords and people's accounts Account Change (3001);
consents and roles User Access Management (3005); activation of an eligible role Authorize Session (3003); credentials, machine
identities, policies and trust Entity Management (3004); everything else API Activity (6003). Findings are Detection Finding (2004).
What OCSF has no place for goes into `unmapped`, under the names of `vocabulary.py`.
"""

from __future__ import annotations

from typing import Any, Final

from aftergate import __version__, frameworks
from aftergate.vocabulary import NO_ORIGIN, SEVERITIES, Actor, Event, Finding, Kind, Origin, Tag

SCHEMA: Final = "1.8.0"
_ALERT: Final = 3  # medium and above call for somebody

_CLASSES: Final = {
    2004: ("Detection Finding", 2, "Findings"),
    3001: ("Account Change", 3, "Identity & Access Management"),
    3002: ("Authentication", 3, "Identity & Access Management"),
    3003: ("Authorize Session", 3, "Identity & Access Management"),
    3004: ("Entity Management", 3, "Identity & Access Management"),
    3005: ("User Access Management", 3, "Identity & Access Management"),
    6003: ("API Activity", 6, "Application Activity"),
}
_ACTIVITIES: Final = {
    2004: {1: "Create", 2: "Update", 3: "Close"},
    3001: {
        1: "Create",
        2: "Enable",
        3: "Password Change",
        4: "Password Reset",
        5: "Disable",
        6: "Delete",
        10: "MFA Factor Enable",
        11: "MFA Factor Disable",
    },
    3002: {1: "Logon", 2: "Logoff", 3: "Authentication Ticket", 4: "Service Ticket Request", 5: "Service Ticket Renew"},
    3003: {1: "Assign Privileges"},
    3004: {1: "Create", 2: "Read", 3: "Update", 4: "Delete", 8: "Enable", 9: "Disable"},
    3005: {1: "Assign Privileges", 2: "Revoke Privileges"},
    6003: {1: "Create", 2: "Read", 3: "Update", 4: "Delete", 99: "Other"},
}
_AUTHENTICATION: Final = {
    Kind.SIGN_IN: 1,
    Kind.SILENT_SIGN_IN: 1,
    Kind.DEVICE_CODE_APPROVAL: 1,
    Kind.TOKEN_ISSUE: 3,
    Kind.TOKEN_EXCHANGE: 4,
    Kind.TOKEN_REFRESH: 5,
    Kind.TOKEN_REVOKE: 2,
    Kind.SESSION_END: 2,
}
_USER_TYPES: Final = {
    "human": (1, "User"),
    "workload": (4, "Service"),
    "agent": (4, "Service"),
    "third_party_app": (4, "Service"),
    "service": (3, "System"),
}
_TOKENS: Final = {
    "id_token": (3, "Identity Token"),
    "refresh_token": (4, "Refresh Token"),
    "saml": (5, "SAML Assertion"),
    "client_secret": (6, "Client Token"),
    "api_key": (7, "API Token"),
    "api_token": (7, "API Token"),
    "pat": (7, "API Token"),
}
_VENDORS: Final = {
    "aws": "AWS",
    "entra": "Microsoft",
    "graph": "Microsoft",
    "m365": "Microsoft",
    "azure": "Microsoft",
    "microsoft": "Microsoft",
    "okta": "Okta",
    "auth0": "Okta",
    "google": "Google",
    "gcp": "Google",
    "github": "GitHub",
    "kubernetes": "Kubernetes",
    "keycloak": "Keycloak",
    "vault": "HashiCorp",
}
_SEVERITY_NAMES: Final = ("Informational", "Low", "Medium", "High", "Critical")
_ENTITY_TYPES: Final = {"user": (2, "User"), "group": (3, "Group"), "policy": (5, "Policy")}
_METHODS: Final = frozenset({"OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT", "PATCH"})
_VERBS: Final = {"discover": 2, "read": 2, "delete": 4, "write": 3, "admin": 3}
_NEW: Final = ("create", "add", "insert", "put", "new", "register", "post")
_GONE: Final = ("delete", "remove", "revoke", "detach", "disassociate", "deactivate", "disable")


def event_to_ocsf(event: Event) -> dict[str, Any]:
    """One event as the OCSF class that fits its kind. Valid against the 1.8.0 schema, without profiles."""
    shape, detail, kind = event.shape, event.d, event.kind
    class_uid, activity = _class_of(event)
    result = _base(class_uid, activity, event.time)
    result.update(severity_id=1, severity="Informational", status_id=1 if event.ok else 2, status="Success" if event.ok else "Failure")
    if shape.error is not None:
        result["status_code"] = shape.error
    if detail.status:
        result["status_detail"] = detail.status
    result["message"] = event.action.name
    metadata: dict[str, Any] = {
        "version": SCHEMA,
        "product": {"name": shape.source, "vendor_name": _VENDORS.get(shape.source.partition(".")[0], "unknown")},
        "uid": event.id,
        "event_code": event.action.name,
        "log_name": shape.source,
    }
    if event.known_at:
        metadata["logged_time"] = event.known_at
    if detail.correlation or detail.linked:
        metadata["correlation_uid"] = detail.correlation or detail.linked
    if shape.account or shape.actor.account:
        metadata["tenant_uid"] = shape.account or shape.actor.account
    result["metadata"] = metadata
    session = _session(event)
    result["actor"] = _actor(event, session)
    result["src_endpoint"] = _endpoint(shape.origin)
    if shape.agent.raw:
        result["http_request"] = {"user_agent": shape.agent.raw}
        method = event.action.name.partition(" ")[0]
        if method in _METHODS:
            result["http_request"]["http_method"] = method
    if class_uid == 3002:
        _fill_authentication(result, event, session)
    elif class_uid == 3001:
        result["user"] = _target_user(event)
    elif class_uid in (3003, 3005):
        result["user"] = _target_user(event) if kind is not Kind.CONSENT else _user(shape.actor)
        result["privileges"] = _privileges(event)
        if class_uid == 3003 and session:
            result["session"] = session
        if class_uid == 3005 and detail.targets:
            result["resources"] = [_resource(target.id, target.type) for target in detail.targets]
    elif class_uid == 3004:
        result["entity"] = _entity(event)
    else:
        api: dict[str, Any] = {"operation": event.action.name, "service": {"name": event.action.service or shape.source}}
        if detail.correlation:
            api["request"] = {"uid": detail.correlation}
        if shape.error is not None:
            api["response"] = {"error": shape.error}
        result["api"] = api
        resources = [_resource(target.id, target.type) for target in detail.targets]
        if not resources and event.target:
            resources = [_resource(event.target, "")]
        if resources:
            result["resources"] = resources
    result["unmapped"] = {"aftergate": _rest(event)}
    return result


def finding_to_ocsf(finding: Finding) -> dict[str, Any]:
    """A finding as Detection Finding. `risk_score` is what the credential or session lost of its trust, 0 to 100."""
    severity = SEVERITIES.index(finding.severity) + 1
    result = _base(2004, 1, finding.time)
    result.update(
        severity_id=severity,
        severity=_SEVERITY_NAMES[severity - 1],
        status_id=1,
        status="New",
        message=finding.narrative,
        is_alert=severity >= _ALERT,
        risk_score=100 - finding.trust_after,
        start_time=finding.started or finding.time,
        end_time=finding.time,
    )
    metadata: dict[str, Any] = {
        "version": SCHEMA,
        "product": {"name": "Aftergate", "vendor_name": "Aftergate", "version": __version__},
        "uid": finding.id,
    }
    if finding.incident:
        metadata["correlation_uid"] = finding.incident
    result["metadata"] = metadata
    info: dict[str, Any] = {
        "uid": finding.id,
        "title": finding.title,
        "desc": finding.narrative,
        "analytic": {"uid": finding.detection, "name": finding.detection, "type_id": 1, "type": "Rule", "version": __version__},
        "first_seen_time": finding.started or finding.time,
        "last_seen_time": finding.time,
        "created_time": finding.known_at or finding.time,
        "data_sources": list(finding.sources),
        "related_events": [{"uid": uid} for uid in finding.evidence],
        "related_events_count": len(finding.evidence),
    }
    attacks = [_attack(technique) for technique in finding.attack]
    if attacks:
        info["attacks"] = attacks
    result["finding_info"] = info
    result["evidences"] = [_evidence(finding)]
    if finding.subject.credential:
        result["resources"] = [_resource(uid, "credential") for uid in finding.subject.credential]
    if finding.recommended:
        result["remediation"] = {"desc": "; ".join(finding.recommended)}
    subject = finding.subject
    rest: dict[str, Any] = {"subject": {"identity": subject.identity, "credential": subject.credential, "session": subject.session}}
    more = {"frameworks": list(finding.frameworks), "traps": list(finding.traps), "root": finding.root}
    rest |= {name: value for name, value in more.items() if value}
    result["unmapped"] = {"aftergate": rest}
    return result


def _base(class_uid: int, activity: int, time: int) -> dict[str, Any]:
    name, category, category_name = _CLASSES[class_uid]
    activity_name = _ACTIVITIES[class_uid].get(activity, "Other")
    return {
        "class_uid": class_uid,
        "class_name": name,
        "category_uid": category,
        "category_name": category_name,
        "activity_id": activity,
        "activity_name": activity_name,
        "type_uid": class_uid * 100 + activity,
        "type_name": f"{name}: {activity_name}",
        "time": time,
    }


def _class_of(event: Event) -> tuple[int, int]:
    kind, tags = event.kind, event.action.tags
    if kind in _AUTHENTICATION:
        return 3002, 5 if event.shape.silent == "token_refresh" else _AUTHENTICATION[kind]
    if kind is Kind.CONSENT:
        return 3005, 1
    if kind is Kind.ROLE_CHANGE:
        if Tag.PRIVILEGE_ACTIVATE in tags:
            return 3003, 1
        return 3005, 2 if Tag.PRIVILEGE_REVOKE in tags else 1
    if kind is Kind.FACTOR_CHANGE:
        if Tag.PASSWORD_CHANGE in tags:
            return 3001, 3 if event.target in (None, event.actor.id) else 4
        return 3001, 11 if Tag.FACTOR_RESET in tags or Tag.FACTOR_REMOVE in tags else 10
    if kind is Kind.IDENTITY_LIFECYCLE:
        return _lifecycle(event)
    if kind is Kind.CREDENTIAL_CREATE:
        return 3004, 1
    if kind is Kind.CREDENTIAL_DELETE:
        return 3004, 4
    if kind in (Kind.POLICY_CHANGE, Kind.TRUST_CHANGE):
        return 3004, _create_or_delete(event, 3)
    if kind in (Kind.SECRET_READ, Kind.DATA_READ, Kind.DATA_EXPORT, Kind.DISCOVERY):
        return 6003, 2
    activity = _VERBS.get(event.action.verb, 99)
    return 6003, _create_or_delete(event, activity) if activity == 3 else activity


def _lifecycle(event: Event) -> tuple[int, int]:
    tags = event.action.tags
    person = not event.d.targets or event.d.targets[0].type.lower() in ("", "user", "member", "person")
    gone = any(word in event.action.name.lower() for word in ("delete", "remove"))
    if Tag.IDENTITY_DISABLE in tags:
        return (3001, 6 if gone else 5) if person else (3004, 4 if gone else 9)
    if Tag.IDENTITY_ENABLE in tags:
        return (3001, 2) if person else (3004, 8)
    if Tag.IDENTITY_CREATE in tags or Tag.APP_CREATE in tags:
        return (3001, 1) if person and Tag.APP_CREATE not in tags else (3004, 1)
    return 3004, _create_or_delete(event, 3)


def _create_or_delete(event: Event, otherwise: int) -> int:
    name = event.action.name.lower()
    operation = name.rpartition(":")[2] if ":" in name else name.rpartition(".")[2]
    if event.action.verb == "delete" or any(word in operation for word in _GONE):
        return 4
    return 1 if operation.startswith(_NEW) or operation.endswith((".add", ".create", ":create", "created")) else otherwise


def _fill_authentication(result: dict[str, Any], event: Event, session: dict[str, Any]) -> None:
    shape, detail = event.shape, event.d
    result["user"] = _user(shape.actor) if event.kind is not Kind.TOKEN_REVOKE else _target_user(event)
    result["service"] = {"name": shape.resource or event.action.service or shape.source}
    if shape.silent is not None or event.kind is not Kind.SIGN_IN:
        result["logon_type_id"], result["logon_type"] = 99, shape.silent or "non-interactive"
    elif detail.interactive is not False:
        result["logon_type_id"], result["logon_type"] = 2, "Interactive"
    if detail.mfa is not None:
        result["is_mfa"] = detail.mfa
    if session:
        result["session"] = session
    if detail.grant == "saml":
        result["auth_protocol_id"], result["auth_protocol"] = 5, "SAML"
    elif detail.grant:
        result["auth_protocol_id"], result["auth_protocol"] = 6, "OAUTH 2.0"
    if event.mints or _issued_class(event) or event.credential:
        kind = _issued_class(event) or "unknown"
        type_id, name = _TOKENS.get(kind, (99, kind) if _issued_class(event) else (0, "Unknown"))
        token: dict[str, Any] = {"type_id": type_id, "type": name}
        uid = event.mints[0] if event.mints else event.credential
        if uid:
            token["uid"] = uid
        if event.mints:
            token["created_time"] = event.time
            if detail.issued_ttl_s is not None:
                token["expiration_time"] = event.time + detail.issued_ttl_s * 1000
        elif detail.token_issued_at is not None:
            token["created_time"] = detail.token_issued_at
        if not event.mints and detail.token_expires_at is not None:
            token["expiration_time"] = detail.token_expires_at
        result["authentication_token"] = token


def _issued_class(event: Event) -> str | None:
    return event.d.issued_class or ("access_token" if event.token is not None else None)


def _session(event: Event) -> dict[str, Any]:
    session: dict[str, Any] = {}
    if event.session:
        session["uid"] = event.session
    if event.credential:
        session["credential_uid"] = event.credential
    if event.d.issuer:
        session["issuer"] = event.d.issuer
    if session and event.d.mfa is not None:
        session["is_mfa"] = event.d.mfa
    return session


def _actor(event: Event, session: dict[str, Any]) -> dict[str, Any]:
    shape = event.shape
    actor: dict[str, Any] = {"user": _user(shape.actor)}
    if event.credential:
        actor["user"]["credential_uid"] = event.credential
    if session:
        actor["session"] = session
    if shape.client:
        actor["app_uid"] = shape.client
    if shape.client_name:
        actor["app_name"] = shape.client_name
    if event.d.act:
        actor["invoked_by"] = event.d.act[0]
    return actor


def _user(actor: Actor) -> dict[str, Any]:
    type_id, name = _USER_TYPES.get(actor.kind, (0, "Unknown"))
    user: dict[str, Any] = {"uid": actor.id or "unknown", "type_id": type_id, "type": name}
    if actor.display:
        user["name"] = actor.display
    if actor.names:
        user["uid_alt"] = actor.names[0]
    mail = next((item for item in (actor.id, *actor.names) if "@" in item and " " not in item), None)
    if mail is not None:
        user["email_addr"] = mail
    if actor.account:
        user["account"] = {"uid": actor.account}
    return user


def _target_user(event: Event) -> dict[str, Any]:
    if event.d.targets:
        target = event.d.targets[0]
        user: dict[str, Any] = {"uid": target.id, "type_id": 0, "type": "Unknown"}
        if target.names:
            user["name"] = target.names[0]
        return user
    return {"uid": event.target, "type_id": 0, "type": "Unknown"} if event.target else _user(event.actor)


def _privileges(event: Event) -> list[str]:
    detail = event.d
    if detail.scopes:
        return list(detail.scopes)
    granted = [change.new or change.old for change in detail.changes]
    roles = [target.names[0] if target.names else target.id for target in detail.targets if "role" in target.type.lower()]
    return [item for item in (*roles, *granted) if item] or [event.action.name]


def _entity(event: Event) -> dict[str, Any]:
    detail = event.d
    if detail.targets:
        target = detail.targets[0]
        uid, kind, name = target.id, target.type, target.names[0] if target.names else None
    else:
        uid, kind, name = event.target or (event.mints[0] if event.mints else event.action.name), "", None
    type_id, label = _ENTITY_TYPES.get(kind.lower(), (99, kind or "Other"))
    if event.kind in (Kind.POLICY_CHANGE, Kind.TRUST_CHANGE) and type_id == 99:
        type_id, label = 5, "Policy"
    entity: dict[str, Any] = {"uid": uid, "type_id": type_id, "type": label}
    if name:
        entity["name"] = name
    if event.mints:
        entity["data"] = {"credentials": list(event.mints)}
    return entity


def _resource(uid: str, kind: str) -> dict[str, Any]:
    return {"uid": uid, "type": kind} if kind else {"uid": uid}


def _endpoint(origin: Origin) -> dict[str, Any]:
    if origin.ip is None:
        return {"svc_name": origin.net.removeprefix("service:") if origin is not NO_ORIGIN else "unknown"}
    endpoint: dict[str, Any] = {"ip": origin.ip}
    if origin.asn is not None or origin.asn_name:
        system: dict[str, Any] = {}
        if origin.asn is not None:
            system["number"] = origin.asn
        if origin.asn_name:
            system["name"] = origin.asn_name
        endpoint["autonomous_system"] = system
    if origin.country:
        endpoint["location"] = {"country": origin.country}
    return endpoint


def _attack(technique: str) -> dict[str, Any]:
    name = frameworks.title(technique)
    family = frameworks.framework(technique) or "attack"
    parent, dot, _ = technique.rpartition(".")
    sub = bool(dot) and parent not in ("AML", "")
    result: dict[str, Any] = {"version": frameworks.VERSIONS[family], "technique": {"uid": parent if sub else technique}}
    top = frameworks.title(parent) if sub else name
    if top:
        result["technique"]["name"] = top
    if sub:
        result["sub_technique"] = {"uid": technique, **({"name": name} if name else {})}
    return result


def _evidence(finding: Finding) -> dict[str, Any]:
    subject = finding.subject
    actor: dict[str, Any] = {}
    if subject.identity:
        actor["user"] = {"uid": subject.identity[0]}
    if subject.session:
        actor["session"] = {"uid": subject.session[0]}
    elif subject.credential and not actor:
        actor["session"] = {"credential_uid": subject.credential[0]}
    return {"actor": actor, "data": {"event_ids": list(finding.evidence)}} if actor else {"data": {"event_ids": list(finding.evidence)}}


def _rest(event: Event) -> dict[str, Any]:
    shape, detail, origin = event.shape, event.d, event.origin
    found: dict[str, Any] = {
        "kind": str(event.kind),
        "class": event.action.klass,
        "tags": sorted(str(tag) for tag in event.action.tags),
        "network": origin.network if origin.network != "unknown" else None,
        "provider": origin.provider,
        "net": origin.net if origin.ip else None,
        "trustworthy": False if not origin.trustworthy else None,
        "agent": shape.agent.family if shape.agent.family != "unknown" else None,
        "device": shape.device,
        "resource": shape.resource,
        "silent": shape.silent,
        "role": shape.actor.role,
        "size": event.size or None,
        "objects": detail.objects,
        "issued": list(event.mints),
        "issued_class": _issued_class(event),
        "spent": detail.spent,
        "family": detail.family,
        "generation": detail.generation,
        "grant": detail.grant,
        "binding": detail.binding,
        "subject": detail.subject,
        "issuer": detail.issuer,
        "run": detail.run,
        "act": list(detail.act),
        "changes": [{"name": change.name, "old": change.old, "new": change.new} for change in detail.changes],
    }
    return {name: value for name, value in found.items() if value not in (None, [], "")}
