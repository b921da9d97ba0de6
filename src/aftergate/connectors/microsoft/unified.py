"""Microsoft 365 unified audit: the flat record, also as `AuditData` of a Purview export row, object or text.

Times have no zone and are UTC. Addresses may carry a port. Names of operations end in a full stop when they come from the
directory; the stop goes.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from aftergate.connectors.microsoft.audit import FIRST_PARTY
from aftergate.connectors.microsoft.audit_changes import Reader
from aftergate.connectors.microsoft.audit_operations import DASHES, OPERATIONS
from aftergate.connectors.microsoft.audit_records import Modified, Resource
from aftergate.connectors.microsoft.common import UNREADABLE, address, loose, mapping, moment, number, secretive, short, text
from aftergate.errors import NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.vocabulary import Actor, Change, Detail, Event, Kind, Tag, Target

SLUG: Final = "m365.audit"

Spec = tuple[Kind, str, tuple[Tag, ...]]  # kind, verb family, tags

_RULE: Final[Spec] = (Kind.CONFIG_CHANGE, "write", (Tag.MAIL_RULE,))
_READ: Final[Spec] = (Kind.DATA_READ, "read", ())
_MAIL: Final[Spec] = (Kind.DATA_READ, "read", (Tag.MAIL_READ,))
_EXPORT: Final[Spec] = (Kind.DATA_EXPORT, "read", ())
_SHARE: Final[Spec] = (Kind.CONFIG_CHANGE, "write", (Tag.SHARE_CHANGE,))
_WRITE: Final[Spec] = (Kind.OTHER, "write", ())
_DELETE: Final[Spec] = (Kind.OTHER, "delete", ())
_DEFENCE: Final[Spec] = (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,))
_WEAKEN: Final[Spec] = (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN))
_GRANT: Final[Spec] = (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,))
_UNGRANT: Final[Spec] = (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,))
_SEARCH: Final[Spec] = (Kind.DISCOVERY, "discover", ())
_DELEGATE: Final[Spec] = (Kind.ROLE_CHANGE, "admin", (Tag.MAIL_RULE,))

OWN: Final[dict[str, Spec]] = {
    "mailitemsaccessed": _MAIL,
    "messagebind": _MAIL,
    "folderbind": _MAIL,
    "searchqueryinitiatedexchange": (Kind.DISCOVERY, "discover", (Tag.MAIL_READ,)),
    "searchqueryinitiatedsharepoint": _SEARCH,
    "searchqueryperformed": _SEARCH,
    "new-inboxrule": _RULE,
    "set-inboxrule": _RULE,
    "enable-inboxrule": _RULE,
    "disable-inboxrule": (Kind.CONFIG_CHANGE, "write", ()),
    "remove-inboxrule": (Kind.CONFIG_CHANGE, "delete", ()),
    "updateinboxrules": _RULE,
    "set-mailbox": (Kind.CONFIG_CHANGE, "admin", ()),
    "set-mailbox [forwarding]": _RULE,
    "set-mailbox [audit]": _WEAKEN,
    "set-mailboxautoreplyconfiguration": (Kind.CONFIG_CHANGE, "write", ()),
    "set-mailboxjunkemailconfiguration": (Kind.CONFIG_CHANGE, "write", ()),
    "new-transportrule": _RULE,
    "set-transportrule": _RULE,
    "enable-transportrule": _RULE,
    "disable-transportrule": _DEFENCE,
    "remove-transportrule": _DEFENCE,
    "new-inboundconnector": _RULE,
    "set-inboundconnector": _RULE,
    "new-outboundconnector": _RULE,
    "set-outboundconnector": _RULE,
    "new-remotedomain": _RULE,
    "set-remotedomain": _RULE,
    "new-journalrule": _RULE,
    "set-journalrule": _RULE,
    "add-mailboxpermission": _DELEGATE,
    "add-mailboxfolderpermission": _DELEGATE,
    "set-mailboxfolderpermission": _DELEGATE,
    "addfolderpermissions": _DELEGATE,
    "modifyfolderpermissions": _DELEGATE,
    "updatefolderpermissions": _DELEGATE,
    "add-recipientpermission": _DELEGATE,
    "updatecalendardelegation": _DELEGATE,
    "remove-mailboxpermission": (Kind.ROLE_CHANGE, "admin", ()),
    "set-casmailbox": (Kind.CONFIG_CHANGE, "admin", ()),
    "set-owamailboxpolicy": (Kind.CONFIG_CHANGE, "admin", ()),
    "new-managementroleassignment": _GRANT,
    "set-managementroleassignment": _GRANT,
    "remove-managementroleassignment": _UNGRANT,
    "add-rolegroupmember": _GRANT,
    "update-rolegroupmember": _GRANT,
    "remove-rolegroupmember": _UNGRANT,
    "new-rolegroup": _GRANT,
    "set-adminauditlogconfig": _DEFENCE,
    "set-adminauditlogconfig [disabled]": _WEAKEN,
    "set-mailboxauditbypassassociation": _WEAKEN,
    "remove-unifiedauditlogretentionpolicy": _WEAKEN,
    "set-unifiedauditlogretentionpolicy": _DEFENCE,
    "set-organizationconfig": _DEFENCE,
    "set-antiphishpolicy": _DEFENCE,
    "remove-antiphishpolicy": _WEAKEN,
    "disable-antiphishrule": _WEAKEN,
    "remove-antiphishrule": _WEAKEN,
    "disable-safelinksrule": _WEAKEN,
    "remove-safelinksrule": _WEAKEN,
    "remove-safelinkspolicy": _WEAKEN,
    "disable-safeattachmentrule": _WEAKEN,
    "remove-safeattachmentrule": _WEAKEN,
    "set-malwarefilterpolicy": _DEFENCE,
    "remove-malwarefilterrule": _WEAKEN,
    "disable-malwarefilterrule": _WEAKEN,
    "set-hostedcontentfilterpolicy": _DEFENCE,
    "set-hostedconnectionfilterpolicy": _DEFENCE,
    "remove-dlppolicy": _WEAKEN,
    "remove-dlpcompliancepolicy": _WEAKEN,
    "remove-dlpcompliancerule": _WEAKEN,
    "disable-dlpcompliancerule": _WEAKEN,
    "remove-retentioncompliancepolicy": _WEAKEN,
    "set-dkimsigningconfig": _DEFENCE,
    "removealertpolicy": _WEAKEN,
    "send": _WRITE,
    "sendas": _WRITE,
    "sendonbehalf": _WRITE,
    "create": _WRITE,
    "update": _WRITE,
    "move": _WRITE,
    "harddelete": _DELETE,
    "softdelete": _DELETE,
    "movetodeleteditems": _DELETE,
    "mailboxlogin": (Kind.SIGN_IN, "auth", ()),
    "userloggedin": (Kind.SIGN_IN, "auth", ()),
    "userloginfailed": (Kind.SIGN_IN, "auth", ()),
    "userloggedin [silent]": (Kind.SILENT_SIGN_IN, "auth", ()),
    "userloginfailed [silent]": (Kind.SILENT_SIGN_IN, "auth", ()),
    "teamssessionstarted": (Kind.SILENT_SIGN_IN, "auth", ()),
    "signinevent": (Kind.SIGN_IN, "auth", ()),
    "filedownloaded": _READ,
    "filesyncdownloadedfull": _READ,
    "filesyncdownloadedpartial": _READ,
    "fileaccessed": _READ,
    "fileaccessedextended": _READ,
    "filepreviewed": _READ,
    "filecopied": _READ,
    "fileuploaded": _WRITE,
    "filemodified": _WRITE,
    "filedeleted": _DELETE,
    "filerecycled": _DELETE,
    "sharingset": _SHARE,
    "anonymouslinkcreated": _SHARE,
    "anonymouslinkupdated": _SHARE,
    "companylinkcreated": _SHARE,
    "securelinkcreated": _SHARE,
    "secureLinkupdated".lower(): _SHARE,
    "addedtosecurelink": _SHARE,
    "sharinginvitationcreated": _SHARE,
    "sharinginvitationaccepted": _SHARE,
    "addedtogroup": (Kind.ROLE_CHANGE, "admin", ()),
    "sitecollectionadminadded": _GRANT,
    "sitecollectionadminremoved": _UNGRANT,
    "sharingpolicychanged": _SHARE,
    "sharinginheritancebroken": _SHARE,
    "permissionlevelmodified": _GRANT,
    "anonymouslinkused": _READ,
    "memberadded": (Kind.ROLE_CHANGE, "write", ()),
    "memberroleChanged".lower(): (Kind.ROLE_CHANGE, "write", ()),
    "messagesent": _WRITE,
    "messageslisted": _READ,
    "messageread": _READ,
    "chatretrieved": _READ,
    "appinstalled": (Kind.CONSENT, "write", ()),
    "botaddedtoteam": (Kind.CONSENT, "write", ()),
    "searchcreated": _SEARCH,
    "searchstarted": _SEARCH,
    "searchupdated": _SEARCH,
    "searchviewed": _SEARCH,
    "searchpreviewed": _READ,
    "searchexported": _EXPORT,
    "searchexportdownloaded": _EXPORT,
    "viewedsearchpreviewed": _READ,
    "viewedsearchexported": _EXPORT,
    "new-compliancesearch": _SEARCH,
    "start-compliancesearch": _SEARCH,
    "new-compliancesearchaction": _EXPORT,
    "casecreated": (Kind.CONFIG_CHANGE, "admin", ()),
    "caseadded": (Kind.CONFIG_CHANGE, "admin", ()),
    "caseadminadded": _GRANT,
    "new-mailboxexportrequest": _EXPORT,
    "new-mailboxsearch": _SEARCH,
    "search-mailbox": _EXPORT,
    "exportreport": _EXPORT,
    "createflow": (Kind.CONFIG_CHANGE, "write", ()),
    "copilotinteraction": (Kind.OTHER, "execute", (Tag.AI_INVOKE,)),
}


class Context(Struct, gc=False):
    AADSessionId: str | None = None
    UniqueTokenId: str | None = None
    IssuedAtTime: str | None = None
    ClientAppId: str | None = None
    DeviceId: str | None = None


class Item(Struct, gc=False):
    SizeInBytes: int | str | None = None


class Folder(Struct, gc=False):
    FolderItems: list[Item] | None = None


class Named(Struct, gc=False):
    Name: str | None = None
    Value: Any = None
    OldValue: Any = None
    NewValue: Any = None


class Party(Struct, gc=False):
    ID: str | None = None
    Type: int | str | None = None


class Record(Struct, gc=False):
    """The fields of one unified audit record that we need, under the vendor's names."""

    Id: str | None = None
    CreationTime: str | None = None
    Operation: str | None = None
    Workload: str | None = None
    RecordType: int | str | None = None
    OrganizationId: str | None = None
    UserId: str | None = None
    UserKey: str | None = None
    UserType: int | str | None = None
    ResultStatus: str | None = None
    LogonError: str | None = None
    ErrorNumber: int | str | None = None
    ObjectId: str | None = None
    ClientIPAddress: str | None = None
    ClientIP: str | None = None
    ActorIpAddress: str | None = None
    ClientInfoString: str | None = None
    UserAgent: str | None = None
    ClientAppId: str | None = None
    AppId: str | None = None
    ApplicationId: str | None = None
    ApplicationDisplayName: str | None = None
    AppAccessContext: Context | None = None
    SessionId: str | None = None
    DeviceId: str | None = None
    MailboxOwnerUPN: str | None = None
    MailboxGuid: str | None = None
    OperationCount: int | str | None = None
    FileSizeBytes: int | str | None = None
    Folders: list[Folder] | None = None
    OperationProperties: list[Named] | None = None
    Parameters: Raw = Raw(b"")  # a list of name and value, for Teams and others also a text
    ExtendedProperties: Raw = Raw(b"")
    ModifiedProperties: Raw = Raw(b"")
    Actor: Raw = Raw(b"")
    Target: Raw = Raw(b"")
    ExternalAccess: bool | None = None
    TargetUserOrGroupName: str | None = None
    TargetUserOrGroupType: str | None = None
    SourceFileName: str | None = None
    AuditData: Raw = Raw(b"")


