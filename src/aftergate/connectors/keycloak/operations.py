"""What Keycloak's event types and admin operations mean: org.keycloak.events.EventType, ResourceType and OperationType."""

from __future__ import annotations

from typing import Final

from aftergate.connectors.oauth.shared import Meaning
from aftergate.vocabulary import Kind, Tag

_Row = tuple[Kind, str, tuple[Tag, ...]]

USER_EVENTS: Final[dict[str, _Row]] = {
    "LOGIN": (Kind.SIGN_IN, "auth", ()),
    "REGISTER": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_CREATE,)),
    "LOGOUT": (Kind.SESSION_END, "auth", ()),
    "CODE_TO_TOKEN": (Kind.TOKEN_ISSUE, "auth", ()),
    "CLIENT_LOGIN": (Kind.TOKEN_ISSUE, "auth", ()),
    "REFRESH_TOKEN": (Kind.TOKEN_REFRESH, "auth", ()),
    "TOKEN_EXCHANGE": (Kind.TOKEN_EXCHANGE, "auth", ()),
    "JWT_BEARER": (Kind.TOKEN_ISSUE, "auth", ()),
    "OAUTH2_EXTENSION_GRANT": (Kind.TOKEN_ISSUE, "auth", ()),
    "PERMISSION_TOKEN": (Kind.TOKEN_ISSUE, "auth", ()),
    "AUTHREQID_TO_TOKEN": (Kind.TOKEN_ISSUE, "auth", ()),
    "OAUTH2_DEVICE_AUTH": (Kind.OTHER, "auth", ()),
    "OAUTH2_DEVICE_VERIFY_USER_CODE": (Kind.DEVICE_CODE_APPROVAL, "auth", ()),
    "OAUTH2_DEVICE_CODE_TO_TOKEN": (Kind.TOKEN_ISSUE, "auth", ()),
    "PUSHED_AUTHORIZATION_REQUEST": (Kind.OTHER, "auth", ()),
    "INTROSPECT_TOKEN": (Kind.OTHER, "auth", ()),
    "VALIDATE_ACCESS_TOKEN": (Kind.OTHER, "auth", ()),
    "USER_INFO_REQUEST": (Kind.DATA_READ, "read", ()),
    "INVALID_SIGNATURE": (Kind.OTHER, "auth", ()),
    "REVOKE_GRANT": (Kind.TOKEN_REVOKE, "auth", (Tag.REVOKE,)),
    "GRANT_CONSENT": (Kind.CONSENT, "auth", (Tag.CONSENT,)),
    "UPDATE_CONSENT": (Kind.CONSENT, "auth", (Tag.CONSENT,)),
    "IDENTITY_PROVIDER_LOGIN": (Kind.SIGN_IN, "auth", ()),
    "IDENTITY_PROVIDER_FIRST_LOGIN": (Kind.SIGN_IN, "auth", ()),
    "IDENTITY_PROVIDER_POST_LOGIN": (Kind.SIGN_IN, "auth", ()),
    "IDENTITY_PROVIDER_RESPONSE": (Kind.OTHER, "auth", ()),
    "IDENTITY_PROVIDER_RETRIEVE_TOKEN": (Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    "IDENTITY_PROVIDER_LINK_ACCOUNT": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_ADD,)),
    "FEDERATED_IDENTITY_LINK": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_ADD,)),
    "FEDERATED_IDENTITY_OVERRIDE_LINK": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_ADD,)),
    "REMOVE_FEDERATED_IDENTITY": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_REMOVE,)),
    "CLIENT_INITIATED_ACCOUNT_LINKING": (Kind.OTHER, "auth", ()),
    "UPDATE_TOTP": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_ADD,)),
    "REMOVE_TOTP": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_REMOVE,)),
    "UPDATE_CREDENTIAL": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_ADD,)),
    "UPDATE_CREDENTIAL:password": (Kind.FACTOR_CHANGE, "admin", (Tag.PASSWORD_CHANGE,)),
    "REMOVE_CREDENTIAL": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_REMOVE,)),
    "UPDATE_PASSWORD": (Kind.FACTOR_CHANGE, "admin", (Tag.PASSWORD_CHANGE,)),
    "RESET_PASSWORD": (Kind.FACTOR_CHANGE, "admin", (Tag.PASSWORD_CHANGE,)),
    "SEND_RESET_PASSWORD": (Kind.OTHER, "auth", ()),
    "UPDATE_EMAIL": (Kind.FACTOR_CHANGE, "admin", ()),
    "UPDATE_PROFILE": (Kind.IDENTITY_LIFECYCLE, "admin", ()),
    "DELETE_ACCOUNT": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "USER_DISABLED_BY_PERMANENT_LOCKOUT": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "USER_DISABLED_BY_TEMPORARY_LOCKOUT": (Kind.IDENTITY_LIFECYCLE, "auth", ()),
    "IMPERSONATE": (Kind.SIGN_IN, "auth", (Tag.IMPERSONATE,)),
    "CLIENT_REGISTER": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.APP_CREATE, Tag.CREDENTIAL_ADD)),
    "CLIENT_UPDATE": (Kind.CONFIG_CHANGE, "admin", (Tag.REDIRECT_CHANGE,)),
    "CLIENT_DELETE": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
}

