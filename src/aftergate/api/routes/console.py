"""The pages for people who approve: plain files from the package. They hold no data; what they show they ask for with the person's session."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Any, Final

from litestar import Request, Response, get
from litestar.params import FromPath
from litestar.response import Redirect

from aftergate.api.auth import PUBLIC
from aftergate.api.problems import Problem

# Nothing from elsewhere, nothing inline, no text that becomes markup. `Outer` adds the headers that every answer has.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Final = {
    "content-security-policy": POLICY,
    "permissions-policy": "publickey-credentials-get=(self), publickey-credentials-create=(self), camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-cache",
}
TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def _read() -> dict[str, tuple[bytes, str, str]]:
    """File name: bytes, media type, entity tag."""
    made: dict[str, tuple[bytes, str, str]] = {}
    for each in files("aftergate.api.console").iterdir():
        kind = TYPES.get(each.name.rpartition(".")[2])
        if kind is not None:
            body = each.read_bytes()
            made[each.name] = (body, kind, f'"{hashlib.sha256(body).hexdigest()[:20]}"')
    return made


FILES: Final = _read()


def page(request: Request[Any, Any, Any], name: str) -> Response[bytes]:
    """One file, or 304 if the browser has it."""
    body, kind, tag = FILES[name]
    if request.headers.get("if-none-match") == tag:
        return Response(b"", status_code=304, headers={**HEADERS, "etag": tag}, media_type=kind)
    return Response(body, media_type=kind, headers={**HEADERS, "etag": tag})


@get("/approvals", opt={"scope": PUBLIC}, include_in_schema=False, sync_to_thread=False)
def inbox(request: Request[Any, Any, Any]) -> Response[bytes]:
    return page(request, "inbox.html")


@get("/approvals/{request_id:str}", opt={"scope": PUBLIC}, include_in_schema=False, sync_to_thread=False)
def transaction(request: Request[Any, Any, Any], request_id: FromPath[str]) -> Response[bytes]:  # noqa: ARG001  the page reads it from its address
    return page(request, "transaction.html")


@get("/approvals/authenticators", opt={"scope": PUBLIC}, include_in_schema=False, sync_to_thread=False)
def authenticators(request: Request[Any, Any, Any]) -> Response[bytes]:
    return page(request, "authenticators.html")


@get("/login", opt={"scope": PUBLIC}, include_in_schema=False, sync_to_thread=False)
def login(request: Request[Any, Any, Any]) -> Response[bytes]:
    return page(request, "login.html")


@get("/enrol", opt={"scope": PUBLIC}, include_in_schema=False, sync_to_thread=False)
def enrol(request: Request[Any, Any, Any]) -> Response[bytes]:
    return page(request, "enrol.html")


@get("/console/{name:str}", opt={"scope": PUBLIC}, include_in_schema=False, sync_to_thread=False)
def asset(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
    """A style sheet, script or picture."""
    if name not in FILES or name.endswith(".html"):
        raise Problem(404, "there is no such file")
    return page(request, name)


@get("/", opt={"scope": PUBLIC}, include_in_schema=False, sync_to_thread=False)
def root() -> Redirect:
    return Redirect("/approvals", status_code=303)


ROUTES = [inbox, transaction, authenticators, login, enrol, asset, root]
