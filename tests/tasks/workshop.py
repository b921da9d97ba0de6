"""A server's core with workloads, a CI issuer, a trust domain and a registered client around it; its clock is moved by hand."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwk, jws
from sqlalchemy import select

from aftergate.audit.records import Actor
from aftergate.authz.dpop import hash_of
from aftergate.authz.tasks import details as d
from aftergate.authz.tasks.answers import Refusal
from aftergate.authz.tasks.machine import Principal, State, Task
from aftergate.authz.tasks.proofs import JWT_BEARER, JWT_SPIFFE
from aftergate.events.clock import to_iso
from aftergate.service.clock import Clock
from aftergate.service.core import Core
from aftergate.service.tasks import Asking, Presented, life
from aftergate.service.tasks.exchange import GRANT, Issued, Refused
from aftergate.settings import Settings
from aftergate.stores import findings
from aftergate.stores.tables.audit import audit_leaves

URL = "http://localhost:9999"
TOKEN_URL = URL + "/oauth/token"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"
TXN = "urn:ietf:params:oauth:token-type:txn_token"
CI = "https://ci.example"
IDP = "https://idp.example"
SPIFFE = "spiffe://prod.example/ns/shop/agent"
MCP = "https://mcp.example"
POLICIES = """
@id("workloads") permit (principal is workload, action in [Action::"task.start", Action::"token.exchange"], resource is task);
@id("not-evil") forbid (principal, action == Action::"task.start", resource) when { resource.purpose == "evil" };
@id("elevated") @advice("approval") @approvers("platform") @ttl("900")
forbid (principal, action == Action::"task.start", resource) when { resource.actions.contains("admin") } unless { context.live has approval };
@id("self-approved") @advice("approval") @machine("vouch")
forbid (principal, action == Action::"task.start", resource) when { resource.actions.contains("root") } unless { context.live has approval };
@id("vouching") permit (principal is workload, action == Action::"vouch", resource);
@id("no-exchange-for-x") forbid (principal, action == Action::"token.exchange", resource) when { resource.audience.contains("https://forbidden.example") };
@id("fresh") @advice("step-up") @acr_values("urn:example:aal3") @max_age("300")
forbid (principal, action == Action::"token.exchange", resource) when { resource.scope.contains("wire") }
unless { context.live has auth && context.live.auth.acr == "urn:example:aal3" && context.live.auth.age_s <= 300 };
@id("tools") permit (principal, action == Action::"tools/call", resource is tool) when { context.live has task };
@id("lists") permit (principal, action in [Action::"tools/list", Action::"initialize"], resource is mcp_server) when { context.live has task };
@id("no-danger") forbid (principal, action == Action::"tools/call", resource == tool::"danger");
@id("customers") permit (principal, action == Action::"get_customer", resource is customer) when { context.live has task };
@id("in-task") permit (principal, action == Action::"deploy", resource is env) when { context.live has task };
"""


class Hand:
    """A wall clock and a steady one, moved by hand."""

    def __init__(self) -> None:
        self.at = time.time()

    def __call__(self) -> float:
        return self.at

    def move(self, seconds: float) -> None:
        self.at += seconds


def new_key() -> Any:
    return jwk.ECKey.import_key(ec.generate_private_key(ec.SECP256R1()))


def signed(claims: dict[str, Any], key: Any, **header: Any) -> str:
    made = {name: value for name, value in {"alg": "ES256", **header}.items() if value is not None}
    return jws.serialize_compact(made, msgspec.json.encode(claims), key, registry=jws.JWSRegistry(strict_check_header=False))


class Holder:
    """Somebody with a DPoP key."""

    def __init__(self) -> None:
        self.key = new_key()
        self.jkt = self.key.thumbprint()

    def proof(self, now_s: float, url: str = TOKEN_URL, *, method: str = "POST", token: str = "", **changes: Any) -> str:
        claims: dict[str, Any] = {"jti": secrets.token_hex(8), "htm": method, "htu": url, "iat": int(now_s)}
        if token:
            claims["ath"] = hash_of(token)
        claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        return signed(claims, self.key, typ="dpop+jwt", jwk=self.key.as_dict(private=False))


class Shop:
    """The core, and everything that proves itself to it. `api` is an API key named `ci` with every scope, `plain` one with `tasks` only."""

    def __init__(self, folder: Path, *, database: str = "", policies: str = POLICIES, **settings: Any) -> None:
        self.folder = folder
        self.hand = Hand()
        self.client_key, self.ci_key, self.idp_key, self.ca = new_key(), new_key(), new_key(), new_key()
        (folder / "policies").mkdir(parents=True, exist_ok=True)
        (folder / "policies" / "shop.cedar").write_text(policies)
        (folder / "bundle.json").write_text(
            json.dumps({"spiffe_sequence": 1, "keys": [{**self.ca.as_dict(private=False), "use": "jwt-svid", "kid": "ca1"}]})
        )
        (folder / "clients.json").write_text(
            json.dumps(
                {
                    "clients": {
                        "deployer": {"jwks": {"keys": [{**self.client_key.as_dict(private=False), "kid": "c1"}]}},
                        "ci-deploy": {"issuer": CI, "claims": {"repository": "acme/app", "ref": "refs/heads/main"}},
                        "gateway": {"jwks": {"keys": [{**self.client_key.as_dict(private=False), "kid": "c1"}]}, "audience": [MCP]},
                    },
                    "issuers": {
                        CI: {"type": "job", "jwks": {"keys": [{**self.ci_key.as_dict(private=False), "kid": "k1"}]}},
                        IDP: {"jwks": {"keys": [{**self.idp_key.as_dict(private=False), "kid": "k1"}]}},
                    },
                    "authorization_details_types": {
                        "payment": {
                            "actions": {"kind": "texts", "required": True},
                            "amount": {"kind": "amount", "required": True},
                            "payee": {"kind": "text"},
                        }
                    },
                    "trust_domain": "prod.example",
                }
            )
        )
        self.settings = Settings(
            **{
                "data": str(folder / "data"),
                "database": database,
                "policies": str(folder / "policies"),
                "clients_file": str(folder / "clients.json"),
                "spiffe_trust_domains": (f"prod.example={folder / 'bundle.json'}",),
                **settings,
            }
        )
        self.core = self.opened()
        by = Actor("operator", "test")
        self.api, _ = self.core.keys.create("ci", ["tasks", "decide", "admin", "findings", "request"], by=by)
        self.plain, _ = self.core.keys.create("plain", ["tasks"], by=by)
        self.holder = Holder()

    def opened(self) -> Core:
        return Core.open(self.settings, clock=Clock(wall=self.hand, steady=self.hand), url=URL)

    def close(self) -> None:
        self.core.close()

    @property
    def tasks(self) -> Any:
        return self.core.tasks

    @property
    def now(self) -> int:
        return self.core.clock()

    def move(self, seconds: float) -> None:
        """Let time pass; trust is looked at again, as the server's timer does."""
        self.hand.move(seconds)
        self.core.trust.refresh()

    # Proofs

    def svid(self, sub: str = SPIFFE, **claims: Any) -> str:
        body = {"sub": sub, "aud": [URL], "exp": int(self.hand.at) + 300, **claims}
        return signed(body, self.ca, typ="JWT", kid="ca1")

    def assertion(self, client: str = "deployer", **claims: Any) -> str:
        body = {
            "iss": client,
            "sub": client,
            "aud": TOKEN_URL,
            "exp": int(self.hand.at) + 60,
            "iat": int(self.hand.at),
            "jti": secrets.token_hex(8),
            **claims,
        }
        return signed(body, self.client_key, typ="JWT", kid="c1")

    def ci_token(self, **claims: Any) -> str:
        now = int(self.hand.at)
        body = {
            "iss": CI,
            "sub": "repo:acme/app",
            "aud": URL,
            "exp": now + 300,
            "iat": now,
            "repository": "acme/app",
            "ref": "refs/heads/main",
            **claims,
        }
        return signed(body, self.ci_key, typ="JWT", kid="k1")

    def user_token(self, sub: str = "alice", *, typ: str = "at+jwt", **claims: Any) -> str:
        now = int(self.hand.at)
        body = {"iss": IDP, "sub": sub, "aud": URL, "client_id": "app", "exp": now + 600, "iat": now, "jti": secrets.token_hex(8), **claims}
        return signed({name: value for name, value in body.items() if value is not None}, self.idp_key, typ=typ, kid="k1")

    # Asking

    def presented(
        self, authorization: str = "", *, url: str = TOKEN_URL, proof: str | None = None, holder: Holder | None = None, **form: Any
    ) -> Presented:
        made = (holder or self.holder).proof(self.hand.at, url) if proof is None else proof
        fields = {name: (value,) if isinstance(value, str) else tuple(value) for name, value in form.items() if value is not None}
        return Presented("POST", url, authorization, (made,) if made else (), "", fields)

    def asking(self, key: str = "", *, proof: str | None = None, holder: Holder | None = None) -> Asking:
        found = self.tasks.authenticate(self.presented(f"Bearer {key or self.api}", proof=proof, holder=holder), self.now)
        assert isinstance(found, Asking), found
        return found

    def proved(self, token: str) -> Asking | Refusal:
        found: Asking | Refusal = self.tasks.authenticate(self.presented(f"Bearer {token}"), self.now)
        return found

    # Tasks

    def wanted(self, raw: Any = None, **more: Any) -> life.Wanted:
        details = d.parse(
            raw or [{"type": d.TASK, "actions": ["deploy", "read"], "resource_type": "env", "identifiers": ["prod", "staging"]}],
            self.tasks.known.types,
        )
        assert not isinstance(details, Refusal), details
        return life.Wanted(**{"purpose": "nightly deploy", "details": details, **more})

    def made(self, raw: Any = None, *, asking: Asking | None = None, **more: Any) -> Any:
        who = asking or self.asking()
        return self.tasks.create(who, self.wanted(raw, **more), self.presented(proof=""), self.now)

    def task(self, raw: Any = None, *, asking: Asking | None = None, **more: Any) -> Task:
        made = self.made(raw, asking=asking, **more)
        assert isinstance(made, life.Made), made
        assert made.task.state is State.ACTIVE
        return made.task

    def state(self, task: Task | str) -> State:
        name = task if isinstance(task, str) else task.id
        found = self.tasks.find(self.asking(), name, self.now)
        assert found is not None
        state: State = found.state
        return state

    # Tokens

    def exchange(
        self, subject: str, *, asking: Asking | None = None, kind: str = ACCESS, holder: Holder | None = None, **form: Any
    ) -> Issued | Refused:
        who = asking or self.asking(holder=holder)
        fields = {"grant_type": GRANT, "subject_token": subject, "subject_token_type": kind, **form}
        made: Issued | Refused = self.tasks.exchange(who, self.presented(proof="", **fields), self.now)
        return made

    def own(self, task: Task, *, asking: Asking | None = None, **form: Any) -> Issued | Refused:
        fields = {"grant_type": "client_credentials", "task_id": task.id, **form}
        made: Issued | Refused = self.tasks.exchange(asking or self.asking(), self.presented(proof="", **fields), self.now)
        return made

    def token(self, task: Task, **more: Any) -> str:
        made = self.own(task, **more)
        assert isinstance(made, Issued), made
        return made.token

    def active(self, token: str, asking: Asking | None = None) -> bool:
        answer = self.tasks.introspect(asking or self.asking(), token, self.now)
        if not answer["active"]:
            assert answer == {"active": False}
        return bool(answer["active"])

    # Findings and records

    def found(self, severity: str = "critical", **subject: str) -> None:
        body = {
            "id": secrets.token_hex(8), "detection": "tok-family-fork", "severity": severity, "time": to_iso(self.now), "title": "t", "narrative": "n",
            "subject": {level: [who] for level, who in subject.items()},
        }  # fmt: skip
        text = json.dumps(body)
        with self.core.db.write() as connection:
            findings.add(self.core.db, connection, [(findings.read(text), text)], self.now)
        self.core.trust.refresh()

    def records(self, kind: str = "") -> list[dict[str, Any]]:
        with self.core.db.read() as connection:
            rows = [msgspec.json.decode(bytes(row.body)) for row in connection.execute(select(audit_leaves).order_by(audit_leaves.c.seq))]
        return [row for row in rows if not kind or row["type"] == kind]


def claims_of(token: str) -> dict[str, Any]:
    import base64

    part = token.split(".")[1]
    held: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return held


ALICE = Principal("user", "alice")
BEARER, SPIFFE_TYPE = JWT_BEARER, JWT_SPIFFE
