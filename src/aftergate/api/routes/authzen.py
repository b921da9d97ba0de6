"""OpenID AuthZEN 1.0 over HTTP, and what an administrator sees of the policies in force."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

import msgspec
from litestar import Request, Response, get, post
from litestar.concurrency import sync_to_thread
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Operation, Schema

from aftergate.api.auth import PUBLIC, Caller, header
from aftergate.api.evaluate import asker_of, json_only, wire_of
from aftergate.api.openapi import reads
from aftergate.authz import answer as answering
from aftergate.authz import paging, search
from aftergate.authz.errors import BadRequest
from aftergate.authz.facts import Facts
from aftergate.authz.wire import Boxcar, BoxcarItem, EvaluationRequest, Kind, parse_evaluation, parse_evaluations, parse_search
from aftergate.service.approvals.offering import REQUESTS
from aftergate.service.decisions import Answer, Asker, is_plain, settled
from aftergate.service.policy_holder import PolicyHolder

METADATA: Final = "/.well-known/authzen-configuration"
EVALUATION: Final = "/access/v1/evaluation"
EVALUATIONS: Final = "/access/v1/evaluations"
SEARCH: Final[dict[Kind, str]] = {kind: f"/access/v1/search/{kind}" for kind in ("subject", "resource", "action")}
JSON: Final = "application/json"

Call = Request[Any, Any, Any]


def _bad(_request: Call, error: BadRequest) -> Response[bytes]:
    """A message string, as AuthZEN asks."""
    return Response(msgspec.json.encode(error.message), status_code=400, media_type=JSON)


def _asks(description: str, required: tuple[str, ...], properties: dict[str, Any]) -> type[Operation]:
    """The body of an operation in the OpenAPI document: it is read strictly by hand, see `aftergate.authz.wire`."""
    schema = Schema(type="object", required=list(required), properties={name: Schema(**held) for name, held in properties.items()})  # type: ignore[arg-type]
    return reads({JSON: schema}, description)


_TEXT: Final = Schema(type="string")  # type: ignore[arg-type]
_FREE: Final = Schema(type="object")  # type: ignore[arg-type]
_ENTITY: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "id"],
    "properties": {"type": _TEXT, "id": _TEXT, "properties": _FREE},
}
_TYPED: Final[dict[str, Any]] = {"type": "object", "required": ["type"], "properties": {"type": _TEXT, "id": _TEXT, "properties": _FREE}}
_ACTION: Final[dict[str, Any]] = {"type": "object", "required": ["name"], "properties": {"name": _TEXT, "properties": _FREE}}
_ANY: Final[dict[str, Any]] = {"type": "object"}
_ALL: Final = {"subject": _ENTITY, "action": _ACTION, "resource": _ENTITY, "context": _ANY}


async def _body(request: Call) -> bytes:
    json_only(request.scope)
    return await request.body()


def _limits(core: Any) -> dict[str, int]:
    return {"max_bytes": core.settings.body_limit_b, "max_depth": core.settings.depth_limit}


@post(
    EVALUATION,
    opt={"scope": "decide"},
    status_code=200,
    exception_handlers={BadRequest: _bad},
    operation_class=_asks("May this subject do this action on this resource?", ("subject", "action", "resource"), _ALL),
)
async def evaluation(core: Any, caller: Caller, request: Call) -> dict[str, Any]:
    """One decision. A raw path answers this address before the framework does (`aftergate.api.evaluate`); both say the same."""
    body = await _body(request)
    asked = parse_evaluation(body, **_limits(core))
    answer = await sync_to_thread(core.decider.evaluate, asked, asker_of(core, caller, request.scope), body)
    return wire_of(answer)


@post(
    EVALUATIONS,
    opt={"scope": "decide"},
    status_code=200,
    exception_handlers={BadRequest: _bad},
    operation_class=_asks(
        "Several decisions; top-level entities are defaults, an item overrides whole entities.",
        (),
        {**_ALL, "evaluations": {"type": "array", "items": _FREE}, "options": _ANY},
    ),
)
async def evaluations(core: Any, caller: Caller, request: Call) -> dict[str, Any]:
    """Several decisions at once. An item that cannot be evaluated is a denial with its error; only a fault of the whole is a 400."""
    body = await _body(request)
    boxcar = parse_evaluations(body, **_limits(core))
    # One proof of a login covers one declared batch: this body.
    asker = asker_of(core, caller, request.scope, batch=hashlib.sha256(body).hexdigest())
    answers = await sync_to_thread(_evaluate_all, core.decider, boxcar, asker)
    return answers[0] if boxcar.single else {"evaluations": answers}


def _evaluate_all(decider: Any, boxcar: Boxcar, asker: Asker) -> list[dict[str, Any]]:
    """The items' answers in order, up to the one that decides; sent when all their records are durable."""
    stop: bool | None = {"execute_all": None, "deny_on_first_deny": False, "permit_on_first_permit": True}[boxcar.semantic]
    waiting: list[Answer] = []
    answers: list[dict[str, Any]] = []
    for item in boxcar.items:
        told = _evaluate_item(decider, item, asker, waiting)
        answers.append(told)
        if told["decision"] is stop:
            break
    for answer in waiting:
        settled(answer)
    return answers


def _evaluate_item(decider: Any, item: BoxcarItem, asker: Asker, waiting: list[Answer]) -> dict[str, Any]:
    if item.request is None:
        assert item.error is not None
        return {"decision": False, "context": answering.error_context(item.error)}
    if not is_plain(item.request):
        return wire_of(decider.evaluate(item.request, asker))
    answer: Answer = decider.answer_plain(item.request, asker, msgspec.json.encode(item.request))
    waiting.append(answer)
    return wire_of(answer)


