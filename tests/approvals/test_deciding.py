"""People decide: who may, how often, over what, and what a wrong try leads to."""

from __future__ import annotations

from typing import Any

import pytest
from company import Company, payment, undecided, wire
from msgspec.structs import replace

from aftergate.authz.transactions.canonical import b64url
from aftergate.authz.transactions.softkey import UP, UV
from aftergate.service.approvals import Undecided


def test_two_of_two_groups_decide_together(company: Company) -> None:
    approval = company.request(wire())
    half = company.approve("bob", approval)
    assert company.core.approvals.task(half)["task"]["status"] == "pending"
    assert company.use(wire(), company.result_id(approval)).context["reason"] == "grant_pending"
    with undecided("already_decided"):
        company.ask("bob", approval.id)
    full = company.approve("dave", approval)
    assert company.core.approvals.task(full)["task"]["status"] == "approved"
    assert company.use(wire(), company.result_id(approval)).allowed


def test_a_no_ends_it_with_its_reason(company: Company) -> None:
    approval = company.request(wire())
    company.approve("bob", approval)
    with undecided("reason_required"):
        company.core.approvals.deny(company.acting("dave"), approval.id, " ", company.now)
    done = company.core.approvals.deny(company.acting("dave"), approval.id, "unknown payee", company.now)
    assert company.core.approvals.task(done)["task"]["status"] == "denied"
    assert company.core.approvals.view(company.acting("bob"), approval.id, company.now)["votes"][-1]["reason"] == "unknown payee"
    assert company.use(wire(), company.result_id(approval)).context["reason"] == "approval_unverifiable"


def test_nobody_approves_their_own_request_by_any_name(company: Company) -> None:
    company.person("ALICE2", "finance", aliases=("Alice",))
    company.person("carol", "finance")
    cases = [
        (payment(), "ALICE2", {}, "self_approval"),
        (payment(context={**payment()["context"], "on_behalf_of": "CAROL"}), "carol", {}, "self_approval"),
        (
            payment(subject={**payment()["subject"], "properties": {"act": {"sub": "agent", "act": {"sub": "carol"}}}}),
            "carol",
            {},
            "self_approval",
        ),
        (payment(context={**payment()["context"], "session_id": "ps-bob"}), "bob", {}, "same_session"),
    ]
    for request, name, more, reason in cases:
        approval = company.request(request, **more)
        with undecided(reason):
            company.ask(name, approval.id)
        assert not company.core.approvals.view(company.acting(name), approval.id, company.now)["can_decide"]
    sent = company.submit(company.submission(payment()), person="bob", session="ps-other")
    with undecided("self_approval"):
        company.ask("bob", sent.id)


def test_the_requesters_authenticator_approves_nothing(company: Company) -> None:
    mine = b64url(company.keys["bob"].credential_id)
    approval = company.request(payment(context={**payment()["context"], "auth": {"authenticator": mine, "acr": "x", "auth_time": 1}}))
    asked = company.ask("bob", approval.id)
    with undecided("same_authenticator"):
        company.core.approvals.approve(company.acting("bob"), None, asked.challenge_id, company.sign("bob", asked), company.now)


def test_two_persons_with_one_name_count_once(company: Company) -> None:
    company.person("robert", "finance", aliases=("bob",))
    approval = company.request(wire())
    company.approve("bob", approval)
    with undecided("same_person"):
        company.ask("robert", approval.id)


def test_who_is_in_no_group_sees_nothing(company: Company) -> None:
    company.person("eve", "sales")
    approval = company.request(payment())
    for act in (
        lambda: company.ask("eve", approval.id),
        lambda: company.core.approvals.view(company.acting("eve"), approval.id, company.now),
        lambda: company.core.approvals.deny(company.acting("eve"), approval.id, "no", company.now),
    ):
        with undecided("no_such_request"):
            act()
    assert company.core.approvals.inbox(company.acting("eve"), company.now) == []
    assert [one["id"] for one in company.core.approvals.inbox(company.acting("bob"), company.now)] == [approval.id]


def test_a_challenge_serves_one_try_of_one_person_in_one_session(company: Company) -> None:
    company.person("carol", "finance")
    approval, other = company.request(payment()), company.request(payment(resource={"type": "payment", "id": "p-2"}))
    asked = company.ask("bob", approval.id)
    made = company.sign("bob", asked)
    approvals = company.core.approvals
    for who, ids in (
        (company.acting("carol"), [approval.id]),
        (company.acting("bob", "ps-else"), [approval.id]),
        (company.acting("bob"), [other.id]),
    ):
        with undecided("challenge_unknown"):
            approvals.approve(who, ids, asked.challenge_id, made, company.now)
    approvals.approve(company.acting("bob"), [approval.id], asked.challenge_id, made, company.now)
    with undecided("challenge_unknown"):
        approvals.approve(company.acting("bob"), [approval.id], asked.challenge_id, made, company.now)
    with undecided("refused"):  # the assertion again, over a new challenge
        approvals.approve(company.acting("bob"), [other.id], company.ask("bob", other.id).challenge_id, made, company.now)


