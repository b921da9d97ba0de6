"""Ids and names that people type."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aftergate.errors import AftergateError

MAX_ID: Final = 200
MAX_NAME: Final = 200
MAX_LIST: Final = 200


class PersonProblem(AftergateError):
    """Something about a person that cannot be: an id that is taken, a name with control characters, nobody of that id."""

    code = "person"


def person_id(given: str) -> str:
    """A person's id: it stands in addresses, so no slash.

    Raises: PersonProblem.
    """
    made = text(given, "id", MAX_ID)
    if not usable_id(made):
        raise PersonProblem("an id has no `/`, `?` or `#`", where="id", hint="give the longer name as an alias")
    return made


def usable_id(given: str) -> bool:
    return 0 < len(given) <= MAX_ID and given.isprintable() and given == given.strip() and not set("/?#") & set(given)


def text(given: str, what: str, longest: int) -> str:
    """Text that a person typed, without blanks around it.

    Raises: PersonProblem.
    """
    made = given.strip()
    if not made or len(made) > longest or not made.isprintable():
        raise PersonProblem(f"the {what} must have 1 to {longest} printable characters", where=what)
    return made


def texts(given: Iterable[str], what: str) -> frozenset[str]:
    """Raises: PersonProblem."""
    made = frozenset(text(each, what, 500) for each in given)
    if len(made) > MAX_LIST:
        raise PersonProblem(f"more than {MAX_LIST} of `{what}`", where=what)
    return made
