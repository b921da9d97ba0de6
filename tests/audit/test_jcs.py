"""Canonical JSON is RFC 8785's, on the fast path and on the slow one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from aftergate.audit import jcs
from aftergate.audit.errors import NotCanonical
from aftergate.audit.jcs import MAX_INT, canonical, parse

VECTORS = Path(__file__).parents[1] / "data" / "jcs"
NAMES = sorted(p.name for p in (VECTORS / "input").iterdir())

scalars = st.none() | st.booleans() | st.integers(-MAX_INT, MAX_INT) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INT, MAX_INT) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(max_codepoint=127)), inner),
    max_leaves=30,
)


@pytest.mark.parametrize("name", NAMES)
def test_the_vectors_of_the_standards_authors(name: str) -> None:
    value = json.loads((VECTORS / "input" / name).read_text("utf-8"))
    assert canonical(value) == (VECTORS / "output" / name).read_bytes()


def test_there_are_six_vectors() -> None:
    assert len(NAMES) == 6


@settings(max_examples=400)
@given(plain)
def test_the_fast_way_gives_what_the_reference_gives(value: Any) -> None:
    assert jcs._plain(value, 0)
    assert canonical(value) == rfc8785.dumps(value)


@settings(max_examples=200)
@given(values)
def test_canonical_bytes_read_back_to_the_same_bytes(value: Any) -> None:
    made = canonical(value)
    assert canonical(parse(made)) == made


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (2**53, "beyond"),
        (-(2**53), "beyond"),
        ({"a": [2**60]}, "beyond"),
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        ("\ud800", "surrogate"),
        ({"\udfff": 1}, "surrogate"),
        ({"é\ud800": 1}, "JSON|surrogate"),
        ({1: 2}, "JSON"),
        (b"bytes", "JSON"),
        ({1, 2}, "JSON"),
        (object(), "JSON"),
    ],
)
def test_what_is_no_interchangeable_json_is_refused(value: Any, why: str) -> None:
    with pytest.raises(NotCanonical, match=why):
        canonical(value)


def test_deep_nesting_is_refused_not_followed() -> None:
    value: Any = 1
    for _ in range(64):
        value = [value]
    assert canonical(value).startswith(b"[[[")
    for deeper in ([value], {"a": value}, {"é": value}, [0.5, value]):
        with pytest.raises(NotCanonical, match="deeper"):
            canonical(deeper)


@pytest.mark.parametrize(
    "data",
    [b'{"a":1,"a":1}', b'{"b":1,"a":2}', b'{"a": 1}', b"1.0", b"1e2", b"-0", b'"\\u0061"', b'"\\/"', b"{", b"", b"nul", b'"\xff"', b"9007199254740993", b"1 "],
)  # fmt: skip
def test_bytes_that_are_not_canonical_are_refused(data: bytes) -> None:
    with pytest.raises(NotCanonical):
        parse(data)


def test_names_beyond_ascii_sort_by_utf16() -> None:
    # By code point U+FB33 comes before U+1F600; by UTF-16 unit after it.
    assert canonical({"\ufb33": 1, "\U0001f600": 2}) == '{"\U0001f600":2,"\ufb33":1}'.encode()
