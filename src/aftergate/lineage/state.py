"""The state tracking keeps: lives, identities, mints, and the organisation-wide registers that rules ask.

A Life is a credential or a session. Times are event times in milliseconds. All of it is plain data, in classes that mypyc turns into
C structs (docs/decisions/0005).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mypy_extensions import mypyc_attr

from aftergate.vocabulary import Actor, Agent, Detail, Event, Origin, Shape

DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
MINUTE_MS: Final = 60_000


@mypyc_attr(acyclic=True)
class Use:
    """How often one holder used one shape. `up` is the identity's own count of the same shape."""

    __slots__ = ("count", "day_end", "days", "first", "last", "primary", "up")

    def __init__(
        self, first: int, last: int, count: int = 1, days: int = 1, day_end: int = 0, up: Use | None = None, primary: bool = True
    ) -> None:
        self.first = first
        self.last = last
        self.count = count
        self.days = days  # distinct UTC days
        self.day_end = day_end
        self.up = up
        self.primary = primary  # False where a session is counted beside the credential that was shown


@mypyc_attr(acyclic=True)
class Mint:
    """The event that issued a credential or opened a session."""

    __slots__ = ("detail", "event", "expires_at", "grant", "klass", "parent", "session", "shape", "time")

    def __init__(
        self,
        time: int,
        event: str,
        shape: Shape,
        parent: str | None = None,
        session: str | None = None,
        grant: str | None = None,
        klass: str | None = None,
        expires_at: int | None = None,
        detail: Detail | None = None,
    ) -> None:
        self.time = time
        self.event = event  # source event id
        self.shape = shape
        self.parent = parent  # credential shown or spent to get it
        self.session = session
        self.grant = grant
        self.klass = klass
        self.expires_at = expires_at
        self.detail = detail


class Death:
    """From when on a credential or identity should not work any more."""

    __slots__ = ("by", "event", "reason", "source", "time", "undone")

    def __init__(self, time: int, reason: str, event: str, by: str | None = None, source: str = "") -> None:
        self.time = time
        self.reason = reason  # disabled, deleted, revoked, password_reset, removed, rotated, expired, session_ended
        self.event = event
        self.by = by  # identity that did it
        self.source = source
        self.undone: int | None = None  # when it was enabled again


class Life:
    """One credential or session from its mint to its last use."""

    __slots__ = (
        "count", "death", "ends", "first", "first_event", "id", "identity", "is_session", "last", "main", "mint", "parts", "root",
        "session", "session_id", "shape", "source", "uses", "watch",
    )  # fmt: skip

    def __init__(self, id: str, source: str, first: int, last: int, shape: Shape, is_session: bool = False) -> None:  # noqa: A002
        self.id = id
        self.source = source
        self.first = first
        self.last = last
        self.shape = shape  # of the last use
        self.is_session = is_session
        self.count = 0  # uses; a mint that was never used has none
        self.uses: dict[Shape, Use] = {}
        self.mint: Mint | None = None
        self.identity: Identity | None = None
        self.session_id: str | None = None
        self.session: Life | None = None
        self.first_event = ""
        self.death: Death | None = None
        self.root: str | None = None  # cached lineage root
        self.ends = 1 << 62  # from when on it should not work, by its mint
        # of a session key: the use of its place and program, which also counts what its identity does by habit
        self.main: Use | None = None
        self.watch: tuple[Callable[..., None], ...] | None = None  # detections that want every event of this life, see Rule.watch
        # addresses, networks, agent families, actions, clients and devices seen; from the second shape on
        self.parts: set[object] | None = None

    def origins(self) -> dict[Origin, Use]:
        """Origins with how much each was used. Walks the shapes: for the slow path."""
        return _fold(self.uses, "origin")

    def nets(self) -> dict[str, Use]:
        return _fold_net(self.uses)

    def agents(self) -> dict[str, Use]:
        return _fold_agent(self.uses)


