"""Drills over real HTTP: one server on SQLite, approvers with software keys who log in, an executor with a DPoP key."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from company import EVALUATION, REQUESTS, Executor, now_s, payment
from remote import Remote, numbered

from aftergate.authz.transactions.canonical import b64url, unb64url
from aftergate.authz.transactions.objects import rfc3339
from aftergate.cli.approving import Desk, Refused

pytestmark = pytest.mark.serving
URN = "urn:openid:authzen:access-request:error:"


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    with Remote(tmp_path_factory.mktemp("drills")) as made:
        made.person("bob", "finance")
        made.person("dave", "treasury")
        yield made


def problem(answer: httpx2.Response, status: int, fault: str = "") -> dict[str, Any]:
    held: dict[str, Any] = answer.json()
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (status, "application/problem+json"), held
    if fault:
        assert held["type"] == URN + fault, held
    return held


# The profile's way.


def test_the_way_of_the_profile(remote: Remote) -> None:
    request = numbered(1)
    denied = remote.evaluate(request)
    assert denied["decision"] is False
    offer = denied["context"]["access_request"]
    assert {"endpoint", "expires_at", "binding_token"} <= offer.keys()
    metadata = remote.http.get("/.well-known/authzen-configuration").json()
    assert metadata["access_request_endpoint"] == offer["endpoint"]
    keys = remote.http.get(metadata["jwks_uri"].removeprefix(remote.url)).json()["keys"]
    kid = json.loads(unb64url(offer["binding_token"].split(".")[0]))["kid"]
    assert kid in {key["kid"] for key in keys}

    body = {**request, "denial": {"expires_at": offer["expires_at"], "binding_token": offer["binding_token"]}}
    answer = remote.submit(body, **{"idempotency-key": "first"})
    task = answer.json()["task"]
    assert (answer.status_code, task["status"]) == (202, "pending")
    assert answer.headers["location"] == task["status_endpoint"] == f"{remote.url}{REQUESTS}/{task['id']}"
    assert int(answer.headers["retry-after"]) > 0
    assert remote.submit(body, **{"idempotency-key": "first"}).json()["task"]["id"] == task["id"]
    problem(remote.submit({**body, "client": {"id": "x"}}, **{"idempotency-key": "first"}), 409, "duplicate_request")

    pending = remote.http.get(f"{REQUESTS}/{task['id']}")
    assert pending.headers["retry-after"]
    bob = remote.desks["bob"]
    assert task["id"] in {one["id"] for one in bob.inbox()}
    bob.approve(bob.view(task["id"]))
    done = remote.http.get(f"{REQUESTS}/{task['id']}")
    assert "retry-after" not in done.headers
    held = done.json()
    assert (held["task"]["status"], held["result"]["mode"]) == ("approved", "reevaluate")
    used = remote.use(request, held["result"]["approval"]["id"])
    assert used["decision"] is True
    assert used["context"]["approval"]["id"] == held["result"]["approval"]["id"]
    assert remote.use(request, held["result"]["approval"]["id"])["decision"] is False


def test_the_faults_of_the_profile(remote: Remote) -> None:
    request = numbered(2)
    denial = remote.denial(request)
    problem(remote.submit({**request, "denial": {**denial, "binding_token": "a.b.c"}}), 400, "invalid_denial_binding")
    problem(remote.submit(request), 400, "invalid_denial_binding")
    changed = {**request, "resource": {**request["resource"], "properties": {"amount": 6, "currency": "EUR"}}}
    problem(remote.submit({**changed, "denial": denial}), 400, "invalid_denial_binding")
    answer = remote.submit({**request, "denial": denial})
    assert answer.status_code == 202
    problem(remote.submit({**request, "denial": denial}), 400, "invalid_denial_binding")  # jti again
    id_ = answer.json()["task"]["id"]
    problem(remote.http.get(f"{REQUESTS}/arq_nobody"), 404, "unknown_task")
    problem(remote.http.post(f"{REQUESTS}/arq_nobody/cancel"), 404, "unknown_task")
    cancelled = remote.http.post(f"{REQUESTS}/{id_}/cancel", json={"reason": "changed", "comment": "my mind"})
    assert (cancelled.status_code, cancelled.json()["task"]["status"]) == (200, "cancelled")
    problem(remote.http.post(f"{REQUESTS}/{id_}/cancel"), 409, "invalid_task_state")
    batch = {"subject": request["subject"], "context": request["context"]}
    wire = [payment(action={"name": "wire"}, resource={"type": "payment", "id": f"w-{n}"}) for n in range(2)]
    items = [{"resource": one["resource"], "action": one["action"], "denial": remote.denial(one)} for one in wire]
    problem(remote.submit({**batch, "items": items}), 400, "not_requestable")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"subject":1}', b'{"a":1,"a":2}', b'"x"'])
def test_what_is_no_request_is_400(remote: Remote, body: bytes) -> None:
    answer = remote.http.post(REQUESTS, content=body, headers={"content-type": "application/json"})
    problem(answer, 400)


def test_callers_need_the_scope_and_only_people_approve(remote: Remote) -> None:
    assert httpx2.post(remote.url + REQUESTS, json={}).status_code == 401
    id_ = remote.asked(numbered(3))
    for path in ("/v1/approvals", f"/v1/approvals/{id_}", "/v1/reviews"):
        assert remote.http.get(path).status_code == 403, "no key decides in a person's place"
    assert remote.http.post(f"/v1/approvals/{id_}/decision", json={"decision": "deny", "reason": "x"}).status_code == 403


# What was approved, and nothing else.


def test_every_bound_field_changed_is_refused(remote: Remote) -> None:
    request = payment()
    approval = remote.approved(request)
    changes: list[tuple[tuple[str, ...], Any]] = [
        (("subject", "type"), "admin"), (("subject", "id"), "mallory"), (("subject", "properties", "department"), "it"), (("subject", "properties", "more"), 1),
        (("action", "name"), "wire"), (("action", "properties", "channel"), "swift"), (("action", "properties", "more"), 1), (("resource", "type"), "order"),
        (("resource", "id"), "p-2"), (("resource", "properties", "amount"), 1200.51), (("resource", "properties", "currency"), "USD"),
        (("resource", "properties", "payee"), "EVIL"), (("resource", "properties", "more"), 1), (("context", "transaction", "reference"), "inv-8"),
        (("context", "transaction", "more"), 1), (("context", "transaction"), None),
    ]  # fmt: skip
    for path, value in changes:
        changed = json.loads(json.dumps(request))
        inside = changed
        for step in path[:-1]:
            inside = inside[step]
        inside[path[-1]] = value
        answer = remote.use(changed, approval)
        assert answer["decision"] is False, path
        assert answer["context"]["reason"] == "out_of_scope", (path, answer)
    assert remote.use(request, approval)["decision"] is True


def test_used_for_another_late_or_by_another_key(remote: Remote) -> None:
    one, two = remote.approved(numbered(10)), remote.approved(numbered(11))
    assert remote.use(numbered(11), one)["context"]["reason"] == "out_of_scope"
    assert remote.use(numbered(10), one, Executor())["context"]["reason"] == "approval_unverifiable"
    assert remote.evaluate(numbered(10), approval=one)["context"]["reason"] == "approval_unverifiable"
    assert remote.evaluate(numbered(10), approval="apr_nobody")["context"]["reason"] == "approval_unverifiable"
    waiting = remote.asked(numbered(12))
    pending = remote.desks["bob"].view(waiting)["object"]["approval_id"]
    assert remote.use(numbered(12), pending)["context"]["reason"] == "grant_pending"
    short = remote.approved(numbered(13), requested_access={"requested_until": rfc3339(int(now_s() * 1000) + 1500)})
    time.sleep(1.6)
    assert remote.use(numbered(13), short)["context"]["reason"] == "approval_expired"
    assert remote.use(numbered(10), one)["decision"] is True
    assert remote.use(numbered(11), two)["decision"] is True


def test_a_proof_comes_once_and_is_for_one_approval(remote: Remote) -> None:
    one, two = remote.approved(numbered(20)), remote.approved(numbered(21))
    proof = remote.proof(one)
    assert remote.evaluate(numbered(21), approval=two, proof=proof)["decision"] is False
    elsewhere = remote.executor.proof(remote.url + "/elsewhere", now_s(), ath=one)
    get = remote.executor.proof(remote.url + EVALUATION, now_s(), ath=one, method="GET")
    old = remote.executor.proof(remote.url + EVALUATION, now_s() - 120, ath=one)
    for wrong in (elsewhere, get, old, "x", proof[:-4] + "AAAA"):
        assert remote.evaluate(numbered(20), approval=one, proof=wrong)["context"]["reason"] == "approval_unverifiable"
    twice = remote.http.post(
        EVALUATION,
        json={**numbered(20), "context": {**numbered(20)["context"], "approval": {"id": one}}},
        headers=[("dpop", proof), ("dpop", proof)],
    )
    assert twice.status_code == 400
    assert remote.evaluate(numbered(20), approval=one, proof=proof)["decision"] is True


@pytest.mark.parametrize("subject", [{"identity": "alice-f"}, {"session": "s-alice-f"}, {"credential": "c-alice-f"}])
def test_after_a_new_finding_it_is_void_and_the_finding_named(remote: Remote, subject: dict[str, str]) -> None:
    request = payment(subject={"type": "user", "id": "alice-f"})
    request["context"] = {"transaction": {"n": json.dumps(subject)}, "session_id": "s-alice-f", "credential_id": "c-alice-f"}
    approval = remote.approved(request)
    waiting = remote.asked({**request, "context": {**request["context"], "transaction": {"n": "other"}}})
    found = remote.found(**subject)
    answer = remote.use(request, approval)
    assert (answer["decision"], answer["context"]["reason"]) == (False, "policy_denied")
    assert found in answer["context"]["reason_admin"]["403"]
    with pytest.raises(Refused) as told:
        remote.desks["bob"].post(f"/v1/approvals/{waiting}/challenge", {})
    assert (told.value.reason, found in str(told.value)) == ("not_pending", True)


# Assertions.


def ask(remote: Remote, id_: str, name: str = "bob") -> tuple[Desk, dict[str, Any]]:
    desk = remote.desks[name]
    return desk, desk.post(f"/v1/approvals/{id_}/challenge", {})


def decide(desk: Desk, id_: str, asked: dict[str, Any], assertion: Any) -> httpx2.Response:
    body = {"decision": "approve", "challenge_id": asked["challenge_id"], "assertion": assertion}
    return desk._http.post(f"/v1/approvals/{id_}/decision", json=body)


def test_assertions_that_do_not_hold_are_refused_alike(remote: Remote) -> None:
    from msgspec.structs import replace

    from aftergate.authz.transactions.softkey import BE, BS, UP, UV, SoftKey

    def broken(desk: Desk, digest: bytes, kind: str) -> dict[str, Any]:
        key: SoftKey = desk._key  # type: ignore[assignment]
        desk._key = replace(key, sign_count=key.sign_count + 1)
        changed = {
            "origin": (key, "https://evil.example", None),
            "cross-origin": (key, desk.origin, {"crossOrigin": True}),
            "top-origin": (key, desk.origin, {"topOrigin": "https://evil.example"}),
            "type": (key, desk.origin, {"type": "webauthn.create"}),
            "no-uv": (replace(key, flags=UP | BE), desk.origin, None),
            "no-up": (replace(key, flags=UV | BE), desk.origin, None),
            "backup": (replace(key, flags=UP | UV | BS), desk.origin, None),
            "rp": (replace(key, rp_id="evil.example"), desk.origin, None),
            "counter": (replace(key, sign_count=0), desk.origin, None),
            "challenge": (key, desk.origin, {"challenge": b64url(b"x" * 32)}),
        }
        by, origin, more = changed[kind]
        return by.assertion(digest, origin, more)[1]

    said = set()
    kinds = ["origin", "cross-origin", "top-origin", "type", "no-uv", "no-up", "backup", "rp", "challenge", "counter"]
    for number, kind in enumerate(kinds):
        name = f"erin{number}"
        desk = remote.person(name, "finance")  # one try each, so that nobody is locked out
        id_ = remote.asked(numbered(100 + number))
        _, asked = ask(remote, id_, name)
        answer = decide(desk, id_, asked, broken(desk, unb64url(asked["public_key"]["challenge"]), kind))
        assert answer.status_code == 403, kind
        said.add((answer.json()["title"], answer.json()["reason"]))
        assert remote.task(id_)["task"]["status"] == "pending"
    assert said == {("the assertion was refused", "refused")}, "nobody learns which step failed"


def test_an_assertion_is_good_once(remote: Remote) -> None:
    one, two = remote.asked(numbered(30)), remote.asked(numbered(31))
    desk, asked = ask(remote, one)
    made = desk._signed(unb64url(asked["public_key"]["challenge"]))
    assert decide(desk, one, asked, made).status_code == 200
    again = decide(desk, one, asked, made)
    assert (again.status_code, again.json()["reason"]) == (409, "challenge_unknown")
    _, other = ask(remote, two)
    assert decide(desk, two, other, made).status_code == 403
    assert remote.task(two)["task"]["status"] == "pending"


def test_five_failures_lock_out_over_http(remote: Remote) -> None:
    desk = remote.person("frank", "finance")
    id_ = remote.asked(numbered(32))
    codes = []
    for _ in range(5):
        _, asked = ask(remote, id_, "frank")
        codes.append(decide(desk, id_, asked, desk._signed(b"w" * 32)).status_code)
    assert codes == [403, 403, 403, 403, 429]
    with pytest.raises(Refused) as told:
        ask(remote, id_, "frank")
    assert (told.value.status, told.value.reason) == (429, "locked_out")
    remote.desks["bob"].approve(remote.desks["bob"].view(id_))
    assert remote.task(id_)["task"]["status"] == "approved"


def test_nobody_approves_for_themselves_over_http(remote: Remote) -> None:
    me = remote.person("grace", "finance", aliases=("grace@example.com",))
    mine = b64url(me._key.credential_id)  # type: ignore[union-attr]
    requests = {
        "self_approval": payment(subject={"type": "user", "id": "Grace@Example.com"}),
        "same_authenticator": payment(context={"transaction": {"n": 1}, "auth": {"authenticator": mine, "auth_time": 1}}),
    }
    for reason, request in requests.items():
        id_ = remote.asked(request)
        with pytest.raises(Refused) as told:
            me.approve(me.view(id_))
        assert told.value.reason == reason
    session = me.get("/v1/me")["session"]
    id_ = remote.asked(payment(context={"transaction": {"n": 2}, "session_id": session}))
    with pytest.raises(Refused) as told:
        me.approve(me.view(id_))
    assert told.value.reason == "same_session"


def test_a_batch_over_http(remote: Remote) -> None:
    requests = [numbered(40 + n) for n in range(3)]
    items = [{"resource": one["resource"], "action": one["action"], "denial": remote.denial(one)} for one in requests]
    answer = remote.submit({"subject": requests[0]["subject"], "context": requests[0]["context"], "items": items})
    id_ = answer.json()["task"]["id"]
    bob = remote.desks["bob"]
    seen = bob.view(id_)
    assert [one["resource"]["id"] for one in seen["object"]["items"]] == ["p-40", "p-41", "p-42"]
    assert seen["object"]["batch"]["totals"] == [{"member": "amount", "unit": "EUR", "sum": "15"}]
    bob.approve(seen, [0, 1])
    task = remote.task(id_)["task"]
    assert (task["status"], [one["status"] for one in task["items"]]) == ("partial", ["approved", "approved", "denied"])
    for request, one in zip(requests[:2], task["items"][:2], strict=True):
        assert remote.use(request, one["result"]["approval"]["id"])["decision"] is True
        assert remote.use(request, one["result"]["approval"]["id"])["decision"] is False


def test_one_gesture_for_one_declared_batch(remote: Remote) -> None:
    bob = remote.desks["bob"]
    ids = [remote.asked(numbered(50 + n)) for n in range(3)]
    done = bob.approve_all([bob.view(one) for one in ids])
    assert [one["status"] for one in done] == ["approved"] * 3


def test_a_server_that_shows_one_thing_and_asks_to_sign_another_is_refused(remote: Remote) -> None:
    bob = remote.desks["bob"]
    seen = bob.view(remote.asked(numbered(60)))
    seen["object"]["resource"]["properties"]["amount"] = 1
    with pytest.raises(Refused, match="not what was shown"):
        bob.approve(seen)


# Callbacks.


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://127.0.0.1/hook", "https://localhost/hook", "https://10.0.0.1/", "https://169.254.169.254/latest", "https://[::1]/", "https://[::ffff:10.0.0.1]/",
        "http://example.com/", "https://user@example.com/", "ftp://example.com/", "https:///x", "x", "https://0.0.0.0/", "https://192.168.1.1:8443/", "https://[fd00::1]/",
        "https://[64:ff9b::a00:1]/", "https://2130706433/", "https://no-such-host.invalid/",
    ],
)  # fmt: skip
def test_a_callback_into_this_network_is_refused(remote: Remote, endpoint: str) -> None:
    request = numbered(70)
    answer = remote.submit({**request, "denial": remote.denial(request), "callback": {"endpoint": endpoint}})
    assert "callback" in problem(answer, 400)["title"]


# Many at once.


def test_500_at_once_on_one_server_and_sqlite_are_one_permit(remote: Remote) -> None:
    approval = remote.approved(numbered(80))
    permits = remote.many(approval, numbered(80), 500, [remote.url])
    assert (len(permits), sum(permits)) == (500, 1)
    assert len(remote.uses(approval)) == 1