GRANT_OF: Final = {
    "CODE_TO_TOKEN": "authorization_code",
    "CLIENT_LOGIN": "client_credentials",
    "REFRESH_TOKEN": "refresh_token",
    "TOKEN_EXCHANGE": "token_exchange",
    "JWT_BEARER": "jwt_bearer",
    "OAUTH2_DEVICE_CODE_TO_TOKEN": "device_code",
    "AUTHREQID_TO_TOKEN": "ciba",
    "PERMISSION_TOKEN": "uma_ticket",
}
"""The grant where `details.grant_type` does not tell it."""

_RESOURCES: Final[dict[str, _Row]] = {
    "USER": (Kind.IDENTITY_LIFECYCLE, "admin", ()),
    "USER_LOGIN_FAILURE": (Kind.OTHER, "admin", ()),
    "USER_PROFILE": (Kind.CONFIG_CHANGE, "admin", ()),
    "USER_SESSION": (Kind.SESSION_END, "admin", ()),
    "USER_FEDERATION_PROVIDER": (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE,)),
    "USER_FEDERATION_MAPPER": (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE,)),
    "COMPONENT": (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE,)),
    "IDENTITY_PROVIDER": (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE,)),
    "IDENTITY_PROVIDER_MAPPER": (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE,)),
    "REALM_ROLE_MAPPING": (Kind.ROLE_CHANGE, "admin", ()),
    "CLIENT_ROLE_MAPPING": (Kind.ROLE_CHANGE, "admin", ()),
    "REALM_SCOPE_MAPPING": (Kind.ROLE_CHANGE, "admin", ()),
    "CLIENT_SCOPE_MAPPING": (Kind.ROLE_CHANGE, "admin", ()),
    "REALM_ROLE": (Kind.ROLE_CHANGE, "admin", ()),
    "CLIENT_ROLE": (Kind.ROLE_CHANGE, "admin", ()),
    "GROUP": (Kind.ROLE_CHANGE, "admin", ()),
    "GROUP_MEMBERSHIP": (Kind.ROLE_CHANGE, "admin", ()),
    "ORGANIZATION_MEMBERSHIP": (Kind.ROLE_CHANGE, "admin", ()),
    "CLIENT": (Kind.CONFIG_CHANGE, "admin", ()),
    "CLIENT_INITIAL_ACCESS_MODEL": (Kind.CREDENTIAL_CREATE, "admin", ()),
    "REALM": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    "AUTH_EXECUTION": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    "AUTH_EXECUTION_FLOW": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    "AUTH_FLOW": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    "AUTHENTICATOR_CONFIG": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    "REQUIRED_ACTION": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    "REQUIRED_ACTION_CONFIG": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    "CLIENT_POLICY": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,)),
    "AUTHORIZATION_POLICY": (Kind.POLICY_CHANGE, "admin", ()),
    "AUTHORIZATION_SCOPE": (Kind.POLICY_CHANGE, "admin", ()),
    "AUTHORIZATION_RESOURCE": (Kind.POLICY_CHANGE, "admin", ()),
    "AUTHORIZATION_RESOURCE_SERVER": (Kind.POLICY_CHANGE, "admin", ()),
}

