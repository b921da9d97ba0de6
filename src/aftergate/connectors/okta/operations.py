"""What Okta's event types mean. Exact names first, then the longest prefix; https://developer.okta.com/docs/reference/api/event-types/."""

from __future__ import annotations

from typing import Final

from aftergate.connectors.oauth.shared import Meaning, kind_of_grant
from aftergate.vocabulary import Kind, Tag

_Row = tuple[Kind, str, tuple[Tag, ...]]

_DEFENCE: Final = (Tag.DEFENCE_CHANGE,)
_WEAKEN: Final = (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)

EXACT: Final[dict[str, _Row]] = {
    # sessions and sign-ins
    "user.session.start": (Kind.SIGN_IN, "auth", (Tag.CONSOLE_LOGIN,)),
    "user.session.end": (Kind.SESSION_END, "auth", ()),
    "user.session.expire": (Kind.SESSION_END, "auth", ()),
    "user.session.clear": (Kind.SESSION_END, "admin", (Tag.REVOKE,)),
    "user.authentication.universal_logout": (Kind.SESSION_END, "admin", (Tag.REVOKE,)),
    "user.authentication.universal_logout.scheduled": (Kind.OTHER, "admin", ()),
    "user.session.access_admin_app": (Kind.SILENT_SIGN_IN, "auth", (Tag.CONSOLE_LOGIN,)),
    "user.session.context.change": (Kind.OTHER, "auth", ()),
    "user.session.impersonation.grant": (Kind.ROLE_CHANGE, "admin", (Tag.IMPERSONATE,)),
    "user.session.impersonation.initiate": (Kind.SIGN_IN, "auth", (Tag.IMPERSONATE,)),
    "user.session.impersonation.extend": (Kind.ROLE_CHANGE, "admin", (Tag.IMPERSONATE,)),
    "user.session.impersonation.end": (Kind.SESSION_END, "auth", ()),
    "user.session.impersonation.revoke": (Kind.ROLE_CHANGE, "admin", ()),
    "user.authentication.sso": (Kind.SILENT_SIGN_IN, "auth", ()),
    "user.authentication.slo": (Kind.SESSION_END, "auth", ()),
    "user.mfa.attempt_bypass": (Kind.SIGN_IN, "auth", ()),
    "user.mfa.okta_verify.deny_push": (Kind.SIGN_IN, "auth", ()),
    "user.mfa.okta_verify.deny_push_upgrade_needed": (Kind.SIGN_IN, "auth", ()),
    "policy.evaluate_sign_on": (Kind.OTHER, "auth", ()),
    "policy.auth_reevaluate.fail": (Kind.OTHER, "auth", ()),
    "app.generic.unauth_app_access_attempt": (Kind.SILENT_SIGN_IN, "auth", ()),
    # factors and passwords
    "user.mfa.factor.activate": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_ADD,)),
    "user.mfa.factor.update": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_ADD,)),
    "user.mfa.factor.unsuspend": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_ADD,)),
    "user.mfa.factor.deactivate": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_REMOVE,)),
    "user.mfa.factor.suspend": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_REMOVE,)),
    "user.mfa.factor.reset_all": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_RESET, Tag.FACTOR_REMOVE)),
    "device.enrollment.create": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_ADD,)),
    "user.account.reset_password": (Kind.FACTOR_CHANGE, "admin", (Tag.PASSWORD_CHANGE,)),
    "user.account.update_password": (Kind.FACTOR_CHANGE, "admin", (Tag.PASSWORD_CHANGE,)),
    "user.account.expire_password": (Kind.FACTOR_CHANGE, "admin", (Tag.PASSWORD_CHANGE,)),
    "user.account.update_primary_email": (Kind.FACTOR_CHANGE, "admin", ()),
    "user.account.update_secondary_email": (Kind.FACTOR_CHANGE, "admin", ()),
    "user.account.update_phone": (Kind.FACTOR_CHANGE, "admin", ()),
    # lifecycle
    "user.lifecycle.create": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_CREATE,)),
    "user.lifecycle.activate": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_ENABLE,)),
    "user.lifecycle.reactivate": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_ENABLE,)),
    "user.lifecycle.unsuspend": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_ENABLE,)),
    "user.lifecycle.deactivate": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "user.lifecycle.suspend": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "user.lifecycle.delete.initiated": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "user.lifecycle.delete.completed": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "user.account.lock": (Kind.IDENTITY_LIFECYCLE, "auth", ()),
    "user.account.lock.limit": (Kind.IDENTITY_LIFECYCLE, "auth", ()),
    "user.account.unlock_by_admin": (Kind.IDENTITY_LIFECYCLE, "admin", ()),
    # rights
    "user.account.privilege.grant": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "user.account.privilege.revoke": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    "group.privilege.grant": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "group.privilege.revoke": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    "app.oauth2.client.privilege.grant": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "app.oauth2.client.privilege.revoke": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    "iam.role.permissions.add": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "iam.role.permissions.delete": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    "iam.resourceset.bindings.add": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "iam.resourceset.bindings.delete": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    "group.user_membership.add": (Kind.ROLE_CHANGE, "admin", ()),
    "group.user_membership.add:admin": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "group.user_membership.remove": (Kind.ROLE_CHANGE, "admin", ()),
    "application.user_membership.add": (Kind.ROLE_CHANGE, "admin", ()),
    "application.user_membership.remove": (Kind.ROLE_CHANGE, "admin", ()),
    "group.application_assignment.add": (Kind.ROLE_CHANGE, "admin", ()),
    # API tokens and OAuth clients
    "system.api_token.create": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "system.api_token.update": (Kind.CONFIG_CHANGE, "admin", ()),
    "system.api_token.enable": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "system.api_token.disable": (Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE, Tag.REVOKE)),
    "system.api_token.revoke": (Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE, Tag.REVOKE)),
    "app.oauth2.client.lifecycle.create": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.APP_CREATE, Tag.CREDENTIAL_ADD)),
    "app.oauth2.client.lifecycle.update": (Kind.CONFIG_CHANGE, "admin", (Tag.REDIRECT_CHANGE,)),
    "app.oauth2.client.lifecycle.activate": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_ENABLE,)),
    "app.oauth2.client.lifecycle.deactivate": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "app.oauth2.client.lifecycle.delete": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "app.oauth2.client.lifecycle.new_secret": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "app.oauth2.client.read_client_secret": (Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    "application.lifecycle.create": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.APP_CREATE,)),
    "application.lifecycle.update": (Kind.CONFIG_CHANGE, "admin", ()),
    "application.lifecycle.deactivate": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "application.lifecycle.delete": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "application.user_membership.show_password": (Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    "app.oauth2.as.consent.grant": (Kind.CONSENT, "auth", (Tag.CONSENT,)),
    "app.oauth2.as.consent.revoke": (Kind.TOKEN_REVOKE, "auth", (Tag.REVOKE,)),
    "app.oauth2.as.consent.revoke.user": (Kind.TOKEN_REVOKE, "auth", (Tag.REVOKE,)),
    "app.oauth2.as.consent.revoke.user.client": (Kind.TOKEN_REVOKE, "auth", (Tag.REVOKE,)),
    "app.oauth2.consent.grant": (Kind.CONSENT, "auth", (Tag.CONSENT,)),
    "app.oauth2.admin.consent.grant": (Kind.CONSENT, "admin", (Tag.CONSENT, Tag.PRIVILEGE_GRANT)),
    "app.oauth2.admin.consent.revoke": (Kind.CONSENT, "admin", ()),
    "app.oauth2.consent.revoke": (Kind.TOKEN_REVOKE, "auth", (Tag.REVOKE,)),
    "app.oauth2.as.token.detect_reuse": (Kind.TOKEN_REFRESH, "auth", ()),
    "app.oauth2.token.detect_reuse": (Kind.TOKEN_REFRESH, "auth", ()),
    "app.token.reuse": (Kind.TOKEN_REFRESH, "auth", ()),
    "app.oauth2.as.device.authorize": (Kind.OTHER, "auth", ()),
    "app.oauth2.device.authorize": (Kind.OTHER, "auth", ()),
    "app.oauth2.as.device.activate": (Kind.DEVICE_CODE_APPROVAL, "auth", ()),
    "app.oauth2.device.activate": (Kind.DEVICE_CODE_APPROVAL, "auth", ()),
    "app.oauth2.as.authorize": (Kind.OTHER, "auth", ()),
    "app.oauth2.authorize": (Kind.OTHER, "auth", ()),
    "app.oauth2.as.key.rollover": (Kind.TRUST_CHANGE, "admin", ()),
    # the organisation's defences
    "system.log_stream.lifecycle.delete": (Kind.CONFIG_CHANGE, "admin", _WEAKEN),
    "system.log_stream.lifecycle.deactivate": (Kind.CONFIG_CHANGE, "admin", _WEAKEN),
    "system.mfa.factor.deactivate": (Kind.POLICY_CHANGE, "admin", _WEAKEN),
    "system.mfa.factor.activate": (Kind.POLICY_CHANGE, "admin", _DEFENCE),
    "security.authenticator.lifecycle.deactivate": (Kind.POLICY_CHANGE, "admin", _WEAKEN),
    "security.threat.detected": (Kind.OTHER, "auth", ()),
    "security.attack.start": (Kind.OTHER, "auth", ()),
    "security.attack.end": (Kind.OTHER, "auth", ()),
    "security.breached_credential.detected": (Kind.OTHER, "auth", (Tag.LEAK,)),
    "security.attack_protection.settings.update": (Kind.POLICY_CHANGE, "admin", _DEFENCE),
    "security.request.blocked": (Kind.OTHER, "auth", ()),
    "security.session.detect_client_roaming": (Kind.OTHER, "auth", ()),
    "zone.delete": (Kind.POLICY_CHANGE, "admin", _WEAKEN),
    "zone.deactivate": (Kind.POLICY_CHANGE, "admin", _WEAKEN),
    "zone.remove_blacklist": (Kind.POLICY_CHANGE, "admin", _WEAKEN),
    # trust
    "app.saml.sensitive.attribute.update": (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE,)),
    "application.configuration.update_logo": (Kind.CONFIG_CHANGE, "write", ()),
    "application.policy.sign_on.deny_access": (Kind.SILENT_SIGN_IN, "auth", ()),
    "application.policy.sign_on.update": (Kind.POLICY_CHANGE, "admin", _DEFENCE),
    "application.policy.sign_on.rule.delete": (Kind.POLICY_CHANGE, "admin", _WEAKEN),
    # exports and workflows
    "analytics.reports.export.download": (Kind.DATA_EXPORT, "read", ()),
    "workflows.user.table.export": (Kind.DATA_EXPORT, "read", ()),
    "workflows.user.flow.export": (Kind.DATA_EXPORT, "read", ()),
    "workflows.user.connection.create": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "workflows.user.delegatedflow.run": (Kind.OTHER, "execute", ()),
    "inline_hook.executed": (Kind.OTHER, "execute", ()),
}

