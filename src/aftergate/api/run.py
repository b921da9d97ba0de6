"""Starting and stopping: everything is opened and checked before the first request is taken."""

from __future__ import annotations

import asyncio
import errno
import gc
import io
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TextIO, cast

import structlog

from aftergate.api.request_log import masked
from aftergate.errors import ConfigError
from aftergate.settings import PREFIX, Settings, is_loopback, listen_address, load, rows

BACKLOG: Final = 1024
OTHERS: Final = frozenset({"AFTERGATE_KEY", "AFTERGATE_API_KEY", "AFTERGATE_KEY_FILE", "AFTERGATE_URL"})  # of commands that are clients
AGAIN_S: Final = 1.0  # a signal that comes again sooner is the same one, sent to the process and to its group


def run(given: Mapping[str, Any]) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 0 when stopped as asked, 1 when the server had to stop.

    Raises: AftergateError, if it cannot start; then nothing listens.
    """
    settings = load(given)
    logs(settings)
    if settings.log_level != "error":
        _unknown_variables()
    host, port = listen_address(settings.listen)
    port = bindable(host, port)
    _tls(settings)
    # What is quick to refuse comes first: the parts take a second to load.
    from aftergate.api.app import create
    from aftergate.service.core import Core

    core = Core.open(settings, url=settings.url(port))
    try:
        first = _first_key(core)
        application = create(core)
        _greet(core, host, port, first)
        return asyncio.run(serve_until_stopped(core, application, host, port))
    finally:
        core.close()


async def serve_until_stopped(core: Any, application: Any, host: str, port: int) -> int:
    """Answers requests; those that are being answered when the signal comes are finished."""
    from granian.constants import Interfaces
    from granian.http import HTTP1Settings, HTTP2Settings
    from granian.server.embed import Server

    from aftergate.api.limits import HEADER_BYTES, HEADER_MS

    settings: Settings = core.settings
    server: Any = Server(
        application,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        backlog=BACKLOG,
        websockets=False,
        log_enabled=False,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_MS, max_buffer_size=2 * HEADER_BYTES),
        http2_settings=HTTP2Settings(max_headers_size=HEADER_BYTES, max_concurrent_streams=100),
        ssl_cert=Path(settings.tls_certificate) if settings.tls_certificate else None,
        ssl_key=Path(settings.tls_key) if settings.tls_key else None,
    )
    log = structlog.get_logger("aftergate")
    loop = asyncio.get_running_loop()
    asked = 0.0

    def stop() -> None:
        nonlocal asked
        if not asked:
            asked = loop.time()
            log.info("stopping: finishing what was asked")
            server.stop()
        elif loop.time() - asked > AGAIN_S:
            # Asked again: somebody does not want to wait. What was answered is recorded; the rest was not answered.
            log.warning("stopped at once")
            os._exit(1)

    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop)
    # What was loaded until now stays: policies, entities, the program itself. Looking through it for garbage stops every answer for a tenth of a second.
    gc.collect()
    gc.freeze()
    log.info("listening", url=core.url, data=str(core.data), database=core.db.name())
    await server.serve()
    # Granian's own thread ends a moment after `serve` returns; if the interpreter is gone by then, it aborts with a stack trace.
    await asyncio.sleep(0.3)
    if not asked:
        log.error("the server ended by itself")
        return 1
    log.info("stopped")
    return 0


def _unknown_variables() -> None:
    """A setting that is spelled wrongly would silently be the default."""
    known = {row.variable for row in rows()} | OTHERS
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    if unknown:
        structlog.get_logger("aftergate").warning("no such settings in the environment", variables=unknown)


def bindable(host: str, port: int) -> int:
    """The port, or a free one for 0, if this process can listen there.

    Raises: ConfigError. Without this look a second server would share the port of the first and take every other request.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
            taken: int = probe.getsockname()[1]
            return taken
    except OSError as e:
        hints = {
            errno.EADDRINUSE: "another program listens there: stop it, or give another port with --listen",
            errno.EACCES: "a port below 1024 needs a privilege: give a higher one, and put a proxy before it",
            errno.EADDRNOTAVAIL: "this machine does not have that address",
        }
        raise ConfigError(
            f"cannot listen on {host}:{port}: {e.strerror or e}",
            where="--listen",
            hint=hints.get(e.errno or 0, "give another address with --listen"),
        ) from e


