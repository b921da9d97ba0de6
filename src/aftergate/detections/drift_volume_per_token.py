"""Far more bytes or objects read in a day than ever before by the same identity through the same application."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

from msgspec import Struct

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import place, strangeness, when, who
from aftergate.lineage.state import DAY_MS, Identity
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import VOLUME_FLOOR, Bit, Event, Kind, Severity, Tag

_FACTOR = 8  # times the largest day before
_BYTES = 64 << 20
_HUGE = 1 << 30
_AGENT_BYTES = 1 << 20  # answers to an agent's tool calls are texts
_OBJECTS = 200
_REPOSITORY_READS = 80  # clones, fetches and archives of a code forge
_DAYS = 3  # days of earlier use that make a norm
_SPIKES = 12


class _Norm(Struct):
    """Day totals of one pair: in full for today, beyond that the largest ordinary day and the days that stood out."""

    first: int
    day: int
    today: int = 0
    top: int = 0  # largest ordinary day before today
    days: int = 0  # days of use before today
    spikes: list[tuple[int, int]] = []  # (day, total)
    events: list[str] = []

    def turn(self, now: int, floor: int) -> None:
        """Close a day that is over."""
        day = now - now % DAY_MS
        if day == self.day:
            return
        if self.days >= _DAYS and self.today >= _FACTOR * max(self.top, floor // _FACTOR):
            self.spikes = [*self.spikes[-_SPIKES:], (self.day, self.today)]
        else:
            self.top = max(self.top, self.today)
        self.days += self.today > 0
        self.day, self.today = day, 0
        self.events.clear()


class Detection(Rule):
    meta = Meta(
        slug="drift-volume-per-token",
        title="Far more data read than ever before",
        severity="medium",
        about=(
            "One identity, through one application or service, read many times the data of its largest day before. Place, program and action may all "
            "be the usual ones: a stolen token or a subverted job that drains what it may read shows in the amount alone."
        ),
        attack=("T1530", "T1567", "T1213", "AML.T0086"),
        needs=(("bytes",), ("objects",)),
        traps=(
            "Exports at the end of a month, weekly backups and other jobs with a rhythm: a day that stands out counts only when it breaks the rhythm.",
            "A new identity or application has no norm yet.",
            "The same application read as much for other people.",
        ),
        blind=(
            "The first large day of a job that will become a rhythm looks like a drain.",
            "Logs without byte counts and without object reads show no volume.",
        ),
        recommended=(
            "Ask the owner of the job or application about this day",
            "Revoke the token or session and look at which objects were read",
            "Set a quota or an alarm at the source",
        ),
    )
    # Bytes come from tracking's own day totals, at powers of two: no cost between. Objects are counted where logs give no bytes; one look-up each.
    subscriptions = (
        on(bits=Bit.VOLUME),
        on(tags=(Tag.MAIL_READ,)),
        on(kinds=(Kind.DATA_READ, Kind.DATA_EXPORT), sources=("gcp.", "github.")),
        on(kinds=(Kind.TOOL_CALL,), sources=("agent.",)),
    )

    def start(self) -> None:
        self.bytes: dict[tuple[str, str], _Norm] = {}
        self.counts: dict[tuple[str, str], _Norm] = {}
        self.peaks: dict[str, dict[str, int]] = {}  # application or service -> identity -> largest day

    def step(self, event: Event, facts: Facts) -> None:
        if not event.ok:
            return
        if facts.mask & int(Bit.VOLUME) and event.kind is not Kind.TOOL_CALL:
            self._bytes(event, facts)
        source = event.source
        if source.startswith("agent."):
            self._count(event, facts, event.size, event.shape.resource or "", _AGENT_BYTES, "bytes")
        elif Tag.MAIL_READ in event.action.tags:
            if event.d.objects:
                self._count(event, facts, event.d.objects, "mail", _OBJECTS, "messages")
                if event.shape.client:  # one application that reads a little more in each of many mailboxes
                    self._count(event, facts, event.d.objects, event.shape.client, 5 * _OBJECTS, "messages", app=True)
        elif source.startswith(("gcp.", "github.")):
            self._count(event, facts, 1, event.action.service, _OBJECTS if source.startswith("gcp.") else _REPOSITORY_READS, "reads")

    def _bytes(self, event: Event, facts: Facts) -> None:
        """Totals are known at powers of two from 8 MiB on, so a day may have held up to twice what was seen, and 8 MiB if nothing was."""
        identity = facts.identity
        client = event.shape.client or event.action.service
        total = identity.bytes_by_client.get(client, 0)
        key = (identity.id, client)
        norm = self.bytes.get(key)
        if norm is None:
            norm = self.bytes[key] = _Norm(identity.clients.get(client, identity.first), event.time - event.time % DAY_MS, top=VOLUME_FLOOR)
        norm.turn(event.time, _BYTES)
        norm.days = max(norm.days, self._days(identity, event))
        norm.today = 2 * total
        norm.events.append(event.id)
        if total >= _BYTES and total >= _FACTOR * norm.top:
            self._judge(event, identity, norm, client, total, "bytes")
        peaks = self.peaks.setdefault(client, {})
        peaks[identity.id] = max(peaks.get(identity.id, 0), total)

    @staticmethod
    def _days(identity: Identity, event: Event) -> int:
        """On how many days before today the identity used this application or service, at least."""
        client, service = event.shape.client, event.action.service
        most = 0
        for shape, use in identity.uses.items():
            if (shape.client == client if client else shape.action.service == service) and use.days > most:
                most = use.days
        return most - 1

    def _count(self, event: Event, facts: Facts, amount: int, what: str, floor: int, unit: str, *, app: bool = False) -> None:
        key = ("" if app else facts.identity.id, what)
        norm = self.counts.get(key)
        now = event.time
        if norm is None:
            norm = self.counts[key] = _Norm(now, now - now % DAY_MS)
        elif now - norm.day >= DAY_MS:
            norm.turn(now, floor)
        before = norm.today
        norm.today = before + amount
        if norm.today >= floor and norm.today >= _FACTOR * norm.top and norm.days >= _DAYS:
            if len(norm.events) < 80:
                norm.events.append(event.id)
            if before.bit_length() != norm.today.bit_length() or before < floor:
                self._judge(event, facts.identity, norm, what, norm.today, unit, app=app)

    def _judge(self, event: Event, identity: Identity, norm: _Norm, what: str, total: int, unit: str, *, app: bool = False) -> None:
        now = event.time
        if norm.days < _DAYS or now - norm.first < _DAYS * DAY_MS or self.directory.ticket_for([identity.id, *identity.names], now):
            return
        story = norm.day
        if norm.spikes:
            last, _ = norm.spikes[-1]
            if norm.day - last <= DAY_MS:
                return  # the second day of one story
            if max(t for _, t in norm.spikes) * 4 >= total and _rhythm([day for day, _ in norm.spikes], norm.day):
                return
        strange = strangeness(self.world, identity, event)
        severity: Severity = "medium"
        traps: tuple[str, ...] = ()
        ratio = total / max(norm.top, 1)
        if strange.score >= 2 or (ratio >= 32 and (unit != "bytes" or total >= _HUGE)):
            severity = "high"
        peers = [peak for name, peak in self.peaks.get(what, {}).items() if name != identity.id]
        if unit == "bytes" and len(peers) >= 3 and sum(peak * 4 >= total for peak in peers) >= 2:
            severity, traps = "low", ("the same application read as much for others",)
        amount = _size(total) if unit == "bytes" else f"{total} {unit}"
        usual = f"less than {_size(norm.top)}" if unit == "bytes" else f"at most {norm.top}"
        through = (event.shape.client_name or event.shape.client or what) if unit == "bytes" else what
        said = f" It came from {place(event.origin)}, {', '.join(strange.reasons)}." if strange.score >= 2 else ""
        way = " in several mailboxes" if app else "" if unit == "messages" else f" through {through}"
        reader = f"Application {event.shape.client_name or what}" if app else who(event)
        self.report(
            f"{'' if app else identity.id}|{what}|{unit}|{story}",
            event,
            severity=severity,
            narrative=f"{reader} read {amount}{way} until {when(now)}; on each of {norm.days} days before it was {usual}.{said}",
            subject=subject_of(identities=[what], sessions=[event.session]) if app else subject_of(identity, event),
            evidence=norm.events,
            traps=traps,
        )


def _rhythm(spikes: list[int], day: int) -> bool:
    """True when a day fits the days that stood out before: same part of the month or week, equal gaps, or no order at all in many of them."""
    last = spikes[-1]
    if _of_month(day) == _of_month(last) or any(abs(_in_month(day) - _in_month(s)) <= 2 for s in spikes):
        return True
    gap = day - last
    if len(spikes) >= 2:
        gaps = [b - a for a, b in pairwise(spikes)]
        if any(abs(gap - g) <= max(DAY_MS, 0.1 * g) for g in gaps):
            return True
    return gap % (7 * DAY_MS) == 0 or len(spikes) >= 3


def _in_month(day: int) -> int:
    return datetime.fromtimestamp(day / 1000, UTC).day


def _of_month(day: int) -> str:
    """`turn` for the last days and the first working days of a month, else the day itself."""
    number = _in_month(day)
    return "turn" if number >= 28 or number <= 3 else str(number)


def _size(count: int) -> str:
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
