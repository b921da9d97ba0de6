"""Findings, change counters and used-once identifiers, on each database."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from sqlalchemy import text

from aftergate.audit.records import Actor
from aftergate.events.clock import to_iso
from aftergate.service import findings as service
from aftergate.service.core import Ground
from aftergate.service.trust import TrustView
from aftergate.stores import findings as store
from aftergate.stores.used import first_use, forget

BY = Actor("api-key", "key-1")


def at(hours: float) -> str:
    """A time so many hours from now."""
    return to_iso(int(time.time() * 1000 + hours * 3_600_000))


def line(id_: str = "f-1", severity: str = "high", when: str = "", **more: Any) -> bytes:
    told = {
        "id": id_,
        "detection": "tok-family-fork",
        "severity": severity,
        "time": when or NOW,
        "title": "t",
        "subject": {"identity": "ada"},
        **more,
    }
    return json.dumps(told).encode()


NOW = at(-1)


def send(ground: Ground, *lines: bytes) -> service.Received:
    return service.receive(ground, list(enumerate(lines, 1)), by=BY)


def view(ground: Ground) -> TrustView:
    made = TrustView(ground.db, ground.clock, 15_000)
    made.refresh()
    return made


def test_a_finding_lowers_trust_in_whom_it_names_and_in_nobody_else(ground: Ground) -> None:
    send(ground, line(subject={"identity": "ada", "session": ["s-1", "s-2"], "credential": "c-1"}))
    held = view(ground)
    assert held.of(["ada"]).identity < 100
    assert held.of(["bob"], ["s-2"]).session < 100
    assert held.of(["bob"], ["s-3"], ["c-1"]).credential < 100
    assert held.of(["bob"], ["s-3"], ["c-2"]).lowest == 100
    assert held.of(["ada"]).findings == ("tok-family-fork",)


def test_the_same_again_changes_nothing(ground: Ground) -> None:
    assert send(ground, line()).new == 1
    before = ground.db.versions()
    again = send(ground, line(), line())
    assert (again.new, again.known) == (0, 2)
    assert ground.db.versions() == before


def test_one_that_got_worse_is_renewed_and_one_that_looks_better_is_not(ground: Ground) -> None:
    send(ground, line(severity="medium"))
    assert send(ground, line(severity="high", when=at(-0.5))).new == 1
    assert send(ground, line(severity="low", when=at(-0.1))).new == 0
    assert send(ground, line(severity="high", when=at(-9))).new == 0
    with ground.db.read() as connection:
        assert json.loads(store.listed(connection)[0].body)["severity"] == "high"


def test_a_closed_one_no_longer_counts_and_opens_again_when_the_abuse_went_on(ground: Ground) -> None:
    send(ground, line())
    assert service.close(ground, "f-1", "looked into", by=BY)
    assert not service.close(ground, "f-1", "again", by=BY)
    assert view(ground).of(["ada"]).lowest == 100
    assert send(ground, line(title="another title")).new == 0
    assert view(ground).of(["ada"]).lowest == 100
    assert send(ground, line(when=at(1))).new == 1
    assert view(ground).of(["ada"]).lowest < 100


def test_another_process_sees_it_after_looking_and_a_transaction_at_once(ground: Ground, other: Ground) -> None:
    theirs = view(other)
    send(ground, line())
    assert theirs.of(["ada"]).lowest == 100
    with other.db.read() as connection:
        assert theirs.read(connection, ["ada"]).lowest < 100
    theirs.refresh()
    assert theirs.of(["ada"]).lowest < 100


def test_findings_and_their_record_are_one_transaction(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise RuntimeError("no record")

    monkeypatch.setattr(ground.audit, "append", failing)
    with pytest.raises(RuntimeError):
        send(ground, line())
    assert view(ground).of(["ada"]).lowest == 100
    with ground.db.read() as connection:
        assert store.listed(connection) == []


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"not json", "not JSON"),
        (b"[]", "object"),
        (b'{"id":"f"}', "detection"),
        (line(severity="terrible"), "terrible|Invalid enum"),
        (line(when="yesterday"), "time|yesterday"),
        (line(subject={}), "names no"),
        (line(subject={"identity": [f"n{n}" for n in range(2000)]}), "more than"),
        (line(subject={"identity": 7}), "subject|str"),
        (line(id_="x" * 65), "length|64"),
        (line(id_="a b"), "pattern|match"),
        (line(title="a\0b"), "NUL"),
        (b'{"id":"f-2","id":"f-3"}', "twice"),
        (b'{"a":' * 50 + b"1" + b"}" * 50, "deep"),
        (line(title="x" * 300_000), "longer"),
    ],
)
def test_a_line_that_is_no_finding_is_set_aside_by_its_number_and_the_rest_is_taken(ground: Ground, bad: bytes, words: str) -> None:
    import re

    got = send(ground, line(), bad, line("f-9"))
    assert (got.received, got.new, got.known) == (3, 2, 0)
    assert [each.line for each in got.set_aside] == [2]
    assert re.search(words, got.set_aside[0].problem), got.set_aside[0].problem


def test_secrets_in_a_finding_are_masked_before_it_is_kept(ground: Ground) -> None:
    token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJlLW9mLWl0"
    send(ground, line(narrative=f"used {token} with password=hunter2", subject={"identity": "ada", "credential": f"Bearer {token}"}))
    with ground.db.read() as connection:
        everything = repr(connection.execute(text("SELECT * FROM findings")).all()) + repr(
            connection.execute(text("SELECT * FROM finding_subjects")).all()
        )
    assert token not in everything
    assert "hunter2" not in everything
    assert "ada" in everything


def test_pages_show_each_finding_once_newest_first(ground: Ground) -> None:
    send(ground, *(line(f"f-{number}") for number in range(5)))
    service.close(ground, "f-3", "x", by=BY)
    with ground.db.read() as connection:
        first = store.listed(connection, limit=2)
        rest = store.listed(connection, limit=10, before=first[-1].number)
        every = store.listed(connection, open_only=False)
        about = store.listed(connection, subject="ada")
        none = store.listed(connection, subject="bob")
    assert [json.loads(one.body)["id"] for one in [*first, *rest]] == ["f-4", "f-2", "f-1", "f-0"]
    assert len(every) == 5
    assert next(one for one in every if one.closed_ms is not None).closed_by == "api-key:key-1"
    assert len(about) == 4
    assert none == []


def test_of_many_that_send_the_same_at_once_one_is_new(ground: Ground, other: Ground) -> None:
    results: list[service.Received] = []

    def work(one: Ground) -> None:
        results.append(send(one, *(line(f"f-{number}") for number in range(20))))

    threads = [threading.Thread(target=work, args=(one,)) for one in (ground, other, ground, other)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sum(result.new for result in results) == 20
    assert sum(result.known for result in results) == 60


def test_an_id_is_used_once_also_by_many_at_the_same_time(ground: Ground) -> None:
    first: list[bool] = []

    def work() -> None:
        with ground.db.write() as connection:
            first.append(first_use(ground.db, connection, "jti", "abc", ground.clock() + 60_000))

    threads = [threading.Thread(target=work) for _ in range(12)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(first) == [False] * 11 + [True]
    with ground.db.write() as connection:
        assert first_use(ground.db, connection, "other kind", "abc", 1)
        assert forget(connection, ground.clock()) == 1
        assert not first_use(ground.db, connection, "jti", "abc", 1)
        assert forget(connection, ground.clock() + 60_001) == 1
        assert first_use(ground.db, connection, "jti", "abc", 1)


def test_a_use_that_is_undone_does_not_count(ground: Ground) -> None:
    with pytest.raises(RuntimeError), ground.db.write() as connection:
        assert first_use(ground.db, connection, "jti", "abc", 1)
        raise RuntimeError
    with ground.db.write() as connection:
        assert first_use(ground.db, connection, "jti", "abc", 1)


def test_counters_rise_with_each_change_and_are_undone_with_it(ground: Ground, other: Ground) -> None:
    for _ in range(3):
        with ground.db.write() as connection:
            ground.db.touch(connection, "a")
    with pytest.raises(RuntimeError), ground.db.write() as connection:
        ground.db.touch(connection, "a")
        raise RuntimeError
    assert other.db.versions()["a"] == 3
