"""From paths to raw records: files, folders and standard input, as chunks of JSON texts that nobody has parsed yet.

What a file holds is found from its bytes, never from its name: JSON Lines, JSON arrays, single and concatenated objects (also
pretty-printed), the vendors' envelopes (`{"Records": []}`, `{"value": []}`, `{"events": []}`, LookupEvents, ...), CSV with a column of
JSON; in gzip or zstd, UTF-8 or UTF-16. JSON Lines are the fast path: blocks are cut at line ends and nothing is done for a single line.

Nothing that is wrong with a file stops a run: what can be read is delivered, and a Fault says what could not.
"""

from __future__ import annotations

import csv
import os
import stat
import sys
from array import array
from collections.abc import Iterable, Iterator
from itertools import accumulate, chain
from pathlib import Path
from typing import Final

import msgspec

from aftergate.errors import ReadError
from aftergate.pipeline.documents import Batch, classify, foreign, values, wrapped
from aftergate.pipeline.lines import cut, heads
from aftergate.pipeline.unpacking import SHOWN, Content, Fault, Readable

BLOCK: Final = 1 << 18  # bytes of text in a chunk, about: what fits a core's cache reads half again as fast
SHARE: Final = 4 << 20  # least bytes of a part handed to a worker

__all__ = ["Chunk", "Fault", "Input", "Readable", "chunks", "plan", "split_ranges"]

RECORD_LIMIT: Final = 64 << 20  # bytes of one record
DOCUMENT_LIMIT: Final = 1 << 30  # bytes of one top-level JSON value (an array or an envelope is held whole)
PEEK: Final = 256 << 10


class Input(msgspec.Struct, frozen=True):
    """One file to read."""

    name: str  # as the user would write it; `-` is standard input
    path: str | None  # None for standard input
    size: int  # bytes as stored; 0 where it cannot be known (pipes)
    container: str = "unknown"  # ndjson, json, csv, empty, unknown: from the first bytes
    packing: str = ""  # gzip, zstd, or nothing
    encoding: str = "utf-8"  # utf-8, utf-16-le, utf-16-be


class Chunk(msgspec.Struct):
    """Some records of one input, in its order.

    `base` is where the chunk's text begins in the file's content: bytes after unpacking, and for UTF-16 after turning it into UTF-8. `done` is
    how many stored bytes of the input (of the range, if one was asked for) were used so far. Lines may have their line ends and may hold anything.
    """

    name: str
    base: int
    lines: list[bytes]
    done: int
    faults: list[Fault]
    starts: array[int] | None = None  # offset of each line; None while each line has its end and they follow each other

    def offset(self, index: int) -> int:
        """Where line `index` begins in the content. A record out of an envelope's text begins where its wrapper does."""
        if self.starts is None:
            ends = accumulate(map(len, self.lines), initial=self.base)
            self.starts = array("q", list(ends)[:-1])
        return self.starts[index]


# ---------------------------------------------------------------- planning


def plan(paths: Iterable[str | os.PathLike[str]], *, hidden: bool = False) -> list[Input]:
    """The files behind `paths`, each once, in the order given; folders are walked in sorted order.

    In folders, names that begin with a dot (unless `hidden`), sockets, pipes, devices and dangling links are passed over, and a folder is
    entered once however many links lead there. A path that is named itself is read whatever it is.
    Raises: ReadError, if a path does not exist.
    """
    found: list[Input] = []
    seen: set[tuple[int, int]] = set()
    for given in paths:
        name = os.fspath(given)
        if name == "-":
            if not any(item.path is None for item in found):
                found.append(Input("-", None, 0))
            continue
        try:
            status = os.stat(name)  # noqa: PTH116  (the text the user gave is the name everywhere)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ReadError(f"`{name}` cannot be read: {reason}", where=name, hint="give files, folders, or - for standard input") from None
        if stat.S_ISDIR(status.st_mode):
            found.extend(_walk(name, seen, hidden=hidden))
        elif _fresh(status, seen):
            found.append(_input(name, status))
    return found


