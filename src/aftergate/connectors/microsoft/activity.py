"""Azure activity log, with the Key Vault and storage resource logs that travel beside it.

The same facts come as an Azure Monitor envelope, as the REST API writes them (`operationName.value`, `eventTimestamp`), in snake case
by tools, and as Log Analytics columns. Keys are therefore read without case and underscores. Volume is small; speed is not the point.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from aftergate.connectors.microsoft.common import UNREADABLE, address, later, loose, mapping, moment, number, short, text
from aftergate.errors import NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.vocabulary import Actor, Change, Detail, Event, Kind, Tag, Target

SLUG: Final = "azure.activity"

Spec = tuple[Kind, str, tuple[Tag, ...]]

# Operations, lower case: (end of the name, kind, verb family, tags); the first that fits counts.
OPERATIONS: Final[tuple[tuple[str, Kind, str, tuple[Tag, ...]], ...]] = (
    ("microsoft.authorization/elevateaccess/action", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    ("/roleassignments/write", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    ("/roleassignments/delete", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    ("/roledefinitions/write", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    ("/roleassignmentschedulerequests/write", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_ACTIVATE,)),
    ("/roleeligibilityschedulerequests/write", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    ("/rolebindings/write", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    ("/clusterrolebindings/write", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    ("/roles/write", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    ("/clusterroles/write", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    ("/vaults/accesspolicies/write", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    ("/federatedidentitycredentials/write", Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE, Tag.CREDENTIAL_ADD)),
    ("/federatedidentitycredentials/delete", Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE,)),
    ("/userassignedidentities/assign/action", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    ("/userassignedidentities/write", Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_CREATE,)),
    ("/userassignedidentities/delete", Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    ("/diagnosticsettings/delete", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    ("/diagnosticsettings/write", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    ("microsoft.insights/logprofiles/delete", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    ("microsoft.insights/activitylogalerts/delete", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    ("microsoft.operationalinsights/workspaces/delete", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    ("microsoft.network/networkwatchers/delete", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    ("/flowlogs/delete", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    ("microsoft.network/firewallpolicies/delete", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    ("microsoft.network/firewallpolicies/write", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    ("microsoft.network/azurefirewalls/delete", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    ("/networksecuritygroups/delete", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    ("/networksecuritygroups/write", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    ("/securityrules/delete", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    ("/securityrules/write", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    ("microsoft.authorization/policyassignments/delete", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    ("microsoft.authorization/policyassignments/write", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    ("microsoft.authorization/policyexemptions/write", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    ("microsoft.authorization/locks/delete", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    ("microsoft.security/pricings/write", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    ("microsoft.security/alertssuppressionrules/write", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    ("microsoft.securityinsights/alertrules/delete", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    ("microsoft.eventhub/namespaces/eventhubs/delete", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    ("microsoft.eventhub/namespaces/delete", Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    ("/runcommand/action", Kind.OTHER, "execute", (Tag.REMOTE_EXEC,)),
    ("/runcommands/write", Kind.OTHER, "execute", (Tag.REMOTE_EXEC,)),
    ("/virtualmachines/extensions/write", Kind.OTHER, "execute", (Tag.REMOTE_EXEC,)),
    ("/virtualmachinescalesets/extensions/write", Kind.OTHER, "execute", (Tag.REMOTE_EXEC,)),
    ("/galleries/applications/versions/write", Kind.OTHER, "execute", (Tag.REMOTE_EXEC,)),
    ("/serialports/connect/action", Kind.OTHER, "execute", (Tag.REMOTE_EXEC,)),
    ("/runbooks/publish/action", Kind.OTHER, "execute", (Tag.REMOTE_EXEC,)),
    ("/runbooks/draft/write", Kind.OTHER, "execute", (Tag.REMOTE_EXEC,)),
    ("/runbooks/write", Kind.OTHER, "execute", (Tag.REMOTE_EXEC,)),
    ("/automationaccounts/jobs/write", Kind.OTHER, "execute", (Tag.REMOTE_EXEC,)),
    ("/automationaccounts/webhooks/write", Kind.CREDENTIAL_CREATE, "execute", (Tag.REMOTE_EXEC, Tag.CREDENTIAL_ADD)),
    ("/automationaccounts/webhooks/action", Kind.CREDENTIAL_CREATE, "execute", (Tag.REMOTE_EXEC,)),
    ("/containerapps/exec/action", Kind.OTHER, "execute", (Tag.REMOTE_EXEC,)),
    ("/functions/write", Kind.OTHER, "execute", (Tag.REMOTE_EXEC,)),
    ("/host/listkeys/action", Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    ("/listclusteradmincredential/action", Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    ("/listclusterusercredential/action", Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    ("/publishxml/action", Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    ("/regeneratekey/action", Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD, Tag.CREDENTIAL_REMOVE)),
    ("/secrets/getsecret/action", Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    ("/secrets/read", Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    ("/secrets/write", Kind.CONFIG_CHANGE, "write", ()),
    ("/vaults/keys/read/action", Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    ("/vaults/certificates/read", Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    ("/begingetaccess/action", Kind.DATA_EXPORT, "read", (Tag.SHARE_CHANGE,)),
    ("/snapshots/write", Kind.DATA_EXPORT, "write", ()),
    ("/galleries/share/action", Kind.CONFIG_CHANGE, "admin", (Tag.SHARE_CHANGE,)),
    ("/storageaccounts/write", Kind.CONFIG_CHANGE, "write", ()),
    ("/storageaccounts/write [opened]", Kind.CONFIG_CHANGE, "write", (Tag.SHARE_CHANGE,)),
    ("/blobservices/write", Kind.CONFIG_CHANGE, "write", ()),
    ("/blobservices/write [weakened]", Kind.CONFIG_CHANGE, "write", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    ("/containers/write [opened]", Kind.CONFIG_CHANGE, "write", (Tag.SHARE_CHANGE,)),
    ("microsoft.cognitiveservices/accounts/deployments/write", Kind.CONFIG_CHANGE, "write", (Tag.AI_ENABLE,)),
    ("microsoft.cognitiveservices/accounts/write", Kind.CONFIG_CHANGE, "write", (Tag.AI_ENABLE,)),
    ("microsoft.cognitiveservices/accounts/models/read", Kind.DISCOVERY, "discover", (Tag.AI_DISCOVER,)),
    # Resource logs
    ("secretget", Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    ("secretlist", Kind.DISCOVERY, "discover", ()),
    ("secretlistversions", Kind.DISCOVERY, "discover", ()),
    ("secretbackup", Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    ("secretset", Kind.CONFIG_CHANGE, "write", ()),
    ("secretdelete", Kind.OTHER, "delete", ()),
    ("keyget", Kind.DATA_READ, "read", ()),
    ("keybackup", Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    ("keydecrypt", Kind.DATA_READ, "execute", ()),
    ("keyunwrap", Kind.DATA_READ, "execute", ()),
    ("keysign", Kind.OTHER, "execute", ()),
    ("keylist", Kind.DISCOVERY, "discover", ()),
    ("certificateget", Kind.DATA_READ, "read", ()),
    ("certificatelist", Kind.DISCOVERY, "discover", ()),
    ("vaultget", Kind.DISCOVERY, "discover", ()),
    ("vaultaccesspolicychangedeventgridnotification", Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    ("authentication", Kind.OTHER, "auth", ()),
    ("getblob", Kind.DATA_READ, "read", ()),
    ("getfile", Kind.DATA_READ, "read", ()),
    ("listblobs", Kind.DISCOVERY, "discover", ()),
    ("listcontainers", Kind.DISCOVERY, "discover", ()),
    ("getuserdelegationkey", Kind.CREDENTIAL_CREATE, "auth", (Tag.CREDENTIAL_ADD,)),
    ("setcontaineracl", Kind.CONFIG_CHANGE, "admin", (Tag.SHARE_CHANGE,)),
)

_CLAIM: Final = {
    "oid": ("http://schemas.microsoft.com/identity/claims/objectidentifier", "oid"),
    "upn": (
        "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn",
        "upn",
        "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name",
        "unique_name",
    ),
    "tenant": ("http://schemas.microsoft.com/identity/claims/tenantid", "tid"),
    "app": ("appid", "azp"),
    "scope": ("http://schemas.microsoft.com/identity/claims/scope", "scp"),
}
_AUTH_METHODS: Final = {"0": "none", "1": "secret", "2": "certificate"}


class Activity:
    """Normaliser of Azure activity."""

    def __init__(self, interner: Interner) -> None:
        self._interner = interner
        self._decode = msgspec.json.Decoder(dict[str, Any]).decode

    def parse(self, line: bytes) -> Event:
        """The event of one record. Raises: NotMine, Reject, msgspec.DecodeError, msgspec.ValidationError."""
        try:
            return self._read(line)
        except UNREADABLE as error:
            raise Reject(f"unreadable record: {error}") from None

    def _read(self, line: bytes) -> Event:
        raw = self._decode(line)
        record = _canonical(raw)
        operation = _value(record.get("operationnamevalue")) or _value(record.get("operationname"))
        if not operation or not _azure(record, operation):
            raise NotMine("no operation of an Azure resource")
        stamp = text(record.get("eventtimestamp")) or text(record.get("time")) or text(record.get("timegenerated"))
        time = moment(stamp)
        properties = _canonical(mapping(loose(record.get("properties"))))
        identity = _canonical(mapping(loose(record.get("identity"))))
        claims = mapping(loose(record.get("claims"))) or mapping(loose(identity.get("claims"))) or mapping(loose(identity.get("claim")))
        authorization = mapping(loose(record.get("authorization"))) or mapping(loose(identity.get("authorization")))
        request = _canonical(mapping(loose(record.get("httprequest"))))
        tenant = text(record.get("tenantid")) or _claim(claims, "tenant")
        result = _result(record, properties)
        event_id = (
            text(record.get("eventdataid")) or text(properties.get("eventdataid")) or _composite(record, operation, result, stamp or "")
        )
        body = mapping(loose(properties.get("requestbody")))
        name = _cased(operation)
        if _opens(operation.lower(), body):
            name += " [opened]"
        elif _weakens(operation.lower(), body):
            name += " [weakened]"
        action = self._interner.action(SLUG, name, _spec)
        requester = mapping(identity.get("requester"))
        actor = self._actor(record, claims, identity, requester, tenant)
        agent = text(properties.get("useragentheader")) or text(properties.get("clientinfo")) or text(record.get("useragentheader")) or ""
        ip = (
            text(record.get("calleripaddress"))
            or text(request.get("clientipaddress"))
            or text(claims.get("ipaddr"))
            or text(properties.get("calleripaddress"))
        )
        shape = self._interner.shape(
            SLUG,
            action,
            actor,
            self._interner.origin(address(ip)),
            self._interner.agent(agent),
            result if _failed(result) else None,
            _claim(claims, "app") or text(requester.get("appId")),
            None,
            text(claims.get("aud")),
            None,
            None,
            text(record.get("subscriptionid")) or _subscription(record) or tenant,
        )
        resource = (text(record.get("resourceid")) or text(authorization.get("scope")) or text(properties.get("entity")) or "").lower()
        targets = _targets(resource, body, properties)
        issued_at, expires_at = number(claims.get("iat")), number(claims.get("exp"))
        token_hash = text(identity.get("tokenhash"))
        size = number(properties.get("responsebodysize")) or number(record.get("responsebodysize")) or 0
        scope = _claim(claims, "scope")
        detail = Detail(
            correlation=text(record.get("correlationid")),
            token_issued_at=issued_at * 1000 if issued_at and 0 < issued_at < 10**11 else None,
            token_expires_at=expires_at * 1000 if expires_at and 0 < expires_at < 10**11 else None,
            credential_type=_AUTH_METHODS.get(str(claims.get("appidacr"))),
            scopes=tuple(scope.split()) if scope else (),
            targets=targets,
            changes=_changes(body),
            params=_params(body, authorization, identity),
            phase={"start": "start", "started": "start", "accept": "start", "accepted": "start"}.get((result or "").lower()),
            status=short(result) if result else None,
        )
        return Event(
            time,
            event_id,
            shape,
            text(claims.get("uti")) or (token_hash.split(",")[0] if token_hash else None),
            text(claims.get("sid")),
            targets[0].id if targets else None,
            max(size, 0),
            later(text(record.get("submissiontimestamp")) or text(record.get("ingestiontime")), time),
            0,
            detail,
        )

    def _actor(
        self, record: dict[str, Any], claims: dict[str, Any], identity: dict[str, Any], requester: dict[str, Any], tenant: str | None
    ) -> Actor:
        caller = text(record.get("caller")) or text(requester.get("upn")) or text(requester.get("objectId"))
        object_id = _claim(claims, "oid") or text(requester.get("objectId"))
        app = _claim(claims, "app") or text(requester.get("appId"))
        upn = _claim(claims, "upn") or (caller if caller and "@" in caller else None) or text(claims.get("name"))
        if upn is not None and "@" not in upn:
            upn = None
        actor_id = object_id or (upn or "").lower() or caller or app
        if actor_id is None or actor_id == "":
            kind = text(identity.get("type"))
            return self._interner.actor(f"azure:{kind}" if kind else "unknown", (), "unknown", tenant)
        others = [upn.lower(), (caller or "").lower()] if upn is not None else [caller, app]
        names = tuple(dict.fromkeys(name for name in others if name and name != actor_id))
        display = None if upn else text(claims.get("app_displayname"))
        return self._interner.actor(actor_id, names, "human" if upn else "workload", tenant, display)


def _canonical(record: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "").lower(): value for key, value in record.items()}


def _value(field: Any) -> str | None:
    """A field that is text, or an object with `value`."""
    if isinstance(field, dict):
        return text(field.get("value"))
    return text(field)


def _claim(claims: dict[str, Any], name: str) -> str | None:
    for key in _CLAIM[name]:
        found = text(claims.get(key))
        if found:
            return found
    return None


def _azure(record: dict[str, Any], operation: str) -> bool:
    """Whether a record with this operation is of Azure resources, not of the directory or Graph."""
    if "/" in operation:
        return operation.lower().startswith("microsoft.") or any(key in record for key in ("authorization", "caller", "resourceid"))
    category = (_value(record.get("category")) or "").lower()
    if category.startswith("storage") or category in ("auditevent", "azurepolicyevaluationdetails"):
        return True
    resource = (text(record.get("resourceid")) or "").lower()
    return "/providers/microsoft.storage/" in resource or "/providers/microsoft.keyvault/" in resource


def _result(record: dict[str, Any], properties: dict[str, Any]) -> str | None:
    for field in ("activitystatusvalue", "status", "resulttype", "activitystatus"):
        found = _value(record.get(field))
        if found:
            detail = _value(record.get("substatus")) or _value(record.get("activitysubstatusvalue"))
            return f"{found}: {detail}" if detail and _failed(found) else found
    code = number(record.get("statuscode")) or number(properties.get("httpstatuscode")) or number(properties.get("statuscode"))
    if code is not None and code >= 400:
        return str(code)
    return text(properties.get("metricresponsetype")) or text(record.get("resultsignature"))


def _failed(result: str | None) -> bool:
    low = (result or "").lower()
    if low.isdigit():
        return int(low) >= 400
    return low.startswith(
        ("fail", "forbidden", "unauthorized", "authoriz", "authentic", "denied", "error", "client", "sas", "conflict")
    ) or ("error" in low)


def _composite(record: dict[str, Any], operation: str, result: str | None, stamp: str) -> str:
    """An id for exports without `eventDataId`: one correlation id covers the start, the end and every part of a deployment.

    Raises: Reject, if there is not even that.
    """
    correlation = text(record.get("correlationid")) or text(mapping(record.get("properties")).get("clientRequestId"))
    if correlation is None:
        resource = text(record.get("resourceid")) or text(mapping(record.get("properties")).get("objectKey"))
        if resource is None:
            raise Reject("an activity record without `eventDataId` and `correlationId`")
        correlation = resource
    return f"{correlation}/{operation.lower()}/{(result or '').lower()}/{stamp}"


def _subscription(record: dict[str, Any]) -> str | None:
    parts = (text(record.get("resourceid")) or "").split("/")
    return parts[2].lower() if len(parts) > 2 and parts[1].lower() == "subscriptions" else None


def _cased(operation: str) -> str:
    """One spelling for an operation, since exports differ in case: lower, resource logs as they are."""
    return operation.lower() if "/" in operation else operation[:1].upper() + operation[1:]


def _spec(name: str) -> tuple[Kind, str, str, tuple[Tag, ...]]:
    key = name.lower()
    provider, slash, _ = key.partition("/")
    service = "azure-" + (
        provider.removeprefix("microsoft.") if slash else "storage" if "blob" in key or "container" in key else "keyvault"
    )
    for end, kind, verb, tags in OPERATIONS:
        if key == end or (end[0] == "/" and key.endswith(end)):
            return kind, service, verb, tags
    last = key.rsplit("/", 1)[-1]
    if "/list" in key and any(word in key for word in ("key", "secret", "credential", "connectionstring", "sas", "token")):
        return Kind.SECRET_READ, service, "read", (Tag.SECRET_READ,)
    if last == "read" or last.startswith(("get", "list")):
        return (Kind.DATA_READ, service, "read", ()) if not slash else (Kind.DISCOVERY, service, "discover", ())
    if last == "delete" or last.startswith("delete"):
        return Kind.OTHER, service, "delete", ()
    if last == "write" or last.startswith(("put", "set", "create")):
        return Kind.OTHER, service, "write", ()
    return Kind.OTHER, service, "execute" if last == "action" else "write", ()


def _opens(operation: str, body: dict[str, Any]) -> bool:
    """True for a write that opens storage to the world."""
    properties = mapping(body.get("properties"))
    if operation.endswith("/storageaccounts/write"):
        return properties.get("allowBlobPublicAccess") is True or mapping(properties.get("networkAcls")).get("defaultAction") == "Allow"
    if operation.endswith("/containers/write"):
        return str(properties.get("publicAccess") or "None").lower() not in ("none", "")
    return False


def _weakens(operation: str, body: dict[str, Any]) -> bool:
    """True for a write that ends versions or undeletion of stored data."""
    properties = mapping(body.get("properties"))
    if operation.endswith("/blobservices/write"):
        kept = [mapping(properties.get(name)).get("enabled") for name in ("deleteRetentionPolicy", "containerDeleteRetentionPolicy")]
        return properties.get("isVersioningEnabled") is False or False in kept
    return False


def _targets(resource: str, body: dict[str, Any], properties: dict[str, Any]) -> tuple[Target, ...]:
    targets = []
    assigned = mapping(body.get("Properties")) or mapping(body.get("properties"))
    principal = text(assigned.get("PrincipalId")) or text(assigned.get("principalId"))
    if principal:
        targets.append(Target(principal, text(assigned.get("PrincipalType")) or text(assigned.get("principalType")) or "Principal"))
    # Of a web address only the path: shared access signatures stand in the query.
    uri = text(properties.get("requesturi"))
    item = text(properties.get("objectkey")) or text(properties.get("id")) or (_path(uri) if uri else None)
    if item:
        targets.append(Target(item.partition("?")[0], "object"))
    if resource:
        parts = resource.split("/providers/")
        kind = "/".join(parts[-1].split("/")[:2]) if len(parts) > 1 else "scope"
        targets.append(Target(resource, kind, (resource.rsplit("/", 1)[-1],)))
    return tuple(targets)


def _path(uri: str) -> str | None:
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None
    return f"{parts.netloc}{parts.path}" or None


_PUBLIC: Final = (
    "allowBlobPublicAccess",
    "allowSharedKeyAccess",
    "publicNetworkAccess",
    "publicAccess",
    "minimumTlsVersion",
    "enablePurgeProtection",
)


def _changes(body: dict[str, Any]) -> tuple[Change, ...]:
    properties = mapping(body.get("properties"))
    return tuple(Change(name, None, short(properties[name])) for name in _PUBLIC if properties.get(name) is not None)


def _params(body: dict[str, Any], authorization: dict[str, Any], identity: dict[str, Any]) -> dict[str, Any] | None:
    params: dict[str, Any] = {}
    assigned = mapping(body.get("Properties")) or mapping(body.get("properties"))
    role = text(assigned.get("RoleDefinitionId")) or text(assigned.get("roleDefinitionId"))
    if role:
        params["role"] = role.rsplit("/", 1)[-1].lower()
        scope = text(assigned.get("Scope")) or text(assigned.get("scope"))
        if scope:
            params["scope"] = scope
    evidence = mapping(authorization.get("evidence"))
    if text(evidence.get("role")):
        params["caller_role"] = evidence["role"]  # the role by which the caller was allowed
    if text(identity.get("type")):
        params["authentication"] = identity["type"]
    return params or None


def recognise(record: dict[str, Any]) -> bool:
    """True for a record of Azure activity or of the resource logs beside it."""
    canonical = _canonical(record)
    operation = _value(canonical.get("operationnamevalue")) or _value(canonical.get("operationname"))
    return operation is not None and _azure(canonical, operation)
