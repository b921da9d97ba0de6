"""GitHub audit lines and secret scanning alerts become the events that the table says."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import msgspec
import pytest
from cloudlike import event, facts, survives

from aftergate.connectors.github.alerts import token_hash
from aftergate.connectors.github.normalise import SOURCES
from aftergate.connectors.github.operations import operation
from aftergate.errors import NotMine, Reject
from aftergate.vocabulary import Kind, Tag

AUDIT, ALERTS = SOURCES
HASH = base64.b64encode(hashlib.sha256(b"invented-token").digest()).decode()
BASE: dict[str, Any] = {
    "@timestamp": 1_772_421_358_860,
    "_document_id": "doc-1",
    "actor": "mira-holt",
    "actor_id": 77,
    "actor_is_bot": False,
    "actor_ip": "203.0.113.9",
    "actor_location": {"country_code": "DE"},
    "org": "brasshollow",
    "user_agent": "git/2.45.1",
}
TABLE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "a fetch with a token is a read by that token",
        {
            "action": "git.fetch",
            "repo": "brasshollow/api",
            "hashed_token": HASH,
            "programmatic_access_type": "Fine-grained personal access token",
        },
        {
            "kind": "data_read",
            "klass": "github-git:read",
            "credential": HASH,
            "repo": "brasshollow/api",
            "actor": "mira-holt",
            "actor_kind": "human",
        },
    ),
    (
        "an app is a workload",
        {
            "action": "git.clone",
            "actor": "shipper[bot]",
            "actor_is_bot": True,
            "hashed_token": HASH,
            "programmatic_access_type": "GitHub App server-to-server token",
        },
        {"actor": "shipper[bot]", "actor_kind": "workload", "credential": HASH},
    ),
    (
        "a run starts",
        {
            "action": "workflows.created_workflow_run",
            "workflow_run_id": 8700,
            "run_attempt": 2,
            "repo": "brasshollow/api",
            "head_branch": "main",
            "name": "deploy",
        },
        {"run": "8700", "attempt": 2, "phase": "start", "tags": ["ci.run"], "repo": "brasshollow/api"},
    ),
    (
        "a run ends in failure, which is its outcome and no error of the act",
        {"action": "workflows.completed_workflow_run", "workflow_run_id": 8700, "conclusion": "failure"},
        {"run": "8700", "phase": "end", "status": "failure"},
    ),
    (
        "a key made in the browser is issued, not used",
        {"action": "public_key.create", "hashed_token": HASH, "title": "laptop", "read_only": "false"},
        {"kind": "credential_create", "issued": (HASH,), "tags": ["credential.add"], "target": "mira-holt"},
    ),
    (
        "a key made with a token uses that token",
        {"action": "deploy_key.create", "hashed_token": HASH, "programmatic_access_type": "OAuth access token", "repo": "brasshollow/api"},
        {"credential": HASH, "tags": ["credential.add"], "target": "brasshollow/api"},
    ),
    (
        "a revoked token is a target",
        {"action": "personal_access_token.access_revoked", "hashed_token": HASH, "user": "olu-day"},
        {"kind": "token_revoke", "target": "olu-day", "tags": ["credential.remove", "revoke"]},
    ),
    (
        "a member leaves",
        {"action": "org.remove_member", "user": "olu-day", "user_id": 9},
        {"tags": ["identity.disable"], "target": "olu-day"},
    ),
    ("protection goes", {"action": "protected_branch.destroy", "repo": "brasshollow/api"}, {"tags": ["defence.change", "defence.weaken"]}),
    ("the log stream goes", {"action": "audit_log_streaming.destroy"}, {"tags": ["defence.change", "defence.weaken"]}),
    ("a refused push is no change of a guard", {"action": "protected_branch.rejected_ref_update"}, {"kind": "other"}),
    (
        "two factors are no longer asked for",
        {"action": "org.disable_two_factor_requirement"},
        {"tags": ["defence.change", "defence.weaken"]},
    ),
    (
        "single sign-on is switched off",
        {"action": "org.disable_saml"},
        {"kind": "trust_change", "tags": ["defence.change", "defence.weaken", "trust.change"]},
    ),
    ("a repository opens", {"action": "repo.access", "visibility": "public", "previous_visibility": "private"}, {"tags": ["share.change"]}),
    (
        "a repository is born public",
        {"action": "repo.create", "visibility": "public"},
        {"action": "repo.create:public", "tags": ["share.change"]},
    ),
    (
        "an app is installed",
        {"action": "integration_installation.create", "integration": "chartwell"},
        {"kind": "consent", "tags": ["consent"]},
    ),
    ("a secret of the pipeline is set", {"action": "repo.create_actions_secret", "key": "DEPLOY_KEY"}, {"klass": "github-secrets:write"}),
    (
        "an API request is templated",
        {"action": "api.request", "request_method": "get", "url_path": "/repos/brasshollow/api/pulls/17", "status_code": 404},
        {"action": "api GET /repos/{name}/{name}/pulls/{id}", "error": "404", "klass": "github-api:read"},
    ),
    ("anybody's app may ask for access", {"action": "org.disable_oauth_app_restrictions"}, {"tags": ["defence.change", "defence.weaken"]}),
    ("an unknown action still has a family", {"action": "novelty.remove_thing"}, {"kind": "other", "klass": "github-novelty:delete"}),
]


@pytest.mark.parametrize(("said", "extra", "wanted"), TABLE, ids=[row[0] for row in TABLE])
def test_audit(said: str, extra: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Each line tells the facts of its row, and when, where and by whom."""
    record = {**BASE, **extra}
    assert AUDIT.recognise(record), said
    found = facts(event(AUDIT, record))
    assert {key: found.get(key) for key in wanted} == wanted
    assert (found["id"], found["ip"]) == ("doc-1", "203.0.113.9")


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ({"action": "opened", "sender": {}}, NotMine),
        ({"action": "git.clone", "actor": "a"}, Reject),
        ({"action": "git.clone", "actor": "a", "@timestamp": "yesterday"}, Reject),
        ({"action": "git.clone", "actor": "a", "@timestamp": 1e300}, Reject),
        ({"action": 3}, msgspec.ValidationError),
    ],
)
def test_refusals(record: dict[str, Any], error: type[Exception]) -> None:
    """What is no audit line, or has no time, is refused with a reason."""
    with pytest.raises(error):
        event(AUDIT, record)


