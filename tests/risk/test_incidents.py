"""Findings of one story become one incident, whatever order they are in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aftergate.risk.incidents import WINDOW_MS, join
from aftergate.vocabulary import RANK, SEVERITIES, Finding, Subject

HOUR = 3_600_000


def finding(
    number: int,
    at: int = 0,
    lasts: int = 0,
    severity: str = "medium",
    evidence: tuple[str, ...] = (),
    identity: tuple[str, ...] = (),
    credential: tuple[str, ...] = (),
    session: tuple[str, ...] = (),
    root: str | None = None,
    detection: str = "tok-a",
) -> Finding:
    subject = Subject(list(identity), list(credential), list(session))
    found = Finding(
        f"af-{number:04d}", detection, severity, at + lasts, at + lasts, "title", f"told {number}.", subject, list(evidence), ["okta"]
    )  # type: ignore[arg-type]
    found.started, found.root, found.trust_after, found.attack = at, root, 50, ("T1550",)
    return found


some = st.lists(
    st.builds(
        finding,
        st.integers(0, 9999),
        st.integers(0, 30 * 24).map(lambda h: h * HOUR),
        st.sampled_from((0, HOUR, 50 * HOUR)),
        st.sampled_from(SEVERITIES[1:]),
        st.lists(st.sampled_from("abcdefgh"), max_size=2).map(tuple),
        st.sampled_from((("ada",), ("bob",), ())),
        st.sampled_from(((), ("k1",), ("k2",))),
        st.sampled_from(((), ("s1",))),
        st.sampled_from((None, "r1", "r2")),
        st.sampled_from(("tok-a", "tok-b")),
    ),
    max_size=10,
    unique_by=lambda f: f.id,
)


def stories(findings: list[Finding]) -> dict[str, tuple[str, ...]]:
    return {i.id: tuple(sorted(i.findings)) for i in join(findings)}


@given(some, st.randoms(use_true_random=False))
def test_order_changes_nothing(held: list[Finding], dice) -> None:
    """Ids, members, narrative: all of it."""
    first = join(held)
    dice.shuffle(held)
    again = join(held)
    assert [(i.id, i.findings, i.narrative, i.title, i.trust, i.severity, i.recommended) for i in again] == [
        (i.id, i.findings, i.narrative, i.title, i.trust, i.severity, i.recommended) for i in first
    ]


@given(some)
def test_every_finding_is_in_just_one_incident(held: list[Finding]) -> None:
    """Which takes its worst severity and lowest trust, and spans them all."""
    incidents = join(held)
    assert sorted(f for i in incidents for f in i.findings) == sorted(f.id for f in held)
    by_id = {f.id: f for f in held}
    for incident in incidents:
        members = [by_id[f] for f in incident.findings]
        assert all(f.incident == incident.id for f in members)
        assert RANK[incident.severity] == max(RANK[f.severity] for f in members)
        assert incident.trust == min(f.trust_after for f in members)
        assert incident.started == min(f.started for f in members)
        assert incident.time == max(f.time for f in members)
    order = [(-RANK[i.severity], i.trust, i.started) for i in incidents]
    assert order == sorted(order)


def test_one_event_one_credential_one_session_or_one_root_joins_at_any_distance() -> None:
    far = 30 * 24 * HOUR
    for shared in ({"evidence": ("e1",)}, {"credential": ("k1",)}, {"session": ("s1",)}, {"root": "r1"}):
        assert len(stories([finding(1, 0, **shared), finding(2, far, **shared)])) == 1, shared  # type: ignore[arg-type]


def test_one_identity_joins_until_it_was_quiet_for_long() -> None:
    near = [finding(1, 0, identity=("ada",)), finding(2, WINDOW_MS, identity=("ada",))]
    far = [finding(1, 0, identity=("ada",)), finding(2, WINDOW_MS + 1, identity=("ada",))]
    assert len(stories(near)) == 1
    assert len(stories(far)) == 2


def test_a_long_finding_keeps_its_story_open() -> None:
    """Quiet is counted from the last event, also when a shorter finding began in between."""
    held = [
        finding(1, 0, 5 * WINDOW_MS, identity=("ada",)),
        finding(2, WINDOW_MS, identity=("ada",)),
        finding(3, 5 * WINDOW_MS + HOUR, identity=("ada",)),
    ]
    assert len(stories(held)) == 1


def test_different_people_are_different_stories() -> None:
    assert len(stories([finding(1, identity=("ada",)), finding(2, identity=("bob",))])) == 2


def test_the_story_is_told_in_order() -> None:
    (told,) = join([finding(2, HOUR, identity=("ada",), detection="tok-b"), finding(1, 0, identity=("ada",))])
    assert told.narrative == "told 1. Then: told 2."
    assert told.detections == ["tok-a", "tok-b"]
