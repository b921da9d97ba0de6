"""`POST /access/v1/evaluation` without a framework in between: the one route that is asked before every sensitive step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from aftergate.api.auth import ONCE, Caller, Failures, Refused, allow, authenticate, authenticated, header
from aftergate.api.certificates import client_thumbprint
from aftergate.api.limits import Patience
from aftergate.api.request_log import request_id_now
from aftergate.authz.answer import wire
from aftergate.authz.errors import BadRequest
from aftergate.authz.wire import parse_evaluation
from aftergate.service.decisions import Answer, Asker, Known
from aftergate.stores.errors import StoreUnavailable, ValueRefused

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
Headers = list[tuple[bytes, bytes]]
Reply = tuple[int, bytes, Headers]


class Evaluate:
    """The answer to a request for the one path. Errors are a message string in JSON, as AuthZEN asks."""

    def __init__(self, core: Core, failures: Failures) -> None:
        self._core = core
        self._failures = failures
        self._limit = core.settings.body_limit_b
        self._patience = Patience()
        self._proxied = bool(core.settings.trusted_proxies)
        # The same bytes are the same request, which nobody writes into. Faults are not remembered.
        self._known = lru_cache(maxsize=REMEMBERED)(self._parse)

    def _parse(self, body: bytes) -> Known:
        """Raises: BadRequest."""
        settings = self._core.settings
        return Known(parse_evaluation(body, max_bytes=settings.body_limit_b, max_depth=settings.depth_limit), body)

    async def __call__(self, scope: dict[str, Any], receive: Receive) -> Reply:
        """Raises nothing but what ends the task."""
        try:
            asker = self._recalled(scope)
            caller: Caller | None = None
            if asker is None:
                _named(scope)
                caller = await self._caller(scope)
            json_only(scope)
            body = await self._patience.body(receive, self._limit)
            known = self._known(body) if len(body) <= LONGEST_REMEMBERED else self._parse(body)
            decider = self._core.decider
            while decider.log.crowded:  # noqa: ASYNC110  the writer needs the interpreter, not a message: this gives it its turn
                await asyncio.sleep(0.005)
            if known.plain:
                told, durable = decider.told(known, asker or asker_of(self._core, caller or self._key(scope), scope))
                if durable is not None:
                    await asyncio.wrap_future(durable)
                return _reply(200, told)
            _named(scope)
            whole = asker_of(self._core, caller or self._key(scope), scope)
            answer = await asyncio.to_thread(decider.evaluate, known.request, whole, body)
            return _reply(200, _ENCODE(wire_of(answer)))
        except (BadRequest, ValueRefused) as error:
            return _reply(400, _ENCODE(error.message))
        except Refused as error:
            extra = [(name.encode(), value.encode("latin-1", "replace")) for name, value in error.headers.items()]
            return _reply(error.status, _ENCODE(error.message), extra)
        except StoreUnavailable as error:
            _named(scope)
            log.error("no decision", problem=error.message)  # noqa: TRY400  no trace: the database is away, not the code wrong
            return _reply(503, _ENCODE(UNAVAILABLE), [(b"retry-after", b"2")])
        except Exception:
            _named(scope)
            log.exception("no decision")
            return _reply(500, _ENCODE(DEFECT))

    def _recalled(self, scope: dict[str, Any]) -> Asker | None:
        """A caller who came with the same key before, if that is all there is to know of it: what proves that it holds another key is for approvals.

        Raises: Refused (403).
        """
        once = scope.get(ONCE)
        if once is None or self._proxied:
            return None
        held = self._core.keys.recalled(once.get(b"authorization", b""), self._core.clock())
        if held is None:
            return None
        key, actor = held
        if SCOPE not in key.scopes:
            return None
        return Asker(key.id, actor, scope["state"]["request_id"])

    def _key(self, scope: dict[str, Any]) -> Caller:
        caller = authenticate(self._core, self._failures, scope)
        allow(caller, SCOPE)
        return caller

    async def _caller(self, scope: dict[str, Any]) -> Caller:
        caller = await authenticated(self._core, self._failures, scope)
        allow(caller, SCOPE)
        return caller


def _named(scope: dict[str, Any]) -> None:
    """Let the log's lines name the request. Most decisions write none, and that is not worth a variable for each."""
    request_id_now.set(scope["state"]["request_id"])


def json_only(scope: Any) -> None:
    """Raises: BadRequest, unless the body is said to be JSON (in UTF-8, where a charset is named)."""
    said = header(scope, b"content-type")
    if said == "application/json":
        return
    kind, _, parameters = said.partition(";")
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
    return wire(answer.allowed, answer.context)


def _reply(status: int, body: bytes, extra: Headers | None = None) -> Reply:
    headers = [JSON, (b"content-length", b"%d" % len(body))]
    return status, body, [*headers, *extra] if extra else headers
