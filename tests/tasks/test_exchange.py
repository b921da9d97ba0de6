"""Exchange, introspection and revocation: nothing widens, nothing outlives, nothing leaks."""

from __future__ import annotations

import json
import threading
from typing import Any

import msgspec
import pytest
from workshop import ACCESS, ALICE, IDP, JWT, MCP, TXN, URL, Holder, Shop, claims_of, new_key, signed

from aftergate.authz.tasks import details as d
from aftergate.authz.tasks import tokens as t
from aftergate.authz.tasks.grants import Binding
from aftergate.service.tasks import Asking
from aftergate.service.tasks.exchange import GRANT, Issued, Refused

ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
SELF = "urn:ietf:params:oauth:token-type:self_signed"


def refused(made: Any, error: str) -> Refused:
    assert isinstance(made, Refused), made
    assert made.error == error, made
    return made


def issued(made: Any) -> Issued:
    assert isinstance(made, Issued), made
    return made


def test_a_persons_token_becomes_the_agents_for_this_task(each_shop: Shop) -> None:
    shop = each_shop
    task = shop.task(on_behalf_of=ALICE)
    user = shop.user_token(acr="urn:example:aal2", amr=["pwd"], auth_time=int(shop.hand.at) - 30)
    made = issued(shop.exchange(user, task_id=task.id, audience="https://api.example", scope="deploy"))
    assert (made.token_type, made.issued_type, made.scope) == ("DPoP", ACCESS, "deploy")
    claims = claims_of(made.token)
    assert claims["sub"] == "alice"
    assert claims["act"] == {"sub": "ci"}
    assert claims["client_id"] == "ci"
    assert claims["aud"] == "https://api.example"
    assert claims["cnf"] == {"jkt": shop.holder.jkt}
    assert claims["task"] == task.id
    assert (claims["acr"], claims["auth_time"]) == ("urn:example:aal2", int(shop.hand.at) - 30)
    assert claims["authorization_details"] == [
        {"type": d.TASK, "actions": ["deploy"], "resource_type": "env", "identifiers": ["prod", "staging"]}
    ]
    assert claims["exp"] <= claims["iat"] + shop.settings.token_ttl_s
    answer = shop.tasks.introspect(shop.asking(), made.token, shop.now)
    assert answer["active"]
    assert answer["token_type"] == "DPoP"
    assert answer["cnf"] == {"jkt": shop.holder.jkt}
    told = shop.records("task.token")
    assert told[-1]["detail"]["act"] == ["ci"]
    assert user not in str(shop.records())
    assert made.token not in str(shop.records())


@pytest.mark.parametrize("kind", [ACCESS, JWT, ID_TOKEN])
def test_the_type_said_must_be_the_type_it_is(shop: Shop, kind: str) -> None:
    task = shop.task(on_behalf_of=ALICE)
    access, identity = shop.user_token(), shop.user_token(typ="JWT")
    assert isinstance(shop.exchange(access, kind=kind, task_id=task.id), Issued) is (kind != ID_TOKEN)
    assert isinstance(shop.exchange(identity, kind=kind, task_id=task.id), Issued) is (kind != ACCESS)


@pytest.mark.parametrize(
    ("claims", "typ"),
    [
        ({"sub": "bob"}, "at+jwt"),
        ({"aud": "https://elsewhere.example"}, "at+jwt"),
        ({"iss": "https://evil.example"}, "at+jwt"),
        ({"exp": 1}, "at+jwt"),
        ({"nbf": 99999999999}, "at+jwt"),
        ({"may_act": {"sub": "somebody-else"}}, "at+jwt"),
        ({"may_act": {"client_id": "other"}}, "at+jwt"),
        ({"act": {"sub": "a", "act": {"sub": "b", "act": {"sub": "c", "act": {"sub": "d"}}}}}, "at+jwt"),
        ({"cnf": {"jkt": "of-somebody-else"}}, "at+jwt"),
        ({"cnf": {"jwk": {}}}, "at+jwt"),
        ({"events": {"x": {}}}, "at+jwt"),
        ({}, "secevent+jwt"),
        ({}, "dpop+jwt"),
        ({}, "txntoken+jwt"),
        ({"authorization_details": [{"type": "unheard-of"}]}, "at+jwt"),
        ({"scope": 7}, "at+jwt"),
    ],
)
def test_a_subject_token_that_does_not_hold_gives_nothing(shop: Shop, claims: dict[str, Any], typ: str) -> None:
    task = shop.task(on_behalf_of=ALICE)
    refused(shop.exchange(shop.user_token(typ=typ, **claims), task_id=task.id), "invalid_request")


