"""The auditor's verification on bundles tampered for real: what was done to them is found, and an untouched one passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from making import ORIGIN, T0, Log, ordinary
from tampering import CHECKPOINTS, FORGER, LOG, REAL, SIZE, checking, codes, edited, fresh, moved, renumbered

from aftergate.audit.bundle import Bundle, Dated, tar_chunks, write_folder, write_tar
from aftergate.audit.findings import Report
from aftergate.audit.jcs import canonical
from aftergate.audit.keys import DatedKey, KeyRing
from aftergate.audit.notes import Signer
from aftergate.audit.records import Record
from aftergate.audit.tiles import pack_entries, unpack_entries
from aftergate.audit.verify import verify_bundle


@pytest.fixture
def log() -> Log:
    return fresh()


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Report]:
    return checking(tmp_path)


# An untouched bundle


def test_an_untouched_bundle_passes_every_step(log: Log, check: Callable[..., Report]) -> None:
    report = check(log, pins=[REAL.verifier], known=[("mine", log.checkpoints[1].note)], strict=True)
    assert report.problems == []
    assert report.passed
    assert [s.number for s in report.steps] == list(range(1, 11))
    assert all(s.passed and s.checked for s in report.steps)
    assert (report.size, report.records_passed, report.records_failed) == (SIZE, SIZE, [])
    assert report.counts["approval.consumed"] == 1


def test_without_pinned_keys_the_report_says_what_that_leaves_open(log: Log, check: Callable[..., Report]) -> None:
    report = check(log)
    assert report.passed
    assert [p.code for p in report.problems] == ["keys-not-pinned"]


def test_an_empty_log_and_a_log_of_one_record_pass(check: Callable[..., Report]) -> None:
    for count in (0, 1):
        log = Log(REAL)
        for n in range(count):
            log.add(ordinary(n))
        log.sign()
        assert check(log).passed


def test_without_personal_data_the_bundle_verifies_and_tells_no_name(log: Log, tmp_path: Path) -> None:
    members = log.export(personal=False)
    assert not any(name.startswith("personal/") for name, _ in members)
    assert not any(b"person-17" in data for _, data in members)
    write_folder(tmp_path / "b", members)
    with Bundle(tmp_path / "b") as bundle:
        assert verify_bundle(bundle).passed


def test_a_tar_is_the_same_bundle_and_the_same_bytes_each_time(log: Log, tmp_path: Path) -> None:
    members = log.export()
    write_tar(tmp_path / "b.tar.gz", members)
    assert (tmp_path / "b.tar.gz").read_bytes() == b"".join(tar_chunks(members))
    with Bundle(tmp_path / "b.tar.gz") as bundle:
        assert verify_bundle(bundle).passed
        unpacked = bundle.folder
    assert not unpacked.exists()


# Edited


def test_an_edited_record_is_named(log: Log, check: Callable[..., Report]) -> None:
    members = dict(log.export())
    entries = unpack_entries(members["tile/entries/000"])
    entries[77] = entries[77].replace(b"permit", b"deny")
    members["tile/entries/000"] = pack_entries(entries)
    report = check(members)
    assert codes(report) == {"record-changed"}
    assert report.records_failed == [77]
    assert report.records_passed == SIZE - 1


@pytest.mark.parametrize("seq", [0, 4, 99, 100, 255, 256, 299])
def test_an_edited_record_with_tiles_made_anew_is_found_by_the_checkpoints(log: Log, check: Callable[..., Report], seq: int) -> None:
    edited(log, seq, action="something_else")
    report = check(log)
    assert "root" in codes(report)
    told = next(p for p in report.failures() if p.code == "root")
    first, last = (int(word) for word in told.message.split("among ")[1].split(" some")[0].split(" to "))
    assert first <= seq <= last


def test_an_edited_record_under_a_forged_signature_is_found(log: Log, check: Callable[..., Report]) -> None:
    edited(log, 50, action="something_else")
    log.checkpoints = []
    log.sign([FORGER])
    assert {"bad-signature", "no-checkpoint"} <= codes(check(log))


# Deleted, inserted, reordered


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize("seq", [0, 120, 256])
def test_a_deleted_record_is_found(log: Log, check: Callable[..., Report], seq: int, careful: bool) -> None:
    del log.leaves[seq]
    moved(log, {s: s - (s > seq) for s in range(SIZE) if s != seq})
    if careful:
        renumbered(log, seq)
    found = codes(check(dict(log.export()) | {"checkpoints.jsonl": CHECKPOINTS}))
    assert {"root", "truncated"} <= found
    assert ("sequence" in found) == (not careful)


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize("seq", [0, 120, 256, 299])
def test_an_inserted_record_is_found(log: Log, check: Callable[..., Report], seq: int, careful: bool) -> None:
    log.leaves.insert(seq, canonical(json.loads(log.leaves[seq]) | {"action": "grant_all"}))
    moved(log, {s: s + (s >= seq) for s in range(SIZE)})
    if careful:
        renumbered(log, seq)
    found = codes(check(log))
    assert {"root", "uncovered"} <= found
    assert ("sequence" in found) == (not careful)


@pytest.mark.parametrize("careful", [False, True])
def test_two_records_that_changed_places_are_found(log: Log, check: Callable[..., Report], careful: bool) -> None:
    log.leaves[120], log.leaves[121] = log.leaves[121], log.leaves[120]
    moved(log, {s: {120: 121, 121: 120}.get(s, s) for s in range(SIZE)})
    if careful:
        renumbered(log, 120)
    found = codes(check(log))
    assert {"root", "time"} <= found
    assert ("sequence" in found) == (not careful)


def test_a_record_appended_after_the_last_checkpoint_is_found(log: Log, check: Callable[..., Report]) -> None:
    log.add(ordinary(1))
    assert codes(check(log)) == {"uncovered"}


# Truncated, rolled back, forked


def cut_to(log: Log, size: int) -> None:
    log.leaves = log.leaves[:size]
    moved(log, {s: s for s in range(size)})


def test_a_cut_off_end_is_found(log: Log, check: Callable[..., Report]) -> None:
    cut_to(log, 260)
    members = dict(log.export())
    members["checkpoints.jsonl"] = CHECKPOINTS
    assert {"truncated", "uncovered"} <= codes(check(members))


def test_a_missing_entry_bundle_is_found(log: Log, check: Callable[..., Report]) -> None:
    members = dict(log.export())
    del members["tile/entries/001.p/44"]
    assert "missing" in codes(check(members))


def test_a_shortened_entry_bundle_is_found(log: Log, check: Callable[..., Report]) -> None:
    members = dict(log.export())
    members["tile/entries/001.p/44"] = pack_entries(unpack_entries(members["tile/entries/001.p/44"])[:-1])
    assert "records-missing" in codes(check(members))


def test_a_log_rolled_back_to_an_older_checkpoint_is_found_by_the_one_kept(log: Log, check: Callable[..., Report]) -> None:
    kept = log.checkpoints[-1].note
    cut_to(log, 257)
    log.checkpoints = [c for c in log.checkpoints if c.size <= 257]
    assert check(log).passed, "alone, an honest older state looks like one"
    assert codes(check(log, known=[("kept", kept)])) == {"rolled-back"}


def test_a_log_rolled_back_and_written_on_is_found_by_the_checkpoint_kept(log: Log, check: Callable[..., Report]) -> None:
    kept = log.checkpoints[-1].note
    cut_to(log, 257)
    log.checkpoints = [c for c in log.checkpoints if c.size <= 257]
    while len(log.leaves) < SIZE + 20:
        log.add(ordinary(len(log.leaves) + 5000))
    log.sign()
    assert check(log).passed
    assert codes(check(log, known=[("kept", kept)])) == {"forked"}


def test_two_signed_heads_of_one_size_are_a_fork(log: Log, check: Callable[..., Report]) -> None:
    other = fresh()
    edited(other, 10, action="something_else")
    other.sign(size=257)
    log.checkpoints.insert(4, other.checkpoints[-1])
    assert codes(check(log)) == {"forked"}


def test_a_head_of_another_branch_is_found(log: Log, check: Callable[..., Report]) -> None:
    other = fresh()
    edited(other, 10, action="something_else")
    other.sign(size=200)
    log.checkpoints.insert(2, other.checkpoints[-1])
    assert codes(check(log)) == {"root"}


def test_checkpoints_in_another_order_are_told(log: Log, check: Callable[..., Report]) -> None:
    log.checkpoints[1], log.checkpoints[2] = log.checkpoints[2], log.checkpoints[1]
    assert "checkpoints-out-of-order" in codes(check(log))


def test_a_checkpoint_of_another_log_is_told(log: Log, check: Callable[..., Report]) -> None:
    other = Log(Signer("other.example", b"\x07" * 32), origin="other.example")
    other.add(ordinary(1))
    log.ring = KeyRing(ORIGIN, (*log.ring.keys, DatedKey(other.signer.verifier, 0)))
    kept = other.sign()
    log.checkpoints.insert(0, other.checkpoints[-1])
    assert codes(check(log)) == {"another-log"}
    del log.checkpoints[0]
    assert codes(check(log, known=[("kept", kept)])) == {"another-log"}


# Wrong key


def forged_log() -> Log:
    """Everything rewritten and signed anew, keys file and all."""
    log = fresh()
    edited(log, 50, action="something_else")
    log.ring = KeyRing(ORIGIN, (DatedKey(FORGER.verifier, T0 - 1),))
    sizes = [c.size for c in log.checkpoints]
    log.checkpoints = []
    for size in sizes:
        log.sign([FORGER], size)
    return log


def test_a_log_signed_anew_with_another_key_is_found_by_the_key_trusted(check: Callable[..., Report]) -> None:
    assert {"wrong-key", "bad-signature"} <= codes(check(forged_log(), pins=[REAL.verifier]))


def test_a_log_signed_anew_with_another_key_is_found_by_the_checkpoint_kept(check: Callable[..., Report]) -> None:
    assert codes(check(forged_log(), known=[("kept", LOG.checkpoints[0].note)])) == {"wrong-key"}


def test_a_foreign_key_added_to_the_keys_file_does_not_count_when_keys_are_pinned(check: Callable[..., Report]) -> None:
    log = forged_log()
    log.ring = KeyRing(ORIGIN, (DatedKey(REAL.verifier, T0 - 1), DatedKey(FORGER.verifier, T0 - 1)))
    assert {"bad-signature", "no-checkpoint"} <= codes(check(log, pins=[REAL.verifier]))


def test_a_broken_signature_is_found(log: Log, check: Callable[..., Report]) -> None:
    last = log.checkpoints[-1]
    log.checkpoints[-1] = Dated(last.size, last.at, last.note.replace(b"\n300\n", b"\n299\n"))
    assert "bad-signature" in codes(check(log))


def test_a_key_used_outside_its_time_is_found(log: Log, check: Callable[..., Report]) -> None:
    log.ring = KeyRing(ORIGIN, (DatedKey(REAL.verifier, T0 - 1, T0 + 200_000),))
    assert codes(check(log)) == {"key-expired"}
    log.ring = KeyRing(ORIGIN, (DatedKey(REAL.verifier, T0 + 50_000),))
    assert codes(check(log)) == {"key-not-yet"}


def test_rotated_keys_with_overlapping_times_pass(log: Log, check: Callable[..., Report]) -> None:
    second = Signer(ORIGIN, b"\x09" * 32)
    log.ring = KeyRing(ORIGIN, (DatedKey(REAL.verifier, T0 - 1, T0 + 299_000), DatedKey(second.verifier, T0 + 250_000)))
    log.checkpoints = log.checkpoints[:3]
    log.sign([REAL, second], 280)
    log.sign([second])
    assert check(log).passed
    assert check(log, pins=[second.verifier]).problems, "one pinned key of two leaves the other's heads unproven"


def test_windows_in_the_keys_file_are_held_against_the_log(log: Log, check: Callable[..., Report]) -> None:
    second = Signer(ORIGIN, b"\x09" * 32)
    at = T0 + len(log.leaves) * 1000
    rotated = log.add(Record("admin.audit_key.rotated", detail={"key": second.verifier.vkey, "overlap_ms": 600_000, "lost": False}))
    log.sign([REAL, second])
    for first_until, second_from, found in (
        (at + 600_000, at, set()),
        (None, at, {"key-window"}),
        (at + 6_000_000, at, {"key-window"}),
        (at + 600_000, at - 6_000_000, {"key-window"}),
    ):
        log.ring = KeyRing(ORIGIN, (DatedKey(REAL.verifier, T0 - 1, first_until), DatedKey(second.verifier, second_from)))
        report = check(log)
        assert codes(report) == found
        assert {p.seq for p in report.failures()} <= {rotated}


@pytest.mark.parametrize("keys", [b"", b"{}", b'{"origin": "x", "keys": []}'])
def test_an_unreadable_keys_file_fails(log: Log, check: Callable[..., Report], keys: bytes) -> None:
    assert codes(check(dict(log.export()) | {"keys.json": keys})) == {"keys-unreadable"}
