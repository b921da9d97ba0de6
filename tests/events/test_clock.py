"""Times as logs write them, in milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftergate.errors import Reject
from aftergate.events.clock import from_epoch, from_iso, to_iso

BASE = 1_772_438_400_000  # 2026-03-02T08:00:00Z


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-03-02T08:00:00Z", BASE),
        ("2026-03-02T08:00:00", BASE),
        ("2026-03-02T08:00:00.5Z", BASE + 500),
        ("2026-03-02T08:00:00.476Z", BASE + 476),
        ("2026-03-02T08:00:00.4769999Z", BASE + 476),
        ("2026-03-02T08:00:00.123456789Z", BASE + 123),
        ("2026-03-02T08:00:00.000+00:00", BASE),
        ("2026-03-02T08:00:00+00:00", BASE),
        ("2026-03-02T10:00:00+02:00", BASE),
        ("2026-03-02T10:30:00.25+02:30", BASE + 250),
        ("2026-03-02T00:00:00-08:00", BASE),
        ("2026-03-02 08:00:00Z", BASE),
        ("2026-03-02", BASE - 8 * 3_600_000),
        ("1969-12-31T23:59:59.999Z", -1),
    ],
)
def test_times_as_logs_write_them(text: str, ms: int) -> None:
    """The same twice: the second time from the cache."""
    assert from_iso(text) == ms
    assert from_iso(text) == ms


@pytest.mark.parametrize(
    "text", ["", "x", "2026-02-30T00:00:00Z", "2026-03-02T25:00:00Z", "2026-03-02T08:00:60Z", "NaN", "20260", "é" * 30]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Reject):
        from_iso(text)


@given(
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),
    st.integers(-14 * 60, 14 * 60),
    st.sampled_from(("seconds", "milliseconds", "microseconds")),
)
def test_any_time_agrees_with_the_standard_library(moment: datetime, offset: int, fine: str) -> None:
    """Whatever the zone and the number of digits."""
    there = moment.replace(tzinfo=timezone(timedelta(minutes=offset)))
    text = there.isoformat(timespec=fine)
    whole = datetime.fromisoformat(text)
    expected = (whole - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert from_iso(text) == expected
    assert from_iso(text) == expected


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_printed_times_read_back(ms: int) -> None:
    assert from_iso(to_iso(ms)) == ms


@pytest.mark.parametrize("value", [BASE / 1000, BASE, BASE * 1000, BASE // 1000])
def test_seconds_milliseconds_and_microseconds_are_told_apart_by_size(value: float) -> None:
    assert from_epoch(value) == BASE


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e30, -1e30, 10**40, True])
def test_numbers_that_are_no_time_are_refused(value: float) -> None:
    with pytest.raises(Reject):
        from_epoch(value)


def test_sums_of_times_print_whatever_they_come_to() -> None:
    """A record dated 9999 with a lifetime on top."""
    assert to_iso(10**18) == "9999-12-31T23:59:59.999Z"
    assert to_iso(-(10**18)) == "0001-01-01T00:00:00Z"
