"""The state tracking keeps: lives, identities, mints, and the organisation-wide registers that rules ask.

A Life is a credential or a session. Times are event times in milliseconds. All of it is plain data.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field

from aftergate.vocabulary import Actor, Agent, Detail, Event, Origin, Shape

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
MINUTE_MS = 60_000


class Use(Struct, eq=False, gc=False):
    """How often one holder used one shape. `up` is the identity's own count of the same shape."""

    first: int
    last: int
    count: int = 1
    days: int = 1  # distinct UTC days
    day_end: int = 0
    up: Use | None = None
    primary: bool = True  # False where a session is counted beside the credential that was shown


class Mint(Struct, eq=False, gc=False):
    """The event that issued a credential or opened a session."""

    time: int
    event: str  # source event id
    shape: Shape
    parent: str | None = None  # credential shown or spent to get it
    session: str | None = None
    grant: str | None = None
    klass: str | None = None
    expires_at: int | None = None
    detail: Detail | None = None


class Death(Struct, eq=False, gc=False):
    """From when on a credential or identity should not work any more."""

    time: int
    reason: str  # disabled, deleted, revoked, password_reset, removed, rotated, expired, session_ended
    event: str
    by: str | None = None  # identity that did it
    source: str = ""
    undone: int | None = None  # when it was enabled again


class Life(Struct, eq=False):
    """One credential or session from its mint to its last use."""

    id: str
    source: str
    first: int
    last: int
    shape: Shape  # of the last use
    count: int = 0  # uses; a mint that was never used has none
    uses: dict[Shape, Use] = field(default_factory=dict)
    mint: Mint | None = None
    identity: Identity | None = None
    session_id: str | None = None
    session: Life | None = None
    first_event: str = ""
    death: Death | None = None
    root: str | None = None  # cached lineage root
    is_session: bool = False
    ends: int = 1 << 62  # from when on it should not work, by its mint
    main: Use | None = None  # of a session key: the use of its place and program, which also counts what its identity does by habit
    watch: tuple[Callable[..., None], ...] | None = None  # detections that want every event of this life, see Rule.watch
    parts: set[object] | None = None  # addresses, networks, agent families, actions, clients and devices seen; from the second shape on

    def origins(self) -> dict[Origin, Use]:
        """Origins with how much each was used. Walks the shapes: for the slow path."""
        return _fold(self.uses, "origin")

    def nets(self) -> dict[str, Use]:
        return _fold_net(self.uses)

    def agents(self) -> dict[str, Use]:
        return _fold_agent(self.uses)


class Identity(Struct, eq=False):
    """One acting identity across sources."""

    id: str
    actor: Actor
    first: int
    last: int
    kind: str = "unknown"
    names: set[str] = field(default_factory=set)  # every raw id it has, lower-cased where it is an e-mail
    count: int = 0
    uses: dict[Shape, Use] = field(default_factory=dict)
    ips: set[str] = field(default_factory=set)
    places: dict[Origin, int] = field(default_factory=dict)  # origin -> first seen
    net_first: dict[str, int] = field(default_factory=dict)  # net -> first seen
    countries: dict[str, int] = field(default_factory=dict)
    agents: dict[str, int] = field(default_factory=dict)  # family -> first seen
    devices: dict[str, int] = field(default_factory=dict)
    clients: dict[str, int] = field(default_factory=dict)
    resources: dict[str, int] = field(default_factory=dict)
    actions: dict[str, int] = field(default_factory=dict)
    klasses: dict[str, int] = field(default_factory=dict)
    death: Death | None = None
    shape: Shape | None = None  # of the last use
    bytes_day: int = 0  # start of the day that `bytes_by_client` counts
    bytes_by_client: dict[str, int] = field(default_factory=dict)
    # regularity of silent sign-ins: number, mean and sum of squares of gaps above a minute (Welford)
    gap_n: int = 0
    gap_mean: float = 0.0
    gap_m2: float = 0.0
    silent_last: int = 0

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


class CredentialChange(Struct, eq=False, gc=False):
    """A credential added to or removed from an identity."""

    time: int
    added: bool
    key: str | None  # id of the credential, if the log names it
    target: str  # raw id of the identity it belongs to
    by: Identity
    event: Event


class Run(Struct, eq=False):
    """One CI run, from the forge's own log."""

    id: str
    repo: str | None
    start: int
    end: int | None = None
    attempt: int = 1
    actor: str | None = None
    events: list[str] = field(default_factory=list)
    ref: str | None = None
    trigger: str | None = None
    workflow: str | None = None


class Coverage(Struct, eq=False):
    """How well one issuer's mints are known: the base of every claim that a token was never issued."""

    first: int = 0  # first event of the source
    first_mint: int | None = None
    last: int = 0
    lives: int = 0  # credentials used
    joined: int = 0  # of which the mint is known
    uses: int = 0
    joined_uses: int = 0

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
