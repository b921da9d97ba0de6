"""The endpoints as callers see them: each says no in its standard's form, and only to whom it must."""

from __future__ import annotations

import datetime as dt
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import insert
from workshop import ACCESS, MCP, URL, Holder, Shop, claims_of

from aftergate.api.app import create
from aftergate.authz.tasks import details as d
from aftergate.authz.tasks.tokens import hash_b64
from aftergate.service.tasks.exchange import GRANT
from aftergate.stores.tables.base import outbox

TASK = {"purpose": "nightly", "actions": ["deploy", "read"]}
PROXY = "127.0.0.9"
FORM = "application/x-www-form-urlencoded"


class Api:
    """The application, asked without a socket, as from behind the proxy that it trusts. `peer` is the address that the proxy tells of."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.shop = Shop(folder, trusted_proxies=(PROXY + "/32",), **settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # what the framework will want from version 3 on
            self.app = create(self.shop.core)

    def __call__(
        self,
        method: str,
        path: str,
        *,
        key: str | None = "",
        peer: str = "192.0.2.7",
        proxied: bool = True,
        headers: Any = None,
        **more: Any,
    ) -> httpx2.Response:
        given = list((headers or {}).items()) if not isinstance(headers, list) else headers
        if proxied:
            given += [("x-forwarded-for", peer), ("x-forwarded-proto", "https")]
        if key is not None:
            given.append(("authorization", f"Bearer {key or self.shop.api}"))

        async def ask() -> httpx2.Response:
            transport = httpx2.ASGITransport(app=self.app, client=(PROXY if proxied else peer, 5))
            async with httpx2.AsyncClient(transport=transport, base_url=URL) as client:
                return await client.request(method, path, headers=given, **more)

        return anyio.run(ask)

    def task(self, **more: Any) -> str:
        answer = self("POST", "/v1/tasks", json={**TASK, **more})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def proof(self, url: str = URL + "/oauth/token", **changes: Any) -> str:
        return self.shop.holder.proof(self.shop.hand.at, url, **changes)

    def token(self, task: str, headers: Any = None, **form: str) -> httpx2.Response:
        body = {"grant_type": "client_credentials", "task_id": task, **form}
        return self("POST", "/oauth/token", data=body, headers=headers if headers is not None else {"dpop": self.proof()})


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    made = Api(tmp_path_factory.mktemp("api"))
    yield made
    made.shop.close()


@pytest.fixture(autouse=True)
def _fresh(api: Api) -> None:
    api.shop.move(0)


# Tasks


def test_a_task_from_declaration_to_end(api: Api) -> None:
    answer = api(
        "POST",
        "/v1/tasks",
        json={**TASK, "resources": [{"type": "env", "id": "prod"}], "on_behalf_of": {"type": "user", "id": "alice"}, "ttl_s": 600},
    )
    assert answer.status_code == 201
    held = answer.json()
    assert held["state"] == "active"
    assert held["who"] == {"type": "workload", "id": "ci"}
    assert held["authorization_details"] == [
        {"type": d.TASK, "actions": ["deploy", "read"], "identifiers": ["prod"], "resource_type": "env"}
    ]
    assert answer.headers["location"] == f"/v1/tasks/{held['id']}"
    assert api("GET", answer.headers["location"]).json() == held
    assert held["id"] in [task["id"] for task in api("GET", "/v1/tasks?state=active&everybody=true").json()["tasks"]]
    done = api("POST", f"/v1/tasks/{held['id']}/complete", json={"reason": "all done"})
    assert (done.status_code, done.json()["state"], done.json()["reason"]) == (200, "completed", "all done")
    again = api("POST", f"/v1/tasks/{held['id']}/cancel")
    assert (again.status_code, again.json()["error"]) == (409, "invalid_task_state")


def test_tools_and_details_are_other_ways_to_say_it(api: Api) -> None:
    tools = api("POST", "/v1/tasks", json={"purpose": "p", "tools": ["search"], "server": MCP}).json()
    assert tools["authorization_details"] == [{"type": d.TASK, "actions": ["search"], "locations": [MCP], "resource_type": "tool"}]
    raw = [{"type": "payment", "actions": ["pay"], "amount": "10.00"}]
    assert api("POST", "/v1/tasks", json={"purpose": "p", "authorization_details": raw}).json()["authorization_details"] == raw


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{", 400),
        ({}, 400),
        ({"purpose": "p"}, 400),
        ({"purpose": "", "actions": ["a"]}, 400),
        ({"purpose": "p", "actions": ["a"], "tools": ["b"]}, 400),
        ({"purpose": "p", "actions": ["a b"]}, 400),
        ({"purpose": "p", "actions": ["a"], "colour": "red"}, 400),
        ({"purpose": "p", "actions": ["a"], "until": "tomorrow"}, 400),
        ({"purpose": "p", "actions": ["a"], "until": "2020-01-01T00:00:00Z"}, 400),
        ({"purpose": "p", "actions": ["a"], "until": "2030-01-01T00:00:00Z", "ttl_s": 5}, 400),
        ({"purpose": "p", "actions": ["a"], "ttl_s": 10_000_000}, 400),
        ({"purpose": "p", "actions": ["a"], "floor": 5}, 400),
        ({"purpose": "p", "actions": ["a"], "parent": "task-none"}, 400),
        ({"purpose": "p", "authorization_details": [{"type": "nope"}]}, 400),
        ({"purpose": "p", "authorization_details": []}, 400),
        ({"purpose": "evil", "actions": ["a"]}, 403),
    ],
)
def test_a_task_that_cannot_be_is_refused_with_a_problem(api: Api, body: Any, status: int) -> None:
    how = {"content": body, "headers": {"content-type": "application/json"}} if isinstance(body, bytes) else {"json": body}
    answer = api("POST", "/v1/tasks", **how)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    if status == 403:
        assert answer.json()["context"]["policies"] == ["not-evil"]


def test_a_task_that_needs_approval_is_taken_as_proposed(api: Api) -> None:
    answer = api("POST", "/v1/tasks", json={"purpose": "repair", "actions": ["admin"], "request_approval": True})
    assert answer.status_code == 400  # an approval names its executor's key
    answer = api(
        "POST",
        "/v1/tasks",
        json={"purpose": "repair", "actions": ["admin"], "request_approval": True},
        headers={"dpop": api.proof(URL + "/v1/tasks")},
    )
    assert answer.status_code == 202, answer.text
    held = answer.json()
    assert held["state"] == "proposed"
    assert held["access_request"]["endpoint"].endswith("/access/v1/requests")
    assert held["approval"]["task"]["status"] == "pending"
    shown = api("GET", f"/v1/tasks/{held['id']}").json()
    assert shown["approval"]["task"]["id"] == held["approval"]["task"]["id"]
    early = api("POST", f"/v1/tasks/{held['id']}/start", headers={"dpop": api.proof(f"{URL}/v1/tasks/{held['id']}/start")})
    assert (early.status_code, early.json()["error"]) == (409, "approval_pending")
    assert api.token(held["id"]).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "path",
    ["/v1/tasks", "/v1/tasks/x", "/v1/tasks/x/complete", "/v1/tasks/x/cancel", "/v1/tasks/x/start", "/v1/tasks/kill", "/v1/mcp/evaluation"],
)
def test_nobody_unknown_is_let_in(api: Api, path: str) -> None:
    method = "GET" if path in {"/v1/tasks", "/v1/tasks/x"} else "POST"
    body = {"reason": "x", "task": "t"} if path.endswith("kill") else None
    assert api(method, path, key=None, json=body, peer="198.51.100.1").status_code == 401
    assert api(method, path, key="wrong", json=body, peer="198.51.100.1").status_code == 401


def test_kill_and_rotate_are_for_administrators(api: Api) -> None:
    task = api.task()
    body = {"task": task, "reason": "stolen"}
    assert api("POST", "/v1/tasks/kill", json=body, key=api.shop.plain).status_code == 403
    assert api("GET", "/v1/tasks?everybody=true", key=api.shop.plain).status_code == 403
    assert api("POST", "/v1/tasks/keys/rotate", key=api.shop.plain).status_code == 403
    assert api("POST", "/v1/tasks/kill", json={**body, "principal": {"type": "user", "id": "x"}}).status_code == 400
    assert api("POST", "/v1/tasks/kill", json=body).json() == {"tasks": [task]}
    kid = api("POST", "/v1/tasks/keys/rotate").json()["kid"]
    assert kid in [key["kid"] for key in api("GET", "/oauth/jwks", key=None).json()["keys"]]


# OAuth


def test_a_token_for_a_task(api: Api) -> None:
    answer = api.token(api.task(), scope="read", audience="https://api.example")
    assert answer.status_code == 200
    held = answer.json()
    assert held["token_type"] == "DPoP"
    assert held["scope"] == "read"
    assert 0 < held["expires_in"] <= 300
    assert claims_of(held["access_token"])["cnf"] == {"jkt": api.shop.holder.jkt}
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("content", "kind", "error"),
    [
        (b"grant_type=client_credentials&grant_type=client_credentials", FORM, "invalid_request"),
        (b"task_id=a&task_id=b&grant_type=client_credentials", FORM, "invalid_request"),
        (b"{}", "application/json", "invalid_request"),
        (b"", FORM, "invalid_request"),
        (b"=&=&", FORM, "invalid_request"),
        (b"\xff\xfe", FORM, "invalid_request"),
        (b"&".join(b"a%d=1" % n for n in range(70)), FORM, "invalid_request"),
        (b"grant_type=password&username=a&password=b", FORM, "unsupported_grant_type"),
        (b"grant_type=client_credentials", FORM, "invalid_request"),
    ],
)
def test_a_wrong_form_is_answered_in_oauths_form(api: Api, content: bytes, kind: str, error: str) -> None:
    answer = api("POST", "/oauth/token", content=content, headers={"content-type": kind})
    assert answer.status_code == 400
    assert answer.json()["error"] == error
    assert set(answer.json()) == {"error", "error_description"}


def test_client_authentication_is_asked_for_everywhere(api: Api) -> None:
    for path in ("/oauth/token", "/oauth/introspect", "/oauth/revoke"):
        for key in (None, "wrong"):
            answer = api("POST", path, data={"token": "x"}, key=key, peer="198.51.100.2")
            assert answer.status_code == 401
            assert answer.json()["error"] == "invalid_client"
            assert "www-authenticate" in answer.headers


def test_too_many_failures_are_held_up(api: Api) -> None:
    statuses = [api("POST", "/oauth/introspect", data={"token": "x"}, key="wrong", peer="198.51.100.99").status_code for _ in range(32)]
    assert statuses[:30] == [401] * 30
    assert statuses[-1] == 429
    assert api("POST", "/oauth/introspect", data={"token": "x"}, peer="198.51.100.98").status_code == 200


@pytest.mark.parametrize(
    ("changes", "ok"),
    [
        ({}, True),
        ({"htu": "HTTP://LOCALHOST:9999/oauth/token"}, True),
        ({"htu": URL + "/oauth/token?x=1#y"}, True),
        ({"htu": URL + "/%6Fauth/token"}, True),
        ({"htu": URL + "/oauth/token/"}, False),
        ({"htu": "http://localhost/oauth/token"}, False),
        ({"htu": "https://localhost:9999/oauth/token"}, False),
        ({"htu": URL + "/oauth/introspect"}, False),
        ({"htu": None}, False),
        ({"htm": "GET"}, False),
        ({"htm": "post"}, False),
        ({"htm": None}, False),
        ({"jti": None}, False),
        ({"iat": None}, False),
        ({"iat": 1}, False),
        ({"iat": "ahead"}, False),
        ({"iat": "skewed"}, True),
    ],
)
def test_a_dpop_proof_is_for_this_request_now(api: Api, changes: dict[str, Any], ok: bool) -> None:
    now = int(api.shop.hand.at)
    changes = {
        name: {"ahead": now + 90, "skewed": now + 20}.get(value, value) if isinstance(value, str) else value
        for name, value in changes.items()
    }
    answer = api.token(api.task(), headers={"dpop": api.proof(**changes)})
    assert (answer.status_code == 200) is ok, answer.text
    if not ok:
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")


def test_a_dpop_proof_is_used_once_alone_and_with_a_public_key(api: Api) -> None:
    from workshop import signed

    task, proof = api.task(), api.proof()
    assert api.token(task, headers={"dpop": proof}).status_code == 200
    assert api.token(task, headers={"dpop": proof}).json()["error"] == "invalid_dpop_proof"
    two = [("dpop", api.proof()), ("dpop", api.proof())]
    assert api.token(task, headers=two).json()["error"] == "invalid_dpop_proof"
    key = api.shop.holder.key
    claims = {"jti": "p1", "htm": "POST", "htu": URL + "/oauth/token", "iat": int(api.shop.hand.at)}
    secret = signed(claims, key, typ="dpop+jwt", jwk=key.as_dict(private=True))
    assert api.token(task, headers={"dpop": secret}).json()["error"] == "invalid_dpop_proof"
    other = signed(claims, key, typ="JWT", jwk=key.as_dict(private=False))
    assert api.token(task, headers={"dpop": other}).json()["error"] == "invalid_dpop_proof"
    forged = signed(claims, Holder().key, typ="dpop+jwt", jwk=key.as_dict(private=False))
    assert api.token(task, headers={"dpop": forged}).json()["error"] == "invalid_dpop_proof"
    assert api.token(task, headers={"dpop": "x"}).json()["error"] == "invalid_dpop_proof"


def certificate(name: str = "client") -> tuple[str, str]:
    """A client certificate as a proxy passes it on, and its thumbprint."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    begin = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(begin).not_valid_after(begin + dt.timedelta(days=3650)).sign(key, hashes.SHA256())
    )  # fmt: skip
    return quote(made.public_bytes(Encoding.PEM).decode()), hash_b64(made.public_bytes(Encoding.DER))


