"""OCSF records become the events that the table says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from cloudlike import event, facts, survives

from aftergate.connectors.ocsf.normalise import SOURCES
from aftergate.errors import NotMine, Reject

(OCSF,) = SOURCES
META = {"uid": "o-1", "correlation_uid": "c-1", "product": {"name": "Chartwell"}, "version": "1.3.0"}
PLACE = {"ip": "203.0.113.9", "autonomous_system": {"number": 64500, "name": "Example"}, "location": {"country": "DE"}}
USER = {"uid": "u-1", "name": "Mira@brasshollow.example", "email_addr": "Mira@brasshollow.example", "type_id": 1}


def record(class_uid: int, activity: int, **extra: Any) -> dict[str, Any]:
    return {
        "class_uid": class_uid,
        "activity_id": activity,
        "type_uid": class_uid * 100 + activity,
        "time": 1_772_421_358_860,
        "metadata": META,
        "src_endpoint": PLACE,
        "http_request": {"user_agent": "curl/8.5.0"},
        "status_id": 1,
        **extra,
    }


def api(service: str, operation: str, activity: int = 2, **extra: Any) -> dict[str, Any]:
    actor = {
        "user": {"uid": "arn:aws:iam::111111111111:user/ci", "credential_uid": "AKIAEXAMPLEEXAMPLE12", "type": "IAMUser"},
        "session": {"uid": "s-1"},
    }
    return record(
        6003,
        activity,
        actor=actor,
        api={"operation": operation, "service": {"name": service}},
        cloud={"account": {"uid": "111111111111"}},
        **extra,
    )


TABLE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "a sign-in",
        record(3002, 1, user=USER, session={"uid": "s-1"}, is_mfa=True),
        {
            "kind": "sign_in",
            "actor": "u-1",
            "actor_kind": "human",
            "session": "s-1",
            "mfa": True,
            "ip": "203.0.113.9",
            "correlation": "c-1",
        },
    ),
    ("a failed sign-in", record(3002, 1, user=USER, status_id=2, status_code="50126"), {"error": "50126"}),
    ("a sign-out", record(3002, 2, user=USER), {"kind": "session_end"}),
    (
        "a ticket is a token",
        record(3002, 3, user=USER, authentication_token={"uid": "t-1"}),
        {"kind": "token_issue", "issued": ("t-1",), "credential": None},
    ),
    (
        "a read through an API",
        api("s3.amazonaws.com", "GetObject"),
        {
            "kind": "data_read",
            "klass": "s3:read",
            "credential": "AKIAEXAMPLEEXAMPLE12",
            "session": "s-1",
            "actor": "arn:aws:iam::111111111111:user/ci",
        },
    ),
    ("a secret through an API", api("secretsmanager.amazonaws.com", "GetSecretValue"), {"tags": ["secret.read"]}),
    ("a listing", api("s3.amazonaws.com", "ListBuckets"), {"kind": "discovery"}),
    (
        "a key for somebody",
        api("iam.amazonaws.com", "CreateAccessKey", 1, user={"name": "deploy"}),
        {"tags": ["credential.add"], "target": "deploy"},
    ),
    ("a refused call", api("s3.amazonaws.com", "PutObject", 1, status_id=2, status_code="AccessDenied"), {"error": "AccessDenied"}),
    (
        "an account is disabled",
        record(3001, 5, actor={"user": USER}, user={"uid": "u-2"}),
        {"tags": ["identity.disable"], "target": "u-2", "actor": "u-1"},
    ),
    (
        "a second factor goes",
        record(3001, 11, actor={"user": USER}, user={"uid": "u-2"}),
        {"tags": ["factor.remove"], "kind": "factor_change"},
    ),
    (
        "a user is deleted",
        record(3004, 4, actor={"user": USER}, entity={"uid": "u-2", "type": "User"}),
        {"tags": ["identity.disable"], "target": "u-2"},
    ),
    ("a group grows", record(3006, 3, actor={"user": USER}, group={"name": "admins"}, user={"uid": "u-2"}), {"tags": ["privilege.grant"]}),
    ("a session gets privileges", record(3003, 1, user=USER, privileges=["SeDebug"]), {"kind": "other", "actor": "u-1"}),
]


@pytest.mark.parametrize(("said", "line", "wanted"), TABLE, ids=[row[0] for row in TABLE])
def test_record(said: str, line: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Each record tells the facts of its row."""
    assert OCSF.recognise(line), said
    found = facts(event(OCSF, line))
    assert {key: found.get(key) for key in wanted} == wanted
    assert found["id"] == "o-1"


def test_related_records_stay_apart() -> None:
    """A shared correlation id does not make two records one event."""
    meta = {"correlation_uid": "c-1"}
    first, second = (event(OCSF, record(3002, number, user=USER, metadata=meta)) for number in (1, 2))
    assert first.id != second.id


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (record(1007, 1), NotMine),
        ({"metadata": {}}, NotMine),
        (record(3002, 1, time=None), Reject),
        (record(3002, 1, time="never"), Reject),
        ({**record(3002, 1), "class_uid": "3002"}, msgspec.ValidationError),
    ],
)
def test_refusals(line: dict[str, Any], error: type[Exception]) -> None:
    """Other classes and records without a time are refused."""
    with pytest.raises(error):
        event(OCSF, line)


def test_wrong_types_only_reject() -> None:
    """Whatever stands in a field, nothing but a refusal comes out."""
    assert survives(OCSF, [line for _, line, _ in TABLE]) > 1000
