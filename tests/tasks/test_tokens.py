"""Tokens: each kind verifies as itself and as nothing else; keys overlap; whoever proves who they are does it by the book."""

from __future__ import annotations

import base64
import json
import warnings
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwk, jws, jwt

from aftergate.authz.tasks import details as d
from aftergate.authz.tasks import keys as k
from aftergate.authz.tasks import proofs as p
from aftergate.authz.tasks import tokens as t
from aftergate.authz.tasks.answers import Refusal
from aftergate.authz.tasks.grants import Actor, Binding, Grant, act_claim, act_of, binding_of, subject_of
from aftergate.authz.tasks.machine import Principal

NOW = 1_700_000_000_000
NOW_S = NOW // 1000
ISSUER = "https://aftergate.example"


def make() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


TIMING = k.Timing(sign_ms=1_000_000, ahead_ms=100_000, overlap_ms=200_000)
KEY = k.named(make(), NOW, NOW, TIMING)
JWKS = k.jwks([KEY], NOW)
GRANT = Grant(
    task="task-1",
    subject=Principal("user", "alice"),
    client=Principal("workload", "ci"),
    scope=frozenset({"deploy", "read"}),
    details=({"type": d.TASK, "actions": ["deploy", "read"]},),
    act=(Actor("agent"), Actor("ci")),
    audience=("https://api.example",),
    iat_ms=NOW,
    exp_ms=NOW + 60_000,
    binding=Binding(jkt="thumb"),
    acr="urn:example:aal2",
    amr=("pwd", "hwk"),
    auth_time=NOW_S - 10,
)
CLAIMS = t.access_claims(GRANT, ISSUER, "jti-1")
TOKEN = t.issue(CLAIMS, t.ACCESS_TYP, KEY)


def signed(claims: dict[str, Any], header: dict[str, Any], key: Any = None) -> str:
    assert KEY.private is not None
    registry = jws.JWSRegistry(strict_check_header=False, algorithms=["ES256", "HS256", "RS256", "ES384", "none"])
    return jws.serialize_compact(header, msgspec.json.encode(claims), key or jwk.import_key(KEY.private), registry=registry)


def head(**more: Any) -> dict[str, Any]:
    return {"alg": "ES256", "typ": "at+jwt", "kid": KEY.kid, **more}


def verify(token: str, now_ms: int = NOW, **more: Any) -> Any:
    return t.verify_access(token, JWKS, ISSUER, now_ms, **more)


def test_an_access_token_says_what_rfc_9068_wants() -> None:
    found = verify(TOKEN, for_audience="https://api.example")
    assert isinstance(found, t.Verified)
    c = found.claims
    assert {"iss", "exp", "aud", "sub", "client_id", "iat", "jti"} <= set(c)
    assert c["cnf"] == {"jkt": "thumb"}
    assert c["act"] == {"sub": "agent", "act": {"sub": "ci"}}
    assert c["scope"] == "deploy read"
    assert (c["acr"], c["amr"], c["auth_time"]) == ("urn:example:aal2", ["pwd", "hwk"], NOW_S - 10)
    assert c["authorization_details"] == [{"type": d.TASK, "actions": ["deploy", "read"]}]
    # An independent reading by the library alone.
    assert jwt.decode(TOKEN, jwk.KeySet.import_key_set(JWKS), algorithms=["ES256"]).header["typ"] == "at+jwt"


def test_the_long_form_of_the_type_is_accepted() -> None:
    assert isinstance(verify(signed(CLAIMS, head(typ="application/at+jwt"))), t.Verified)
    assert isinstance(verify(signed(CLAIMS, head(typ="AT+JWT"))), t.Verified)


@pytest.mark.parametrize(
    "typ", [None, "JWT", "id_token", "secevent+jwt", "txntoken+jwt", "dpop+jwt", "logout+jwt", "token-introspection+jwt", 7]
)
def test_no_other_kind_of_token_passes_as_an_access_token(typ: Any) -> None:
    header = {name: value for name, value in head(typ=typ).items() if value is not None}
    if typ == 7:
        part = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
        token = f"{part}.{TOKEN.split('.')[1]}.{TOKEN.split('.')[2]}"
    else:
        token = signed(CLAIMS, header)
    assert verify(token).error == "invalid_token"


