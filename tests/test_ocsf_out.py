"""Every output is valid OCSF 1.8.0."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from aftergate.pipeline.ocsf_out import SCHEMA, event_to_ocsf, finding_to_ocsf
from aftergate.vocabulary import (
    NO_AGENT,
    NO_ORIGIN,
    SEVERITIES,
    Action,
    Actor,
    Agent,
    Change,
    Detail,
    Event,
    Finding,
    Kind,
    Origin,
    Shape,
    Subject,
    Tag,
    Target,
)

ANA = Actor("ana@example.com", ("00uAna",), "human", "111122223333", "Ana")
ROBOT = Actor("arn:aws:iam::111122223333:role/nightly", kind="workload", role="arn:aws:iam::111122223333:role/nightly")
OFFICE = Origin("203.0.113.9", "AS64500", 64500, "Brightwater", "isp", None, "DE")
SERVICE = Origin(None, "service:ec2.amazonaws.com", network="service")
CHROME = Agent("Mozilla/5.0 Chrome/133", "chrome", "browser", "macos", "133")


@cache
def schema() -> OcsfJsonSchemaEmbedded:
    return OcsfJsonSchemaEmbedded(get_ocsf_schema(version=SCHEMA))


@cache
def validator(class_uid: int) -> Draft202012Validator:
    name = schema().lookup_class_name_from_uid(class_uid=class_uid)
    return Draft202012Validator(schema().get_class_schema(class_name=name, profiles=[]))


def faults(record: dict[str, Any]) -> list[str]:
    return [f"{list(error.path)}: {error.message[:200]}" for error in validator(record["class_uid"]).iter_errors(record)]


def event(
    kind: Kind,
    *tags: Tag,
    name: str = "iam:CreateThing",
    klass: str = "iam:write",
    actor: Actor = ANA,
    origin: Origin = OFFICE,
    agent: Agent = CHROME,
    detail: Detail | None = None,
    credential: str | None = "ASIAEXAMPLE",
    session: str | None = "session-1",
    target: str | None = None,
    **more: Any,
) -> Event:
    action = Action("aws.cloudtrail", name, kind, klass.partition(":")[0], klass, frozenset(tags))
    return Event(
        1_700_000_000_123,
        "event-1",
        Shape("aws.cloudtrail", action, actor, origin, agent, **more),
        credential,
        session,
        target,
        detail=detail,
    )


RICH = Detail(
    issued=("token-2",),
    issued_class="refresh_token",
    spent="token-1",
    family="family-1",
    generation=3,
    grant="refresh_token",
    issued_ttl_s=3600,
    scopes=("Mail.Read", "Files.Read"),
    mfa=True,
    act=("spiffe://example/agent",),
    subject="repo:example/app",
    issuer="https://issuer.example",
    correlation="request-9",
    targets=(Target("target-1", "User", ("bo@example.com",)),),
    changes=(Change("role", None, "Owner"),),
    objects=4,
    status="strong authentication is required",
)

CASES = [
    (event(Kind.SIGN_IN, detail=Detail(interactive=True, mfa=True)), 3002, 1),
    (event(Kind.SIGN_IN, error="50076", detail=Detail(grant="saml")), 3002, 1),
    (event(Kind.SILENT_SIGN_IN, silent="token_refresh"), 3002, 5),
    (event(Kind.SILENT_SIGN_IN, silent="background_service"), 3002, 1),
    (event(Kind.DEVICE_CODE_APPROVAL), 3002, 1),
    (event(Kind.TOKEN_ISSUE, detail=Detail(issued=("a",), issued_class="access_token", issued_ttl_s=60, grant="assume_role")), 3002, 3),
    (event(Kind.TOKEN_ISSUE, detail=Detail(issued=("a",), issued_class="api_key")), 3002, 3),
    (event(Kind.TOKEN_REFRESH, detail=RICH, resource="https://graph.example", client="app-1", client_name="App"), 3002, 5),
    (event(Kind.TOKEN_EXCHANGE, detail=Detail(token_issued_at=1_699_999_000_000, token_expires_at=1_700_003_000_000)), 3002, 4),
    (event(Kind.TOKEN_REVOKE, detail=RICH), 3002, 2),
    (event(Kind.SESSION_END), 3002, 2),
    (event(Kind.CONSENT, Tag.CONSENT, detail=RICH), 3005, 1),
    (event(Kind.CONSENT, detail=None), 3005, 1),
    (event(Kind.ROLE_CHANGE, Tag.PRIVILEGE_GRANT, detail=RICH), 3005, 1),
    (event(Kind.ROLE_CHANGE, Tag.PRIVILEGE_REVOKE, target="bo@example.com"), 3005, 2),
    (event(Kind.ROLE_CHANGE, Tag.PRIVILEGE_ACTIVATE), 3003, 1),
    (event(Kind.FACTOR_CHANGE, Tag.FACTOR_ADD), 3001, 10),
    (event(Kind.FACTOR_CHANGE, Tag.FACTOR_RESET, detail=RICH), 3001, 11),
    (event(Kind.FACTOR_CHANGE, Tag.PASSWORD_CHANGE), 3001, 3),
    (event(Kind.FACTOR_CHANGE, Tag.PASSWORD_CHANGE, target="bo@example.com"), 3001, 4),
    (event(Kind.IDENTITY_LIFECYCLE, Tag.IDENTITY_CREATE), 3001, 1),
    (event(Kind.IDENTITY_LIFECYCLE, Tag.IDENTITY_DISABLE, name="user.lifecycle.deactivate"), 3001, 5),
    (event(Kind.IDENTITY_LIFECYCLE, Tag.IDENTITY_DISABLE, name="Delete user"), 3001, 6),
    (event(Kind.IDENTITY_LIFECYCLE, Tag.IDENTITY_ENABLE), 3001, 2),
    (event(Kind.IDENTITY_LIFECYCLE, Tag.IDENTITY_CREATE, detail=Detail(targets=(Target("sp-1", "ServicePrincipal"),))), 3004, 1),
    (event(Kind.IDENTITY_LIFECYCLE, Tag.IDENTITY_DISABLE, detail=Detail(targets=(Target("sp-1", "ServicePrincipal"),))), 3004, 9),
    (event(Kind.IDENTITY_LIFECYCLE, Tag.APP_CREATE), 3004, 1),
    (event(Kind.CREDENTIAL_CREATE, Tag.CREDENTIAL_ADD, detail=RICH), 3004, 1),
    (event(Kind.CREDENTIAL_CREATE, Tag.CREDENTIAL_ADD, detail=Detail(issued=("AKIANEW",))), 3004, 1),
    (event(Kind.CREDENTIAL_DELETE, Tag.CREDENTIAL_REMOVE, target="AKIAOLD"), 3004, 4),
    (event(Kind.POLICY_CHANGE, name="iam:UpdateAccountPasswordPolicy"), 3004, 3),
    (event(Kind.POLICY_CHANGE, name="iam:CreatePolicy", target="policy-1"), 3004, 1),
    (event(Kind.TRUST_CHANGE, name="iam:DeleteSAMLProvider", target="provider-1"), 3004, 4),
    (event(Kind.SECRET_READ, name="secretsmanager:GetSecretValue", klass="secretsmanager:read", target="secret-1"), 6003, 2),
    (event(Kind.DATA_READ, name="GET /users/{id}", klass="graph:read", actor=ROBOT), 6003, 2),
    (event(Kind.DATA_EXPORT, klass="s3:read", detail=RICH, error="AccessDenied"), 6003, 2),
    (event(Kind.DISCOVERY, klass="ec2:discover", origin=SERVICE), 6003, 2),
    (event(Kind.CONFIG_CHANGE, name="s3:PutBucketPolicy"), 6003, 1),
    (event(Kind.CONFIG_CHANGE, name="cloudtrail:StopLogging"), 6003, 3),
    (event(Kind.CONFIG_CHANGE, name="s3:DeleteBucket", klass="s3:delete"), 6003, 4),
    (event(Kind.TOOL_CALL, name="tickets/reply", klass="tickets:execute", actor=Actor("agent-1", kind="agent"), detail=RICH), 6003, 99),
    (event(Kind.OTHER, origin=NO_ORIGIN, agent=NO_AGENT, actor=Actor("x"), credential=None, session=None, klass="x:auth"), 6003, 99),
    (event(Kind.SIGN_IN, origin=NO_ORIGIN, agent=NO_AGENT, actor=Actor(""), credential=None, session=None), 3002, 1),
]  # fmt: skip


@pytest.mark.parametrize(("given", "class_uid", "activity"), CASES, ids=[f"{case[0].kind}-{index}" for index, case in enumerate(CASES)])
def test_events_of_every_kind_are_valid(given: Event, class_uid: int, activity: int) -> None:
    record = event_to_ocsf(given)
    assert (record["class_uid"], record["activity_id"], record["type_uid"]) == (class_uid, activity, class_uid * 100 + activity)
    assert faults(record) == []
    assert record["status_id"] == (1 if given.ok else 2)


def test_every_kind_has_a_case() -> None:
    assert {case[0].kind for case in CASES} == set(Kind)


def test_what_ocsf_has_no_place_for_is_kept_aside() -> None:
    rest = event_to_ocsf(event(Kind.TOKEN_REFRESH, detail=RICH, device="device-1"))["unmapped"]["aftergate"]
    assert rest["spent"] == "token-1"
    assert (rest["family"], rest["generation"], rest["device"], rest["network"]) == ("family-1", 3, "device-1", "isp")


def test_the_validator_refuses_what_is_wrong() -> None:
    record = event_to_ocsf(CASES[0][0])
    assert faults({**record, "user": {}})
    assert faults({**record, "colour": "green"})


def finding(**more: Any) -> Finding:
    base: dict[str, Any] = {
        "id": "f-1",
        "detection": "tok-refresh-reuse",
        "severity": "high",
        "time": 1_700_000_000_000,
        "known_at": 1_700_000_060_000,
        "title": "refresh token used twice",
        "narrative": "A refresh token that had been rotated out was shown again from another network.",
        "subject": Subject(["ana@example.com"], ["token-1"], ["session-1"]),
        "evidence": ["event-1", "event-2"],
        "sources": ["keycloak"],
    }
    return Finding(**{**base, **more})


@pytest.mark.parametrize("severity", SEVERITIES)
def test_findings_of_every_severity_are_valid(severity: str) -> None:
    record = finding_to_ocsf(finding(severity=severity))
    assert faults(record) == []
    assert record["severity_id"] == SEVERITIES.index(severity) + 1
    assert record["is_alert"] is (severity in ("medium", "high", "critical"))


@pytest.mark.parametrize(
    "more",
    [
        {
            "attack": ("T1550.001", "T1528", "AML.T0053", "AML.T0010.005", "T0000"),
            "frameworks": ("NHI2", "PR.AA-04"),
            "incident": "i-1",
            "root": "login-1",
            "started": 1_699_999_000_000,
            "trust_after": 15,
            "recommended": ("revoke the token", "end the session"),
            "traps": ("retry",),
        },
        {"subject": Subject(credential=["token-1"])},
        {"subject": Subject(session=["session-1"])},
        {"subject": Subject()},
        {"evidence": [], "sources": []},
    ],
)
def test_findings_of_every_shape_are_valid(more: dict[str, Any]) -> None:
    assert faults(finding_to_ocsf(finding(**more))) == []


def test_techniques_are_named_with_their_parents() -> None:
    attacks = finding_to_ocsf(finding(attack=("T1550.001", "AML.T0010.005", "AML.T0053")))["finding_info"]["attacks"]
    assert attacks[0]["technique"] == {"uid": "T1550", "name": "Use Alternate Authentication Material"}
    assert attacks[0]["sub_technique"]["uid"] == "T1550.001"
    assert attacks[0]["version"] == "18"
    assert attacks[1]["technique"]["uid"] == "AML.T0010"
    assert attacks[2]["technique"]["uid"] == "AML.T0053"
