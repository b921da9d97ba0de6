"""Okta System Log: records in, event facts out. All names and ids are invented."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import msgspec
import pytest

from aftergate.connectors.base import Normaliser
from aftergate.connectors.okta.normalise import SOURCES
from aftergate.errors import NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.vocabulary import Event, Kind, Tag

CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
USER = {"id": "00uA", "type": "User", "alternateId": "Ada.Lind@corp.example", "displayName": "Ada Lind"}
APP = {"id": "0oaA", "type": "PublicClientApp", "alternateId": "0oaA", "displayName": "Planner"}
ACCESS = {"id": "AT.1", "type": "access_token", "displayName": "Access Token", "detailEntry": {"expires": "2026-03-01T09:00:00.000Z"}}
REFRESH = {"id": "oar1", "type": "refresh_token", "displayName": "Refresh Token"}


def record(event: str, **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "uuid": "u-1",
        "published": "2026-03-01T08:00:00.000Z",
        "eventType": event,
        "actor": USER,
        "client": {
            "ipAddress": "203.0.113.7",
            "userAgent": {"rawUserAgent": CHROME},
            "geographicalContext": {"country": "Germany"},
            "id": None,
        },
        "outcome": {"result": "SUCCESS", "reason": None},
        "authenticationContext": {"rootSessionId": "102root", "externalSessionId": "102root"},
        "securityContext": {"asNumber": 3320, "asOrg": "carrier", "isProxy": False},
        "debugContext": {"debugData": {"dtHash": "d1", "risk": "{level=LOW}"}},
        "transaction": {"id": "t-1", "detail": {}},
        "target": [],
    }
    return {**base, **changes}


@cache
def normaliser() -> Normaliser:
    """One for all tests: it keeps nothing but caches."""
    return SOURCES[0].normaliser(Interner())


def parse(raw: dict[str, Any]) -> Event:
    assert SOURCES[0].recognise(raw)
    event = normaliser().parse(json.dumps(raw).encode())
    assert isinstance(event, Event)
    return event


def debug(**values: Any) -> dict[str, Any]:
    return {"debugData": values}


def test_a_sign_in_tells_person_place_device_and_the_session_that_stays():
    event = parse(
        record("user.session.start", authenticationContext={"rootSessionId": "102root", "externalSessionId": "idx9"}),
    )
    assert (event.id, event.time) == ("u-1", 1_772_352_000_000)
    assert (event.actor.id, event.actor.names, event.actor.kind) == ("00uA", ("ada.lind@corp.example", "Ada Lind"), "human")
    assert (event.session, event.d.params) == ("102root", {"external_session": "idx9"})
    assert (event.origin.ip, event.origin.asn, event.origin.country) == ("203.0.113.7", 3320, "DE")
    assert (event.shape.device, event.agent.raw, event.d.risk) == ("d1", CHROME, "low")
    assert event.kind is Kind.SIGN_IN


@pytest.mark.parametrize(
    ("context", "session"),
    [
        ({"rootSessionId": "unknown", "externalSessionId": "unknown"}, None),
        ({"rootSessionId": None, "externalSessionId": "102x"}, "102x"),
        ({}, None),
        (None, None),
    ],
)
def test_a_session_that_is_not_known_is_none(context, session):
    assert parse(record("user.authentication.sso", authenticationContext=context)).session == session


@pytest.mark.parametrize(
    ("event", "kind", "tags"),
    [
        ("user.authentication.sso", Kind.SILENT_SIGN_IN, set()),
        ("user.authentication.auth_via_IDP", Kind.SIGN_IN, set()),
        ("user.session.clear", Kind.SESSION_END, {Tag.REVOKE}),
        ("user.mfa.factor.activate", Kind.FACTOR_CHANGE, {Tag.FACTOR_ADD}),
        ("user.mfa.factor.reset_all", Kind.FACTOR_CHANGE, {Tag.FACTOR_RESET, Tag.FACTOR_REMOVE}),
        ("user.account.reset_password", Kind.FACTOR_CHANGE, {Tag.PASSWORD_CHANGE}),
        ("user.lifecycle.deactivate", Kind.IDENTITY_LIFECYCLE, {Tag.IDENTITY_DISABLE}),
        ("user.account.privilege.grant", Kind.ROLE_CHANGE, {Tag.PRIVILEGE_GRANT}),
        ("group.user_membership.add", Kind.ROLE_CHANGE, set()),
        ("policy.rule.update", Kind.POLICY_CHANGE, {Tag.DEFENCE_CHANGE}),
        ("policy.rule.deactivate", Kind.POLICY_CHANGE, {Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN}),
        ("zone.update", Kind.POLICY_CHANGE, {Tag.DEFENCE_CHANGE}),
        ("system.log_stream.lifecycle.delete", Kind.CONFIG_CHANGE, {Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN}),
        ("system.idp.lifecycle.create", Kind.TRUST_CHANGE, {Tag.TRUST_CHANGE}),
        ("app.oauth2.client.read_client_secret", Kind.SECRET_READ, {Tag.SECRET_READ}),
        ("app.oauth2.as.consent.grant", Kind.CONSENT, {Tag.CONSENT}),
        ("user.session.impersonation.initiate", Kind.SIGN_IN, {Tag.IMPERSONATE}),
        ("some.new.event", Kind.OTHER, set()),
    ],
)
def test_event_types_have_their_meaning(event, kind, tags):
    action = parse(record(event)).action
    assert (action.kind, action.tags) == (kind, tags)


def test_a_group_of_administrators_grants_privilege():
    group = {"id": "00g1", "type": "UserGroup", "displayName": "Okta Administrators"}
    event = parse(record("group.user_membership.add", target=[{**USER, "id": "00uB"}, group]))
    assert event.target == "00uB"
    assert Tag.PRIVILEGE_GRANT in event.action.tags


@pytest.mark.parametrize(
    ("grant", "auth", "kind", "actor", "silent", "issued"),
    [
        ("refresh_token", "none", Kind.TOKEN_REFRESH, "00uA", "token_refresh", ("AT.1", "oar1")),
        ("authorization_code", "none", Kind.TOKEN_ISSUE, "00uA", None, ("AT.1", "oar1")),
        ("urn:ietf:params:oauth:grant-type:device_code", "none", Kind.TOKEN_ISSUE, "00uA", None, ("AT.1", "oar1")),
        ("refresh_token", "client_secret_basic", Kind.TOKEN_REFRESH, "0oaA", "token_refresh", ("AT.1", "oar1")),
        (
            "urn:ietf:params:oauth:grant-type:token-exchange",
            "private_key_jwt",
            Kind.TOKEN_EXCHANGE,
            "0oaA",
            "delegated_application",
            ("AT.1", "oar1"),
        ),
    ],
)
def test_a_grant_is_the_users_where_the_client_is_public_else_the_applications(grant, auth, kind, actor, silent, issued):
    event = parse(
        record(
            "app.oauth2.as.token.grant",
            actor=APP,
            target=[USER, ACCESS, REFRESH],
            debugContext=debug(
                grantType=grant, clientAuthType=auth, requestedScopes="openid, files.write", grantedScopes="openid files.read"
            ),
        )
    )
    assert (event.kind, event.actor.id, event.shape.silent, event.d.issued) == (kind, actor, silent, issued)
    assert (event.shape.client, event.shape.client_name, event.d.issued_ttl_s) == ("0oaA", "Planner", 3600)
    assert event.d.scopes == ("openid", "files.read")
    assert event.d.params == {"requested_scopes": ["openid", "files.write"]}


def test_a_token_exchange_names_who_acts_and_for_whom():
    event = parse(
        record(
            "app.oauth2.as.token.grant.access_token",
            actor=APP,
            target=[USER, ACCESS],
            debugContext=debug(grantType="urn:ietf:params:oauth:grant-type:token-exchange", clientAuthType="private_key_jwt"),
        )
    )
    assert (event.d.act, event.d.subject, event.actor.kind) == (("0oaA",), "00uA", "workload")


def test_client_credentials_are_a_workloads():
    event = parse(
        record(
            "app.oauth2.token.grant.access_token",
            actor=APP,
            target=[ACCESS],
            debugContext=debug(grantType="client_credentials", clientAuthType="private_key_jwt", grantedScopes="okta.users.manage"),
        )
    )
    assert (event.actor.id, event.actor.kind, event.shape.silent) == ("0oaA", "workload", "background_service")
    assert (event.d.credential_type, event.d.scopes) == ("certificate", ("okta.users.manage",))


def test_a_detected_reuse_is_an_error_and_names_the_token_presented():
    event = parse(record("app.oauth2.as.token.detect_reuse", target=[REFRESH], outcome={"result": "FAILURE"}))
    assert (event.kind, event.shape.error, event.d.spent) == (Kind.TOKEN_REFRESH, "refresh_token_reuse", "oar1")


def test_an_api_token_is_minted_used_and_revoked_under_one_id():
    token = {"id": "00T1", "type": "Token", "displayName": "sync"}
    made = parse(record("system.api_token.create", target=[token]))
    used = parse(record("user.account.update_profile", transaction={"id": "t", "detail": {"requestApiTokenId": "00T1"}}))
    gone = parse(record("system.api_token.revoke", target=[token]))
    assert made.d.issued == ("00T1",)
    assert (used.credential, gone.target) == ("00T1", "00T1")
    assert Tag.REVOKE in gone.action.tags


def internal(event: str = "user.account.update_profile", **changes: Any) -> dict[str, Any]:
    client = {"ipAddress": "54.147.0.9", "userAgent": {"rawUserAgent": "Okta-Integrations"}}
    security = {"asNumber": 14618, "asOrg": "amazon technologies inc."}
    return record(event, **{"client": client, "securityContext": security, "debugContext": debug(), **changes})


@pytest.mark.parametrize(
    ("raw", "excused"),
    [
        (internal(), True),
        (internal("user.mfa.factor.reset_all"), False),  # what the console's own calls never do
        (internal("system.api_token.create"), False),
        (internal(securityContext={"asNumber": 24940, "asOrg": "hoster"}), False),  # the agent alone proves nothing
        (internal(debugContext=debug(dtHash="d9")), False),
        (internal(authenticationContext={}), False),
    ],
)
def test_only_the_harmless_calls_of_oktas_own_console_are_excused(raw, excused):
    event = parse(raw)
    assert (event.actor.first_party, event.origin.trustworthy) == (excused, not excused)


def test_a_failure_keeps_the_vendors_reason():
    event = parse(record("user.session.start", outcome={"result": "FAILURE", "reason": "INVALID_CREDENTIALS"}))
    assert (event.shape.error, event.ok) == ("INVALID_CREDENTIALS", False)
    assert parse(record("policy.evaluate_sign_on", outcome={"result": "ALLOW", "reason": "allowed"})).ok


@pytest.mark.parametrize("wrap", [lambda r: {k.lower(): v for k, v in r.items()}, lambda r: {"version": "0", "detail": r}])
def test_other_spellings_of_the_same_record_give_the_same_event(wrap):
    raw = record("user.authentication.sso", target=[{"id": "0oaZ", "type": "AppInstance", "displayName": "Wiki"}])
    same, other = parse(raw), parse(wrap(raw))
    assert (other.id, other.session, other.shape.resource, other.origin.ip) == (same.id, same.session, "0oaZ", same.origin.ip)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"", msgspec.DecodeError),
        (b"[1]", msgspec.ValidationError),
        (b'{"eventType": 5}', msgspec.ValidationError),
        (b"{}", NotMine),
        (b'{"eventType": "user.session.start", "published": "soon", "uuid": "u"}', Reject),
        (b'{"eventType": "user.session.start", "published": "2026-03-01T08:00:00Z"}', Reject),
        (b'{"eventType": "\xff"}', Reject),
    ],
)
def test_what_cannot_be_read_is_refused(line, error):
    with pytest.raises(error):
        normaliser().parse(line)


@pytest.mark.parametrize("junk", [None, 5, "text", [], [None], {"a": []}, True])
def test_wrong_types_in_optional_fields_do_no_harm(junk):
    for field in (
        "actor",
        "client",
        "outcome",
        "target",
        "transaction",
        "authenticationContext",
        "securityContext",
        "debugContext",
        "device",
    ):
        line = json.dumps({**record("user.session.start"), field: junk}).encode()
        assert normaliser().parse(line)
