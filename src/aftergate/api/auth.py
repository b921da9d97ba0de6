"""Who calls: an API key, an access token of the named issuer, or a person's session; and whether a route is theirs to call."""

from __future__ import annotations

from collections import OrderedDict
from http.cookies import CookieError, SimpleCookie
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, Final, Literal

from litestar.concurrency import sync_to_thread
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from msgspec import Struct

from aftergate.audit.records import Actor
from aftergate.service.callers import NotNow
from aftergate.settings import is_loopback

if TYPE_CHECKING:
    from aftergate.service.core import Core

PUBLIC: Final = "public"  # opt={"scope": PUBLIC}: health, metadata, the login pages
OWN: Final = "own"  # opt={"scope": OWN}: the handler asks for a credential itself, as OAuth's endpoints must
COOKIE: Final = "aftergate_session"
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
ADDRESSES: Final = 20_000
ONCE: Final = "aftergate.once"  # of a scope: its headers by name, if no name came twice (`aftergate.api.app`)
ACTORS: Final = {"key": "api-key", "token": "client", "person": "person"}
NOTHING_GIVEN: Final = "no key or token was given: send `Authorization: Bearer ...`"


class Caller(Struct, frozen=True):
    """Who sent a request, and what it may ask."""

    kind: Literal["key", "token", "person"]
    id: str
    scopes: frozenset[str]
    groups: frozenset[str] = frozenset()
    session: str = ""
    name: str = ""

    def actor(self) -> Actor:
        return Actor(ACTORS[self.kind], self.id)


class Refused(Exception):
    """The call is not let in; a value that travels as an exception through the framework: HTTP status, words for the caller, and the header that goes with them."""

    def __init__(self, status: int, message: str, *, scope: str = "", retry_after_s: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers: dict[str, str] = {}
        if status == 401:
            self.headers["www-authenticate"] = 'Bearer realm="aftergate"' + (
                f', error="invalid_token", error_description="{message}"' if scope else ""
            )
        elif status == 403 and scope:
            self.headers["www-authenticate"] = f'Bearer realm="aftergate", error="insufficient_scope", scope="{scope}"'
        if retry_after_s:
            self.headers["retry-after"] = str(retry_after_s)


class Failures:
    """Failed authentications per address and minute: above the limit, what could fail again is answered 429 until the minute is over.

    A key that is known is let in all the same: it cannot be guessed, and nobody behind the same address may stop its owner's decisions.
    Bounded: the address that failed longest ago goes first. An IPv6 caller counts by its /64, which is one household or one machine.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def check(self, address: str, now_ms: int) -> None:
        """Raises: Refused (429)."""
        address = _counted(address)
        minute, count = self._held.get(address, (0, 0))
        if count >= self._limit and minute == now_ms // 60_000:
            raise Refused(429, "too many failed authentications from this address", retry_after_s=60 - now_ms // 1000 % 60)

    def add(self, address: str, now_ms: int) -> None:
        address = _counted(address)
        minute, count = self._held.pop(address, (0, 0))
        self._held[address] = (now_ms // 60_000, count + 1 if minute == now_ms // 60_000 else 1)
        if len(self._held) > ADDRESSES:
            self._held.popitem(last=False)


def _counted(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or int(parsed) >> 64)
    return address


def address_of(core: Core, scope: Any) -> str:
    """The caller's address: the peer's, or what a trusted proxy says of it (the last address in `X-Forwarded-For` that is not a proxy's own)."""
    client = scope.get("client")
    address: str = client[0] if client else ""
    if not core.proxies or not within(address, core.proxies):
        return address
    said = ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == b"x-forwarded-for")
    for hop in reversed([part.strip() for part in said.split(",") if part.strip()]):
        address = hop[:64]
        if not within(hop, core.proxies):
            break
    return address


def from_proxy(core: Core, scope: Any) -> bool:
    """Whether the peer is a trusted proxy, whose headers about the client's certificate are believed."""
    client = scope.get("client")
    return bool(client) and bool(core.proxies) and within(client[0], core.proxies)


def plain(core: Core, scope: Any) -> str:
    """Where a proxy ends TLS: why a request was open to the network on its way here; empty if it was not."""
    client = scope.get("client")
    if not client or not from_proxy(core, scope):
        return "" if client and is_loopback(client[0]) else "this server is reached through its proxy, which ends TLS"
    if header(scope, b"x-forwarded-proto").lower() == "http" and core.url.startswith("https://"):
        return "this request came to the proxy without TLS"
    return ""


def within(address: str, networks: Any) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in networks)


def header(scope: Any, name: bytes) -> str:
    """The one value of a header, or "" if it is missing.

    Raises: Refused (400), if it came twice: which of the two counts would be a guess.
    """
    once = scope.get(ONCE)
    if once is not None:
        held: bytes = once.get(name, b"")
        return held.decode("latin-1")
    values = [value for key, value in scope["headers"] if key == name]
    if len(values) > 1:
        raise Refused(400, f"the header `{name.decode()}` came more than once")
    return values[0].decode("latin-1") if values else ""


