"""An approval is good for exactly what was approved, once, by the key it names, while nothing speaks against it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from company import POLICIES, URL, Company, Executor, payment, refused, register, undecided, wire, write_policies

from aftergate.audit import evidence
from aftergate.audit.records import Actor

# The way through.


def test_a_payment_is_asked_for_approved_and_released_once(company: Company) -> None:
    approval = company.request(payment())
    assert company.core.approvals.task(approval)["task"]["status"] == "pending"
    approved = company.approve("bob", approval)
    task = company.core.approvals.task(approved)
    assert task["task"]["status"] == "approved"
    assert task["result"]["mode"] == "reevaluate"
    used = company.use(payment(), task["result"]["approval"]["id"])
    assert used.allowed
    assert used.context["approval"]["id"] == task["result"]["approval"]["id"]
    again = company.use(payment(), task["result"]["approval"]["id"])
    assert not again.allowed
    assert again.context["reason"] == "approval_unverifiable"


def test_the_log_tells_the_story_and_its_evidence_verifies(company: Company) -> None:
    approval = company.approve("bob", company.request(payment()))
    company.use(payment(), company.result_id(approval))
    story = company.records("access_request", "approval.granted", "approval.consumed", "decision")
    assert [one["type"] for one in story if one.get("transaction") == approval.id] == [
        "access_request",
        "approval.granted",
        "decision",
        "approval.consumed",
    ]
    granted = company.records("approval.granted")[0]
    held = evidence.verify(granted["_evidence"], granted["approval"]["tx_hash"], rp_ids=["localhost"], origins=[URL])
    assert isinstance(held, evidence.Granted), held
    assert held.approver == "bob"
    consumed = company.records("approval.consumed")[0]
    assert consumed["approval"]["id"] in held.approvals


def test_a_dry_evaluation_neither_permits_nor_uses(company: Company) -> None:
    approval = company.approve("bob", company.request(payment()))
    id_ = company.result_id(approval)
    dry = company.evaluate({**payment(), "context": {**payment()["context"], "approval": {"id": id_}}})
    assert not dry.allowed
    assert dry.context["reason"] == "approval_unverifiable"
    assert company.use(payment(), id_).allowed


# Every bound field.


def mutations() -> list[tuple[str, dict[str, Any]]]:
    made = []
    base = payment()

    def walk(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, dict):
            for name in value:
                walk(value[name], (*path, name))
            made.append((".".join((*path, "+")), changed(path, lambda held: held.update(more="x"))))
        else:
            made.append(
                (
                    ".".join(path),
                    changed(path[:-1], lambda held: held.__setitem__(path[-1], value + "x" if isinstance(value, str) else value + 1)),
                )
            )
            made.append((".".join(path) + " gone", changed(path[:-1], lambda held: held.__delitem__(path[-1]))))

    def changed(path: tuple[str, ...], change: Any) -> dict[str, Any]:
        copied = copy.deepcopy(base)
        inside: Any = copied
        for step in path:
            inside = inside[step]
        change(inside)
        return copied

    for name in ("subject", "action", "resource"):
        walk(base[name], (name,))
    walk(base["context"]["transaction"], ("context", "transaction"))
    # Unknown members of an entity are ignored by the standard; missing required ones are no request at all.
    dropped = {"subject.+", "action.+", "resource.+"} | {
        f"{one} gone" for one in ("subject.type", "subject.id", "action.name", "resource.type", "resource.id")
    }
    return [(name, one) for name, one in made if name not in dropped]


@pytest.mark.parametrize(("name", "changed"), mutations(), ids=[name for name, _ in mutations()])
def test_any_change_of_what_was_approved_is_out_of_scope(company_once: tuple[Company, str], name: str, changed: dict[str, Any]) -> None:
    company, id_ = company_once
    answer = company.use(changed, id_)
    assert not answer.allowed, name
    assert answer.context["reason"] == "out_of_scope", answer.context


@pytest.fixture(scope="module")
def company_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Company, str]]:
    made = Company(tmp_path_factory.mktemp("mutated"))
    made.person("bob", "finance")
    id_ = made.result_id(made.approve("bob", made.request(payment())))
    yield made, id_
    assert made.use(payment(), id_).allowed, "after all the changes the true transaction still goes through"
    made.core.close()


@pytest.mark.parametrize(("name", "changed"), mutations(), ids=[name for name, _ in mutations()])
def test_any_change_after_the_denial_is_no_request(
    company_bound: tuple[Company, dict[str, Any]], name: str, changed: dict[str, Any]
) -> None:
    company, denial = company_bound
    assert refused(company, {**changed, "denial": denial}, "invalid_denial_binding").status == 400


@pytest.fixture(scope="module")
def company_bound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Company, dict[str, Any]]]:
    made = Company(tmp_path_factory.mktemp("bound"))
    yield made, made.denied(payment())
    made.core.close()


# Used wrongly.


def test_an_approval_for_one_used_for_another_is_out_of_scope(company: Company) -> None:
    other = payment(resource={"type": "payment", "id": "p-2"})
    first, second = company.approve("bob", company.request(payment())), company.approve("bob", company.request(other))
    assert company.use(other, company.result_id(first)).context["reason"] == "out_of_scope"
    assert company.use(other, company.result_id(second)).allowed
    assert company.use(payment(), company.result_id(first)).allowed


def test_used_late_it_has_expired(company: Company) -> None:
    approval = company.approve("bob", company.request(payment()))
    company.wait(600)
    assert company.use(payment(), company.result_id(approval)).context["reason"] == "approval_expired"


def test_used_by_another_key_it_is_unverifiable(company: Company) -> None:
    approval = company.approve("bob", company.request(payment()))
    assert company.use(payment(), company.result_id(approval), Executor()).context["reason"] == "approval_unverifiable"
    assert company.use(payment(), company.result_id(approval)).allowed


def test_used_by_another_caller_it_is_unverifiable(company: Company) -> None:
    approval = company.approve("bob", company.request(payment()))
    assert company.use(payment(), company.result_id(approval), caller="key-2").context["reason"] == "approval_unverifiable"


def test_used_before_it_is_approved_it_is_pending(company: Company) -> None:
    approval = company.request(payment())
    assert company.use(payment(), company.result_id(approval)).context["reason"] == "grant_pending"


def test_a_proof_serves_one_use_of_one_approval(company: Company) -> None:
    one, two = (company.approve("bob", company.request(payment(resource={"type": "payment", "id": n}))) for n in ("p-1", "p-2"))
    proof = company.executor.proof(URL + "/access/v1/evaluation", company.hand.at, ath=company.result_id(one))
    for approval, name, ok in ((two, "p-2", False), (one, "p-1", True)):
        context = {**payment()["context"], "approval": {"id": company.result_id(approval)}}
        assert company.evaluate(payment(resource={"type": "payment", "id": name}, context=context), proof).allowed == ok


@pytest.mark.parametrize("level", ["identity", "session", "credential"])
@pytest.mark.parametrize("when", ["asked", "challenged", "approved"])
def test_a_new_finding_voids_it_and_is_named(company: Company, level: str, when: str) -> None:
    company.find({"identity": ["alice"]}, "low", "f-known")
    approval = company.request(payment())
    subject = {level: [{"identity": "alice", "session": "s-alice", "credential": "c-alice"}[level]]}
    if when == "asked":
        found = company.find(subject)
        with undecided("not_pending") as told:
            company.ask("bob", approval.id)
        assert found in str(told.value)
    elif when == "challenged":
        asked = company.ask("bob", approval.id)
        found = company.find(subject)
        with undecided("not_pending"):
            company.core.approvals.approve(company.acting("bob"), None, asked.challenge_id, company.sign("bob", asked), company.now)
    else:
        company.approve("bob", approval)
        found = company.find(subject)
        answer = company.use(payment(), company.result_id(approval))
        assert not answer.allowed
        assert answer.context["reason"] == "policy_denied"
        assert found in answer.context["reason_admin"]["403"]
        assert company.use(payment(), company.result_id(approval)).context["reason"] == "policy_denied"
    voided = company.records("approval.voided")
    assert len(voided) == 1
    assert found in voided[0]["reasons"][0]
    assert "f-known" not in voided[0]["reasons"][0]


@pytest.mark.parametrize("how", ["more severe", "later"])
@pytest.mark.parametrize("when", ["asked", "approved"])
def test_a_finding_that_gets_worse_under_its_id_voids_it(company: Company, how: str, when: str) -> None:
    company.find({"identity": ["alice"]}, "low", "f-known")
    approval = company.request(payment())
    if when == "approved":
        company.approve("bob", approval)
    company.wait(1)
    company.find({"identity": ["alice"]}, "high" if how == "more severe" else "low", "f-known")
    if when == "asked":
        with undecided("not_pending") as told:
            company.ask("bob", approval.id)
        assert "worse than at the request: finding f-known" in str(told.value)
    else:
        assert company.use(payment(), company.result_id(approval)).context["reason"] == "policy_denied"
    assert company.records("approval.voided")[0]["reasons"] == ["worse than at the request: finding f-known"]


def test_the_same_finding_told_again_voids_nothing(company: Company) -> None:
    company.find({"identity": ["alice"]}, "low", "f-known")
    approval = company.approve("bob", company.request(payment()))
    company.find({"identity": ["alice"]}, "low", "f-known")
    assert company.use(payment(), company.result_id(approval)).allowed


# Whoever said yes still counts when it is used.


def gone(company: Company, how: str, name: str) -> None:
    by = Actor("operator", "tests")
    if how == "removed":
        assert company.core.people.remove(name, by=by)
    elif how == "removed and back":
        assert company.core.people.remove(name, by=by)
        company.core.people.add(name, groups=("finance",), by=by)
    elif how == "out of the group":
        company.core.people.change(name, groups=("sales",), by=by)
    else:
        key = company.core.people.passkeys(name)[0]
        assert company.core.people.remove_passkey(name, key.id, by=by)


GONE = {
    "removed": "an approver has been removed since",
    "removed and back": "an approver's authenticator has been removed since",
    "out of the group": "an approver has left the group that approves this",
    "authenticator removed": "an approver's authenticator has been removed since",
}


@pytest.mark.parametrize("how", GONE)
def test_an_approval_ends_with_its_approvers_right_to_give_it(company: Company, how: str) -> None:
    approval = company.approve("bob", company.request(payment()))
    gone(company, how, "bob")
    answer = company.use(payment(), company.result_id(approval))
    assert not answer.allowed
    assert answer.context["reason"] == "policy_denied"
    assert answer.context["reason_admin"]["403"] == GONE[how]
    assert company.records("approval.voided")[0]["reasons"] == [GONE[how]]
    assert not company.records("approval.consumed")


@pytest.mark.parametrize("how", GONE)
def test_an_earlier_yes_of_somebody_who_is_gone_is_no_part_of_a_quorum(company: Company, how: str) -> None:
    approval = company.request(wire())
    company.approve("bob", approval)
    gone(company, how, "bob")
    company.approve("dave", approval)
    again = company.again(approval)
    assert company.core.approvals.task(again)["task"]["status"] == "pending"
    assert not company.use(wire(), company.result_id(approval)).allowed


def another_key(company: Company, name: str) -> None:
    """Somebody changes their authenticator."""
    old = company.core.people.passkeys(name)[0]
    company.keys[name] = register(company.core, name)
    assert company.core.people.remove_passkey(name, old.id, by=Actor("operator", "tests"))


@pytest.mark.parametrize("dropped", [False, True])
def test_who_changed_the_authenticator_says_yes_again(company: Company, dropped: bool) -> None:
    """Before and after the next vote has dropped the first one."""
    approval = company.request(wire())
    company.approve("bob", approval)
    another_key(company, "bob")
    for name in ("dave", "bob") if dropped else ("bob", "dave"):
        company.approve(name, approval)
    assert company.use(wire(), company.result_id(approval)).allowed
    assert len(company.records("approval.granted")) == 3, "the log keeps the first as well"


def test_who_changed_the_authenticator_may_say_no(company: Company) -> None:
    approval = company.request(wire())
    company.approve("bob", approval)
    another_key(company, "bob")
    company.core.approvals.deny(company.acting("bob"), approval.id, "on second thoughts", company.now)
    assert company.again(approval).state.items == ("denied",)


def test_what_ends_for_want_of_votes_is_recorded_whoever_notices(company: Company) -> None:
    company.person("carl", "finance")
    approval = company.request(payment())
    asked = company.ask("carl", approval.id)
    company.approve("bob", approval)
    gone(company, "removed", "bob")
    with undecided("not_pending"):
        company.core.approvals.approve(company.acting("carl"), [approval.id], asked.challenge_id, company.sign("carl", asked), company.now)
    assert company.again(approval).state.items == ("voided",)
    assert company.records("approval.voided")[0]["reasons"] == [GONE["removed"]]


FOUR_EYES = """
@id("both-finance") @advice("approval") @approvers("finance") @ttl("600")
forbid (principal, action == Action::"both", resource) unless { context.live has approval };
@id("both-treasury") @advice("approval") @approvers("treasury") @ttl("600")
forbid (principal, action == Action::"both", resource) unless { context.live has approval };
@id("four-eyes")
forbid (principal, action == Action::"both", resource) when { context.live has approval && context.live.approval.quorum < 2 };
@id("both") permit (principal, action == Action::"both", resource);
"""


@pytest.mark.parametrize("leaves", [False, True])
def test_policies_are_told_only_of_approvers_who_still_count(company: Company, tmp_path: Path, leaves: bool) -> None:
    """Here one person's yes meets every group's need, and a policy wants two."""
    write_policies(tmp_path / "policies", POLICIES + FOUR_EYES)
    company.core.decider.reload()
    company.person("eve", "finance", "treasury")
    asked = payment(action={"name": "both"})
    approval = company.request(asked)
    company.approve("bob", approval)
    company.approve("eve", approval)
    if leaves:
        gone(company, "removed", "bob")
    answer = company.use(asked, company.result_id(approval))
    assert answer.allowed is not leaves
    if leaves:
        assert "four-eyes" in answer.decision.determining


def test_broken_glass_ends_with_whoever_broke_it(company: Company) -> None:
    company.person("alice", "oncall")
    asked = payment()
    emergency = {**asked, "context": {**asked["context"], "business_justification": "fire"}}
    approval = company.request(emergency, requested_access={"emergency": True})
    assert approval.state.break_glass
    gone(company, "removed", "alice")
    answer = company.use(asked, company.result_id(approval))
    assert not answer.allowed
    assert company.records("approval.voided")[0]["reasons"] == ["whoever broke the glass has been removed since"]


def test_a_view_that_is_behind_voids_nothing(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process's memory: it still shows the finding as it was before the request. What counts is in the database."""
    company.find({"identity": ["alice"]}, "low", "f-known")
    behind = company.core.trust.of
    monkeypatch.setattr(company.core.trust, "refresh", lambda *_: None)
    company.wait(1)
    company.find({"identity": ["alice"]}, "medium", "f-known")
    approval = company.approve("bob", company.request(payment()))
    assert company.core.trust.of == behind
    assert company.use(payment(), company.result_id(approval)).allowed