_named = msgspec.json.Decoder(list[Named]).decode
_parties = msgspec.json.Decoder(list[Party]).decode


class Unified:
    """Normaliser of the Microsoft 365 unified audit log."""

    def __init__(self, interner: Interner) -> None:
        self._interner = interner
        self._decode = msgspec.json.Decoder(Record).decode

    def parse(self, line: bytes) -> Event:
        """The event of one record. Raises: NotMine, Reject, msgspec.DecodeError, msgspec.ValidationError."""
        try:
            return self._read(line)
        except UNREADABLE as error:
            raise Reject(f"unreadable record: {error}") from None

    def _read(self, line: bytes) -> Event:
        record = self._decode(line)
        inner = bytes(record.AuditData)
        if inner:
            record = self._decode(msgspec.json.decode(inner, type=str) if inner[:1] == b'"' else inner)
        if not record.Operation or not record.CreationTime:
            raise NotMine("no `Operation` and `CreationTime`")
        if not record.Id:
            raise Reject("an audit record without `Id`")
        time = moment(record.CreationTime)
        context = record.AppAccessContext or Context()
        parameters = _list(record.Parameters)
        extended = {item.Name or "": text(item.Value) for item in _list(record.ExtendedProperties)}
        name = _name(record, parameters, extended)
        targets = _targets(record)
        directory = _directory(record, name, targets)
        if directory is not None:
            name, targets = directory.name, directory.detail.targets
        action = self._interner.action(SLUG, name, lambda key: _spec(key, record.Workload))
        client = record.ClientAppId or record.AppId or record.ApplicationId or context.ClientAppId or None
        agent = record.UserAgent or extended.get("UserAgent") or record.ClientInfoString or ""
        actor = self._actor(record)
        outcome = (record.ResultStatus or "").lower()
        error = record.LogonError or None
        if error is None and (outcome in ("false", "failed", "failure", "error") or name.startswith("UserLoginFailed")):
            error = record.ResultStatus if outcome in ("false", "failed", "failure", "error") else text(record.ErrorNumber) or "failed"
        shape = self._interner.shape(
            SLUG,
            action,
            actor,
            self._interner.origin(address(record.ClientIPAddress or record.ClientIP or record.ActorIpAddress)),
            self._interner.agent("" if agent == "EvoSTS" else agent),
            error,
            client,
            record.ApplicationDisplayName or None,
            record.Workload or None,
            record.DeviceId or context.DeviceId or None,
            "session_continuation" if action.kind is Kind.SILENT_SIGN_IN else None,
            record.OrganizationId or None,
        )
        size = 0
        if directory is not None:
            detail = directory.detail
            detail.token_issued_at = moment(context.IssuedAtTime) if context.IssuedAtTime else None
        else:
            detail, size = _detail(record, context, parameters, extended)
            detail.targets = targets
        return Event(
            time,
            record.Id,
            shape,
            context.UniqueTokenId or None,
            context.AADSessionId or record.SessionId or None,
            targets[0].id if targets else None,
            size,
            0,
            0,
            detail,
        )

    def _actor(self, record: Record) -> Actor:
        """Who acts. Directory records name a service principal as `ServicePrincipal_<id>` or in the `Actor` list."""
        user = (record.UserId or record.UserKey or "").lower()
        if not user:
            raise Reject("an audit record without `UserId`")
        ids = [party.ID for party in _parties_of(record.Actor) if party.ID]
        names: tuple[str, ...] = ()
        if record.UserKey and record.UserKey.lower() != user and not record.UserKey.lower().startswith("i:0"):
            names = (record.UserKey,)
        kind_code = number(record.UserType)
        account = record.OrganizationId or None
        if user.startswith("serviceprincipal_"):
            actor_id = user.removeprefix("serviceprincipal_")
            labels = tuple(name for name in dict.fromkeys(ids) if name != actor_id and not name.lower().startswith("serviceprincipal"))
            own = bool(labels) and any(label in FIRST_PARTY for label in labels)
            return self._interner.actor(actor_id, labels, "service" if own else "workload", account, None, None, own)
        if kind_code == 5 or user.startswith("app@"):
            return self._interner.actor(user, names, "workload", account)
        if kind_code in (4, 7) or user.startswith("nt authority\\") or user in ("system", "app@sharepoint"):
            return self._interner.actor(user, names, "service", account, None, None, True)
        kind = "human" if "@" in user or kind_code in (0, 2, 3) else "unknown"
        return self._interner.actor(user, names, kind, account)