PREFIXES: Final[tuple[tuple[str, _Row], ...]] = (
    ("user.authentication.", (Kind.SIGN_IN, "auth", ())),
    ("user.session.", (Kind.OTHER, "auth", ())),
    ("user.mfa.", (Kind.OTHER, "auth", ())),
    ("user.lifecycle.", (Kind.IDENTITY_LIFECYCLE, "admin", ())),
    ("user.account.", (Kind.IDENTITY_LIFECYCLE, "admin", ())),
    ("user.risk.", (Kind.OTHER, "auth", ())),
    ("user.credential.enroll", (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_ADD,))),
    ("user.credential.revoke", (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_REMOVE,))),
    ("group.", (Kind.ROLE_CHANGE, "admin", ())),
    ("iam.", (Kind.ROLE_CHANGE, "admin", ())),
    ("policy.", (Kind.POLICY_CHANGE, "admin", _DEFENCE)),
    ("policy.evaluate", (Kind.OTHER, "auth", ())),
    ("zone.", (Kind.POLICY_CHANGE, "admin", _DEFENCE)),
    ("security.", (Kind.OTHER, "admin", ())),
    ("security.authenticator.lifecycle.", (Kind.POLICY_CHANGE, "admin", _DEFENCE)),
    ("security.behavior.", (Kind.POLICY_CHANGE, "admin", _DEFENCE)),
    ("security.threat.configuration.", (Kind.POLICY_CHANGE, "admin", _DEFENCE)),
    ("security.threat_insight.", (Kind.POLICY_CHANGE, "admin", _DEFENCE)),
    ("security.attack_protection.", (Kind.POLICY_CHANGE, "admin", _DEFENCE)),
    ("security.trusted_origin.", (Kind.CONFIG_CHANGE, "admin", (Tag.REDIRECT_CHANGE,))),
    ("system.log_stream.", (Kind.CONFIG_CHANGE, "admin", _DEFENCE)),
    ("system.idp.", (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE,))),
    ("idp.", (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE,))),
    ("system.agent.", (Kind.CONFIG_CHANGE, "admin", ())),
    ("system.agent.ad.agent_instance_added", (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE,))),
    ("system.agent.ad.create", (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE,))),
    ("system.agent.ldap.create", (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE,))),
    ("system.rate_limit.", (Kind.OTHER, "other", ())),
    ("system.org.rate_limit.", (Kind.OTHER, "other", ())),
    ("system.operation.rate_limit.", (Kind.OTHER, "other", ())),
    ("system.client.rate_limit.", (Kind.OTHER, "other", ())),
    ("system.import.", (Kind.OTHER, "write", ())),
    ("system.email.", (Kind.OTHER, "write", ())),
    ("system.sms.", (Kind.OTHER, "write", ())),
    ("system.voice.", (Kind.OTHER, "write", ())),
    ("system.push.", (Kind.OTHER, "auth", ())),
    ("system.", (Kind.CONFIG_CHANGE, "admin", ())),
    ("org.", (Kind.CONFIG_CHANGE, "admin", ())),
    ("app.oauth2.as.authorize", (Kind.OTHER, "auth", ())),
    ("app.oauth2.authorize", (Kind.OTHER, "auth", ())),
    ("app.oauth2.as.token.grant", (Kind.TOKEN_ISSUE, "auth", ())),
    ("app.oauth2.token.grant", (Kind.TOKEN_ISSUE, "auth", ())),
    ("app.oauth2.as.token.revoke", (Kind.TOKEN_REVOKE, "auth", (Tag.REVOKE,))),
    ("app.oauth2.token.revoke", (Kind.TOKEN_REVOKE, "auth", (Tag.REVOKE,))),
    ("app.oauth2.credentials.lifecycle.create", (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,))),
    ("app.oauth2.credentials.lifecycle.activate", (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,))),
    ("app.oauth2.credentials.lifecycle.deactivate", (Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE,))),
    ("app.oauth2.credentials.lifecycle.delete", (Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE,))),
    ("app.oauth2.client.", (Kind.CONFIG_CHANGE, "admin", ())),
    ("app.oauth2.trusted_server.", (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE,))),
    ("oauth2.as.", (Kind.CONFIG_CHANGE, "admin", ())),
    ("oauth2.scope.", (Kind.CONFIG_CHANGE, "admin", ())),
    ("oauth2.claim.", (Kind.CONFIG_CHANGE, "admin", ())),
    ("app.keys.", (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE,))),
    ("app.", (Kind.OTHER, "write", ())),
    ("application.", (Kind.CONFIG_CHANGE, "admin", ())),
    ("device.", (Kind.OTHER, "admin", ())),
    ("event_hook.", (Kind.CONFIG_CHANGE, "admin", ())),
    ("inline_hook.", (Kind.CONFIG_CHANGE, "admin", ())),
    ("access.request.", (Kind.ROLE_CHANGE, "admin", ())),
    ("pam.secret.reveal", (Kind.SECRET_READ, "read", (Tag.SECRET_READ,))),
    ("pam.secret.create", (Kind.CONFIG_CHANGE, "write", ())),
    ("pam.", (Kind.CONFIG_CHANGE, "admin", ())),
    ("workflows.", (Kind.CONFIG_CHANGE, "admin", ())),
    ("support.", (Kind.CONFIG_CHANGE, "admin", ())),
)

_ENDS_WEAKER: Final = (".delete", ".deactivate", ".disable", ".suspend", ".remove")


def meaning(name: str) -> Meaning:
    """Kind, service, verb family and tags of an event type, as normalise.py writes it (`app.oauth2.token.grant:refresh_token`)."""
    base, _, suffix = name.partition(":")
    service = f"okta.{base.partition('.')[0]}"
    row = EXACT.get(name) or EXACT.get(base)
    if row is None:
        best = -1
        row = (Kind.OTHER, "write", ())
        for prefix, candidate in PREFIXES:
            if len(prefix) > best and base.startswith(prefix):
                best, row = len(prefix), candidate
    kind, verb, tags = row
    if kind is Kind.TOKEN_ISSUE and suffix:
        kind = kind_of_grant(suffix)
    if Tag.DEFENCE_CHANGE in tags and Tag.DEFENCE_WEAKEN not in tags and base.endswith(_ENDS_WEAKER):
        tags = (*tags, Tag.DEFENCE_WEAKEN)
    if "protected_action" in base:
        tags = (*tags, Tag.DEFENCE_CHANGE)
    return kind, service, verb, tags
