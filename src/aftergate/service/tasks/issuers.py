"""The keys of issuers and trust domains: fetched, kept, renewed when they rotate.

An issuer's address comes from the operator; what its discovery document names does not, and is held to the same host or to public addresses.
Sources: OpenID Connect Discovery 1.0 section 4, RFC 8414, 04 section 4.4.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import msgspec
import stamina
from msgspec import Struct

from aftergate.errors import AftergateError
from aftergate.service.callbacks import public, resolve
from aftergate.settings import is_loopback

TIMEOUT_S: Final = 5
LARGEST_B: Final = 1_048_576
KEEP_MS: Final = 600_000
AGAIN_MS: Final = 10_000  # an unknown key id asks the issuer again at most this often
DOWN_MS: Final = 3_000  # an issuer that gave no answer is asked again after this
STALE_MS: Final = 86_400_000  # keys are used for so long while the issuer does not answer


class IssuerUnavailable(AftergateError):
    """An issuer's keys can't be had: its tokens are refused until they can."""

    code = "issuer-unavailable"
    hint = "see that the issuer's address is right and that this server reaches it"


class _Discovery(Struct):
    issuer: str
    jwks_uri: str


class _Held(Struct):
    jwks: Mapping[str, Any]
    at_ms: int
    tried_ms: int


class IssuerKeys:
    """Key sets by issuer. Thread-safe; one fetch at a time for each issuer."""

    def __init__(
        self,
        clock: Callable[[], int],
        static: Mapping[str, Mapping[str, Any]] | None = None,
        transport: httpx2.BaseTransport | None = None,
        resolver: Callable[[str, int], list[str]] = resolve,
    ) -> None:
        self._clock = clock
        self._static = dict(static or {})
        self._held: dict[str, _Held] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._down_ms: dict[str, int] = {}
        self._guard = threading.Lock()
        self._resolver = resolver
        self._client = httpx2.Client(
            timeout=TIMEOUT_S, follow_redirects=False, trust_env=False, transport=transport, headers={"accept": "application/json"}
        )

    def keys(self, issuer: str, kid: str | None) -> Mapping[str, Any]:
        """The issuer's key set; fetched again when it is old or does not hold `kid`.

        Raises: IssuerUnavailable.
        """
        static = self._static.get(issuer)
        if static is not None:
            return static
        with self._guard:
            lock = self._locks.setdefault(issuer, threading.Lock())
        with lock:
            now = self._clock()
            held = self._held.get(issuer)
            if held is not None:
                knows = kid is None or any(key.get("kid") == kid for key in held.jwks["keys"])
                if (knows and now - held.at_ms < KEEP_MS) or now - held.tried_ms < AGAIN_MS:
                    return held.jwks
                held.tried_ms = now
            if held is None and 0 <= now - self._down_ms.get(issuer, -DOWN_MS) < DOWN_MS:
                raise IssuerUnavailable("the issuer does not answer", where=issuer)
            try:
                jwks = self._fetch(issuer)
            except IssuerUnavailable:
                self._down_ms[issuer] = self._clock()  # nobody who comes with a token waits for what just failed
                if held is None or now - held.at_ms > STALE_MS:
                    raise
                return held.jwks
            self._held[issuer] = _Held(jwks, now, now)
            return jwks

    def _fetch(self, issuer: str) -> Mapping[str, Any]:
        found: _Discovery | None = None
        problem: IssuerUnavailable | None = None
        for address in discovery_addresses(issuer):
            try:
                found = msgspec.convert(self._json(address), _Discovery)
            except IssuerUnavailable as error:
                problem = problem or error
                continue
            except msgspec.ValidationError as error:
                raise IssuerUnavailable(f"the issuer's metadata cannot be used: {error}", where=address) from None
            break
        if found is None:
            assert problem is not None
            raise problem
        if found.issuer != issuer:
            raise IssuerUnavailable("the metadata is of another issuer", where=issuer)
        self._allowed(issuer, found.jwks_uri)
        jwks = self._json(found.jwks_uri)
        keys = jwks.get("keys")
        if not isinstance(keys, list):
            raise IssuerUnavailable("the issuer's key set holds no `keys`", where=found.jwks_uri)
        return {"keys": [key for key in keys if isinstance(key, dict) and key.get("kty") in {"RSA", "EC", "OKP"} and "d" not in key]}

    def _allowed(self, issuer: str, address: str) -> None:
        """An address out of a discovery document must not send us to a service inside this network. Raises: IssuerUnavailable."""
        home, there = urlsplit(issuer), urlsplit(address)
        host = there.hostname or ""
        plain = there.scheme == "http" and is_loopback(host) and is_loopback(home.hostname or "")
        if not host or there.username is not None or there.fragment or (there.scheme != "https" and not plain):
            raise IssuerUnavailable("the issuer's `jwks_uri` is not an https address", where=issuer)
        if plain or (host == home.hostname and there.port == home.port):
            return
        try:
            addresses = self._resolver(host, there.port or 443)
        except OSError:
            addresses = []
        if not addresses or not all(public(each) for each in addresses):
            raise IssuerUnavailable("the issuer's `jwks_uri` leads into this network", where=issuer)

    def _json(self, address: str) -> dict[str, Any]:
        try:
            for attempt in stamina.retry_context(on=httpx2.TransportError, attempts=3, timeout=2 * TIMEOUT_S, wait_initial=0.1, wait_max=1):
                with attempt:
                    body = self._once(address)
        except httpx2.HTTPError as error:
            raise IssuerUnavailable(f"the issuer does not answer: {type(error).__name__}", where=address) from None
        try:
            made = msgspec.json.decode(body)
        except msgspec.DecodeError:
            raise IssuerUnavailable("the issuer's answer is not JSON", where=address) from None
        if not isinstance(made, dict):
            raise IssuerUnavailable("the issuer's answer is not a JSON object", where=address)
        return made

    def _once(self, address: str) -> bytes:
        with self._client.stream("GET", address) as response:
            body = b""
            for part in response.iter_bytes():
                body += part
                if len(body) > LARGEST_B:
                    raise IssuerUnavailable("the issuer's answer is too large", where=address)
            if response.status_code != 200:
                raise IssuerUnavailable(f"the issuer answered {response.status_code}", where=address)
        return body

    def close(self) -> None:
        self._client.close()


def discovery_addresses(issuer: str) -> list[str]:
    """Where metadata may be, in the order of 03, 3.7: OAuth with the path inserted, OpenID with the path inserted, OpenID with it appended."""
    parts = urlsplit(issuer)
    root, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    appended = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    if not path:
        return [appended, f"{root}/.well-known/oauth-authorization-server"]
    return [f"{root}/.well-known/oauth-authorization-server{path}", f"{root}/.well-known/openid-configuration{path}", appended]


class Bundles:
    """Trust bundles from their files, read again when a file changes; the last good one is kept, and a file that is gone ends its domain (04, 4.4)."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = dict(files)
        self._held: dict[str, tuple[tuple[int, int], Mapping[str, Any]]] = {}
        self._lock = threading.Lock()
        self.problems: dict[str, str] = {}

    def current(self) -> Mapping[str, Mapping[str, Any]]:
        """Bundles by trust domain."""
        made: dict[str, Mapping[str, Any]] = {}
        with self._lock:
            for domain, path in self._files.items():
                bundle = self._one(domain, path)
                if bundle is not None:
                    made[domain] = bundle
        return made

    def _one(self, domain: str, path: Path) -> Mapping[str, Any] | None:
        held = self._held.get(domain)
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if held is not None and held[0] == stamp:
                return held[1]
            made = msgspec.json.decode(path.read_bytes())
            if not isinstance(made, dict) or not isinstance(made.get("keys"), list):
                raise ValueError("no `keys`")  # noqa: TRY004  it is the file's content that is wrong
        except FileNotFoundError:
            self._held.pop(domain, None)
            self.problems[domain] = "its bundle file is not there, so none of its workloads is believed"
            return None
        except (OSError, ValueError, msgspec.DecodeError) as error:
            self.problems[domain] = f"its bundle file cannot be used ({type(error).__name__}); the last good one stays"
            return held[1] if held is not None else None
        before = held[1].get("spiffe_sequence") if held is not None else None
        after = made.get("spiffe_sequence")
        if held is not None and isinstance(before, int) and isinstance(after, int) and after < before:
            self.problems[domain] = "its bundle file went back to an older sequence; the last good one stays"
            return held[1]
        self._held[domain] = (stamp, made)
        self.problems.pop(domain, None)
        return made
