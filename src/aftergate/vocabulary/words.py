"""Closed sets: severities, kinds of events, tags of operations, bits of news."""

from __future__ import annotations

from enum import IntFlag, StrEnum
from typing import Final, Literal

Severity = Literal["info", "low", "medium", "high", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "low", "medium", "high", "critical")
RANK: Final[dict[str, int]] = {name: rank for rank, name in enumerate(SEVERITIES)}


class Kind(StrEnum):
    """What an event is: a closed set."""

    SIGN_IN = "sign_in"
    SILENT_SIGN_IN = "silent_sign_in"
    DEVICE_CODE_APPROVAL = "device_code_approval"
    CONSENT = "consent"
    TOKEN_ISSUE = "token_issue"  # noqa: S105  (an event kind, not a secret)
    TOKEN_REFRESH = "token_refresh"  # noqa: S105
    TOKEN_EXCHANGE = "token_exchange"  # noqa: S105
    TOKEN_REVOKE = "token_revoke"  # noqa: S105
    CREDENTIAL_CREATE = "credential_create"
    CREDENTIAL_DELETE = "credential_delete"
    SESSION_END = "session_end"
    FACTOR_CHANGE = "factor_change"
    ROLE_CHANGE = "role_change"
    POLICY_CHANGE = "policy_change"
    TRUST_CHANGE = "trust_change"
    SECRET_READ = "secret_read"  # noqa: S105
    DATA_READ = "data_read"
    DATA_EXPORT = "data_export"
    CONFIG_CHANGE = "config_change"
    DISCOVERY = "discovery"
    TOOL_CALL = "tool_call"
    IDENTITY_LIFECYCLE = "identity_lifecycle"
    OTHER = "other"


class Tag(StrEnum):
    """What an operation can do, whoever the vendor: a detection subscribes to these."""

    PRIVILEGE_GRANT = "privilege.grant"
    PRIVILEGE_REVOKE = "privilege.revoke"
    PRIVILEGE_ACTIVATE = "privilege.activate"  # time-bound activation of an eligible role (PIM)
    CREDENTIAL_ADD = "credential.add"  # key, secret, certificate, federated subject, PAT, deploy key, password on an identity
    CREDENTIAL_REMOVE = "credential.remove"  # delete or deactivate
    OWNER_ADD = "owner.add"
    OWNER_REMOVE = "owner.remove"
    REDIRECT_CHANGE = "redirect.change"
    SECRET_READ = "secret.read"  # noqa: S105  (reads the value of a stored secret)
    DEFENCE_CHANGE = "defence.change"  # logging, detection, MFA, conditional access, session binding touched
    DEFENCE_WEAKEN = "defence.weaken"  # the operation by its name can only weaken (delete, stop, disable)
    TRUST_CHANGE = "trust.change"  # issuer, federation, SAML or OIDC provider, role trust policy
    FACTOR_RESET = "factor.reset"
    FACTOR_ADD = "factor.add"
    FACTOR_REMOVE = "factor.remove"
    PASSWORD_CHANGE = "password.change"  # noqa: S105
    MAIL_RULE = "mail.rule"  # inbox rule, forwarding, delegate, transport rule
    MAIL_READ = "mail.read"
    SHARE_CHANGE = "share.change"  # may open data to somebody outside
    REMOTE_EXEC = "remote.exec"
    AI_DISCOVER = "ai.discover"
    AI_ENABLE = "ai.enable"
    AI_INVOKE = "ai.invoke"
    CONSENT = "consent"
    APP_CREATE = "app.create"
    IDENTITY_CREATE = "identity.create"
    IDENTITY_DISABLE = "identity.disable"  # disabled, deleted, removed from the organisation
    IDENTITY_ENABLE = "identity.enable"
    REVOKE = "revoke"  # tokens or sessions of a target ended
    CONSOLE_LOGIN = "console.login"  # a person's console or browser was opened
    CI_RUN = "ci.run"  # workflow run started, job prepared or completed
    LEAK = "leak"  # a credential was found in public or in code
    IMPERSONATE = "impersonate"


class Bit(IntFlag):
    """What is new or changed in one event, as tracking saw it. "Life" is the credential, or the session where no credential is known."""

    NEW_IDENTITY = 1 << 0
    NEW_LIFE = 1 << 1  # first use of this credential or session
    UNMINTED = 1 << 2  # first use of a credential, and no mint of it is known (yet)
    LIFE_IP = 1 << 3  # address never seen for this credential
    LIFE_NET = 1 << 4  # network (ASN, else prefix) never seen for this credential
    LIFE_AGENT = 1 << 5  # agent family never seen for this credential
    LIFE_ACTION = 1 << 6
    LIFE_CLIENT = 1 << 7
    SESSION_NEW = 1 << 8
    SESSION_NET = 1 << 9
    SESSION_AGENT = 1 << 10
    SESSION_DEVICE = 1 << 11
    SESSION_CLIENT = 1 << 12
    SESSION_ACTION = 1 << 13
    IDENTITY_IP = 1 << 14
    IDENTITY_NET = 1 << 15
    IDENTITY_COUNTRY = 1 << 16
    IDENTITY_AGENT = 1 << 17
    IDENTITY_DEVICE = 1 << 18
    IDENTITY_CLIENT = 1 << 19
    IDENTITY_RESOURCE = 1 << 20
    IDENTITY_ACTION = 1 << 21
    IDENTITY_CLASS = 1 << 22  # action class (service x verb family) never seen for this identity
    SWITCH = 1 << 23  # previous use of this credential came from another network that is not of the same cloud; both addresses known
    SESSION_SWITCH = 1 << 24
    GAP = 1 << 25  # credential or identity was idle for more than GAP_MS before this event
    VOLUME = 1 << 26  # bytes of identity and client today crossed the next power of two above VOLUME_FLOOR
    NEW_COMBINATION = 1 << 27  # (identity, shape) never seen: some mix of known parts is new
    AFTER_DEATH = 1 << 28  # identity disabled or credential revoked before this event
    PAST_END = 1 << 29  # credential used after the end its mint gave it


GAP_MS: Final = 14 * 86_400_000
VOLUME_FLOOR: Final = 8 << 20


UNREGISTERED: Final = frozenset({Kind.SILENT_SIGN_IN, Kind.SECRET_READ, Kind.DATA_READ, Kind.DATA_EXPORT, Kind.DISCOVERY, Kind.TOOL_CALL})
REGISTERED_TAGS: Final = frozenset(
    {Tag.CREDENTIAL_ADD, Tag.CREDENTIAL_REMOVE, Tag.IDENTITY_DISABLE, Tag.IDENTITY_ENABLE, Tag.REVOKE, Tag.CI_RUN, Tag.LEAK, Tag.CONSENT}
)


SILENT: Final = (
    "token_refresh",
    "delegated_application",
    "background_service",
    "scheduled_workload",
    "session_continuation",
    "agent_tool",
)
