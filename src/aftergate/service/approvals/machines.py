"""The machine-to-machine form: policies say yes in people's place, to the same object, with the same binding to the executor's key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from aftergate.audit.records import Actor, ApprovalRef, Record
from aftergate.authz.decide import decide
from aftergate.authz.transactions import machine
from aftergate.authz.transactions.canonical import b64url
from aftergate.authz.transactions.machine import State
from aftergate.authz.transactions.objects import challenge, encoded
from aftergate.authz.wire import ActionRef, EvaluationRequest
from aftergate.service.approvals.recording import record, records_of
from aftergate.stores.approvals import Approval

if TYPE_CHECKING:
    from aftergate.service.core import Core


def asking(core: Core, approval: Approval, requests: Sequence[EvaluationRequest], now_ms: int, records: list[Record]) -> State:
    """Ask the policies for every action that stands for a yes, for every item. All must permit.

    Where they do not, people are asked, if the denying policies name any; otherwise the request is denied at once.
    """
    policies: set[str] = set()
    said_no = failed = ""
    for request in requests:
        for action in approval.asked.machine:
            properties = {**request.action.properties, "action": request.action.name}
            asked = replace(request, action=ActionRef(action, properties))
            answer = decide(asked, core.decider.snapshot, core.decider.facts(asked, now_ms))
            if not answer.allowed:
                said_no = said_no or f"no policy permits `{action}`"
                failed = failed or "; ".join(fault.message for fault in answer.errors)
            policies.update(answer.determining)
    if not said_no:
        step = machine.approve_by_policy(approval.state, tuple(sorted(policies)), now_ms)
        if step.refused is None:
            records.append(_granted(approval, tuple(sorted(policies))))
            return step.state
        said_no = step.refused.detail
    if approval.asked.needs:
        return approval.state
    step = machine.end(approval.state, "failed" if failed else "denied", failed or said_no, now_ms)
    records.extend(records_of(approval, step.emit, risk=approval.risk))
    return step.state


def _granted(approval: Approval, policies: tuple[str, ...]) -> Record:
    approved = {**approval.object, "risk": approval.risk.wire()}
    digest = b64url(challenge(encoded(approved)))
    return record(
        "approval.granted",
        approval,
        actor=Actor("policy", ",".join(policies)),
        risk=approval.risk,
        ref=ApprovalRef(approval.id, digest, quorum=approval.object["quorum"]["needed"]),
        reasons=policies,
        evidence={"form": "policy", "object": approved},
    )
