"""One token, key or session is used in turn from two places that cannot be one egress."""

from __future__ import annotations

from msgspec import Struct

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import MACHINE, RENTED, SESSION_SOURCES, place, same_place, same_program, span, who
from aftergate.lineage.state import DAY_MS, HOUR_MS, Life
from aftergate.lineage.tracking import B_SESSION_SWITCH, B_SWITCH, Facts
from aftergate.vocabulary import Agent, Bit, Event, Origin, Severity, Shape

WINDOW_MS = 12 * HOUR_MS  # A, B and A again must fit into this
_RELAYS = frozenset({"proxy", "relay", "vendor"})
_ROAMING = frozenset({"mobile", "relay", "proxy"})
_STATIC = frozenset({"api_key", "client_secret", "certificate", "pat"})


class Visit(Struct):
    """A run of uses from one place, between two changes of place."""

    start: int
    end: int
    origin: Origin
    agents: set[Agent]
    event: str
    device: str | None
    new: bool  # the identity's network was not known a day before


class Detection(Rule):
    meta = Meta(
        slug="tok-concurrent-origins",
        title="One credential used from two places in turn",
        severity="high",
        about=(
            "A token, key or session that is used here, there and here again within hours is in two hands: its owner goes on while somebody with a "
            "copy works beside him. A single change of place is travel and does not count."
        ),
        attack=("T1550.001", "T1550.004", "T1539"),
        nhi=("NHI2",),
        needs=(("origin.ip", "credential"), ("origin.ip", "session")),
        traps=(
            "Both address families of one line, pools of one gateway or cloud, and networks many of the organisation's identities use are one egress.",
            "Company gateways and privacy relays beside a home line: they need other signs too.",
            "A CI run that hands its session to a second stage inside the cloud.",
            "One device id in both places: a person who switches a tunnel on and off. Turns minutes apart with a new hosting network abroad are no switching.",
            "Services that call on somebody's behalf, the vendor's own back ends and its cloud shell.",
            "A pair of networks the same identity has used for days: habit.",
        ),
        blind=("A thief behind the same gateway, or in the same cloud as the workload, is not told apart.",),
        recommended=(
            "Revoke this token or session",
            "Ask the owner which of the two places is theirs",
            "Review what was done from the other place",
        ),
    )
    subscriptions = (on(bits=Bit.SWITCH | Bit.SESSION_SWITCH),)

    def wants(self, shape: Shape) -> bool:
        return shape.origin.known and not shape.actor.first_party and not _of_vendor(shape)

    def start(self) -> None:
        self.visits: dict[str, list[Visit]] = {}
        self.judged: dict[tuple[str, str, Agent, str | None], int] = {}

    def step(self, event: Event, facts: Facts) -> None:
        if facts.identity.actor.first_party:
            return
        if facts.mask & B_SWITCH and facts.life is not None and _joins(event, facts.life):
            self._visit(event, facts, facts.life, facts.previous.origin if facts.previous is not None else None)
        session = facts.session
        if session is not None and session is not facts.life and facts.mask & B_SESSION_SWITCH and event.source.startswith(SESSION_SOURCES):
            before = facts.session_previous
            self._visit(event, facts, session, before.origin if before is not None else None)

    def _visit(self, event: Event, facts: Facts, life: Life, previous: Origin | None) -> None:
        visits = self.visits.get(life.id)
        now = event.time
        origin = event.origin
        if visits is None:
            visits = self.visits[life.id] = self._past(event, facts, life, previous)
        last = visits[-1] if visits else None
        if last is not None and same_place(last.origin, origin):
            last.end = now
            last.agents.add(event.agent)
            return
        first = facts.identity.net_first.get(origin.net)
        made = Visit(now, now, origin, {event.agent}, event.id, event.shape.device, first is None or first > now - DAY_MS)
        visits.append(made)
        if len(visits) > 24:
            del visits[1:9]
        # without a new or a rented place among them no score reaches the line
        if len(visits) >= 3 and any(v.new or v.origin.network in RENTED for v in visits):
            # a life that wanders between the same places is judged some times, and again when its program or device changes
            memo = (life.id, origin.net, event.shape.agent, event.shape.device)
            seen = self.judged.get(memo, 0)
            if seen < 6:
                self.judged[memo] = seen + 1
                self._judge(event, facts, life, visits)

    def _past(self, event: Event, facts: Facts, life: Life, previous: Origin | None) -> list[Visit]:
        """The places of this life before its first change, from what tracking kept."""
        if previous is None or not previous.known:
            return []
        agents = {shape.agent for shape in life.uses if shape.origin is previous}
        ends = [use.last for shape, use in life.uses.items() if shape.origin is previous]
        devices = [shape.device for shape in life.uses if shape.origin is previous and shape.device is not None]
        first = facts.identity.net_first.get(previous.net, life.first)
        return [
            Visit(
                life.first,
                max(ends, default=life.first),
                previous,
                agents or {event.agent},
                life.first_event,
                devices[0] if devices else None,
                first > event.time - DAY_MS,
            )
        ]

    def _judge(self, event: Event, facts: Facts, life: Life, visits: list[Visit]) -> None:
        back = visits[-1]
        for index in range(len(visits) - 2, 0, -1):
            other = visits[index]
            if same_place(other.origin, back.origin):
                continue
            home = next((v for v in reversed(visits[:index]) if same_place(v.origin, back.origin)), None)
            if home is None or back.start - home.end > WINDOW_MS:
                continue
            guest, host = _guest(other, back, facts)
            guests = [v for v in visits if same_place(v.origin, guest.origin)]
            score, signs = self._score(event, facts, life, guests, guest, [v for v in visits if same_place(v.origin, host.origin)])
            if score >= 3:
                self._tell(event, facts, life, visits, guest, host, score, signs)
            return

    def _score(
        self, event: Event, facts: Facts, life: Life, guests: list[Visit], guest: Visit, hosts: list[Visit]
    ) -> tuple[int, list[str]]:
        """How surely the guest is somebody else: points, and what they are for."""
        world, identity = self.world, facts.identity
        host = hosts[-1]
        score = 0
        signs: list[str] = []
        human = identity.kind == "human" or life.is_session
        if guest.origin.network in RENTED:
            score += 2
            signs.append(f"a {guest.origin.network} network")
        elif guest.origin.network in _RELAYS or (guest.origin.network == "cloud" and not human):
            score -= 1
        if guest.origin.country and host.origin.country and guest.origin.country != host.origin.country:
            score += 1
            signs.append("another country")
        if not any(same_program(x, y) for x in guest.agents for v in hosts for y in v.agents):
            score += 2
            signs.append("another program or system")
        elif guest.device is not None and host.device is not None:
            if guest.device != host.device:
                score += 2
                signs.append("another device")
            elif event.source == "okta":
                # measured in the browser; elsewhere the device is a claim of the token and is stolen with it
                if guest.new and guest.origin.network == "hosting" and _in_turn(guests, hosts):
                    score -= 1  # nobody switches a tunnel so often, but a full copy of the profile shows the same device
                    signs.append("turn by turn, though under one device id")
                else:
                    score -= 3
        roaming = life.is_session or {guest.origin.network, host.origin.network} & _ROAMING  # a phone changes networks within the hour
        if not roaming and len(hosts) >= 2 and hosts[-1].start - hosts[-2].end < HOUR_MS:
            score += 1
            signs.append("changes within the hour")
        began_with = identity.net_first.get(guest.origin.net, guest.start) - identity.first < DAY_MS  # then nothing is known to be new
        if guest.new and not began_with:
            score += 1
            signs.append("a network new for the identity")
        elif not guest.new:
            score -= 2
        if life.mint is not None and life.mint.detail is not None and life.mint.detail.run is not None:
            score -= 2  # runners roam and hand their session to a second stage
        if life.mint is not None and life.mint.klass in _STATIC and not human:
            score -= 1  # a key in two places of a fleet is no theft by itself
        if world.shared_net(guest.origin.net, identity) >= 3 or self.directory.egress_ok(identity.id, guest.origin.ip):
            score -= 3
        elif host.origin.network in MACHINE and guest.origin.network not in MACHINE and human:
            score -= 1  # work in a rented machine, seen from home: which is the guest stays open
        if _dual_stack(guest.origin, host.origin):
            score -= 2
        return score, signs

    def _tell(
        self, event: Event, facts: Facts, life: Life, visits: list[Visit], guest: Visit, host: Visit, score: int, signs: list[str]
    ) -> None:
        severity: Severity = "high" if score >= 4 or guest.origin.network in RENTED else "medium"
        guests = [v for v in visits if same_place(v.origin, guest.origin)]
        hosts = [v for v in visits if same_place(v.origin, host.origin)]
        what = "session" if life.is_session else "credential"
        owner = event.session if event.session is not None and event.source.startswith(SESSION_SOURCES) else life.id
        self.report(
            f"{owner}|{guest.origin.net}",
            event,
            severity=severity,
            narrative=(
                f"The {what} of {who(event)} was used in turn from {place(host.origin)} and from {place(guest.origin)}, "
                f"{len(visits) - 1} changes within {span(visits[-1].end - visits[0].start)}; {', '.join(signs)}."
            ),
            subject=subject_of(facts.identity, event, lives=[life]),
            evidence=[*(v.event for v in guests), *(v.event for v in hosts[1:])],
        )


