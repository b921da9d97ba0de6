"""`aftergate ask`: the caller's side, from a terminal or a pipeline's step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Group, Parameter

from aftergate.cli.options import FALLBACK, Json, Url, key_option

WHAT = Group("What is asked", sort_key=1)
APPROVAL = Group("Approval", sort_key=2)


def register(app: App) -> None:
    app.command(ask)


def ask(
    subject: Annotated[str, Parameter(help="TYPE:ID of who wants to act.")],
    action: Annotated[str, Parameter(help="Name of the action.")],
    resource: Annotated[str, Parameter(help="TYPE:ID of what it acts on.")],
    *,
    set_: Annotated[
        tuple[str, ...], Parameter(name="--set", group=WHAT, negative="", help="NAME=VALUE, a property of the resource; repeat for more.")
    ] = (),
    transaction: Annotated[
        tuple[str, ...], Parameter(group=WHAT, negative="", help="NAME=VALUE, a parameter that an approval binds as well.")
    ] = (),
    context: Annotated[
        str, Parameter(group=WHAT, help="JSON object with anything else policies should see, such as session_id or auth.")
    ] = "",
    executor_key: Annotated[
        Path | None, Parameter(group=APPROVAL, help="PEM file of the key that will use the approval; made if it is not there.")
    ] = None,
    request: Annotated[bool, Parameter(group=APPROVAL, negative="", help="If an approval would help, ask for it.")] = False,
    wait: Annotated[float, Parameter(group=APPROVAL, help="Then wait so many seconds for people to decide, and use what they gave.")] = 0,
    approval: Annotated[
        str, Parameter(group=APPROVAL, help="Use this approval, or what this request was given: with a permit it is used up.")
    ] = "",
    url: Url = FALLBACK,
    key_file: Annotated[Path | None, key_option("`decide`; with --request also `request`")] = None,
    json: Json = False,
    print_: Annotated[Literal["request", "evaluation"] | None, Parameter(name="--print", help="Only this id, for a script.")] = None,
) -> int:
    """Ask whether one exact action may go ahead now; ask people for their approval if it takes that; use the approval.

    Values of --set and --transaction are numbers and true or false where they read so, else text.

    Examples:

        aftergate ask user:tara release_payment Payment:p-1 --set amount=900 --set currency=EUR

        aftergate ask workload:ci/shop deploy Environment:production --transaction artifact=sha256:9f2c --executor-key ci.pem --request --wait 600

        REQUEST=$(aftergate ask ... --executor-key ci.pem --request --print request)

        aftergate ask ... --executor-key ci.pem --approval $REQUEST

    Exit codes: 0 permitted, 1 could not be asked (which is no permit), 2 wrong usage, 4 denied, 5 an approval was asked for and is not given yet.
    """
    from aftergate.cli.asking import Wish, run

    return run(
        Wish(subject, action, resource, set_, transaction, context, executor_key, request, wait, approval),
        url,
        key_file,
        show="json" if json else print_ or "table",
    )
