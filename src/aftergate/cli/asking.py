"""What `aftergate ask` does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

from aftergate.cli.places import client
from aftergate.client import Action, Ask, Client, Decision, DpopKey, Entity, Granted, entity
from aftergate.errors import ConfigError

PERMITTED: Final = 0
DENIED: Final = 4
WAITING: Final = 5
REQUEST: Final = "arq_"


class Wish(NamedTuple):
    """The command's words."""

    subject: str
    action: str
    resource: str
    properties: tuple[str, ...]
    transaction: tuple[str, ...]
    context: str
    executor_key: Path | None
    request: bool
    wait_s: float
    approval: str


def run(wish: Wish, url: str, key_file: Path | None, *, show: str) -> int:
    """Ask, and if told so request and wait. Returns the exit code."""
    asked = _ask(wish)
    console = Console(highlight=False, soft_wrap=True)
    proof = executor(wish.executor_key) if wish.executor_key is not None else None
    if (wish.request or wish.approval) and proof is None:
        raise ConfigError(
            "an approval is bound to the key of whoever uses it",
            where="--executor-key",
            hint="name a PEM file; it is made if it is not there",
        )
    with client(url, key_file, proof=proof) as gate:
        answer = _evaluate(gate, asked, _approval(gate, wish.approval))
        granted: Granted | None = None
        if not answer and wish.request and not wish.approval and answer.offer is not None:
            granted = gate.request_access(asked, answer)
            if wish.wait_s > 0 and not granted.task.ended:
                if show == "table":
                    console.print(f"Request {granted.task.id} waits for approval: {gate.url}/approvals/{granted.task.id}", markup=False)
                granted = gate.wait(granted.task.id, timeout_s=wish.wait_s)
            if granted.approved:
                answer = _evaluate(gate, asked, str(granted.approval["id"]))
    if show == "request":
        if granted is None:
            raise ConfigError("no approval was asked for", hint="the answer was " + ("a permit" if answer else answer.reason))
        print(granted.task.id)
    elif show == "evaluation":
        print(answer.id)
    elif show == "json":
        print(msgspec.json.encode({"answer": answer, **({"request": granted} if granted else {})}).decode())
    else:
        _show(console, answer, granted, url)
    if answer:
        return PERMITTED
    return WAITING if granted is not None and not granted.task.ended else DENIED


def _evaluate(gate: Client, asked: Ask, approval: str) -> Decision:
    return gate.evaluate(asked.subject, asked.action, asked.resource, context=asked.context, approval=approval)


def _approval(gate: Client, given: str) -> str:
    """An approval's id; of a request, that of the approval it was given."""
    if not given.startswith(REQUEST):
        return given
    held = gate.access_request(given)
    if not held.approved:
        raise ConfigError(f"the request is {held.task.status}", where=given, hint="an approval can be used once people gave it")
    return str(held.approval["id"])


def _ask(wish: Wish) -> Ask:
    try:
        context: Any = msgspec.json.decode(wish.context) if wish.context else {}
    except msgspec.DecodeError as error:
        raise ConfigError(f"not JSON: {error}", where="--context") from None
    if not isinstance(context, dict):
        raise ConfigError("not a JSON object", where="--context")
    transaction = _pairs("--transaction", wish.transaction)
    if transaction:
        context["transaction"] = transaction
    target = entity(wish.resource)
    return Ask(entity(wish.subject), Action(wish.action), Entity(target.type, target.id, _pairs("--set", wish.properties)), context)


def _pairs(flag: str, words: tuple[str, ...]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"`{word}` is not NAME=VALUE", where=flag)
        made[name] = _value(value)
    return made


def _value(text: str) -> Any:
    """Whole numbers and booleans as such; the rest as text, so that money and identifiers keep every character."""
    if text in {"true", "false"}:
        return text == "true"
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and (digits == "0" or not digits.startswith("0")) and len(digits) < 16:
        return int(text)
    return text


def executor(path: Path) -> DpopKey:
    """The key in a PEM file; made, readable by its owner only, if it is not there. Raises: ConfigError."""
    if not path.exists():
        from joserfc.jwk import ECKey

        made: bytes = ECKey.generate_key("P-256").as_pem(private=True)
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(made)
        except OSError as error:
            raise ConfigError(f"cannot write the key: {error.strerror}", where=str(path)) from None
    return DpopKey.load(path)


def _show(console: Console, answer: Decision, granted: Granted | None, url: str) -> None:
    said = answer.context
    word = "permit" if answer else {"step_up_required": "step-up needed", "approval_required": "approval needed"}.get(answer.reason, "deny")
    console.print(f"[bold {'green' if answer else 'red'}]{word}[/]" + (f"  {answer.reason}" if answer.reason and not answer else ""))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    rows: list[tuple[str, Any]] = [
        ("policies", ", ".join(said.get("policies", []))),
        ("why", next(iter((said.get("reason_user") or said.get("reason_admin") or {}).values()), "")),
        ("would change it", "\n".join(said.get("would_change", []))),
        ("log in again with", said.get("challenge", "")),
        ("evaluation", answer.id),
    ]
    if granted is not None:
        rows.append(("request", f"{granted.task.id}, {granted.task.status}"))
        if not granted.task.ended:
            rows.append(("approve at", f"{url.rstrip('/')}/approvals/{granted.task.id}"))
        elif granted.approved:
            rows.append(("approval", str(granted.approval["id"])))
    elif not answer and answer.offer is not None:
        rows.append(("next", "the same with --request asks for the approval"))
    for name, value in rows:
        if value:
            table.add_row(name, str(value).replace("[", "\\["))
    console.print(table)
