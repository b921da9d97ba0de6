"""Tasks: declare, start, look at, complete, cancel, kill. Callers prove themselves by API key, JWT-SVID, CI token, client assertion or a task's token."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery, Parameter
from msgspec import Meta, Struct

from aftergate.api.auth import OWN, Refused
from aftergate.api.openapi import reads
from aftergate.api.presenting import known, presented
from aftergate.api.problems import Problem
from aftergate.authz import strict_json
from aftergate.authz.errors import BadRequest
from aftergate.authz.tasks import details as d
from aftergate.authz.tasks import machine as m
from aftergate.authz.tasks.answers import Refusal
from aftergate.authz.transactions.objects import from_rfc3339, rfc3339
from aftergate.service.tasks import Asking, Presented, life

TASKS: Final = "/v1/tasks"
STATUS: Final = {
    "invalid_client": 401, "unknown_task": 404, "invalid_task_state": 409, "approval_pending": 409, "access_denied": 403,
    "unauthorized_client": 403, "insufficient_scope": 403,
}  # fmt: skip
Id = Annotated[FromPath[str], Parameter(max_length=64)]
Text = Annotated[str, Meta(min_length=1, max_length=512)]


class Entity(Struct, forbid_unknown_fields=True):
    type: Text
    id: Text


class NewTask(Struct, forbid_unknown_fields=True):
    """Either `actions` (with `resources`, none means any), or `tools` of an MCP `server`, or `authorization_details` in full.

    `until` (RFC 3339) or `ttl_s`; neither takes the longest that is allowed. `floor` is the trust below which the task dies. `session_id` and
    `credential_id` are those of findings, so that trust in them counts. `request_approval` asks for the approval that the policies want.
    """

    purpose: Annotated[str, Meta(min_length=1, max_length=m.MAX_PURPOSE)]
    actions: Annotated[list[Text], Meta(max_length=256)] = []
    resources: Annotated[list[Entity], Meta(max_length=256)] = []
    tools: Annotated[list[Text], Meta(max_length=256)] = []
    server: Annotated[str, Meta(max_length=512)] = ""
    locations: Annotated[list[Text], Meta(max_length=32)] = []
    authorization_details: Annotated[list[dict[str, Any]], Meta(max_length=32)] | None = None
    on_behalf_of: Entity | None = None
    until: str | None = None
    ttl_s: Annotated[int, Meta(ge=1, le=31_536_000)] | None = None
    floor: Annotated[int, Meta(ge=0, le=100)] | None = None
    parent: Annotated[str, Meta(max_length=64)] = ""
    session_id: Annotated[str, Meta(max_length=512)] = ""
    credential_id: Annotated[str, Meta(max_length=512)] = ""
    request_approval: bool = False


class Start(Struct, forbid_unknown_fields=True):
    """`approval` as in AuthZEN's `context.approval`; without it the one that `request_approval` asked for."""

    approval: dict[str, Any] | None = None


class End(Struct, forbid_unknown_fields=True):
    reason: Annotated[str, Meta(max_length=500)] = ""


class Kill(Struct, forbid_unknown_fields=True):
    """One of: a task, everything of and for somebody, or all tokens that came from one foreign subject token."""

    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    task: Annotated[str, Meta(max_length=64)] = ""
    principal: Entity | None = None
    issuer: Annotated[str, Meta(max_length=512)] = ""
    jti: Annotated[str, Meta(max_length=512)] = ""


def no(refusal: Refusal) -> Problem:
    headers = {"www-authenticate": 'Bearer realm="aftergate"'} if refusal.error == "invalid_client" else {}
    return Problem(STATUS.get(refusal.error, 400), refusal.reason, headers=headers, error=refusal.error)


def asked(
    core: Any, request: Request[Any, Any, Any], *, spend: bool = True, scopes: frozenset[str] = frozenset({"tasks", "admin"})
) -> tuple[Asking, Presented]:
    """Who asks, with one of the scopes. Raises: Problem, Refused."""
    shown = presented(core, request, spend=spend)
    if not shown.authorization and b"cookie" not in {name for name, _ in request.scope["headers"]}:
        raise Refused(401, "no key or token was given: send `Authorization: Bearer ...`")
    found = known(core, request, shown)
    if isinstance(found, Refusal):
        raise no(found)
    if not found.scopes & scopes:
        wanted = min(scopes - {"admin"})
        raise Refused(403, f"this caller lacks the scope `{wanted}`", scope=wanted)
    return found, shown


