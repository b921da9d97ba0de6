"""Calls each detection for what it subscribes to, and for nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aftergate.detections.api import Book, Directory, Rule, catalogue
from aftergate.lineage.tracking import Facts, World
from aftergate.vocabulary import Action, Event, Shape

Step = Callable[[Event, Facts], None]
# called for every event; called on bits; all those bits; whom each mask met so far calls
Route = tuple[tuple[Step, ...], tuple[tuple[int, Step], ...], int, dict[int, tuple[Step, ...]]]


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
        key = (id(rules), *(id(rule) for rule, _ in kept))
        made = self._same.get(key)
        if made is None:
            always = tuple(rule.step for rule, bits in kept if not bits)
            some = tuple((bits, rule.step) for rule, bits in kept if bits)
            union = 0
            for bits, _ in some:
                union |= bits
            made = self._same[key] = (always, some, union, {})
        self._routes[shape] = made
        return made

    def feed(self, events: Iterable[Event]) -> None:
        """Track and judge events, which come in order."""
        routes = self._routes
        track = self.world.step
        for event in events:
            facts = track(event)
            route = routes.get(event.shape) or self._route(event.shape)
            always, some, union, chosen = route
            for step in always:
                step(event, facts)
            mask = facts.mask & union
            if mask:
                steps = chosen.get(mask)
                if steps is None:
                    steps = chosen[mask] = tuple(step for bits, step in some if mask & bits)
                for step in steps:
                    step(event, facts)
            life = facts.life
            if life is not None and life.watch is not None:
                for step in life.watch:
                    step(event, facts)

    def finish(self) -> None:
        self.world.settle()
        for rule in self.rules:
            rule.finish()
