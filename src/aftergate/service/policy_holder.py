"""The policies and entities in force: loaded, watched, and swapped whole; what is broken is refused and the old set stays."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final, Literal

import structlog
from msgspec import Struct

import aftergate.authz
from aftergate.authz import cedar, entities
from aftergate.authz.decide import Snapshot
from aftergate.authz.entities import EntityStore
from aftergate.authz.errors import PolicyError, Problem

log = structlog.get_logger("aftergate.policies")
STARTER: Final = Path(aftergate.authz.__path__[0]) / "starter"
MAX_ENTITIES: Final = 512 << 20

Kind = Literal["live", "shadow"]


class Sources(Struct, frozen=True):
    """Where a set comes from. No entity file: the starter's with the starter policies, else none."""

    policies: Path
    entities: Path | None

    @classmethod
    def of(cls, policies: str, entity_file: str) -> Sources:
        if policies:
            return cls(Path(policies), Path(entity_file) if entity_file else None)
        return cls(STARTER / "policies", Path(entity_file) if entity_file else STARTER / "entities.json")


class Change(Struct, frozen=True):
    """What a look at the files found. `snapshot` is None when they were refused."""

    kind: Kind
    snapshot: Snapshot | None
    before: str = ""  # digests of policies and entities
    after: str = ""
    problems: tuple[Problem, ...] = ()


class PolicyHolder:
    """One set in force. `snapshot` is read without a lock: it is replaced, never changed."""

    def __init__(self, sources: Sources, kind: Kind = "live") -> None:
        """Load at once. Raises: PolicyError."""
        self.sources = sources
        self.kind: Kind = kind
        self.problems: tuple[Problem, ...] = ()
        self._lock = threading.Lock()
        self._stamp = _stamp(sources)
        self._pending: tuple[object, ...] | None = None
        self._entity_bytes = b""
        self.snapshot = self._load(None)

    @property
    def state(self) -> str:
        """Policies and entities as one text: equal when both are."""
        return _state(self.snapshot)

    def look(self) -> Change | None:
        """Take in what changed since the last look, once it has stayed the same from one look to the next.

        A copy in progress is a smaller set: a policy that forbids may not have arrived yet, so nothing half-copied is ever in force for long.
        """
        with self._lock:
            stamp = _stamp(self.sources)
            if stamp == self._stamp:
                self._pending = None
                return None
            if stamp != self._pending:
                self._pending = stamp
                return None
            return self._take(stamp)

    def reload(self) -> Change | None:
        """Take in the files as they are now; None if they say what is already in force."""
        with self._lock:
            return self._take(_stamp(self.sources))

    def _take(self, stamp: tuple[object, ...]) -> Change | None:
        self._stamp, self._pending = stamp, None
        before = self.state
        try:
            made = self._load(self.snapshot)
        except PolicyError as error:
            self.problems = error.problems
            # A trace would tell an operator nothing: the problems do.
            log.error("refused: the set before it stays", set=self.kind, problems=[str(problem) for problem in error.problems[:20]])  # noqa: TRY400
            return Change(self.kind, None, before=before, problems=error.problems)
        self.problems = ()
        if _state(made) == before:
            return None
        self.snapshot = made
        log.info(
            "in force", set=self.kind, policies=len(made.policies.policies), entities=len(made.entities), version=made.policies.version
        )
        return Change(self.kind, made, before, _state(made))

    def _load(self, held: Snapshot | None) -> Snapshot:
        policies = cedar.load(self.sources.policies)
        data = _read(self.sources.entities) if self.sources.entities is not None else b"[]"
        name = self.sources.entities.name if self.sources.entities is not None else "entities.json"
        store: EntityStore
        if held is not None and data == self._entity_bytes and policies.schema == held.policies.schema:
            store = held.entities
        else:
            store = entities.load(data, name, policies.schema)
        made = Snapshot(policies, store)
        self._entity_bytes = data
        return made


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ENTITIES + 1)
    except OSError as error:
        raise PolicyError([Problem(str(path), 0, f"cannot be read: {error.strerror or error}", "name a file with --entities")]) from None
    if len(data) > MAX_ENTITIES:
        raise PolicyError([Problem(str(path), 0, f"longer than {MAX_ENTITIES >> 20} MiB")])
    return data


def _state(snapshot: Snapshot) -> str:
    return f"{snapshot.policies.digest} {snapshot.entities.digest}"


def _stamp(sources: Sources) -> tuple[object, ...]:
    """Names, sizes, times and inodes of everything read: cheap to compare. What cannot be seen is part of it."""
    found: list[object] = []
    try:
        paths = sorted(path for path in sources.policies.iterdir() if path.name.endswith((".cedar", cedar.SCHEMA, cedar.SCHEMA_JSON)))
    except OSError as error:
        paths = []
        found.append(error.errno)
    if sources.entities is not None:
        paths.append(sources.entities)
    for path in paths:
        try:
            held = path.stat()
        except OSError as error:
            found.append((path.name, error.errno))
        else:
            found.append((path.name, held.st_ino, held.st_size, held.st_mtime_ns))
    return tuple(found)
