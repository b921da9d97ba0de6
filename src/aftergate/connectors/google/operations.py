"""What Google Workspace activity events mean; https://developers.google.com/workspace/admin/reports/v1/appendix/activity."""

from __future__ import annotations

import re
from typing import Final

from aftergate.connectors.oauth.shared import Meaning
from aftergate.vocabulary import Kind, Tag
from aftergate.vocabulary.patterns import regex

_Row = tuple[Kind, str, tuple[Tag, ...]]

_WEAKEN: Final = (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)
_GRANT: Final[_Row] = (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,))
_UNGRANT: Final[_Row] = (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,))
_ROLE: Final[_Row] = (Kind.ROLE_CHANGE, "admin", ())
_DISABLE: Final[_Row] = (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,))
_ENABLE: Final[_Row] = (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_ENABLE,))
_PASSWORD: Final[_Row] = (Kind.FACTOR_CHANGE, "admin", (Tag.PASSWORD_CHANGE,))
_FACTOR_ADD: Final[_Row] = (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_ADD,))
_FACTOR_REMOVE: Final[_Row] = (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_REMOVE,))
_FACTOR: Final[_Row] = (Kind.FACTOR_CHANGE, "admin", ())
_DEFENCE: Final[_Row] = (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,))
_WEAKER: Final[_Row] = (Kind.POLICY_CHANGE, "admin", _WEAKEN)
_TRUST: Final[_Row] = (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE,))
_MAIL: Final[_Row] = (Kind.CONFIG_CHANGE, "admin", (Tag.MAIL_RULE,))
_SHARE: Final[_Row] = (Kind.CONFIG_CHANGE, "write", (Tag.SHARE_CHANGE,))
_EXPORT: Final[_Row] = (Kind.DATA_EXPORT, "read", ())
_LOOK: Final[_Row] = (Kind.DISCOVERY, "discover", ())
_READ: Final[_Row] = (Kind.DATA_READ, "read", ())
_NOTE: Final[_Row] = (Kind.OTHER, "auth", ())
_SIGN_IN: Final[_Row] = (Kind.SIGN_IN, "auth", ())

