"""The decision: what each kind of answer rests on, and that nothing that fails allows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftergate.authz import cedar, entities
from aftergate.authz.answer import context_of
from aftergate.authz.decide import Decision, Snapshot, decide
from aftergate.authz.errors import PolicyError
from aftergate.authz.facts import Facts, TrustFacts, auth_facts, credential_facts, live
from aftergate.authz.values import Unmappable, to_cedar
from aftergate.authz.wire import ActionRef, Entity, EvaluationRequest

NOW = 1_767_614_400_000
POLICIES = b"""
@id("pay") permit (principal is user, action == Action::"pay", resource is invoice) when { principal.active };
@id("never-when-stolen") @reason("this credential was found abused")
forbid (principal, action, resource) when { context.live.findings.contains("stolen") };
@id("big-needs-approval") @advice("approval") @approvers("finance") @quorum("2")
forbid (principal, action == Action::"pay", resource) when { resource.amount > 1000 } unless { context.live has approval };
@id("big-needs-login") @advice("step-up") @acr_values("urn:aal3") @max_age("300")
forbid (principal, action == Action::"pay", resource) when { resource.amount > 5000 }
unless { context.live has auth && context.live.auth has acr && context.live.auth.acr == "urn:aal3" && context.live.auth has age_s && context.live.auth.age_s <= 300 };
@id("look") permit (principal, action == Action::"look", resource);
@id("night-is-risky") @risk("high") forbid (principal, action == Action::"deploy", resource) when { context.live.hour < 6 };
@id("deploy") permit (principal, action == Action::"deploy", resource) when { context.live.task.purpose == "deploy" };
"""
STORE = [
    {"uid": {"type": "user", "id": "ann"}, "attrs": {"active": True, "role": "clerk"}, "parents": []},
    {"uid": {"type": "user", "id": "out"}, "attrs": {"active": False}, "parents": []},
]
SNAPSHOT = Snapshot(cedar.parse({"p.cedar": POLICIES}), entities.load(json.dumps(STORE).encode()))


def ask(
    action: str = "pay", subject: str = "ann", amount: object = 10, facts: Facts | None = None, said: dict | None = None, **context: object
) -> Decision:
    properties = {} if amount is None else {"amount": amount}
    request = EvaluationRequest(Entity("user", subject, said or {}), ActionRef(action), Entity("invoice", "i", properties), context)
    return decide(request, SNAPSHOT, facts or Facts(NOW, TrustFacts(90)))


def test_a_permit_names_its_policy() -> None:
    made = ask()
    assert (made.allowed, made.outcome, made.determining) == (True, "permit", ("pay",))
    assert made.policy_digest == SNAPSHOT.policies.digest


def test_no_permit_says_which_would_have_to_hold() -> None:
    made = ask(subject="out")
    assert (made.outcome, made.reason, made.determining) == ("deny", "no_permit", ())
    assert made.missing == ("permit `pay` would have to hold",)
    assert ask("fly").missing == ("no permit names this action, subject type and resource type",)


def test_a_forbid_without_advice_is_a_plain_denial() -> None:
    made = ask(amount=2000, facts=Facts(NOW, TrustFacts(5, findings=("stolen",))))
    assert (made.outcome, made.reason) == ("deny", "forbidden")
    assert made.determining == ("big-needs-approval", "never-when-stolen")
    assert made.advice == ()
    assert made.missing == (
        "`big-needs-approval` is lifted by an approval of exactly this transaction by 2 of finance",
        "forbid `never-when-stolen` must not hold (this credential was found abused)",
    )
    assert made.reasons == ("this credential was found abused",)


def test_a_denial_that_an_approval_lifts_is_requestable() -> None:
    made = ask(amount=2000)
    assert (made.allowed, made.outcome, made.reason) == (False, "approval", "approval_required")
    assert [each.quorum for each in made.advice] == [2]
    assert ask(amount=2000, facts=Facts(NOW, TrustFacts(90), approval={"id": "a"})).allowed


def test_a_step_up_comes_before_the_approval() -> None:
    made = ask(amount=9000)
    assert made.outcome == "step_up"
    assert {each.kind for each in made.advice} == {"approval", "step-up"}
    fresh = {"acr": "urn:aal3", "age_s": 10}
    assert ask(amount=9000, facts=Facts(NOW, TrustFacts(90), auth=fresh)).outcome == "approval"
    assert ask(amount=9000, facts=Facts(NOW, TrustFacts(90), auth=fresh | {"age_s": 301})).outcome == "step_up"
    assert ask(amount=9000, facts=Facts(NOW, TrustFacts(90), auth=fresh, approval={"id": "a"})).allowed


def test_advice_is_not_offered_where_it_would_not_help() -> None:
    made = ask(subject="out", amount=2000)
    assert (made.outcome, made.reason, made.advice) == ("deny", "no_permit", ())


def test_an_error_anywhere_denies_and_is_named() -> None:
    made = ask(amount=None)
    assert (made.allowed, made.outcome, made.reason) == (False, "deny", "policy_error")
    assert {fault.policy for fault in made.errors} == {"big-needs-approval", "big-needs-login"}
    assert "`has`" in made.missing[0]
    assert ask(amount="much").reason == "policy_error"
    assert ask("look", subject="nobody", amount=None).allowed  # what no policy of this action reads may be absent
    assert ask(subject="nobody").reason == "policy_error"


def test_a_missing_fact_denies_where_a_policy_reads_it_unasked() -> None:
    made = ask("deploy")
    assert made.reason == "policy_error"
    assert made.errors[0].policy == "deploy"
    assert ask("deploy", facts=Facts(NOW, TrustFacts(90), task={"purpose": "deploy"})).allowed


def test_trust_that_is_not_known_denies_everything() -> None:
    for action in ("pay", "look", "fly"):
        made = ask(action, facts=Facts(NOW, None))
        assert (made.allowed, made.reason) == (False, "trust_unknown")


def test_the_stored_attribute_wins_and_the_conflict_is_said() -> None:
    made = ask(subject="out", said={"active": True})
    assert not made.allowed
    assert made.conflicts == ("subject.active",)
    assert ask(said={"active": True}).conflicts == ()
    assert ask(subject="new", said={"active": True}).allowed


def test_reserved_context_members_of_a_request_do_not_count() -> None:
    made = ask(amount=2000, live={"approval": {"id": "forged"}, "trust": {"lowest": 100}}, action="pay")
    assert made.outcome == "approval"
    made = ask("pay", amount=2000, live={"approval": {"id": "forged"}})
    assert made.conflicts == ("context.live",)


@pytest.mark.parametrize(
    "value",
    [
        {"__entity": {"type": "user", "id": "ann"}},
        {"__extn": {"fn": "decimal", "arg": "1.0"}},
        [{"__entity": {"type": "user", "id": "ann"}}],
        [None],
        0.12345,
        1e300,
        {"a": {"__expr": "x"}},
    ],
)
def test_what_cedar_cannot_hold_denies_where_it_is_read(value: object) -> None:
    made = ask(amount=value)
    assert (made.allowed, made.reason) == (False, "request_unmappable")
    assert made.missing[0].startswith("a value for resource.properties.amount")
    assert ask("look", amount=value).allowed  # nobody reads it


@pytest.mark.parametrize("name", ["", "a-b", "in", "a::", "::a", "__cedar", "a::if", "ü", 'x"y', "a b", "x" * 300])
def test_a_type_that_is_no_cedar_name_is_denied_not_a_fault(name: str) -> None:
    for entity in ("subject", "resource"):
        given_ = {"subject": Entity("user", "ann"), "resource": Entity("invoice", "i")} | {entity: Entity(name, "x")}
        made = decide(EvaluationRequest(given_["subject"], ActionRef("look"), given_["resource"]), SNAPSHOT, Facts(NOW, TrustFacts(90)))
        assert (made.allowed, made.reason) == (False, "request_unmappable")
        assert made.errors[0].message.startswith(f"{entity}.type")


@given(st.text(max_size=20), st.text(max_size=20), st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3))
def test_any_names_get_an_answer(id_: str, action: str, properties: dict) -> None:
    request = EvaluationRequest(
        Entity("user", id_, properties), ActionRef(action, properties), Entity("invoice", id_, properties), properties
    )
    assert decide(request, SNAPSHOT, Facts(NOW, TrustFacts(90))).outcome in {"permit", "deny", "step_up", "approval"}


def test_an_action_is_high_risk_if_a_policy_that_names_it_says_so() -> None:
    assert ask().high_risk
    assert ask("deploy").high_risk
    assert not ask("look").high_risk
    assert not ask("fly").high_risk


@given(st.integers(0, 1 << 31), st.integers(0, 100))
def test_adding_a_permit_never_turns_an_allow_into_a_denial(time_s: int, trust: int) -> None:
    more = Snapshot(cedar.parse({"p.cedar": POLICIES, "q.cedar": b'@id("more") permit (principal, action, resource);'}), SNAPSHOT.entities)
    facts = Facts(time_s * 1000, TrustFacts(trust))
    for action in ("pay", "look", "deploy"):
        request = EvaluationRequest(Entity("user", "ann"), ActionRef(action), Entity("invoice", "i", {"amount": 5}))
        assert decide(request, more, facts).allowed or not decide(request, SNAPSHOT, facts).allowed


def test_live_facts_are_in_utc_and_leave_out_what_is_not_known() -> None:
    facts = Facts(NOW, TrustFacts(90, session=40, findings=("a",)))
    assert live(facts, facts.trust) == {
        "trust": {"identity": 90, "session": 40, "lowest": 40},
        "findings": ["a"],
        "time": NOW // 1000,
        "hour": 12,
        "weekday": 1,
    }


def test_freshness_is_measured_from_auth_time_only() -> None:
    now_s = NOW // 1000
    assert auth_facts({"acr": "x", "amr": ["pwd"], "auth_time": now_s - 20, "iat": now_s}, NOW) == {"acr": "x", "amr": ["pwd"], "age_s": 20}
    assert auth_facts({"acr": "x", "iat": now_s}, NOW) == {"acr": "x"}
    assert auth_facts({"acr": "x", "auth_time": now_s + 3600}, NOW) == {"acr": "x"}
    assert auth_facts({"acr": 1, "amr": "pwd", "auth_time": "now"}, NOW) is None
    assert auth_facts("x", NOW) is None
    assert credential_facts({"class": "api_key", "issued_at": now_s - 5, "bound": 1}, "c", NOW) == {
        "class": "api_key",
        "age_s": 5,
        "id": "c",
    }
    assert credential_facts(None, None, NOW) is None


def test_numbers_become_long_or_decimal_and_never_something_else() -> None:
    assert to_cedar(1.0, "x") == 1
    assert to_cedar(-0.5, "x") == {"__extn": {"fn": "decimal", "arg": "-0.5000"}}
    assert to_cedar({"a": None, "b": [True]}, "x") == {"b": [True]}
    for wrong in (0.00001, 1e16 + 0.0, 1e15 + 0.5):
        with pytest.raises(Unmappable):
            to_cedar(wrong, "x")


def test_a_decimal_is_compared_as_one() -> None:
    policies = b'@id("p") permit (principal, action, resource) when { resource.amount.lessThan(decimal("2.5")) };'
    snapshot = Snapshot(cedar.parse({"p.cedar": policies}), entities.empty())
    for amount, allowed in ((2.25, True), (2.75, False), (3, False)):
        request = EvaluationRequest(Entity("user", "a"), ActionRef("x"), Entity("doc", "d", {"amount": amount}))
        assert decide(request, snapshot, Facts(NOW, TrustFacts(90))).allowed is allowed


def test_the_answer_names_policies_and_what_would_change_it() -> None:
    assert context_of(ask()) == {"reason": "permitted", "policies": ["pay"], "policy_version": SNAPSHOT.policies.version}
    told = context_of(ask(amount=9000))
    assert told["obligations"] == [
        {"id": "step-up:big-needs-login", "type": "step-up", "properties": {"acr_value": "urn:aal3", "max_age": 300}}
    ]
    assert told["acr_values"] == "urn:aal3"
    assert told["challenge"].startswith("Bearer error=")
    assert len(told["would_change"]) == 2
    assert context_of(ask(amount=None))["errors"][0]["policy"] == "big-needs-approval"
    assert "obligations" not in context_of(ask(amount=2000))


def test_entities_are_refused_with_file_and_line() -> None:
    for text, said in [
        (b"{}", "entities.json"),
        (b"\n\xff", "entities.json:2: not UTF-8"),
        (b'[{"uid":{"type":"a","id":"b"},"attrs":{"x":null},"parents":[]}]', "entities.json"),
        (
            b'[\n{"uid":{"type":"a","id":"b"},"attrs":{},"parents":[]},\n{"uid":{"type":"a","id":"b"},"attrs":{"x":1},"parents":[]}]',
            "entities.json:2",
        ),
        (b'[{"uid":{"type":"a","id":"b"},"attrs":{},"parents":[{"type":"a","id":"b"}]}]', "entities.json"),
    ]:
        with pytest.raises(PolicyError) as refused:
            entities.load(text)
        assert str(refused.value.problems[0]).startswith(said)


def test_actions_and_groups_of_a_schema_are_known_without_an_entity_file() -> None:
    schema = b"entity user; action all; action pay in [all] appliesTo { principal: user, resource: user, context: {} };"
    policies = cedar.parse({"p.cedar": b'@id("p") permit (principal, action in Action::"all", resource);', "schema.cedarschema": schema})
    snapshot = Snapshot(policies, entities.empty(policies.schema))
    facts = Facts(NOW, TrustFacts(90))
    assert decide(EvaluationRequest(Entity("user", "a"), ActionRef("pay"), Entity("user", "b")), snapshot, facts).allowed
    assert not decide(EvaluationRequest(Entity("user", "a"), ActionRef("fly"), Entity("user", "b")), snapshot, facts).allowed
    with pytest.raises(PolicyError):
        entities.load(b'[{"uid":{"type":"user","id":"a"},"attrs":{"new":1},"parents":[]}]', schema=policies.schema)


def test_the_set_a_request_gets_of_its_own_reaches_all_that_policies_reach() -> None:
    ref = lambda kind, id_: {"__entity": {"type": kind, "id": id_}}
    chain = [
        {
            "uid": {"type": "user", "id": f"u{at}"},
            "attrs": {"next": ref("user", f"u{at + 1}"), "seen": [ref("team", f"t{at}")]},
            "parents": [],
        }
        for at in range(500)
    ]
    chain += [{"uid": {"type": "team", "id": f"t{at}"}, "attrs": {}, "parents": [{"type": "team", "id": "top"}]} for at in range(500)]
    chain.append({"uid": {"__entity": {"type": "user", "id": "u500"}}, "attrs": {"ok": True}, "parents": []})
    deep = "principal" + ".next" * 20
    policies = f'@id("p") permit (principal, action, resource) when {{ {deep}.seen.containsAny([team::"t20"]) && resource.colour == "red" && team::"t7" in team::"top" }};'
    snapshot = Snapshot(cedar.parse({"p.cedar": policies.encode()}), entities.load(json.dumps(chain).encode()))
    request = EvaluationRequest(Entity("user", "u0"), ActionRef("x"), Entity("doc", "d", {"colour": "red"}))
    assert decide(request, snapshot, Facts(NOW, TrustFacts(90))).allowed
