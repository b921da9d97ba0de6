"""Tasks, their tokens and their keys, as rows.

INVARIANT: whoever makes a token or a task under a parent holds the parent's row locked (`lock`), and whoever ends a parent changes that row first and
then looks for what is below it. So of a race between the two, either the child is seen and dies too, or its maker sees the parent dead.
On SQLite a write transaction is alone anyway; on PostgreSQL the row lock does it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from aftergate.authz.tasks.keys import SigningKey
from aftergate.authz.tasks.machine import ENDS, LIVING, Principal, State, Task
from aftergate.stores.tables.tasks import task_tokens, tasks, token_keys

_LIVING: Final = sorted(LIVING)
DEAD_USE_EVERY_MS: Final = 60_000


class _Body(Struct, omit_defaults=True):
    """What of a task is never searched for."""

    who: tuple[str, str]
    purpose: str
    details: tuple[dict[str, Any], ...]
    floor: int
    behalf: tuple[str, str] | None = None
    depth: int = 0
    proof: str = ""
    session: str = ""
    credential: str = ""
    approval: str = ""
    reason: str = ""


_body = msgspec.json.Decoder(_Body)


class Token(Struct, frozen=True):
    """What is kept of one token."""

    digest: bytes
    task: str
    kind: str
    client: str
    issued_ms: int
    exp_ms: int
    parent: bytes | None = None
    subject: bytes | None = None
    revoked_ms: int | None = None


def _values(task: Task) -> dict[str, Any]:
    body = _Body(
        who=(task.who.type, task.who.id),
        purpose=task.purpose,
        details=tuple(dict(detail) for detail in task.details),
        floor=task.floor,
        behalf=(task.on_behalf_of.type, task.on_behalf_of.id) if task.on_behalf_of is not None else None,
        depth=task.depth,
        proof=task.proof,
        session=task.session,
        credential=task.credential,
        approval=task.approval,
        reason=task.reason,
    )
    return {
        "who": str(task.who),
        "behalf": str(task.on_behalf_of) if task.on_behalf_of is not None else None,
        "parent": task.parent,
        "state": task.state.value,
        "created_ms": task.created_ms,
        "until_ms": task.until_ms,
        "ended_ms": task.ended_ms,
        "body": msgspec.json.encode(body).decode(),
    }


def _task(row: Row[Any]) -> Task:
    body = _body.decode(row.body)
    return Task(
        id=row.id,
        who=Principal(*body.who),
        purpose=body.purpose,
        details=body.details,
        created_ms=row.created_ms,
        until_ms=row.until_ms,
        floor=body.floor,
        state=State(row.state),
        on_behalf_of=Principal(*body.behalf) if body.behalf is not None else None,
        parent=row.parent,
        depth=body.depth,
        proof=body.proof,
        session=body.session,
        credential=body.credential,
        approval=body.approval,
        ended_ms=row.ended_ms,
        reason=body.reason,
    )


def add(connection: Connection, task: Task) -> None:
    connection.execute(insert(tasks).values(id=task.id, denials=0, **_values(task)))


def find(connection: Connection, task_id: str, *, lock: bool = False) -> Task | None:
    """One task. `lock` holds its row until the transaction ends."""
    query = select(tasks).where(tasks.c.id == task_id)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _task(row)


def chain(connection: Connection, task_id: str, *, lock: bool = False) -> tuple[Task, ...]:
    """A task and those above it, nearest first; empty if it is not known. `lock` holds their rows, root first, as all who lock several do."""
    found: list[Task] = []
    here: str | None = task_id
    while here is not None:
        task = find(connection, here)
        if task is None:
            return ()
        found.append(task)
        here = task.parent
    if not lock:
        return tuple(found)
    held = [find(connection, task.id, lock=True) for task in reversed(found)]
    return tuple(task for task in reversed(held) if task is not None)


def change(connection: Connection, before: Task, after: Task) -> bool:
    """Write a step of a task; false if somebody else took one first."""
    query = update(tasks).where(tasks.c.id == before.id, tasks.c.state == before.state.value)
    return connection.execute(query.values(**_values(after))).rowcount == 1


def below(connection: Connection, task_id: str) -> list[Task]:
    """The tasks right below one."""
    return [_task(row) for row in connection.execute(select(tasks).where(tasks.c.parent == task_id).order_by(tasks.c.id))]


def living(connection: Connection, *, due_ms: int | None = None) -> list[Task]:
    """Tasks that have not ended; with `due_ms`, those whose time is over then."""
    query = select(tasks).where(tasks.c.state.in_(_LIVING)).order_by(tasks.c.until_ms, tasks.c.id)
    if due_ms is not None:
        query = query.where(tasks.c.until_ms <= due_ms)
    return [_task(row) for row in connection.execute(query)]


def of_people(connection: Connection, principal: Principal) -> list[Task]:
    """Living tasks of, or on behalf of, one principal."""
    name = str(principal)
    query = select(tasks).where(tasks.c.state.in_(_LIVING), or_(tasks.c.who == name, tasks.c.behalf == name)).order_by(tasks.c.id)
    return [_task(row) for row in connection.execute(query)]


def listed(
    connection: Connection, *, who: Principal | None = None, state: str | None = None, before_ms: int | None = None, limit: int = 100
) -> list[Task]:
    """Tasks for people to look at, newest first."""
    query = select(tasks).order_by(tasks.c.created_ms.desc(), tasks.c.id).limit(limit)
    if who is not None:
        query = query.where(tasks.c.who == str(who))
    if state is not None:
        query = query.where(tasks.c.state == state)
    if before_ms is not None:
        query = query.where(tasks.c.created_ms < before_ms)
    return [_task(row) for row in connection.execute(query)]


def counts(connection: Connection) -> dict[str, int]:
    """How many tasks are in each state."""
    return {row[0]: row[1] for row in connection.execute(select(tasks.c.state, func.count()).group_by(tasks.c.state))}


def denied(connection: Connection, task_id: str) -> int:
    """Count one more refused tool call of a task; how many there are now."""
    connection.execute(update(tasks).where(tasks.c.id == task_id).values(denials=tasks.c.denials + 1))
    return int(connection.execute(select(tasks.c.denials).where(tasks.c.id == task_id)).scalar() or 0)


# Tokens


def add_token(connection: Connection, token: Token) -> None:
    connection.execute(
        insert(task_tokens).values(
            digest=token.digest,
            task=token.task,
            parent=token.parent,
            subject=token.subject,
            kind=token.kind,
            client=token.client,
            issued_ms=token.issued_ms,
            exp_ms=token.exp_ms,
            dead_uses=0,
        )
    )


def find_token(connection: Connection, digest: bytes, *, lock: bool = False) -> Token | None:
    query = select(task_tokens).where(task_tokens.c.digest == digest)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _token(row)


def _token(row: Row[Any]) -> Token:
    return Token(
        digest=bytes(row.digest),
        task=row.task,
        kind=row.kind,
        client=row.client,
        issued_ms=row.issued_ms,
        exp_ms=row.exp_ms,
        parent=bytes(row.parent) if row.parent is not None else None,
        subject=bytes(row.subject) if row.subject is not None else None,
        revoked_ms=row.revoked_ms,
    )


def revoke_family(connection: Connection, roots: Iterable[bytes], now_ms: int) -> list[Token]:
    """Revoke tokens and all derived from them; those that were not revoked before."""
    changed: list[Token] = []
    queue = list(roots)
    while queue:
        digest = queue.pop()
        mine = update(task_tokens).where(task_tokens.c.digest == digest, task_tokens.c.revoked_ms.is_(None)).values(revoked_ms=now_ms)
        if connection.execute(mine).rowcount == 1:
            row = connection.execute(select(task_tokens).where(task_tokens.c.digest == digest)).one()
            changed.append(_token(row))
        queue += [bytes(row.digest) for row in connection.execute(select(task_tokens.c.digest).where(task_tokens.c.parent == digest))]
    return changed


def of_subject(connection: Connection, subject: bytes) -> list[bytes]:
    """Digests of the tokens that were exchanged for one foreign subject token."""
    return [bytes(row.digest) for row in connection.execute(select(task_tokens.c.digest).where(task_tokens.c.subject == subject))]


def dead_use(connection: Connection, digest: bytes, now_ms: int) -> int:
    """Count a use after death. How many there were since the last record, if one is due now, else 0: at most one record a minute and token."""
    row = connection.execute(
        select(task_tokens.c.dead_uses, task_tokens.c.dead_use_ms).where(task_tokens.c.digest == digest).with_for_update()
    ).first()
    if row is None:
        return 0
    due = row.dead_use_ms is None or now_ms - row.dead_use_ms >= DEAD_USE_EVERY_MS
    values: dict[str, Any] = {"dead_uses": 0, "dead_use_ms": now_ms} if due else {"dead_uses": row.dead_uses + 1}
    connection.execute(update(task_tokens).where(task_tokens.c.digest == digest).values(**values))
    return int(row.dead_uses) + 1 if due else 0


def forget(connection: Connection, before_ms: int) -> int:
    """Drop what ended before a time: tokens first, then tasks that nothing hangs below any more. How many tasks went."""
    old = select(tasks.c.id).where(tasks.c.state.in_(sorted(ENDS)), tasks.c.ended_ms < before_ms)
    # Leaves first: a token may be the parent of another. Expired long ago, none of them can be asked about.
    while True:
        parents = select(task_tokens.c.parent).where(task_tokens.c.parent.is_not(None))
        gone = delete(task_tokens).where(
            task_tokens.c.task.in_(old), task_tokens.c.exp_ms < before_ms, task_tokens.c.digest.not_in(parents)
        )
        if not connection.execute(gone).rowcount:
            break
    count = 0
    while True:
        held = select(task_tokens.c.task)
        parents = select(tasks.c.parent).where(tasks.c.parent.is_not(None))
        done = connection.execute(delete(tasks).where(tasks.c.id.in_(old), tasks.c.id.not_in(held), tasks.c.id.not_in(parents))).rowcount
        if not done:
            return count
        count += done


# Keys


def keys(connection: Connection) -> list[SigningKey]:
    """The public halves of every process's keys."""
    held = connection.execute(select(token_keys).order_by(token_keys.c.kid))
    return [
        SigningKey(row.kid, msgspec.json.decode(row.public), row.published_ms, row.active_ms, row.retire_ms, row.gone_ms) for row in held
    ]


def put_key(connection: Connection, key: SigningKey) -> None:
    """Publish a key, or write its changed windows."""
    values = {"active_ms": key.active_ms, "retire_ms": key.retire_ms, "gone_ms": key.gone_ms}
    if not connection.execute(update(token_keys).where(token_keys.c.kid == key.kid).values(**values)).rowcount:
        public = msgspec.json.encode(key.public).decode()
        connection.execute(insert(token_keys).values(kid=key.kid, public=public, published_ms=key.published_ms, **values))


def drop_keys(connection: Connection, now_ms: int) -> None:
    connection.execute(delete(token_keys).where(token_keys.c.gone_ms <= now_ms))
