"""Google Cloud audit log entries: LogEntry with an AuditLog payload. GKE clusters and Workspace activities reach it as well.

Source: cloud.google.com "AuditLog", "AuthenticationInfo", "Audit logs for service accounts", "IAM audit logging". Delegation
information lists the original caller first; here the nearest comes first.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct, field

from aftergate.connectors.base import Source
from aftergate.connectors.kubernetes.normalise import classify as kubernetes_operation
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
from aftergate.vocabulary import NO_ORIGIN, Action, Actor, Change, Detail, Event, Kind, Origin, Tag, Target
from aftergate.vocabulary.patterns import regex

SOURCE: Final = "gcp.audit"
KEY_PREFIX: Final = "//iam.googleapis.com/"

Operation = tuple[Kind, str, str, tuple[Tag, ...]]

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
_SHARED = ("storage", "bigquery", "artifactregistry", "secretmanager", "cloudkms", "run", "cloudfunctions", "pubsub", "spanner", "dataplex")
_WORDS = regex(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_READ_WORDS = {
    "list": "discover",
    "aggregatedlist": "discover",
    "search": "discover",
    "lookup": "discover",
    "query": "discover",
    "describe": "discover",
    "analyze": "discover",
    "test": "discover",
    "check": "discover",
    "count": "discover",
    "fetch": "read",
    "get": "read",
    "read": "read",
    "batchget": "read",
    "watch": "discover",
    "download": "read",
}
_DELETE_WORDS = ("delete", "destroy", "remove", "undeploy", "purge")

_METHODS: dict[str, tuple[Kind, str, tuple[Tag, ...]]] = {  # last word of the method, lower-case
    "generateaccesstoken": (Kind.TOKEN_ISSUE, "auth", (Tag.IMPERSONATE,)),
    "generateidtoken": (Kind.TOKEN_ISSUE, "auth", (Tag.IMPERSONATE,)),
    "signjwt": (Kind.TOKEN_ISSUE, "auth", (Tag.IMPERSONATE,)),
    "signblob": (Kind.TOKEN_ISSUE, "auth", (Tag.IMPERSONATE,)),
    "exchangetoken": (Kind.TOKEN_EXCHANGE, "auth", ()),
    "createserviceaccountkey": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "uploadserviceaccountkey": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "enableserviceaccountkey": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "deleteserviceaccountkey": (Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE,)),
    "disableserviceaccountkey": (Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE,)),
    "createserviceaccount": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_CREATE,)),
    "deleteserviceaccount": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "disableserviceaccount": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "enableserviceaccount": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_ENABLE,)),
    "undeleteserviceaccount": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_ENABLE,)),
    "createrole": (Kind.POLICY_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "updaterole": (Kind.POLICY_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "undeleterole": (Kind.POLICY_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "deleterole": (Kind.POLICY_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    "insertprojectownershipinvite": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT, Tag.SHARE_CHANGE)),
    "creategrant": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_ACTIVATE,)),
    "accesssecretversion": (Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    "setmetadata": (Kind.CONFIG_CHANGE, "admin", (Tag.REMOTE_EXEC,)),
    "setcommoninstancemetadata": (Kind.CONFIG_CHANGE, "admin", (Tag.REMOTE_EXEC,)),
    "importsshpublickey": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD, Tag.REMOTE_EXEC)),
    "createsshpublickey": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD, Tag.REMOTE_EXEC)),
    "startsession": (Kind.OTHER, "execute", (Tag.REMOTE_EXEC,)),
    "deletelog": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    "createsink": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    "updatesink": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    "deletesink": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    "createexclusion": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    "updateexclusion": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    "deleteexclusion": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    "deletealertpolicy": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    "deletenotificationchannel": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    "setorgpolicy": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    "clearorgpolicy": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    "getiampolicy": (Kind.DISCOVERY, "discover", ()),
    "testiampermissions": (Kind.DISCOVERY, "discover", ()),
    "testablepermissions": (Kind.DISCOVERY, "discover", ()),
    "predict": (Kind.OTHER, "execute", (Tag.AI_INVOKE,)),
    "rawpredict": (Kind.OTHER, "execute", (Tag.AI_INVOKE,)),
    "streamrawpredict": (Kind.OTHER, "execute", (Tag.AI_INVOKE,)),
    "serverstreamingpredict": (Kind.OTHER, "execute", (Tag.AI_INVOKE,)),
    "generatecontent": (Kind.OTHER, "execute", (Tag.AI_INVOKE,)),
    "streamgeneratecontent": (Kind.OTHER, "execute", (Tag.AI_INVOKE,)),
    "chatcompletions": (Kind.OTHER, "execute", (Tag.AI_INVOKE,)),
    "loginsuccess": (Kind.SIGN_IN, "auth", ()),
    "loginfailure": (Kind.SIGN_IN, "auth", ()),
    "loginchallenge": (Kind.OTHER, "auth", ()),
    "suspiciouslogin": (Kind.OTHER, "auth", ()),
    "logout": (Kind.SESSION_END, "auth", ()),
    "2svenroll": (Kind.FACTOR_CHANGE, "auth", (Tag.FACTOR_ADD,)),
    "2svdisable": (Kind.FACTOR_CHANGE, "auth", (Tag.FACTOR_REMOVE, Tag.DEFENCE_WEAKEN)),
    "passwordedit": (Kind.FACTOR_CHANGE, "auth", (Tag.PASSWORD_CHANGE,)),
    "addgroupmember": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "removegroupmember": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    "assignrole": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "unassignrole": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    "grantadminprivilege": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "createuser": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_CREATE,)),
    "deleteuser": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "suspenduser": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "unsuspenduser": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_ENABLE,)),
    "changepassword": (Kind.FACTOR_CHANGE, "admin", (Tag.PASSWORD_CHANGE,)),
    "authorizeapiclientaccess": (Kind.CONSENT, "admin", (Tag.CONSENT, Tag.PRIVILEGE_GRANT)),
}


def service_of(service_name: str | None, method: str) -> str:
    """Short service name: `storage` of storage.googleapis.com; else what the method begins with."""
    host = (service_name or "").partition(".")[0]
    if host.endswith("-ssh-serialport"):
        return "ssh-serialport"
    if service_name in ("k8s.io", "cluster.k8s.io") or method.startswith("io.k8s."):
        return "k8s"
    if host:
        return host
    parts = method.split(".")
    if parts[0] == "google" and len(parts) > 2:
        return parts[2] if parts[1] in ("cloud", "devtools") else parts[1]
    return next((part for part in parts[:-1] if not re.match(r"^(v[0-9]|alpha|beta)", part)), "unknown")


def operation(service: str, method: str) -> Operation:
    """Kind, service, verb family and tags of a method; `:remove`, `:audit-config`, `:ai`, `:export` behind it tell what the record showed."""
    base, _, variant = method.partition(":")
    if service == "k8s" and base.startswith("io.k8s."):
        parts = base.split(".")
        # io.k8s.GROUP....VERSION.RESOURCE[.SUBRESOURCE].VERB
        start = next((n for n, part in enumerate(parts) if re.match(r"^v[0-9]+((alpha|beta)[0-9]+)?$", part)), 3)
        named = parts[start + 1 : -1]
        return kubernetes_operation(named[0] if named else "", named[1] if len(named) > 1 else "", parts[-1])
    last = re.split(r"[./]", base)[-1]
    lower = last.lower()
    if lower in ("setiampolicy", "setiampermissions"):
        if variant == "audit-config":
            return Kind.POLICY_CHANGE, service, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)
        if variant == "remove":
            return Kind.ROLE_CHANGE, service, "admin", (Tag.PRIVILEGE_REVOKE,)
        shared = service in _SHARED or (service == "compute" and any(word in base.lower() for word in ("image", "snapshot", "disk")))
        return Kind.ROLE_CHANGE, service, "admin", (Tag.PRIVILEGE_GRANT, Tag.SHARE_CHANGE) if shared else (Tag.PRIVILEGE_GRANT,)
    if "workloadidentitypool" in base.lower() or "workforcepool" in base.lower() or "inboundsso" in lower or "oidcprovider" in lower:
        if lower.startswith(("get", "list")):
            return Kind.DISCOVERY, service, "discover", ()
        return Kind.TRUST_CHANGE, service, "admin", (Tag.TRUST_CHANGE,)
    if lower in _METHODS and service != "ssh-serialport":
        kind, family, tags = _METHODS[lower]
        return kind, service, family, tags
    words = [word.lower() for word in _WORDS.findall(last)] or [lower]
    first = words[0] if words[0] not in ("docker", "batch", "internal") else words[1] if len(words) > 1 else words[0]
    read = _READ_WORDS.get(first)
    deletes = first in _DELETE_WORDS
    if service == "ssh-serialport" or (service == "iap" and lower == "authorizeuser" and variant == "tunnel"):
        return Kind.OTHER, service, "execute", (Tag.REMOTE_EXEC,)
    if service == "oslogin":
        return (
            (Kind.OTHER, service, "auth", ())
            if first == "check"
            else (Kind.DISCOVERY if read else Kind.CONFIG_CHANGE, service, read or "admin", ())
        )
    if service == "apikeys" and not read:
        return (
            (Kind.CREDENTIAL_DELETE, service, "admin", (Tag.CREDENTIAL_REMOVE,))
            if deletes
            else (Kind.CREDENTIAL_CREATE, service, "admin", (Tag.CREDENTIAL_ADD,) if first in ("create", "undelete") else ())
        )
    if ".hmackeys." in base.lower() and not read:
        return (
            (Kind.CREDENTIAL_DELETE, service, "admin", (Tag.CREDENTIAL_REMOVE,))
            if deletes
            else (Kind.CREDENTIAL_CREATE, service, "admin", (Tag.CREDENTIAL_ADD,))
        )
    if service == "logging" and ("ConfigService" in base) and not read:
        return Kind.POLICY_CHANGE, service, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN) if deletes else (Tag.DEFENCE_CHANGE,)
    if (
        service
        in ("orgpolicy", "accesscontextmanager", "securitycenter", "securitycentermanagement", "essentialcontacts", "binaryauthorization")
        and not read
    ):
        return Kind.POLICY_CHANGE, service, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN) if deletes else (Tag.DEFENCE_CHANGE,)
    if service == "serviceusage" and "ai" in variant:
        return Kind.CONFIG_CHANGE, service, "admin", (Tag.AI_ENABLE,)
    if service in ("aiplatform", "generativelanguage") and read and ("model" in lower or "publisher" in lower or "endpoint" in lower):
        return Kind.DISCOVERY, service, "discover", (Tag.AI_DISCOVER,)
    if variant == "export" or first == "export" or lower.startswith("bulkexport"):
        return Kind.DATA_EXPORT, service, "read", ()
    if service == "bigquery":
        if lower in ("insertjob", "query", "getqueryresults", "listtabledata", "list") and (lower != "list" or "tabledata" in base.lower()):
            return Kind.DATA_READ, service, "read", ()
        if "export" in lower or "readrows" in lower:
            return Kind.DATA_READ, service, "read", ()
    if service == "storage" and ".objects." in f".{base}":
        if first == "list":
            return Kind.DISCOVERY, service, "discover", ()
        return (Kind.DATA_READ, service, "read", ()) if read else (Kind.OTHER, service, "delete" if deletes else "write", ())
    if service in ("spanner", "datastore", "firestore", "bigtable") and first in (
        "read",
        "executesql",
        "execute",
        "streaming",
        "run",
        "batch",
        "lookup",
    ):
        return Kind.DATA_READ, service, "read", ()
    if service == "cloudfunctions" and first == "update":
        return Kind.CONFIG_CHANGE, service, "write", (Tag.REMOTE_EXEC,)
    if service == "artifactregistry" and lower.startswith("docker-"):
        return (Kind.DATA_READ, service, "read", ()) if read else (Kind.OTHER, service, "write", ())
    if (service == "logging" and first == "write") or lower == "createtimeseries" or (service == "pubsub" and first == "publish"):
        return Kind.OTHER, service, "write", ()
    if service == "logging" and "logentries" in lower and read:
        return Kind.DATA_READ, service, "read", ()
    if read == "discover":
        return Kind.DISCOVERY, service, "discover", ()
    if read:
        return Kind.OTHER, service, "read", ()
    return Kind.CONFIG_CHANGE, service, "delete" if deletes else "write", ()


class Payload(Struct, gc=False):
    kind: Any = field(name="@type", default=None)
    kind_too: Any = field(name="at_sign_type", default=None)
    status: Any = None
    auth: msgspec.Raw = field(name="authenticationInfo", default=msgspec.Raw(b""))
    authorization: Any = field(name="authorizationInfo", default=None)
    request_metadata: Any = field(name="requestMetadata", default=None)
    service_name: Any = field(name="serviceName", default=None)
    method_name: Any = field(name="methodName", default=None)
    resource_name: Any = field(name="resourceName", default=None)
    request: msgspec.Raw = msgspec.Raw(b"")
    response: msgspec.Raw = msgspec.Raw(b"")
    service_data: Any = field(name="serviceData", default=None)
    metadata: Any = None


class Entry(Struct, gc=False):
    payload: Payload | None = field(name="protoPayload", default=None)
    insert_id: Any = field(name="insertId", default=None)
    insert_id_too: Any = field(name="insertid", default=None)
    timestamp: Any = None
    received: Any = field(name="receiveTimestamp", default=None)
    received_too: Any = field(name="receivetimestamp", default=None)
    p_event_time: Any = None
    log_name: Any = field(name="logName", default=None)
    log_name_too: Any = field(name="logname", default=None)
    resource: Any = None
    operation: Any = None


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
_any = msgspec.json.Decoder()


def key_name(value: str) -> str:
    """A service account key in the form that later entries show in `serviceAccountKeyName`."""
    return value if value.startswith("//") else KEY_PREFIX + value


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
            variant = self._bindings(payload, detail, facts, targets, labels, resource)
        elif last in _ABOUT_ACCOUNTS:
            self._account(last, payload, detail, facts, targets, labels, resource)
        elif last == "exchangetoken":
            self._exchange(payload, detail, facts, resource)
        elif last in ("createrole", "updaterole"):
            delta = mapping(mapping(payload.service_data).get("permissionDelta"))
            facts["added_permissions"] = list(texts(delta.get("addedPermissions")))[:100] if delta.get("addedPermissions") else None
        elif last in ("insertjob", "query"):
            variant = self._job(payload, detail)
        elif last in ("setmetadata", "setcommoninstancemetadata"):
            facts["metadata_keys"] = _metadata_keys(payload)
        elif last in ("enableservice", "batchenableservices") and "aiplatform" in (
            str(resource) + bytes(payload.request).decode("utf-8", "replace")
        ):
            variant = "ai"
        elif last == "authorizeuser" and any(
            (text(mapping(item).get("permission")) or "").startswith("iap.tunnel") for item in items(payload.authorization)[:5]
        ):
            variant = "tunnel"  # to a machine; web applications behind the proxy ask for every request
        elif last == "insertprojectownershipinvite":
            member = text(_object(payload.request).get("member"))
            if member:
                facts["roles"], facts["members"] = ["roles/owner"], [member]
                if resource:
                    targets.append(Target(resource, "resource"))
                targets.append(Target(_bare(member), "member", unique((member,), _bare(member))))
        elif last in ("updatesink", "createsink"):
            facts["destination"] = text(_object(payload.request, "sink").get("destination"))
        action = self._action(text(payload.service_name), method, variant)
        if action.service == "admin" or action.service == "login":
            self._workspace(payload, facts, targets)
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
        info = mapping(decode(_any, data)) if data else {}
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
            key_name(key) if key else None,
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

    @staticmethod
    def _bindings(
        payload: Payload, detail: Detail, facts: dict[str, Any], targets: list[Target], labels: dict[str, Any], resource: str | None
    ) -> str:
        """What a policy change gave or took, and to whom. Returns the variant of the action."""
        delta = mapping(mapping(payload.service_data).get("policyDelta")) or mapping(mapping(payload.metadata).get("policyDelta"))
        found: list[tuple[str, str, str]] = []
        for item in items(delta.get("bindingDeltas"))[:200]:
            one = mapping(item)
            role, member = text(one.get("role")), text(one.get("member"))
            if role and member:
                found.append((text(one.get("action")) or "ADD", role, member))
        if not delta:
            for item in items(_object(payload.request, "policy").get("bindings"))[:100]:
                one = mapping(item)
                found.extend(("ADD", text(one.get("role")) or "role", member) for member in texts(one.get("members"))[:100])
        account = mail(labels.get("email_id"))
        if account:
            targets.append(Target(account, "service_account", unique((text(labels.get("unique_id")), resource))))
        elif resource:
            targets.append(Target(resource, "resource"))
        detail.changes = tuple(
            Change(role, member if act == "REMOVE" else None, None if act == "REMOVE" else member) for act, role, member in found
        )
        members = list(dict.fromkeys(member for act, _, member in found if act != "REMOVE"))
        targets.extend(Target(_bare(member), "member", unique((member,), _bare(member))) for member in members[:50])
        facts["bindings"] = [list(item) for item in found]
        facts["roles"] = sorted({role for act, role, _ in found if act != "REMOVE"})
        facts["members"] = members
        facts["public"] = True if any(member in ("allUsers", "allAuthenticatedUsers") for member in members) else None
        if delta.get("auditConfigDeltas"):
            return "audit-config"
        return "remove" if found and not members else ""

    @staticmethod
    def _account(
        last: str,
        payload: Payload,
        detail: Detail,
        facts: dict[str, Any],
        targets: list[Target],
        labels: dict[str, Any],
        resource: str | None,
    ) -> None:
        """The service account that a call is about, and the key that it made or removed."""
        request, response = _object(payload.request), _object(payload.response)
        answered = text(response.get("name"))
        named = [name for name in (answered, text(request.get("name")), resource) if name]
        ids = [mail(part) for name in named if (part := _after(name, "serviceAccounts/"))]
        email = mail(response.get("email")) or mail(labels.get("email_id")) or next((one for one in ids if one and "@" in one), None)
        number_id = (
            text(labels.get("unique_id"))
            or text(response.get("unique_id"))
            or next((one for one in ids if one and "@" not in one and one != "-"), None)
        )
        subject = email or number_id
        if subject:
            targets.append(Target(subject, "service_account", unique((number_id,), subject)))
        keys = [name for name in named if "/keys/" in name]
        # the form with the account's address is the one that uses show, so it goes before a number or a wildcard project
        keys.sort(key=lambda name: ("projects/-/" in name, "@" not in name))
        if last in ("createserviceaccountkey", "uploadserviceaccountkey") and answered and "/keys/" in answered:
            detail.issued = (key_name(answered),)
            detail.issued_class = "api_key"
        elif keys:
            targets.append(Target(key_name(keys[0]), "credential", unique((keys[0].rpartition("/")[2],))))
        if last == "generateaccesstoken":
            detail.issued_class = "access_token"
            detail.grant = "impersonation"
            detail.scopes = texts(request.get("scope"))
            lifetime = text(request.get("lifetime"))
            detail.issued_ttl_s = number(lifetime.rstrip("s")) if lifetime else None
        elif last == "generateidtoken":
            detail.issued_class = "id_token"
            detail.grant = "impersonation"
            detail.audience = texts(request.get("audience"))
        elif last in ("signjwt", "signblob"):
            detail.issued_class = "assertion"
            detail.grant = "jwt_bearer"
        delegates = [mail(_after(name, "serviceAccounts/") or name) for name in texts(request.get("delegates"))]
        facts["delegates"] = [one for one in delegates if one]

    @staticmethod
    def _exchange(payload: Payload, detail: Detail, facts: dict[str, Any], resource: str | None) -> None:
        request, metadata = _object(payload.request), mapping(payload.metadata)
        detail.grant = "token_exchange"
        detail.issued_class = "access_token"
        detail.credential_type = "federated"
        detail.subject = text(metadata.get("mapped_principal")) or text(metadata.get("mappedPrincipal")) or detail.subject
        detail.audience = texts(request.get("audience"))
        claims = mapping(metadata.get("claims")) or mapping(metadata.get("attributes"))
        detail.issuer = text(claims.get("iss")) or text(metadata.get("issuer"))
        facts["provider"] = resource or (detail.audience[0] if detail.audience else None)
        facts["subject_token_type"] = text(request.get("subjectTokenType")) or text(request.get("subject_token_type"))

    @staticmethod
    def _job(payload: Payload, detail: Detail) -> str:
        metadata = mapping(payload.metadata)
        job = mapping(mapping(metadata.get("jobChange") or metadata.get("jobInsertion")).get("job"))
        config = mapping(job.get("jobConfig"))
        query = mapping(mapping(job.get("jobStats")).get("queryStats"))
        detail.objects = number(query.get("outputRowCount"))
        return "export" if config.get("type") == "EXPORT" or mapping(config.get("extractConfig")) else ""

    @staticmethod
    def _workspace(payload: Payload, facts: dict[str, Any], targets: list[Target]) -> None:
        """Parameters of a Workspace activity: whom an administrator acted on, in which group."""
        for event in items(mapping(payload.metadata).get("event"))[:5]:
            values = {
                str(mapping(item).get("name")): text(mapping(item).get("value"))
                for item in items(mapping(event).get("parameter"))[:40]
                if isinstance(item, dict)
            }
            user = mail(values.get("USER_EMAIL"))
            if user:
                targets.append(Target(user, "user"))
            group = mail(values.get("GROUP_EMAIL"))
            if group:
                targets.append(Target(group, "group"))
            facts["event"] = text(mapping(event).get("eventName"))
            facts["role"] = values.get("ROLE_NAME")
            facts["login_type"] = values.get("login_type")


_ABOUT_ACCOUNTS: Final = frozenset(
    [
        "generateaccesstoken",
        "generateidtoken",
        "signjwt",
        "signblob",
        "createserviceaccountkey",
        "uploadserviceaccountkey",
        "deleteserviceaccountkey",
    ]
    + [
        "disableserviceaccountkey",
        "enableserviceaccountkey",
        "createserviceaccount",
        "deleteserviceaccount",
        "disableserviceaccount",
        "enableserviceaccount",
    ]
    + ["undeleteserviceaccount"]
)


def _object(raw: msgspec.Raw, key: str | None = None) -> dict[str, Any]:
    data = bytes(raw)
    if not data:
        return {}
    value = mapping(decode(_any, data))
    return mapping(value.get(key)) if key else value


def _metadata_keys(payload: Payload) -> list[str] | None:
    """Names of the instance metadata that changed: `ssh-keys` and `startup-script` are ways onto a machine."""
    metadata = mapping(payload.metadata)
    found: list[str] = []
    for part in ("instanceMetadataDelta", "projectMetadataDelta"):
        delta = mapping(metadata.get(part))
        for kind in ("addedMetadataKeys", "modifiedMetadataKeys", "deletedMetadataKeys"):
            found.extend(texts(delta.get(kind)) if delta.get(kind) else ())
    if not found:
        request = _object(payload.request)
        entries = items(request.get("Metadata Keys Added")) + items(request.get("Metadata Keys Modified"))
        found.extend(name for name in texts(entries) if name)
    return found[:50] or None


def _after(name: str, marker: str) -> str | None:
    _, found, rest = name.partition(marker)
    return rest.partition("/")[0] if found else None


def _bare(member: str) -> str:
    """The principal of a policy member: `user:a@b` is a@b."""
    kind, _, name = member.partition(":")
    return name.lower() if kind in ("user", "serviceAccount", "group", "domain") and name else member


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
