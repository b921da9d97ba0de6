"""Answers that say no: `application/problem+json` (RFC 9457) on our own routes, the standard's form on a standard's."""

from __future__ import annotations

from typing import Any

import msgspec
import structlog
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, ValidationException

from aftergate.api.auth import Refused
from aftergate.api.request_log import masked
from aftergate.errors import AftergateError
from aftergate.stores.errors import StoreUnavailable

log = structlog.get_logger("aftergate")
PROBLEM = "application/problem+json"


class Problem(AftergateError):
    """A refusal that a route answers with: status, `type` (a URN, or about:blank), title, and members of its own."""

    code = "problem"

    def __init__(
        self,
        status: int,
        title: str,
        *,
        type: str = "about:blank",  # noqa: A002  RFC 9457's word
        detail: str = "",
        headers: dict[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(title)
        self.status = status
        self.body: dict[str, Any] = {"type": type, "title": title, "status": status, **({"detail": detail} if detail else {}), **members}
        self.headers = headers or {}


def problem_body(status: int, title: str) -> bytes:
    """The same where no framework is in between."""
    return msgspec.json.encode({"type": "about:blank", "title": title, "status": status})


def problem(status: int, title: str, *, headers: dict[str, str] | None = None, **members: Any) -> Response[dict[str, Any]]:
    body = {"type": "about:blank", "title": title, "status": status, **members}
    return Response(body, status_code=status, media_type=PROBLEM, headers=headers)


def on_refused(_request: Request[Any, Any, Any], error: Refused) -> Response[dict[str, Any]]:
    return problem(error.status, error.message, headers=error.headers)


def on_problem(_request: Request[Any, Any, Any], error: Problem) -> Response[dict[str, Any]]:
    return Response(error.body, status_code=error.status, media_type=PROBLEM, headers=error.headers)


def on_unavailable(_request: Request[Any, Any, Any], error: StoreUnavailable) -> Response[dict[str, Any]]:
    log.error("store unavailable", problem=error.message)
    return problem(
        503, "the server cannot record or look up what this needs, so it does not answer", headers={"retry-after": "2"}, code=error.code
    )


def on_aftergate(_request: Request[Any, Any, Any], error: AftergateError) -> Response[dict[str, Any]]:
    return problem(400, masked(error.message), code=error.code, where=error.where, advice=error.advice())


def on_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, Any]]:
    if error.status_code >= 500:
        return on_defect(request, error)
    members: dict[str, Any] = {}
    if isinstance(error, ValidationException) and error.extra:
        # Which member is wrong and why; never the value that was sent, which may be a secret. A name that was sent may be one too.
        members["errors"] = [
            {k: masked(str(v)) for k, v in each.items() if k in {"key", "message", "source"}}
            for each in error.extra
            if isinstance(each, dict)
        ]
    return problem(error.status_code, error.detail or "the request cannot be answered", headers=dict(error.headers or {}), **members)


def on_defect(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    log.error("internal error", route=request.scope.get("path_template"), error=type(error).__name__, exc_info=error)
    return problem(500, "an internal error; the server's log has it under this request's id")


HANDLERS: Any = {
    Refused: on_refused,
    Problem: on_problem,
    StoreUnavailable: on_unavailable,
    AftergateError: on_aftergate,
    HTTPException: on_http,
    Exception: on_defect,
}
MEDIA = MediaType.JSON
