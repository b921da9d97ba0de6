"""JSON as I-JSON (RFC 7493) wants it: UTF-8, unique names, no lone surrogates, numbers that a double holds.

Every request body goes through here, so the ordinary case is a typed decode and one walk; only a body that might hold a name twice is parsed again, slowly.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

from aftergate.authz.errors import BadRequest

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 32
MAX_INT: Final = (1 << 53) - 1  # RFC 7493, 2.2

_DECODE = msgspec.json.Decoder().decode
_NAME = re.compile(rb'"[ \t\r\n]*:')


class _Twice(Exception):
    """A name given twice in one object."""


def decode(body: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """The value of one JSON text.

    Raises: BadRequest, naming what is wrong; nothing else whatever the bytes.
    """
    if len(body) > max_bytes:
        raise BadRequest(f"the body is longer than {max_bytes} bytes")
    if not body:
        raise BadRequest("the body is empty", hint="send a JSON object")
    try:
        value = _DECODE(body)
    except RecursionError:
        raise BadRequest(f"the body is nested deeper than {max_depth} levels") from None
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if _count(value, max_depth) != _names(body):
        _refuse_twice(body)
    return value


def _names(body: bytes) -> int:
    """At least as many as there are names in the text: strings that hold `":` count too, white space before a colon is rare."""
    if b'" ' in body or b'"\n' in body or b'"\r' in body or b'"\t' in body:
        return len(_NAME.findall(body))
    return body.count(b'":')


def _count(value: Any, depth: int) -> int:
    """How many names the decoded value kept. Raises: BadRequest for depth and for integers that a double does not hold."""
    kind = type(value)
    if kind is dict:
        if depth <= 0:
            raise BadRequest("the body is nested too deeply")
        count = len(value)
        for held in value.values():
            sort = type(held)
            if sort is dict or sort is list:
                count += _count(held, depth - 1)
            elif sort is int and not -MAX_INT <= held <= MAX_INT:
                raise BadRequest(f"the number `{_short(held)}` is beyond double precision", hint="send it as a string")
        return count
    if kind is list:
        if depth <= 0:
            raise BadRequest("the body is nested too deeply")
        return sum(_count(held, depth - 1) for held in value)
    if kind is int and not -MAX_INT <= value <= MAX_INT:
        raise BadRequest(f"the number `{_short(value)}` is beyond double precision", hint="send it as a string")
    return 0


def _short(number: int) -> str:
    # INVARIANT: no str() of a caller's huge integer: Python refuses more than 4300 digits with ValueError.
    return str(number) if number.bit_length() < 128 else f"{'-' if number < 0 else ''}… of {number.bit_length()} bits"


def _refuse_twice(body: bytes) -> None:
    """Look again, object by object. Raises: BadRequest if some name is there twice."""

    def unique(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Twice(name)
            seen.add(name)

    try:
        json.loads(body, object_pairs_hook=unique)
    except _Twice as twice:
        raise BadRequest(f"the name `{str(twice)[:80]}` is given twice in one object") from None
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
