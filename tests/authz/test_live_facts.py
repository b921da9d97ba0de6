"""Facts of a whole server, without its network: trust, aliases, staleness, the clock, reloads that cannot be recorded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import aftergate.authz
from aftergate.audit.records import Actor
from aftergate.authz.wire import ActionRef, Entity, EvaluationRequest
from aftergate.events.clock import to_iso
from aftergate.service.clock import Clock
from aftergate.service.core import Core
from aftergate.service.decisions import Asker
from aftergate.settings import Settings
from aftergate.stores import findings as store
from aftergate.stores.errors import StoreUnavailable

STARTER = Path(aftergate.authz.__path__[0]) / "starter"
NOW = 1_767_614_400.0
ASKER = Asker("key-1", Actor("api-key", "key-1"))


class Hand:
    """A clock moved by hand, in seconds. `back` is how far the wall clock was turned back."""

    def __init__(self) -> None:
        self.at = NOW
        self.back = 0.0

    def steady(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at - self.back


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def core(tmp_path: Path, hand: Hand) -> Iterator[Core]:
    shutil.copytree(STARTER / "policies", tmp_path / "policies")
    settings = Settings(
        data=str(tmp_path / "data"), policies=str(tmp_path / "policies"), entities=str(STARTER / "entities.json"), reload_s=1
    )
    made = Core.open(settings, clock=Clock(wall=hand.wall, steady=hand.steady), url="http://localhost:8181")
    yield made
    made.close()


def read(subject: str = "alice", **context: Any) -> EvaluationRequest:
    return EvaluationRequest(Entity("user", subject), ActionRef("read"), Entity("document", "welcome"), context)


def find(core: Core, **subject: list[str]) -> None:
    told = {"id": "f-1", "detection": "tok-cookie-to-script", "severity": "critical", "time": to_iso(core.clock()), "subject": subject}
    body = json.dumps(told)
    with core.db.write() as connection:
        store.add(core.db, connection, [(store.read(body), body)], core.clock())
    core.refresh()


def test_a_finding_lowers_trust_for_the_next_decision(core: Core) -> None:
    assert core.decider.evaluate(read(session_id="s-1"), ASKER).allowed
    find(core, session=["s-1"], identity=["mallory"])
    told = core.decider.evaluate(read(session_id="s-1"), ASKER)
    assert not told.allowed
    assert told.decision.determining == ("trust-is-gone",)
    facts = core.decider.facts(read(session_id="s-1", credential_id="c"), core.clock())
    assert facts.trust.session < 20
    assert (facts.trust.identity, facts.trust.credential, facts.trust.findings) == (100, 100, ("tok-cookie-to-script",))
    assert core.decider.evaluate(read(session_id="s-2"), ASKER).allowed
    assert core.decider.facts(read(), core.clock()).trust.session is None


def test_a_finding_on_one_name_of_a_person_counts_for_all_of_them(core: Core) -> None:
    core.people.add("alice", aliases=["Alice@Example.com"], by=Actor("operator", "test"))
    core.decider.identities.refresh()
    find(core, identity=["Alice@Example.com"])
    assert core.decider.facts(read("ALICE"), core.clock()).trust.identity < 50
    assert core.decider.facts(read("bob"), core.clock()).trust.identity == 100
    assert core.decider.facts(read("bob", agent="alice"), core.clock()).trust.identity < 50


def test_trust_that_could_not_be_refreshed_denies_everything_until_it_can(core: Core, hand: Hand) -> None:
    assert core.decider.evaluate(read(), ASKER).allowed
    hand.at += core.settings.trust_stale_s + 1
    told = core.decider.evaluate(read(), ASKER)
    assert (told.allowed, told.context["reason"]) == (False, "trust_unknown")
    core.refresh()
    assert core.decider.evaluate(read(), ASKER).allowed


def test_a_clock_turned_back_makes_no_login_fresh_again(core: Core, hand: Hand) -> None:
    context = {"auth": {"acr": "urn:aftergate:acr:passkey", "auth_time": int(NOW)}}
    asked = EvaluationRequest(Entity("user", "alice"), ActionRef("release_payment"), Entity("payment", "p", {"amount": 5000}), context)
    hand.at += 400
    core.refresh()
    assert core.decider.evaluate(asked, ASKER).decision.outcome == "step_up"
    hand.back = 390
    assert core.decider.facts(asked, core.clock()).auth["age_s"] >= 400


def test_a_change_that_cannot_be_recorded_yet_is_recorded_later(
    core: Core, hand: Hand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core.decider.tick(core.clock())
    before = core.audit.head().size
    (tmp_path / "policies/new.cedar").write_text('@id("fly") permit (principal, action == Action::"fly", resource);')
    hand.at += 2
    core.decider.tick(core.clock())  # seen for the first time: a copy may be in progress
    assert "fly" not in core.decider.snapshot.policies.by_id
    with monkeypatch.context() as patch:
        patch.setattr(core.audit, "append", _unavailable)
        hand.at += 2
        with pytest.raises(StoreUnavailable):
            core.decider.tick(core.clock())
    assert "fly" in core.decider.snapshot.policies.by_id
    assert core.audit.head().size == before
    core.decider.tick(core.clock())
    assert core.audit.head().size == before + 1
    core.decider.tick(core.clock())
    assert core.audit.head().size == before + 1


def test_a_half_copied_directory_is_not_taken_for_a_set(core: Core, hand: Hand, tmp_path: Path) -> None:
    core.decider.tick(core.clock())
    version = core.decider.snapshot.policies.version
    for name in ("00-baseline.cedar", "payments.cedar", "exports.cedar"):  # an editor or a copy at work: each look finds it otherwise
        (tmp_path / "policies" / name).unlink()
        hand.at += 2
        core.decider.tick(core.clock())
        assert core.decider.snapshot.policies.version == version
    hand.at += 2
    core.decider.tick(core.clock())
    assert core.decider.snapshot.policies.version != version


def test_nothing_is_permitted_that_cannot_be_recorded(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.audit, "append", _unavailable)
    payment = EvaluationRequest(Entity("user", "alice"), ActionRef("release_payment"), Entity("payment", "p", {"amount": 5}))
    with pytest.raises(StoreUnavailable):
        core.decider.evaluate(payment, ASKER)
    proof = {"auth": {"acr": "urn:aftergate:acr:passkey", "auth_time": int(NOW)}}
    with pytest.raises(StoreUnavailable):
        core.decider.evaluate(EvaluationRequest(payment.subject, payment.action, Entity("payment", "p", {"amount": 5000}), proof), ASKER)
    monkeypatch.undo()
    # What could not be recorded used nothing up: the login is still worth one transaction.
    other = EvaluationRequest(payment.subject, payment.action, Entity("payment", "other", {"amount": 5000}), proof)
    for _ in range(100):
        try:
            assert core.decider.evaluate(other, ASKER).allowed
            break
        except StoreUnavailable:
            core.decider.log._done.wait(0.05)
    else:
        pytest.fail("it did not recover")


def _unavailable(*_: object) -> None:
    raise StoreUnavailable("away")
