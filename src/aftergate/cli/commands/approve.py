"""`aftergate approve`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from rich.console import Console

    from aftergate.cli.approving import Desk

URL: Final = "AFTERGATE_URL"
FALLBACK: Final = "http://localhost:8181"
POLL_S: Final = 3.0


def register(app: App) -> None:
    app.command(approve)


def approve(
    *requests: Annotated[str, Parameter(help="Ids of requests; none: list what waits.")],
    url: Annotated[str, Parameter(help="The server.", env_var=URL)] = FALLBACK,
    key: Annotated[Path | None, Parameter(help="Software key to log in and sign with.", env_var="AFTERGATE_KEY_FILE")] = None,
    passphrase_file: Annotated[Path | None, Parameter(help="File with the key's passphrase; else it is asked for.")] = None,
    deny: Annotated[str, Parameter(help="Say no, with this reason.")] = "",
    item: Annotated[tuple[int, ...], Parameter(help="Approve only these items of a batch, counted from 0.", negative="")] = (),
    yes: Annotated[bool, Parameter(help="Do not ask again after showing.", negative="")] = False,
    everything: Annotated[bool, Parameter(name="--all", help="List decided requests too.", negative="")] = False,
    new_key: Annotated[Path | None, Parameter(help="Make a software key in this file and register it with --link.")] = None,
    link: Annotated[str, Parameter(help="One-time link from `aftergate people`.")] = "",
    wait: Annotated[float, Parameter(help="Without a key: wait so many seconds for somebody to decide.")] = 600.0,
) -> int:
    """Look at requests for approval in the terminal, and decide them.

    Shows exactly the fields that an approval binds, the risk and its reasons, and what else the requester did lately; then signs a digest of all
    that with a software key. A software key is a file: policies that ask for a device-bound authenticator do not take it. Without --key it prints
    the page on which to approve with a passkey, and waits until the request is decided (AFTERGATE_API_KEY: a key of the caller that asked).

    Examples:

        aftergate approve --new-key bob.key --link 'https://approvals.example/enrol#...'

        aftergate approve --key bob.key

        aftergate approve arq_... --key bob.key

        aftergate approve arq_... --key bob.key --deny "unknown payee"

    Exit codes: 0 done or approved, 1 refused or could not be done, 2 wrong usage, 4 denied, expired or cancelled while waiting.
    """
    from rich.console import Console

    from aftergate.cli.approving import Desk

    console = Console(highlight=False, soft_wrap=True)
    if deny and item:
        print("aftergate: --deny and --item do not go together", file=sys.stderr)
        return 2
    if new_key is not None:
        return _register(console, url, new_key, link, passphrase_file)
    if key is None:
        return _elsewhere(console, url, requests, wait)
    with Desk(url, key, _passphrase(passphrase_file)) as desk:
        person = desk.login()
        if not requests:
            return _list(console, desk, person, everything=everything)
        return _decide(console, desk, requests, deny, list(item) or None, yes=yes)


def _passphrase(path: Path | None, *, twice: bool = False) -> str:
    from getpass import getpass

    from aftergate.errors import ConfigError

    if path is not None:
        try:
            return path.read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError("cannot read the passphrase", where=str(path)) from error
    made = getpass("Passphrase of the key: ")
    if twice and getpass("Again: ") != made:
        raise ConfigError("the two passphrases differ")
    return made


def _register(console: Console, url: str, path: Path, link: str, passphrase_file: Path | None) -> int:
    from aftergate.cli.approving import Desk
    from aftergate.errors import ConfigError

    if not link:
        print("aftergate: --new-key needs --link", file=sys.stderr)
        return 2
    passphrase = _passphrase(passphrase_file, twice=True)
    if len(passphrase) < 8:
        raise ConfigError("a passphrase has at least 8 characters")
    where = link.partition("/enrol")[0] if "/enrol" in link else url
    with Desk(where) as desk:
        person = desk.register(link, path, passphrase, f"Software key {path.name}")
    console.print(f"{path} is now an authenticator of {_safe(person)}. It is a file: keep it and its passphrase apart.", markup=False)
    return 0


def _elsewhere(console: Console, url: str, requests: tuple[str, ...], wait_s: float) -> int:
    """Without a key: where to approve, and waiting for it."""
    from aftergate.cli.approving import Desk

    page = f"{url.rstrip('/')}/approvals"
    for one in requests or ("",):
        console.print(f"Approve with a passkey at {page}{'#' + _safe(one) if one else ''}", markup=False)
    token = os.environ.get("AFTERGATE_API_KEY", "")
    if not requests or not token:
        if requests:
            console.print("(Set AFTERGATE_API_KEY to a key of the caller that asked, to wait here until it is decided.)", markup=False)
        return 0
    until = time.monotonic() + wait_s
    code = 0
    with Desk(url) as desk:
        for one in requests:
            status = "pending"
            while status == "pending" and time.monotonic() < until:
                status = str(desk.get(f"/access/v1/requests/{one}", token)["task"]["status"])
                if status == "pending":
                    time.sleep(min(POLL_S, max(0.0, until - time.monotonic())))
            console.print(f"{_safe(one)}: {_safe(status)}", markup=False)
            code = max(code, 0 if status in {"approved", "partial"} else 1 if status == "pending" else 4)
    return code


def _list(console: Console, desk: Desk, person: str, *, everything: bool) -> int:
    held = desk.inbox(everything=everything)
    if not held:
        console.print(f"Nothing waits for {_safe(person)}.", markup=False)
    for one in held:
        mark = "" if one["can_decide"] else f"  ({one['why_not']['detail']})"
        who = f"{one['subject']['type']} {one['subject']['id']}"
        line = f"{one['id']}  {one['status']:9} risk {one['risk_band']:8} {who}: {one['what']}  until {one['expires_at']}{mark}"
        console.print(_safe(line), markup=False)
    return 0


def _decide(console: Console, desk: Desk, requests: tuple[str, ...], deny: str, items: list[int] | None, *, yes: bool) -> int:
    shown = [desk.view(one) for one in dict.fromkeys(requests)]
    for one in shown:
        show(console, one)
    blocked = [one for one in shown if not one["can_decide"]]
    if blocked:
        for one in blocked:
            print(f"aftergate: {_safe(one['id'])}: {_safe(one['why_not']['detail'])}", file=sys.stderr)
        return 1
    word = "Deny" if deny else "Approve"
    count = f"these {len(shown)} requests" if len(shown) > 1 else "this"
    if not yes:
        console.print(f"\n{word} {count}? Type yes: ", end="", markup=False)
        if sys.stdin.readline().strip().lower() != "yes":
            console.print("Nothing was decided.", markup=False)
            return 1
    if deny:
        done = [desk.deny(one["id"], deny) for one in shown]
    elif len(shown) == 1:
        done = [desk.approve(shown[0], items)]
    else:
        done = desk.approve_all(shown)
    for one in done:
        left = one["needed"]["needed"] - len(one["approved_by"])
        more = f": {left} more must approve" if one["status"] == "pending" and left > 0 else ""
        console.print(f"{_safe(one['id'])}: {_safe(one['status'])}{more}", markup=False)
    return 0


def show(console: Console, held: dict[str, Any]) -> None:
    """One request in full: every bound field on a line of its own."""
    console.print(
        f"\n{_safe(held['id'])}  {_safe(held['status'])}  asked {held['asked_at']}, to be decided until {held['expires_at']}", markup=False
    )
    console.print("What an approval binds:", style="bold")
    for path, value in flat(held["object"]):
        console.print(f"  {_safe(path)}: {_safe(value)}", markup=False)
    risk = held["risk"]
    console.print(
        f"Risk now: {risk['now']['score']} of 100 ({risk['now']['band']}); when asked: {risk['at_request']['score']}", style="bold"
    )
    for one in risk["findings"]:
        new = "NEW since it was asked: " if one["new"] else ""
        console.print(f"  {new}{_safe(one['severity'])} {_safe(one['detection'])}: {_safe(one['narrative'] or one['title'])}", markup=False)
    if held["lately"]:
        console.print("Asked by the same in the last days:", style="bold")
        for one in held["lately"]:
            console.print(f"  {one['at']}  {_safe(one['status'])}  {_safe(one['what'])}", markup=False)
    for one in held["votes"]:
        why = f": {_safe(one['reason'])}" if one["reason"] else ""
        console.print(f"  {_safe(one['person'])} {_safe(one['verdict'])} at {one['at']}{why}", markup=False)


def flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    """Every leaf of a JSON value with its path, in order."""
    import json

    if isinstance(value, dict) and value:
        return [found for name, inner in value.items() for found in flat(inner, f"{path}.{name}" if path else name)]
    if isinstance(value, list) and value:
        return [found for place, inner in enumerate(value) for found in flat(inner, f"{path}[{place}]")]
    return [(path, value if isinstance(value, str) else json.dumps(value))]


def _safe(text: Any) -> str:
    """Text from a request as it may stand in a terminal: what is not printable is written out, so that it can neither hide nor move anything."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in str(text))
