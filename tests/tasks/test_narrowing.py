"""Rights only ever narrow, tasks only ever end, and what ends takes everything below with it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftergate.authz.tasks import details as d
from aftergate.authz.tasks import machine as m
from aftergate.authz.tasks.answers import Refusal
from aftergate.authz.tasks.grants import Actor, Binding, Request, Subject, derive
from aftergate.errors import ConfigError

TYPES = d.declared_types(
    {
        "payment": {
            "actions": {"kind": "texts", "required": True},
            "amount": {"kind": "amount", "required": True},
            "currency": {"kind": "text"},
            "instant": {"kind": "flag"},
            "count": {"kind": "integer"},
        }
    }
)
LIMITS = m.Limits(ttl_max_ms=3_600_000, token_ttl_ms=300_000, act_depth=4, floor=20)
WHO = m.Principal("workload", "ci")
ALICE = m.Principal("user", "alice")
NOW = 1_700_000_000_000

words = st.sampled_from(["read", "write", "deploy", "pay"])
word_lists = st.lists(words, min_size=1, max_size=3)
task_detail = st.fixed_dictionaries(
    {"type": st.just(d.TASK), "actions": word_lists},
    optional={
        "locations": st.lists(st.sampled_from(["https://a.example", "https://b.example"]), min_size=1, max_size=2),
        "resource_type": st.sampled_from(["repo", "tool"]),
        "identifiers": st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=3),
        "identifier": st.sampled_from(["x", "y"]),
    },
)
payment_detail = st.fixed_dictionaries(
    {"type": st.just("payment"), "actions": word_lists, "amount": st.sampled_from(["1", "10.00", "10", "99.5"])},
    optional={"currency": st.sampled_from(["EUR", "USD"]), "instant": st.booleans(), "count": st.integers(0, 3)},
)
detail_lists = st.lists(st.one_of(task_detail, payment_detail), min_size=1, max_size=3)


def parsed(raw: Any) -> tuple[d.Detail, ...]:
    made = d.parse(raw, TYPES)
    assert not isinstance(made, Refusal), made
    return made


def allows(details: Any, question: tuple[Any, ...]) -> bool:
    """An independent reading of what a list allows, question by question: the algebra is checked against it."""
    kind, action, place, resource, identifier, amount, currency, instant, count = question
    for detail in details:
        if detail["type"] != kind or action not in detail["actions"]:
            continue
        if kind == d.TASK:
            if "locations" in detail and place not in detail["locations"]:
                continue
            if detail.get("resource_type", resource) != resource or detail.get("identifier", identifier) != identifier:
                continue
            if "identifiers" in detail and identifier not in detail["identifiers"]:
                continue
        else:
            if float(amount) > float(detail["amount"]) or detail.get("currency", currency) != currency:
                continue
            if detail.get("instant", instant) != instant or count > detail.get("count", count):
                continue
        return True
    return False


questions = st.tuples(
    st.sampled_from([d.TASK, "payment"]),
    words,
    st.sampled_from(["https://a.example", "https://b.example", "https://c.example"]),
    st.sampled_from(["repo", "tool", "other"]),
    st.sampled_from(["x", "y", "z", "w"]),
    st.sampled_from(["0.5", "1", "10", "50", "100"]),
    st.sampled_from(["EUR", "USD", "CHF"]),
    st.booleans(),
    st.integers(0, 5),
)


@given(detail_lists, detail_lists, st.lists(questions, min_size=40, max_size=40))
def test_what_lies_within_allows_nothing_that_the_wider_list_does_not(narrow: Any, wide: Any, asked: Any) -> None:
    small, large = parsed(narrow), parsed(wide)
    if d.all_within(small, large, TYPES) is None:
        assert [q for q in asked if allows(small, q) and not allows(large, q)] == []


@given(detail_lists)
def test_a_list_lies_within_itself_and_dropping_a_member_widens_it(raw: Any) -> None:
    held = parsed(raw)
    assert d.all_within(held, held, TYPES) is None
    for detail in held:
        optional = [name for name in detail if name not in {"type", "actions", "amount"}]
        for name in optional:
            wider = {key: value for key, value in detail.items() if key != name}
            assert not d.within(wider, detail, TYPES)
            assert d.within(detail, wider, TYPES)


@given(detail_lists, detail_lists, detail_lists)
def test_narrowing_is_transitive(a: Any, b: Any, c: Any) -> None:
    a, b, c = parsed(a), parsed(b), parsed(c)
    if d.all_within(a, b, TYPES) is None and d.all_within(b, c, TYPES) is None:
        assert d.all_within(a, c, TYPES) is None


@pytest.mark.parametrize(
    "raw",
    [
        [],
        {},
        "x",
        [1],
        [{"actions": ["a"]}],
        [{"type": 5}],
        [{"type": "unheard-of", "actions": ["a"]}],
        [{"type": d.TASK}],
        [{"type": d.TASK, "actions": []}],
        [{"type": d.TASK, "actions": "a"}],
        [{"type": d.TASK, "actions": ["a"], "colour": "red"}],
        [{"type": d.TASK, "actions": ["a"], "identifier": 7}],
        [{"type": d.TASK, "actions": ["a" * 600]}],
        [{"type": "payment", "actions": ["pay"]}],
        [{"type": "payment", "actions": ["pay"], "amount": "-1"}],
        [{"type": "payment", "actions": ["pay"], "amount": "1e9"}],
        [{"type": "payment", "actions": ["pay"], "amount": "NaN"}],
        [{"type": "payment", "actions": ["pay"], "amount": 10}],
        [{"type": "payment", "actions": ["pay"], "amount": "1", "instant": 1}],
        [{"type": "payment", "actions": ["pay"], "amount": "1", "count": True}],
        [{"type": d.TASK, "actions": ["a"]}] * 33,
    ],
)
def test_unknown_type_or_member_and_missing_or_wrong_value_are_invalid(raw: Any) -> None:
    found = d.parse(raw, TYPES)
    assert isinstance(found, Refusal)
    assert found.error == "invalid_authorization_details"


def test_a_declared_type_that_cannot_narrow_is_refused_at_the_start() -> None:
    for spec in ({"m": {"kind": "colour"}}, {"m": {"kind": "text", "narrowing": "at_most"}}, {"m": "text"}, {"type": {"kind": "text"}}):
        with pytest.raises(ConfigError):
            d.declared_types({"t": spec})
    with pytest.raises(ConfigError):
        d.declared_types({d.TASK: {}})


# Tasks under tasks


def draft(raw: Any, **more: Any) -> m.Draft:
    return m.Draft(who=WHO, purpose="nightly", details=parsed(raw), **more)


def started(raw: Any, parent: m.Task | None = None, name: str = "t", **more: Any) -> m.Task:
    made = m.propose(draft(raw, **more), name, NOW, LIMITS, TYPES, parent)
    assert isinstance(made, m.Task), made
    active = m.activate(made, NOW)
    assert isinstance(active, m.Task)
    return active


@given(detail_lists, detail_lists, st.integers(0, 7200), st.integers(0, 100), st.booleans())
def test_a_task_under_another_never_exceeds_it(wide: Any, narrow: Any, life_s: int, floor: int, for_alice: bool) -> None:
    parent = started(wide, until_ms=NOW + 1_800_000, floor=50, on_behalf_of=ALICE)
    asked = draft(narrow, until_ms=NOW + life_s * 1000, floor=floor, on_behalf_of=ALICE if for_alice else m.Principal("user", "bob"))
    child = m.propose(asked, "child", NOW, LIMITS, TYPES, parent)
    if isinstance(child, m.Task):
        assert d.all_within(child.details, parent.details, TYPES) is None
        assert child.scope <= parent.scope
        assert child.until_ms <= parent.until_ms
        assert child.floor >= parent.floor
        assert child.on_behalf_of == parent.on_behalf_of


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"purpose": "  "}, "invalid_request"),
        ({"purpose": "x" * 501}, "invalid_request"),
        ({"until_ms": NOW}, "invalid_request"),
        ({"until_ms": NOW + 3_600_001}, "invalid_request"),
        ({"floor": 10}, "invalid_request"),
        ({"floor": 101}, "invalid_request"),
    ],
)
def test_a_task_beyond_the_operators_limits_is_refused(changes: dict[str, Any], error: str) -> None:
    asked = msgspec.structs.replace(draft([{"type": d.TASK, "actions": ["read"]}]), **changes)
    found = m.propose(asked, "t", NOW, LIMITS, TYPES)
    assert isinstance(found, Refusal)
    assert found.error == error


def test_an_action_that_is_no_scope_value_is_refused() -> None:
    found = m.propose(draft([{"type": d.TASK, "actions": ["drop table"]}]), "t", NOW, LIMITS, TYPES)
    assert isinstance(found, Refusal)
    assert found.error == "invalid_scope"


steps = st.lists(st.sampled_from(["activate", *m.ENDS]), max_size=8)


@given(steps, st.lists(st.integers(0, 7_200_000), min_size=8, max_size=8))
def test_the_dead_never_become_active(taken: list[str], when: list[int]) -> None:
    task = m.propose(draft([{"type": d.TASK, "actions": ["read"]}], until_ms=NOW + 3_000_000), "t", NOW, LIMITS, TYPES)
    assert isinstance(task, m.Task)
    dead: m.Task | None = None
    for step, late in zip(taken, sorted(when), strict=False):
        now = NOW + late
        found = m.activate(task, now) if step == "activate" else m.end(task, m.State(step), "because", now)
        if dead is not None:
            assert isinstance(found, Refusal)
            assert task == dead
        elif isinstance(found, m.Task):
            task = found
            if task.state in m.ENDS:
                dead = task
                assert task.ended_ms == now


def test_no_step_ends_in_a_living_state() -> None:
    task = started([{"type": d.TASK, "actions": ["read"]}])
    with pytest.raises(ValueError, match="not an end"):
        m.end(task, m.State.ACTIVE, "", NOW)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=20), st.sampled_from(sorted(m.ENDS)), st.integers(0, 19))
def test_killing_a_root_kills_every_descendant_and_nobody_else(parents: list[int], state: m.State, root_number: int) -> None:
    """Task n hangs below task `parents[n] % n`; the first of all is a root."""
    base = started([{"type": d.TASK, "actions": ["read"]}])
    tasks = {"t0": msgspec.structs.replace(base, id="t0")}
    for number, parent in enumerate(parents, 1):
        tasks[f"t{number}"] = msgspec.structs.replace(base, id=f"t{number}", parent=f"t{parent % number}")
    root = f"t{root_number % len(tasks)}"
    changed = m.end_tree(tasks, root, state, "told so", base.until_ms)
    assert not isinstance(changed, Refusal)
    after = {**tasks, **{task.id: task for task in changed}}

    def below(name: str) -> bool:
        here: str | None = name
        while here is not None:
            if here == root:
                return True
            here = tasks[here].parent
        return False

    for name, task in after.items():
        assert (task.state in m.ENDS) == below(name)
    assert after[root].state is state
    assert len(changed) == sum(below(name) for name in tasks)


def test_time_and_trust_end_a_task_by_themselves() -> None:
    task = started([{"type": d.TASK, "actions": ["read"]}], until_ms=NOW + 1000, floor=60)
    assert m.due(task, NOW, 60) is None
    assert m.due(task, NOW, 59) == m.Cause(m.State.KILLED, "trust 59 is below its floor 60")
    expired = m.due(task, NOW + 1000, 0)
    assert expired is not None
    assert expired.state is m.State.EXPIRED
    ended = m.end(task, m.State.CANCELLED, "", NOW)
    assert isinstance(ended, m.Task)
    assert m.due(ended, NOW + 5000, 0) is None
    assert m.alive((task,), NOW)
    assert not m.alive((task, ended), NOW)
    assert not m.alive((), NOW)
    assert not m.alive((task,), NOW + 1000)


# Exchanges

actors = st.sampled_from([Actor("ci"), Actor("agent-1"), Actor("agent-2"), Actor("alice")])


@given(
    wide=detail_lists,
    token=st.none() | detail_lists,
    asked=st.none() | detail_lists,
    scope=st.none() | st.frozensets(words, max_size=3),
    token_scope=st.none() | st.frozensets(words, max_size=4),
    act=st.lists(actors, max_size=6),
    actor=actors,
    life=st.none() | st.integers(-5, 700_000),
    token_life=st.integers(0, 700_000),
)
def test_a_derived_token_never_exceeds_task_subject_token_or_operator(
    wide: Any, token: Any, asked: Any, scope: Any, token_scope: Any, act: Any, actor: Any, life: Any, token_life: int
) -> None:
    task = started(wide, until_ms=NOW + 400_000, on_behalf_of=ALICE)
    subject = Subject(
        principal=ALICE,
        issuer="https://issuer.example",
        exp_ms=NOW + token_life,
        scope=token_scope,
        details=parsed(token) if token is not None else None,
        act=tuple(act),
    )
    request = Request(
        actor=actor,
        client=WHO,
        scope=scope,
        details=parsed(asked) if asked is not None else None,
        binding=Binding(jkt="k"),
        ttl_ms=life,
    )
    grant = derive(task, subject, request, NOW, LIMITS, TYPES, "https://us.example")
    if isinstance(grant, Refusal):
        return
    assert d.all_within(grant.details, task.details, TYPES) is None
    assert grant.scope <= task.scope
    if subject.details is not None:
        assert d.all_within(grant.details, subject.details, TYPES) is None
    if token_scope is not None:
        assert grant.scope <= token_scope
    assert {action for detail in grant.details for action in detail["actions"]} == grant.scope
    assert NOW < grant.exp_ms <= min(task.until_ms, subject.exp_ms, NOW + LIMITS.token_ttl_ms)
    assert len(grant.act) <= LIMITS.act_depth
    assert grant.subject == ALICE
    assert grant.binding.jkt == "k"


def a_subject(**more: Any) -> Subject:
    return Subject(**{"principal": ALICE, "issuer": "https://issuer.example", "exp_ms": NOW + 200_000, **more})


def a_request(**more: Any) -> Request:
    return Request(**{"actor": Actor("agent"), "client": WHO, **more})


def exchange(task: m.Task, subject: Subject, request: Request) -> Any:
    return derive(task, subject, request, NOW, LIMITS, TYPES, "https://us.example")


def test_the_chain_of_actors_grows_by_one_until_its_bound() -> None:
    task = started([{"type": d.TASK, "actions": ["read"]}], on_behalf_of=ALICE)
    chain: tuple[Actor, ...] = ()
    for number in range(LIMITS.act_depth):
        grant = exchange(task, a_subject(act=chain), a_request(actor=Actor(f"agent-{number}")))
        assert grant.act[0] == Actor(f"agent-{number}")
        assert grant.act[1:] == chain
        chain = grant.act
    again = exchange(task, a_subject(act=chain), a_request(actor=chain[0]))
    assert again.act == chain  # the same actor asking again is no further link
    refused = exchange(task, a_subject(act=chain), a_request(actor=Actor("one-more")))
    assert refused.error == "invalid_request"


@pytest.mark.parametrize(
    ("may", "ok"),
    [
        (None, True),
        ({"sub": "agent"}, True),
        ({"sub": "agent", "iss": "https://us.example"}, True),
        ({"client_id": "ci"}, True),
        ({"sub": "other"}, False),
        ({"sub": "agent", "iss": "https://elsewhere.example"}, False),
        ({"client_id": "other"}, False),
        ({"sub": "agent", "moon": "full"}, False),
        ({}, False),
    ],
)
def test_may_act_says_who_may_act(may: Any, ok: bool) -> None:
    task = started([{"type": d.TASK, "actions": ["read"]}], on_behalf_of=ALICE)
    found = exchange(task, a_subject(may_act=may), a_request())
    assert isinstance(found, Refusal) is not ok


def test_a_subject_token_of_somebody_else_gives_nothing() -> None:
    task = started([{"type": d.TASK, "actions": ["read"]}], on_behalf_of=ALICE)
    assert exchange(task, a_subject(principal=m.Principal("user", "bob")), a_request()).error == "invalid_request"
    assert exchange(task, a_subject(principal=m.Principal("workload", "alice")), a_request()).error == "invalid_request"


def test_locations_bound_the_audience() -> None:
    bounded = started([{"type": d.TASK, "actions": ["read"], "locations": ["https://a.example"]}], on_behalf_of=ALICE)
    assert exchange(bounded, a_subject(), a_request()).audience == ("https://a.example",)
    assert exchange(bounded, a_subject(), a_request(audience=("https://b.example",))).error == "invalid_target"
    assert exchange(bounded, a_subject(own=True, aud=("https://b.example",)), a_request(audience=("https://b.example",))).audience == (
        "https://b.example",
    )
    free = started([{"type": d.TASK, "actions": ["read"]}], on_behalf_of=ALICE)
    assert exchange(free, a_subject(), a_request()).audience == ("https://us.example",)
    assert exchange(free, a_subject(), a_request(audience=tuple(f"https://{n}.example" for n in range(9)))).error == "invalid_target"


def test_a_workload_for_itself_has_no_actor() -> None:
    task = started([{"type": d.TASK, "actions": ["read"]}])
    grant = exchange(task, a_subject(principal=WHO), a_request(actor=Actor("ci")))
    assert grant.act == ()


def test_what_a_task_permits_is_read_as_it_is_written() -> None:
    held = parsed(
        [
            {
                "type": d.TASK,
                "actions": ["tools/call"],
                "resource_type": "tool",
                "identifiers": ["search"],
                "locations": ["https://m.example"],
            }
        ]
    )
    assert d.permits(held, "tools/call", "tool", "search", "https://m.example")
    assert not d.permits(held, "tools/call", "tool", "delete", "https://m.example")
    assert not d.permits(held, "tools/call", "prompt", "search", "https://m.example")
    assert not d.permits(held, "tools/call", "tool", "search", "https://other.example")
    assert not d.permits(held, "tools/call", "tool", "search")
    assert d.permits(parsed(d.of_actions(["deploy"], [])), "deploy", "anything", "at-all")
    assert not d.permits(parsed(d.of_actions(["deploy"], [("env", "staging")])), "deploy", "env", "prod")