def test_a_token_is_bound_to_the_certificate_that_a_trusted_proxy_shows(api: Api) -> None:
    task, (pem, thumb), (same_name, _) = api.task(), certificate(), certificate()
    body = {"grant_type": "client_credentials", "task_id": task}

    def asked(path: str, header: str, *, proxied: bool = True, **form: str) -> httpx2.Response:
        return api("POST", path, data=form or body, peer="127.0.0.1", proxied=proxied, headers={"x-client-cert": header} if header else {})

    answer = asked("/oauth/token", pem)
    assert answer.status_code == 200, answer.text
    token = answer.json()["access_token"]
    assert answer.json()["token_type"] == "Bearer"
    assert claims_of(token)["cnf"] == {"x5t#S256": thumb}
    assert asked("/oauth/token", pem, proxied=False).json()["error"] == "invalid_request"  # anybody can send a header
    assert asked("/oauth/token", "").json()["error"] == "invalid_request"
    assert asked("/oauth/token", "no certificate").json()["error"] == "invalid_request"
    again = {"grant_type": GRANT, "subject_token": token, "subject_token_type": ACCESS}
    assert asked("/oauth/token", pem, **again).status_code == 200
    assert asked("/oauth/token", same_name, **again).json()["error"] == "invalid_request"

    def as_bearer(header: str, *, proxied: bool = True) -> int:
        child = {"purpose": "under", "actions": ["read"]}
        headers = {"x-client-cert": header} if header else {}
        return api("POST", "/v1/tasks", key=token, json=child, peer="127.0.0.1", proxied=proxied, headers=headers).status_code

    assert as_bearer(pem) == 201
    assert as_bearer(same_name) == 401
    assert as_bearer("") == 401
    assert as_bearer(pem, proxied=False) == 401


