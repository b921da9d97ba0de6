"""Auth0 tenant logs: records in, event facts out. All names and ids are invented."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import msgspec
import pytest

from aftergate.connectors.auth0.normalise import SOURCES
from aftergate.connectors.base import Normaliser
from aftergate.errors import NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.vocabulary import Event, Kind, Tag


def record(code: str, **changes: Any) -> dict[str, Any]:
    return {
        "log_id": "900-1",
        "date": "2026-03-01T08:00:00.000Z",
        "type": code,
        "client_id": "cl1",
        "client_name": "Planner",
        "ip": "203.0.113.7",
        "user_agent": "Chrome 140.0.0 / Windows 10.0.0",
        "user_id": "auth0|u1",
        "user_name": "Ada@mail.example",
        "tenant_name": "corp",
        "details": {},
        **changes,
    }


@cache
def normaliser() -> Normaliser:
    """One for all tests: it keeps nothing but caches."""
    return SOURCES[0].normaliser(Interner())


def parse(raw: dict[str, Any]) -> Event:
    assert SOURCES[0].recognise(raw)
    event = normaliser().parse(json.dumps(raw).encode())
    assert isinstance(event, Event)
    return event


def api(method: str, path: str, body: Any = None, status: int = 200, response: Any = None) -> dict[str, Any]:
    request = {
        "method": method,
        "path": path,
        "body": body,
        "auth": {"user": {"user_id": "google-oauth2|9", "email": "Root@corp.example"}, "credentials": {"jti": "j1"}},
    }
    return record("sapi" if status < 400 else "fapi", details={"request": request, "response": {"statusCode": status, "body": response}})


def test_both_forms_give_the_same_event():
    raw = record("s", details={"session_id": "s1"})
    bare, streamed = parse(raw), parse({"log_id": "900-1", "data": raw})
    assert (bare.id, bare.session, bare.kind) == (streamed.id, streamed.session, streamed.kind) == ("900-1", "s1", Kind.SIGN_IN)
    assert (bare.actor.id, bare.actor.names, bare.shape.account) == ("auth0|u1", ("ada@mail.example",), "corp")


def test_a_rotation_names_family_generation_child_and_the_token_spent():
    details = {"familyId": "fam", "tokenCounter": 4, "access_token_jti": "at", "refresh_token": {"session_id": "s2"}}
    event = parse(record("sertft", details=details, scope="openid files"))
    assert (event.d.family, event.d.generation, event.d.issued, event.d.spent) == ("fam", 4, ("fam.4", "at"), "fam.3")
    assert (event.credential, event.session, event.shape.silent, event.d.scopes) == ("fam.3", "s2", "token_refresh", ("openid", "files"))


def test_a_reuse_tells_the_generation_presented_and_the_latest():
    event = parse(
        record("ferrt", description="reused refresh token detected", details={"familyId": "fam", "tokenCounter": 7, "latestCounter": 13})
    )
    assert (event.kind, event.shape.error, event.d.generation, event.credential) == (
        Kind.TOKEN_REFRESH,
        "reused refresh token detected",
        7,
        "fam.7",
    )
    assert event.d.params == {"latest_generation": 13}
    assert event.d.issued == ()


@pytest.mark.parametrize(
    ("code", "kind", "grant", "actor", "silent"),
    [
        ("seacft", Kind.TOKEN_ISSUE, "authorization_code", "auth0|u1", None),
        ("seccft", Kind.TOKEN_ISSUE, "client_credentials", "cl1", "background_service"),
        ("sede", Kind.TOKEN_ISSUE, "device_code", "auth0|u1", None),
        ("sepft", Kind.TOKEN_ISSUE, "password", "auth0|u1", None),
        ("sete", Kind.TOKEN_EXCHANGE, "token_exchange", "auth0|u1", "delegated_application"),
        ("srrt", Kind.TOKEN_REVOKE, None, "auth0|u1", None),
        ("slo", Kind.SESSION_END, None, "auth0|u1", None),
        ("fp", Kind.SIGN_IN, None, "auth0|u1", None),
        ("limit_wc", Kind.SIGN_IN, None, "auth0|u1", None),
    ],
)
def test_codes_have_their_meaning(code, kind, grant, actor, silent):
    event = parse(record(code))
    assert (event.kind, event.d.grant, event.actor.id, event.shape.silent) == (kind, grant, actor, silent)
    assert event.ok is (not code.startswith(("f", "limit")))


@pytest.mark.parametrize(
    ("raw", "name", "tags"),
    [
        (api("patch", "/api/v2/clients/abc123", {"callbacks": ["https://x"]}), "PATCH /clients/{id}", {Tag.REDIRECT_CHANGE}),
        (api("post", "/api/v2/clients/abc123/rotate-secret"), "POST /clients/{id}/rotate-secret", {Tag.CREDENTIAL_ADD}),
        (api("post", "/api/v2/users/auth0%7Cu1/roles"), "POST /users/{id}/roles", {Tag.PRIVILEGE_GRANT}),
        (api("put", "/api/v2/guardian/policies", []), "PUT /guardian/policies:off", {Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN}),
        (api("put", "/api/v2/guardian/policies", ["all-applications"]), "PUT /guardian/policies", {Tag.DEFENCE_CHANGE}),
        (api("delete", "/api/v2/log-streams/lst_1"), "DELETE /log-streams/{id}", {Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN}),
        (api("patch", "/api/v2/connections/con_1", {}), "PATCH /connections/{id}", {Tag.TRUST_CHANGE}),
        (api("patch", "/api/v2/users/auth0|u1", {"blocked": True}), "PATCH /users/{id}:blocked", {Tag.IDENTITY_DISABLE}),
        (
            api("delete", "/api/v2/users/auth0|u1/authentication-methods"),
            "DELETE /users/{id}/authentication-methods",
            {Tag.FACTOR_RESET, Tag.FACTOR_REMOVE},
        ),
        (api("get", "/api/v2/users"), "GET /users", set()),
    ],
)
def test_management_calls_are_named_without_ids_and_tagged(raw, name, tags):
    event = parse(raw)
    assert (event.action.name, event.action.tags) == (name, tags)
    assert (event.actor.id, event.credential) == ("google-oauth2|9", "j1")


def test_a_management_call_keeps_its_target_and_hides_what_may_be_secret():
    event = parse(api("patch", "/api/v2/clients/abc123", {"client_secret": "hush", "callbacks": ["https://x"]}))
    assert event.target == "abc123"
    assert {change.name: change.new for change in event.d.changes} == {"client_secret": None, "callbacks": '["https://x"]'}


def test_a_refused_management_call_is_an_error():
    assert not parse(api("post", "/api/v2/clients", {}, status=403)).ok


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"nope", msgspec.DecodeError),
        (b"{}", NotMine),
        (b'{"type": "s", "date": "2026-03-01T08:00:00Z"}', Reject),
        (b'{"type": "s", "log_id": "1", "date": []}', Reject),
        (b'{"a": "\xff"}', Reject),
    ],
)
def test_what_cannot_be_read_is_refused(line, error):
    with pytest.raises(error):
        normaliser().parse(line)


@pytest.mark.parametrize("junk", [None, 5, "text", [], [None], {"a": []}, True])
def test_wrong_types_in_optional_fields_do_no_harm(junk):
    for field in ("details", "client_id", "user_id", "user_name", "scope", "audience", "ip", "description", "location_info"):
        line = json.dumps({**record("sertft", details={"familyId": "f", "tokenCounter": 2}), field: junk}).encode()
        assert normaliser().parse(line)
