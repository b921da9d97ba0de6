"""`POST /access/v1/evaluation` without a framework in between: the one route that is asked before every sensitive step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from aftergate.api.auth import Caller, Failures, Refused, allow, authenticate, header
from aftergate.api.certificates import client_thumbprint
from aftergate.authz.errors import BadRequest
from aftergate.authz.wire import parse_evaluation
from aftergate.service.decisions import Answer, Asker
from aftergate.stores.errors import StoreUnavailable

if TYPE_CHECKING:
    from aftergate.service.core import Core

log = structlog.get_logger("aftergate")
PATH: Final = "/access/v1/evaluation"
SCOPE: Final = "decide"
REMEMBERED: Final = 4096  # parsed bodies
LONGEST_REMEMBERED: Final = 2048  # bytes
JSON: Final = (b"content-type", b"application/json")
UNAVAILABLE: Final = "the server cannot record its answers at present, so it gives none"
DEFECT: Final = "an internal error; the server's log has it under this request's id"
_ENCODE = msgspec.json.Encoder().encode

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Evaluate:
    """A raw ASGI application for the one path. Errors are a message string in JSON, as AuthZEN asks."""

    def __init__(self, core: Core, failures: Failures) -> None:
        self._core = core
        self._failures = failures
        self._parse = partial(parse_evaluation, max_bytes=core.settings.body_limit_b, max_depth=core.settings.depth_limit)
        # The same bytes are the same request, which nobody writes into. Faults are not remembered.
        self._parsed = lru_cache(maxsize=REMEMBERED)(self._parse)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        try:
            caller = await self._caller(scope)
            json_only(scope)
            body = await _read(receive)
            request = self._parsed(body) if len(body) <= LONGEST_REMEMBERED else self._parse(body)
            asker = asker_of(self._core, caller, scope)
            decider = self._core.decider
            while decider.log.crowded:  # noqa: ASYNC110  the writer needs the interpreter, not a message: this gives it its turn
                await asyncio.sleep(0.005)
            if decider.is_plain(request):
                answer = decider.answer_plain(request, asker, body)
                if answer.durable is not None:
                    await asyncio.wrap_future(answer.durable)
            else:
                answer = await asyncio.to_thread(decider.evaluate, request, asker, body)
            await _send(send, 200, _ENCODE(wire_of(answer)))
        except BadRequest as error:
            await _send(send, 400, _ENCODE(error.message))
        except Refused as error:
            extra = [(name.encode(), value.encode("latin-1", "replace")) for name, value in error.headers.items()]
            await _send(send, error.status, _ENCODE(error.message), extra)
        except StoreUnavailable as error:
            log.error("no decision", problem=error.message)  # noqa: TRY400  no trace: the database is away, not the code wrong
            await _send(send, 503, _ENCODE(UNAVAILABLE), [(b"retry-after", b"2")])
        except Exception:
            log.exception("no decision")
            await _send(send, 500, _ENCODE(DEFECT))

    async def _caller(self, scope: dict[str, Any]) -> Caller:
        if self._core.settings.caller_issuer:
            # An access token may need the issuer's keys: that is not waited for on the event loop.
            caller = await asyncio.to_thread(authenticate, self._core, self._failures, scope)
        else:
            caller = authenticate(self._core, self._failures, scope)
        allow(caller, SCOPE)
        return caller


def json_only(scope: Any) -> None:
    """Raises: BadRequest, unless the body is said to be JSON (in UTF-8, where a charset is named)."""
    kind, _, parameters = header(scope, b"content-type").partition(";")
    if kind.strip().lower() != "application/json":
        raise BadRequest("the content type must be application/json")
    name, _, value = parameters.partition("=")
    if name.strip().lower() == "charset" and value.strip(' "').lower() not in {"utf-8", "utf8"}:
        raise BadRequest("JSON is sent in UTF-8")


def asker_of(core: Core, caller: Caller, scope: Any, batch: str = "") -> Asker:
    """The caller as the decider knows it, with what shows that it holds a key."""
    proof = header(scope, b"dpop")
    x5t = client_thumbprint(core, scope) if core.settings.trusted_proxies else ""
    return Asker(
        caller.id, caller.actor(), scope["state"].get("request_id", ""), scope["method"], (core.url + scope["path"],), proof, x5t, batch
    )


def wire_of(answer: Answer) -> dict[str, Any]:
    """The answer as AuthZEN writes it."""
    return {"decision": answer.allowed, "context": answer.context} if answer.context else {"decision": answer.allowed}


async def _read(receive: Receive) -> bytes:
    """The body; `receive` itself refuses one that is too long or too slow (`aftergate.api.limits`). Raises: BadRequest, if the caller went away."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise BadRequest("the request ended early")
        part = message.get("body", b"")
        if not message.get("more_body"):
            return b"".join([*parts, part]) if parts else part
        parts.append(part)


async def _send(send: Send, status: int, body: bytes, extra: list[tuple[bytes, bytes]] | None = None) -> None:
    headers = [JSON, (b"content-length", b"%d" % len(body)), *(extra or ())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
