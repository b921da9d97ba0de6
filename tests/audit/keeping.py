"""Logs in a database: what their tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aftergate.audit.bundle import Bundle, write_folder
from aftergate.audit.findings import Report
from aftergate.audit.records import Record
from aftergate.audit.verify import verify_bundle
from aftergate.stores.audit_log import AuditLog

ORIGIN = "log.example/a"
START = 1_790_000_000_000
DAY = 86_400_000


class Clock:
    """Moves by a millisecond whenever it is read."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        self.now += 1
        return self.now


def add(log: AuditLog, *records: Record) -> list[int]:
    with log.database.write() as connection:
        return log.append(connection, records)


def verified(log: AuditLog, folder: Path, *, personal: bool = True, **options: Any) -> Report:
    target = folder / f"bundle{len(list(folder.glob('bundle*')))}"
    write_folder(target, log.members(personal=personal))
    with Bundle(target) as bundle:
        return verify_bundle(bundle, pins=log.signer.ring.verifiers, **options)
