"""What a server's answers hold, typed; unknown members are skipped, so that a newer server can be asked."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

ENDED: Final = frozenset({"approved", "denied", "expired", "cancelled", "failed", "partial"})


class Entity(Struct, frozen=True, omit_defaults=True):
    """A subject or resource."""

    type: str
    id: str
    properties: dict[str, Any] = {}


class Action(Struct, frozen=True, omit_defaults=True):
    name: str
    properties: dict[str, Any] = {}


class Ask(Struct, frozen=True, omit_defaults=True):
    """One question: may this subject do this action on this resource?"""

    subject: Entity
    action: Action
    resource: Entity
    context: dict[str, Any] = {}


class Decision(Struct, frozen=True):
    """The answer. It is true only when the server said so in as many words."""

    decision: bool
    context: dict[str, Any] = {}

    def __bool__(self) -> bool:
        return self.decision is True

    @property
    def reason(self) -> str:
        """Why, in a word: `forbidden`, `no_permit`, ..."""
        return str(self.context.get("reason", ""))

    @property
    def id(self) -> str:
        """The number under which the server recorded it."""
        return str(self.context.get("evaluation_id", ""))

    @property
    def offer(self) -> dict[str, Any] | None:
        """What to ask for an approval with; None, if none would help."""
        held = self.context.get("access_request")
        return held if isinstance(held, dict) else None


class AccessRequest(Struct, frozen=True):
    """A request for approval."""

    id: str
    status: str
    status_endpoint: str = ""
    expires_at: str = ""
    links: dict[str, Any] = {}

    @property
    def ended(self) -> bool:
        """Whether it is decided. An unknown status is not, and is no approval either."""
        return self.status in ENDED


class Granted(Struct, frozen=True):
    """An access request with what came of it."""

    task: AccessRequest
    result: dict[str, Any] = {}

    @property
    def approved(self) -> bool:
        return self.task.status == "approved" and bool(self.approval.get("id"))

    @property
    def approval(self) -> dict[str, Any]:
        """What to show when asking again; empty, if there is no approval."""
        held = self.result.get("approval")
        return held if isinstance(held, dict) and self.task.status == "approved" else {}


class Task(Struct, frozen=True):
    """A declared purpose. Times are RFC 3339."""

    id: str
    state: str
    purpose: str = ""
    until: str = ""
    actions: list[str] = []
    authorization_details: list[dict[str, Any]] = []
    reason: str = ""
    access_request: dict[str, Any] = {}  # how to ask for the approval that a proposed task needs
    approval: dict[str, Any] = {}  # the access request made in the task's name, as the profile shows it

    @property
    def granted(self) -> dict[str, Any] | None:
        """The approval that was given, as an evaluation presents it."""
        held = self.approval.get("result", {}).get("approval")
        return {"id": held["id"]} if isinstance(held, dict) and isinstance(held.get("id"), str) else None


class Token(Struct, frozen=True):
    """A task's token. Its `repr` does not show it."""

    access_token: str
    token_type: str
    expires_in: int
    issued_token_type: str = ""
    scope: str = ""
    authorization_details: list[dict[str, Any]] = []

    def __repr__(self) -> str:
        return f"Token({self.token_type}, expires_in={self.expires_in}, scope={self.scope!r})"


class SetAside(Struct, frozen=True):
    line: int
    problem: str


class Received(Struct):
    """What became of findings that were sent."""

    received: int = 0
    new: int = 0
    known: int = 0
    set_aside: list[SetAside] = []


class TrustReason(Struct, frozen=True):
    finding: str
    detection: str
    points: float


class Trust(Struct, frozen=True):
    """Trust now, 0 to 100."""

    identity: int
    session: int
    credential: int
    lowest: int
    detections: list[str] = []
    findings: list[str] = []
    reasons: list[TrustReason] = []


class Key(Struct, frozen=True):
    """An API key's entry, never the key."""

    id: str
    name: str
    scopes: list[str]
    created: str
    usable: bool
    expires: str = ""
    revoked: str = ""
    last_used: str = ""


class NewKey(Struct, frozen=True):
    """The one answer that holds a key. Its `repr` does not show it."""

    key: str
    entry: Key

    def __repr__(self) -> str:
        return f"NewKey({self.entry!r})"


class Status(Struct, frozen=True):
    version: str
    problems: dict[str, str] = {}
