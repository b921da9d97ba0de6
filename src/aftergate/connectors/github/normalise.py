"""GitHub: the enterprise and organisation audit log, and secret scanning alerts.

Source: docs.github.com "Audit log events for your enterprise", "Identifying audit log events performed by an access token"
(hashed_token is the base64 of the SHA-256 of the token), REST "Secret scanning".
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from aftergate.connectors.base import Source
from aftergate.connectors.loose import address, content_id, decode, kept, mail, mapping, moment, number, text, texts, unique
from aftergate.errors import NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.events.redact import secret_key
from aftergate.vocabulary import NO_ORIGIN, Actor, Change, Detail, Event, Kind, Tag, Target
from aftergate.vocabulary.patterns import regex

AUDIT: Final = "github.audit"
ALERTS: Final = "github.secret_scanning"

Operation = tuple[Kind, str, str, tuple[Tag, ...]]

_WEAKENING = ("destroy", "disable", "disabled", "delete", "remove", "dismiss", "bypass", "override", "revoke")
_GUARDS = (  # categories that exist to protect something
    "protected_branch",
    "repository_ruleset",
    "ruleset",
    "audit_log_streaming",
    "secret_scanning",
    "repository_secret_scanning",
    "org_secret_scanning",
    "business_secret_scanning",
    "secret_scanning_push_protection",
    "repository_secret_scanning_push_protection",
    "org_secret_scanning_push_protection",
    "business_secret_scanning_push_protection",
    "ip_allow_list",
    "ip_allow_list_entry",
    "dependabot_alerts",
    "dependabot_security_updates",
    "advanced_security",
    "repository_vulnerability_alerts",
    "code_scanning",
    "required_status_check",
    "allowed_actions",
)
_FAMILY = {
    "create": "write",
    "add": "write",
    "update": "write",
    "enable": "write",
    "edit": "write",
    "rename": "write",
    "merge": "write",
    "submit": "write",
    "destroy": "delete",
    "delete": "delete",
    "remove": "delete",
    "disable": "delete",
    "get": "read",
    "download": "read",
    "access": "read",
    "list": "discover",
    "search": "discover",
}

_EXACT: dict[str, tuple[Kind, str, tuple[Tag, ...]]] = {
    "git.clone": (Kind.DATA_READ, "read", ()),
    "git.fetch": (Kind.DATA_READ, "read", ()),
    "git.push": (Kind.OTHER, "write", ()),
    "repo.download_zip": (Kind.DATA_READ, "read", ()),
    "org.audit_log_export": (Kind.DATA_EXPORT, "read", ()),
    "org.audit_log_git_event_export": (Kind.DATA_EXPORT, "read", ()),
    "business.audit_log_export": (Kind.DATA_EXPORT, "read", ()),
    "migration.create": (Kind.DATA_EXPORT, "read", ()),
    "migration.download": (Kind.DATA_EXPORT, "read", ()),
    "public_key.create": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "public_key.delete": (Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE,)),
    "deploy_key.create": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "deploy_key.destroy": (Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE,)),
    "gpg_key.create": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "gpg_key.destroy": (Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE,)),
    "personal_access_token.create": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "personal_access_token.access_granted": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "personal_access_token.credential_regenerated": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "personal_access_token.request_created": (Kind.OTHER, "admin", ()),
    "personal_access_token.access_revoked": (Kind.TOKEN_REVOKE, "admin", (Tag.CREDENTIAL_REMOVE, Tag.REVOKE)),
    "personal_access_token.credential_revoked": (Kind.TOKEN_REVOKE, "admin", (Tag.CREDENTIAL_REMOVE, Tag.REVOKE)),
    "personal_access_token.destroy": (Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE,)),
    "oauth_access.create": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "oauth_access.regenerate": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "oauth_access.destroy": (Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE,)),
    "oauth_access.revoke": (Kind.TOKEN_REVOKE, "admin", (Tag.CREDENTIAL_REMOVE, Tag.REVOKE)),
    "oauth_authorization.create": (Kind.CONSENT, "admin", (Tag.CONSENT,)),
    "oauth_authorization.update": (Kind.CONSENT, "admin", (Tag.CONSENT,)),
    "oauth_authorization.destroy": (Kind.TOKEN_REVOKE, "admin", (Tag.REVOKE,)),
    "org.oauth_app_access_approved": (Kind.CONSENT, "admin", (Tag.CONSENT,)),
    "org.oauth_app_access_requested": (Kind.OTHER, "admin", ()),
    "oauth_application.create": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.APP_CREATE,)),
    "oauth_application.revoke_tokens": (Kind.TOKEN_REVOKE, "admin", (Tag.REVOKE,)),
    "oauth_application.transfer": (Kind.ROLE_CHANGE, "admin", (Tag.OWNER_ADD,)),
    "integration.create": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.APP_CREATE,)),
    "integration.transfer": (Kind.ROLE_CHANGE, "admin", (Tag.OWNER_ADD,)),
    "integration.manager_added": (Kind.ROLE_CHANGE, "admin", (Tag.OWNER_ADD,)),
    "integration.manager_removed": (Kind.ROLE_CHANGE, "admin", (Tag.OWNER_REMOVE,)),
    "integration.revoke_tokens": (Kind.TOKEN_REVOKE, "admin", (Tag.REVOKE,)),
    "integration_installation.create": (Kind.CONSENT, "admin", (Tag.CONSENT,)),
    "integration_installation.repositories_added": (Kind.CONSENT, "admin", (Tag.CONSENT,)),
    "integration_installation.version_updated": (Kind.CONSENT, "admin", (Tag.CONSENT,)),
    "integration_installation.unsuspend": (Kind.CONSENT, "admin", (Tag.CONSENT,)),
    "org_credential_authorization.grant": (Kind.CONSENT, "admin", (Tag.CONSENT,)),
    "org_credential_authorization.revoke": (Kind.TOKEN_REVOKE, "admin", (Tag.REVOKE,)),
    "org_credential_authorization.deauthorize": (Kind.TOKEN_REVOKE, "admin", (Tag.REVOKE,)),
    "org.add_member": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_CREATE,)),
    "org.remove_member": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "org.block_user": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "org.unblock_user": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_ENABLE,)),
    "org.remove_outside_collaborator": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    "business.remove_member": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "user.suspend": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "user.unsuspend": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_ENABLE,)),
    "user.create": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_CREATE,)),
    "user.destroy": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "external_identity.provision": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_CREATE,)),
    "external_identity.deprovision": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "org.invite_member": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "org.update_member": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "org.add_billing_manager": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "org.add_outside_collaborator": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT, Tag.SHARE_CHANGE)),
    "org.update_default_repository_permission": (Kind.POLICY_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "business.add_admin": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "business.remove_admin": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    "business.invite_admin": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "business.add_organization": (Kind.TRUST_CHANGE, "admin", ()),
    "user.promote": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "user.demote": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    "repo.add_member": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "repo.update_member": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "repo.remove_member": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    "team.add_member": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "team.promote_maintainer": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "team.remove_member": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    "team.add_repository": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "team.update_repository_permission": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "team.remove_repository": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    "repo.access": (Kind.POLICY_CHANGE, "admin", (Tag.SHARE_CHANGE,)),
    "repo.create:public": (Kind.CONFIG_CHANGE, "write", (Tag.SHARE_CHANGE,)),
    "repo.transfer": (Kind.POLICY_CHANGE, "admin", (Tag.SHARE_CHANGE,)),
    "repo.transfer_outgoing": (Kind.POLICY_CHANGE, "admin", (Tag.SHARE_CHANGE,)),
    "org.enable_two_factor_requirement": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    "org.disable_two_factor_requirement": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    "business.disable_two_factor_requirement": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    "org.enable_oauth_app_restrictions": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    "org.disable_oauth_app_restrictions": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    "two_factor_authentication.enabled": (Kind.FACTOR_CHANGE, "auth", (Tag.FACTOR_ADD,)),
    "two_factor_authentication.disabled": (Kind.FACTOR_CHANGE, "auth", (Tag.FACTOR_REMOVE, Tag.DEFENCE_WEAKEN)),
    "two_factor_authentication.recovery_code_used": (Kind.FACTOR_CHANGE, "auth", ()),
    "security_key.register": (Kind.FACTOR_CHANGE, "auth", (Tag.FACTOR_ADD,)),
    "security_key.remove": (Kind.FACTOR_CHANGE, "auth", (Tag.FACTOR_REMOVE,)),
    "passkey.register": (Kind.FACTOR_CHANGE, "auth", (Tag.FACTOR_ADD,)),
    "passkey.remove": (Kind.FACTOR_CHANGE, "auth", (Tag.FACTOR_REMOVE,)),
    "user.change_password": (Kind.FACTOR_CHANGE, "auth", (Tag.PASSWORD_CHANGE,)),
    "user.forgot_password": (Kind.FACTOR_CHANGE, "auth", ()),
    "user.login": (Kind.SIGN_IN, "auth", ()),
    "user.failed_login": (Kind.SIGN_IN, "auth", ()),
    "user.logout": (Kind.SESSION_END, "auth", ()),
    "org.sso_response": (Kind.SIGN_IN, "auth", ()),
    "business.sso_response": (Kind.SIGN_IN, "auth", ()),
    "secret_scanning_alert.create": (Kind.OTHER, "discover", (Tag.LEAK,)),
    "secret_scanning_alert.publicly_leaked": (Kind.OTHER, "discover", (Tag.LEAK,)),
    "workflows.delete_workflow_run": (Kind.CONFIG_CHANGE, "delete", (Tag.DEFENCE_CHANGE,)),
    "org.register_self_hosted_runner": (Kind.CONFIG_CHANGE, "admin", ()),
    "repo.register_self_hosted_runner": (Kind.CONFIG_CHANGE, "admin", ()),
    "codespaces.connect": (Kind.OTHER, "execute", ()),
}

_RUNS = {  # workflow events that belong to one run, and what they say of it
    "workflows.created_workflow_run": "start",
    "workflows.rerun_workflow_run": "start",
    "workflows.prepared_workflow_job": None,
    "workflows.approve_workflow_job": None,
    "workflows.reject_workflow_job": None,
    "workflows.bypass_protection_rules": None,
    "workflows.cancel_workflow_run": None,
    "workflows.completed_workflow_run": "end",
}

_ROBOT = regex(
    r"(^|[-_.])(bot|ci|cd|svc|service|robot|automation|deploy|deployer|release|releaser|renovate|dependabot|jenkins|buildkite|circleci|builder|sync|runner)([-_.]|$)"
)
_AWS_KEY = regex(r"\b((?:AKIA|ASIA)[A-Z0-9]{16})\b")
_NUMBERS = regex(r"^([0-9]+|[0-9a-f]{20,})$")
_GOOGLE_KEY = regex(r"^[0-9a-f]{40}$")


def operation(name: str) -> Operation:
    """Kind, service, verb family and tags of an audit action. Unknown actions go by their category and last word."""
    if name.startswith("api "):
        return _api(name)
    category, _, verb = name.partition(".")
    exact = _EXACT.get(name)
    if exact is not None:
        return exact[0], f"github-{category}", exact[1], exact[2]
    if name in _RUNS:
        tags = (Tag.CI_RUN, Tag.DEFENCE_WEAKEN) if verb == "bypass_protection_rules" else (Tag.CI_RUN,)
        return Kind.OTHER, "github-workflows", "execute", tags
    if verb.startswith("rejected"):  # a guard did its work
        return Kind.OTHER, f"github-{category}", "write", ()
    weak = any(part in _WEAKENING for part in verb.split("_"))
    if "client_secret" in verb or "private_key" in verb or verb == "reset_secret":
        if weak:
            return Kind.CREDENTIAL_DELETE, f"github-{category}", "admin", (Tag.CREDENTIAL_REMOVE,)
        return Kind.CREDENTIAL_CREATE, f"github-{category}", "admin", (Tag.CREDENTIAL_ADD,)
    if any(word in verb for word in ("saml", "oidc", "identity_provider", "external_group")) or category in (
        "ssh_certificate_authority",
        "ssh_certificate_requirement",
    ):
        return (
            Kind.TRUST_CHANGE,
            f"github-{category}",
            "admin",
            (Tag.TRUST_CHANGE, Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN) if weak else (Tag.TRUST_CHANGE,),
        )
    if verb.endswith(("_secret", "_secrets", "_variable")):
        return Kind.CONFIG_CHANGE, "github-secrets", "delete" if weak else "write", ()
    if category in _GUARDS or (category == "environment" and not verb.startswith("create_")):
        return (
            Kind.POLICY_CHANGE,
            f"github-{category}",
            "admin",
            (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN) if weak else (Tag.DEFENCE_CHANGE,),
        )
    if any(
        word in verb
        for word in (
            "secret_scanning",
            "push_protection",
            "two_factor",
            "ip_allow_list",
            "audit_log_stream",
            "advanced_security",
            "dependabot",
        )
    ):
        return (
            Kind.POLICY_CHANGE,
            f"github-{category}",
            "admin",
            (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN) if weak else (Tag.DEFENCE_CHANGE,),
        )
    if category in ("role", "organization_role", "repository_role", "enterprise_role"):
        return Kind.ROLE_CHANGE, f"github-{category}", "admin", (Tag.PRIVILEGE_REVOKE,) if weak else (Tag.PRIVILEGE_GRANT,)
    if category in (
        "hook",
        "repo",
        "org",
        "business",
        "team",
        "integration",
        "oauth_application",
        "codespaces",
        "workflows",
        "actions",
        "enterprise",
    ):
        return Kind.CONFIG_CHANGE, f"github-{category}", "delete" if weak else _FAMILY.get(verb.partition("_")[0], "write"), ()
    return Kind.OTHER, f"github-{category}", _FAMILY.get(verb.rpartition("_")[2], _FAMILY.get(verb.partition("_")[0], "write")), ()


def _api(name: str) -> Operation:
    method = name.split(" ", 2)[1]
    family = {"GET": "read", "HEAD": "read", "DELETE": "delete"}.get(method, "write")
    return Kind.DATA_READ if family == "read" else Kind.OTHER, "github-api", family, ()


def _plain_url(url: str | None) -> str | None:
    """Scheme, host and path: the rest of a hook's address may hold a token."""
    found = re.match(r"^([a-z]+://)(?:[^/@]*@)?([^?#]*)", url or "")
    return found.group(1) + found.group(2) if found else None


