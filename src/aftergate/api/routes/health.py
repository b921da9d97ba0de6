"""Whether the server lives, and whether it can answer."""

from __future__ import annotations

from typing import Any

from litestar import Response, get
from msgspec import Struct

from aftergate import __version__
from aftergate.api.auth import PUBLIC
from aftergate.service.core import BLOCKING


class Health(Struct):
    status: str
    version: str


class Readiness(Struct):
    status: str
    parts: list[str]


class Status(Struct):
    version: str
    problems: dict[str, str]


@get("/healthz", opt={"scope": PUBLIC}, sync_to_thread=False)
def healthz() -> Health:
    """The process lives."""
    return Health("ok", __version__)


@get("/readyz", opt={"scope": PUBLIC}, sync_to_thread=False)
def readyz(core: Any) -> Response[Readiness]:
    """The server can decide and record; if not, 503 and which parts cannot. Their errors are in the log and under /v1/status."""
    found = sorted(BLOCKING.intersection(core.health()))
    return Response(Readiness("not ready" if found else "ready", found), status_code=503 if found else 200)


@get("/v1/status", opt={"scope": ("admin", "metrics")}, sync_to_thread=False)
def status(core: Any) -> Status:
    """What is wrong now, by part, in words."""
    return Status(__version__, core.health())


ROUTES = [healthz, readyz, status]
