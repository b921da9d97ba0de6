"""Requests for approval, what became of their items, who was asked to sign what, and reviews of broken glass."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, String, Table, Text, UniqueConstraint

from aftergate.stores.tables import METADATA
from aftergate.stores.tables.base import NUMBER

approvals = Table(
    "approvals",
    METADATA,
    Column("number", NUMBER, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),  # the task handle on the wire; unguessable
    Column("status", String(16), nullable=False),  # machine.status, for lists
    Column("state", Text, nullable=False),  # the machine's state, JSON
    Column("object", LargeBinary, nullable=False),  # canonical bytes of what every approver's object has in common; never changes
    Column("asked", Text, nullable=False),  # what the denying policies asked for, JSON
    Column("subject", String(512), nullable=False),  # type and id, for lists
    Column("about", Text, nullable=False),  # names whose findings count: {identity, session, credential}, JSON
    Column("risk", Text, nullable=False),  # as scored at the request, JSON
    Column("reason", Text, nullable=False),
    Column("client", Text, nullable=False),  # `client` of the request, for the record only, JSON
    Column("callback", Text),  # {endpoint, state, events}, JSON
    Column("idempotency", LargeBinary(32), unique=True),  # SHA-256 of caller and key
    Column("body", LargeBinary(32), nullable=False),  # SHA-256 of the submission's canonical bytes
    Column("created_ms", BigInteger, nullable=False),
    Column("decide_by_ms", BigInteger, nullable=False),
    Column("approved_ms", BigInteger),
    Column("closed_ms", BigInteger),
    Index("approvals_status_ix", "status", "decide_by_ms"),
    Index("approvals_subject_ix", "subject", "created_ms"),
)

approval_items = Table(
    "approval_items",
    METADATA,
    Column("id", String(64), primary_key=True),  # the approval id that the executor presents
    Column("approval", NUMBER, ForeignKey("approvals.number"), nullable=False),
    Column("place", Integer, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),  # of the exact transaction
    # INVARIANT: set once, by the one statement that also tells the winner of a race.
    Column("consumed_ms", BigInteger),
    Column("evaluation", String(64)),  # the evaluation that used it
    UniqueConstraint("approval", "place"),
)

approval_votes = Table(
    "approval_votes",
    METADATA,
    Column("approval", NUMBER, ForeignKey("approvals.number"), primary_key=True, autoincrement=False),
    Column("person", String(200), primary_key=True),
    Column("verdict", String(16), nullable=False),  # approved, denied
    Column("reason", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("credential", String(1400), nullable=False),  # base64url; empty for a no
    Column("risk", Text, nullable=False),  # as scored then, JSON
)

approval_challenges = Table(
    "approval_challenges",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("person", String(200), nullable=False),
    Column("session", String(128), nullable=False),
    Column("objects", Text, nullable=False),  # [[approval number, base64url of the object's canonical bytes], ...], JSON
    Column("gathered", LargeBinary),  # canonical bytes of the declared batch, when several requests are signed at once
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    # INVARIANT: set once, by any try, whether it holds or not: one challenge, one use.
    Column("used_ms", BigInteger),
    Index("approval_challenges_expires_ix", "expires_ms"),
)

approval_failures = Table(
    "approval_failures",
    METADATA,
    Column("number", NUMBER, primary_key=True, autoincrement=True),
    Column("person", String(200), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Index("approval_failures_person_ix", "person", "at_ms"),
)

reviews = Table(
    "reviews",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("approval", NUMBER, ForeignKey("approvals.number"), nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("person", String(512), nullable=False),  # who broke the glass
    Column("reason", Text, nullable=False),
    Column("closed_ms", BigInteger),
    Column("closed_by", String(200)),
    Column("note", Text),
    Index("reviews_closed_ix", "closed_ms"),
)
