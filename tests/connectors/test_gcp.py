"""Google Cloud audit entries become the events that the table says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cloudlike import event, facts, survives

from aftergate.connectors.gcp.normalise import SOURCES
from aftergate.errors import NotMine, Reject

(AUDIT,) = SOURCES
BOT = "etl@brass-1.iam.gserviceaccount.com"
KEY = f"//iam.googleapis.com/projects/brass-1/serviceAccounts/{BOT}/keys/{'ab' * 20}"


def entry(service: str, method: str, **payload: Any) -> dict[str, Any]:
    outer = {key: payload.pop(key) for key in ("resource", "operation") if key in payload}
    return {
        "protoPayload": {
            "@type": "type.googleapis.com/google.cloud.audit.AuditLog",
            "status": {},
            "authenticationInfo": {"principalEmail": BOT, "principalSubject": f"serviceAccount:{BOT}"},
            "requestMetadata": {"callerIp": "203.0.113.9", "callerSuppliedUserAgent": "gcloud-python/3.4.1"},
            "serviceName": f"{service}.googleapis.com",
            "methodName": method,
            "resourceName": "projects/brass-1",
            **payload,
        },
        "insertId": "i-1",
        "timestamp": "2026-03-02T09:29:05.780615000Z",
        "receiveTimestamp": "2026-03-02T09:29:07.1Z",
        "resource": {"type": "project", "labels": {"project_id": "brass-1"}},
        **outer,
    }


def by(**info: Any) -> dict[str, Any]:
    return {"principalEmail": BOT, **info}


def delta(*changes: tuple[str, str, str]) -> dict[str, Any]:
    return {"policyDelta": {"bindingDeltas": [{"action": act, "role": role, "member": member} for act, role, member in changes]}}


GET = ("storage", "storage.objects.get")
TABLE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "a read by key",
        entry(*GET, authenticationInfo=by(serviceAccountKeyName=KEY)),
        {"kind": "data_read", "klass": "storage:read", "credential": KEY, "credential_type": "key", "actor": BOT, "actor_kind": "workload"},
    ),
    (
        "a machine's attached account",
        entry(*GET, authenticationInfo=by(serviceAccountDelegationInfo=[{"firstPartyPrincipal": {"principalEmail": "service-1@compute-system.iam.gserviceaccount.com"}}])),
        {"credential": None, "act": None, "credential_type": "managed_identity"},
    ),
    (
        "a chain of impersonation, nearest first",
        entry(
            *GET,
            authenticationInfo=by(
                serviceAccountDelegationInfo=[
                    {"firstPartyPrincipal": {"principalEmail": "ci@brass-1.iam.gserviceaccount.com"}},
                    {"principalSubject": "serviceAccount:deploy@brass-1.iam.gserviceaccount.com"},
                ]
            ),
        ),
        {"act": ("deploy@brass-1.iam.gserviceaccount.com", "ci@brass-1.iam.gserviceaccount.com")},
    ),
    (
        "a federated pipeline acts as an account",
        entry(*GET, authenticationInfo=by(serviceAccountDelegationInfo=[{"principalSubject": "principal://iam.googleapis.com/p/workloadIdentityPools/gh/subject/repo:b/api"}])),
        {"subject": "principal://iam.googleapis.com/p/workloadIdentityPools/gh/subject/repo:b/api", "credential_type": "federated"},
    ),
    (
        "a token for another account",
        entry(
            "iamcredentials",
            "GenerateAccessToken",
            resourceName="projects/-/serviceAccounts/1188",
            request={"name": "projects/-/serviceAccounts/deploy@brass-1.iam.gserviceaccount.com", "scope": ["s1"], "lifetime": "600s"},
            resource={"labels": {"email_id": "deploy@brass-1.iam.gserviceaccount.com", "unique_id": "1188"}},
        ),
        {
            "kind": "token_issue",
            "action": "iamcredentials.GenerateAccessToken",
            "grant": "impersonation",
            "target": "deploy@brass-1.iam.gserviceaccount.com",
            "tags": ["impersonate"],
            "scopes": ("s1",),
            "issued_ttl_s": 600,
            "silent": "background_service",
        },
    ),
    (
        "an exchange of a foreign token",
        entry(
            "sts",
            "google.identity.sts.v1.SecurityTokenService.ExchangeToken",
            authenticationInfo={"principalSubject": "principal://iam.googleapis.com/p/workloadIdentityPools/gh/subject/x"},
            request={"audience": "//iam.googleapis.com/pools/gh"},
            metadata={"mapped_principal": "principal://iam.googleapis.com/p/workloadIdentityPools/gh/subject/x"},
        ),
        {"kind": "token_exchange", "grant": "token_exchange", "audience": ("//iam.googleapis.com/pools/gh",), "actor_kind": "workload"},
    ),
    (
        "a key is made: its name is what uses will show",
        entry("iam", "google.iam.admin.v1.CreateServiceAccountKey", resourceName=f"projects/-/serviceAccounts/{BOT}", response={"name": KEY.removeprefix("//iam.googleapis.com/")}),
        {"kind": "credential_create", "issued": (KEY,), "target": BOT, "tags": ["credential.add"]},
    ),
    (
        "a role is given",
        entry("cloudresourcemanager", "SetIamPolicy", serviceData=delta(("ADD", "roles/owner", "user:Mira@brasshollow.example"))),
        {"action": "cloudresourcemanager.SetIamPolicy", "kind": "role_change", "tags": ["privilege.grant"]},
    ),
    (
        "a role is taken",
        entry("cloudresourcemanager", "SetIamPolicy", serviceData=delta(("REMOVE", "roles/owner", "user:mira@brasshollow.example"))),
        {"action": "cloudresourcemanager.SetIamPolicy:remove", "tags": ["privilege.revoke"]},
    ),
    ("a bucket is opened", entry("storage", "storage.setIamPermissions", serviceData=delta(("ADD", "r", "allUsers"))), {"tags": ["privilege.grant", "share.change"]}),
    ("a provider is trusted", entry("iam", "google.iam.v1.WorkloadIdentityPools.CreateWorkloadIdentityPoolProvider"), {"tags": ["trust.change"], "kind": "trust_change"}),
    ("a secret is read", entry("secretmanager", "google.cloud.secretmanager.v1.SecretManagerService.AccessSecretVersion"), {"tags": ["secret.read"], "kind": "secret_read"}),
    ("a sink goes", entry("logging", "google.logging.v2.ConfigServiceV2.DeleteSink"), {"tags": ["defence.change", "defence.weaken"]}),
    ("sinks are looked at", entry("logging", "google.logging.v2.ConfigServiceV2.ListSinks"), {"kind": "discovery"}),
    ("a model is asked", entry("aiplatform", "google.cloud.aiplatform.v1.PredictionService.Predict"), {"tags": ["ai.invoke"]}),
    (
        "a tunnel to a machine",
        entry("iap", "AuthorizeUser", authorizationInfo=[{"permission": "iap.tunnelInstances.accessViaIAP", "granted": True}]),
        {"action": "iap.AuthorizeUser:tunnel", "tags": ["remote.exec"]},
    ),
    (
        "a web application behind the proxy",
        entry("iap", "AuthorizeUser", authorizationInfo=[{"permission": "iap.webServiceVersions.accessViaIAP", "granted": True}]),
        {"action": "iap.AuthorizeUser", "tags": None},
    ),
    (
        "an invitation to own a project",
        entry("cloudresourcemanager", "InsertProjectOwnershipInvite", request={"member": "user:x@away.example"}),
        {"tags": ["privilege.grant", "share.change"], "target": "projects/brass-1"},
    ),
    ("keys put on a machine", entry("compute", "v1.compute.instances.setMetadata"), {"tags": ["remote.exec"]}),
    ("machines are listed", entry("compute", "v1.compute.instances.list"), {"klass": "compute:discover", "kind": "discovery"}),
    (
        "a table is exported",
        entry("bigquery", "google.cloud.bigquery.v2.JobService.InsertJob", metadata={"jobChange": {"job": {"jobConfig": {"type": "EXPORT"}}}}),
        {"kind": "data_export"},
    ),
    ("a refusal", entry(*GET, status={"code": 7, "message": "no"}), {"error": "PERMISSION_DENIED"}),
    ("an inner address is nobody's place", entry(*GET, requestMetadata={"callerIp": "10.128.0.4"}), {"ip": "10.128.0.4"}),
    ("a shell in a GKE pod", entry("k8s", "io.k8s.core.v1.pods.exec.create", serviceName="k8s.io"), {"tags": ["remote.exec"], "klass": "k8s-pods:execute"}),
    ("a person signs in", entry("login", "google.login.LoginService.loginFailure", authenticationInfo={"principalEmail": "Mira@brasshollow.example"}), {"kind": "sign_in", "error": "login_failure", "actor": "mira@brasshollow.example", "actor_kind": "human"}),
    ("Google's own agent", entry(*GET, authenticationInfo={"principalEmail": "service-77@gcp-sa-logging.iam.gserviceaccount.com"}), {"actor_kind": "service"}),
]  # fmt: skip


@pytest.mark.parametrize(("said", "line", "wanted"), TABLE, ids=[row[0] for row in TABLE])
def test_entry(said: str, line: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Each entry tells the facts of its row."""
    assert AUDIT.recognise(line), said
    found = facts(event(AUDIT, line))
    assert {key: found.get(key) for key in wanted} == wanted


