"""What directory operations mean: name to kind, verb family and tags. A name that the table lacks goes by its words."""

from __future__ import annotations

from typing import Final

from aftergate.vocabulary import Kind, Tag

Spec = tuple[Kind, str, tuple[Tag, ...]]  # kind, verb family, tags

_GRANT: Final[Spec] = (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_GRANT,))
_UNGRANT: Final[Spec] = (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_REVOKE,))
_CONSENT: Final[Spec] = (Kind.CONSENT, "admin", (Tag.CONSENT,))
_POLICY: Final[Spec] = (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE,))
_WEAKEN: Final[Spec] = (Kind.POLICY_CHANGE, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN))
_TRUST: Final[Spec] = (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE,))
_KEY_ADD: Final[Spec] = (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD,))
_KEY_CUT: Final[Spec] = (Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE,))
_FACTOR_ADD: Final[Spec] = (Kind.FACTOR_CHANGE, "auth", (Tag.FACTOR_ADD,))
_FACTOR_CUT: Final[Spec] = (Kind.FACTOR_CHANGE, "auth", (Tag.FACTOR_REMOVE,))
_FACTOR_RESET: Final[Spec] = (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_RESET,))
_PASSWORD: Final[Spec] = (Kind.FACTOR_CHANGE, "auth", (Tag.PASSWORD_CHANGE,))
_REVOKE: Final[Spec] = (Kind.TOKEN_REVOKE, "admin", (Tag.REVOKE,))
_BORN: Final[Spec] = (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_CREATE,))
_DEAD: Final[Spec] = (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_DISABLE,))
_ALIVE: Final[Spec] = (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.IDENTITY_ENABLE,))
_APP: Final[Spec] = (Kind.IDENTITY_LIFECYCLE, "admin", (Tag.APP_CREATE,))
_OWNER: Final[Spec] = (Kind.ROLE_CHANGE, "admin", (Tag.OWNER_ADD,))
_UNOWNER: Final[Spec] = (Kind.ROLE_CHANGE, "admin", (Tag.OWNER_REMOVE,))
_DEVICE: Final[Spec] = (Kind.FACTOR_CHANGE, "write", (Tag.FACTOR_ADD,))
_SETTING: Final[Spec] = (Kind.CONFIG_CHANGE, "write", ())

DASHES: Final = {0x2013: "-", 0x2014: "-"}  # the log writes an en dash

