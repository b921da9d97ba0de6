"""Judgements many detections share: one egress or two, strange place or not, enough history or not; and how to say it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from aftergate.events.clock import to_iso
from aftergate.lineage.state import DAY_MS, Identity, Life
from aftergate.lineage.tracking import World
from aftergate.vocabulary import Agent, Event, Origin
from aftergate.vocabulary.patterns import regex

RENTED = frozenset({"hosting", "vpn", "tor"})  # networks anybody can rent a place in
MACHINE = frozenset({"hosting", "vpn", "tor", "cloud"})
SHARED_BY = 3  # identities besides one's own that make a network the organisation's egress


def who(event: Event) -> str:
    """What to call the actor in a sentence."""
    actor = event.shape.actor
    if actor.display:
        return actor.display
    for name in (actor.id, *actor.names):
        if "@" in name:
            return name
    return actor.id.rpartition("/")[2] or actor.id


def when(ms: int) -> str:
    """`2026-03-02 08:00 UTC`."""
    return f"{to_iso(ms)[:16].replace('T', ' ')} UTC"


def span(ms: int) -> str:
    """`45 seconds`, `12 minutes`, `3 hours`, `9 days`."""
    for size, unit in ((DAY_MS, "day"), (3_600_000, "hour"), (60_000, "minute"), (1000, "second")):
        if abs(ms) >= size:
            count = round(abs(ms) / size)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "less than a second"


def place(origin: Origin) -> str:
    """`203.0.113.9 (Hetzner, DE, hosting)`; says only what is known."""
    if origin.ip is None:
        return origin.net.removeprefix("service:") if origin.net.startswith("service:") else "an unknown place"
    known = [origin.asn_name or origin.provider or (origin.net if origin.asn else ""), origin.country or ""]
    if origin.network not in ("unknown", "isp"):
        known.append(origin.network)
    said = ", ".join(dict.fromkeys(k for k in known if k))
    return f"{origin.ip} ({said})" if said else origin.ip


def same_place(a: Origin, b: Origin) -> bool:
    """True when two origins can be one egress: same network or prefix, the same cloud or hoster, dual stack of one ASN, both private."""
    if a is b or a.net == b.net:
        return True
    if a.network == b.network == "private":
        return True
    if a.asn is not None and a.asn == b.asn:
        return True
    if a.provider is not None and a.provider == b.provider:
        return True
    # one source names the AS number of an address and another does not: then the address decides
    return a.ip is not None and b.ip is not None and (a.asn is None or b.asn is None) and a.site == b.site


def prefix_of(ip: str) -> str:
    """The first three parts of an IPv4 or IPv6 address: what one site holds."""
    mark = ":" if ":" in ip else "."
    return mark.join(ip.split(mark)[:3])


def org_egress(world: World, origin: Origin, beside: Identity | None = None) -> bool:
    """True for a network that several other identities of the organisation use: office, gateway, common cloud region."""
    return world.shared_net(origin.net, beside) >= SHARED_BY


class Strangeness(NamedTuple):
    """How strange an origin is for an identity, and why."""

    score: int  # 0 nothing new; 1 new address only; 2 new network; 3 and more: new network and more beside
    reasons: tuple[str, ...] = ()


def strangeness(world: World, identity: Identity, event: Event) -> Strangeness:
    """Compare an event's origin and program with what its identity did before this event.

    Untrustworthy or unknown origins score 0. Look-ups count only what was first seen before the event, so it does not matter that tracking has
    entered the event already.
    """
    origin = event.origin
    if not origin.known:
        return Strangeness(0)
    now = event.time
    first = identity.net_first.get(origin.net)
    reasons: list[str] = []
    if first is not None and first < now:
        return Strangeness(0)
    if any(same_place(origin, other) for other, first_seen in identity.places.items() if first_seen < now and other.known):
        return Strangeness(1, ("new address in a known network",))
    reasons.append(f"never seen from {origin.asn_name or origin.net} before")
    score = 2
    if org_egress(world, origin, identity):
        return Strangeness(1, ("new network, which the organisation uses",))
    if origin.network in RENTED:
        score += 1
        reasons.append(f"a {origin.network} network")
    seen = identity.countries.get(origin.country) if origin.country else None
    if origin.country and identity.countries and (seen is None or seen >= now) and any(t < now for t in identity.countries.values()):
        score += 1
        reasons.append(f"never from {origin.country}")
    used = identity.agents.get(event.agent.family)
    if event.agent.family != "unknown" and (used is None or used >= now):
        score += 1
        reasons.append(f"never with {event.agent.family}")
    return Strangeness(score, tuple(reasons))


def established(identity: Identity, now: int, *, days: float = 2.0, events: int = 10) -> bool:
    """True when there is enough history to call something new. A new deployment, tenant or person has none."""
    return identity.count > events and identity.days_seen(now) >= days


def life_established(life: Life, now: int, *, days: float = 1.0, events: int = 5) -> bool:
    return life.count > events and now - life.first >= days * DAY_MS


def human_like(event: Event) -> bool:
    """True when a person's program made the call: browser, shell or command line."""
    return event.agent.kind in ("browser", "cli")