def test_a_group_that_was_not_needed_may_be_left(company: Company) -> None:
    company.core.people.change("bob", groups=("finance", "chess"), by=Actor("operator", "tests"))
    approval = company.approve("bob", company.request(payment()))
    company.core.people.change("bob", groups=("finance",), by=Actor("operator", "tests"))
    assert company.use(payment(), company.result_id(approval)).allowed


def test_a_finding_between_the_look_and_the_use_is_seen_in_the_use(company: Company) -> None:
    """The view in memory is old; what the use's own transaction reads is not."""
    approval = company.approve("bob", company.request(payment()))
    stale = company.core.trust.of
    found = company.find({"identity": ["alice"]})
    company.core.trust.of = lambda *_a, **_k: stale(("nobody",))  # type: ignore[method-assign]
    answer = company.use(payment(), company.result_id(approval))
    assert not answer.allowed
    assert answer.context["reason"] == "policy_denied"
    assert found in company.records("approval.voided")[0]["reasons"][0]
    assert not company.records("approval.consumed")


def test_policies_are_asked_again_at_the_use(company: Company, tmp_path: Path) -> None:
    approval = company.approve("bob", company.request(payment()))
    write_policies(tmp_path / "policies", POLICIES + '\n@id("freeze") forbid (principal, action == Action::"release_payment", resource);\n')
    company.core.decider.reload()
    answer = company.use(payment(), company.result_id(approval))
    assert not answer.allowed
    assert answer.context["reason"] == "policy_denied"
    write_policies(tmp_path / "policies")
    company.core.decider.reload()
    assert company.use(payment(), company.result_id(approval)).allowed, "a denial used nothing up"


