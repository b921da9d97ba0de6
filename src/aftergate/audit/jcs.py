"""Canonical JSON (RFC 8785): the bytes that are hashed into the log and signed by approvers.

Input is I-JSON: integers within 2^53-1, no NaN or Infinity, no lone surrogates, each name once.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import rfc8785

from aftergate.audit.errors import NotCanonical

MAX_INT: Final = 2**53 - 1
MAX_DEPTH: Final = 64
_SIMPLE: Final = frozenset({str, bool, int, type(None)})
_FAST: Final = msgspec.json.Encoder(order="sorted").encode
_DECODE: Final = msgspec.json.Decoder().decode


def canonical(value: Any) -> bytes:
    """The RFC 8785 bytes of a JSON value made of dict, list, tuple, str, int, float, bool and None.

    Raises: NotCanonical, if the value is not I-JSON or nests deeper than 64.
    """
    try:
        if _plain(value, 0):
            return _FAST(value)
        return rfc8785.dumps(value)
    except UnicodeEncodeError:
        raise NotCanonical("text with half a surrogate pair", hint="send well-formed Unicode") from None
    except rfc8785.IntegerDomainError:
        raise NotCanonical("an integer beyond 2^53-1", hint="send large counts and amounts as strings") from None
    except rfc8785.FloatDomainError:
        raise NotCanonical("a number that is not finite", hint="JSON knows no NaN and no Infinity") from None
    except rfc8785.CanonicalizationError as error:
        raise NotCanonical(f"no JSON value: {error}") from None


def canonical_parsed(value: Any) -> bytes:
    """The RFC 8785 bytes of a value that came out of a JSON parser: there a whole double of 2^53 and more looks like an integer.

    Raises: NotCanonical.
    """
    try:
        return canonical(value)
    except NotCanonical:
        return canonical(_doubles(value))


def parse(data: bytes) -> Any:
    """The value of canonical bytes.

    Raises: NotCanonical, unless `data` is exactly what `canonical` gives for its value. So a repeated name, an odd number form or a space is refused.
    """
    try:
        value = _DECODE(data)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise NotCanonical("not JSON") from None
    try:
        made = canonical(value)
    except NotCanonical:
        # Whole doubles of 2^53 and more print without a point: a number is a double, whatever its digits look like (RFC 8785 section 3.2.2.3).
        value = _doubles(value)
        made = canonical(value)
    if made != data:
        raise NotCanonical("JSON, but not in its canonical form")
    return value


def _doubles(value: Any) -> Any:
    if type(value) is int and not -MAX_INT <= value <= MAX_INT:
        try:
            return float(value)
        except OverflowError:
            raise NotCanonical("a number beyond double precision") from None
    if isinstance(value, dict):
        return {name: _doubles(inner) for name, inner in value.items()}
    return [_doubles(inner) for inner in value] if isinstance(value, list) else value


def _plain(value: Any, depth: int) -> bool:
    """Whether the fast encoder provably gives the same bytes: only exact built-in types, ASCII names, no floats, integers in range.

    ASCII names sort alike by UTF-8 bytes and by UTF-16 units; both encoders escape alike; integers print alike. Floats, names beyond ASCII and
    subclasses go the slow way.
    """
    kind = type(value)
    if value is None or kind is str or kind is bool:
        return True
    if kind is int:
        return bool(-MAX_INT <= value <= MAX_INT)
    if kind is dict:
        if depth >= MAX_DEPTH:
            raise NotCanonical(f"nested deeper than {MAX_DEPTH}")
        plain = True
        for name, inner in value.items():
            # No early exit: the depth of every branch is checked here.
            plain = _plain(inner, depth + 1) and type(name) is str and name.isascii() and plain
        return plain
    if kind is list or kind is tuple:
        if depth >= MAX_DEPTH:
            raise NotCanonical(f"nested deeper than {MAX_DEPTH}")
        kinds = set(map(type, value))
        if kinds <= _SIMPLE:  # long lists are mostly of these
            return int not in kinds or all(-MAX_INT <= inner <= MAX_INT for inner in value if type(inner) is int)
        plain = True
        for inner in value:
            plain = _plain(inner, depth + 1) and plain
        return plain
    if kind is float:
        return False
    if isinstance(value, (dict, list, tuple)) and depth >= MAX_DEPTH:
        raise NotCanonical(f"nested deeper than {MAX_DEPTH}")
    return False