def _searching(kind: Kind) -> Any:
    wanted = {"subject": _TYPED if kind == "subject" else _ENTITY, "resource": _TYPED if kind == "resource" else _ENTITY}
    needs = ("subject", "resource") if kind == "action" else ("subject", "action", "resource")
    properties = {**wanted, **({} if kind == "action" else {"action": _ACTION}), "context": _ANY, "page": _ANY}

    async def handler(core: Any, caller: Caller, request: Call) -> dict[str, Any]:
        asked = parse_search(await _body(request), kind, **_limits(core))
        return await sync_to_thread(_search, core, caller, asked)

    handler.__name__ = f"search_{kind}"
    handler.__doc__ = f"Which {kind}s complete this request to a permit: known ones, each as an evaluation would answer, in pages."
    return post(
        SEARCH[kind],
        opt={"scope": "decide"},
        status_code=200,
        exception_handlers={BadRequest: _bad},
        operation_class=_asks(f"A request without the {kind} that is looked for.", needs, properties),
    )(handler)


def _search(core: Any, caller: Caller, asked: Any) -> dict[str, Any]:
    decider = core.decider
    now_ms = core.clock()
    after = paging.read_token(decider.page_key, caller.id, asked.identity, asked.page.token) if asked.page.token else None
    found = search.find(asked, decider.snapshot, _facts_of(decider, now_ms), after)
    if asked.kind == "action":
        results: list[dict[str, str]] = [{"name": name} for name in found.results]
    else:
        type_ = (asked.subject if asked.kind == "subject" else asked.resource).type
        results = [{"type": type_, "id": id_} for id_ in found.results]
    token = "" if found.after is None else paging.make_token(decider.page_key, caller.id, asked.identity, found.after)
    return {"page": {"next_token": token, "count": len(results)}, "results": results}


def _facts_of(decider: Any, now_ms: int) -> Callable[[EvaluationRequest], Facts]:
    """Facts by subject: the rest of a search's request is the same for all candidates. What a task covers depends on all of it."""
    held: dict[str, Facts] = {}

    def facts(request: EvaluationRequest) -> Facts:
        if "task_id" in request.context:
            made: Facts = decider.facts(request, now_ms)
            return made
        found = held.get(request.subject.id)
        if found is None:
            found = held[request.subject.id] = decider.facts(request, now_ms)
        return found

    return facts


search_subject, search_resource, search_action = _searching("subject"), _searching("resource"), _searching("action")


@get(
    METADATA,
    opt={"scope": PUBLIC},
    sync_to_thread=False,
    responses={304: ResponseSpec(None, generate_examples=False, description="As `If-None-Match` names it")},
)
def metadata(core: Any, request: Call) -> Response[dict[str, Any] | None]:
    """Where the AuthZEN endpoints are and what they can do. Unsigned: `signed_metadata` is left out."""
    made: dict[str, Any] = {
        "policy_decision_point": core.url,
        "access_evaluation_endpoint": core.url + EVALUATION,
        "access_evaluations_endpoint": core.url + EVALUATIONS,
        **{f"search_{kind}_endpoint": core.url + path for kind, path in SEARCH.items()},
        "supported_obligations": list(answering.SUPPORTED_OBLIGATIONS),
    }
    made["access_request_endpoint"] = core.url + REQUESTS
    made["jwks_uri"] = core.url + "/oauth/jwks"
    made["capabilities"] = ["urn:openid:authzen:capability:access-request"]
    etag = '"' + hashlib.sha256(msgspec.json.encode(made)).hexdigest()[:32] + '"'
    headers = {"cache-control": "public, max-age=300", "etag": etag}
    if header(request.scope, b"if-none-match") == etag:
        return Response(None, status_code=304, headers=headers)
    return Response(made, media_type=JSON, headers=headers)


def _holder(holder: PolicyHolder) -> dict[str, Any]:
    snapshot = holder.snapshot
    return {
        "set": holder.kind,
        "version": snapshot.policies.version,
        "digest": snapshot.policies.digest,
        "entities": len(snapshot.entities),
        "policies": [
            {"id": policy.id, "effect": policy.effect, "file": policy.file, "line": policy.line, "high_risk": policy.high_risk}
            for policy in snapshot.policies.policies
        ],
        "problems": [str(problem) for problem in holder.problems],
    }


@get("/v1/policies", opt={"scope": "admin"}, sync_to_thread=False)
def policies(core: Any) -> dict[str, Any]:
    """The sets in force, and what is wrong with files that were refused since."""
    return {"sets": [_holder(holder) for holder in core.decider.holders]}


@post("/v1/policies/reload", opt={"scope": "admin"}, status_code=200)
async def reload(core: Any, caller: Caller) -> dict[str, Any]:
    """Read the files now. A set that is refused changes nothing; its problems are in the answer."""
    holders = await sync_to_thread(core.decider.reload, caller.actor())
    return {"sets": [_holder(holder) for holder in holders]}


@get("/v1/policies/shadow", opt={"scope": "admin"}, sync_to_thread=False)
def shadow(core: Any) -> dict[str, Any]:
    """What the candidate set would have answered otherwise, since it was loaded, in this server process."""
    shadowing = core.decider.shadow
    return {"shadow": None if shadowing is None else shadowing.report()}


ROUTES = [evaluation, evaluations, search_subject, search_resource, search_action, metadata, policies, reload, shadow]
