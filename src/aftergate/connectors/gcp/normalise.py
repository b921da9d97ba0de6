"""Google Cloud audit log entries: LogEntry with an AuditLog payload. GKE clusters and Workspace activities reach it as well.

Source: cloud.google.com "AuditLog", "AuthenticationInfo", "Audit logs for service accounts", "IAM audit logging". Delegation
information lists the original caller first; here the nearest comes first.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import msgspec

from aftergate.connectors.base import Source
from aftergate.connectors.gcp import methods
from aftergate.connectors.gcp.operations import operation, service_of
from aftergate.connectors.gcp.records import Entry, Payload
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
from aftergate.errors import NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.vocabulary import NO_ORIGIN, Action, Actor, Detail, Event, Kind, Origin, Target
from aftergate.vocabulary.patterns import regex

SOURCE: Final = "gcp.audit"

_CODES: Final = (  # google.rpc.Code
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
_GOOGLES_OWN = regex(
    r"^(service-[0-9a-z-]+@[a-z0-9.-]+\.iam\.gserviceaccount\.com|[0-9]+@cloudservices\.gserviceaccount\.com|[^@]+@system\.gserviceaccount\.com|[^@]+@prod\.google\.com)$"
)


class Caller(NamedTuple):
    """What `authenticationInfo` says, cached by its bytes."""

    actor: Actor
    credential: str | None
    key_id: str | None
    act: tuple[str, ...]
    attached: tuple[str, ...]
    subject: str | None
    client: str | None


_entry = msgspec.json.Decoder(Entry)


def kind_of(principal: str) -> tuple[str, bool]:
    """(kind, first party) that a principal shows."""
    if _GOOGLES_OWN.match(principal):
        return "service", True
    if principal.endswith("gserviceaccount.com") or "workloadIdentityPools/" in principal or principal.startswith("system:serviceaccount:"):
        return "workload", False
    if principal.startswith("system:"):
        return "service", True
    return ("human" if "@" in principal or "workforcePools/" in principal else "unknown"), False


class Audit:
    """Log entries as exported by a sink or listed by the API."""

    def __init__(self, interner: Interner) -> None:
        self.intern = interner
        self._callers: dict[tuple[bytes, str | None], Caller] = {}
        self._actions: dict[tuple[str | None, str], Action] = {}

    def parse(self, line: bytes) -> Event:
        entry = decode(_entry, line)
        payload = entry.payload
        if payload is None:
            raise NotMine("entry has no audit payload")
        method = text(payload.method_name)
        if method is None:
            raise Reject("audit payload has no methodName")
        time = moment(entry.timestamp, entry.p_event_time)
        received = moment_or_none(entry.received, entry.received_too) or 0
        labels = mapping(mapping(entry.resource).get("labels"))
        project = text(labels.get("project_id")) or _container(text(entry.log_name) or text(entry.log_name_too))
        caller = self._caller(payload.auth, project)
        detail = Detail(act=caller.act, subject=caller.subject)
        facts: dict[str, Any] = {}
        if caller.key_id:
            detail.credential_type = "key"
            facts["key_id"] = caller.key_id
        elif caller.attached:
            detail.credential_type = "managed_identity"
            facts["attached"] = list(caller.attached)
        elif caller.subject:
            detail.credential_type = "federated"

        last = re.split(r"[./]", method)[-1].lower()
        resource = text(payload.resource_name)
        targets: list[Target] = []
        variant = ""
        if last in ("setiampolicy", "setiampermissions"):
            variant = methods.bindings(payload, detail, facts, targets, labels, resource)
        elif last in methods.ABOUT_ACCOUNTS:
            methods.account(last, payload, detail, facts, targets, labels, resource)
        elif last == "exchangetoken":
            methods.exchange(payload, detail, facts, resource)
        elif last in ("createrole", "updaterole"):
            delta = mapping(mapping(payload.service_data).get("permissionDelta"))
            facts["added_permissions"] = list(texts(delta.get("addedPermissions")))[:100] if delta.get("addedPermissions") else None
        elif last in ("insertjob", "query"):
            variant = methods.job(payload, detail)
        elif last in ("setmetadata", "setcommoninstancemetadata"):
            facts["metadata_keys"] = methods.metadata_keys(payload)
        elif last in ("enableservice", "batchenableservices") and "aiplatform" in (
            str(resource) + bytes(payload.request).decode("utf-8", "replace")
        ):
            variant = "ai"
        elif last == "authorizeuser" and any(
            (text(mapping(item).get("permission")) or "").startswith("iap.tunnel") for item in items(payload.authorization)[:5]
        ):
            variant = "tunnel"  # to a machine; web applications behind the proxy ask for every request
        elif last == "insertprojectownershipinvite":
            member = text(methods.object_of(payload.request).get("member"))
            if member:
                facts["roles"], facts["members"] = ["roles/owner"], [member]
                if resource:
                    targets.append(Target(resource, "resource"))
                targets.append(Target(methods.bare(member), "member", unique((member,), methods.bare(member))))
        elif last in ("updatesink", "createsink"):
            facts["destination"] = text(methods.object_of(payload.request, "sink").get("destination"))
        action = self._action(text(payload.service_name), method, variant)
        if action.service == "admin" or action.service == "login":
            methods.workspace(payload, facts, targets)
        if resource and not any(target.id == resource for target in targets):
            targets.append(Target(resource, text(mapping(entry.resource).get("type")) or ""))
        detail.targets = tuple(targets)
        detail.params = kept(facts)
        correlation = text(mapping(entry.operation).get("id"))
        detail.correlation = correlation
        request_metadata = mapping(payload.request_metadata)
        shape = self.intern.shape(
            SOURCE,
            action,
            caller.actor,
            self._origin(text(request_metadata.get("callerIp")) or text(request_metadata.get("callerIP"))),
            self.intern.agent(text(request_metadata.get("callerSuppliedUserAgent"))),
            self._error(payload, last),
            client=caller.client,
            silent=self._silent(action, caller),
            account=project,
        )
        return Event(
            time,
            text(entry.insert_id) or text(entry.insert_id_too) or content_id(line),
            shape,
            credential=caller.credential,
            target=targets[0].id if targets else None,
            known_at=received if received > time else 0,
            detail=detail,
        )

    def _action(self, service_name: str | None, method: str, variant: str) -> Action:
        """The action, named by the method. A bare one (`SetIamPolicy`) means another thing in each service: its service stands before it."""
        full = f"{method}:{variant}" if variant else method
        found = self._actions.get((service_name, full))
        if found is None:
            service = service_of(service_name, method)
            name = full if service == "k8s" or ("." in method and service.lower() in method.lower().split(".")) else f"{service}.{full}"
            found = self.intern.action(SOURCE, name[:200], lambda _: operation(service, full))
            if len(self._actions) > 20_000:
                self._actions.clear()
            self._actions[(service_name, full)] = found
        return found

    def _caller(self, raw: msgspec.Raw, project: str | None) -> Caller:
        data = bytes(raw)
        found = self._callers.get((data, project))
        if found is not None:
            return found
        info = methods.object_of(raw)
        subject = text(info.get("principalSubject"))
        federated = subject if subject and subject.startswith(("principal:", "principalSet:")) else None
        email = mail(info.get("principalEmail"))
        principal = email or subject or mail(info.get("authoritySelector")) or "anonymous"
        kind, first_party = kind_of(principal)
        chain: list[str] = []
        attached: list[str] = []
        for item in items(info.get("serviceAccountDelegationInfo")):
            one = mapping(item)
            name = mail(mapping(one.get("firstPartyPrincipal")).get("principalEmail")) or text(one.get("principalSubject"))
            if name is None:
                claims = mapping(mapping(one.get("thirdPartyPrincipal")).get("thirdPartyClaims"))
                name = text(claims.get("sub")) or text(claims.get("subject"))
            if name is None:
                continue
            name = name.removeprefix("serviceAccount:").removeprefix("user:")
            if name.startswith(("principal:", "principalSet:")):
                federated = federated or name
            # Google's own agent hands a machine its attached account: that is no impersonation
            (attached if _GOOGLES_OWN.match(name) else chain).append(name)
        key = text(info.get("serviceAccountKeyName"))
        actor = self.intern.actor(principal, unique((subject,), principal), kind, _project_of(principal), first_party=first_party)
        found = Caller(
            actor,
            methods.key_name(key) if key else None,
            key.rpartition("/")[2] if key else None,
            tuple(reversed(chain)),
            tuple(attached),
            federated,
            text(mapping(info.get("oauthInfo")).get("oauthClientId")),
        )
        if len(self._callers) > 100_000:
            self._callers.clear()
        self._callers[(data, project)] = found
        return found

    def _origin(self, place: str | None) -> Origin:
        """The caller's place. `callerIp` may be `private`, `gce-internal-ip` or an inner address: then it is not where the caller is, as seen from outside."""
        if not place:
            return NO_ORIGIN
        found = address(place)
        if found is None:
            return self.intern.origin(place[:60], trustworthy=False)
        return self.intern.origin(found, trustworthy=not inner(found))

    @staticmethod
    def _silent(action: Action, caller: Caller) -> str | None:
        if action.kind not in (Kind.TOKEN_ISSUE, Kind.TOKEN_EXCHANGE):
            return None
        if caller.subject:
            return "scheduled_workload"
        return "background_service" if caller.actor.kind in ("workload", "service") else "delegated_application"

    @staticmethod
    def _error(payload: Payload, last: str) -> str | None:
        status = mapping(payload.status)
        code = number(status.get("code"))
        if code:
            return _CODES[code] if 0 < code < len(_CODES) else str(code)
        if last == "loginfailure":
            return "login_failure"
        granted = [mapping(item).get("granted") for item in items(payload.authorization)]
        if payload.status is None and granted and all(value is False for value in granted):
            return "PERMISSION_DENIED"
        return None