def test_a_token_signed_by_another_key_or_not_at_all_gives_nothing(shop: Shop) -> None:
    task = shop.task(on_behalf_of=ALICE)
    user = shop.user_token()
    forged = signed(claims_of(user), new_key(), typ="at+jwt", kid="k1")
    for token in (forged, user[:-6] + "AAAAAA", user.rsplit(".", 1)[0] + ".", "x", "a.b.c"):
        refused(shop.exchange(token, task_id=task.id), "invalid_request")


def test_may_act_lets_its_actor_through(shop: Shop) -> None:
    task = shop.task(on_behalf_of=ALICE)
    issued(shop.exchange(shop.user_token(may_act={"sub": "ci"}), task_id=task.id))


def test_the_subject_tokens_own_scope_and_life_bound_the_new_one(shop: Shop) -> None:
    task = shop.task(on_behalf_of=ALICE)
    made = issued(shop.exchange(shop.user_token(scope="openid read", exp=int(shop.hand.at) + 40), task_id=task.id))
    assert made.scope == "read"
    assert claims_of(made.token)["authorization_details"][0]["actions"] == ["read"]
    assert made.expires_in <= 40
    refused(shop.exchange(shop.user_token(scope="openid read"), task_id=task.id, scope="deploy"), "invalid_scope")
    refused(shop.exchange(shop.user_token(scope="openid"), task_id=task.id), "invalid_scope")
    narrow = [{"type": d.TASK, "actions": ["deploy"], "resource_type": "env", "identifiers": ["staging"]}]
    held = issued(shop.exchange(shop.user_token(authorization_details=narrow), task_id=task.id))
    assert claims_of(held.token)["authorization_details"] == narrow
    wide = json.dumps([{"type": d.TASK, "actions": ["deploy"], "resource_type": "env", "identifiers": ["prod"]}])
    refused(
        shop.exchange(shop.user_token(authorization_details=narrow), task_id=task.id, authorization_details=wide),
        "invalid_authorization_details",
    )


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"task_id": None}, "invalid_request"),
        ({"task_id": "task-unknown"}, "invalid_grant"),
        ({"scope": "deploy admin"}, "invalid_scope"),
        ({"scope": "a  b"}, "invalid_scope"),
        ({"scope": 'say"so'}, "invalid_scope"),
        ({"authorization_details": "["}, "invalid_authorization_details"),
        ({"authorization_details": "{}"}, "invalid_authorization_details"),
        ({"authorization_details": '[{"type":"unheard-of"}]'}, "invalid_authorization_details"),
        ({"authorization_details": '[{"type":"aftergate_task","actions":["deploy"],"colour":"red"}]'}, "invalid_authorization_details"),
        ({"authorization_details": '[{"type":"aftergate_task","actions":["delete"]}]'}, "invalid_scope"),
        ({"authorization_details": '[{"type":"aftergate_task","actions":["deploy"]}]'}, "invalid_authorization_details"),
        ({"authorization_details": '[{"type":"payment","actions":["deploy"],"amount":"1"}]'}, "invalid_authorization_details"),
        ({"resource": "not-a-uri"}, "invalid_target"),
        ({"resource": "https://a.example/#f"}, "invalid_target"),
        ({"audience": [f"a{n}" for n in range(9)]}, "invalid_target"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token_type": None}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:unsigned_json"}, "invalid_request"),
        ({"actor_token": "x"}, "invalid_request"),
        ({"actor_token_type": JWT}, "invalid_request"),
        ({"actor_token": "x", "actor_token_type": JWT}, "invalid_request"),
        ({"grant_type": "authorization_code"}, "unsupported_grant_type"),
        ({"grant_type": None}, "invalid_request"),
        ({"requested_ttl_s": "0"}, "invalid_request"),
        ({"requested_ttl_s": "-1"}, "invalid_request"),
        ({"audience": "https://forbidden.example"}, "access_denied"),
    ],
)
def test_a_wrong_request_is_answered_with_its_error(shop: Shop, form: dict[str, Any], error: str) -> None:
    task = shop.task(on_behalf_of=ALICE)
    fields = {"grant_type": GRANT, "subject_token": shop.user_token(), "subject_token_type": ACCESS, "task_id": task.id, **form}
    refused(shop.tasks.exchange(shop.asking(), shop.presented(proof="", **fields), shop.now), error)
    assert shop.records("task.token") == []


