"""Entra directory audit: envelope (`category` AuditLogs), Graph API form, Log Analytics columns.

Some operation names tell too little: "Update application" may add a federated subject or a redirect address. Such names get a
suffix in brackets, from what changed, so that one action always means one thing.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from aftergate.connectors.microsoft.common import UNREADABLE, address, later, loose, mapping, moment, secretive, short, tenant_of, text
from aftergate.errors import NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.events.redact import secret_key
from aftergate.vocabulary import Actor, Change, Detail, Event, Kind, Tag, Target
from aftergate.vocabulary.patterns import regex

SLUG: Final = "entra.audit"

Spec = tuple[Kind, str, tuple[Tag, ...]]  # kind, verb family, tags

_GRANT: Final[Spec] = (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,))
_UNGRANT: Final[Spec] = (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,))
_CONSENT: Final[Spec] = (Kind.CONSENT, "admin", (Tag.CONSENT,))
_POLICY: Final[Spec] = (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,))
_WEAKEN: Final[Spec] = (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN))
_TRUST: Final[Spec] = (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE,))
_KEY_ADD: Final[Spec] = (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,))
_KEY_CUT: Final[Spec] = (Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE,))
_FACTOR_ADD: Final[Spec] = (Kind.FACTOR_CHANGE, "auth", (Tag.FACTOR_ADD,))
_FACTOR_CUT: Final[Spec] = (Kind.FACTOR_CHANGE, "auth", (Tag.FACTOR_REMOVE,))
_FACTOR_RESET: Final[Spec] = (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_RESET,))
_PASSWORD: Final[Spec] = (Kind.FACTOR_CHANGE, "auth", (Tag.PASSWORD_CHANGE,))
_REVOKE: Final[Spec] = (Kind.TOKEN_REVOKE, "admin", (Tag.REVOKE,))
_BORN: Final[Spec] = (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_CREATE,))
_DEAD: Final[Spec] = (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,))
_ALIVE: Final[Spec] = (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_ENABLE,))
_APP: Final[Spec] = (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.APP_CREATE,))
_OWNER: Final[Spec] = (Kind.ROLE_CHANGE, "admin", (Tag.OWNER_ADD,))
_UNOWNER: Final[Spec] = (Kind.ROLE_CHANGE, "admin", (Tag.OWNER_REMOVE,))
_DEVICE: Final[Spec] = (Kind.FACTOR_CHANGE, "write", (Tag.FACTOR_ADD,))
_SETTING: Final[Spec] = (Kind.CONFIG_CHANGE, "write", ())

DASHES: Final = {0x2013: "-", 0x2014: "-"}  # the log writes an en dash

# Operation names, lower case, dashes made equal.
OPERATIONS: Final[dict[str, Spec]] = {
    "add service principal credentials": _KEY_ADD,
    "add service principal credentials [added]": _KEY_ADD,
    "add service principal credentials [replaced]": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD, Tag.CREDENTIAL_REMOVE)),
    "remove service principal credentials": _KEY_CUT,
    "remove service principal credentials [removed]": _KEY_CUT,
    "update application - certificates and secrets management": _KEY_ADD,
    "update application - certificates and secrets management [added]": _KEY_ADD,
    "update application - certificates and secrets management [removed]": _KEY_CUT,
    "update application - certificates and secrets management [replaced]": (
        Kind.CREDENTIAL_CREATE,
        "admin",
        (Tag.CREDENTIAL_ADD, Tag.CREDENTIAL_REMOVE),
    ),
    "update application [added]": _KEY_ADD,
    "update application [removed]": _KEY_CUT,
    "update service principal [added]": _KEY_ADD,
    "update service principal [removed]": _KEY_CUT,
    "update application [federated credential]": (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE, Tag.CREDENTIAL_ADD)),
    "update application [federated credential removed]": (Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE,)),
    "update application [redirect]": (Kind.CONFIG_CHANGE, "admin", (Tag.REDIRECT_CHANGE,)),
    "update service principal [redirect]": (Kind.CONFIG_CHANGE, "admin", (Tag.REDIRECT_CHANGE,)),
    "update application [permissions]": (Kind.CONFIG_CHANGE, "admin", ()),
    "add federated identity credential": (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE, Tag.CREDENTIAL_ADD)),
    "add owner to application": _OWNER,
    "add owner to service principal": _OWNER,
    "add owner to group": _OWNER,
    "remove owner from application": _UNOWNER,
    "remove owner from service principal": _UNOWNER,
    "remove owner from group": _UNOWNER,
    "consent to application": _CONSENT,
    "add delegated permission grant": _CONSENT,
    "add oauth2permissiongrant": _CONSENT,
    "update delegated permission grant": _CONSENT,
    "add app role assignment to service principal": (Kind.CONSENT, "admin", (Tag.CONSENT, Tag.PRIVILEGE_GRANT)),
    "add app role assignment grant to user": (Kind.ROLE_CHANGE, "admin", ()),
    "add app role assignment to group": (Kind.ROLE_CHANGE, "admin", ()),
    "remove delegated permission grant": (Kind.CONSENT, "admin", ()),
    "remove oauth2permissiongrant": (Kind.CONSENT, "admin", ()),
    "remove app role assignment from service principal": _UNGRANT,
    "remove app role assignment from user": (Kind.ROLE_CHANGE, "admin", ()),
    "add member to group": (Kind.ROLE_CHANGE, "admin", ()),
    "remove member from group": (Kind.ROLE_CHANGE, "admin", ()),
    "add member to group [role-assignable]": _GRANT,
    "user has elevated their access to user access administrator for their azure resources": _GRANT,
    "assigns the caller to user access administrator role": _GRANT,
    "remove role assignment": _UNGRANT,
    "delete role assignment": _UNGRANT,
    "add conditional access policy": _POLICY,
    "update conditional access policy": _POLICY,
    "update conditional access policy [weakened]": _WEAKEN,
    "delete conditional access policy": _WEAKEN,
    "delete policy": _WEAKEN,
    "add policy": _POLICY,
    "added policy": _POLICY,
    "update policy": _POLICY,
    "add named location": _POLICY,
    "update named location": _POLICY,
    "delete named location": _POLICY,
    "update authorization policy": _POLICY,
    "update security defaults": _POLICY,
    "disable security defaults": _WEAKEN,
    "disable strong authentication": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_REMOVE, Tag.DEFENCE_CHANGE)),
    "disable per-user mfa": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_REMOVE, Tag.DEFENCE_CHANGE)),
    "enable strong authentication": (Kind.FACTOR_CHANGE, "admin", ()),
    "authentication methods policy update": _POLICY,
    "authentication methods policy reset": _POLICY,
    "authentication strength combination configuration update": _POLICY,
    "update authentication strength": _POLICY,
    "delete authentication strength": _WEAKEN,
    "update role setting in pim": _POLICY,
    "disable pim alert": _WEAKEN,
    "delete diagnostic setting": _WEAKEN,
    "delete diagnostics settings": _WEAKEN,
    "set federation settings on domain": _TRUST,
    "set domain authentication": _TRUST,
    "add unverified domain": _TRUST,
    "add verified domain": _TRUST,
    "verify domain": _TRUST,
    "remove verified domain": _TRUST,
    "add identity provider": _TRUST,
    "update identity provider": _TRUST,
    "create identity provider": _TRUST,
    "delete identity provider": _TRUST,
    "upload a root certificate": _TRUST,
    "set partnership": _TRUST,
    "set company information": _SETTING,
    "set directory feature on tenant": _SETTING,
    "add a partner to cross-tenant access setting": _TRUST,
    "update a partner cross-tenant access setting": _TRUST,
    "delete partner specific cross-tenant access setting": _TRUST,
    "reset the cross-tenant access default setting": _TRUST,
    "update the company default cross-tenant access setting": _TRUST,
    "user registered security info": _FACTOR_ADD,
    "user registered all required security info": _FACTOR_ADD,
    "user changed default security info": _FACTOR_ADD,
    "user updated security info": _FACTOR_ADD,
    "user deleted security info": _FACTOR_CUT,
    "admin registered security info": _FACTOR_ADD,
    "admin updated security info": _FACTOR_ADD,
    "admin deleted security info": _FACTOR_RESET,
    "admin required re-registration": _FACTOR_RESET,
    "create temporary access pass": _FACTOR_ADD,
    "admin registered temporary access pass": _FACTOR_ADD,
    "add passwordless phone sign-in credential": _FACTOR_ADD,
    "add windows hello for business credential": _FACTOR_ADD,
    "add passkey (device-bound)": _FACTOR_ADD,
    "add fido2 security key": _FACTOR_ADD,
    "delete fido2 security key": _FACTOR_CUT,
    "delete passkey (device-bound)": _FACTOR_CUT,
    "delete windows hello for business credential": _FACTOR_CUT,
    "add passwordless credential": _FACTOR_ADD,
    "update user [strong authentication]": (Kind.FACTOR_CHANGE, "admin", ()),
    "reset user password": _PASSWORD,
    "reset password (by admin)": _PASSWORD,
    "reset password (self-service)": _PASSWORD,
    "change password (self-service)": _PASSWORD,
    "change user password": _PASSWORD,
    "set user manager": (Kind.IDENTITY_LIFECYCLE, "write", ()),
    "set force change user password": _PASSWORD,
    "disable account": _DEAD,
    "enable account": _ALIVE,
    "delete user": _DEAD,
    "hard delete user": _DEAD,
    "restore user": _ALIVE,
    "add user": _BORN,
    "invite external user": _BORN,
    "invite internal user": _BORN,
    "redeem external user invite": (Kind.IDENTITY_LIFECYCLE, "auth", ()),
    "update user": (Kind.IDENTITY_LIFECYCLE, "write", ()),
    "update user [disabled]": _DEAD,
    "update user [enabled]": _ALIVE,
    "update service principal [disabled]": _DEAD,
    "update service principal [enabled]": _ALIVE,
    "update stsrefreshtokenvalidfrom timestamp": _REVOKE,
    "revoke sign-in sessions": _REVOKE,
    "confirm user compromised": _REVOKE,
    "confirm service principal compromised": _REVOKE,
    "add application": _APP,
    "add service principal": _APP,
    "delete application": _DEAD,
    "hard delete application": _DEAD,
    "remove service principal": _DEAD,
    "hard delete service principal": _DEAD,
    "disable service principal": _DEAD,
    "update application": (Kind.CONFIG_CHANGE, "write", ()),
    "update service principal": (Kind.CONFIG_CHANGE, "write", ()),
    "set verified publisher": (Kind.CONFIG_CHANGE, "write", ()),
    "register device": _DEVICE,
    "add device": _DEVICE,
    "add registered owner to device": (Kind.IDENTITY_LIFECYCLE, "write", ()),
    "add registered users to device": (Kind.IDENTITY_LIFECYCLE, "write", ()),
    "unregister device": (Kind.FACTOR_CHANGE, "write", (Tag.FACTOR_REMOVE,)),
    "delete device": (Kind.FACTOR_CHANGE, "write", (Tag.FACTOR_REMOVE,)),
    "update device": (Kind.CONFIG_CHANGE, "write", ()),
    "read bitlocker key": (Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    "recover device local administrator password": (Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    "add agent identity": _BORN,
    "add agent identity blueprint": _APP,
}

# Names of Microsoft's own services as initiators; their application id is left out of the audit log.
FIRST_PARTY: Final = frozenset(
    {
        "Azure AD Cloud Sync",
        "Azure AD Identity Governance - Entitlement Management",
        "Azure MFA StrongAuthenticationService",
        "Azure Credential Configuration Endpoint Service",
        "Device Registration Service",
        "MS-PIM",
        "Microsoft Approval Management",
        "Microsoft Azure AD Internal - Jit Provisioning",
        "Microsoft Intune",
        "Microsoft Substrate Management",
        "Microsoft Teams Services",
        "Microsoft.Azure.SyncFabric",
        "Microsoft password reset service",
        "Office 365 Exchange Online",
        "Windows Azure Active Directory",
    }
)

_KEY_ID: Final = regex(r"KeyIdentifier=([0-9a-fA-F-]{8,64})")
_KEY_TYPE: Final = regex(r"KeyType=(\w+)")
_SCOPE: Final = regex(r"Scopes?:\s*\[?([^,\]\[]*)")
_CONSENT_TYPE: Final = regex(r"ConsentType:\s*(\w+)")
_NAMELESS: Final = frozenset({"", "EvoSTS", "<null>", "null"})  # agents that are Microsoft's own servers, not the caller's program


class UserInitiator(Struct, gc=False, rename="camel"):
    id: str | None = None
    user_principal_name: str | None = None
    display_name: str | None = None
    ip_address: str | None = None


class AppInitiator(Struct, gc=False, rename="camel"):
    app_id: str | None = None
    display_name: str | None = None
    service_principal_id: str | None = None
    service_principal_name: str | None = None


class Initiator(Struct, gc=False):
    user: UserInitiator | None = None
    app: AppInitiator | None = None


class Modified(Struct, gc=False, rename="camel"):
    display_name: str | None = None
    old_value: Any = None
    new_value: Any = None


class Resource(Struct, gc=False, rename="camel"):
    id: str | None = None
    display_name: str | None = None
    type: str | None = None
    user_principal_name: str | None = None
    modified_properties: list[Modified] | None = None


class Pair(Struct, gc=False):
    key: str | None = None
    value: Any = None


class Facts(Struct, gc=False, rename="camel"):
    """One audit record. Initiator, targets and additional details may be JSON inside text in Log Analytics."""

    id: str | None = None
    activity_display_name: str | None = None
    operation_name: str | None = None
    activity_date_time: str | None = None
    category: str | None = None
    correlation_id: str | None = None
    result: str | None = None
    result_reason: str | None = None
    user_agent: str | None = None
    initiated_by: Raw = Raw(b"")
    target_resources: Raw = Raw(b"")
    additional_details: Raw = Raw(b"")


class Envelope(Struct, gc=False, rename="camel"):
    time: str | None = None
    category: str | None = None
    tenant_id: str | None = None
    resource_id: str | None = None
    operation_name: str | None = None
    caller_ip_address: str | None = None
    correlation_id: str | None = None
    properties: Facts | None = None


_COLUMN_NAMES: Final = {"aad_tenant_id": "AADTenantId", "result_description": "ResultDescription"}
Columns: Any = msgspec.defstruct(
    "Columns",
    [
        *((field.name, field.type, field.default) for field in msgspec.structs.fields(Facts)),
        ("time_generated", str | None, None),
        ("aad_tenant_id", str | None, None),
        ("type", str | None, None),
    ],
    gc=False,
    rename=lambda name: _COLUMN_NAMES.get(name) or "".join(word.capitalize() for word in name.split("_")),
)

_initiator = msgspec.json.Decoder(Initiator).decode
_resources = msgspec.json.Decoder(list[Resource]).decode
_pairs = msgspec.json.Decoder(list[Pair]).decode


def _typed(raw: Raw, decode: Any) -> Any:
    """The typed value of a part that is JSON or JSON inside text; None where it is absent, null or blank."""
    data = bytes(raw)
    if data[:1] == b'"':
        data = msgspec.json.decode(data, type=str).encode()
    return decode(data) if data.strip() not in (b"", b"null") else None


class Audit:
    """Normaliser of the directory audit log."""

    def __init__(self, interner: Interner) -> None:
        self._interner = interner
        self._envelope = msgspec.json.Decoder(Envelope).decode
        self._flat = msgspec.json.Decoder(Facts).decode
        self._columns = msgspec.json.Decoder(Columns).decode

    def parse(self, line: bytes) -> Event:
        """The event of one record. Raises: NotMine, Reject, msgspec.DecodeError, msgspec.ValidationError."""
        try:
            return self._read(line)
        except UNREADABLE as error:
            raise Reject(f"unreadable record: {error}") from None

    def _read(self, line: bytes) -> Event:
        record = self._envelope(line)
        if record.properties is not None:
            facts = record.properties
            if not (facts.activity_date_time or record.category == "AuditLogs") or not bytes(facts.initiated_by):
                raise NotMine(f"category `{record.category}` is not the directory audit")
            facts.operation_name = facts.operation_name or record.operation_name
            facts.correlation_id = facts.correlation_id or record.correlation_id
            return self._event(facts, record.tenant_id or tenant_of(record.resource_id), record.time, record.caller_ip_address)
        facts = self._flat(line)
        if facts.activity_display_name and bytes(facts.initiated_by):
            return self._event(facts, None, None, None)
        row = self._columns(line)
        if (row.operation_name or row.activity_display_name) and bytes(row.initiated_by):
            return self._event(row, row.aad_tenant_id, row.time_generated, None)
        raise NotMine("no `properties.initiatedBy`, `activityDisplayName` or `InitiatedBy`")

    def _event(self, facts: Facts, tenant: str | None, written: str | None, caller: str | None) -> Event:
        name = (facts.activity_display_name or facts.operation_name or "").strip()
        if not name:
            raise Reject("an audit record without `activityDisplayName`")
        event_id = facts.id or facts.correlation_id
        if not event_id:
            raise Reject("an audit record without `id`")
        time = moment(facts.activity_date_time or written)
        initiator: Initiator = _typed(facts.initiated_by, _initiator) or Initiator()
        resources: list[Resource] = _typed(facts.target_resources, _resources) or []
        extra = {pair.key: text(pair.value) for pair in _typed(facts.additional_details, _pairs) or [] if pair.key}
        actor, ip = self._actor(initiator, tenant)
        reader = Reader(name, resources, extra, facts.result_reason)
        spec_name = reader.name
        action = self._interner.action(SLUG, spec_name, _spec)
        user_agent = facts.user_agent or extra.get("User-Agent") or ""
        outcome = (facts.result or "success").lower()
        error = None if outcome in ("success", "0", "") else (facts.result_reason or facts.result)
        shape = self._interner.shape(
            SLUG,
            action,
            actor,
            self._interner.origin(address(ip or caller or extra.get("ipaddr"))),
            self._interner.agent("" if user_agent in _NAMELESS else user_agent),
            error,
            account=tenant,
        )
        detail = reader.detail
        detail.correlation = facts.correlation_id
        detail.status = short(facts.result_reason) if facts.result_reason else None
        target = detail.targets[0].id if detail.targets else None
        return Event(
            time,
            event_id,
            shape,
            _first(extra, "UniqueTokenIdentifier", "uniqueTokenIdentifier", "uti"),
            _first(extra, "SessionId", "sessionId", "sid"),
            target,
            0,
            later(written, time),
            0,
            detail,
        )

    def _actor(self, initiator: Initiator, tenant: str | None) -> tuple[Actor, str | None]:
        user = initiator.user
        if user is not None and (user.id or user.user_principal_name):
            upn = (user.user_principal_name or "").lower()
            actor_id = user.id or upn
            return self._interner.actor(actor_id, (upn,) if upn and upn != actor_id else (), "human", tenant), user.ip_address
        app = initiator.app
        if app is not None:
            label = app.display_name or app.service_principal_name
            actor_id = app.service_principal_id or app.app_id or label or ""
            if actor_id:
                names = tuple(name for name in (app.app_id, label) if name and name != actor_id)
                own = not app.app_id and (label or "") in FIRST_PARTY
                actor = self._interner.actor(actor_id, names, "service" if own else "workload", tenant, label, None, own)
                return actor, user.ip_address if user else None
        return self._interner.actor("unknown", (), "unknown", tenant), user.ip_address if user else None


def _first(extra: dict[str, str | None], *keys: str) -> str | None:
    for key in keys:
        if extra.get(key):
            return extra[key]
    return None


def _spec(name: str) -> tuple[Kind, str, str, tuple[Tag, ...]]:
    """What an operation name means; asked once for each name."""
    key = name.lower().translate(DASHES)
    kind, verb, tags = OPERATIONS.get(key) or _by_words(key)
    return kind, "entra", verb, tags


def _by_words(key: str) -> Spec:
    """Meaning of a name that the table lacks, from its words: role and PIM operations have many spellings."""
    if "role" in key and ("member" in key or "assignment" in key):
        if "activation" in key:
            done = "completed" in key and key.startswith("add")
            return (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_ACTIVATE,)) if done else (Kind.ROLE_CHANGE, "admin", ())
        if key.startswith(("remove", "delete")):
            return _UNGRANT if "requested" not in key else (Kind.ROLE_CHANGE, "admin", ())
        if "requested" in key or "canceled" in key or "denied" in key:
            return (Kind.ROLE_CHANGE, "admin", ())
        if key.startswith(("add", "create", "assign")):
            return _GRANT
        return (Kind.ROLE_CHANGE, "admin", ())
    if "role definition" in key:
        return (Kind.ROLE_CHANGE, "admin", ())
    if "conditional access" in key or "security defaults" in key or "diagnostic setting" in key:
        return _WEAKEN if key.startswith(("delete", "disable")) else _POLICY
    if "cross-tenant" in key or "federation" in key or "identity provider" in key:
        return _TRUST
    if "temporary access pass" in key or ("authentication method" in key and "policy" not in key):
        if key.startswith(("delete", "remove")):
            return _FACTOR_CUT
        return _FACTOR_ADD
    if "policy" in key:
        return _WEAKEN if key.startswith(("delete", "disable")) else _POLICY
    if "federated identity credential" in key:
        return _KEY_CUT if key.startswith(("delete", "remove")) else (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE, Tag.CREDENTIAL_ADD))
    if "credential" in key and "service principal" in key:
        return _KEY_CUT if key.startswith(("delete", "remove")) else _KEY_ADD
    if key.startswith(("get ", "list ", "read ", "download ")):
        return (Kind.DISCOVERY, "discover", ())
    return (Kind.OTHER, "write", ())


class Reader:
    """Reads one record's targets and changed properties into an action name and a Detail."""

    def __init__(self, name: str, resources: list[Resource], extra: dict[str, str | None], reason: str | None) -> None:
        self.name = name
        self.detail = Detail()
        self._params: dict[str, Any] = {}
        self._extra = extra
        self._key = name.lower().translate(DASHES)
        changed = [(m.display_name or "", _plain(m.old_value), _plain(m.new_value)) for r in resources for m in r.modified_properties or []]
        self._changed = {label: (old, new) for label, old, new in changed}
        targets = [_target(r) for r in resources if r.id or r.display_name or r.user_principal_name]
        self.detail.targets = tuple(self._ordered(targets))
        self._keys()
        self._federated()
        self._redirects()
        self._consent()
        self._role()
        self._policy()
        self._account()
        self._factor(reason)
        if not self.detail.changes:
            self.detail.changes = tuple(
                Change(label, _shown(label, old), _shown(label, new))
                for label, old, new in changed
                if label and label != "Included Updated Properties"
            )[:12]
        for key in ("Justification", "ExpirationTime", "StartTime", "TicketNumber", "invitedUserEmailAddress"):
            if extra.get(key):
                self._params[key] = short(extra[key])
        self.detail.params = self._params or None

    def _value(self, label: str) -> str | None:
        """New value of a property as text; the old one where something was taken away."""
        old, new = self._changed.get(label, (None, None))
        return _word(new) or _word(old)

    def _ordered(self, targets: list[Target]) -> list[Target]:
        """The targets with what the operation acts on first: the identity that gains, not the thing it gains."""
        named = self._value("ServicePrincipal.ObjectID") or self._value("Application.ObjectID") or self._value("Group.ObjectID")
        if "owner" in self._key:
            # The log puts the new owner first; acted on is what he now owns.
            if named and not any(t.id == named for t in targets):
                label = self._value("ServicePrincipal.DisplayName") or self._value("Application.DisplayName")
                targets = [*targets, Target(named, "ServicePrincipal", (label,) if label else ())]
            if len(targets) > 1 and "device" not in self._key:
                owners = [t for t in targets if t.type == "User"] or targets[:1]
                self._params["owner"] = owners[0].id
                return [t for t in targets if t is not owners[0]] + [owners[0]]
            return targets
        if "permission grant" in self._key or "permissiongrant" in self._key or "app role assignment to service principal" in self._key:
            # The log puts the API first; acted on is the client application.
            if targets:
                self._params["api"] = targets[0].names[0] if targets[0].names else targets[0].id
            if named:
                client = next((t for t in targets if t.id == named), None) or Target(
                    named, "ServicePrincipal", tuple(n for n in (self._value("ServicePrincipal.DisplayName"),) if n)
                )
                return [client, *(t for t in targets if t.id != named)]
            return targets
        if "role" in self._key or "group" in self._key:
            holders = [
                t for t in targets if t.type not in ("Role", "Group", "RoleAssignment", "RoleDefinition", "Request", "Other", "Directory")
            ]
            return holders + [t for t in targets if t not in holders]
        return targets

    def _keys(self) -> None:
        pair = self._changed.get("KeyDescription")
        if pair is None:
            return
        old, new = (dict.fromkeys(_KEY_ID.findall(_flat(side))) for side in pair)
        added = tuple(key for key in new if key not in old)
        removed = [key for key in old if key not in new]
        if added:
            self.detail.issued = added
            types = _KEY_TYPE.findall(_flat(pair[1]))
            fresh = next((kind for key, kind in zip(new, types, strict=False) if key in added), "")
            self.detail.issued_class = "certificate" if "cert" in fresh.lower() or fresh.startswith("Asym") else "client_secret"
        if removed:
            self._params["removed"] = removed
        if added or removed:
            self.name += " [replaced]" if added and removed else " [added]" if added else " [removed]"

    def _federated(self) -> None:
        pair = self._changed.get("FederatedIdentityCredentials")
        if pair is None:
            return
        old, new = ([item for item in _items(side) if isinstance(item, dict)] for side in pair)
        fresh = [item for item in new if item not in old]
        self.name += " [federated credential]" if fresh or not old else " [federated credential removed]"
        if fresh:
            item = {str(key).lower(): value for key, value in fresh[0].items()}
            self.detail.issuer = text(item.get("issuer"))
            self.detail.subject = text(item.get("subject"))
            if text(item.get("id")):
                self.detail.issued, self.detail.issued_class = (str(item["id"]),), "federated"
        gone = [item.get("Id") or item.get("Name") for item in old if item not in new]
        if gone:
            self._params["removed"] = [str(item) for item in gone if item]
        self.detail.credential_type = "federated"

    def _redirects(self) -> None:
        labels = {"AppAddress", "ReplyUrls", "ReplyUrl", "RedirectUris", "AddressType", "WebRedirectUris", "PublicClientRedirectUris"}
        if not self._key.startswith(("update application", "update service principal")) or "[" in self.name:
            return
        for label in labels & self._changed.keys():
            old, new = self._changed[label]
            if old != new:
                self.name += " [redirect]"
                before, after = _addresses(old), _addresses(new)
                self._params["redirect_added"] = [short(url) for url in sorted(after - before)]
                self._params["redirect_removed"] = [short(url) for url in sorted(before - after)]
                return
        if "RequiredResourceAccess" in self._changed or "RequiredResourceAccess" in (self._value("Included Updated Properties") or ""):
            self.name += " [permissions]"

    def _consent(self) -> None:
        granted = self._changed.get("ConsentAction.Permissions")
        scopes: list[str] = []
        kind = None
        if granted is not None:
            old, arrow, new = _flat(granted[1]).partition("=>")
            now = new if arrow else old
            before = {word for part in _SCOPE.findall(old) for word in part.split()} if arrow else set()
            scopes = [word for part in _SCOPE.findall(now) for word in part.split()]
            self._params["scopes_added"] = [word for word in dict.fromkeys(scopes) if word not in before]
            kinds = _CONSENT_TYPE.findall(now)
            kind = kinds[-1] if kinds else None
        elif "DelegatedPermissionGrant.Scope" in self._changed:
            before_text, after_text = self._changed["DelegatedPermissionGrant.Scope"]
            scopes = (_word(after_text) or "").split()
            before = set((_word(before_text) or "").split())
            self._params["scopes_added"] = [word for word in dict.fromkeys(scopes) if word not in before]
            kind = self._value("DelegatedPermissionGrant.ConsentType")
        elif "AppRole.Value" in self._changed:
            scopes = (self._value("AppRole.Value") or "").split()
            self._params["scopes_added"] = scopes
            kind = "AllPrincipals"
        elif "consent" not in self._key:
            return
        self.detail.scopes = tuple(dict.fromkeys(scopes))
        admin = (self._value("ConsentContext.IsAdminConsent") or "").lower() == "true" or kind == "AllPrincipals"
        self._params["consent_type"] = "admin" if admin else "user"
        if (self._value("ConsentContext.IsAppOnly") or "").lower() == "true":
            self._params["app_only"] = True
        if self.detail.targets and self.detail.targets[0].names:
            self._params["app_name"] = self.detail.targets[0].names[0]
        app_id = self._value("TargetId.ServicePrincipalNames") or self._value("ServicePrincipal.AppId") or self._extra.get("AppId")
        if app_id:
            self._params["app_id"] = app_id.split(";")[0].split(",")[0].strip()
        for key, value in self._extra.items():
            if "publisher" in key.lower() and value:
                self._params["publisher_verified"] = value.lower() not in ("false", "none", "unverified", "0")

    def _role(self) -> None:
        if "role" not in self._key or "app role" in self._key:
            if self._key == "add member to group" and (self._value("Group.IsAssignableToRole") or "").lower() == "true":
                self.name += " [role-assignable]"
            return
        role = self._value("Role.DisplayName") or next((t.names[0] for t in self.detail.targets if t.type == "Role" and t.names), None)
        if role:
            self._params["role"] = role
        template = self._value("Role.TemplateId")
        if template:
            self._params["role_template"] = template
        if "outside of pim" in self._key:
            self._params["assignment"] = "outside_pim"
        elif "eligible" in self._key:
            self._params["assignment"] = "eligible"
        elif "activation" in self._key:
            self._params["assignment"] = "activation"
        elif "timebound" in self._key:
            self._params["assignment"] = "timebound"
        elif "add" in self._key:
            self._params["assignment"] = "permanent"

    def _policy(self) -> None:
        pair = self._changed.get("ConditionalAccessPolicy")
        if pair is None:
            return
        old, new = (mapping(loose(side)) for side in pair)
        before, after = _policy_facts(old), _policy_facts(new)
        self.detail.changes = tuple(
            Change(label, short(before.get(label)), short(after.get(label)))
            for label in dict.fromkeys([*before, *after])
            if before.get(label) != after.get(label)
        )
        if after.get("state"):
            self._params["state"] = after["state"]
        if old and new and _weaker(before, after):
            self.name += " [weakened]"

    def _account(self) -> None:
        pair = self._changed.get("AccountEnabled")
        if pair is None or self._key not in ("update user", "update service principal"):
            if self._key == "update user" and any(label.startswith("StrongAuthentication") for label in self._changed):
                self.name += " [strong authentication]"
            return
        now = _flat(pair[1]).lower()
        if "false" in now:
            self.name += " [disabled]"
        elif "true" in now and "false" in _flat(pair[0]).lower():
            self.name += " [enabled]"

    def _factor(self, reason: str | None) -> None:
        if "security info" in self._key or "authentication method" in self._key or "temporary access pass" in self._key:
            method = (reason or "").strip()
            for lead in ("User registered ", "Admin registered ", "User deleted ", "Admin deleted ", "User added ", "Admin added "):
                method = method.removeprefix(lead)
            if "temporary access pass" in (method + self._key).lower():
                method = "temporary access pass"
            if method:
                self._params["method"] = short(method)