def unsigned(header: dict[str, Any], signature: str = "") -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode() for each in (header, CLAIMS)]
    return ".".join([*parts, signature])


@pytest.mark.parametrize(
    "token",
    [
        unsigned(head(alg="none")),
        unsigned(head(alg="none"), "AA"),
        unsigned(head(alg="None"), "AA"),
        unsigned(head(alg="nOnE"), "AA"),
        signed(CLAIMS, head(alg="HS256"), jwk.OctKey.import_key(json.dumps(KEY.public).encode())),
        unsigned(head(crit=["exp"]), TOKEN.split(".")[2]),
        unsigned(head(b64=False), TOKEN.split(".")[2]),
        TOKEN[:-4] + ("AAAA" if not TOKEN.endswith("AAAA") else "BBBB"),
        TOKEN + ".x",
        TOKEN.replace(".", "..", 1),
        " " + TOKEN,
        "",
        "x" * 20_000,
        "a.b.c",
        "é.é.é",
    ],
)
def test_an_unsigned_or_broken_token_is_refused(token: str) -> None:
    assert verify(token).error == "invalid_token"


def test_the_key_never_comes_from_the_token() -> None:
    other = k.named(make(), NOW, NOW, TIMING)
    assert other.private is not None
    mine = jwk.import_key(other.private)
    for more in ({"jwk": other.public}, {"jku": "https://evil.example/keys"}, {"kid": other.kid}, {}):
        assert verify(signed(CLAIMS, head(**more), mine)).error == "invalid_token"


def test_names_given_twice_are_refused() -> None:
    payload = b'{"sub":"alice","sub":"root"}'
    assert KEY.private is not None
    token = jws.serialize_compact(head(), payload, jwk.import_key(KEY.private), registry=jws.JWSRegistry(strict_check_header=False))
    assert verify(token).error == "invalid_token"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"iss": None},
        {"sub": None},
        {"client_id": None},
        {"jti": None},
        {"aud": None},
        {"aud": []},
        {"aud": [1]},
        {"exp": None},
        {"exp": "soon"},
        {"exp": True},
        {"exp": NOW_S - 31},
        {"exp": 1e400},
        {"iat": None},
        {"iat": NOW_S + 31},
        {"nbf": NOW_S + 31},
        {"nbf": "now"},
    ],
)
def test_a_missing_or_wrong_claim_is_refused(changes: dict[str, Any]) -> None:
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    assert verify(signed(claims, head())).error == "invalid_token"


def test_the_audience_is_restricted_and_an_expired_token_is_no_token() -> None:
    assert verify(TOKEN, for_audience="https://other.example").error == "invalid_token"
    assert verify(TOKEN, now_ms=NOW + 60_000 + t.LEEWAY_MS).error == "invalid_token"


def test_a_key_of_another_kind_or_size_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library warns of the key that we make here to see it refused
        weak = jwk.RSAKey.import_key(rsa.generate_private_key(65537, 1024))
        token = signed(CLAIMS, head(alg="RS256", kid="weak"), weak)
    found = t.verify_access(token, {"keys": [{**weak.as_dict(private=False), "kid": "weak"}]}, ISSUER, NOW)
    assert isinstance(found, Refusal)
    assert "short" in found.reason
    p384 = jwk.ECKey.import_key(ec.generate_private_key(ec.SECP384R1()))
    public = {**p384.as_dict(private=False), "kid": "c"}
    assert isinstance(t.verify_access(signed(CLAIMS, head(alg="ES384", kid="c"), p384), {"keys": [public]}, ISSUER, NOW), t.Verified)
    for wrong in ({"alg": "ES256"}, {"use": "enc"}, {"key_ops": ["sign"]}):
        assert (
            t.verify_access(signed(CLAIMS, head(alg="ES384", kid="c"), p384), {"keys": [{**public, **wrong}]}, ISSUER, NOW).error
            == "invalid_token"
        )
    assert (
        t.verify_access(signed(CLAIMS, head(alg="ES384", kid="c"), p384), {"keys": [public, public]}, ISSUER, NOW).error == "invalid_token"
    )