def test_a_token_without_a_key_is_not_given(shop: Shop) -> None:
    task = shop.task()
    refused(shop.own(task, asking=shop.asking(proof="")), "invalid_request")
    certificate = msgspec.structs.replace(shop.asking(proof=""), binding=Binding(x5t="thumb"))
    made = issued(shop.own(task, asking=certificate))
    assert made.token_type == "Bearer"
    assert claims_of(made.token)["cnf"] == {"x5t#S256": "thumb"}


def test_a_task_on_somebodys_behalf_needs_their_token(shop: Shop) -> None:
    refused(shop.own(shop.task(on_behalf_of=ALICE)), "invalid_request")


def test_only_the_tasks_workload_gets_its_tokens(shop: Shop) -> None:
    task = shop.task(on_behalf_of=ALICE)
    refused(shop.exchange(shop.user_token(), asking=shop.asking(shop.plain), task_id=task.id), "invalid_grant")


def test_a_stronger_login_is_asked_for_by_name(shop: Shop) -> None:
    task = shop.task([{"type": d.TASK, "actions": ["wire"]}], on_behalf_of=ALICE)
    made = refused(shop.exchange(shop.user_token(), task_id=task.id), "unmet_authentication_requirements")
    assert 'acr_values="urn:example:aal3"' in made.challenge
    assert 'max_age="300"' in made.challenge
    late = shop.user_token(acr="urn:example:aal3", auth_time=int(shop.hand.at) - 400)
    refused(shop.exchange(late, task_id=task.id), "unmet_authentication_requirements")
    issued(shop.exchange(shop.user_token(acr="urn:example:aal3", auth_time=int(shop.hand.at) - 20), task_id=task.id))


def test_workloads_exchange_their_own_proofs(shop: Shop) -> None:
    for token, kind in ((shop.svid, JWT), (shop.ci_token, JWT), (shop.assertion, SELF)):
        who = shop.proved(token())
        assert isinstance(who, Asking)
        task = shop.task(asking=who)
        made = issued(shop.exchange(token(), kind=kind, asking=who, task_id=task.id))
        claims = claims_of(made.token)
        assert claims["sub"] == who.principal.id
        assert "act" not in claims
        refused(shop.exchange(shop.assertion("gateway"), kind=SELF, asking=who, task_id=task.id), "invalid_request")


def test_an_actor_token_must_prove_the_client(shop: Shop) -> None:
    who = shop.proved(shop.svid())
    assert isinstance(who, Asking)
    task = shop.task(asking=who, on_behalf_of=ALICE)
    made = issued(shop.exchange(shop.user_token(), asking=who, task_id=task.id, actor_token=shop.svid(), actor_token_type=JWT))
    assert claims_of(made.token)["act"] == {"sub": who.principal.id}
    other = shop.svid(sub="spiffe://prod.example/ns/other")
    refused(shop.exchange(shop.user_token(), asking=who, task_id=task.id, actor_token=other, actor_token_type=JWT), "invalid_request")


# Chains


