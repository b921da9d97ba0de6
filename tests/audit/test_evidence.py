"""Approvals are verified again from their evidence: each line of the WebAuthn verification is a refusal here, and so is each bound field."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from making import (
    ORIGIN,
    T0,
    Authenticator,
    Log,
    approval_object,
    b64url,
    batch_challenge_of,
    challenge_of,
    consumed,
    grant_record,
    granted,
    registered,
    salts,
)

from aftergate.audit.bundle import Bundle, write_folder
from aftergate.audit.evidence import Granted, Refused, verify
from aftergate.audit.findings import Report
from aftergate.audit.jcs import parse
from aftergate.audit.merkle import Frontier, leaf_hash
from aftergate.audit.notes import Signer
from aftergate.audit.records import Actor, ApprovalRef, Party, Record, TokenRef, seal
from aftergate.audit.verify import verify_bundle

OBJECT = approval_object()
HASH = b64url(challenge_of(OBJECT))


def proof(key: Authenticator | None = None, o: dict[str, Any] = OBJECT, **signing: Any) -> dict[str, Any]:
    return {"form": "webauthn", "object": o} | (key or Authenticator()).sign(challenge_of(o), **signing)


def refusal(evidence: dict[str, Any], tx_hash: str = HASH, **options: Any) -> str:
    answer = verify(evidence, tx_hash, **options)
    assert isinstance(answer, Refused)
    assert answer.why
    return answer.code


def test_a_real_assertion_holds() -> None:
    answer = verify(proof(), HASH)
    assert isinstance(answer, Granted)
    assert (answer.approver, answer.subject, answer.approvals, answer.needed) == ("bea", "anna", {"ap-1"}, 1)
    assert answer.key_sha256 == Authenticator().public_sha256


def bound(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all leaves of the approval object."""
    if isinstance(value, dict) and value:
        return [p for name, inner in value.items() for p in bound(inner, (*path, name))]
    if isinstance(value, list) and value:
        return [p for place, inner in enumerate(value) for p in bound(inner, (*path, place))]
    return [path]


@pytest.mark.parametrize("path", bound(OBJECT), ids=lambda p: ".".join(map(str, p)))
def test_any_changed_member_of_the_object_is_refused(path: tuple[Any, ...]) -> None:
    changed = copy.deepcopy(OBJECT)
    at: Any = changed
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = "other"
    evidence = proof() | {"object": changed}
    assert refusal(evidence) == "object-digest"
    # And with a record rewritten to match, the signature no longer does.
    code = refusal(evidence, b64url(challenge_of(changed)))
    assert code in {"challenge", "evidence-malformed"}


@pytest.mark.parametrize(
    ("signing", "code"),
    [
        ({"client": {"type": "webauthn.create"}}, "client-data-type"),
        ({"client": {"type": "payment.get"}}, "client-data-type"),
        ({"client": {"challenge": b64url(b"x" * 32)}}, "challenge"),
        ({"client": {"challenge": HASH + "="}}, "challenge"),
        ({"client": {"challenge": None}}, "challenge"),
        ({"client": {"origin": "https://evil.example"}}, "origin"),
        ({"client": {"crossOrigin": True}}, "cross-origin"),
        ({"client": {"crossOrigin": "no"}}, "cross-origin"),
        ({"client": {"topOrigin": "https://pay.example"}}, "cross-origin"),
        ({"rp_id": "evil.example"}, "rp-id"),
        ({"flags": 0x04}, "user-presence"),
        ({"flags": 0x01}, "user-verification"),
        ({"flags": 0x15}, "backup-flags"),
    ],
)
def test_an_assertion_made_for_something_else_is_refused(signing: dict[str, Any], code: str) -> None:
    assert refusal(proof(**signing)) == code


def test_backed_up_credentials_hold() -> None:
    assert isinstance(verify(proof(flags=0x1D), HASH), Granted)