def _list(raw: Raw) -> list[Named]:
    data = bytes(raw)
    return _named(data) if data[:1] == b"[" else []


def _parties_of(raw: Raw) -> list[Party]:
    data = bytes(raw)
    return _parties(data) if data[:1] == b"[" else []


_FORWARD: Final = frozenset(
    {
        "ForwardingSmtpAddress",
        "ForwardingAddress",
        "DeliverToMailboxAndForward",
        "ForwardTo",
        "ForwardAsAttachmentTo",
        "RedirectTo",
        "RedirectMessageTo",
        "BlindCopyTo",
        "CopyTo",
        "GrantSendOnBehalfTo",
    }
)


def _name(record: Record, parameters: list[Named], extended: dict[str, str | None]) -> str:
    """Name of the operation, with a suffix where its parameters decide what it is."""
    name = (record.Operation or "").strip().rstrip(".").strip()
    values = {item.Name or "": (text(item.Value) or "") for item in parameters}
    if name == "Set-Mailbox":
        if any(values.get(key, "").strip() for key in ("ForwardingSmtpAddress", "ForwardingAddress", "GrantSendOnBehalfTo")):
            return f"{name} [forwarding]"
        if values.get("AuditEnabled", "").lower() == "false":
            return f"{name} [audit]"
    if name == "Set-AdminAuditLogConfig" and values.get("UnifiedAuditLogIngestionEnabled", "").lower() == "false":
        return f"{name} [disabled]"
    if name in ("UserLoggedIn", "UserLoginFailed"):
        request = extended.get("RequestType") or ""
        if request and request.lower() not in (
            "login:login",
            "login:reprocess",
            "kmsi:kmsi",
            "saml2:processrequest",
            "wsfed:",
            "sas:processauth",
        ):
            return f"{name} [silent]" if "token" in request.lower() else name
    return name


