"""Telling a requester's endpoint that its request was decided, without letting anybody use this server to reach what they cannot.

Only https; the name is resolved here, every address it has must be public (unless the operator named the host), and the connection goes to the
very address that was checked; no redirect is followed; the body is signed. A callback is a notification: the task status endpoint stays authoritative.
Source: AuthZEN Access Request and Approval Profile, "Callback Completion" and "Callback Security".
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx2
import msgspec
import stamina
import structlog

from aftergate import __version__
from aftergate.authz.transactions.objects import rfc3339
from aftergate.errors import AftergateError
from aftergate.stores import approvals as store

if TYPE_CHECKING:
    from aftergate.service.approvals.offering import Keys
    from aftergate.service.core import Core

log = structlog.get_logger("aftergate")
KIND: Final = "callback"
SIGNATURE: Final = "aftergate-signature"
TIMEOUT_S: Final = 5.0
TRIES_MS: Final = (10_000, 60_000, 300_000, 1_800_000, 7_200_000)  # until the next try; after the last it is given up
NAT64: Final = ip_network("64:ff9b::/96")
# An IPv4 address inside (RFC 4291, section 2.5.5.1), or whatever a local translator makes of it (RFC 8215).
EMBEDDING: Final = (ip_network("::/96"), ip_network("64:ff9b:1::/48"))
Resolver = Callable[[str, int], list[str]]


class NotCalled(AftergateError):
    """An endpoint that is not called at all, now or later."""

    code = "callback-refused"


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name. Raises: OSError."""
    return sorted({str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})


def public(text: str) -> bool:
    """Whether an address is one of the public internet: not loopback, private, link-local, multicast, nor any of these inside an IPv6 form."""
    try:
        address: IPv4Address | IPv6Address = ip_address(text.split("%", 1)[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return public(str(inner))
        if address.is_site_local or any(address in network for network in EMBEDDING):
            return False
    return address.is_global and not address.is_multicast and not address.is_unspecified


def refuse_endpoint(endpoint: str, private_hosts: Iterable[str], resolver: Resolver = resolve) -> str:
    """Why an endpoint is not called; empty if it may be. `private_hosts` may have private addresses."""
    try:
        _target(endpoint, private_hosts, resolver)
    except NotCalled as error:
        return error.message
    except OSError:
        return "its host does not resolve"
    return ""


def _target(endpoint: str, private_hosts: Iterable[str], resolver: Resolver) -> tuple[str, int, str]:
    """Host, port and one checked address. Raises: NotCalled, OSError."""
    try:
        parts = urlsplit(endpoint)
        port = parts.port or 443
    except ValueError:
        raise NotCalled("it is no address") from None
    if parts.scheme != "https" or len(endpoint) > 2048 or not endpoint.isascii() or not endpoint.isprintable() or " " in endpoint:
        raise NotCalled("it must be an https address")
    if parts.username is not None or parts.password is not None or parts.fragment or not parts.hostname:
        raise NotCalled("it must have a host, and neither user nor fragment")
    host = parts.hostname.rstrip(".")
    found = resolver(host, port)
    allowed = host in {one.lower() for one in private_hosts}
    if not found or (not allowed and not all(public(one) for one in found)):
        raise NotCalled("its host is inside this network: the operator may name it in `callback_hosts`")
    return host, port, found[0]


class Callbacks:
    """Sends what waits, in a thread of its own, so that a slow endpoint holds up nothing."""

    def __init__(self, core: Core, keys: Keys, *, resolver: Resolver = resolve, tls: ssl.SSLContext | None = None) -> None:
        self._core = core
        self._keys = keys
        self._resolver = resolver
        self._tls = tls
        self._busy = threading.Lock()

    def start(self, now_ms: int) -> None:
        """Begin to send if something is due and nobody does already. Raises: StoreUnavailable."""
        with self._core.db.read() as connection:
            due = store.due_messages(connection, KIND, now_ms, limit=1)
        if due and self._busy.acquire(blocking=False):
            threading.Thread(target=self._run, name="callbacks", daemon=True).start()

    def _run(self) -> None:
        try:
            self.send_due(self._core.clock())
        except AftergateError as error:
            log.warning("callbacks wait", problem=str(error))
        finally:
            self._busy.release()

    def send_due(self, now_ms: int) -> int:
        """Try everything that is due once; gives how many were delivered. Raises: StoreUnavailable."""
        with self._core.db.read() as connection:
            due = store.due_messages(connection, KIND, now_ms)
        sent = 0
        for row in due:
            last = row.attempts >= len(TRIES_MS) - 1
            with self._core.db.write() as connection:
                mine = store.claim_message(connection, row.number, row.attempts, now_ms + TRIES_MS[min(row.attempts, len(TRIES_MS) - 1)])
            if not mine:
                continue
            problem = self._deliver(msgspec.json.decode(row.body), now_ms)
            with self._core.db.write() as connection:
                at = None if problem else self._core.clock()
                store.message_done(
                    connection,
                    row.number,
                    sent_ms=at,
                    failed=problem is not None and (last or problem.startswith("refused")),
                    problem=problem,
                )
            sent += problem is None
            if problem:
                log.warning("callback not delivered", problem=problem, last=last)
        return sent

    def _deliver(self, message: dict[str, Any], now_ms: int) -> str | None:
        """One message; what went wrong, if anything did."""
        payload: dict[str, Any] = {
            "task": {
                "id": message["task"],
                "status": message["status"],
                "status_endpoint": f"{self._core.url}/access/v1/requests/{message['task']}",
            },
            "sent_at": rfc3339(now_ms),
        }
        if message.get("state") is not None:
            payload["state"] = message["state"]
        body = msgspec.json.encode(payload)
        try:
            host, port, address = _target(message["endpoint"], self._core.settings.callback_hosts, self._resolver)
            for attempt in stamina.retry_context(on=httpx2.TransportError, attempts=3, timeout=3 * TIMEOUT_S, wait_initial=0.2):
                with attempt:
                    status = self._post(message["endpoint"], host, port, address, body)
        except NotCalled as error:
            return f"refused: {error.message}"
        except OSError as error:
            return f"no address: {type(error).__name__}"
        except httpx2.HTTPError as error:
            return f"no answer: {type(error).__name__}"
        return None if 200 <= status < 300 else f"answered {status}"

    def _post(self, endpoint: str, host: str, port: int, address: str, body: bytes) -> int:
        parts = urlsplit(endpoint)
        shown = f"[{address}]" if ":" in address else address
        url = f"https://{shown}:{port}{parts.path or '/'}" + (f"?{parts.query}" if parts.query else "")
        named = f"[{host}]" if ":" in host else host
        headers = {
            "host": named if port == 443 else f"{named}:{port}",
            "content-type": "application/json",
            "user-agent": f"aftergate/{__version__}",
            SIGNATURE: self._keys.detached(body, self._core.clock()),
        }
        # INVARIANT: the connection goes to the address that was checked; the certificate is checked for the name.
        tls = self._tls or ssl.create_default_context()
        with httpx2.Client(verify=tls, trust_env=False, follow_redirects=False, timeout=TIMEOUT_S) as client:
            request = client.build_request("POST", url, content=body, headers=headers, extensions={"sni_hostname": host})
            answer = client.send(request, stream=True)
            answer.close()  # nothing an endpoint says is read
            return answer.status_code
