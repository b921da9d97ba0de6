"""AI agents: may this MCP message go on? For gateways and MCP servers (COAZ-MCP)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, post
from msgspec import Meta, Struct

from aftergate.api.auth import OWN
from aftergate.api.openapi import reads
from aftergate.api.problems import Problem
from aftergate.api.routes.tasks import asked, no
from aftergate.authz.errors import BadRequest
from aftergate.authz.strict_json import decode as decode_json
from aftergate.authz.tasks.answers import Refusal
from aftergate.authz.tasks.mcp import DENIED, MAX_BATCH, error_of
from aftergate.service.tasks import Asking, Presented, tools
from aftergate.service.tasks.exchange import Refused as NotIssued

MAPPING: Final = "x-authzen-mapping"


class Ask(Struct, forbid_unknown_fields=True):
    """`message`: a JSON-RPC message or a batch of them. `token`: what came with it; or `claims`, which the caller has verified (scope `decide`).

    `server`: the MCP server's own identifier, an audience of the token. `declarations`: the tools of `tools/list` by name, for their mappings.
    `downstream`: the service that the tool call goes on to; a permitted call then gets a token for it, bound to the caller's key and good for
    `ttl_s` seconds. `approval`: `context.approval` of a call that needed one.
    """

    message: Any
    token: Annotated[str, Meta(max_length=16_384)] = ""
    claims: dict[str, Any] | None = None
    server: Annotated[str, Meta(max_length=512)] = ""
    declarations: Annotated[dict[str, dict[str, Any]], Meta(max_length=1000)] = {}
    downstream: Annotated[str, Meta(max_length=512)] = ""
    ttl_s: Annotated[int, Meta(ge=1, le=300)] = tools.DOWNSTREAM_S
    approval: dict[str, Any] | None = None


def _declared(ask: Ask, message: Any) -> Any:
    """The mapping that the called tool declares, if it does. Anything odd is handed on: it is then a mapping error."""
    params = message.get("params") if isinstance(message, dict) else None
    name = params.get("name") if isinstance(params, dict) else None
    tool = ask.declarations.get(name) if isinstance(name, str) else None
    schema = tool.get("inputSchema") if tool is not None else None
    return schema.get(MAPPING) if isinstance(schema, dict) and MAPPING in schema else None


def _wire(verdict: tools.Verdict) -> dict[str, Any]:
    made: dict[str, Any] = {"decision": verdict.allowed, "context": verdict.context}
    if verdict.error is not None:
        made["context"] = {**verdict.context, "jsonrpc": verdict.error}
    return made


def _use_up(core: Any, shown: Presented) -> None:
    """Take the DPoP proof, if there is one. Raises: Problem, if it came before."""
    if shown.dpop:
        used = core.tasks.use_up(shown, core.clock())
        if isinstance(used, Refusal):
            raise no(used)


def _each(core: Any, asking: Asking, bearer: tools.Bearer, ask: Ask, shown: Presented) -> Iterator[tools.Verdict]:
    """A batch in its order. What one message tries counts for those after it: a task that died of it lets nothing more through."""
    held: tools.Bearer | Refusal = bearer
    for each in ask.message:
        now = core.clock()
        if isinstance(held, tools.Bearer):
            yield tools.judge(core.tasks, asking, held, each, shown, now, server=ask.server, declared=_declared(ask, each))
            held = tools.bearer_of(core.tasks, asking, ask.token, ask.claims, core.clock())
        else:
            identifier = each.get("id") if isinstance(each, dict) else None
            context = {"reason": "invalid_token", "reason_admin": {"401": held.reason}}
            yield tools.Verdict(False, context, error_of(DENIED, "Access denied: the task is not alive", identifier))


@post(
    "/v1/mcp/evaluation",
    opt={"scope": OWN},
    status_code=200,
    sync_to_thread=True,
    tags=["Agents"],
    operation_class=reads({"application/json": Ask}),
)
def evaluate(core: Any, request: Request[Any, Any, Any], body: bytes) -> dict[str, Any]:
    """Whether an MCP message may go on: `{"decision": ..., "context": ...}`, for a batch `{"evaluations": [...]}` in its order.

    A refusal holds the JSON-RPC error to send back, in `context.jsonrpc`. `ping` and notifications pass. A method that nobody has mapped, a tool
    that the task does not name, and whatever cannot be mapped are refused.
    """
    asking, shown = asked(core, request, spend=False, scopes=frozenset({"decide", "tasks"}))
    try:
        ask = msgspec.convert(decode_json(body, max_bytes=core.settings.body_limit_b, max_depth=core.settings.depth_limit), Ask)
    except BadRequest as error:
        raise Problem(400, error.message, error="invalid_request") from None
    except msgspec.ValidationError as error:
        raise Problem(400, f"the body is not as it should be: {error}", error="invalid_request") from None
    with_approval = ask.approval is not None and not isinstance(ask.message, list)
    if not with_approval:
        _use_up(core, shown)  # with an approval, the approval's consumption does it
    now = core.clock()
    bearer = tools.bearer_of(core.tasks, asking, ask.token, ask.claims, now)
    if isinstance(bearer, Refusal):
        if bearer.error != "invalid_token":
            raise no(bearer)
        # A dead or foreign token is no fault of the gateway that asks: nothing goes on, and the client is to be answered 401.
        return {
            "decision": False,
            "context": {"reason": "invalid_token", "reason_admin": {"401": bearer.reason}, "challenge": 'Bearer error="invalid_token"'},
        }
    if isinstance(ask.message, list):
        if not 0 < len(ask.message) <= MAX_BATCH or ask.downstream:
            raise Problem(400, f"a batch has 1 to {MAX_BATCH} messages, and no downstream token", error="invalid_request")
        return {"evaluations": [_wire(verdict) for verdict in _each(core, asking, bearer, ask, shown)]}
    verdict = tools.judge(
        core.tasks, asking, bearer, ask.message, shown, now, server=ask.server, declared=_declared(ask, ask.message), approval=ask.approval
    )
    if with_approval and not (verdict.allowed and "approval" in verdict.context):
        _use_up(core, shown)  # an approval that was not consumed has used no proof up
    answer = _wire(verdict)
    if ask.downstream and verdict.allowed:
        made = tools.downstream(core.tasks, asking, bearer, ask.message, ask.downstream, ask.server, ask.ttl_s, shown, now)
        if isinstance(made, NotIssued):
            return {"decision": False, "context": {"reason": made.error, "reason_admin": {"403": made.reason}}}
        answer["token"] = {"access_token": made.token, "token_type": made.token_type, "expires_in": made.expires_in, "scope": made.scope}
    return answer


ROUTES = [evaluate]
