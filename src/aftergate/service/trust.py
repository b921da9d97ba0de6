"""Live trust: what the open findings leave of it, held in memory and renewed when any process changes them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection

from aftergate.authz.transactions.machine import as_it_stands
from aftergate.risk.trust import HALF_LIFE_D, Level, Reason, trust_of
from aftergate.stores import findings as store
from aftergate.stores.database import Database
from aftergate.vocabulary import Finding

FULL: Final = 100
COUNTS: Final = frozenset({"low", "medium", "high", "critical"})


class Standing(Struct, frozen=True):
    """Trust in whom a request is about, at one time. Values are 0 to 100."""

    identity: int
    session: int
    credential: int
    findings: tuple[str, ...] = ()  # slugs of the open findings on any of them
    ids: tuple[str, ...] = ()  # their ids
    marks: tuple[str, ...] = ()  # each as it stands: it may get worse under the same id
    reasons: tuple[Reason, ...] = ()  # heaviest first

    @property
    def lowest(self) -> int:
        return min(self.identity, self.session, self.credential)


UNTOUCHED: Final = Standing(FULL, FULL, FULL)


class TrustView:
    """Trust from the findings held in the database.

    `of` reads memory only. `refresh` is called by a timer and after each change made here; when it has not worked for `stale_ms`,
    `fresh` is false and every decision is a deny (docs/decisions/0006).
    """

    def __init__(self, database: Database, clock: Callable[[], int], stale_ms: int, half_lives: dict[str, float] | None = None) -> None:
        self._database = database
        self._clock = clock
        self._stale_ms = stale_ms
        self._half_lives = half_lives or {}
        self._index: dict[str, tuple[Finding, ...]] = {}
        self._lock = threading.Lock()
        self._seen = -1
        self._at_ms = -1
        self._count = 0
        self.version = 0  # changes whenever an answer of `of` may

    @property
    def fresh(self) -> bool:
        return self.fresh_at(self._clock())

    def fresh_at(self, now_ms: int) -> bool:
        """`fresh`, for who has just read the clock."""
        return self._at_ms >= 0 and now_ms - self._at_ms <= self._stale_ms

    @property
    def age_ms(self) -> int:
        """Since the findings were last compared with the database's."""
        return self._clock() - self._at_ms

    @property
    def count(self) -> int:
        """How many open findings it rests on."""
        return self._count

    def refresh(self, version: int | None = None) -> None:
        """Read the findings again if they changed.

        Raises: StoreUnavailable.
        """
        with self._lock:
            now = self._clock()
            if version is None:
                version = self._database.versions().get(store.TOPIC, 0)
            if version != self._seen:
                with self._database.read() as connection:
                    held = store.open_findings(connection)
                self._index = _indexed(finding for finding, _ in held)
                self._count = len(held)
                self._seen = version
                self.version += 1
            self._at_ms = now

    def of(
        self, identity: Sequence[str], session: Sequence[str] = (), credential: Sequence[str] = (), at_ms: int | None = None
    ) -> Standing:
        """How identity, session and credential stand (each under any of its ids)."""
        index = self._index
        # Of most nobody has found anything, and then this is all that it costs.
        if index.keys().isdisjoint(identity) and index.keys().isdisjoint(session) and index.keys().isdisjoint(credential):
            return UNTOUCHED
        touched = {f.id: f for names in (identity, session, credential) for name in names for f in index.get(name, ())}
        return standing(identity, session, credential, touched.values(), self._clock() if at_ms is None else at_ms, self._half_lives)

    def read(
        self, connection: Connection, identity: Sequence[str], session: Sequence[str] = (), credential: Sequence[str] = ()
    ) -> Standing:
        """The same from the database itself, as this transaction sees it: for the moment at which an approval is used."""
        held = store.open_about(connection, [*identity, *session, *credential])
        if not held:
            return UNTOUCHED
        return standing(identity, session, credential, [finding for finding, _ in held], self._clock(), self._half_lives)


def standing(
    identity: Sequence[str],
    session: Sequence[str],
    credential: Sequence[str],
    about: Iterable[Finding],
    at_ms: int,
    half_lives: dict[str, float],
) -> Standing:
    """Trust from these findings; pure."""
    found = list(about)
    values: dict[str, int] = {}
    reasons: dict[str, Reason] = {}
    named: dict[str, Finding] = {}
    levels: tuple[tuple[Level, Sequence[str]], ...] = (("identity", identity), ("session", session), ("credential", credential))
    for level, names in levels:
        if not names:
            values[level] = FULL
            continue
        known = set(names)
        mine = [f for f in found if known.intersection(getattr(f.subject, level))]
        # A finding that is known counts at once, also when a log's clock runs ahead of ours.
        trust = trust_of(level, names, mine, max([at_ms, *(f.time for f in mine)]), half_lives)
        values[level] = trust.value
        for reason in trust.reasons:
            held = reasons.get(reason.finding)
            if held is None or held.penalty < reason.penalty:
                reasons[reason.finding] = reason
        named.update((f.id, f) for f in mine if f.severity in COUNTS)
    return Standing(
        values["identity"],
        values["session"],
        values["credential"],
        tuple(sorted({f.detection for f in named.values()})),
        tuple(sorted(named)),
        tuple(sorted(as_it_stands(f.id, f.severity, f.time) for f in named.values())),
        tuple(sorted(reasons.values(), key=lambda r: (-r.penalty, r.finding))),
    )


def _indexed(findings: Iterable[Finding]) -> dict[str, tuple[Finding, ...]]:
    index: dict[str, list[Finding]] = {}
    for finding in findings:
        for name in {*finding.subject.identity, *finding.subject.session, *finding.subject.credential}:
            index.setdefault(name, []).append(finding)
    return {name: tuple(held) for name, held in index.items()}


def half_lives() -> dict[str, float]:
    """Each detection's own half-life in days, where it is not the usual one."""
    from aftergate.detections.api import catalogue

    return {slug: rule.meta.half_life_d for slug, rule in catalogue().items() if rule.meta.half_life_d != HALF_LIFE_D}
