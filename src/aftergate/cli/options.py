"""Options that several sub-commands have: where a command works, with which key, and in what form it answers."""

# Annotations are evaluated here: cyclopts looks up those of an inherited field in the module of the class that inherits it.

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Group, Parameter

WHERE: Final = Group("Where", sort_key=9)
FALLBACK: Final = "http://localhost:8181"

Data = Annotated[
    Path | None, Parameter(group=WHERE, env_var="AFTERGATE_DATA", help="The server's data directory. [default: aftergate-data]")
]
Base = Annotated[
    str | None,
    Parameter(group=WHERE, env_var="AFTERGATE_DATABASE", help="The server's database, if it is not in the data directory."),
]
Server = Annotated[str | None, Parameter(group=WHERE, help="A running server's URL, instead of its data directory.")]
Url = Annotated[str, Parameter(group=WHERE, env_var="AFTERGATE_URL", help="The server's URL.")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="JSON instead of text.")]
Flag = Annotated[bool, Parameter(negative="")]
Many = Parameter(negative="", consume_multiple=True)


def key_option(scopes: str) -> Parameter:
    """The option for the file with a key that is good for `scopes`."""
    return Parameter(group=WHERE, help=f"File whose first word is an API key ({scopes}), for a running server. [default: AFTERGATE_KEY]")


@Parameter(name="*")
@dataclass(frozen=True)
class Directory:
    """A server's data directory."""

    data: Data = None
    database: Base = None


@Parameter(name="*")
@dataclass(frozen=True)
class Place(Directory):
    """A server's data directory, or a running server. Commands make a class of their own, to say which scopes their keys need."""

    server: Server = None
    key_file: Annotated[Path | None, key_option("of any scope")] = None


@Parameter(name="*")
@dataclass(frozen=True)
class Running:
    """A running server."""

    server: Url = FALLBACK
    key_file: Annotated[Path | None, key_option("of any scope")] = None
