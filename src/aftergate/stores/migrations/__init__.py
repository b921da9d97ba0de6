"""Alembic revisions, run forward when a server opens its database."""