def test_each_hand_is_a_link_and_dies_with_the_one_above(each_shop: Shop) -> None:
    """A gateway that was sent the token exchanges it with its own key; revoking the first kills the second."""
    shop = each_shop
    task = shop.task(on_behalf_of=ALICE)
    first = issued(shop.exchange(shop.user_token(), task_id=task.id, audience=MCP))
    gateway, key = shop.proved(shop.assertion("gateway")), Holder()
    assert isinstance(gateway, Asking)
    gateway = msgspec.structs.replace(gateway, binding=Binding(jkt=key.jkt))
    second = issued(shop.exchange(first.token, asking=gateway, audience="https://api.example", scope="read"))
    claims = claims_of(second.token)
    assert claims["act"] == {"sub": "gateway", "act": {"sub": "ci"}}
    assert claims["cnf"] == {"jkt": key.jkt}
    assert claims["exp"] <= claims_of(first.token)["exp"]
    refused(shop.exchange(second.token, asking=gateway, scope="read deploy"), "invalid_grant")  # it is no audience of this one
    assert shop.active(first.token)
    assert shop.active(second.token)
    shop.tasks.revoke(shop.asking(), first.token, shop.now)
    assert not shop.active(second.token)
    assert not shop.active(first.token)
    refused(shop.exchange(first.token, asking=gateway), "invalid_request")
    assert [r["detail"]["event"] for r in shop.records("task.token")].count("revoked") == 2


def test_a_stolen_bound_token_is_worth_nothing(shop: Shop) -> None:
    task = shop.task(on_behalf_of=ALICE)
    first = issued(shop.exchange(shop.user_token(), task_id=task.id))
    refused(shop.exchange(first.token, asking=shop.asking(holder=Holder())), "invalid_request")
    issued(shop.exchange(first.token, asking=shop.asking()))


def test_a_token_of_another_task_does_not_serve(shop: Shop) -> None:
    one, two = shop.task(), shop.task()
    refused(shop.exchange(shop.token(one), task_id=two.id), "invalid_grant")
    child = shop.task([{"type": d.TASK, "actions": ["read"], "resource_type": "env", "identifiers": ["staging"]}], parent=one.id)
    made = issued(shop.exchange(shop.token(one), task_id=child.id))
    assert claims_of(made.token)["task"] == child.id
    assert made.scope == "read"
    refused(shop.exchange(shop.token(child), task_id=one.id), "invalid_grant")


# Transaction tokens


def test_a_transaction_token_keeps_what_the_transaction_is(shop: Shop) -> None:
    task = shop.task(on_behalf_of=ALICE)
    details = {"amount": "10.00", "payee": "DE02"}
    form = {"task_id": task.id, "requested_token_type": TXN, "audience": "prod.example", "scope": "deploy"}
    made = issued(shop.exchange(shop.user_token(), request_details=json.dumps(details), request_context='{"ip":"192.0.2.1"}', **form))
    assert (made.token_type, made.issued_type) == ("N_A", TXN)
    claims = claims_of(made.token)
    assert (claims["aud"], claims["tctx"], claims["rctx"], claims["req_wl"]) == ("prod.example", details, {"ip": "192.0.2.1"}, "ci")
    assert isinstance(shop.tasks.verified(made.token, shop.now), t.Verified)
    assert shop.tasks.introspect(shop.asking(), made.token, shop.now)["token_type"] == "N_A"
    again = issued(
        shop.exchange(
            made.token, kind=TXN, requested_token_type=TXN, audience="prod.example", scope="deploy", request_details='{"amount":"99999"}'
        )
    )
    after = claims_of(again.token)
    assert after["txn"] == claims["txn"]
    assert after["tctx"] == details
    assert after["req_wl"] == ["ci", "ci"]
    refused(shop.exchange(made.token, kind=TXN, requested_token_type=TXN, scope="deploy read"), "invalid_scope")
    refused(shop.exchange(made.token, kind=TXN), "invalid_request")
    refused(shop.exchange(made.token, kind=ACCESS), "invalid_request")
    refused(shop.exchange(shop.user_token(), **{**form, "audience": "elsewhere.example"}), "invalid_target")
    for name in ("request_details", "request_context"):
        for text in ("[", "[]", '"x"', "x" * 5000, '{"a":1,"a":2}'):
            refused(shop.exchange(shop.user_token(), **form, **{name: text}), "invalid_request")
    shop.tasks.finish(shop.asking(), task.id, shop.tasks.find(shop.asking(), task.id, shop.now).state.CANCELLED, "", shop.now)
    assert not shop.active(made.token)
    assert not shop.active(again.token)


