"""Instance, pod or function credentials used outside that host's network."""

from __future__ import annotations

from msgspec import Struct

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import novelty, place, same_place, same_program, when, who
from aftergate.lineage.state import DAY_MS, Identity, Life, Mint
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Bit, Event, Origin, Severity, Shape
from aftergate.vocabulary.patterns import regex

_INSTANCE = regex(r"/i-[0-9a-f]{8,17}\Z")
# sessions of managed compute are named by the service, so the credential was handed out inside it
_FUNCTION = regex(r"(?:aws:ec2-instance|ecs-tasks|eks-pod-identity|AWSCodeBuild-|/eks-[\w-]+-[0-9a-f-]{36}\Z)")
_CLOUD_OF = {"aws": "aws", "gcp": "gcp"}
_AGENT_CHANNELS = frozenset({"ssmmessages", "ec2messages"})  # the management agent on the machine itself
_OUTSIDE = frozenset({"hosting", "vpn", "tor", "isp", "mobile", "relay"})
_POD = "system:serviceaccount:"
USUAL = 3  # other identities that make a network the organisation's way out


class Use(Struct):
    """First use of a host's credentials from one place."""

    time: int
    event: str
    origin: Origin
    agent: str


class _Doubt(Struct):
    """First use of an instance's credentials from another public address of its cloud."""

    host: str
    event: Event
    identity: Identity
    session: Life
    home: Use


class Detection(Rule):
    meta = Meta(
        slug="tok-host-creds-offhost",
        title="Machine credentials used off the machine",
        severity="high",
        about=(
            "A cloud machine, pod or function gets short-lived credentials from its metadata service. Used from a network that is not the "
            "machine's, they were taken from it. The machine itself often works on beside the thief."
        ),
        attack=("T1552.005", "T1550.001", "T1078.004"),
        nhi=("NHI2",),
        needs=(("origin.ip", "credential", "session"), ("origin.ip", "events")),
        traps=(
            "Calls by a service on the machine's behalf name the service instead of an address: never a place.",
            "NAT gateways, private endpoints and IPv6 beside IPv4: addresses of the same cloud count as the machine's own.",
            "Another address of the same cloud counts only where signs agree: program, country, services taken past the machine's endpoint.",
            "A central gateway that other identities use too.",
            "The management agent's own channels.",
        ),
        blind=("A thief inside the same cloud and country who uses the machine's own program looks like the machine.",),
        recommended=(
            "Deny this one session by aws:userid with an inline policy, or delete the pod",
            "Detach the instance profile, then revoke sessions of the role older than now",
            "Isolate and image the machine",
        ),
    )
    subscriptions = (on(sources=("aws.", "gcp."), bits=Bit.LIFE_IP | Bit.SESSION_NET | Bit.IDENTITY_IP | Bit.NEW_LIFE),)

    def wants(self, shape: Shape) -> bool:
        if shape.action.service in _AGENT_CHANNELS or shape.origin.ip is None:
            return False
        return shape.origin.known or shape.agent.kind != "service"

    def start(self) -> None:
        self.hosts: dict[str, dict[Origin, Use]] = {}
        self.doubts: list[_Doubt] = []
        self.calm: set[tuple[str, Origin]] = set()

    def step(self, event: Event, facts: Facts) -> None:
        origin = event.origin
        place = (event.session or event.shape.actor.id, origin)
        if place in self.calm:
            return
        host = _host_of(event, facts)
        if host is None:
            if facts.life is None or facts.life.mint is None:
                return
            if len(self.calm) > 200_000:
                self.calm.clear()
            self.calm.add(place)  # no host's session, wherever it is used from
            return
        held = self.hosts.setdefault(host, {})
        if origin in held:
            if self.book.get(self.meta.slug, f"{host}|{origin.net}") is None:
                self.calm.add(place)
            else:
                self._more(host, event, facts)
            return
        before = list(held.values())
        held[origin] = Use(event.time, event.id, origin, event.agent.family)
        if len(held) > 200:
            del held[next(iter(held))]
        cloud = _CLOUD_OF[event.source.partition(".")[0]]
        if not before:
            if _INSTANCE.search(host) and origin.known and origin.network in _OUTSIDE and not self._own(event, facts, origin):
                self._tell(host, event, facts, None, "medium")
            return
        inside = [u for u in before if _inside(u.origin, cloud)]
        if _inside(origin, cloud):
            outside = [u for u in before if u.origin.known and not _inside(u.origin, cloud) and u.origin.network != "unknown"]
            if not inside and outside and not self._own(event, facts, outside[0].origin):
                self._tell(host, event, facts, outside[0], "high")  # the thief was seen before the machine
            elif inside and origin.known and facts.session is not None and _INSTANCE.search(host) and len(self.doubts) < 10_000:
                if event.time - before[0].time >= DAY_MS and not self._own(event, facts, origin):
                    self.doubts.append(_Doubt(host, event, facts.identity, facts.session, inside[0]))
            return
        if any(same_place(origin, u.origin) for u in before) or self._own(event, facts, origin):
            return
        if not inside and not _INSTANCE.search(host):
            # never seen in this cloud: what its place is stays open, unless a cluster elsewhere had one for days
            if _POD in host and event.time - before[0].time >= DAY_MS and novelty((u.origin for u in before), origin)[0] >= 2:
                self._tell(host, event, facts, before[0], "high", away=origin)
            return
        if origin.known or (origin.network == "private" and origin.trustworthy and event.agent.family not in {u.agent for u in before}):
            home = inside[0] if inside else before[0]
            self._tell(host, event, facts, home, "high", away=origin)

    def finish(self) -> None:
        """Other addresses of the machine's own cloud: judged by all that was done from there."""
        for doubt in self.doubts:
            score, signs = _signs(doubt)
            if score < 3:
                continue
            event, home = doubt.event, doubt.home
            self.report(
                f"{doubt.host}|{event.origin.ip}",
                event,
                severity="high" if score >= 4 else "medium",
                narrative=(
                    f"Credentials of {doubt.host.rpartition('/')[2]} were used from {place(event.origin)} with {event.agent.family} "
                    f"from {when(event.time)} on; the machine is at {place(home.origin)} with {home.agent}. {'; '.join(signs)}."
                ),
                subject=subject_of(doubt.identity, event),
                evidence=[event.id, home.event],
            )

    def _own(self, event: Event, facts: Facts, origin: Origin) -> bool:
        """A way out the organisation is known to use."""
        if self.directory.egress_ok(event.actor.id, origin.ip):
            return True
        return origin.network != "private" and self.world.shared_net(origin.net, facts.identity) >= USUAL

    def _more(self, host: str, event: Event, facts: Facts) -> None:
        """A further credential of the host at a place already told: the same finding."""
        found = self.book.get(self.meta.slug, f"{host}|{event.origin.net}")
        if found is not None:
            self.report(
                f"{host}|{event.origin.net}",
                event,
                severity=found.severity,
                narrative=found.narrative,
                subject=subject_of(facts.identity, event),
            )

    def _tell(self, host: str, event: Event, facts: Facts, other: Use | None, severity: Severity, away: Origin | None = None) -> None:
        origin = event.origin
        name = host.rpartition("/")[2] or who(event)
        if other is None:
            told = f"Credentials of {name} were used from {place(origin)} with {event.agent.family}, which is no network of its cloud."
        elif away is not None:
            told = (
                f"Credentials of {name} were used from {place(origin)} with {event.agent.family}; until then they were used from "
                f"{place(other.origin)}. Somebody took them off the machine."
            )
        else:
            told = (
                f"Credentials of {name} were used from {place(other.origin)} with {other.agent}, and later from the machine's own network, "
                f"{place(origin)}. Somebody took them off the machine."
            )
        accused = origin if away is not None or other is None else other.origin
        self.report(
            f"{host}|{accused.net}",
            event,
            severity=severity,
            narrative=told,
            subject=subject_of(facts.identity, event),
            evidence=[event.id, other.event] if other is not None else [],
        )


