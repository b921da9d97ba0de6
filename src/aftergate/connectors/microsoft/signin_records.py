"""Entra sign-in records as msgspec reads them, in their three forms. Fields that are not named here are skipped unread."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

_NONE: Final = Raw(b"")


class SignIn(Struct, gc=False, rename="camel"):
    """The fields of one sign-in that we need. Values that may be JSON or text stay raw until first seen."""

    id: str | None = None
    created_date_time: str | None = None
    user_id: str | None = None
    user_principal_name: str | None = None
    service_principal_id: str | None = None
    service_principal_name: str | None = None
    app_id: str | None = None
    app_display_name: str | None = None
    app_owner_tenant_id: str | None = None
    ip_address: str | None = None
    autonomous_system_number: int | str | None = None
    user_agent: str | None = None
    device_detail: Raw = _NONE
    location: Raw = _NONE
    status: Raw = _NONE
    agent: Raw = _NONE
    managed_service_identity: Raw = _NONE
    token_protection_status_details: Raw = _NONE
    sign_in_token_protection_status: str | None = None
    client_app_used: str | None = None
    client_credential_type: str | None = None
    service_principal_credential_key_id: str | None = None
    service_principal_credential_thumbprint: str | None = None
    federated_credential_id: str | None = None
    authentication_requirement: str | None = None
    authentication_protocol: str | None = None
    incoming_token_type: str | None = None
    original_transfer_method: str | None = None
    conditional_access_status: str | None = None
    risk_level_during_sign_in: str | None = None
    resource_id: str | None = None
    resource_display_name: str | None = None
    resource_tenant_id: str | None = None
    session_id: str | None = None
    correlation_id: str | None = None
    unique_token_identifier: str | None = None
    original_request_id: str | None = None


class Envelope(Struct, gc=False, rename="camel"):
    """Azure Monitor export of a sign-in."""

    category: str | None = None
    time: str | None = None
    tenant_id: str | None = None
    resource_id: str | None = None
    correlation_id: str | None = None
    result_type: str | int | None = None
    properties: SignIn | None = None


class GraphApi(SignIn, gc=False, rename="camel"):
    """A sign-in as `GET /auditLogs/signIns` lists it."""

    sign_in_event_types: list[str] = []
    is_interactive: bool | None = None


_COLUMN_NAMES: Final = {
    "created_date_time": "CreatedDateTime",
    "ip_address": "IPAddress",
    "location": "LocationDetails",
    "resource_id": "ResourceIdentity",
    "aad_tenant_id": "AADTenantId",
}


def _pascal(name: str) -> str:
    return _COLUMN_NAMES.get(name) or "".join(word.capitalize() for word in name.split("_"))


# A row of SigninLogs or one of its sister tables: the fields of SignIn under the columns' names, and the table's own.
Columns: Any = msgspec.defstruct(
    "Columns",
    [
        *((field.name, field.type, field.default) for field in msgspec.structs.fields(SignIn)),
        ("type", str | None, None),
        ("category", str | None, None),
        ("is_interactive", bool | str | None, None),
        ("time_generated", str | None, None),
        ("aad_tenant_id", str | None, None),
        ("result_type", str | int | None, None),
    ],
    gc=False,
    rename=_pascal,
)
