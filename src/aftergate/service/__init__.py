"""Use cases: what the server does, each in one database transaction with its audit record."""
