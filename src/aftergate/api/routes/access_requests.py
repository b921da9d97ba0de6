"""AuthZEN Access Request and Approval Profile: ask for an approval, follow the request, cancel it."""

from __future__ import annotations

from typing import Annotated, Any, Final

from litestar import Request, Response, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIType, Schema
from litestar.params import FromPath, Parameter

from aftergate.api.auth import Caller, header
from aftergate.api.certificates import client_thumbprint
from aftergate.api.openapi import reads
from aftergate.api.problems import Problem
from aftergate.authz.wire import body_of
from aftergate.service.approvals import Fault, Submission
from aftergate.service.approvals.following import POLL_S

REQUESTS: Final = "/access/v1/requests"
MAX_KEY: Final = 200
TITLES: Final = {
    "not_requestable": "Access is not requestable",
    "expired_denial": "The denial is too old to ask on",
    "invalid_denial_binding": "The request is not bound to a denial of this server",
    "duplicate_request": "The Idempotency-Key was used for another request",
    "unknown_task": "No such request",
    "task_expired": "The request is over",
    "invalid_task_state": "The request is decided",
}
Id = Annotated[FromPath[str], Parameter(max_length=64)]


_OBJECT: Final = Schema(type=OpenAPIType.OBJECT)
_TEXT: Final = Schema(type=OpenAPIType.STRING)
_MEMBERS: Final = dict.fromkeys(("subject", "resource", "action", "context", "denial", "requested_access", "callback", "client"), _OBJECT)
_ITEMS: Final = Schema(type=OpenAPIType.ARRAY, items=_OBJECT, min_items=1)
_Submission = reads(
    {"application/json": Schema(type=OpenAPIType.OBJECT, properties={**_MEMBERS, "items": _ITEMS}, required=["subject"])},
)
_Cancelling = reads(
    {"application/json": Schema(type=OpenAPIType.OBJECT, properties={"reason": _TEXT, "comment": _TEXT})},
    required=False,
)


def refused(fault: Fault) -> Problem:
    return Problem(fault.status, TITLES.get(fault.fault, fault.message), type=fault.type, detail=fault.message)


def answer(core: Any, approval: Any, *, fresh: bool = False) -> Response[dict[str, Any]]:
    made = core.approvals.task(approval)
    task = made["task"]
    headers = {"retry-after": str(POLL_S)} if task["status"] == "pending" else {}
    if not fresh:
        return Response(made, headers=headers)
    return Response(made, status_code=202 if task["status"] == "pending" else 201, headers={**headers, "location": task["status_endpoint"]})


@post(
    REQUESTS,
    opt={"scope": "request"},
    status_code=202,
    sync_to_thread=True,
    tags=["Access requests"],
    operation_class=_Submission,
    responses={201: ResponseSpec(dict[str, Any], generate_examples=False, description="It is decided")},
)
def submit(core: Any, caller: Caller, request: Request[Any, Any, Any], body: bytes) -> Response[dict[str, Any]]:
    """Ask for the approval that a denial offered. 202: it waits for people; 201: it is decided.

    The body is that of the profile: subject, resource and action (or items), context, denial with its binding_token, requested_access, callback, client.
    `Idempotency-Key` makes a repetition safe. The approval is bound to the key of the `DPoP` proof sent along, or to the one that
    `requested_access["urn:aftergate:executor"]` names.
    """
    scope = request.scope
    if header(scope, b"content-type").partition(";")[0].strip().lower() != "application/json":
        raise Problem(415, "send application/json")
    key = header(scope, b"idempotency-key")
    if len(key) > MAX_KEY:
        raise Problem(400, f"an Idempotency-Key has up to {MAX_KEY} characters")
    person = caller.kind == "person"
    given = Submission(
        body_of(body, max_bytes=core.settings.body_limit_b, max_depth=core.settings.depth_limit),
        caller.id,
        caller.actor(),
        caller.id if person else "",
        caller.session if person else "",
        key,
        header(scope, b"dpop"),
        client_thumbprint(core, scope),
    )
    try:
        return answer(core, core.approvals.submit(given, core.clock()), fresh=True)
    except Fault as fault:
        raise refused(fault) from fault


@get(REQUESTS + "/{request_id:str}", opt={"scope": "request"}, sync_to_thread=True, tags=["Access requests"])
def status(core: Any, caller: Caller, request_id: Id) -> Response[dict[str, Any]]:
    """How a request stands. Only callers of the denial or of the request are told; `Retry-After` says when to ask again."""
    try:
        return answer(core, core.approvals.look(request_id, caller.id, core.clock()))
    except Fault as fault:
        raise refused(fault) from fault


@post(
    REQUESTS + "/{request_id:str}/cancel",
    opt={"scope": "request"},
    status_code=200,
    sync_to_thread=True,
    tags=["Access requests"],
    operation_class=_Cancelling,
)
def cancel(core: Any, caller: Caller, request_id: Id, body: bytes) -> Response[dict[str, Any]]:
    """Take back a request that nobody has decided. The body is optional: `reason`, a code, and `comment`, for people."""
    held = body_of(body, max_bytes=core.settings.body_limit_b) if body else {}
    words = [held[name] for name in ("reason", "comment") if isinstance(held.get(name), str)]
    try:
        done = core.approvals.cancel(request_id, caller.id, caller.actor(), ": ".join(words)[:500], core.clock())
    except Fault as fault:
        raise refused(fault) from fault
    return answer(core, done)


ROUTES = [submit, status, cancel]
