"""Directory audit records as msgspec reads them, in their three forms. Fields that are not named here are skipped unread."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct


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
