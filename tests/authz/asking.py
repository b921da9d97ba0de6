"""A real server for the tests of decisions, and a caller of it."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from serving import Server

DATA = Path(__file__).parent.parent / "data/authzen"


class Caller:
    """A connection for each request. `ask` gives status, headers in lower case, and the decoded body."""

    def __init__(self, server: Server) -> None:
        parts = urlsplit(server.url)
        self.key = server.key
        self.address = parts.hostname or "", parts.port

    def ask(
        self, method: str, path: str, body: Any = None, /, *, raw: bytes | None = None, **headers: str | None
    ) -> tuple[int, dict[str, str], Any]:
        sent = raw if raw is not None else None if body is None else json.dumps(body).encode()
        held = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        held |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        try:
            connection.request(method, path, sent, {name: value for name, value in held.items() if value is not None})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        kind = answer.headers.get("content-type", "")
        return (
            answer.status,
            {name.lower(): value for name, value in answer.headers.items()},
            json.loads(text) if "json" in kind and text else text,
        )

    def evaluate(self, body: Any, **headers: str | None) -> tuple[int, dict[str, str], Any]:
        return self.ask("POST", "/access/v1/evaluation", body, **headers)


def serve(folder: Path, name: str = "", *more: str, database: str = "") -> Server:
    """A server with one of the working group's sets, or (no name) with the starter set."""
    arguments = ["--policies", str(DATA / name / "policies"), "--entities", str(DATA / name / "entities.json")] if name else []
    if database:
        arguments += ["--database", database]
    return Server(folder, *arguments, *more).start()
