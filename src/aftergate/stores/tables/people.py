"""People who approve: persons, the names they go by, their authenticators, sessions, enrolment links and logins at the issuer."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, LargeBinary, String, Table, Text

from aftergate.stores.tables import METADATA

PERSON = 200  # characters of a person's id
NAME = 512  # characters of an alias or a group

persons = Table(
    "persons",
    METADATA,
    Column("id", String(PERSON), primary_key=True),
    Column("name", Text, nullable=False),
    Column("user_handle", LargeBinary(32), nullable=False, unique=True),  # random, so that an authenticator holds no name
    Column("created_ms", BigInteger, nullable=False),
    Column("removed_ms", BigInteger),  # a removed person stays, so that the issuer's next login does not bring them back
)

person_groups = Table(
    "person_groups",
    METADATA,
    Column("person", String(PERSON), ForeignKey("persons.id"), primary_key=True),
    Column("name", String(NAME), primary_key=True),
    Column("source", String(16), primary_key=True),  # operator | issuer: a login renews the issuer's and leaves the operator's
)

person_aliases = Table(
    "person_aliases",
    METADATA,
    # Every subject id that is this person. Two persons may share one: then neither approves what it asks for.
    Column("person", String(PERSON), ForeignKey("persons.id"), primary_key=True),
    Column("alias", String(NAME), primary_key=True),
    Column("source", String(16), primary_key=True),
    Index("person_aliases_alias_ix", "alias"),
)

person_logins = Table(
    "person_logins",
    METADATA,
    # The only pair by which an issuer's person is known again (OpenID Connect Core, section 5.7).
    Column("issuer", String(NAME), primary_key=True),
    Column("subject", String(NAME), primary_key=True),
    Column("person", String(PERSON), ForeignKey("persons.id"), nullable=False),
)

authenticators = Table(
    "authenticators",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("credential_id", LargeBinary(1023), nullable=False, unique=True),
    Column("person", String(PERSON), ForeignKey("persons.id"), nullable=False),
    Column("public_key", LargeBinary, nullable=False),  # COSE
    Column("sign_count", BigInteger, nullable=False),
    Column("backup_eligible", Boolean, nullable=False),
    Column("backed_up", Boolean, nullable=False),
    Column("aaguid", String(40), nullable=False),
    Column("transports", String(200), nullable=False),  # space separated
    Column("attestation", String(32), nullable=False),
    Column("name", Text, nullable=False),
    Column("added_ms", BigInteger, nullable=False),
    Column("last_used_ms", BigInteger),
    Column("revoked_ms", BigInteger),
    Index("authenticators_person_ix", "person"),
)

enrolments = Table(
    "enrolments",
    METADATA,
    Column("digest", LargeBinary(32), primary_key=True),  # HMAC-SHA256 of the link's secret
    Column("person", String(PERSON), ForeignKey("persons.id"), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("used_ms", BigInteger),
)

person_sessions = Table(
    "person_sessions",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),  # HMAC-SHA256 of the cookie
    Column("person", String(PERSON), ForeignKey("persons.id"), nullable=False),
    Column("method", String(16), nullable=False),  # passkey | oidc
    Column("authenticator", String(40)),  # the one that opened it
    Column("acr", Text, nullable=False),
    Column("amr", Text, nullable=False),  # space separated
    Column("auth_ms", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Index("person_sessions_person_ix", "person"),
    Index("person_sessions_seen_ix", "seen_ms"),
)