def test_a_transaction_token_is_no_access_token_and_the_other_way_round() -> None:
    claims = t.txn_claims(
        GRANT, ISSUER, "j", trust_domain="prod.example", txn="txn-1", requester=("gw",), tctx={"amount": "10"}, rctx={"ip": "192.0.2.1"}
    )
    token = t.issue(claims, t.TXN_TYP, KEY)
    found = t.verify_txn(token, JWKS, "prod.example", NOW)
    assert isinstance(found, t.Verified)
    assert {"iat", "aud", "exp", "txn", "sub", "scope", "req_wl"} <= set(found.claims)
    assert found.claims["tctx"] == {"amount": "10"}
    assert "azd" not in found.claims
    assert "purp" not in found.claims
    assert verify(token).error == "invalid_token"
    assert t.verify_txn(TOKEN, JWKS, "https://api.example", NOW).error == "invalid_token"
    assert t.verify_txn(token, JWKS, "other.example", NOW).error == "invalid_token"
    for gone in ("txn", "req_wl", "scope", "sub"):
        less = {name: value for name, value in claims.items() if name != gone}
        assert t.verify_txn(t.issue(less, t.TXN_TYP, KEY), JWKS, "prod.example", NOW).error == "invalid_token"
    both = t.issue({**claims, "aud": ["prod.example", "other.example"]}, t.TXN_TYP, KEY)
    assert t.verify_txn(both, JWKS, "prod.example", NOW).error == "invalid_token"
    assert t.replacement_chain(claims, "svc") == ("gw", "svc")
    assert t.replacement_chain({**claims, "req_wl": ["gw", "svc"]}, "db") == ("gw", "svc", "db")
    assert t.TXN_DRAFT.endswith("-10")


@given(st.lists(st.builds(Actor, st.sampled_from(["a", "b", "c"]), st.sampled_from(["", "https://i.example"])), max_size=6))
def test_a_chain_of_actors_survives_its_claim(chain: list[Actor]) -> None:
    claim = act_claim(chain)
    assert act_of({} if claim is None else {"act": claim}) == tuple(chain)


def test_a_chain_without_end_or_form_is_refused() -> None:
    long = act_claim([Actor("x")] * 70)
    for claims in ({"act": long}, {"act": "x"}, {"act": {"iss": "y"}}, {"act": {"sub": "a", "act": []}}):
        assert isinstance(act_of(claims), Refusal)


def test_a_binding_that_is_not_known_is_refused_rather_than_ignored() -> None:
    assert binding_of({}) == Binding()
    assert binding_of({"cnf": {"x5t#S256": "h"}}) == Binding(x5t="h")
    for cnf in ({"jwk": {}}, {}, "x", {"jkt": 5}, {"jkt": "a", "kid": "b"}):
        assert isinstance(binding_of({"cnf": cnf}), Refusal)


def test_a_subject_tokens_claims_are_read_or_refused() -> None:
    found = subject_of(CLAIMS, Principal("user", "alice"), d.BUILT_IN, own=True)
    assert not isinstance(found, Refusal)
    assert found.scope == {"deploy", "read"}
    assert found.binding.jkt == "thumb"
    assert [actor.sub for actor in found.act] == ["agent", "ci"]
    for changes in ({"scope": 5}, {"authorization_details": [{"type": "nope"}]}, {"may_act": "x"}, {"cnf": {}}, {"act": 5}):
        assert isinstance(subject_of({**CLAIMS, **changes}, Principal("user", "alice"), d.BUILT_IN, own=True), Refusal)


# Keys


@given(st.lists(st.integers(0, 400_000), min_size=1, max_size=30))
def test_whatever_signs_is_published_and_stays_so_until_its_tokens_are_dead(waits: list[int]) -> None:
    ring: tuple[k.SigningKey, ...] = ()
    now = NOW
    signed_by: list[tuple[str, int]] = []
    for wait in waits:
        ring, _ = k.renewed(ring, now, TIMING, make)
        key = k.signer(ring, now)
        assert key is not None
        signed_by.append((key.kid, now))
        published = {each["kid"] for each in k.jwks(ring, now)["keys"]}
        for kid, at in signed_by:
            if now < at + TIMING.overlap_ms:
                assert kid in published
        assert all("d" not in each for each in k.jwks(ring, now)["keys"])
        now += wait


