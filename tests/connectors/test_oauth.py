"""Generic OAuth server events: records in, event facts out. All names and ids are invented."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import msgspec
import pytest

from aftergate.connectors.base import Normaliser
from aftergate.connectors.oauth.normalise import SOURCES
from aftergate.connectors.oauth.shared import grant_name, moment, words
from aftergate.errors import NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.vocabulary import Event, Kind

CLAIMS = {"jti": "a2", "sid": "s9", "sub": "u17", "iat": 1_772_352_000, "exp": 1_772_355_600, "aud": ["files"], "azp": "planner"}


def record(kind: str, details: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "id": "e1",
        "time": "2026-03-01T08:00:00Z",
        "type": kind,
        "issuer": "https://as.example",
        "clientId": "planner",
        "userId": "u17",
        "sessionId": "s9",
        "ipAddress": "203.0.113.7",
        "details": details or {},
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


def test_a_refresh_spends_one_token_and_mints_its_child():
    details = {"refresh_token_id": "r1", "updated_refresh_token_id": "r2", "token_id": "a2", "scope": "openid files"}
    event = parse(record("token_refreshed", details, claims=CLAIMS))
    assert (event.credential, event.d.spent, event.d.issued, event.session) == ("r1", "r1", ("r2", "a2"), "s9")
    assert (event.shape.silent, event.shape.resource, event.d.issued_ttl_s, event.d.scopes) == (
        "token_refresh",
        "files",
        3600,
        ("openid", "files"),
    )


def test_snake_case_without_details_reads_the_same():
    camel = parse(record("token_refreshed", {"refresh_token_id": "r1"}))
    snake = parse(
        {
            "event_id": "e1",
            "timestamp": 1_772_352_000,
            "event": "refresh_token",
            "client_id": "planner",
            "user_id": "u17",
            "session_id": "s9",
            "ip_address": "203.0.113.7",
            "issuer": "https://as.example",
            "refresh_token_id": "r1",
        }
    )
    assert (camel.time, camel.actor.id, camel.credential, camel.action.name) == (
        snake.time,
        snake.actor.id,
        snake.credential,
        snake.action.name,
    )


@pytest.mark.parametrize(
    ("raw", "name", "kind", "actor", "silent"),
    [
        (record("token_issued", {"grant_type": "authorization_code"}), "token_issued:authorization_code", Kind.TOKEN_ISSUE, "u17", None),
        (
            record("TOKEN", {"grant_type": "client_credentials"}),
            "token_issued:client_credentials",
            Kind.TOKEN_ISSUE,
            "planner",
            "background_service",
        ),
        (record("tokenIssued", {"grantType": "refresh_token"}), "token_issued:refresh_token", Kind.TOKEN_REFRESH, "u17", "token_refresh"),
        (
            record("token_issued", {"grant_type": "urn:ietf:params:oauth:grant-type:device_code"}),
            "token_issued:device_code",
            Kind.TOKEN_ISSUE,
            "u17",
            None,
        ),
        (record("token_exchange"), "token_exchanged", Kind.TOKEN_EXCHANGE, "planner", "delegated_application"),
        (record("introspect"), "token_introspected", Kind.OTHER, "planner", None),
        (record("token_revoked"), "token_revoked", Kind.TOKEN_REVOKE, "u17", None),
        (record("login"), "login", Kind.SIGN_IN, "u17", None),
        (record("device_code_approved"), "device_code_approved", Kind.DEVICE_CODE_APPROVAL, "u17", None),
    ],
)
def test_event_names_have_their_meaning(raw, name, kind, actor, silent):
    event = parse(raw)
    assert (event.action.name, event.kind, event.actor.id, event.shape.silent) == (name, kind, actor, silent)


def test_a_detected_reuse_and_a_failed_refresh_are_errors():
    reuse = parse(record("refresh_token_reuse", {"refresh_token_id": "r1"}))
    failed = parse(record("REFRESH_TOKEN_ERROR", {"refresh_token_id": "r1"}, error="invalid_grant"))
    assert (reuse.kind, reuse.shape.error, reuse.d.spent) == (Kind.TOKEN_REFRESH, "refresh_token_reuse", "r1")
    assert (failed.action.name, failed.shape.error) == ("token_refreshed", "invalid_grant")


@pytest.mark.parametrize(
    ("claims", "binding"),
    [({**CLAIMS, "cnf": {"jkt": "k"}}, "bound"), (CLAIMS, "unbound"), (None, None)],
)
def test_binding_is_known_only_where_claims_are_shown(claims, binding):
    assert parse(record("token_issued", claims=claims)).d.binding == binding


def test_an_exchange_keeps_the_chain_of_actors():
    event = parse(
        record(
            "token_exchange",
            {"subject_token_id": "a1", "token_id": "a2"},
            claims={**CLAIMS, "act": {"sub": "agent", "act": {"sub": "hub"}}},
        )
    )
    assert (event.d.act, event.d.subject, event.credential, event.d.issued) == (("agent", "hub"), "u17", "a1", ("a2",))


def test_an_introspection_shows_audience_and_times_of_the_token_asked_about():
    event = parse(record("introspect", clientId="mail", claims=CLAIMS))
    assert (event.target, event.credential, event.shape.client, event.d.audience) == ("a2", None, "mail", ("files",))
    assert (event.d.token_issued_at, event.d.token_expires_at) == (1_772_352_000_000, 1_772_355_600_000)


@pytest.mark.parametrize(
    "raw",
    [
        {"type": "LOGIN", "realmId": "r", "clientId": "c", "time": 1, "id": "1"},
        {"type": "s", "log_id": "1", "client_id": "c", "date": "x"},
        {"type": "purchase", "clientId": "c", "time": 1, "id": "1"},
        {"type": "login", "clientId": "c", "id": "1"},
    ],
)
def test_records_of_others_are_not_recognised(raw):
    assert not SOURCES[0].recognise(raw)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"{", msgspec.DecodeError),
        (b"[]", msgspec.ValidationError),
        (b"{}", NotMine),
        (b'{"type": "login", "id": "1"}', Reject),
        (b'{"type": "login", "time": 5}', Reject),
        (b'{"a": "\xff"}', Reject),
    ],
)
def test_what_cannot_be_read_is_refused(line, error):
    with pytest.raises(error):
        normaliser().parse(line)


@pytest.mark.parametrize("junk", [None, 5, "text", [], [None], {"a": []}, True])
def test_wrong_types_in_optional_fields_do_no_harm(junk):
    for field in ("details", "claims", "clientId", "userId", "sessionId", "ipAddress", "error", "issuer"):
        for kind in ("token_refreshed", "token_exchange", "introspect"):
            assert normaliser().parse(json.dumps({**record(kind), field: junk}).encode())


def test_a_deep_record_is_refused():
    with pytest.raises(Reject):
        normaliser().parse(b'{"a":' + b"[" * 100_000)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("urn:ietf:params:oauth:grant-type:jwt-bearer", "jwt_bearer"),
        ("refresh_token", "refresh_token"),
        ("urn:x:new-one", "new-one"),
        (5, "5"),
        ([], None),
    ],
)
def test_grant_names_are_the_vocabularys(raw, name):
    assert grant_name(raw) == name


def test_scopes_are_read_from_text_and_lists_without_doubles():
    assert words("a, b a") == words(["a", "b", "a"]) == ("a", "b")


@pytest.mark.parametrize("value", [None, True, "", "2026-03-01T08:00:infZ", float("inf"), [], {}])
def test_a_time_that_is_none_is_refused(value):
    moment("2026-03-01T08:00:00Z", "time")
    with pytest.raises(Reject):
        moment(value, "time")
