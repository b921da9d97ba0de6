"""Requests for approval, their items, votes, challenges and failures; reviews of broken glass."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_approvals"
down_revision = "0002_base"

NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "approvals",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("object", sa.LargeBinary, nullable=False),
        sa.Column("asked", sa.Text, nullable=False),
        sa.Column("subject", sa.String(512), nullable=False),
        sa.Column("about", sa.Text, nullable=False),
        sa.Column("risk", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("callback", sa.Text),
        sa.Column("idempotency", sa.LargeBinary(32)),
        sa.Column("body", sa.LargeBinary(32), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("decide_by_ms", sa.BigInteger, nullable=False),
        sa.Column("approved_ms", sa.BigInteger),
        sa.Column("closed_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("number", name="approvals_pk"),
        sa.UniqueConstraint("id", name="approvals_id_key"),
        sa.UniqueConstraint("idempotency", name="approvals_idempotency_key"),
    )
    op.create_index("approvals_status_ix", "approvals", ["status", "decide_by_ms"])
    op.create_index("approvals_subject_ix", "approvals", ["subject", "created_ms"])
    op.create_table(
        "approval_items",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("approval", NUMBER, nullable=False),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("consumed_ms", sa.BigInteger),
        sa.Column("evaluation", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="approval_items_pk"),
        sa.ForeignKeyConstraint(["approval"], ["approvals.number"]),
        sa.UniqueConstraint("approval", "place", name="approval_items_approval_place_key"),
    )
    op.create_table(
        "approval_votes",
        sa.Column("approval", NUMBER, autoincrement=False, nullable=False),
        sa.Column("person", sa.String(200), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("credential", sa.String(1400), nullable=False),
        sa.Column("risk", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("approval", "person", name="approval_votes_pk"),
        sa.ForeignKeyConstraint(["approval"], ["approvals.number"]),
    )
    op.create_table(
        "approval_challenges",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("person", sa.String(200), nullable=False),
        sa.Column("session", sa.String(128), nullable=False),
        sa.Column("objects", sa.Text, nullable=False),
        sa.Column("gathered", sa.LargeBinary),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
        sa.Column("used_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="approval_challenges_pk"),
    )
    op.create_index("approval_challenges_expires_ix", "approval_challenges", ["expires_ms"])
    op.create_table(
        "approval_failures",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("person", sa.String(200), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("number", name="approval_failures_pk"),
    )
    op.create_index("approval_failures_person_ix", "approval_failures", ["person", "at_ms"])
    op.create_table(
        "reviews",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("approval", NUMBER, nullable=False),
        sa.Column("opened_ms", sa.BigInteger, nullable=False),
        sa.Column("person", sa.String(512), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("closed_ms", sa.BigInteger),
        sa.Column("closed_by", sa.String(200)),
        sa.Column("note", sa.Text),
        sa.PrimaryKeyConstraint("id", name="reviews_pk"),
        sa.ForeignKeyConstraint(["approval"], ["approvals.number"]),
    )
    op.create_index("reviews_closed_ix", "reviews", ["closed_ms"])
