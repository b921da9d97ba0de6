"""The expected "no" of everything about tasks and tokens."""

from __future__ import annotations

from msgspec import Struct


class Refusal(Struct, frozen=True):
    """Why not. `error` is the OAuth error code that a caller sees, `reason` one sentence without any secret in it."""

    error: str
    reason: str
