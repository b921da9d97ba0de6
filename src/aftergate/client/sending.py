"""Requests on their way: tried again only where that can do no harm, and nothing that is unclear is taken for an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

import httpx2
import msgspec
import stamina

from aftergate import __version__
from aftergate.errors import AftergateError, ConfigError
from aftergate.settings import is_loopback

T = TypeVar("T")


class Proof(Protocol):
    """Makes a fresh DPoP proof (RFC 9449) for one request; `ath` is what else it is bound to: a token, or an approval's id."""

    def __call__(self, method: str, url: str, ath: str = "") -> str: ...


ATTEMPTS: Final = 4
LONGEST_WAIT_S: Final = 5.0
NOT_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)  # nothing has reached the server


class Unanswered(AftergateError):
    """The server did not answer, or not in a way that says anything: it is not known what happened there. Never a permit."""

    code = "unanswered"
    hint = "see that the server is up: its /readyz and its log say what is wrong"

    def __init__(self, message: str, *, where: str = "", again: bool | float = False) -> None:
        super().__init__(message, where=where)
        self.again = again  # whether trying again could help; a number is how many seconds to wait


class Refused(AftergateError):
    """The server said no to the request itself: not authenticated, not allowed, not right. `body` is its answer."""

    code = "refused"

    def __init__(self, status: int, message: str, body: Mapping[str, Any], *, where: str = "") -> None:
        super().__init__(f"{status}: {message}", where=where)
        self.status = status
        self.body = body
        self.type = str(body.get("type", body.get("error", "")))


class Sender:
    """One server, one key. Safe to use from several threads."""

    def __init__(self, url: str, key: str = "", *, timeout_s: float = 10.0, proof: Proof | None = None, verify: Any = True) -> None:
        """`key` is an API key or access token. `proof` shows that this client holds the key its approvals and tokens are bound to.

        Raises: ConfigError, for an address that would send the key in clear.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ConfigError(f"`{url}` is not a server's address", hint="for example https://aftergate.example.org")
        if parts.scheme == "http" and key and not is_loopback(parts.hostname):
            raise ConfigError("the key would cross the network in clear", where=url, hint="use https")
        self.url = url.rstrip("/")
        self._proof = proof
        headers = {"user-agent": f"aftergate/{__version__}", "accept": "application/json"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        # The environment's proxies and `.netrc` stay out of it: where a key goes is what the caller said.
        self._client = httpx2.Client(
            base_url=self.url, timeout=timeout_s, headers=headers, trust_env=False, verify=verify, follow_redirects=False
        )

    def close(self) -> None:
        self._client.close()

    def ask(self, want: type[T], method: str, path: str, *, safe: bool, prove: bool = False, ath: str = "", **request: Any) -> T:
        """The answer, typed. `safe` requests may reach the server more than once; others are tried again only if they never reached it.

        Raises: Refused, Unanswered.
        """
        answer = self.send(method, path, safe=safe, prove=prove, ath=ath, **request)
        try:
            return msgspec.json.decode(answer.content, type=want)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise Unanswered("the answer is not one of Aftergate's", where=self.url + path) from None

    def send(self, method: str, path: str, *, safe: bool, prove: bool = False, ath: str = "", **request: Any) -> httpx2.Response:
        """The answer as it came, if it is a success. Raises: Refused, Unanswered."""

        def again(error: Exception) -> bool | float:
            if not isinstance(error, Unanswered):
                return False
            return error.again if safe or isinstance(error.__cause__, NOT_SENT) else False

        for attempt in stamina.retry_context(on=again, attempts=ATTEMPTS, timeout=30.0, wait_initial=0.1, wait_max=LONGEST_WAIT_S):
            with attempt:
                return self._once(method, path, prove=prove, ath=ath, **request)
        raise AssertionError("stamina ends with an answer or an error")

    def _once(
        self, method: str, path: str, *, prove: bool, ath: str, headers: Mapping[str, str] | None = None, **request: Any
    ) -> httpx2.Response:
        where = self.url + path
        sent = dict(headers or {})
        if prove and self._proof is not None:
            sent["dpop"] = self._proof(method, where, ath)  # a new one each time: a server takes each once
        try:
            answer = self._client.request(method, path, headers=sent, **request)
        except httpx2.HTTPError as error:
            raise Unanswered(f"no answer: {type(error).__name__}", where=where, again=True) from error
        if 200 <= answer.status_code < 300:
            return answer
        raise self._refusal(answer, where)

    def _refusal(self, answer: httpx2.Response, where: str) -> AftergateError:
        try:
            body = msgspec.json.decode(answer.content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            body = {}
        if isinstance(body, str):  # AuthZEN's errors are a message
            body = {"title": body}
        elif not isinstance(body, dict):
            body = {}
        words = str(body.get("detail") or body.get("title") or body.get("error_description") or body.get("error") or answer.reason_phrase)[
            :500
        ]
        status = answer.status_code
        if status in {408, 429} or status >= 500:
            return Unanswered(
                f"the server answered {status}: {words}", where=where, again=_wait(answer) if status in {429, 502, 503, 504} else False
            )
        if 400 <= status < 500:
            return Refused(status, words, body, where=where)
        return Unanswered(f"the server answered {status}, which says nothing", where=where)

    @contextmanager
    def stream(self, method: str, path: str, **request: Any) -> Iterator[httpx2.Response]:
        """An answer too large to hold. Raises: Refused, Unanswered."""
        where = self.url + path
        try:
            with self._client.stream(method, path, **request) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise self._refusal(answer, where)
                yield answer
        except httpx2.HTTPError as error:
            raise Unanswered(f"the answer broke off: {type(error).__name__}", where=where) from error


def _wait(answer: httpx2.Response) -> bool | float:
    said = answer.headers.get("retry-after", "")
    return min(float(said), LONGEST_WAIT_S) if said.isdigit() and said != "0" else True
