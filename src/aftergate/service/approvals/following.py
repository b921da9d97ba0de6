"""Following a request: how it stands, cancelling it, and its end when nobody decides (AuthZEN Access Request and Approval Profile)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aftergate.audit.records import Actor
from aftergate.authz.transactions import machine
from aftergate.authz.transactions.machine import State
from aftergate.authz.transactions.objects import rfc3339
from aftergate.errors import AftergateError
from aftergate.service.approvals.offering import REQUESTS
from aftergate.service.approvals.recording import keep, records_of
from aftergate.stores import approvals as store
from aftergate.stores.approvals import Approval

if TYPE_CHECKING:
    from aftergate.service.core import Core

URN: Final = "urn:openid:authzen:access-request:error:"
STATUS: Final = {
    "not_requestable": 400,
    "expired_denial": 410,
    "invalid_denial_binding": 400,
    "duplicate_request": 409,
    "unknown_task": 404,
    "task_expired": 410,
    "invalid_task_state": 409,
}
POLL_S: Final = 3
KEPT_MS: Final = 86_400_000  # a task handle lives on for a day after its approval ran out


class Fault(AftergateError):
    """A submission that is refused. `fault` is the last part of the profile's problem type, empty where the profile has none."""

    code = "access-request"

    def __init__(self, fault: str, detail: str, *, status: int = 0) -> None:
        super().__init__(detail)
        self.fault = fault
        self.status = status or STATUS.get(fault, 400)

    @property
    def type(self) -> str:
        return URN + self.fault if self.fault else "about:blank"


def look(core: Core, id_: str, caller: str, now_ms: int) -> Approval:
    """A request for one of its callers; what ran out is written down first.

    Raises: Fault (unknown_task, task_expired), StoreUnavailable.
    """
    with core.db.read() as connection:
        approval = store.by_id(connection, id_) if len(id_) <= 64 else None
    if approval is None or caller not in approval.object["callers"]:
        raise Fault("unknown_task", "no such request for this caller")
    if now_ms >= handle_until(approval):
        raise Fault("task_expired", "this request is over")
    return expire(core, approval, now_ms) if machine.tick(approval.state, now_ms).emit else approval


def expire(core: Core, approval: Approval, now_ms: int) -> Approval:
    """Write down that nobody decided in time."""
    with core.db.write() as connection:
        held = store.by_number(connection, approval.number, lock=True)
        assert held is not None
        step = machine.tick(held.state, now_ms)
        if step.emit:
            keep(core, connection, held, step.state, now_ms)
            core.audit.append(connection, records_of(held, step.emit))
        made = store.by_number(connection, approval.number)
    assert made is not None
    return made


def cancel(core: Core, id_: str, caller: str, actor: Actor, reason: str, now_ms: int) -> Approval:
    """Take a request back.

    Raises: Fault (unknown_task, task_expired, invalid_task_state), StoreUnavailable.
    """
    number = look(core, id_, caller, now_ms).number
    with core.db.write() as connection:
        approval = store.by_number(connection, number, lock=True)
        assert approval is not None
        step = machine.cancel(approval.state, reason, now_ms)
        if step.refused is not None:
            raise Fault("invalid_task_state", step.refused.detail)
        keep(core, connection, approval, step.state, now_ms)
        core.audit.append(connection, records_of(approval, step.emit, actor=actor))
        made = store.by_number(connection, number)
    assert made is not None
    return made


def handle_until(approval: Approval) -> int:
    """When the task handle ends: a day after the approval could last have been used."""
    terms = approval.state.terms
    return terms.decide_by_ms + terms.ttl_ms + KEPT_MS


def task_wire(core: Core, approval: Approval) -> dict[str, Any]:
    """The answer of the profile: `task`, and `result` once approved."""
    held, state = approval.object, approval.state
    here = f"{core.url}{REQUESTS}/{approval.id}"
    status = machine.wire_status(state)
    task: dict[str, Any] = {
        "id": approval.id,
        "status": status,
        "status_endpoint": here,
        "expires_at": rfc3339(handle_until(approval)),
        "links": {"review": f"{core.url}/approvals#{approval.id}", **({"cancel": f"{here}/cancel"} if status == "pending" else {})},
    }
    if approval.asked.quorum > 1 or len(approval.asked.needs) > 1:
        task["progress"] = {"current_step": min(len(state.votes) + 1, approval.asked.quorum), "total_steps": approval.asked.quorum}
    if "items" not in held:
        made = {"task": task}
        if status == "approved":
            made["result"] = _result(held["approval_id"], state)
        return made
    task["items"] = []
    for item, became in zip(held["items"], state.items, strict=True):
        shown = {"resource": item["resource"], "action": item["action"], "status": machine.item_wire(became)}
        if shown["status"] == "approved":
            shown["result"] = _result(item["approval_id"], state)
        task["items"].append(shown)
    return {"task": task}


def _result(approval_id: str, state: State) -> dict[str, Any]:
    approval = {"id": approval_id, "approved_at": rfc3339(state.approved_ms), "approved_until": rfc3339(state.until_ms)}
    return {"mode": "reevaluate", "approval": approval}
