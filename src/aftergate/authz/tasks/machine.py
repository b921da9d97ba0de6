"""The life of a task: proposed, active, then one of four ends. Steps are pure, and no step leads out of an end.

A task may have a parent: then it can do no more, live no longer, and trust no less than its parent, and it dies with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import Struct

from aftergate.authz.tasks import details as d
from aftergate.authz.tasks.answers import Refusal

MAX_PURPOSE: Final = 500
MAX_DEPTH: Final = 16  # of tasks under tasks; chains of actors have their own, smaller bound


class State(StrEnum):
    PROPOSED = "proposed"  # waits for an approval
    ACTIVE = "active"
    COMPLETED = "completed"  # said so itself
    CANCELLED = "cancelled"  # somebody called it off
    EXPIRED = "expired"  # its time was over
    KILLED = "killed"  # trust fell below the floor, its parent ended, or an administrator did it


LIVING: Final = frozenset({State.PROPOSED, State.ACTIVE})
ENDS: Final = frozenset(State) - LIVING


class Principal(Struct, frozen=True, order=True):
    """An entity as policies name it: `Type::"id"`."""

    type: str
    id: str

    def __str__(self) -> str:
        return f"{self.type}:{self.id}"


class Task(Struct, frozen=True, kw_only=True):
    """A declared purpose: who, which actions on what, on whose behalf, until when."""

    id: str
    who: Principal
    purpose: str
    details: tuple[Mapping[str, Any], ...]
    created_ms: int
    until_ms: int
    floor: int  # 0 to 100: it dies when trust falls below
    state: State = State.PROPOSED
    on_behalf_of: Principal | None = None
    parent: str | None = None
    depth: int = 0  # parents above it
    proof: str = ""  # how `who` was proved: api_key, private_key_jwt, jwt_svid, oidc, task_token
    session: str = ""  # session and credential that trust is looked up for as well
    credential: str = ""
    approval: str = ""  # the access request that was made in its name
    ended_ms: int | None = None
    reason: str = ""

    @property
    def scope(self) -> frozenset[str]:
        """Its actions: what a token's `scope` may name."""
        return d.actions_of(self.details)


class Limits(Struct, frozen=True):
    """What the operator allows at most."""

    ttl_max_ms: int
    token_ttl_ms: int
    act_depth: int
    floor: int


class Draft(Struct, frozen=True, kw_only=True):
    """A task as asked for. `floor` None takes the operator's or the parent's."""

    who: Principal
    purpose: str
    details: tuple[Mapping[str, Any], ...]
    until_ms: int | None = None
    on_behalf_of: Principal | None = None
    floor: int | None = None
    proof: str = ""
    session: str = ""
    credential: str = ""


def propose(draft: Draft, task_id: str, now_ms: int, limits: Limits, types: d.Types, parent: Task | None = None) -> Task | Refusal:
    """A new task, or why not. With a parent it stays within the parent in every respect."""
    if not draft.purpose.strip() or len(draft.purpose) > MAX_PURPOSE:
        return Refusal("invalid_request", f"purpose must have 1 to {MAX_PURPOSE} characters")
    scope = d.actions_of(draft.details)
    odd = sorted(value for value in scope if not d.SCOPE_TOKEN.fullmatch(value))
    if odd:
        return Refusal("invalid_scope", f"the action `{odd[0][:64]}` cannot be a scope value: no spaces, quotes or backslashes")
    until_ms = now_ms + limits.ttl_max_ms if draft.until_ms is None else draft.until_ms
    if parent is not None and draft.until_ms is None:
        until_ms = min(until_ms, parent.until_ms)
    if until_ms <= now_ms:
        return Refusal("invalid_request", "until is in the past")
    if until_ms > now_ms + limits.ttl_max_ms:
        return Refusal("invalid_request", f"until is later than the {limits.ttl_max_ms // 1000} seconds that a task may live")
    floor = max(limits.floor if draft.floor is None else draft.floor, parent.floor if parent is not None else 0)
    if not 0 <= floor <= 100:
        return Refusal("invalid_request", "floor must be between 0 and 100")
    if floor < limits.floor:
        return Refusal("invalid_request", f"floor must be at least {limits.floor}, which the operator has set")
    on_behalf_of = draft.on_behalf_of
    if parent is not None:
        on_behalf_of = parent.on_behalf_of if on_behalf_of is None else on_behalf_of
        refused = _beyond(parent, draft, until_ms, on_behalf_of, types)
        if refused is not None:
            return refused
    return Task(
        id=task_id,
        who=draft.who,
        purpose=draft.purpose,
        details=draft.details,
        created_ms=now_ms,
        until_ms=until_ms,
        floor=floor,
        on_behalf_of=on_behalf_of,
        parent=parent.id if parent is not None else None,
        depth=parent.depth + 1 if parent is not None else 0,
        proof=draft.proof,
        session=draft.session,
        credential=draft.credential,
    )