@pytest.mark.parametrize("more", ['@quorum("2")', '@device_bound("true")', '@approvers("treasury")'])
def test_policies_that_ask_for_more_since_are_not_satisfied(company: Company, tmp_path: Path, more: str) -> None:
    approval = company.approve("bob", company.request(payment()))
    pay = '@id("pay-needs-approval") @advice("approval") @approvers("finance")'
    text = POLICIES.replace(pay, pay.replace('@approvers("finance")', more) if "approvers" in more else f"{pay} {more}")
    assert text != POLICIES
    write_policies(tmp_path / "policies", text)
    company.core.decider.reload()
    answer = company.use(payment(), company.result_id(approval))
    assert not answer.allowed
    assert answer.context["reason"] == "policy_denied"


def test_the_actor_that_was_approved_is_the_one_that_acts(company: Company) -> None:
    asked = payment(subject={"type": "user", "id": "alice", "properties": {"act": {"sub": "agent-1"}}})
    approval = company.approve("bob", company.request(asked))
    other = payment(subject={"type": "user", "id": "alice", "properties": {"act": {"sub": "agent-2"}}})
    assert company.use(other, company.result_id(approval)).context["reason"] == "out_of_scope"
    assert company.use(asked, company.result_id(approval)).allowed


def test_a_certificate_may_be_the_executors_key(company: Company) -> None:
    approval = company.approve("bob", company.submit(company.submission(payment()), x5t="t" * 43))
    assert company.use(payment(), company.result_id(approval)).context["reason"] == "approval_unverifiable"
    context = {**payment()["context"], "approval": {"id": company.result_id(approval)}}
    assert not company.evaluate(payment(context=context), x5t="u" * 43).allowed
    assert company.evaluate(payment(context=context), x5t="t" * 43).allowed
