"""People for operators, and for each person their own authenticators."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import PathParameter
from msgspec import UNSET, Meta, Struct, UnsetType

from aftergate.api import cookies
from aftergate.api.auth import Caller
from aftergate.api.problems import Problem
from aftergate.api.routes.login import Options, begun, refusal
from aftergate.authz.transactions.objects import rfc3339
from aftergate.service.enrolment import Refused
from aftergate.service.naming import PersonProblem
from aftergate.service.people import FRESH_MS
from aftergate.stores.people import Passkey, Person

PathId = Annotated[str, PathParameter(max_length=200, pattern=r"^[^\x00]*$")]  # PostgreSQL holds no NUL in text
Id = Annotated[str, Meta(min_length=1, max_length=200)]
Names = Annotated[list[Annotated[str, Meta(min_length=1, max_length=500)]], Meta(max_length=200)]


class PersonView(Struct):
    """A person. `aliases` are all other subject ids that are the same person."""

    id: str
    name: str
    groups: list[str]
    aliases: list[str]
    added: str


class AuthenticatorView(Struct):
    """An authenticator. `device_bound`: its key cannot leave the device."""

    id: str
    name: str
    device_bound: bool
    backed_up: bool
    aaguid: str
    transports: list[str]
    added: str
    last_used: str | None
    revoked: str | None
    opened_this_session: bool = False


class NewPerson(Struct):
    id: Id
    name: Annotated[str, Meta(max_length=200)] = ""
    groups: Names = []
    aliases: Names = []


class Change(Struct):
    """What is not given stays as it is."""

    name: Annotated[str, Meta(min_length=1, max_length=200)] | UnsetType = UNSET
    groups: Names | UnsetType = UNSET
    aliases: Names | UnsetType = UNSET


class LinkView(Struct):
    """A one-time link for registering an authenticator, shown this once."""

    link: str
    expires: str


class Added(LinkView):
    person: PersonView


class Me(PersonView):
    """Who is logged in, and how. Times are RFC 3339; `fresh` says whether authenticators may be changed without logging in again."""

    session: str
    method: str
    acr: str
    amr: list[str]
    authenticated: str | None
    fresh: bool
    idle_s: int
    ends: str
    authenticators: int
    issuer: bool


class Register(Struct):
    """What the authenticator made (`RegistrationResponseJSON`), and what its owner calls it."""

    credential: dict[str, Any]
    name: Annotated[str, Meta(max_length=200)] = ""


class Rename(Struct):
    name: Annotated[str, Meta(min_length=1, max_length=200)]


@get("/v1/people", opt={"scope": "admin"}, tags=["people"], sync_to_thread=True)
def people(core: NamedDependency[Any]) -> list[PersonView]:
    """Everybody, by id."""
    return [view(each) for each in core.people.everybody()]


@post("/v1/people", opt={"scope": "admin"}, tags=["people"], sync_to_thread=True)
def add_person(core: NamedDependency[Any], caller: NamedDependency[Caller], data: NewPerson) -> Added:
    """Add a person. The answer holds the link with which they register their first authenticator."""
    try:
        person, link = core.people.add(data.id, name=data.name, groups=data.groups, aliases=data.aliases, by=caller.actor())
    except PersonProblem as e:
        raise Problem(409 if "already" in e.message or "case" in e.message else 400, e.message, code=e.code) from e
    return Added(link.url, rfc3339(link.expires_ms), view(person))


@get("/v1/people/{person_id:str}", opt={"scope": "admin"}, tags=["people"], sync_to_thread=True)
def one_person(core: NamedDependency[Any], person_id: PathId) -> PersonView:
    """One person."""
    return view(_there(core, person_id))


@patch("/v1/people/{person_id:str}", opt={"scope": "admin"}, tags=["people"], sync_to_thread=True)
def change_person(core: NamedDependency[Any], caller: NamedDependency[Caller], person_id: PathId, data: Change) -> PersonView:
    """Set a person's name, groups or aliases. Groups and aliases that the issuer tells at each login stay beside yours."""
    _there(core, person_id)
    given = {name: value for name in ("name", "groups", "aliases") if (value := getattr(data, name)) is not UNSET}
    try:
        return view(core.people.change(person_id, by=caller.actor(), **given))
    except PersonProblem as e:
        raise Problem(400, e.message, code=e.code) from e


