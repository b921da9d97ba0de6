"""`aftergate task`: what workloads and agents declare, and the tokens they get for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from aftergate.cli.options import Flag, Json, Many, Running, key_option


@dataclass(frozen=True)
class Where(Running):
    key_file: Annotated[Path | None, key_option("scope `tasks`")] = None


HERE: Final = Where()
Executor = Annotated[
    Path | None, Parameter(help="PEM file with the key that the token or the approval is bound to; made if it is not there.")
]

task = App(
    name="task", help="Tasks of workloads and agents: a purpose, its rights, and tokens that live no longer.", help_format="markdown"
)


def register(app: App) -> None:
    app.command(task)


@task.command
def create(
    purpose: str,
    /,
    *,
    actions: Annotated[tuple[str, ...], Many] = (),
    resources: Annotated[tuple[str, ...], Many] = (),
    tools: Annotated[tuple[str, ...], Many] = (),
    mcp_server: str = "",
    on_behalf_of: str = "",
    minutes: int | None = None,
    floor: int | None = None,
    parent: str = "",
    request_approval: Flag = False,
    executor_key: Executor = None,
    place: Where = HERE,
    json: Json = False,
) -> int:
    """Declare a task, and print its id.

    Examples:

        aftergate task create "nightly deploy" --actions deploy --resources env:staging env:prod --minutes 30

        aftergate task create "answer support mail" --tools search refund --mcp-server https://mcp.example.org --on-behalf-of user:alice

    Exit codes: 0 active, 1 refused, 5 it waits for an approval.

    Parameters
    ----------
    actions
        What it may do.
    resources
        On what, as TYPE:ID; none means any.
    tools
        Tools of an MCP server that it may call, instead of actions.
    mcp_server
        The MCP server's address.
    on_behalf_of
        Whose token it will exchange, as TYPE:ID.
    minutes
        How long it may take. [default: the longest that the server allows]
    floor
        Trust, 0 to 100, below which it dies. [default: the server's]
    parent
        Id of the task that it is part of.
    request_approval
        Ask for the approval that the policies want.
    """
    from aftergate.cli.tasking import run_create

    members: dict[str, Any] = {
        "actions": list(actions), "resources": list(resources), "tools": list(tools), "server": mcp_server, "on_behalf_of": on_behalf_of,
        "ttl_s": minutes * 60 if minutes is not None else None, "floor": floor, "parent": parent, "request_approval": request_approval,
    }  # fmt: skip
    return run_create(place, executor_key, purpose, members, as_json=json)


@task.command(name="list")
def list_(
    *,
    state: Literal["", "proposed", "active", "completed", "cancelled", "expired", "killed"] = "",
    everybody: Flag = False,
    limit: int = 100,
    place: Where = HERE,
    json: Json = False,
) -> int:
    """Tasks, newest first: those of the key's workload.

    Parameters
    ----------
    state
        Only those in this state.
    everybody
        Everybody's (needs the scope `admin`).
    limit
        At most so many.
    """
    from aftergate.cli.tasking import run_list

    return run_list(place, {"state": state, "everybody": everybody, "limit": limit}, as_json=json)


@task.command
def show(task_id: str, /, *, place: Where = HERE, json: Json = False) -> int:
    """One task as it is now."""
    from aftergate.cli.tasking import run_show

    return run_show(place, task_id, as_json=json)


@task.command
def start(task_id: str, /, *, executor_key: Executor = None, place: Where = HERE, json: Json = False) -> int:
    """Start a proposed task once its approval is given; uses the approval up. --executor-key must be the key it was asked for with."""
    from aftergate.cli.tasking import run_start

    return run_start(place, executor_key, task_id, as_json=json)


@task.command
def complete(task_id: str, /, *, reason: str = "", place: Where = HERE, json: Json = False) -> int:
    """The work is done: the task ends, with every task under it and every token."""
    from aftergate.cli.tasking import run_end

    return run_end(place, task_id, "complete", reason, as_json=json)


@task.command
def cancel(task_id: str, /, *, reason: str = "", place: Where = HERE, json: Json = False) -> int:
    """Call a task off."""
    from aftergate.cli.tasking import run_end

    return run_end(place, task_id, "cancel", reason, as_json=json)


@task.command
def kill(
    *,
    reason: str,
    task_id: Annotated[str, Parameter(name="--task")] = "",
    principal: str = "",
    issuer: str = "",
    jti: str = "",
    place: Where = HERE,
    json: Json = False,
) -> int:
    """End tasks by force (scope `admin`): one, all of and for somebody, or all tokens that came from one subject token.

    Examples:

        aftergate task kill --principal user:alice --reason "left the company"

        aftergate task kill --issuer https://idp.example.org --jti 9f2c --reason "session was stolen"

    Parameters
    ----------
    reason
        Why; it is written down.
    task_id
        The task.
    principal
        Everything of and on behalf of this workload or person, as TYPE:ID.
    issuer
        With --jti: the issuer of the subject token.
    jti
        The subject token's `jti`.
    """
    from aftergate.cli.tasking import run_kill

    members = {"task": task_id, "principal": principal, "issuer": issuer, "jti": jti}
    return run_kill(place, members, reason, as_json=json)


@task.command
def token(
    task_id: str,
    /,
    *,
    executor_key: Annotated[Path, Parameter(help="PEM file with the key that the token is bound to; made if it is not there.")],
    subject_token_file: Path | None = None,
    subject_token_type: Literal["access_token", "id_token", "jwt"] = "access_token",  # noqa: S107  a kind of token
    scope: str = "",
    audience: Annotated[tuple[str, ...], Many] = (),
    place: Where = HERE,
    json: Json = False,
) -> int:
    """Get a token for a task, and print it. It is good for a few minutes, and only with the key in --executor-key (DPoP).

    Parameters
    ----------
    subject_token_file
        File with the token of the person on whose behalf the task is; none where it is on its own.
    subject_token_type
        What that token is.
    scope
        Only these actions, parted by spaces.
    audience
        The services that it is for.
    """
    from aftergate.cli.tasking import run_token

    form: dict[str, Any] = {"task_id": task_id, "scope": scope, "audience": list(audience)}
    return run_token(place, executor_key, form, subject_token_file, subject_token_type, as_json=json)


@task.command
def rotate_key(*, place: Where = HERE) -> int:
    """Stop signing tokens with the present key and begin another (scope `admin`). Tokens given out so far stay verifiable until they expire."""
    from aftergate.cli.tasking import run_rotate

    return run_rotate(place)
