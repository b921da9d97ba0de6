"""Login at the issuer, against an issuer in memory that signs what each test asks of it."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey
from people_house import OPERATOR, House

from aftergate.errors import ConfigError
from aftergate.service.enrolment import Refused
from aftergate.service.login import claim_of, groups_of, secret_of
from aftergate.service.oidc import Issuer, IssuerError, challenge_of
from aftergate.settings import Settings, problems_of

ISSUER = "https://id.example.org/realm"
KEYS = [RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"}), ECKey.generate_key("P-256", {"kid": "ec", "use": "sig"})]


class Peer:
    """An issuer. Tests change `claims`, `header`, `metadata`, `user` or `answers`."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.metadata: dict[str, Any] = {
            "issuer": ISSUER, "authorization_endpoint": ISSUER + "/auth", "token_endpoint": ISSUER + "/token", "jwks_uri": ISSUER + "/jwks",
            "userinfo_endpoint": ISSUER + "/me", "authorization_response_iss_parameter_supported": True, "code_challenge_methods_supported": ["S256"],
        }  # fmt: skip
        self.claims: dict[str, Any] = {
            "sub": "sub-1",
            "email": "alice@example.org",
            "email_verified": True,
            "name": "Alice Ames",
            "groups": ["finance"],
        }
        self.user: dict[str, Any] = {}
        self.header: dict[str, Any] = {"alg": "ES256", "kid": "ec"}
        self.published = KEYS
        self.signing: Any = KEYS[1]
        self.asked: list[str] = []
        self.forms: list[dict[str, str]] = []
        self.heads: list[Any] = []
        self.nonce = ""
        self.answers: dict[str, httpx2.Response] = {}
        self.failing = 0

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        self.asked.append(path)
        if self.failing:
            self.failing -= 1
            raise httpx2.ConnectError("down")
        if path in self.answers:
            return self.answers[path]
        if path.endswith("/openid-configuration"):
            return httpx2.Response(200, json=self.metadata)
        if path.endswith("/jwks"):
            return httpx2.Response(200, json=KeySet(list(self.published)).as_dict(private=False))
        if path.endswith("/me"):
            return httpx2.Response(200, json=self.user)
        self.heads.append(request.headers)
        self.forms.append({k: v[0] for k, v in parse_qs(request.content.decode()).items()})
        return httpx2.Response(200, json={"access_token": "at-1", "token_type": "Bearer", "id_token": self.token()})

    def token(self) -> str:
        now = self.clock() // 1000
        claims = {"iss": ISSUER, "aud": "gate", "exp": now + 300, "iat": now, "auth_time": now, "nonce": self.nonce, **self.claims}
        return jwt.encode(self.header, {k: v for k, v in claims.items() if v is not None}, self.signing, algorithms=[self.header["alg"]])


@pytest.fixture
def peer(database):
    house = House(database, Settings(oidc_issuer=ISSUER, oidc_client_id="gate"))
    made = Peer(house.clock)
    made.house = house
    connect(made, "")
    return made


def connect(peer: Peer, secret: str) -> None:
    peer.house.people.logins.issuer = Issuer(ISSUER, "gate", secret, peer.house.clock, httpx2.MockTransport(peer))


def login(peer: Peer, *, onward: str = "/approvals", answer: dict[str, str] | None = None, without: str = "", **asked: Any) -> Any:
    """There and back again."""
    logins = peer.house.people.logins
    start = logins.oidc_begin(onward, **asked)
    query = {k: v[0] for k, v in parse_qs(urlsplit(start.url).query).items()}
    peer.nonce = query["nonce"]
    peer.query, peer.ticket = query, start.ticket
    given = {"code": "c-1", "state": query["state"], "iss": ISSUER, **(answer or {})}
    given.pop(without, None)
    return logins.oidc_finish(start.ticket, given)


def test_the_request_has_all_that_protects_it(peer):
    login(peer, max_age_s=300, acr_values="phr phrh", prompt="login")
    query = peer.query
    assert query["response_type"] == "code"
    assert query["redirect_uri"] == "https://gate.example.org/v1/login/oidc/callback" == peer.forms[0]["redirect_uri"]
    assert (query["max_age"], query["acr_values"], query["prompt"], query["code_challenge_method"]) == ("300", "phr phrh", "login", "S256")
    assert challenge_of(peer.forms[0]["code_verifier"]) == query["code_challenge"]
    assert len({query["state"], query["nonce"], peer.forms[0]["code_verifier"]}) == 3
    assert min(len(query["state"]), len(query["nonce"])) >= 43
    assert query["state"] not in peer.ticket


