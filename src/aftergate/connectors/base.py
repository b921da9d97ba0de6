"""What a normaliser is: raw record to Event, pure. Connectors are found by looking in the folder.

`connectors/VENDOR/normalise.py` holds `SOURCES`, a tuple of Source. Nothing else has to be edited to add one.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

from msgspec import Struct

from aftergate.events.interning import Interner
from aftergate.vocabulary import Event


class Normaliser(Protocol):
    """Turns one record's bytes into events. Keeps only caches, so the same bytes always give equal events."""

    def parse(self, line: bytes) -> Event | list[Event]:
        """The event of one record, or its events.

        Raises: NotMine, if the record is of another source; Reject (with the field and what is wrong), or
        msgspec.DecodeError / ValidationError, if it cannot be read. Nothing else may escape.
        """
        ...


class Source(Struct, frozen=True):
    """One kind of log."""

    slug: str  # `aws.cloudtrail`, `entra.signin`, `okta`, ...
    title: str
    recognise: Callable[[dict[str, Any]], bool]  # given one decoded record: is it of this source? cheap and strict
    normaliser: Callable[[Interner], Normaliser]
    provides: frozenset[str] = frozenset()  # features its events can carry, see detections/api.py FEATURES
    misleads: tuple[str, ...] = ()  # where this log misleads, one sentence each, for the docs
    priority: int = 50  # recognisers with a lower number are asked first


@cache
def sources() -> dict[str, Source]:
    """All sources by slug, in the order recognisers are asked."""
    import aftergate.connectors as folder

    found: list[Source] = []
    for module in pkgutil.iter_modules(folder.__path__):
        if module.ispkg:
            found.extend(importlib.import_module(f"{folder.__name__}.{module.name}.normalise").SOURCES)
    return {source.slug: source for source in sorted(found, key=lambda s: (s.priority, s.slug))}


def recognise(record: Any) -> Source | None:
    """The source of a decoded record, from its shape."""
    if not isinstance(record, dict):
        return None
    for source in sources().values():
        if source.recognise(record):
            return source
    return None
