"""An agent's MCP messages, each answered as a decision: within the task's list first, then by the policies.

A tool outside the list is denied whatever the policies say, written down with a hash and the class of its arguments, and lowers trust: the agent's,
and that of its task.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
import rfc8785
from msgspec import Struct

from aftergate.audit.records import Actor
from aftergate.authz.tasks import cel, mcp
from aftergate.authz.tasks import details as d
from aftergate.authz.tasks import proofs as p
from aftergate.authz.tasks.answers import Refusal
from aftergate.authz.tasks.jose import peek
from aftergate.authz.tasks.machine import Task
from aftergate.authz.tasks.tokens import ACCESS_TOKEN
from aftergate.authz.wire import EvaluationRequest
from aftergate.events.clock import to_iso
from aftergate.service.decisions import Answer, Asker
from aftergate.service.tasks import exchange, life
from aftergate.service.tasks.asking import Asking, Presented, issued
from aftergate.stores import findings
from aftergate.stores import tasks as store

if TYPE_CHECKING:
    from aftergate.service.tasks import Tasks

SLUG: Final = "agent-tool-out-of-scope"
SERVER: Final = Actor("server", "mcp")
KEPT_FINDINGS: Final = 20  # of one task; further denials are recorded, and trust is at its lowest by then
LISTINGS: Final = frozenset({"initialize", "tools/list", "resources/list", "prompts/list", "logging/setLevel", "tasks/list"})
DOWNSTREAM_S: Final = 60
_ENCODE = msgspec.json.Encoder().encode


class Verdict(Struct, frozen=True):
    """The answer to one message, in AuthZEN's form; `error` is the JSON-RPC error to send back when it is refused."""

    allowed: bool
    context: dict[str, Any]
    error: dict[str, Any] | None = None


class Bearer(Struct, frozen=True):
    """Whose token a message came with."""

    claims: Mapping[str, Any]
    task: Task | None = None
    token: str = ""
    bound: str = "none"


def within(tasks: Tasks, task: Task, request: EvaluationRequest) -> bool:
    """Whether a request lies within a task: what the task names, and what concerns the task itself."""
    action, resource = request.action.name, request.resource
    if action in {life.START, exchange.EXCHANGE}:
        return resource.type == "task"
    location = request.context.get("server", request.context.get("location"))
    place = location if isinstance(location, str) else None
    if resource.type == "mcp_server" and action in LISTINGS:
        bounded = [detail["locations"] for detail in task.details if "locations" in detail]
        return len(bounded) < len(task.details) or any(resource.id in places for places in bounded)
    if d.permits(task.details, action, resource.type, resource.id, place):
        return True
    if action == mcp.TOOL_CALL and resource.type == "tool" and d.permits(task.details, resource.id, "tool", resource.id, place):
        return True  # tools may be named as actions too, so that a token's scope names them
    transaction = request.context.get("transaction")
    values = {
        **(transaction if isinstance(transaction, dict) else {}),
        **resource.properties,
        **request.action.properties,
        "identifier": resource.id,
    }
    return d.covers(task.details, tasks.known.types, action, values)


def bearer_of(tasks: Tasks, asking: Asking, token: str, claims: Mapping[str, Any] | None, now_ms: int) -> Bearer | Refusal:
    """The token that came with a message, proved; or claims that a decision point has proved itself. Raises: StoreUnavailable."""
    if token:
        seen = peek(token)
        if seen is None:
            return Refusal("invalid_token", "the token is not a signed JWT")
        if seen[1].get("iss") == tasks.core.url:
            found = tasks.verified(token, now_ms)
            if isinstance(found, Refusal):
                return found
            if tasks.death_of(found.claims, now_ms) is not None:
                return Refusal("invalid_token", "the token is dead")
            chain = life.pulse(tasks, str(found.claims["task"]), now_ms)
            if not chain:
                return Refusal("invalid_token", "the token is dead")
            bound = "dpop" if "jkt" in found.claims.get("cnf", {}) else "mtls" if found.claims.get("cnf") else "none"
            return Bearer(found.claims, chain[0], token, bound)
        issuer = seen[1].get("iss")
        if not isinstance(issuer, str) or issuer not in tasks.known.issuers:
            return Refusal("invalid_token", "the token's issuer is not known here")
        proved = issued(tasks, token, issuer, now_ms, types=p.ACCESS)
        return proved if isinstance(proved, Refusal) else Bearer(proved.claims, None, token)
    if claims is None:
        return Refusal("invalid_request", "send the `token`, or the `claims` that you have verified")
    if not asking.verifies:
        return Refusal("insufficient_scope", "claims are believed from callers with the scope `decide` only")
    task_id = claims.get("task")
    if task_id is None:
        return Bearer(claims)
    chain = life.pulse(tasks, task_id, now_ms) if isinstance(task_id, str) else ()
    if not chain:
        return Refusal("invalid_token", "the task is not alive")
    return Bearer(claims, chain[0])