ALERT = {
    "number": 63,
    "created_at": "2026-03-22T11:08:04Z",
    "state": "open",
    "repository": {"full_name": "brasshollow/tools", "private": True},
}
KEY_FILE = {
    "type": "service_account",
    "project_id": "brass-1",
    "private_key_id": "ab" * 20,
    "private_key": "-----BEGIN PRIVATE KEY-----invented",
    "client_email": "Ci@brass-1.iam.gserviceaccount.com",
}


@pytest.mark.parametrize(
    ("kind", "secret", "credential"),
    [
        ("aws_access_key_id", "AKIAEXAMPLEEXAMPLE12", "AKIAEXAMPLEEXAMPLE12"),
        ("aws_secret_access_key", "abcdefghijklmnopqrstuvwxyz0123456789ABCD", token_hash("abcdefghijklmnopqrstuvwxyz0123456789ABCD")),
        ("github_personal_access_token", "invented-token", HASH),
        ("google_cloud_private_key_id", "ab" * 20, "ab" * 20),
        (
            "google_cloud_service_account_credentials",
            json.dumps(KEY_FILE),
            "//iam.googleapis.com/projects/brass-1/serviceAccounts/ci@brass-1.iam.gserviceaccount.com/keys/" + "ab" * 20,
        ),
        ("slack_api_token", None, None),
    ],
)
def test_alert(kind: str, secret: str | None, credential: str | None) -> None:
    """An alert names what leaked by its id or a hash, and the value itself is nowhere in the event."""
    found = event(ALERTS, {**ALERT, "secret_type": kind, "secret": secret})
    assert ALERTS.recognise({**ALERT, "secret_type": kind})
    assert (found.id, found.credential) == ("brasshollow/tools#63", credential)
    assert found.action.tags == {Tag.LEAK}
    if secret is not None and secret != credential:
        held = repr((found.id, found.credential, found.target, found.shape.actor, found.d, msgspec.json.encode(found.d)))
        assert secret not in held
        assert "PRIVATE KEY" not in held


def test_hash_is_the_one_of_the_audit_log() -> None:
    """A leaked token's hash equals the log's `hashed_token`, so a leak and a use join."""
    assert token_hash("invented-token") == HASH


def test_hook_addresses_lose_their_tokens() -> None:
    """Only scheme, host and path of a hook are kept."""
    found = event(AUDIT, {**BASE, "action": "hook.create", "config": {"url": "https://u:pw@sink.example/in?token=abc"}})
    assert found.d.params is not None
    assert found.d.params["hook_url"] == "https://sink.example/in"


def test_every_listed_action_has_a_kind() -> None:
    """The class name of an operation says service and family."""
    assert operation("git.push")[0] is Kind.OTHER
    assert all(operation(name)[1].startswith("github-") for name in ("git.push", "x.y", "api GET /", "org.enable_saml", "hook.destroy"))


def test_wrong_types_only_reject() -> None:
    """Whatever stands in a field, nothing but a refusal comes out."""
    records = [{**BASE, **extra} for _, extra, _ in TABLE[::2]]
    records.append(
        {**BASE, "action": "org.x", "config": {"url": "x"}, "changes": {"a": 1, "old_a": 2}, "permissions_added": {"c": "w"}, "number": 3}
    )
    assert survives(AUDIT, records) > 100
    assert (
        survives(
            ALERTS, [{**ALERT, "secret_type": "google_x", "secret": json.dumps(KEY_FILE), "push_protection_bypassed_by": {"login": "x"}}]
        )
        > 20
    )