ADMIN: Final[dict[str, _Row]] = {
    "ASSIGN_ROLE": _GRANT,
    "UNASSIGN_ROLE": _UNGRANT,
    "ADD_PRIVILEGE": _GRANT,
    "REMOVE_PRIVILEGE": _UNGRANT,
    "CREATE_ROLE": _ROLE,
    "UPDATE_ROLE": _ROLE,
    "RENAME_ROLE": _ROLE,
    "DELETE_ROLE": _ROLE,
    "GRANT_ADMIN_PRIVILEGE": _GRANT,
    "REVOKE_ADMIN_PRIVILEGE": _UNGRANT,
    "GRANT_DELEGATED_ADMIN_PRIVILEGES": _GRANT,
    "CREATE_USER": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_CREATE,)),
    "DELETE_USER": _DISABLE,
    "SUSPEND_USER": _DISABLE,
    "ARCHIVE_USER": _DISABLE,
    "UNSUSPEND_USER": _ENABLE,
    "UNARCHIVE_USER": _ENABLE,
    "UNDELETE_USER": _ENABLE,
    "CHANGE_PASSWORD": _PASSWORD,
    "CHANGE_PASSWORD_ON_NEXT_LOGIN": _PASSWORD,
    "CHANGE_RECOVERY_EMAIL": _FACTOR,
    "CHANGE_RECOVERY_PHONE": _FACTOR,
    "ADD_RECOVERY_EMAIL": _FACTOR,
    "ADD_RECOVERY_PHONE": _FACTOR,
    "GENERATE_2SV_SCRATCH_CODES": _FACTOR_ADD,
    "ENROLL_SECURITY_KEY": _FACTOR_ADD,
    "REVOKE_SECURITY_KEY": _FACTOR_REMOVE,
    "REVOKE_2SV_SCRATCH_CODES": _FACTOR_REMOVE,
    "TURN_OFF_2_STEP_VERIFICATION": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_RESET, Tag.FACTOR_REMOVE)),
    "UNENROLL_USER_FROM_TITANIUM": _FACTOR_REMOVE,
    "RESET_SIGNIN_COOKIES": (Kind.SESSION_END, "admin", (Tag.REVOKE,)),
    "SIGN_USER_OUT": (Kind.SESSION_END, "admin", (Tag.REVOKE,)),
    "REVOKE_3LO_TOKEN": (Kind.TOKEN_REVOKE, "admin", (Tag.REVOKE,)),
    "REVOKE_3LO_DEVICE_TOKENS": (Kind.TOKEN_REVOKE, "admin", (Tag.REVOKE,)),
    "REVOKE_ASP": (Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE, Tag.REVOKE)),
    "ADD_MAIL_FORWARDING": _MAIL,
    "CREATE_EMAIL_MONITOR": _MAIL,
    "DELETE_EMAIL_MONITOR": (Kind.CONFIG_CHANGE, "admin", ()),
    "CREATE_GMAIL_SETTING": _MAIL,
    "CHANGE_GMAIL_SETTING": _MAIL,
    "CHANGE_EMAIL_SETTING": (Kind.CONFIG_CHANGE, "admin", ()),
    "CHANGE_EMAIL_SETTING:mail": _MAIL,
    "EMAIL_LOG_SEARCH": (Kind.DATA_READ, "read", (Tag.MAIL_READ,)),
    "REQUEST_MAILBOX_DUMP": (Kind.DATA_EXPORT, "read", (Tag.MAIL_READ,)),
    "AUTHORIZE_API_CLIENT_ACCESS": (Kind.CONSENT, "admin", (Tag.CONSENT, Tag.PRIVILEGE_GRANT)),
    "REMOVE_API_CLIENT_ACCESS": (Kind.TOKEN_REVOKE, "admin", (Tag.REVOKE, Tag.PRIVILEGE_REVOKE)),
    "CHANGE_ACCOUNT_AUTO_RENEWAL": (Kind.CONFIG_CHANGE, "admin", ()),
    "ADD_TO_TRUSTED_OAUTH2_APPS": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.CONSENT)),
    "REMOVE_FROM_TRUSTED_OAUTH2_APPS": _DEFENCE,
    "ADD_TO_BLOCKED_OAUTH2_APPS": _DEFENCE,
    "REMOVE_FROM_BLOCKED_OAUTH2_APPS": _WEAKER,
    "TRUST_DOMAIN_OWNED_OAUTH2_APPS": _WEAKER,
    "UNTRUST_DOMAIN_OWNED_OAUTH2_APPS": _DEFENCE,
    "ALLOW_STRONG_AUTHENTICATION": _DEFENCE,
    "ENFORCE_STRONG_AUTHENTICATION": _DEFENCE,
    "ALLOW_SERVICE_FOR_OAUTH2_ACCESS": _WEAKER,
    "DISALLOW_SERVICE_FOR_OAUTH2_ACCESS": _DEFENCE,
    "UPDATE_ERROR_MSG_FOR_RESTRICTED_OAUTH2_APPS": (Kind.CONFIG_CHANGE, "admin", ()),
    "WEAK_PROGRAMMATIC_LOGIN_SETTINGS_CHANGED": _WEAKER,
    "ENABLE_NON_ADMIN_USER_PASSWORD_RECOVERY": _DEFENCE,
    "CHANGE_SESSION_LENGTH": _DEFENCE,
    "SESSION_CONTROL_SETTINGS_CHANGE": _DEFENCE,
    "CHANGE_TWO_STEP_VERIFICATION_START_DATE": _DEFENCE,
    "CHANGE_TWO_STEP_VERIFICATION_ENROLLMENT_PERIOD_DURATION": _DEFENCE,
    "CHANGE_TWO_STEP_VERIFICATION_FREQUENCY": _DEFENCE,
    "CHANGE_TWO_STEP_VERIFICATION_GRACE_PERIOD_DURATION": _DEFENCE,
    "CHANGE_ALLOWED_TWO_STEP_VERIFICATION_METHODS": _DEFENCE,
    "TOGGLE_CAA_ENABLEMENT": _DEFENCE,
    "CHANGE_CAA_ERROR_MESSAGE": (Kind.CONFIG_CHANGE, "admin", ()),
    "CHANGE_CAA_APP_ASSIGNMENTS": _DEFENCE,
    "ENABLE_USER_IP_WHITELIST": _DEFENCE,
    "CHANGE_WHITELIST_SETTING": _WEAKER,
    "ALERT_CENTER_BATCH_DELETE_ALERTS": _WEAKER,
    "ALERT_CENTER_DELETE_ALERT": _WEAKER,
    "SYSTEM_DEFINED_RULE_UPDATED": _DEFENCE,
    "ALERTS_RECEIVERS_SETTINGS_CHANGE": _DEFENCE,
    "ALERT_STATUS_CHANGED": _DEFENCE,
    "SECURITY_CENTER_RULE_THRESHOLD_TRIGGER": (Kind.OTHER, "other", ()),
    "CHANGE_SSO_SETTINGS": _TRUST,
    "TOGGLE_SSO_ENABLED": _TRUST,
    "ENABLE_SSO_PROFILE": _TRUST,
    "CHANGE_SSO_PROFILE": _TRUST,
    "INBOUND_SSO_PROFILE_CREATED": _TRUST,
    "INBOUND_SSO_PROFILE_UPDATED": _TRUST,
    "INBOUND_SSO_PROFILE_DELETED": _TRUST,
    "INBOUND_SAML_SSO_PROFILE_CREATED": _TRUST,
    "INBOUND_SAML_SSO_PROFILE_UPDATED": _TRUST,
    "INBOUND_SAML_SSO_PROFILE_DELETED": _TRUST,
    "INBOUND_OIDC_SSO_PROFILE_CREATED": _TRUST,
    "INBOUND_OIDC_SSO_PROFILE_UPDATED": _TRUST,
    "INBOUND_SSO_ASSIGNMENT_CREATED": _TRUST,
    "INBOUND_SSO_ASSIGNMENT_UPDATED": _TRUST,
    "INBOUND_SSO_ASSIGNMENT_DELETED": _TRUST,
    "ADD_IDP_CREDENTIAL": _TRUST,
    "DELETE_IDP_CREDENTIAL": _TRUST,
    "ADD_TRUSTED_DOMAINS": (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE, Tag.SHARE_CHANGE)),
    "REMOVE_TRUSTED_DOMAINS": _TRUST,
    "ADD_SECONDARY_DOMAIN": _TRUST,
    "ADD_DOMAIN_ALIAS": _TRUST,
    "CHANGE_PRIMARY_DOMAIN": _TRUST,
    "TOGGLE_OAUTH_ACCESS_TO_ALL_APIS": _WEAKER,
    "TOGGLE_OPEN_ID_ENABLED": _TRUST,
    "CHANGE_DATA_TRANSFER": (Kind.CONFIG_CHANGE, "admin", (Tag.SHARE_CHANGE,)),
    "CREATE_DATA_TRANSFER_REQUEST": (Kind.DATA_EXPORT, "admin", (Tag.SHARE_CHANGE,)),
    "CHANGE_DOCS_SETTING": (Kind.POLICY_CHANGE, "admin", (Tag.SHARE_CHANGE,)),
    "TRANSFER_DOCUMENT_OWNERSHIP": (Kind.CONFIG_CHANGE, "admin", (Tag.SHARE_CHANGE,)),
    "DRIVE_DATA_RESTORE": (Kind.CONFIG_CHANGE, "admin", ()),
    "CHANGE_CALENDAR_SETTING": (Kind.POLICY_CHANGE, "admin", ()),
    "CHANGE_CALENDAR_SETTING:sharing": (Kind.POLICY_CHANGE, "admin", (Tag.SHARE_CHANGE,)),
    "ADD_GROUP_MEMBER": _ROLE,
    "REMOVE_GROUP_MEMBER": _ROLE,
    "UPDATE_GROUP_MEMBER": _ROLE,
    "CREATE_GROUP": (Kind.CONFIG_CHANGE, "admin", ()),
    "DELETE_GROUP": (Kind.CONFIG_CHANGE, "admin", ()),
    "CHANGE_GROUP_SETTING": (Kind.POLICY_CHANGE, "admin", ()),
    "ADD_APPLICATION": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.APP_CREATE,)),
    "ADD_APPLICATION_TO_WHITELIST": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.CONSENT)),
    "REMOVE_APPLICATION_FROM_WHITELIST": _DEFENCE,
    "CHANGE_APPLICATION_SETTING": (Kind.CONFIG_CHANGE, "admin", ()),
    "CREATE_APPLICATION_SETTING": (Kind.CONFIG_CHANGE, "admin", ()),
    "DELETE_APPLICATION_SETTING": (Kind.CONFIG_CHANGE, "admin", ()),
    "CUSTOMER_TAKEOUT_CREATED": _EXPORT,
    "CUSTOMER_TAKEOUT_SUCCEEDED": _EXPORT,
    "DOWNLOAD_REPORT": _EXPORT,
    "DOWNLOAD_USERLIST_CSV": _EXPORT,
    "DOWNLOAD_UNMANAGED_USERS_LIST": _EXPORT,
    "GROUP_LIST_DOWNLOAD": _EXPORT,
    "GROUP_MEMBERS_DOWNLOAD": _EXPORT,
    "EXPORT_DEVICES": _EXPORT,
    "SECURITY_INVESTIGATION_EXPORT_QUERY": _EXPORT,
    "SECURITY_INVESTIGATION_QUERY": _LOOK,
    "ALERT_CENTER_VIEW": _LOOK,
    "ALERT_CENTER_LIST_CHANGE": _LOOK,
    "ALERT_CENTER_GET_SIT_LINK": _LOOK,
    "ALERT_CENTER_LIST_FEEDBACK": _LOOK,
    "ALERT_CENTER_LIST_RELATED_ALERTS": _LOOK,
}

