"""Tasks begin by policy and end for good; whatever they gave out ends with them."""

from __future__ import annotations

import base64
import threading
from typing import Any

import pytest
from workshop import ALICE, BEARER, SPIFFE, SPIFFE_TYPE, Holder, Shop, claims_of

from aftergate.authz.tasks import details as d
from aftergate.authz.tasks.answers import Refusal
from aftergate.authz.tasks.machine import Principal, State
from aftergate.authz.wire import request_of
from aftergate.service.tasks import Asking, life
from aftergate.service.tasks.exchange import Issued, Refused

CHILD = [{"type": d.TASK, "actions": ["deploy"], "resource_type": "env", "identifiers": ["staging"]}]


def end(shop: Shop, name: str, state: State = State.COMPLETED, **more: Any) -> Any:
    return shop.tasks.finish(more.get("asking") or shop.asking(), name, state, "done", shop.now)


def test_a_task_lives_until_it_is_completed_and_its_tokens_no_longer(each_shop: Shop) -> None:
    shop = each_shop
    task = shop.task()
    token = shop.token(task)
    assert shop.active(token)
    done = end(shop, task.id)
    assert done.state is State.COMPLETED
    assert not shop.active(token)
    assert isinstance(end(shop, task.id), Refusal)
    assert [r["task"] for r in shop.records("task.completed")] == [task.id]
    assert len(shop.records("task.use_after_death")) == 1
    assert isinstance(shop.own(task), Refused)


def test_use_after_death_is_recorded_at_most_once_a_minute(shop: Shop) -> None:
    task = shop.task(until_ms=shop.now + 3_000_000)
    token = shop.token(task)
    end(shop, task.id, State.CANCELLED)
    for _ in range(5):
        assert not shop.active(token)
    assert len(shop.records("task.use_after_death")) == 1
    shop.move(61)
    assert not shop.active(token)
    told = shop.records("task.use_after_death")
    assert [r["detail"]["uses"] for r in told] == [1, 5]
    assert token not in str(shop.records())
    assert claims_of(token)["jti"] not in str(shop.records())


def test_ending_a_task_ends_everything_below_it(each_shop: Shop) -> None:
    shop = each_shop
    root = shop.task()
    child = shop.task(CHILD, parent=root.id)
    leaf = shop.task(CHILD, parent=child.id)
    tokens = [shop.token(task) for task in (root, child, leaf)]
    beside = shop.task()
    assert all(map(shop.active, tokens))
    end(shop, root.id, State.CANCELLED)
    assert [shop.state(task) for task in (root, child, leaf, beside)] == [State.CANCELLED, State.KILLED, State.KILLED, State.ACTIVE]
    assert not any(map(shop.active, tokens))
    assert {r["task"] for r in shop.records("task.killed")} == {child.id, leaf.id}


def test_a_task_under_another_is_no_wider(shop: Shop) -> None:
    root = shop.task(until_ms=shop.now + 60_000)
    for raw, more in (
        ([{"type": d.TASK, "actions": ["delete"], "resource_type": "env", "identifiers": ["prod"]}], {}),
        ([{"type": d.TASK, "actions": ["deploy"]}], {}),
        (CHILD, {"until_ms": shop.now + 120_000}),
        (CHILD, {"on_behalf_of": ALICE}),
        (CHILD, {"parent": "task-nope"}),
    ):
        made = shop.made(raw, **{"parent": root.id, **more})
        assert isinstance(made, Refusal), made
    other = shop.asking(shop.plain)
    assert isinstance(shop.made(CHILD, parent=root.id, asking=other), Refusal)


def test_time_ends_a_task_by_itself_and_the_sweep_writes_it_down(each_shop: Shop) -> None:
    shop = each_shop
    task = shop.task(until_ms=shop.now + 60_000)
    shop.task(CHILD, parent=task.id)
    token = shop.token(task)
    shop.move(60)
    assert not shop.active(token)
    assert shop.state(task) is State.EXPIRED
    waiting = shop.task(until_ms=shop.now + 5_000)
    shop.move(6)
    shop.tasks.tick(shop.now)
    assert {r["task"] for r in shop.records("task.expired")} >= {task.id, waiting.id}


def test_trust_below_the_floor_kills_a_task_at_its_next_use(shop: Shop) -> None:
    asking = shop.asking()
    task = shop.task(floor=60, asking=asking)
    token = shop.token(task)
    shop.found("medium", identity="ci")
    assert shop.active(token)  # trust is 79 or so
    shop.found("critical", identity="ci")
    assert not shop.active(token)
    assert shop.state(task) is State.KILLED
    (told,) = shop.records("task.killed")
    assert told["risk"]["signals"] == ["tok-family-fork"]


