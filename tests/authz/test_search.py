"""Search: every result evaluates to true, no known candidate that does is left out, and a page token is good for its own search only."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftergate.authz import cedar, entities
from aftergate.authz.decide import Snapshot, decide
from aftergate.authz.errors import BadRequest
from aftergate.authz.facts import Facts, TrustFacts
from aftergate.authz.paging import make_token, read_token
from aftergate.authz.search import MAX_LIMIT, find, known_actions, request_for
from aftergate.authz.wire import EvaluationRequest, SearchRequest, parse_search

NOW = 1_767_614_400_000
POLICIES = b"""
@id("teams") permit (principal in team::"ops", action in Action::"all", resource);
@id("own") permit (principal is user, action == Action::"edit", resource is doc) when { resource.owner == principal };
@id("guests") permit (principal == user::"guest", action == Action::"read", resource == doc::"open");
@id("open") permit (principal, action == Action::"read", resource is doc) when { resource.state == "open" };
@id("risky") forbid (principal, action, resource) when { context.live.trust.lowest < 50 };
@id("secret") @advice("approval") @approvers("x") forbid (principal, action, resource == doc::"d3") unless { context.live has approval };
@id("typo") permit (principal, action == Action::"look", resource) when { resource.sate == "open" };
"""
STORE = [
    *(
        {"uid": {"type": "user", "id": f"u{at}"}, "attrs": {}, "parents": [{"type": "team", "id": "core"}] if at % 3 == 0 else []}
        for at in range(12)
    ),
    {"uid": {"type": "team", "id": "core"}, "attrs": {}, "parents": [{"type": "team", "id": "ops"}]},
    *(
        {
            "uid": {"type": "doc", "id": f"d{at}"},
            "attrs": {"owner": {"__entity": {"type": "user", "id": f"u{at}"}}, "state": "open" if at % 2 else "shut"},
            "parents": [],
        }
        for at in range(8)
    ),
    {"uid": {"type": "Action", "id": "read"}, "attrs": {}, "parents": [{"type": "Action", "id": "all"}]},
    {"uid": {"type": "Action", "id": "all"}, "attrs": {}, "parents": []},
]
SNAPSHOT = Snapshot(cedar.parse({"p.cedar": POLICIES}), entities.load(json.dumps(STORE).encode()))


def facts_of(request: EvaluationRequest) -> Facts:
    return Facts(NOW, TrustFacts(20 if request.subject.id in {"u3", "u5"} else 90))


def asked(kind: str, **changes: object) -> SearchRequest:
    body = {"subject": {"type": "user", "id": "u0"}, "action": {"name": "read"}, "resource": {"type": "doc", "id": "d1"}, **changes}
    return parse_search(json.dumps(body).encode(), kind)  # type: ignore[arg-type]


SEARCHES = st.builds(
    asked,
    st.sampled_from(["subject", "resource", "action"]),
    subject=st.builds(lambda id_: {"type": "user", "id": id_}, st.sampled_from(["u0", "u1", "u3", "guest", "nobody"])),
    action=st.builds(lambda name: {"name": name}, st.sampled_from(["read", "edit", "look", "fly"])),
    resource=st.builds(
        lambda id_, state: {"type": "doc", "id": id_, **({"properties": {"state": state}} if state else {})},
        st.sampled_from(["d0", "d1", "d3", "open", "unknown"]),
        st.sampled_from([None, "open", "shut"]),
    ),
    page=st.builds(lambda limit: {"limit": limit}, st.integers(1, 30)),
)


@settings(max_examples=120)
@given(SEARCHES)
def test_results_evaluate_to_true_and_are_all_that_do(search: SearchRequest) -> None:
    found: list[str] = []
    after = None
    for _ in range(40):
        page = find(search, SNAPSHOT, facts_of, after, budget=7)
        assert len(page.results) <= search.page.limit
        found += page.results
        after = page.after
        if after is None:
            break
    assert after is None
    assert len(set(found)) == len(found)
    for name in found:
        request = request_for(search, name)
        assert decide(request, SNAPSHOT, facts_of(request)).allowed
    if search.kind == "subject" and (search.resource.properties or ("doc", search.resource.id) in SNAPSHOT.entities.index):
        allowed = {
            id_
            for id_ in [*SNAPSHOT.entities.ids["user"], "guest"]
            if decide(request_for(search, id_), SNAPSHOT, facts_of(request_for(search, id_))).allowed
        }
        assert set(found) == allowed


def test_groups_are_searched_through() -> None:
    assert find(asked("subject", action={"name": "all"}), SNAPSHOT, facts_of, None).results == ("u0", "u6", "u9")
    assert known_actions(SNAPSHOT) == ["edit", "look", "read"]


def test_what_is_unknown_finds_nothing() -> None:
    assert find(asked("subject", subject={"type": "robot"}), SNAPSHOT, facts_of, None).results == ()
    assert find(asked("subject", resource={"type": "doc", "id": "none"}), SNAPSHOT, facts_of, None).results == ()
    assert find(asked("resource", subject={"type": "user", "id": "none"}), SNAPSHOT, facts_of, None).results == ()
    assert find(asked("action", resource={"type": "x-y", "id": "none"}), SNAPSHOT, facts_of, None).results == ()
    assert find(asked("subject", action={"name": "none"}), SNAPSHOT, facts_of, None).results == ()


def test_live_trust_and_advice_count_in_a_search() -> None:
    assert "u3" not in find(asked("subject"), SNAPSHOT, facts_of, None).results
    assert "d3" not in find(asked("resource"), SNAPSHOT, facts_of, None).results
    unknown = find(asked("subject"), SNAPSHOT, lambda _: Facts(NOW, None), None)
    assert unknown.results == ()


def test_a_page_costs_at_most_its_budget_and_says_where_to_go_on() -> None:
    page = find(asked("subject", action={"name": "fly"}), SNAPSHOT, facts_of, None, budget=5)
    assert (page.results, page.evaluated) == ((), 5)
    assert page.after is not None
    assert find(asked("subject", page={"limit": 0}), SNAPSHOT, facts_of, None).after == ""
    assert find(asked("subject", page={"limit": 10**9}), SNAPSHOT, facts_of, None).after is None
    assert MAX_LIMIT >= 100


def test_a_token_is_good_for_the_same_search_by_the_same_caller_only() -> None:
    token = make_token(b"k" * 32, "caller", b"search", "u/ü 3")
    assert read_token(b"k" * 32, "caller", b"search", token) == "u/ü 3"
    for key, caller, search, given_ in [
        (b"x" * 32, "caller", b"search", token),
        (b"k" * 32, "other", b"search", token),
        (b"k" * 32, "caller", b"other", token),
        (b"k" * 32, "callersearch", b"", token),
        (b"k" * 32, "caller", b"search", token[:-2]),
        (b"k" * 32, "caller", b"search", "A" + token[1:] if token[0] != "A" else "B" + token[1:]),
        (b"k" * 32, "caller", b"search", token + "A"),
        (b"k" * 32, "caller", b"search", ""),
        (b"k" * 32, "caller", b"search", "é"),
        (b"k" * 32, "caller", b"search", "!!!!"),
    ]:
        with pytest.raises(BadRequest):
            read_token(key, caller, search, given_)
