"""A small company for the approval tests: its policies, its people with software keys, and callers that hold keys of their own."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwk, jwt
from sqlalchemy import select

from aftergate.audit.records import Actor
from aftergate.authz.dpop import hash_of
from aftergate.authz.transactions import softkey
from aftergate.authz.transactions.canonical import unb64url
from aftergate.authz.transactions.objects import rfc3339
from aftergate.authz.transactions.softkey import BE, SoftKey
from aftergate.authz.transactions.webauthn import Expected, Registration, verify_registration
from aftergate.authz.wire import request_of
from aftergate.service.approvals import Acting, Fault, Submission, Undecided
from aftergate.service.approvals.deciding import Asked
from aftergate.service.clock import Clock
from aftergate.service.core import Core
from aftergate.service.decisions import Answer, Asker
from aftergate.settings import Settings
from aftergate.stores import approvals as store
from aftergate.stores import findings, people
from aftergate.stores.approvals import Approval
from aftergate.stores.people import Passkey
from aftergate.stores.tables.audit import audit_beside, audit_leaves

URL = "http://localhost:9999"
EVALUATION = "/access/v1/evaluation"
REQUESTS = "/access/v1/requests"
POLICIES = """
@id("people-do-their-work")
permit (principal is user, action in [Action::"release_payment", Action::"wire", Action::"open_vault"], resource);

@id("robots-deploy")
permit (principal is workload, action == Action::"deploy", resource);

@id("pay-needs-approval") @advice("approval") @approvers("finance") @ttl("600") @break_glass("oncall") @batch("true")
forbid (principal, action == Action::"release_payment", resource) unless { context.live has approval };

@id("wire-needs-two") @advice("approval") @approvers("finance,treasury") @quorum("2") @ttl("600")
forbid (principal, action == Action::"wire", resource) unless { context.live has approval };

@id("vault-needs-a-bound-key") @advice("approval") @approvers("finance") @device_bound("true")
forbid (principal, action == Action::"open_vault", resource) unless { context.live has approval };

@id("deploy-needs-a-gate") @advice("approval") @machine("approve_deploy")
forbid (principal, action == Action::"deploy", resource) unless { context.live has approval };

@id("gate") permit (principal is workload, action == Action::"approve_deploy", resource)
when { context.transaction.tested == true && context.live.trust.lowest >= 50 };
"""


def now_s() -> float:
    """Seconds since 1970, for what real servers check against their own clock."""
    return time.time()


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = now_s()

    def __call__(self) -> float:
        return self.at

    def move(self, seconds: float) -> None:
        self.at += seconds


def write_policies(folder: Path, text: str = POLICIES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "company.cedar").write_text(text)
    return folder


def new_core(folder: Path, hand: Hand | None = None, *, database: str = "", policies: str = POLICIES, url: str = URL, **more: Any) -> Core:
    settings = Settings(data=str(folder / "data"), policies=str(write_policies(folder / "policies", policies)), database=database, **more)
    clock = Clock(wall=hand, steady=hand) if hand is not None else Clock()
    return Core.open(settings, clock=clock, url=url)  # not started: tests tick by hand


def add_person(
    core: Core, name: str, groups: tuple[str, ...], aliases: tuple[str, ...] = (), *, flags: int = softkey.UP | softkey.UV | BE
) -> SoftKey:
    """A person with one registered software key."""
    core.people.add(name, groups=groups, aliases=aliases, by=Actor("operator", "tests"))
    return register(core, name, flags=flags)


def register(core: Core, name: str, *, flags: int = softkey.UP | softkey.UV | BE) -> SoftKey:
    """One more software key for somebody."""
    handle = core.people.person(name).user_handle
    key = softkey.new_key(core.people.rp_id, handle, secrets.token_bytes)
    key = softkey.SoftKey(key.rp_id, key.credential_id, key.user_handle, key.private, 0, flags)
    challenge = secrets.token_bytes(32)
    origin = next(iter(core.people.origins))
    key, made = key.register(challenge, origin)
    held = verify_registration(made, Expected(challenge, core.people.rp_id, core.people.origins))
    assert isinstance(held, Registration), held
    passkey = Passkey(
        "auth-" + secrets.token_hex(10), held.credential_id, name, held.public_key, held.sign_count, held.backup_eligible, held.backed_up,
        held.aaguid, held.transports, held.attestation, "test", core.clock(),
    )  # fmt: skip
    with core.db.write() as connection:
        people.add_passkey(connection, passkey)
    return key


class Executor:
    """Who carries out the transaction: holds a DPoP key."""

    def __init__(self) -> None:
        self.key = jwk.generate_key("EC", "P-256")

    @property
    def jkt(self) -> str:
        return self.key.thumbprint()

    def proof(self, url: str, at_s: float, *, ath: str | None = None, method: str = "POST", **more: Any) -> str:
        """A DPoP proof; `ath` is the approval id to bind it to."""
        claims: dict[str, Any] = {"jti": secrets.token_urlsafe(16), "htm": method, "htu": url, "iat": int(at_s)}
        if ath is not None:
            claims["ath"] = hash_of(ath)
        header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": self.key.as_dict(private=False)}
        return jwt.encode(header, {**claims, **more}, self.key)


def signed(key: SoftKey, options: dict[str, Any], origin: str) -> tuple[SoftKey, dict[str, Any]]:
    """What the key answers to a challenge's options."""
    return key.assertion(unb64url(options["challenge"]), origin)