OTHERS: Final[dict[str, _Row]] = {
    # token
    "token/authorize": (Kind.CONSENT, "auth", (Tag.CONSENT,)),
    "token/revoke": (Kind.TOKEN_REVOKE, "auth", (Tag.REVOKE,)),
    "token/request": _NOTE,
    "token/activity": _READ,
    # login
    "login/login_success": _SIGN_IN,
    "login/login_failure": _SIGN_IN,
    "login/login_verification": _SIGN_IN,
    "login/login_challenge": _NOTE,
    "login/logout": (Kind.SESSION_END, "auth", ()),
    "login/suspicious_login": _NOTE,
    "login/suspicious_login_less_secure_app": _NOTE,
    "login/suspicious_programmatic_login": _NOTE,
    "login/gov_attack_warning": _NOTE,
    "login/risky_sensitive_action_allowed": _NOTE,
    "login/risky_sensitive_action_blocked": _NOTE,
    "login/user_signed_out_due_to_suspicious_session_cookie": (Kind.SESSION_END, "admin", (Tag.REVOKE,)),
    "login/account_disabled_password_leak": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE, Tag.LEAK)),
    "login/account_disabled_generic": _DISABLE,
    "login/account_disabled_hijacked": _DISABLE,
    "login/account_disabled_spamming": _DISABLE,
    "login/account_disabled_spamming_through_relay": _DISABLE,
    # user_accounts; the login application repeats some of them
    "user_accounts/2sv_enroll": _FACTOR_ADD,
    "user_accounts/2sv_disable": _FACTOR_REMOVE,
    "user_accounts/password_edit": _PASSWORD,
    "user_accounts/recovery_email_edit": _FACTOR,
    "user_accounts/recovery_phone_edit": _FACTOR,
    "user_accounts/recovery_secret_qa_edit": _FACTOR,
    "user_accounts/titanium_enroll": _FACTOR_ADD,
    "user_accounts/titanium_unenroll": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_REMOVE, Tag.DEFENCE_WEAKEN)),
    "user_accounts/passkey_enrolled": _FACTOR_ADD,
    "user_accounts/passkey_removed": _FACTOR_REMOVE,
    "user_accounts/email_forwarding_out_of_domain": _MAIL,
    # files
    "drive/view": _READ,
    "drive/preview": _READ,
    "drive/print": _READ,
    "drive/copy": _READ,
    "drive/source_copy": _READ,
    "drive/download": _READ,
    "drive/sync_item_content": _READ,
    "drive/connected_sheets_query": _READ,
    "drive/sheets_import_range": _READ,
    "drive/expire_access_request": (Kind.OTHER, "write", ()),
    "drive/deny_access_request": (Kind.OTHER, "write", ()),
    "drive/request_access": (Kind.OTHER, "write", ()),
    "drive/change_user_access": _SHARE,
    "drive/change_document_visibility": _SHARE,
    "drive/change_document_access_scope": _SHARE,
    "drive/change_acl_editors": _SHARE,
    "drive/publish_change": _SHARE,
    "drive/change_owner": _SHARE,
    "drive/shared_drive_membership_change": _SHARE,
    "drive/shared_drive_settings_change": _SHARE,
    "drive/team_drive_membership_change": _SHARE,
    "drive/team_drive_settings_change": _SHARE,
    "calendar/change_calendar_acls": _SHARE,
    "calendar/change_calendar_country": (Kind.OTHER, "write", ()),
    "calendar/export_calendar": _EXPORT,
    "groups/change_acl_permission": (Kind.POLICY_CHANGE, "admin", (Tag.SHARE_CHANGE,)),
    "groups/add_user": _ROLE,
    "groups/remove_user": _ROLE,
    "groups_enterprise/add_member": _ROLE,
    "groups_enterprise/add_user": _ROLE,
    "groups_enterprise/remove_member": _ROLE,
    "groups_enterprise/add_member_role": _ROLE,
    "groups_enterprise/add_dynamic_group_query": _ROLE,
    "saml/login_success": (Kind.SILENT_SIGN_IN, "auth", ()),
    "saml/login_failure": (Kind.SILENT_SIGN_IN, "auth", ()),
    "context_aware_access/ACCESS_DENY_EVENT": (Kind.SILENT_SIGN_IN, "auth", ()),
    "context_aware_access/ACCESS_DENY_INTERNAL_ERROR_EVENT": (Kind.SILENT_SIGN_IN, "auth", ()),
    "gcp/IMPORT_SSH_PUBLIC_KEY": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "gcp/DELETE_POSIX_ACCOUNT": _DISABLE,
    "takeout/user_takeout": _EXPORT,
    "vault/view_investigation": _READ,
    "vault/create_export": _EXPORT,
    "vault/download_export": _EXPORT,
}

