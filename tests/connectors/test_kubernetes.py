"""Kubernetes audit events become the events that the table says."""

from __future__ import annotations

import copy
import json
from typing import Any

import msgspec
import pytest
from cloudlike import event, events, facts, survives

from aftergate.connectors.kubernetes.normalise import SOURCES
from aftergate.errors import NotMine, Reject
from aftergate.vocabulary import Kind

(AUDIT,) = SOURCES
POD_USER = {
    "username": "system:serviceaccount:shop:cart",
    "uid": "u-1",
    "groups": ["system:serviceaccounts"],
    "extra": {
        "authentication.kubernetes.io/credential-id": ["JTI=11aa"],
        "authentication.kubernetes.io/pod-name": ["cart-0"],
        "authentication.kubernetes.io/pod-uid": ["p-1"],
        "authentication.kubernetes.io/node-name": ["node-1"],
    },
}
NODE_USER = {
    "username": "system:node:node-1",
    "groups": ["system:nodes"],
    "extra": {"authentication.kubernetes.io/credential-id": ["X509SHA256=0f"]},
}
PERSON = {"username": "Mira.Holt@brasshollow.example", "groups": ["dev"]}
EKS = {
    "username": "ci:cart",
    "uid": "aws-iam-authenticator:111:AROA",
    "extra": {
        "accessKeyId": ["ASIAEXAMPLEEXAMPLE12"],
        "arn": ["arn:aws:sts::111111111111:assumed-role/deploy/run-9"],
        "canonicalArn": ["arn:aws:iam::111111111111:role/deploy"],
        "sessionName": ["run-9"],
    },
}
TOKEN_REQUEST = {
    "spec": {"audiences": ["https://api"], "expirationSeconds": 3607, "boundObjectRef": {"kind": "Pod", "name": "cart-0", "uid": "p-1"}},
    "status": {"token": ""},
}


def record(verb: str, resource: str, user: dict[str, Any], **extra: Any) -> dict[str, Any]:
    subresource = extra.pop("subresource", None)
    return {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "auditID": "a-1",
        "stage": "ResponseComplete",
        "requestURI": "/api/v1/x",
        "verb": verb,
        "user": user,
        "sourceIPs": ["10.244.1.5"],
        "userAgent": "kubectl/v1.30.2",
        "objectRef": {"resource": resource, "namespace": "shop", "name": "cart", **({"subresource": subresource} if subresource else {})},
        "responseStatus": {"code": 200},
        "requestReceivedTimestamp": "2026-03-09T00:03:11.699135Z",
        **extra,
    }


ISSUED = {"authentication.kubernetes.io/issued-credential-id": "JTI=22bb"}
TABLE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "a pod reads a secret with its token",
        record("get", "secrets", POD_USER),
        {
            "kind": "secret_read",
            "klass": "k8s-secrets:read",
            "credential": "JTI=11aa",
            "pod": "cart-0",
            "bound": "p-1",
            "node": "node-1",
            "actor_kind": "workload",
        },
    ),
    (
        "a node mints for its pod",
        record("create", "serviceaccounts", NODE_USER, subresource="token", requestObject=TOKEN_REQUEST, annotations=ISSUED),
        {
            "kind": "token_issue",
            "grant": "projected",
            "issued": ("JTI=22bb",),
            "issued_class": "k8s_token",
            "target": "system:serviceaccount:shop:cart",
            "bound": "p-1",
            "pod": "cart-0",
            "node": "node-1",
            "audience": ("https://api",),
            "issued_ttl_s": 3607,
            "credential": "X509SHA256=0f",
            "actor_kind": "service",
        },
    ),
    (
        "a person mints by hand",
        record("create", "serviceaccounts", PERSON, subresource="token", requestObject={"spec": {}}, annotations=ISSUED),
        {"grant": "token_request", "issued": ("JTI=22bb",), "actor": "mira.holt@brasshollow.example", "actor_kind": "human"},
    ),
    (
        "a refused mint issues nothing",
        record("create", "serviceaccounts", PERSON, subresource="token", responseStatus={"code": 403}, annotations=ISSUED),
        {"error": "403", "issued": None, "kind": "token_issue"},
    ),
    ("a shell in a pod", record("create", "pods", PERSON, subresource="exec"), {"tags": ["remote.exec"], "klass": "k8s-pods:execute"}),
    ("a shell over websockets", record("get", "pods", PERSON, subresource="exec"), {"tags": ["remote.exec"]}),
    ("a debug container", record("patch", "pods", PERSON, subresource="ephemeralcontainers"), {"tags": ["remote.exec"]}),
    (
        "a binding gives rights",
        record(
            "create",
            "clusterrolebindings",
            PERSON,
            requestObject={"roleRef": {"name": "admin"}, "subjects": [{"kind": "ServiceAccount", "name": "x", "namespace": "y"}]},
        ),
        {"kind": "role_change", "tags": ["privilege.grant"], "klass": "k8s-clusterrolebindings:admin"},
    ),
    ("a binding is taken away", record("delete", "rolebindings", PERSON), {"tags": ["privilege.revoke"]}),
    ("bindings are looked at", record("list", "rolebindings", PERSON), {"kind": "discovery"}),
    (
        "one asks what one may do",
        record("create", "selfsubjectrulesreviews", POD_USER),
        {"kind": "discovery", "klass": "k8s-selfsubjectrulesreviews:discover"},
    ),
    (
        "a certificate is approved",
        record("update", "certificatesigningrequests", PERSON, subresource="approval"),
        {"tags": ["credential.add"]},
    ),
    (
        "an admission hook is deleted",
        record("delete", "validatingwebhookconfigurations", PERSON),
        {"tags": ["defence.change", "defence.weaken"]},
    ),
    (
        "an everlasting token is made",
        record("create", "secrets", PERSON, requestObject={"type": "kubernetes.io/service-account-token"}),
        {"kind": "credential_create", "action": "secrets:create:token"},
    ),
    (
        "somebody acts as another",
        record("list", "pods", PERSON, impersonatedUser={"username": "bob"}),
        {"tags": ["impersonate"], "act": ("mira.holt@brasshollow.example",), "action": "pods:list:impersonated"},
    ),
    ("a refused read", record("get", "secrets", POD_USER, responseStatus={"code": 403}), {"error": "403"}),
    ("a caller from outside behind a proxy", record("get", "pods", POD_USER, sourceIPs=["203.0.113.9", "10.0.0.4"]), {"ip": "203.0.113.9"}),
    ("a pod behind its node", record("get", "pods", POD_USER, sourceIPs=["10.244.1.5", "10.0.0.4"]), {"ip": "10.244.1.5"}),
    (
        "a role session of a pipeline",
        record("patch", "deployments", EKS),
        {"actor": "ci:cart", "actor_kind": "workload", "kind": "config_change"},
    ),
    (
        "no resource",
        {**record("get", "pods", PERSON), "objectRef": None, "requestURI": "/version?x=1"},
        {"action": "get /version", "kind": "discovery"},
    ),
]


