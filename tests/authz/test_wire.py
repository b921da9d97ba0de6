"""AuthZEN requests: what is read, what is refused and by which name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftergate.authz.errors import BadRequest
from aftergate.authz.strict_json import decode
from aftergate.authz.wire import parse_evaluation, parse_evaluations, parse_search

GOOD = {"subject": {"type": "user", "id": "ann"}, "action": {"name": "read"}, "resource": {"type": "doc", "id": "1"}}


def body(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b'"x"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"a":1}{"b":2}', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"a":"\xff"}', "not UTF-8"),
        (b'{"a":"\\ud800"}', "not JSON"),
        (b'{"a":"\\udc00 and more"}', "not JSON"),
        (b'{"a":"\\ud800\\u0041"}', "not JSON"),
        (b'{"a":NaN}', "not JSON"),
        (b'{"a":1e400}', "not JSON"),
        (b'{"a":9007199254740993}', "beyond double precision"),
        (b'{"a":[-9007199254740993]}', "beyond double precision"),
        (b'{"a":' + b"9" * 5000 + b"}", "not JSON|beyond"),
        (b'{"a":1,"a":2}', "given twice"),
        (b'{"a":1,"\\u0061":2}', "given twice"),
        (b'{"a" : 1, "a"\n:2}', "given twice"),
        (b'{"x":{"a":"\\":","a":2}}', "given twice"),
        (b'{"x":[{"b":1},{"a":1,"a":1}]}', "given twice"),
        (b"[" * 40 + b"]" * 40, "nested"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "nested"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
    ],
)
def test_what_is_not_i_json_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        parse_evaluation(text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":":\\":", "b":{"a":1}, "c" : [1.5, -0, true, null], "\\u00e9\\ud83d\\ude00": "\\u0000"}',
        b'{"a":":x","b":"\\":"}',
        b'{\n  "a": "b" ,\n  "c": {"a" :"d"}\n}',
        b"9007199254740991",
    ],
)
def test_what_is_i_json_is_read_as_json_reads_it(text: bytes) -> None:
    assert decode(text) == json.loads(text)


def test_a_body_longer_than_the_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(BadRequest, match="longer than 10 bytes"):
        decode(b"{" * 11, max_bytes=10)


KEYS = st.text(st.sampled_from('a":\\ {'), max_size=3)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(TREES, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_no_valid_text_is_refused_whatever_its_layout(tree: object, indent: object, tight: bool) -> None:
    separators = (",", ":") if tight else (" , ", " : ")
    assert decode(json.dumps(tree, indent=indent, separators=separators).encode()) == tree  # type: ignore[arg-type]


@given(st.lists(st.tuples(KEYS, TREES), min_size=1, max_size=3), KEYS, st.sampled_from([":", " :", "\n:", "\t: "]))
def test_a_name_given_twice_is_always_found(pairs: list, twice: str, colon: str) -> None:
    members = [*pairs, (twice, 1), (twice, {"deep": 1})]
    text = "{" + ",".join(f"{json.dumps(name)}{colon}{json.dumps(value)}" for name, value in members) + "}"
    with pytest.raises(BadRequest, match="twice"):
        decode(text.encode())


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"subject": None}, "subject"),
        ({"subject": "ann"}, "subject"),
        ({"subject": {"id": "ann"}}, "subject.type"),
        ({"subject": {"type": "user"}}, "subject.id"),
        ({"subject": {"type": "user", "id": None}}, "subject.id"),
        ({"subject": {"type": "user", "id": 7}}, "subject.id"),
        ({"subject": {"type": "user", "id": "a\x00b"}}, "subject.id"),
        ({"subject": {"type": "user", "id": "a" * 1025}}, "subject.id"),
        ({"subject": {"type": "user", "id": "ann", "properties": []}}, "subject.properties"),
        ({"action": None}, "action"),
        ({"action": {"name": 1}}, "action.name"),
        ({"action": {"name": "x", "properties": "y"}}, "action.properties"),
        ({"resource": None}, "resource"),
        ({"resource": {"type": "doc"}}, "resource.id"),
        ({"resource": {"type": True, "id": "1"}}, "resource.type"),
        ({"context": []}, "context"),
        ({"context": "x"}, "context"),
    ],
)
def test_a_missing_or_mistyped_member_is_named(changes: dict, where: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_evaluation(body(**changes))
    assert refused.value.where == where
    with pytest.raises(BadRequest):
        parse_evaluations(body(**changes))


def test_unknown_members_and_optional_nulls_are_ignored() -> None:
    read = parse_evaluation(body(future={"x": 1}, context=None, subject={"type": "user", "id": "ann", "properties": None, "new": 1}))
    assert read.subject.id == "ann"
    assert read.context == {}
    assert read.subject.properties == {}


def test_an_item_overrides_a_whole_entity_and_never_a_member_of_it() -> None:
    boxcar = parse_evaluations(
        body(evaluations=[{"resource": {"id": "2"}}, {"resource": {"type": "doc", "id": "2"}}, {}, "x", {"resource": None}])
    )
    assert [item.error is None for item in boxcar.items] == [False, True, True, False, True]
    assert boxcar.items[0].error.where == "resource.type"
    assert boxcar.items[1].request.resource.id == "2"
    assert boxcar.items[1].request.subject.id == "ann"
    assert not boxcar.single


@pytest.mark.parametrize("evaluations", [None, []])
def test_without_evaluations_it_is_a_single_one(evaluations: object) -> None:
    boxcar = parse_evaluations(body(evaluations=evaluations))
    assert boxcar.single
    assert boxcar.items[0].request.resource.id == "1"
    with pytest.raises(BadRequest, match="resource is missing"):
        parse_evaluations(body(evaluations=evaluations, resource=None))


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluations": {}},
        {"evaluations": [{}] * 1001},
        {"evaluations": [{}], "options": []},
        {"evaluations": [{}], "options": {"evaluations_semantic": "permit_all"}},
        {"evaluations": [{}], "options": {"evaluations_semantic": 1}},
    ],
)
def test_a_fault_of_the_payload_is_not_an_items(changes: dict) -> None:
    with pytest.raises(BadRequest):
        parse_evaluations(body(**changes))


def test_a_search_ignores_the_id_of_what_it_looks_for_and_needs_the_others() -> None:
    assert parse_search(body(), "subject").subject.id == ""
    assert parse_search(body(), "subject").identity == parse_search(body(subject={"type": "user", "id": "zoe"}), "subject").identity
    assert parse_search(body(action=None), "action").action is None
    for kind, changes in [
        ("subject", {"action": None}),
        ("subject", {"resource": {"type": "doc"}}),
        ("resource", {"subject": {"type": "user"}}),
        ("action", {"subject": {"type": "user"}}),
        ("subject", {"subject": {"id": "ann"}}),
        ("subject", {"page": {"limit": -1}}),
        ("subject", {"page": {"limit": True}}),
        ("subject", {"page": {"token": 1}}),
        ("subject", {"page": []}),
    ]:
        with pytest.raises(BadRequest):
            parse_search(body(**changes), kind)  # type: ignore[arg-type]


def test_everything_but_the_token_is_the_identity_of_a_search() -> None:
    first = parse_search(body(page={"limit": 2}), "subject").identity
    assert parse_search(body(page={"limit": 2, "token": "t"}), "subject").identity == first
    assert parse_search(body(page={"limit": 3}), "subject").identity != first
    assert parse_search(body(context={"a": 1}, page={"limit": 2}), "subject").identity != first
