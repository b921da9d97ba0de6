"""One approval is not another: what was approved by few, for little, or by a policy, lifts nothing that asks for more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from company import Company, payment, refused, undecided

POLICIES = """
@id("work") permit (principal is user, action in [Action::"release_payment", Action::"deploy"], resource);

@id("one") @advice("approval") @approvers("finance") @ttl("600") @break_glass("oncall")
forbid (principal, action == Action::"release_payment", resource) unless { context.live has approval };

@id("two-in-production") @advice("approval") @approvers("treasury") @quorum("2") @ttl("600")
forbid (principal, action == Action::"release_payment", resource)
when { context has env && context.env == "prod" } unless { context.live has approval };

@id("two-for-the-suspected") @advice("approval") @approvers("finance") @quorum("2") @ttl("600")
forbid (principal, action == Action::"release_payment", resource)
when { context.live.trust has session && context.live.trust.session < 90 } unless { context.live has approval };

@id("two-for-much") @advice("approval") @approvers("treasury") @quorum("2") @ttl("600")
forbid (principal, action == Action::"release_payment", resource)
when { context has transaction && context.transaction has amount && context.transaction.amount > 1000 } unless { context.live has approval };

@id("at-night-be-quick") @advice("approval") @approvers("finance") @ttl("60") @break_glass("oncall")
forbid (principal, action == Action::"release_payment", resource)
when { context has night && context.night } unless { context.live has approval };

@id("gated") @advice("approval") @machine("gate")
forbid (principal, action == Action::"deploy", resource) unless { context.live has approval };

@id("gate") permit (principal, action == Action::"gate", resource)
when { context.live has auth && context.live.auth has acr && context.live.auth.acr == "strong" };
"""


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Company]:
    made = Company(tmp_path, policies=POLICIES)
    made.person("bob", "finance")
    made.person("alice", "oncall")
    yield made
    made.core.close()


def within(context: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The payment in another context; None takes a member away."""
    held = {**payment()["context"], **context, **changes}
    return payment(context={name: value for name, value in held.items() if value is not None})


def test_a_context_that_asks_for_more_people_is_not_lifted_by_fewer(strict: Company) -> None:
    id_ = strict.result_id(strict.approve("bob", strict.request(payment())))
    answer = strict.use(within({"env": "prod"}), id_)
    assert not answer.allowed
    assert answer.context["reason"] == "policy_denied"
    assert strict.use(payment(), id_).allowed, "what was approved still goes through"


def test_trust_that_fell_for_another_session_asks_for_more_people(strict: Company) -> None:
    id_ = strict.result_id(strict.approve("bob", strict.request(payment())))
    strict.find({"identity": [], "session": ["s-other"], "credential": []})
    answer = strict.use(within({"session_id": "s-other"}), id_)
    assert not answer.allowed
    assert answer.context["reason"] == "policy_denied"


def test_an_approval_that_a_stricter_policy_lets_live_shorter_has_run_out(strict: Company) -> None:
    id_ = strict.result_id(strict.approve("bob", strict.request(payment())))
    strict.wait(61)
    assert not strict.use(within({"night": True}), id_).allowed
    assert strict.use(payment(), id_).allowed


def test_broken_glass_lifts_only_what_its_breaker_may_lift(strict: Company) -> None:
    body = strict.submission(payment(), requested_access={"emergency": True})
    body["context"] = {**body["context"], "business_justification": "the plant stands still"}
    id_ = strict.result_id(strict.submit(body))
    assert not strict.use(within({"env": "prod"}), id_).allowed
    assert strict.use(payment(), id_).allowed


def test_a_transaction_that_was_not_denied_cannot_be_asked_for(strict: Company) -> None:
    denied = within({"transaction": None})
    body = {**denied, "denial": strict.denied(denied)}
    body["context"] = {**denied["context"], "transaction": {"amount": 5000}}
    refused(strict, body, "invalid_denial_binding")


@pytest.mark.parametrize("added", [{"auth": {"acr": "strong"}}, {"credential": {"class": "passkey"}, "auth": {"acr": "strong"}}])
def test_who_asks_is_not_believed_about_a_login_by_the_policies_that_approve(strict: Company, added: dict[str, Any]) -> None:
    request = payment(action={"name": "deploy"})
    body = strict.submission(request)
    body["context"] = {**body["context"], **added}
    task = strict.core.approvals.task(strict.submit(body))
    assert task["task"]["status"] == "denied"