def _container(log_name: str | None) -> str | None:
    parts = (log_name or "").split("/")
    return parts[1] if len(parts) > 1 and parts[0] in ("projects", "organizations", "folders") else None


def _project_of(principal: str) -> str | None:
    found = re.match(r"^[^@]+@([a-z0-9-]+)\.iam\.gserviceaccount\.com$", principal)
    return found.group(1) if found else None


def _recognise(record: dict[str, Any]) -> bool:
    payload = record.get("protoPayload")
    return isinstance(payload, dict) and (
        "methodName" in payload or "authenticationInfo" in payload or str(payload.get("@type", "")).endswith("AuditLog")
    )


SOURCES = (
    Source(
        SOURCE,
        "Google Cloud audit logs",
        _recognise,
        Audit,
        frozenset(
            [
                "origin.ip",
                "agent",
                "credential",
                "client",
                "token.mint",
                "ci.subject",
                "act",
                "privilege",
                "policy",
                "trust",
                "secret.read",
                "credential.change",
            ]
            + ["identity.lifecycle", "share", "ai", "remote_exec", "discovery", "scopes"]
        ),
        (
            "`callerIp` is an inner address, `private` or `gce-internal-ip` for calls from within Google's network.",
            "Access tokens have no id here: only key-based calls name a credential.",
            "Data access logs are off by default for most services, and storage entries carry no byte counts.",
        ),
        priority=20,
    ),
)