def token_hash(secret: str) -> str:
    """What the audit log calls `hashed_token`: base64 of the SHA-256 of the token."""
    return base64.b64encode(hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()).decode()


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


_audit = msgspec.json.Decoder(AuditRecord)


class Audit:
    """Audit log lines, streamed or exported."""

    def __init__(self, interner: Interner) -> None:
        self.intern = interner
        self._actors: dict[tuple[str | None, ...], Actor] = {}

    def parse(self, line: bytes) -> Event:
        record = decode(_audit, line)
        action = record.action
        if not action or "." not in action:
            raise NotMine("`action` is not an audit log action")
        intern = self.intern
        time = moment(record.stamp, record.created_at, record.at_sign_timestamp)
        name, error = self._name(action, record)
        operated = intern.action(AUDIT, name, operation)
        repo = text(record.repo) or text(record.repository)
        account = text(record.org) or text(record.business)
        actor = self._actor(record, account)

        token = text(record.hashed_token)
        programmatic = text(record.programmatic_access_type)
        used, issued = token, None
        if operated.kind is Kind.CREDENTIAL_CREATE and programmatic is None:
            used, issued = None, token or text(record.fingerprint) or text(record.token_id)
        elif operated.kind is Kind.CREDENTIAL_CREATE:
            issued = text(record.fingerprint)
        revoked = None
        if (operated.kind is Kind.CREDENTIAL_DELETE or Tag.REVOKE in operated.tags) and programmatic is None:
            used, revoked = None, token or text(record.fingerprint) or text(record.token_id)
        if used is None and issued is None and revoked is None:
            used = text(record.deploy_key_fingerprint) or (text(record.token_id) if programmatic is not None else None)

        targets = self._targets(record, repo, account, actor, revoked, operated.tags)
        run = text(record.workflow_run_id)
        detail = Detail(
            issued=(issued,) if issued else (),
            issued_class=self._class(action) if issued else None,
            scopes=tuple((text(record.token_scopes) or "").replace(",", " ").split()),
            credential_type=programmatic,
            run=run,
            attempt=number(record.run_attempt),
            phase=_RUNS.get(action) if run else None,
            repo=repo,
            correlation=text(record.request_id),
            targets=targets,
            changes=self._changes(record),
            params=self._params(record, action),
            status=text(record.conclusion),
        )
        place = text(record.actor_ip)
        country = text(mapping(record.actor_location).get("country_code"))
        shape = intern.shape(
            AUDIT,
            operated,
            actor,
            intern.origin(address(place) or place, country=country) if place else NO_ORIGIN,
            intern.agent(text(record.user_agent)),
            error,
            client=text(record.oauth_application_id) or text(record.application_client_id),
            client_name=text(record.oauth_application_name) or text(record.oauth_application) or text(record.integration),
            account=account,
        )
        return Event(
            time,
            text(record.document_id) or content_id(line),
            shape,
            credential=used,
            target=targets[0].id if targets else None,
            detail=detail,
        )

    @staticmethod
    def _name(action: str, record: AuditRecord) -> tuple[str, str | None]:
        """The stable action name, and the error it ended in."""
        if action == "api.request":
            method = (text(record.request_method) or "GET").upper()[:10]
            route = text(record.route) or text(record.url_path) or "/"
            parts = route.partition("?")[0].split("/")
            templated = [
                "{" + part[1:] + "}"
                if part[:1] == ":"
                else "{id}"
                if _NUMBERS.match(part)
                else "{name}"
                if n in (2, 3) and parts[1:2] == ["repos"]
                else part
                for n, part in enumerate(parts)
            ]
            status = number(record.status_code)
            return f"api {method} {'/'.join(templated)[:120]}", str(status) if status is not None and status >= 400 else None
        if action == "repo.create" and record.visibility == "public":
            return "repo.create:public", None
        return action[:120], "failed" if action == "user.failed_login" else None

    def _actor(self, record: AuditRecord, account: str | None) -> Actor:
        login, number_id, key = text(record.actor), text(record.actor_id), text(record.deploy_key_fingerprint)
        marks = f"{record.actor_is_agent is True}{record.actor_is_bot is True}{record.programmatic_access_type is None}"
        cached = (login, number_id, key, marks, account, text(record.external_identity_nameid), text(record.external_identity_username))
        found = self._actors.get(cached)
        if found is not None:
            return found
        names = unique((number_id, mail(record.external_identity_nameid), mail(record.external_identity_username)), login)
        first_party = login in ("github", "web-flow", "GitHub", "ghost")
        if first_party:
            kind = "service"
        elif record.actor_is_agent is True:
            kind = "agent"
        elif record.actor_is_bot is True or (login or "").endswith("[bot]") or _ROBOT.search((login or "").lower()):
            kind = "workload"
        elif login is None:
            kind = "workload" if key or record.programmatic_access_type else "unknown"
        else:
            kind = "human"
        found = self.intern.actor(login or number_id or key or "unknown", names, kind, account, first_party=first_party)
        if len(self._actors) > 100_000:
            self._actors.clear()
        self._actors[cached] = found
        return found

    @staticmethod
    def _targets(
        record: AuditRecord, repo: str | None, account: str | None, actor: Actor, revoked: str | None, tags: frozenset[Tag]
    ) -> tuple[Target, ...]:
        found: list[Target] = []
        user = text(record.user)
        if user:
            found.append(Target(user, "user", unique((text(record.user_id) if record.user_id else None,))))
        elif Tag.CREDENTIAL_ADD in tags or Tag.CREDENTIAL_REMOVE in tags:
            owner = text(record.user_programmatic_access_name) or text(record.integration) or text(record.oauth_application)
            # a deploy key belongs to its repository, any other key without an owner to whoever added it
            found.append(Target(owner, "application") if owner else Target(repo, "repository") if repo else Target(actor.id, "user"))
        if revoked:
            found.append(Target(revoked, "credential"))
        team = text(record.team)
        if team:
            found.append(Target(team, "team"))
        sequence = number(record.number)
        if repo and Tag.LEAK in tags and sequence is not None:
            found.append(Target(f"{repo}#{sequence}", "alert"))
        if repo and all(target.id != repo for target in found):
            found.append(Target(repo, "repository"))
        if not found and account:
            found.append(Target(account, "organisation"))
        return tuple(found)

    @staticmethod
    def _changes(record: AuditRecord) -> tuple[Change, ...]:
        if record.changes is None and record.visibility is None and record.permission is None:
            return ()
        found = [
            Change(name, text(values.get(f"old_{name}")), text(value))
            for values in (mapping(record.changes),)
            for name, value in values.items()
            if not name.startswith("old_") and not secret_key(name)
        ]
        if record.visibility is not None:
            found.append(Change("visibility", text(record.previous_visibility), text(record.visibility)))
        if record.permission is not None:
            found.append(Change("permission", text(record.old_permission), text(record.permission)))
        return tuple(found[:20])

    @staticmethod
    def _params(record: AuditRecord, action: str) -> dict[str, Any] | None:
        programmatic = text(record.programmatic_access_type)
        token_id = text(record.token_id)
        if action.startswith("git."):  # most of the log, and nothing else in it is read
            return {"programmatic_access_type": programmatic, "token_id": token_id} if programmatic or token_id else None
        if action.startswith("workflows."):
            hosted = record.is_hosted_runner
            return kept(
                {
                    "programmatic_access_type": programmatic,
                    "event": text(record.event),
                    "head_branch": text(record.head_branch),
                    "workflow": text(record.name),
                    "job": text(record.job_name),
                    "job_workflow_ref": text(record.job_workflow_ref),
                    "hosted_runner": hosted if isinstance(hosted, bool) else None,
                    "runner": text(record.runner_name),
                    "secrets_passed": list(texts(record.secrets_passed)) if isinstance(record.secrets_passed, list) else None,
                    "environment": text(record.environment_name) or text(record.environment),
                }
            )
        read_only = record.read_only
        added = record.permissions_added
        return kept(
            {
                "programmatic_access_type": programmatic,
                "token_id": token_id,
                "name": text(record.name),
                "environment": text(record.environment_name) or text(record.environment),
                "secret_name": text(record.key) if action.endswith(("_secret", "_variable")) else None,
                "title": text(record.title),
                "read_only": read_only if isinstance(read_only, bool) else {"true": True, "false": False}.get(text(read_only) or ""),
                "permission": text(record.permission),
                "permissions_added": {name: text(value) for name, value in list(added.items())[:40]} if isinstance(added, dict) else None,
                "visibility": text(record.visibility),
                "previous_visibility": text(record.previous_visibility),
                "integration": text(record.integration),
                "hook_url": _plain_url(text(mapping(record.config).get("url"))),
                "ruleset": text(record.ruleset_name),
                "enforcement": text(record.ruleset_enforcement),
                "number": number(record.number),
            }
        )

    @staticmethod
    def _class(action: str) -> str:
        category = action.partition(".")[0]
        if category in ("public_key", "deploy_key", "gpg_key"):
            return "ssh_key"
        if category == "oauth_access":
            return "access_token"
        return "pat" if category == "personal_access_token" else "client_secret"


