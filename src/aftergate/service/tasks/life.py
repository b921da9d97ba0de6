"""A task from its declaration to its end: asked of the policies, started, and ended with everything below it at once.

Ending is one transaction: the task, the tasks under it, and with them every token, since a token lives only while its task does.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection

from aftergate.audit.records import Actor, Party, Record, Risk
from aftergate.authz.tasks import details as d
from aftergate.authz.tasks import machine as m
from aftergate.authz.tasks.answers import Refusal
from aftergate.authz.wire import ActionRef, Entity, EvaluationRequest
from aftergate.errors import AftergateError
from aftergate.events.clock import to_iso
from aftergate.service.decisions import Answer, Asker
from aftergate.service.trust import Standing
from aftergate.stores import tasks as store

if TYPE_CHECKING:
    from aftergate.service.tasks import Tasks
    from aftergate.service.tasks.asking import Asking, Presented

START: Final = "task.start"
SERVER: Final = Actor("server", "tasks")
_RECORD_OF: Final = {
    m.State.COMPLETED: "task.completed",
    m.State.CANCELLED: "task.cancelled",
    m.State.EXPIRED: "task.expired",
    m.State.KILLED: "task.killed",
}


class Wanted(Struct, frozen=True, kw_only=True):
    """A task as its body asks for it; `details` are checked already."""

    purpose: str
    details: tuple[d.Detail, ...]
    on_behalf_of: m.Principal | None = None
    until_ms: int | None = None
    floor: int | None = None
    parent: str = ""
    session: str = ""
    credential: str = ""
    request_approval: bool = False


class Made(Struct, frozen=True):
    """A task that was taken: active, or proposed with what its approval needs (`access_request`) or is (`approval_task`)."""

    task: m.Task
    answer: Answer
    approval_task: dict[str, Any] | None = None


class Denied(Struct, frozen=True):
    """The policies said no. `answer` says which and what would change it."""

    answer: Answer


def create(tasks: Tasks, asking: Asking, wanted: Wanted, presented: Presented, now_ms: int) -> Made | Denied | Refusal:
    """Declare a task. Active at once where the policies permit it; proposed where they ask for an approval.

    Raises: StoreUnavailable.
    """
    parent = _parent(tasks, asking, wanted, now_ms)
    if isinstance(parent, Refusal):
        return parent
    draft = m.Draft(
        who=asking.principal,
        purpose=wanted.purpose,
        details=wanted.details,
        until_ms=wanted.until_ms,
        on_behalf_of=wanted.on_behalf_of,
        floor=wanted.floor,
        proof=asking.how,
        session=wanted.session,
        credential=wanted.credential or (asking.caller if asking.how == "api_key" else ""),
    )
    task = m.propose(draft, "task-" + secrets.token_urlsafe(18), now_ms, tasks.limits, tasks.known.types, parent)
    if isinstance(task, Refusal):
        return task
    request = start_request(task, asking)
    answer = tasks.core.decider.evaluate(request, _asker(asking, presented))
    if answer.allowed:
        active = m.activate(task, now_ms)
        assert isinstance(active, m.Task)
        refused = _keep(tasks, asking, active, now_ms)
        return Made(active, answer) if refused is None else refused
    if answer.decision.outcome != "approval" or "access_request" not in answer.context:
        return Denied(answer)
    shown: dict[str, Any] | None = None
    if wanted.request_approval:
        submitted = _submit(tasks, asking, request, answer, now_ms)
        if isinstance(submitted, Refusal):
            return submitted
        task = msgspec.structs.replace(task, approval=submitted["task"]["id"])
        shown = submitted
    refused = _keep(tasks, asking, task, now_ms)
    return Made(task, answer, shown) if refused is None else refused


def _parent(tasks: Tasks, asking: Asking, wanted: Wanted, now_ms: int) -> m.Task | Refusal | None:
    """The task above: the one named, which must be the caller's own, else the one whose token was shown."""
    name = wanted.parent or asking.task
    if asking.task and name != asking.task:
        return Refusal("invalid_request", "a task's token makes tasks under that task only")
    if not name:
        return None
    with tasks.core.db.read() as connection:
        chain = store.chain(connection, name)
    if not chain or not (asking.admin or asking.task == name or chain[0].who == asking.principal):
        return Refusal("invalid_request", "no such parent task")
    if not m.alive(chain, now_ms):
        return Refusal("invalid_request", "the parent task has ended")
    return chain[0]


