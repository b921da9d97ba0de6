"""The log in a database, the same on SQLite and PostgreSQL: appended within transactions, signed, proven, exported."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from keeping import ORIGIN, Clock, add, verified
from making import Authenticator, approval_object, consumed, granted, ordinary, registered

from aftergate.audit.errors import BadRecord
from aftergate.audit.merkle import EMPTY_ROOT, verify_consistency
from aftergate.audit.notes import open_checkpoint
from aftergate.audit.records import Record
from aftergate.stores.audit_log import AuditLog
from aftergate.stores.audit_reading import Tables
from aftergate.stores.database import Database

pytestmark = pytest.mark.serving


def test_what_is_appended_verifies_offline(log: AuditLog, tmp_path: Path) -> None:
    key = Authenticator()
    assert add(log, registered(key), granted(approval_object(), key), consumed()) == [0, 1, 2]
    first = log.checkpoint()
    assert add(log, *[ordinary(n) for n in range(600)])[-1] == 602
    log.checkpoint()
    report = verified(log, tmp_path, known=[("kept", first)], strict=True)
    assert report.passed, report.problems
    assert report.size == 603
    assert report.counts == {"admin.authenticator.added": 1, "approval.consumed": 1, "approval.granted": 1, "decision": 600}


def test_an_empty_log_has_the_empty_root_and_appending_nothing_adds_nothing(log: AuditLog) -> None:
    assert (log.head().size, log.head().root) == (0, EMPTY_ROOT)
    assert add(log) == []
    assert log.latest() is None
    checkpoint, _, _ = open_checkpoint(log.checkpoint(), log.signer.ring.verifiers)
    assert (checkpoint.origin, checkpoint.size, checkpoint.root) == (ORIGIN, 0, EMPTY_ROOT)


def test_a_transaction_that_fails_leaves_no_record_and_no_gap(log: AuditLog, tmp_path: Path) -> None:
    add(log, ordinary(1))

    def fails() -> None:
        with log.database.write() as connection:
            assert log.append(connection, [ordinary(2), ordinary(3)]) == [1, 2]
            assert log.append(connection, [ordinary(4)]) == [3]
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        fails()
    assert add(log, ordinary(5)) == [1]
    log.checkpoint()
    assert verified(log, tmp_path).passed


def test_two_appends_in_one_transaction_follow_each_other(log: AuditLog) -> None:
    with log.database.write() as connection:
        assert log.append(connection, [ordinary(1)]) == [0]
        assert log.append(connection, [ordinary(2), ordinary(3)]) == [1, 2]
    assert log.head().size == 3


def test_a_record_that_cannot_be_kept_refuses_the_whole_transaction(log: AuditLog) -> None:
    with pytest.raises(BadRecord), log.database.write() as connection:
        log.append(connection, [ordinary(1), Record("nonsense")])
    assert log.head().size == 0


def test_several_writers_build_one_tree_without_gaps(log: AuditLog, url: str, tmp_path: Path, clock: Clock) -> None:
    """Each thread is a server process of its own: its own connections, its own hold on the log."""
    problems: list[BaseException] = []

    def write() -> None:
        try:
            mine = Database.open(url, migrate=False)
            own = AuditLog.at(mine, tmp_path / "audit", ORIGIN, clock)
            for n in range(15):
                add(own, ordinary(n), ordinary(n))
                if n % 5 == 0:
                    own.checkpoint()
            mine.close()
        except BaseException as error:  # noqa: BLE001  whatever a thread dies of
            problems.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert log.head().size == 120
    log.checkpoint()
    assert verified(log, tmp_path, strict=True).passed


def test_every_record_and_every_earlier_size_is_proven(log: AuditLog) -> None:
    add(log, *[ordinary(n) for n in range(300)])
    checkpoint, _, verifiers = open_checkpoint(log.checkpoint(), log.signer.ring.verifiers)
    with log.database.read() as connection:
        tables = Tables(connection)
        entries = tables.entries(0, 300)
        roots = {old: tables.root(old) for old in (1, 100, 256, 299, 300)}
    for seq in (0, 1, 255, 256, 299):
        assert log.inclusion(seq).verify(entries[seq], verifiers, ORIGIN) == checkpoint
    for old, root in roots.items():
        assert verify_consistency(old, 300, root, checkpoint.root, log.consistency(old, 300))
    add(log, ordinary(1))
    with pytest.raises(ValueError, match="no such leaf"):
        log.inclusion(300)
    with pytest.raises(ValueError, match="not that long"):
        log.consistency(1, 302)


def test_the_same_head_is_not_signed_twice(log: AuditLog) -> None:
    add(log, ordinary(1))
    first = log.checkpoint()
    assert log.checkpoint() == first
    assert log.latest() == first
    assert (log.signer.folder / "checkpoints").read_bytes().count(b"\n") == 1


def test_a_clock_turned_back_never_disorders_the_log_and_is_recorded(log: AuditLog, clock: Clock, tmp_path: Path) -> None:
    add(log, ordinary(1))
    clock.now -= 3_600_000
    add(log, ordinary(2), ordinary(3))
    assert log.skew_ms >= 3_590_000
    with log.database.read() as connection:
        entries = Tables(connection).read([0, 1, 2])
    assert entries[0].ms <= entries[1].ms == entries[2].ms
    assert entries[1].raw is not None
    assert entries[1].raw["detail"]["clock_skew_ms"] == log.skew_ms
    log.checkpoint()
    report = verified(log, tmp_path)
    assert report.passed
    assert [p.code for p in report.problems if p.severity == "warning"] == ["clock"]
    clock.now += 7_200_000
    add(log, ordinary(4))
    assert log.skew_ms == 0


def test_heartbeats_and_checkpoints_come_when_due(log: AuditLog, clock: Clock, tmp_path: Path) -> None:
    log.tick(clock())
    for _ in range(10):
        clock.now += 60_000
        log.tick(clock())
    log.close()
    with log.database.read() as connection:
        types = [e.type for e in Tables(connection).latest(50)]
    assert types == ["server.started", "heartbeat", "heartbeat", "server.stopped"]
    report = verified(log, tmp_path, strict=True)
    assert report.passed, report.problems
    log.close()
    assert log.head().size == 4, "a second stop is not one"


def test_batches_are_cheap(log: AuditLog) -> None:
    """A floor low enough for a shared machine: the benchmark writes down the real figure."""
    records = [ordinary(n) for n in range(2000)]
    began = time.perf_counter()
    add(log, *records)
    assert 2000 / (time.perf_counter() - began) > 1000
