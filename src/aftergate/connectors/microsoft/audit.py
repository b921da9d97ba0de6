"""Entra directory audit: envelope (`category` AuditLogs), Graph API form, Log Analytics columns."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw

from aftergate.connectors.microsoft.audit_changes import Reader
from aftergate.connectors.microsoft.audit_operations import spec
from aftergate.connectors.microsoft.audit_records import Columns, Envelope, Facts, Initiator, Pair, Resource
from aftergate.connectors.microsoft.common import UNREADABLE, address, later, moment, short, tenant_of, text
from aftergate.errors import NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.vocabulary import Actor, Event

SLUG: Final = "entra.audit"

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

_NAMELESS: Final = frozenset({"", "EvoSTS", "<null>", "null"})  # agents that are Microsoft's own servers, not the caller's program

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
        action = self._interner.action(SLUG, spec_name, spec)
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


def recognise(record: dict[str, Any]) -> bool:
    """True for a directory audit record in any of its forms."""
    properties = record.get("properties")
    if isinstance(properties, dict):
        return "initiatedBy" in properties and ("activityDateTime" in properties or record.get("category") == "AuditLogs")
    if "activityDisplayName" in record and "initiatedBy" in record:
        return True
    return "InitiatedBy" in record and ("OperationName" in record or "ActivityDisplayName" in record)