def test_a_login_that_was_denied_on_is_what_the_policies_approve_on(strict: Company) -> None:
    request = within({"auth": {"acr": "strong"}})
    request["action"] = {"name": "deploy"}
    assert strict.core.approvals.task(strict.request(request))["task"]["status"] == "approved"
    body = strict.submission(request)
    body["context"] = {**body["context"], "auth": {"acr": "stronger"}}
    refused(strict, body, "invalid_denial_binding")


@pytest.mark.parametrize("level", ["session", "credential"])
def test_leaving_the_session_out_of_the_request_loses_no_finding(strict: Company, level: str) -> None:
    body = strict.submission(payment())
    del body["context"]["session_id"], body["context"]["credential_id"]
    approval = strict.approve("bob", strict.submit(body))
    named: dict[str, list[str]] = {"identity": [], "session": [], "credential": []}
    named[level] = ["s-alice" if level == "session" else "c-alice"]
    strict.find(named)
    answer = strict.use(within({"session_id": None, "credential_id": None}), strict.result_id(approval))
    assert not answer.allowed
    assert answer.context["reason"] == "policy_denied"


def test_a_finding_about_who_acts_for_the_requester_voids_it_too(strict: Company) -> None:
    body = strict.submission(payment(), client={"id": "crm", "actor": {"id": "agent-7"}})
    approval = strict.approve("bob", strict.submit(body))
    strict.find({"identity": ["agent-7"], "session": [], "credential": []})
    assert not strict.use(payment(), strict.result_id(approval)).allowed


@pytest.mark.parametrize("named", [{"approval": {"id": "apr\0x"}}, {"task_id": "task\0x"}], ids=["approval", "task"])
def test_an_id_that_no_database_holds_is_nobodys(company: Company, named: dict[str, Any]) -> None:
    """PostgreSQL refuses to look for it; the answer is a denial like any other, and no fault of the server."""
    answer = company.evaluate(within(named))
    assert not answer.allowed
    assert answer.decision.outcome == "approval"


def test_a_request_that_ended_is_written_down_once_though_somebody_asks_for_a_challenge(company: Company) -> None:
    """Who finds it ended looks again under the lock: what another process did meanwhile is not written over."""
    approval = company.request(payment())
    company.find({"identity": ["alice"], "session": [], "credential": []})
    for _ in range(2):
        with undecided("not_pending"):
            company.ask("bob", approval.id)
    assert len([one for one in company.records("approval.voided") if one["transaction"] == approval.id]) == 1


def test_who_holds_the_key_that_asks_does_not_approve(strict: Company) -> None:
    from aftergate.audit.records import Actor

    _, key = strict.core.keys.create("payments-api", ["request"], by=Actor("operator", "test"))
    strict.person("kim", "finance", aliases=("Payments-API",))
    asked = strict.submit(strict.submission(payment(), caller=key.id), caller=key.id)
    with undecided("self_approval"):
        strict.ask("kim", asked.id)
    strict.approve("bob", asked)


def test_what_the_store_overrules_cannot_be_asked_for(tmp_path: Path) -> None:
    """Policies judge the stored value; people would be shown the other one."""
    stored = [{"uid": {"type": "payment", "id": "p-1"}, "attrs": {"amount": 10_000}, "parents": []}]
    entities = tmp_path / "entities.json"
    entities.write_text(msgspec.json.encode(stored).decode())
    text = """
    @id("work") permit (principal, action == Action::"release_payment", resource);
    @id("large") @advice("approval") @approvers("finance")
    forbid (principal, action == Action::"release_payment", resource) when { resource.amount > 10 } unless { context.live has approval };
    """
    made = Company(tmp_path / "c", policies=text, entities=str(entities))
    try:
        request = payment(resource={"type": "payment", "id": "p-1", "properties": {"amount": 11}})
        answer = made.evaluate(request)
        assert answer.context["conflicts"] == ["resource.amount"]
        assert "access_request" not in answer.context
        # Nor does an approval hold when the store comes to say otherwise afterwards.
        entities.write_text("[]")
        made.core.decider.reload()
        made.person("bob", "finance")
        given = made.result_id(made.approve("bob", made.request(request)))
        entities.write_text(msgspec.json.encode(stored).decode())
        made.core.decider.reload()
        late = made.use(request, given)
        assert not late.allowed
        assert late.context["reason"] == "policy_denied"
        honest = payment(resource={"type": "payment", "id": "p-1", "properties": {"amount": 10_000}})
        assert "access_request" in made.evaluate(honest).context
    finally:
        made.core.close()