def _walk(top: str, seen: set[tuple[int, int]], *, hidden: bool) -> Iterator[Input]:
    waiting = [top]
    while waiting:
        name = waiting.pop()
        try:
            status = os.stat(name)  # noqa: PTH116
            if not stat.S_ISDIR(status.st_mode):
                if stat.S_ISREG(status.st_mode) and _fresh(status, seen):
                    yield _input(name, status)
                continue
            if not _fresh(status, seen):
                continue
            inside = sorted(os.listdir(name), reverse=True)  # noqa: PTH208
        except OSError as error:
            if error.filename and not os.path.islink(name):  # noqa: PTH114  (a link to nowhere is nobody's log)
                yield Input(name, name, 0)  # reading it tells the reason
            continue
        waiting.extend(os.path.join(name, entry) for entry in inside if hidden or not entry.startswith("."))  # noqa: PTH118


def _fresh(status: os.stat_result, seen: set[tuple[int, int]]) -> bool:
    key = (status.st_dev, status.st_ino)
    if key in seen:
        return False
    seen.add(key)
    return True


def _input(name: str, status: os.stat_result) -> Input:
    if not stat.S_ISREG(status.st_mode):
        return Input(name, name, 0)  # looking into a pipe would use it up
    bare = Input(name, name, status.st_size)
    try:
        with Path(name).open("rb", buffering=0) as file:
            content = Content(name)
            text = b""
            for block in content.text(file, None, PEEK):
                text += block
                if len(text) >= PEEK:
                    break
    except OSError:
        return bare
    whole = len(text) < PEEK
    container = classify(text, final=whole) or "unknown"
    return Input(name, name, status.st_size, container, content.packing, content.encoding)


