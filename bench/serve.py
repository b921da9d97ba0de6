"""Decisions over HTTP: the rate of an evaluation with live trust beside a route that only echoes, on the same server in the same run; and the peer Cerbos.

    python bench/serve.py            # about a minute; needs wrk
    python bench/serve.py --serve DIR PORT    # what it starts: the server, with the echo route beside its own
Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from decide import DOCS, GROUPS, USERS, bodies, policies, store

HERE = Path(__file__).parent
KEY = "bench-key-with-every-scope-0123456789"
SECONDS = 4
ROUNDS = 3
CONNECTIONS = 16
CERBOS_RULES = 100


class Echo:
    """A raw route that reads the body and sends it back: what the server costs before it thinks. Everything else goes to Aftergate."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/bench/echo":
            await self._app(scope, receive, send)
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def serve(folder: Path, port: int) -> None:
    """Aftergate with the echo route beside its own."""
    from aftergate.api.app import create
    from aftergate.api.run import logs, serve_until_stopped
    from aftergate.service.core import Core
    from aftergate.settings import load

    settings = load(
        {
            "listen": f"127.0.0.1:{port}",
            "data": str(folder / "data"),
            "policies": str(folder / "policies"),
            "entities": str(folder / "entities.json"),
            "log_level": "warning",
        },
        {},
    )
    logs(settings)
    core = Core.open(settings)
    core.keys.take_file(folder / "keys.txt")
    asyncio.run(serve_until_stopped(core, Echo(create(core)), "127.0.0.1", port))


def prepare(folder: Path) -> None:
    (folder / "policies").mkdir()
    (folder / "policies" / "bench.cedar").write_text(policies())
    (folder / "entities.json").write_text(json.dumps(store()))
    (folder / "keys.txt").write_text(f"{KEY} bench\n")
    asked = [body.decode() for body in bodies(1000, with_properties=False)]
    lines = ",\n".join(json.dumps(body) for body in asked)
    script = f"""
local bodies = {{{lines}}}
local headers = {{["Content-Type"] = "application/json", ["Authorization"] = "Bearer {KEY}"}}
local n = 0
request = function()
  n = n % #bodies + 1
  return wrk.format("POST", nil, headers, bodies[n])
end
"""
    (folder / "requests.lua").write_text(script)
    # The same kind of request, but hardly ever the same one: nothing that is remembered helps.
    fresh = f"""
local headers = {{["Content-Type"] = "application/json", ["Authorization"] = "Bearer {KEY}"}}
local form = {json.dumps(form())}
request = function()
  local user, doc = math.random(0, {USERS - 1}), math.random(0, {DOCS - 1})
  return wrk.format("POST", nil, headers, string.format(form, user, user % {GROUPS} / 2, doc))
end
"""
    (folder / "fresh.lua").write_text(fresh)


def form() -> str:
    """A request as those of `decide.bodies`, with holes for user, action and document."""
    made = {
        "subject": {"type": "user", "id": "u%d"},
        "action": {"name": "act%d"},
        "resource": {"type": "doc", "id": "d%d"},
        "context": {"session_id": "s1", "credential_id": "c1", "ip": "192.0.2.1"},
    }
    return json.dumps(made)


def tell_findings(url: str) -> None:
    """Open findings on some of the subjects, so that live trust has something to weigh."""
    lines = []
    for number in range(0, 1000, 10):
        finding = {
            "id": f"bench-{number}", "detection": "tok-family-fork", "severity": "medium", "time": "2026-01-01T00:00:00.000Z", "title": "bench",
            "subject": {"identity": f"u{number}"},
        }  # fmt: skip
        lines.append(json.dumps(finding))
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/x-ndjson"}
    request = urllib.request.Request(f"{url}/v1/findings", "\n".join(lines).encode(), headers)  # noqa: S310
    urllib.request.urlopen(request, timeout=30).read()  # noqa: S310