@pytest.mark.parametrize("part", ["client_data_json", "authenticator_data", "signature", "public_key"])
def test_every_changed_bit_of_the_assertion_is_refused(part: str) -> None:
    evidence = proof()
    from aftergate.audit.evidence import unb64url

    data = unb64url(evidence[part])
    assert data
    for at in range(len(data)):
        changed = bytes(b ^ 1 if i == at else b for i, b in enumerate(data))
        assert isinstance(verify(evidence | {part: b64url(changed)}, HASH), Refused), at


@pytest.mark.parametrize("part", ["form", "object", "client_data_json", "authenticator_data", "signature", "public_key", "rp_id", "origin"])
@pytest.mark.parametrize("value", [None, 7, "", "%%%", [], {}])
def test_a_missing_or_odd_part_is_refused(part: str, value: Any) -> None:
    assert isinstance(verify(proof() | {part: value}, HASH), Refused)


def test_another_sites_or_key_is_refused() -> None:
    evidence = proof()
    assert refusal(evidence | {"origin": "https://evil.example"}) == "origin"
    assert refusal(evidence | {"rp_id": "evil.example"}) == "rp-id"
    assert refusal(evidence, origins=["https://other.example"]) == "origin"
    assert refusal(evidence, rp_ids=["other.example"]) == "rp-id"
    assert isinstance(verify(evidence, HASH, rp_ids=["pay.example"], origins=["https://pay.example"]), Granted)
    assert refusal(evidence | {"public_key": b64url(Authenticator(2).public)}) == "signature"


def test_an_assertion_for_one_transaction_is_refused_for_another() -> None:
    other = approval_object(nonce=2)
    assert refusal(proof() | {"object": other}, b64url(challenge_of(other))) == "challenge"


@pytest.mark.parametrize(
    "change",
    [{"nonce": "AAAA"}, {"nonce": None}, {"approver": ""}, {"quorum": {"needed": 0}}, {"quorum": {}}, {"quorum": {"needed": True}}, {"expires_at": "soon"}, {"usable_s": None}, {"subject": {}}, {"resource": {"type": "x"}}],
)  # fmt: skip
def test_an_object_that_binds_too_little_is_refused(change: dict[str, Any]) -> None:
    o = approval_object() | change
    assert refusal(proof(o=o), b64url(challenge_of(o))) == "evidence-malformed"


def test_a_credential_that_can_be_copied_is_refused_where_a_device_bound_one_was_asked_for() -> None:
    o = approval_object(quorum=1)
    o["quorum"]["device_bound"] = True
    assert isinstance(verify(proof(o=o), b64url(challenge_of(o))), Granted)
    assert refusal(proof(o=o, flags=0x0D), b64url(challenge_of(o))) == "device-bound"


def test_numbers_beyond_2_to_the_53_are_doubles_in_the_object_too() -> None:
    o = approval_object(resource={"type": "payment", "id": "p-17", "properties": {"amount": 1e20}})
    record = seal(granted(o, Authenticator()), 0, T0, salts())
    kept = parse(next(a.body for a in record.attachments))
    assert isinstance(verify(kept, b64url(challenge_of(o))), Granted)
    reread = approval_object(resource={"type": "payment", "id": "p-17", "properties": {"amount": 10**20}})
    assert seal(grant_record(o, {"form": "policy", "object": reread}), 0, T0, salts())


def test_an_unaccepted_algorithm_is_refused() -> None:
    key = Authenticator()
    es384 = key.public.replace(b"\x03\x26", b"\x03\x38\x22", 1)
    assert refusal(proof(key) | {"public_key": b64url(es384)}) == "algorithm"


# One assertion for a declared batch of several requests


def gathered(objects: list[dict[str, Any]], **change: Any) -> dict[str, Any]:
    digests = [challenge_of(o) for o in objects]
    root = Frontier.of(leaf_hash(d) for d in digests).root()
    return {
        "v": "tx-approval-batch/v1",
        "approver": "bea",
        "nonce": b64url(b"n" * 16),
        "rp_id": "pay.example",
        "count": len(objects),
        "root": b64url(root),
        "objects": [b64url(d) for d in digests],
    } | change


