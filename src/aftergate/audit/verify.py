"""Verify an export: pure reading, no server, no network, no database. The steps and their titles are in `findings.STEPS`.

What this proves, and what it cannot: docs/audit.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aftergate.audit.bundle import Bundle
from aftergate.audit.checks_approvals import Approvals
from aftergate.audit.checks_records import Beside, Heartbeats, Order
from aftergate.audit.checks_tree import Signed, Tree, check_known, check_rotations, check_windows, read_checkpoints, read_keys
from aftergate.audit.errors import BadBundle, BadNote
from aftergate.audit.findings import Notebook, Report, printable
from aftergate.audit.keys import KeyRing
from aftergate.audit.notes import Checkpoint, Verifier, b64, parse_note
from aftergate.audit.records import Leaf
from aftergate.audit.tiles import WIDTH


def verify_bundle(
    bundle: Bundle,
    *,
    known: Sequence[tuple[str, bytes]] = (),
    pins: Sequence[Verifier] = (),
    rp_ids: Sequence[str] = (),
    origins: Sequence[str] = (),
    strict: bool = False,
) -> Report:
    """All steps over one bundle.

    `known` are (name, signed checkpoint) that the auditor kept: they show truncation, rollback and forks. `pins` are the keys trusted; without
    them the bundle's own keys are taken, and the report says so. `rp_ids` and `origins` restrict where approvals may have been made. With
    `strict`, a warning fails as well.
    """
    book = Notebook()
    report = Report(origin=printable(bundle.manifest.origin), size=bundle.manifest.size)
    ring = read_keys(bundle, pins, book)
    if ring is not None:
        try:
            signed = read_checkpoints(bundle, ring, book)
            order = _walk(bundle, ring, signed, known, Approvals(book, rp_ids=rp_ids, origins=origins), book)
        except BadBundle as error:
            book.fail(1, "unreadable", str(error))
        else:
            report.counts = dict(sorted(order.counts.items()))
            report.root = b64(signed[-1].checkpoint.root) if signed else ""
    report.steps, report.problems, report.passed = book.result(strict=strict)
    report.records_failed = sorted(book.failed_seqs)
    report.records_passed = max(0, book.checked[6] - len(book.failed_seqs))
    return report


def _walk(
    bundle: Bundle, ring: KeyRing, signed: Sequence[Signed], known: Sequence[tuple[str, bytes]], approvals: Approvals, book: Notebook
) -> Order:
    """One pass over all records, block by block; every step sees each record once and in order."""
    kept_sizes = [size for _, data in known if (size := _size_of(data)) is not None]
    tree = Tree(bundle, signed, kept_sizes, book)
    around = frozenset(place for each in signed for place in (each.checkpoint.size - 1, each.checkpoint.size))
    order, heartbeats, beside = Order(book), Heartbeats(book), Beside(book, personal=bundle.manifest.personal)
    rotations: list[Leaf] = []
    size = bundle.manifest.size
    for index in range((size + WIDTH - 1) // WIDTH):
        width = min(WIDTH, size - index * WIDTH)
        try:
            entries = bundle.entries(index, width)
            tree.block(index, entries)
        except BadBundle as error:
            book.fail(1, "missing", str(error))
            break  # what comes after has no place in the tree
        book.check(1)
        held = _by_record(bundle, index)
        for place, entry in enumerate(entries, index * WIDTH):
            leaf = order.record(place, entry, around)
            if leaf is None:
                continue
            if leaf.type == "admin.audit_key.rotated":
                rotations.append(leaf)
            heartbeats.record(leaf)
            approvals.record(leaf, beside.record(leaf, held.pop(place, ())))
        for place, rows in held.items():
            book.check(10, len(rows))
            # A pruned record keeps its commitments only in its hash: nothing beside it can be checked any more.
            book.fail(10, "not-committed", f"something is kept beside record {place}, which is not in the bundle", place)
    tree.finish()
    check_known(known, ring, bundle.manifest.origin, tree, book)
    check_windows(signed, ring, order.times, book)
    check_rotations(rotations, ring, book)
    heartbeats.finish()
    beside.finish(order.pruned)
    return order


def _by_record(bundle: Bundle, index: int) -> dict[int, list[dict[str, Any]]]:
    made: dict[int, list[dict[str, Any]]] = {}
    for row in (*bundle.attachments(index), *bundle.personal(index)):
        seq = row.get("seq")
        if not isinstance(seq, int):
            raise BadBundle("a line without the number of its record", where=f"attachments or personal, block {index}")
        made.setdefault(seq, []).append(row)
    return made


def _size_of(data: bytes) -> int | None:
    """The size that a kept checkpoint claims; whether it is genuine is told in step 5."""
    try:
        return Checkpoint.parse(parse_note(data).text).size
    except BadNote:
        return None
