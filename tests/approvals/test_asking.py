"""Asking for an approval: bound to a denial, to a key, to the callers; and forgetting what is spent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from company import REQUESTS, URL, Company, payment, refused

from aftergate.authz.errors import BadRequest
from aftergate.authz.transactions.objects import rfc3339
from aftergate.service.approvals import Fault
from aftergate.stores import approvals as store

# Asking.


def test_a_denial_is_asked_on_once(company: Company) -> None:
    body = company.submission(payment())
    company.submit(body)
    refused(company, body, "invalid_denial_binding")


def test_a_denial_is_asked_on_in_time(company: Company) -> None:
    body = company.submission(payment())
    company.wait(600)
    assert refused(company, body, "expired_denial").status == 410


def test_a_repetition_with_one_key_is_one_request(company: Company) -> None:
    body = company.submission(payment())
    first = company.submit(body, idempotency_key="k")
    assert company.submit(body, idempotency_key="k").id == first.id
    assert refused(company, {**body, "context": {**body["context"], "more": 1}}, "duplicate_request", idempotency_key="k").status == 409
    refused(company, body, "invalid_denial_binding", idempotency_key="k", caller="key-2")


def test_repetitions_at_the_same_moment_are_one_request(company: Company) -> None:
    body = company.submission(payment())
    proofs = [company.executor.proof(company.url + REQUESTS, company.hand.at) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda proof: company.submit(body, idempotency_key="k", proof=proof).id, proofs))
    assert len(set(made)) == 1
    assert len(company.records("access_request")) == 1


@pytest.mark.parametrize("denial", [None, {}, {"evaluation_id": "x"}, {"binding_token": 5}, {"binding_token": "a.b.c", "expires_at": "x"}])
def test_a_request_without_a_denial_of_ours_is_refused(company: Company, denial: Any) -> None:
    refused(company, {**payment(), "denial": denial}, "invalid_denial_binding")


def test_a_request_names_its_executors_key(company: Company) -> None:
    with pytest.raises(Fault, match="executor"):
        company.submit(company.submission(payment()), proof="")
    with pytest.raises(Fault, match="DPoP"):
        company.submit(company.submission(payment()), proof=company.executor.proof(URL + "/elsewhere", company.hand.at))
    named = company.submission(payment(), requested_access={"urn:aftergate:executor": {"jkt": company.executor.jkt}})
    approval = company.approve("bob", company.submit(named, proof=""))
    assert company.use(payment(), company.result_id(approval)).allowed


@pytest.mark.parametrize(
    "executor", [{}, {"jkt": "short"}, {"jkt": "A" * 43, "x5t#S256": "A" * 43}, {"other": "A" * 43}, "A" * 43, {"jkt": 5}]
)
def test_a_key_that_is_no_thumbprint_is_refused(company: Company, executor: Any) -> None:
    with pytest.raises((Fault, BadRequest)):
        company.submit(company.submission(payment(), requested_access={"urn:aftergate:executor": executor}), proof="")


def test_a_requests_own_end_shortens_the_approval(company: Company) -> None:
    until = company.now + 60_000
    approval = company.approve("bob", company.request(payment(), requested_access={"requested_until": rfc3339(until)}))
    assert approval.state.until_ms == until
    for wrong in ("yesterday", rfc3339(company.now), 5):
        with pytest.raises(BadRequest):
            company.request(payment(), requested_access={"requested_until": wrong})


def test_only_its_callers_see_and_cancel_a_request(company: Company) -> None:
    approval = company.request(payment())
    approvals = company.core.approvals
    for act in (
        lambda: approvals.look(approval.id, "key-2", company.now),
        lambda: approvals.cancel(approval.id, "key-2", company.asker().actor, "", company.now),
    ):
        with pytest.raises(Fault) as told:
            act()
        assert told.value.fault == "unknown_task"
    assert (
        approvals.task(approvals.cancel(approval.id, "key-1", company.asker().actor, "changed my mind", company.now))["task"]["status"]
        == "cancelled"
    )
    with pytest.raises(Fault) as told:
        approvals.cancel(approval.id, "key-1", company.asker().actor, "", company.now)
    assert (told.value.fault, told.value.status) == ("invalid_task_state", 409)


def test_nobody_deciding_it_expires_and_then_is_over(company: Company) -> None:
    approval = company.request(payment())
    company.wait(600)
    company.core.approvals.tick(company.now)
    assert company.core.approvals.task(company.again(approval))["task"]["status"] == "expired"
    assert len(company.records("approval.expired")) == 1
    company.wait(100_000)
    with pytest.raises(Fault) as told:
        company.core.approvals.look(approval.id, "key-1", company.now)
    assert (told.value.fault, told.value.status) == ("task_expired", 410)


@pytest.mark.parametrize(("ttl", "lives_s"), [("", 90), (' @ttl("30")', 30)])
def test_a_policy_that_names_no_time_leaves_it_to_the_setting(tmp_path: Path, ttl: str, lives_s: int) -> None:
    policies = f"""
        @id("all") permit(principal, action, resource);
        @id("ask") @advice("approval") @approvers("finance"){ttl}
        forbid(principal, action == Action::"release_payment", resource) unless {{ context.live has approval }};
    """
    company = Company(tmp_path, policies=policies, approval_ttl_s=90)
    company.person("bob", "finance")
    approval = company.request(payment())
    assert approval.state.terms.decide_by_ms - company.now == lives_s * 1000
    company.core.close()


# Forgetting.


def test_old_requests_are_forgotten_and_waiting_ones_are_not(company: Company) -> None:
    old = company.approve("bob", company.request(payment()))
    company.wait(1000)
    fresh = company.request(payment())
    with company.core.db.write() as connection:
        assert company.core.approvals.forget(connection, company.now - 500_000) == 1
    assert company.again(fresh).id == fresh.id
    with company.core.db.read() as connection:
        assert store.by_id(connection, old.id) is None