@delete("/v1/people/{person_id:str}", opt={"scope": "admin"}, tags=["people"], sync_to_thread=True)
def remove_person(core: NamedDependency[Any], caller: NamedDependency[Caller], person_id: PathId) -> None:
    """Remove a person: their sessions end and their authenticators are worth nothing from now on."""
    if not core.people.remove(person_id, by=caller.actor()):
        raise _nobody()


@post("/v1/people/{person_id:str}/link", opt={"scope": "admin"}, tags=["people"], sync_to_thread=True)
def new_link(core: NamedDependency[Any], caller: NamedDependency[Caller], person_id: PathId) -> LinkView:
    """A new one-time link; the person's older ones die."""
    _there(core, person_id)
    link = core.people.link(person_id, by=caller.actor())
    return LinkView(link.url, rfc3339(link.expires_ms))


@get("/v1/people/{person_id:str}/authenticators", opt={"scope": "admin"}, tags=["people"], sync_to_thread=True)
def their_authenticators(core: NamedDependency[Any], person_id: PathId) -> list[AuthenticatorView]:
    """A person's authenticators, removed ones too."""
    _there(core, person_id)
    return [passkey_view(each) for each in core.people.passkeys(person_id, revoked=True)]


@delete("/v1/people/{person_id:str}/authenticators/{authenticator:str}", opt={"scope": "admin"}, tags=["people"], sync_to_thread=True)
def remove_their_authenticator(
    core: NamedDependency[Any], caller: NamedDependency[Caller], person_id: PathId, authenticator: PathId
) -> None:
    """Remove a lost authenticator; the sessions it opened end."""
    if not core.people.remove_passkey(person_id, authenticator, by=caller.actor()):
        raise Problem(404, "there is no such authenticator")


@get("/v1/me", opt={"scope": "approve"}, tags=["me"], sync_to_thread=True)
def me(core: NamedDependency[Any], caller: NamedDependency[Caller], request: Request[Any, Any, Any]) -> Me:
    """Who is logged in."""
    now = core.clock()
    session = core.people.session(cookies.session_of(core, request.scope), now, active=False)
    if session is None:
        raise Problem(401, "the session has ended: log in again")
    person = _there(core, caller.id)
    settings = core.settings
    return Me(
        person.id, person.name, sorted(person.groups), sorted(person.aliases), rfc3339(person.created_ms), session.session, session.method, session.acr,
        list(session.amr), rfc3339(session.auth_ms) if session.auth_ms else None, now - session.auth_ms <= FRESH_MS, settings.session_idle_s,
        rfc3339(session.created_ms + settings.session_max_s * 1000), len(core.people.passkeys(person.id)), bool(settings.oidc_issuer),
    )  # fmt: skip


@get("/v1/me/authenticators", opt={"scope": "approve"}, tags=["me"], sync_to_thread=True)
def my_authenticators(
    core: NamedDependency[Any], caller: NamedDependency[Caller], request: Request[Any, Any, Any]
) -> list[AuthenticatorView]:
    """The logged-in person's authenticators."""
    session = core.people.session(cookies.session_of(core, request.scope), core.clock(), active=False)
    opened = session.authenticator if session is not None else ""
    return [passkey_view(each, opened) for each in core.people.passkeys(caller.id)]


