"""Persons, their names, authenticators, enrolment links, logins and sessions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004_people"
down_revision = "0003_approvals"


def upgrade() -> None:
    op.create_table(
        "persons",
        sa.Column("id", sa.String(200), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("user_handle", sa.LargeBinary(32), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("removed_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="persons_pk"),
        sa.UniqueConstraint("user_handle", name="persons_user_handle_key"),
    )
    op.create_table(
        "person_groups",
        sa.Column("person", sa.String(200), sa.ForeignKey("persons.id"), nullable=False),
        sa.Column("name", sa.String(512), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("person", "name", "source", name="person_groups_pk"),
    )
    op.create_table(
        "person_aliases",
        sa.Column("person", sa.String(200), sa.ForeignKey("persons.id"), nullable=False),
        sa.Column("alias", sa.String(512), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("person", "alias", "source", name="person_aliases_pk"),
    )
    op.create_index("person_aliases_alias_ix", "person_aliases", ["alias"])
    op.create_table(
        "person_logins",
        sa.Column("issuer", sa.String(512), nullable=False),
        sa.Column("subject", sa.String(512), nullable=False),
        sa.Column("person", sa.String(200), sa.ForeignKey("persons.id"), nullable=False),
        sa.PrimaryKeyConstraint("issuer", "subject", name="person_logins_pk"),
    )
    op.create_table(
        "authenticators",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("credential_id", sa.LargeBinary(1023), nullable=False),
        sa.Column("person", sa.String(200), sa.ForeignKey("persons.id"), nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("sign_count", sa.BigInteger, nullable=False),
        sa.Column("backup_eligible", sa.Boolean, nullable=False),
        sa.Column("backed_up", sa.Boolean, nullable=False),
        sa.Column("aaguid", sa.String(40), nullable=False),
        sa.Column("transports", sa.String(200), nullable=False),
        sa.Column("attestation", sa.String(32), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("added_ms", sa.BigInteger, nullable=False),
        sa.Column("last_used_ms", sa.BigInteger),
        sa.Column("revoked_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="authenticators_pk"),
        sa.UniqueConstraint("credential_id", name="authenticators_credential_id_key"),
    )
    op.create_index("authenticators_person_ix", "authenticators", ["person"])
    op.create_table(
        "enrolments",
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("person", sa.String(200), sa.ForeignKey("persons.id"), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
        sa.Column("used_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("digest", name="enrolments_pk"),
    )
    op.create_table(
        "person_sessions",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("person", sa.String(200), sa.ForeignKey("persons.id"), nullable=False),
        sa.Column("method", sa.String(16), nullable=False),
        sa.Column("authenticator", sa.String(40)),
        sa.Column("acr", sa.Text, nullable=False),
        sa.Column("amr", sa.Text, nullable=False),
        sa.Column("auth_ms", sa.BigInteger, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("seen_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="person_sessions_pk"),
        sa.UniqueConstraint("digest", name="person_sessions_digest_key"),
    )
    op.create_index("person_sessions_person_ix", "person_sessions", ["person"])
    op.create_index("person_sessions_seen_ix", "person_sessions", ["seen_ms"])
