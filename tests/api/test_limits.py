"""What one request may cost, on every way in."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from serving import KEY, Server

from aftergate.api import limits
from aftergate.api.auth import Failures, Refused

pytestmark = pytest.mark.serving

# The raw path, a route with a typed body, one that reads its body by hand, and one that OAuth reads.
WAYS = [
    "/access/v1/evaluation",
    "/access/v1/evaluations",
    "/v1/keys",
    "/v1/findings",
    "/access/v1/requests",
    "/v1/tasks",
    "/oauth/token",
    "/v1/login/passkey",
]
LIMIT = 1_048_576


def raw(server: Server, text: bytes, *, then: bytes = b"", wait_s: float = 15) -> bytes:
    """What comes back for bytes sent as they are."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait_s) as connection:
        connection.sendall(text)
        got = b""
        try:
            if then:
                connection.sendall(then)
            while part := connection.recv(65536):
                got += part
                if b"\r\n\r\n" in got and not then:
                    break
        except (ConnectionResetError, BrokenPipeError, TimeoutError):
            pass
        return got


@pytest.mark.parametrize("path", WAYS)
def test_a_length_beyond_the_limit_is_refused_before_the_body_is_read(server: Server, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: {LIMIT + 1}\r\n\r\n"
    answer = raw(server, head.encode())
    assert answer.startswith(b"HTTP/1.1 413"), answer[:200]
    assert b"application/problem+json" in answer
    assert b"x-content-type-options: nosniff" in answer


@pytest.mark.parametrize("path", WAYS)
def test_a_body_in_chunks_beyond_the_limit_is_refused(http: httpx2.Client, path: str) -> None:
    def parts() -> Iterator[bytes]:
        yield b'{"a":"'
        for _ in range(20):
            yield b"x" * 65536
        yield b'"}'

    try:
        answer = http.post(path, content=parts(), headers={"content-type": "application/json"})
    except httpx2.HTTPError:
        return  # it was cut off before all was sent
    assert answer.status_code in ({413} if path != "/v1/login/passkey" else {403, 413}), (path, answer.status_code, answer.text[:200])


@pytest.mark.parametrize("length", ["-1", "+5", "0x10", "1e3", "99999999999999999999", "5, 5", ""])
def test_a_length_that_is_none_is_refused(server: Server, length: str) -> None:
    head = f"POST /v1/keys HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {length}\r\n\r\n"
    assert raw(server, head.encode(), wait_s=3)[9:12] in {b"400", b"413", b""}


@pytest.mark.parametrize(
    "path", ["/access/v1/evaluation", "/access/v1/evaluations", "/v1/keys", "/v1/people", "/access/v1/requests", "/v1/tasks"]
)
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_json_that_is_nested_too_deeply_is_refused_in_words(http: httpx2.Client, path: str, opening: bytes) -> None:
    for depth in (40, 5_000, 100_000):
        body = opening * depth
        answer = http.post(
            path, content=body + (b"]" if opening == b"[" else b"1" + b"}") * depth, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400, (path, depth, answer.text[:200])


@pytest.mark.parametrize(
    "body",
    [
        b'{"name":"a","name":"b","scopes":["audit"]}',
        b'{"name":"\\ud800","scopes":["audit"]}',
        b"\xff\xfe",
        b"{",
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"1e999",
    ],
)
def test_json_that_is_not_strict_is_refused(http: httpx2.Client, body: bytes) -> None:
    answer = http.post("/v1/keys", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("application/problem+json")


def test_headers_beyond_the_limit_are_refused(server: Server) -> None:
    big = f"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Big: {'x' * 40_000}\r\n\r\n".encode()
    assert raw(server, big)[9:12] == b"431"
    many = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(300)) + b"\r\n"
    assert raw(server, many)[9:12] == b"431"
    long = f"GET /{'x' * 200_000} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    assert raw(server, long)[9:12] in {b"414", b"431", b"404", b""}
    assert raw(server, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")[9:12] == b"200"


def test_bytes_that_are_no_http_do_no_harm(server: Server, stranger: httpx2.Client) -> None:
    for text in (
        b"\x00" * 100,
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/keys HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ):
        raw(server, text, wait_s=2)
    assert stranger.get("/healthz").status_code == 200


def test_length_and_chunks_together_are_not_taken(server: Server) -> None:
    """Two ways to say where a body ends are how one request is smuggled behind another (RFC 9112, 6.3)."""
    head = f"POST /v1/keys HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = raw(server, head.encode() + b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", wait_s=3)
    assert answer.count(b"HTTP/1.1 200") <= 1
    assert answer[9:12] in {b"400", b""}


@pytest.mark.slow
def test_slow_headers_are_cut_off(server: Server) -> None:
    began = time.monotonic()
    raw(server, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", then=b"a", wait_s=30)
    assert time.monotonic() - began < 25


def test_a_body_that_does_not_arrive_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_S", 0.05)

    async def slow() -> dict[str, Any]:
        await asyncio.sleep(0.03)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def read() -> int:
        receive = limits.Bounded(slow, 1000, limits.Patience(0.01))
        for count in range(100):
            try:
                await receive()
            except Refused as refused:
                assert refused.status == 408
                return count
        raise AssertionError("never given up")

    assert asyncio.run(read()) < 5


def test_a_body_that_never_comes_is_given_up_and_the_server_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_S", 0.05)
    patience = limits.Patience(0.01)

    async def never() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError("waited")

    async def soon() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x", "more_body": False}

    async def both() -> int:
        with pytest.raises(Refused) as refused:
            await limits.Bounded(never, 1000, patience)()
        await limits.Bounded(soon, 1000, patience)()
        return refused.value.status

    assert asyncio.run(both()) == 408


def test_who_goes_away_while_the_body_is_read_is_no_slow_body() -> None:
    async def never() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError("waited")

    async def left() -> None:
        task = asyncio.ensure_future(limits.Bounded(never, 1000, limits.Patience(0.01))())
        await asyncio.sleep(0.01)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(left())


def test_after_the_body_the_time_is_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_S", 0.05)

    async def receive() -> dict[str, Any]:
        if sent:
            await asyncio.sleep(0.1)
            return {"type": "http.disconnect"}
        sent.append(1)
        return {"type": "http.request", "body": b"x", "more_body": False}

    async def both() -> str:
        bounded = limits.Bounded(receive, 1000, limits.Patience(0.01))
        await bounded()
        last: str = (await bounded())["type"]
        return last

    sent: list[int] = []
    assert asyncio.run(both()) == "http.disconnect"


def test_failures_are_answered_429_after_the_limit_and_known_keys_are_not(tmp_path: Path, policies: Path) -> None:
    with Server(tmp_path / "s", "--policies", str(policies), "--failures-per-minute", "5") as made:
        wrong = {"authorization": "Bearer wrong-key-000000000000"}
        got = [httpx2.get(made.url + "/v1/status", headers=wrong, trust_env=False) for _ in range(8)]
        # The minute may turn in between: then the count begins anew, once.
        codes = [answer.status_code for answer in got]
        assert set(codes) == {401, 429}, codes
        assert got[-1].status_code == 429
        assert 0 < int(got[-1].headers["retry-after"]) <= 60
        raw_path = httpx2.post(made.url + "/access/v1/evaluation", headers=wrong, json={}, trust_env=False)
        assert raw_path.status_code == 429
        assert raw_path.headers["retry-after"]
        assert httpx2.get(made.url + "/v1/status", headers={"authorization": f"Bearer {made.key}"}, trust_env=False).status_code == 200


def test_failures_are_counted_by_address_and_forgotten_with_the_minute() -> None:
    held = Failures(2)
    for _ in range(2):
        held.check("192.0.2.1", 0)
        held.add("192.0.2.1", 0)
    with pytest.raises(Refused) as refused:
        held.check("192.0.2.1", 59_999)
    assert refused.value.status == 429
    held.check("192.0.2.2", 0)
    held.check("192.0.2.1", 60_000)


def test_failures_of_one_ipv6_network_count_together() -> None:
    held = Failures(2)
    for last in ("1", "ffff:1"):
        held.add(f"2001:db8:1:2::{last}", 0)
    with pytest.raises(Refused):
        held.check("2001:db8:1:2:9::9", 0)
    held.check("2001:db8:1:3::1", 0)


def test_failures_take_a_bounded_room() -> None:
    held = Failures(2)
    for number in range(30_000):
        held.add(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0)
    assert len(held._held) <= 20_000


def test_an_error_never_shows_what_was_sent(http: httpx2.Client) -> None:
    body = json.dumps({"name": "hunter2-secret", "scopes": "hunter2-secret", "x": "hunter2-secret"})
    answer = http.post("/v1/keys", content=body.encode(), headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "hunter2" not in answer.text