def test_the_next_key_is_published_before_it_signs() -> None:
    ring, new = k.renewed((), NOW, TIMING, make)
    assert [key.phase(NOW) for key in new] == ["current"]
    late = NOW + TIMING.sign_ms - TIMING.ahead_ms
    ring, new = k.renewed(ring, late, TIMING, make)
    assert [key.phase(late) for key in new] == ["next"]
    assert len(k.jwks(ring, late)["keys"]) == 2
    first = k.signer(ring, late)
    assert first is not None
    assert first.kid != new[0].kid
    after = NOW + TIMING.sign_ms
    second = k.signer(ring, after)
    assert second is not None
    assert second.kid == new[0].kid
    assert len(k.jwks(ring, after)["keys"]) == 2  # the first one retires
    ring, _ = k.renewed(ring, after + TIMING.overlap_ms, TIMING, make)
    assert first.kid not in {key.kid for key in ring}


def test_rotation_by_hand_stops_the_old_key_at_once_and_keeps_it_verifiable() -> None:
    ring, _ = k.renewed((), NOW, TIMING, make)
    ring, new = k.rotated(ring, NOW + 5, TIMING, make)
    key = k.signer(ring, NOW + 5)
    assert key is not None
    assert key.kid == new.kid
    assert {each.phase(NOW + 5) for each in ring} == {"current", "retiring"}
    assert "private" not in repr(ring)
    assert KEY.private is not None
    assert KEY.private["d"] not in repr(KEY)


# Proofs

WORKLOAD = "spiffe://prod.example/ns/ci/sa/deploy"
CA = ec.generate_private_key(ec.SECP256R1())
CA_KEY = jwk.ECKey.import_key(CA)
BUNDLE = {
    "spiffe_sequence": 1,
    "keys": [{**CA_KEY.as_dict(private=False), "use": "jwt-svid", "kid": "ca1"}, {"use": "x509-svid", "kty": "EC", "x5c": ["AA"]}],
}
AUD = frozenset({ISSUER})


def svid(claims: dict[str, Any] | None = None, **header: Any) -> str:
    body = {"sub": WORKLOAD, "aud": [ISSUER], "exp": NOW_S + 300, "iat": NOW_S, **(claims or {})}
    body = {name: value for name, value in body.items() if value is not None}
    made = {name: value for name, value in {"alg": "ES256", "kid": "ca1", "typ": "JWT", **header}.items() if value is not None}
    return signed(body, made, CA_KEY)


def test_a_jwt_svid_proves_a_workload() -> None:
    for token in (svid(), svid(typ=None), svid(typ="JOSE"), svid({"aud": ISSUER})):
        found = p.verify_jwt_svid(token, {"prod.example": BUNDLE}, AUD, NOW)
        assert isinstance(found, p.Proved), found
        assert found.principal == Principal("workload", WORKLOAD)


@pytest.mark.parametrize(
    "token",
    [
        svid({"sub": None}),
        svid({"sub": "spiffe://prod.example"}),
        svid({"sub": "SPIFFE://prod.example/x"}),
        svid({"sub": "spiffe://PROD.example/x"}),
        svid({"sub": "spiffe://other.example/x"}),
        svid({"aud": None}),
        svid({"aud": ["https://other.example"]}),
        svid({"exp": None}),
        svid({"exp": NOW_S - 60}),
        svid(kid=None),
        svid(kid="ca2"),
        svid(typ="at+jwt"),
        svid(jku="https://x.example"),
        signed({"sub": WORKLOAD, "aud": ISSUER, "exp": NOW_S + 60}, {"alg": "HS256", "kid": "ca1"}, jwk.OctKey.import_key("x" * 64)),
        signed({"sub": WORKLOAD, "aud": ISSUER, "exp": NOW_S + 60}, {"alg": "ES256", "kid": "ca1"}),
    ],
)
def test_a_jwt_svid_that_is_not_by_the_book_is_refused(token: str) -> None:
    found = p.verify_jwt_svid(token, {"prod.example": BUNDLE}, AUD, NOW)
    assert isinstance(found, Refusal)
    assert found.error == "invalid_client"


