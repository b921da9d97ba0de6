"""Microsoft Graph activity: envelope and Log Analytics columns.

Addresses become templates (`GET /users/{id}/messages`), so that one action is one kind of call, whoever's mail it reads.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from aftergate.connectors.microsoft.common import CACHE_MAX, UNREADABLE, address, later, moment, number, tenant_of
from aftergate.errors import NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.vocabulary import Detail, Event, Kind, Shape, Tag
from aftergate.vocabulary.patterns import regex

SLUG: Final = "graph.activity"

Spec = tuple[Kind, str, str, tuple[Tag, ...]]

# Collections whose next segment is a key, whatever it looks like.
_KEYED: Final = frozenset(
    """
    users groups applications servicePrincipals devices directoryRoles directoryObjects messages events attachments chats
    teams channels sites lists items drives domains contacts members owners appRoleAssignments oauth2PermissionGrants
    roleAssignments roleDefinitions namedLocations managedDevices messageRules permissions childFolders calendars
    contactFolders plans tasks notebooks pages sections subscriptions federatedIdentityCredentials
    roleAssignmentScheduleRequests roleEligibilityScheduleRequests registeredOwners phoneMethods fido2Methods
    passwordMethods temporaryAccessPassMethods microsoftAuthenticatorMethods softwareOathMethods emailMethods
    windowsHelloForBusinessMethods invitations replies tabs installedApps schemaExtensions cases
    """.split()
)
# Segments that follow a collection and are no key.
_WORDS: Final = frozenset(
    """
    delta $count $ref $value getByIds getAvailableExtensionProperties validateProperties getUserOwnedObjects inbox drafts
    sentitems deleteditems archive junkemail outbox root general allMessages getAllMessages getPresencesByUserId
    """.split()
)
_MAIL_FOLDERS: Final = frozenset(
    ["inbox", "drafts", "sentitems", "deleteditems", "archive", "junkemail", "outbox", "msgfolderroot", "delta"]
)
_GUID: Final = regex(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_OPAQUE: Final = regex(r"(?=.*\d.*\d)[A-Za-z0-9_=+!%.,~-]{16,}|[A-Za-z0-9_=+!-]{44,}|\d+|b![\w-]+")
_VERSION: Final = frozenset({"v1.0", "beta", "testprodv1.0", "testprodbeta"})

# Directory listings, that tell who and what there is; anything else that is read is content.
_DIRECTORY: Final = frozenset(
    """
    users groups applications servicePrincipals directoryRoles directoryObjects directory devices domains organization
    contracts policies roleManagement identity identityGovernance identityProtection identityProviders
    administrativeUnits subscribedSkus auditLogs oauth2PermissionGrants directoryRoleTemplates groupSettings
    deviceManagement tenantRelationships informationProtection security contacts places sites teams permissionGrants
    admin reports
    """.split()
)
_CONTENT: Final = frozenset(
    """
    messages mailFolders mailboxSettings drive drives chats channels calendar calendars calendarView events contacts
    onenote todo planner attachments photo presence onlineMeetings insights people items lists content transcripts
    recordings outlook
    """.split()
)
_ASKING: Final = frozenset(
    """
    getByIds getMemberGroups getMemberObjects checkMemberGroups checkMemberObjects query getPresencesByUserId getSchedule
    findMeetingTimes validateProperties isMemberOf getAvailableExtensionProperties evaluate
    """.split()
)

# (methods, pattern of the template's path, kind, tags); the first that fits counts.
_RULES: Final[list[tuple[str, re.Pattern[str], Kind, tuple[Tag, ...]]]] = [
    (methods, regex(pattern, re.IGNORECASE), kind, tags)
    for methods, pattern, kind, tags in [
        ("POST PATCH PUT DELETE", r"/messageRules(/|$)", Kind.CONFIG_CHANGE, (Tag.MAIL_RULE,)),
        ("PATCH", r"/mailboxSettings$", Kind.CONFIG_CHANGE, (Tag.MAIL_RULE,)),
        ("POST", r"/inferenceClassification/overrides$", Kind.CONFIG_CHANGE, (Tag.MAIL_RULE,)),
        ("POST", r"/(addPassword|addKey|addTokenSigningCertificate)$", Kind.CREDENTIAL_CREATE, (Tag.CREDENTIAL_ADD,)),
        ("POST", r"/(removePassword|removeKey)$", Kind.CREDENTIAL_DELETE, (Tag.CREDENTIAL_REMOVE,)),
        (
            "POST PUT PATCH",
            r"/federatedIdentityCredentials(\(|/|$)",
            Kind.TRUST_CHANGE,
            (Tag.TRUST_CHANGE, Tag.CREDENTIAL_ADD),
        ),
        ("DELETE", r"/federatedIdentityCredentials/", Kind.CREDENTIAL_DELETE, (Tag.CREDENTIAL_REMOVE,)),
        ("POST PUT", r"^/(applications|servicePrincipals|groups)[^?]*/owners(/|$)", Kind.ROLE_CHANGE, (Tag.OWNER_ADD,)),
        ("DELETE", r"^/(applications|servicePrincipals|groups)[^?]*/owners/", Kind.ROLE_CHANGE, (Tag.OWNER_REMOVE,)),
        ("POST", r"^/directoryRoles/.*members(/|$)", Kind.ROLE_CHANGE, (Tag.PRIVILEGE_GRANT,)),
        ("DELETE", r"^/directoryRoles/.*members/", Kind.ROLE_CHANGE, (Tag.PRIVILEGE_REVOKE,)),
        ("POST", r"^/roleManagement/.*/(roleAssignments|roleEligibilityScheduleRequests)$", Kind.ROLE_CHANGE, (Tag.PRIVILEGE_GRANT,)),
        ("POST", r"^/roleManagement/.*/roleAssignmentScheduleRequests$", Kind.ROLE_CHANGE, (Tag.PRIVILEGE_ACTIVATE,)),
        ("DELETE", r"^/roleManagement/.*/roleAssignments/", Kind.ROLE_CHANGE, (Tag.PRIVILEGE_REVOKE,)),
        ("POST PATCH PUT", r"^/roleManagement/.*/roleDefinitions", Kind.ROLE_CHANGE, (Tag.PRIVILEGE_GRANT,)),
        ("PATCH", r"^/policies/roleManagementPolicies", Kind.POLICY_CHANGE, (Tag.DEFENCE_CHANGE,)),
        ("POST", r"^/servicePrincipals/.*/(appRoleAssignments|appRoleAssignedTo)$", Kind.CONSENT, (Tag.CONSENT, Tag.PRIVILEGE_GRANT)),
        ("POST PATCH", r"^/oauth2PermissionGrants", Kind.CONSENT, (Tag.CONSENT,)),
        ("POST PUT PATCH DELETE", r"conditionalAccess/(policies|namedLocations|authenticationStrength)", Kind.POLICY_CHANGE, ()),
        ("POST PUT PATCH DELETE", r"^/policies/", Kind.POLICY_CHANGE, ()),
        ("POST", r"/(revokeSignInSessions|invalidateAllRefreshTokens)$", Kind.TOKEN_REVOKE, (Tag.REVOKE,)),
        ("POST", r"/authentication/temporaryAccessPassMethods", Kind.FACTOR_CHANGE, (Tag.FACTOR_ADD,)),
        ("POST", r"/(changePassword|resetPassword)$", Kind.FACTOR_CHANGE, (Tag.PASSWORD_CHANGE,)),
        ("POST PUT PATCH", r"/authentication/", Kind.FACTOR_CHANGE, (Tag.FACTOR_ADD,)),
        ("DELETE", r"/authentication/", Kind.FACTOR_CHANGE, (Tag.FACTOR_REMOVE,)),
        ("POST PATCH PUT", r"^/domains/.*federationConfiguration", Kind.TRUST_CHANGE, (Tag.TRUST_CHANGE,)),
        ("POST PATCH PUT DELETE", r"^/identity/identityProviders", Kind.TRUST_CHANGE, (Tag.TRUST_CHANGE,)),
        ("POST", r"^/domains", Kind.TRUST_CHANGE, (Tag.TRUST_CHANGE,)),
        ("POST", r"/(invite|createLink)$", Kind.CONFIG_CHANGE, (Tag.SHARE_CHANGE,)),
        ("POST PATCH", r"/permissions(/|$)", Kind.CONFIG_CHANGE, (Tag.SHARE_CHANGE,)),
        ("POST", r"^/invitations$", Kind.IDENTITY_LIFECYCLE, (Tag.IDENTITY_CREATE,)),
        ("POST", r"^/users$", Kind.IDENTITY_LIFECYCLE, (Tag.IDENTITY_CREATE,)),
        ("DELETE", r"^/users/\{id\}$", Kind.IDENTITY_LIFECYCLE, (Tag.IDENTITY_DISABLE,)),
        ("POST", r"^/(applications|servicePrincipals|applicationTemplates/.*instantiate)$", Kind.IDENTITY_LIFECYCLE, (Tag.APP_CREATE,)),
        ("DELETE", r"^/(applications|servicePrincipals)/\{id\}$", Kind.IDENTITY_LIFECYCLE, (Tag.IDENTITY_DISABLE,)),
        ("GET", r"^/informationProtection/bitlocker/recoveryKeys/", Kind.SECRET_READ, (Tag.SECRET_READ,)),
        ("GET", r"^/(directory/)?deviceLocalCredentials/", Kind.SECRET_READ, (Tag.SECRET_READ,)),
        ("GET", r"/(messages|mailFolders)(/|$)", Kind.DATA_READ, (Tag.MAIL_READ,)),
        ("POST", r"/(sendMail|send|forward|createForward)$", Kind.OTHER, ()),
        ("POST", r"/(runCommand|initiateDeviceManagementCommand)|deviceManagementScripts", Kind.OTHER, (Tag.REMOTE_EXEC,)),
    ]
]


class Call(Struct, gc=False, rename="camel"):
    """The fields of one Graph request that we need."""

    request_id: str | None = None
    operation_id: str | None = None
    time_generated: str | None = None
    request_method: str | None = None
    request_uri: str | None = None
    response_status_code: int | str | None = None
    response_size_bytes: int | str | None = None
    sign_in_activity_id: str | None = None
    session_id: str | None = None
    c_sid: str | None = msgspec.field(default=None, name="C_Sid")
    app_id: str | None = None
    user_id: str | None = None
    service_principal_id: str | None = None
    device_id: str | None = None
    c_device_id: str | None = msgspec.field(default=None, name="C_DeviceId")
    ip_address: str | None = None
    user_agent: str | None = None
    roles: str | None = None
    scopes: str | None = None
    client_auth_method: int | str | None = None
    token_issued_at: str | None = None


class Envelope(Struct, gc=False, rename="camel"):
    time: str | None = None
    category: str | None = None
    tenant_id: str | None = None
    resource_id: str | None = None
    properties: Call | None = None


_COLUMN_NAMES: Final = {"ip_address": "IPAddress", "c_sid": "C_Sid", "c_device_id": "C_DeviceId", "aad_tenant_id": "AadTenantId"}
Columns: Any = msgspec.defstruct(
    "Columns",
    [
        *((field.name, field.type, None) for field in msgspec.structs.fields(Call)),
        ("type", str | None, None),
        ("aad_tenant_id", str | None, None),
    ],
    gc=False,
    rename=lambda name: _COLUMN_NAMES.get(name) or "".join(word.capitalize() for word in name.split("_")),
)

_AUTH_METHODS: Final = {"0": "none", "1": "secret", "2": "certificate"}


class Graph:
    """Normaliser of Microsoft Graph activity."""

    def __init__(self, interner: Interner) -> None:
        self._interner = interner
        self._envelope = msgspec.json.Decoder(Envelope).decode
        self._columns = msgspec.json.Decoder(Columns).decode
        self._flat = False  # whether the last record was a row of columns
        self._seen: dict[tuple[Any, ...], tuple[Shape, Detail]] = {}
        self._paths: dict[str, str] = {}
        self._issued: dict[str, int] = {}  # issue times of tokens: each has many calls

    def parse(self, line: bytes) -> Event:
        """The event of one request. Raises: NotMine, Reject, msgspec.DecodeError, msgspec.ValidationError."""
        try:
            return self._read(line)
        except UNREADABLE as error:
            raise Reject(f"unreadable record: {error}") from None

    def _read(self, line: bytes) -> Event:
        for flat in (self._flat, not self._flat):
            if flat:
                row = self._columns(line)
                if row.request_uri and row.request_method:
                    self._flat = True
                    return self._event(row, row.aad_tenant_id, row.time_generated)
            else:
                record = self._envelope(line)
                if record.properties is not None:
                    if record.category != "MicrosoftGraphActivityLogs":
                        raise NotMine(f"category `{record.category}` is not Graph activity")
                    self._flat = False
                    return self._event(record.properties, record.tenant_id or tenant_of(record.resource_id), record.time)
        raise NotMine("neither `properties` nor `RequestUri`")

    def _event(self, call: Call, tenant: str | None, written: str | None) -> Event:
        path = (call.request_uri or "").partition("?")[0]
        device = call.device_id or call.c_device_id
        key = (
            call.user_id,
            call.service_principal_id,
            call.app_id,
            call.ip_address,
            call.user_agent,
            call.request_method,
            path,
            call.response_status_code,
            device,
            call.scopes,
            call.roles,
            call.client_auth_method,
            tenant,
        )
        found = self._seen.get(key)
        if found is None:
            if len(self._seen) >= CACHE_MAX:
                self._seen.clear()
            found = self._seen[key] = self._recurring(call, path, device, tenant)
        shape, template = found
        event_id = call.request_id or call.operation_id
        if not event_id:
            raise Reject("a Graph request without `requestId`")
        time = moment(call.time_generated or written)
        detail = template
        if call.token_issued_at:
            detail = template.__copy__()  # type: ignore[attr-defined]  # every msgspec struct has it
            issued_at = self._issued.get(call.token_issued_at)
            if issued_at is None:
                if len(self._issued) >= CACHE_MAX:
                    self._issued.clear()
                issued_at = self._issued[call.token_issued_at] = moment(call.token_issued_at)
            detail.token_issued_at = issued_at
        return Event(
            time,
            event_id,
            shape,
            call.sign_in_activity_id or None,
            call.session_id or call.c_sid or None,
            None,
            max(number(call.response_size_bytes) or 0, 0),
            0 if written == call.time_generated else later(written, time),
            0,
            detail,
        )

    def _recurring(self, call: Call, path: str, device: str | None, tenant: str | None) -> tuple[Shape, Detail]:
        method = (call.request_method or "").upper()
        if not method or not path:
            raise Reject("a Graph request without `requestMethod` or `requestUri`")
        template = self._paths.get(path)
        if template is None:
            if len(self._paths) >= CACHE_MAX:
                self._paths.clear()
            template = self._paths[path] = template_of(path)
        if call.user_id:
            actor = self._interner.actor(call.user_id, (), "human", tenant)
        elif call.service_principal_id or call.app_id:
            actor_id = call.service_principal_id or call.app_id or ""
            actor = self._interner.actor(actor_id, (call.app_id,) if call.app_id and call.app_id != actor_id else (), "workload", tenant)
        else:
            raise Reject("a Graph request without `userId`, `servicePrincipalId` and `appId`")
        status = number(call.response_status_code)
        shape = self._interner.shape(
            SLUG,
            self._interner.action(SLUG, f"{method} {template}", _spec),
            actor,
            self._interner.origin(address(call.ip_address)),
            self._interner.agent(call.user_agent),
            str(status) if status is not None and status >= 400 else None,
            call.app_id or None,
            None,
            "00000003-0000-0000-c000-000000000000",  # Microsoft Graph itself, as sign-ins name it
            device or None,
            None,
            tenant,
        )
        scopes = (call.scopes if call.user_id or not call.roles else call.roles) or ""
        detail = Detail(scopes=tuple(scopes.split()), credential_type=_AUTH_METHODS.get(str(call.client_auth_method)))
        return shape, detail


def template_of(path: str) -> str:
    """Path of a Graph address with keys replaced: `/users/{id}/messages`. Host, version and function arguments go."""
    rest = path.partition("://")[2]
    parts = (rest.partition("/")[2] if rest else path).strip("/").split("/")
    if parts and parts[0].lower() in _VERSION:
        parts = parts[1:]
    result: list[str] = []
    before = ""
    in_path = False  # inside `root:/folder/file:`
    for part in parts:
        if in_path:
            if part.endswith(":"):
                in_path = False
            continue
        raw = unquote(part)
        name, bracket, inside = raw.partition("(")
        if bracket:
            # `users('x')` is a key, `getReport(period='D7')` a function.
            key = "=" not in inside or inside.startswith("appId=")
            result.append(name)
            if key and inside not in (")", "") and name:
                result.append("{id}")
            before = ""
            continue
        if raw.endswith(":") and len(raw) > 1 and before != "":
            result.append(name[:-1] if not _key_like(raw[:-1]) else "{id}")
            result.append("{path}")
            in_path = True
            before = ""
            continue
        if before in _KEYED and raw not in _WORDS and not raw.startswith(("$", "microsoft.graph.")) and raw not in _ASKING:
            is_key = True
        elif before == "mailFolders":
            is_key = raw.lower() not in _MAIL_FOLDERS
        else:
            is_key = _key_like(raw)
        if is_key and before == "channels" and raw == "general":
            is_key = False
        is_key = is_key and bool(result)  # an address begins with a collection
        result.append("{id}" if is_key else raw)
        before = "" if is_key else raw
    return "/" + "/".join(result)


def _key_like(part: str) -> bool:
    return "@" in part or ":" in part or _GUID.search(part) is not None or _OPAQUE.fullmatch(part) is not None


def _spec(name: str) -> Spec:
    """Kind, service, family and tags of a templated request; asked once for each."""
    method, _, path = name.partition(" ")
    segments = [part for part in path.split("/") if part]
    service = f"graph-{segments[0] if segments else 'root'}"
    for methods, pattern, kind, tags in _RULES:
        if method in methods.split() and pattern.search(path):
            if kind is Kind.POLICY_CHANGE and not tags:
                tags = (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN) if method == "DELETE" else (Tag.DEFENCE_CHANGE,)
            if kind in (Kind.DATA_READ, Kind.SECRET_READ):
                return kind, service, "read", tags
            if Tag.MAIL_RULE in tags or Tag.SHARE_CHANGE in tags or kind is Kind.OTHER:
                return kind, service, "execute" if Tag.REMOTE_EXEC in tags else "write", tags
            return kind, service, "admin", tags
    last = segments[-1] if segments else ""
    if method in ("GET", "HEAD") or last in _ASKING or (last.startswith(("get", "check")) and method == "POST"):
        content = any(part in _CONTENT for part in segments[1:]) or not segments or segments[0] == "search"
        if not content and (
            segments and (segments[0] in _DIRECTORY or last in ("memberOf", "transitiveMemberOf", "joinedTeams", "ownedObjects"))
        ):
            return Kind.DISCOVERY, service, "discover", ()
        return Kind.DATA_READ, service, "read", ()
    if path == "/search/query":
        return Kind.DATA_READ, service, "read", ()
    if method == "DELETE":
        return Kind.OTHER, service, "delete", ()
    return Kind.OTHER, service, "write", ()


def recognise(record: dict[str, Any]) -> bool:
    """True for a record of Graph activity."""
    if record.get("category") == "MicrosoftGraphActivityLogs":
        return isinstance(record.get("properties"), dict)
    return "RequestUri" in record and "SignInActivityId" in record