@pytest.mark.parametrize(("said", "line", "wanted"), TABLE, ids=[row[0] for row in TABLE])
def test_event(said: str, line: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Each record tells the facts of its row."""
    assert AUDIT.recognise(line), said
    found = facts(event(AUDIT, line))
    assert {key: found.get(key) for key in wanted} == wanted


def test_aws_session_is_kept() -> None:
    """What EKS adds about the AWS side is there for rules to join."""
    found = event(AUDIT, record("get", "pods", EKS))
    assert found.d.params is not None
    assert found.d.params["accessKeyId"] == "ASIAEXAMPLEEXAMPLE12"
    assert "arn:aws:iam::111111111111:role/deploy" in found.actor.names


def test_one_request_counts_once() -> None:
    """The stage before an answer tells nothing; a long request's start and end are the same event."""
    line = record("watch", "secrets", POD_USER)
    assert events(AUDIT, {**line, "stage": "RequestReceived"}) == []
    started, ended = (event(AUDIT, {**line, "stage": stage}) for stage in ("ResponseStarted", "ResponseComplete"))
    assert (started.id, started.part, started.time) == (ended.id, ended.part, ended.time)


def test_wrapped_by_azure() -> None:
    """A diagnostic record carries the event as text."""
    line = {"category": "kube-audit", "properties": {"log": json.dumps(record("get", "secrets", PERSON))}}
    assert AUDIT.recognise(line)
    assert event(AUDIT, line).kind is Kind.SECRET_READ


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"kind": "Pod"}, NotMine),
        ({"apiVersion": "v1"}, NotMine),
        ({"verb": None}, Reject),
        ({"requestReceivedTimestamp": None}, Reject),
        ({"requestReceivedTimestamp": "soon"}, Reject),
        ({"user": {"username": ""}}, Reject),
        ({"user": {"username": 4}}, msgspec.ValidationError),
        ({"category": "kube-audit", "kind": None, "properties": {}}, Reject),
    ],
)
def test_refusals(change: dict[str, Any], error: type[Exception]) -> None:
    """A record that is no audit event, or lacks verb, user or time, is refused."""
    with pytest.raises(error):
        event(AUDIT, {**copy.deepcopy(record("get", "pods", POD_USER)), **change})


def test_wrong_types_only_reject() -> None:
    """Whatever stands in a field, nothing but a refusal comes out."""
    assert survives(AUDIT, [line for _, line, _ in TABLE[1:19:2]]) > 1000


def test_a_role_that_colleagues_share_is_no_name_of_theirs() -> None:
    """On EKS the uid and the role are those of everybody who takes the role: only the session's e-mail tells the person."""
    actors = []
    for person in ("ada@brasshollow.example", "mira@brasshollow.example"):
        role = "arn:aws:iam::111111111111:role/Developer"
        extra = {
            "arn": [f"arn:aws:sts::111111111111:assumed-role/Developer/{person}"],
            "canonicalArn": [role],
            "sessionName": [person],
            "principalId": ["AROA"],
        }
        user = {"username": person, "uid": "aws-iam-authenticator:111:AROA", "extra": extra}
        actor = event(AUDIT, record("get", "pods", user)).actor
        assert actor.kind == "human"
        assert actor.role == role
        actors.append({actor.id, *actor.names})
    assert not actors[0] & actors[1]
