"""Findings about one story, joined: one incident, one narrative."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from aftergate.events.clock import to_iso
from aftergate.vocabulary import RANK, Finding, Severity, Subject

WINDOW_MS: Final = 3 * 86_400_000  # quiet time that separates two stories about one identity


class Incident(Struct):
    """One story."""

    id: str
    severity: Severity
    started: int
    time: int
    title: str
    narrative: str
    findings: list[str]
    detections: list[str]
    subject: Subject
    trust: int
    attack: list[str]
    recommended: list[str]
    sources: list[str]


class _Groups:
    def __init__(self, size: int) -> None:
        self.parent = list(range(size))

    def find(self, item: int) -> int:
        while self.parent[item] != item:
            self.parent[item] = self.parent[self.parent[item]]
            item = self.parent[item]
        return item

    def join(self, a: int, b: int) -> None:
        a, b = self.find(a), self.find(b)
        if a != b:
            self.parent[max(a, b)] = min(a, b)


def join(findings: Sequence[Finding]) -> list[Incident]:
    """Group findings and write the incident's id into each.

    Two belong together when they share an event, a credential, a session or a lineage root, or when they are about one identity
    and no more than WINDOW_MS of quiet lies between them. Order of input does not matter.
    """
    ordered = sorted(findings, key=lambda f: (f.started, f.time, f.id))
    groups = _Groups(len(ordered))
    last: dict[tuple[str, str], tuple[int, int]] = {}  # key -> finding number, its latest time
    for number, finding in enumerate(ordered):
        keys: list[tuple[str, str, bool]] = [("event", e, False) for e in finding.evidence]
        keys += [("credential", c, False) for c in finding.subject.credential]
        keys += [("session", s, False) for s in finding.subject.session]
        keys += [("identity", i, True) for i in finding.subject.identity[:1]]
        if finding.root:
            keys.append(("root", finding.root, False))
        for kind, name, windowed in keys:
            held = last.get((kind, name))
            if held is not None and (not windowed or finding.started - held[1] <= WINDOW_MS):
                groups.join(held[0], number)
            latest = max(finding.time, held[1]) if held is not None else finding.time
            last[kind, name] = (number, latest)
    stories: dict[int, list[Finding]] = {}
    for number, finding in enumerate(ordered):
        stories.setdefault(groups.find(number), []).append(finding)
    incidents = [_tell(story) for story in stories.values()]
    incidents.sort(key=lambda i: (-RANK[i.severity], i.trust, i.started, i.id))
    return incidents


def _tell(story: list[Finding]) -> Incident:
    first = min(f.id for f in story)
    name = "inc-" + hashlib.sha256(first.encode()).hexdigest()[:12]
    worst = max(story, key=lambda f: (RANK[f.severity], -f.started, f.id))
    subject = Subject([], [], [])
    for finding in story:
        finding.incident = name
        for level in ("identity", "credential", "session"):
            held: list[str] = getattr(subject, level)
            held.extend(i for i in getattr(finding.subject, level) if i not in held)
    told: list[str] = []
    detections: list[str] = []
    for finding in sorted(story, key=lambda f: (f.started, f.time, f.id)):
        if finding.detection not in detections:
            detections.append(finding.detection)
            told.append(finding.narrative)
    started, ended = min(f.started for f in story), max(f.time for f in story)
    narrative = told[0] if len(told) == 1 else " Then: ".join(told[:5]) + (f" ({len(told) - 5} more.)" if len(told) > 5 else "")
    return Incident(
        id=name,
        severity=worst.severity,
        started=started,
        time=ended,
        title=worst.title if len(detections) == 1 else f"{worst.title} (+{len(detections) - 1} more signs since {to_iso(started)[:16]}Z)",
        narrative=narrative,
        findings=[f.id for f in sorted(story, key=lambda f: (f.started, f.time, f.id))],
        detections=detections,
        subject=subject,
        trust=min(f.trust_after for f in story),
        attack=sorted({a for f in story for a in f.attack}),
        recommended=list(
            dict.fromkeys(r for f in sorted(story, key=lambda f: (-RANK[f.severity], f.started, f.id)) for r in f.recommended)
        )[:6],
        sources=sorted({s for f in story for s in f.sources}),
    )