def start_request(task: m.Task, asking: Asking) -> EvaluationRequest:
    """The question that `task.start` is. It is made from the task alone, so that the one after an approval is the same."""
    properties: dict[str, Any] = {
        "purpose": task.purpose,
        "actions": sorted(task.scope),
        "authorization_details": [dict(detail) for detail in task.details],
        "until": to_iso(task.until_ms),
        "life_s": (task.until_ms - task.created_ms) // 1000,
        "proof": task.proof,
        "depth": task.depth,
    }
    resources = sorted({name for detail in task.details for name in detail.get("identifiers", ())})
    if resources:
        properties["resources"] = resources
    if task.on_behalf_of is not None:
        properties["on_behalf_of"] = task.on_behalf_of.id
    if task.parent is not None:
        properties["parent"] = task.parent
    named = {"session_id": task.session, "credential_id": task.credential}
    context: dict[str, Any] = {"credential": {"class": task.proof}, **{name: value for name, value in named.items() if value}}
    return EvaluationRequest(
        Entity(asking.principal.type, asking.principal.id, {}), ActionRef(START, {}), Entity("task", task.id, properties), context
    )


def _asker(asking: Asking, presented: Presented, proof: str = "") -> Asker:
    return Asker(
        asking.caller or asking.client, asking.actor(), presented.request_id, presented.method, (presented.url,), proof, presented.x5t
    )


def _submit(tasks: Tasks, asking: Asking, request: EvaluationRequest, answer: Answer, now_ms: int) -> dict[str, Any] | Refusal:
    """Ask for the approval in the caller's name (AuthZEN Access Request and Approval Profile). Its executor is the key that the caller showed."""
    from aftergate.service.approvals import Fault, Submission
    from aftergate.service.approvals.submitting import EXECUTOR

    offer = answer.context["access_request"]
    if not asking.binding:
        return Refusal("invalid_request", "an approval names its executor's key: send a DPoP proof, or come with a client certificate")
    body: dict[str, Any] = {
        "subject": {"type": request.subject.type, "id": request.subject.id},
        "action": {"name": request.action.name},
        "resource": {"type": request.resource.type, "id": request.resource.id, "properties": request.resource.properties},
        "context": request.context,
        "denial": {"binding_token": offer["binding_token"], "expires_at": offer["expires_at"]},
        "requested_access": {EXECUTOR: asking.binding.cnf()},
    }
    try:
        approval = tasks.core.approvals.submit(Submission(body, asking.caller or asking.client, asking.actor()), now_ms)
    except Fault as fault:
        return Refusal("access_denied", str(fault))
    except AftergateError as error:
        return Refusal("invalid_request", error.message)
    shown: dict[str, Any] = tasks.core.approvals.task(approval)
    return shown


def _keep(tasks: Tasks, asking: Asking, task: m.Task, now_ms: int) -> Refusal | None:
    """Write a new task, under a parent that is still alive now."""
    with tasks.core.db.write() as connection:
        if task.parent is not None:
            chain = store.chain(connection, task.parent, lock=True)
            if not m.alive(chain, now_ms):
                return Refusal("invalid_request", "the parent task has ended")
        store.add(connection, task)
        tasks.core.audit.append(connection, [record("task.created", task, asking.actor(), detail=_declared(task))])
    return None


def _declared(task: m.Task) -> dict[str, Any]:
    return {
        "state": task.state.value,
        "actions": sorted(task.scope)[:100],
        "until_ms": task.until_ms,
        "floor": task.floor,
        "proof": task.proof,
        **({"parent": task.parent} if task.parent is not None else {}),
    }


