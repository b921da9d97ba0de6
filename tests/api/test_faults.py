"""What fails around a running server: never a permit that is not recorded; it says what is wrong, and goes on by itself once it can."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from serving import KEY, Server, new_database, postgres

from aftergate.events.clock import to_iso
from aftergate.service.clock import Clock
from aftergate.service.core import Core
from aftergate.settings import Settings

pytestmark = pytest.mark.serving

HIGH = """
@id("all") permit(principal, action, resource);
@id("no-wipe") @risk("high") forbid(principal, action == Action::"wipe", resource) unless { context.live.trust.lowest > 90 };
"""


@pytest.fixture
def risky(tmp_path: Path) -> Path:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "a.cedar").write_text(HIGH)
    return folder


def ask(made: Server, action: str = "read", subject: str = "ada") -> httpx2.Response:
    body = {"subject": {"type": "user", "id": subject}, "action": {"name": action}, "resource": {"type": "doc", "id": "1"}}
    return httpx2.post(
        made.url + "/access/v1/evaluation", json=body, headers={"authorization": f"Bearer {KEY}"}, timeout=30, trust_env=False
    )


def permits(made: Server, action: str = "read") -> bool:
    """Whether it said yes. No answer, or another, is no yes."""
    try:
        answer = ask(made, action)
    except httpx2.HTTPError:
        return False
    return answer.status_code == 200 and answer.json()["decision"] is True


def get(made: Server, path: str) -> httpx2.Response:
    return httpx2.get(made.url + path, headers={"authorization": f"Bearer {KEY}"}, timeout=30, trust_env=False)


def until(what: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


def recorded(data: Path) -> int:
    """How many decisions the log of a stopped server holds, each by itself or in a batch."""
    with sqlite3.connect(data / "aftergate.db") as connection:
        leaves = [
            json.loads(row[0]) for row in connection.execute("SELECT body FROM audit_leaves WHERE type IN ('decision', 'decision.batch')")
        ]
    return sum(leaf["detail"]["count"] if leaf["type"] == "decision.batch" else 1 for leaf in leaves)


def test_a_database_file_that_goes_away_stops_permits_and_comes_back_without_hands(tmp_path: Path, risky: Path) -> None:
    with Server(tmp_path / "s", "--policies", str(risky), "--trust-stale-s", "2") as made:
        assert permits(made)
        away = made.data / "away.db"
        (made.data / "aftergate.db").rename(away)
        assert not permits(made, "wipe")  # what is recorded before its answer has no answer at once
        until(lambda: not permits(made))
        assert get(made, "/readyz").status_code == 503
        assert "moved, removed or replaced" in json.dumps(get(made, "/v1/status").json())
        assert get(made, "/healthz").status_code == 200
        assert "moved, removed or replaced" in made.text()
        assert not (made.data / "aftergate.db").exists()
        away.rename(made.data / "aftergate.db")
        until(lambda: permits(made) and permits(made, "wipe"))
        until(lambda: get(made, "/readyz").status_code == 200)


def test_a_data_directory_removed_under_the_server_gives_no_permit(tmp_path: Path, risky: Path) -> None:
    with Server(tmp_path / "s", "--policies", str(risky), "--trust-stale-s", "2") as made:
        assert permits(made)
        shutil.rmtree(made.data)
        until(lambda: not permits(made))
        assert not permits(made, "wipe")
        for _ in range(20):
            assert not permits(made)


def test_a_postgresql_that_stops_stops_permits_and_comes_back_without_hands(tmp_path: Path, risky: Path) -> None:
    with contextlib.ExitStack() as database:
        uri = new_database(database.enter_context(postgres(tmp_path / "pg")))
        with Server(tmp_path / "s", "--policies", str(risky), "--database", uri, "--trust-stale-s", "2") as made:
            assert permits(made)
            assert permits(made, "wipe")
            database.close()
            assert not permits(made, "wipe")
            until(lambda: not permits(made))
            assert get(made, "/readyz").status_code == 503
            assert "does not answer" in json.dumps(get(made, "/v1/status").json())
            database.enter_context(postgres(tmp_path / "pg"))
            until(lambda: permits(made) and permits(made, "wipe"), 60)
            until(lambda: get(made, "/readyz").status_code == 200)
            assert made.stop() == 0


def test_a_full_disk_stops_permits_and_with_room_they_come_again(tmp_path: Path, risky: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself says that the disk is full (`max_page_count`), in a server's parts run in this process."""
    core = Core.open(Settings(data=str(tmp_path / "data"), policies=str(risky), decision_flush_ms=10))
    core.start()
    try:
        from aftergate.audit.records import Actor
        from aftergate.authz.wire import parse_evaluation
        from aftergate.service.decisions import Asker
        from aftergate.stores.errors import StoreUnavailable

        def decide(action: str) -> bool:
            body = {"subject": {"type": "user", "id": "ada" * 100}, "action": {"name": action}, "resource": {"type": "doc", "id": "1"}}
            raw = json.dumps(body).encode()
            try:
                return core.decider.evaluate(parse_evaluation(raw), Asker("key-1", Actor("api-key", "key-1")), raw).allowed
            except StoreUnavailable:
                return False

        assert decide("wipe")
        full: list[bool] = [True]
        real = core.db._file.connect  # type: ignore[union-attr]

        def connect() -> sqlite3.Connection:
            made = real()
            if full[0]:
                made.execute(f"PRAGMA max_page_count={made.execute('PRAGMA page_count').fetchone()[0]}")
            return made

        monkeypatch.setattr(core.db.engine.pool, "_creator", lambda *_: connect())
        core.db.engine.pool.dispose()
        until(lambda: not decide("wipe"), 60)
        until(lambda: "full" in json.dumps(core.health()))
        full[0] = False
        core.db.engine.pool.dispose()
        until(lambda: decide("wipe"))
        until(lambda: not core.health())
    finally:
        core.close()


