"""Kubernetes API server audit events (audit.k8s.io), of any distribution.

Source: kubernetes.io "Auditing" and "audit.k8s.io/v1"; KEP-4193 for credential ids of service account tokens. Managed clusters keep the
form and add to `user.extra` (EKS: the AWS key, role and session a person came with).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct, field

from aftergate.connectors.base import Source
from aftergate.connectors.loose import address, content_id, decode, inner, items, kept, mail, mapping, moment, number, text, texts, unique
from aftergate.errors import NotMine, Reject
from aftergate.events.interning import Interner
from aftergate.vocabulary import NO_ORIGIN, Actor, Change, Detail, Event, Kind, Origin, Tag, Target

SOURCE: Final = "kubernetes.audit"
CREDENTIAL: Final = "authentication.kubernetes.io/credential-id"
ISSUED: Final = "authentication.kubernetes.io/issued-credential-id"

Operation = tuple[Kind, str, str, tuple[Tag, ...]]

_FAMILY = {
    "get": "read",
    "list": "discover",
    "watch": "discover",
    "create": "write",
    "update": "write",
    "patch": "write",
    "delete": "delete",
    "deletecollection": "delete",
    "head": "read",
    "options": "discover",
    "post": "write",
    "put": "write",
    "connect": "execute",
}
_REVIEWS = (
    "selfsubjectaccessreviews",
    "selfsubjectrulesreviews",
    "selfsubjectreviews",
    "subjectaccessreviews",
    "localsubjectaccessreviews",
)
_EXEC = ("exec", "attach", "portforward", "ephemeralcontainers")
_ADMISSION = (
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
)
_GUARDS = ("podsecuritypolicies", "networkpolicies", "auditsinks", "auditpolicies", "constrainttemplates", "clusterpolicies")


def classify(resource: str, subresource: str, verb: str) -> Operation:
    """Kind, service, verb family and tags of one API operation; also used for clusters that log through a cloud's own audit log."""
    service = f"k8s-{resource or 'nonresource'}"
    family = _FAMILY.get(verb, "write")
    reads = family in ("read", "discover")
    deletes = family == "delete"
    if not resource:
        return Kind.DISCOVERY if reads else Kind.OTHER, service, "discover" if reads else family, ()
    if resource == "serviceaccounts":
        if subresource == "token" and verb == "create":
            return Kind.TOKEN_ISSUE, service, "auth", ()
        if verb == "create":
            return Kind.IDENTITY_LIFECYCLE, service, "admin", (Tag.IDENTITY_CREATE,)
        if deletes:
            return Kind.IDENTITY_LIFECYCLE, service, "admin", (Tag.IDENTITY_DISABLE,)
    if (resource == "pods" and subresource in _EXEC) or (resource in ("pods", "nodes") and subresource == "proxy"):
        # exec over websockets is logged as `get`, so the verb says nothing here
        return Kind.OTHER, service, "execute", (Tag.REMOTE_EXEC,)
    if resource == "secrets":
        if reads:
            return Kind.SECRET_READ, service, "read", (Tag.SECRET_READ,)
        return Kind.CONFIG_CHANGE, service, family, ()
    if verb == "impersonate":
        return Kind.OTHER, service, "auth", (Tag.IMPERSONATE,)
    if resource in ("rolebindings", "clusterrolebindings"):
        if reads:
            return Kind.DISCOVERY, service, "discover", ()
        return Kind.ROLE_CHANGE, service, "admin", (Tag.PRIVILEGE_REVOKE,) if deletes else (Tag.PRIVILEGE_GRANT,)
    if resource in ("roles", "clusterroles"):
        if reads:
            return Kind.DISCOVERY, service, "discover", ()
        return Kind.POLICY_CHANGE, service, "admin", (Tag.PRIVILEGE_REVOKE,) if deletes else (Tag.PRIVILEGE_GRANT,)
    if verb in ("escalate", "bind"):
        return Kind.ROLE_CHANGE, service, "admin", (Tag.PRIVILEGE_GRANT,)
    if resource in _REVIEWS:
        return Kind.DISCOVERY, service, "discover", ()
    if resource == "tokenreviews":
        return Kind.OTHER, service, "auth", ()
    if resource == "certificatesigningrequests":
        if subresource == "approval" and not reads:
            return Kind.CREDENTIAL_CREATE, service, "admin", (Tag.CREDENTIAL_ADD,)
        return (Kind.DISCOVERY, service, "discover", ()) if reads else (Kind.OTHER, service, family, ())
    if resource in _ADMISSION or resource in _GUARDS:
        if reads:
            return Kind.DISCOVERY, service, "discover", ()
        return Kind.POLICY_CHANGE, service, "admin", (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN) if deletes else (Tag.DEFENCE_CHANGE,)
    if resource == "events" and deletes:
        return Kind.CONFIG_CHANGE, service, family, (Tag.DEFENCE_CHANGE, Tag.DEFENCE_WEAKEN)
    if reads:
        if (resource == "configmaps" and verb == "get") or subresource == "log":
            return Kind.DATA_READ, service, "read", ()
        return Kind.DISCOVERY if verb == "list" else Kind.OTHER, service, family, ()
    if subresource == "status" or resource in ("leases", "events", "endpoints", "endpointslices"):
        return Kind.OTHER, service, family, ()
    return Kind.CONFIG_CHANGE, service, family, ()