# Operation names, lower case, dashes made equal.
OPERATIONS: Final[dict[str, Spec]] = {
    "add service principal credentials": _KEY_ADD,
    "add service principal credentials [added]": _KEY_ADD,
    "add service principal credentials [replaced]": (Kind.CREDENTIAL_CREATE, "admin", (Tag.CREDENTIAL_ADD, Tag.CREDENTIAL_REMOVE)),
    "remove service principal credentials": _KEY_CUT,
    "remove service principal credentials [removed]": _KEY_CUT,
    "update application - certificates and secrets management": _KEY_ADD,
    "update application - certificates and secrets management [added]": _KEY_ADD,
    "update application - certificates and secrets management [removed]": _KEY_CUT,
    "update application - certificates and secrets management [replaced]": (
        Kind.CREDENTIAL_CREATE,
        "admin",
        (Tag.CREDENTIAL_ADD, Tag.CREDENTIAL_REMOVE),
    ),
    "update application [added]": _KEY_ADD,
    "update application [removed]": _KEY_CUT,
    "update service principal [added]": _KEY_ADD,
    "update service principal [removed]": _KEY_CUT,
    "update application [federated credential]": (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE, Tag.CREDENTIAL_ADD)),
    "update application [federated credential removed]": (Kind.CREDENTIAL_DELETE, "admin", (Tag.CREDENTIAL_REMOVE,)),
    "update application [redirect]": (Kind.CONFIG_CHANGE, "admin", (Tag.REDIRECT_CHANGE,)),
    "update service principal [redirect]": (Kind.CONFIG_CHANGE, "admin", (Tag.REDIRECT_CHANGE,)),
    "update application [permissions]": (Kind.CONFIG_CHANGE, "admin", ()),
    "add federated identity credential": (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE, Tag.CREDENTIAL_ADD)),
    "add owner to application": _OWNER,
    "add owner to service principal": _OWNER,
    "add owner to group": _OWNER,
    "remove owner from application": _UNOWNER,
    "remove owner from service principal": _UNOWNER,
    "remove owner from group": _UNOWNER,
    "consent to application": _CONSENT,
    "add delegated permission grant": _CONSENT,
    "add oauth2permissiongrant": _CONSENT,
    "update delegated permission grant": _CONSENT,
    "add app role assignment to service principal": (Kind.CONSENT, "admin", (Tag.CONSENT, Tag.PRIVILEGE_GRANT)),
    "add app role assignment grant to user": (Kind.ROLE_CHANGE, "admin", ()),
    "add app role assignment to group": (Kind.ROLE_CHANGE, "admin", ()),
    "remove delegated permission grant": (Kind.CONSENT, "admin", ()),
    "remove oauth2permissiongrant": (Kind.CONSENT, "admin", ()),
    "remove app role assignment from service principal": _UNGRANT,
    "remove app role assignment from user": (Kind.ROLE_CHANGE, "admin", ()),
    "add member to group": (Kind.ROLE_CHANGE, "admin", ()),
    "remove member from group": (Kind.ROLE_CHANGE, "admin", ()),
    "add member to group [role-assignable]": _GRANT,
    "user has elevated their access to user access administrator for their azure resources": _GRANT,
    "assigns the caller to user access administrator role": _GRANT,
    "remove role assignment": _UNGRANT,
    "delete role assignment": _UNGRANT,
    "add conditional access policy": _POLICY,
    "update conditional access policy": _POLICY,
    "update conditional access policy [weakened]": _WEAKEN,
    "delete conditional access policy": _WEAKEN,
    "delete policy": _WEAKEN,
    "add policy": _POLICY,
    "added policy": _POLICY,
    "update policy": _POLICY,
    "add named location": _POLICY,
    "update named location": _POLICY,
    "delete named location": _POLICY,
    "update authorization policy": _POLICY,
    "update security defaults": _POLICY,
    "disable security defaults": _WEAKEN,
    "disable strong authentication": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_REMOVE, Tag.DEFENCE_CHANGE)),
    "disable per-user mfa": (Kind.FACTOR_CHANGE, "admin", (Tag.FACTOR_REMOVE, Tag.DEFENCE_CHANGE)),
    "enable strong authentication": (Kind.FACTOR_CHANGE, "admin", ()),
    "authentication methods policy update": _POLICY,
    "authentication methods policy reset": _POLICY,
    "authentication strength combination configuration update": _POLICY,
    "update authentication strength": _POLICY,
    "delete authentication strength": _WEAKEN,
    "update role setting in pim": _POLICY,
    "disable pim alert": _WEAKEN,
    "delete diagnostic setting": _WEAKEN,
    "delete diagnostics settings": _WEAKEN,
    "set federation settings on domain": _TRUST,
    "set domain authentication": _TRUST,
    "add unverified domain": _TRUST,
    "add verified domain": _TRUST,
    "verify domain": _TRUST,
    "remove verified domain": _TRUST,
    "add identity provider": _TRUST,
    "update identity provider": _TRUST,
    "create identity provider": _TRUST,
    "delete identity provider": _TRUST,
    "upload a root certificate": _TRUST,
    "set partnership": _TRUST,
    "set company information": _SETTING,
    "set directory feature on tenant": _SETTING,
    "add a partner to cross-tenant access setting": _TRUST,
    "update a partner cross-tenant access setting": _TRUST,
    "delete partner specific cross-tenant access setting": _TRUST,
    "reset the cross-tenant access default setting": _TRUST,
    "update the company default cross-tenant access setting": _TRUST,
    "user registered security info": _FACTOR_ADD,
    "user registered all required security info": _FACTOR_ADD,
    "user changed default security info": _FACTOR_ADD,
    "user updated security info": _FACTOR_ADD,
    "user deleted security info": _FACTOR_CUT,
    "admin registered security info": _FACTOR_ADD,
    "admin updated security info": _FACTOR_ADD,
    "admin deleted security info": _FACTOR_RESET,
    "admin required re-registration": _FACTOR_RESET,
    "create temporary access pass": _FACTOR_ADD,
    "admin registered temporary access pass": _FACTOR_ADD,
    "add passwordless phone sign-in credential": _FACTOR_ADD,
    "add windows hello for business credential": _FACTOR_ADD,
    "add passkey (device-bound)": _FACTOR_ADD,
    "add fido2 security key": _FACTOR_ADD,
    "delete fido2 security key": _FACTOR_CUT,
    "delete passkey (device-bound)": _FACTOR_CUT,
    "delete windows hello for business credential": _FACTOR_CUT,
    "add passwordless credential": _FACTOR_ADD,
    "update user [strong authentication]": (Kind.FACTOR_CHANGE, "admin", ()),
    "reset user password": _PASSWORD,
    "reset password (by admin)": _PASSWORD,
    "reset password (self-service)": _PASSWORD,
    "change password (self-service)": _PASSWORD,
    "change user password": _PASSWORD,
    "set user manager": (Kind.IDENTITY_LIFECYCLE, "write", ()),
    "set force change user password": _PASSWORD,
    "disable account": _DEAD,
    "enable account": _ALIVE,
    "delete user": _DEAD,
    "hard delete user": _DEAD,
    "restore user": _ALIVE,
    "add user": _BORN,
    "invite external user": _BORN,
    "invite internal user": _BORN,
    "redeem external user invite": (Kind.IDENTITY_LIFECYCLE, "auth", ()),
    "update user": (Kind.IDENTITY_LIFECYCLE, "write", ()),
    "update user [disabled]": _DEAD,
    "update user [enabled]": _ALIVE,
    "update service principal [disabled]": _DEAD,
    "update service principal [enabled]": _ALIVE,
    "update stsrefreshtokenvalidfrom timestamp": _REVOKE,
    "revoke sign-in sessions": _REVOKE,
    "confirm user compromised": _REVOKE,
    "confirm service principal compromised": _REVOKE,
    "add application": _APP,
    "add service principal": _APP,
    "delete application": _DEAD,
    "hard delete application": _DEAD,
    "remove service principal": _DEAD,
    "hard delete service principal": _DEAD,
    "disable service principal": _DEAD,
    "update application": (Kind.CONFIG_CHANGE, "write", ()),
    "update service principal": (Kind.CONFIG_CHANGE, "write", ()),
    "set verified publisher": (Kind.CONFIG_CHANGE, "write", ()),
    "register device": _DEVICE,
    "add device": _DEVICE,
    "add registered owner to device": (Kind.IDENTITY_LIFECYCLE, "write", ()),
    "add registered users to device": (Kind.IDENTITY_LIFECYCLE, "write", ()),
    "unregister device": (Kind.FACTOR_CHANGE, "write", (Tag.FACTOR_REMOVE,)),
    "delete device": (Kind.FACTOR_CHANGE, "write", (Tag.FACTOR_REMOVE,)),
    "update device": (Kind.CONFIG_CHANGE, "write", ()),
    "read bitlocker key": (Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    "recover device local administrator password": (Kind.SECRET_READ, "read", (Tag.SECRET_READ,)),
    "add agent identity": _BORN,
    "add agent identity blueprint": _APP,
}


