"""A database put back, changed underneath or forked is noticed, refused, and never signed over."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from keeping import ORIGIN, Clock, add, verified
from making import ordinary
from sqlalchemy import delete, update

from aftergate.audit.records import Actor
from aftergate.errors import ConfigError
from aftergate.stores.audit_log import AuditLog
from aftergate.stores.database import Database
from aftergate.stores.errors import LogRefused
from aftergate.stores.tables.audit import audit_head, audit_leaves, audit_nodes

pytestmark = pytest.mark.serving


def copy_database(url: str, log: AuditLog, tmp_path: Path) -> None:
    """What an operator's backup does; SQLite only."""
    with log.database.read() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(tmp_path / "a.db", tmp_path / "backup.db")


def test_a_database_put_back_is_noticed_and_refused_until_it_is_put_right(tmp_path: Path, clock: Clock) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    database = Database.open(url)
    log = AuditLog.at(database, tmp_path / "audit", ORIGIN, clock)
    add(log, *[ordinary(n) for n in range(5)])
    log.checkpoint()
    copy_database(url, log, tmp_path)
    add(log, *[ordinary(n) for n in range(5)])
    log.checkpoint()
    database.close()
    shutil.copy(tmp_path / "a.db", tmp_path / "good.db")

    def put(name: str) -> Database:
        for each in tmp_path.glob("a.db*"):
            each.unlink()
        shutil.copy(tmp_path / name, tmp_path / "a.db")
        return Database.open(url)

    back = put("backup.db")
    again = AuditLog.at(back, tmp_path / "audit", ORIGIN, clock)
    with pytest.raises(LogRefused, match="put back to an older state"):
        add(again, ordinary(9))
    with pytest.raises(LogRefused):
        again.checkpoint()
    with pytest.raises(LogRefused):
        again.tick(clock())
    assert "older state" in str(again.problem())
    assert again.head().size == 5, "nothing was written"
    back.close()

    good = put("good.db")
    healed = AuditLog.at(good, tmp_path / "audit", ORIGIN, clock)
    assert healed.problem() is None
    assert add(healed, ordinary(9)) == [10]
    good.close()


def test_records_written_anew_after_a_rollback_are_a_fork_and_refused(tmp_path: Path, clock: Clock) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    database = Database.open(url)
    log = AuditLog.at(database, tmp_path / "audit", ORIGIN, clock)
    add(log, ordinary(1))
    log.checkpoint()
    # Somebody with the database, and another folder of keys, writes another history.
    add(log, *[ordinary(n) for n in range(4)])
    other = AuditLog.at(Database.open(f"sqlite:///{tmp_path}/b.db"), tmp_path / "other", ORIGIN, clock)
    add(other, *[ordinary(n + 50) for n in range(9)])
    other.database.close()
    database.close()
    for each in tmp_path.glob("a.db*"):
        each.unlink()
    shutil.copy(tmp_path / "b.db", tmp_path / "a.db")
    forked = AuditLog.at(Database.open(url), tmp_path / "audit", ORIGIN, clock)
    with pytest.raises(LogRefused, match="changed or forked"):
        add(forked, ordinary(2))
    forked.database.close()


@pytest.mark.parametrize("what", ["leaf", "node", "head", "gone"])
def test_a_database_changed_underneath_is_not_signed_over(log: AuditLog, what: str) -> None:
    add(log, *[ordinary(n) for n in range(600)])
    log.checkpoint()
    add(log, ordinary(1))
    with log.database.write() as connection:
        match what:
            case "leaf":
                connection.execute(update(audit_leaves).where(audit_leaves.c.seq == 599).values(hash=bytes(32)))
            case "node":
                connection.execute(update(audit_nodes).where(audit_nodes.c.place == 0).values(hash=bytes(32)))
            case "gone":
                connection.execute(delete(audit_leaves).where(audit_leaves.c.seq == 599))
            case _:
                connection.execute(update(audit_head).values(signed_root=bytes(32)))
    with pytest.raises(LogRefused):
        log.checkpoint()
    assert (log.signer.folder / "checkpoints").read_bytes().count(b"\n") == 1


