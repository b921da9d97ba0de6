"""What holds on every route: who is let in, the headers, methods, the description; and that no input makes the server fail."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import pytest
from serving import NOTHING, Server

from aftergate.api.auth import PUBLIC as PUBLIC_SCOPE
from aftergate.api.routes import all_routes

pytestmark = pytest.mark.serving

PUBLIC = {"/healthz", "/readyz", "/oauth/jwks"}
# What browsers load, and what those pages ask before anybody is logged in. Nothing else is left out of the description.
PAGES = {"/", "/approvals", "/approvals/{request_id:str}", "/approvals/authenticators", "/login", "/enrol", "/console/{name:str}"}
BEFORE_LOGIN = {
    "/v1/login", "/v1/login/passkey", "/v1/login/passkey/options", "/v1/login/oidc", "/v1/login/oidc/callback", "/v1/enrol", "/v1/enrol/options",
}  # fmt: skip
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(method.upper(), path, held) for path, item in document["paths"].items() for method, held in item.items()]


def filled(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "1", path)


@pytest.fixture(scope="module")
def document(stranger: httpx2.Client) -> dict[str, Any]:
    answer = stranger.get("/openapi.json")
    assert answer.status_code == 200
    held: dict[str, Any] = answer.json()
    return held


def test_every_operation_names_its_scope_and_lets_nobody_in_without_it(document: dict[str, Any], stranger: httpx2.Client) -> None:
    seen = 0
    for method, path, held in operations(document):
        asked = held.get("security")
        if not asked:
            assert path in PUBLIC or path.startswith("/.well-known/"), f"{method} {path} is open"
            continue
        seen += 1
        if path.startswith("/oauth/"):  # a form, and refusals in OAuth's own words: a client that proves nothing
            answer = stranger.request(method, path, data={"token": "x", "grant_type": "client_credentials"})
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client"), (path, answer.text)
            continue
        answer = stranger.request(method, filled(path), json={})
        assert answer.status_code == 401, (method, path, answer.text)
        assert "Bearer" in answer.headers["www-authenticate"]
        wrong = stranger.request(method, filled(path), json={}, headers={"authorization": "Bearer no-such-key-at-all-000000"})
        own = asked == [{"key": []}]  # reads the body first: what its credential may do depends on it
        assert wrong.status_code in ({400, 401} if own else {401}), (method, path, wrong.text)
        scopes = {scope for way in asked for scope in way.get("key", [])}
        if "metrics" in scopes:
            continue
        answer = stranger.request(method, filled(path), json={}, headers={"authorization": f"Bearer {NOTHING}"})
        assert answer.status_code in ({400, 403} if own else {403}), (method, path, answer.text)
        if answer.status_code == 400:
            continue
        assert "insufficient_scope" in answer.headers["www-authenticate"]
    assert seen > 30


def test_operations_are_described_once_each(document: dict[str, Any]) -> None:
    ids = [held["operationId"] for _, _, held in operations(document)]
    assert len(ids) == len(set(ids))
    assert all(held.get("summary") or held.get("description") for _, _, held in operations(document))
    assert all("default" in held["responses"] and "400" not in held["responses"] for _, _, held in operations(document))


def test_what_is_not_described_are_the_pages_and_the_login() -> None:
    hidden = [handler for handler in all_routes() if not handler.resolve_include_in_schema()]
    assert {path for handler in hidden for path in handler.paths} == PAGES | BEFORE_LOGIN
    assert all(handler.opt["scope"] == PUBLIC_SCOPE for handler in hidden)


def test_what_is_open_is_described_or_a_page(document: dict[str, Any]) -> None:
    """The framework's table itself is looked at: a route that is neither described nor listed here would be seen."""
    known = {re.sub(r"\{([^:}]*):[^}]*\}", r"{\1}", path) for path in PAGES | BEFORE_LOGIN} | set(document["paths"])
    every = {re.sub(r"\{([^:}]*):[^}]*\}", r"{\1}", path) for handler in all_routes() for path in handler.paths}
    assert every == known
    public = {path for handler in all_routes() if handler.opt["scope"] == PUBLIC_SCOPE for path in handler.paths}
    assert {path for path in public if not path.startswith("/.well-known/")} == PAGES | BEFORE_LOGIN | PUBLIC