def spec(name: str) -> tuple[Kind, str, str, tuple[Tag, ...]]:
    """What an operation name means; asked once for each name."""
    key = name.lower().translate(DASHES)
    kind, verb, tags = OPERATIONS.get(key) or _by_words(key)
    return kind, "entra", verb, tags


def _by_words(key: str) -> Spec:
    """Meaning of a name that the table lacks, from its words: role and PIM operations have many spellings."""
    if "role" in key and ("member" in key or "assignment" in key):
        if "activation" in key:
            done = "completed" in key and key.startswith("add")
            return (Kind.ROLE_CHANGE, "admin", (Tag.PRIVILEGE_ACTIVATE,)) if done else (Kind.ROLE_CHANGE, "admin", ())
        if key.startswith(("remove", "delete")):
            return _UNGRANT if "requested" not in key else (Kind.ROLE_CHANGE, "admin", ())
        if "requested" in key or "canceled" in key or "denied" in key:
            return (Kind.ROLE_CHANGE, "admin", ())
        if key.startswith(("add", "create", "assign")):
            return _GRANT
        return (Kind.ROLE_CHANGE, "admin", ())
    if "role definition" in key:
        return (Kind.ROLE_CHANGE, "admin", ())
    if "conditional access" in key or "security defaults" in key or "diagnostic setting" in key:
        return _WEAKEN if key.startswith(("delete", "disable")) else _POLICY
    if "cross-tenant" in key or "federation" in key or "identity provider" in key:
        return _TRUST
    if "temporary access pass" in key or ("authentication method" in key and "policy" not in key):
        if key.startswith(("delete", "remove")):
            return _FACTOR_CUT
        return _FACTOR_ADD
    if "policy" in key:
        return _WEAKEN if key.startswith(("delete", "disable")) else _POLICY
    if "federated identity credential" in key:
        return _KEY_CUT if key.startswith(("delete", "remove")) else (Kind.TRUST_CHANGE, "admin", (Tag.TRUST_CHANGE, Tag.CREDENTIAL_ADD))
    if "credential" in key and "service principal" in key:
        return _KEY_CUT if key.startswith(("delete", "remove")) else _KEY_ADD
    if key.startswith(("get ", "list ", "read ", "download ")):
        return (Kind.DISCOVERY, "discover", ())
    return (Kind.OTHER, "write", ())