def _spec(name: str, workload: str | None) -> tuple[Kind, str, str, tuple[Tag, ...]]:
    key = name.lower().translate(DASHES)
    service = "m365-" + (workload or "unknown").lower().replace(" ", "")
    found = OWN.get(key) or OPERATIONS.get(key)
    if found is None:
        if key.startswith(("get-", "test-", "search-", "list", "view")):
            found = (Kind.DISCOVERY, "discover", ())
        elif "inboxrule" in key or ("transportrule" in key and not key.startswith("remove")):
            found = _RULE
        elif "sharing" in key or ("link" in key and key.endswith(("created", "updated"))):
            found = _SHARE
        elif key.startswith(("remove-", "delete", "disable-")):
            found = _DELETE
        elif "download" in key or "accessed" in key or key.startswith("viewed"):
            found = _READ
        elif "export" in key:
            found = _EXPORT
        elif "member to role" in key or "eligible" in key:
            found = _GRANT if key.startswith("add") else _UNGRANT
        else:
            found = (Kind.OTHER, "write", ())
    return found[0], service, found[1], found[2]


def _detail(record: Record, context: Context, parameters: list[Named], extended: dict[str, str | None]) -> tuple[Detail, int]:
    """The detail and the number of bytes read."""
    params: dict[str, Any] = {}
    for item in parameters:
        if item.Name:
            params[item.Name] = "(hidden)" if secretive(item.Name) else short(item.Value)
    for item in record.OperationProperties or []:
        if item.Name in ("MailAccessType", "IsThrottled"):
            params[item.Name] = short(item.Value)
        elif item.Name in ("RuleName", "RuleOperation", "RuleActions", "RuleCondition", "RuleState"):
            params[item.Name] = short(item.Value)
            if item.Name == "RuleActions":
                actions = loose(item.Value)
                for part in actions if isinstance(actions, list) else [actions]:
                    if mapping(part).get("Recipients"):
                        params["ForwardTo"] = short(mapping(part)["Recipients"])
    if record.MailboxOwnerUPN and record.MailboxOwnerUPN.lower() != (record.UserId or "").lower():
        params["mailbox"] = record.MailboxOwnerUPN.lower()
    if record.ExternalAccess:
        params["external_access"] = True
    if record.TargetUserOrGroupName:
        params["shared_with"] = record.TargetUserOrGroupName
    if record.TargetUserOrGroupType:
        params["shared_with_type"] = record.TargetUserOrGroupType
    if extended.get("RequestType"):
        params["request_type"] = extended["RequestType"]
    items = [item for folder in record.Folders or [] for item in folder.FolderItems or []]
    size = sum(max(number(item.SizeInBytes) or 0, 0) for item in items) + max(number(record.FileSizeBytes) or 0, 0)
    objects: int | None = number(record.OperationCount)
    if items:
        objects = max(objects or 0, len(items))
    changes = tuple(
        Change(item.Name, None if secretive(item.Name) else short(item.OldValue), None if secretive(item.Name) else short(item.NewValue))
        for item in _list(record.ModifiedProperties)[:12]
        if item.Name and item.Name != "Included Updated Properties"
    )
    detail = Detail(
        token_issued_at=moment(context.IssuedAtTime) if context.IssuedAtTime else None,
        objects=objects,
        params=params or None,
        changes=changes,
    )
    return detail, size


