"""What `aftergate people` does: on the data directory of this machine's server, or over HTTP with an administrator's key."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import quote

import msgspec
from rich.console import Console
from rich.table import Table

from aftergate.cli.options import Place
from aftergate.cli.places import operator, sender, settings_of
from aftergate.client.sending import Sender
from aftergate.errors import AftergateError
from aftergate.service.core import Core


class NotDone(AftergateError):
    """There is no such person or authenticator."""

    code = "people"


class Desk(Protocol):
    """Where people are managed. Answers are those of the routes under /v1/people."""

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Raises: NotDone, PersonProblem, Refused, Unanswered."""


class Here:
    """The data directory of a server on this machine, running or not."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._by = operator()

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        from aftergate.api.routes import people as views
        from aftergate.authz.transactions.objects import rfc3339

        people, given = self._core.people, body or {}
        match [method, *path.split("/")]:
            case ["GET", ""]:
                made: Any = [views.view(each) for each in people.everybody()]
            case ["POST", ""]:
                person, link = people.add(given["id"], name=given["name"], groups=given["groups"], aliases=given["aliases"], by=self._by)
                made = views.Added(link.url, rfc3339(link.expires_ms), views.view(person))
            case ["PATCH", person_id]:
                made = views.view(people.change(person_id, by=self._by, **given))
            case ["POST", person_id, "link"]:
                link = people.link(person_id, by=self._by)
                made = views.LinkView(link.url, rfc3339(link.expires_ms))
            case ["DELETE", person_id]:
                made = None
                if not people.remove(person_id, by=self._by):
                    raise NotDone(f"there is no person `{person_id}`", hint="`aftergate people list` shows who there is")
            case ["GET", person_id, "authenticators"]:
                people.person(person_id)
                made = [views.passkey_view(each) for each in people.passkeys(person_id, revoked=True)]
            case ["DELETE", person_id, "authenticators", authenticator]:
                made = None
                if not people.remove_passkey(person_id, authenticator, by=self._by):
                    raise NotDone(f"`{person_id}` has no authenticator `{authenticator}` in use")
            case _:
                raise AssertionError(f"{method} {path}")
        return msgspec.to_builtins(made)


class There:
    """A running server."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        where = "/v1/people" + ("/" + "/".join(quote(part, safe="") for part in path.split("/")) if path else "")
        answer = self._sender.send(method, where, safe=method == "GET", json=body)
        return msgspec.json.decode(answer.content) if answer.content else None


@contextmanager
def desk(place: Place) -> Iterator[Desk]:
    """Raises: ConfigError, StoreUnavailable."""
    if place.server is not None:
        with sender(place) as made:
            yield There(made)
        return
    core = Core.open(settings_of(place))
    try:
        yield Here(core)
    finally:
        core.close()


def run_list(place: Place, *, as_json: bool) -> int:
    with desk(place) as held:
        people = held.ask("GET", "")
    if as_json:
        return _json(people)
    table = Table(box=None, pad_edge=False)
    for name in ("id", "name", "groups", "aliases"):
        table.add_column(name, overflow="fold")
    for each in people:
        table.add_row(each["id"], each["name"], ", ".join(each["groups"]), ", ".join(each["aliases"]))
    Console().print(table if people else "Nobody yet: `aftergate people add NAME --groups GROUP` adds somebody.", markup=False)
    return 0


def run_add(place: Place, person: str, name: str, groups: tuple[str, ...], aliases: tuple[str, ...], *, as_json: bool) -> int:
    with desk(place) as held:
        made = held.ask("POST", "", {"id": person, "name": name, "groups": list(groups), "aliases": list(aliases)})
    return _json(made) if as_json else _link(made, made["person"]["id"])


def run_change(place: Place, person: str, change: dict[str, Any], *, as_json: bool) -> int:
    with desk(place) as held:
        made = held.ask("PATCH", person, change)
    if as_json:
        return _json(made)
    print(f"{made['id']}: groups {', '.join(made['groups']) or 'none'}; aliases {', '.join(made['aliases']) or 'none'}")
    return 0


def run_link(place: Place, person: str, *, as_json: bool) -> int:
    with desk(place) as held:
        made = held.ask("POST", f"{person}/link")
    return _json(made) if as_json else _link(made, person)


def run_remove(place: Place, person: str) -> int:
    with desk(place) as held:
        held.ask("DELETE", person)
    print(f"{person} is out: sessions have ended, authenticators and links are worth nothing any more.")
    return 0


def run_authenticators(place: Place, person: str, remove: str | None, *, as_json: bool) -> int:
    with desk(place) as held:
        if remove is not None:
            held.ask("DELETE", f"{person}/authenticators/{remove}")
        keys = held.ask("GET", f"{person}/authenticators")
    if as_json:
        return _json(keys)
    table = Table(box=None, pad_edge=False)
    for name in ("id", "name", "kind", "added", "last used", "removed"):
        table.add_column(name, overflow="fold")
    for each in keys:
        kind = "bound to its device" if each["device_bound"] else "synced" if each["backed_up"] else "can be synced"
        table.add_row(each["id"], each["name"], kind, each["added"], each["last_used"] or "never", each["revoked"] or "")
    Console().print(table if keys else f"{person} has none: `aftergate people link {person}` prints a link.", markup=False)
    return 0


def _link(made: dict[str, Any], person: str) -> int:
    print(f"{person} registers a passkey with this link, once, until {made['expires']}:\n\n  {made['link']}\n")
    print("Hand it over on a way that you trust: whoever opens it first is this person.", file=sys.stderr)
    return 0


def _json(made: Any) -> int:
    print(msgspec.json.format(msgspec.json.encode(made), indent=2).decode())
    return 0
