"""Vault audit lines become the events that the table says, one act for each request."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from cloudlike import event, events, facts, survives

from aftergate.connectors.vault.normalise import SOURCES, template
from aftergate.errors import NotMine, Reject
from aftergate.vocabulary import Kind

(AUDIT,) = SOURCES
AUTH = {
    "accessor": "hmac-sha256:aa",
    "display_name": "kubernetes-cart",
    "policies": ["default", "cart"],
    "metadata": {"role": "cart", "service_account_name": "cart", "service_account_namespace": "shop"},
    "entity_id": "e-1",
    "token_type": "service",
    "token_ttl": 3600,
    "token_issue_time": "2026-02-16T10:00:04Z",
}


def line(kind: str, operation: str, path: str, mount: str = "kv", **extra: Any) -> dict[str, Any]:
    return {
        "time": "2026-02-16T10:10:04.476283000Z",
        "type": kind,
        "auth": AUTH,
        "request": {
            "id": "r-1",
            "operation": operation,
            "path": path,
            "mount_type": mount,
            "client_token_accessor": "hmac-sha256:aa",
            "namespace": {"id": "root"},
            "remote_address": "10.30.3.124",
        },
        **extra,
    }


ISSUED = {"auth": {"accessor": "hmac-sha256:bb", "token_ttl": 60}}
TABLE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "a secret is read",
        line("request", "read", "kv/data/cart/db"),
        {
            "kind": "secret_read",
            "action": "kv/data/*:read",
            "klass": "vault-kv:read",
            "credential": "hmac-sha256:aa",
            "actor": "e-1",
            "actor_kind": "workload",
            "target": "kv/data/cart/db",
            "token_issued_at": 1_771_236_004_000,
            "token_expires_at": 1_771_239_604_000,
        },
    ),
    (
        "a login issues an accessor",
        line("response", "update", "auth/kubernetes/login", "kubernetes", response=ISSUED),
        {"kind": "sign_in", "issued": ("hmac-sha256:bb",), "credential": None, "part": 1000, "issued_ttl_s": 60, "grant": "jwt_bearer"},
    ),
    (
        "a token makes a token",
        line("response", "update", "auth/token/create", "token", response=ISSUED),
        {"kind": "token_issue", "issued": ("hmac-sha256:bb",), "credential": "hmac-sha256:aa"},
    ),
    (
        "a failed login issues nothing",
        line("response", "update", "auth/userpass/login/mira", "userpass", error="1 error occurred:\n\t* permission denied\n\n"),
        {"error": "permission denied", "issued": None, "grant": "password"},
    ),
    ("secrets are listed", line("request", "list", "kv/metadata/cart"), {"kind": "discovery", "klass": "vault-kv:discover"}),
    ("a database account is lent", line("request", "read", "database/creds/ro", "database"), {"tags": ["secret.read"]}),
    ("the audit device goes", line("request", "delete", "sys/audit/file", "system"), {"tags": ["defence.change", "defence.weaken"]}),
    (
        "a policy changes",
        line("request", "update", "sys/policies/acl/cart", "system"),
        {"tags": ["privilege.grant"], "kind": "policy_change"},
    ),
    ("a way in is opened", line("request", "update", "sys/auth/oidc2", "system"), {"kind": "trust_change"}),
    ("a secret id is made", line("request", "update", "auth/approle/role/cart/secret-id", "approle"), {"tags": ["credential.add"]}),
    ("a token is revoked", line("request", "update", "auth/token/revoke-accessor", "token"), {"tags": ["revoke"], "kind": "token_revoke"}),
    ("a snapshot is taken", line("request", "read", "sys/storage/raft/snapshot", "system"), {"kind": "data_export"}),
    (
        "an error that came with the answer is told, and not as a second act",
        line("response", "read", "kv/data/cart/db", error="permission denied"),
        {"kind": "other", "error": "permission denied", "part": 1000, "tags": None},
    ),
]


@pytest.mark.parametrize(("said", "record", "wanted"), TABLE, ids=[row[0] for row in TABLE])
def test_line(said: str, record: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Each line tells the facts of its row."""
    assert AUDIT.recognise(record), said
    found = facts(event(AUDIT, record))
    assert {key: found.get(key) for key in wanted} == wanted
    assert found["id"] == "r-1"


@pytest.mark.parametrize("path", ["kv/data/cart/db", "auth/kubernetes/login", "auth/token/create", "sys/auth/x"])
def test_two_lines_one_act(path: str) -> None:
    """Of a request line and its response line just one gives an event when all went well."""
    both = [events(AUDIT, line(kind, "update", path, response={})) for kind in ("request", "response")]
    assert sorted(len(found) for found in both) == [0, 1]


def test_workload_is_named_as_in_its_cluster() -> None:
    """The service account of a Kubernetes login is among the actor's names."""
    assert "system:serviceaccount:shop:cart" in event(AUDIT, TABLE[0][1]).actor.names
    assert event(AUDIT, TABLE[0][1]).kind is Kind.SECRET_READ


def test_template_keeps_interface_words_only() -> None:
    """Names of secrets, roles and users do not make new actions."""
    assert template("kv/data/a/b/c", "kv") == template("kv/data/x", "kv") == "kv/data/*"
    assert template("auth/approle/role/cart/secret-id", "approle") == "auth/approle/role/*/secret-id"


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ({"type": "other", "request": {"id": "1", "path": "p", "operation": "o"}}, NotMine),
        ({"type": "request"}, NotMine),
        ({"type": "request", "request": {"path": "p"}}, msgspec.ValidationError),
        ({"type": "request", "request": {"id": "", "path": "p", "operation": "read"}}, Reject),
        ({"type": "request", "request": {"id": "1", "path": "p", "operation": "read"}}, Reject),
    ],
)
def test_refusals(record: dict[str, Any], error: type[Exception]) -> None:
    """What is no audit line, or lacks id, path or time, is refused."""
    with pytest.raises(error):
        event(AUDIT, record)


def test_wrong_types_only_reject() -> None:
    """Whatever stands in a field, nothing but a refusal comes out."""
    assert survives(AUDIT, [record for _, record, _ in TABLE]) > 500