@post("/v1/me/authenticators/options", opt={"scope": "approve"}, tags=["me"], status_code=200, sync_to_thread=True)
def register_options(core: NamedDependency[Any], caller: NamedDependency[Caller], request: Request[Any, Any, Any]) -> Response[Options]:
    """What a further authenticator is to make. Needs a login not older than five minutes."""
    _fresh(core, request)
    made = core.people.enrolment.begin(caller.id)
    if isinstance(made, Refused):
        raise refusal(made)
    return begun(core, made)


@post("/v1/me/authenticators", opt={"scope": "approve"}, tags=["me"], sync_to_thread=True)
def register(
    core: NamedDependency[Any], caller: NamedDependency[Caller], request: Request[Any, Any, Any], data: Register
) -> AuthenticatorView:
    """Register a further authenticator. Needs a login not older than five minutes."""
    _fresh(core, request)
    ticket = cookies.value_of(core, request.scope, cookies.CEREMONY)
    try:
        made = core.people.enrolment.finish(ticket, data.credential, data.name, person_id=caller.id, session=caller.session)
    except PersonProblem as e:
        raise Problem(400, e.message, code=e.code) from e
    if isinstance(made, Refused):
        raise refusal(made)
    return passkey_view(made)


@patch("/v1/me/authenticators/{authenticator:str}", opt={"scope": "approve"}, tags=["me"], status_code=204, sync_to_thread=True)
def rename(core: NamedDependency[Any], caller: NamedDependency[Caller], authenticator: PathId, data: Rename) -> None:
    """Call an authenticator something else."""
    try:
        done = core.people.rename_passkey(caller.id, authenticator, data.name)
    except PersonProblem as e:
        raise Problem(400, e.message, code=e.code) from e
    if not done:
        raise Problem(404, "there is no such authenticator")


@delete("/v1/me/authenticators/{authenticator:str}", opt={"scope": "approve"}, tags=["me"], sync_to_thread=True)
def remove(core: NamedDependency[Any], caller: NamedDependency[Caller], request: Request[Any, Any, Any], authenticator: PathId) -> None:
    """Remove an authenticator. Needs a login not older than five minutes; the sessions it opened end."""
    _fresh(core, request)
    if not core.people.remove_passkey(caller.id, authenticator, by=caller.actor()):
        raise Problem(404, "there is no such authenticator")


def _fresh(core: Any, request: Request[Any, Any, Any]) -> None:
    """Freshness is when the person authenticated, never when a session or token was issued (RFC 9470).

    Raises: Problem (401), with the challenge of RFC 9470, section 3.
    """
    now = core.clock()
    session = core.people.session(cookies.session_of(core, request.scope), now)
    if session is None or now - session.auth_ms > FRESH_MS:
        challenge = f'Bearer error="insufficient_user_authentication", error_description="log in again", max_age="{FRESH_MS // 1000}"'
        raise Problem(401, "log in again to change your authenticators", code="login-again", headers={"www-authenticate": challenge})


def _there(core: Any, person_id: str) -> Person:
    try:
        held: Person = core.people.person(person_id)
    except PersonProblem as e:
        raise _nobody() from e
    return held


def _nobody() -> Problem:
    return Problem(404, "there is no such person")


def view(person: Person) -> PersonView:
    """A person, for the wire."""
    return PersonView(person.id, person.name, sorted(person.groups), sorted(person.aliases), rfc3339(person.created_ms))


def passkey_view(each: Passkey, opened: str = "") -> AuthenticatorView:
    """An authenticator, for the wire; `opened` is the one that the session was opened with."""

    def time(at_ms: int | None) -> str | None:
        return None if at_ms is None else rfc3339(at_ms)

    return AuthenticatorView(
        each.id, each.name, not each.backup_eligible, each.backed_up, each.aaguid, list(each.transports), rfc3339(each.added_ms), time(each.last_used_ms),
        time(each.revoked_ms), bool(opened) and each.id == opened,
    )  # fmt: skip


ROUTES = [
    people, add_person, one_person, change_person, remove_person, new_link, their_authenticators, remove_their_authenticator,
    me, my_authenticators, register_options, register, rename, remove,
]  # fmt: skip
