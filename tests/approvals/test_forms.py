"""Batches, policies in people's place, and broken glass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from company import URL, Company, Executor, payment, refused, undecided, wire

from aftergate.audit import evidence
from aftergate.audit.bundle import Bundle, write_folder
from aftergate.audit.records import Actor
from aftergate.audit.verify import verify_bundle
from aftergate.authz.errors import BadRequest
from aftergate.service.approvals import Fault
from aftergate.service.approvals.glass import NotYours

# Batches.


def batch(company: Company, count: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    requests = [
        payment(resource={"type": "payment", "id": f"b-{n}", "properties": {"amount": 10 + n, "currency": "EUR"}}) for n in range(count)
    ]
    items = [{"resource": one["resource"], "action": one["action"], "denial": company.denied(one)} for one in requests]
    return requests, {"subject": requests[0]["subject"], "context": requests[0]["context"], "items": items}


def test_a_batch_is_approved_as_one_and_each_item_is_used_once(company: Company) -> None:
    requests, body = batch(company, 3)
    approval = company.submit(body)
    seen = company.core.approvals.view(company.acting("bob"), approval.id, company.now)
    assert len(seen["object"]["items"]) == 3
    assert seen["object"]["batch"]["totals"] == [{"member": "amount", "unit": "EUR", "sum": "33"}]
    task = company.core.approvals.task(company.approve("bob", approval))["task"]
    assert task["status"] == "approved"
    ids = [one["result"]["approval"]["id"] for one in task["items"]]
    assert company.use(requests[1], ids[0]).context["reason"] == "out_of_scope"
    for request, id_ in zip(requests, ids, strict=True):
        assert company.use(request, id_).allowed
        assert not company.use(request, id_).allowed


def test_a_part_of_a_batch_is_partial(company: Company) -> None:
    requests, body = batch(company, 3)
    done = company.approve("bob", company.submit(body), items=[0, 2])
    task = company.core.approvals.task(done)["task"]
    assert task["status"] == "partial"
    assert [one["status"] for one in task["items"]] == ["approved", "denied", "approved"]
    assert "result" not in task["items"][1]
    assert company.use(requests[1], company.result_id(done, 1)).context["reason"] == "approval_unverifiable"
    assert company.use(requests[2], company.result_id(done, 2)).allowed
    granted = company.records("approval.granted")[0]
    held = evidence.verify(granted["_evidence"], granted["approval"]["tx_hash"])
    assert isinstance(held, evidence.Granted)
    assert held.approvals == {company.result_id(done, 0), company.result_id(done, 2)}


def test_a_batch_is_taken_only_where_the_policy_lets_it(company: Company) -> None:
    one, two = wire(), payment(action={"name": "wire"}, resource={"type": "payment", "id": "p-2"})
    items = [{"resource": r["resource"], "action": r["action"], "denial": company.denied(r)} for r in (one, two)]
    refused(company, {"subject": one["subject"], "context": one["context"], "items": items}, "not_requestable")


@pytest.mark.parametrize("broken", [{"items": []}, {"items": "x"}, {"items": [5]}, {"resource": {"type": "t", "id": "1"}}, {"items": [{}]}])
def test_a_batch_that_is_none_is_refused(company: Company, broken: dict[str, Any]) -> None:
    _, body = batch(company, 2)
    with pytest.raises((BadRequest, Fault)):
        company.submit({**body, **broken})


def test_one_denial_serves_one_item(company: Company) -> None:
    _, body = batch(company, 2)
    body["items"][1] = body["items"][0]
    refused(company, body, "invalid_denial_binding")


def test_one_assertion_covers_one_declared_batch_of_requests(company: Company) -> None:
    approvals = [company.request(payment(resource={"type": "payment", "id": f"g-{n}"})) for n in range(3)]
    asked = company.ask("bob", *(one.id for one in approvals))
    assert [one["request_id"] for one in asked.objects] == [one.id for one in approvals]
    done = company.core.approvals.approve(
        company.acting("bob"), [one.id for one in approvals], asked.challenge_id, company.sign("bob", asked), company.now
    )
    assert {company.core.approvals.task(one)["task"]["status"] for one in done} == {"approved"}
    for granted in company.records("approval.granted"):
        held = evidence.verify(granted["_evidence"], granted["approval"]["tx_hash"])
        assert isinstance(held, evidence.Granted), held
    for n, one in enumerate(approvals):
        assert company.use(payment(resource={"type": "payment", "id": f"g-{n}"}), company.result_id(one)).allowed


def test_a_declared_batch_is_approved_whole_or_not_at_all(company: Company) -> None:
    approvals = [company.request(payment(resource={"type": "payment", "id": f"g-{n}"})) for n in range(2)]
    asked = company.ask("bob", *(one.id for one in approvals))
    company.core.approvals.cancel(approvals[0].id, "key-1", company.asker().actor, "", company.now)
    with undecided("not_pending"):
        company.core.approvals.approve(company.acting("bob"), None, asked.challenge_id, company.sign("bob", asked), company.now)
    assert company.core.approvals.task(company.again(approvals[1]))["task"]["status"] == "pending"


# Policies in people's place.


def deploy(**transaction: Any) -> dict[str, Any]:
    return {
        "subject": {"type": "workload", "id": "ci-7"}, "action": {"name": "deploy"}, "resource": {"type": "env", "id": "prod"},
        "context": {"transaction": {"artifact": "sha256:aa", "tested": True, **transaction}},
    }  # fmt: skip


def test_a_policy_approves_with_the_same_binding(company: Company) -> None:
    approval = company.request(deploy())
    task = company.core.approvals.task(approval)
    assert task["task"]["status"] == "approved"
    id_ = task["result"]["approval"]["id"]
    assert company.use(deploy(artifact="sha256:bb"), id_).context["reason"] == "out_of_scope"
    assert company.use(deploy(), id_, Executor()).context["reason"] == "approval_unverifiable"
    assert company.use(deploy(), id_).allowed
    assert not company.use(deploy(), id_).allowed
    granted = company.records("approval.granted")[0]
    held = evidence.verify(granted["_evidence"], granted["approval"]["tx_hash"])
    assert isinstance(held, evidence.Granted), held
    assert held.form == "policy"


def test_a_policy_that_does_not_permit_denies(company: Company) -> None:
    assert company.core.approvals.task(company.request(deploy(tested=False)))["task"]["status"] == "denied"
    company.find({"identity": ["ci-7"]}, "critical")
    assert company.core.approvals.task(company.request(deploy()))["task"]["status"] == "denied"


def test_a_policy_that_errs_fails_the_request(company: Company, tmp_path: Path) -> None:
    # `tested` is not there at all: reading it errs.
    asked = deploy()
    del asked["context"]["transaction"]["tested"]
    assert company.core.approvals.task(company.request(asked))["task"]["status"] == "failed"


# Broken glass.


def emergency(company: Company, reason: str = "the payroll is stuck", who: str = "alice") -> Any:
    request = payment(subject={"type": "user", "id": who})
    body = company.submission(request, requested_access={"emergency": True})
    body["context"] = {**body["context"], "business_justification": reason}
    return company.submit(body), request


def test_glass_is_broken_by_who_may_with_a_reason_and_everybody_is_told(company: Company) -> None:
    company.person("alice", "oncall")
    company.person("carol", "finance")
    with pytest.raises(BadRequest, match="reason"):
        emergency(company, "")
    approval, request = emergency(company)
    assert company.core.approvals.task(approval)["task"]["status"] == "approved"
    assert company.use(request, company.result_id(approval)).allowed
    for name in ("bob", "carol"):
        told = company.core.approvals.notices(company.acting(name), company.now)
        assert [one["kind"] for one in told] == ["breakglass.opened"]
        assert "payroll" in told[0]["text"]
    opened = company.records("breakglass.opened")[0]
    assert isinstance(evidence.verify(opened["_evidence"], opened["approval"]["tx_hash"]), evidence.Granted)


def test_a_review_stays_open_until_somebody_else_closes_it(company: Company) -> None:
    company.person("alice", "oncall", "finance")
    approval, _ = emergency(company)
    approvals = company.core.approvals
    (review,) = approvals.reviews(company.acting("bob"), open_only=True)
    assert (review["opened_by"], review["request"], review["reason"]) == ("alice", approval.id, "the payroll is stuck")
    company.wait(90 * 86_400)
    with company.core.db.write() as connection:
        approvals.forget(connection, company.now)
    for name, note in (("alice", "fine by me"), ("dave", "not my group")):
        with pytest.raises(NotYours):
            approvals.close_review(company.acting(name), review["id"], note, company.now)
    with pytest.raises(BadRequest):
        approvals.close_review(company.acting("bob"), review["id"], " ", company.now)
    approvals.close_review(company.acting("bob"), review["id"], "checked with the bank", company.now)
    with pytest.raises(NotYours, match="already"):
        approvals.close_review(company.acting("bob"), review["id"], "again", company.now)
    assert approvals.reviews(company.acting("bob"), open_only=True) == []
    assert len(company.records("breakglass.closed")) == 1


@pytest.mark.parametrize("who", ["nobody", "eve"])
def test_glass_is_not_broken_by_others_whose_request_waits(company: Company, who: str) -> None:
    company.person("eve", "sales")
    approval, _ = emergency(company, who=who)
    assert company.core.approvals.task(approval)["task"]["status"] == "pending"
    assert not company.records("breakglass.opened")


def test_glass_is_not_broken_where_the_policy_names_nobody(company: Company) -> None:
    company.person("alice", "oncall")
    body = company.submission(wire(), requested_access={"emergency": True})
    body["context"] = {**body["context"], "business_justification": "please"}
    assert company.core.approvals.task(company.submit(body))["task"]["status"] == "pending"


# The whole story, verified without the server.


def test_an_auditor_verifies_every_form_from_the_export_alone(company: Company, tmp_path: Path) -> None:
    company.person("alice", "oncall")
    company.use(payment(), company.result_id(company.approve("bob", company.request(payment()))))
    two = company.request(wire())
    company.approve("bob", two)
    company.wait(400)
    company.approve("dave", two)
    company.wait(400)
    company.use(wire(), company.result_id(two))
    requests, body = batch(company, 3)
    part = company.approve("bob", company.submit(body), items=[0, 2])
    company.use(requests[2], company.result_id(part, 2))
    company.find({"identity": ["alice"]})
    company.use(requests[0], company.result_id(part, 0))
    gathered = [company.request(payment(resource={"type": "payment", "id": f"g-{n}"})) for n in range(2)]
    asked = company.ask("bob", *(one.id for one in gathered))
    company.core.approvals.approve(company.acting("bob"), None, asked.challenge_id, company.sign("bob", asked), company.now)
    company.use(payment(resource={"type": "payment", "id": "g-1"}), company.result_id(gathered[1]))
    company.use(deploy(), company.result_id(company.request(deploy())))
    opened, request = emergency(company)
    company.use(request, company.result_id(opened))
    assert len(company.records("approval.consumed")) == 6

    company.core.decider.close()
    write_folder(tmp_path / "bundle", company.core.audit.exported(by=Actor("auditor", "tests"), personal=True))
    with Bundle(tmp_path / "bundle") as bundle:
        report = verify_bundle(bundle, rp_ids=["localhost"], origins=[URL])
    assert report.passed, report.failures()
    assert report.counts["approval.granted"] == 7