def operation(name: str) -> Operation:
    """The operation of an action name: `pods/exec:create`, `secrets:list`, `get /healthz`; `:impersonated` marks acting as another."""
    base = name.removesuffix(":impersonated")
    if " " in base:
        found = classify("", "", base.partition(" ")[0])
    else:
        path, _, rest = base.partition(":")
        verb = rest.partition(":")[0]
        resource, _, subresource = path.partition("/")
        found = classify(resource, subresource, verb)
        if rest.endswith(":token"):  # a secret of type service-account-token is a credential that never expires
            found = Kind.CREDENTIAL_CREATE, found[1], "admin", (Tag.CREDENTIAL_ADD,)
    return (found[0], found[1], found[2], (*found[3], Tag.IMPERSONATE)) if base != name else found


class Reference(Struct, gc=False):
    resource: Any = None
    subresource: Any = None
    namespace: Any = None
    name: Any = None
    uid: Any = None


class Status(Struct, gc=False):
    code: Any = None
    reason: Any = None


class Record(Struct, gc=False):
    kind: str | None = None
    api_version: str | None = field(name="apiVersion", default=None)
    audit_id: Any = field(name="auditID", default=None)
    stage: str | None = None
    request_uri: Any = field(name="requestURI", default=None)
    verb: str | None = None
    user: msgspec.Raw = msgspec.Raw(b"")
    impersonated: Any = field(name="impersonatedUser", default=None)
    source_ips: Any = field(name="sourceIPs", default=None)
    user_agent: Any = field(name="userAgent", default=None)
    ref: Reference | None = field(name="objectRef", default=None)
    response_status: Status | None = field(name="responseStatus", default=None)
    request_object: msgspec.Raw = field(name="requestObject", default=msgspec.Raw(b""))
    received: Any = field(name="requestReceivedTimestamp", default=None)
    staged: Any = field(name="stageTimestamp", default=None)
    timestamp: Any = None
    p_event_time: Any = None
    annotations: dict[str, Any] | None = None
    category: Any = None
    properties: Any = None
    time: Any = None


class User(Struct, gc=False):
    username: str
    uid: Any = None
    groups: Any = None
    extra: Any = None


class Caller(NamedTuple):
    """What a `user` object says, cached by its bytes."""

    actor: Actor
    credential: str | None
    pod: str | None
    pod_uid: str | None
    node: str | None
    params: dict[str, Any] | None
    groups: tuple[str, ...]


_AZURE = ("kube-audit", "kube-audit-admin")  # AKS diagnostic categories: the event is text inside the record
_record = msgspec.json.Decoder(Record)
_user = msgspec.json.Decoder(User)
_object = msgspec.json.Decoder()

