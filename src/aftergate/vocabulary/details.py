"""What msgspec reads and writes whole: the detail of an event, and findings."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from aftergate.vocabulary.words import Severity


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


NO_DETAIL: Final = Detail()


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
