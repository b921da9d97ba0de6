"""The words everyone shares: events, identities, credentials, origins, findings.

Times are integers, milliseconds since 1970 UTC. Names follow OCSF where OCSF has the field.
Shared values (Action, Actor, Agent, Origin, Shape) are interned: one object for each distinct value
within a run, compared by identity. What varies from record to record is on Event and Detail.
"""

from __future__ import annotations

from enum import IntFlag, StrEnum
from typing import Any, Final, Literal

from msgspec import Struct

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


class Action(Struct, eq=False, gc=False):
    """One operation of one vendor, e.g. `s3:GetObject`, `GET /users/{id}`, `user.session.start`."""

    source: str
    name: str
    kind: Kind
    service: str
    klass: str  # service x verb family, e.g. `iam:write`; families: discover, read, write, delete, admin, auth, execute
    tags: frozenset[Tag] = frozenset()
    registers: bool = True  # may mint, end or change something that lineage keeps: never on the fast path

    @property
    def verb(self) -> str:
        return self.klass.rpartition(":")[2]


class Actor(Struct, eq=False, gc=False):
    """Who acts, as the log names it. `id` is the id that findings carry; `names` are its other raw ids."""

    id: str
    names: tuple[str, ...] = ()  # UPN, e-mail, display name, ARN, object id: raw, other than `id`
    kind: str = "unknown"  # human, workload, agent, third_party_app, service (the vendor itself), unknown
    account: str | None = None  # tenant, AWS account, project, organisation, realm
    display: str | None = None  # what to call it in a sentence; else the id
    role: str | None = None  # role or service account whose rights are used (AWS sessionIssuer ARN)
    first_party: bool = False  # the vendor's own application acts (Microsoft, Okta internals, AWS service role)


class Origin(Struct, eq=False, gc=False):
    """Where a use came from. Unknown stays unknown: None and "unknown" never read as residential or foreign."""

    ip: str | None = None  # None also when the log names no caller (service name, `AWS Internal`)
    net: str = "unknown"  # `AS24940`, else the prefix (`203.0.113.0/24`, `2001:db8:1::/48`), `private`, `service:NAME`, `unknown`
    asn: int | None = None
    asn_name: str | None = None
    network: str = "unknown"  # cloud, hosting, vpn, tor, relay, isp, mobile, proxy (corporate gateway), vendor, private, service, documentation, unknown
    provider: str | None = None  # `aws`, `azure`, `gcp`, `hetzner`: owner of a cloud or hosting range
    country: str | None = None  # ISO 3166 alpha-2
    trustworthy: bool = True  # False where the log names an address that is not the caller's
    basis: str = "prefix"  # log, mmdb, table, prefix, none: where the network came from
    known: bool = False  # a caller's own public address: usable to compare places. Follows from the others
    site: str | None = None  # first three parts of the address: what one site holds. Follows from it

    def __post_init__(self) -> None:
        self.known = self.ip is not None and self.trustworthy and self.network not in ("private", "service")
        if self.ip is not None:
            mark = ":" if ":" in self.ip else "."
            self.site = mark.join(self.ip.split(mark)[:3])


class Agent(Struct, eq=False, gc=False):
    """The program, from its user agent."""

    raw: str = ""
    family: str = "unknown"  # chrome, safari, edge, firefox, aws-cli, boto3, terraform, kubectl, curl, python-requests, ...
    kind: str = "unknown"  # browser, cli, sdk, http_library, headless, mobile_app, desktop_app, service, unknown
    os: str | None = None  # windows, macos, linux, ios, android
    version: str | None = None


class Shape(Struct, eq=False, gc=False):
    """What recurs: everything about an event except when, by which credential and on what. Interned."""

    source: str
    action: Action
    actor: Actor
    origin: Origin
    agent: Agent
    error: str | None = None  # None is success
    client: str | None = None  # OAuth client or application id, as the log has it
    client_name: str | None = None
    resource: str | None = None  # audience: API or resource the token is for
    device: str | None = None  # device id or hash
    silent: str | None = None  # class of a silent sign-in, see SILENT
    account: str | None = None  # account, project, tenant or organisation acted in


SILENT: Final = (
    "token_refresh",
    "delegated_application",
    "background_service",
    "scheduled_workload",
    "session_continuation",
    "agent_tool",
)


class Target(Struct, eq=False, gc=False):
    """Something acted upon."""

    id: str
    type: str = ""
    names: tuple[str, ...] = ()


class Change(Struct, eq=False, gc=False):
    """One changed property, values as short text."""

    name: str
    old: str | None = None
    new: str | None = None


