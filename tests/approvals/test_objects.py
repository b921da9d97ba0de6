"""The approval object: whatever it binds changes its challenge."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from aftergate.audit import jcs
from aftergate.authz.advice import Advice
from aftergate.authz.transactions import canonical, objects
from aftergate.authz.transactions.objects import Asked, Executor, Item, Need, Risk

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


def item(n: int = 1, **properties: Any) -> Item:
    held = {"amount": round(10.1 * n, 2), "currency": "EUR", "payee": "ACME", **properties}
    return Item({"type": "payment", "id": f"p-{n}", "properties": held}, {"name": "release"}, f"apr_{n}", f"ev-{n}")


def base(items: list[Item] | None = None, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "request_id": "arq_1",
        "subject": {"type": "user", "id": "alice"},
        "on_behalf_of": ["carol"],
        "items": items or [item()],
        "batch": bool(items),
        "context": {"transaction": {"reference": "inv-7"}},
        "callers": ["key-1"],
        "executor": Executor(jkt="A" * 43),
        "policy_digest": "sha256:00",
        "asked": Asked((Need(("finance",)),), policies=("pay",)),
        "expires_ms": 1_700_000_000_000,
        "until_ms": 1_700_000_500_000,
        "rp_id": "localhost",
        "reason": "because",
    }
    return objects.base_object(**{**given, **changes})


def mine(made: dict[str, Any]) -> bytes:
    return objects.encoded(objects.for_approver(made, approver="bob", nonce=b"n" * 16, risk=Risk(7, ("f-1",), ("slug",))))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [found for name, inner in value.items() for found in leaves(inner, (*path, name))]
    if isinstance(value, list):
        return [found for place, inner in enumerate(value) for found in leaves(inner, (*path, place))] or [path]
    return [path]


def test_every_field_of_the_object_is_in_its_challenge() -> None:
    raw = mine(base([item(1), item(2)]))
    held = json.loads(raw)
    paths = leaves(held)
    assert len(paths) > 35
    for path in paths:
        changed = copy.deepcopy(held)
        inside = changed
        for step in path[:-1]:
            inside = inside[step]
        old = inside[path[-1]]
        inside[path[-1]] = (
            (not old)
            if isinstance(old, bool)
            else old + 1
            if isinstance(old, (int, float))
            else ["x"]
            if isinstance(old, list)
            else old + "x"
        )
        assert objects.challenge(objects.encoded(changed)) != objects.challenge(raw), path


def test_the_challenge_is_the_digest_that_the_format_says() -> None:
    raw = mine(base())
    assert objects.challenge(raw) == hashlib.sha256(b"tx-approval/v1\n" + raw).digest()
    assert jcs.canonical(json.loads(raw)) == raw


def test_what_an_auditor_must_find_in_it_is_there() -> None:
    held = json.loads(mine(base()))
    assert {
        "subject",
        "on_behalf_of",
        "action",
        "resource",
        "context",
        "approver",
        "nonce",
        "evaluation_id",
        "policy",
        "risk",
        "expires_at",
    } <= held.keys()
    assert {"rp_id", "executor", "quorum", "callers", "approval_id", "digest", "reason", "usable_until"} <= held.keys()


@given(JSON)
def test_canonical_bytes_are_those_of_rfc_8785(value: Any) -> None:
    assert canonical.canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("value", [2**60, float("nan"), float("inf"), "\ud800", {1: 2}, object()])
def test_what_json_cannot_carry_has_no_digest(value: Any) -> None:
    with pytest.raises(canonical.NotCanonical):
        canonical.canonical(value)


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=40))
def test_the_root_of_a_batch_is_that_of_rfc_6962(data: list[bytes]) -> None:
    def root(part: list[bytes]) -> bytes:  # section 2.1, as it is written there
        if len(part) == 1:
            return hashlib.sha256(b"\x00" + part[0]).digest()
        at = 1 << (len(part) - 1).bit_length() - 1
        return hashlib.sha256(b"\x01" + root(part[:at]) + root(part[at:])).digest()

    assert canonical.merkle_root(data) == root(data)


def test_an_empty_batch_has_no_root() -> None:
    with pytest.raises(ValueError, match="at least one"):
        canonical.merkle_root([])


@given(JSON, JSON)
def test_two_transactions_have_one_digest_only_if_they_are_equal(one: Any, other: Any) -> None:
    made = [
        canonical.transaction_digest({"type": "user", "id": "a"}, {"type": "t", "id": "1"}, {"name": "x"}, {"transaction": v})
        for v in (one, other)
    ]
    assert (made[0] == made[1]) == (jcs.canonical(one) == jcs.canonical(other))


def test_the_actor_may_move_and_stays_out_of_the_digest() -> None:
    plain = {"type": "user", "id": "a", "properties": {"x": 1}}
    acting = {"type": "user", "id": "a", "properties": {"x": 1, "act": {"sub": "agent"}}}
    rest = ({"type": "t", "id": "1"}, {"name": "x"}, {})
    assert canonical.transaction_digest(plain, *rest) == canonical.transaction_digest(acting, *rest)


def test_totals_are_exact_and_one_for_each_currency() -> None:
    items = [{"resource": {"properties": {"amount": 0.1, "currency": "EUR"}}}] * 3 + [
        {"resource": {"properties": {"amount": 5, "currency": "USD", "urgent": True}}}
    ]
    assert objects.totals(items) == [
        {"member": "amount", "unit": "EUR", "sum": "0.3"},
        {"member": "amount", "unit": "USD", "sum": "5"},
    ]


def test_a_part_of_a_batch_shows_its_own_total() -> None:
    made = objects.for_approver(base([item(1), item(2), item(3)]), approver="bob", nonce=b"n" * 16, risk=Risk(0), leaves=[2, 0])
    assert made["approved_items"] == [0, 2]
    assert made["approved_totals"] == [{"member": "amount", "unit": "EUR", "sum": "40.4"}]


@pytest.mark.parametrize("leaves_", [[], [3], [-1]])
def test_items_that_are_not_of_the_batch_are_refused(leaves_: list[int]) -> None:
    with pytest.raises(ValueError, match="not of this batch"):
        objects.for_approver(base([item(1), item(2), item(3)]), approver="bob", nonce=b"n" * 16, risk=Risk(0), leaves=leaves_)


def test_a_short_nonce_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        objects.for_approver(base(), approver="bob", nonce=b"n" * 15, risk=Risk(0))


def advice(policy: str, **more: Any) -> Advice:
    return Advice("approval", policy, **{"approvers": ("finance",), **more})


def test_several_forbids_ask_for_all_of_what_each_asks() -> None:
    made = objects.asked_of([advice("a", quorum=2, ttl_s=300), advice("b", approvers=("legal",), device_bound=True, batch=True)])
    assert made is not None
    assert set(made.needs) == {Need(("finance",), 2), Need(("legal",), 1)}
    assert (made.ttl_s, made.device_bound, made.batch, made.policies) == (300, True, False, ("a", "b"))


@pytest.mark.parametrize(
    ("given_", "why"),
    [
        ([], "nothing is asked"),
        ([advice("a"), Advice("step-up", "b", acr_values=("x",))], "a login is asked for too"),
        ([advice("a"), advice("b", approvers=(), machine="gate")], "people for one, a policy for the other"),
        ([advice("a", approvers=())], "nobody is named"),
    ],
)
def test_nothing_is_offered_that_no_approval_could_lift(given_: list[Advice], why: str) -> None:
    assert objects.asked_of(given_) is None, why


def test_glass_breaks_only_where_every_forbid_lets_it() -> None:
    both = objects.asked_of([advice("a", break_glass=("oncall",)), advice("b", break_glass=("sre",))])
    one = objects.asked_of([advice("a", break_glass=("oncall",)), advice("b")])
    assert both is not None
    assert both.break_glass == (("oncall",), ("sre",))
    assert one is not None
    assert one.break_glass == ()


@pytest.mark.parametrize("text", ["2026-01-01T00:00:00", "yesterday", "2026-13-01T00:00:00Z"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        objects.from_rfc3339(text)


@given(st.integers(0, 4_000_000_000_000))
def test_times_come_back(at_ms: int) -> None:
    assert objects.from_rfc3339(objects.rfc3339(at_ms)) == at_ms


@pytest.mark.parametrize("text", ["YQ==", "YQ=", "Y Q", "YR", "Y", "Y+Q", "Y/Q", "é"])
def test_base64url_has_one_form(text: str) -> None:
    with pytest.raises(ValueError):
        canonical.unb64url(text)


def test_the_documented_example_is_a_true_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "formats" / "approval-object.md").read_text()
    example = json.loads(text.split("```json\n", 1)[1].split("```", 1)[0])
    digest = canonical.transaction_digest(example["subject"], example["resource"], example["action"], example["context"])
    assert canonical.b64url(digest) == example["digest"]
    made = json.loads(mine(base()))
    assert example.keys() | {"usable_until"} == made.keys()
