"""Callers' keys, findings, used-once identifiers, and the counters by which several processes notice changes."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table, Text

from aftergate.stores.tables import METADATA

# SQLite wants INTEGER, not BIGINT, for a key it may number by itself.
NUMBER = BigInteger().with_variant(Integer, "sqlite")

api_keys = Table(
    "api_keys",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),  # HMAC-SHA256 of the whole key
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # space separated
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),
    Column("revoked_ms", BigInteger),
    Column("last_used_ms", BigInteger),
)

findings = Table(
    "findings",
    METADATA,
    Column("number", NUMBER, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("detection", String(64), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("closed_ms", BigInteger),
    Column("closed_by", Text),
    Column("body", Text, nullable=False),  # the finding as `aftergate scan` writes it
)

finding_subjects = Table(
    "finding_subjects",
    METADATA,
    Column("finding", NUMBER, primary_key=True, autoincrement=False),
    Column("level", String(16), primary_key=True),
    Column("subject", String(512), primary_key=True),
    Index("finding_subjects_subject_ix", "subject"),
)

used_ids = Table(
    "used_ids",
    METADATA,
    # What must not come twice: `jti` of proofs, tokens and assertions. Kept as a hash until it could not be accepted anyway.
    Column("digest", LargeBinary(32), primary_key=True),
    Column("until_ms", BigInteger, nullable=False),
    Index("used_ids_until_ix", "until_ms"),
)

changes = Table(
    "changes",
    METADATA,
    Column("topic", String(32), primary_key=True),
    Column("version", BigInteger, nullable=False),
)

properties = Table(
    "properties",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

outbox = Table(
    "outbox",
    METADATA,
    # Messages to people and systems, written with the change they tell of and sent afterwards.
    Column("number", NUMBER, primary_key=True, autoincrement=True),
    Column("kind", String(32), nullable=False),
    Column("body", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("next_ms", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("sent_ms", BigInteger),
    Column("failed", Boolean, nullable=False, default=False),
    Column("problem", Text),
    Index("outbox_next_ix", "sent_ms", "next_ms"),
)
