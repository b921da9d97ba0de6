"""An MCP message as the question that it is: COAZ-MCP (01, 1.8), the OpenID AuthZEN binding for the Model Context Protocol, draft 1.

Default mappings for every client-to-server method; `ping` and notifications pass; a method that nobody has mapped is denied. A tool may declare its
own mapping. Whatever cannot be mapped is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from aftergate.authz.errors import BadRequest
from aftergate.authz.tasks.cel import ABSENT, MappingError
from aftergate.authz.wire import EvaluationRequest, parse_evaluations, request_of

DENIED: Final = -32001
INVALID_REQUEST: Final = -32600
INVALID_PARAMS: Final = -32602
INTERNAL: Final = -32603
TOOL_CALL: Final = "tools/call"
MAX_BATCH: Final = 64
MAX_CLASS: Final = 200
Evaluator = Callable[[str, Mapping[str, Any], Mapping[str, Any]], Any]

_SERVER_METHODS: Final[Mapping[str, tuple[str, str] | None]] = {
    # method: (member of context, member of params) or None
    "initialize": ("protocol_version", "protocolVersion"),
    "tools/list": None,
    "resources/list": None,
    "prompts/list": None,
    "logging/setLevel": ("level", "level"),
    "tasks/list": None,
}
_ITEM_METHODS: Final[Mapping[str, tuple[str, str]]] = {
    TOOL_CALL: ("tool", "name"),
    "resources/read": ("resource", "uri"),
    "resources/subscribe": ("resource", "uri"),
    "resources/unsubscribe": ("resource", "uri"),
    "prompts/get": ("prompt", "name"),
    "tasks/get": ("task", "taskId"),
    "tasks/result": ("task", "taskId"),
    "tasks/cancel": ("task", "taskId"),
}


class Passes(Struct, frozen=True):
    """The message goes on without a decision: `ping` and notifications."""

    method: str


class Refused(Struct, frozen=True):
    """The message is refused before any policy is asked. `code` is JSON-RPC's."""

    code: int
    reason: str


class Mapped(Struct, frozen=True):
    """The questions that a message asks: every one must be permitted. `tool` is the tool called, if one is."""

    method: str
    requests: tuple[EvaluationRequest, ...]
    params: Mapping[str, Any]
    server: str
    tool: str = ""
    declared: bool = False
    anchored: bool = True  # false: a declared mapping took the subject from elsewhere than the token


def map_message(
    message: Any, token: Mapping[str, Any], *, server: str = "", declared: Any = None, evaluate: Evaluator | None = None
) -> Mapped | Passes | Refused:
    """Map one JSON-RPC message. `token` are verified claims; `server` is the MCP server's own identifier, else the only one in `aud`.

    `declared` is the tool's `x-authzen-mapping`, where it has one; None uses the default. `evaluate` is the CEL evaluator.
    """
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0" or not isinstance(message.get("method"), str):
        return Refused(INVALID_REQUEST, "not a JSON-RPC 2.0 request")
    method: str = message["method"]
    if method == "ping" or (method.startswith("notifications/") and "id" not in message):
        return Passes(method)
    if method.startswith("notifications/"):
        return Refused(INVALID_REQUEST, "a notification has no id")
    identifier = message.get("id")
    if "id" not in message or isinstance(identifier, bool) or not isinstance(identifier, str | int | float):
        return Refused(INVALID_REQUEST, "a request needs an id")
    params = message.get("params", {})
    if not isinstance(params, dict):
        return Refused(INVALID_PARAMS, "`params` must be an object")
    try:
        place = _server(token, server)
        if declared is not None and method == TOOL_CALL:
            return _declared(method, params, token, place, declared, evaluate)
        return _default(method, params, token, place)
    except MappingError as error:
        return Refused(INVALID_PARAMS, f"COAZ mapping error: {error}")
    except BadRequest as error:
        return Refused(INVALID_PARAMS, f"COAZ mapping error: {error.message}")


def _server(token: Mapping[str, Any], server: str) -> str:
    """The one identifier of the MCP server: as configured, else the only audience. "" if there is none: an error only where it is needed."""
    aud = token.get("aud")
    held = [aud] if isinstance(aud, str) else [each for each in aud if isinstance(each, str)] if isinstance(aud, list) else []
    if server:
        if held and server not in held:
            raise MappingError("the token is not for this MCP server")
        return server
    return held[0] if len(held) == 1 else ""


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise MappingError(f"{what} is missing or not a string")
    return value