def test_one_signature_over_several_requests_holds_for_each_of_them_and_no_other() -> None:
    objects = [approval_object(request_id=f"req-{n}", approval_id=f"ap-{n}", nonce=n) for n in range(3)]
    batch = gathered(objects)
    signed = Authenticator().sign(batch_challenge_of(batch))
    for o in objects:
        answer = verify({"form": "webauthn", "object": o, "gathered": batch} | signed, b64url(challenge_of(o)))
        assert isinstance(answer, Granted)
    stranger = approval_object(nonce=9)
    assert refusal({"form": "webauthn", "object": stranger, "gathered": batch} | signed, b64url(challenge_of(stranger))) == "batch-digest"
    alone = {"form": "webauthn", "object": objects[0]} | signed
    assert refusal(alone, b64url(challenge_of(objects[0]))) == "challenge"


@pytest.mark.parametrize(
    "change", [{"count": 4}, {"root": b64url(b"r" * 32)}, {"approver": "carl"}, {"rp_id": "x"}, {"objects": []}, {"objects": None}]
)
def test_a_batch_that_does_not_fit_itself_is_refused(change: dict[str, Any]) -> None:
    objects = [approval_object(nonce=n) for n in range(3)]
    batch = gathered(objects) | change
    signed = Authenticator().sign(batch_challenge_of(batch))
    assert (
        refusal({"form": "webauthn", "object": objects[0], "gathered": batch} | signed, b64url(challenge_of(objects[0]))) == "batch-digest"
    )


# Whole logs


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Report]:
    def run(*records: Record | tuple[Record, int], **options: Any) -> Report:
        log = Log(Signer(ORIGIN, b"\x07" * 32))
        for place, each in enumerate(records):
            record, at_s = each if isinstance(each, tuple) else (each, place)
            log.add(record, T0 + at_s * 1000)
        log.sign()
        folder = tmp_path / f"b{len(list(tmp_path.iterdir()))}"
        write_folder(folder, log.export())
        with Bundle(folder) as bundle:
            return verify_bundle(bundle, **options)

    return run


def told(report: Report) -> list[tuple[int, str, int | None]]:
    return [(p.step, p.code, p.seq) for p in report.problems if p.severity == "failure"]


def test_a_quorum_of_two_that_was_used_once_passes(check: Callable[..., Report]) -> None:
    a, b = Authenticator(1), Authenticator(2)
    report = check(
        registered(a),
        registered(b),
        granted(approval_object("bea", quorum=2, nonce=1), a),
        granted(approval_object("carl", quorum=2, nonce=2), b),
        consumed(token=TokenRef(jti_hash="h", cnf="thumb-1")),
    )
    assert report.passed, report.problems
    assert [p.code for p in report.problems] == ["keys-not-pinned"]


def test_one_yes_of_two_is_too_little(check: Callable[..., Report]) -> None:
    a = Authenticator(1)
    assert told(check(registered(a), granted(approval_object(quorum=2), a), consumed())) == [(9, "quorum", 2)]


def test_the_same_person_or_the_same_key_counts_once(check: Callable[..., Report]) -> None:
    a, b = Authenticator(1), Authenticator(2)
    twice = check(granted(approval_object("bea", quorum=2), a), granted(approval_object("Bea", quorum=2, nonce=2), b), consumed())
    assert told(twice) == [(9, "quorum", 2)]
    shared = check(granted(approval_object("bea", quorum=2), a), granted(approval_object("carl", quorum=2, nonce=2), a), consumed())
    assert told(shared) == [(9, "quorum", 2)]


def test_approvers_of_different_things_do_not_add_up(check: Callable[..., Report]) -> None:
    a, b = Authenticator(1), Authenticator(2)
    other = approval_object("carl", quorum=2, nonce=2, resource={"type": "payment", "id": "p-18"})
    assert told(check(granted(approval_object("bea", quorum=2), a), granted(other, b), consumed())) == [(9, "not-the-same", 2)]