@pytest.mark.parametrize("subject", [{"identity": "alice"}, {"session": "s-1"}, {"credential": "cred-1"}])
def test_trust_in_the_person_the_session_or_the_credential_counts_too(shop: Shop, subject: dict[str, str]) -> None:
    task = shop.task(on_behalf_of=ALICE, session="s-1", credential="cred-1")
    shop.found("critical", **subject)
    shop.tasks.tick(shop.now)
    assert shop.state(task) is State.KILLED


def test_the_sweep_kills_without_any_use(shop: Shop) -> None:
    task = shop.task()
    shop.tasks.tick(shop.now)
    shop.found("critical", identity="ci")
    shop.tasks.tick(shop.now)
    assert [r["task"] for r in shop.records("task.killed")] == [task.id]


def test_the_policies_say_who_may_start_what(shop: Shop) -> None:
    made = shop.made(purpose="evil")
    assert isinstance(made, life.Denied)
    assert made.answer.decision.determining == ("not-evil",)
    assert shop.records("task.created") == []


def test_a_task_that_needs_approval_waits_for_it(shop: Shop) -> None:
    made = shop.made([{"type": d.TASK, "actions": ["admin"]}])
    assert isinstance(made, life.Made)
    assert made.task.state is State.PROPOSED
    assert "binding_token" in made.answer.context["access_request"]
    assert isinstance(shop.own(made.task), Refused)
    refused = shop.tasks.start(shop.asking(), made.task.id, None, shop.presented(), shop.now)
    assert isinstance(refused, Refusal)
    again = shop.tasks.start(shop.asking(), made.task.id, {"id": "forged"}, shop.presented(), shop.now)
    assert isinstance(again, life.Denied)
    assert shop.state(made.task) is State.PROPOSED
    assert isinstance(end(shop, made.task.id, State.COMPLETED), Refusal)  # what has not started is not completed
    assert end(shop, made.task.id, State.CANCELLED).state is State.CANCELLED


def test_an_approval_starts_its_task_once_and_for_its_key_only(shop: Shop) -> None:
    """Elevation on demand: here a policy gives the approval, which is bound to the asker's key all the same."""
    made = shop.made([{"type": d.TASK, "actions": ["root"]}], request_approval=True)
    assert isinstance(made, life.Made), made
    assert made.approval_task is not None
    approval = made.approval_task["result"]["approval"]["id"]
    url = f"http://localhost:9999/v1/tasks/{made.task.id}/start"

    def start(holder: Holder) -> Any:
        proof = holder.proof(shop.hand.at, url, token=approval)
        return shop.tasks.start(shop.asking(proof=""), made.task.id, None, shop.presented(url=url, proof=proof), shop.now)

    assert isinstance(start(Holder()), life.Denied)
    begun = start(shop.holder)
    assert isinstance(begun, life.Made), begun
    assert begun.task.state is State.ACTIVE
    assert isinstance(start(shop.holder), Refusal)
    assert len(shop.records("approval.consumed")) == 1


def test_a_proposed_task_has_one_starter(shop: Shop) -> None:
    made = shop.made([{"type": d.TASK, "actions": ["admin"]}])
    found = shop.tasks.start(shop.asking(shop.plain), made.task.id, {"id": "x"}, shop.presented(), shop.now)
    assert isinstance(found, Refusal)
    assert found.error == "unknown_task"


def test_only_its_workload_and_administrators_see_and_end_a_task(shop: Shop) -> None:
    task = shop.task(asking=shop.asking(shop.plain))
    stranger = shop.proved(shop.svid())
    assert isinstance(stranger, Asking)
    assert shop.tasks.find(stranger, task.id, shop.now) is None
    assert isinstance(end(shop, task.id, asking=stranger), Refusal)
    assert shop.tasks.listed(stranger, everything=False, state=None, before_ms=None, limit=10) == []
    assert shop.tasks.find(shop.asking(), task.id, shop.now) is not None
    assert end(shop, task.id).state is State.COMPLETED


def test_an_administrator_kills_all_of_somebody_and_all_of_a_subject_token(shop: Shop) -> None:
    one, two, three = shop.task(), shop.task(on_behalf_of=ALICE), shop.task(asking=shop.asking(shop.plain))
    user = shop.user_token()
    made = shop.exchange(user, task_id=two.id)
    assert isinstance(made, Issued), made
    actor = shop.asking().actor()
    assert shop.tasks.kill_subject(actor, "https://idp.example", claims_of(user)["jti"], shop.now) == 1
    assert not shop.active(made.token)
    assert shop.state(two) is State.ACTIVE
    assert shop.tasks.kill(actor, principal=ALICE, reason="left", now_ms=shop.now) == [two.id]
    assert set(shop.tasks.kill(actor, principal=Principal("workload", "ci"), reason="stolen", now_ms=shop.now)) == {one.id}
    assert shop.state(three) is State.ACTIVE