def test_the_bundle_is_that_of_the_ids_own_trust_domain() -> None:
    assert isinstance(p.verify_jwt_svid(svid(), {"other.example": BUNDLE}, AUD, NOW), Refusal)
    foreign = {"keys": [{**BUNDLE["keys"][0], "use": "x509-svid"}]}  # type: ignore[index]
    assert isinstance(p.verify_jwt_svid(svid(), {"prod.example": foreign}, AUD, NOW), Refusal)


@pytest.mark.parametrize(
    "text",
    [
        "SPIFFE://prod.example/a", "spiffe://Prod.example/a", "spiffe://prod.example/%2e", "spiffe://prod.example//a", "spiffe://prod.example/a/",
        "spiffe://prod.example/a?x", "spiffe://prod.example:80/a", "spiffe://user@prod.example/a", "spiffe://prod.example/a#f", "spiffe:///a",
        "spiffe://prod.example/../a", "spiffe://prod.example/./a", "spiffe://prod.example/é", "spiffe://" + "a" * 256 + "/x", "https://prod.example/a",
        "spiffe://prod.example/" + "a" * 2048, "spiffe://prod.example", "spiffe://prod.example/a\n",
    ],
)  # fmt: skip
def test_only_one_spelling_of_a_spiffe_id_exists(text: str) -> None:
    assert isinstance(p.spiffe_id(text), Refusal)


def test_the_spiffe_library_reads_the_same_ids_and_tokens() -> None:
    from spiffe import JwtBundle, JwtSvid, SpiffeId, TrustDomain

    assert str(SpiffeId(WORKLOAD)) == WORKLOAD
    good = p.spiffe_id(WORKLOAD)
    assert isinstance(good, p.SpiffeId)
    assert good.domain == SpiffeId(WORKLOAD).trust_domain.name
    import time

    now = int(time.time())
    token = svid({"exp": now + 300, "iat": now})
    bundle = JwtBundle(TrustDomain("prod.example"), {"ca1": CA.public_key()})
    assert str(JwtSvid.parse_and_validate(token, bundle, {ISSUER}).spiffe_id) == WORKLOAD
    assert isinstance(p.verify_jwt_svid(token, {"prod.example": BUNDLE}, AUD, now * 1000), p.Proved)


CLIENT_KEYS = {"keys": [{**CA_KEY.as_dict(private=False), "kid": "c1"}]}


def assertion(claims: dict[str, Any] | None = None, **header: Any) -> str:
    body = {
        "iss": "deployer",
        "sub": "deployer",
        "aud": ISSUER + "/oauth/token",
        "exp": NOW_S + 60,
        "iat": NOW_S,
        "jti": "j1",
        **(claims or {}),
    }
    body = {name: value for name, value in body.items() if value is not None}
    return signed(body, {"alg": "ES256", "kid": "c1", **header}, CA_KEY)


TOKEN_AUD = frozenset({ISSUER, ISSUER + "/oauth/token"})


def test_private_key_jwt_proves_a_client_once() -> None:
    found = p.verify_client_assertion(assertion(), "deployer", CLIENT_KEYS, TOKEN_AUD, NOW)
    assert isinstance(found, p.Proved)
    assert found.principal == Principal("workload", "deployer")
    again = p.verify_client_assertion(assertion({"iat": NOW_S - 1}), "deployer", CLIENT_KEYS, TOKEN_AUD, NOW)
    assert isinstance(again, p.Proved)
    assert again.once == found.once  # the same jti: the store lets one of them through
    assert isinstance(
        p.verify_client_assertion(assertion(typ="client-authentication+jwt"), "deployer", CLIENT_KEYS, TOKEN_AUD, NOW), p.Proved
    )


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "other"}, {"sub": "other"}, {"iss": None}, {"aud": "https://other.example"}, {"aud": None}, {"exp": NOW_S - 40}, {"exp": None},
        {"exp": NOW_S + 3600}, {"jti": None}, {"jti": 5}, {"jti": ""}, {"nbf": NOW_S + 60}, {"iat": NOW_S + 60},
    ],
)  # fmt: skip
def test_a_client_assertion_that_is_not_by_the_book_is_refused(claims: dict[str, Any]) -> None:
    assert isinstance(p.verify_client_assertion(assertion(claims), "deployer", CLIENT_KEYS, TOKEN_AUD, NOW), Refusal)