_API: Final[tuple[tuple[re.Pattern[str], _Row], ...]] = tuple(
    (regex(pattern), row)
    for pattern, row in (
        (r"(auto_?forwarding|forwardingaddresses|settings\.(filters|delegates|sendas))", _MAIL),
        (r"^gmail.*(messages|threads|attachments|history|labels|drafts)\.(get|list|search)", (Kind.DATA_READ, "read", (Tag.MAIL_READ,))),
        (r"(permissions|acl)\.(create|insert|update|patch)", _SHARE),
        (r"\.(watch|get|list|search|export|download|query|batchget|generateids|lookup)\w*$", _READ),
        (r"roleassignments\.insert|makeadmin", _GRANT),
        (r"^admin.*users\.insert", (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_CREATE,))),
        (r"^admin.*users\.delete", _DISABLE),
        (r"tokens\.delete|signout", (Kind.TOKEN_REVOKE, "admin", (Tag.REVOKE,))),
        (r"\.(delete|trash|untrash|emptytrash|remove)\w*$", (Kind.OTHER, "delete", ())),
        (r".", (Kind.OTHER, "write", ())),
    )
)

_READS: Final = ("view", "get", "list", "search", "query", "download", "export")
_DELETES: Final = ("delete", "trash", "remove", "purge")


