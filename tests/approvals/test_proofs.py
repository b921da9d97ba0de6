"""DPoP proofs (RFC 9449, section 4.3) and binding tokens: what does not hold is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from joserfc import jwk, jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from aftergate.authz import dpop
from aftergate.authz.dpop import Proof, verify_proof
from aftergate.authz.transactions import binding
from aftergate.authz.transactions.binding import Binding, Presented
from aftergate.authz.transactions.objects import Asked, Executor, Need, rfc3339

NOW = 1_700_000_000_000
URL = "https://pdp.example/access/v1/evaluation"
KEY = jwk.generate_key("EC", "P-256")
OTHER = jwk.generate_key("EC", "P-256")


def proof(header: dict[str, Any] | None = None, key: Any = KEY, **claims: Any) -> str:
    head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": KEY.as_dict(private=False), **(header or {})}
    body = {"jti": "j-1", "htm": "POST", "htu": URL, "iat": NOW // 1000, **claims}
    body = {name: value for name, value in body.items() if value is not None}
    return jws.serialize_compact(
        {n: v for n, v in head.items() if v is not None}, json.dumps(body), key, registry=dpop._Registry(strict_check_header=False)
    )


def refused(text: str, **more: Any) -> dpop.Refusal:
    answer = verify_proof(text, more.pop("method", "POST"), more.pop("url", URL), more.pop("now_ms", NOW), **more)
    assert isinstance(answer, dpop.Refusal), answer
    return answer


def test_a_proof_of_the_key_holds() -> None:
    answer = verify_proof(proof(ath=dpop.hash_of("token")), "POST", URL, NOW, ath=dpop.hash_of("token"))
    assert isinstance(answer, Proof)
    assert (answer.jkt, answer.jti, answer.iat) == (KEY.thumbprint(), "j-1", NOW // 1000)
    assert answer.until_ms > NOW


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"}, {"typ": None}, {"jwk": None}, {"jwk": KEY.as_dict(private=True)}, {"jwk": OTHER.as_dict(private=False)},
        {"jwk": {"kty": "oct", "k": "AAAA"}}, {"jwk": "x"}, {"jwk": {"kty": "EC"}}, {"crit": ["exp"], "exp": 1},
    ],
)  # fmt: skip
def test_a_header_that_does_not_do_is_refused(header: dict[str, Any]) -> None:
    try:
        made = proof(header)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):  # the library will not even sign some: then write it by hand
        head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": KEY.as_dict(private=False), **header}
        made = (
            ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (head, {"jti": "j"})) + ".AAAA"
        )
    assert refused(made).error == "invalid_dpop_proof"


@pytest.mark.parametrize("alg", ["none", "HS256", "RS1", "", None, 5])
def test_an_algorithm_that_is_not_asymmetric_is_refused(alg: Any) -> None:
    head = {"typ": "dpop+jwt", "alg": alg, "jwk": KEY.as_dict(private=False)}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (head, {"jti": "j", "iat": NOW // 1000})]
    assert "algorithm" in refused(".".join([*parts, ""])).detail


@pytest.mark.parametrize(
    "claims",
    [
        {"jti": None}, {"jti": ""}, {"jti": 5}, {"jti": "x" * 300}, {"htm": "GET"}, {"htm": None}, {"htm": "post"}, {"htu": None}, {"htu": "https://pdp.example/other"},
        {"htu": "https://evil.example/access/v1/evaluation"}, {"htu": "http://pdp.example/access/v1/evaluation"}, {"htu": URL + "/"}, {"htu": "/access/v1/evaluation"},
        {"htu": "https://user@pdp.example/access/v1/evaluation"}, {"htu": "https://pdp.example:444/access/v1/evaluation"}, {"iat": None}, {"iat": "now"}, {"iat": True},
        {"iat": NOW // 1000 - 61}, {"iat": NOW // 1000 + 61}, {"iat": 1e300},
    ],
)  # fmt: skip
def test_claims_that_do_not_do_are_refused(claims: dict[str, Any]) -> None:
    assert refused(proof(**claims)).error == "invalid_dpop_proof"


@pytest.mark.parametrize(
    "url",
    [
        "https://PDP.example/access/v1/evaluation",
        "HTTPS://pdp.example:443/access/v1/evaluation?q=1#f",
        "https://pdp.example/access/v1/%65valuation",
    ],
)
def test_addresses_are_compared_normalised(url: str) -> None:
    assert isinstance(verify_proof(proof(htu=url), "POST", URL, NOW), Proof)


def test_clocks_may_differ_a_little() -> None:
    assert isinstance(verify_proof(proof(iat=NOW // 1000 - 59), "POST", URL, NOW), Proof)
    assert isinstance(verify_proof(proof(iat=NOW // 1000 + 59), "POST", URL, NOW), Proof)
    assert isinstance(refused(proof(iat=NOW // 1000 - 11), leeway_s=10), dpop.Refusal)


def test_a_nonce_that_was_demanded_is_there() -> None:
    assert refused(proof(), nonce="n-1").error == "use_dpop_nonce"
    assert refused(proof(nonce="n-0"), nonce="n-1").error == "use_dpop_nonce"
    assert isinstance(verify_proof(proof(nonce="n-1"), "POST", URL, NOW, nonce="n-1"), Proof)


@pytest.mark.parametrize("ath", [None, "", "x", 5])
def test_a_proof_for_another_token_is_refused(ath: Any) -> None:
    assert refused(proof(ath=ath), ath=dpop.hash_of("token")).error == "invalid_dpop_proof"


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", "a.b.c.d", "é.b.c", "x" * 9000, "..", "e30.e30.", "W10.e30.AA"])
def test_what_is_no_proof_is_refused(text: str) -> None:
    refused(text)


def test_names_given_twice_are_refused() -> None:
    head = (
        base64.urlsafe_b64encode(json.dumps({"typ": "dpop+jwt", "alg": "ES256", "jwk": KEY.as_dict(private=False)}).encode())
        .rstrip(b"=")
        .decode()
    )
    twice = base64.urlsafe_b64encode(b'{"jti":"a","jti":"b"}').rstrip(b"=").decode()
    assert "unique" in refused(f"{head}.{twice}.AAAA").detail


def test_a_signature_by_another_key_is_refused() -> None:
    refused(proof(key=OTHER))
    head, body, signature = proof().split(".")
    refused(f"{head}.{body[:-2]}AA.{signature}")


@pytest.mark.parametrize(
    ("kind", "size", "alg"),
    [("RSA", 2048, "RS256"), ("RSA", 2048, "PS256"), ("OKP", "Ed25519", "EdDSA"), ("OKP", "Ed25519", "Ed25519"), ("EC", "P-384", "ES384")],
)
def test_other_algorithms_hold(kind: Any, size: Any, alg: str) -> None:
    key = jwk.generate_key(kind, size)
    assert isinstance(verify_proof(proof({"alg": alg, "jwk": key.as_dict(private=False)}, key), "POST", URL, NOW), Proof)


def test_a_short_rsa_key_is_refused() -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        key = jwk.generate_key("RSA", 1024)
        assert "short" in refused(proof({"alg": "RS256", "jwk": key.as_dict(private=False)}, key)).detail


# Binding tokens.

KEYS = KeySet([jwk.ECKey.import_key({**KEY.as_dict(private=True), "kid": "k1"})])
SUBJECT, RESOURCE, ACTION = {"type": "user", "id": "a"}, {"type": "t", "id": "1", "properties": {"amount": 5}}, {"name": "pay"}
CONTEXT = {"transaction": {"ref": 1}, "ip": "192.0.2.1"}


def bound(**more: Any) -> Binding:
    given: dict[str, Any] = {
        "iss": "https://pdp", "aud": "https://pdp/requests", "iat": NOW // 1000, "exp": NOW // 1000 + 600, "jti": "j", "denial_expires_at": rfc3339(NOW + 600_000),
        "binding_context_members": ["transaction"], "binding_hash": binding.binding_hash(SUBJECT, RESOURCE, ACTION, CONTEXT, ["transaction"]),
        "evaluation_id": "ev-1", "caller": "key-1", "policy_digest": "d", "asked": Asked((Need(("finance",)),)),
    }  # fmt: skip
    return Binding(**{**given, **more})


def verify(token: str, now_ms: int = NOW, iss: str = "https://pdp", aud: str = "https://pdp/requests") -> Binding | binding.Refusal:
    return binding.verify(token, KEYS, iss=iss, aud=aud, now_ms=now_ms)


def test_a_binding_token_comes_back_as_it_was() -> None:
    assert verify(binding.mint(bound(), KEYS.keys[0], "k1", "ES256")) == bound()


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"now_ms": NOW + 600_000}, "expired_denial"),
        ({"iss": "https://x"}, "invalid_denial_binding"),
        ({"aud": "https://x"}, "invalid_denial_binding"),
    ],
)
def test_a_token_that_is_late_or_elsewhere_is_refused(more: dict[str, Any], fault: str) -> None:
    answer = verify(binding.mint(bound(), KEYS.keys[0], "k1", "ES256"), **more)
    assert isinstance(answer, binding.Refusal)
    assert answer.fault == fault


def test_a_token_of_another_key_or_type_is_refused() -> None:
    import msgspec

    for header, key in (
        ({"typ": binding.TYPE, "alg": "ES256", "kid": "k1"}, OTHER),
        ({"typ": "JWT", "alg": "ES256", "kid": "k1"}, KEYS),
        ({"typ": binding.TYPE, "alg": "ES256", "kid": "k2"}, OTHER),
    ):
        answer = verify(jwt.encode(header, msgspec.to_builtins(bound()), key))
        assert isinstance(answer, binding.Refusal), header
    good = binding.mint(bound(), KEYS.keys[0], "k1", "ES256")
    for broken in ("", "a.b.c", good[:-4] + "AAAA", good + "x" * 20_000, good.replace(".", "..", 1)):
        assert isinstance(verify(broken), binding.Refusal)


def matches(**change: Any) -> binding.Refusal | None:
    given: dict[str, Any] = {
        "subject": SUBJECT, "resource": RESOURCE, "action": ACTION, "context": CONTEXT, "denial": {"expires_at": rfc3339(NOW + 600_000), "evaluation_id": "ev-1"},
    }  # fmt: skip
    return binding.matches(bound(), **{**given, **change})


def test_what_was_denied_may_be_asked_with_more_around_it() -> None:
    assert matches() is None
    assert matches(context={**CONTEXT, "ip": "192.0.2.9", "business_justification": "x"}) is None
    assert matches(subject={**SUBJECT, "properties": {"act": {"sub": "agent"}}}) is not None  # properties were none before


@pytest.mark.parametrize(
    "change",
    [
        {"subject": {"type": "user", "id": "b"}}, {"subject": {"type": "admin", "id": "a"}}, {"resource": {**RESOURCE, "id": "2"}},
        {"resource": {**RESOURCE, "properties": {"amount": 6}}}, {"resource": {"type": "t", "id": "1"}}, {"resource": {**RESOURCE, "properties": {"amount": 5, "more": 1}}},
        {"action": {"name": "steal"}}, {"action": {"name": "pay", "properties": {"x": 1}}}, {"context": {"transaction": {"ref": 2}}}, {"context": {}},
        {"context": {"transaction": {"ref": None}}}, {"denial": {"expires_at": rfc3339(NOW)}}, {"denial": {}},
        {"denial": {"expires_at": rfc3339(NOW + 600_000), "evaluation_id": "ev-2"}}, {"context": {"transaction": 2**60}},
    ],
)  # fmt: skip
def test_any_change_breaks_the_binding(change: dict[str, Any]) -> None:
    refusal = matches(**change)
    assert refusal is not None
    assert refusal.fault == "invalid_denial_binding"


# Holding the key.


def test_only_the_executor_holds_its_key() -> None:
    executor = Executor(jkt=KEY.thumbprint())
    good = proof(ath=dpop.hash_of("apr-1"))
    shown = Presented("key-1", "POST", (URL,), good)
    assert isinstance(binding.holds_key(executor, shown, "apr-1", NOW), binding.Held)
    assert isinstance(binding.holds_key(executor, shown, "apr-2", NOW), str)
    assert isinstance(binding.holds_key(Executor(jkt=OTHER.thumbprint()), shown, "apr-1", NOW), str)
    assert isinstance(binding.holds_key(executor, Presented("key-1", "POST", (URL,)), "apr-1", NOW), str)
    assert isinstance(binding.holds_key(executor, Presented("key-1", "POST", (), good), "apr-1", NOW), str)
    assert isinstance(binding.holds_key(executor, Presented("key-1", "POST", (URL,), x5t="x"), "apr-1", NOW), str)


def test_a_certificate_is_compared_by_its_thumbprint() -> None:
    executor = Executor(x5t="t" * 43)
    assert isinstance(binding.holds_key(executor, Presented("key-1", x5t="t" * 43), "apr-1", NOW), binding.Held)
    assert isinstance(binding.holds_key(executor, Presented("key-1", x5t="u" * 43), "apr-1", NOW), str)
    assert isinstance(binding.holds_key(executor, Presented("key-1", "POST", (URL,), proof(ath=dpop.hash_of("apr-1"))), "apr-1", NOW), str)
