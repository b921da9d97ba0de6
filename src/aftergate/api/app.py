"""The ASGI application: limits, headers and counters around everything, a raw path for decisions, Litestar for the rest."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import chain, count
from typing import Any, Final

import structlog
from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide

from aftergate.api.auth import ONCE, Caller, Failures, Refused, guard, plain
from aftergate.api.evaluate import PATH, Evaluate
from aftergate.api.limits import HEADER_BYTES, Bounded, Patience, StrictRequest, refuse_length
from aftergate.api.metrics import Metrics
from aftergate.api.openapi import config
from aftergate.api.problems import HANDLERS, PROBLEM, problem_body
from aftergate.api.request_log import request_id_now
from aftergate.api.routes import all_routes
from aftergate.service.core import Core

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,200}")
HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
QUIET: Final = (b"cache-control", b"no-store")
CLOSED: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
STRICT: Final = (b"strict-transport-security", b"max-age=31536000")
# What is asked so often that its ordinary answers are counted and not written down; decisions are in the audit log.
COUNTED: Final = frozenset({PATH, "/healthz", "/readyz", "/metrics"})
PROBES: Final = frozenset({"/healthz", "/readyz"})  # asked by what watches the machine, and hold no secret
NOWHERE: Final = "(none)"


def create(core: Core) -> App:
    """The application for an open core."""
    failures = Failures(core.settings.failures_per_minute)
    metrics = Metrics(core)

    @asynccontextmanager
    async def lifespan(_app: Litestar) -> Any:
        core.start()
        try:
            yield
        finally:
            core.close()

    inner = Litestar(
        route_handlers=all_routes(),
        guards=[guard],
        exception_handlers=HANDLERS,
        dependencies={
            "core": Provide(lambda: core, sync_to_thread=False, use_cache=True),
            "caller": Provide(_caller, sync_to_thread=False),
        },
        state=State({"core": core, "failures": failures, "metrics": metrics}),
        lifespan=[lifespan],
        request_class=StrictRequest,
        request_max_body_size=None,  # `Bounded` counts, on every route
        openapi_config=config(),
        logging_config=None,
        debug=False,
    )
    return Outer(core, failures, metrics, inner)  # type: ignore[arg-type]  # Litestar's own names for the same ASGI types


def _caller(scope: Any) -> Caller:
    caller: Caller = scope["state"]["caller"]
    return caller


class Outer:
    """What every request passes: its id, the limits on it, the headers of its answer, and a line and a count of how it went."""

    def __init__(self, core: Core, failures: Failures, metrics: Metrics, inner: App) -> None:
        self._core = core
        self._inner = inner
        self._metrics = metrics
        self._proxied = bool(core.proxies) and not core.settings.tls_certificate
        self._strict = core.url.startswith("https://")
        self._evaluate = Evaluate(core, failures)
        self._limit = core.settings.body_limit_b
        self._patience = Patience()
        # What every decision carries: it sets neither of the two itself.
        self._always = [*HEADERS, QUIET, CLOSED, *([STRICT] if self._strict else [])]
        self._log = structlog.get_logger("aftergate.access")
        self._boot = secrets.token_hex(4)
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        began = time.perf_counter()
        headers = scope["headers"]
        once = dict(headers)
        refused: Refused | None = None
        if len(once) == len(headers):
            scope[ONCE] = once
            length = once.get(b"content-length")
            refused = None if length is None else refuse_length(length, self._limit)
        else:
            for name, value in headers:
                if name == b"content-length":
                    refused = refused or refuse_length(value, self._limit)
        if self._proxied and refused is None and scope["path"] not in PROBES:
            why = plain(self._core, scope)
            refused = Refused(403, why) if why else None
        if sum(map(len, chain.from_iterable(headers))) > HEADER_BYTES:
            refused = Refused(431, "the request's headers are larger than this server takes")
        given = once.get(b"x-request-id", b"")
        known = given and REQUEST_ID.fullmatch(given) is not None
        request_id = given.decode("ascii") if known else f"{self._boot}-{next(self._numbers)}"
        method: str = scope["method"]
        scope.setdefault("state", {})["request_id"] = request_id
        if refused is None and method == "POST" and scope["path"] == PATH:
            await self._decide(scope, receive, send, request_id, began)
        else:
            request_id_now.set(request_id)
            await self._pass_on(scope, receive, send, request_id, began, refused)

    async def _decide(self, scope: Scope, receive: Receive, send: Send, request_id: str, began: float) -> None:
        """The one route that is asked before every sensitive step: no framework and no layer around its messages."""
        status = 500
        try:
            status, body, headers = await self._evaluate(scope, receive)
            headers += self._always
            headers.append((b"x-request-id", request_id.encode("ascii")))
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        finally:
            if status >= 400:  # a line is written, and it names its request
                request_id_now.set(request_id)
            self._count(scope, "POST", PATH, status, began)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, request_id: str, began: float, refused: Refused | None) -> None:
        method: str = scope["method"]
        head = method == "HEAD"
        if head:  # as GET, without the body (RFC 9110, 9.3.2)
            scope["method"] = "GET"
        status = 500

        async def answer(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = self._headers(list(message.get("headers", ())), request_id)
            elif head:
                message = {**message, "body": b""}
            await send(message)

        try:
            if refused is not None:
                await _refuse(answer, refused)
            else:
                await self._inner(scope, Bounded(receive, self._limit, self._patience), answer)
        finally:
            asked = method == "POST" and scope["path"] == PATH
            self._count(scope, method, PATH if asked else scope.get("path_template") or NOWHERE, status, began)

    def _count(self, scope: Scope, method: str, route: str, status: int, began: float) -> None:
        seconds = time.perf_counter() - began
        self._metrics.request(method if route != NOWHERE else "", route, status, seconds)
        # INVARIANT: the route's form, never the path or the query as they came: either may hold a secret.
        if route not in COUNTED or status >= 400:
            caller = scope["state"].get("caller")
            self._log.info(
                "request",
                method=method[:16],
                route=route,
                status=status,
                ms=round(seconds * 1000, 1),
                caller=caller.id if caller else "",
            )

    def _headers(self, headers: list[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
        present = {name.lower() for name, _ in headers}
        headers += HEADERS
        if b"cache-control" not in present:
            headers.append(QUIET)
        if b"content-security-policy" not in present:
            headers.append(CLOSED)
        if self._strict:
            headers.append(STRICT)
        headers.append((b"x-request-id", request_id.encode("ascii")))
        return headers


async def _refuse(send: Send, refused: Refused) -> None:
    body = problem_body(refused.status, refused.message)
    headers = [(b"content-type", PROBLEM.encode()), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
