"""The description of the interface at `/openapi.json`: what each operation asks of its caller follows from the scope that its route names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from litestar import Request, Router
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, OpenAPIMediaType, Operation, Reference, RequestBody, Schema, SecurityScheme

from aftergate import __version__
from aftergate.api.auth import COOKIE, OWN, PUBLIC

PATH: Final = "/openapi.json"
KEY: Final = "key"
SESSION: Final = "session"
SUMMARY: Final = "After login, before each sensitive step: may this identity, with this credential, do exactly this, now?"


REFUSED: Final[dict[str, Any]] = {
    "description": "Refused: 400 the request is wrong, 401 no valid credential, 403 it lacks the scope, 404 there is no such thing, 408 and 413 the body came "
    "too slowly or is too large, 409 it does not fit the state, 429 too many failures, 503 the server cannot record or look up what this needs.",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}, "application/json": {}},
}
PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "RFC 9457. AuthZEN's and OAuth's own routes answer in their standard's form.",
    "required": ["type", "title", "status"],
    "properties": {"type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"}, "detail": {"type": "string"}},
}


REFERENCE: Final = "#/components/schemas/{name}"
_structs: Final[list[type]] = []  # bodies that handlers read themselves, by `reads`


def reads(content: dict[str, Schema | type], description: str = "", *, required: bool = True) -> type[Operation]:
    """The body of an operation whose handler reads it by hand, by media type: a schema, or the struct that it is read into."""
    held: dict[str, OpenAPIMediaType] = {}
    for media_type, schema in content.items():
        if isinstance(schema, Schema):
            held[media_type] = OpenAPIMediaType(schema=schema)
            continue
        _structs.append(schema)
        held[media_type] = OpenAPIMediaType(schema=Reference(ref=REFERENCE.format(name=schema.__name__)))
    body = RequestBody(content=held, description=description or None, required=required)

    @dataclass  # INVARIANT: without it the base class's __init__ never calls __post_init__, and the body is missing from the document
    class Described(Operation):
        def __post_init__(self) -> None:
            self.request_body = body

    return Described


class Document(JsonRenderPlugin):
    """The document, with what every operation may answer when it refuses."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        schemas = openapi_schema.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = PROBLEM
        for name, schema in msgspec.json.schema_components(_structs, ref_template=REFERENCE)[1].items():
            schemas.setdefault(name, schema)
        for operations in openapi_schema["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("400", None)  # the framework's own, which no route answers with
                operation["responses"].get("204", {}).pop("content", None)
                operation["responses"]["default"] = REFUSED
        return super().render(request, openapi_schema)


def config() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Aftergate",
        version=__version__,
        summary=SUMMARY,
        openapi_router=Router(PATH, route_handlers=[], include_in_schema=False, opt={"scope": PUBLIC}),
        operation_id_creator=_operation_id,
        render_plugins=[Document(path="/")],
        components=Components(
            security_schemes={
                KEY: SecurityScheme(
                    type="http", scheme="bearer", description="An API key, or an access token of the issuer that the server names."
                ),
                SESSION: SecurityScheme(type="apiKey", security_scheme_in="cookie", name=COOKIE, description="A person's session."),
            }
        ),
    )


def _operation_id(_handler: HTTPRouteHandler, method: Any, path: list[Any]) -> str:
    """`get_v1_findings_finding_id`: the method and the path, whatever the function is called."""
    words = [str(getattr(part, "name", part)) for part in path]
    return "_".join(
        [str(getattr(method, "value", method)).lower(), *(re.sub(r"[^a-z0-9]+", "_", word.lower()).strip("_") for word in words)]
    )


def secured(handlers: list[Any]) -> list[Any]:
    """The same handlers, each saying in the document what its `opt` says to the guard.

    Raises: ValueError, for a route that names no scope: it would answer nobody.
    """
    for handler in handlers:
        if not isinstance(handler, HTTPRouteHandler):
            continue
        scope = handler.opt.get("scope")
        if scope is None:
            raise ValueError(f"the route {sorted(handler.paths)} names no scope")
        if scope in {PUBLIC, OWN}:
            # Who asks for the credential itself takes more than keys (client assertions, a workload's token); what, its description says.
            handler.security = [] if scope == PUBLIC else [{KEY: []}]
            continue
        wanted = [scope] if isinstance(scope, str) else list(scope)
        ways: list[dict[str, list[str]]] = [{KEY: [each]} for each in wanted if each != "approve"]
        if "approve" in wanted:
            ways.append({SESSION: []})
        handler.security = ways
    return handlers
