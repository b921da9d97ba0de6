"""What an operator can set, in one table: each field has its type, unit, default, help and environment variable; the docs are made from it."""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from aftergate.errors import ConfigError

PREFIX: Final = "AFTERGATE_"


def _s(text: str, unit: str = "", group: str = "") -> Meta:
    return Meta(description=text, extra={"unit": unit, "group": group})


class Settings(Struct, frozen=True, kw_only=True):
    """One server's settings. A list is written with commas. Durations carry their unit in the name."""

    listen: Annotated[str, _s("Address and port to listen on; port 0 takes a free one.", group="Server")] = "127.0.0.1:8181"
    public_url: Annotated[
        str, _s("How callers and browsers reach this server; empty: as it listens. It is the issuer of tokens and the origin of approvals.")
    ] = ""
    data: Annotated[str, _s("Directory for the database and the keys.")] = "aftergate-data"
    database: Annotated[
        str, _s("Database address: `sqlite:///PATH` or `postgresql://USER@HOST/NAME`; empty: SQLite in the data directory.")
    ] = ""
    tls_certificate: Annotated[str, _s("PEM file with the certificate chain.")] = ""
    tls_key: Annotated[str, _s("PEM file with the certificate's key.")] = ""
    trusted_proxies: Annotated[
        tuple[str, ...], _s("Networks whose `X-Forwarded-For`, `X-Forwarded-Proto` and client-certificate headers are believed.")
    ] = ()
    client_certificate_header: Annotated[
        str, _s("Header in which a trusted proxy passes the client's certificate (PEM, URL-encoded, or base64 DER).")
    ] = "x-client-cert"
    log_format: Annotated[str, _s("`json`, `text`, or `auto`: text on a terminal, JSON otherwise.")] = "auto"
    log_level: Annotated[str, _s("`debug`, `info`, `warning` or `error`.")] = "info"

    policies: Annotated[
        str, _s("Directory with `*.cedar`, an optional schema and `cases/*.yaml`; empty: the starter policies.", group="Decisions")
    ] = ""
    entities: Annotated[str, _s("File with entities in Cedar's JSON; empty: none, or the starter's.")] = ""
    shadow_policies: Annotated[
        str, _s("Directory with a candidate set, evaluated beside the live one; answers that would differ are listed.")
    ] = ""
    answers: Annotated[
        str, _s("What answers say beside the decision: `full`, or `short`: only what a caller must act on, such as a step-up.")
    ] = "full"
    reload_s: Annotated[int, _s("How often policies and entities are looked at for changes; 0: only when told.", "seconds")] = 2
    trust_refresh_ms: Annotated[
        int, _s("How often changes made by other processes (findings, keys, policies) are looked for.", "milliseconds")
    ] = 500
    trust_stale_s: Annotated[int, _s("When live trust could not be refreshed for this long, everything is denied.", "seconds")] = 15
    decision_flush_ms: Annotated[int, _s("How long ordinary permits may wait before their record is written.", "milliseconds")] = 200

    api_key_file: Annotated[
        str,
        _s("File with callers' keys, one a line: `KEY [NAME [SCOPE,SCOPE]]`; made with one new key if it is not there.", group="Callers"),
    ] = ""
    caller_issuer: Annotated[str, _s("Issuer whose access tokens (RFC 9068) callers may use instead of keys.")] = ""
    caller_audience: Annotated[str, _s("Audience those tokens must name; empty: the public URL.")] = ""
    failures_per_minute: Annotated[int, _s("Failed authentications from one address before it is answered 429.", "a minute")] = 30
    body_limit_b: Annotated[int, _s("Largest request body.", "bytes")] = 1_048_576
    depth_limit: Annotated[int, _s("Deepest nesting of a JSON request.", "levels")] = 32

    oidc_issuer: Annotated[str, _s("Issuer with which people log in; empty: passkeys only.", group="People")] = ""
    oidc_client_id: Annotated[str, _s("This server's client id there.")] = ""
    oidc_client_secret_file: Annotated[str, _s("File with this server's client secret there.")] = ""
    oidc_groups_claim: Annotated[str, _s("Claim that lists a person's groups.")] = "groups"
    oidc_person_claim: Annotated[
        str,
        _s(
            "Claim that ties an account's first login to a person whom you entered by hand (by id or alias); `email` counts only when verified."
        ),
    ] = "email"
    oidc_acr_values: Annotated[
        str, _s("How people must authenticate at the issuer (`acr_values`, separated by blanks); empty: as it likes.")
    ] = ""
    rp_id: Annotated[str, _s("WebAuthn relying-party id; empty: the public URL's host.")] = ""
    enrolment_ttl_s: Annotated[int, _s("How long a link lives with which a person registers their first authenticator.", "seconds")] = (
        86_400
    )
    session_idle_s: Annotated[
        int, _s("A person's session ends after this much idleness (PSD2 RTS 4(3): at most 5 minutes).", "seconds")
    ] = 300
    session_max_s: Annotated[int, _s("A person's session ends after this long in any case.", "seconds")] = 28_800

    approval_ttl_s: Annotated[
        int,
        _s(
            "How long a request for approval, and then the approval, lives, where the policy does not say.",
            "seconds",
            "Approvals and tasks",
        ),
    ] = 600
    approval_failures: Annotated[
        int, _s("Failed tries of one approver after which that approver is locked out of the request.", "tries")
    ] = 5
    breakglass_group: Annotated[str, _s("Group whose members may break glass; empty: nobody.")] = ""
    callback_hosts: Annotated[
        tuple[str, ...], _s("Hosts that callbacks may reach although their address is private; all others must be public.")
    ] = ()
    task_ttl_max_s: Annotated[int, _s("Longest life of a task.", "seconds")] = 28_800
    token_ttl_s: Annotated[int, _s("Longest life of a task's token.", "seconds")] = 300
    act_depth: Annotated[int, _s("Longest chain of actors in a token.", "actors")] = 4
    task_trust_floor: Annotated[
        int, _s("A task dies when the trust of its subject falls below this, where the task does not say.", "0 to 100")
    ] = 20
    subject_issuers: Annotated[tuple[str, ...], _s("Issuers whose tokens may prove a workload or be exchanged (OIDC discovery).")] = ()
    spiffe_trust_domains: Annotated[tuple[str, ...], _s("Trust domains and their bundle files, as `example.org=PATH`.")] = ()
    clients_file: Annotated[
        str,
        _s(
            "JSON file with OAuth clients (private_key_jwt, CI jobs), options of issuers and further kinds of rights; docs/tasks.md shows it."
        ),
    ] = ""

    audit_origin: Annotated[
        str,
        _s(
            "Name of the log in its checkpoints; empty: the public URL's host, `/aftergate` and a random part, made at the first start.",
            group="Audit and retention",
        ),
    ] = ""
    checkpoint_s: Annotated[int, _s("How often a checkpoint is signed when there are new records.", "seconds")] = 10
    heartbeat_s: Annotated[int, _s("How often a heartbeat record is written; a gap shows that records may be missing.", "seconds")] = 300
    keep_decision_details_days: Annotated[int, _s("How long a decision's request is kept beside its record.", "days")] = 30
    keep_findings_days: Annotated[int, _s("How long a closed finding is kept.", "days")] = 365
    keep_personal_days: Annotated[int, _s("How long personal data beside the records is kept; the records stay.", "days")] = 730
    keep_evidence_days: Annotated[
        int, _s("How long the evidence of approvals is kept; without it they cannot be verified again. 0: for ever.", "days")
    ] = 0
    keep_permits_days: Annotated[
        int, _s("How long the content of ordinary decisions stays in the log; their hashes stay in any case. 0: for ever.", "days")
    ] = 0
    keep_sessions_days: Annotated[int, _s("How long ended sessions and spent requests are kept.", "days")] = 90

    def url(self, port: int = 0) -> str:
        """The public URL, without a slash at its end."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host, own_port = listen_address(self.listen)
        shown = "localhost" if host in {"127.0.0.1", "::1", "localhost"} else host
        return f"{'https' if self.tls_certificate else 'http'}://{shown}:{port or own_port}"

    def database_url(self) -> str:
        return self.database or f"sqlite:///{Path(self.data).resolve() / 'aftergate.db'}"

    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(each, strict=False) for each in self.trusted_proxies)


class Row(NamedTuple):
    """One setting, as the docs show it."""

    name: str
    flag: str
    variable: str
    type: str
    unit: str
    default: str
    help: str
    group: str


def rows() -> list[Row]:
    """The table, in order."""
    hints = typing.get_type_hints(Settings, include_extras=True)
    made: list[Row] = []
    group = ""
    for each in msgspec.structs.fields(Settings):
        annotation = hints[each.name]
        meta: Meta = annotation.__metadata__[0]
        extra = meta.extra or {}
        group = extra["group"] or group
        kind = {str: "text", int: "number"}.get(annotation.__origin__, "list")
        default = ",".join(each.default) if isinstance(each.default, tuple) else str(each.default)
        made.append(
            Row(
                each.name,
                "--" + each.name.replace("_", "-"),
                PREFIX + each.name.upper(),
                kind,
                extra["unit"],
                default,
                meta.description or "",
                group,
            )
        )
    return made


def load(given: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from flags (`given`, None where not given), else from the environment, else the defaults; checked together.

    Raises: ConfigError, with every problem at once.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    problems: list[str] = []
    for row in rows():
        value = given.get(row.name)
        if value is None and row.variable in environment:
            value = environment[row.variable]
        if value is None:
            continue
        try:
            values[row.name] = _typed(row.type, value)
        except ValueError:
            problems.append(f"`{row.name}` must be a number, not `{value}`")
    unknown = sorted(set(given) - {row.name for row in rows()})
    problems += [f"there is no setting `{name}`" for name in unknown]
    settings = Settings(**values) if not unknown else Settings()
    problems += problems_of(settings)
    if problems:
        raise ConfigError(
            "; ".join(problems), where="settings", hint="`aftergate serve --help` lists them with their environment variables"
        )
    return settings


def _typed(kind: str, value: Any) -> Any:
    if kind == "number":
        return int(value)
    if kind == "list":
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else tuple(value)
    return str(value)


def listen_address(listen: str) -> tuple[str, int]:
    """Host and port.

    Raises: ConfigError.
    """
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"`{listen}` is not HOST:PORT", where="--listen", hint="for example 127.0.0.1:8181")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104  an empty host is every address: `problems_of` asks for TLS then


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None  # Python 3.11 does not look into it
    return (mapped or address).is_loopback


def problems_of(settings: Settings) -> list[str]:
    """What is unsafe or cannot work in these settings taken together: a server with any of it does not start."""
    found: list[str] = []
    try:
        host, _ = listen_address(settings.listen)
    except ConfigError as e:
        found.append(str(e))
        host = "localhost"
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        found.append("`tls_certificate` and `tls_key` go together")
    if not is_loopback(host) and not settings.tls_certificate and not settings.trusted_proxies:
        found.append(
            f"listening on `{host}` without TLS would show keys and approvals to the network: give `tls_certificate` and `tls_key`, "
            "or name the proxy that ends TLS in `trusted_proxies`"
        )
    for network in settings.trusted_proxies:
        try:
            wide = ip_network(network, strict=False).prefixlen == 0
        except ValueError:
            found.append(f"`trusted_proxies`: `{network}` is not a network")
            continue
        if wide:
            found.append(f"`trusted_proxies`: `{network}` would let every caller choose its own address and certificate")
    if not settings.public_url and host in {"0.0.0.0", "::"}:  # noqa: S104  compared, not bound
        found.append(f"listening on every address (`{host}`), the server does not know the one by which it is reached: give `public_url`")
    if not settings.public_url and settings.trusted_proxies:
        found.append("behind a proxy the server does not know the address by which it is reached: give `public_url`")
    if settings.public_url:
        parts = urlsplit(settings.public_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            found.append(f"`public_url`: `{settings.public_url}` is not an address such as https://aftergate.example.org")
        elif parts.scheme == "http" and not is_loopback(parts.hostname):
            found.append("`public_url` must be https: browsers approve nothing on a plain page")
    found += [
        f"`{name}` needs `oidc_issuer`"
        for name in ("oidc_client_id", "oidc_client_secret_file")
        if getattr(settings, name) and not settings.oidc_issuer
    ]
    if settings.oidc_issuer and not settings.oidc_client_id:
        found.append("`oidc_issuer` needs `oidc_client_id`")
    for name in ("oidc_issuer", "caller_issuer"):
        value = getattr(settings, name)
        if value and urlsplit(value).scheme != "https" and not is_loopback(urlsplit(value).hostname or ""):
            found.append(f"`{name}` must be https")
    for issuer in settings.subject_issuers:
        if urlsplit(issuer).scheme != "https" and not is_loopback(urlsplit(issuer).hostname or ""):
            found.append(f"`subject_issuers`: `{issuer}` must be https")
    if settings.answers not in {"full", "short"}:
        found.append("`answers` is `full` or `short`")
    if settings.log_format not in {"auto", "json", "text"}:
        found.append("`log_format` is `auto`, `json` or `text`")
    if settings.log_level not in {"debug", "info", "warning", "error"}:
        found.append("`log_level` is `debug`, `info`, `warning` or `error`")
    if settings.client_certificate_header and not re.fullmatch(r"[a-z0-9-]+", settings.client_certificate_header):
        found.append("`client_certificate_header` is a header's name in lower case")
    at_least: dict[str, int] = {
        "trust_refresh_ms": 50, "trust_stale_s": 1, "decision_flush_ms": 1, "failures_per_minute": 1, "body_limit_b": 1024, "depth_limit": 4,
        "session_idle_s": 30, "enrolment_ttl_s": 60, "session_max_s": 60, "approval_ttl_s": 10, "approval_failures": 1, "task_ttl_max_s": 1, "token_ttl_s": 1, "act_depth": 1,
        "task_trust_floor": 0, "checkpoint_s": 1, "heartbeat_s": 1, "keep_decision_details_days": 0, "keep_findings_days": 1,
        "keep_personal_days": 0, "keep_evidence_days": 0, "keep_permits_days": 0, "keep_sessions_days": 0, "reload_s": 0,
    }  # fmt: skip
    found += [f"`{name}` must be at least {least}" for name, least in at_least.items() if getattr(settings, name) < least]
    if settings.trust_refresh_ms >= settings.trust_stale_s * 1000:
        found.append("`trust_refresh_ms` must be below `trust_stale_s`: trust would be stale, and everything denied, between two looks")
    if settings.trust_stale_s > 300:
        found.append("`trust_stale_s` is at most 300: trust that old is not live")
    if settings.approval_failures > 5:
        found.append("`approval_failures` is at most 5 (PSD2 RTS 4(3)(b))")
    if settings.session_idle_s > 3600:
        found.append("`session_idle_s` is at most 3600")
    if settings.task_trust_floor > 100:
        found.append("`task_trust_floor` is at most 100")
    return found
