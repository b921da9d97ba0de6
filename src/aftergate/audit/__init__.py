"""Tamper-evident audit: canonical records, a Merkle tree over them, signed checkpoints, and their verification without server or network."""