def wrk(url: str, script: Path) -> dict[str, float]:
    """One run: requests a second and the 99th percentile in milliseconds. A run with answers that are not 2xx counts for nothing."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency", "-s", str(script), url]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stdout  # noqa: S603
    if "Non-2xx" in said or "Socket errors" in said:
        sys.exit(f"{url} did not answer as it should:\n{said}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    tail = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    if rate is None or tail is None:
        sys.exit(f"wrk said nothing of use:\n{said}")
    return {"rate": float(rate[1]), "p99_ms": float(tail[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[tail[2]]}


@contextlib.contextmanager
def running(command: list[str], url: str, *, quiet: bool = False) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL if quiet else None) as process:  # noqa: S603
        try:
            until = time.monotonic() + 120
            while True:
                with contextlib.suppress(OSError, urllib.error.URLError):
                    urllib.request.urlopen(url, timeout=2).read()  # noqa: S310
                    break
                if process.poll() is not None or time.monotonic() > until:
                    sys.exit(f"`{' '.join(command[:2])}` did not start")
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(30)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cerbos(folder: Path) -> dict[str, float] | None:
    """The peer: one resource policy of as many rules, over its HTTP API. None where its npm package is not installed."""
    program = next(iter((HERE.parent / ".venv").glob("node/node_modules/@cerbos/cerbos-linux-x64/cerbos-linux-x64")), None)
    if program is None:
        return None
    port, other = free_port(), free_port()
    home = folder / "cerbos"
    (home / "policies").mkdir(parents=True)
    rules = "\n".join(
        f'    - actions: ["a{i}"]\n      effect: EFFECT_ALLOW\n      roles: ["user"]\n      condition:\n        match:\n'
        f"          expr: request.resource.attr.owner == request.principal.id && request.principal.attr.trust > {i % 90}"
        for i in range(CERBOS_RULES)
    )
    head = 'apiVersion: api.cerbos.dev/v1\nresourcePolicy:\n  version: "default"\n  resource: "doc"\n  rules:\n'
    (home / "policies" / "doc.yaml").write_text(head + rules + "\n")
    config = {
        "server": {"httpListenAddr": f"127.0.0.1:{port}", "grpcListenAddr": f"127.0.0.1:{other}"},
        "storage": {"driver": "disk", "disk": {"directory": str(home / "policies")}},
        "telemetry": {"disabled": True},
        "audit": {"enabled": False},
    }
    (home / "config.json").write_text(json.dumps(config))
    body = {
        "requestId": "r",
        "principal": {"id": "u1", "roles": ["user"], "attr": {"trust": 95}},
        "resources": [{"actions": ["a50"], "resource": {"kind": "doc", "id": "d1", "attr": {"owner": "u1"}}}],
    }
    script = f'wrk.method="POST"\nwrk.headers["Content-Type"]="application/json"\nwrk.body={json.dumps(json.dumps(body))}\n'
    (home / "requests.lua").write_text(script)
    with running(
        [str(program), "server", "--log-level=error", f"--config={home / 'config.json'}"],
        f"http://127.0.0.1:{port}/_cerbos/health",
        quiet=True,
    ):
        runs = [wrk(f"http://127.0.0.1:{port}/api/check/resources", home / "requests.lua") for _ in range(2)]
    return max(runs, key=lambda run: run["rate"])


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]), int(sys.argv[3]))
        return
    if shutil.which("wrk") is None:
        sys.exit("`wrk` is not on the path: install it (Debian: apt-get install wrk)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        echoes, decisions, others = [], [], []
        command = [sys.executable, str(HERE / "serve.py"), "--serve", str(folder), str(port)]
        with running(command, f"{url}/readyz"):
            tell_findings(url)
            for _ in range(ROUNDS):
                echoes.append(wrk(f"{url}/bench/echo", folder / "requests.lua"))
                decisions.append(wrk(f"{url}/access/v1/evaluation", folder / "requests.lua"))
                others.append(wrk(f"{url}/access/v1/evaluation", folder / "fresh.lua"))
        peer = cerbos(folder)
    echo, decision, other = (max(runs, key=lambda run: run["rate"]) for runs in (echoes, decisions, others))
    answer = {
        "echo": echo,
        "decision": decision,
        "fresh": other,
        "ratio": decision["rate"] / echo["rate"],
        "cerbos": peer,
        "cpus": os.cpu_count(),
    }
    print(json.dumps(answer))  # noqa: T201


if __name__ == "__main__":
    main()
