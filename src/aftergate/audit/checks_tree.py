"""Steps 2 to 5 of a verification: keys, checkpoints, the tree over all records, and the checkpoints the auditor kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from aftergate.audit.bundle import Bundle
from aftergate.audit.errors import BadBundle, BadNote
from aftergate.audit.findings import Notebook
from aftergate.audit.keys import DatedKey, KeyRing
from aftergate.audit.merkle import EMPTY_ROOT, Frontier, leaf_hash
from aftergate.audit.notes import Checkpoint, Verifier, b64, open_checkpoint
from aftergate.audit.records import Leaf
from aftergate.audit.tiles import WIDTH, cut, layout, tile_path

SLACK_MS: Final = 60_000  # between making a key and recording it


class Signed(NamedTuple):
    checkpoint: Checkpoint
    keys: tuple[Verifier, ...]


def read_keys(bundle: Bundle, pins: Sequence[Verifier], book: Notebook) -> KeyRing | None:
    """Step 2. Keys of the bundle; with pins only those whose key is pinned count."""
    try:
        ring = KeyRing.parse(bundle.read("keys.json"))
    except (BadNote, BadBundle) as error:
        book.fail(2, "keys-unreadable", str(error))
        return None
    book.check(2, len(ring.keys))
    if ring.origin != bundle.manifest.origin:
        book.fail(2, "keys-of-another-log", f"the keys are those of `{ring.origin}`, the records those of `{bundle.manifest.origin}`")
    if not pins:
        book.note(
            2,
            "keys-not-pinned",
            "the keys come from the bundle itself: give --key with a key you had before, or a checkpoint you kept with --known",
        )
        return ring
    trusted = tuple(k for k in ring.keys if k.verifier in pins)
    for key in ring.keys:
        if key.verifier not in pins and key.verifier.kind == 1:
            book.note(
                2, "key-not-trusted", f"the key {key.verifier.key_id.hex()} is not among those you trust: its signatures do not count"
            )
    if not trusted:
        book.fail(2, "wrong-key", "none of the bundle's keys is one that you trust")
        # Checked against the pinned key all the same, so that a swapped keys file alone is told apart from a swapped signature.
        return KeyRing(ring.origin, tuple(DatedKey(pin, -(1 << 60)) for pin in pins))
    return KeyRing(ring.origin, trusted)


def read_checkpoints(bundle: Bundle, ring: KeyRing, book: Notebook) -> list[Signed]:
    """Step 3, as far as it needs no records: signatures, origin, order, and no two heads of one size."""
    good: list[Signed] = []
    roots: dict[int, bytes] = {}
    last = -1
    for dated in bundle.checkpoints():
        book.check(3)
        try:
            checkpoint, _, keys = open_checkpoint(dated.note, ring.verifiers)
        except BadNote as error:
            book.fail(3, "bad-signature", f"the checkpoint of size {dated.size} does not hold: {error.message}")
            continue
        if checkpoint.origin != bundle.manifest.origin or checkpoint.size != dated.size:
            book.fail(3, "another-log", f"the checkpoint of size {dated.size} says `{checkpoint.origin}`, size {checkpoint.size}")
            continue
        if checkpoint.size < last:
            book.fail(3, "checkpoints-out-of-order", f"a checkpoint of size {checkpoint.size} after one of size {last}")
        last = max(last, checkpoint.size)
        if roots.setdefault(checkpoint.size, checkpoint.root) != checkpoint.root:
            book.fail(3, "forked", f"two signed checkpoints of size {checkpoint.size} have different roots: the log was forked")
            continue
        good.append(Signed(checkpoint, keys))
    if not good:
        book.fail(3, "no-checkpoint", "there is no checkpoint that holds: nothing proves these records")
    return good


class Tree:
    """Step 4: the tree is built anew from the records, and compared with tiles and checkpoints as it passes their sizes."""

    def __init__(self, bundle: Bundle, signed: Sequence[Signed], wanted: Sequence[int], book: Notebook) -> None:
        self._bundle = bundle
        self._book = book
        self._expected: dict[int, bytes] = {s.checkpoint.size: s.checkpoint.root for s in signed}
        self.roots: dict[int, bytes] = dict.fromkeys((*self._expected, *wanted), b"")
        self._frontier = Frontier()
        self._upper: dict[int, list[bytes]] = {}
        self._good_up_to = 0
        self._broken = False
        self._reach()

    @property
    def size(self) -> int:
        return self._frontier.size

    def block(self, index: int, entries: Sequence[bytes]) -> None:
        """Take the records of entry bundle `index`. Raises: BadBundle, if its tile is missing."""
        width = min(WIDTH, self._bundle.manifest.size - index * WIDTH)
        tile = cut(self._bundle.read(tile_path(0, index, width)))
        first = index * WIDTH
        if len(tile) != width or len(entries) != width:
            self._book.fail(
                4,
                "records-missing",
                f"from record {first} on there are {len(entries)} records and {len(tile)} hashes where {width} of each belong",
            )
            width = min(len(tile), len(entries), width)
        for place in range(width):
            entry, stated = entries[place], tile[place]
            seq = first + place
            self._book.check(4)
            if entry and leaf_hash(entry) != stated:
                self._book.fail(4, "record-changed", f"record {seq} is not the one that the tree holds", seq)
            for level, _, made in self._frontier.add(stated):
                self._upper.setdefault(level, []).append(made)
            self._reach()

    def _reach(self) -> None:
        size = self._frontier.size
        if size not in self.roots:
            return
        root = self.roots[size] = self._frontier.root() if size else EMPTY_ROOT
        expected = self._expected.get(size)
        if expected is None:
            return
        if expected == root:
            if not self._broken:
                self._good_up_to = size
        elif not self._broken:
            # Every later head builds on this one: it is told once, with the records among which the difference lies.
            self._broken = True
            self._book.fail(
                4, "root", f"the checkpoint of size {size} was signed over other records: among {self._good_up_to} to {size - 1} some were changed, removed, inserted or moved"
            )  # fmt: skip

    def finish(self) -> None:
        """Compare upper tiles, and see that every checkpoint was reached and every record is covered."""
        size = self._bundle.manifest.size
        for level, index, width in layout(self.size):
            if level == 0:
                continue
            mine = self._upper.get(level, [])[index * WIDTH : index * WIDTH + width]
            try:
                tile = cut(self._bundle.read(tile_path(level, index, width)))
            except BadBundle as error:
                self._book.fail(1, "missing", str(error))
                continue
            if tile != mine:
                self._book.fail(4, "tile", f"the tile {tile_path(level, index, width)} is not that of these records")
        for at in sorted(self._expected):
            if at > self.size:
                self._book.fail(
                    4, "truncated", f"a checkpoint of size {at} was signed, but only {self.size} records are here: the end was cut off"
                )
        covered = max((at for at in self._expected if at <= self.size), default=0)
        if covered < size:
            self._book.fail(4, "uncovered", f"records {covered} to {size - 1} are under no checkpoint that holds")


def check_known(known: Sequence[tuple[str, bytes]], ring: KeyRing, origin: str, tree: Tree, book: Notebook) -> None:
    """Step 5: each (name, note) that the auditor kept is a head of this very tree."""
    for name, data in known:
        book.check(5)
        try:
            checkpoint, _, _ = open_checkpoint(data, ring.verifiers)
        except BadNote as error:
            book.fail(5, "wrong-key", f"{name}: {error.message}; the bundle's keys are not those that signed what you kept")
            continue
        if checkpoint.origin != origin:
            book.fail(5, "another-log", f"{name}: a checkpoint of the log `{checkpoint.origin}`")
        elif checkpoint.size > tree.size:
            book.fail(
                5,
                "rolled-back",
                f"{name}: you hold a checkpoint of size {checkpoint.size}, the bundle has {tree.size} records: it was cut off or rolled back",
            )
        elif tree.roots[checkpoint.size] != checkpoint.root:
            book.fail(
                5,
                "forked",
                f"{name}: at size {checkpoint.size} you hold the root {b64(checkpoint.root)}, these records give another: the log was forked or rewritten",
            )


def check_windows(signed: Sequence[Signed], ring: KeyRing, times: dict[int, int], book: Notebook) -> None:
    """Step 3, the rest: a checkpoint was signed after its last record and before the next, and its keys were in use then.

    `times` gives the time of a record by its number, for those just before and after each checkpoint.
    """
    for each in signed:
        size = each.checkpoint.size
        earliest, latest = times.get(size - 1), times.get(size)
        for verifier in each.keys:
            key = ring.find(verifier)
            if key is None:
                continue
            if key.until_ms is not None and earliest is not None and earliest > key.until_ms:
                book.fail(3, "key-expired", f"the checkpoint of size {size} was signed by key {verifier.key_id.hex()} after its time")
            if latest is not None and latest < key.from_ms:
                book.fail(3, "key-not-yet", f"the checkpoint of size {size} was signed by key {verifier.key_id.hex()} before its time")


def check_rotations(rotations: Sequence[Leaf], ring: KeyRing, book: Notebook) -> None:
    """Step 3: the windows in the keys file, which nobody signed, are those that the log tells of when keys were changed."""
    for leaf in rotations:
        detail = leaf.raw.get("detail") or {}
        overlap = detail.get("overlap_ms")
        made = next((k for k in ring.keys if k.verifier.vkey == detail.get("key")), None)
        if made is not None and abs(made.from_ms - leaf.ts_ms) > SLACK_MS:
            book.fail(
                3, "key-window", f"the key {made.verifier.key_id.hex()} began with record {leaf.seq}, not when the keys file says", leaf.seq
            )
        end = leaf.ts_ms + (overlap if isinstance(overlap, int) and not detail.get("lost") else 0) + SLACK_MS
        for key in ring.keys:
            if key.from_ms < leaf.ts_ms - SLACK_MS and (key.until_ms is None or key.until_ms > end):
                book.fail(
                    3,
                    "key-window",
                    f"the key {key.verifier.key_id.hex()} was replaced by record {leaf.seq}, but the keys file lets it go on",
                    leaf.seq,
                )
