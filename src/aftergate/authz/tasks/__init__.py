"""Tasks: who may do what, for whom, until when; the tokens that carry it; and the algebra by which a derived right never exceeds its parent's.

`details.py` narrowing of rights (RFC 9396), `machine.py` the life of a task, `grants.py` what one exchange may give (RFC 8693), `tokens.py` the
tokens (RFC 9068, transaction tokens), `keys.py` signing keys and their rotation, `proofs.py` who is asking (SPIFFE, CI, private_key_jwt, OIDC),
`mcp.py` agents' tool calls (COAZ). All of it is pure: time, ids and keys are arguments.
"""
