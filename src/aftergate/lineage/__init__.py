"""Lives of credentials and sessions, habits of identities, and how they hang together."""