def test_a_use_without_an_approval_before_it_is_found(check: Callable[..., Report]) -> None:
    a = Authenticator(1)
    assert told(check(consumed(), granted(approval_object(), a))) == [(9, "no-approval", 0)]
    assert told(check(granted(approval_object(), a), consumed("ap-2"))) == [(9, "no-approval", 1)]


def test_a_second_use_is_found(check: Callable[..., Report]) -> None:
    assert told(check(granted(approval_object(), Authenticator()), consumed(), consumed())) == [(9, "used-twice", 2)]


def test_a_late_use_is_found(check: Callable[..., Report]) -> None:
    yes = granted(approval_object(usable_s=60), Authenticator())
    assert told(check((yes, 0), (consumed(), 60))) == []
    assert told(check((yes, 0), (consumed(), 90))) == [(9, "used-late", 1)]
    until = granted(approval_object(usable_until="2026-09-21T14:13:30Z"), Authenticator())
    assert told(check((until, 0), (consumed(), 300))) == [(9, "used-late", 1)]


def test_a_late_approval_is_found(check: Callable[..., Report]) -> None:
    assert (8, "expired", 0) in told(check((granted(approval_object(), Authenticator()), 3700), (consumed(), 3701)))


@pytest.mark.parametrize(
    "void",
    [
        Record("approval.voided", approval=ApprovalRef("ap-1"), transaction="req-1"),
        Record("approval.voided", approval=ApprovalRef("req-1"), transaction="req-1"),
        Record("approval.voided", transaction="req-1"),
        Record("approval.voided", transaction="req-1", detail={"approvals": ["ap-1"]}),
    ],
)
def test_a_use_after_it_was_made_void_is_found(check: Callable[..., Report], void: Record) -> None:
    assert told(check(granted(approval_object(), Authenticator()), void, consumed())) == [(9, "used-after-void", 2)]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"action": "delete_payment"}, "another-thing"),
        ({"resource": Party("payment", "p-18")}, "another-thing"),
        ({"resource": Party("invoice", "p-17")}, "another-thing"),
        ({"subject": Party("user", "mallory")}, "another-thing"),
        ({"subject": Party("robot", "anna")}, "another-thing"),
        ({"token": TokenRef(jti_hash="h", cnf="thumb-2")}, "executor"),
        ({"detail": {"executor": {"jkt": "thumb-2"}}}, "executor"),
    ],
)
def test_an_approval_for_one_thing_used_for_another_is_found(check: Callable[..., Report], change: dict[str, Any], code: str) -> None:
    assert told(check(granted(approval_object(), Authenticator()), consumed(**change))) == [(9, code, 1)]


def test_self_approval_is_found(check: Callable[..., Report]) -> None:
    assert (8, "self-approval", 0) in told(check(granted(approval_object("Anna"), Authenticator())))
    assert (8, "self-approval", 0) in told(check(granted(approval_object("bea", on_behalf_of=["bea"]), Authenticator())))


def test_a_record_that_names_another_approver_or_credential_is_found(check: Callable[..., Report]) -> None:
    key, o = Authenticator(), approval_object()
    evidence = proof(key, o)
    record = grant_record(o, evidence, key.credential_id)
    from msgspec.structs import replace

    assert record.approval is not None
    named = replace(record, approval=replace(record.approval, approver="carl"))
    assert told(check(named)) == [(8, "approver", 0)]
    other = replace(record, approval=replace(record.approval, credential_id="x"))
    assert told(check(other)) == [(8, "credential", 0)]
    rehashed = replace(record, approval=replace(record.approval, tx_hash=b64url(hashlib.sha256(b"x").digest())))
    assert told(check(rehashed)) == [(8, "object-digest", 0)]


