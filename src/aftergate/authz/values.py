"""JSON of a request as Cedar values, and no more of it than the policies read.

Cedar has no floating point, no null and no way to write a record whose only member is called `__entity` or `__extn`, since these mean an
entity and an extension value. A request holds data, never either of them: a value that cannot be carried over exactly is refused,
because leaving it out would let a `forbid ... when { resource has amount && ... }` pass unread.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from aftergate.authz.reads import Reads

ESCAPES: Final = frozenset({"__entity", "__extn", "__expr"})
_WORDS: Final = frozenset({"if", "then", "else", "in", "is", "like", "has", "true", "false", "__cedar"})
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:::[A-Za-z_][A-Za-z0-9_]*)*\Z")
_DECIMAL_LIMIT: Final = 922_337_203_685_477.0  # Cedar's decimal is 64 bits with four digits


class Unmappable(Exception):
    """A value that Cedar cannot hold. `where` is its path in the request."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(f"{where}: {message}")
        self.where = where
        self.message = message


@lru_cache(maxsize=4096)
def is_type_name(name: str) -> bool:
    """Whether Cedar can have an entity type of this name. Names come from callers, so the memory is bounded."""
    return len(name) <= 256 and _NAME.match(name) is not None and not _WORDS.intersection(name.split("::"))


def to_cedar(value: Any, where: str) -> Any:
    """One decoded JSON value in Cedar's JSON form. Members that are null are left out: the standard takes null and absent for the same.

    Raises: Unmappable.
    """
    kind = type(value)
    if kind is str or kind is bool or kind is int:
        return value
    if kind is float:
        return _number(value, where)
    if kind is dict:
        made = {}
        for name, held in value.items():
            if name in ESCAPES:
                raise Unmappable(f"{where}.{name}", "this name is Cedar's own and cannot be sent as data")
            if held is not None:
                sort = type(held)
                made[name] = held if sort is str or sort is int else to_cedar(held, f"{where}.{name}")
        return made
    if kind is list:
        if None in value:
            raise Unmappable(where, "a set cannot hold null")
        return [to_cedar(held, f"{where}[{at}]") for at, held in enumerate(value)]
    raise Unmappable(where, "not a JSON value")


def _number(value: float, where: str) -> Any:
    if value.is_integer():
        # 1.0 and 1 are one JSON number. What is beyond 2^53 as a float is beyond double precision as an integer.
        if abs(value) > 9_007_199_254_740_991:
            raise Unmappable(where, "a number beyond double precision: send it as a string")
        return int(value)
    text = f"{value:.4f}"
    if abs(value) >= _DECIMAL_LIMIT or float(text) != value:
        raise Unmappable(where, "Cedar holds at most four digits after the point: send fewer digits, or a string")
    return {"__extn": {"fn": "decimal", "arg": text}}


def projected(value: dict[str, Any], reads: Reads, where: str) -> dict[str, Any]:
    """The members of a record that some policy reads, in Cedar's JSON form.

    A Cedar policy sees a record only through `.` and `has`, so what no policy names cannot change an answer.
    Raises: Unmappable, only for what is read.
    """
    if reads.whole:
        made: dict[str, Any] = to_cedar(value, where)
        return made
    made = {}
    for name, below in reads.members.items():
        held = value.get(name)
        if held is None:
            continue
        kind = type(held)
        if kind is str or kind is int or kind is bool:
            made[name] = held
        elif kind is dict and not below.whole:
            # INVARIANT: no policy reads a name in ESCAPES (the loader refuses it), so none can get in here.
            made[name] = projected(held, below, f"{where}.{name}")
        else:
            made[name] = to_cedar(held, f"{where}.{name}")
    return made
