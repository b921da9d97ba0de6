"""Records are sealed as canonical leaves; what is personal stays outside them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from making import T0, ordinary, salts

from aftergate.audit.errors import BadRecord
from aftergate.audit.jcs import canonical
from aftergate.audit.records import (
    RECORD_TYPES,
    Actor,
    ApprovalRef,
    Emitter,
    Party,
    PolicyRef,
    Record,
    Risk,
    TokenRef,
    commitment,
    commitments,
    read,
    seal,
)

FULL = Record(
    "approval.consumed",
    tenant="acme",
    actor=Actor("workload", "spiffe://acme/deployer", (Party("user", "anna@acme.example"), Party("agent", "helper"))),
    subject=Party("User", "anna@acme.example"),
    action="release_payment",
    resource=Party("payment", "p-17"),
    decision="permit",
    reasons=("pay-needs-approval",),
    obligations=({"id": "log"},),
    risk=Risk(12, "low", ("tok-refresh-reuse",)),
    policy=PolicyRef("pay", "3", "sha256:00"),
    request_id="r-1",
    evaluation_id="e-1",
    approval=ApprovalRef("a-1", "hash", "bea@acme.example", "cred", 2),
    token=TokenRef("keyed", "fam", "thumb", 1_790_000_000, 1_790_000_300),
    emitter=Emitter("srv-1", 7),
    transaction="t-1",
    task="task-1",
    detail={"note": "x"},
    personal={"address": "192.0.2.1"},
    evidence={"form": "policy"},
    request={"context": {"ip": "192.0.2.1"}},
)


def test_a_leaf_is_canonical_and_reads_back() -> None:
    sealed = seal(FULL, 41, T0, salts())
    leaf = read(sealed.leaf)
    assert (leaf.seq, leaf.ts_ms, leaf.type) == (41, T0, "approval.consumed")
    assert canonical(json.loads(sealed.leaf)) == sealed.leaf
    assert leaf.raw["risk"] == {"score": 12, "band": "low", "signals": ["tok-refresh-reuse"]}
    assert leaf.raw["emitter"] == {"id": "srv-1", "n": 7}


def test_nothing_personal_stands_in_the_leaf() -> None:
    sealed = seal(FULL, 1, T0, salts())
    for secret in (b"anna", b"bea@", b"192.0.2.1"):
        assert secret not in sealed.leaf
    assert {(k.field, k.value) for k in sealed.kept} == {
        ("actor.act.0.id", "anna@acme.example"),
        ("subject.id", "anna@acme.example"),
        ("approval.approver", "bea@acme.example"),
        ("personal.address", "192.0.2.1"),
    }
    assert [a.kind for a in sealed.attachments] == ["evidence", "request"]


def test_machines_and_resources_keep_their_ids() -> None:
    raw = read(seal(FULL, 1, T0, salts()).leaf).raw
    assert raw["actor"]["id"] == "spiffe://acme/deployer"
    assert raw["actor"]["act"][1] == {"type": "agent", "id": "helper"}
    assert raw["resource"] == {"type": "payment", "id": "p-17"}
    person = Record("decision", resource=Party("Patient", "p-9"))
    assert b"p-9" not in seal(person, 1, T0, salts()).leaf


def test_each_commitment_opens_with_its_salt_and_no_other() -> None:
    sealed = seal(FULL, 1, T0, salts())
    due = commitments(read(sealed.leaf).raw)
    beside = {k.field: (k.salt, k.value.encode()) for k in sealed.kept} | {a.kind: (a.salt, a.body) for a in sealed.attachments}
    assert due.keys() == beside.keys()
    for field, (salt, value) in beside.items():
        assert commitment(salt, field, value) == due[field]
        assert commitment(salt, field, value + b" ") != due[field]
        assert commitment(bytes(16), field, value) != due[field]
        assert commitment(salt, field + "x", value) != due[field]


def test_equal_values_leave_unequal_commitments() -> None:
    due = commitments(read(seal(FULL, 1, T0, salts()).leaf).raw)
    assert due["subject.id"] != due["actor.act.0.id"]


def test_a_token_handed_over_as_an_id_is_cut_to_its_hash() -> None:
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnY2FuYXJ5"
    record = Record("decision", resource=Party("thing", token), detail={token: [f"Bearer {token}"]}, request={"x": token})
    sealed = seal(record, 1, T0, salts())
    for part in (sealed.leaf, sealed.attachments[0].body):
        assert b"eyJ" not in part
        assert b"token:sha256:" in part


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (Record("decision.made"), "unknown record type"),
        (Record("decision", decision="maybe"), "unknown decision"),
        (Record("decision", detail={"n": 2**60}), "beyond"),
        (Record("decision", detail={"n": float("nan")}), "finite"),
        (Record("decision", action="\ud800"), "surrogate"),
        (Record("decision", subject=Party("user", "\ud800")), "surrogate"),
        (Record("decision", detail={"long": "x" * 65_536}), "bytes"),
        (Record("decision", detail={"x": object()}), "JSON"),
        (Record("decision", request={"x": {1}}), "JSON"),
    ],
)
def test_what_the_log_cannot_hold_is_refused(record: Record, why: str) -> None:
    with pytest.raises(BadRecord, match=why):
        seal(record, 1, T0, salts())


def change(**members: Any) -> bytes:
    raw = json.loads(seal(ordinary(1), 1, T0, salts()).leaf) | members
    return canonical({k: v for k, v in raw.items() if v is not None})


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"[]",
        b"7",
        b"not json",
        change(v=2),
        change(seq="1"),
        change(seq=True),
        change(seq=None),
        change(ts="yesterday"),
        change(ts=5),
        change(type="other"),
        change() + b" ",
    ],
)
def test_what_is_no_record_does_not_read(data: bytes) -> None:
    with pytest.raises(BadRecord):
        read(data)


def test_every_type_can_be_sealed() -> None:
    for kind in RECORD_TYPES:
        assert read(seal(Record(kind), 0, T0, salts()).leaf).type == kind
