"""Decisions on their way into the log: what is durable when, and what happens when it cannot be written."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from aftergate.audit.records import Actor, Record
from aftergate.authz.decide import Decision
from aftergate.authz.facts import Facts, TrustFacts
from aftergate.authz.wire import ActionRef, Entity, EvaluationRequest
from aftergate.service import decision_log as module
from aftergate.service.decision_log import Decided, DecisionLog
from aftergate.stores.errors import StoreUnavailable


class Store:
    """Takes records, or fails as told. `poison` is a subject id whose record cannot be written."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.broken = False
        self.poison = ""
        self.commits = 0
        self.hold = threading.Event()
        self.hold.set()
        self.db = self
        self.audit = self

    @contextmanager
    def write(self) -> Iterator[list[Record]]:
        if self.broken:
            raise StoreUnavailable("away")
        pending: list[Record] = []
        yield pending
        self.hold.wait(5)
        self.records += pending
        self.commits += 1

    def append(self, pending: list[Record], records: list[Record]) -> None:
        if any(record.subject is not None and record.subject.id == self.poison for record in records):
            raise ValueError("cannot be sealed")
        pending += records


def decided(number: int, subject: str = "ann", **more: Any) -> Decided:
    request = EvaluationRequest(Entity("user", subject), ActionRef("read"), Entity("doc", "1"))
    raw = b'{"subject":{"type":"user","id":"%s"},"action":{"name":"read"},"resource":{"type":"doc","id":"1"}}' % subject.encode()
    decision = Decision(allowed=True, outcome="permit", reason="permitted", policy_digest="sha256:x", determining=("p",))
    return Decided(f"boot-{number}", 1000 + number, Actor("api-key", "k"), request, Facts(1000, TrustFacts(90)), decision, raw, **more)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def log(store: Store) -> Iterator[DecisionLog]:
    made = DecisionLog(store, 20, "emitter", lambda _: None)  # type: ignore[arg-type]
    yield made
    store.broken, store.poison = False, ""
    store.hold.set()
    made.close()


def until(held: Any) -> None:
    end = time.monotonic() + 5
    while not held():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_ordinary_decisions_go_in_together_and_in_order(store: Store, log: DecisionLog) -> None:
    store.hold.clear()
    for number in range(600):
        log.note(decided(number))
    store.hold.set()
    until(lambda: sum(record.detail["count"] for record in store.records) == 600)
    assert [record.type for record in store.records] == ["decision.batch"] * len(store.records)
    assert [record.emitter.n for record in store.records if record.emitter] == list(range(len(store.records)))
    assert max(record.detail["count"] for record in store.records) == 256
    assert store.records[0].detail["first"] == "boot-0"
    assert store.records[-1].detail["last"] == "boot-599"
    assert '"boot-3"' in store.records[0].request["decisions"]  # type: ignore[index]
    assert "ann" not in str(store.records[0].detail)


def test_what_matters_is_durable_when_its_caller_is_told(store: Store, log: DecisionLog) -> None:
    store.hold.clear()
    waiting = log.kept(decided(1))
    time.sleep(0.05)
    assert not waiting.done()
    store.hold.set()
    waiting.result(5)
    assert [(record.type, record.evaluation_id) for record in store.records] == [("decision", "boot-1")]


def test_many_that_matter_share_a_commit(store: Store, log: DecisionLog) -> None:
    store.hold.clear()
    first = log.kept(decided(0))
    until(lambda: log.waiting == 0)
    rest = [log.kept(decided(number)) for number in range(1, 100)]
    store.hold.set()
    for waiting in [first, *rest]:
        waiting.result(5)
    assert store.commits == 2


def test_nothing_is_accepted_while_nothing_can_be_written(store: Store, log: DecisionLog) -> None:
    log.note(decided(1))
    store.broken = True
    log.note(decided(2))
    with pytest.raises(StoreUnavailable):
        log.kept(decided(3)).result(5)
    until(lambda: log._failed is not None)
    with pytest.raises(StoreUnavailable, match="cannot be recorded"):
        log.note(decided(4))
    with pytest.raises(StoreUnavailable, match="cannot be recorded"):
        log.kept(decided(5))
    assert not log.crowded
    store.broken = False
    until(lambda: log._failed is None)
    log.kept(decided(6)).result(5)
    noted = [
        each for record in store.records if record.type == "decision.batch" for each in (record.detail["first"], record.detail["last"])
    ]
    assert set(noted) == {"boot-1", "boot-2"}  # both were answered; neither is lost
    assert [record.evaluation_id for record in store.records if record.type == "decision"] == ["boot-6"]


def test_after_a_failure_with_nothing_waiting_a_record_shows_that_it_works_again(store: Store, log: DecisionLog) -> None:
    store.broken = True
    with pytest.raises(StoreUnavailable):
        log.kept(decided(1)).result(5)
    until(lambda: log._failed is not None)
    store.broken = False
    until(lambda: log._failed is None)
    assert [record.type for record in store.records] == ["heartbeat"]


def test_one_that_cannot_be_written_takes_no_other_with_it(store: Store, log: DecisionLog) -> None:
    store.poison = "bad"
    store.hold.clear()
    first = log.kept(decided(0))
    until(lambda: log.waiting == 0)
    good, bad = log.kept(decided(1)), log.kept(decided(2, "bad"))
    log.note(decided(3))
    store.hold.set()
    first.result(5)
    good.result(5)
    with pytest.raises(StoreUnavailable, match="ValueError"):
        bad.result(5)
    until(lambda: any(record.type == "decision.batch" for record in store.records))
    log.kept(decided(4)).result(5)


def test_a_caller_that_goes_away_does_not_disturb_the_writer(store: Store, log: DecisionLog) -> None:
    store.hold.clear()
    first = log.kept(decided(0))
    until(lambda: log.waiting == 0)
    gone = log.kept(decided(1))
    assert gone.cancel()
    store.hold.set()
    first.result(5)
    log.kept(decided(2)).result(5)
    assert [record.evaluation_id for record in store.records] == ["boot-0", "boot-1", "boot-2"]


def test_more_than_memory_is_set_aside_for_is_refused(store: Store, log: DecisionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 50)
    monkeypatch.setattr(module, "CROWD", 10)
    store.hold.clear()
    for number in range(50):
        log.note(decided(number))
    with pytest.raises(StoreUnavailable, match="more decisions wait"):
        log.note(decided(50))
    assert log.crowded
    store.hold.set()
    until(lambda: log.waiting == 0)
    log.note(decided(999))


def test_closing_writes_what_waits_and_takes_no_more(store: Store) -> None:
    log = DecisionLog(store, 60_000, "emitter", lambda _: None)  # type: ignore[arg-type]
    log.note(decided(1))
    log.close()
    assert store.records[0].detail["count"] == 1
    with pytest.raises(StoreUnavailable, match="stopping"):
        log.note(decided(2))


def test_a_batch_of_all_different_answers_still_fits_a_leaf(store: Store, log: DecisionLog) -> None:
    import msgspec

    many = [
        msgspec.structs.replace(
            each, decision=msgspec.structs.replace(each.decision, determining=tuple(f"{at}-{'p' * 100}-{n}" for n in range(20)))
        )
        for at, each in enumerate(decided(number) for number in range(256))
    ]
    record = log._batch(many, 0)
    assert len(msgspec.json.encode(record.detail)) < 60_000
    assert record.detail["counts"] == {"permit": 256}