def view(task: m.Task) -> dict[str, Any]:
    """A task as the API shows it. Times are RFC 3339."""
    made: dict[str, Any] = {
        "id": task.id,
        "state": task.state.value,
        "who": {"type": task.who.type, "id": task.who.id},
        "purpose": task.purpose,
        "actions": sorted(task.scope),
        "authorization_details": [dict(detail) for detail in task.details],
        "created": rfc3339(task.created_ms),
        "until": rfc3339(task.until_ms),
        "floor": task.floor,
        "proved_by": task.proof,
    }
    if task.on_behalf_of is not None:
        made["on_behalf_of"] = {"type": task.on_behalf_of.type, "id": task.on_behalf_of.id}
    if task.parent is not None:
        made["parent"] = task.parent
    if task.ended_ms is not None:
        made |= {"ended": rfc3339(task.ended_ms), "reason": task.reason}
    return made


def _wanted(core: Any, body: NewTask) -> life.Wanted:
    """Raises: Problem."""
    if sum(map(bool, (body.actions, body.tools, body.authorization_details))) != 1:
        raise Problem(400, "give one of `actions`, `tools` or `authorization_details`", error="invalid_request")
    if body.tools:
        raw: Any = [{"type": d.TASK, "actions": body.tools, "resource_type": "tool"}]
    elif body.actions:
        raw = d.of_actions(body.actions, [(each.type, each.id) for each in body.resources])
    else:
        raw = body.authorization_details
    locations = body.locations or ([body.server] if body.server else [])
    if locations and body.authorization_details is None:
        raw = [{**detail, "locations": locations} for detail in raw]
    details = d.parse(raw, core.tasks.known.types)
    if isinstance(details, Refusal):
        raise no(details)
    if body.until is not None and body.ttl_s is not None:
        raise Problem(400, "give `until` or `ttl_s`", error="invalid_request")
    try:
        until_ms = from_rfc3339(body.until) if body.until is not None else None
    except ValueError as error:
        raise Problem(400, "`until` is not an RFC 3339 time", error="invalid_request") from error
    if body.ttl_s is not None:
        until_ms = core.clock() + body.ttl_s * 1000
    return life.Wanted(
        purpose=body.purpose,
        details=details,
        on_behalf_of=m.Principal(body.on_behalf_of.type, body.on_behalf_of.id) if body.on_behalf_of is not None else None,
        until_ms=until_ms,
        floor=body.floor,
        parent=body.parent,
        session=body.session_id,
        credential=body.credential_id,
        request_approval=body.request_approval,
    )


def _answer(made: life.Made | life.Denied | Refusal) -> Response[dict[str, Any]]:
    """201 active, 202 waiting for its approval. Raises: Problem."""
    if isinstance(made, Refusal):
        raise no(made)
    if isinstance(made, life.Denied):
        said = made.answer.context.get("reason_user", {}).get("403", "the policies deny it")
        headers = {"www-authenticate": made.answer.context["challenge"]} if "challenge" in made.answer.context else {}
        raise Problem(403, said, headers=headers, error="access_denied", context=made.answer.context)
    shown = view(made.task)
    if made.task.state is m.State.ACTIVE:
        return Response(shown, status_code=201, headers={"location": f"{TASKS}/{made.task.id}"})
    shown["access_request"] = made.answer.context["access_request"]
    if made.approval_task is not None:
        shown["approval"] = made.approval_task
    return Response(shown, status_code=202, headers={"location": f"{TASKS}/{made.task.id}"})


@post(
    TASKS,
    opt={"scope": OWN},
    status_code=201,
    sync_to_thread=True,
    tags=["Tasks"],
    responses={202: ResponseSpec(dict[str, Any], generate_examples=False, description="Declared; it waits for an approval")},
)
def create(core: Any, request: Request[Any, Any, Any], data: NewTask) -> Response[dict[str, Any]]:
    """Declare a task. The policies are asked (`task.start`): 201, it is active; 202, it waits for an approval; 403, denied, with what would change it."""
    asking, shown = asked(core, request)
    return _answer(core.tasks.create(asking, _wanted(core, data), shown, core.clock()))


def _step(name: str, body: type[Struct]) -> post:
    """The route of a step in a task's life, whose body may be missing."""
    return post(
        f"{TASKS}/{{task_id:str}}/{name}",
        opt={"scope": OWN},
        status_code=200,
        sync_to_thread=True,
        tags=["Tasks"],
        operation_class=reads({"application/json": body}, required=False),
    )


@_step("start", Start)
def start(core: Any, request: Request[Any, Any, Any], task_id: Id, body: bytes) -> Response[dict[str, Any]]:
    """Start a proposed task with its approval, which is used up. The key that the approval names proves itself (DPoP or client certificate)."""
    asking, shown = asked(core, request, spend=False)
    data = _optional(body, Start)
    made = core.tasks.start(asking, task_id, data.approval, shown, core.clock())
    answer = _answer(made)
    answer.status_code = 200
    return answer


