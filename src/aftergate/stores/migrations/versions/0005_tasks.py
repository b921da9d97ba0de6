"""Tasks, their tokens, and the public halves of the keys that sign them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005_tasks"
down_revision = "0004_people"


def upgrade() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("who", sa.String(600), nullable=False),
        sa.Column("behalf", sa.String(600)),
        sa.Column("parent", sa.String(40), sa.ForeignKey("tasks.id")),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_ms", sa.BigInteger),
        sa.Column("denials", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="tasks_pk"),
    )
    op.create_index("tasks_state_until_ix", "tasks", ["state", "until_ms"])
    op.create_index("tasks_parent_ix", "tasks", ["parent"])
    op.create_index("tasks_who_ix", "tasks", ["who"])
    op.create_table(
        "task_tokens",
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("task", sa.String(40), sa.ForeignKey("tasks.id"), nullable=False),
        sa.Column("parent", sa.LargeBinary(32), sa.ForeignKey("task_tokens.digest")),
        sa.Column("subject", sa.LargeBinary(32)),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("client", sa.String(600), nullable=False),
        sa.Column("issued_ms", sa.BigInteger, nullable=False),
        sa.Column("exp_ms", sa.BigInteger, nullable=False),
        sa.Column("revoked_ms", sa.BigInteger),
        sa.Column("dead_uses", sa.Integer, nullable=False),
        sa.Column("dead_use_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("digest", name="task_tokens_pk"),
    )
    op.create_index("task_tokens_task_ix", "task_tokens", ["task"])
    op.create_index("task_tokens_parent_ix", "task_tokens", ["parent"])
    op.create_index("task_tokens_subject_ix", "task_tokens", ["subject"])
    op.create_index("task_tokens_exp_ix", "task_tokens", ["exp_ms"])
    op.create_table(
        "token_keys",
        sa.Column("kid", sa.String(64), nullable=False),
        sa.Column("public", sa.Text, nullable=False),
        sa.Column("published_ms", sa.BigInteger, nullable=False),
        sa.Column("active_ms", sa.BigInteger, nullable=False),
        sa.Column("retire_ms", sa.BigInteger, nullable=False),
        sa.Column("gone_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("kid", name="token_keys_pk"),
    )