_OPERATIONS: Final[dict[str, _Row]] = {
    "USER:CREATE": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_CREATE,)),
    "USER:DELETE": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "USER:UPDATE:disabled": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "USER:ACTION:reset-password": (Kind.FACTOR_CHANGE, "admin", (Tag.PASSWORD_CHANGE,)),
    "USER:ACTION:logout": (Kind.SESSION_END, "admin", (Tag.REVOKE,)),
    "USER:ACTION:impersonation": (Kind.SIGN_IN, "admin", (Tag.IMPERSONATE,)),
    "USER:ACTION:disable-credential-types": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_RESET, Tag.FACTOR_REMOVE)),
    "USER:ACTION:credentials": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_REMOVE,)),
    "USER:DELETE:credentials": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_REMOVE,)),
    "USER:ACTION:execute-actions-email": (Kind.FACTOR_CHANGE, "admin", ()),
    "USER:ACTION:consents": (Kind.TOKEN_REVOKE, "admin", (Tag.REVOKE,)),
    "USER:DELETE:consents": (Kind.TOKEN_REVOKE, "admin", (Tag.REVOKE,)),
    "USER:CREATE:federated-identity": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_ADD,)),
    "USER_SESSION:DELETE": (Kind.SESSION_END, "admin", (Tag.REVOKE,)),
    "REALM_ROLE_MAPPING:CREATE": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "REALM_ROLE_MAPPING:DELETE": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    "CLIENT_ROLE_MAPPING:CREATE": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,)),
    "CLIENT_ROLE_MAPPING:DELETE": (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,)),
    "CLIENT:CREATE": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.APP_CREATE,)),
    "CLIENT:UPDATE": (Kind.CONFIG_CHANGE, "admin", (Tag.REDIRECT_CHANGE,)),
    "CLIENT:UPDATE:disabled": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "CLIENT:DELETE": (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,)),
    "CLIENT:ACTION:client-secret": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "CLIENT:ACTION:generate": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "CLIENT:ACTION:upload": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "CLIENT:ACTION:registration-access-token": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "CLIENT_INITIAL_ACCESS_MODEL:CREATE": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,)),
    "CLIENT_INITIAL_ACCESS_MODEL:DELETE": (Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE,)),
    "REALM:ACTION:logout-all": (Kind.SESSION_END, "admin", (Tag.REVOKE,)),
    "REALM:ACTION:push-revocation": (Kind.TOKEN_REVOKE, "admin", (Tag.REVOKE,)),
    "REALM:DELETE:events": (Kind.CONFIG_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    "REALM:DELETE:admin-events": (Kind.CONFIG_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
    "REALM:UPDATE:disabled": (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)),
}


def meaning(name: str) -> Meaning:
    """Kind, service, verb family and tags of `REFRESH_TOKEN`, or of an admin operation `admin/CLIENT:UPDATE`."""
    if not name.startswith("admin/"):
        base = name.partition(":")[0]
        kind, verb, tags = USER_EVENTS.get(name) or USER_EVENTS.get(base) or (Kind.OTHER, "auth", ())
        return kind, "keycloak.login", verb, tags
    operation = name[6:]
    resource, _, rest = operation.partition(":")
    verb = rest.partition(":")[0]
    row = (
        _OPERATIONS.get(operation) or _OPERATIONS.get(f"{resource}:{verb}") or _RESOURCES.get(resource) or (Kind.CONFIG_CHANGE, "admin", ())
    )
    kind, family, tags = row
    if verb == "DELETE" and Tag.DEFENCE_CHANGE in tags and Tag.DEFENCE_WEAKEN not in tags:
        tags = (*tags, Tag.DEFENCE_WEAKEN)
    return kind, f"keycloak.{resource.lower()}", family, tags