# Who asks


def test_each_kind_of_proof_names_its_workload(shop: Shop) -> None:
    for token, name, how in (
        (shop.api, "ci", "api_key"),
        (shop.svid(), SPIFFE, "jwt_svid"),
        (shop.ci_token(), "ci-deploy", "oidc"),
        (shop.assertion(), "deployer", "private_key_jwt"),
    ):
        found = shop.proved(token)
        assert isinstance(found, Asking), found
        assert (found.principal, found.how) == (Principal("workload", name), how)
        assert shop.task(asking=found).who.id == name


def test_what_proves_nobody_is_refused(shop: Shop) -> None:
    for token in (
        "nonsense",
        shop.svid(sub="spiffe://other.example/x"),
        shop.svid(aud=["https://elsewhere.example"]),
        shop.svid(exp=1),
        shop.ci_token(ref="refs/heads/evil"),
        shop.ci_token(repository="evil/app"),
        shop.ci_token(aud="https://elsewhere.example"),
        shop.assertion(aud="https://elsewhere.example"),
        shop.assertion(sub="gateway"),
        shop.user_token(),
        shop.user_token(typ="JWT"),
    ):
        found = shop.proved(token)
        assert isinstance(found, Refusal)
        assert found.error == "invalid_client"


def test_an_assertion_and_a_proof_are_used_once(each_shop: Shop) -> None:
    shop = each_shop
    assertion = shop.assertion()
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(shop.proved(assertion))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(each, Asking) for each in answers) == 1
    proof = shop.holder.proof(shop.hand.at)
    shop.asking(proof=proof)
    found = shop.tasks.authenticate(shop.presented(f"Bearer {shop.api}", proof=proof), shop.now)
    assert isinstance(found, Refusal)
    assert found.error == "invalid_dpop_proof"


def test_client_credentials_come_in_one_way_only(shop: Shop) -> None:
    basic = base64.b64encode(f"ci:{shop.api}".encode()).decode()
    ok = shop.tasks.authenticate(shop.presented(f"Basic {basic}"), shop.now)
    assert isinstance(ok, Asking)
    for presented in (
        shop.presented(f"Basic {basic}", client_secret=shop.api, client_id="ci"),
        shop.presented(f"Basic {base64.b64encode(f'other:{shop.api}'.encode()).decode()}"),
        shop.presented("Basic !!"),
        shop.presented("Negotiate x"),
        shop.presented(client_id="ci", client_secret="wrong"),
        shop.presented(client_assertion=shop.assertion(), client_assertion_type="urn:other"),
        shop.presented(client_assertion=shop.assertion(), client_assertion_type=SPIFFE_TYPE),
        shop.presented(client_assertion=shop.svid(), client_assertion_type=BEARER),
        shop.presented(client_assertion=shop.assertion(), client_assertion_type=BEARER, client_id="gateway"),
        shop.presented(),
    ):
        assert isinstance(shop.tasks.authenticate(presented, shop.now), Refusal)
    for presented in (
        shop.presented(client_assertion=shop.assertion(), client_assertion_type=BEARER, client_id="deployer"),
        shop.presented(client_assertion=shop.svid(), client_assertion_type=SPIFFE_TYPE),
        shop.presented(client_id="ci", client_secret=shop.api),
    ):
        assert isinstance(shop.tasks.authenticate(presented, shop.now), Asking)


def test_a_tasks_own_token_makes_tasks_under_it_with_its_key_only(shop: Shop) -> None:
    task = shop.task()
    token = shop.token(task)
    url = "http://localhost:9999/v1/tasks"

    def asked(authorization: str, proof: str) -> Any:
        return shop.tasks.authenticate(shop.presented(authorization, url=url, proof=proof), shop.now)

    good = asked(f"DPoP {token}", shop.holder.proof(shop.hand.at, url, token=token))
    assert isinstance(good, Asking), good
    child = shop.task(CHILD, asking=good)
    assert child.parent == task.id
    for authorization, proof in (
        (f"Bearer {token}", ""),
        (f"Bearer {token}", shop.holder.proof(shop.hand.at, url, token=token)),
        (f"DPoP {token}", ""),
        (f"DPoP {token}", Holder().proof(shop.hand.at, url, token=token)),
        (f"DPoP {token}", shop.holder.proof(shop.hand.at, url)),
        (f"DPoP {token}", shop.holder.proof(shop.hand.at, url, token=token, ath="x")),
        (f"DPoP {token}", shop.holder.proof(shop.hand.at, url + "/x", token=token)),
        (f"DPoP {token}", shop.holder.proof(shop.hand.at, url, method="GET", token=token)),
        (f"DPoP {token}", shop.holder.proof(shop.hand.at - 120, url, token=token)),
        (f"DPoP {shop.user_token()}", shop.holder.proof(shop.hand.at, url)),
    ):
        assert isinstance(asked(authorization, proof), Refusal), authorization[:10]
    elsewhere = shop.token(task, audience="https://api.example")
    assert isinstance(asked(f"DPoP {elsewhere}", shop.holder.proof(shop.hand.at, url, token=elsewhere)), Refusal)
    end(shop, task.id)
    assert isinstance(asked(f"DPoP {token}", shop.holder.proof(shop.hand.at, url, token=token)), Refusal)
    assert shop.state(child) is State.KILLED