def test_a_policy_directory_that_breaks_leaves_the_set_before_in_force_and_is_named(tmp_path: Path, risky: Path) -> None:
    with Server(tmp_path / "s", "--policies", str(risky), "--reload-s", "1") as made:
        assert permits(made)
        (risky / "b.cedar").write_text("forbid(this is not cedar")
        until(lambda: "live policies" in get(made, "/v1/status").json()["problems"])
        assert "b.cedar" in get(made, "/v1/status").json()["problems"]["live policies"]
        assert permits(made)
        assert get(made, "/readyz").status_code == 200
        assert "refused: the set before it stays" in made.text()
        shutil.move(risky, tmp_path / "gone")
        time.sleep(2.5)
        assert permits(made)
        assert "live policies" in get(made, "/v1/status").json()["problems"]
        shutil.move(tmp_path / "gone", risky)
        (risky / "b.cedar").write_text('@id("none") forbid(principal, action, resource);')
        until(lambda: not permits(made))
        until(lambda: get(made, "/v1/status").json()["problems"] == {})


def test_a_signing_key_that_cannot_be_read_at_the_start_is_named(tmp_path: Path, risky: Path) -> None:
    made = Server(tmp_path / "s", "--policies", str(risky)).start()
    assert made.stop() == 0
    keys = [path for path in (made.data / "audit").iterdir() if "key" in path.name and path.is_file()]
    assert keys
    for path in keys:
        path.rename(path.with_suffix(".away"))
        path.mkdir()  # root reads any file whatever its mode
    with pytest.raises(AssertionError, match="ended with 1"):
        made.start()
    assert "Traceback" not in made.text()
    for path in keys:
        path.rmdir()
        path.with_suffix(".away").rename(path)
    with made:
        made.start()
        assert permits(made)