def test_introspection_and_revocation_over_http(api: Api) -> None:
    token = api.token(api.task()).json()["access_token"]
    plain = api("POST", "/oauth/introspect", data={"token": token, "token_type_hint": "refresh_token"})
    assert plain.json()["active"] is True
    signed = api("POST", "/oauth/introspect", data={"token": token}, headers={"accept": "application/token-introspection+jwt"})
    assert signed.headers["content-type"].startswith("application/token-introspection+jwt")
    assert claims_of(signed.text)["token_introspection"] == plain.json()
    assert api("POST", "/oauth/introspect", data={}).json()["error"] == "invalid_request"
    stranger = api("POST", "/oauth/introspect", data={"token": token}, key=api.shop.plain)
    assert stranger.json() == {"active": False}
    for each in (token, token, "nonsense"):
        gone = api("POST", "/oauth/revoke", data={"token": each, "token_type_hint": "access_token"})
        assert (gone.status_code, gone.content) == (200, b"")
    assert api("POST", "/oauth/introspect", data={"token": token}).json() == {"active": False}
    assert api("POST", "/oauth/revoke", data={}).json()["error"] == "invalid_request"


def test_metadata_and_keys_are_public_and_hold_no_secret(api: Api) -> None:
    metadata = api("GET", "/.well-known/oauth-authorization-server", key=None).json()
    assert metadata["issuer"] == URL
    for name in ("token_endpoint", "introspection_endpoint", "revocation_endpoint", "jwks_uri"):
        assert metadata[name].startswith(URL + "/oauth/")
    assert metadata["authorization_details_types_supported"] == [d.TASK, "payment"]
    assert metadata["tls_client_certificate_bound_access_tokens"] is True
    resource = api("GET", "/.well-known/oauth-protected-resource", key=None).json()
    assert resource["authorization_servers"] == [URL]
    keys = api("GET", "/oauth/jwks", key=None)
    assert "max-age" in keys.headers["cache-control"]
    assert all("d" not in key and key["kid"] for key in keys.json()["keys"])


