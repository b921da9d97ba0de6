"""Trust: bounded, decaying, and the same whatever the order of findings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftergate.risk.trust import DAY_MS, HALF_LIFE_D, PENALTY, SPREAD, decayed, set_trust, trust_of
from aftergate.vocabulary import SEVERITIES, Finding, Subject

NOW = 400 * DAY_MS


def finding(number: int, severity: str = "high", detection: str = "tok-a", age_d: float = 0, **subject: list[str]) -> Finding:
    held = Subject(subject.get("identity", []), subject.get("credential", []), subject.get("session", []))
    time = NOW - int(age_d * DAY_MS)
    return Finding(f"af-{number:04d}", detection, severity, time, time, "t", "n", held, [], [])  # type: ignore[arg-type]


findings = st.lists(
    st.builds(
        finding,
        st.integers(0, 9999),
        st.sampled_from(SEVERITIES),
        st.sampled_from(("tok-a", "tok-b", "ni-c")),
        st.floats(-5, 300),
        credential=st.sampled_from(([], ["k1"], ["k1", "k2"])),
        session=st.sampled_from(([], ["s1"])),
        identity=st.sampled_from((["ada"], ["ada", "00u1"], ["bob"])),
    ),
    max_size=12,
    unique_by=lambda f: f.id,
)


@given(findings, st.sampled_from(("credential", "session", "identity")), st.randoms(use_true_random=False))
def test_trust_is_bounded_and_knows_no_order(held: list[Finding], level: str, dice) -> None:
    subject = {"credential": ["k1"], "session": ["s1"], "identity": ["ada"]}[level]
    trust = trust_of(level, subject, held, NOW)  # type: ignore[arg-type]
    assert 0 <= trust.value <= 100
    dice.shuffle(held)
    again = trust_of(level, subject, held, NOW)  # type: ignore[arg-type]
    assert (again.value, again.reasons) == (trust.value, trust.reasons)
    assert [r.penalty for r in trust.reasons] == sorted((r.penalty for r in trust.reasons), reverse=True)


@given(findings, findings)
def test_one_more_finding_never_raises_trust(held: list[Finding], more: list[Finding]) -> None:
    before = trust_of("identity", ["ada"], held, NOW).value
    assert trust_of("identity", ["ada"], [*held, *more], NOW).value <= before


@given(findings, st.floats(0, 1000), st.floats(0, 1000))
def test_quiet_time_heals(held: list[Finding], early: float, late: float) -> None:
    """After the last finding trust only grows."""
    start = NOW + 6 * DAY_MS
    early, late = sorted((early, late))
    first = trust_of("identity", ["ada"], held, start + int(early * DAY_MS)).value
    assert trust_of("identity", ["ada"], held, start + int(late * DAY_MS)).value >= first


@given(st.floats(0, 1), st.integers(0, 10**12), st.floats(0.01, 1000))
def test_a_penalty_never_grows(penalty: float, age: int, half_life: float) -> None:
    assert 0 <= decayed(penalty, age, half_life) <= penalty


def test_a_penalty_halves_each_half_life() -> None:
    assert decayed(0.8, 14 * DAY_MS, 14) == pytest.approx(0.4)
    assert decayed(0.8, 28 * DAY_MS, 14) == pytest.approx(0.2)
    assert decayed(0.8, -1, 14) == 0, "what is still to come has lowered nothing"


@pytest.mark.parametrize("half_life", [0, -1])
def test_a_half_life_is_positive(half_life: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        decayed(0.5, 1, half_life)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_one_finding_costs_what_its_severity_says(severity: str) -> None:
    held = [finding(1, severity, credential=["k1"], identity=["ada"])]
    assert trust_of("credential", ["k1"], held, NOW).value == round(100 * (1 - PENALTY[severity]))
    assert trust_of("identity", ["ada"], held, NOW).value == round(100 * (1 - SPREAD * PENALTY[severity])), (
        "the identity loses less than its credential"
    )


def test_repeats_of_one_detection_count_less_than_another_one() -> None:
    once = trust_of("credential", ["k1"], [finding(1, credential=["k1"])], NOW).value
    twice = trust_of("credential", ["k1"], [finding(n, credential=["k1"]) for n in (1, 2)], NOW).value
    other = trust_of("credential", ["k1"], [finding(1, credential=["k1"]), finding(2, detection="tok-b", credential=["k1"])], NOW).value
    assert other < twice < once


def test_findings_about_others_cost_nothing() -> None:
    assert trust_of("identity", ["ada"], [finding(1, identity=["bob"])], NOW).value == 100


def test_a_detection_has_its_own_half_life() -> None:
    held = [finding(1, age_d=HALF_LIFE_D, credential=["k1"])]
    short = trust_of("credential", ["k1"], held, NOW, {"tok-a": 1.0}).value
    assert trust_of("credential", ["k1"], held, NOW).value < short


@given(findings, st.randoms(use_true_random=False))
def test_trust_written_into_findings_knows_no_order(held: list[Finding], dice) -> None:
    """And is what the narrowest subject has once the finding is known, later findings aside."""
    set_trust(held)
    written = {f.id: f.trust_after for f in held}
    dice.shuffle(held)
    set_trust(held)
    assert {f.id: f.trust_after for f in held} == written
    assert all(0 <= value <= 100 for value in written.values())