class Alert(Struct, gc=False):
    number: Any = None
    created_at: Any = None
    updated_at: Any = None
    state: Any = None
    resolution: Any = None
    resolved_at: Any = None
    resolved_by: Any = None
    secret_type: Any = None
    secret: Any = None
    repository: Any = None
    html_url: Any = None
    validity: Any = None
    publicly_leaked: Any = None
    multi_repo: Any = None
    push_protection_bypassed: Any = None
    push_protection_bypassed_by: Any = None


_alert = msgspec.json.Decoder(Alert)
_any = msgspec.json.Decoder()


class Alerts:
    """Secret scanning alerts of the REST interface. INVARIANT: the found value leaves this class only as an identifier or a hash."""

    def __init__(self, interner: Interner) -> None:
        self.intern = interner

    def parse(self, line: bytes) -> Event:
        record = decode(_alert, line)
        kind = text(record.secret_type)
        if kind is None:
            raise NotMine("alert has no `secret_type`")
        sequence = number(record.number)
        repo = text(mapping(record.repository).get("full_name")) or _repository_of(text(record.html_url))
        if sequence is None or repo is None:
            raise Reject("alert has no number or repository")
        credential, kept_as = _identifier(kind, record.secret)
        alert = f"{repo}#{sequence}"
        intern = self.intern
        owner = repo.partition("/")[0]
        private = mapping(record.repository).get("private")
        detail = Detail(
            repo=repo,
            credential_type=kind,
            targets=(Target(repo, "repository"), Target(alert, "alert")),
            params=kept(
                {
                    "secret_type": kind,
                    "kept_as": kept_as,
                    "state": text(record.state),
                    "resolution": text(record.resolution),
                    "resolved_at": text(record.resolved_at),
                    "validity": text(record.validity),
                    "publicly_leaked": record.publicly_leaked if isinstance(record.publicly_leaked, bool) else None,
                    "private": private if isinstance(private, bool) else None,
                    "multi_repo": record.multi_repo if isinstance(record.multi_repo, bool) else None,
                    "push_protection_bypassed": record.push_protection_bypassed
                    if isinstance(record.push_protection_bypassed, bool)
                    else None,
                    "bypassed_by": text(mapping(record.push_protection_bypassed_by).get("login")),
                }
            ),
            status=text(record.state),
        )
        shape = intern.shape(
            ALERTS,
            intern.action(ALERTS, "secret_scanning_alert", lambda _: (Kind.OTHER, "github-secret-scanning", "discover", (Tag.LEAK,))),
            intern.actor("github", kind="service", account=owner, first_party=True),
            account=owner,
        )
        return Event(moment(record.created_at), alert, shape, credential=credential, target=repo, detail=detail)