def test_places_that_are_not_the_callers() -> None:
    """Inner addresses and names in place of one are marked, so that no rule compares them."""
    for place in ("10.128.0.4", "private", "gce-internal-ip"):
        origin = event(AUDIT, entry(*GET, requestMetadata={"callerIp": place})).origin
        assert not origin.known, place


def test_policy_change_tells_who_got_what() -> None:
    """Roles and members of a policy change are there for rules, and a missing delta falls back on the policy sent."""
    found = event(
        AUDIT, entry("cloudresourcemanager", "SetIamPolicy", serviceData=delta(("ADD", "roles/owner", "user:Mira@brasshollow.example")))
    )
    assert found.d.params is not None
    assert found.d.params["roles"] == ["roles/owner"]
    assert "mira@brasshollow.example" in [target.id for target in found.d.targets]
    sent = event(
        AUDIT,
        entry("compute", "v1.compute.images.setIamPolicy", request={"policy": {"bindings": [{"role": "r", "members": ["allUsers"]}]}}),
    )
    assert sent.d.params is not None
    assert sent.d.params["public"] is True


def test_deleted_key_is_a_target() -> None:
    """A removed key is named as its uses named it."""
    found = event(
        AUDIT,
        entry(
            "iam",
            "google.iam.admin.v1.DeleteServiceAccountKey",
            resourceName="projects/-/serviceAccounts/1188/keys/cd",
            response={"name": KEY[len("//iam.googleapis.com/") :]},
        ),
    )
    assert KEY in [target.id for target in found.d.targets]  # fmt: skip