def _inside(origin: Origin, cloud: str) -> bool:
    """Within the machine's cloud, or behind its private endpoints, as far as can be told."""
    if origin.provider is not None:
        return origin.provider == cloud or (cloud == "gcp" and origin.provider == "google")
    return origin.network in ("cloud", "service") or (origin.network == "private" and (cloud != "aws" or not origin.trustworthy))


def _signs(doubt: _Doubt) -> tuple[int, list[str]]:
    """How surely the other address is not the machine's: points, and what they are for."""
    event, origin = doubt.event, doubt.event.origin
    there = [shape for shape in doubt.session.uses if shape.origin is origin]
    home = [shape for shape, use in doubt.session.uses.items() if use.first < event.time and shape.origin.ip is not None]
    score = 0
    signs: list[str] = []
    if not any(same_program(a.agent, b.agent) for a in there for b in home):
        tool = any(shape.agent.kind == "tool" for shape in there)
        score += 2 if tool else 1
        signs.append("a program of attackers" if tool else "another program")
    if not any(shape.origin.known for shape in home):
        score += 1
        signs.append("until then only private addresses")
        inner = {shape.action.service for shape in home} | {s.action.service for s in doubt.session.uses if s.origin.network == "private"}
        # the token service has one worldwide address, which programs ask past a region's endpoint
        both = sorted({shape.action.service for shape in there} & inner - {"sts", "iam"})
        if both:
            score += 1
            signs.append(f"{', '.join(both)} asked past the private endpoint")
    countries = {shape.origin.country for shape in home if shape.origin.known}
    if origin.country and countries and None not in countries and origin.country not in countries:
        score += 2
        signs.append(f"never from {origin.country}")
    return score, signs


def _pod(mint: Event | Mint) -> str | None:
    """The cluster's service account whose token was exchanged for the role: each pod of it gets new sessions, and works where its cluster is."""
    account, detail = mint.shape.actor.id, mint.detail
    if not account.startswith(_POD):
        account = (detail.subject or "") if detail is not None else ""
    if not account.startswith(_POD):
        return None
    issuer = (detail.issuer or "") if detail is not None else ""
    return f"{issuer.rpartition('/')[2]}/{account}"


def _host_of(event: Event, facts: Facts) -> str | None:
    """The machine or attached account whose credentials these are, or None."""
    session = event.session
    if event.source.startswith("aws."):
        if session is None:
            return _pod(event) if event.d.grant == "web_identity" else None  # the pod's token is shown
        if _INSTANCE.search(session) or _FUNCTION.search(session):
            return session
        mint = facts.life.mint if facts.life is not None else None
        if mint is not None and event.credential is not None:
            giver = mint.shape.actor
            if giver.kind == "service":
                return session
            if mint.grant == "web_identity":
                return _pod(mint)
        return None
    if (
        event.source == "gcp.audit"
        and event.actor.kind == "workload"
        and event.credential is None
        and not event.d.act
        and not event.d.subject
    ):
        return event.actor.id  # attached account: no key was shown and nobody impersonated it
    return None