@pytest.mark.parametrize("path", sorted(PAGES | BEFORE_LOGIN | {"/openapi.json"}))
def test_pages_have_the_headers_too(stranger: httpx2.Client, path: str) -> None:
    for method in ("GET", "POST"):
        answer = stranger.request(method, filled(path), json=None if method == "GET" else {})
        assert answer.status_code < 500, (method, path, answer.text)
        secure(answer)
        assert "unsafe" not in answer.headers["content-security-policy"]


def secure(answer: httpx2.Response) -> None:
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-frame-options"] == "DENY"
    assert (
        "default-src 'none'" in answer.headers["content-security-policy"]
        or "default-src 'self'" in answer.headers["content-security-policy"]
    )
    assert answer.headers["cache-control"]
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("method", METHODS)
def test_every_answer_has_the_headers_whatever_the_method(document: dict[str, Any], stranger: httpx2.Client, method: str) -> None:
    for path, item in document["paths"].items():
        answer = stranger.request(method, filled(path))
        secure(answer)
        if method.lower() not in item and answer.status_code != 401:
            assert answer.status_code in {404, 405, 403, 302, 200}, (method, path, answer.status_code)


def test_a_path_that_is_not_there_and_a_method_that_is_not_offered_are_problems(stranger: httpx2.Client) -> None:
    missing = stranger.get("/v1/no/such/thing?secret=hunter2")
    assert missing.status_code == 404
    wrong = stranger.put("/healthz")
    assert wrong.status_code == 405
    assert "GET" in wrong.headers["allow"]
    for answer in (missing, wrong):
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert answer.json()["status"] == answer.status_code
        assert "hunter2" not in answer.text
        secure(answer)


def test_head_is_get_without_its_body(stranger: httpx2.Client) -> None:
    answer = stranger.head("/healthz")
    assert (answer.status_code, answer.content) == (200, b"")
    secure(answer)
    assert stranger.head("/v1/status").status_code == 401


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PROPFIND", "BREW"])
def test_other_methods_show_nothing(stranger: httpx2.Client, method: str) -> None:
    answer = stranger.request(method, "/v1/keys")
    assert answer.status_code in {204, 401, 403, 404, 405, 501}
    assert "access-control-allow-origin" not in answer.headers
    secure(answer)


def test_a_request_id_comes_back_or_is_made(stranger: httpx2.Client) -> None:
    assert stranger.get("/healthz", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = stranger.get("/healthz").headers["x-request-id"]
    for bad in ("has a space", "x" * 201, "é".encode("latin-1")):
        got = stranger.get("/healthz", headers={"x-request-id": bad}).headers["x-request-id"]
        assert got not in {bad, made}
        assert got.isascii()


def test_no_answer_says_which_key_was_close(server: Server, stranger: httpx2.Client) -> None:
    answers = {
        stranger.get("/v1/status", headers={"authorization": f"Bearer {key}"}).text
        for key in (server.key[:-1], server.key.upper(), "x" * 30)
    }
    assert len(answers) == 1


@pytest.mark.parametrize("value", ["Basic dGVzdDp0ZXN0", "Bearer", "bearer", "DPoP abc", "Bearer \xff\xfe"])
def test_an_authorization_header_of_another_form_is_refused(stranger: httpx2.Client, value: str) -> None:
    answer = stranger.get("/v1/status", headers={"authorization": value.encode("latin-1")})
    assert answer.status_code == 401


def test_two_authorization_headers_are_refused(server: Server, stranger: httpx2.Client) -> None:
    headers = [("authorization", f"Bearer {server.key}"), ("authorization", "Bearer other")]
    assert stranger.get("/v1/status", headers=headers).status_code == 400


def test_the_scheme_is_written_in_any_case(server: Server, stranger: httpx2.Client) -> None:
    assert stranger.get("/v1/status", headers={"authorization": f"bEaReR {server.key}"}).status_code == 200
