"""Numbers for Prometheus, and the messages that wait or were given up."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Response, get, post
from litestar.datastructures import State
from litestar.exceptions import NotFoundException
from litestar.params import Parameter
from msgspec import Struct

from aftergate.api.auth import Caller
from aftergate.api.metrics import CONTENT_TYPE
from aftergate.audit.records import Record
from aftergate.authz.transactions.objects import rfc3339
from aftergate.service import outbox


class Message(Struct):
    """A message that is not out yet. Its content belongs to the request it tells of and is not shown."""

    number: int
    kind: str
    created: str
    next_try: str
    attempts: int
    problem: str


class Messages(Struct):
    messages: list[Message]


@get("/metrics", opt={"scope": "metrics"}, sync_to_thread=True, media_type="text/plain", tags=["Operations"])
def metrics(state: State) -> Response[bytes]:
    """Numbers in Prometheus' text format."""
    return Response(state.metrics.text(), headers={"content-type": CONTENT_TYPE})


@get("/v1/messages", opt={"scope": "admin"}, sync_to_thread=True, tags=["Operations"])
def messages(core: Any, failed: bool = True, limit: Annotated[int, Parameter(ge=1, le=1000)] = 100) -> Messages:
    """Messages that were given up (or, with `failed=false`, that wait), newest first."""
    with core.db.read() as connection:
        held = outbox.listed(connection, failed=failed, limit=limit)
    return Messages(
        [Message(row.number, row.kind, rfc3339(row.created_ms), rfc3339(row.next_ms), row.attempts, row.problem or "") for row in held]
    )


@post("/v1/messages/{number:int}/retry", opt={"scope": "admin"}, status_code=204, sync_to_thread=True, tags=["Operations"])
def retry(core: Any, caller: Caller, number: int) -> None:
    """Try a message that was given up again, from the beginning."""
    with core.db.write() as connection:
        if number >= 1 << 63 or not outbox.again(connection, number, core.clock()):
            raise NotFoundException("no message with this number was given up")
        core.audit.append(connection, [Record("admin.message.retried", actor=caller.actor(), detail={"message": number})])


ROUTES = [metrics, messages, retry]