_SYSTEM = (
    "system:kube-",
    "system:apiserver",
    "system:cloud-controller",
    "system:addon-manager",
    "system:gke-",
    "system:gcp-",
    "eks:",
    "aks:",
    "system:volume-",
)


def kind_of(username: str, session: str | None = None) -> tuple[str, bool]:
    """(kind, first party) that a user name shows."""
    if username.startswith("system:serviceaccount:"):
        return "workload", False
    if username.startswith("system:node:") or username.startswith(_SYSTEM) or username in ("aksService", "masterclient", "system:master"):
        return "service", True
    if username in ("system:anonymous", "system:unauthenticated"):
        return "unknown", False
    if username.endswith("gserviceaccount.com"):
        return "workload", False
    if "@" in username or (session is not None and "@" in session):
        return "human", False
    if session is not None or username.startswith(("ci:", "arn:aws:iam::")):
        return "workload", False  # a role session that no person's name is on
    return "human", False


class Audit:
    """Audit events. One event for each request: a long one that was logged at its start and again at its end has the same id both times."""

    def __init__(self, interner: Interner) -> None:
        self.intern = interner
        self._callers: dict[bytes, Caller] = {}
        self._origins: dict[tuple[str, ...], Origin] = {}

    def parse(self, line: bytes) -> Event | list[Event]:
        record = decode(_record, line)
        if record.kind is None and record.category in _AZURE:
            wrapped = mapping(record.properties).get("log")
            if not isinstance(wrapped, str):
                raise Reject("diagnostic record has no audit event in `properties.log`")
            line = wrapped.encode("utf-8", "replace")
            written = record.time
            record = decode(_record, line)
            record.time = written
        if record.kind != "Event" or not (record.api_version or "").startswith("audit.k8s.io"):
            raise NotMine("not an audit.k8s.io event")
        if record.stage == "RequestReceived":
            return []  # nothing was answered yet; the same request comes again at a later stage
        verb = record.verb
        if not verb:
            raise Reject("event has no verb")
        time = moment(record.received, record.timestamp, record.staged, record.p_event_time, record.time)
        caller = self._caller(record.user)
        intern = self.intern
        ref = record.ref
        resource = text(ref.resource) if ref else None
        subresource = (text(ref.subresource) if ref else None) or ""
        namespace = text(ref.namespace) if ref else None
        object_name = text(ref.name) if ref else None
        body = self._body(record.request_object, resource, verb)
        impersonated = text(mapping(record.impersonated).get("username"))

        if resource:
            name = f"{resource}/{subresource}:{verb}" if subresource else f"{resource}:{verb}"
            if resource == "secrets" and verb == "create" and body.get("type") == "kubernetes.io/service-account-token":
                name += ":token"
        else:
            path = (text(record.request_uri) or "/").partition("?")[0]
            name = f"{verb} /{'/'.join(path.strip('/').split('/')[:3])}"
        if impersonated:
            name += ":impersonated"
        action = intern.action(SOURCE, name[:160], operation)

        code = number(record.response_status.code) if record.response_status else None
        error = str(code) if code is not None and code >= 400 else None
        notes = record.annotations or {}
        if error is None and code is None and notes.get("authorization.k8s.io/decision") == "forbid":
            error = "403"

        actor = caller.actor
        if impersonated:
            actor = intern.actor(actor.id, actor.names, actor.kind, actor.account, role=impersonated, first_party=actor.first_party)
        detail = Detail(pod=caller.pod, bound=caller.pod_uid, node=caller.node, params=caller.params)
        if impersonated:
            detail.act = (caller.actor.id,)
            detail.params = {**(caller.params or {}), "impersonated": impersonated}
        silent = None
        target = f"{namespace}/{resource}/{object_name or '*'}" if namespace else f"{resource}/{object_name or '*'}" if resource else None
        if resource == "serviceaccounts" and namespace and object_name:
            target = f"system:serviceaccount:{namespace}:{object_name}"
        targets = [Target(target, resource or "")] if target else []
        if action.kind is Kind.TOKEN_ISSUE and target:
            silent = "background_service" if caller.actor.kind != "human" else None
            self._mint(detail, body, caller, text(notes.get(ISSUED)) if error is None else None)
        elif body:
            self._body_facts(detail, body, resource or "", targets)
        if resource == "certificatesigningrequests" and action.kind is Kind.CREDENTIAL_CREATE:
            requester = text(mapping(body.get("spec")).get("username"))
            if requester:
                targets.insert(0, Target(requester, "user"))
        detail.targets = tuple(targets)
        shape = intern.shape(
            SOURCE,
            action,
            actor,
            self._origin(texts(record.source_ips)),
            intern.agent(text(record.user_agent)),
            error,
            silent=silent,
            account=None,
        )
        return Event(
            time,
            text(record.audit_id) or content_id(line),
            shape,
            credential=caller.credential,
            target=targets[0].id if targets else None,
            detail=detail,
        )

    def _caller(self, raw: msgspec.Raw) -> Caller:
        data = bytes(raw)
        found = self._callers.get(data)
        if found is not None:
            return found
        if not data:
            raise Reject("event has no user")
        user = decode(_user, data)
        if not user.username:
            raise Reject("user has no name")
        extra = mapping(user.extra)

        def first(key: str) -> str | None:
            values = texts(extra.get(key))
            return values[0] if values else None

        arn, canonical, session = first("arn"), first("canonicalArn"), first("sessionName")
        kind, first_party = kind_of(user.username, session)
        name = mail(user.username) or user.username
        person = mail(session) if session and "@" in session else None
        if person is not None and canonical is not None and ":role/" in canonical:
            # EKS: the uid is the role's too, and colleagues take the same role
            actor = self.intern.actor(name, unique((person,), name), kind, role=canonical, first_party=first_party)
        else:
            actor = self.intern.actor(
                name, unique((text(user.uid), person, canonical, first("principalId")), name), kind, first_party=first_party
            )
        params = kept({"accessKeyId": first("accessKeyId"), "arn": arn, "canonicalArn": canonical, "sessionName": session})
        found = Caller(
            actor,
            first(CREDENTIAL),
            first("authentication.kubernetes.io/pod-name"),
            first("authentication.kubernetes.io/pod-uid"),
            first("authentication.kubernetes.io/node-name"),
            params,
            texts(user.groups),
        )
        if len(self._callers) > 100_000:
            self._callers.clear()
        self._callers[data] = found
        return found

    def _origin(self, chain: tuple[str, ...]) -> Origin:
        """Where a request came from: the first public address of the chain, else its first.

        The chain is X-Forwarded-For, X-Real-Ip, then the peer. Behind a load balancer the first is the caller; behind a masquerading node
        only the node is seen, which is an inner address and says nothing about the place.
        """
        found = self._origins.get(chain)
        if found is None:
            known = [place for place in (address(item) for item in chain) if place]
            chosen = next((place for place in known if not inner(place)), known[0] if known else None)
            found = self.intern.origin(chosen) if chosen else NO_ORIGIN
            if len(self._origins) > 100_000:
                self._origins.clear()
            self._origins[chain] = found
        return found

    @staticmethod
    def _body(raw: msgspec.Raw, resource: str | None, verb: str) -> dict[str, Any]:
        """The request object where a rule reads it, else nothing: bodies are large."""
        data = bytes(raw)
        if not data or resource not in _READ_BODIES or verb in ("get", "list", "watch"):
            return {}
        return mapping(decode(_object, data))

    @staticmethod
    def _mint(detail: Detail, body: dict[str, Any], caller: Caller, issued: str | None) -> None:
        spec = mapping(body.get("spec"))
        bound = mapping(spec.get("boundObjectRef"))
        by_node = caller.actor.id.startswith("system:node:") or "system:nodes" in caller.groups
        to_pod = bound.get("kind") == "Pod" or (by_node and not spec)
        detail.grant = "projected" if by_node and to_pod else "token_request"
        detail.issued = (issued,) if issued else ()
        detail.issued_class = "k8s_token"
        detail.issued_ttl_s = number(spec.get("expirationSeconds"))
        detail.audience = texts(spec.get("audiences"))
        detail.bound = text(bound.get("uid"))
        detail.pod = text(bound.get("name")) if bound.get("kind") == "Pod" else None
        detail.node = (
            text(bound.get("name")) if bound.get("kind") == "Node" else caller.actor.id.removeprefix("system:node:") if by_node else None
        )
        if not by_node and caller.pod:  # the minter's own pod, which the fields of a mint leave no room for
            detail.params = {**(caller.params or {}), "minter_pod": caller.pod}

    @staticmethod
    def _body_facts(detail: Detail, body: dict[str, Any], resource: str, targets: list[Target]) -> None:
        facts: dict[str, Any] = {}
        if resource in ("rolebindings", "clusterrolebindings"):
            role = text(mapping(body.get("roleRef")).get("name"))
            members: list[str] = []
            for subject in items(body.get("subjects"))[:50]:
                one = mapping(subject)
                name = text(one.get("name"))
                if name:
                    account = one.get("kind") == "ServiceAccount"
                    members.append(
                        f"system:serviceaccount:{text(one.get('namespace')) or 'default'}:{name}" if account else mail(name) or name
                    )
            facts = {"role": role, "members": members}
            targets.extend(Target(member, "member") for member in members)
            detail.changes = tuple(Change(role or "role", None, member) for member in members)
        elif resource in ("roles", "clusterroles"):
            rules = [mapping(rule) for rule in items(body.get("rules"))[:50]]
            facts = {
                "verbs": sorted({verb for rule in rules for verb in texts(rule.get("verbs"))}),
                "resources": sorted({name for rule in rules for name in texts(rule.get("resources"))}),
            }
        elif resource == "certificatesigningrequests":
            facts = {"signer": text(mapping(body.get("spec")).get("signerName"))}
        elif resource == "pods":
            spec = mapping(body.get("spec"))
            boxes = [mapping(box) for box in items(spec.get("containers"))[:20]]
            facts = {
                "privileged": any(mapping(box.get("securityContext")).get("privileged") is True for box in boxes) or None,
                "host_network": True if spec.get("hostNetwork") is True else None,
                "host_path": any("hostPath" in mapping(volume) for volume in items(spec.get("volumes"))) or None,
                "service_account": text(spec.get("serviceAccountName")),
            }
        facts = kept(facts) or {}
        if facts:
            detail.params = {**(detail.params or {}), **facts}


_READ_BODIES: Final = frozenset(
    ["serviceaccounts", "rolebindings", "clusterrolebindings", "roles", "clusterroles", "certificatesigningrequests", "pods", "secrets"]
)


def _recognise(record: dict[str, Any]) -> bool:
    if record.get("category") in _AZURE and isinstance(record.get("properties"), dict):
        return "log" in record["properties"]
    return record.get("kind") == "Event" and str(record.get("apiVersion", "")).startswith("audit.k8s.io")


SOURCES = (
    Source(
        SOURCE,
        "Kubernetes API server audit",
        _recognise,
        Audit,
        frozenset(
            [
                "origin.ip",
                "agent",
                "credential",
                "token.mint",
                "pod",
                "act",
                "privilege",
                "policy",
                "secret.read",
                "remote_exec",
                "identity.lifecycle",
            ]
            + ["discovery", "credential.change", "resource"]
        ),
        (
            "`sourceIPs` holds the masquerading node or load balancer for many pods; only a public address tells where a caller is.",
            "Credential ids exist from Kubernetes 1.30 on; client certificates have a fingerprint instead of a token id.",
            "At level Metadata the request body is missing, so what a token was bound to is unknown.",
        ),
        priority=20,
    ),
)