def test_a_client_assertion_of_another_type_or_client_is_refused() -> None:
    assert isinstance(p.verify_client_assertion(assertion(typ="at+jwt"), "deployer", CLIENT_KEYS, TOKEN_AUD, NOW), Refusal)
    assert isinstance(p.verify_client_assertion(assertion(), "other", CLIENT_KEYS, TOKEN_AUD, NOW), Refusal)
    assert isinstance(p.verify_client_assertion(assertion(kid="c2"), "deployer", CLIENT_KEYS, TOKEN_AUD, NOW), Refusal)


IDP = p.Issuer(issuer="https://idp.example", audience=frozenset({"aftergate"}), entity_type="user", prefix="idp:")


def issued(claims: dict[str, Any] | None = None, **header: Any) -> str:
    body = {"iss": "https://idp.example", "sub": "alice", "aud": "aftergate", "exp": NOW_S + 60, "iat": NOW_S, **(claims or {})}
    body = {name: value for name, value in body.items() if value is not None}
    return signed(body, {"alg": "ES256", "kid": "c1", "typ": "at+jwt", **header}, CA_KEY)


def test_a_subject_token_of_a_named_issuer_proves_its_subject() -> None:
    found = p.verify_issued(issued(), IDP, CLIENT_KEYS, NOW, types=p.ACCESS)
    assert isinstance(found, p.Proved)
    assert found.principal == Principal("user", "idp:alice")
    assert isinstance(p.verify_issued(issued(typ="JWT"), IDP, CLIENT_KEYS, NOW, types=None), p.Proved)


@pytest.mark.parametrize(
    ("claims", "header"),
    [
        ({"iss": "https://evil.example"}, {}),
        ({"aud": "other"}, {}),
        ({"exp": NOW_S - 40}, {}),
        ({"sub": None}, {}),
        ({"sub": 5}, {}),
        ({"events": {}}, {}),
        ({}, {"typ": "JWT"}),
        ({}, {"typ": "secevent+jwt"}),
        ({}, {"kid": "other"}),
    ],
)
def test_a_subject_token_that_is_not_by_the_book_is_refused(claims: dict[str, Any], header: dict[str, Any]) -> None:
    assert isinstance(p.verify_issued(issued(claims, **header), IDP, CLIENT_KEYS, NOW, types=p.ACCESS), Refusal)


def test_an_issuer_bound_to_one_client_takes_only_its_tokens() -> None:
    bound = msgspec.structs.replace(IDP, client_id="app")
    assert isinstance(p.verify_issued(issued(), bound, CLIENT_KEYS, NOW, types=p.ACCESS), Refusal)
    assert isinstance(p.verify_issued(issued({"client_id": "app"}), bound, CLIENT_KEYS, NOW, types=p.ACCESS), p.Proved)


@pytest.mark.parametrize(
    ("conditions", "ok"),
    [
        ({"repository": "acme/app", "ref": "refs/heads/main"}, True),
        ({"repository": "acme/*"}, True),
        ({"ref": ["refs/heads/dev", "refs/heads/main"]}, True),
        ({"repository": "acme/other"}, False),
        ({"repository": "acme/app", "environment": "prod"}, False),
        ({"environment": "*"}, False),
        ({"run_attempt": 1}, True),
        ({"run_attempt": "1"}, False),
        ({"run_attempt": True}, False),
        ({"ref": []}, False),
        ({}, False),
    ],
)
def test_a_ci_job_is_who_its_claims_say(conditions: dict[str, Any], ok: bool) -> None:
    claims = {"repository": "acme/app", "ref": "refs/heads/main", "run_attempt": 1}
    assert (p.meets(claims, conditions) is None) is ok
