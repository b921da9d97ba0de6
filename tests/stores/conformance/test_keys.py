"""Callers' keys, on each database."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from aftergate.audit.records import Actor
from aftergate.errors import ConfigError
from aftergate.service.core import Ground
from aftergate.service.keys import SCOPES

BY = Actor("operator", "test")
GOOD = "Zm9vYmFyYmF6cXV4LTEyMzQ1"


def test_a_key_is_known_by_itself_and_kept_only_as_a_keyed_hash(ground: Ground) -> None:
    clear, entry = ground.keys.create("api", ["decide"], by=BY)
    found = ground.keys.find(clear, ground.clock())
    assert found is not None
    assert (found.id, found.scopes) == (entry.id, frozenset({"decide"}))
    with ground.db.read() as connection:
        rows = connection.execute(text("SELECT * FROM api_keys")).all()
    assert clear not in repr(rows)
    assert ground.keys.find(clear[:-1], ground.clock()) is None
    assert ground.keys.find("", ground.clock()) is None


def test_another_process_knows_it_after_looking(ground: Ground, other: Ground) -> None:
    clear, entry = ground.keys.create("api", ["decide"], by=BY)
    assert other.keys.find(clear, other.clock()) is None
    other.keys.refresh()
    assert other.keys.find(clear, other.clock()) is not None
    assert other.keys.revoke(entry.id, by=BY)
    ground.keys.refresh()
    assert ground.keys.find(clear, ground.clock()) is None
    assert not ground.keys.revoke(entry.id, by=BY)


def test_a_look_for_new_keys_is_taken_a_few_times_a_second_at_most(ground: Ground, other: Ground) -> None:
    now = other.clock()
    assert not other.keys.changed(now), "nothing is new"
    ground.keys.create("api", ["decide"], by=BY)
    assert not other.keys.changed(now + 100), "too soon"
    assert other.keys.changed(now + 200)
    assert not other.keys.changed(now + 400)


def test_a_key_revoked_while_it_is_looked_up_is_not_remembered(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    clear, entry = ground.keys.create("api", ["decide"], by=BY)
    known_by = ground.keys.digest

    def slowly(key: str) -> bytes:
        held = known_by(key)
        monkeypatch.setattr(ground.keys, "digest", known_by)
        assert ground.keys.revoke(entry.id, by=BY)
        return held

    monkeypatch.setattr(ground.keys, "digest", slowly)
    ground.keys.find(clear, ground.clock())  # whatever a look-up under way says
    assert ground.keys.find(clear, ground.clock()) is None


def test_a_key_ends_at_its_time(ground: Ground) -> None:
    now = ground.clock()
    clear, _ = ground.keys.create("short", ["decide"], by=BY, expires_ms=now + 60_000)
    assert ground.keys.find(clear, now + 59_999) is not None
    assert ground.keys.find(clear, now + 60_000) is None
    assert ground.keys.usable(now + 60_000) == 0


@pytest.mark.parametrize(
    ("name", "scopes", "key", "expires_ms", "words"),
    [
        ("a", ["decide", "everything"], None, None, "everything"),
        ("a", [], None, None, "scope"),
        ("", ["decide"], None, None, "name"),
        ("a\nb", ["decide"], None, None, "name"),
        ("a" * 201, ["decide"], None, None, "name"),
        ("a", ["decide"], "short", None, "guessed"),
        ("a", ["decide"], "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", None, "guessed"),
        ("a", ["decide"], "ünïcode-key-0123456789-abcdef", None, "ASCII"),
        ("a", ["decide"], None, 1, "ended"),
    ],
)
def test_what_makes_no_good_key_is_refused_and_leaves_nothing(
    ground: Ground, name: str, scopes: list[str], key: str | None, expires_ms: int | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        ground.keys.create(name, scopes, by=BY, key=key, expires_ms=expires_ms)
    assert ground.keys.all() == []


def test_the_same_key_twice_is_refused(ground: Ground) -> None:
    ground.keys.create("a", ["decide"], by=BY, key=GOOD)
    with pytest.raises(ConfigError, match="already"):
        ground.keys.create("b", ["decide"], by=BY, key=GOOD)


def test_making_and_revoking_are_recorded_without_the_key(ground: Ground) -> None:
    clear, entry = ground.keys.create("api", ["decide"], by=BY)
    ground.keys.revoke(entry.id, by=BY)
    with ground.db.read() as connection:
        bodies = "".join(str(row) for row in connection.execute(text("SELECT body FROM audit_leaves ORDER BY seq")))
    assert bodies.count("admin.key.created") == 1
    assert bodies.count("admin.key.revoked") == 1
    assert entry.id in bodies
    assert clear not in bodies


def test_when_a_key_was_last_used_is_written_once_a_minute(ground: Ground) -> None:
    clear, _ = ground.keys.create("api", ["decide"], by=BY)
    at = ground.clock()
    ground.keys.find(clear, at)
    assert ground.keys.all()[0].last_used_ms is None
    ground.keys.tick(at + 1)
    assert ground.keys.all()[0].last_used_ms == at
    ground.keys.find(clear, at + 10)
    ground.keys.tick(at + 20)
    assert ground.keys.all()[0].last_used_ms == at
    ground.keys.tick(at + 60_001)
    assert ground.keys.all()[0].last_used_ms == at + 10


def test_a_key_file_is_taken_in_and_again_changes_nothing(ground: Ground, tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(f"# keys\n{GOOD} api decide,request # of the API\n\n{GOOD}2\n")
    assert ground.keys.take_file(path) == (2, None)
    assert ground.keys.take_file(path) == (2, None)
    first = ground.keys.find(GOOD, ground.clock())
    second = ground.keys.find(GOOD + "2", ground.clock())
    assert first is not None
    assert second is not None
    assert (first.name, first.scopes) == ("api", frozenset({"decide", "request"}))
    assert second.scopes == frozenset(SCOPES)
    assert len(ground.keys.all()) == 2


def test_two_servers_that_start_with_the_same_key_file_both_take_it(ground: Ground, other: Ground, tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("".join(f"{GOOD}{number} n{number}\n" for number in range(10)))
    failed: list[BaseException] = []

    def take(one: Ground) -> None:
        try:
            one.keys.take_file(path)
        except BaseException as error:  # noqa: BLE001  told below
            failed.append(error)

    threads = [threading.Thread(target=take, args=(one,)) for one in (ground, other)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failed == []
    assert len(ground.keys.all()) == 10


def test_a_missing_key_file_is_made_for_its_owner_only(ground: Ground, tmp_path: Path) -> None:
    path = tmp_path / "new" / "keys.txt"
    assert ground.keys.take_file(path) == (1, str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    clear = path.read_text().splitlines()[1].split()[0]
    assert ground.keys.find(clear, ground.clock()) is not None


def test_a_revoked_key_stays_so_although_the_file_still_holds_it(ground: Ground, tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(f"{GOOD} api\n")
    ground.keys.take_file(path)
    ground.keys.revoke(ground.keys.all()[0].id, by=BY)
    ground.keys.take_file(path)
    assert ground.keys.find(GOOD, ground.clock()) is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no key"),
        (b"# only a comment\n", "holds no key"),
        (b"short\n", "txt:1.*guessed"),
        (b"Zm9vYmFyYmF6cXV4LTEyMzQ1 name decide, request\n", "txt:1.*more than"),
        (b"Zm9vYmFyYmF6cXV4LTEyMzQ1 name nonsense\n", "txt:1.*nonsense"),
        (b"Zm9vYmFyYmF6cXV4LTEyMzQ1 a\nZm9vYmFyYmF6cXV4LTEyMzQ1 b\n", "txt:2.*again"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_a_key_file_that_cannot_be_used_says_where_and_why(ground: Ground, tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "keys.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as refused:
        ground.keys.take_file(path)
    assert refused.value.advice()
    assert "Zm9v" not in str(refused.value)


def test_a_folder_in_place_of_the_key_file_is_named(ground: Ground, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the key file"):
        ground.keys.take_file(tmp_path)


def test_other_scopes_for_a_known_key_are_refused(ground: Ground, tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(f"{GOOD} api decide\n")
    ground.keys.take_file(path)
    path.write_text(f"{GOOD} api decide,admin\n")
    with pytest.raises(ConfigError, match="other scopes"):
        ground.keys.take_file(path)
    held = ground.keys.find(GOOD, ground.clock())
    assert held is not None
    assert held.scopes == frozenset({"decide"})


def test_another_data_directory_for_the_same_database_is_refused(ground: Ground, tmp_path: Path) -> None:
    from msgspec.structs import replace

    with pytest.raises(ConfigError, match="another key file"):
        Ground.open(replace(ground.settings, data=str(tmp_path / "elsewhere"), database=ground.settings.database_url()))