def _beyond(parent: Task, draft: Draft, until_ms: int, on_behalf_of: Principal | None, types: d.Types) -> Refusal | None:
    if parent.state is not State.ACTIVE:
        return Refusal("invalid_request", f"the parent task is {parent.state}")
    if parent.depth + 1 > MAX_DEPTH:
        return Refusal("invalid_request", f"tasks can be nested {MAX_DEPTH} deep")
    if until_ms > parent.until_ms:
        return Refusal("invalid_request", "until is later than the parent task's")
    if on_behalf_of != parent.on_behalf_of:
        return Refusal("invalid_request", "a task under another acts on behalf of the same")
    return d.all_within(draft.details, parent.details, types)


def activate(task: Task, now_ms: int) -> Task | Refusal:
    """From proposed to active, once its policies (and its approval, where one is needed) said yes."""
    if task.state is not State.PROPOSED:
        return Refusal("invalid_task_state", f"the task is {task.state}")
    if now_ms >= task.until_ms:
        return Refusal("invalid_task_state", "the task's time is over")
    return msgspec.structs.replace(task, state=State.ACTIVE)


def end(task: Task, state: State, reason: str, now_ms: int) -> Task | Refusal:
    """One of the four ends. What has ended stays as it ended.

    Raises: ValueError, for a state that is no end.
    """
    if state not in ENDS:
        raise ValueError(f"{state} is not an end")
    if task.state in ENDS:
        return Refusal("invalid_task_state", f"the task is {task.state} already")
    if state is State.EXPIRED and now_ms < task.until_ms:
        return Refusal("invalid_task_state", "the task's time is not over")
    if state is State.COMPLETED and task.state is State.PROPOSED:
        return Refusal("invalid_task_state", "the task has not started")
    return msgspec.structs.replace(task, state=state, ended_ms=now_ms, reason=reason)


def end_tree(tasks: Mapping[str, Task], root: str, state: State, reason: str, now_ms: int) -> tuple[Task, ...] | Refusal:
    """End `root`, and kill every living task below it: the changed tasks, root first."""
    first = end(tasks[root], state, reason, now_ms)
    if isinstance(first, Refusal):
        return first
    changed = [first]
    below = _children(tasks.values())
    queue = [root]
    while queue:
        for child in below.get(queue.pop(), ()):
            queue.append(child.id)
            killed = end(child, State.KILLED, f"task {root} above it ended: {state}", now_ms)
            if isinstance(killed, Task):
                changed.append(killed)
    return tuple(changed)


def _children(tasks: Iterable[Task]) -> dict[str, list[Task]]:
    below: dict[str, list[Task]] = {}
    for task in tasks:
        if task.parent is not None:
            below.setdefault(task.parent, []).append(task)
    return below


class Cause(Struct, frozen=True):
    """What ends a task now."""

    state: State
    reason: str


def due(task: Task, now_ms: int, trust: int) -> Cause | None:
    """The end that a living task has come to by itself: its time is over, or `trust` (0 to 100) is below its floor."""
    if task.state in ENDS:
        return None
    if now_ms >= task.until_ms:
        return Cause(State.EXPIRED, "its time was over")
    if trust < task.floor:
        return Cause(State.KILLED, f"trust {trust} is below its floor {task.floor}")
    return None


def alive(chain: Sequence[Task], now_ms: int) -> bool:
    """True when a task and all tasks above it, as given, are active and in time. An empty chain is not alive."""
    return bool(chain) and all(task.state is State.ACTIVE and now_ms < task.until_ms for task in chain)
