"""Beside `test_faults.py`: other writers, a server log that cannot be written, ends in the middle of a burst. Never a permit that is not recorded."""

from __future__ import annotations

import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "approvals"))
from faulty import House
from serving import started_in_vain, until

pytestmark = pytest.mark.serving


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One server for the faults after which it must be as before."""
    with House(tmp_path_factory.mktemp("house")) as made:
        yield made


def test_another_file_in_the_database_s_place_is_not_written_to(house: House, tmp_path: Path) -> None:
    assert house.permitted()
    other = House(tmp_path / "other")
    with other:
        pass
    with closing(sqlite3.connect(other.file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    held = other.leaves()
    away = house.file.with_name("away.db")
    house.file.rename(away)
    shutil.copy(other.file, house.file)
    try:
        assert house.ask() == 503
        until(lambda: house.ask("read") == 503)
        until(lambda: any("replaced" in words for words in house.problems().values()))
        shutil.copy(house.file, tmp_path / "after.db")
        assert other.leaves(file=tmp_path / "after.db") == held
    finally:
        away.replace(house.file)
    until(house.permitted)
    house.proven(tmp_path)


def test_another_writer_s_short_lock_is_waited_for(house: House, tmp_path: Path) -> None:
    with closing(sqlite3.connect(house.file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(1.0, other.execute, ["ROLLBACK"])
        release.start()
        began = time.monotonic()
        assert house.permitted()
        assert time.monotonic() - began > 0.8, "it was answered after it was recorded"
        release.join()
    house.proven(tmp_path)


@pytest.mark.slow
def test_another_writer_s_long_lock_is_no_permit(house: House, tmp_path: Path) -> None:
    with closing(sqlite3.connect(house.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert house.ask() == 503
        assert house.ask("read") == 503
        assert house.http.get("/healthz", timeout=2).status_code == 200
        assert "decisions" in house.unready()
        other.execute("ROLLBACK")
    until(house.permitted)
    until(lambda: not house.unready())
    house.proven(tmp_path)


def test_a_server_log_that_cannot_be_written_ends_no_thread(tmp_path: Path) -> None:
    """No file can be written any more, the server's own log included: that must not end the threads which others wait for, nor the stop."""
    with House(tmp_path / "house") as house:
        assert house.permitted()
        assert house.server.process is not None
        before = resource.prlimit(house.server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(house.server.process.pid, resource.RLIMIT_FSIZE, (1, before[1]))
        assert [house.ask() for _ in range(5)] == [503] * 5
        until(lambda: house.ask("read") == 503)
        until(lambda: "decisions" in house.unready())
        time.sleep(1)
        resource.prlimit(house.server.process.pid, resource.RLIMIT_FSIZE, before)
        until(lambda: house.permitted() and house.permitted("read"))
        until(lambda: not house.unready() and not house.problems())
        house.proven(tmp_path)
        assert house.server.stop() == 0


def test_sigterm_with_requests_under_way_ends_well_and_loses_nothing(tmp_path: Path) -> None:
    with House(tmp_path / "house") as house:

        def stop() -> None:
            assert house.server.process is not None
            house.server.process.send_signal(signal.SIGTERM)

        answers = house.burst(300, meanwhile=stop)
        assert house.server.stop() == 0
        assert set(answers) <= {0, 200, 503}
        assert 200 in answers
        assert house.permits <= house.recorded()
        assert house.leaves()[-1]["type"] == "server.stopped"
        assert "Traceback" not in house.server.text()
        house.again()
        house.proven(tmp_path)


@pytest.mark.slow
def test_killed_within_uses_of_approvals_the_export_verifies_and_none_is_used_twice(tmp_path: Path) -> None:
    from remote import Remote, numbered

    with Remote(tmp_path) as remote:
        port = int(remote.url.rpartition(":")[2])
        remote.person("bob", "finance")
        for n, approval in enumerate([remote.approved(numbered(n)) for n in range(3)]):
            killer = threading.Timer(0.05 + 0.03 * n, remote.server.kill)
            killer.start()
            permits = remote.many(approval, numbered(n), 40, [remote.url], width=8)
            killer.join()
            remote.server.start(port=port)
            assert sum(permits) <= len(remote.uses(approval)) <= 1
            remote.use(numbered(n), approval)
            assert len(remote.uses(approval)) == 1
            assert remote.use(numbered(n), approval)["decision"] is False
        bundle = tmp_path / "export.tar.gz"
        bundle.write_bytes(remote.http.get("/v1/audit/export").content)
        command = [sys.executable, "-m", "aftergate.cli.main", "audit", "verify", str(bundle)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"# only a comment\n", "holds no key"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"good-key-0123456789-abcdefgh a decide\ngood-key-0123456789-abcdefgh b decide\n", "the key of line 1 again"),
        (b"good-key-0123456789-abcdefgh a decide,nonsense\n", "keys.txt:1"),
    ],
)
def test_a_key_file_that_cannot_be_used_is_told_and_nothing_listens(content: bytes, said: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_bytes(content)
    done = started_in_vain(tmp_path, "--api-key-file", str(keys))
    assert done.returncode == 1
    assert said in done.stderr
    for never in ("Traceback", "listening", "good-key"):
        assert never not in done.stderr
