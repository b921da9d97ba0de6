"""All names of a person, in memory: a finding on one of them lowers trust in whoever asks under another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aftergate.stores import people as store

if TYPE_CHECKING:
    from aftergate.service.core import Core


class Identities:
    """Names by name, without regard to case. Reading is lock-free: the table is replaced, never changed."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._names: dict[str, tuple[str, ...]] = {}
        self._seen = -1
        self.version = 0  # changes after the table does

    def refresh(self) -> None:
        """Read the persons again if they changed. Raises: StoreUnavailable."""
        version = self._core.db.versions().get(store.TOPIC, 0)
        if version == self._seen:
            return
        with self._core.db.read() as connection:
            everybody = store.everybody(connection)
        found: dict[str, set[str]] = {}
        for person in everybody:
            for name in person.names:
                # A name that two persons share brings in both: what one of them did counts against whoever uses it.
                found.setdefault(name.strip().casefold(), set()).update(person.names)
        self._names = {name: tuple(sorted(names)) for name, names in found.items()}
        self._seen = version
        self.version += 1

    def of(self, subject: str) -> tuple[str, ...]:
        """The subject's own id first, then the other names of that person."""
        others = self._names.get(subject.strip().casefold()) if self._names else None
        return (subject,) if others is None else (subject, *others)
