"""What a detection is.

A detection module defines one class `Detection(Rule)` with a `meta`. It says to which events it wants to be called, keeps what state it
needs, and reports findings by a key: reporting the same key again adds evidence to the same finding.
"""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cache
from typing import ClassVar, Protocol

from mypy_extensions import mypyc_attr

from aftergate.detections.meta import Meta, On, on
from aftergate.lineage.state import Identity, Life
from aftergate.lineage.tracking import Facts, World
from aftergate.vocabulary import RANK, SEVERITIES, Event, Finding, Severity, Shape, Subject

__all__ = [
    "EVIDENCE_LIMIT",
    "Book",
    "Directory",
    "Meta",
    "On",
    "Rule",
    "Unknowing",
    "catalogue",
    "lower",
    "on",
    "raise_to",
    "stable_id",
    "subject_of",
]

EVIDENCE_LIMIT = 100


class Directory(Protocol):
    """What a detection may ask of the operator's inventory. Without one, every answer is None or False."""

    def kind(self, any_id: str | None, /) -> str | None: ...
    def owner(self, any_id: str | None, /) -> str | None: ...
    def is_rotator(self, any_id: str | None, /) -> bool: ...
    def is_deployer(self, any_id: str | None, /) -> bool: ...
    def egress_ok(self, any_id: str | None, ip: str | None, /, provider: str | None = None, at: int | None = None) -> bool: ...
    def ticket_for(self, ids: Iterable[str | None], at: int, /, kinds: Iterable[str] = ()) -> object | None: ...


class Unknowing:
    """The directory of an organisation that gave none."""

    def kind(self, _: str | None, /) -> str | None:
        return None

    def owner(self, _: str | None, /) -> str | None:
        return None

    def is_rotator(self, _: str | None, /) -> bool:
        return False

    def is_deployer(self, _: str | None, /) -> bool:
        return False

    def egress_ok(self, _: str | None, ip: str | None, /, provider: str | None = None, at: int | None = None) -> bool:  # noqa: ARG002
        return False

    def ticket_for(self, _: Iterable[str | None], at: int, /, kinds: Iterable[str] = ()) -> object | None:  # noqa: ARG002
        return None


class Book:
    """Findings of one run, by detection and key."""

    def __init__(self) -> None:
        self.findings: dict[tuple[str, str], Finding] = {}

    def get(self, slug: str, key: str) -> Finding | None:
        return self.findings.get((slug, key))

    def withdraw(self, slug: str, key: str) -> None:
        """Forget a finding that later events explained away."""
        self.findings.pop((slug, key), None)


def stable_id(slug: str, key: str) -> str:
    """`af-` and 16 hex digits; the same story gives the same id in every run."""
    return "af-" + hashlib.sha256(f"{slug}\n{key}".encode()).hexdigest()[:16]


def _extend(held: list[str], more: Iterable[str], limit: int = EVIDENCE_LIMIT) -> None:
    for item in more:
        if item and item not in held and len(held) < limit:
            held.append(item)


def subject_of(
    identity: Identity | None = None,
    event: Event | None = None,
    *,
    lives: Iterable[Life | None] = (),
    credentials: Iterable[str | None] = (),
    sessions: Iterable[str | None] = (),
    identities: Iterable[str | None] = (),
) -> Subject:
    """Whom a finding accuses. Put in only what it accuses; bystanders (a target, a colleague, a shared role) stay out."""
    subject = Subject([], [], [])
    if identity is not None:
        _extend(subject.identity, [identity.id, *sorted(identity.names - {identity.id, identity.id.lower()})])
    if event is not None:
        actor = event.shape.actor
        _extend(subject.identity, [actor.id, *(n for n in actor.names if n != actor.role)])
        _extend(subject.credential, [event.credential or ""])
        _extend(subject.session, [event.session or ""])
    for life in lives:
        if life is not None:
            _extend(subject.session if life.is_session else subject.credential, [life.id])
    _extend(subject.identity, (i or "" for i in identities))
    _extend(subject.credential, (c or "" for c in credentials))
    _extend(subject.session, (s or "" for s in sessions))
    return subject