def start(
    tasks: Tasks, asking: Asking, task_id: str, approval: dict[str, Any] | None, presented: Presented, now_ms: int
) -> Made | Denied | Refusal:
    """Start a proposed task with its approval, which is used up by it.

    `approval` is `context.approval` as the profile has it; None takes the approval that `request_approval` asked for.
    Raises: StoreUnavailable.
    """
    with tasks.core.db.read() as connection:
        task = store.find(connection, task_id)
    if task is None or task.who != asking.principal:
        return Refusal("unknown_task", "no such task")
    if task.state is not m.State.PROPOSED:
        return Refusal("invalid_task_state", f"the task is {task.state}")
    if approval is None:
        found = approval_of(tasks, asking, task, now_ms)
        if isinstance(found, Refusal):
            return found
        approval = found
    request = start_request(task, asking)
    request = msgspec.structs.replace(request, context={**request.context, "approval": approval})
    proof = presented.dpop[0] if len(presented.dpop) == 1 else ""
    answer = tasks.core.decider.evaluate(request, _asker(asking, presented, proof))
    if not answer.allowed:
        return Denied(answer)
    active = m.activate(task, now_ms)
    if isinstance(active, Refusal):
        return active
    with tasks.core.db.write() as connection:
        if task.parent is not None and not m.alive(store.chain(connection, task.parent, lock=True), now_ms):
            return Refusal("invalid_request", "the parent task has ended")
        if not store.change(connection, task, active):
            return Refusal("invalid_task_state", "the task is not proposed any more")
        tasks.core.audit.append(connection, [record("task.created", active, asking.actor(), detail=_declared(active))])
    return Made(active, answer)


def approval_state(tasks: Tasks, asking: Asking, task: m.Task, now_ms: int) -> dict[str, Any]:
    """How the approval stands that was asked for in a task's name; empty if it is gone or not the caller's to see. Raises: StoreUnavailable."""
    from aftergate.service.approvals import Fault

    try:
        shown: dict[str, Any] = tasks.core.approvals.task(tasks.core.approvals.look(task.approval, asking.caller or asking.client, now_ms))
    except Fault:
        return {}
    return shown


def approval_of(tasks: Tasks, asking: Asking, task: m.Task, now_ms: int) -> dict[str, Any] | Refusal:
    """The approval that was asked for in this task's name, once it is given."""
    if not task.approval:
        return Refusal("invalid_request", "name the approval: `approval` with its `id`")
    shown = approval_state(tasks, asking, task, now_ms)
    status = shown.get("task", {}).get("status", "unknown")
    given = shown.get("result", {}).get("approval")
    if status != "approved" or not isinstance(given, dict):
        return Refusal("approval_pending", f"the approval is {status}")
    return {"id": given["id"]}


def finish(tasks: Tasks, asking: Asking, task_id: str, state: m.State, reason: str, now_ms: int) -> m.Task | Refusal:
    """Complete or cancel: the task's own workload may, and an administrator. Raises: StoreUnavailable."""
    with tasks.core.db.write() as connection:
        task = store.find(connection, task_id, lock=True)
        if task is None or not (asking.admin or task.who == asking.principal):
            return Refusal("unknown_task", "no such task")
        changed = end_tree(tasks, connection, task, state, reason, now_ms, asking.actor())
        return changed if isinstance(changed, Refusal) else changed[0]


def end_tree(
    tasks: Tasks, connection: Connection, task: m.Task, state: m.State, reason: str, now_ms: int, actor: Actor, risk: Risk | None = None
) -> tuple[m.Task, ...] | Refusal:
    """End a task and kill what is below, recorded, in the caller's transaction.

    INVARIANT: a row is changed before what hangs below it is looked for, see `stores/tasks.py`.
    """
    first = m.end(task, state, reason, now_ms)
    if isinstance(first, Refusal):
        return first
    if not store.change(connection, task, first):
        return Refusal("invalid_task_state", "the task has ended already")
    changed = [first]
    queue = [task.id]
    while queue:
        for child in store.below(connection, queue.pop()):
            queue.append(child.id)
            killed = m.end(child, m.State.KILLED, f"task {task.id} above it ended: {state}", now_ms)
            if isinstance(killed, m.Task) and store.change(connection, child, killed):
                changed.append(killed)
    records = [
        record(_RECORD_OF[each.state], each, actor, risk=risk if each is first else None, detail={"root": task.id}) for each in changed
    ]
    tasks.core.audit.append(connection, records)
    return tuple(changed)


