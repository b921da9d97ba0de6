"""`aftergate people`: who may approve, in which groups, with which authenticators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter

WHERE = Group("Where the people are", sort_key=1)
Data = Annotated[
    Path | None, Parameter(group=WHERE, env_var="AFTERGATE_DATA", help="The server's data directory. [default: aftergate-data]")
]
Base = Annotated[
    str | None,
    Parameter(
        name="--database", group=WHERE, env_var="AFTERGATE_DATABASE", help="The server's database, if it is not in the data directory."
    ),
]
Server = Annotated[str | None, Parameter(group=WHERE, help="A running server's URL, instead of its data directory.")]
KeyFile = Annotated[Path | None, Parameter(group=WHERE, help="File whose first word is an API key with the scope `admin`, for --server.")]
Json = Annotated[bool, Parameter(negative="", help="JSON instead of text.")]
Some = Parameter(negative="", consume_multiple=True)

people = App(name="people", help="People who approve: their groups, aliases and authenticators.", help_format="markdown")


def register(app: App) -> None:
    app.command(people)


@people.command(name="list")
def list_(*, data: Data = None, database: Base = None, server: Server = None, key_file: KeyFile = None, json: Json = False) -> int:
    """Everybody, with groups and aliases."""
    from aftergate.cli.peopling import run_list

    return run_list((data, database, server, key_file), as_json=json)


@people.command
def add(
    person: str,
    /,
    *,
    name: Annotated[str, Parameter(help="As it is shown. [default: the id]")] = "",
    groups: Annotated[tuple[str, ...], Some] = (),
    aliases: Annotated[tuple[str, ...], Some] = (),
    data: Data = None,
    database: Base = None,
    server: Server = None,
    key_file: KeyFile = None,
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

    return run_add((data, database, server, key_file), person, name, groups, aliases, as_json=json)


@people.command
def groups(
    person: str,
    /,
    *names: str,
    data: Data = None,
    database: Base = None,
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> int:
    """Put a person into exactly these groups; none given: into none. Groups that the issuer tells at login stay beside them."""
    from aftergate.cli.peopling import run_change

    return run_change((data, database, server, key_file), person, {"groups": list(names)}, as_json=json)


@people.command
def aliases(
    person: str,
    /,
    *names: str,
    data: Data = None,
    database: Base = None,
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> int:
    """Give a person exactly these aliases: all other subject ids that are the same person."""
    from aftergate.cli.peopling import run_change

    return run_change((data, database, server, key_file), person, {"aliases": list(names)}, as_json=json)


@people.command
def link(
    person: str, /, *, data: Data = None, database: Base = None, server: Server = None, key_file: KeyFile = None, json: Json = False
) -> int:
    """Print a new one-time link for a person; their older ones die."""
    from aftergate.cli.peopling import run_link

    return run_link((data, database, server, key_file), person, as_json=json)


@people.command
def remove(person: str, /, *, data: Data = None, database: Base = None, server: Server = None, key_file: KeyFile = None) -> int:
    """Shut a person out at once: sessions end, and authenticators and links are worth nothing any more."""
    from aftergate.cli.peopling import run_remove

    return run_remove((data, database, server, key_file), person)


@people.command
def authenticators(
    person: str,
    /,
    *,
    remove: Annotated[str | None, Parameter(help="Id of one that was lost: it opens and approves nothing from now on.")] = None,
    data: Data = None,
    database: Base = None,
    server: Server = None,
    key_file: KeyFile = None,
    json: Json = False,
) -> int:
    """A person's authenticators, removed ones too; with --remove, take one away."""
    from aftergate.cli.peopling import run_authenticators

    return run_authenticators((data, database, server, key_file), person, remove, as_json=json)
