"""Which request a line of the log belongs to, and the net that keeps secrets out of it."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any, Final

from aftergate.events.redact import redact_text

KEYS: Final = re.compile(r"agk_[A-Za-z0-9_-]{8,}")

# A variable of our own: it is set once a request, also on the decision route, and threads that work for the request inherit it.
request_id_now: Final[ContextVar[str]] = ContextVar("request_id_now", default="")


def add_request_id(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A step of the log: adds `request`, when a request is being answered."""
    request_id = request_id_now.get()
    if request_id:
        event.setdefault("request", request_id)
    return event


def masked(text: str) -> str:
    """The text with what looks like a key, a token or a password masked."""
    return redact_text(KEYS.sub("agk_***", text))
