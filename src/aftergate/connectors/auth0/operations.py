"""What Auth0's log event codes and Management API calls mean; https://auth0.com/docs/deploy-monitor/logs/log-event-type-codes."""

from __future__ import annotations

import re
from typing import Final

from aftergate.connectors.oauth.shared import Meaning
from aftergate.vocabulary import Kind, Tag
from aftergate.vocabulary.patterns import regex

_Row = tuple[Kind, str, tuple[Tag, ...]]

_SIGN_IN: Final[_Row] = (Kind.SIGN_IN, "auth", ())
_MINT: Final[_Row] = (Kind.TOKEN_ISSUE, "auth", ())
_NOTE: Final[_Row] = (Kind.OTHER, "auth", ())
_PASSWORD: Final[_Row] = (Kind.FACTOR_CHANGE, "admin", (Tag.PASSWORD_CHANGE,))

CODES: Final[dict[str, _Row]] = {
    "s": _SIGN_IN,
    "scoa": _SIGN_IN,
    "sens": _SIGN_IN,
    "f": _SIGN_IN,
    "fp": _SIGN_IN,
    "fu": _SIGN_IN,
    "fc": _SIGN_IN,
    "fco": _SIGN_IN,
    "fcoa": _SIGN_IN,
    "fens": _SIGN_IN,
    "w": _NOTE,
    "ssa": (Kind.SILENT_SIGN_IN, "auth", ()),
    "fsa": (Kind.SILENT_SIGN_IN, "auth", ()),
    "slo": (Kind.SESSION_END, "auth", ()),
    "flo": (Kind.SESSION_END, "auth", ()),
    "oidc_backchannel_logout_succeeded": (Kind.SESSION_END, "auth", ()),
    "oidc_backchannel_logout_failed": (Kind.SESSION_END, "auth", ()),
    "srsl": (Kind.SESSION_END, "admin", (Tag.REVOKE,)),
    "ss": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_CREATE,)),
    "fs": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_CREATE,)),
    "sui": (Kind.OTHER, "write", ()),
    "du": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "sdu": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "fdu": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "seacft": _MINT,
    "feacft": _MINT,
    "seccft": _MINT,
    "feccft": _MINT,
    "seoobft": _MINT,
    "feoobft": _MINT,
    "seotpft": _MINT,
    "feotpft": _MINT,
    "sepft": _MINT,
    "fepft": _MINT,
    "sepkoobft": _MINT,
    "fepkoobft": _MINT,
    "sepkotpft": _MINT,
    "fepkotpft": _MINT,
    "sepkrcft": _MINT,
    "fepkrcft": _MINT,
    "sercft": _MINT,
    "fercft": _MINT,
    "sede": _MINT,
    "fede": _MINT,
    "sd": _MINT,
    "fd": _MINT,
    "sertft": (Kind.TOKEN_REFRESH, "auth", ()),
    "fertft": (Kind.TOKEN_REFRESH, "auth", ()),
    "ferrt": (Kind.TOKEN_REFRESH, "auth", ()),
    "sete": (Kind.TOKEN_EXCHANGE, "auth", ()),
    "fete": (Kind.TOKEN_EXCHANGE, "auth", ()),
    "srrt": (Kind.TOKEN_REVOKE, "auth", (Tag.REVOKE,)),
    "frrt": (Kind.TOKEN_REVOKE, "auth", (Tag.REVOKE,)),
    "fdeaz": _NOTE,
    "sdeaz": _NOTE,
    "fdeac": (Kind.DEVICE_CODE_APPROVAL, "auth", ()),
    "sdeac": (Kind.DEVICE_CODE_APPROVAL, "auth", ()),
    "fdecc": (Kind.DEVICE_CODE_APPROVAL, "auth", ()),
    "scp": _PASSWORD,
    "fcp": _PASSWORD,
    "scpr": _NOTE,
    "fcpr": _NOTE,
    "sce": (Kind.FACTOR_CHANGE, "admin", ()),
    "fce": (Kind.FACTOR_CHANGE, "admin", ()),
    "scpn": (Kind.FACTOR_CHANGE, "admin", ()),
    "scu": (Kind.IDENTITY_LIFECYCLE, "admin", ()),
    "sv": _NOTE,
    "gd_auth_succeed": _SIGN_IN,
    "gd_auth_failed": _SIGN_IN,
    "gd_auth_rejected": _SIGN_IN,
    "gd_otp_rate_limit_exceed": _SIGN_IN,
    "gd_recovery_succeed": _SIGN_IN,
    "gd_recovery_failed": _SIGN_IN,
    "gd_enrollment_complete": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_ADD,)),
    "gd_start_enroll": _NOTE,
    "gd_unenroll": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_REMOVE,)),
    "gd_user_delete": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_RESET, Tag.FACTOR_REMOVE)),
    "gd_update_device_account": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_ADD,)),
    "gd_tenant_update": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    "mfar": _NOTE,
    "limit_wc": _SIGN_IN,
    "limit_sul": _SIGN_IN,
    "limit_mu": _SIGN_IN,
    "limit_delegation": _NOTE,
    "pwd_leak": (Kind.SIGN_IN, "auth", (Tag.LEAK,)),
    "signup_pwd_leak": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.LEAK,)),
    "reset_pwd_leak": (Kind.FACTOR_CHANGE, "admin", (Tag.LEAK, Tag.PASSWORD_CHANGE)),
    "ublkdu": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_ENABLE,)),
    "admin_update_launch": (Kind.CONFIG_CHANGE, "admin", ()),
    "actions_execution_failed": (Kind.OTHER, "execute", ()),
    "mgmt_api_read": (Kind.DISCOVERY, "discover", ()),
    "mgmt_api_read:secret": (Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    "organization_member_added": (Kind.ROLE_CHANGE, "admin", ()),
}

