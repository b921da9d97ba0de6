"""The audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001_audit"
down_revision = None

NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    head = op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("frontier", sa.LargeBinary, nullable=False),
        sa.Column("last_ms", sa.BigInteger, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("signed_size", sa.BigInteger, nullable=False),
        sa.Column("signed_root", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="audit_head_pk"),
    )
    op.bulk_insert(head, [{"id": 1, "size": 0, "frontier": b"", "last_ms": 0, "origin": "", "signed_size": 0, "signed_root": b""}])
    op.create_table(
        "audit_leaves",
        sa.Column("seq", NUMBER, autoincrement=False, nullable=False),
        sa.Column("ms", sa.BigInteger, nullable=False),
        sa.Column("type", sa.String(40), nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.Column("body", sa.LargeBinary),
        sa.PrimaryKeyConstraint("seq", name="audit_leaves_pk"),
    )
    op.create_table(
        "audit_nodes",
        sa.Column("level", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("place", NUMBER, autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("level", "place", name="audit_nodes_pk"),
    )
    op.create_table(
        "audit_checkpoints",
        sa.Column("size", NUMBER, autoincrement=False, nullable=False),
        sa.Column("ms", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("size", name="audit_checkpoints_pk"),
    )
    op.create_table(
        "audit_beside",
        sa.Column("seq", NUMBER, autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("salt", sa.LargeBinary(32), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("seq", "kind", name="audit_beside_pk"),
    )
    op.create_table(
        "audit_personal",
        sa.Column("seq", NUMBER, autoincrement=False, nullable=False),
        sa.Column("field", sa.String(80), nullable=False),
        sa.Column("salt", sa.LargeBinary(32), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("look", sa.LargeBinary(16), nullable=False),
        sa.PrimaryKeyConstraint("seq", "field", name="audit_personal_pk"),
    )
    op.create_index("audit_personal_look_ix", "audit_personal", ["look"])
    op.create_table(
        "audit_refs",
        sa.Column("ref", sa.String(200), nullable=False),
        sa.Column("seq", NUMBER, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("ref", "seq", name="audit_refs_pk"),
    )
