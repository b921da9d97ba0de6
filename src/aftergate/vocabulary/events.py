"""Events and what recurs in them. Every step of a scan handles these, so they are plain classes that mypyc turns into C structs (docs/decisions/0005).

`__slots__` serves where nothing is compiled; C structs have slots anyway, and mypyc keeps the tuple, so that `fields` can go by it.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mypy_extensions import mypyc_attr

from aftergate.vocabulary.details import NO_DETAIL, Detail
from aftergate.vocabulary.words import Kind, Tag


@mypyc_attr(acyclic=True)
class Plain:
    """A value that is told by its fields and compared by identity."""

    __slots__: ClassVar[tuple[str, ...]] = ()

    def fields(self) -> dict[str, Any]:
        """Its fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join([f'{name}={value!r}' for name, value in self.fields().items()])})"


@mypyc_attr(acyclic=True)
class Action(Plain):
    """One operation of one vendor, e.g. `s3:GetObject`, `GET /users/{id}`, `user.session.start`."""

    __slots__ = ("source", "name", "kind", "service", "klass", "tags", "registers")

    def __init__(
        self, source: str, name: str, kind: Kind, service: str, klass: str, tags: frozenset[Tag] = frozenset(), registers: bool = True
    ) -> None:
        self.source = source
        self.name = name
        self.kind = kind
        self.service = service
        self.klass = klass  # service x verb family, e.g. `iam:write`; families: discover, read, write, delete, admin, auth, execute
        self.tags = tags
        self.registers = registers  # may mint, end or change something that lineage keeps: never on the fast path

    @property
    def verb(self) -> str:
        return self.klass.rpartition(":")[2]


@mypyc_attr(acyclic=True)
class Actor(Plain):
    """Who acts, as the log names it. `id` is the id that findings carry; `names` are its other raw ids."""

    __slots__ = ("id", "names", "kind", "account", "display", "role", "first_party")

    def __init__(
        self,
        id: str,  # noqa: A002  (the field's name)
        names: tuple[str, ...] = (),
        kind: str = "unknown",
        account: str | None = None,
        display: str | None = None,
        role: str | None = None,
        first_party: bool = False,
    ) -> None:
        self.id = id
        self.names = names  # UPN, e-mail, display name, ARN, object id: raw, other than `id`
        self.kind = kind  # human, workload, agent, third_party_app, service (the vendor itself), unknown
        self.account = account  # tenant, AWS account, project, organisation, realm
        self.display = display  # what to call it in a sentence; else the id
        self.role = role  # role or service account whose rights are used (AWS sessionIssuer ARN)
        self.first_party = first_party  # the vendor's own application acts (Microsoft, Okta internals, AWS service role)


@mypyc_attr(acyclic=True)
class Origin(Plain):
    """Where a use came from. Unknown stays unknown: None and "unknown" never read as residential or foreign."""

    __slots__ = ("ip", "net", "asn", "asn_name", "network", "provider", "country", "trustworthy", "basis", "known", "site")

    def __init__(
        self,
        ip: str | None = None,
        net: str = "unknown",
        asn: int | None = None,
        asn_name: str | None = None,
        network: str = "unknown",
        provider: str | None = None,
        country: str | None = None,
        trustworthy: bool = True,
        basis: str = "prefix",
    ) -> None:
        self.ip = ip  # None also when the log names no caller (service name, `AWS Internal`)
        self.net = net  # `AS24940`, else the prefix (`203.0.113.0/24`, `2001:db8:1::/48`), `private`, `service:NAME`, `unknown`
        self.asn = asn
        self.asn_name = asn_name
        # cloud, hosting, vpn, tor, relay, isp, mobile, proxy (corporate gateway), vendor, private, service, documentation, unknown
        self.network = network
        self.provider = provider  # `aws`, `azure`, `gcp`, `hetzner`: owner of a cloud or hosting range
        self.country = country  # ISO 3166 alpha-2
        self.trustworthy = trustworthy  # False where the log names an address that is not the caller's
        self.basis = basis  # log, mmdb, table, prefix, none: where the network came from
        # a caller's own public address: usable to compare places
        self.known: bool = ip is not None and trustworthy and network not in ("private", "service")
        self.site: str | None = None  # first three parts of the address: what one site holds
        if ip is not None:
            mark = ":" if ":" in ip else "."
            self.site = mark.join(ip.split(mark)[:3])


@mypyc_attr(acyclic=True)
class Agent(Plain):
    """The program, from its user agent."""

    __slots__ = ("raw", "family", "kind", "os", "version")

    def __init__(
        self,
        raw: str = "",
        family: str = "unknown",
        kind: str = "unknown",
        os: str | None = None,
        version: str | None = None,
    ) -> None:
        self.raw = raw
        self.family = family  # chrome, safari, edge, firefox, aws-cli, boto3, terraform, kubectl, curl, python-requests, ...
        self.kind = kind  # browser, cli, sdk, http_library, headless, mobile_app, desktop_app, service, unknown
        self.os = os  # windows, macos, linux, ios, android
        self.version = version


@mypyc_attr(acyclic=True)
class Shape(Plain):
    """What recurs: everything about an event except when, by which credential and on what. Interned."""

    __slots__ = (
        "source", "action", "actor", "origin", "agent", "error", "client", "client_name", "resource", "device", "silent", "account",
    )  # fmt: skip

    def __init__(
        self,
        source: str,
        action: Action,
        actor: Actor,
        origin: Origin,
        agent: Agent,
        error: str | None = None,
        client: str | None = None,
        client_name: str | None = None,
        resource: str | None = None,
        device: str | None = None,
        silent: str | None = None,
        account: str | None = None,
    ) -> None:
        self.source = source
        self.action = action
        self.actor = actor
        self.origin = origin
        self.agent = agent
        self.error = error  # None is success
        self.client = client  # OAuth client or application id, as the log has it
        self.client_name = client_name
        self.resource = resource  # audience: API or resource the token is for
        self.device = device  # device id or hash
        self.silent = silent  # class of a silent sign-in, see SILENT
        self.account = account  # account, project, tenant or organisation acted in


@mypyc_attr(acyclic=True)
class Event(Plain):
    """One normalised log record."""

    __slots__ = ("time", "id", "shape", "credential", "session", "target", "size", "known_at", "part", "detail", "token")

    def __init__(
        self,
        time: int,
        id: str,  # noqa: A002  (the field's name)
        shape: Shape,
        credential: str | None = None,
        session: str | None = None,
        target: str | None = None,
        size: int = 0,
        known_at: int = 0,
        part: int = 0,
        detail: Detail | None = None,
        token: str | None = None,
    ) -> None:
        self.time = time  # when it happened
        self.id = id  # the source's own event id
        self.shape = shape
        self.credential = credential  # id of the access artifact used: key id, token id, hash; never its value
        self.session = session
        self.target = target  # main object acted upon
        self.size = size  # bytes read or sent out
        self.known_at = known_at  # when the log had it; 0: same as `time`
        self.part = part  # position within the record, where one record tells several events
        self.detail = detail  # may be shared by events alike: never change it once it is set
        self.token = token  # access token that this event mints, where every event of the source mints one; beside detail.issued

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


NO_ORIGIN: Final = Origin(basis="none")
NO_AGENT: Final = Agent()
