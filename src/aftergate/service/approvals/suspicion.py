"""An authenticator whose counter went back: perhaps there are two of it. That is a finding like any other, and lowers its owner's trust."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import msgspec
from sqlalchemy import Connection

from aftergate.audit.records import Party, Record
from aftergate.authz.transactions.canonical import b64url
from aftergate.authz.transactions.objects import rfc3339
from aftergate.service.approvals.recording import SERVER
from aftergate.stores import findings
from aftergate.stores.people import Person

if TYPE_CHECKING:
    from aftergate.service.core import Core

SLUG: Final = "authenticator-clone"


def clone_suspected(core: Core, connection: Connection, person: Person, credential_id: bytes, detail: str, now_ms: int) -> list[Record]:
    """Keep the finding; gives its record. The signature held, so whoever sent this has the key."""
    name = b64url(credential_id)
    told = {
        "id": "own-" + hashlib.sha256(f"{SLUG}\0{name}\0{now_ms}".encode()).hexdigest()[:24],
        "detection": SLUG,
        "severity": "high",
        "time": rfc3339(now_ms),
        "title": "An authenticator's counter went back",
        "narrative": f"An authenticator of {person.id} signed with {detail}. Its key may have been copied.",
        "subject": {"identity": sorted(person.names), "credential": [name]},
        "evidence": [],
        "sources": ["aftergate.approvals"],
        "recommended": ["Ask its owner, and remove the authenticator."],
    }
    body = msgspec.json.encode(told).decode()
    findings.add(core.db, connection, [(findings.read(body), body)], now_ms)
    return [
        Record(
            type="findings.received",
            actor=SERVER,
            subject=Party("person", person.id),
            detail={"findings": [told["id"]], "detections": [SLUG], "count": 1},
        )
    ]
