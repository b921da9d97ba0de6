"""What GitHub's audit actions mean: name to kind, family and tags. A name that the table lacks goes by its category and last word."""

from __future__ import annotations

from aftergate.vocabulary import Kind, Tag

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

RUNS = {  # workflow events that belong to one run, and what they say of it
    "workflows.created_workflow_run": "start",
    "workflows.rerun_workflow_run": "start",
    "workflows.prepared_workflow_job": None,
    "workflows.approve_workflow_job": None,
    "workflows.reject_workflow_job": None,
    "workflows.bypass_protection_rules": None,
    "workflows.cancel_workflow_run": None,
    "workflows.completed_workflow_run": "end",
}


def operation(name: str) -> Operation:
    """Kind, service, verb family and tags of an audit action. Unknown actions go by their category and last word."""
    if name.startswith("api "):
        return _api(name)
    category, _, verb = name.partition(".")
    exact = _EXACT.get(name)
    if exact is not None:
        return exact[0], f"github-{category}", exact[1], exact[2]
    if name in RUNS:
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
