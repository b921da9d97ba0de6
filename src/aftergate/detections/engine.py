"""Calls each detection for what it subscribes to, and for nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from aftergate.detections.api import Book, Directory, Rule, catalogue
from aftergate.lineage.tracking import World
from aftergate.vocabulary import Action, Event, Shape


class Route:
    """Whom to call for events of one shape."""

    __slots__ = ("always", "chosen", "some", "union")

    def __init__(self, always: list[Rule], some: list[tuple[int, Rule]]) -> None:
        self.always = always
        self.some = some  # called on bits
        self.union = 0  # all those bits
        for bits, _ in some:
            self.union |= bits
        self.chosen: dict[int, list[Rule]] = {}  # whom each mask met so far calls

    def called(self, mask: int) -> list[Rule]:
        """Whom this mask calls, of those called on bits."""
        found = self.chosen.get(mask)
        if found is None:
            found = self.chosen[mask] = [rule for bits, rule in self.some if mask & bits]
        return found


class Engine:
    """World, book and rules of one run."""

    def __init__(self, directory: Directory | None = None, only: Iterable[str] | None = None) -> None:
        self.world = World()
        self.book = Book()
        chosen = set(only) if only is not None else None
        self.rules: list[Rule] = [
            rule(self.world, self.book, directory) for slug, rule in catalogue().items() if chosen is None or slug in chosen
        ]
        self._routes: dict[Shape, Route] = {}
        self._by_action: dict[Action, list[tuple[Rule, int]]] = {}  # rules that may judge an action, 0: every event of it
        self._same: dict[tuple[int, ...], Route] = {}

    def _of_action(self, action: Action) -> list[tuple[Rule, int]]:
        chosen: list[tuple[Rule, int]] = []
        for rule in self.rules:
            bits = 0
            every = False
            for wanted in rule.subscriptions:
                if wanted.chooses(action):
                    bits |= int(wanted.bits)
                    every = every or not wanted.bits
            if every or bits:
                chosen.append((rule, 0 if every else bits))
        self._by_action[action] = chosen
        return chosen

    def _route(self, shape: Shape) -> Route:
        """Whom to call for a shape. Shapes alike share one route."""
        rules = self._by_action.get(shape.action)
        if rules is None:
            rules = self._of_action(shape.action)
        kept = [(rule, bits) for rule, bits in rules if rule.wants(shape)]
        key = (id(rules), *[id(rule) for rule, _ in kept])
        made = self._same.get(key)
        if made is None:
            made = self._same[key] = Route([rule for rule, bits in kept if not bits], [(bits, rule) for rule, bits in kept if bits])
        self._routes[shape] = made
        return made

    def feed(self, events: list[Event]) -> None:
        """Track and judge events, which come in order."""
        routes = self._routes
        world = self.world
        for event in events:
            facts = world.step(event)
            shape = event.shape
            route = routes.get(shape)
            if route is None:
                route = self._route(shape)
            for rule in route.always:
                rule.step(event, facts)
            mask = facts.mask & route.union
            if mask:
                for rule in route.called(mask):
                    rule.step(event, facts)
            life = facts.life
            if life is not None and life.watch is not None:
                for watch in life.watch:
                    watch(event, facts)

    def finish(self) -> None:
        self.world.settle()
        for rule in self.rules:
            rule.finish()
