"""What a request may cost: its body's size and time on every route, and the shape of its JSON on our own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Final

from litestar import Request

from aftergate.api.auth import Refused
from aftergate.authz import strict_json
from aftergate.authz.errors import BadRequest

BODY_S: Final = 20.0  # a request's whole body arrives within this time
HEADER_BYTES: Final = 32 * 1024
HEADER_MS: Final = 10_000
TOO_LARGE: Final = "the request's body is larger than this server takes"
TOO_SLOW: Final = "the request's body did not arrive in time"

Receive = Callable[[], Awaitable[dict[str, Any]]]


class Patience:
    """Ends reads that take too long. One look a second over all of them costs a request nothing; a timer for each would cost more than its body."""

    def __init__(self, look_s: float = 1.0) -> None:
        self._look_s = look_s
        self._reading: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._looking = False

    async def read(self, receive: Receive, until: float) -> dict[str, Any]:
        """The next message, by the loop's time `until` or at most a look later. Raises: Refused (408)."""
        task = asyncio.current_task()
        assert task is not None
        self._begin(task, until)
        try:
            return await receive()
        except asyncio.CancelledError:
            self._given_up(task)
            raise
        finally:
            self._end(task)

    async def body(self, receive: Receive, limit: int) -> bytes:
        """A whole body, as `Bounded` would hand it over in messages: for the route that must not pay for a layer around each of them.

        Raises: Refused (413, 408); BadRequest, if the caller went away.
        """
        task = asyncio.current_task()
        assert task is not None
        until = monotonic() + BODY_S  # the loop's time, without asking for the loop
        self._begin(task, until)
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise BadRequest("the request ended early")
                part: bytes = message.get("body", b"")
                size += len(part)
                if size > limit:
                    raise Refused(413, TOO_LARGE)
                if not message.get("more_body"):
                    return b"".join([*parts, part]) if parts else part
                parts.append(part)
                if until <= monotonic():
                    raise Refused(408, TOO_SLOW)
        except asyncio.CancelledError:
            self._given_up(task)
            raise
        finally:
            self._end(task)

    def _begin(self, task: asyncio.Task[Any], until: float) -> None:
        self._reading[task] = until
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(self._look_s, self._look)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._reading.pop(task, None)
        if self._late:
            self._late.discard(task)

    def _given_up(self, task: asyncio.Task[Any]) -> None:
        """Raises: Refused (408), if it was we who ended this read; else the server stops, or the caller went away."""
        if task in self._late:
            task.uncancel()
            raise Refused(408, TOO_SLOW) from None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task, until in list(self._reading.items()):
            if until <= now and task not in self._late:
                self._late.add(task)
                task.cancel()
        self._looking = bool(self._reading)
        if self._looking:
            loop.call_later(self._look_s, self._look)


class Bounded:
    """A request's `receive` that counts and does not wait for ever, whether the body came with a length or in chunks."""

    __slots__ = ("_left", "_patience", "_receive", "_until")

    def __init__(self, receive: Receive, limit: int, patience: Patience) -> None:
        self._receive = receive
        self._left = limit
        self._patience = patience
        self._until = 0.0

    async def __call__(self) -> dict[str, Any]:
        """Raises: Refused, 413 or 408."""
        now = asyncio.get_running_loop().time()
        if not self._until:
            self._until = now + BODY_S
        elif self._until <= now:
            raise Refused(408, TOO_SLOW)
        message = await self._patience.read(self._receive, self._until)
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise Refused(413, TOO_LARGE)
            if not message.get("more_body"):
                self._until = float("inf")  # what comes now is only that the caller went away
        return message


def refuse_length(value: bytes, limit: int) -> Refused | None:
    """What is wrong with a `Content-Length`, before any of the body is read."""
    if not value.isdigit() or len(value) > 15:
        return Refused(400, "the content length is not a number")
    return Refused(413, TOO_LARGE) if int(value) > limit else None


class StrictRequest(Request[Any, Any, Any]):
    """A request whose JSON is read as strictly as a decision's: names once, bounded depth, numbers that a double holds."""

    async def json(self) -> Any:
        """Raises: BadRequest."""
        body = await self.body()
        if not body:
            return None
        settings = self.app.state.core.settings
        return strict_json.decode(body, max_bytes=settings.body_limit_b, max_depth=settings.depth_limit)
