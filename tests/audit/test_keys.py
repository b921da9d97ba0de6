"""The log's key: kept, rotated, lost, damaged; and a disk that is full."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from keeping import ORIGIN, Clock, add, verified
from making import ordinary

from aftergate.audit.notes import open_checkpoint
from aftergate.audit.records import Actor
from aftergate.errors import ConfigError
from aftergate.stores.audit_log import AuditLog
from aftergate.stores.database import Database

pytestmark = pytest.mark.serving


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Keys lie in files: which database there is makes no difference."""
    return f"sqlite:///{tmp_path}/a.db"


def test_the_key_is_its_owners_only_and_made_once(log: AuditLog, database: Database, tmp_path: Path, clock: Clock) -> None:
    keys = list((tmp_path / "audit").glob("key-*"))
    assert len(keys) == 1
    assert keys[0].stat().st_mode & 0o777 == 0o600
    secret = keys[0].read_bytes()
    AuditLog.at(database, tmp_path / "audit", ORIGIN, clock)
    assert [k.read_bytes() for k in (tmp_path / "audit").glob("key-*")] == [secret]


def damage(folder: Path, how: str) -> None:
    key = next(folder.glob("key-*"))
    match how:
        case "key gone":
            key.unlink()
        case "key cut":
            key.write_text("PRIVATE+KEY+", "utf-8")
        case "key of another":
            from aftergate.audit.notes import Signer

            key.write_text(Signer(ORIGIN, b"\x05" * 32).encode(), "utf-8")
        case "windows gone":
            (folder / "keys.json").unlink()
        case "windows damaged":
            (folder / "keys.json").write_text("{}", "utf-8")
        case "key a folder":
            key.unlink()
            key.mkdir()


@pytest.mark.parametrize("how", ["key gone", "key cut", "key of another", "windows gone", "windows damaged", "key a folder"])
def test_a_log_without_its_key_says_so_and_does_not_open(log: AuditLog, database: Database, tmp_path: Path, clock: Clock, how: str) -> None:
    add(log, ordinary(1))
    log.checkpoint()
    damage(tmp_path / "audit", how)
    with pytest.raises(ConfigError) as caught:
        AuditLog.at(database, tmp_path / "audit", ORIGIN, clock)
    assert "rotate --lost" in caught.value.advice()
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file; the same refusal is tested with a folder in the key's place")
def test_an_unreadable_key_says_so(log: AuditLog, database: Database, tmp_path: Path, clock: Clock) -> None:
    next((tmp_path / "audit").glob("key-*")).chmod(0)
    with pytest.raises(ConfigError, match="cannot read"):
        AuditLog.at(database, tmp_path / "audit", ORIGIN, clock)


def test_a_log_keeps_its_name(log: AuditLog, database: Database, tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(ConfigError, match="begun as"):
        AuditLog.at(database, tmp_path / "audit", "another.example", clock)
    with pytest.raises(ConfigError, match="cannot name"):
        AuditLog.at(database, tmp_path / "elsewhere", "two words", clock)
    assert AuditLog.at(database, tmp_path / "audit", "", clock).signer.ring.origin == ORIGIN


def test_another_logs_keys_are_refused(log: AuditLog, database: Database, tmp_path: Path, clock: Clock) -> None:
    add(log, ordinary(1))
    log.checkpoint()
    AuditLog.at(Database.open(f"sqlite:///{tmp_path}/c.db"), tmp_path / "third", "third.example", clock).database.close()
    with pytest.raises(ConfigError, match="begun as"):
        AuditLog.at(database, tmp_path / "third", "", clock)
    stranger = AuditLog.at(database, tmp_path / "third", "third.example", clock)
    assert "holds the log" in str(stranger.problem())


def test_keys_rotate_with_overlap_and_every_head_still_verifies(log: AuditLog, clock: Clock, tmp_path: Path) -> None:
    old = log.signer.ring.keys[0].verifier
    add(log, ordinary(1))
    log.checkpoint()
    vkey = log.rotate(60_000, by=Actor("operator", "cli"))
    _, _, both = open_checkpoint(log.latest() or b"", log.signer.ring.verifiers)
    assert {v.vkey for v in both} == {old.vkey, vkey}
    clock.now += 120_000
    add(log, ordinary(2))
    _, _, one = open_checkpoint(log.checkpoint(), log.signer.ring.verifiers)
    assert [v.vkey for v in one] == [vkey]
    report = verified(log, tmp_path, strict=True)
    assert report.passed, report.problems
    other = AuditLog.at(log.database, tmp_path / "audit", ORIGIN, clock)
    assert [k.until_ms is None for k in other.signer.ring.keys] == [False, True]


def test_a_lost_key_ends_at_once(log: AuditLog, database: Database, clock: Clock, tmp_path: Path) -> None:
    add(log, ordinary(1))
    log.checkpoint()
    next((tmp_path / "audit").glob("key-*")).unlink()
    log.rotate(60_000, by=Actor("operator", "cli"), lost=True)
    assert len(list((tmp_path / "audit").glob("key-*"))) == 1
    again = AuditLog.at(database, tmp_path / "audit", ORIGIN, clock)
    add(again, ordinary(2))
    again.checkpoint()
    assert verified(again, tmp_path).passed


def test_a_key_rotated_by_one_process_is_used_by_the_other(log: AuditLog, database: Database, clock: Clock, tmp_path: Path) -> None:
    other = AuditLog.at(database, tmp_path / "audit", ORIGIN, clock)
    vkey = log.rotate(0, by=Actor("operator", "cli"))
    clock.now += 10
    add(other, ordinary(1))
    _, _, by = open_checkpoint(other.checkpoint(), log.signer.ring.verifiers)
    assert [v.vkey for v in by] == [vkey]


def test_a_full_disk_gives_out_no_checkpoint(log: AuditLog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add(log, ordinary(1))

    def full(_handle: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ConfigError, match="No space left"):
        log.checkpoint()
    monkeypatch.undo()
    assert log.latest() is None
    log.checkpoint()
    assert verified(log, tmp_path).passed
