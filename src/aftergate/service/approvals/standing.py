"""Who asks: every name, session and authenticator by which the requester is known, so that nobody approves what they asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from sqlalchemy import Connection, select

from aftergate.authz.transactions.machine import folded
from aftergate.authz.wire import EvaluationRequest
from aftergate.stores import people
from aftergate.stores.approvals import About
from aftergate.stores.people import Person
from aftergate.stores.tables.base import api_keys

if TYPE_CHECKING:
    from aftergate.authz.transactions.binding import Binding
    from aftergate.service.approvals.submitting import Submission


class Requester(Struct, frozen=True):
    """Who asks. `persons` are all who go by one of the requester's own names: more than one when an alias is shared."""

    names: frozenset[str]  # folded: everybody who must not approve
    behind: tuple[str, ...]  # on whose behalf, as it was said
    sessions: frozenset[str]
    authenticators: frozenset[str]
    about: About
    persons: tuple[Person, ...]


def requester_of(
    connection: Connection, ask: EvaluationRequest, client: Mapping[str, Any], given: Submission, denials: Iterable[Binding]
) -> Requester:
    """Everybody who stands behind a request: the subject, those on whose behalf, the actors between, the person who sent it.

    What is claimed and not proved only ever adds to who may not approve.
    """
    context, properties = ask.context, ask.subject.properties
    bindings = tuple(denials)
    behind = {name for one in bindings for name in one.behind}
    acting = {*_named(properties.get("act")), *_named(client.get("actor"))}
    on_behalf = {*behind, *_named(properties.get("on_behalf_of")), *_named(context.get("on_behalf_of"))}
    transaction = context.get("transaction")
    if isinstance(transaction, dict):
        on_behalf |= _named(transaction.get("on_behalf_of"))
    callers = {given.caller, *(one.caller for one in bindings)}
    # Who holds a key is not known to the server; who is said to, by having its name as an alias, does not approve what it asked for.
    holders = connection.execute(select(api_keys.c.name).where(api_keys.c.id.in_(sorted(callers)))).scalars()
    person = {given.person} if given.person else set()
    said = {ask.subject.id, f"{ask.subject.type}:{ask.subject.id}", *acting, *on_behalf, *person, *callers, *holders}
    everybody = people.everybody(connection)
    known = [person for person in everybody if folded(person.names) & folded(said)]
    own = tuple(person for person in everybody if folded(person.names) & folded({ask.subject.id}))
    names = folded([*said, *(name for person in known for name in person.names)])
    # What the denied request named counts beside what the submission names: leaving it out must not lose a finding.
    sessions = {_text(context.get("session_id")), *(one.session for one in bindings)} - {""}
    credentials = {_text(context.get("credential_id")), *(one.credential for one in bindings)} - {""}
    proved = context.get("auth")
    authenticator = _text(proved.get("authenticator")) if isinstance(proved, dict) else ""
    identity = {ask.subject.id, *on_behalf, *acting, *(name for person in own for name in person.names)}
    return Requester(
        names,
        tuple(sorted(on_behalf)),
        frozenset({*sessions, given.session} - {""}),
        frozenset({*credentials, authenticator} - {""}),
        About(tuple(sorted(identity)), tuple(sorted(sessions)), tuple(sorted(credentials))),
        own,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _named(value: Any) -> set[str]:
    """Names in an actor chain (RFC 8693 `act`, ARAP `client.actor`), a list, or a text."""
    found: set[str] = set()
    waiting = [value]
    while waiting:
        held = waiting.pop()
        if isinstance(held, str):
            found.add(held)
        elif isinstance(held, list):
            waiting.extend(held)
        elif isinstance(held, dict):
            found.update(held[name] for name in ("id", "sub") if isinstance(held.get(name), str))
            if "act" in held:
                waiting.append(held["act"])
    return {name for name in found if name.strip()}
