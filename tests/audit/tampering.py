"""A log worth tampering with, and what tamperers do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from making import ORIGIN, Authenticator, Log, approval_object, consumed, granted, ordinary, registered

from aftergate.audit.bundle import Bundle, write_folder
from aftergate.audit.findings import Report
from aftergate.audit.jcs import canonical
from aftergate.audit.notes import Signer
from aftergate.audit.records import Actor, Record
from aftergate.audit.verify import verify_bundle

REAL = Signer(ORIGIN, b"\x07" * 32)
FORGER = Signer(ORIGIN, b"\x08" * 32)
SIZE = 300


def started() -> Record:
    return Record("server.started", actor=Actor("server", "srv-1"), detail={"instance": "srv-1", "interval_ms": 60_000})


def made() -> Log:
    log = Log(REAL)
    key = Authenticator(1)
    log.add(started())
    log.add(registered(key))
    log.add(granted(approval_object(), key))
    log.add(consumed())
    while len(log.leaves) < SIZE:
        n = len(log.leaves)
        beat = Record("heartbeat", actor=Actor("server", "srv-1"), detail={"instance": "srv-1", "interval_ms": 60_000})
        log.add(beat if n % 60 == 0 else ordinary(n))
        if n + 1 in {5, 100, 256, 257}:
            log.sign()
    log.sign()
    return log


LOG = made()
CHECKPOINTS = dict(LOG.export())["checkpoints.jsonl"]


def fresh() -> Log:
    """A copy whose lists can be tampered with."""
    log = Log(REAL)
    log.leaves, log.kept, log.beside = list(LOG.leaves), list(LOG.kept), list(LOG.beside)
    log.checkpoints = list(LOG.checkpoints)
    return log


def checking(tmp_path: Path) -> Callable[..., Report]:
    """A function that writes a log, or the files of a bundle, and verifies them."""

    def run(source: Log | dict[str, bytes], **options: Any) -> Report:
        members = dict(source.export()) if isinstance(source, Log) else source
        folder = tmp_path / f"bundle{len(list(tmp_path.iterdir()))}"
        write_folder(folder, members.items())
        with Bundle(folder) as bundle:
            return verify_bundle(bundle, **options)

    return run


def codes(report: Report) -> set[str]:
    assert report.passed == (not report.failures())
    return {p.code for p in report.failures()}


def renumbered(log: Log, first: int) -> None:
    """What a careful forger does: every later record gets the number and time of its new place."""
    for place in range(first, len(log.leaves)):
        raw = json.loads(log.leaves[place])
        log.leaves[place] = canonical(raw | {"seq": place})


def moved(log: Log, seqs: dict[int, int]) -> None:
    """Keep what stands beside the records with them."""
    log.kept = [(seqs[s], k) for s, k in log.kept if s in seqs]
    log.beside = [(seqs[s], a) for s, a in log.beside if s in seqs]


def edited(log: Log, seq: int, **members: Any) -> None:
    log.leaves[seq] = canonical(json.loads(log.leaves[seq]) | members)