def test_what_a_decision_is_told_of_a_task(shop: Shop) -> None:
    task = shop.task(on_behalf_of=ALICE)

    def told(**changes: Any) -> Any:
        body = {
            "subject": {"type": "user", "id": "alice"}, "action": {"name": "deploy"}, "resource": {"type": "env", "id": "prod"}, **changes,
            "context": {"task_id": task.id},
        }  # fmt: skip
        return shop.tasks.live(task.id, request_of(body), shop.now)

    assert told() == {"id": task.id, "purpose": "nightly deploy", "actions": ["deploy", "read"], "on_behalf_of": "alice", "agent": "ci"}
    assert told(subject={"type": "workload", "id": "ci"}) is not None
    assert told(subject={"type": "identity", "id": "alice"}) is not None
    assert told(subject={"type": "user", "id": "bob"}) is None
    assert told(subject={"type": "user", "id": "ci"}) is None
    assert told(action={"name": "delete"}) is None
    assert told(resource={"type": "env", "id": "other"}) is None
    end(shop, task.id)
    assert told() is None
    assert (
        shop.tasks.live(
            "task-nope",
            request_of({"subject": {"type": "user", "id": "alice"}, "action": {"name": "x"}, "resource": {"type": "t", "id": "i"}}),
            shop.now,
        )
        is None
    )


def test_an_operators_own_rights_are_read_against_the_request(shop: Shop) -> None:
    task = shop.task([{"type": "payment", "actions": ["pay"], "amount": "100.00", "payee": "DE02"}])

    def told(**properties: Any) -> Any:
        body = {
            "subject": {"type": "workload", "id": "ci"},
            "action": {"name": "pay"},
            "resource": {"type": "payment", "id": "p", "properties": properties},
        }
        return shop.tasks.live(task.id, request_of(body), shop.now)

    assert told(amount="99.99", payee="DE02") is not None
    assert told(amount=100, payee="DE02") is not None
    assert told(amount=100.01, payee="DE02") is None
    assert told(amount="5", payee="DE03") is None
    assert told(amount="5") is None
    assert told(payee="DE02") is None


def test_racing_ends_and_tokens_leave_nothing_alive(each_shop: Shop) -> None:
    shop = each_shop
    task = shop.task()
    asking = [shop.asking(holder=Holder()) for _ in range(6)]
    made: list[Any] = []
    threads = [threading.Thread(target=lambda a=a: made.append(shop.own(task, asking=a))) for a in asking]
    threads.insert(3, threading.Thread(target=lambda: end(shop, task.id, State.CANCELLED)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shop.state(task) is State.CANCELLED
    for each in made:
        assert isinstance(each, Refused) or not shop.active(each.token)


def test_retention_drops_what_ended_long_ago(each_shop: Shop) -> None:
    shop = each_shop
    root = shop.task()
    shop.token(shop.task(CHILD, parent=root.id))
    shop.exchange(shop.token(root), audience="https://a.example")
    end(shop, root.id)
    alive = shop.task()
    shop.move(3600)
    with shop.core.db.write() as connection:
        assert shop.tasks.forget(connection, shop.now - 7_200_000) == 0
        assert shop.tasks.forget(connection, shop.now) == 2
    assert shop.tasks.find(shop.asking(), root.id, shop.now) is None
    assert shop.state(alive) is State.ACTIVE


def test_it_all_outlives_a_restart(shop: Shop) -> None:
    task = shop.task(on_behalf_of=ALICE)
    made = shop.exchange(shop.user_token(), task_id=task.id)
    assert isinstance(made, Issued), made
    shop.core.close()
    shop.core = shop.opened()
    assert shop.active(made.token)
    assert shop.state(task) is State.ACTIVE