def authenticate(core: Core, failures: Failures, scope: Any) -> Caller:
    """Who calls.

    Raises: Refused (401, 429; 403 when a browser's request came from another site).
    """
    now = core.clock()
    once = scope.get(ONCE)
    came_in: bytes = b"" if once is None else once.get(b"authorization", b"")
    recalled = core.keys.recalled(came_in, now) if came_in else None
    if recalled is not None:
        key = recalled[0]
        return Caller("key", key.id, key.scopes, name=key.name)
    authorization = header(scope, b"authorization")
    if authorization:
        kind, _, credential = authorization.partition(" ")
        credential = credential.strip()
        if kind.lower() == "bearer" and credential:
            found = core.keys.find(credential, now, came_in)
            if found is not None:
                return Caller("key", found.id, found.scopes, name=found.name)
        address = address_of(core, scope)
        failures.check(address, now)
        caller = _token(core, credential) if kind.lower() == "bearer" else None
        if caller is None:
            failures.add(address, now)
            raise Refused(401, "the key or token is not known, has expired, or was revoked", scope="?")
        return caller
    cookie = _cookie(core, scope)
    if cookie:
        address = address_of(core, scope)
        failures.check(address, now)
        # A page that refreshes itself says so: watching it is no activity, and the session runs out (PSD2 RTS article 4(3)(d)).
        person = core.people.session(cookie, now, active=header(scope, b"x-aftergate-background") != "1")
        if person is not None:
            if scope["method"] not in SAFE and not _same_origin(core, scope):
                raise Refused(403, "this request did not come from Aftergate's own page")
            return Caller("person", person.id, person.scopes, person.groups, person.session, person.name)
        failures.add(address, now)
        raise Refused(401, "the session has ended: log in again", scope="?")
    raise Refused(401, NOTHING_GIVEN)


def _token(core: Core, token: str) -> Caller | None:
    """Raises: Refused (503), when the issuer's keys cannot be had."""
    if core.tokens is None or token.count(".") != 2:
        return None
    try:
        claims = core.tokens.claims(token)
    except NotNow:
        raise Refused(503, "the issuer's keys cannot be had, so its tokens cannot be checked now", retry_after_s=5) from None
    if claims is None:
        return None
    return Caller("token", claims.client, claims.scopes, name=claims.client)


def cookies(scope: Any) -> str:
    """The `Cookie` header. Alone among all it may come in several fields, as HTTP/2 sends it (RFC 9113, 8.2.3)."""
    return "; ".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie")


def _cookie(core: Core, scope: Any) -> str:
    held = cookies(scope)
    if COOKIE not in held:
        return ""
    try:
        jar = SimpleCookie(held)
    except CookieError:
        return ""
    # Under https only the name that no other host of the domain can set: a planted cookie must not count.
    name = "__Host-" + COOKIE if core.url.startswith("https://") else COOKIE
    return jar[name].value if name in jar else ""


def _same_origin(core: Core, scope: Any) -> bool:
    return header(scope, b"origin") in core.people.origins


def allow(caller: Caller, scope: str) -> None:
    """Raises: Refused (403), if the caller lacks the scope."""
    if scope not in caller.scopes:
        raise Refused(403, f"this caller lacks the scope `{scope}`", scope=scope)


async def authenticated(core: Core, failures: Failures, scope: Any) -> Caller:
    """`authenticate`, for the event loop: what may have to wait does so elsewhere.

    Raises: Refused.
    """

    async def once() -> Caller:
        if core.settings.caller_issuer:  # a token may need the issuer's keys: nobody else waits for them
            return await sync_to_thread(authenticate, core, failures, scope)
        return authenticate(core, failures, scope)

    try:
        return await once()
    except Refused as refused:
        # A key that was made a moment ago, by another process on the same database, is good at once.
        if refused.status != 401 or not await sync_to_thread(core.keys.changed, core.clock()):
            raise
    return await once()


async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Every route's: authenticates the caller and asks for the scope that the route names. A route that names none is closed."""
    scope = handler.opt.get("scope")
    if scope == PUBLIC:
        return
    if scope == OWN:
        # OAuth's own endpoints may find the credential in the form; elsewhere nothing is read for somebody who shows none.
        if not connection.scope["path"].startswith("/oauth/") and not {b"authorization", b"cookie"}.intersection(
            name for name, _ in connection.scope["headers"]
        ):
            raise Refused(401, NOTHING_GIVEN)
        return
    state = connection.app.state
    caller = await authenticated(state.core, state.failures, connection.scope)
    connection.scope["state"]["caller"] = caller
    if scope is None:
        raise Refused(403, "this route names no scope")
    wanted = (scope,) if isinstance(scope, str) else tuple(scope)  # any one of several will do
    if not caller.scopes.intersection(wanted):
        allow(caller, wanted[0])
