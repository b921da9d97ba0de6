"""A company behind a real server: callers, approvers with software keys, an executor, all over HTTP."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path
from typing import Any, Self

import httpx2
from company import EVALUATION, REQUESTS, Executor, now_s, payment, write_policies
from serving import Server
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from aftergate.authz.transactions import softkey
from aftergate.authz.transactions.objects import rfc3339
from aftergate.cli.approving import Desk

PASSPHRASE = "correct horse"
softkey.SCRYPT_N = 1 << 10  # type: ignore[misc]  # key files are written at every signature: here quickly


class Remote:
    """One or several servers over one database, and the people who use them."""

    def __init__(self, folder: Path, *arguments: str, policies: str | None = None, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        held = write_policies(folder / "policies", *([policies] if policies else []))
        # `localhost` is the relying party and the origin of every assertion, so a restart keeps its port.
        self.server = Server(folder / "server", "--policies", str(held), *arguments, env=env)
        self.executor = Executor()
        self.desks: dict[str, Desk] = {}

    def __enter__(self) -> Self:
        self.server.start()
        self.http = self.client(self.server)
        return self

    def __exit__(self, *given: object) -> None:
        self.http.close()
        for desk in self.desks.values():
            desk.close()
        self.server.__exit__()

    @property
    def url(self) -> str:
        return self.server.url

    def client(self, server: Server, key: str = "") -> httpx2.Client:
        return httpx2.Client(base_url=server.url, headers={"authorization": f"Bearer {key or server.key}"}, timeout=60)

    def person(self, name: str, *groups: str, aliases: tuple[str, ...] = ()) -> Desk:
        """A person who registered a software key with their link and has logged in."""
        made = self.http.post("/v1/people", json={"id": name, "groups": list(groups), "aliases": list(aliases)})
        assert made.status_code < 300, made.text
        self.desks[name] = desk = Desk(self.url)
        desk.register(made.json()["link"], self.folder / f"{name}.key", PASSPHRASE, "test")
        desk.login()
        return desk

    def evaluate(
        self, request: dict[str, Any], *, approval: str = "", proof: str = "", http: httpx2.Client | None = None
    ) -> dict[str, Any]:
        context = {**request.get("context", {}), **({"approval": {"id": approval}} if approval else {})}
        headers = {"dpop": proof} if proof else {}
        answer = (http or self.http).post(EVALUATION, json={**request, "context": context}, headers=headers)
        assert answer.status_code == 200, answer.text
        held: dict[str, Any] = answer.json()
        return held

    def denial(self, request: dict[str, Any]) -> dict[str, Any]:
        context = self.evaluate(request)["context"]
        offer = context["access_request"]
        return {"evaluation_id": context["evaluation_id"], "expires_at": offer["expires_at"], "binding_token": offer["binding_token"]}

    def submit(self, body: dict[str, Any], *, proof: str | None = None, **headers: str) -> httpx2.Response:
        made = self.executor.proof(self.url + REQUESTS, now_s()) if proof is None else proof
        return self.http.post(REQUESTS, json=body, headers={**({"dpop": made} if made else {}), **headers})

    def asked(self, request: dict[str, Any], **body: Any) -> str:
        """The handle of a new request."""
        answer = self.submit({**request, "denial": self.denial(request), **body})
        assert answer.status_code in {201, 202}, answer.text
        return str(answer.json()["task"]["id"])

    def task(self, id_: str) -> dict[str, Any]:
        held: dict[str, Any] = self.http.get(f"{REQUESTS}/{id_}").json()
        return held

    def approved(self, request: dict[str, Any], name: str = "bob", **body: Any) -> str:
        """The approval id of a request that a person approved."""
        id_ = self.asked(request, **body)
        desk = self.desks[name]
        desk.approve(desk.view(id_))
        return str(self.task(id_)["result"]["approval"]["id"])

    def proof(self, approval: str, executor: Executor | None = None, url: str = "") -> str:
        return (executor or self.executor).proof((url or self.url) + EVALUATION, now_s(), ath=approval)

    def use(self, request: dict[str, Any], approval: str, executor: Executor | None = None) -> dict[str, Any]:
        return self.evaluate(request, approval=approval, proof=self.proof(approval, executor))

    def found(self, **subject: str) -> str:
        """A finding that the scanner sends."""
        name = "f-" + secrets.token_hex(4)
        told = {
            "id": name, "detection": "tok-family-fork", "severity": "high", "time": rfc3339(int(now_s() * 1000)), "title": "t", "narrative": "n",
            "subject": {level: [who] for level, who in subject.items()}, "evidence": [], "sources": [],
        }  # fmt: skip
        answer = self.http.post("/v1/findings", content=json.dumps(told) + "\n", headers={"content-type": "application/x-ndjson"})
        assert answer.status_code < 300, answer.text
        return name

    def many(self, approval: str, request: dict[str, Any], count: int, urls: list[str], width: int = 64) -> list[bool]:
        """So many evaluations with one approval, `width` under way at any moment, spread over these addresses. What a dead server never answered is no permit."""
        body = {**request, "context": {**request["context"], "approval": {"id": approval}}}
        proofs = [self.proof(approval) for _ in range(count)]

        async def all_of_them() -> list[bool]:
            headers = {"authorization": f"Bearer {self.server.key}"}
            async with httpx2.AsyncClient(headers=headers, timeout=120, limits=httpx2.Limits(max_connections=width)) as client:

                async def one(n: int) -> bool:
                    try:
                        answer = await client.post(urls[n % len(urls)] + EVALUATION, json=body, headers={"dpop": proofs[n]})
                    except httpx2.TransportError:
                        return False
                    return answer.status_code == 200 and answer.json()["decision"] is True

                return await asyncio.gather(*(one(n) for n in range(count)))

        return asyncio.run(all_of_them())

    def uses(self, approval: str, database: str = "") -> list[dict[str, Any]]:
        """The log's records of this approval's use."""
        engine = create_engine(
            make_url(database).set(drivername="postgresql+psycopg") if database else f"sqlite:///{self.server.data / 'aftergate.db'}"
        )
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT body FROM audit_leaves WHERE type = 'approval.consumed' ORDER BY seq")).all()
        engine.dispose()
        leaves = [json.loads(bytes(row.body)) for row in rows]
        return [leaf for leaf in leaves if leaf["approval"]["id"] == approval]


def numbered(n: int) -> dict[str, Any]:
    return payment(resource={"type": "payment", "id": f"p-{n}", "properties": {"amount": 5, "currency": "EUR"}})
