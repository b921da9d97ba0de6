"""One object for each distinct value within a run: actions, actors, origins, agents, shapes.

Normalisers get one Interner and ask it for everything that recurs; secrets that a log let slip into it are masked here. Comparing interned objects is comparing identity, so
tracking decides "new or not" with a few set look-ups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aftergate.events.agents import classify_agent
from aftergate.events.enrich import Enricher
from aftergate.events.redact import redact_id
from aftergate.vocabulary import NO_AGENT, NO_ORIGIN, REGISTERED_TAGS, UNREGISTERED, Action, Actor, Agent, Kind, Origin, Shape, Tag


class Interner:
    """Caches of shared values. Not thread safe: one for each process."""

    def __init__(self, enrich: Enricher | None = None) -> None:
        self.enrich = enrich if enrich is not None else Enricher()
        self._actions: dict[tuple[str, str], Action] = {}
        self._actors: dict[tuple[object, ...], Actor] = {}
        self._origins: dict[tuple[object, ...], Origin] = {}
        self._agents: dict[str, Agent] = {"": NO_AGENT}
        self._shapes: dict[tuple[object, ...], Shape] = {}

    def action(self, source: str, name: str, make: Callable[[str], tuple[Kind, str, str, Iterable[Tag]]]) -> Action:
        """The Action of an operation name. `make(name)` is asked once: (kind, service, verb family, tags)."""
        key = (source, name)
        found = self._actions.get(key)
        if found is None:
            kind, service, verb, tags = make(name)
            held = frozenset(tags)
            registers = kind not in UNREGISTERED or bool(held & REGISTERED_TAGS)
            service = redact_id(service)
            found = self._actions[key] = Action(source, redact_id(name), kind, service, f"{service}:{verb}", held, registers)
        return found

    def actor(
        self,
        id: str,  # noqa: A002  (the field's name)
        names: tuple[str, ...] = (),
        kind: str = "unknown",
        account: str | None = None,
        display: str | None = None,
        role: str | None = None,
        first_party: bool = False,
    ) -> Actor:
        key = (id, names, kind, account, display, role, first_party)
        found = self._actors.get(key)
        if found is None:
            names = tuple(map(redact_id, names))
            found = self._actors[key] = Actor(
                redact_id(id), names, kind, account, redact_id(display) if display else display, role, first_party
            )
        return found

    def origin(
        self,
        ip: str | None,
        asn: int | None = None,
        country: str | None = None,
        asn_name: str | None = None,
        proxy: bool = False,
        trustworthy: bool = True,
    ) -> Origin:
        """The Origin of an address, with what the log itself says of it. None, "" or a name that is no address: see Enricher."""
        if not ip:
            return NO_ORIGIN
        key = (ip, asn, country, asn_name, proxy, trustworthy)
        found = self._origins.get(key)
        if found is None:
            found = self._origins[key] = self.enrich.origin(ip, asn, country, asn_name, proxy, trustworthy)
        return found

    def agent(self, raw: str | None) -> Agent:
        found = self._agents.get(raw or "")
        if found is None:
            found = self._agents[raw or ""] = classify_agent(redact_id(raw or ""))
        return found

    def shape(
        self,
        source: str,
        action: Action,
        actor: Actor,
        origin: Origin = NO_ORIGIN,
        agent: Agent = NO_AGENT,
        error: str | None = None,
        client: str | None = None,
        client_name: str | None = None,
        resource: str | None = None,
        device: str | None = None,
        silent: str | None = None,
        account: str | None = None,
    ) -> Shape:
        key = (source, action, actor, origin, agent, error, client, client_name, resource, device, silent, account)
        found = self._shapes.get(key)
        if found is None:
            error, client, client_name, resource, device = [
                redact_id(t) if t else t for t in (error, client, client_name, resource, device)
            ]
            found = self._shapes[key] = Shape(
                source, action, actor, origin, agent, error, client, client_name, resource, device, silent, account
            )
        return found