def _optional(body: bytes, kind: Any) -> Any:
    """A body that may be missing. Raises: Problem."""
    if not body:
        return kind()
    try:
        return msgspec.convert(strict_json.decode(body), kind)
    except (BadRequest, msgspec.ValidationError) as error:
        raise Problem(400, f"the body is not as it should be: {error}", error="invalid_request") from None


@get(TASKS, opt={"scope": OWN}, sync_to_thread=True, tags=["Tasks"])
def listed(
    core: Any,
    request: Request[Any, Any, Any],
    in_state: Annotated[m.State | None, Parameter(query="state")] = None,
    everybody: FromQuery[bool] = False,
    before: Annotated[FromQuery[str | None], Parameter(description="RFC 3339: only tasks declared before then")] = None,
    limit: Annotated[FromQuery[int], Parameter(ge=1, le=500)] = 100,
) -> dict[str, Any]:
    """Tasks, newest first: one's own; with `everybody` all (scope `admin`)."""
    asking, _ = asked(core, request)
    if everybody and not asking.admin:
        raise Refused(403, "this caller lacks the scope `admin`", scope="admin")
    try:
        before_ms = from_rfc3339(before) if before else None
    except ValueError as error:
        raise Problem(400, "`before` is not an RFC 3339 time", error="invalid_request") from error
    held = core.tasks.listed(asking, everything=everybody, state=in_state.value if in_state else None, before_ms=before_ms, limit=limit)
    return {"tasks": [view(task) for task in held]}


@get(TASKS + "/{task_id:str}", opt={"scope": OWN}, sync_to_thread=True, tags=["Tasks"])
def show(core: Any, request: Request[Any, Any, Any], task_id: Id) -> dict[str, Any]:
    """One task, as it is now. A proposed one whose approval was asked for in its name shows how that stands."""
    asking, _ = asked(core, request)
    task = core.tasks.find(asking, task_id, core.clock())
    if task is None:
        raise no(Refusal("unknown_task", "no such task"))
    shown = view(task)
    if task.approval:
        shown["approval"] = core.tasks.approval_state(asking, task, core.clock())
    return shown


def _finish(core: Any, request: Request[Any, Any, Any], task_id: str, state: m.State, body: bytes) -> dict[str, Any]:
    asking, _ = asked(core, request)
    done = core.tasks.finish(asking, task_id, state, _optional(body, End).reason, core.clock())
    if isinstance(done, Refusal):
        raise no(done)
    return view(done)


@_step("complete", End)
def complete(core: Any, request: Request[Any, Any, Any], task_id: Id, body: bytes) -> dict[str, Any]:
    """The work is done: the task ends, and with it every task below it and every token of theirs."""
    return _finish(core, request, task_id, m.State.COMPLETED, body)


@_step("cancel", End)
def cancel(core: Any, request: Request[Any, Any, Any], task_id: Id, body: bytes) -> dict[str, Any]:
    """Call a task off; it ends as it would when completed."""
    return _finish(core, request, task_id, m.State.CANCELLED, body)


@post(TASKS + "/kill", opt={"scope": OWN}, status_code=200, sync_to_thread=True, tags=["Tasks"])
def kill(core: Any, request: Request[Any, Any, Any], data: Kill) -> dict[str, Any]:
    """End tasks by force (scope `admin`): one, all of and for somebody, or all tokens that came from one subject token of an issuer."""
    asking, _ = asked(core, request)
    if not asking.admin:
        raise Refused(403, "this caller lacks the scope `admin`", scope="admin")
    if sum((bool(data.task), data.principal is not None, bool(data.issuer and data.jti))) != 1:
        raise Problem(400, "give one of `task`, `principal`, or `issuer` with `jti`", error="invalid_request")
    if data.issuer:
        return {"tokens": core.tasks.kill_subject(asking.actor(), data.issuer, data.jti, core.clock())}
    principal = m.Principal(data.principal.type, data.principal.id) if data.principal is not None else None
    gone = core.tasks.kill(asking.actor(), task_id=data.task, principal=principal, reason=data.reason, now_ms=core.clock())
    return {"tasks": gone}


@post(TASKS + "/keys/rotate", opt={"scope": "admin"}, status_code=200, sync_to_thread=True, tags=["Tasks"])
def rotate(core: Any, caller: Any) -> dict[str, str]:
    """Stop signing tokens with the present key and begin another; what was signed stays verifiable until it has expired."""
    return {"kid": core.tasks.signing.rotate(caller.actor())}


ROUTES = [create, start, listed, show, complete, cancel, kill, rotate]
