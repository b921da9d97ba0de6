"""Expressions of declared MCP mappings, evaluated by the official CEL runtime (package `cel-expr-python`, the extra `cel`).

The expressions come from an MCP server, the very party whose call is being judged. The runtime bounds recursion and iterations; length is bounded here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

MAX_EXPRESSION: Final = 1_024


class Absent:
    """The value of an optional selection that found nothing: the field is left out."""


ABSENT: Final = Absent()


class MappingError(Exception):
    """A message for which no evaluation request can be made. It refuses the message; the text goes to the caller."""


def available() -> bool:
    """Whether the runtime is installed."""
    try:
        _environment()
    except MappingError:
        return False
    return True


@lru_cache(maxsize=1)
def _environment() -> Any:
    try:
        from cel_expr_python import cel  # type: ignore[import-untyped]  # its types are not marked as such
        from cel_expr_python.ext import ext_optional  # type: ignore[import-untyped]
    except ImportError:
        raise MappingError("declared mappings with expressions need the CEL runtime: pip install 'aftergate[cel]'") from None
    return cel.NewEnv(variables={"params": cel.Type.DYN, "token": cel.Type.DYN}, extensions=[ext_optional.ExtOptional()])


@lru_cache(maxsize=512)
def _compiled(expression: str) -> Any:
    return _environment().compile(expression)


def evaluate(expression: str, params: Mapping[str, Any], token: Mapping[str, Any]) -> Any:
    """The JSON value of a CEL expression over `params` and `token`, or ABSENT.

    Raises: MappingError, for whatever goes wrong, also a value that JSON does not have.
    """
    if len(expression) > MAX_EXPRESSION:
        raise MappingError(f"an expression is longer than {MAX_EXPRESSION} characters")
    _environment()
    data = {"params": dict(params), "token": dict(token)}
    try:
        compiled = _compiled(expression)
        if compiled.return_type().name().startswith("optional_type"):
            # An optional value has no form in Python: as an optional element it is a list of one, or of none.
            held = _json(_value(_compiled(f"[?({expression})]").eval(data=data)))
            return held[0] if held else ABSENT
        return _json(_value(compiled.eval(data=data)))
    except MappingError:
        raise
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:  # what the runtime raises for an author's mistake
        raise MappingError(f"expression `${expression[:80]}` failed: {str(error).splitlines()[0][:160]}") from None


def _value(result: Any) -> Any:
    if result.type().name() == "ERROR":
        raise MappingError(str(result.plain_value())[:160])
    return result.plain_value()


def _json(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list):
        return [_json(each) for each in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {name: _json(each) for name, each in value.items()}
    raise MappingError("the expression's value is none that JSON has")