def kill(tasks: Tasks, actor: Actor, found: Sequence[m.Task], reason: str, now_ms: int) -> list[str]:
    """Kill living tasks by order of an administrator; ids of all that died. Raises: StoreUnavailable."""
    gone: list[str] = []
    with tasks.core.db.write() as connection:
        for each in found:
            task = store.find(connection, each.id, lock=True)
            changed = end_tree(tasks, connection, task, m.State.KILLED, reason, now_ms, actor) if task is not None else None
            if isinstance(changed, tuple):
                gone += [one.id for one in changed]
    return gone


def trust_in(tasks: Tasks, connection: Connection, task: m.Task) -> Standing:
    """Live trust in whom a task is about, as this transaction sees it. Its own id counts as a session: what its agent tried lowers it."""
    identity = [task.who.id] + ([task.on_behalf_of.id] if task.on_behalf_of is not None else [])
    credential = [task.credential] if task.credential else []
    return tasks.core.trust.read(connection, identity, [task.id, *([task.session] if task.session else [])], credential)


def pulse(tasks: Tasks, task_id: str, now_ms: int) -> tuple[m.Task, ...]:
    """A task and those above it, if all of them are alive now, else nothing. One whose time or trust is over ends here.

    Raises: StoreUnavailable.
    """
    with tasks.core.db.read() as connection:
        chain = store.chain(connection, task_id)
        over = any(m.due(task, now_ms, trust_in(tasks, connection, task).lowest) is not None for task in chain)
    if over:
        with tasks.core.db.write() as connection:
            chain = beat(tasks, connection, task_id, now_ms)
    return chain if m.alive(chain, now_ms) else ()


def beat(tasks: Tasks, connection: Connection, task_id: str, now_ms: int) -> tuple[m.Task, ...]:
    """The same within a write transaction, which then holds the rows: nobody can end the task before it commits."""
    chain = store.chain(connection, task_id, lock=True)
    for task in reversed(chain):
        if settle(tasks, connection, task, now_ms):
            return ()
    return chain if m.alive(chain, now_ms) else ()


def settle(tasks: Tasks, connection: Connection, task: m.Task, now_ms: int) -> bool:
    """End a task that has come to its end by itself; whether it did."""
    standing = trust_in(tasks, connection, task)
    cause = m.due(task, now_ms, standing.lowest)
    if cause is None:
        return False
    risk = Risk(score=100 - standing.lowest, signals=standing.findings) if cause.state is m.State.KILLED else None
    end_tree(tasks, connection, task, cause.state, cause.reason, now_ms, SERVER, risk)
    return True


def sweep(tasks: Tasks, now_ms: int, *, trust: bool) -> int:
    """End what is over; with `trust`, also whatever trust has fallen below its floor. How many were looked at. Raises: StoreUnavailable."""
    with tasks.core.db.read() as connection:
        found = store.living(connection, due_ms=None if trust else now_ms)
        ill = [task for task in found if m.due(task, now_ms, trust_in(tasks, connection, task).lowest) is not None]
    for task in ill:
        with tasks.core.db.write() as connection:
            current = store.find(connection, task.id, lock=True)
            if current is not None:
                settle(tasks, connection, current, now_ms)
    return len(found)


def record(
    kind: str,
    task: m.Task,
    actor: Actor,
    *,
    detail: dict[str, Any] | None = None,
    risk: Risk | None = None,
    personal: dict[str, str] | None = None,
    **more: Any,
) -> Record:
    """An audit record about a task. What people wrote or are stands in its erasable part."""
    told = {"purpose": task.purpose, **({"reason": task.reason} if task.reason else {}), **(personal or {})}
    if task.on_behalf_of is not None:
        told["on_behalf_of"] = str(task.on_behalf_of)
    return Record(
        type=kind,
        actor=actor,
        subject=Party(task.who.type, task.who.id),
        task=task.id,
        detail=detail or {},
        risk=risk,
        personal=told,
        **more,
    )
