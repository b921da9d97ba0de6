"""The tile layout of a log (C2SP tlog-tiles): 256 hashes a tile, entries in bundles, and proofs computed from tiles.

Level 0 tiles hold leaf hashes; a hash at level L covers 256^L leaves.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from aftergate.audit.errors import BadBundle
from aftergate.audit.merkle import HASH_SIZE, Frontier, Subtree, node_hash, split

WIDTH: Final = 256
MAX_ENTRY: Final = 65_535  # an entry's length is written in two bytes
_PATH: Final = re.compile(r"tile/(entries|0|[1-9]\d?)/((?:x\d{3}/)*\d{3})(?:\.p/([1-9]\d{0,2}))?")


class HashReader(Protocol):
    """Where tile hashes come from: a table, or tile files."""

    def hashes(self, level: int, first: int, count: int) -> Sequence[bytes]:
        """`count` hashes of tile level `level` from index `first`. Raises an AftergateError, if any is missing."""
        ...


def index_path(index: int) -> str:
    """1234067 -> `x001/x234/067`."""
    parts = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        parts.append(f"x{index % 1000:03d}")
    return "/".join(reversed(parts))


def tile_path(level: int | None, index: int, width: int = WIDTH) -> str:
    """Path of a tile of hashes, or of an entry bundle where `level` is None; `width` below 256 makes it a partial one."""
    folder = "entries" if level is None else str(level)
    return f"tile/{folder}/{index_path(index)}" + (f".p/{width}" if width < WIDTH else "")


def parse_path(path: str) -> tuple[int | None, int, int] | None:
    """(level or None for entries, index, width) of a tile path; None, if it is not one."""
    matched = _PATH.fullmatch(path)
    if matched is None:
        return None
    folder, numbers, width = matched.groups()
    index = int(numbers.replace("/", "").replace("x", ""))
    held = int(width) if width else WIDTH
    level = None if folder == "entries" else int(folder)
    return (level, index, held) if (not width or held < WIDTH) and index_path(index) == numbers and (level or 0) <= 63 else None


def layout(size: int) -> Iterator[tuple[int, int, int]]:
    """(level, index, width) of every tile of a tree of `size` leaves, partial ones included, lowest level first."""
    level, held = 0, size
    while held:
        for index in range((held + WIDTH - 1) // WIDTH):
            yield level, index, min(WIDTH, held - index * WIDTH)
        level, held = level + 1, held // WIDTH


def pack_entries(entries: Sequence[bytes]) -> bytes:
    """Entry bundle: two bytes of length, then the entry, repeated. An entry whose body was pruned is empty. Raises: BadBundle, if one is too long."""
    for entry in entries:
        if len(entry) > MAX_ENTRY:
            raise BadBundle(f"an entry of {len(entry)} bytes does not fit a bundle")
    return b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)


def unpack_entries(data: bytes) -> list[bytes]:
    """Entries of a bundle. Raises: BadBundle, if the lengths do not add up."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        if at + 2 > len(data):
            raise BadBundle("an entry bundle ends within a length")
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if end > len(data):
            raise BadBundle("an entry bundle ends within an entry")
        entries.append(data[at + 2 : end])
        at = end
    return entries


def subtrees(reader: HashReader) -> Subtree:
    """Subtree hashes from tiles: a range costs at most one tile per level beside its right edge."""
    return lambda lo, hi: _subtree(reader, lo, hi)


def _subtree(reader: HashReader, lo: int, hi: int) -> bytes:
    count = hi - lo
    if count & (count - 1) == 0 and lo % count == 0:
        return _perfect(reader, lo, count)
    middle = lo + split(count)
    return node_hash(_subtree(reader, lo, middle), _subtree(reader, middle, hi))


def _perfect(reader: HashReader, lo: int, count: int) -> bytes:
    """A perfect, aligned subtree: combined from one row of the highest tile level below it."""
    height = count.bit_length() - 1
    level = height // 8
    span = WIDTH**level
    row = reader.hashes(level, lo // span, count // span)
    return row[0] if len(row) == 1 else Frontier.of(row).root()


def root_of(reader: HashReader, size: int) -> bytes:
    """Root of the tree of the first `size` leaves."""
    return _subtree(reader, 0, size) if size else Frontier().root()


def cut(data: bytes) -> list[bytes]:
    """Hashes of a tile. Raises: BadBundle, if the bytes are no whole number of hashes."""
    if len(data) % HASH_SIZE:
        raise BadBundle("a tile holds no whole number of hashes")
    return [data[i : i + HASH_SIZE] for i in range(0, len(data), HASH_SIZE)]