def test_a_clock_turned_back_neither_revives_nor_holds_up() -> None:
    wall, steady = [1_000_000.0], [50.0]
    clock = Clock(wall=lambda: wall[0], steady=lambda: steady[0])
    start = clock()
    steady[0] += 10
    wall[0] += 10
    assert clock() == start + 10_000
    wall[0] -= 3600
    steady[0] += 5
    assert clock() == start + 15_000
    assert clock.behind_ms == pytest.approx(3_605_000, abs=5)
    wall[0] += 7200  # put right, and beyond: it is believed forward
    assert clock() == int(wall[0] * 1000)
    assert clock.behind_ms == 0
    clock.at_least(int(wall[0] * 1000) + 60_000)
    assert clock() == int(wall[0] * 1000) + 60_000


def test_a_server_whose_log_is_ahead_of_its_clock_goes_on_from_there_and_says_so(tmp_path: Path, risky: Path) -> None:
    ahead = int(time.time() * 1000) + 3 * 3_600_000
    data = tmp_path / "s" / "data"
    core = Core.open(Settings(data=str(data), policies=str(risky)), clock=Clock(wall=lambda: ahead / 1000))
    core.keys.create("first", ["decide"], by=_by())
    core.close()
    with Server(tmp_path / "s", "--policies", str(risky)) as made:
        assert permits(made, "wipe")
        status = get(made, "/v1/status").json()
        assert "turned back" in status["problems"]["clock"]
        assert get(made, "/readyz").status_code == 200
        assert made.stop() == 0
    with sqlite3.connect(data / "aftergate.db") as connection:
        times = [json.loads(row[0])["ts"] for row in connection.execute("SELECT body FROM audit_leaves ORDER BY seq")]
    assert times == sorted(times)
    assert times[-1] >= to_iso(ahead)[:19]


def _by() -> Any:
    from aftergate.audit.records import Actor

    return Actor("operator", "test")


def test_a_server_killed_while_it_answers_has_recorded_every_permit_that_must_be(tmp_path: Path, risky: Path) -> None:
    made = Server(tmp_path / "s", "--policies", str(risky)).start()
    told: list[int] = []
    stop = threading.Event()

    def keep_asking() -> None:
        with httpx2.Client(base_url=made.url, headers={"authorization": f"Bearer {KEY}"}, trust_env=False, timeout=10) as client:
            body = {"subject": {"type": "user", "id": "ada"}, "action": {"name": "wipe"}, "resource": {"type": "doc", "id": "1"}}
            while not stop.is_set():
                try:
                    answer = client.post("/access/v1/evaluation", json=body)
                except httpx2.HTTPError:
                    return
                if answer.status_code == 200 and answer.json()["decision"]:
                    told.append(1)

    threads = [threading.Thread(target=keep_asking) for _ in range(4)]
    for each in threads:
        each.start()
    until(lambda: len(told) > 40)
    made.kill()
    stop.set()
    for each in threads:
        each.join()
    assert recorded(made.data) >= len(told)
    with made:
        made.start()
        assert permits(made, "wipe")
        assert get(made, "/readyz").status_code == 200


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes, where this machine lets us make one."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=24m tmpfs {place} 2>/dev/null") != 0:
        pytest.skip("no small file system can be made here: needs root and mount")
    yield place
    os.system(f"umount -l {place}")


def test_a_real_disk_that_fills_up_stops_permits_and_with_room_they_come_again(small_disk: Path, tmp_path: Path, risky: Path) -> None:
    with Server(small_disk / "s", "--policies", str(risky), "--trust-stale-s", "3") as made:  # its log is on that disk too
        assert permits(made, "wipe")
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as out:
            while True:
                out.write(b"x" * 4096)
        until(lambda: not permits(made, "wipe"), 60)
        until(lambda: get(made, "/readyz").status_code == 503)
        filler.unlink()
        until(lambda: permits(made, "wipe"), 60)
        until(lambda: get(made, "/readyz").status_code == 200)
