"""The records of an inventory file, as written and checked."""

from __future__ import annotations

from typing import Final

from msgspec import Struct, field

DAY_MS: Final = 86_400_000


class Window(Struct, frozen=True):
    """When an automation runs: on days of the week or on dates, at one time of day or every so many minutes."""

    tz: str = "UTC"
    days: str | None = None  # daily, mon-fri, or names with commas and ranges: `mon,wed-fri`
    dates: tuple[str, ...] = ()  # 2026-10-22
    at: str | None = None  # 06:00, wall clock of `tz`
    duration_min: int = 60
    every_min: int | None = None  # the whole day counts as the window
    note: str | None = None


class DeclaredCredential(Struct, frozen=True):
    """A credential that is known to belong to an identity."""

    type: str = ""
    id: str | None = None
    hashed: str | None = None
    created: str | None = None
    last_used: str | None = None
    rotates_every_days: int | None = None
    exception: str | None = None  # why it may be older than its kind allows


class Allowance(Struct, frozen=True):
    """A written exception from one detection."""

    slug: str
    reason: str
    until: str
    owner: str | None = None


class Identity(Struct, frozen=True):
    """One identity: a person, workload, agent or third-party application."""

    name: str
    kind: str = "unknown"  # human, workload, agent, third_party_app
    owner: str | None = None  # a person's name or a group
    deputy: str | None = None
    purpose: str | None = None
    env: str | None = None
    ids: dict[str, str | None] = {}
    registered_rotator: bool = False
    registered_deployer: bool = False
    automation: tuple[Window, ...] = ()
    egress: tuple[str, ...] = ()
    credentials: tuple[DeclaredCredential, ...] = ()
    exceptions: tuple[Allowance, ...] = ()
    allowed: tuple[str, ...] = ()
    named_chains: tuple[tuple[str, ...], ...] = ()
    declared_consumers: int | None = None
    delegation: str | None = None
    vendor: str | None = None
    contract_end: str | None = None
    starts: str | None = None
    leaves: str | None = None
    manager: str | None = None
    approval: str | None = None  # ticket that let it in


class Ticket(Struct, frozen=True):
    """A change ticket: who may do what, when. Times are ISO 8601 in the file; `Inventory` keeps milliseconds beside it."""

    id: str = field(name="ticket")
    start: str = field(name="from")
    end: str = field(name="to")
    kind: str = ""
    by: str = ""
    approved_by: str | None = None
    what: str = ""
    target: str | None = None


class File(Struct, frozen=True):
    """The file as a whole. Unknown keys are passed over."""

    organisation: str | None = None
    domain: str | None = None
    accounts: dict[str, str | dict[str, str] | list[str]] = {}
    groups: dict[str, tuple[str, ...]] = {}
    identities: tuple[Identity, ...] = ()
    changes: tuple[Ticket, ...] = ()