def test_what_a_policy_asks_for_is_said_in_the_answer(api: Api) -> None:
    task = api("POST", "/v1/tasks", json={"purpose": "p", "actions": ["wire"], "on_behalf_of": {"type": "user", "id": "alice"}}).json()[
        "id"
    ]
    body = {"grant_type": GRANT, "subject_token": api.shop.user_token(), "subject_token_type": ACCESS, "task_id": task}
    answer = api("POST", "/oauth/token", data=body, headers={"dpop": api.proof()})
    assert (answer.status_code, answer.json()["error"]) == (400, "unmet_authentication_requirements")
    assert 'error="insufficient_user_authentication"' in answer.headers["www-authenticate"]
    assert 'acr_values="urn:example:aal3"' in answer.headers["www-authenticate"]


# Agents


@pytest.fixture(scope="module")
def agent(api: Api) -> dict[str, Any]:
    rights = [{"type": d.TASK, "actions": ["search", "danger"], "resource_type": "tool", "locations": [MCP, "https://crm.example"]}]
    task = api("POST", "/v1/tasks", json={"purpose": "answer mail", "authorization_details": rights}).json()["id"]
    token = api.token(task, audience=MCP).json()["access_token"]
    return {"task": task, "token": token}


def call(name: str, number: int = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": name, "arguments": {"q": "x"}}}


def test_an_agents_messages_are_answered_one_by_one_and_in_a_batch(api: Api, agent: dict[str, Any]) -> None:
    ask = {"token": agent["token"], "server": MCP}
    one = api("POST", "/v1/mcp/evaluation", json={**ask, "message": call("search")})
    assert one.status_code == 200
    assert one.json()["decision"] is True
    batch = [
        call("search"),
        call("wipe", 2),
        {"jsonrpc": "2.0", "id": 3, "method": "ping"},
        {"jsonrpc": "2.0", "method": "notifications/x"},
        call("danger", 5),
        "x",
    ]
    many = api("POST", "/v1/mcp/evaluation", json={**ask, "message": batch}).json()["evaluations"]
    assert [each["decision"] for each in many] == [True, False, True, True, False, False]
    assert many[1]["context"]["jsonrpc"] == {
        "jsonrpc": "2.0",
        "id": 2,
        "error": {"code": -32001, "message": "Access denied: tool `wipe` is not in the task's list"},
    }
    assert many[4]["context"]["policies"] == ["no-danger"]
    assert many[5]["context"]["jsonrpc"]["error"]["code"] == -32600


def test_a_tools_own_mapping_comes_from_its_declaration(api: Api, agent: dict[str, Any]) -> None:
    mapping = {"evaluation": {"action": {"name": "get_customer"}, "resource": {"type": "customer", "id": "$params.arguments.q"}}}
    tools = {"search": {"name": "search", "inputSchema": {"type": "object", "x-authzen-mapping": mapping}}}
    answer = api(
        "POST", "/v1/mcp/evaluation", json={"token": agent["token"], "server": MCP, "message": call("search"), "declarations": tools}
    )
    assert answer.json()["context"]["reason"] == "no_permit"  # the customer is not of this task
    tools["search"]["inputSchema"]["x-authzen-mapping"] = {"evaluation": {"action": {"name": "$1/0"}}}  # type: ignore[index]
    answer = api(
        "POST", "/v1/mcp/evaluation", json={"token": agent["token"], "server": MCP, "message": call("search"), "declarations": tools}
    )
    assert answer.json()["context"]["jsonrpc"]["error"]["code"] == -32602


def test_a_permitted_call_gets_a_token_for_the_service_behind(api: Api, agent: dict[str, Any]) -> None:
    body = {"token": agent["token"], "server": MCP, "message": call("search"), "downstream": "https://crm.example", "ttl_s": 120}
    answer = api("POST", "/v1/mcp/evaluation", json=body, headers={"dpop": api.proof(URL + "/v1/mcp/evaluation")})
    claims = claims_of(answer.json()["token"]["access_token"])
    assert (claims["aud"], claims["scope"]) == ("https://crm.example", "search")
    assert claims["exp"] - claims["iat"] <= 120
    unbound = api("POST", "/v1/mcp/evaluation", json=body).json()
    assert unbound["decision"] is False
    assert "token" not in unbound
    denied = api(
        "POST", "/v1/mcp/evaluation", json={**body, "message": call("danger")}, headers={"dpop": api.proof(URL + "/v1/mcp/evaluation")}
    ).json()
    assert "token" not in denied


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"message":{},"message":{}}', 400),
        ({"message": {}}, 400),
        ({"message": {}, "token": "x", "colour": 1}, 400),
        ({"message": [], "claims": {"sub": "a"}}, 400),
        ({"message": [{}] * 65, "claims": {"sub": "a"}}, 400),
        ({"message": {}, "token": 5}, 400),
        ({"message": {}, "claims": {}, "ttl_s": 301}, 400),
    ],
)
def test_a_wrong_question_about_a_message_is_refused(api: Api, body: Any, status: int) -> None:
    how = {"content": body, "headers": {"content-type": "application/json"}} if isinstance(body, bytes) else {"json": body}
    assert api("POST", "/v1/mcp/evaluation", **how).status_code == status