def _tls(settings: Settings) -> None:
    """Raises: ConfigError, if certificate and key cannot be used together."""
    if not settings.tls_certificate:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_certificate, settings.tls_key, password=lambda: "")
    except (OSError, ValueError) as e:  # SSLError is an OSError
        words = (
            e.strerror
            if isinstance(e, OSError) and not isinstance(e, ssl.SSLError)
            else "they are no PEM certificate and its key, or the key has a passphrase"
        )
        raise ConfigError(
            f"cannot use the TLS certificate and key: {words}",
            where=f"{settings.tls_certificate}, {settings.tls_key}",
            hint="give a PEM chain with --tls-certificate and its unencrypted key with --tls-key",
        ) from e


def _first_key(core: Any) -> tuple[str, str]:
    """Keys from the operator's file; else, if there is none at all, a first one. Returns it (only when it is to be shown on the terminal) and where it lies."""
    settings: Settings = core.settings
    if settings.api_key_file:
        core.keys.take_file(Path(settings.api_key_file))
        return "", settings.api_key_file
    if core.keys.usable(core.clock()) or settings.caller_issuer:
        return "", ""
    host, _ = listen_address(settings.listen)
    if not is_loopback(host):
        raise ConfigError(
            f"listening on `{host}` with no key for callers",
            where="settings",
            hint="make one with `aftergate keys create NAME`, or give --api-key-file or --caller-issuer",
        )
    from aftergate.audit.records import Actor
    from aftergate.service.keys import SCOPES, write_secret

    if sys.stdout.isatty():
        clear, _ = core.keys.create("first", SCOPES, by=Actor("operator", "first-start"))
        return clear, ""
    path = core.data / "first-api-key"
    if not path.exists():
        import secrets

        write_secret(path, f"agk_{secrets.token_urlsafe(32)} first\n")
    core.keys.take_file(path)
    return "", str(path)


def _greet(core: Any, host: str, port: int, first: tuple[str, str]) -> None:
    clear, path = first
    key = clear or (f"$(cut -d' ' -f1 {path})" if path else "YOUR-KEY")
    lines = [f"Aftergate listens on {core.url} ({host}:{port}); its data is in {core.data}."]
    if clear:
        lines += [
            "",
            f"Your first key, shown this once:  {clear}",
            "Keep it in your secret store; `aftergate keys` makes, lists and revokes keys.",
        ]
    elif path and not core.settings.api_key_file:
        lines += ["", f"Your first key is in {path} (only you can read it): move it to your secret store and delete the file."]
    if not core.settings.policies:
        lines += ["", "No --policies given: the starter policies answer. `aftergate policy` shows, checks and tests sets."]
    request = '{"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"document","id":"welcome"}}'
    lines += [
        "",
        "Ask it something:",
        f"  curl -s {core.url}/access/v1/evaluation -H \"Authorization: Bearer {key}\" -H 'Content-Type: application/json' \\",
        f"    -d '{request}'",
        "",
        f"Next: {core.url}/approvals for people, `aftergate scan LOGS --into {core.url}` for live trust, `aftergate --help` for the rest. Stop with Ctrl-C.",
    ]
    print("\n".join(lines), flush=True)  # noqa: T201  what a person reads at the start; logs go to standard error


def logs(settings: Settings) -> None:
    """Structured logs on standard error: JSON for machines, text on a terminal."""
    from aftergate.api.request_log import add_request_id

    as_text = settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())
    level = getattr(logging, settings.log_level.upper())
    colours = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    renderer: Any = structlog.dev.ConsoleRenderer(colors=colours) if as_text else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            add_request_id,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if as_text else [structlog.processors.format_exc_info]),
            renderer,
            _masked,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Lines(sys.stderr))),
        cache_logger_on_first_use=True,
    )


class _Lines(io.TextIOBase):
    """Where log lines go. One that cannot be written (the disk is full, the reader is gone) is lost and ends nothing: threads that write records,
    answers and the stop itself log on their way.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            return self._out.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._out.flush()


def _masked(_logger: Any, _method: str, line: Any) -> str:
    """A second net under the rule that no secret is logged, also in the words of a foreign exception."""
    return masked(line)
