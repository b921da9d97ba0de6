"""Logging in and out, and registering a first authenticator with a link: what the login and enrolment pages call."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import structlog
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery
from litestar.response import Redirect
from msgspec import Meta, Struct

from aftergate.api import cookies
from aftergate.api.auth import COOKIE, PUBLIC, Caller, Failures
from aftergate.api.problems import Problem
from aftergate.service.enrolment import Ceremony, Refused
from aftergate.service.naming import PersonProblem
from aftergate.service.oidc import IssuerError
from aftergate.service.people import FRESH_MS

HOME: Final = "/approvals"
ONWARD: Final = re.compile(r"/approvals(?:/[A-Za-z0-9_-]+)*")  # no dots: `/approvals/..` is elsewhere
CEREMONY_S: Final = 300
AT_ISSUER_S: Final = 600
log = structlog.get_logger("aftergate")

# What a page may say of each refusal. Which part of a proof failed is in the audit trail, and not told (PSD2 RTS article 4(3)(a)).
WORDS: Final = {
    "expired": "This took too long, or was done already. Try again.",
    "unknown": "This passkey is not registered here.",
    "unverified": "Your authenticator did not verify you. Use its PIN, fingerprint or face.",
    "refused": "The passkey could not be verified.",
    "removed": "This person has no access any more.",
    "link": "This link has expired or was used. Ask for a new one.",
    "known": "This authenticator is registered already.",
    "too-many": "You have as many authenticators as one person can have. Remove one first.",
    "declined": "The issuer did not let you in.",
    "stronger": "The issuer could not authenticate you as strongly as is needed here.",
    "issuer": "The login at the issuer did not work. The server's log says why.",
}


class WaysIn(Struct):
    """How people can log in here. `issuer` is the host of the OpenID Connect issuer, if there is one."""

    passkey: bool
    issuer: str | None


class Finish(Struct):
    """What the authenticator answered: `AuthenticationResponseJSON`."""

    credential: dict[str, Any]


class Link(Struct):
    """The part of an enrolment link behind `#`."""

    secret: Annotated[str, Meta(min_length=1, max_length=100)]


class Enrol(Link):
    """What the authenticator made (`RegistrationResponseJSON`), and what its owner calls it."""

    credential: dict[str, Any]
    name: Annotated[str, Meta(max_length=200)] = ""


class Who(Struct):
    person: str
    name: str


class Options(Struct):
    """The ceremony's options, as JSON, for `navigator.credentials`."""

    public_key: dict[str, Any]
    person: str = ""
    name: str = ""


@get("/v1/login", opt={"scope": PUBLIC}, include_in_schema=False, sync_to_thread=False)
def ways_in(core: NamedDependency[Any]) -> WaysIn:
    """How people log in here."""
    return WaysIn(True, urlsplit(core.settings.oidc_issuer).hostname if core.settings.oidc_issuer else None)


@post("/v1/login/passkey/options", opt={"scope": PUBLIC}, include_in_schema=False, status_code=200, sync_to_thread=False)
def passkey_options(core: NamedDependency[Any], request: Request[Any, Any, Any]) -> Response[Options]:
    """A challenge for a passkey."""
    cookies.from_own_page(core, request.scope)
    return begun(core, core.people.logins.passkey_begin())


@post("/v1/login/passkey", opt={"scope": PUBLIC}, include_in_schema=False, status_code=200, sync_to_thread=True)
def passkey(core: NamedDependency[Any], request: Request[Any, Any, Any], data: Finish) -> Response[Who]:
    """Log in with the passkey's answer."""
    cookies.from_own_page(core, request.scope)
    failures: Failures = request.app.state.failures
    address = cookies.not_too_often(core, failures, request.scope)
    ticket = cookies.value_of(core, request.scope, cookies.CEREMONY)
    done = core.people.logins.passkey_finish(ticket, data.credential, instead_of=cookies.session_of(core, request.scope))
    if isinstance(done, Refused):
        failures.add(address, core.clock())
        log.info("login refused", method="passkey", reason=done.code, detail=done.detail)
        raise refusal(done)
    return Response(Who(done.person, done.name), cookies=[cookies.made(core, COOKIE, done.cookie), cookies.gone(core, cookies.CEREMONY)])


