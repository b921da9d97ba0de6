"""Access tokens of a named issuer as callers' credentials (RFC 9068): a real issuer on this machine, its keys fetched over HTTP."""

from __future__ import annotations

import base64
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey
from serving import Server

from aftergate.service.callers import NotNow, Tokens
from aftergate.service.tasks.issuers import IssuerKeys

pytestmark = pytest.mark.serving
AUDIENCE = "https://gate.example"


class Issuer:
    """Discovery and keys on a loopback port; tokens signed by whichever key is asked for."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {"k1": ECKey.generate_key("P-256")}
        self.fetched: list[str] = []
        self.down = False
        self.named = ""
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetched.append(self.path)
                if issuer.down:
                    self.send_error(503)
                    return
                found = {
                    "/.well-known/openid-configuration": {"issuer": issuer.named or issuer.url, "jwks_uri": issuer.url + "/jwks"},
                    "/jwks": {"keys": [{**key.as_dict(private=False), "kid": kid, "use": "sig"} for kid, key in issuer.keys.items()]},
                }.get(self.path)
                body = json.dumps(found).encode()
                self.send_response(200 if found else 404)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def token(
        self, kid: str = "k1", alg: str = "ES256", typ: str | None = "at+jwt", key: Any = None, header: Any = None, **claims: Any
    ) -> str:
        now = int(time.time())
        held = {
            "iss": self.url, "aud": AUDIENCE, "sub": "svc-1", "client_id": "payments", "jti": "j-1", "iat": now, "exp": now + 300,
            "scope": "openid decide findings made-up", **claims,
        }  # fmt: skip
        body = {name: value for name, value in held.items() if value is not None}
        top = {"alg": alg, "kid": kid, **({"typ": typ} if typ else {}), **(header or {})}
        return jws.serialize_compact(top, json.dumps(body).encode(), key or self.keys[kid], algorithms=[alg])


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def tokens(issuer: Issuer) -> Tokens:
    return Tokens(issuer.url, AUDIENCE, IssuerKeys(lambda: int(time.time() * 1000)), lambda: int(time.time() * 1000))


def test_a_good_token_gives_client_and_the_scopes_that_this_server_knows(issuer: Issuer, tokens: Tokens) -> None:
    held = tokens.claims(issuer.token())
    assert held is not None
    assert (held.client, held.subject, held.scopes) == ("payments", "svc-1", frozenset({"decide", "findings"}))
    again = tokens.claims(issuer.token(typ="application/AT+JWT", aud=["https://other.example", AUDIENCE], scope=None))
    assert again is not None
    assert again.scopes == frozenset()
    assert issuer.fetched.count("/jwks") == 1


NOW = int(time.time())


@pytest.mark.parametrize(
    "changed",
    [
        {"typ": "JWT"},
        {"typ": None},
        {"typ": "id_token+jwt"},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "https://other.example"},
        {"aud": []},
        {"aud": None},
        {"exp": NOW - 1},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": NOW + 10 * 86_400},
        {"iat": NOW + 3600, "exp": NOW + 7200},
        {"iat": None},
        {"nbf": NOW + 3600},
        {"client_id": None},
        {"client_id": ""},
        {"sub": None},
        {"jti": None},
        {"scope": ["admin"]},
        {"cnf": {"jkt": "abc"}},
    ],
)
def test_a_token_with_one_thing_wrong_is_refused(issuer: Issuer, tokens: Tokens, changed: dict[str, Any]) -> None:
    assert tokens.claims(issuer.token(**changed)) is None


def _b64(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _by_hand(header: Any, payload: str, key: Any) -> str:
    """Signed in truth, with a header that a library would not make."""
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA256

    signed = f"{_b64(header)}.{payload}"
    r, s = decode_dss_signature(key.private_key.sign(signed.encode(), ECDSA(SHA256())))
    return signed + "." + base64.urlsafe_b64encode(r.to_bytes(32, "big") + s.to_bytes(32, "big")).rstrip(b"=").decode()


def test_a_token_signed_by_hand_is_as_good_as_one_of_the_library(issuer: Issuer, tokens: Tokens) -> None:
    """So that the refusal of the one with `crit` below is about `crit`."""
    header = {"alg": "ES256", "kid": "k1", "typ": "at+jwt"}
    assert tokens.claims(_by_hand(header, issuer.token().split(".")[1], issuer.keys["k1"])) is not None


def test_no_signature_none_and_shared_secrets_are_no_choice(issuer: Issuer, tokens: Tokens) -> None:
    _, payload, signature = issuer.token().split(".")
    public_pem = issuer.keys["k1"].as_pem(private=False)
    shared = f"{_b64({'alg': 'HS256', 'kid': 'k1', 'typ': 'at+jwt'})}.{payload}"
    for forged in (
        f"{_b64({'alg': 'none', 'typ': 'at+jwt', 'kid': 'k1'})}.{payload}.",
        f"{_b64({'alg': 'none', 'typ': 'at+jwt', 'kid': 'k1'})}.{payload}.{signature}",
        f"{_b64({'typ': 'at+jwt', 'kid': 'k1'})}.{payload}.{signature}",
        _by_hand({"alg": "ES256", "kid": "k1", "typ": "at+jwt", "crit": ["exp"], "exp": 1}, payload, issuer.keys["k1"]),
        f"{shared}.{base64.urlsafe_b64encode(hmac.digest(public_pem, shared.encode(), 'sha256')).rstrip(b'=').decode()}",
        issuer.token(key=ECKey.generate_key("P-256")),
        issuer.token(header={"jwk": ECKey.generate_key("P-256").as_dict(private=False)}, key=ECKey.generate_key("P-256")),
        issuer.token()[:-4] + "AAAA",
        "a.b.c",
        "..",
        "x" * 10_000 + "." + "." + "",
    ):
        assert tokens.claims(forged) is None, forged[:80]


def test_a_key_of_another_kind_than_the_header_says_is_refused(issuer: Issuer, tokens: Tokens) -> None:
    rsa = RSAKey.generate_key(2048)
    issuer.keys["r1"] = rsa
    assert tokens.claims(issuer.token(kid="r1", alg="RS256")) is not None
    _, payload, signature = issuer.token(kid="r1", alg="RS256").split(".")
    assert tokens.claims(f"{_b64({'alg': 'ES256', 'kid': 'r1', 'typ': 'at+jwt'})}.{payload}.{signature}") is None


def test_a_rotated_key_is_fetched_and_unknown_ids_do_not_flood_the_issuer(issuer: Issuer) -> None:
    clock = [int(time.time() * 1000)]
    held = Tokens(issuer.url, AUDIENCE, IssuerKeys(lambda: clock[0]), lambda: int(time.time() * 1000))
    assert held.claims(issuer.token()) is not None
    issuer.keys["k2"] = ECKey.generate_key("P-256")
    clock[0] += 11_000
    assert held.claims(issuer.token(kid="k2")) is not None
    before = len(issuer.fetched)
    for number in range(20):
        assert held.claims(issuer.token(kid=f"no-{number}", key=issuer.keys["k1"])) is None
    assert len(issuer.fetched) - before <= 2


def test_tokens_of_others_are_refused_without_asking_anybody(issuer: Issuer, tokens: Tokens) -> None:
    assert tokens.claims(issuer.token(iss="https://evil.example")) is None
    assert tokens.claims("eyJhbGciOiJub25lIn0.e30.") is None
    assert issuer.fetched == []


def test_while_the_issuer_is_silent_nothing_is_known_and_nobody_let_in(issuer: Issuer) -> None:
    clock = [int(time.time() * 1000)]
    tokens = Tokens(issuer.url, AUDIENCE, IssuerKeys(lambda: clock[0]), lambda: int(time.time() * 1000))
    issuer.down = True
    with pytest.raises(NotNow):
        tokens.claims(issuer.token())
    issuer.down = False
    clock[0] += 11_000  # it is asked again after a moment, not with every token
    assert tokens.claims(issuer.token()) is not None


def test_metadata_of_another_issuer_is_not_believed(issuer: Issuer, tokens: Tokens) -> None:
    issuer.named = "https://evil.example"
    with pytest.raises(NotNow):
        tokens.claims(issuer.token())


def test_over_http_a_token_does_what_its_scopes_say(issuer: Issuer, tmp_path: Path, policies: Path) -> None:
    with Server(tmp_path / "s", "--policies", str(policies), "--caller-issuer", issuer.url, "--caller-audience", AUDIENCE) as made:
        ask = {"subject": {"type": "user", "id": "a"}, "action": {"name": "read"}, "resource": {"type": "doc", "id": "1"}}

        def post(token: str, path: str = "/access/v1/evaluation", body: Any = ask) -> httpx2.Response:
            return httpx2.post(made.url + path, json=body, headers={"authorization": f"Bearer {token}"}, trust_env=False, timeout=20)

        good = issuer.token()
        assert post(good).json()["decision"] is True
        assert post(good, "/v1/keys", {"name": "x", "scopes": ["decide"]}).status_code == 403
        assert post(issuer.token(aud="https://other.example")).status_code == 401
        assert post(issuer.token(typ="JWT")).status_code == 401
        assert httpx2.get(made.url + "/v1/status", headers={"authorization": f"Bearer {made.key}"}, trust_env=False).status_code == 200
        assert good not in made.text()
        issuer.down = True
        assert post(issuer.token(kid="new", key=ECKey.generate_key("P-256"))).status_code in {401, 503}
    with Server(tmp_path / "t", "--policies", str(policies), "--caller-issuer", issuer.url, "--caller-audience", AUDIENCE) as made:
        assert post(good).status_code == 503