def _default(method: str, params: dict[str, Any], token: Mapping[str, Any], server: str) -> Mapped | Refused:
    context: dict[str, Any] = {}
    if isinstance(token.get("client_id"), str):
        context["agent"] = token["client_id"]
    tool = ""
    if method in _ITEM_METHODS:
        kind, member = _ITEM_METHODS[method]
        resource = {"type": kind, "id": _text(params.get(member), f"`params.{member}`")}
        tool = resource["id"] if method == TOOL_CALL else ""
    elif method == "completion/complete":
        ref = params.get("ref")
        if not isinstance(ref, dict):
            raise MappingError("`params.ref` is missing")
        prompt = ref.get("type") == "ref/prompt"
        resource = {"type": "prompt" if prompt else "resource", "id": _text(ref.get("name" if prompt else "uri"), "`params.ref`")}
    elif method in _SERVER_METHODS:
        extra = _SERVER_METHODS[method]
        if extra is not None:
            context[extra[0]] = _text(params.get(extra[1]), f"`params.{extra[1]}`")
        resource = {"type": "mcp_server", "id": _text(server, "the MCP server's identifier (a single `aud`)")}
    else:
        return Refused(DENIED, f"the method `{method[:64]}` is not mapped, so it is denied")
    subject = {"type": "identity", "id": _text(token.get("sub"), "`token.sub`")}
    request = request_of({"subject": subject, "action": {"name": method}, "resource": resource, "context": context})
    return Mapped(method, (request,), params, server, tool)


def _declared(
    method: str, params: dict[str, Any], token: Mapping[str, Any], server: str, declared: Any, evaluate: Evaluator | None
) -> Mapped:
    if not isinstance(declared, dict) or len(declared) != 1 or next(iter(declared)) not in {"evaluation", "evaluations"}:
        raise MappingError("a mapping has exactly one member, `evaluation` or `evaluations`")
    envelope, template = next(iter(declared.items()))
    if not isinstance(template, dict):
        raise MappingError(f"`{envelope}` must be an object")
    items = template.get("evaluations", [])
    if envelope == "evaluations":
        if not isinstance(items, list) or not items:
            raise MappingError("`evaluations` names no evaluation")
        if any(not isinstance(item, dict) or "subject" in item for item in items):
            raise MappingError("an entry of `evaluations` must not set a subject")
    elif "evaluations" in template:
        raise MappingError("`evaluation` holds a single evaluation")
    sub = _text(token.get("sub"), "`token.sub`")
    given = template.get("subject")
    if given is not None and not isinstance(given, dict):
        raise MappingError("`subject` must be an object")
    named = (given or {}).get("id", "$token.sub")
    resolved = _resolve({name: value for name, value in template.items() if name != "options"}, params, token, evaluate)
    subject = {"type": "identity", **resolved.get("subject", {})}
    subject.setdefault("id", sub)
    anchored = subject["id"] == sub
    if named == "$token.sub" and not anchored:
        raise MappingError("the subject is not the token's")
    resolved["subject"] = subject
    if isinstance(token.get("client_id"), str):
        context = resolved.setdefault("context", {})
        if isinstance(context, dict):
            context.setdefault("agent", token["client_id"])
    tool = _text(params.get("name"), "`params.name`")
    if envelope == "evaluation":
        return Mapped(method, (request_of(resolved),), params, server, tool, declared=True, anchored=anchored)
    boxcar = parse_evaluations(msgspec.json.encode(resolved))
    requests = []
    for item in boxcar.items:
        if item.request is None:
            raise MappingError(item.error.message if item.error is not None else "an evaluation is not well-formed")
        requests.append(item.request)
    return Mapped(method, tuple(requests), params, server, tool, declared=True, anchored=anchored)


def _resolve(value: Any, params: Mapping[str, Any], token: Mapping[str, Any], evaluate: Evaluator | None) -> Any:
    """Literals verbatim; `$...` evaluated; `$$...` a literal that begins with `$`; an absent value leaves its member out."""
    if isinstance(value, dict):
        made = {name: _resolve(each, params, token, evaluate) for name, each in value.items()}
        return {name: each for name, each in made.items() if each is not ABSENT}
    if isinstance(value, list):
        return [each for each in (_resolve(each, params, token, evaluate) for each in value) if each is not ABSENT]
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    if value.startswith("$$"):
        return value[1:]
    if evaluate is None:
        raise MappingError("expressions cannot be evaluated here")
    return evaluate(value[1:], params, token)


def class_of_arguments(arguments: Any) -> str:
    """What kind of arguments a call had: names and JSON kinds, never values: `amount:number,to:string`."""
    if not isinstance(arguments, dict) or not arguments:
        return "none"
    kinds = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object", type(None): "null"}
    text = ",".join(
        f"{str(name)[:40]}:{kinds.get(type(value), 'other')}" for name, value in sorted(arguments.items(), key=lambda pair: str(pair[0]))
    )
    return text if len(text) <= MAX_CLASS else text[: MAX_CLASS - 1] + "…"


def error_of(code: int, reason: str, identifier: Any) -> dict[str, Any]:
    """The JSON-RPC error that a gateway sends back (COAZ-MCP, error handling)."""
    known = identifier if isinstance(identifier, str | int | float) and not isinstance(identifier, bool) else None
    return {"jsonrpc": "2.0", "id": known, "error": {"code": code, "message": reason}}