def judge(
    tasks: Tasks,
    asking: Asking,
    bearer: Bearer,
    message: Any,
    presented: Presented,
    now_ms: int,
    *,
    server: str = "",
    declared: Any = None,
    approval: Mapping[str, Any] | None = None,
) -> Verdict:
    """One message. `approval` is `context.approval` of a call that needed one. Raises: StoreUnavailable."""
    mapped = mcp.map_message(message, bearer.claims, server=server, declared=declared, evaluate=cel.evaluate)
    identifier = message.get("id") if isinstance(message, dict) else None
    if isinstance(mapped, mcp.Passes):
        return Verdict(True, {"reason": "pass_through", "method": mapped.method})
    if isinstance(mapped, mcp.Refused):
        return Verdict(
            False, {"reason": "mapping_error", "reason_admin": {"403": mapped.reason}}, mcp.error_of(mapped.code, mapped.reason, identifier)
        )
    context: dict[str, Any] = {"method": mapped.method}
    if not mapped.anchored:
        context["warnings"] = ["the tool's own mapping names the subject; no token proves it"]
    if bearer.task is not None:
        outside = _outside(tasks, bearer.task, mapped)
        if outside:
            number = _deny(tasks, asking, bearer.task, mapped, outside, now_ms)
            reason = f"{outside} is not in the task's list"
            context.update(reason="outside_task", reason_admin={"403": reason}, task={"id": bearer.task.id, "denials": number})
            return Verdict(False, context, mcp.error_of(mcp.DENIED, f"Access denied: {reason}", identifier))
    asker = Asker(
        asking.caller or asking.client, asking.actor(), presented.request_id, presented.method, (presented.url,),
        presented.dpop[0] if len(presented.dpop) == 1 else "", presented.x5t,
        batch=secrets.token_hex(8) if len(mapped.requests) > 1 else "",
    )  # fmt: skip
    answers: list[Answer] = []
    for request in mapped.requests:
        answer = tasks.core.decider.evaluate(_with_facts(request, bearer, mapped, approval), asker)
        answers.append(answer)
        if not answer.allowed:
            break
    last = answers[-1]
    context = {**last.context, **context}
    if len(answers) > 1:
        context["evaluations"] = [each.id for each in answers]
    if not last.allowed:
        said = last.context.get("reason_user", {}).get("403", "the policies deny it")
        return Verdict(False, context, mcp.error_of(mcp.DENIED, f"Access denied: {said}", identifier))
    if mapped.tool and bearer.task is not None:
        with tasks.core.db.write() as connection:
            told = life.record(
                "tool.allowed", bearer.task, asking.actor(), detail=_called(tasks, mapped), action=mapped.method, evaluation_id=last.id
            )
            tasks.core.audit.append(connection, [told])
    return Verdict(True, context)


def _outside(tasks: Tasks, task: Task, mapped: mcp.Mapped) -> str:
    """What of a message the task does not name; empty if it names it. A tool's own mapping cannot talk its way past the tool's name."""
    if mapped.tool:
        place = mapped.server or None
        named = d.permits(task.details, mcp.TOOL_CALL, "tool", mapped.tool, place) or d.permits(
            task.details, mapped.tool, "tool", mapped.tool, place
        )
        return "" if named else f"tool `{mapped.tool[:120]}`"
    for request in mapped.requests:
        held = msgspec.structs.replace(request, context={**request.context, "server": mapped.server}) if mapped.server else request
        if not within(tasks, task, held):
            return f"{request.action.name} on {request.resource.type} `{request.resource.id[:120]}`"
    return ""


def _with_facts(request: EvaluationRequest, bearer: Bearer, mapped: mcp.Mapped, approval: Mapping[str, Any] | None) -> EvaluationRequest:
    """The mapped question with what the token proves. The reserved members are set here: a tool's own mapping cannot."""
    context = {
        name: value
        for name, value in request.context.items()
        if name not in {"task_id", "session_id", "credential_id", "credential", "auth", "approval"}
    }
    if mapped.server:
        context["server"] = mapped.server
    if approval is not None:
        context["approval"] = dict(approval)
    if bearer.task is not None:
        context |= {"task_id": bearer.task.id, "session_id": bearer.task.id}
    if bearer.token:
        context["credential"] = {"class": "access_token", "bound": bearer.bound, "issued_at": bearer.claims.get("iat")}
        auth = {name: bearer.claims[name] for name in ("acr", "amr", "auth_time") if name in bearer.claims}
        if auth:
            context["auth"] = auth
    return msgspec.structs.replace(request, context=context)


