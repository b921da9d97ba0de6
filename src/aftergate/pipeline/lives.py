"""The events of chosen credentials, sessions and identities, gathered in order: what a timeline and a report draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct, field

from aftergate.lineage.tracking import World, plain
from aftergate.pipeline.scan import Options, ordered
from aftergate.vocabulary import Event

KEEP = 2_000  # events of one story; of a busier one every second, fourth, eighth ... is kept, so that what is kept spans all of it


class Story(Struct):
    """Events of one story, in order."""

    events: list[Event] = field(default_factory=list)
    left_out: int = 0
    every: int = 1  # one in how many ordinary events is kept
    seen: int = 0  # ordinary events so far

    def add(self, event: Event, important: frozenset[str]) -> None:
        """Keep an event: always if important, else as `every` says."""
        if event.id not in important:
            self.seen += 1
            if self.seen % self.every:
                self.left_out += 1
                return
        self.events.append(event)
        if len(self.events) > KEEP:
            self._thin(important)

    def _thin(self, important: frozenset[str]) -> None:
        kept: list[Event] = []
        ordinary = 0
        for event in self.events:
            if event.id not in important:
                ordinary += 1
                if ordinary % 2 == 0:
                    continue
            kept.append(event)
        if ordinary > KEEP // 4:  # else nearly all is important, and stays
            self.left_out += len(self.events) - len(kept)
            self.events = kept
            self.every *= 2


def kin(world: World, names: Iterable[str]) -> set[str]:
    """The given credential and session ids with their ancestors and direct children: one family."""
    names = list(names)
    chosen = {n for n in names if n in world.lives}
    for name in names:
        issued = world.unused.get(name)
        if issued is not None:
            chosen.add(name)
            chosen.update(n for n in (issued.parent, issued.session) if n is not None and n in world.lives)
    for name in [n for n in chosen if n in world.lives]:
        life = world.lives[name]
        seen = {name}
        while life.mint is not None:
            parent = life.mint.parent or life.mint.session
            if parent is None or parent in seen or parent not in world.lives:
                break
            seen.add(parent)
            life = world.lives[parent]
        chosen |= seen
    for name, life in world.lives.items():
        if life.mint is not None and (life.mint.parent in chosen) and len(chosen) < 5_000:
            chosen.add(name)
    return chosen


def gather(options: Options, wanted: Mapping[str, tuple[set[str], set[str]]], important: frozenset[str] = frozenset()) -> dict[str, Story]:
    """Read the inputs again and gather, per story, the events of its keys (credentials and sessions) and of its identities.

    `wanted` maps a story to (credential and session ids, identity names). Inputs that cannot be read twice (standard input) give nothing.
    """
    stories = {name: Story() for name in wanted}
    by_key: dict[str, list[Story]] = {}
    by_name: dict[str, list[Story]] = {}
    for name, (keys, identities) in wanted.items():
        for key in keys:
            by_key.setdefault(key, []).append(stories[name])
        for identity in identities:
            by_name.setdefault(plain(identity), []).append(stories[name])
    nobody: list[Story] = []
    for batch in ordered(options):
        for event in batch:
            found: list[Story] = []
            for used in (event.credential, event.session):
                if used is not None:
                    found += by_key.get(used, nobody)
            if by_name:
                actor = event.shape.actor
                found += by_name.get(plain(actor.id), nobody)
                for other in actor.names:
                    if other != actor.role:
                        found += by_name.get(plain(other), nobody)
            for key in event.mints:
                found += by_key.get(key, nobody)
            detail = event.detail
            if detail is not None:
                if detail.spent is not None:
                    found += by_key.get(detail.spent, nobody)
                for target in detail.targets:
                    found += by_key.get(target.id, nobody)
            done: list[Story] = []
            for story in found:
                if not any(story is other for other in done):
                    done.append(story)
                    story.add(event, important)
    return stories