def test_a_dead_or_foreign_token_lets_nothing_pass(api: Api) -> None:
    task = api("POST", "/v1/tasks", json={"purpose": "p", "tools": ["search"]}).json()["id"]
    token = api.token(task, audience=MCP).json()["access_token"]
    api("POST", f"/v1/tasks/{task}/cancel")
    for each in (token, "x", api.shop.user_token(iss="https://evil.example")):
        for message in (call("search"), {"jsonrpc": "2.0", "id": 1, "method": "ping"}):
            answer = api("POST", "/v1/mcp/evaluation", json={"token": each, "server": MCP, "message": message})
            assert answer.status_code == 200
            assert answer.json()["decision"] is False
            assert answer.json()["context"]["reason"] == "invalid_token"
    assert (
        api("POST", "/v1/mcp/evaluation", json={"claims": {"sub": "a"}, "message": call("search")}, key=api.shop.plain).status_code == 403
    )


def test_no_answer_holds_what_was_sent_as_a_secret(api: Api) -> None:
    secret = "eyJhbGciOiJub25lIn0.c2VjcmV0LXRva2Vu.x"
    for answer in (
        api("POST", "/oauth/token", data={"grant_type": GRANT, "subject_token": secret, "subject_token_type": ACCESS, "task_id": "t"}),
        api("POST", "/oauth/introspect", data={"token": secret}),
        api("POST", "/v1/tasks", key=secret, json=TASK, peer="198.51.100.3"),
        api("POST", "/v1/mcp/evaluation", json={"token": secret, "message": call("x")}),
    ):
        assert secret not in answer.text
        assert "c2VjcmV0" not in answer.text
    assert json.dumps(api.shop.records()).count("c2VjcmV0") == 0