def split_ranges(item: Input, parts: int, *, least: int = SHARE) -> list[tuple[int, int]]:
    """At most `parts` byte ranges that cover the file and begin at line starts, each of about `least` bytes or more.

    Only plain UTF-8 JSON Lines can be read in parts; any other input is one range.
    """
    size = item.size
    count = min(parts, size // max(least, 1))
    if count < 2 or item.path is None or item.container != "ndjson" or item.packing or item.encoding != "utf-8":
        return [(0, size)]
    cuts = [0]
    try:
        with Path(item.path).open("rb") as file:
            for part in range(1, count):
                file.seek(max(size * part // count - 1, cuts[-1]))
                while (piece := file.readline(1 << 20)) and not piece.endswith(b"\n"):
                    pass
                here = file.tell()
                if cuts[-1] < here < size:
                    cuts.append(here)
    except OSError:
        return [(0, size)]
    return list(zip(cuts, [*cuts[1:], size], strict=True))


# ---------------------------------------------------------------- reading


def chunks(
    item: Input,
    start: int = 0,
    end: int | None = None,
    *,
    stdin: Readable | None = None,
    record_limit: int = RECORD_LIMIT,
    document_limit: int = DOCUMENT_LIMIT,
    block: int = BLOCK,
) -> Iterator[Chunk]:
    """The records of one input, or of one range that `split_ranges` gave. Faults come with the chunks; nothing is raised.

    A chunk may hold faults and no lines. A record longer than about `record_limit` is a Fault; so is a top-level array or envelope longer than
    `document_limit`, of which the part up to there is delivered.
    """
    reading = _Reading(item.name)
    if item.path is None:
        yield from reading.chunks(stdin if stdin is not None else sys.stdin.buffer, start, end, record_limit, document_limit, block)
        return
    try:
        file = Path(item.path).open("rb", buffering=0)  # noqa: SIM115  (closed below; opening alone may fail here)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        yield Chunk(item.name, 0, [], item.size, [Fault(item.name, 0, f"cannot be opened: {reason}")])
        return
    with file:
        yield from reading.chunks(file, start, end, record_limit, document_limit, block)


class _Reading(Content):
    """Content to chunks."""

    def chunk(self, base: int, lines: list[bytes], starts: array[int] | None = None) -> Chunk:
        faults, self.faults = self.faults, []
        return Chunk(self.name, base, lines, self.done, faults, starts)

    def chunks(self, file: Readable, start: int, end: int | None, record_limit: int, document_limit: int, block: int) -> Iterator[Chunk]:
        part = start > 0 or end is not None
        try:
            if start:
                file.seek(start)
        except OSError as error:
            self.fault(start, f"cannot be read: {error.strerror}")
            yield self.chunk(start, [])
            return
        self.position = start
        blocks = self.text(file, None if end is None else end - start, block, plain=start > 0)
        first: list[bytes] = []
        held = 0
        kind: str | None = "ndjson" if start > 0 else None
        for piece in blocks:
            first.append(piece)
            held += len(piece)
            kind = kind or classify(b"".join(first), final=False)
            if kind:
                break
            if held > record_limit:
                kind = "json"
                break
        else:
            kind = classify(b"".join(first), final=True)
        base = self.position - held
        if part and kind == "json":
            kind = "ndjson"  # a range exists only for a file that was seen to be JSON Lines
        content = chain(first, blocks)
        if kind == "ndjson":
            yield from self._ndjson(content, base, record_limit)
        elif kind == "json":
            yield from self._json(content, base, record_limit, document_limit, block)
        elif kind == "csv":
            yield from self._csv(content, base, record_limit, block)
        elif kind != "empty":
            text = b"".join(first)
            self.fault(base, foreign(text), text[:1024])
        if self.faults:
            yield self.chunk(self.position, [])

    # ------------------------------------------------ JSON Lines

    def _ndjson(self, blocks: Iterator[bytes], base: int, limit: int) -> Iterator[Chunk]:
        parts: list[bytes] = []  # the line that is not complete yet
        held = 0
        skipping = False  # that line is over the limit: only its beginning is kept
        for block in blocks:
            text = block
            if skipping:
                first = text.find(b"\n")
                if first < 0:
                    held += len(text)
                    continue
                self.fault(base, f"record is longer than {limit} bytes", b"".join(parts))
                base += held + first + 1
                text, parts, held, skipping = text[first + 1 :], [], 0, False
            every = cut(text)
            rest = every.pop() if every and text[-1:] != b"\n" else b""
            if not every:
                parts.append(text)
                held += len(text)
                if held > limit:
                    parts, skipping = [b"".join(parts)[:SHOWN]], True
                continue
            if held:
                parts.append(every[0])
                every[0] = b"".join(parts)
            yield self._lines(every, base, limit, damaged=b"\0" in text or b"\0" in every[0], long=held + len(text) > limit)
            base += held + len(text) - len(rest)
            parts, held = [rest], len(rest)
        if skipping:
            self.fault(base, f"record is longer than {limit} bytes", b"".join(parts))
        elif held:
            last = b"".join(parts)
            yield self._lines([last], base, limit, damaged=b"\0" in last, long=held > limit)

    def _lines(self, every: list[bytes], base: int, limit: int, *, damaged: bool, long: bool) -> Chunk:
        """Complete lines to a chunk. Envelopes show by their first key. `long`: one of them may be over the limit."""
        lines = every
        starts: array[int] | None = None
        begin = heads(lines)
        if damaged or not all(map(bytes.strip, begin)):  # a blank line has a blank head
            lines, starts = self._sift(every, base)
            begin = heads(lines)
        if wrapped(lines, begin) or (long and lines and max(map(len, lines)) > limit):
            place = Chunk("", base, lines, 0, [], starts)
            batch = Batch(self, limit)
            for index, line in enumerate(lines):
                batch.add(line.removesuffix(b"\n"), place.offset(index))
            lines, starts = batch.take()
        return self.chunk(base, lines, starts)

    def _sift(self, every: list[bytes], base: int) -> tuple[list[bytes], array[int]]:
        """Without blank lines, and without NUL bytes around lines (a crash or a copied sparse file leaves them)."""
        lines: list[bytes] = []
        starts = array("q")
        for whole in every:
            line = whole.removesuffix(b"\n")
            bare = line.strip(b"\0") if line[:1] == b"\0" or line[-1:] == b"\0" else line
            if bare.strip():
                lines.append(bare)
                starts.append(base + len(line) - len(line.lstrip(b"\0")))
            elif len(bare) != len(line):
                self.fault(base, f"{len(line) - len(bare)} NUL bytes where a record should be", line[:64])
            base += len(whole)
        return lines, starts

    # ------------------------------------------------ documents

    def _json(self, blocks: Iterator[bytes], base: int, limit: int, document_limit: int, block: int) -> Iterator[Chunk]:
        """Top-level values, one after the other, however they are laid out; each is held whole and opened if it is an array or an envelope."""
        batch = Batch(self, limit)
        for text, at in values(blocks, base, document_limit):
            if len(text) > document_limit:
                self.fault(at, f"a JSON document is longer than {document_limit} bytes: read up to there; one record a line has no limit")
            for lines, starts in batch.open(text, at, block):
                yield self.chunk(starts[0] if starts else at, lines, starts)
        if batch.lines:
            yield self.chunk(batch.starts[0], batch.lines, batch.starts)

    # ------------------------------------------------ CSV

    def _csv(self, blocks: Iterator[bytes], base: int, limit: int, block: int) -> Iterator[Chunk]:
        source = _Rows(blocks, base)
        csv.field_size_limit(min(limit + 1, sys.maxsize))
        rows: Iterator[list[str]] | None = None
        column = -1
        blank = 0
        batch = Batch(self, limit)
        size = 0
        while True:
            at = source.position
            try:
                if rows is None:
                    rows = csv.reader(source, delimiter=source.delimiter())
                row = next(rows, None)
            except csv.Error as error:
                self.fault(at, f"CSV row cannot be read: {error}")
                rows = csv.reader(source, delimiter=source.delimiter())
                continue
            if row is None:
                break
            if not row:
                continue
            if column < 0:
                column = _json_column(row, header=at == base)
                if column < 0:
                    blank += at != base
                    continue
                if at == base:
                    continue  # the header names the column; its rows follow
            cell = row[column].strip() if column < len(row) else ""
            if not cell.startswith("{"):
                self.fault(at, f"no JSON in column {column + 1}", ",".join(row).encode("utf-8", "surrogateescape"))
                continue
            record = cell.encode("utf-8", "surrogateescape")
            batch.add(record, at)
            size += len(record)
            if size >= block or len(self.faults) >= 1000:
                yield self.chunk(batch.starts[0] if batch.starts else at, *batch.take())
                size = 0
        if blank:
            self.fault(base, f"CSV: {blank} rows before the first with a JSON column")
        if batch.lines:
            yield self.chunk(batch.starts[0], *batch.take())


class _Rows:
    """Lines of text for the CSV reader; `position` is the offset of the next one."""

    def __init__(self, blocks: Iterator[bytes], base: int) -> None:
        self.position = base
        self._blocks = blocks
        self._ready: list[bytes] = []
        self._rest = b""
        self._delimiter = ""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if not self._ready and not self._fill():
            raise StopIteration
        line = self._ready.pop()
        self.position += len(line)
        return line.decode("utf-8", "surrogateescape")

    def delimiter(self) -> str:
        """Comma, semicolon or tab, whichever the header has most of."""
        if not self._delimiter:
            if not self._ready:
                self._fill()
            header = self._ready[-1] if self._ready else b""
            self._delimiter = max(",;\t", key=lambda mark: header.count(mark.encode()))
        return self._delimiter

    def _fill(self) -> bool:
        parts = [self._rest]
        self._rest = b""
        for block in self._blocks:
            parts.append(block)
            if b"\n" in block:
                text = b"".join(parts)
                cut = text.rfind(b"\n") + 1
                self._rest = text[cut:]
                self._ready = _keep(text[:cut])
                return True
        text = b"".join(parts)
        self._ready = _keep(text)
        return bool(self._ready)


def _keep(text: bytes) -> list[bytes]:
    """Lines with their ends, last first; only a line feed ends one."""
    lines = [line + b"\n" for line in text.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return [line for line in reversed(lines) if line]


def _json_column(row: list[str], *, header: bool) -> int:
    """The column that carries JSON: in a header the one called AuditData, in a row the first that begins like an object; else -1."""
    for index, cell in enumerate(row):
        if cell.strip().lower() == "auditdata" if header else cell.lstrip().startswith("{"):
            return index
    return -1