def test_the_key_must_be_the_one_registered_and_not_removed(check: Callable[..., Report]) -> None:
    key, other = Authenticator(1), Authenticator(2)
    other.credential_id = key.credential_id
    assert told(check(registered(other), granted(approval_object(), key))) == [(8, "credential-key", 1)]
    for named in ({"credential_id": key.credential_id}, {"authenticator": "auth-1"}):
        gone = Record("admin.authenticator.removed", detail=named)
        assert told(check(registered(key), gone, granted(approval_object(), key))) == [(8, "credential-removed", 2)]
    report = check(granted(approval_object(), key))
    assert report.passed
    assert "credential-unregistered" in {p.code for p in report.problems if p.severity == "warning"}


def test_a_counter_that_does_not_rise_is_found(check: Callable[..., Report]) -> None:
    key = Authenticator()
    first = granted(approval_object(), key)
    second = granted(approval_object(request_id="req-2", approval_id="ap-2", nonce=2), key, rises=False)
    assert told(check(first, second)) == [(8, "sign-count", 1)]
    key.count = -1
    zeros = [granted(approval_object(request_id=f"r{n}", approval_id=f"a{n}", nonce=n), key, rises=n == 0) for n in range(3)]
    assert told(check(*zeros)) == []


def test_a_yes_without_evidence_is_found_and_an_erased_one_is_told(check: Callable[..., Report], tmp_path: Path) -> None:
    assert told(check(grant_record(OBJECT, None))) == [(8, "no-evidence", 0)]
    log = Log(Signer(ORIGIN, b"\x07" * 32))
    log.add(granted(approval_object(), Authenticator()))
    log.add(consumed())
    log.add(Record("erasure", detail={"what": "evidence", "count": 1}))
    log.beside = []
    log.sign()
    write_folder(tmp_path / "erased", log.export())
    with Bundle(tmp_path / "erased") as bundle:
        report = verify_bundle(bundle)
    assert report.passed
    assert [(p.code, p.seq) for p in report.problems if p.code == "evidence-erased"] == [("evidence-erased", 0), ("evidence-erased", 1)]


def test_a_policys_approval_and_broken_glass_hold_and_are_told(check: Callable[..., Report]) -> None:
    o = approval_object()
    for name in ("approver", "nonce"):
        del o[name]
    policy = check(grant_record(o, {"form": "policy", "object": o}), consumed())
    assert policy.passed
    assert "by-policy" in {p.code for p in policy.problems}
    glass = check(grant_record(o, {"form": "break_glass", "object": o}, kind="breakglass.opened"), consumed())
    assert glass.passed
    assert "break-glass" in {p.code for p in glass.problems}
    assert told(check(grant_record(o, {"form": "break_glass", "object": o})))[0][1] == "form"
    assert told(check(grant_record(o, {"form": "policy", "object": o}, kind="breakglass.opened")))[0][1] == "form"


def test_a_batch_is_used_item_by_item_and_only_those_chosen(check: Callable[..., Report]) -> None:
    items = [
        {
            "resource": {"type": "payment", "id": f"p-{n}"},
            "action": {"name": "release_payment"},
            "approval_id": f"ap-{n}",
            "evaluation_id": "e",
        }
        for n in range(3)
    ]
    o = approval_object(items=items, approved_items=[0, 2])
    for name in ("approval_id", "evaluation_id", "resource", "action", "digest"):
        del o[name]
    yes = granted(o, Authenticator())
    uses = [consumed(f"ap-{n}", resource=Party("payment", f"p-{n}")) for n in (0, 2)]
    assert told(check(yes, *uses)) == []
    assert told(check(yes, consumed("ap-1", resource=Party("payment", "p-1")))) == [(9, "no-approval", 1)]
    assert told(check(yes, consumed("ap-0", resource=Party("payment", "p-2")))) == [(9, "another-thing", 1)]
    assert told(check(yes, uses[0], uses[0])) == [(9, "used-twice", 2)]


def test_actor_is_a_person_in_the_record(check: Callable[..., Report]) -> None:
    assert granted(approval_object(), Authenticator()).actor == Actor("person", "bea")