class Detail(Struct, eq=False, omit_defaults=True):
    """What only some events have. Ids only: a normaliser never puts a secret or bearer value here."""

    issued: tuple[str, ...] = ()  # credentials this event mints (ids as later uses will name them)
    issued_class: str | None = None  # access_token, refresh_token, session_key, api_key, client_secret, certificate, cookie, k8s_token, pat
    spent: str | None = None  # refresh token, code or assertion used up to get `issued`
    family: str | None = None  # refresh family as the issuer names it
    generation: int | None = None
    grant: str | None = (
        None  # authorization_code, refresh_token, device_code, client_credentials, password, token_exchange, assume_role, web_identity, saml, ...
    )
    token_issued_at: int | None = None  # of the token used
    token_expires_at: int | None = None
    issued_ttl_s: int | None = None
    scopes: tuple[str, ...] = ()
    credential_type: str | None = None  # secret, certificate, federated, managed_identity, password, none
    binding: str | None = None  # bound, unbound
    interactive: bool | None = None
    incoming: str | None = None  # Entra incomingTokenType: primaryRefreshToken, refreshToken, ...
    transfer: str | None = None  # Entra originalTransferMethod, e.g. deviceCodeFlow
    mfa: bool | None = None
    managed: bool | None = None  # device managed or compliant
    aggregated: bool = False  # one row stands for several
    risk: str | None = None  # what the vendor says: none, low, medium, high
    act: tuple[str, ...] = ()  # who acts for whom, nearest first
    subject: str | None = None  # federated subject (CI sub, workload identity principal)
    issuer: str | None = None  # federated issuer
    run: str | None = None  # CI run or agent run id
    attempt: int | None = None
    phase: str | None = None  # start, end
    repo: str | None = None
    task: str | None = None
    pod: str | None = None
    node: str | None = None
    bound: str | None = None  # object a token was bound to (pod uid)
    audience: tuple[str, ...] = ()
    correlation: str | None = None
    linked: str | None = None  # id shared with a record of the same act in another account
    targets: tuple[Target, ...] = ()
    changes: tuple[Change, ...] = ()
    objects: int | None = None  # how many things were read
    params: dict[str, Any] | None = None  # the few request parameters that a rule reads; plain JSON values
    status: str | None = None  # free text the vendor gives with the outcome


class Event(Struct, eq=False, gc=False):
    """One normalised log record."""

    time: int  # when it happened
    id: str  # the source's own event id
    shape: Shape
    credential: str | None = None  # id of the access artifact used: key id, token id, hash; never its value
    session: str | None = None
    target: str | None = None  # main object acted upon
    size: int = 0  # bytes read or sent out
    known_at: int = 0  # when the log had it; 0: same as `time`
    part: int = 0  # position within the record, where one record tells several events
    detail: Detail | None = None  # may be shared by events alike: never change it once it is set
    token: str | None = None  # access token that this event mints, where every event of the source mints one; beside detail.issued

    @property
    def source(self) -> str:
        return self.shape.source

    @property
    def action(self) -> Action:
        return self.shape.action

    @property
    def kind(self) -> Kind:
        return self.shape.action.kind

    @property
    def actor(self) -> Actor:
        return self.shape.actor

    @property
    def origin(self) -> Origin:
        return self.shape.origin

    @property
    def agent(self) -> Agent:
        return self.shape.agent

    @property
    def ok(self) -> bool:
        return self.shape.error is None

    @property
    def mints(self) -> tuple[str, ...]:
        """All credentials this event issues."""
        issued = self.detail.issued if self.detail is not None else ()
        return issued if self.token is None else (self.token, *issued)

    @property
    def d(self) -> Detail:
        """The detail, or an empty one."""
        return self.detail if self.detail is not None else NO_DETAIL


NO_DETAIL: Final = Detail()
NO_ORIGIN: Final = Origin(basis="none")
NO_AGENT: Final = Agent()


class Subject(Struct, eq=False):
    """Whom a finding accuses: raw ids as the log writes them, most telling first."""

    identity: list[str] = []
    credential: list[str] = []
    session: list[str] = []


class Finding(Struct, eq=False):
    """What a detection concludes."""

    id: str  # stable across runs
    detection: str  # slug
    severity: Severity
    time: int  # last event it rests on
    known_at: int  # when the logs held enough to know
    title: str
    narrative: str  # one or two sentences that a person can act on
    subject: Subject
    evidence: list[str]  # source event ids
    sources: list[str]
    incident: str = ""
    attack: tuple[str, ...] = ()
    frameworks: tuple[str, ...] = ()
    trust_after: int = 100
    recommended: tuple[str, ...] = ()  # smallest response first
    traps: tuple[str, ...] = ()  # innocent explanations that were weighed and lowered the severity
    started: int = 0  # first event it rests on
    root: str | None = None  # lineage root of the credential