def test_a_batch_goes_no_further_than_its_task_lives(api: Api) -> None:
    """What an agent tries in one message counts for the next one of the same body."""
    task = api.task(tools=["search"], actions=[], server=MCP, floor=45)
    token = api.token(task, audience=MCP).json()["access_token"]
    batch = [
        call("search", 1),
        call("wipe", 2),
        call("wipe", 3),
        call("wipe", 4),
        call("search", 5),
        {"jsonrpc": "2.0", "id": 6, "method": "ping"},
    ]
    many = api("POST", "/v1/mcp/evaluation", json={"token": token, "server": MCP, "message": batch}).json()["evaluations"]
    assert [each["decision"] for each in many] == [True, False, False, False, False, False]
    assert many[4]["context"]["reason"] == "invalid_token"
    assert many[4]["context"]["jsonrpc"]["id"] == 5


@pytest.mark.parametrize("batch", [False, True])
def test_naming_an_approval_does_not_let_a_proof_come_twice(api: Api, agent: dict[str, Any], batch: bool) -> None:
    url = URL + "/v1/mcp/evaluation"
    proof = api.proof(url)
    message = call("search")
    body = {"token": agent["token"], "server": MCP, "message": [message] if batch else message, "approval": {"id": "apr_none"}}
    assert api("POST", "/v1/mcp/evaluation", json=body, headers={"dpop": proof}).status_code == 200
    again = api("POST", "/v1/mcp/evaluation", json=body, headers={"dpop": proof})
    assert again.status_code == 400
    assert again.json()["error"] == "invalid_dpop_proof"


