"""`aftergate people`: who may approve, in which groups, with which authenticators."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from aftergate.cli.options import Json, Many, Place, key_option


@dataclass(frozen=True)
class Where(Place):
    key_file: Annotated[Path | None, key_option("scope `admin`")] = None


HERE: Final = Where()

people = App(name="people", help="People who approve: their groups, aliases and authenticators.", help_format="markdown")


def register(app: App) -> None:
    app.command(people)


@people.command(name="list")
def list_(*, place: Where = HERE, json: Json = False) -> int:
    """Everybody, with groups and aliases."""
    from aftergate.cli.peopling import run_list

    return run_list(place, as_json=json)


@people.command
def add(
    person: str,
    /,
    *,
    name: Annotated[str, Parameter(help="As it is shown. [default: the id]")] = "",
    groups: Annotated[tuple[str, ...], Many] = (),
    aliases: Annotated[tuple[str, ...], Many] = (),
    place: Where = HERE,
    json: Json = False,
) -> int:
    """Add a person, and print the one-time link with which they register their first passkey.

    Examples:

        aftergate people add alice --groups finance --aliases alice@example.org

        aftergate people add bob --name "Bob Bley" --groups finance treasury --server https://gate.example.org --key-file admin-key.txt

    Parameters
    ----------
    groups
        Groups that the person is in; policies name them as approvers.
    aliases
        All other subject ids that are the same person: nobody approves what they asked for under another name.
    """
    from aftergate.cli.peopling import run_add

    return run_add(place, person, name, groups, aliases, as_json=json)


@people.command
def groups(
    person: str,
    /,
    *names: str,
    place: Where = HERE,
    json: Json = False,
) -> int:
    """Put a person into exactly these groups; none given: into none. Groups that the issuer tells at login stay beside them."""
    from aftergate.cli.peopling import run_change

    return run_change(place, person, {"groups": list(names)}, as_json=json)


@people.command
def aliases(
    person: str,
    /,
    *names: str,
    place: Where = HERE,
    json: Json = False,
) -> int:
    """Give a person exactly these aliases: all other subject ids that are the same person."""
    from aftergate.cli.peopling import run_change

    return run_change(place, person, {"aliases": list(names)}, as_json=json)


@people.command
def link(person: str, /, *, place: Where = HERE, json: Json = False) -> int:
    """Print a new one-time link for a person; their older ones die."""
    from aftergate.cli.peopling import run_link

    return run_link(place, person, as_json=json)


@people.command
def remove(person: str, /, *, place: Where = HERE) -> int:
    """Shut a person out at once: sessions end, and authenticators and links are worth nothing any more."""
    from aftergate.cli.peopling import run_remove

    return run_remove(place, person)


@people.command
def authenticators(
    person: str,
    /,
    *,
    remove: Annotated[str | None, Parameter(help="Id of one that was lost: it opens and approves nothing from now on.")] = None,
    place: Where = HERE,
    json: Json = False,
) -> int:
    """A person's authenticators, removed ones too; with --remove, take one away."""
    from aftergate.cli.peopling import run_authenticators

    return run_authenticators(place, person, remove, as_json=json)
