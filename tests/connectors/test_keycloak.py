"""Keycloak user and admin events: records in, event facts out. All names and ids are invented."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import msgspec
import pytest

from aftergate.connectors.base import Normaliser
from aftergate.connectors.keycloak.normalise import SOURCES
from aftergate.errors import NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.vocabulary import Event, Kind, Tag

UID = "0c414a97-e0b9-43fc-96cf-2f780aebaf88"


def user(kind: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": "e1",
        "time": 1_772_352_000_000,
        "type": kind,
        "realmId": "r1",
        "realmName": "corp",
        "clientId": "intranet",
        "userId": UID,
        "sessionId": "s1",
        "ipAddress": "203.0.113.7",
        "details": {},
        **changes,
    }


def admin(resource: str, operation: str, path: str, representation: Any = None, **changes: Any) -> dict[str, Any]:
    return {
        "id": "a1",
        "time": 1_772_352_000_000,
        "realmId": "r1",
        "operationType": operation,
        "resourceType": resource,
        "resourcePath": path,
        "representation": None if representation is None else json.dumps(representation),
        "authDetails": {"clientId": "console", "userId": "root-id", "ipAddress": "203.0.113.9"},
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
    details = {"refresh_token_id": "rt1", "updated_refresh_token_id": "rt2", "token_id": "onrtrt:at2", "scope": "openid email"}
    event = parse(user("REFRESH_TOKEN", details={**details, "access_token_expiration_time": "300"}))
    assert (event.credential, event.d.spent, event.d.issued) == ("rt1", "rt1", ("rt2", "onrtrt:at2"))
    assert (event.d.family, event.session, event.shape.silent) == ("s1", "s1", "token_refresh")
    assert (event.d.scopes, event.d.issued_ttl_s, event.d.issued_class) == (("openid", "email"), 300, "refresh_token")


def test_a_login_and_its_code_begin_the_family():
    login = parse(user("LOGIN", details={"username": "Ada@corp.example"}))
    code = parse(user("CODE_TO_TOKEN", details={"refresh_token_id": "rt1", "token_id": "onrtac:at1"}))
    assert (login.kind, login.actor.id, login.actor.names) == (Kind.SIGN_IN, UID, ("ada@corp.example",))
    assert (code.d.issued, code.d.family, code.d.grant) == (("rt1", "onrtac:at1"), "s1", "authorization_code")


def test_a_password_grant_shows_as_such():
    assert parse(user("LOGIN", details={"grant_type": "password", "token_id": "t"})).d.grant == "password"


def test_all_three_forms_give_the_same_event():
    bare = user("LOGOUT")
    listener = {"timestamp": "2026-03-01T08:00:03Z", "loggerName": "org.keycloak.events.json", "eventType": "USER", **bare}
    nested = {"timestamp": "2026-03-01T08:00:03Z", "loggerName": "org.keycloak.events.json", "eventType": "USER", "event": bare}
    one, two, three = parse(bare), parse(listener), parse(nested)
    assert one.time == two.time == three.time == 1_772_352_000_000
    assert one.kind is two.kind is three.kind is Kind.SESSION_END
    assert (one.known_at, two.known_at, three.known_at) == (0, 1_772_352_003_000, 1_772_352_003_000)


@pytest.mark.parametrize(
    ("raw", "kind", "actor", "actor_kind"),
    [
        (
            user("CLIENT_LOGIN", details={"username": "service-account-job", "client_auth_method": "client-jwt"}),
            Kind.TOKEN_ISSUE,
            UID,
            "workload",
        ),
        (user("CLIENT_LOGIN", userId=None), Kind.TOKEN_ISSUE, "intranet", "workload"),
        (user("TOKEN_EXCHANGE"), Kind.TOKEN_EXCHANGE, "intranet", "workload"),
        (user("INTROSPECT_TOKEN", details={"token_id": "at"}), Kind.OTHER, "intranet", "workload"),
        (user("OAUTH2_DEVICE_VERIFY_USER_CODE"), Kind.DEVICE_CODE_APPROVAL, UID, "human"),
        (user("OAUTH2_DEVICE_CODE_TO_TOKEN"), Kind.TOKEN_ISSUE, UID, "human"),
        (user("REVOKE_GRANT"), Kind.TOKEN_REVOKE, UID, "human"),
        (user("UPDATE_CREDENTIAL", details={"credential_type": "password"}), Kind.FACTOR_CHANGE, UID, "human"),
        (user("SOMETHING_NEW"), Kind.OTHER, UID, "human"),
    ],
)
def test_events_tell_who_acts(raw, kind, actor, actor_kind):
    event = parse(raw)
    assert (event.kind, event.actor.id, event.actor.kind) == (kind, actor, actor_kind)


def test_a_token_that_is_asked_about_is_a_target_not_the_callers_credential():
    event = parse(user("INTROSPECT_TOKEN", details={"token_id": "at1"}))
    assert (event.credential, event.target, event.shape.client) == (None, "at1", "intranet")


def test_an_exchange_names_subject_and_actor():
    event = parse(user("TOKEN_EXCHANGE", details={"audience": "files", "token_id": "at9"}))
    assert (event.d.act, event.d.subject, event.shape.resource, event.d.issued) == (("intranet",), UID, "files", ("at9",))


def test_an_error_keeps_name_and_reason_and_mints_nothing():
    event = parse(user("REFRESH_TOKEN_ERROR", error="invalid_token", details={"reason": "Stale token", "refresh_token_id": "rt1"}))
    assert (event.action.name, event.shape.error, event.d.status) == ("REFRESH_TOKEN", "invalid_token", "Stale token")
    assert (event.d.spent, event.d.issued) == ("rt1", ())


@pytest.mark.parametrize(
    ("raw", "name", "tags", "target"),
    [
        (admin("USER", "CREATE", f"users/{UID}"), "admin/USER:CREATE", {Tag.IDENTITY_CREATE}, UID),
        (admin("USER", "UPDATE", f"users/{UID}", {"enabled": False}), "admin/USER:UPDATE:disabled", {Tag.IDENTITY_DISABLE}, UID),
        (admin("USER", "UPDATE", f"users/{UID}", {"enabled": True}), "admin/USER:UPDATE", set(), UID),
        (admin("USER", "ACTION", f"users/{UID}/reset-password"), "admin/USER:ACTION:reset-password", {Tag.PASSWORD_CHANGE}, UID),
        (admin("USER", "ACTION", f"users/{UID}/logout"), "admin/USER:ACTION:logout", {Tag.REVOKE}, UID),
        (admin("USER", "DELETE", f"users/{UID}/credentials/{UID}"), "admin/USER:DELETE:credentials", {Tag.FACTOR_REMOVE}, UID),
        (
            admin("REALM_ROLE_MAPPING", "CREATE", f"users/{UID}/role-mappings/realm", [{"name": "admin"}]),
            "admin/REALM_ROLE_MAPPING:CREATE",
            {Tag.PRIVILEGE_GRANT},
            UID,
        ),
        (admin("CLIENT", "ACTION", f"clients/{UID}/client-secret"), "admin/CLIENT:ACTION:client-secret", {Tag.CREDENTIAL_ADD}, UID),
        (
            admin("IDENTITY_PROVIDER", "CREATE", "identity-provider/instances/x"),
            "admin/IDENTITY_PROVIDER:CREATE:x",
            {Tag.TRUST_CHANGE},
            "instances",
        ),
        (
            admin("REALM", "UPDATE", "", {"eventsEnabled": False}),
            "admin/REALM:UPDATE:disabled",
            {Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN},
            None,
        ),
        (
            admin("AUTH_EXECUTION", "DELETE", "authentication/executions/1"),
            "admin/AUTH_EXECUTION:DELETE",
            {Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN},
            "executions",
        ),
    ],
)
def test_admin_operations_are_named_and_tagged(raw, name, tags, target):
    event = parse(raw)
    assert (event.action.tags, event.actor.id) == (tags, "root-id")
    if not name.endswith(":x"):
        assert (event.action.name, event.target) == (name, target)


def test_a_role_mapping_tells_the_roles():
    event = parse(admin("REALM_ROLE_MAPPING", "CREATE", f"users/{UID}/role-mappings/realm", [{"name": "realm-admin"}]))
    assert [(c.name, c.new) for c in event.d.changes] == [("roles", '["realm-admin"]')]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"", msgspec.DecodeError),
        (b"{}", NotMine),
        (b'{"type": "LOGIN", "id": "1"}', Reject),
        (b'{"type": "LOGIN", "time": 1772352000000}', Reject),
        (b'{"type": "LOGIN", "id": "1", "time": true}', Reject),
        (b'{"a": "\xff"}', Reject),
    ],
)
def test_what_cannot_be_read_is_refused(line, error):
    with pytest.raises(error):
        normaliser().parse(line)


@pytest.mark.parametrize("junk", [None, 5, "text", [], [None], {"a": []}, True])
def test_wrong_types_in_optional_fields_do_no_harm(junk):
    for raw in (user("REFRESH_TOKEN"), user("CLIENT_LOGIN"), admin("USER", "UPDATE", "users/1")):
        for field in (
            "details",
            "clientId",
            "userId",
            "sessionId",
            "ipAddress",
            "error",
            "representation",
            "authDetails",
            "resourcePath",
            "timestamp",
        ):
            assert normaliser().parse(json.dumps({**raw, field: junk}).encode())
