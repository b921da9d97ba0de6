"""Trust: 0 (none) to 100 (full) for a credential, a session, an identity, with the reasons and their decay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from msgspec import Struct

from aftergate.vocabulary import Finding

DAY_MS: Final = 86_400_000
PENALTY: Final[dict[str, float]] = {"info": 0.0, "low": 0.08, "medium": 0.30, "high": 0.60, "critical": 0.85}
SPREAD: Final = 0.7  # what of a penalty reaches the identity, when the finding names the credential or session at fault
HALF_LIFE_D: Final = 14.0

Level = Literal["credential", "session", "identity"]


class Reason(Struct, frozen=True):
    """One finding's part in a trust value."""

    finding: str
    detection: str
    time: int
    penalty: float  # 0 to 1, after decay


class Trust(Struct, frozen=True):
    """Trust in one subject at one time."""

    level: Level
    id: str
    value: int  # 0 to 100
    reasons: tuple[Reason, ...] = ()  # heaviest first


def decayed(penalty: float, age_ms: int, half_life_d: float) -> float:
    """A penalty over quiet time: halves each `half_life_d` days, never grows. A finding from the future has not lowered anything yet.

    Raises: ValueError, if half_life_d is not positive.
    """
    if half_life_d <= 0:
        raise ValueError("half_life_d must be positive")
    if age_ms < 0:
        return 0.0
    return float(penalty * 0.5 ** (age_ms / (half_life_d * DAY_MS)))


def trust_of(
    level: Level, subject: Iterable[str], findings: Iterable[Finding], at: int, half_lives: Mapping[str, float] | None = None
) -> Trust:
    """Trust in a subject (any of its ids) at time `at`, in milliseconds.

    The value is 100 times the product of what each finding leaves, so it never leaves 0 to 100 and no order matters. One detection that
    repeats counts by its heaviest finding and, for each further one, a quarter of it.
    """
    ids = set(subject)
    half_lives = half_lives or {}
    found: dict[str, list[Reason]] = {}
    name = ""
    for finding in findings:
        held: list[str] = getattr(finding.subject, level)
        if not ids.intersection(held):
            continue
        name = name or held[0]
        penalty = PENALTY[finding.severity]
        if level == "identity" and (finding.subject.credential or finding.subject.session):
            penalty *= SPREAD
        penalty = decayed(penalty, at - finding.time, half_lives.get(finding.detection, HALF_LIFE_D))
        if penalty > 0.001:
            found.setdefault(finding.detection, []).append(Reason(finding.id, finding.detection, finding.time, penalty))
    left = 1.0
    reasons: list[Reason] = []
    for detection in sorted(found):
        held_reasons = sorted(found[detection], key=lambda r: (-r.penalty, r.finding))
        reasons.extend(held_reasons)
        for rank, reason in enumerate(held_reasons):
            left *= 1.0 - reason.penalty * (1.0 if rank == 0 else 0.25)
    reasons.sort(key=lambda r: (-r.penalty, r.finding))
    return Trust(level, name or min(ids), max(0, min(100, round(100 * left))), tuple(reasons))


def set_trust(findings: list[Finding], half_lives: Mapping[str, float] | None = None) -> None:
    """Write into each finding the trust its narrowest subject has once it is known."""
    index: dict[tuple[Level, str], list[Finding]] = {}
    levels: tuple[Level, ...] = ("credential", "session", "identity")
    for finding in findings:
        for level in levels:
            for name in getattr(finding.subject, level):
                index.setdefault((level, name), []).append(finding)
    for finding in findings:
        finding.trust_after = 100
        for level in levels:
            names: list[str] = getattr(finding.subject, level)
            if names:
                around = {f.id: f for name in names for f in index[level, name] if f.time <= finding.time}
                value = trust_of(level, names, around.values(), finding.time, half_lives).value
                finding.trust_after = min(finding.trust_after, value)
