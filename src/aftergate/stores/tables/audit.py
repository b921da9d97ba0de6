"""The audit log's tables. Leaves, nodes and checkpoints only grow; what stands beside the leaves can be erased."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, Text

from aftergate.stores.tables import METADATA

NUMBER = BigInteger().with_variant(Integer, "sqlite")

audit_head = Table(
    "audit_head",
    METADATA,
    # One row. Whoever appends holds its lock, so that numbers have no gap and no two processes build different trees.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("frontier", LargeBinary, nullable=False),  # hashes of the perfect subtrees, largest first
    Column("last_ms", BigInteger, nullable=False),  # time of the last record
    Column("origin", Text, nullable=False),  # empty until the first checkpoint
    Column("signed_size", BigInteger, nullable=False),
    Column("signed_root", LargeBinary, nullable=False),
)

audit_leaves = Table(
    "audit_leaves",
    METADATA,
    Column("seq", NUMBER, primary_key=True, autoincrement=False),
    Column("ms", BigInteger, nullable=False),
    Column("type", String(40), nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("body", LargeBinary),  # canonical JSON; NULL once pruned by retention
)

audit_nodes = Table(
    "audit_nodes",
    METADATA,
    # Hashes of whole tiles: one at level 1 for 256 leaves, one at level 2 for 65,536, ...
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("place", NUMBER, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    METADATA,
    Column("size", NUMBER, primary_key=True, autoincrement=False),
    Column("ms", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
)

audit_beside = Table(
    "audit_beside",
    METADATA,
    Column("seq", NUMBER, primary_key=True, autoincrement=False),
    Column("kind", String(16), primary_key=True),
    Column("salt", LargeBinary(32), nullable=False),
    Column("body", LargeBinary, nullable=False),
)

audit_personal = Table(
    "audit_personal",
    METADATA,
    Column("seq", NUMBER, primary_key=True, autoincrement=False),
    Column("field", String(80), primary_key=True),
    Column("salt", LargeBinary(32), nullable=False),
    Column("value", Text, nullable=False),
    Column("look", LargeBinary(16), nullable=False),  # hash of the value, folded: by which a person is found
    Index("audit_personal_look_ix", "look"),
)

audit_refs = Table(
    "audit_refs",
    METADATA,
    # Ids by which people ask for records: transaction, approval, evaluation, task.
    Column("ref", String(200), primary_key=True),
    Column("seq", NUMBER, primary_key=True, autoincrement=False),
)