def test_a_challenge_runs_out(company: Company) -> None:
    asked = company.ask("bob", company.request(payment()).id)
    company.wait(300)
    with undecided("refused"):
        company.core.approvals.approve(company.acting("bob"), None, asked.challenge_id, company.sign("bob", asked), company.now)


def test_five_failures_lock_out_and_nobody_is_told_which_factor(company: Company) -> None:
    company.person("carol", "finance")
    approval = company.request(payment())
    words = set()
    tries: list[dict[str, Any]] = [
        {"origin": "https://evil.example"}, {"more": {"crossOrigin": True}}, {"more": {"type": "webauthn.create"}}, {"more": {"challenge": "AAAA"}}, {"origin": "null"},
    ]  # fmt: skip
    for number, broken in enumerate(tries):
        asked = company.ask("bob", approval.id)
        with pytest.raises(Undecided) as told:
            company.core.approvals.approve(
                company.acting("bob"), None, asked.challenge_id, company.sign("bob", asked, **broken), company.now
            )
        words.add((told.value.reason, str(told.value)) if number < 4 else ("refused", "the assertion was refused"))
        assert told.value.reason == ("refused" if number < 4 else "locked_out")
    assert words == {("refused", "the assertion was refused")}
    with undecided("locked_out"):
        company.ask("bob", approval.id)
    with undecided("locked_out"):
        company.ask("bob", company.request(payment(resource={"type": "payment", "id": "p-9"})).id)
    steps = [one["detail"]["step"] for one in company.records("approval.refused")]
    assert steps == ["2 client data"] * 5
    assert company.core.approvals.task(company.approve("carol", approval))["task"]["status"] == "approved", "others are not locked out"
    company.wait(901)
    last = company.approve("bob", company.request(payment(resource={"type": "payment", "id": "p-10"})))
    assert company.core.approvals.task(last)["task"]["status"] == "approved"


def test_a_lock_ends_and_a_good_try_starts_the_count_anew(company: Company) -> None:
    for n in range(3):
        approval = company.request(payment(resource={"type": "payment", "id": f"p-{n}"}))
        for _ in range(2):
            asked = company.ask("bob", approval.id)
            with undecided("refused"):
                company.core.approvals.approve(
                    company.acting("bob"), None, asked.challenge_id, company.sign("bob", asked, "https://x"), company.now
                )
        assert company.core.approvals.task(company.approve("bob", approval))["task"]["status"] == "approved"


def test_a_counter_that_went_back_is_a_finding(company: Company) -> None:
    company.approve("bob", company.request(payment()))
    approval = company.request(payment(resource={"type": "payment", "id": "p-2"}))
    asked = company.ask("bob", approval.id)
    company.keys["bob"] = replace(company.keys["bob"], sign_count=0)
    with undecided("refused"):
        company.core.approvals.approve(company.acting("bob"), None, asked.challenge_id, company.sign("bob", asked), company.now)
    company.core.trust.refresh()
    assert "authenticator-clone" in company.core.trust.of(("bob",)).findings
    assert company.records("approval.refused")[-1]["detail"]["step"] == "5 counter"


def test_a_bound_device_is_asked_for_where_the_policy_does(company: Company) -> None:
    company.person("carol", "finance", flags=UP | UV)
    approval = company.request(payment(action={"name": "open_vault"}))
    with undecided("no_authenticator"):
        company.ask("bob", approval.id)
    asked = company.ask("carol", approval.id)
    assert len(asked.options["allowCredentials"]) == 1
    done = company.core.approvals.approve(company.acting("carol"), None, asked.challenge_id, company.sign("carol", asked), company.now)
    assert company.core.approvals.task(done[0])["task"]["status"] == "approved"


def test_an_approval_can_be_taken_back(company: Company) -> None:
    approval = company.approve("bob", company.request(payment()))
    company.core.approvals.take_back(company.acting("bob"), approval.id, "wrong account", company.now)
    assert company.use(payment(), company.result_id(approval)).context["reason"] == "policy_denied"


def test_the_view_shows_what_is_bound_and_why_it_is_risky(company: Company) -> None:
    found = company.find({"identity": ["alice"]}, "medium")
    first = company.request(payment(), context={**payment()["context"], "business_justification": "quarter end"})
    second = company.request(payment(resource={"type": "payment", "id": "p-2"}))
    seen = company.core.approvals.view(company.acting("bob"), second.id, company.now)
    asked = company.ask("bob", second.id)
    assert seen["object"].items() <= asked.objects[0].items()
    assert [one["id"] for one in seen["risk"]["findings"]] == [found]
    assert [one["id"] for one in seen["lately"]] == [first.id]
    assert company.core.approvals.view(company.acting("bob"), first.id, company.now)["object"]["reason"] == "quarter end"
    assert seen["risk"]["now"]["score"] > 0
    assert asked.objects[0]["risk"]["findings"] == [found]
