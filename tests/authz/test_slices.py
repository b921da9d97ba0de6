"""A slice answers as the whole set does: the ground for deciding with few policies and few attributes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from aftergate.authz import cedar, entities
from aftergate.authz.decide import Snapshot, decide
from aftergate.authz.facts import Facts, TrustFacts
from aftergate.authz.wire import ActionRef, Entity, EvaluationRequest

USERS, DOCS, ACTIONS = ["ann", "bob", "cy"], ["d1", "d2", "d3"], ["read", "write", "pay", "unheard"]
STORE = [
    {"uid": {"type": "Action", "id": "read"}, "attrs": {}, "parents": [{"type": "Action", "id": "looking"}]},
    {"uid": {"type": "Action", "id": "looking"}, "attrs": {}, "parents": [{"type": "Action", "id": "all"}]},
    {"uid": {"type": "Action", "id": "pay"}, "attrs": {}, "parents": [{"type": "Action", "id": "all"}]},
    {
        "uid": {"type": "user", "id": "ann"},
        "attrs": {"level": 3, "boss": {"__entity": {"type": "user", "id": "bob"}}},
        "parents": [{"type": "team", "id": "core"}],
    },
    {"uid": {"type": "user", "id": "bob"}, "attrs": {"level": 5}, "parents": [{"type": "team", "id": "ops"}]},
    {"uid": {"type": "team", "id": "core"}, "attrs": {}, "parents": [{"type": "team", "id": "ops"}]},
    {"uid": {"type": "team", "id": "ops"}, "attrs": {"name": "ops"}, "parents": []},
    {"uid": {"type": "team", "id": "far"}, "attrs": {"name": "far"}, "parents": [{"type": "team", "id": "ops"}]},
    {
        "uid": {"type": "doc", "id": "d1"},
        "attrs": {"owner": {"__entity": {"type": "user", "id": "ann"}}, "amount": 10},
        "parents": [{"type": "folder", "id": "f"}],
    },
    {"uid": {"type": "folder", "id": "f"}, "attrs": {"team": {"__entity": {"type": "team", "id": "ops"}}}, "parents": []},
]
PRINCIPALS = ["principal", 'principal == user::"ann"', "principal is user", 'principal in team::"ops"', 'principal is user in team::"core"']
VERBS = ["action", 'action == Action::"read"', 'action in Action::"all"', 'action in [Action::"looking", Action::"write"]']
RESOURCES = ["resource", 'resource == doc::"d1"', "resource is doc", 'resource in folder::"f"', "resource is user"]
CONDITIONS = [
    "",
    "when { resource.amount > 5 }",
    "when { resource has amount && resource.amount > 5 }",
    "when { principal.level > 2 }",
    "when { context.live.trust.lowest > 50 }",
    "when { context.live.trust.session > 50 }",
    "when { context.live has approval }",
    "unless { context has note && context.note == {a: 1} }",
    "when { resource has owner && resource.owner == principal }",
    "when { principal has boss && principal.boss.level > 4 }",
    'when { context.live.findings.contains("x") }',
    'when { principal in team::"ops" && team::"ops".name == "ops" }',
    'when { team::"far" in team::"ops" && resource has amount }',
    'when { team::"far".name == "far" && principal has level }',
    "when { context has action.soft && context.action.soft }",
    "when { context == {} }",
    "when { (if context has note then context.note else {a: 2}).a == 2 }",
    "when { resource has meta && resource.meta.deep.x == 1 }",
    'when { resource.tags.containsAny(["a", principal]) }',
]
POLICY = st.tuples(
    st.sampled_from(["permit", "permit", "forbid"]),
    st.sampled_from(PRINCIPALS),
    st.sampled_from(VERBS),
    st.sampled_from(RESOURCES),
    st.sampled_from(CONDITIONS),
)
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "amount": st.sampled_from([1, 10, "x", 2.5]),
        "level": st.sampled_from([1, 9]),
        "meta": st.sampled_from([{"deep": {"x": 1}}, {"deep": 3}, {}]),
        "tags": st.just(["a", "b"]),
        "unread": st.just({"q": 1}),
    },
)
REQUEST = st.builds(
    EvaluationRequest,
    st.builds(Entity, st.sampled_from(["user", "other"]), st.sampled_from(USERS), PROPERTIES),
    st.builds(ActionRef, st.sampled_from(ACTIONS), st.fixed_dictionaries({}, optional={"soft": st.booleans()})),
    st.builds(Entity, st.sampled_from(["doc", "user"]), st.sampled_from(DOCS), PROPERTIES),
    st.fixed_dictionaries({}, optional={"note": st.sampled_from([{"a": 1}, {"a": 2, "b": 3}, "text"]), "unread": st.just([1, 2])}),
)
TRUST = st.builds(TrustFacts, st.sampled_from([20, 90]), st.sampled_from([None, 40, 80]), st.none(), st.sampled_from([(), ("x",)]))


def written(policies: list[tuple[str, ...]]) -> bytes:
    return "\n".join(f'@id("p{at}") {e} ({p}, {a}, {r}) {c};' for at, (e, p, a, r, c) in enumerate(policies)).encode()


@settings(max_examples=150)
@given(st.lists(POLICY, min_size=1, max_size=8), st.lists(REQUEST, min_size=1, max_size=6), TRUST, st.sampled_from([None, {"id": "a"}]))
def test_a_slice_answers_as_the_whole_set(policies: list, requests: list[EvaluationRequest], trust: TrustFacts, approval: Any) -> None:
    snapshot = Snapshot(cedar.parse({"p.cedar": written(policies)}), entities.load(json.dumps(STORE).encode()))
    facts = Facts(1_767_614_400_000, trust, approval=approval)
    for request in requests:
        sliced, whole = decide(request, snapshot, facts), decide(request, snapshot, facts, whole=True)
        assert sliced.allowed == whole.allowed
        assert sliced.outcome == whole.outcome
        assert sliced.determining == whole.determining
        assert [fault.policy for fault in sliced.errors] == [fault.policy for fault in whole.errors]


@settings(max_examples=150)
@given(st.lists(POLICY, min_size=1, max_size=6), REQUEST, TRUST)
def test_what_is_left_out_of_context_and_entities_is_nothing_a_policy_sees(
    policies: list, request: EvaluationRequest, trust: TrustFacts
) -> None:
    """Against Cedar asked plainly: the whole set, the whole context, every entity with all that the request brings."""
    import cedarpy

    from aftergate.authz.facts import live
    from aftergate.authz.values import to_cedar

    text = written(policies).decode()
    snapshot = Snapshot(cedar.parse({"p.cedar": text.encode()}), entities.load(json.dumps(STORE).encode()))
    facts = Facts(1_767_614_400_000, trust)
    store = {(each["uid"]["type"], each["uid"]["id"]): json.loads(json.dumps(each)) for each in STORE}
    for entity in (request.subject, request.resource):
        held = store.setdefault((entity.type, entity.id), {"uid": {"type": entity.type, "id": entity.id}, "attrs": {}, "parents": []})
        held["attrs"] = {**to_cedar(entity.properties, ""), **held["attrs"]}
    context = {**to_cedar(request.context, ""), "live": live(facts, trust)}
    if request.action.properties:
        context["action"] = request.action.properties
    plain = cedarpy.is_authorized(
        {
            "principal": {"type": request.subject.type, "id": request.subject.id},
            "action": {"type": "Action", "id": request.action.name},
            "resource": {"type": request.resource.type, "id": request.resource.id},
            "context": context,
        },
        text,
        list(store.values()),
    )
    ours = decide(request, snapshot, facts)
    ids = plain.diagnostics.id_annotations_by_reason
    assert ours.allowed == (plain.allowed and not plain.diagnostics.errors)
    assert set(ours.determining) == set(ids.values())
    assert len(ours.errors) == len(plain.diagnostics.errors)


def test_names_that_no_policy_mentions_are_not_remembered() -> None:
    snapshot = Snapshot(cedar.parse({"p.cedar": b'@id("p") permit (principal is user, action, resource);'}), entities.empty())
    slices = {id(snapshot.slicer.of((f"type{at}", f"id{at}"), ("Action", f"action{at}"), (f"kind{at}", f"id{at}"))) for at in range(200)}
    assert len(slices) == 1
    assert snapshot.slicer._by_key.cache_info().currsize == 1


def test_an_action_reaches_policies_of_its_groups_groups() -> None:
    policies = b'@id("all") permit (principal, action in Action::"all", resource); @id("other") permit (principal, action == Action::"write", resource);'
    snapshot = Snapshot(cedar.parse({"p.cedar": policies}), entities.load(json.dumps(STORE).encode()))
    assert snapshot.slicer.of(("user", "ann"), ("Action", "read"), ("doc", "d1")).ids == {"all"}
    assert snapshot.slicer.of(("user", "ann"), ("Action", "write"), ("doc", "d1")).ids == {"other"}
    assert snapshot.slicer.of(("user", "ann"), ("Action", "unheard"), ("doc", "d1")).handle is None


def test_a_slice_knows_whether_an_answer_depends_on_the_time() -> None:
    def reads(condition: str) -> bool:
        policies = cedar.parse({"p.cedar": f'@id("p") permit (principal, action, resource) when {{ {condition} }};'.encode()})
        return Snapshot(policies, entities.empty()).slicer.whole().reads_time

    assert not reads("context.live.trust.lowest > 3 && resource.hour == 4")
    assert not reads('context.live has auth && context.live.auth.acr == "x"')
    for condition in (
        "context.live.hour > 3",
        "context.live.auth.age_s < 300",
        "context.live == {}",
        "context == {}",
        "context.live.credential has age_s",
    ):
        assert reads(condition), condition