def _repository_of(url: str | None) -> str | None:
    found = re.match(r"^https?://[^/]+/([^/]+/[^/]+)/security/secret-scanning/", url or "")
    return found.group(1) if found else None


def _identifier(kind: str, secret: Any) -> tuple[str | None, str | None]:
    """(credential id, how it was kept) of what an alert found: a key id where the vendor's logs name keys by it, else a hash."""
    if not isinstance(secret, str) or not secret:
        return None, None
    value = secret.strip()
    key = _AWS_KEY.search(value) if kind.startswith("aws") or len(value) == 20 else None
    if key:
        return key.group(1), "key_id"
    if kind.startswith("google") and _GOOGLE_KEY.match(value):
        return value, "key_id"
    if kind.startswith("google") and value.startswith("{"):
        try:
            document = mapping(decode(_any, value.encode("utf-8", "replace")))
        except (msgspec.MsgspecError, Reject):
            document = {}
        key_id, account, project = (text(document.get(name)) for name in ("private_key_id", "client_email", "project_id"))
        if key_id and account and project and _GOOGLE_KEY.match(key_id):
            return f"//iam.googleapis.com/projects/{project}/serviceAccounts/{account.lower()}/keys/{key_id}", "key_id"
    return token_hash(value), "sha256"


def _is_audit(record: dict[str, Any]) -> bool:
    action = record.get("action")
    return (
        isinstance(action, str)
        and "." in action
        and " " not in action
        and ("@timestamp" in record or "created_at" in record or "at_sign_timestamp" in record)
        and ("_document_id" in record or "actor" in record)
        and not isinstance(record.get("actor"), dict)
    )


def _is_alert(record: dict[str, Any]) -> bool:
    return "secret_type" in record and isinstance(record.get("number"), int) and ("repository" in record or "html_url" in record)


SOURCES = (
    Source(
        AUDIT,
        "GitHub audit log",
        _is_audit,
        Audit,
        frozenset(
            [
                "origin.ip",
                "agent",
                "credential",
                "client",
                "token.mint",
                "scopes",
                "credential.change",
                "identity.lifecycle",
                "ci.run",
                "privilege",
                "policy",
            ]
            + ["trust", "factor", "consent", "leak", "share"]
        ),
        (
            "`actor_ip` is there only where address disclosure is switched on, and hosted runners have none.",
            "A robot user with a personal token looks like a person: only apps are marked as bots.",
            "Job tokens and installation tokens are never logged as issued.",
        ),
        priority=45,
    ),
    Source(
        ALERTS,
        "GitHub secret scanning alerts",
        _is_alert,
        Alerts,
        frozenset(["credential", "leak"]),
        ("An alert's time is when the scanner saw the secret, not when it was committed.",),
        priority=40,
    ),
)