@mypyc_attr(allow_interpreted_subclasses=True)
class Rule(ABC):
    """Base of all detections. The busiest are compiled (docs/decisions/0005); the others, and those of a test, derive from it all the same."""

    meta: ClassVar[Meta]
    subscriptions: ClassVar[tuple[On, ...]]

    def __init__(self, world: World, book: Book, directory: Directory | None = None) -> None:
        self.world = world
        self.book = book
        self.directory: Directory = directory if directory is not None else Unknowing()
        self.start()

    def start(self) -> None:  # noqa: B027  (a detection may do without)
        """Make the state. Called once."""

    def wants(self, shape: Shape) -> bool:  # noqa: ARG002
        """False for shapes this detection never judges, whatever the rest: asked once for each shape, so it may depend on nothing else."""
        return True

    @abstractmethod
    def step(self, event: Event, facts: Facts) -> None:
        """Judge one event. `facts` is valid only during the call."""

    def watch(self, name: str | None) -> None:
        """From now on call `on_watched` for every event of this credential or session, whatever the subscriptions. Unknown names are let be."""
        life = self.world.lives.get(name or "")
        if life is not None:
            held = life.watch or ()
            if self.on_watched not in held:
                life.watch = (*held, self.on_watched)

    def on_watched(self, event: Event, facts: Facts) -> None:  # noqa: B027  (a detection may do without)
        """Judge one event of a credential or session that this detection watches."""

    def finish(self) -> None:  # noqa: B027  (a detection may do without)
        """Judge what can be judged only when all events are known. Called once, after the last event."""

    def report(
        self,
        key: str,
        event: Event,
        *,
        narrative: str,
        subject: Subject,
        title: str = "",
        severity: Severity | None = None,
        evidence: Iterable[str] = (),
        traps: Iterable[str] = (),
        root: str | None = None,
        time: int | None = None,
    ) -> Finding:
        """Report, or add to, the finding of this key.

        `event` is the last event it rests on and is always evidence; `evidence` are ids of others. Reporting again keeps the higher severity and
        takes the newer narrative. Keys are built from raw ids, so that ids are stable across runs.
        """
        meta = self.meta
        severity = severity or meta.severity
        found = self.book.get(meta.slug, key)
        known = max(event.known_at, event.time)
        if found is None:
            found = Finding(
                id=stable_id(meta.slug, key),
                detection=meta.slug,
                severity=severity,
                time=event.time if time is None else time,
                known_at=known,
                title=title or meta.title,
                narrative=narrative,
                subject=subject,
                evidence=[],
                sources=[],
                attack=meta.attack,
                frameworks=(*meta.nhi, *meta.csf),
                recommended=meta.recommended,
                started=event.time,
                root=root,
            )
            self.book.findings[meta.slug, key] = found
        else:
            found.time = max(found.time, event.time if time is None else time)
            found.known_at = max(found.known_at, known)
            if RANK[severity] >= RANK[found.severity]:
                found.severity = severity
                found.narrative = narrative
                if title:
                    found.title = title
            _extend(found.subject.identity, subject.identity, 12)
            _extend(found.subject.credential, subject.credential, 24)
            _extend(found.subject.session, subject.session, 24)
        _extend(found.evidence, [*evidence, event.id])
        _extend(found.sources, [event.shape.source])
        if traps:
            held = list(found.traps)
            _extend(held, traps)
            found.traps = tuple(held)
        return found


def lower(severity: Severity, steps: int = 1) -> Severity:
    """One or more bands down, never below low."""
    return SEVERITIES[max(1, RANK[severity] - steps)]


def raise_to(severity: Severity, floor: Severity) -> Severity:
    return severity if RANK[severity] >= RANK[floor] else floor


@cache
def catalogue() -> dict[str, type[Rule]]:
    """All detections by slug, found by looking in the folder."""
    import aftergate.detections as folder

    found: dict[str, type[Rule]] = {}
    for module in pkgutil.iter_modules(folder.__path__):
        rule = getattr(importlib.import_module(f"{folder.__name__}.{module.name}"), "Detection", None)
        if isinstance(rule, type) and issubclass(rule, Rule):
            found[rule.meta.slug] = rule
    return dict(sorted(found.items()))
