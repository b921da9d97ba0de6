"""What goes into a bundle, in order, from wherever a log is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from aftergate.audit.bundle import FORMAT, Dated, Member
from aftergate.audit.evidence import b64url
from aftergate.audit.records import Attachment, Kept
from aftergate.audit.tiles import WIDTH, HashReader, index_path, layout, pack_entries, tile_path
from aftergate.events.clock import to_iso


class Source(HashReader, Protocol):
    """A log that can be exported. All of it is read as of one moment, up to one signed size."""

    def entries(self, first: int, count: int) -> Sequence[bytes]:
        """Leaves; an empty one where the record was pruned."""
        ...

    def attachments(self, first: int, count: int) -> Sequence[tuple[int, Attachment]]:
        """(record, attachment) in order."""
        ...

    def personal(self, first: int, count: int) -> Sequence[tuple[int, Kept]]:
        """(record, value) in order."""
        ...


def members(
    source: Source, *, origin: str, size: int, keys: bytes, checkpoints: Sequence[Dated], at_ms: int, personal: bool
) -> Iterator[Member]:
    """The files of a bundle over the first `size` records.

    Evidence of approvals is always in it, since without it nobody can verify them; requests and personal values only with `personal`.
    """
    manifest = {"format": FORMAT, "origin": origin, "size": size, "exported_at": to_iso(at_ms), "personal": personal}
    yield "manifest.json", msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    yield "keys.json", keys
    yield (
        "checkpoints.jsonl",
        b"".join(msgspec.json.encode({"size": c.size, "at": c.at, "note": c.note.decode()}) + b"\n" for c in checkpoints if c.size <= size),
    )
    for level, index, width in layout(size):
        yield tile_path(level, index, width), b"".join(source.hashes(level, index * WIDTH, width))
    for index in range((size + WIDTH - 1) // WIDTH):
        first, width = index * WIDTH, min(WIDTH, size - index * WIDTH)
        yield tile_path(None, index, width), pack_entries(source.entries(first, width))
        beside = [
            {"seq": seq, "kind": each.kind, "salt": b64url(each.salt), "body": each.body.decode()}
            for seq, each in source.attachments(first, width)
            if personal or each.kind == "evidence"
        ]
        if beside:
            yield f"attachments/{index_path(index)}.jsonl", _lines(beside)
        values = [
            {"seq": seq, "field": each.field, "salt": b64url(each.salt), "value": each.value}
            for seq, each in (source.personal(first, width) if personal else ())
        ]
        if values:
            yield f"personal/{index_path(index)}.jsonl", _lines(values)


def _lines(rows: Sequence[dict[str, object]]) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