# Introspection and revocation


def test_introspection_tells_nothing_to_others_and_nothing_of_the_dead(shop: Shop) -> None:
    task = shop.task(on_behalf_of=ALICE)
    made = issued(shop.exchange(shop.user_token(), task_id=task.id, audience=MCP))
    plain, gateway = shop.asking(shop.plain), shop.proved(shop.assertion("gateway"))
    assert isinstance(gateway, Asking)
    assert not shop.active(made.token, plain)  # neither its client nor its audience
    assert shop.active(made.token, gateway)  # its audience
    assert shop.active(made.token, shop.asking())  # its client, and a decision point's key
    for token in ("", "x", made.token[:-3] + "xyz", shop.user_token(), made.token + "=", "a.b.c"):
        assert not shop.active(token)
    shop.move(claims_of(made.token)["exp"] - shop.hand.at + 0.01)
    assert not shop.active(made.token)
    assert shop.records("task.use_after_death") == []  # it has expired as it should; nobody killed it


def test_a_signed_introspection_answer_is_for_its_asker(shop: Shop) -> None:
    made = shop.token(shop.task())
    answer = shop.tasks.introspect(shop.asking(), made, shop.now)
    text = shop.tasks.introspection_jwt(shop.asking(), answer, shop.now)
    from joserfc import jwk, jwt

    read = jwt.decode(text, jwk.KeySet.import_key_set({"keys": shop.tasks.signing.jwks(shop.now)["keys"]}), algorithms=["ES256"])
    assert read.header["typ"] == "token-introspection+jwt"
    assert (read.claims["iss"], read.claims["aud"]) == (URL, "ci")
    assert read.claims["token_introspection"] == answer
    assert not shop.active(text)  # and it is no access token


def test_a_foreign_client_cannot_revoke_and_is_not_told(shop: Shop) -> None:
    token = shop.token(shop.task())
    for each in (token, "nonsense", shop.user_token()):
        assert shop.tasks.revoke(shop.asking(shop.plain), each, shop.now) is None
    assert shop.active(token)
    shop.tasks.revoke(shop.asking(), token, shop.now)
    shop.tasks.revoke(shop.asking(), token, shop.now)
    assert not shop.active(token)
    assert [r["detail"]["event"] for r in shop.records("task.token")] == ["issued", "revoked"]
    assert shop.records("task.use_after_death")[0]["detail"]["cause"] == "it was revoked"


def test_revoking_races_with_deriving_and_nothing_survives(each_shop: Shop) -> None:
    shop = each_shop
    task = shop.task()
    first = shop.token(task)
    asking = [shop.asking() for _ in range(6)]
    made: list[Any] = []
    threads = [threading.Thread(target=lambda a=a: made.append(shop.exchange(first, asking=a))) for a in asking]
    threads.insert(2, threading.Thread(target=lambda: shop.tasks.revoke(asking[0], first, shop.now)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6
    assert not any(isinstance(each, Issued) and shop.active(each.token) for each in made)


def test_no_database_no_token(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from aftergate.stores.errors import StoreUnavailable

    task = shop.task()
    token = shop.token(task)
    asking = shop.asking()

    def gone() -> Any:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(shop.core.db, "write", gone)
    monkeypatch.setattr(shop.core.db, "read", gone)
    for work in (
        lambda: shop.own(task, asking=asking),
        lambda: shop.tasks.introspect(asking, token, shop.now),
        lambda: shop.made(asking=asking),
    ):
        with pytest.raises(StoreUnavailable):
            work()


def test_an_issuer_that_cannot_be_asked_means_no(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from aftergate.service.tasks.issuers import IssuerUnavailable

    task = shop.task(on_behalf_of=ALICE)

    def away(*_: Any) -> Any:
        raise IssuerUnavailable("away", where=IDP)

    monkeypatch.setattr(shop.tasks.issuer_keys, "keys", away)
    refused(shop.exchange(shop.user_token(), task_id=task.id), "invalid_request")
