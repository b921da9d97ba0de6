"""Vault and OpenBao audit device lines.

Each request is written twice with one `request.id`. The request line gives the event (part 0) with whatever error is known by then. The
response line gives an event (part 1) only where it adds something: the token that a login or a token creation issued, or an error that
came later; part 1 never counts as a second act. Tokens and accessors are HMAC values made by the device, which is why they can be kept.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from aftergate.connectors.base import Source
from aftergate.connectors.loose import address, decode, kept, mail, mapping, moment, moment_or_none, number, text, texts, unique
from aftergate.errors import NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.vocabulary import NO_ORIGIN, Actor, Detail, Event, Kind, Tag, Target

SOURCE: Final = "vault.audit"

Operation = tuple[Kind, str, str, tuple[Tag, ...]]

_ENGINES = (
    "database",
    "aws",
    "azure",
    "gcp",
    "rabbitmq",
    "consul",
    "nomad",
    "ldap",
    "ad",
    "openldap",
    "kubernetes",
    "terraform",
    "mongodbatlas",
)
# fmt: off
_STATIC = frozenset([  # path segments that are part of an interface, not the name of something
    "data", "metadata", "creds", "static-creds", "creds-static", "roles", "role", "config", "issue", "sign", "encrypt", "decrypt",
    "keys", "key", "export", "login", "sts", "static-roles", "token", "roleset", "library", "delete", "undelete", "destroy",
    "subkeys", "rotate-role", "rotate-root", "acl", "password", "secret-id", "role-id", "custom-secret-id", "lookup", "lookup-self",
    "lookup-accessor", "renew", "renew-self", "revoke", "revoke-self", "revoke-accessor", "revoke-orphan", "create", "create-orphan",
    "users", "groups", "entity", "group", "entity-alias", "group-alias", "oidc", "mfa", "raft", "snapshot",
])
# fmt: on
_LOGINS = {"kubernetes": "workload", "approle": "workload", "aws": "workload", "azure": "workload", "gcp": "workload", "cert": "workload"}
_PEOPLE = {
    "userpass": "human",
    "ldap": "human",
    "oidc": "human",
    "okta": "human",
    "github": "human",
    "radius": "human",
    "kerberos": "human",
}


def template(path: str, mount: str) -> str:
    """The path without names: interface words stay, anything else becomes `*`."""
    parts = [part for part in path.strip("/").split("/") if part]
    head = parts[:1]
    if head and head[0] in ("sys", "auth", "identity"):
        kept_parts = parts[:2]
        rest = parts[2:]
    else:
        kept_parts = [mount or (head[0] if head else "unknown")]
        rest = parts[1:]
    seen = [part if part in _STATIC else "*" for part in rest]
    while len(seen) > 1 and seen[-1] == "*" and seen[-2] == "*":
        seen.pop()
    return "/".join(kept_parts + seen[:4])


def operation(name: str) -> Operation:
    """Kind, service, verb family and tags of `PATH TEMPLATE:operation`; a name that ends in `:answer` is the response line of a request."""
    if name.endswith(":answer"):
        _, service, family, _ = operation(name.removesuffix(":answer"))
        return Kind.OTHER, service, family, ()
    path, _, verb = name.rpartition(":")
    parts = path.split("/")
    head = parts[0]
    writes = verb in ("update", "create", "patch")
    deletes = verb == "delete"
    reads = verb in ("read", "list", "header", "help")
    family = "delete" if deletes else "discover" if verb in ("list", "help", "header") else "read" if reads else "write"
    if head == "auth":
        return _auth(parts, writes, deletes, family)
    if head == "sys":
        return _system(parts, verb, writes, deletes, reads, family)
    if head == "identity":
        if "oidc" in parts and (writes or deletes):
            return Kind.TRUST_CHANGE, "vault-identity", "admin", (Tag.TRUST_CHANGE,)
        if writes or deletes:
            return Kind.ROLE_CHANGE, "vault-identity", "admin", (Tag.PRIVILEGE_REVOKE,) if deletes else (Tag.PRIVILEGE_GRANT,)
        return Kind.DISCOVERY, "vault-identity", "discover", ()
    service = f"vault-{head}"
    if verb == "list" or ("metadata" in parts[1:] and reads):
        return Kind.DISCOVERY, service, "discover", ()
    if head == "transit":
        return Kind.OTHER, service, "execute" if writes else family, (Tag.SECRET_READ,) if "export" in parts else ()
    if head == "pki" and writes and ("issue" in parts or "sign" in parts):
        return Kind.CREDENTIAL_CREATE, service, "auth", ()
    if head in _ENGINES:
        if any(word in parts for word in ("creds", "static-creds", "sts", "token", "key")) and (reads or writes):
            return Kind.SECRET_READ, service, "read", (Tag.SECRET_READ,)
        if any(word in parts for word in ("roles", "role", "config", "static-roles", "roleset")) and (writes or deletes):
            return Kind.POLICY_CHANGE, service, "admin", () if deletes else (Tag.PRIVILEGE_GRANT,)
    if reads:
        return Kind.SECRET_READ, service, "read", (Tag.SECRET_READ,)
    return Kind.CONFIG_CHANGE, service, family, ()


def _auth(parts: list[str], writes: bool, deletes: bool, family: str) -> Operation:
    service = f"vault-auth-{parts[1]}" if len(parts) > 1 else "vault-auth"
    rest = parts[2:]
    if "login" in rest:
        return Kind.SIGN_IN, service, "auth", ()
    if parts[1:2] == ["token"]:
        if any(word.startswith("create") for word in rest):
            return Kind.TOKEN_ISSUE, service, "auth", ()
        if any(word.startswith("revoke") for word in rest):
            return Kind.TOKEN_REVOKE, service, "auth", (Tag.REVOKE,)
        if any(word.startswith("renew") for word in rest):
            return Kind.TOKEN_REFRESH, service, "auth", ()
        if any(word.startswith("lookup") for word in rest):
            return Kind.DISCOVERY, service, "discover", ()
    if any(word in rest for word in ("secret-id", "custom-secret-id")) and writes:
        return Kind.CREDENTIAL_CREATE, service, "admin", (Tag.CREDENTIAL_ADD,)
    if "password" in rest and writes:
        return Kind.FACTOR_CHANGE, service, "admin", (Tag.PASSWORD_CHANGE, Tag.CREDENTIAL_ADD)
    if "users" in rest and (writes or deletes):
        return Kind.IDENTITY_LIFECYCLE, service, "admin", (Tag.IDENTITY_DISABLE,) if deletes else (Tag.CREDENTIAL_ADD, Tag.PRIVILEGE_GRANT)
    if "config" in rest and (writes or deletes):
        return Kind.TRUST_CHANGE, service, "admin", (Tag.TRUST_CHANGE,)
    if any(word in rest for word in ("role", "roles", "groups")) and (writes or deletes):
        return Kind.ROLE_CHANGE, service, "admin", (Tag.PRIVILEGE_REVOKE,) if deletes else (Tag.PRIVILEGE_GRANT,)
    if family in ("read", "discover"):
        return Kind.DISCOVERY, service, "discover", ()
    return Kind.CONFIG_CHANGE, service, "admin", ()


def _system(parts: list[str], verb: str, writes: bool, deletes: bool, reads: bool, family: str) -> Operation:
    area = parts[1] if len(parts) > 1 else ""
    service = f"vault-sys-{area}"
    if area in ("audit", "config") and (writes or deletes):
        return Kind.POLICY_CHANGE, service, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN) if deletes else (Tag.DEFENCE_CHANGE,)
    if area in ("policy", "policies") and (writes or deletes):
        return Kind.POLICY_CHANGE, service, "admin", (Tag.PRIVILEGE_REVOKE,) if deletes else (Tag.PRIVILEGE_GRANT,)
    if area == "auth" and (writes or deletes):
        return Kind.TRUST_CHANGE, service, "admin", (Tag.TRUST_CHANGE,)
    if area in ("leases", "revoke", "revoke-prefix", "revoke-force") and (writes or deletes):
        if area != "leases" or any(part.startswith("revoke") for part in parts):
            return Kind.TOKEN_REVOKE, service, "auth", (Tag.REVOKE,)
        return Kind.OTHER, service, "auth", ()
    if area == "generate-root" and (writes or deletes):
        return Kind.ROLE_CHANGE, service, "admin", (Tag.PRIVILEGE_GRANT,)
    if area in ("seal", "rekey", "rekey-recovery-key", "mfa", "quotas") and (writes or deletes):
        return Kind.POLICY_CHANGE, service, "admin", (Tag.DEFENCE_CHANGE,)
    if area in ("storage", "raw") and reads and verb == "read":
        return Kind.DATA_EXPORT, service, "read", (Tag.SECRET_READ,)
    if area == "wrapping":
        return Kind.OTHER, service, "auth", ()
    if reads or area in ("capabilities", "capabilities-self", "internal", "tools"):
        return Kind.DISCOVERY, service, "discover", ()
    return Kind.CONFIG_CHANGE, service, family, ()


class Auth(Struct, gc=False):
    accessor: Any = None
    display_name: Any = None
    policies: Any = None
    metadata: Any = None
    entity_id: Any = None
    token_type: Any = None
    token_ttl: Any = None
    token_issue_time: Any = None


class Request(Struct, gc=False):
    id: str
    path: str
    operation: str
    mount_type: Any = None
    client_token_accessor: Any = None
    namespace: Any = None
    remote_address: Any = None
    wrap_ttl: Any = None


class Answer(Struct, gc=False):
    auth: Auth | None = None
    wrap_info: Any = None


class Record(Struct, gc=False):
    time: Any = None
    type: str | None = None
    auth: Auth | None = None
    request: Request | None = None
    response: Answer | None = None
    error: Any = None


_record = msgspec.json.Decoder(Record)


class Audit:
    """Lines of a file, socket or syslog audit device."""

    def __init__(self, interner: Interner) -> None:
        self.intern = interner

    def parse(self, line: bytes) -> Event | list[Event]:
        record = decode(_record, line)
        if record.type not in ("request", "response") or record.request is None:
            raise NotMine("not a line of an audit device")
        request = record.request
        if not request.id or not request.path:
            raise Reject("request has no id or path")
        auth = record.auth or Auth()
        mount = text(request.mount_type) or ""
        name = f"{template(request.path, mount)}:{request.operation}"[:160]
        intern = self.intern
        action = intern.action(SOURCE, name, operation)
        mints = action.kind in (Kind.SIGN_IN, Kind.TOKEN_ISSUE)
        error = _error(record.error)
        answer = record.type == "response"
        if answer != mints and not (answer and error):
            return []  # mints are told by their answer, all else by the request
        if answer and not mints:
            action = intern.action(SOURCE, f"{name}:answer", operation)

        moment_ms = moment(record.time)
        issued_auth = (record.response.auth if record.response else None) or (auth if action.kind is Kind.SIGN_IN else Auth())
        issued = text(issued_auth.accessor) if mints and error is None else None
        login = action.kind is Kind.SIGN_IN
        credential = None if login else text(request.client_token_accessor) or text(auth.accessor)
        born = moment_or_none(auth.token_issue_time) if not login else None
        ttl = number(auth.token_ttl)
        metadata = mapping(auth.metadata)
        target = Target(request.path, mount)
        detail = Detail(
            issued=(issued,) if issued else (),
            issued_class="access_token" if issued else None,
            issued_ttl_s=number(issued_auth.token_ttl) if issued else None,
            grant=self._grant(request.path, mount) if mints else None,
            token_issued_at=born,
            token_expires_at=born + ttl * 1000 if born is not None and ttl else None,
            credential_type=text(auth.token_type),
            targets=(target,),
            params=kept(
                {
                    "path": request.path[:512],
                    "mount_type": mount or None,
                    "policies": list(texts(auth.policies)),
                    "role": text(metadata.get("role")) or text(metadata.get("role_name")),
                    "namespace": text(mapping(request.namespace).get("path")) or text(mapping(request.namespace).get("id")),
                }
            ),
        )
        place = address(text(request.remote_address) or "")
        actor = self._actor(auth if auth.entity_id or auth.display_name else issued_auth, credential)
        shape = intern.shape(
            SOURCE,
            action,
            actor,
            intern.origin(place) if place else NO_ORIGIN,
            error=error,
            resource=mount or None,
            silent="background_service" if mints and actor.kind == "workload" else None,
            account=text(mapping(request.namespace).get("id")),
        )
        return Event(
            moment_ms,
            request.id,
            shape,
            credential=credential,
            target=request.path,
            part=1000 if answer else 0,  # a record of its own, so it counts as one (see pipeline/ordering.py LEAD)
            detail=detail,
        )

    def _actor(self, auth: Auth, credential: str | None) -> Actor:
        metadata = mapping(auth.metadata)
        display = text(auth.display_name)
        identity = text(auth.entity_id) or mail(display) or credential or "unknown"
        account, namespace = text(metadata.get("service_account_name")), text(metadata.get("service_account_namespace"))
        names = unique(
            (
                display,
                f"system:serviceaccount:{namespace}:{account}" if account and namespace else None,
                mail(metadata.get("username")),
                mail(metadata.get("email")),
                text(metadata.get("canonical_arn")),
                mail(metadata.get("service_account_email")),
            ),
            identity,
        )
        method = (display or "").partition("-")[0]
        kind = (
            "workload"
            if account
            else _LOGINS.get(method) or _PEOPLE.get(method) or ("human" if "email" in metadata or "username" in metadata else "unknown")
        )
        return self.intern.actor(identity, names, kind, display=display)

    @staticmethod
    def _grant(path: str, mount: str) -> str:
        if "/create" in path:
            return "token_exchange"
        return {"userpass": "password", "ldap": "password", "approle": "client_credentials", "cert": "client_credentials"}.get(
            mount, "jwt_bearer"
        )


def _error(value: Any) -> str | None:
    message = text(value)
    if message is None:
        return None
    if "permission denied" in message:
        return "permission denied"
    return " ".join(message.replace("1 error occurred:", "").replace("*", "").split())[:80] or "error"


def _recognise(record: dict[str, Any]) -> bool:
    request = record.get("request")
    return record.get("type") in ("request", "response") and isinstance(request, dict) and "path" in request and "operation" in request


SOURCES = (
    Source(
        SOURCE,
        "Vault and OpenBao audit",
        _recognise,
        Audit,
        frozenset(
            [
                "origin.ip",
                "credential",
                "token.mint",
                "token.times",
                "secret.read",
                "policy",
                "trust",
                "privilege",
                "credential.change",
                "discovery",
            ]
        ),
        (
            "`remote_address` is the nearest proxy or node unless the listener is told to trust a forwarded address.",
            "Accessors are HMAC values of one audit device: those of two devices cannot be compared.",
        ),
        priority=30,
    ),
)