def meaning(name: str) -> Meaning:
    """Kind, service, verb family and tags of `admin/ASSIGN_ROLE`, `login/login_success`, or an API call `api/drive/files.get`."""
    app, _, event = name.partition("/")
    if app == "api":
        api, _, method = event.partition("/")
        path = f"{api}.{method}".lower()
        for pattern, (kind, verb, tags) in _API:
            if pattern.search(path):
                return kind, f"google.{api}" if api else "google.api", verb, tags
    base, _, variant = event.partition(":")
    service = f"google.{app}"
    if app == "admin":
        row = ADMIN.get(event) or ADMIN.get(base) or (Kind.CONFIG_CHANGE, "admin", ())
        kind, verb, tags = row
        if variant == "defence" and Tag.DEFENCE_CHANGE not in tags:
            kind, tags = Kind.POLICY_CHANGE, (*tags, Tag.DEFENCE_CHANGE)
        elif variant == "sharing" and Tag.SHARE_CHANGE not in tags:
            tags = (*tags, Tag.SHARE_CHANGE)
        elif variant == "mail" and Tag.MAIL_RULE not in tags:
            tags = (*tags, Tag.MAIL_RULE)
        elif variant == "sso" and Tag.TRUST_CHANGE not in tags:
            kind, tags = Kind.TRUST_CHANGE, (*tags, Tag.TRUST_CHANGE)
        return kind, service, verb, tags
    found = OTHERS.get(f"{app}/{base}")
    if found is None and app in ("login", "user_accounts"):
        found = OTHERS.get(f"user_accounts/{base}") or OTHERS.get(f"login/{base}")
    if found is None:
        stem = base.removesuffix("_hierarchy_reconciled").removesuffix("_reconciled")
        found = OTHERS.get(f"{app}/{stem}")
    if found is None:
        word = base.lower()
        if word.startswith(_READS):
            found = _READ
        else:
            family = "auth" if app in ("login", "user_accounts", "token") else "delete" if word.startswith(_DELETES) else "write"
            found = (Kind.OTHER, family, ())
    return found[0], service, found[1], found[2]