def _guest(a: Visit, b: Visit, facts: Facts) -> tuple[Visit, Visit]:
    """The two with that first which looks less like the owner's place: rented, new, or else less used."""
    left, right = ((v.origin.network in RENTED, v.new) for v in (a, b))
    if left == right:
        used = [0, 0]
        near = [{o for o in facts.identity.places if same_place(o, visit.origin)} for visit in (a, b)]
        for shape, use in facts.identity.uses.items():
            if shape.origin in near[0]:
                used[0] += use.count
            if shape.origin in near[1]:
                used[1] += use.count
        left, right = (False, used[0] <= used[1]), (False, used[0] > used[1])
    return (a, b) if left >= right else (b, a)


def _in_turn(guests: list[Visit], hosts: list[Visit]) -> bool:
    """Three returns to either place within a few hours: two who work at once, not one who moves."""
    if len(guests) < 3 or len(hosts) < 3:
        return False
    return max(guests[-1].end, hosts[-1].end) - min(guests[-3].start, hosts[-3].end) < 3 * HOUR_MS


def _joins(event: Event, life: Life) -> bool:
    """True where the id is one login or one credential. A role session's name or a role is not."""
    return not life.is_session or event.source.startswith(SESSION_SOURCES)


def _of_vendor(shape: Shape) -> bool:
    """Calls by the vendor for somebody: cloud shell, console back ends, first-party clients that refresh from the vendor's network."""
    agent, origin = shape.agent, shape.origin
    if "CloudShell" in agent.raw or agent.kind == "service":
        return True
    if agent.family == "aws-console" and origin.provider == "aws":
        return True
    return origin.provider == "azure" and shape.source.startswith(("entra.", "graph.", "m365."))


def _dual_stack(a: Origin, b: Origin) -> bool:
    """One address of each family and nothing that tells their networks apart."""
    return a.ip is not None and b.ip is not None and (":" in a.ip) != (":" in b.ip) and (a.asn is None or b.asn is None)
