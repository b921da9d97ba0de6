"""What a request to the token endpoints shows of its caller, and how OAuth's endpoints say no."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from litestar import Request, Response

from aftergate.api.auth import Failures, Refused, address_of, authenticate, header
from aftergate.api.certificates import client_thumbprint
from aftergate.authz.tasks.answers import Refusal
from aftergate.authz.tasks.machine import Principal
from aftergate.service.tasks import Asking, Presented

if TYPE_CHECKING:
    from aftergate.service.core import Core

REPEATED: Final = frozenset({"audience", "resource"})  # RFC 8693 section 2.1; everything else comes once (RFC 6749 section 3.2)
MAX_FIELDS: Final = 64
FORM: Final = "application/x-www-form-urlencoded"


def presented(
    core: Core, request: Request[Any, Any, Any], form: dict[str, tuple[str, ...]] | None = None, *, spend: bool = True
) -> Presented:
    """The request's method, address, credentials and proofs. Raises: Refused (400), for a header that came twice; `DPoP` is judged elsewhere."""
    scope = request.scope
    proofs = tuple(value.decode("latin-1") for name, value in scope["headers"] if name == b"dpop")
    return Presented(
        scope["method"],
        core.url + scope["path"],
        header(scope, b"authorization"),
        proofs,
        client_thumbprint(core, scope),
        form or {},
        scope["state"].get("request_id", ""),
        spend,
    )


def form_of(request: Request[Any, Any, Any], body: bytes) -> dict[str, tuple[str, ...]] | Refusal:
    """The parameters of a form body; empty values count as not given (RFC 6749 section 3.2)."""
    if header(request.scope, b"content-type").partition(";")[0].strip().lower() != FORM:
        return Refusal("invalid_request", f"the content type must be {FORM}")
    try:
        pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=MAX_FIELDS)
    except (ValueError, UnicodeDecodeError):
        return Refusal("invalid_request", "the form is not well-formed")
    made: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        if name in made and name not in REPEATED:
            return Refusal("invalid_request", f"`{name[:40]}` came more than once")
        made[name] = (*made.get(name, ()), value)
    return {name: tuple(value for value in values if value) for name, values in made.items() if any(values)}


def known(core: Core, request: Request[Any, Any, Any], shown: Presented) -> Asking | Refusal:
    """Who asks. Failures count against the address; a person's session will do where nothing else came.

    Raises: Refused (429, and what a session may be refused for), StoreUnavailable.
    """
    failures: Failures = request.app.state.failures
    now = core.clock()
    address = address_of(core, request.scope)
    if not _holds_key(core, shown, now):  # a key that is known cannot be guessed: nobody behind the same address may stop its owner
        failures.check(address, now)
    asked_by_session = not shown.authorization and not shown.form and header(request.scope, b"cookie")
    if asked_by_session:
        caller = authenticate(core, failures, request.scope)
        return Asking(principal=Principal("user", caller.id), how="person", client=caller.id, scopes=caller.scopes, caller=caller.id)
    found: Asking | Refusal = core.tasks.authenticate(shown, now)
    if isinstance(found, Refusal) and found.error == "invalid_client":
        failures.add(address, now)
    return found


def _holds_key(core: Core, shown: Presented, now_ms: int) -> bool:
    kind, _, credential = shown.authorization.partition(" ")
    return kind.lower() == "bearer" and core.keys.find(credential.strip(), now_ms) is not None


def oauth_error(
    error: str, reason: str, *, status: int = 0, headers: dict[str, str] | None = None, **more: Any
) -> Response[dict[str, Any]]:
    """RFC 6749 section 5.2."""
    made = dict(headers or {})
    if error == "invalid_client":
        status = status or 401
        made.setdefault("www-authenticate", 'Basic realm="aftergate", Bearer realm="aftergate"')
    text = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "'" for c in reason)
    return Response(
        {"error": error, "error_description": text, **more}, status_code=status or 400, headers=made, media_type="application/json"
    )


def refused_as_oauth(error: Refused) -> Response[dict[str, Any]]:
    name = {401: "invalid_client", 403: "unauthorized_client", 429: "slow_down"}.get(error.status, "invalid_request")
    return oauth_error(name, error.message, status=error.status, headers=error.headers)
