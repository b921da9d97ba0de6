"""Tasks, the tokens they gave out, and the public halves of the keys that sign those."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, String, Table, Text

from aftergate.stores.tables import METADATA

tasks = Table(
    "tasks",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("who", String(600), nullable=False),  # `type:id`
    Column("behalf", String(600)),  # on whose behalf, `type:id`
    Column("parent", String(40), ForeignKey("tasks.id")),
    Column("state", String(12), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Column("denials", Integer, nullable=False, default=0),  # tools it was refused
    Column("body", Text, nullable=False),  # JSON: the rest
    Index("tasks_state_until_ix", "state", "until_ms"),
    Index("tasks_parent_ix", "parent"),
    Index("tasks_who_ix", "who"),
)

task_tokens = Table(
    "task_tokens",
    METADATA,
    # A token is known by a keyed hash of its `jti`; neither is in the table.
    Column("digest", LargeBinary(32), primary_key=True),
    Column("task", String(40), ForeignKey("tasks.id"), nullable=False),
    Column("parent", LargeBinary(32), ForeignKey("task_tokens.digest")),  # the token of ours that it was exchanged for
    Column("subject", LargeBinary(32)),  # keyed hash of the foreign subject token that the first of the family was exchanged for
    Column("kind", String(8), nullable=False),  # access, txn
    Column("client", String(600), nullable=False),
    Column("issued_ms", BigInteger, nullable=False),
    Column("exp_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Column("dead_uses", Integer, nullable=False, default=0),
    Column("dead_use_ms", BigInteger),  # when a use after death was recorded last
    Index("task_tokens_task_ix", "task"),
    Index("task_tokens_parent_ix", "parent"),
    Index("task_tokens_subject_ix", "subject"),
    Index("task_tokens_exp_ix", "exp_ms"),
)

token_keys = Table(
    "token_keys",
    METADATA,
    # Public halves only: each process keeps its own secret halves in its data directory, and verifies with all of these.
    Column("kid", String(64), primary_key=True),
    Column("public", Text, nullable=False),  # JWK
    Column("published_ms", BigInteger, nullable=False),
    Column("active_ms", BigInteger, nullable=False),
    Column("retire_ms", BigInteger, nullable=False),
    Column("gone_ms", BigInteger, nullable=False),
)
