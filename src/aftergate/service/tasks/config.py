"""The clients file: who may ask for tasks beside callers with keys, which issuers are believed, and further kinds of rights.

{
  "clients": {
    "deployer":  {"jwks": {"keys": [...]}},
    "ci-deploy": {"issuer": "https://ci.example", "claims": {"repository": "acme/app", "ref": "refs/heads/main"}}
  },
  "issuers": {"https://idp.example": {"audience": ["aftergate"], "type": "user", "scope": "identity"}},
  "authorization_details_types": {"payment": {"amount": {"kind": "amount", "required": true}}},
  "trust_domain": "prod.example"
}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from aftergate.authz.tasks import details as d
from aftergate.authz.tasks.proofs import Issuer, spiffe_id
from aftergate.errors import ConfigError
from aftergate.settings import Settings, is_loopback

SECRET: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "k"})


class _Client(Struct, forbid_unknown_fields=True):
    jwks: dict[str, Any] | None = None
    issuer: str = ""
    claims: dict[str, Any] = {}
    audience: list[str] = []


class _Issuer(Struct, forbid_unknown_fields=True):
    audience: list[str] = []
    type: str = "user"
    id_claim: str = "sub"
    prefix: str = ""
    scope: Literal["bounds", "identity"] = "bounds"
    client_id: str = ""
    jwks: dict[str, Any] | None = None


class _File(Struct, forbid_unknown_fields=True):
    clients: dict[str, _Client] = {}
    issuers: dict[str, _Issuer] = {}
    authorization_details_types: dict[str, Any] = {}
    trust_domain: str = ""


class Client(Struct, frozen=True):
    """One registered client. Either `jwks` (private_key_jwt) or `issuer` with `claims` (a CI job). `audience`: the resources it is, for introspection."""

    id: str
    jwks: Mapping[str, Any] | None
    issuer: str
    claims: Mapping[str, Any]
    audience: frozenset[str]


class Known(Struct, frozen=True):
    """Everything the clients file and the settings say."""

    clients: Mapping[str, Client]
    issuers: Mapping[str, Issuer]
    static_keys: Mapping[str, Mapping[str, Any]]  # issuer: its key set, where it is given rather than discovered
    bundles: Mapping[str, Path]  # trust domain: file
    types: d.Types
    trust_domain: str

    def of_issuer(self, issuer: str) -> list[Client]:
        """The clients that are CI jobs of one issuer."""
        return [client for client in self.clients.values() if client.issuer == issuer]


def load(settings: Settings, own_url: str) -> Known:
    """Read and check it all.

    Raises: ConfigError, naming the entry.
    """
    where = settings.clients_file or "settings"
    held = _read(settings.clients_file) if settings.clients_file else _File()
    issuers: dict[str, Issuer] = {}
    static: dict[str, Mapping[str, Any]] = {}
    for name in (*settings.subject_issuers, *held.issuers):
        entry = held.issuers.get(name, _Issuer())
        _check_url(name, where)
        issuers[name] = Issuer(
            issuer=name,
            audience=frozenset(entry.audience or (own_url, own_url + "/oauth/token")),
            entity_type=entry.type,
            id_claim=entry.id_claim,
            prefix=entry.prefix,
            scope_bounds=entry.scope == "bounds",
            client_id=entry.client_id,
        )
        if entry.jwks is not None:
            static[name] = _public(entry.jwks, f"issuer `{name}`", where)
    named = [(issuer.entity_type, issuer.prefix) for issuer in issuers.values()]
    if len(set(named)) < len(named):
        raise ConfigError(
            "two issuers name their subjects alike, so that one could speak for the other's",
            where=where,
            hint="give each issuer its own `prefix` or `type` in the clients file",
        )
    clients = {name: _client(name, entry, issuers, where) for name, entry in held.clients.items()}
    return Known(
        clients, issuers, static, _bundles(settings), d.declared_types(held.authorization_details_types, where),
        held.trust_domain or urlsplit(own_url).hostname or "localhost",
    )  # fmt: skip


def _read(path: str) -> _File:
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=_File)
    except OSError as e:
        raise ConfigError(f"cannot read the clients file: {e.strerror}", where=path, hint="give a readable file with --clients-file") from e
    except msgspec.DecodeError as e:
        raise ConfigError(f"the clients file cannot be used: {e}", where=path, hint="docs/tasks.md shows its form") from e


def _client(name: str, entry: _Client, issuers: Mapping[str, Issuer], where: str) -> Client:
    if not name or len(name) > 256 or name.startswith("spiffe://"):
        raise ConfigError(f"`{name[:64]}` cannot be a client's id", where=where)
    if (entry.jwks is None) == (not entry.issuer):
        raise ConfigError(f"client `{name}` needs either `jwks` or `issuer` with `claims`", where=where)
    if entry.issuer and (entry.issuer not in issuers or not entry.claims):
        raise ConfigError(
            f"client `{name}`: its issuer must be among `issuers` or `subject_issuers`, and `claims` must say which of its jobs",
            where=where,
        )
    jwks = _public(entry.jwks, f"client `{name}`", where) if entry.jwks is not None else None
    return Client(name, jwks, entry.issuer, entry.claims, frozenset(entry.audience))


def _public(jwks: Mapping[str, Any], what: str, where: str) -> Mapping[str, Any]:
    keys = jwks.get("keys")
    if not isinstance(keys, list) or not keys or not all(isinstance(key, dict) for key in keys):
        raise ConfigError(f"{what}: `jwks` must hold `keys`", where=where)
    if any(SECRET & key.keys() for key in keys):
        raise ConfigError(
            f"{what}: `jwks` holds a secret key", where=where, hint="put its public half there; the secret stays with its owner"
        )
    return jwks


def _check_url(issuer: str, where: str) -> None:
    parts = urlsplit(issuer)
    if (
        not parts.hostname
        or parts.query
        or parts.fragment
        or (parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)))
    ):
        raise ConfigError(f"issuer `{issuer}` must be an https address", where=where)


def _bundles(settings: Settings) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for each in settings.spiffe_trust_domains:
        domain, equals, path = each.partition("=")
        if not equals or not path or not hasattr(spiffe_id(f"spiffe://{domain}/x"), "domain"):
            raise ConfigError(
                f"`{each}` is not DOMAIN=PATH", where="spiffe_trust_domains", hint="for example example.org=/etc/spire/bundle.json"
            )
        found[domain] = Path(path)
    return found
