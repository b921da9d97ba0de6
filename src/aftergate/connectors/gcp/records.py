"""Log entries and their audit payload as msgspec reads them. Fields that are not named here are skipped unread."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, field


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
