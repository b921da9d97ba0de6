"""Keys, findings, used-once identifiers, change counters, messages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_base"
down_revision = "0001_audit"

NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger),
        sa.Column("revoked_ms", sa.BigInteger),
        sa.Column("last_used_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="api_keys_pk"),
        sa.UniqueConstraint("digest", name="api_keys_digest_key"),
    )
    op.create_table(
        "findings",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("detection", sa.String(64), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        sa.Column("received_ms", sa.BigInteger, nullable=False),
        sa.Column("closed_ms", sa.BigInteger),
        sa.Column("closed_by", sa.Text),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("number", name="findings_pk"),
        sa.UniqueConstraint("id", name="findings_id_key"),
    )
    op.create_table(
        "finding_subjects",
        sa.Column("finding", NUMBER, autoincrement=False, nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(512), nullable=False),
        sa.PrimaryKeyConstraint("finding", "level", "subject", name="finding_subjects_pk"),
    )
    op.create_index("finding_subjects_subject_ix", "finding_subjects", ["subject"])
    op.create_table(
        "used_ids",
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="used_ids_pk"),
    )
    op.create_index("used_ids_until_ix", "used_ids", ["until_ms"])
    op.create_table(
        "changes",
        sa.Column("topic", sa.String(32), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("topic", name="changes_pk"),
    )
    op.create_table(
        "properties",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="properties_pk"),
    )
    op.create_table(
        "outbox",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("next_ms", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("sent_ms", sa.BigInteger),
        sa.Column("failed", sa.Boolean, nullable=False),
        sa.Column("problem", sa.Text),
        sa.PrimaryKeyConstraint("number", name="outbox_pk"),
    )
    op.create_index("outbox_next_ix", "outbox", ["sent_ms", "next_ms"])
