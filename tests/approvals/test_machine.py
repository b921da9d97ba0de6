"""The machine of a request: what it refuses, and what no order of events brings about."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aftergate.authz.transactions import machine
from aftergate.authz.transactions.machine import Approver, State, Terms, folded

FINANCE = frozenset({"finance"})


def terms(**more: Any) -> Terms:
    given: dict[str, Any] = {
        "items": 1,
        "needs": ((FINANCE, 1),),
        "requester": folded({"alice", "alice@example.com", "carol"}),
        "sessions": frozenset({"s-alice"}),
        "authenticators": frozenset({"k-alice"}),
        "decide_by_ms": 1000,
        "ttl_ms": 500,
    }
    return Terms(**{**given, **more})


def person(name: str = "bob", **more: Any) -> Approver:
    given: dict[str, Any] = {"names": folded({name}), "groups": FINANCE, "session": f"s-{name}", "authenticator": f"k-{name}"}
    return Approver(name, **{**given, **more})


def yes(state: State, by: Approver, at_ms: int = 10, items: list[int] | None = None, findings: tuple[str, ...] = ()) -> machine.Step:
    return machine.approve(state, by, items, findings, at_ms)


def test_one_of_the_group_is_enough_where_one_is_asked() -> None:
    step = yes(machine.opened(terms()), person())
    assert (machine.status(step.state), step.state.until_ms) == ("approved", 510)
    assert machine.status(machine.consume(step.state, 0, (), 20).state) == "consumed"


@pytest.mark.parametrize(
    ("by", "code"),
    [
        (person("alice"), "self_approval"),
        (person("dave", names=folded({"dave", "ALICE@example.com "})), "self_approval"),
        (person("carol"), "self_approval"),
        (person(session="s-alice"), "same_session"),
        (person(authenticator="k-alice"), "same_authenticator"),
        (person(groups=frozenset({"sales"})), "not_an_approver"),
        (person(groups=frozenset()), "not_an_approver"),
    ],
)
def test_who_may_not_approve(by: Approver, code: str) -> None:
    step = yes(machine.opened(terms()), by)
    assert step.refused is not None
    assert step.refused.code == code
    assert step.state.items == ("pending",)


def test_two_means_two_people() -> None:
    state = yes(machine.opened(terms(needs=((FINANCE, 2),))), person("bob")).state
    for again, code in (
        (person("bob"), "already_decided"),
        (person("robert", names=folded({"robert", "Bob"})), "same_person"),
        (person("dave", authenticator="k-bob"), "same_person"),
    ):
        step = yes(state, again)
        assert step.refused is not None
        assert step.refused.code == code
        assert machine.wire_status(step.state) == "pending"
    assert machine.status(yes(state, person("dave")).state) == "approved"


def test_every_need_is_met_by_its_own_groups() -> None:
    needs = ((FINANCE, 1), (frozenset({"legal"}), 1))
    state = machine.opened(terms(needs=needs))
    both_finance = yes(yes(state, person("bob")).state, person("dave")).state
    assert machine.wire_status(both_finance) == "pending"
    assert machine.status(yes(both_finance, person("eve", groups=frozenset({"legal"}))).state) == "approved"
    assert machine.status(yes(state, person("both", groups=frozenset({"legal", "finance"}))).state) == "approved"


def test_one_no_ends_it_and_needs_a_reason() -> None:
    state = machine.opened(terms(needs=((FINANCE, 2),)))
    silent = machine.deny(state, person(authenticator=""), "  ", (), 10)
    assert silent.refused is not None
    assert silent.refused.code == "reason_required"
    step = machine.deny(yes(state, person("dave")).state, person(authenticator=""), "not the usual payee", (), 10)
    assert (machine.status(step.state), step.state.reason) == ("denied", "not the usual payee")
    assert yes(step.state, person("eve")).refused is not None


def test_nobody_decides_after_the_deadline() -> None:
    step = yes(machine.opened(terms()), person(), at_ms=1000)
    assert step.refused is not None
    assert machine.status(step.state) == "expired"
    assert [one.type for one in step.emit] == ["approval.expired"]


def test_an_approval_runs_out_and_never_outlives_what_was_asked() -> None:
    state = yes(machine.opened(terms()), person()).state
    late = machine.consume(state, 0, (), 510)
    assert late.refused is not None
    assert late.refused.code == "approval_expired"
    short = yes(machine.opened(terms(until_ms=50)), person()).state
    assert short.until_ms == 50


@pytest.mark.parametrize("when", ["asked", "approved"])
def test_a_new_finding_voids_and_is_named(when: str) -> None:
    state = machine.opened(terms(), ("old",))
    if when == "asked":
        step = yes(state, person(), findings=("old", "new-1"))
        assert machine.status(step.state) == "cancelled"
    else:
        step = machine.consume(yes(state, person(), findings=("old",)).state, 0, ("old", "new-1"), 20)
        assert machine.status(step.state) == "voided"
        assert step.refused is not None
        assert step.refused.code == "policy_denied"
    assert "new-1" in step.state.reason
    assert "old" not in step.state.reason.split()
    assert step.emit[-1].type == "approval.voided"


def test_a_finding_that_went_away_voids_nothing() -> None:
    assert machine.consume(yes(machine.opened(terms(), ("old",)), person()).state, 0, (), 20).refused is None


def test_five_failures_lock_out_that_person_alone() -> None:
    state = machine.opened(terms())
    for _ in range(5):
        assert not machine.locked_out(state, "bob")
        state = machine.fail(state, "bob").state
    step = yes(state, person("bob"))
    assert step.refused is not None
    assert step.refused.code == "locked_out"
    assert yes(state, person("dave")).refused is None


def test_a_decided_request_is_not_cancelled() -> None:
    state = yes(machine.opened(terms()), person()).state
    step = machine.cancel(state, "", 20)
    assert step.refused is not None
    assert step.refused.code == "invalid_task_state"
    assert machine.status(machine.revoke(state, "mistake", 20).state) == "voided"


def test_a_part_of_a_batch_is_partial_and_each_item_goes_once() -> None:
    state = yes(machine.opened(terms(items=3)), person(), items=[0, 2]).state
    assert state.items == ("approved", "denied", "approved")
    assert machine.wire_status(state) == "partial"
    state = machine.consume(state, 0, (), 20).state
    again = machine.consume(state, 0, (), 21)
    assert again.refused is not None
    assert again.refused.code == "approval_unverifiable"
    assert machine.consume(state, 1, (), 21).refused is not None
    assert machine.consume(state, 2, (), 21).refused is None


def test_what_waits_for_more_people_lets_what_has_enough_go_on() -> None:
    state = machine.opened(terms(items=2, needs=((FINANCE, 2),)))
    state = yes(state, person("bob"), items=[0, 1]).state
    state = yes(state, person("dave"), items=[0], at_ms=20).state
    assert state.items == ("approved", "denied")


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (machine.opened(terms()), "grant_pending"),
        (machine.cancel(machine.opened(terms()), "", 5).state, "approval_unverifiable"),
        (machine.deny(machine.opened(terms()), person(), "no", (), 5).state, "approval_unverifiable"),
        (machine.tick(machine.opened(terms()), 1000).state, "approval_expired"),
    ],
)
def test_what_was_not_approved_is_not_used_and_says_why(state: State, code: str) -> None:
    refusal = machine.usable(state, 0, 20)
    assert refusal is not None
    assert refusal.code == code
    assert machine.consume(state, 0, (), 20).refused is not None


def test_policies_approve_only_what_is_fresh() -> None:
    fresh = machine.opened(terms(needs=()))
    assert machine.status(machine.approve_by_policy(fresh, ("gate",), 5).state) == "approved"
    assert machine.approve_by_policy(fresh, (), 5).refused is not None
    assert machine.approve_by_policy(machine.cancel(fresh, "", 5).state, ("gate",), 6).refused is not None
    assert yes(fresh, person()).refused is not None


def test_breaking_glass_needs_a_reason_and_a_fresh_request() -> None:
    fresh = machine.opened(terms())
    assert machine.break_glass(fresh, " ", "alice", 5).refused is not None
    made = machine.break_glass(fresh, "the site is down", "alice", 5)
    assert (machine.status(made.state), made.state.break_glass) == ("approved", True)
    assert machine.break_glass(made.state, "again", "alice", 6).refused is not None


def test_terms_under_which_anybody_could_approve_are_refused() -> None:
    for wrong in ({"needs": ((frozenset(), 1),)}, {"needs": ((FINANCE, 0),)}, {"items": 0}, {"ttl_ms": 0}):
        with pytest.raises(ValueError):
            machine.opened(terms(**wrong))


@pytest.mark.parametrize("quorum", [1, 2, 3])
def test_the_order_of_approvers_does_not_matter(quorum: int) -> None:
    outcomes = set()
    for order in permutations(["bob", "dave", "eve"]):
        state = machine.opened(terms(needs=((FINANCE, quorum),)))
        for at, name in enumerate(order):
            state = yes(state, person(name), at_ms=at).state
        outcomes.add((machine.status(state), len(state.votes)))
    assert outcomes == {("approved", quorum)}


def test_the_wire_never_says_more_than_the_profile_knows() -> None:
    assert {machine.item_wire(item) for item in ("pending", "approved", "denied", "expired", "cancelled", "failed", "voided", "consumed")} <= {  # type: ignore[arg-type]
        "pending", "approved", "denied", "expired", "cancelled", "failed", "partial",
    }  # fmt: skip


NAMES = ("alice", "bob", "carol", "dave", "eve", "robert")
PEOPLE = {
    "alice": person("alice"),
    "bob": person("bob"),
    "carol": person("carol"),
    "dave": person("dave"),
    "eve": person("eve", groups=frozenset({"sales"})),
    "robert": person("robert", names=folded({"robert", "bob"})),
}


class Life(RuleBasedStateMachine):
    """Any order of anything: no second use, nothing rises from the dead, nobody counts twice or for themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.state = machine.opened(terms(items=2, needs=((FINANCE, 2),)), ("known",))
        self.at = 0
        self.findings: tuple[str, ...] = ("known",)
        self.used: list[int] = []
        self.over: set[int] = set()

    def took(self, step: machine.Step) -> None:
        for place, (before, after) in enumerate(zip(self.state.items, step.state.items, strict=True)):
            if before in {"denied", "expired", "cancelled", "failed", "voided", "consumed"}:
                assert after == before, "what is over stays over"
            if before != "consumed" and after == "consumed":
                assert before == "approved"
                self.used.append(place)
        self.state = step.state

    @rule(name=st.sampled_from(NAMES), items=st.none() | st.sets(st.integers(0, 1), min_size=1))
    def approves(self, name: str, items: set[int] | None) -> None:
        self.took(machine.approve(self.state, PEOPLE[name], None if items is None else sorted(items), self.findings, self.at))

    @rule(name=st.sampled_from(NAMES))
    def denies(self, name: str) -> None:
        self.took(machine.deny(self.state, PEOPLE[name], "no", self.findings, self.at))

    @rule(name=st.sampled_from(NAMES))
    def fails(self, name: str) -> None:
        self.took(machine.fail(self.state, name))

    @rule(by=st.integers(1, 700))
    def time_goes_by(self, by: int) -> None:
        self.at += by
        self.took(machine.tick(self.state, self.at))

    @rule()
    def something_is_found(self) -> None:
        self.findings = (*self.findings, f"f{len(self.findings)}")

    @rule()
    def is_cancelled(self) -> None:
        self.took(machine.cancel(self.state, "", self.at))

    @rule()
    def is_revoked(self) -> None:
        self.took(machine.revoke(self.state, "", self.at))

    @rule(item=st.integers(-1, 2))
    def is_used(self, item: int) -> None:
        fresh = self.findings == ("known",) and self.at < self.state.until_ms
        step = machine.consume(self.state, item, self.findings, self.at)
        if step.refused is None:
            assert fresh
        self.took(step)

    @invariant()
    def nothing_is_used_twice(self) -> None:
        assert len(self.used) == len(set(self.used))

    @invariant()
    def approved_means_two_different_people_who_may(self) -> None:
        for place, item in enumerate(self.state.items):
            if item in {"approved", "consumed"}:
                voters = {vote.person for vote in self.state.votes if place in vote.items}
                assert len(voters) >= 2
                assert not voters & {"alice", "carol", "eve"}
                assert not {"bob", "robert"} <= voters

    @invariant()
    def the_snapshot_is_the_state(self) -> None:
        import msgspec

        assert msgspec.json.decode(msgspec.json.encode(self.state), type=State) == self.state


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
