"""The routes of people, called as a browser and as an administrator would, with a clock moved by hand."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from typing import Any

import httpx2
import pytest

from aftergate.api.app import create
from aftergate.audit.records import Actor
from aftergate.authz.transactions.canonical import unb64url
from aftergate.authz.transactions.softkey import new_key
from aftergate.service.clock import Clock
from aftergate.service.core import Core
from aftergate.settings import Settings

URL = "https://gate.example.org"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ADMIN = "key-of-an-administrator-0123456789"
ENTROPY = b"0123456789abcdef" * 4


class Browser:
    """One browser: keeps cookies, sends the origin, holds a passkey."""

    def __init__(self, core: Core, origin: str = URL) -> None:
        self.app: Any = create(core)
        self.origin = origin
        self.cookies: dict[str, str] = {}
        self.set: list[str] = []
        self.key: Any = None

    def __call__(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, cookies: bool = True
    ) -> httpx2.Response:
        sent = {"origin": self.origin, **(headers or {})}
        if cookies and self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())

        async def go() -> httpx2.Response:
            transport = httpx2.ASGITransport(app=self.app, client=("203.0.113.7", 50000))
            async with httpx2.AsyncClient(transport=transport, base_url=URL) as client:
                return await client.request(method, path, json=body, headers={k: v for k, v in sent.items() if v})

        answer = asyncio.run(go())
        self.set = answer.headers.get_list("set-cookie")
        for each in self.set:
            name, _, rest = each.partition("=")
            value = rest.partition(";")[0].strip('"')
            if value:
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)
        return answer

    def enrol(self, link: str) -> httpx2.Response:
        secret = link.partition("#")[2]
        options = self("POST", "/v1/enrol/options", {"secret": secret}).json()["public_key"]
        key = new_key(options["rp"]["id"], unb64url(options["user"]["id"]), lambda n: ENTROPY[:n])
        self.key, made = key.register(unb64url(options["challenge"]), self.origin)
        return self("POST", "/v1/enrol", {"secret": secret, "credential": made, "name": "Laptop"})

    def login(self) -> httpx2.Response:
        options = self("POST", "/v1/login/passkey/options", {}).json()["public_key"]
        self.key, made = self.key.assertion(unb64url(options["challenge"]), self.origin)
        return self("POST", "/v1/login/passkey", {"credential": made})

    def admin(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        return self(method, path, body, headers={"authorization": f"Bearer {ADMIN}", "origin": ""}, cookies=False)


class Hand:
    def __init__(self) -> None:
        self.at = time.monotonic() + 1_800_000_000

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture(scope="session")
def begun(tmp_path_factory):
    """A data directory whose server has started once."""
    data = tmp_path_factory.mktemp("begun") / "data"
    hand = Hand()
    made = Core.open(Settings(data=str(data), public_url=URL), clock=Clock(wall=hand, steady=hand), url=URL)
    made.keys.create("admin", ["admin"], by=Actor("operator", "test"), key=ADMIN)
    made.close()
    return data


@pytest.fixture
def core(tmp_path, hand, begun):
    shutil.copytree(begun, tmp_path / "data")
    made = Core.open(Settings(data=str(tmp_path / "data"), public_url=URL), clock=Clock(wall=hand, steady=hand), url=URL)
    yield made
    made.close()


@pytest.fixture
def browser(core):
    made = Browser(core)
    link = made.admin("POST", "/v1/people", {"id": "alice", "groups": ["finance"]}).json()["link"]
    assert made.enrol(link).status_code == 201
    assert made.login().status_code == 200
    return made


def test_the_session_cookie_is_for_this_host_https_and_no_script(browser):
    browser.login()
    (session,) = [each for each in browser.set if each.startswith("__Host-aftergate_session=")]
    flags = {part.strip().lower() for part in session.split(";")[1:]}
    assert {"secure", "httponly", "samesite=strict", "path=/"} <= flags
    assert not any(flag.startswith(("domain", "max-age", "expires")) for flag in flags)


def test_under_https_a_cookie_without_the_prefix_counts_for_nothing(browser):
    value = browser.cookies["__Host-aftergate_session"]
    browser.cookies = {"aftergate_session": value}
    assert browser("GET", "/v1/me").status_code == 401


def test_me_says_who_how_and_until_when(browser):
    me = browser("GET", "/v1/me").json()
    assert (me["id"], me["groups"], me["method"], me["fresh"], me["authenticators"]) == ("alice", ["finance"], "passkey", True, 1)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", "http://gate.example.org", "https://gate.example.org.evil.example"])
def test_what_changes_something_comes_from_our_own_page_alone(browser, origin):
    for path, body in (
        ("/v1/logout", None), ("/v1/me/authenticators/options", {}), ("/v1/login/passkey/options", {}), ("/v1/enrol/options", {"secret": "x"}),
        ("/v1/login/passkey", {"credential": {}}), ("/v1/enrol", {"secret": "x", "credential": {}}),
    ):  # fmt: skip
        assert browser("POST", path, body, headers={"origin": origin}).status_code == 403, path
    assert browser("GET", "/v1/me").status_code == 200


def test_authenticators_change_only_soon_after_a_login(browser, hand):
    assert browser("POST", "/v1/me/authenticators/options", {}).status_code == 200
    for _ in range(3):
        hand.at += 120
        assert browser("GET", "/v1/me").status_code == 200
    refused = browser("POST", "/v1/me/authenticators/options", {})
    assert (refused.status_code, refused.json()["code"]) == (401, "login-again")
    assert 'error="insufficient_user_authentication"' in refused.headers["www-authenticate"]
    assert 'max_age="300"' in refused.headers["www-authenticate"]
    (held,) = browser("GET", "/v1/me/authenticators").json()
    assert browser("DELETE", f"/v1/me/authenticators/{held['id']}").status_code == 401
    assert browser("POST", "/v1/me/authenticators", {"credential": {}}).status_code == 401
    browser.login()
    assert browser("DELETE", f"/v1/me/authenticators/{held['id']}").status_code == 204
    assert browser("GET", "/v1/me").status_code == 401


def test_a_page_that_only_refreshes_itself_lets_the_session_run_out(browser, hand):
    for _ in range(9):
        hand.at += 30
        assert browser("GET", "/v1/me", headers={"x-aftergate-background": "1"}).status_code == 200
    hand.at += 31
    assert browser("GET", "/v1/me", headers={"x-aftergate-background": "1"}).status_code == 401


def test_a_logout_ends_the_session_and_takes_the_cookie(browser):
    old = dict(browser.cookies)
    answer = browser("POST", "/v1/logout")
    assert answer.status_code == 204
    assert "__Host-aftergate_session" not in browser.cookies
    browser.cookies = old
    assert browser("GET", "/v1/me").status_code == 401


def test_whoever_guesses_is_held_up(core, browser):
    codes = [
        browser("POST", "/v1/enrol/options", {"secret": f"guess-{n}"}).status_code for n in range(core.settings.failures_per_minute + 2)
    ]
    assert codes[0] == 403
    assert codes[-1] == 429


def test_a_failed_login_says_no_more_than_that(browser):
    options = browser("POST", "/v1/login/passkey/options", {}).json()["public_key"]
    _, made = browser.key.assertion(unb64url(options["challenge"]), "https://evil.example")
    answer = browser("POST", "/v1/login/passkey", {"credential": made})
    assert answer.status_code == 403
    assert not re.search("origin|counter|signature", answer.text)
    for credential in ({}, {"id": "x"}, {"id": "AAAA", "rawId": "AAAA", "type": "public-key", "response": {}}):
        browser("POST", "/v1/login/passkey/options", {})
        assert browser("POST", "/v1/login/passkey", {"credential": credential}).status_code == 403


def test_people_are_an_administrators_to_change(browser, core):
    for method, path in (("GET", "/v1/people"), ("POST", "/v1/people"), ("DELETE", "/v1/people/alice"), ("POST", "/v1/people/alice/link")):
        assert browser(method, path, {"id": "eve"} if method == "POST" else None).status_code == 403
        assert browser(method, path, cookies=False).status_code == 401
    core.keys.create("asks", ["request", "decide"], by=Actor("operator", "test"), key="key-of-a-caller-0123456789abc")
    weak = browser("GET", "/v1/people", headers={"authorization": "Bearer key-of-a-caller-0123456789abc"}, cookies=False)
    assert weak.status_code == 403


def test_an_administrator_manages_people(browser):
    admin = browser.admin
    assert admin("POST", "/v1/people", {"id": "alice"}).status_code == 409
    assert admin("POST", "/v1/people", {"id": "a/b"}).status_code == 400
    assert admin("GET", "/v1/people/nobody").status_code == 404
    assert admin("GET", "/v1/people/a%00b").status_code == 400
    assert admin("DELETE", "/v1/people/alice/authenticators/a%00b").status_code == 400
    assert admin("PATCH", "/v1/people/alice", {"groups": ["treasury"], "aliases": ["alice@example.org"]}).json()["groups"] == ["treasury"]
    assert browser("GET", "/v1/me").json()["groups"] == ["treasury"]
    (held,) = admin("GET", "/v1/people/alice/authenticators").json()
    assert admin("DELETE", f"/v1/people/alice/authenticators/{held['id']}").status_code == 204
    assert admin("DELETE", f"/v1/people/alice/authenticators/{held['id']}").status_code == 404
    assert browser("GET", "/v1/me").status_code == 401
    link = admin("POST", "/v1/people/alice/link").json()["link"]
    assert link.startswith(f"{URL}/enrol#")
    assert admin("DELETE", "/v1/people/alice").status_code == 204
    assert admin("DELETE", "/v1/people/alice").status_code == 404
    assert [each["id"] for each in admin("GET", "/v1/people").json()] == []


def test_the_way_to_the_issuer_needs_one(browser):
    assert browser("GET", "/v1/login/oidc").status_code in {400, 404}
    assert browser("GET", "/v1/login").json() == {"passkey": True, "issuer": None}