def test_pkce_is_as_in_rfc_7636_appendix_b():
    assert challenge_of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_a_login_opens_a_session_with_groups_and_names_of_the_issuer(peer):
    done = login(peer, onward="/approvals/apr_1")
    assert done.onward == "/approvals/apr_1"
    session = peer.house.people.session(done.cookie, peer.house.clock())
    assert (session.id, session.name, session.groups, session.method) == ("alice@example.org", "Alice Ames", {"finance"}, "oidc")
    assert session.aliases == {"sub-1", "alice@example.org"}
    assert session.auth_ms == peer.house.clock() // 1000 * 1000
    assert peer.house.audit.types() == ["admin.person.added", "admin.login"]
    assert all(b"alice" not in leaf and b"Ames" not in leaf for leaf in peer.house.audit.leaves)


def test_claims_that_the_token_lacks_come_from_user_info_of_the_same_person(peer):
    peer.user = {**peer.claims}
    peer.claims = {"sub": "sub-1"}
    assert peer.house.people.session(login(peer).cookie, peer.house.clock()).groups == {"finance"}
    peer.user["sub"] = "sub-2"
    assert login(peer).code == "issuer"


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://id.example.org"}, {"iss": ISSUER + "/"}, {"aud": "other"}, {"aud": ["other"]}, {"aud": None}, {"aud": ["gate", "other"]},
        {"azp": "other"}, {"exp": 1_700_000_000}, {"exp": None}, {"exp": "soon"}, {"iat": 1_900_000_000}, {"iat": None}, {"nbf": 1_900_000_000},
        {"nonce": "another"}, {"nonce": None}, {"sub": None}, {"sub": ""}, {"sub": 7}, {"sub": "x" * 256},
        {"sub": "a\0b"}, {"at_hash": "AAAA"},
        {"auth_time": 1_900_000_000}, {"auth_time": "now"},
    ],
    ids=str,
)  # fmt: skip
def test_a_token_with_a_wrong_claim_lets_nobody_in(peer, claims):
    peer.claims |= claims
    assert login(peer).code == "issuer"
    assert peer.house.people.everybody() == []


@pytest.mark.parametrize("kind", ["at+jwt", "logout+jwt", "application/at+jwt", "secevent+jwt", "dpop+jwt"])
def test_a_token_of_another_type_is_no_id_token(peer, kind):
    peer.header = {**peer.header, "typ": kind}
    assert login(peer).code == "issuer"


def test_a_token_for_several_audiences_must_be_ours_by_azp(peer):
    peer.claims |= {"aud": ["gate", "other"], "azp": "gate"}
    assert not isinstance(login(peer), Refused)


def test_at_hash_holds(peer):
    half = hashlib.sha256(b"at-1").digest()[:16]
    peer.claims["at_hash"] = base64.urlsafe_b64encode(half).rstrip(b"=").decode()
    assert not isinstance(login(peer), Refused)


@pytest.mark.parametrize("form", ["none", "hmac", "other-key", "not-a-token", "empty"])
def test_a_signature_that_is_not_the_issuers_lets_nobody_in(peer, form):
    if form == "none":
        whole = peer.token().split(".")
        head = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
        token = f"{head}.{whole[1]}."
    elif form == "hmac":
        peer.signing = OctKey.import_key(json.dumps(KEYS[1].as_dict(private=False)))
        peer.header = {"alg": "HS256", "kid": "ec"}
        token = peer.token()
    elif form == "other-key":
        peer.signing = ECKey.generate_key("P-256", {"kid": "ec"})
        token = peer.token()
    else:
        token = "a.b.c" if form == "not-a-token" else ""
    peer.answers["/realm/token"] = httpx2.Response(200, json={"access_token": "at-1", "id_token": token})
    assert login(peer).code == "issuer"


@pytest.mark.parametrize("named", ["https://evil.example", "", ISSUER + "/"])
def test_an_answer_of_another_issuer_is_a_mix_up(peer, named):
    assert login(peer, answer={"iss": named}).code == "issuer"
    assert peer.forms == []


def test_an_issuer_that_always_names_itself_must_do_so_and_others_need_not(peer):
    assert login(peer, without="iss").code == "issuer"
    peer.metadata["authorization_response_iss_parameter_supported"] = False
    connect(peer, "")
    assert not isinstance(login(peer, without="iss"), Refused)
    assert login(peer, answer={"iss": "https://evil.example"}).code == "issuer"


def test_state_and_ticket_belong_together_are_used_once_and_run_out(peer):
    assert login(peer, answer={"state": "x"}).code == "expired"
    assert login(peer, without="state").code == "expired"
    assert peer.forms == []
    assert not isinstance(login(peer), Refused)
    again = {"code": "c-1", "state": peer.query["state"], "iss": ISSUER}
    assert peer.house.people.logins.oidc_finish(peer.ticket, again).code == "expired"
    start = peer.house.people.logins.oidc_begin("/approvals")
    peer.house.clock.pass_(600)
    state = parse_qs(urlsplit(start.url).query)["state"][0]
    assert peer.house.people.logins.oidc_finish(start.ticket, {"code": "c", "state": state, "iss": ISSUER}).code == "expired"
    assert peer.house.people.logins.oidc_finish("", again).code == "expired"