def _called(tasks: Tasks, mapped: mcp.Mapped) -> dict[str, Any]:
    """A call as it is written down: tool, server, and of its arguments a keyed hash and their class."""
    arguments = mapped.params.get("arguments", {})
    try:
        canonical = rfc8785.dumps(arguments)
    except (rfc8785.CanonicalizationError, ValueError):
        canonical = _ENCODE(arguments)
    digest = hmac.digest(tasks.core.pepper, b"tool arguments\0" + canonical, "sha256").hex()
    return {
        "method": mapped.method,
        "tool": mapped.tool[:200],
        "server": mapped.server[:200],
        "args_hash": digest,
        "args_class": mcp.class_of_arguments(arguments),
    }


def _deny(tasks: Tasks, asking: Asking, task: Task, mapped: mcp.Mapped, what: str, now_ms: int) -> int:
    """Write down a denial, and the finding that lowers trust: low at first, medium at the second, high from the third on. How many there were."""
    with tasks.core.db.write() as connection:
        store.find(connection, task.id, lock=True)
        number = store.denied(connection, task.id)
        records = [
            life.record("tool.denied", task, asking.actor(), detail={**_called(tasks, mapped), "number": number}, action=mapped.method)
        ]
        if number <= KEPT_FINDINGS:
            body = _finding(task, mapped, what, number, now_ms)
            text = _ENCODE(body).decode()
            findings.add(tasks.core.db, connection, [(findings.read(text), text)], now_ms)
            records.append(life.record("findings.received", task, SERVER, detail={"findings": [body["id"]], "detection": SLUG}))
        tasks.core.audit.append(connection, records)
    tasks.core.trust.refresh()
    return number


def _finding(task: Task, mapped: mcp.Mapped, what: str, number: int, now_ms: int) -> dict[str, Any]:
    severity = {1: "low", 2: "medium"}.get(number, "high")
    return {
        "id": f"{SLUG}|{task.id}|{number}",
        "detection": SLUG,
        "severity": severity,
        "time": to_iso(now_ms),
        "title": "Agent outside its grant",
        "narrative": f"Agent {task.who.id} in task {task.id} asked for {what}, which the task does not name: refused {number} time{'s' if number > 1 else ''}.",
        "subject": {"identity": [task.who.id], "session": [task.id]},
        "evidence": [],
        "sources": ["aftergate.mcp"],
        "recommended": ["Read the run's inputs for instructions that came from outside", "Kill the task if it goes on"],
        "arguments": mcp.class_of_arguments(mapped.params.get("arguments", {})),
    }


def downstream(
    tasks: Tasks,
    asking: Asking,
    bearer: Bearer,
    message: Mapping[str, Any],
    target: str,
    server: str,
    ttl_s: int,
    presented: Presented,
    now_ms: int,
) -> exchange.Issued | exchange.Refused:
    """A token for one permitted tool call: for the downstream service alone, that tool alone, a minute or so. The inbound token is never passed on."""
    tool = message.get("params", {}).get("name")
    if message.get("method") != mcp.TOOL_CALL or bearer.task is None or not bearer.token:
        return exchange.Refused("invalid_request", "a downstream token goes with a tool call and a task's token")
    right = _right(bearer.task, str(tool), server)
    narrow = {**right, "identifiers": [tool]} if mcp.TOOL_CALL in right["actions"] else {**right, "actions": [tool]}
    if mcp.TOOL_CALL in right["actions"]:
        narrow["actions"] = [mcp.TOOL_CALL]
    form = {
        "grant_type": (exchange.GRANT,),
        "subject_token": (bearer.token,),
        "subject_token_type": (ACCESS_TOKEN,),
        "audience": (target,),
        "authorization_details": (_ENCODE([narrow]).decode(),),
        "requested_ttl_s": (str(ttl_s),),
    }
    # A decision point's caller says which MCP server it is; anybody else must be an audience of the token by its own name.
    here = asking.audience | {server} if asking.verifies and server else asking.audience
    return exchange.exchange(tasks, msgspec.structs.replace(asking, audience=here), msgspec.structs.replace(presented, form=form), now_ms)


def _right(task: Task, tool: str, server: str) -> dict[str, Any]:
    """The detail of the task that names the tool."""
    place = server or None
    for detail in task.details:
        if d.permits([detail], mcp.TOOL_CALL, "tool", tool, place) or d.permits([detail], tool, "tool", tool, place):
            return dict(detail)
    return {"type": d.TASK, "actions": [tool]}  # not named: the exchange refuses it
