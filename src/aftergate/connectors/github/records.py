"""Audit log lines as msgspec reads them. Fields that are not named here are skipped unread."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field


class AuditRecord(Struct, gc=False):
    action: str | None = None
    stamp: Any = field(name="@timestamp", default=None)
    created_at: Any = None
    at_sign_timestamp: Any = None
    document_id: Any = field(name="_document_id", default=None)
    actor: Any = None
    actor_id: Any = None
    actor_is_bot: Any = None
    actor_is_agent: Any = None
    actor_ip: Any = None
    actor_location: Any = None
    user_agent: Any = None
    external_identity_nameid: Any = None
    external_identity_username: Any = None
    business: Any = None
    org: Any = None
    repo: Any = None
    repository: Any = None
    user: Any = None
    user_id: Any = None
    team: Any = None
    hashed_token: Any = None
    token_id: Any = None
    token_scopes: Any = None
    programmatic_access_type: Any = None
    oauth_application: Any = None
    oauth_application_id: Any = None
    oauth_application_name: Any = None
    application_client_id: Any = None
    integration: Any = None
    name: Any = None
    key: Any = None
    title: Any = None
    fingerprint: Any = None
    deploy_key_fingerprint: Any = None
    read_only: Any = None
    permission: Any = None
    old_permission: Any = None
    permissions_added: Any = None
    user_programmatic_access_name: Any = None
    visibility: Any = None
    previous_visibility: Any = None
    changes: Any = None
    number: Any = None
    event: Any = None
    head_branch: Any = None
    workflow_run_id: Any = None
    run_attempt: Any = None
    job_name: Any = None
    job_workflow_ref: Any = None
    is_hosted_runner: Any = None
    runner_name: Any = None
    secrets_passed: Any = None
    conclusion: Any = None
    environment: Any = None
    environment_name: Any = None
    request_method: Any = None
    route: Any = None
    url_path: Any = None
    status_code: Any = None
    request_id: Any = None
    config: Any = None
    ruleset_name: Any = None
    ruleset_enforcement: Any = None
    data: Any = None