def payment(**changes: Any) -> dict[str, Any]:
    """An evaluation request: alice releases a payment."""
    made: dict[str, Any] = {
        "subject": {"type": "user", "id": "alice", "properties": {"department": "sales"}},
        "action": {"name": "release_payment", "properties": {"channel": "sepa"}},
        "resource": {"type": "payment", "id": "p-1", "properties": {"amount": 1200.5, "currency": "EUR", "payee": "ACME"}},
        "context": {"transaction": {"reference": "inv-7"}, "session_id": "s-alice", "credential_id": "c-alice"},
    }
    return {**made, **changes}


class Company:
    """One core, its people, one caller and one executor: the whole way of an approval in a few words."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.hand = Hand()
        self.core = new_core(folder, self.hand, **more)
        self.executor = Executor()
        self.keys: dict[str, SoftKey] = {}
        self.url = self.core.url

    @property
    def now(self) -> int:
        return self.core.clock()

    def wait(self, seconds: float) -> None:
        """Time goes by, and the server's timer has had its turn."""
        self.hand.move(seconds)
        self.core.trust.refresh()

    def person(self, name: str, *groups: str, aliases: tuple[str, ...] = (), **more: Any) -> None:
        self.keys[name] = add_person(self.core, name, groups, aliases, **more)

    def asker(self, proof: str = "", caller: str = "key-1", x5t: str = "") -> Asker:
        return Asker(caller, Actor("api-key", caller), urls=(self.url + EVALUATION,), proof=proof, x5t=x5t)

    def evaluate(self, request: dict[str, Any], proof: str = "", caller: str = "key-1", x5t: str = "") -> Answer:
        return self.core.decider.evaluate(request_of(request), self.asker(proof, caller, x5t))

    def denied(self, request: dict[str, Any], caller: str = "key-1") -> dict[str, Any]:
        """The `denial` of a submission, from a fresh evaluation that is denied and can be asked on."""
        context = self.evaluate(request, caller=caller).context
        return {
            "evaluation_id": context["evaluation_id"],
            "expires_at": context["access_request"]["expires_at"],
            "binding_token": context["access_request"]["binding_token"],
        }

    def submission(self, request: dict[str, Any], **body: Any) -> dict[str, Any]:
        return {**request, "denial": self.denied(request), **body}

    def submit(self, body: dict[str, Any], caller: str = "key-1", **more: Any) -> Approval:
        proof = "" if "x5t" in more else self.executor.proof(self.url + REQUESTS, self.hand.at)
        given = Submission(body, caller, Actor("api-key", caller), **{"proof": proof, **more})
        return self.core.approvals.submit(given, self.now)

    def request(self, request: dict[str, Any], **body: Any) -> Approval:
        return self.submit(self.submission(request, **body))

    def acting(self, name: str, session: str = "") -> Acting:
        return Acting(name, session or f"ps-{name}")

    def ask(self, name: str, *ids: str, items: list[int] | None = None, session: str = "") -> Asked:
        return self.core.approvals.ask(self.acting(name, session), list(ids), items, self.now)

    def sign(self, name: str, asked: Asked, origin: str = "", more: dict[str, Any] | None = None) -> dict[str, Any]:
        self.keys[name], made = self.keys[name].assertion(unb64url(asked.options["challenge"]), origin or self.url, more)
        return made

    def approve(self, name: str, approval: Approval, items: list[int] | None = None) -> Approval:
        asked = self.ask(name, approval.id, items=items)
        return self.core.approvals.approve(self.acting(name), [approval.id], asked.challenge_id, self.sign(name, asked), self.now)[0]

    def result_id(self, approval: Approval, place: int = 0) -> str:
        """The approval id that the executor presents."""
        held = approval.object
        return str((held.get("items") or [held])[place]["approval_id"])

    def use(self, request: dict[str, Any], approval_id: str, executor: Executor | None = None, **more: Any) -> Answer:
        """Evaluate again, with the approval and a proof of the executor's key."""
        proof = (executor or self.executor).proof(self.url + EVALUATION, self.hand.at, ath=approval_id)
        context = {**request.get("context", {}), "approval": {"id": approval_id}}
        return self.evaluate({**request, "context": context}, proof, **more)

    def find(self, subject: dict[str, list[str]], severity: str = "high", id_: str = "") -> str:
        """A finding arrives."""
        name = id_ or "f-" + secrets.token_hex(4)
        told = {
            "id": name, "detection": "tok-family-fork", "severity": severity, "time": rfc3339(self.now), "title": "t", "narrative": "n", "subject": subject,
            "evidence": [], "sources": [],
        }  # fmt: skip
        body = json.dumps(told)
        with self.core.db.write() as connection:
            findings.add(self.core.db, connection, [(findings.read(body), body)], self.now)
        self.core.trust.refresh()
        return name

    def again(self, approval: Approval) -> Approval:
        with self.core.db.read() as connection:
            found = store.by_id(connection, approval.id)
        assert found is not None
        return found

    def records(self, *types: str) -> list[dict[str, Any]]:
        """The audit log's leaves of these types, in order; evidence beside them under `_evidence`."""
        with self.core.db.read() as connection:
            rows = connection.execute(select(audit_leaves).order_by(audit_leaves.c.seq)).all()
            beside = {(row.seq, row.kind): row.body for row in connection.execute(select(audit_beside))}
        made = []
        for row in rows:
            if row.type in types:
                leaf = json.loads(row.body)
                if (row.seq, "evidence") in beside:
                    leaf["_evidence"] = json.loads(beside[row.seq, "evidence"])
                made.append(leaf)
        return made


@contextmanager
def undecided(reason: str) -> Iterator[pytest.ExceptionInfo[Undecided]]:
    """A decision that is not taken, for this reason."""
    with pytest.raises(Undecided) as told:
        yield told
    assert told.value.reason == reason, told.value


def refused(company: Company, body: dict[str, Any], fault: str, **more: Any) -> Fault:
    """A submission that is refused with this fault."""
    with pytest.raises(Fault) as told:
        company.submit(body, **more)
    assert told.value.fault == fault, told.value
    return told.value


def wire() -> dict[str, Any]:
    """A request that two people must approve."""
    return payment(action={"name": "wire"})