@get("/v1/login/oidc", opt={"scope": PUBLIC}, include_in_schema=False, sync_to_thread=True)
def oidc(core: NamedDependency[Any], onward: FromQuery[str] = HOME, fresh: FromQuery[bool] = False) -> Redirect:
    """Go to the issuer. With `fresh` it is to authenticate the person anew, not to go on with a session of its own."""
    onward = onward if ONWARD.fullmatch(onward) else HOME  # INVARIANT: never an address that somebody else chose
    try:
        start = core.people.logins.oidc_begin(
            onward, max_age_s=FRESH_MS // 1000 if fresh else None, acr_values=core.settings.oidc_acr_values, prompt="login" if fresh else ""
        )
    except IssuerError as e:
        log.warning("login failed", problem=str(e))
        return Redirect("/login?problem=issuer", status_code=303)
    ticket = cookies.made(core, cookies.ISSUER, start.ticket, same_site="lax", max_age_s=AT_ISSUER_S)
    return Redirect(start.url, status_code=303, cookies=[ticket])


@get("/v1/login/oidc/callback", opt={"scope": PUBLIC}, include_in_schema=False, sync_to_thread=True)
def oidc_callback(core: NamedDependency[Any], request: Request[Any, Any, Any]) -> Redirect:
    """Back from the issuer."""
    failures: Failures = request.app.state.failures
    address = cookies.not_too_often(core, failures, request.scope)
    answer: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in answer:  # RFC 6749, section 3.1: a parameter comes once
            answer = {}
            break
        answer[name] = value
    ticket = cookies.value_of(core, request.scope, cookies.ISSUER)
    done = core.people.logins.oidc_finish(ticket, answer, instead_of=cookies.session_of(core, request.scope))
    over = cookies.gone(core, cookies.ISSUER)
    if isinstance(done, Refused):
        failures.add(address, core.clock())
        log.info("login refused", method="oidc", reason=done.code, detail=done.detail)
        return Redirect(f"/login?problem={done.code}", status_code=303, cookies=[over])
    return Redirect(done.onward, status_code=303, cookies=[cookies.made(core, COOKIE, done.cookie), over])


@post("/v1/logout", opt={"scope": "approve"}, status_code=204, sync_to_thread=True)
def logout(core: NamedDependency[Any], caller: NamedDependency[Caller]) -> Response[None]:
    """End the person's session."""
    core.people.end_session(caller.session, caller.id, by=caller.actor())
    return Response(None, status_code=204, cookies=[cookies.gone(core, COOKIE)])


@post("/v1/enrol/options", opt={"scope": PUBLIC}, include_in_schema=False, status_code=200, sync_to_thread=True)
def enrol_options(core: NamedDependency[Any], request: Request[Any, Any, Any], data: Link) -> Response[Options]:
    """Whose link this is, and what their authenticator is to make."""
    cookies.from_own_page(core, request.scope)
    failures: Failures = request.app.state.failures
    address = cookies.not_too_often(core, failures, request.scope)
    made = core.people.enrolment.begin_with_link(data.secret)
    if isinstance(made, Refused):
        failures.add(address, core.clock())
        raise refusal(made)
    return begun(core, made)


@post("/v1/enrol", opt={"scope": PUBLIC}, include_in_schema=False, status_code=201, sync_to_thread=True)
def enrol(core: NamedDependency[Any], request: Request[Any, Any, Any], data: Enrol) -> Response[Who]:
    """Register an authenticator with a link, and use the link up."""
    cookies.from_own_page(core, request.scope)
    failures: Failures = request.app.state.failures
    address = cookies.not_too_often(core, failures, request.scope)
    ticket = cookies.value_of(core, request.scope, cookies.CEREMONY)
    try:
        done = core.people.enrolment.finish(ticket, data.credential, data.name, secret=data.secret)
    except PersonProblem as e:
        raise Problem(400, e.message) from e
    if isinstance(done, Refused):
        failures.add(address, core.clock())
        log.info("registration refused", reason=done.code, detail=done.detail)
        raise refusal(done)
    return Response(Who(done.person, done.name), cookies=[cookies.gone(core, cookies.CEREMONY)])


def begun(core: Any, made: Ceremony) -> Response[Options]:
    """A ceremony's options, with its ticket as a cookie."""
    ticket = cookies.made(core, cookies.CEREMONY, made.ticket, max_age_s=CEREMONY_S)
    return Response(Options(made.options, made.person, made.name), cookies=[ticket])


def refusal(refused: Refused) -> Problem:
    return Problem(403, WORDS[refused.code], code=refused.code)


ROUTES = [ways_in, passkey_options, passkey, oidc, oidc_callback, logout, enrol_options, enrol]
