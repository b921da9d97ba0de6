"""SQLite and PostgreSQL behind one set of tables: what the server must remember."""
