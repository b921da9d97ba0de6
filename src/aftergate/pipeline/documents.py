"""What JSON looks like before it is parsed: which layout a text has, where its values end, what an envelope holds.

Values are cut out with msgspec.Raw, so nothing here builds objects out of records.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

import msgspec

from aftergate.pipeline.unpacking import Content

ENOUGH: Final = 64 << 10  # bytes that are looked at before a layout is settled

# Keys whose array holds the records, and keys that stand beside it. `Records` needs no more proof; the others count only beside these,
# since a record of its own may have `events` or `items` too.
_LISTS: Final = ("Records", "records", "value", "events", "Events", "items", "entries", "logs", "data", "logEvents", "auditLogs")
_BESIDE: Final = frozenset(
    """
    NextToken nextToken next_token nextPageToken next_page_token nextLink next cursor has_more hasMore first_id last_id count total
    ResponseMetadata searchedLogStreams messageType owner logGroup logStream subscriptionFilters kind apiVersion metadata etag object meta
    links start limit length page
    """.split()
)
_TEXTS: Final = ("CloudTrailEvent", "AuditData", "message")  # keys whose value is a record as JSON text
_MESSAGE: Final = frozenset({"id", "eventId", "timestamp", "ingestionTime", "message", "logStreamName", "extractedFields"})
# First keys that alone make a record worth looking into: of envelopes, and of wrappers that LookupEvents, Purview and CloudWatch put around one record.
_FIRST: Final = (
    "NextToken nextToken next_token nextPageToken ResponseMetadata searchedLogStreams messageType object has_more first_id "
    "CloudTrailEvent EventId EventName ReadOnly AccessKeyId EventTime EventSource Username Resources "
    "AuditData PSComputerName RunspaceId RecordType CreationDate UserIds Operations Identity ResultIndex "
    "eventId logStreamName ingestionTime"
).split()
# How a record begins that may be an envelope or a wrapper; only these are looked into. Vendors' own records begin otherwise.
WRAPPER: Final = re.compile(
    rb"""
    \s*+(?: \[ | \{\s*+"(?:
        (?:"""
    + "|".join(_LISTS).encode()
    + rb""")"\s*+:\s*+\[
      | @odata | @nextLink
      | kind"\s*+:\s*+"(?:[A-Za-z]*+(?<=List)"|[a-z]++\#[a-z]++\#activities")
      | apiVersion"\s*+:\s*+"[^"]*+"\s*+,\s*+"items"
      | (?:"""
    + "|".join(_FIRST).encode()
    + rb""")"
    ))
    """,
    re.VERBOSE,
)
_KEYS: Final = tuple(key.encode() for key in (*_LISTS, *_FIRST, "@odata", "@nextLink", "kind", "apiVersion"))
_ANY_LIST: Final = re.compile(rb'"(?:' + "|".join(_LISTS).encode() + rb')"\s*+:\s*+(?=\[)')
_BETWEEN: Final = re.compile(rb"[\s,]*+")
_BOUNDARY: Final = re.compile(rb"[}\]]\s*+(?=[{\[])")
_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)

_WRONG: Final = (msgspec.MsgspecError, UnicodeDecodeError)
_raw = msgspec.json.Decoder(msgspec.Raw).decode
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_text = msgspec.json.Decoder(str).decode


def wrapped(lines: list[bytes], begin: set[bytes]) -> bool:
    """Whether any of these records may be an envelope or a wrapper. Lines of one log begin alike, so their `heads` settle it nearly always."""
    return any(map(_opens, begin)) and any(map(WRAPPER.match, lines))


@lru_cache(maxsize=4096)
def _opens(head: bytes) -> bool:
    """False for the first bytes of a record that WRAPPER never matches."""
    if not head.startswith(b'{"'):
        return True
    name = head[2:].partition(b'"')[0]
    return any(key.startswith(name) for key in _KEYS)


def classify(text: bytes, *, final: bool) -> str | None:
    """ndjson, json, csv, empty or unknown, from the beginning of the content; None if more of it is needed.

    `final` says that `text` is all there is.
    """
    bare = text.lstrip(b" \t\r\n\0")
    if not bare:
        return "empty" if final else None
    if bare[:1] == b"[":
        return "json"
    end = bare.find(b"\n")
    if not final and (end < 0 or len(text) < ENOUGH):
        return None
    lines = bare[: 1 << 20].split(b"\n") if end < 1 << 20 else [bare[:end]]
    if len(lines) > 1 and not (final and len(bare) <= 1 << 20):
        lines.pop()
    sample = [line for line in (raw.strip(b" \t\r\0") for raw in lines[:60]) if line]
    good = sum(1 for line in sample if line[:1] == b"{" and complete(line))
    if good and (good * 2 > len(sample) or (sample[0][:1] == b"{" and complete(sample[0]))):
        return "ndjson"
    if bare[:1] == b"{":
        return "json"
    if _table(sample):
        return "csv"
    return "ndjson" if good else "unknown"


def complete(text: bytes) -> bool:
    """Is it one JSON value? One nested too deep to check is taken by its ends."""
    try:
        _raw(text)
    except _WRONG:
        return False
    except RecursionError:
        return text[-1:] == b"}"
    return True


def _table(sample: list[bytes]) -> bool:
    """Do these lines look like CSV of which one column holds JSON?"""
    text = [line.decode("utf-8", "surrogateescape") for line in sample]
    if not text:
        return False
    delimiter = max(",;\t", key=text[0].count)
    try:
        rows = list(csv.reader(text, delimiter=delimiter))
    except csv.Error:
        return any('"{' in line for line in text[1:])
    if any(cell.strip().lower() == "auditdata" for cell in rows[0]):
        return True
    return any(cell.lstrip().startswith("{") for row in rows[1:] for cell in row) and not any(
        cell.strip()[:1] in ("{", "[") for cell in rows[0]
    )


def foreign(text: bytes) -> str:
    for magic, what in (
        (b"PK\x03\x04", "a zip archive: unpack it first"),
        (b"BZh", "bzip2: unpack it first"),
        (b"\xfd7zXZ", "xz: unpack it first"),
        (b"PAR1", "Parquet: write it as JSON Lines first"),
        (b"SQLite format 3", "a SQLite database"),
        (b"\x7fELF", "a program"),
        (b"\x89PNG", "a picture"),
        (b"%PDF", "a PDF"),
    ):
        if text.startswith(magic):
            return f"not a log: {what}"
    return "not a log: no JSON records and no CSV column of JSON in it"


def values(blocks: Iterable[bytes], base: int, limit: int) -> Iterator[tuple[bytes, int]]:
    """Concatenated top-level values with their offsets. A value over the limit ends the stream, cut there.

    Inside one valid value a closing bracket is never followed by an opening one with only blanks between, unless in a string, and strings
    hold no line ends. So a pair with a line end between is a boundary for sure, and any other is one if an even number of quotes came before.
    """
    held = bytearray()
    counted = searched = 0  # quotes are counted, and boundaries looked for, up to here
    odd = False
    for block in blocks:
        held += block
        begin = 0
        for match in _BOUNDARY.finditer(held, searched):
            here = match.start() + 1
            if b"\n" not in match[0]:
                odd ^= _quotes(held[counted:here])
                counted = here
                if odd:
                    continue
            yield _copy(held, begin, here), base + begin
            begin, counted, odd = here, here, False
        solid = block.rstrip()
        if solid:
            searched = max(begin, len(held) - (len(block) - len(solid)) - 1)
        if begin:
            del held[:begin]
            base += begin
            counted -= begin
            searched = max(searched - begin, 0)
        if len(held) > limit:
            yield bytes(held), base
            return
    if held.strip(b" \t\r\n\0"):
        yield bytes(held), base


def _copy(held: bytearray, begin: int, end: int) -> bytes:
    with memoryview(held) as view:
        return bytes(view[begin:end])


def _quotes(text: bytearray) -> bool:
    """True for an odd number of quotes that are not escaped."""
    return bool((text.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"')) & 1)


class Batch:
    """Records being collected out of documents and envelopes."""

    def __init__(self, content: Content, limit: int) -> None:
        self.content = content
        self.limit = limit
        self.lines: list[bytes] = []
        self.starts: array[int] = array("q")

    def take(self) -> tuple[list[bytes], array[int]]:
        lines, starts = self.lines, self.starts
        self.lines, self.starts = [], array("q")
        return lines, starts

    def plain(self, record: bytes, at: int) -> None:
        if len(record) > self.limit:
            self.content.fault(at, f"record is longer than {self.limit} bytes", record)
        else:
            self.lines.append(record)
            self.starts.append(at)

    def add(self, record: bytes, at: int) -> None:
        """One record, or what its envelope holds."""
        if not WRAPPER.match(record):
            self.plain(record, at)
            return
        for item, place in self._inside(record, at, 0):
            self.plain(item, place)

    def open(self, text: bytes, at: int, block: int) -> Iterator[tuple[list[bytes], array[int]]]:
        """All records of a top-level value; full batches are handed on as they come."""
        size = 0
        for item, place in self._inside(text, at, 0):
            self.plain(item, place)
            size += len(item)
            if size >= block or len(self.content.faults) >= 1000:
                size = 0
                yield self.take()

    def _inside(self, text: bytes, at: int, depth: int) -> Iterator[tuple[bytes, int]]:
        blanks = len(text) - len(text.lstrip(b" \t\r\n\0"))
        bare = text.strip(b" \t\r\n\0") if blanks or text[-1:] in b" \t\r\n\0" else text
        at += blanks
        opener, probe = bare[:1], False
        if opener == b"{":
            try:
                fields = _object(bare)
            except RecursionError:
                yield from self._broken(bare, at, "nested too deep")
                return
            except _WRONG as error:
                yield from self._broken(bare, at, str(error))
                return
            key = _envelope(fields)
            if key is None:
                yield _unwrap(fields, bare), at
                return
            inner = bytes(fields[key])
            at += _find(bare, inner)
            bare, probe = inner, key in ("Events", "events", "logEvents")
        elif opener != b"[":
            self.content.fault(at, "not a JSON object", bare)
            return
        try:
            items = _array(bare)
        except RecursionError:
            yield from self._broken(bare, at, "nested too deep")
            return
        except _WRONG as error:
            yield from self._broken(bare, at, str(error))
            return
        position = 1
        for raw in items:
            item = bytes(raw)
            here = _after_gap(bare, position)
            position = here + len(item)
            if depth < 4 and (probe or WRAPPER.match(item)):
                yield from self._inside(item, at + here, depth + 1)
            elif item[:1] == b"{":
                yield item, at + here
            else:
                self.content.fault(at + here, "not a JSON object", item)

    def _broken(self, text: bytes, at: int, reason: str) -> Iterator[tuple[bytes, int]]:
        """A value that cannot be decoded whole: its complete elements, if it is an array or an envelope, and a fault for the rest."""
        opened = _ANY_LIST.search(text, 0, 4096) if text[:1] == b"{" and WRAPPER.match(text) else None
        if text[:1] != b"[" and opened is None:
            self.content.fault(at, f"not valid JSON: {reason}", text)
            return
        begin = opened.end() if opened else 0
        depth = 0
        first = begin
        last = begin + 1  # end of the last complete element
        for token in _TOKEN.finditer(text, begin):
            mark = token[0]
            if mark in (b"{", b"["):
                depth += 1
                if depth == 2:
                    first = token.start()
            elif mark in (b"}", b"]"):
                depth -= 1
                if depth == 0:
                    last = len(text)
                    break
                if depth == 1:
                    last = token.end()
                    item = text[first:last]
                    if item[:1] != b"{" or not complete(item):
                        self.content.fault(at + first, f"not valid JSON: {reason}", item)
                    elif _deep(item):
                        self.content.fault(at + first, "nested too deep", item)
                    else:
                        yield item, at + first
        rest = text[last:].lstrip(b" \t\r\n,")
        if rest or last < len(text):
            self.content.fault(at + last, "a JSON document is cut off: the records before the cut were read", rest)


def _after_gap(text: bytes, at: int) -> int:
    gap = _BETWEEN.match(text, at)
    return gap.end() if gap else at


def _deep(text: bytes) -> bool:
    try:
        _raw(text)
    except RecursionError:
        return True
    return False


def _envelope(fields: dict[str, msgspec.Raw]) -> str | None:
    """The key whose array holds the records, if this object is nothing but their envelope."""
    for key in _LISTS:
        raw = fields.get(key)
        if raw is not None and bytes(memoryview(raw)[:1]) == b"[":
            if key in ("Records", "records"):
                return key
            if all(other == key or other in _BESIDE or other.startswith(("@odata.", "@nextLink")) for other in fields):
                return key
    return None


def _unwrap(fields: dict[str, msgspec.Raw], record: bytes) -> bytes:
    """The record that a wrapper carries as text: LookupEvents, Purview search results, CloudWatch log events. Else the record itself."""
    for key in _TEXTS:
        raw = fields.get(key)
        if raw is None or (key == "message" and not _MESSAGE.issuperset(fields)):
            continue
        try:
            inner = _text(raw).encode()
        except (*_WRONG, UnicodeEncodeError):
            return record
        if inner.lstrip().startswith(b"{"):
            return inner.strip()
    return record


def _find(text: bytes, inner: bytes) -> int:
    """Where an envelope's array begins."""
    for match in _ANY_LIST.finditer(text):
        if text.startswith(inner, match.end()):
            return match.end()
    return 0