class Identity:
    """One acting identity across sources."""

    __slots__ = (
        "actions", "actor", "agents", "bytes_by_client", "bytes_day", "clients", "count", "countries", "death", "devices", "first", "gap_m2",
        "gap_mean", "gap_n", "id", "ips", "kind", "klasses", "last", "names", "net_first", "places", "resources", "shape", "silent_last",
        "uses",
    )  # fmt: skip

    def __init__(self, id: str, actor: Actor, first: int, last: int, kind: str = "unknown") -> None:  # noqa: A002  (the field's name)
        self.id = id
        self.actor = actor
        self.first = first
        self.last = last
        self.kind = kind
        self.names: set[str] = set()  # every raw id it has, lower-cased where it is an e-mail
        self.count = 0
        self.uses: dict[Shape, Use] = {}
        self.ips: set[str] = set()
        self.places: dict[Origin, int] = {}  # origin -> first seen
        self.net_first: dict[str, int] = {}  # net -> first seen
        self.countries: dict[str, int] = {}
        self.agents: dict[str, int] = {}  # family -> first seen
        self.devices: dict[str, int] = {}
        self.clients: dict[str, int] = {}
        self.resources: dict[str, int] = {}
        self.actions: dict[str, int] = {}
        self.klasses: dict[str, int] = {}
        self.death: Death | None = None
        self.shape: Shape | None = None  # of the last use
        self.bytes_day = 0  # start of the day that `bytes_by_client` counts
        self.bytes_by_client: dict[str, int] = {}
        # regularity of silent sign-ins: number, mean and sum of squares of gaps above a minute (Welford)
        self.gap_n = 0
        self.gap_mean = 0.0
        self.gap_m2 = 0.0
        self.silent_last = 0

    def nets(self) -> dict[str, Use]:
        """Networks with how much each was used by this identity."""
        return _fold_net(self.uses)

    def origins(self) -> dict[Origin, Use]:
        return _fold(self.uses, "origin")

    def agent_uses(self) -> dict[str, Use]:
        return _fold_agent(self.uses)

    def days_seen(self, now: int) -> float:
        """Days between its first event and `now`."""
        return (now - self.first) / DAY_MS

    def scheduled(self) -> bool:
        """True when its silent sign-ins come at regular gaps: a scheduled workload rather than a service that works on demand."""
        if self.gap_n < 4 or self.gap_mean < 5 * MINUTE_MS:
            return False
        spread = (self.gap_m2 / self.gap_n) ** 0.5
        return bool(spread < 0.35 * self.gap_mean)


def _merge(total: dict[object, Use], key: object, use: Use) -> None:
    held = total.get(key)
    if held is None:
        total[key] = Use(use.first, use.last, use.count, use.days)
    else:
        held.first = min(held.first, use.first)
        held.last = max(held.last, use.last)
        held.count += use.count
        held.days = max(held.days, use.days)


def _fold(uses: dict[Shape, Use], name: str) -> dict[Origin, Use]:
    total: dict[object, Use] = {}
    for shape, use in uses.items():
        _merge(total, getattr(shape, name), use)
    return total  # type: ignore[return-value]


def _fold_net(uses: dict[Shape, Use]) -> dict[str, Use]:
    total: dict[object, Use] = {}
    for shape, use in uses.items():
        _merge(total, shape.origin.net, use)
    return total  # type: ignore[return-value]


def _fold_agent(uses: dict[Shape, Use]) -> dict[str, Use]:
    total: dict[object, Use] = {}
    for shape, use in uses.items():
        _merge(total, shape.agent.family, use)
    return total  # type: ignore[return-value]


class CredentialChange:
    """A credential added to or removed from an identity."""

    __slots__ = ("added", "by", "event", "key", "target", "time")

    def __init__(self, time: int, added: bool, key: str | None, target: str, by: Identity, event: Event) -> None:
        self.time = time
        self.added = added
        self.key = key  # id of the credential, if the log names it
        self.target = target  # raw id of the identity it belongs to
        self.by = by
        self.event = event


class Run:
    """One CI run, from the forge's own log."""

    __slots__ = ("actor", "attempt", "end", "events", "id", "ref", "repo", "start", "trigger", "workflow")

    def __init__(self, id: str, repo: str | None, start: int) -> None:  # noqa: A002  (the field's name)
        self.id = id
        self.repo = repo
        self.start = start
        self.end: int | None = None
        self.attempt = 1
        self.actor: str | None = None
        self.events: list[str] = []
        self.ref: str | None = None
        self.trigger: str | None = None
        self.workflow: str | None = None


class Coverage:
    """How well one issuer's mints are known: the base of every claim that a token was never issued."""

    __slots__ = ("first", "first_mint", "joined", "joined_uses", "last", "lives", "uses")

    def __init__(self, first: int) -> None:
        self.first = first  # first event of the source
        self.first_mint: int | None = None
        self.last = 0
        self.lives = 0  # credentials used
        self.joined = 0  # of which the mint is known
        self.uses = 0
        self.joined_uses = 0

    @property
    def rate(self) -> float | None:
        """Share of uses whose mint is known; None without uses."""
        return self.joined_uses / self.uses if self.uses else None


__all__ = [
    "DAY_MS",
    "HOUR_MS",
    "MINUTE_MS",
    "Agent",
    "Coverage",
    "CredentialChange",
    "Death",
    "Identity",
    "Life",
    "Mint",
    "Run",
    "Use",
]
