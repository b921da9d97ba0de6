"""Events travel between processes without loss, and what is equal in two of them is one object in the third."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from samples import samples

from aftergate.events.enrich import Enricher
from aftergate.events.interning import Interner
from aftergate.events.wire import Packer, Unpacker
from aftergate.pipeline.normalising import Normalising
from aftergate.vocabulary import Event


def events() -> list[Event]:
    """Of every source."""
    normalising = Normalising(Interner(Enricher(tables=False)))
    found: list[Event] = []
    for lines in samples().values():
        normalising.run(lines, found)
    return found


def told(event: Event) -> tuple[str, ...]:
    """The same with sets in order."""
    action = event.shape.action
    rest = (
        event.fields() | {"shape": None},
        event.shape.fields() | {"action": None},
        action.fields() | {"tags": None},
    )
    return (*map(repr, rest), *sorted(action.tags))


def test_every_field_arrives() -> None:
    """Batch after batch, the later ones leaning on the earlier."""
    packer, unpacker = Packer(), Unpacker(Interner(Enricher(tables=False)))
    sent = events()
    arrived: list[Event] = []
    for at in range(0, len(sent), 100):
        arrived += unpacker.unpack(packer.pack(sent[at : at + 100]))
    assert len(sent) > 1000
    assert [told(event) for event in arrived] == [told(event) for event in sent]


def test_numbers_that_begin_again() -> None:
    """A long stream keeps only so many values in memory."""
    packer, unpacker = Packer(keep=20), Unpacker(Interner(Enricher(tables=False)))
    sent = events()
    for _ in range(2):
        arrived = [event for at in range(0, len(sent), 30) for event in unpacker.unpack(packer.pack(sent[at : at + 30]))]
        assert [told(event) for event in arrived] == [told(event) for event in sent]


def test_what_recurs_is_one_object_whoever_sent_it() -> None:
    intern, pool = Interner(Enricher(tables=False)), {}
    first = Unpacker(intern, pool).unpack(Packer().pack(events()))
    second = Unpacker(intern, pool).unpack(Packer().pack(events()[::-1]))[::-1]
    for a, b in zip(first, second, strict=True):
        assert a.shape is b.shape
        assert a.shape.action is b.shape.action
        assert a.shape.actor is b.shape.actor
        assert a.shape.origin is b.shape.origin
        assert a.shape.agent is b.shape.agent


def test_what_was_sent_is_not_sent_again() -> None:
    packer = Packer()
    sent = events()
    first, second = len(packer.pack(sent)), len(packer.pack(sent))
    assert second < first * 0.8


def test_nothing_is_a_batch_too() -> None:
    assert Unpacker(Interner(Enricher(tables=False))).unpack(Packer().pack([])) == []
