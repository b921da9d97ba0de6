"""Steps 6, 7 and 10 of a verification: numbers and times, heartbeats, and what is kept beside the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from aftergate.audit.errors import BadRecord, NotCanonical
from aftergate.audit.evidence import unb64url
from aftergate.audit.findings import Notebook
from aftergate.audit.jcs import parse
from aftergate.audit.records import Leaf, commitment, commitments, read
from aftergate.events.clock import to_iso

GRACE: Final = 2.5  # a heartbeat may be this many intervals after the one before
GRACE_MS: Final = 5_000
SKEW_MS: Final = 1_000


class Order:
    """Step 6: numbers rise by one, times never fall, every record reads back."""

    def __init__(self, book: Notebook) -> None:
        self._book = book
        self._last_ms = -(1 << 62)
        self.times: dict[int, int] = {}
        self.counts: Counter[str] = Counter()
        self.pruned = 0

    def record(self, place: int, entry: bytes, wanted: frozenset[int]) -> Leaf | None:
        """The record at `place`, or None if it cannot be read or was pruned. Times of `wanted` places are kept."""
        if not entry:
            self.pruned += 1
            return None
        self._book.check(6)
        try:
            leaf = read(entry)
        except BadRecord as error:
            self._book.fail(6, "unreadable", f"record {place}: {error.message}", place)
            return None
        self.counts[leaf.type] += 1
        if leaf.seq != place:
            self._book.fail(
                6, "sequence", f"the record at place {place} has the number {leaf.seq}: one was removed, inserted or moved", place
            )
        if leaf.ts_ms < self._last_ms:
            self._book.fail(6, "time", f"record {place} is of {to_iso(leaf.ts_ms)}, before the one ahead of it", place)
        self._last_ms = max(self._last_ms, leaf.ts_ms)
        if place in wanted:
            self.times[place] = leaf.ts_ms
        skew = (leaf.raw.get("detail") or {}).get("clock_skew_ms")
        if isinstance(skew, int) and skew > SKEW_MS:
            self._book.warn(6, "clock", f"at record {place} the server's clock was {skew} ms behind what the log had seen", place)
        return leaf


class Heartbeats:
    """Step 7: each server process says that it lives, and counts what it sends; silence and missing numbers are told."""

    def __init__(self, book: Notebook) -> None:
        self._book = book
        self._alive: dict[str, tuple[int, int]] = {}  # instance -> (last sign of life, interval), both in ms
        self._numbers: dict[str, int] = {}
        self._last_ms = 0

    def record(self, leaf: Leaf) -> None:
        self._last_ms = leaf.ts_ms
        emitter = leaf.raw.get("emitter")
        if isinstance(emitter, dict):
            self._count(str(emitter.get("id")), emitter.get("n"), leaf.seq)
        if leaf.type not in ("heartbeat", "server.started", "server.stopped"):
            return
        self._book.check(7)
        detail = leaf.raw.get("detail") or {}
        instance, interval = str(detail.get("instance", "")), detail.get("interval_ms")
        if leaf.type == "server.stopped":
            self._alive.pop(instance, None)
            return
        before = self._alive.get(instance)
        if leaf.type == "heartbeat" and before is not None:
            silent = leaf.ts_ms - before[0]
            if silent > before[1] * GRACE + GRACE_MS:
                self._book.warn(
                    7, "heartbeat-gap", f"server {instance} was silent for {silent // 1000} s before {to_iso(leaf.ts_ms)}", leaf.seq
                )
        self._alive[instance] = (leaf.ts_ms, interval if isinstance(interval, int) else before[1] if before else 0)

    def _count(self, name: str, number: object, seq: int) -> None:
        if not isinstance(number, int):
            return
        before = self._numbers.get(name)
        if before is not None and number > before + 1:
            self._book.warn(
                7, "lost-before-the-log", f"{name} counted {number - before - 1} records before record {seq} that the log never got", seq
            )
        elif before is not None and number <= before:
            self._book.warn(7, "counted-twice", f"{name} gave record {seq} the number {number} after {before}", seq)
        self._numbers[name] = number

    def finish(self) -> None:
        for instance, (last, interval) in self._alive.items():
            if interval and self._last_ms - last > interval * GRACE + GRACE_MS:
                self._book.warn(
                    7, "ended-unsaid", f"server {instance} gave no sign of life after {to_iso(last)}, and never said that it stops"
                )


class Beside:
    """Step 10: what is kept beside the leaves fits their commitments; what is missing was declared erased."""

    def __init__(self, book: Notebook, *, personal: bool) -> None:
        self._book = book
        self._personal = personal
        self.missing: Counter[str] = Counter()
        self._erased: Counter[str] = Counter()

    def record(self, leaf: Leaf, held: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Check what is held for this record; gives what proved genuine: field -> value."""
        due = commitments(leaf.raw)
        found: dict[str, Any] = {}
        wrong: set[str] = set()
        for row in held:
            self._book.check(10)
            field = row.get("field", row.get("kind"))
            salt = unb64url(row.get("salt"))
            value = row.get("value", row.get("body"))
            data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else b""
            if not isinstance(field, str) or field not in due or salt is None or not isinstance(value, str):
                self._book.fail(10, "not-committed", f"something is kept beside record {leaf.seq} that it does not commit to", leaf.seq)
            elif commitment(salt, field, data) != due[field]:
                wrong.add(field)
                self._book.fail(10, "commitment", f"`{field}` beside record {leaf.seq} is not what was recorded", leaf.seq)
            else:
                found[field] = _document(data) if "kind" in row else value
        for field in due.keys() - found.keys() - wrong:
            if field == "evidence" or self._personal:
                self.missing[field if field in ("evidence", "request") else "personal"] += 1
        if leaf.type == "erasure":
            detail = leaf.raw.get("detail") or {}
            count = detail.get("count")
            if isinstance(count, int):
                self._erased[str(detail.get("what"))] += count
        return found

    def finish(self, pruned: int) -> None:
        self.missing["records"] = pruned
        words = {
            "personal": "personal values",
            "evidence": "approvals' evidence",
            "request": "requests' details",
            "records": "records' contents",
        }
        for what, count in self.missing.items():
            declared = self._erased[what]
            if count > declared:
                self._book.fail(10, "missing-undeclared", f"{count} {words[what]} are missing, {declared} were declared erased")
            elif count:
                self._book.note(10, "erased", f"{count} {words[what]} were erased, as the log declares")


def _document(data: bytes) -> Any:
    """The JSON of an attachment; None unless canonical, since only that was committed to."""
    try:
        return parse(data)
    except NotCanonical:
        return None