def test_what_the_issuer_refuses_is_refused(peer):
    assert login(peer, answer={"error": "access_denied"}).code == "declined"
    assert login(peer, answer={"error": "unmet_authentication_requirements"}).code == "stronger"
    peer.answers["/realm/token"] = httpx2.Response(400, json={"error": "invalid_grant", "error_description": "code c-1"})
    done = login(peer)
    assert (done.code, "invalid_grant" in done.detail, "c-1" in done.detail) == ("issuer", True, False)


def test_freshness_is_when_the_person_authenticated_not_when_the_token_was_issued(peer):
    now = peer.house.clock() // 1000
    peer.claims["auth_time"] = now - 3600
    assert login(peer, max_age_s=300).code == "issuer"
    done = login(peer)
    assert peer.house.people.session(done.cookie, peer.house.clock()).auth_ms == (now - 3600) * 1000
    peer.claims["auth_time"] = None
    assert login(peer, max_age_s=300).code == "issuer"
    assert peer.house.people.session(login(peer).cookie, peer.house.clock()).auth_ms == 0


def test_an_authentication_that_was_asked_for_must_have_happened(peer):
    assert login(peer, acr_values="phr phrh").code == "issuer"
    peer.claims |= {"acr": "phr", "amr": ["pop", "user"]}
    session = peer.house.people.session(login(peer, acr_values="phr phrh").cookie, peer.house.clock())
    assert (session.acr, session.amr) == ("phr", ("pop", "user"))


def test_a_new_key_is_fetched_once_it_signs_and_a_flood_of_unknown_keys_is_not(peer):
    assert not isinstance(login(peer), Refused)
    fresh = ECKey.generate_key("P-256", {"kid": "next", "use": "sig"})
    peer.published, peer.signing, peer.header = [fresh], fresh, {"alg": "ES256", "kid": "next"}
    peer.house.clock.pass_(11)
    assert not isinstance(login(peer), Refused)
    count = peer.asked.count("/realm/jwks")
    peer.header = {"alg": "ES256", "kid": "made-up"}
    for _ in range(5):
        assert login(peer).code == "issuer"
    assert peer.asked.count("/realm/jwks") == count


def test_metadata_and_keys_are_cached(peer):
    for _ in range(4):
        login(peer)
    assert peer.asked.count("/realm/.well-known/openid-configuration") == 1
    assert peer.asked.count("/realm/jwks") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://evil.example"}, {"token_endpoint": "http://id.example.org/token"}, {"jwks_uri": "http://169.254.169.254/latest"},
        {"jwks_uri": "file:///etc/passwd"}, {"userinfo_endpoint": "http://localhost:9/me"}, {"authorization_endpoint": "javascript:alert(1)"},
        {"token_endpoint": "https://user:pw@id.example.org/token"}, {"code_challenge_methods_supported": ["plain"]}, {"jwks_uri": 7}, {"token_endpoint": ""},
    ],
    ids=str,
)  # fmt: skip
def test_metadata_that_leads_astray_is_not_followed(peer, change):
    peer.metadata |= change
    with pytest.raises(IssuerError):
        peer.house.people.logins.oidc_begin("/approvals")
    assert peer.asked == ["/realm/.well-known/openid-configuration"]


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_of_the_issuer_is_not_followed(peer, status):
    peer.answers["/realm/jwks"] = httpx2.Response(status, headers={"location": "http://169.254.169.254/"})
    assert login(peer).code == "issuer"


def test_an_answer_without_end_is_cut_off(peer):
    peer.answers["/realm/jwks"] = httpx2.Response(200, content=b" " * 1_100_000)
    assert login(peer).code == "issuer"


def test_a_failed_connection_is_tried_again_for_what_can_be_asked_twice(peer):
    peer.failing = 2
    assert not isinstance(login(peer), Refused)


def test_a_code_is_redeemed_once_even_if_the_answer_is_lost(peer):
    login(peer)
    start = peer.house.people.logins.oidc_begin("/approvals")
    state = parse_qs(urlsplit(start.url).query)["state"][0]
    before = peer.asked.count("/realm/token")
    peer.failing = 1
    assert peer.house.people.logins.oidc_finish(start.ticket, {"code": "c", "state": state, "iss": ISSUER}).code == "issuer"
    assert peer.asked.count("/realm/token") == before + 1


def test_a_client_with_a_secret_proves_itself_as_the_issuer_wants(peer):
    connect(peer, "s:e/c")
    login(peer)
    assert peer.heads[-1]["authorization"] == "Basic " + base64.b64encode(b"gate:s%3Ae%2Fc").decode()
    peer.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
    connect(peer, "s:e/c")
    login(peer)
    assert (peer.forms[-1]["client_secret"], "authorization" in peer.heads[-1]) == ("s:e/c", False)