def _directory(record: Record, name: str, targets: tuple[Target, ...]) -> Reader | None:
    """A directory operation read as the directory's own audit log is, since the changed properties are the same."""
    if record.Workload != "AzureActiveDirectory" or bytes(record.ModifiedProperties)[:1] != b"[":
        return None
    changed = [Modified(item.Name, item.OldValue, item.NewValue) for item in _list(record.ModifiedProperties)]
    main = targets[0] if targets else Target(record.ObjectId or "unknown")
    label = next((word for word in main.names if " " not in word or len(main.names) == 1), None)
    return Reader(name, [Resource(main.id, label, main.type, None, changed)], {}, None)


def _targets(record: Record) -> tuple[Target, ...]:
    parties = _parties_of(record.Target)
    if parties:
        best = [party.ID for party in parties if party.ID and number(party.Type) == 2 and "-" in party.ID and "_" not in party.ID]
        names = tuple(dict.fromkeys(party.ID for party in parties if party.ID))
        if names:
            main = best[0] if best else names[0]
            return (Target(main, record.Workload or "", tuple(name for name in names if name != main)),)
    if record.ObjectId:
        return (Target(record.ObjectId, record.Workload or "", (record.SourceFileName,) if record.SourceFileName else ()),)
    if record.MailboxOwnerUPN:
        return (Target(record.MailboxOwnerUPN.lower(), "Mailbox", (record.MailboxGuid,) if record.MailboxGuid else ()),)
    return ()


def recognise(record: dict[str, Any]) -> bool:
    """True for a unified audit record or a row that carries one."""
    inner = loose(record.get("AuditData"))
    if isinstance(inner, dict):
        record = inner
    return "Operation" in record and "CreationTime" in record and ("RecordType" in record or "Workload" in record)