def test_known_at_is_the_time_of_receipt() -> None:
    """The log had the entry when it was received."""
    found = event(AUDIT, entry(*GET))
    assert found.known_at - found.time == 1320


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ({"textPayload": "x", "insertId": "i", "timestamp": "2026-03-02T09:29:05Z"}, NotMine),
        ({"protoPayload": {"authenticationInfo": {}}, "timestamp": "2026-03-02T09:29:05Z"}, Reject),
        ({**entry(*GET), "timestamp": None}, Reject),
        ({**entry(*GET), "timestamp": {"seconds": 1}}, Reject),
        ({"protoPayload": []}, msgspec.ValidationError),
    ],
)
def test_refusals(line: dict[str, Any], error: type[Exception]) -> None:
    """What is no audit entry, or has no method or time, is refused."""
    with pytest.raises(error):
        event(AUDIT, line)


def test_public_samples(data: Path) -> None:
    """Every audit entry of the public samples is recognised and read."""
    read = 0
    for path in sorted((data / "gcp-audit").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            record = record.get("event", record) if isinstance(record, dict) else record
            if isinstance(record, dict) and AUDIT.recognise(record):
                event(AUDIT, record)
                read += 1
    assert read > 20


def test_wrong_types_only_reject() -> None:
    """Whatever stands in a field, nothing but a refusal comes out."""
    records = [line for _, line, _ in TABLE[2:18:2]]
    records.append(
        entry(
            "admin",
            "google.admin.AdminService.addGroupMember",
            metadata={"event": [{"eventName": "E", "parameter": [{"name": "USER_EMAIL", "value": "a@b"}]}]},
        )
    )
    records.append(
        entry("compute", "v1.compute.instances.setMetadata", metadata={"instanceMetadataDelta": {"addedMetadataKeys": ["ssh-keys"]}})
    )
    records.append(entry("iam", "google.iam.admin.v1.CreateRole", serviceData={"permissionDelta": {"addedPermissions": ["a.b.c"]}}))
    assert survives(AUDIT, records) > 2000