def test_a_leaf_changed_after_the_last_checkpoint_is_not_signed(log: AuditLog) -> None:
    add(log, ordinary(1))
    log.checkpoint()
    add(log, ordinary(2))
    with log.database.write() as connection:
        connection.execute(update(audit_leaves).where(audit_leaves.c.seq == 1).values(hash=bytes(32)))
    with pytest.raises(LogRefused, match="not those its head was built from"):
        log.checkpoint()


def test_a_damaged_head_refuses(log: AuditLog) -> None:
    add(log, ordinary(1))
    with log.database.write() as connection:
        connection.execute(update(audit_head).values(size=7))
    with pytest.raises(LogRefused, match="damaged"):
        add(log, ordinary(2))


def test_a_crash_between_file_and_database_does_no_harm(
    log: AuditLog, database: Database, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(log, ordinary(1))
    remember = log.signer.remember

    def then_die(*arguments: Any) -> None:
        remember(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(log.signer, "remember", then_die)
    with pytest.raises(KeyboardInterrupt):
        log.checkpoint()
    with (tmp_path / "audit" / "checkpoints").open("ab") as out:
        out.write(b'{"size": 99, "note": "cut sho')
    again = AuditLog.at(database, tmp_path / "audit", ORIGIN, clock)
    assert again.problem() is None
    add(again, ordinary(2))
    again.checkpoint()
    assert again.signer.last() is not None
    assert again.signer.last().size == 2  # type: ignore[union-attr]  # as the line above says
    assert verified(again, tmp_path).passed


def test_lost_records_can_be_left_behind_under_a_new_name(tmp_path: Path, clock: Clock) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    database = Database.open(url)
    log = AuditLog.at(database, tmp_path / "audit", ORIGIN, clock)
    add(log, ordinary(1))
    log.checkpoint()
    with pytest.raises(ConfigError, match="nothing to restart"):
        log.restart("for fun", by=Actor("operator", "cli"))
    copy_database(url, log, tmp_path)
    add(log, ordinary(2))
    kept = log.checkpoint()
    database.close()
    for each in tmp_path.glob("a.db*"):
        each.unlink()
    shutil.copy(tmp_path / "backup.db", tmp_path / "a.db")
    again = AuditLog.at(Database.open(url), tmp_path / "audit", "", clock)
    assert again.problem() is not None
    assert again.restart("the disk died", by=Actor("operator", "cli")) == ORIGIN + "~2"
    assert add(again, ordinary(3)) == [2]
    again.checkpoint()
    report = verified(again, tmp_path)
    assert report.passed, report.problems
    assert report.origin == ORIGIN + "~2"
    assert [p.code for p in verified(again, tmp_path, known=[("kept", kept)]).failures()] == ["wrong-key"]
    assert len(list(tmp_path.glob("audit-ended-*"))) == 1
    again.database.close()


def test_heads_that_another_process_signs_meanwhile_are_no_disagreement(
    log: AuditLog, url: str, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    import aftergate.stores.audit_log as module

    add(log, ordinary(1))
    log.checkpoint()
    other = AuditLog.at(Database.open(url, migrate=False), tmp_path / "audit", ORIGIN, clock)
    real = module.read_head

    def then_the_other_goes_on(*arguments: Any, **more: Any) -> Any:
        head = real(*arguments, **more)
        monkeypatch.setattr(module, "read_head", real)
        add(other, ordinary(2))
        other.checkpoint()
        return head

    monkeypatch.setattr(module, "read_head", then_the_other_goes_on)
    log.recheck()
    assert log.problem() is None
    other.rotate(0, by=Actor("operator", "cli"))
    clock.now += 10
    add(other, ordinary(3))
    other.checkpoint()
    log.recheck()
    assert log.problem() is None
    assert add(log, ordinary(4)) == [4]
    log.checkpoint()
    other.database.close()
