"""From events to what is drawn: lanes of places and programs, marks of what happened there. Pure; the picture itself is `picture.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct, field

from aftergate.report.axis import Axis, make_axis
from aftergate.report.text import plural, short, stamp
from aftergate.vocabulary import Event, Kind, Tag

WIDTH: Final = 960.0
MARGIN: Final = 16.0
MOST_LANES: Final = 8
MOST_MARKS: Final = 90

# what a mark tells, and what its shape is called in the legend, in the order of the legend
MARKS: Final[dict[str, str]] = {
    "sign_in": "sign-in, consent",
    "issue": "token or key issued",
    "refresh": "refresh",
    "use": "use",
    "change": "change made",
    "end": "revoked, ended",
    "failed": "refused",
}
LIFE_ROW: Final = frozenset({"sign_in", "issue", "refresh", "change", "end"})
_KINDS: Final[dict[Kind, str]] = {
    Kind.SIGN_IN: "sign_in",
    Kind.DEVICE_CODE_APPROVAL: "sign_in",
    Kind.CONSENT: "sign_in",
    Kind.SILENT_SIGN_IN: "refresh",
    Kind.TOKEN_REFRESH: "refresh",
    Kind.TOKEN_ISSUE: "issue",
    Kind.TOKEN_EXCHANGE: "issue",
    Kind.CREDENTIAL_CREATE: "issue",
    Kind.TOKEN_REVOKE: "end",
    Kind.SESSION_END: "end",
    Kind.CREDENTIAL_DELETE: "end",
    Kind.FACTOR_CHANGE: "change",
    Kind.ROLE_CHANGE: "change",
    Kind.POLICY_CHANGE: "change",
    Kind.TRUST_CHANGE: "change",
    Kind.CONFIG_CHANGE: "change",
    Kind.IDENTITY_LIFECYCLE: "change",
}


class Mark(Struct):
    """One or several events of one kind, near each other in one lane."""

    kind: str
    x0: float
    x1: float
    first: int
    last: int
    count: int = 1
    flagged: bool = False  # a finding rests on it
    aside: bool = False  # another credential of the same identity: background
    shift: float = 0.0  # moved to the right so that two marks of one moment are both seen
    findings: set[int] = field(default_factory=set)
    actions: dict[str, int] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)
    event: str = ""  # id of the first

    def text(self) -> str:
        """What the mark says when asked."""
        named = sorted(self.actions.items(), key=lambda item: (-item[1], item[0]))
        what = ", ".join(short(n, 48) + (f" ×{c}" if c > 1 else "") for n, c in named[:3])
        if len(named) > 3:
            what += f" and {len(named) - 3} more"
        when = stamp(self.first, seconds=True)
        if self.last != self.first:
            end = stamp(self.last, seconds=True)
            when += f" – {end[11:] if end[:10] == when[:10] else end}"
        head = MARKS[self.kind]
        if self.count > 1:
            head = f"{head}, {plural(self.count, 'event')}"
        if self.aside:
            head += " (other credential or session of the same identity)"
        text = f"{head}\n{when} UTC\n{what}"
        if len(self.ids) == 1:
            text += f"\nby {short(next(iter(self.ids)), 40)}"
        if self.findings:
            text += f"\nfinding {', '.join(str(n) for n in sorted(self.findings))} rests on this"
        return text


class Lane(Struct):
    """One place and program."""

    place: str
    program: str
    first: int
    count: int = 0
    flagged: bool = False
    marks: list[Mark] = field(default_factory=list)


class Flag(Struct):
    """Where a finding, or several close together, came to be."""

    x: float
    numbers: list[int]
    text: str


class Lifeline(Struct):
    """All of one picture."""

    axis: Axis
    lanes: list[Lane]
    flags: list[Flag]
    events: int
    left_out: int
    kinds: list[str]
    aside: bool  # is there background?


def mark_kind(event: Event) -> str:
    """Which mark an event gets."""
    if not event.ok:
        return "failed"
    action = event.action
    if Tag.REVOKE in action.tags or Tag.IDENTITY_DISABLE in action.tags:
        return "end"
    kind = _KINDS.get(action.kind)
    if kind in (None, "change") and event.mints:
        return "issue"
    return kind or "use"


def beside(event: Event, keys: set[str]) -> bool:
    """True for background: none of the credentials and sessions that the story is about was used, issued or spent."""
    if not keys or event.credential in keys or event.session in keys:
        return False
    if keys.intersection(event.mints):
        return False
    detail = event.detail
    return detail is None or not (detail.spent in keys or any(t.id in keys for t in detail.targets))


def lay_out(
    events: Sequence[Event], keys: set[str], evidence: Mapping[str, set[int]], findings: Sequence[tuple[int, int, str]], left_out: int
) -> Lifeline | None:
    """The picture of a story. None without events.

    `events` are in order; `evidence` maps event ids to numbers of findings that rest on them; `findings` are (number, time, title).
    """
    if not events:
        return None
    flagged_at = [e.time for e in events if e.id in evidence]
    focus = (min(flagged_at), max(flagged_at)) if flagged_at else None
    shown = [f for f in findings if events[0].time <= f[1] <= events[-1].time or not flagged_at]
    times = sorted({e.time for e in events} | {t for _, t, _ in shown})
    axis = make_axis(times, MARGIN, WIDTH - MARGIN, focus)
    lanes = _lanes(events, evidence)
    apart = 9.0
    while True:
        made = _marks(lanes, axis, keys, evidence, apart)
        if sum(len(lane.marks) for lane in made) <= MOST_MARKS or apart > 60:
            break
        apart *= 1.6
    seen = {m.kind for lane in made for m in lane.marks}
    return Lifeline(
        axis,
        made,
        _flags(findings, axis),
        len(events),
        left_out,
        [k for k in MARKS if k in seen],
        any(m.aside for lane in made for m in lane.marks),
    )


class _Group(Struct):
    """Events of one lane before they are marks."""

    first: int
    place: str = ""
    program: str = ""
    events: list[Event] = field(default_factory=list)
    flagged: bool = False


def _lanes(events: Sequence[Event], evidence: Mapping[str, set[int]]) -> list[_Group]:
    """Events by place and program; if that is too many, by place; if still too many, the least telling are one lane."""
    net_of: dict[str, str] = {}  # several tables may name the network of one address in several ways: the first name holds
    for fine in (True, False):
        groups: dict[tuple[str, str], _Group] = {}
        for event in events:
            origin = event.origin
            net = net_of.setdefault(origin.ip, origin.net) if origin.ip is not None else origin.net
            key = (net, event.agent.family if fine else "")
            group = groups.get(key)
            if group is None:
                group = groups[key] = _Group(event.time)
            group.events.append(event)
            group.flagged = group.flagged or event.id in evidence
        if len(groups) <= MOST_LANES:
            break
    held = list(groups.values())
    if len(held) > MOST_LANES:
        ranked = sorted(held, key=lambda g: (not g.flagged, -len(g.events), g.first))
        kept, rest = ranked[: MOST_LANES - 1], ranked[MOST_LANES - 1 :]
        other = _Group(min(g.first for g in rest), f"{len(rest)} other places", "", [], any(g.flagged for g in rest))
        other.events = sorted((e for g in rest for e in g.events), key=lambda e: (e.time, e.id))
        held = sorted(kept, key=lambda g: (g.first, g.events[0].id)) + [other]
    for group in held:
        group.place = group.place or _place(group.events)
        group.program = _program(group.events)
    return held


def _place(events: Sequence[Event]) -> str:
    """What to call the place: address or how many, network, country, kind of network."""
    origins = list(dict.fromkeys(e.origin for e in events))
    addresses = list(dict.fromkeys(o.ip for o in origins if o.ip is not None))
    one = origins[0]
    if not addresses:
        if one.net.startswith("service:"):
            return one.net.removeprefix("service:")
        return "place not in the log"
    said = [addresses[0] if len(addresses) == 1 else plural(len(addresses), "address", "addresses")]
    network = one.asn_name or one.provider or (one.net if len(addresses) > 1 or one.asn else "")
    countries = list(dict.fromkeys(o.country for o in origins if o.country))
    said += [short(network, 34), "/".join(countries[:3])]
    if one.network not in ("unknown", "isp"):
        said.append(one.network)
    if not one.trustworthy:
        said.append("not the caller's own address")
    return " · ".join(dict.fromkeys(s for s in said if s))


def _program(events: Sequence[Event]) -> str:
    """Programs and clients of a lane, most used first."""
    counts: dict[str, int] = {}
    for event in events:
        shape = event.shape
        family = shape.agent.family if shape.agent.family != "unknown" else ""
        system = shape.agent.os or ""
        agent = f"{family} on {system}" if family and system else family
        client = short(shape.client_name or shape.client or "", 32)
        name = " · ".join(dict.fromkeys(p for p in (agent, client) if p))
        if name:
            counts[name] = counts.get(name, 0) + 1
    named = sorted(counts, key=lambda n: (-counts[n], n))
    return ", ".join(named[:2]) + (f" and {len(named) - 2} more" if len(named) > 2 else "")


def _marks(groups: Sequence[_Group], axis: Axis, keys: set[str], evidence: Mapping[str, set[int]], apart: float) -> list[Lane]:
    lanes: list[Lane] = []
    for group in groups:
        lane = Lane(group.place, group.program, group.first, len(group.events), group.flagged)
        open_marks: dict[tuple[str, bool, bool], Mark] = {}
        for event in group.events:
            kind = mark_kind(event)
            numbers = evidence.get(event.id)
            aside = numbers is None and beside(event, keys)
            x = axis.x(event.time)
            mark = open_marks.get((kind, numbers is not None, aside))
            if mark is None or x - mark.x1 >= apart:
                mark = Mark(kind, x, x, event.time, event.time, 0, numbers is not None, aside, event=event.id)
                open_marks[kind, numbers is not None, aside] = mark
                lane.marks.append(mark)
            mark.count += 1
            mark.x1 = max(mark.x1, x)
            mark.last = event.time
            name = event.action.name if event.ok else f"{event.action.name} ({event.shape.error})"
            mark.actions[name] = mark.actions.get(name, 0) + 1
            mark.ids.add(event.actor.display or event.actor.id)
            if numbers is not None:
                mark.findings |= numbers
        _part(lane.marks)
        lanes.append(lane)
    return lanes


def _part(marks: list[Mark]) -> None:
    """Move marks of one row that would hide each other apart, by little."""
    ends = {True: -100.0, False: -100.0}
    for mark in sorted(marks, key=lambda m: (m.x0, m.first, m.kind)):
        row = mark.kind in LIFE_ROW
        width = 12.0 if mark.count > 1 or mark.flagged else 10.0
        if mark.x1 - mark.x0 <= 6:
            mark.shift = min(max(0.0, ends[row] + width - mark.x0), 15.0, WIDTH - MARGIN / 2 - mark.x0)
        ends[row] = max(ends[row], mark.x1 + mark.shift)


def _flags(findings: Sequence[tuple[int, int, str]], axis: Axis) -> list[Flag]:
    flags: list[Flag] = []
    for number, time, title in sorted(findings, key=lambda f: (f[1], f[0])):
        x = axis.x(time)
        line = f"finding {number}, {stamp(time, seconds=True)} UTC: {title}"
        if flags and x - flags[-1].x < 34:
            flags[-1].numbers.append(number)
            if len(flags[-1].numbers) <= 6:
                flags[-1].text += "\n" + line
        else:
            flags.append(Flag(x, [number], line))
    return flags
