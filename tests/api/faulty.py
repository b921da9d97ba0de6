"""A house whose store, disk and clock fail: one server, one caller, and what the log holds of what the caller was told."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import httpx2
from serving import Server
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from aftergate.stores.tables.audit import audit_leaves

EVALUATION = "/access/v1/evaluation"
POLICIES = """
@id("reads") permit (principal, action == Action::"read", resource);
@id("pays") @risk("high") permit (principal, action == Action::"pay", resource);
"""


def question(action: str, number: int = 1) -> dict[str, Any]:
    return {"subject": {"type": "user", "id": "alice"}, "action": {"name": action}, "resource": {"type": "payment", "id": f"p-{number}"}}


class House:
    """`pay` must be recorded before it is answered; `read` may be recorded a moment later."""

    def __init__(self, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.policies = folder / "policies"
        self.policies.mkdir(parents=True)
        (self.policies / "house.cedar").write_text(POLICIES)
        self.server = Server(folder, "--policies", str(self.policies), *arguments, env=env)
        self.permits: set[str] = set()  # evaluation ids of every permit of `pay` that the caller saw
        self.number = 0

    def __enter__(self) -> Self:
        self.server.start()
        self._connect()
        return self

    def __exit__(self, *given: object) -> None:
        self.http.close()
        self.server.__exit__(*given)

    def _connect(self) -> None:
        headers = {"authorization": f"Bearer {self.server.key}"}
        self.http = httpx2.Client(base_url=self.server.url, headers=headers, timeout=40, trust_env=False)

    def again(self) -> None:
        """Start once more on the same data."""
        self.http.close()
        self.server.start()
        self._connect()

    @property
    def file(self) -> Path:
        return self.server.data / "aftergate.db"

    def ask(self, action: str = "pay") -> int:
        """The status of one evaluation. A permit is remembered; an answer that is none must not look like one."""
        self.number += 1
        answer = self.http.post(EVALUATION, json=question(action, self.number))
        held = answer.json()
        if answer.status_code == 200:
            assert held["decision"] in (True, False)
            if held["decision"] and action == "pay":
                self.permits.add(held["context"]["evaluation_id"])
        else:
            assert isinstance(held, str), "an error is a message, and no decision"
        return answer.status_code

    def permitted(self, action: str = "pay") -> bool:
        before = len(self.permits)
        status = self.ask(action)
        return status == 200 and (action != "pay" or len(self.permits) == before + 1)

    def problems(self) -> dict[str, str]:
        held: dict[str, str] = self.http.get("/v1/status").json()["problems"]
        return held

    def unready(self) -> list[str]:
        answer = self.http.get("/readyz")
        assert answer.status_code in {200, 503}
        assert self.http.get("/healthz").status_code == 200
        held: list[str] = answer.json()["parts"]
        assert (answer.status_code == 503) is bool(held)
        return held

    def burst(self, count: int, *, width: int = 16, meanwhile: Callable[[], None] | None = None) -> list[int]:
        """Many evaluations of `pay` at once; `meanwhile` runs when some have been answered. What got no answer is 0."""

        async def all_of_them() -> list[int]:
            headers = {"authorization": f"Bearer {self.server.key}"}
            first = asyncio.Event()
            limits = httpx2.Limits(max_connections=width)
            async with httpx2.AsyncClient(base_url=self.server.url, headers=headers, timeout=40, limits=limits, trust_env=False) as client:

                async def one(n: int) -> int:
                    try:
                        answer = await client.post(EVALUATION, json=question("pay", n))
                    except httpx2.TransportError:
                        return 0
                    if answer.status_code == 200 and answer.json()["decision"]:
                        self.permits.add(answer.json()["context"]["evaluation_id"])
                        first.set()
                    return answer.status_code

                work = [asyncio.create_task(one(n)) for n in range(count)]
                if meanwhile is not None:
                    await asyncio.wait_for(first.wait(), 20)
                    await asyncio.to_thread(meanwhile)
                return await asyncio.gather(*work)

        return asyncio.run(all_of_them())

    def leaves(self, database: str = "", file: Path | None = None) -> list[dict[str, Any]]:
        """The log's records, in order."""
        if database:
            engine = create_engine(make_url(database).set(drivername="postgresql+psycopg"))
            with engine.connect() as connection:
                bodies = [bytes(row.body) for row in connection.execute(text(f"SELECT body FROM {audit_leaves.name} ORDER BY seq"))]
            engine.dispose()
        else:
            with closing(sqlite3.connect(f"file:{file or self.file}?mode=ro", uri=True)) as connection:
                bodies = [bytes(row[0]) for row in connection.execute(f"SELECT body FROM {audit_leaves.name} ORDER BY seq")]
        return [json.loads(body) for body in bodies]

    def recorded(self, **where: Any) -> set[str]:
        """Evaluation ids of every permit of `pay` in the log."""
        return {leaf["evaluation_id"] for leaf in self.leaves(**where) if leaf["type"] == "decision" and leaf["decision"] == "permit"}

    def proven(self, folder: Path, **where: Any) -> None:
        """Every permit the caller saw is in the log, and the log's export holds by `aftergate audit verify`."""
        assert self.permits <= self.recorded(**where), "a permit was sent that is not in the log"
        bundle = folder / f"export-{self.number}.tar.gz"
        answer = self.http.get("/v1/audit/export")
        assert answer.status_code == 200, answer.text
        bundle.write_bytes(answer.content)
        done = subprocess.run(
            [sys.executable, "-m", "aftergate.cli.main", "audit", "verify", str(bundle)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def said(self) -> list[dict[str, Any]]:
        """The server's log: each line is one JSON object."""
        return [json.loads(line) for line in self.server.text().splitlines() if line.startswith("{")]
