"""What `aftergate task` does, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

from aftergate.cli.asking import executor
from aftergate.cli.options import Running
from aftergate.cli.places import client
from aftergate.client import Client, Refused, Task, entity
from aftergate.errors import ConfigError

ACTIVE: Final = 0
REFUSED: Final = 1
WAITING: Final = 5
TYPE_URN: Final = "urn:ietf:params:oauth:token-type:"


@contextmanager
def _gate(place: Running, executor_key: Path | None = None) -> Iterator[Client]:
    """A client, with the key that tokens and approvals are bound to. Raises: ConfigError."""
    with client(place.server, place.key_file, proof=executor(executor_key) if executor_key is not None else None) as made:
        yield made


def run_create(place: Running, executor_key: Path | None, purpose: str, members: dict[str, Any], *, as_json: bool) -> int:
    given: dict[str, Any] = {name: value for name, value in members.items() if value}
    for name in ("on_behalf_of",):
        if name in given:
            given[name] = _entity(given[name])
    if "resources" in given:
        given["resources"] = [_entity(each) for each in given["resources"]]
    with _gate(place, executor_key) as gate:
        made = gate.create_task(purpose, **given)
    if as_json:
        print(msgspec.json.encode(made).decode())
    else:
        print(made.id)
    if made.state == "active":
        return ACTIVE
    if not as_json:
        asked = made.approval.get("task", {}).get("id")
        words = (
            f"it waits for an approval: {place.server.rstrip('/')}/approvals/{asked}"
            if asked
            else "it needs an approval: --request-approval asks for it"
        )
        Console(stderr=True, highlight=False, soft_wrap=True).print(words, markup=False)
    return WAITING


def _entity(named: str) -> dict[str, str]:
    held = entity(named)
    return {"type": held.type, "id": held.id}


def run_list(place: Running, query: dict[str, Any], *, as_json: bool) -> int:
    with _gate(place) as gate:
        found = gate.tasks(**{name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items() if value})
    if as_json:
        print(msgspec.json.encode(found).decode())
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("id", "state", "until", "actions", "purpose"):
        table.add_column(title, overflow="fold")
    for each in found:
        table.add_row(each.id, each.state, each.until[:16], " ".join(each.actions), each.purpose)
    Console(highlight=False).print(table)
    return 0


def _shown(found: Task, *, as_json: bool) -> int:
    if as_json:
        print(msgspec.json.encode(found).decode())
        return 0
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    rows = [
        ("task", found.id), ("state", found.state), ("purpose", found.purpose), ("until", found.until), ("actions", " ".join(found.actions)),
        ("reason", found.reason), ("approval", found.approval.get("task", {}).get("status", "")),
    ]  # fmt: skip
    for title, value in rows:
        if value:
            table.add_row(title, value)
    Console(highlight=False).print(table)
    return 0


def run_show(place: Running, task_id: str, *, as_json: bool) -> int:
    with _gate(place) as gate:
        return _shown(gate.task(task_id), as_json=as_json)


def run_start(place: Running, executor_key: Path | None, task_id: str, *, as_json: bool) -> int:
    with _gate(place, executor_key) as gate:
        try:
            return _shown(gate.start_task(task_id), as_json=as_json)
        except Refused as refused:
            if refused.body.get("error") != "approval_pending":
                raise
            print(refused.message)
            return WAITING


def run_end(place: Running, task_id: str, how: str, reason: str, *, as_json: bool) -> int:
    with _gate(place) as gate:
        done = gate.complete_task(task_id, reason) if how == "complete" else gate.cancel_task(task_id, reason)
        return _shown(done, as_json=as_json)


def run_kill(place: Running, members: dict[str, str], reason: str, *, as_json: bool) -> int:
    given: dict[str, Any] = {name: value for name, value in members.items() if value}
    if "principal" in given:
        given["principal"] = _entity(given["principal"])
    with _gate(place) as gate:
        gone = gate.kill_tasks(reason, **given)
    if as_json:
        print(msgspec.json.encode(gone).decode())
    elif "tokens" in gone:
        print(f"{gone['tokens']} tokens ended")
    else:
        print("\n".join(gone["tasks"]) or "nothing was alive")
    return 0


def run_token(place: Running, executor_key: Path | None, form: dict[str, Any], subject: Path | None, kind: str, *, as_json: bool) -> int:
    given = {name: value for name, value in form.items() if value}
    if subject is None:
        given["grant_type"] = "client_credentials"
    else:
        try:
            given["subject_token"] = subject.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it holds no token"
            raise ConfigError(f"cannot read the subject token: {reason}", where=str(subject)) from None
        given["subject_token_type"] = TYPE_URN + kind
    with _gate(place, executor_key) as gate:
        made = gate.exchange(**given)
    print(msgspec.json.encode(made).decode() if as_json else made.access_token)
    return 0


def run_rotate(place: Running) -> int:
    with _gate(place) as gate:
        print(gate.rotate_token_key())
    return 0
