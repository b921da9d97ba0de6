"""Calls each detection for what it subscribes to, and for nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aftergate.detections.api import Book, Directory, Rule, catalogue
from aftergate.lineage.tracking import Facts, World
from aftergate.vocabulary import Action, Event

Step = Callable[[Event, Facts], None]


class Engine:
    """World, book and rules of one run."""

    def __init__(self, directory: Directory | None = None, only: Iterable[str] | None = None) -> None:
        self.world = World()
        self.book = Book()
        chosen = set(only) if only is not None else None
        self.rules: list[Rule] = [
            rule(self.world, self.book, directory) for slug, rule in catalogue().items() if chosen is None or slug in chosen
        ]
        self._routes: dict[Action, tuple[tuple[Step, ...], tuple[tuple[int, Step], ...], int]] = {}

    def _route(self, action: Action) -> tuple[tuple[Step, ...], tuple[tuple[int, Step], ...], int]:
        always: list[Step] = []
        some: list[tuple[int, Step]] = []
        union = 0
        for rule in self.rules:
            bits = 0
            every = False
            for wanted in rule.subscriptions:
                if wanted.chooses(action):
                    if wanted.bits:
                        bits |= int(wanted.bits)
                    else:
                        every = True
            if every:
                always.append(rule.step)
            elif bits:
                some.append((bits, rule.step))
                union |= bits
        made = self._routes[action] = (tuple(always), tuple(some), union)
        return made

    def feed(self, events: Iterable[Event]) -> None:
        """Track and judge events, which come in order."""
        routes = self._routes
        track = self.world.step
        for event in events:
            facts = track(event)
            action = event.shape.action
            route = routes.get(action)
            if route is None:
                route = self._route(action)
            always, some, union = route
            for step in always:
                step(event, facts)
            mask = facts.mask
            if mask & union:
                for bits, step in some:
                    if mask & bits:
                        step(event, facts)

    def finish(self) -> None:
        self.world.settle()
        for rule in self.rules:
            rule.finish()