def test_an_operators_entry_is_found_by_the_verified_address_and_only_by_it(peer):
    house = peer.house
    house.people.add("alice", groups=["treasury"], aliases=["alice@example.org"], by=OPERATOR)
    peer.claims["email_verified"] = False
    assert house.people.session(login(peer).cookie, house.clock()).id == "sub-1"
    peer.claims |= {"sub": "sub-2", "email_verified": True}
    session = house.people.session(login(peer).cookie, house.clock())
    assert (session.id, session.groups) == ("alice", {"treasury", "finance"})


def test_an_address_given_to_somebody_else_does_not_bring_the_former_owners_groups(peer):
    house = peer.house
    house.people.add("alice", groups=["treasury"], aliases=["alice@example.org"], by=OPERATOR)
    assert house.people.session(login(peer).cookie, house.clock()).id == "alice"
    peer.claims |= {"sub": "the-new-alice", "groups": []}
    session = house.people.session(login(peer).cookie, house.clock())
    assert session.id != "alice"
    assert session.groups == frozenset()


def test_two_entries_with_one_alias_are_neither_of_them(peer):
    house = peer.house
    house.people.add("alice", groups=["a"], aliases=["alice@example.org"], by=OPERATOR)
    house.people.add("agnes", groups=["b"], aliases=["alice@example.org"], by=OPERATOR)
    assert house.people.session(login(peer).cookie, house.clock()).groups == {"finance"}


def test_a_subject_is_known_again_whatever_its_address_and_groups_follow_the_claim(peer):
    house = peer.house
    login(peer)
    peer.claims |= {"email": "ames@example.org", "groups": ["treasury"]}
    session = house.people.session(login(peer).cookie, house.clock())
    assert (session.id, session.groups) == ("alice@example.org", {"treasury"})
    assert "ames@example.org" in session.aliases
    assert "admin.person.changed" in house.audit.types()
    peer.claims["groups"] = None
    peer.user = {"sub": "sub-1"}
    assert house.people.session(login(peer).cookie, house.clock()).groups == frozenset()


def test_a_removed_person_stays_out_though_the_issuer_lets_them_in(peer):
    house = peer.house
    login(peer)
    house.people.remove("alice@example.org", by=OPERATOR)
    assert login(peer).code == "removed"
    assert house.people.everybody() == []


@pytest.mark.parametrize("subject", ["a/b", "x" * 250, "line\nbreak"])
def test_a_subject_that_makes_no_id_gets_one_made(peer, subject):
    peer.claims |= {"sub": subject, "email": None, "name": None}
    peer.user = {"sub": subject}
    session = peer.house.people.session(login(peer).cookie, peer.house.clock())
    assert session.id.startswith("person-")


def test_groups_are_lists_or_words_and_nothing_else():
    assert groups_of(["a", " b ", 7, "", "x" * 600, "c\n"]) == {"a", "b"}
    assert groups_of("a b") == {"a", "b"}
    assert groups_of({"a": 1}) == groups_of(None) == frozenset()


def test_an_address_counts_only_verified():
    assert claim_of({"email": "a@b", "email_verified": "true"}, "email") == ""
    assert claim_of({"email": "a@b", "email_verified": True}, "email") == "a@b"
    assert claim_of({"upn": "a@b"}, "upn") == "a@b"


def test_a_client_secret_is_read_from_its_file_or_the_server_does_not_start(tmp_path):
    assert secret_of("") == ""
    (tmp_path / "secret").write_text("s3cret\n")
    assert secret_of(str(tmp_path / "secret")) == "s3cret"
    (tmp_path / "empty").write_text("\n")
    for name in ("missing", "empty"):
        with pytest.raises(ConfigError):
            secret_of(str(tmp_path / name))


def test_settings_that_make_no_login_are_refused():
    assert problems_of(Settings(oidc_issuer="http://id.example.org", oidc_client_id="gate"))
    assert problems_of(Settings(oidc_issuer=ISSUER))
    assert not problems_of(Settings(oidc_issuer="http://localhost:3000", oidc_client_id="gate"))


def test_nobody_waits_for_an_issuer_that_has_just_given_no_answer(peer):
    """Anybody may ask for a login: each must not hold a thread for as long as the issuer takes to time out."""
    peer.failing = 1000
    with pytest.raises(IssuerError):
        peer.house.people.logins.oidc_begin("/approvals")
    count = len(peer.asked)
    for _ in range(5):
        with pytest.raises(IssuerError):
            peer.house.people.logins.oidc_begin("/approvals")
    assert len(peer.asked) == count
    peer.failing = 0
    peer.house.clock.pass_(4)
    assert not isinstance(login(peer), Refused)
