"""A real server with approvals to decide, and a real Chromium in front of it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from joserfc import jwk

from aftergate.stores import findings
from aftergate.stores.database import Database

NODE = Path(__file__).parents[2] / ".venv" / "node" / "node_modules"
CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
POLICIES = """
@id("people-do-their-work")
permit (principal is user, action in [Action::"release_payment", Action::"wire", Action::"deploy", Action::"export"], resource);

@id("pay-needs-approval") @advice("approval") @approvers("finance") @ttl("600") @break_glass("oncall") @batch("true")
@reason("payments need a second person")
forbid (principal, action == Action::"release_payment", resource) unless { context.live has approval };

@id("wire-needs-two") @advice("approval") @approvers("finance,treasury") @quorum("2") @ttl("900")
forbid (principal, action == Action::"wire", resource) unless { context.live has approval };

@id("production-needs-an-owner") @advice("approval") @approvers("platform,finance") @ttl("1200")
forbid (principal, action == Action::"deploy", resource) when { resource has environment && resource.environment == "production" }
unless { context.live has approval };
"""
FINDING = {
    "id": "f-100", "detection": "tok-cookie-to-script", "severity": "medium", "time": "", "title": "Session cookie used by a script",
    "narrative": "A session that bert opened in a browser in Utrecht was used 40 minutes later by python-requests from a hosting network.",
    "subject": {"identity": ["bert"]}, "evidence": [], "sources": ["okta"], "recommended": ["End this session"],
}  # fmt: skip


class Stage:
    """The server's callers: an application that is denied and asks, and an operator."""

    def __init__(self, url: str, key: str, database: str = "") -> None:
        self.url = url
        self.key = key
        self.database = database
        self.executor = jwk.generate_key("EC", "P-256").thumbprint()

    def call(self, method: str, path: str, body: Any = None, *, expect: tuple[int, ...] = (200, 201, 202, 204), **headers: str) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"authorization": f"Bearer {self.key}", "content-type": "application/json", **headers}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                status, raw = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, raw = error.code, error.read()
        assert status in expect, (status, raw[:500])
        return json.loads(raw) if raw else None

    def status(self, request: str) -> str:
        """How a request stands, as its requester is told."""
        return str(self.call("GET", f"/access/v1/requests/{request}")["task"]["status"])

    def person(self, name: str, *groups: str, display: str = "") -> str:
        """Add a person; the one-time link."""
        return str(self.call("POST", "/v1/people", {"id": name, "name": display or name, "groups": list(groups)})["link"])

    def ask(self, *items: dict[str, Any], subject: str = "bert", action: str = "release_payment", reason: str = "", **context: Any) -> str:
        """Be denied, and ask for approval; the request's id."""
        who = {"type": "user", "id": subject}
        held = {**context, **({"business_justification": reason} if reason else {})}
        denied = []
        for item in items:
            asked = {"subject": who, "action": {"name": action}, "resource": item, "context": held}
            decided = self.call("POST", "/access/v1/evaluation", asked)
            assert decided["decision"] is False, decided
            denied.append(decided["context"])
        body: dict[str, Any] = {"subject": who, "context": held, "requested_access": {"urn:aftergate:executor": {"jkt": self.executor}}}
        if len(items) == 1:
            body |= {"resource": items[0], "action": {"name": action}, "denial": denial(denied[0])}
        else:
            body["items"] = [
                {"resource": item, "action": {"name": action}, "denial": denial(each)} for item, each in zip(items, denied, strict=True)
            ]
        made = self.call("POST", "/access/v1/requests", body)
        return str(made["task"]["id"])

    def finding(self, **change: Any) -> None:
        """A finding, as a scan of another process writes it."""
        told = {**FINDING, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **change}
        body = json.dumps(told)
        held = Database.open(self.database, migrate=False)
        with held.write() as connection:
            findings.add(held, connection, [(findings.read(body), body)], time.time_ns() // 1_000_000)
        held.close()


def denial(context: dict[str, Any]) -> dict[str, Any]:
    offered = context["access_request"]
    return {"binding_token": offered["binding_token"], "expires_at": offered["expires_at"]}


def invoice(number: str, amount: float, payee: str = "Nordlicht GmbH", **more: Any) -> dict[str, Any]:
    return {
        "type": "invoice",
        "id": number,
        "properties": {"amount": amount, "currency": "EUR", "payee": payee, "iban": "DE02 1203 0000 0000 2020 51", **more},
    }


class Seat:
    """A person in front of a browser with an authenticator. It keeps what a page must never do: break the policy, ask elsewhere, throw."""

    def __init__(
        self, browser: Any, stage: Stage, *, width: int = 1280, height: int = 900, verified: bool = True, also: str = "", **context: Any
    ) -> None:
        self.stage = stage
        self.url = stage.url
        self._hosts = (stage.url + "/", "http://127.0.0.1:", *([also + "/"] if also else []))
        self.context = browser.new_context(viewport={"width": width, "height": height}, **context)
        self.violations: list[str] = []
        self.expected = ""  # violations that a test provokes, as a pattern
        self.elsewhere: list[str] = []
        self.errors: list[str] = []
        self.context.expose_binding("told_violation", lambda _source, text: self.violations.append(text))
        self.context.add_init_script(
            "addEventListener('securitypolicyviolation', e => told_violation(`${e.violatedDirective} ${e.blockedURI}`))"
        )
        if also:  # an issuer's own pages may ask for fonts: no test needs the network
            self.context.route(lambda url: not url.startswith(self._hosts), lambda route: route.abort())
        self.page = self.context.new_page()
        self.page.on("request", self._asked)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.set_default_timeout(8000)
        self.cdp = self.context.new_cdp_session(self.page)
        self.cdp.send("WebAuthn.enable")
        self.authenticator = self.plug(verified=verified)

    def plug(self, *, verified: bool = True, transport: str = "internal") -> str:
        """Connect a virtual authenticator."""
        options = {
            "protocol": "ctap2", "transport": transport, "hasResidentKey": True, "hasUserVerification": True, "isUserVerified": verified,
            "automaticPresenceSimulation": True,
        }  # fmt: skip
        return str(self.cdp.send("WebAuthn.addVirtualAuthenticator", {"options": options})["authenticatorId"])

    def enrol(self, name: str, *groups: str, display: str = "", device: str = "Laptop") -> Seat:
        """Open the link, register, log in."""
        self.page.goto(self.stage.person(name, *groups, display=display))
        self.page.fill("#name", device)
        self.page.click("#form button")
        self.page.click("#enter")
        self.page.wait_for_url("**/approvals")
        self.page.wait_for_selector("#waiting > *")
        return self

    def open(self, path: str, wait: str) -> None:
        self.page.goto(self.url + path)
        self.page.wait_for_selector(wait)

    def said(self) -> str:
        """The message above the content."""
        self.page.wait_for_selector("#messages .say")
        return str(self.page.inner_text("#messages"))

    def get(self, path: str) -> Any:
        """What the server answers this person."""
        return self.page.evaluate("path => fetch(path).then(answer => answer.json())", path)

    def wide(self) -> bool:
        """Whether the page is wider than the window."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))

    def axe(self) -> list[str]:
        """What axe finds, in words."""
        source = (NODE / "axe-core" / "axe.min.js").read_text()
        # Through the debugger: the page's own policy would not let it in.
        found = self.cdp.send("Runtime.evaluate", {
            "expression": source + "; axe.run(document, {resultTypes: ['violations']}).then(r => JSON.stringify(r.violations))",
            "awaitPromise": True, "returnByValue": True,
        })  # fmt: skip
        return [
            f"{each['id']}: {node['html'][:200]} {node['failureSummary']}"
            for each in json.loads(found["result"]["value"])
            for node in each["nodes"]
        ]

    def close(self) -> None:
        self.context.close()

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(self._hosts) and request.frame.url.startswith(self.url + "/"):
            self.elsewhere.append(request.url)