def test_a_search_in_a_task_finds_what_an_evaluation_permits(api: Api) -> None:
    """What a task covers depends on the resource: what holds for the first candidate says nothing of the next."""
    task = api.task(actions=["deploy"], resources=[{"type": "env", "id": "prod"}])
    search = {
        "subject": {"type": "workload", "id": "ci"},
        "action": {"name": "deploy"},
        "resource": {"type": "env"},
        "context": {"task_id": task},
    }
    asked = [{"type": "env", "id": name} for name in ("dev", "prod", "test")]
    permitted = [one["id"] for one in asked if api("POST", "/access/v1/evaluation", json={**search, "resource": one}).json()["decision"]]
    assert permitted == ["prod"]
    snapshot = api.shop.core.decider.snapshot
    before = dict(snapshot.entities.ids)
    snapshot.entities.ids["env"] = [one["id"] for one in asked]  # as if the operator's file named them
    try:
        found = api("POST", "/access/v1/search/resource", json={**search, "subject": {**search["subject"], "properties": {"known": True}}})
    finally:
        snapshot.entities.ids.clear()
        snapshot.entities.ids.update(before)
    assert [one["id"] for one in found.json()["results"]] == permitted


def test_a_known_key_is_let_in_where_others_failed_too_often(api: Api) -> None:
    """Whoever shares an address (a proxy, a cluster's egress) with somebody who guesses must still be answered."""
    peer = "192.0.2.200"
    for number in range(api.shop.core.settings.failures_per_minute):
        assert api("GET", "/v1/tasks", key=f"agk_wrong_{number}", peer=peer).status_code == 401
    assert api("GET", "/v1/tasks", key="agk_wrong_again", peer=peer).status_code == 429
    assert api("GET", "/v1/tasks", peer=peer).status_code == 200
    assert api("POST", "/oauth/introspect", data={"token": "x"}, peer=peer).json() == {"active": False}


def test_trying_a_message_again_is_an_act_that_is_written_down(api: Api) -> None:
    core = api.shop.core
    with core.db.write() as connection:
        given_up = {"kind": "callback", "body": "{}", "created_ms": 1, "next_ms": 1, "attempts": 5, "failed": True}
        number = connection.execute(insert(outbox).values(**given_up)).inserted_primary_key[0]
    assert api("POST", f"/v1/messages/{number}/retry").status_code == 204
    assert api("POST", f"/v1/messages/{number}/retry").status_code == 404
    (told,) = api.shop.records("admin.message.retried")
    assert told["detail"] == {"message": number}
    assert told["actor"]["type"] == "api-key"
