"""Google Workspace activities: records in, event facts out. All names and ids are invented."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import msgspec
import pytest

from aftergate.connectors.base import Normaliser
from aftergate.connectors.google.normalise import SOURCES
from aftergate.errors import NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.vocabulary import Event, Kind, Tag

CLIENT = "111-abc.apps.googleusercontent.com"


def entry(name: str, **values: Any) -> dict[str, Any]:
    def typed(key: str, value: Any) -> dict[str, Any]:
        kind = (
            "boolValue"
            if isinstance(value, bool)
            else "intValue"
            if isinstance(value, int)
            else "multiValue"
            if isinstance(value, list)
            else "value"
        )
        return {"name": key, kind: str(value) if kind == "intValue" else value}

    return {"type": "t", "name": name, "parameters": [typed(key, value) for key, value in values.items()]}


def record(app: str, *events: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "kind": "admin#reports#activity",
        "id": {"time": "2026-03-01T08:00:00.000Z", "uniqueQualifier": "-77", "applicationName": app, "customerId": "C0"},
        "actor": {"callerType": "USER", "email": "Ada@corp.example", "profileId": "1001"},
        "ipAddress": "203.0.113.7",
        "networkInfo": {"ipAsn": [3320], "regionCode": "DE"},
        "events": list(events),
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


def test_a_consent_mints_the_grant_that_activity_uses_and_revocation_ends():
    values = {"client_id": CLIENT, "app_name": "Notes", "scope": ["openid", "https://www.googleapis.com/auth/drive"]}
    given = parse(record("token", entry("authorize", **values)))
    used = parse(
        record("token", entry("activity", client_id=CLIENT, api_name="drive", method_name="drive.files.get", num_response_bytes=5000))
    )
    ended = parse(record("token", entry("revoke", client_id=CLIENT)))
    grant = f"{CLIENT}:ada@corp.example"
    assert (given.kind, given.d.issued, given.target, given.shape.client_name) == (Kind.CONSENT, (grant,), CLIENT, "Notes")
    assert given.d.scopes == ("openid", "https://www.googleapis.com/auth/drive")
    assert (used.credential, used.action.name, used.size, used.kind) == (grant, "api/drive/files.get", 5000, Kind.DATA_READ)
    assert (ended.kind, ended.target, ended.action.tags) == (Kind.TOKEN_REVOKE, grant, {Tag.REVOKE})


def test_scopes_are_found_in_scope_data_as_well():
    data = {"name": "scope_data", "multiMessageValue": [{"parameter": [{"name": "scope_name", "value": "openid"}]}]}
    raw = record("token", {"name": "authorize", "parameters": [{"name": "client_id", "value": CLIENT}, data]})
    assert parse(raw).d.scopes == ("openid",)


def test_person_place_and_account_are_read():
    event = parse(
        record("login", entry("login_success", login_type="google_password", login_challenge_method=["password", "google_prompt"]))
    )
    assert (event.id, event.time, event.part) == ("-77", 1_772_352_000_000, 0)
    assert (event.actor.id, event.actor.names, event.actor.kind, event.shape.account) == ("ada@corp.example", ("1001",), "human", "C0")
    assert (event.origin.ip, event.origin.asn, event.origin.country) == ("203.0.113.7", 3320, "DE")
    assert (event.kind, event.d.mfa) == (Kind.SIGN_IN, True)


@pytest.mark.parametrize(
    ("values", "mfa", "risk", "ok"),
    [
        ({"login_challenge_method": ["password"], "is_suspicious": False}, False, "none", True),
        ({"login_challenge_method": ["password"], "is_suspicious": True}, False, "high", True),
        ({}, None, None, True),
    ],
)
def test_a_login_tells_factor_and_suspicion(values, mfa, risk, ok):
    event = parse(record("login", entry("login_success", **values)))
    assert (event.d.mfa, event.d.risk, event.ok) == (mfa, risk, ok)


def test_a_failed_login_keeps_its_reason():
    assert (
        parse(record("login", entry("login_failure", login_failure_type="login_failure_invalid_password"))).shape.error
        == "login_failure_invalid_password"
    )


def test_one_record_may_tell_several_events():
    raw = record(
        "drive", entry("edit", doc_id="d1", primary_event=True), entry("change_user_access", doc_id="d1", target_user="Bob@other.example")
    )
    events = normaliser().parse(json.dumps(raw).encode())
    assert isinstance(events, list)
    assert [(e.id, e.part, e.action.name) for e in events] == [("-77", 0, "drive/edit"), ("-77", 1, "drive/change_user_access")]


def test_a_share_tells_visibility_and_whose_domain():
    event = parse(
        record(
            "drive",
            entry(
                "change_user_access",
                doc_id="d1",
                target_user="Bob@Other.example",
                visibility="shared_externally",
                old_value=["none"],
                new_value=["can_view"],
            ),
        )
    )
    assert event.action.tags == {Tag.SHARE_CHANGE}
    assert event.target == "d1"
    assert event.d.params == {"visibility": "shared_externally", "target_user": "Bob@Other.example", "target_domain": "other.example"}
    assert [(c.old, c.new) for c in event.d.changes] == [('["none"]', '["can_view"]')]


@pytest.mark.parametrize(
    ("app", "event", "kind", "tags", "target"),
    [
        (
            "admin",
            entry("ASSIGN_ROLE", USER_EMAIL="Bob@corp.example", ROLE_NAME="x"),
            Kind.ROLE_CHANGE,
            {Tag.PRIVILEGE_GRANT},
            "bob@corp.example",
        ),
        ("admin", entry("SUSPEND_USER", USER_EMAIL="b@corp.example"), Kind.IDENTITY_LIFECYCLE, {Tag.IDENTITY_DISABLE}, "b@corp.example"),
        ("admin", entry("CHANGE_PASSWORD", USER_EMAIL="b@corp.example"), Kind.FACTOR_CHANGE, {Tag.PASSWORD_CHANGE}, "b@corp.example"),
        (
            "admin",
            entry("AUTHORIZE_API_CLIENT_ACCESS", API_CLIENT_NAME="1068", API_SCOPES="https://mail.google.com/"),
            Kind.CONSENT,
            {Tag.CONSENT, Tag.PRIVILEGE_GRANT},
            "1068",
        ),
        ("admin", entry("INBOUND_SSO_PROFILE_CREATED"), Kind.TRUST_CHANGE, {Tag.TRUST_CHANGE}, None),
        ("admin", entry("CHANGE_APPLICATION_SETTING", SETTING_NAME="2-Step Verification"), Kind.POLICY_CHANGE, {Tag.DEFENCE_CHANGE}, None),
        (
            "admin",
            entry("CHANGE_APPLICATION_SETTING", SETTING_NAME="deep_scanning_enabled"),
            Kind.POLICY_CHANGE,
            {Tag.DEFENCE_CHANGE},
            None,
        ),
        ("admin", entry("CHANGE_CALENDAR_SETTING", SETTING_NAME="SHARING_OUTSIDE_DOMAIN"), Kind.POLICY_CHANGE, {Tag.SHARE_CHANGE}, None),
        ("admin", entry("ALERT_CENTER_DELETE_ALERT"), Kind.POLICY_CHANGE, {Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN}, None),
        ("user_accounts", entry("2sv_enroll"), Kind.FACTOR_CHANGE, {Tag.FACTOR_ADD}, None),
        ("login", entry("2sv_disable"), Kind.FACTOR_CHANGE, {Tag.FACTOR_REMOVE}, None),
        (
            "user_accounts",
            entry("email_forwarding_out_of_domain", email_forwarding_destination_address="x@away.example"),
            Kind.CONFIG_CHANGE,
            {Tag.MAIL_RULE},
            None,
        ),
        ("token", entry("activity", api_name="gmail", method_name="users.messages.get"), Kind.DATA_READ, {Tag.MAIL_READ}, None),
        (
            "token",
            entry("activity", api_name="gmail", method_name="users.settings.updateAutoForwarding"),
            Kind.CONFIG_CHANGE,
            {Tag.MAIL_RULE},
            None,
        ),
        ("token", entry("activity", api_name="drive", method_name="permissions.create"), Kind.CONFIG_CHANGE, {Tag.SHARE_CHANGE}, None),
        ("saml", entry("login_success", application_name="Wiki"), Kind.SILENT_SIGN_IN, set(), "Wiki"),
        ("drive", entry("download", doc_id="d1"), Kind.DATA_READ, set(), "d1"),
        ("chat", entry("something_new"), Kind.OTHER, set(), None),
    ],
)
def test_events_have_their_meaning(app, event, kind, tags, target):
    found = parse(record(app, event))
    assert (found.kind, found.action.tags, found.target) == (kind, tags, target)


def test_the_system_and_service_accounts_are_no_people():
    system = parse(record("admin", entry("USER_LICENSE_REVOKE"), actor={"callerType": "KEY", "key": "SYSTEM"}))
    robot = parse(record("drive", entry("view"), actor={"email": "job@proj.iam.gserviceaccount.com"}))
    assert (system.actor.kind, system.actor.first_party, robot.actor.kind) == ("service", True, "workload")


def test_the_flattened_form_is_read():
    raw = record("admin", name="CREATE_USER", type="USER_SETTINGS", parameters={"USER_EMAIL": "new@corp.example"})
    del raw["events"]
    event = parse(raw)
    assert (event.action.name, event.target) == ("admin/CREATE_USER", "new@corp.example")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"", msgspec.DecodeError),
        (b"{}", NotMine),
        (json.dumps(record("login")).encode(), Reject),
        (b'{"id": {"applicationName": "login", "uniqueQualifier": "1"}, "events": [{"name": "x"}]}', Reject),
        (b'{"id": {"applicationName": "login", "time": "2026-03-01T08:00:00Z"}, "events": [{"name": "x"}]}', Reject),
        (b'{"a": "\xff"}', Reject),
    ],
)
def test_what_cannot_be_read_is_refused(line, error):
    with pytest.raises(error):
        normaliser().parse(line)


@pytest.mark.parametrize("junk", [None, 5, "text", [], [None], {"a": []}, True])
def test_wrong_types_in_optional_fields_do_no_harm(junk):
    for field in ("actor", "ipAddress", "networkInfo", "type"):
        assert normaliser().parse(json.dumps({**record("login", entry("login_success")), field: junk}).encode())
    raw = record("drive", {"name": "view", "parameters": [{"name": "doc_id", "value": junk}, junk]})
    assert normaliser().parse(json.dumps(raw).encode())