GRANT_OF: Final = {
    "seacft": "authorization_code",
    "feacft": "authorization_code",
    "seccft": "client_credentials",
    "feccft": "client_credentials",
    "sertft": "refresh_token",
    "fertft": "refresh_token",
    "ferrt": "refresh_token",
    "sete": "token_exchange",
    "fete": "token_exchange",
    "sepft": "password",
    "fepft": "password",
    "sede": "device_code",
    "fede": "device_code",
    "seoobft": "mfa",
    "feoobft": "mfa",
    "seotpft": "mfa",
    "feotpft": "mfa",
    "sepkoobft": "passwordless",
    "sepkotpft": "passwordless",
    "sercft": "mfa",
    "sd": "delegation",
    "fd": "delegation",
}

FAILED: Final = frozenset(
    {
        "limit_wc",
        "limit_sul",
        "limit_mu",
        "limit_delegation",
        "pwd_leak",
        "signup_pwd_leak",
        "reset_pwd_leak",
        "api_limit",
        "gd_otp_rate_limit_exceed",
    }
)
"""Codes of refusal that do not begin with `f`."""

_ADMIN: Final = "admin"
_W: Final = (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)

_API: Final[tuple[tuple[str, re.Pattern[str], _Row], ...]] = tuple(
    (method, regex(pattern), row)
    for method, pattern, row in (
        ("POST", r"^/clients$", (Kind.IDENTITY_LIFECYCLE, _ADMIN, (Tag.APP_CREATE, Tag.CREDENTIAL_ADD))),
        ("POST", r"^/clients/\{id\}/rotate-secret$", (Kind.CREDENTIAL_CREATE, _ADMIN, (Tag.CREDENTIAL_ADD,))),
        ("POST", r"^/clients/\{id\}/credentials", (Kind.CREDENTIAL_CREATE, _ADMIN, (Tag.CREDENTIAL_ADD,))),
        ("DELETE", r"^/clients/\{id\}/credentials", (Kind.CREDENTIAL_DELETE, _ADMIN, (Tag.CREDENTIAL_REMOVE,))),
        ("PATCH", r"^/clients/\{id\}$", (Kind.CONFIG_CHANGE, _ADMIN, (Tag.REDIRECT_CHANGE,))),
        ("DELETE", r"^/clients/\{id\}$", (Kind.IDENTITY_LIFECYCLE, _ADMIN, (Tag.IDENTITY_DISABLE,))),
        ("POST", r"^/client-grants", (Kind.ROLE_CHANGE, _ADMIN, (Tag.PRIVILEGE_GRANT,))),
        ("PATCH", r"^/client-grants", (Kind.ROLE_CHANGE, _ADMIN, (Tag.PRIVILEGE_GRANT,))),
        ("DELETE", r"^/client-grants", (Kind.ROLE_CHANGE, _ADMIN, (Tag.PRIVILEGE_REVOKE,))),
        (
            "POST",
            r"^/(users/\{id\}/(roles|permissions)|roles/\{id\}/(users|permissions))$",
            (Kind.ROLE_CHANGE, _ADMIN, (Tag.PRIVILEGE_GRANT,)),
        ),
        (
            "DELETE",
            r"^/(users/\{id\}/(roles|permissions)|roles/\{id\}/(users|permissions))$",
            (Kind.ROLE_CHANGE, _ADMIN, (Tag.PRIVILEGE_REVOKE,)),
        ),
        ("POST", r"^/organizations/\{id\}/members/\{id\}/roles$", (Kind.ROLE_CHANGE, _ADMIN, (Tag.PRIVILEGE_GRANT,))),
        ("POST", r"^/tenants/invitations", (Kind.ROLE_CHANGE, _ADMIN, (Tag.PRIVILEGE_GRANT, Tag.IDENTITY_CREATE))),
        ("PATCH", r"^/tenants/invitations", (Kind.ROLE_CHANGE, _ADMIN, ())),
        ("POST", r"^/users$", (Kind.IDENTITY_LIFECYCLE, _ADMIN, (Tag.IDENTITY_CREATE,))),
        ("DELETE", r"^/users/\{id\}$", (Kind.IDENTITY_LIFECYCLE, _ADMIN, (Tag.IDENTITY_DISABLE,))),
        ("PATCH", r"^/users/\{id\}:blocked$", (Kind.IDENTITY_LIFECYCLE, _ADMIN, (Tag.IDENTITY_DISABLE,))),
        ("PATCH", r"^/users/\{id\}:password$", (Kind.FACTOR_CHANGE, _ADMIN, (Tag.PASSWORD_CHANGE,))),
        ("PATCH", r"^/users/\{id\}$", (Kind.IDENTITY_LIFECYCLE, _ADMIN, ())),
        ("DELETE", r"^/users/\{id\}/multifactor", (Kind.FACTOR_CHANGE, _ADMIN, (Tag.FACTOR_RESET, Tag.FACTOR_REMOVE))),
        (
            "DELETE",
            r"^/users/\{id\}/(authenticators|authentication-methods)",
            (Kind.FACTOR_CHANGE, _ADMIN, (Tag.FACTOR_RESET, Tag.FACTOR_REMOVE)),
        ),
        ("POST", r"^/users/\{id\}/authentication-methods", (Kind.FACTOR_CHANGE, _ADMIN, (Tag.FACTOR_ADD,))),
        ("POST", r"^/users/\{id\}/identities", (Kind.FACTOR_CHANGE, _ADMIN, (Tag.FACTOR_ADD,))),
        ("POST", r"^/users/\{id\}/recovery-code-regeneration", (Kind.FACTOR_CHANGE, _ADMIN, (Tag.FACTOR_ADD,))),
        ("DELETE", r"^/(users/\{id\}/sessions|sessions/\{id\})", (Kind.SESSION_END, _ADMIN, (Tag.REVOKE,))),
        ("DELETE", r"^/(users/\{id\}/refresh-tokens|refresh-tokens|grants|device-credentials)", (Kind.TOKEN_REVOKE, _ADMIN, (Tag.REVOKE,))),
        ("POST", r"^/device-credentials", (Kind.CREDENTIAL_CREATE, _ADMIN, (Tag.CREDENTIAL_ADD,))),
        ("POST", r"^/tickets/password-change", (Kind.FACTOR_CHANGE, _ADMIN, (Tag.PASSWORD_CHANGE,))),
        ("POST", r"^/guardian/enrollments/ticket", (Kind.FACTOR_CHANGE, _ADMIN, (Tag.FACTOR_RESET,))),
        ("DELETE", r"^/guardian/enrollments", (Kind.FACTOR_CHANGE, _ADMIN, (Tag.FACTOR_REMOVE,))),
        ("*", r"^/guardian/.*:off$", (Kind.POLICY_CHANGE, _ADMIN, _W)),
        ("*", r"^/guardian/", (Kind.POLICY_CHANGE, _ADMIN, (Tag.DEFENCE_CHANGE,))),
        ("*", r"^/(attack-protection|anomaly|risk-assessment).*:off$", (Kind.POLICY_CHANGE, _ADMIN, _W)),
        ("*", r"^/(attack-protection|anomaly|risk-assessment)", (Kind.POLICY_CHANGE, _ADMIN, (Tag.DEFENCE_CHANGE,))),
        ("DELETE", r"^/log-streams", (Kind.CONFIG_CHANGE, _ADMIN, _W)),
        ("*", r"^/log-streams", (Kind.CONFIG_CHANGE, _ADMIN, (Tag.DEFENCE_CHANGE,))),
        ("*", r"^/tenants/settings", (Kind.POLICY_CHANGE, _ADMIN, (Tag.DEFENCE_CHANGE,))),
        ("*", r"^/connections", (Kind.TRUST_CHANGE, _ADMIN, (Tag.TRUST_CHANGE,))),
        ("*", r"^/(keys|self-service-profiles)", (Kind.TRUST_CHANGE, _ADMIN, (Tag.TRUST_CHANGE,))),
        ("*", r"^/(rules|actions|hooks)", (Kind.CONFIG_CHANGE, _ADMIN, (Tag.DEFENCE_CHANGE,))),
        ("*", r"^/resource-servers", (Kind.CONFIG_CHANGE, _ADMIN, ())),
        ("GET", r"", (Kind.DISCOVERY, "discover", ())),
        ("*", r"", (Kind.CONFIG_CHANGE, _ADMIN, ())),
    )
)


def meaning(name: str) -> Meaning:
    """Kind, service, verb family and tags of a code (`sertft`) or a Management API call (`PATCH /clients/{id}`)."""
    method, slash, path = name.partition(" /")
    if slash:
        route = f"/{path}"
        for verb, pattern, (kind, family, tags) in _API:
            if verb in (method, "*") and pattern.search(route):
                return kind, "auth0.management", family, tags
    row = CODES.get(name) or CODES.get(name.partition(":")[0])
    if row is None:
        row = _SIGN_IN if name.startswith("gd_auth") else _MINT if name.endswith("ft") and name[:2] in ("se", "fe") else _NOTE
    return row[0], "auth0.tenant", row[1], row[2]