def _plain(value: Any) -> Any:
    """A property's value with the text layers around it taken off: `"\\"x\\""` is x, `"[\\"x\\"]"` is ["x"]."""
    return loose(value)


def _flat(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else msgspec.json.encode(value).decode()


def _word(value: Any) -> str | None:
    """A value as one word or sentence; a list of one is its item."""
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else " ".join(item for item in value if isinstance(item, str))
    if isinstance(value, bool):
        return "true" if value else "false"
    return text(value)


def _items(value: Any) -> list[Any]:
    """A value as a list, its items freed of text around them."""
    if isinstance(value, str):
        value = loose(value)
    return [loose(item) for item in value] if isinstance(value, list) else [value] if isinstance(value, dict) else []


def _addresses(value: Any) -> set[str]:
    return set(re.findall(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s\"',\]\[}]+", _flat(value)))


def _shown(label: str, value: Any) -> str | None:
    """A changed value for people. Certificates and secrets are cut to what tells them apart."""
    if value is None or value in ([], "") or secret_key(label):
        return None
    shown = short(value if not (isinstance(value, list) and len(value) == 1) else value[0])
    if shown and secretive(label) and "KeyDescription" not in label and "StsRefreshTokens" not in label:
        return shown[:16] + ("..." if len(shown) > 16 else "")
    return shown


def _target(resource: Resource) -> Target:
    names = tuple(name for name in ((resource.user_principal_name or "").lower(), resource.display_name) if name and name != resource.id)
    return Target(resource.id or names[0], resource.type or "", names)


_LISTS: Final = ("includeUsers", "includeGroups", "includeRoles", "excludeUsers", "excludeGroups", "excludeRoles")


def _policy_facts(policy: dict[str, Any]) -> dict[str, Any]:
    """What a conditional access policy demands of whom, as flat values."""
    facts: dict[str, Any] = {}
    state = text(policy.get("state"))
    if state:
        facts["state"] = state
    conditions = mapping(policy.get("conditions"))
    users = mapping(conditions.get("users"))
    for name in _LISTS:
        if isinstance(users.get(name), list) and users[name]:
            facts[name] = sorted(str(item) for item in users[name])
    for part, names in (
        ("applications", ("includeApplications", "excludeApplications")),
        ("locations", ("includeLocations", "excludeLocations")),
        ("platforms", ("includePlatforms", "excludePlatforms")),
    ):
        section = mapping(conditions.get(part))
        for name in names:
            if isinstance(section.get(name), list) and section[name]:
                facts[name] = sorted(str(item) for item in section[name])
    if isinstance(conditions.get("clientAppTypes"), list):
        facts["clientAppTypes"] = sorted(str(item) for item in conditions["clientAppTypes"])
    controls = mapping(policy.get("grantControls"))
    if isinstance(controls.get("builtInControls"), list):
        facts["grantControls"] = sorted(str(item) for item in controls["builtInControls"])
    if controls.get("operator"):
        facts["grantOperator"] = str(controls["operator"])
    if policy.get("sessionControls"):
        facts["sessionControls"] = _flat(policy["sessionControls"])
    return facts


_STRENGTH: Final = {"enabled": 2, "enabledforreportingbutnotenforced": 1, "disabled": 0}


def _weaker(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """True if a policy that was in force now demands less: switched off or to report-only, more left out, a control dropped."""
    was, now = (_STRENGTH.get(str(side.get("state", "enabled")).lower(), 2) for side in (before, after))
    if was < 2:
        return False
    if now < was:
        return True
    if any(set(after.get(name, ())) - set(before.get(name, ())) for name in before.keys() | after.keys() if name.startswith("exclude")):
        return True
    for name in ("includeUsers", "includeGroups", "includeRoles", "includeApplications"):
        lost = set(before.get(name, ())) - set(after.get(name, ()))
        if lost and "All" not in after.get(name, ()):
            return True
    if set(before.get("grantControls", ())) - set(after.get("grantControls", ())):
        return True
    return before.get("grantOperator") == "AND" and after.get("grantOperator") == "OR"


def recognise(record: dict[str, Any]) -> bool:
    """True for a directory audit record in any of its forms."""
    properties = record.get("properties")
    if isinstance(properties, dict):
        return "initiatedBy" in properties and ("activityDateTime" in properties or record.get("category") == "AuditLogs")
    if "activityDisplayName" in record and "initiatedBy" in record:
        return True
    return "InitiatedBy" in record and ("OperationName" in record or "ActivityDisplayName" in record)
