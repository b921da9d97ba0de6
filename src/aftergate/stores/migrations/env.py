"""Alembic's entry: the connection comes from `Database.open`, never from a file."""

from __future__ import annotations

from alembic import context

from aftergate.stores.tables import all_tables

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=all_tables(),
    render_as_batch=connection.dialect.name == "sqlite",
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
