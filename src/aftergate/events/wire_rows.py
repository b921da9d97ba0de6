"""The rows that wire.py sends, as msgspec writes and reads them: arrays without names."""

from __future__ import annotations

from msgspec import Struct

from aftergate.vocabulary import Detail


class ShapeRow(Struct, array_like=True, gc=False):
    source: str
    action: int
    actor: int
    origin: int
    agent: int
    error: str | None
    client: str | None
    client_name: str | None
    resource: str | None
    device: str | None
    silent: str | None
    account: str | None


class ActionRow(Struct, array_like=True, gc=False):
    source: str
    name: str
    kind: str
    service: str
    klass: str
    tags: tuple[str, ...]


class ActorRow(Struct, array_like=True, gc=False):
    id: str
    names: tuple[str, ...]
    kind: str
    account: str | None
    display: str | None
    role: str | None
    first_party: bool


class OriginRow(Struct, array_like=True, gc=False, frozen=True):
    ip: str | None
    net: str
    asn: int | None
    asn_name: str | None
    network: str
    provider: str | None
    country: str | None
    trustworthy: bool
    basis: str


class AgentRow(Struct, array_like=True, gc=False):
    raw: str
    family: str
    kind: str
    os: str | None
    version: str | None


class Column(Struct, array_like=True, gc=False):
    """One field of the events that have it."""

    values: list[int]
    at: list[int] | None = None  # their places in the batch; None: every event has it


class Batch(Struct, array_like=True):
    actions: list[ActionRow]
    actors: list[ActorRow]
    origins: list[OriginRow]
    agents: list[AgentRow]
    shapes: list[ShapeRow]
    forget: bool  # whether what follows is numbered from 0 again
    credentials: list[str | None]  # of a user: who has one credential in one session
    sessions: list[str | None]
    texts: list[str]
    details: list[Detail]
    time: list[int]
    id: list[str]
    shape: list[int]
    user: list[int]
    target: Column  # numbers of texts
    size: Column
    known_at: Column
    part: Column
    detail: Column
    token_at: list[int]
    token: list[str]