# Logs whose session is one login of one person. An AWS role session name or a pod lives on over many logins.
SESSION_SOURCES = ("okta", "entra.", "graph.", "m365.", "keycloak", "auth0", "oauth.", "google.")
SCRIPTS = frozenset({"http_library", "headless", "cli", "sdk", "tool"})


def same_program(a: Agent, b: Agent) -> bool:
    """True unless two known programs differ in family or operating system. Versions do not count: browsers update."""
    if a.family != "unknown" and b.family != "unknown" and a.family != b.family:
        return False
    return a.os is None or b.os is None or a.os == b.os


SCRIPTED = frozenset({"http_library", "headless", "tool"})  # agent kinds that no person's own program has
NONHUMAN = frozenset({"workload", "third_party_app", "agent"})
_MACHINE_NAME = regex(
    r"(?:^|[^a-z])(?:svc|srv|service|serviceaccount|bot|robot|daemon|cron|batch|automation|pipeline|deploy(?:er)?|runner|sync|importer?|exporter?|"
    r"backup|agent|api|integration|provision(?:ing|er)?|connector|scanner|monitor(?:ing)?|etl|ci|cd)(?:[^a-z]|$)"
)


def ours(world: World, origin: Origin, beside: Identity | None = None) -> bool:
    """True for the organisation's own way out. In networks that anybody can rent, it takes more users to believe it."""
    return world.shared_net(origin.net, beside) >= (2 * SHARED_BY if origin.network in RENTED else SHARED_BY)


def homes(holder: Life | Identity, now: int) -> list[Origin]:
    """Known origins that were in use before `now`."""
    if isinstance(holder, Identity):
        return [origin for origin, first in holder.places.items() if first < now and origin.known]
    return list({shape.origin: None for shape, use in holder.uses.items() if use.first < now and shape.origin.known})


def novelty(before: Iterable[Origin], origin: Origin) -> tuple[int, tuple[str, ...]]:
    """Evidence that an origin is another place than all `before`: points and reasons. Two points are telling; what is unknown gives none."""
    known = [home for home in before if home.known]
    if not origin.known or not known or any(same_place(origin, home) for home in known):
        return 0, ()
    points = 0
    reasons: list[str] = []
    networks = {home.network for home in known}
    if origin.network in RENTED:
        if not networks & RENTED:
            points += 2
            reasons.append(f"a {origin.network} network, never one before")
    elif origin.network in ("isp", "mobile") and networks <= MACHINE:
        points += 2
        reasons.append("a person's access line, until now only data centres")
    elif origin.provider is not None and all(home.provider is not None for home in known):
        points += 1
        reasons.append("another provider")
    elif origin.asn is not None and all(home.asn is not None for home in known):
        points += 1
        reasons.append("another network")
    countries = {home.country for home in known if home.country}
    if origin.country and countries and origin.country not in countries and origin.network != "cloud":
        points += 1
        reasons.append(f"never from {origin.country}")
    return points, tuple(reasons)


def agent_new(agents: dict[str, int], event: Event) -> bool:
    """True for a program that this identity has not used before this event; an unnamed program is no evidence."""
    first = agents.get(event.agent.family)
    return (
        event.agent.family != "unknown"
        and bool(agents)
        and (first is None or first >= event.time)
        and any(t < event.time for t in agents.values())
    )


def machine_named(identity: Identity) -> bool:
    """True when one of its names says service, bot, pipeline or the like."""
    return _machine(identity.id) or any(_machine(name) for name in identity.names)


@lru_cache(maxsize=50_000)
def _machine(name: str) -> bool:
    return bool(_MACHINE_NAME.search(name.lower().partition("@")[0]))


def nonhuman(identity: Identity, event: Event) -> bool:
    """True for workloads, apps and agents, and for accounts of people's kind that are named and used as machines."""
    kind = event.actor.kind
    if kind in NONHUMAN:
        return True
    if kind not in ("human", "unknown") or not machine_named(identity):
        return False
    return not any(
        shape.agent.kind in ("browser", "mobile_app", "desktop_app") for shape, use in identity.uses.items() if use.first < event.time
    )


def test_named(*names: str | None) -> bool:
    """True when a name says that this is not production."""
    return any(name and _TEST_NAME.search(name.lower()) for name in names)


_TEST_NAME = regex(
    r"(?:^|[^a-z])(?:dev|develop|development|test|testing|tests|sandbox|staging|stage|playground|demo|qa|lab|nonprod|preview)(?:[^a-z]|$)"
)
