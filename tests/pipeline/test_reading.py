"""Whatever holds the records, and whatever is wrong with it, the records come out in order and the rest is said."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import os
import random
import socket
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from aftergate.errors import ReadError
from aftergate.pipeline.reading import Chunk, Fault, Input, chunks, plan, split_ranges

ROWS: list[dict[str, Any]] = [{"n": 1, "text": "a"}, {"n": 2, "text": '}{ [\\" ü'}, {"n": 3, "events": [{"x": [{}, {}]}]}]


def read(path: Path, **limits: int) -> tuple[list[Any], list[Fault]]:
    """All records, decoded, and all faults."""
    found = [chunk for item in plan([path]) for chunk in chunks(item, **limits)]
    return [json.loads(line) for chunk in found for line in chunk.lines], [fault for chunk in found for fault in chunk.faults]


def compact(rows: list[dict[str, Any]]) -> list[str]:
    return [json.dumps(row, ensure_ascii=False) for row in rows]


def as_csv(rows: list[dict[str, Any]], column: str = "AuditData", delimiter: str = ",") -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(["Id", "Note", column])
    writer.writerows([i, "free, text", text] for i, text in enumerate(compact(rows)))
    return out.getvalue()


CONTAINERS: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "lines": lambda rows: "".join(f"{line}\n" for line in compact(rows)),
    "lines without the last end": lambda rows: "\n".join(compact(rows)),
    "lines with CRLF": lambda rows: "".join(f"{line}\r\n" for line in compact(rows)),
    "lines with blanks between": lambda rows: "\n" + "".join(f"{line}\n\n  \n" for line in compact(rows)),
    "array": json.dumps,
    "array, pretty": lambda rows: json.dumps(rows, indent=2),
    "array, one record a line": lambda rows: "[\n" + ",\n".join(compact(rows)) + "\n]\n",
    "array of arrays": lambda rows: json.dumps([[row] for row in rows]),
    "Records": lambda rows: json.dumps({"Records": rows}),
    "Records, pretty": lambda rows: json.dumps({"Records": rows}, indent=1),
    "records": lambda rows: json.dumps({"records": rows}),
    "value": lambda rows: json.dumps({"@odata.context": "x", "value": rows, "@odata.nextLink": "y"}),
    "events": lambda rows: json.dumps({"events": rows, "nextToken": "abc"}),
    "items": lambda rows: json.dumps({"kind": "admin#reports#activities", "etag": "x", "items": rows}),
    "LookupEvents": lambda rows: json.dumps(
        {"Events": [{"EventId": "1", "CloudTrailEvent": t} for t in compact(rows)], "NextToken": "x"}, indent=4
    ),
    "LookupEvents, one a line": lambda rows: "".join(json.dumps({"EventId": "1", "CloudTrailEvent": t}) + "\n" for t in compact(rows)),
    "CloudWatch": lambda rows: json.dumps({"events": [{"timestamp": 1, "message": t, "ingestionTime": 2} for t in compact(rows)]}),
    "delivered file a line": lambda rows: "".join(json.dumps({"Records": [row]}) + "\n" for row in rows),
    "objects, pretty, one after the other": lambda rows: "\n".join(json.dumps(row, indent=2) for row in rows),
    "objects on one line": lambda rows: "".join(compact(rows)),
    "objects on one line, blanks between": lambda rows: "  ".join(compact(rows)),
    "envelopes, pretty, one after the other": lambda rows: "".join(json.dumps({"Records": [row]}, indent=2) for row in rows),
    "csv": as_csv,
    "csv with semicolons": lambda rows: as_csv(rows, "auditdata", ";"),
    "csv, other column": lambda rows: as_csv(rows, "payload"),
}
ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "utf-8": lambda text: text.encode(),
    "utf-8 with mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16 big end first": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
}
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "gzip of many members": lambda data: b"".join(gzip.compress(data[i : i + 7]) for i in range(0, len(data), 7)) + bytes(512),
    "zstd": zstandard.compress,
    "zstd of many frames": lambda data: b"".join(zstandard.compress(data[i : i + 100]) for i in range(0, len(data), 100)),
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_reads_the_same(tmp_path: Path, container: str, encoding: str, packing: str) -> None:
    """The records of any container, encoding and compression come back in order, without faults."""
    path = tmp_path / "no-suffix"
    path.write_bytes(PACKINGS[packing](ENCODINGS[encoding](CONTAINERS[container](ROWS))))
    assert read(path) == (ROWS, [])


keys = st.text(max_size=6).filter(lambda k: k not in {"CloudTrailEvent", "AuditData", "message"})
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(keys, v, max_size=3),
    max_leaves=6,
)
# `z` keeps a record from being an envelope by chance: an object of nothing but `{"value": []}` is one.
records = st.lists(st.dictionaries(keys, values, max_size=4).map(lambda d: {"z": 0} | d), min_size=1, max_size=8)


@given(
    rows=records,
    container=st.sampled_from(sorted(CONTAINERS)),
    encoding=st.sampled_from(sorted(ENCODINGS)),
    packing=st.sampled_from(sorted(PACKINGS)),
    block=st.integers(16, 300),
)
def test_any_records_survive_any_container(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], container: str, encoding: str, packing: str, block: int
) -> None:
    """Property: reading gives back what was written, wherever block ends fall."""
    path = tmp_path_factory.mktemp("any") / "log"
    path.write_bytes(PACKINGS[packing](ENCODINGS[encoding](CONTAINERS[container](rows))))
    assert read(path, block=block) == (rows, [])


@given(rows=records, gaps=st.lists(st.sampled_from(["\n", "\r\n", "\n\n", "\n \n"]), min_size=8, max_size=8), block=st.integers(16, 300))
def test_offsets_point_at_the_records(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], gaps: list[str], block: int
) -> None:
    """Property: the bytes at a line's offset are the line."""
    path = tmp_path_factory.mktemp("any") / "log"
    content = "".join(line + gap for line, gap in zip(compact(rows), gaps, strict=False)).encode()
    path.write_bytes(content)
    lines = 0
    for chunk in chunks(plan([path])[0], block=block):
        for index, line in enumerate(chunk.lines):
            lines += 1
            assert content[chunk.offset(index) :].startswith(line)
    assert lines == len(rows)


@pytest.mark.parametrize(
    "container", ["array", "array, pretty", "Records", "value", "objects, pretty, one after the other", "objects on one line"]
)
def test_offsets_in_documents(tmp_path: Path, container: str) -> None:
    """A record inside a document has the offset where its text begins."""
    content = CONTAINERS[container](ROWS).encode()
    (tmp_path / "log").write_bytes(content)
    (chunk,) = chunks(plan([tmp_path / "log"])[0])
    assert all(content[chunk.offset(i) :].startswith(line) for i, line in enumerate(chunk.lines))
    assert len(chunk.lines) == len(ROWS)


def test_a_record_that_has_events_is_no_envelope(tmp_path: Path) -> None:
    """Google's activities and Kubernetes lists of their own keep their inner lists."""
    rows = [
        {"kind": "admin#reports#activity", "id": {"time": "t"}, "events": [{"name": "x"}]},
        {"events": [{"n": 1}], "id": "own"},
        {"value": [1]},
    ]
    path = tmp_path / "log"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    assert read(path) == (rows[:2], [])


# ------------------------------------------------------------------ damage


def faulty(path: Path, data: bytes, **limits: int) -> tuple[list[Any], list[str]]:
    path.write_bytes(data)
    rows, faults = read(path, **limits)
    assert all(fault.name == str(path) and fault.offset >= 0 and len(fault.record) <= 64 << 10 for fault in faults)
    return rows, [fault.reason for fault in faults]


LINES = CONTAINERS["lines"](ROWS * 400).encode()


def test_truncated_gzip_gives_what_is_readable(tmp_path: Path) -> None:
    """A cut gzip file yields all records before the cut and one fault for the cut; the line the cut goes through is passed on as it is."""
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(LINES)[:-20])
    found = list(chunks(plan([path])[0]))
    lines = [line for chunk in found for line in chunk.lines]
    assert len(lines) > 1000
    assert [json.loads(line) for line in lines[:-1]] == (ROWS * 400)[: len(lines) - 1]
    assert ["cut off" in fault.reason for chunk in found for fault in chunk.faults] == [True]


def test_truncated_envelope_gives_what_is_readable(tmp_path: Path) -> None:
    """A CloudTrail file cut in the middle still yields the complete records, in gzip as well."""
    whole = json.dumps({"Records": ROWS * 5}).encode()
    rows, reasons = faulty(tmp_path / "log", whole[:-30])
    assert rows == (ROWS * 5)[:-1]
    assert len(reasons) == 1
    rows, reasons = faulty(tmp_path / "log.gz", gzip.compress(json.dumps({"Records": ROWS * 500}).encode())[:-40])
    assert rows == (ROWS * 500)[: len(rows)]
    assert len(rows) > 1000
    assert len(reasons) == 2


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress])
def test_damaged_compression(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """Bytes flipped in the middle end the file there, with a fault."""
    data = bytearray(pack(LINES + random.Random(7).randbytes(200_000).hex().encode()))
    data[len(data) // 2 : len(data) // 2 + 40] = b"\xff" * 40
    path = tmp_path / "log"
    path.write_bytes(bytes(data))
    found = list(chunks(plan([path])[0]))
    faults = [fault.reason for chunk in found for fault in chunk.faults]
    assert len(faults) == 1
    assert "damaged" in faults[0]


def test_truncated_zstd(tmp_path: Path) -> None:
    """A cut zstd file is said to be cut."""
    path = tmp_path / "log"
    path.write_bytes(zstandard.compress(LINES)[:-10])
    assert any("cut off" in fault.reason for chunk in chunks(plan([path])[0]) for fault in chunk.faults)


def test_garbage_after_gzip(tmp_path: Path) -> None:
    """What follows the gzip data is said and left out."""
    rows, reasons = faulty(tmp_path / "log", gzip.compress(LINES) + b"garbage")
    assert len(rows) == 1200
    assert reasons == ["bytes after the end of the gzip data"]


def test_a_50_megabyte_line(tmp_path: Path) -> None:
    """One huge record among small ones comes through whole."""
    path = tmp_path / "log"
    path.write_bytes(b'{"n":1}\n{"text":"' + b"x" * (50 << 20) + b'"}\n{"n":2}\n')
    rows, faults = read(path)
    assert [len(str(row)) > 1000 for row in rows] == [False, True, False]
    assert faults == []


@pytest.mark.parametrize("first", [b'{"n":1}\n', b""])
def test_a_record_over_the_limit(tmp_path: Path, first: bytes) -> None:
    """A record over the limit is a fault with its offset, and its neighbours are read."""
    path = tmp_path / "log"
    path.write_bytes(first + b'{"text":"' + b"x" * 10_000 + b'"}\n{"n":2}\n{"n":3}')
    rows, faults = read(path, record_limit=1000, block=256)
    assert rows == ([{"n": 1}] if first else []) + [{"n": 2}, {"n": 3}]
    assert [(fault.offset, fault.reason) for fault in faults] == [(len(first), "record is longer than 1000 bytes")]


def test_a_document_over_the_limit(tmp_path: Path) -> None:
    """Of an array that is too long the part up to the limit is read."""
    rows, reasons = faulty(tmp_path / "log", json.dumps([{"n": i} for i in range(5000)]).encode(), document_limit=20_000, block=1000)
    assert 1000 < len(rows) < 5000
    assert rows == [{"n": i} for i in range(len(rows))]
    assert "longer than 20000" in reasons[0]


def test_deep_nesting(tmp_path: Path) -> None:
    """A thousand levels and more: a line is passed on for the normaliser to refuse, an element of an array is a fault, neighbours are read."""
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    path = tmp_path / "log"
    path.write_text(f'{deep}\n{{"n":1}}\n')
    lines = [line for chunk in chunks(plan([path])[0]) for line in chunk.lines]
    assert [line.rstrip(b"\n") for line in lines] == [deep.encode(), b'{"n":1}']
    assert faulty(path, f'[{{"n":0}},{deep},{{"n":1}}]'.encode()) == ([{"n": 0}, {"n": 1}], ["nested too deep"])
    assert faulty(path, ("[" * 100_000).encode())[0] == []


def test_broken_elements_leave_the_others(tmp_path: Path) -> None:
    """One bad element of an envelope is set aside alone."""
    rows, reasons = faulty(tmp_path / "log", b'{"Records":[{"n":1},{"n":oops},{"n":2}]}')
    assert rows == [{"n": 1}, {"n": 2}]
    assert len(reasons) == 1
    rows, reasons = faulty(tmp_path / "log", b'[{"n":1}, 7, "x", null, {"n":2}]')
    assert rows == [{"n": 1}, {"n": 2}]
    assert reasons == ["not a JSON object"] * 3


def test_a_broken_object_between_pretty_ones(tmp_path: Path) -> None:
    """Concatenated objects find their feet again after a broken one."""
    rows, reasons = faulty(tmp_path / "log", b'{\n "n": 1\n}\n{\n "n": "open\n}\n{\n "n": 2\n}\n')
    assert rows == [{"n": 1}, {"n": 2}]
    assert len(reasons) == 1


def test_bad_utf8_passes_through_lines(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are the normaliser's to judge: the line arrives as it is."""
    path = tmp_path / "log"
    path.write_bytes(b'{"n":1}\n{"n":"\xff\xfe"}\n{"n":2}\n')
    assert [line.rstrip(b"\n") for chunk in chunks(plan([path])[0]) for line in chunk.lines] == [
        b'{"n":1}',
        b'{"n":"\xff\xfe"}',
        b'{"n":2}',
    ]


def test_nul_bytes(tmp_path: Path) -> None:
    """Runs of NUL that a crash leaves are faults and cost no record beside them."""
    path = tmp_path / "log"
    rows, reasons = faulty(path, b'{"n":1}\n' + bytes(100) + b'{"n":2}\n' + bytes(50) + b'\n{"n":3}\n' + bytes(9))
    assert rows == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert reasons == ["50 NUL bytes where a record should be", "9 NUL bytes where a record should be"]


@pytest.mark.parametrize(
    "data", [b"", b"\n\n \r\n", gzip.compress(b"", mtime=0), zstandard.compress(b""), codecs.BOM_UTF8, codecs.BOM_UTF16_LE]
)
def test_empty_files(tmp_path: Path, data: bytes) -> None:
    """Nothing in, nothing out, nothing wrong."""
    assert faulty(tmp_path / "log", data) == ([], [])


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"# Notes\n\nSome prose, no logs.\n", "not a log"),
        (b"a,b,c\n1,2,3\n", "not a log"),
        (b"PK\x03\x04rest", "zip"),
        (b"PAR1rest", "Parquet"),
        (random.Random(7).randbytes(5000).replace(b"{", b"x").replace(b"[", b"x"), ""),
        (b"null\n", "not a log"),
    ],
)
def test_files_that_are_no_logs(tmp_path: Path, data: bytes, word: str) -> None:
    """A file without records is one fault, not a fault a line."""
    rows, reasons = faulty(tmp_path / "log", data)
    assert rows == []
    assert len(reasons) == 1
    assert word in reasons[0]


def test_lines_after_a_broken_first_line(tmp_path: Path) -> None:
    """A log that was rotated in the middle of a record is still JSON Lines."""
    path = tmp_path / "log"
    path.write_bytes(b'lf": true}\n' + LINES)
    found = [line for chunk in chunks(plan([path])[0]) for line in chunk.lines]
    assert len(found) == 1201


def test_csv_damage(tmp_path: Path) -> None:
    """A row without JSON is a fault with its offset; the rows around it are read."""
    text = 'Id,AuditData\n1,"{""n"":1}"\n2,\n3,"{""n"":\n3}"\n'
    path = tmp_path / "log"
    path.write_text(text)
    rows, faults = read(path)
    assert rows == [{"n": 1}, {"n": 3}]
    assert [(fault.offset, fault.reason) for fault in faults] == [(text.index("2,"), "no JSON in column 2")]


def test_a_file_that_vanishes_or_cannot_be_read(tmp_path: Path) -> None:
    """Between plan and read anything may happen; it becomes a fault."""
    path = tmp_path / "log"
    path.write_bytes(LINES)
    (item,) = plan([path])
    path.unlink()
    (chunk,) = chunks(item)
    assert chunk.lines == []
    assert "cannot be opened" in chunk.faults[0].reason
    path.mkdir()
    (chunk,) = chunks(item)
    assert len(chunk.faults) == 1


def test_reading_that_stops(tmp_path: Path) -> None:
    """An input/output error in the middle keeps what was read."""

    class Failing:
        def __init__(self) -> None:
            self.left = [LINES, LINES[:1000]]

        def read(self, _size: int = -1, /) -> bytes:
            if not self.left:
                raise OSError(5, "Input/output error")
            return self.left.pop(0)

        def seek(self, _offset: int, /) -> int:
            raise OSError(29, "Illegal seek")

    found = list(chunks(Input("-", None, 0), stdin=Failing()))
    assert sum(len(chunk.lines) for chunk in found) > 1200
    assert [fault.reason for chunk in found for fault in chunk.faults] == ["reading stopped: Input/output error"]


# ------------------------------------------------------------------ plan and ranges


def test_plan_walks_in_order_and_passes_over_what_is_no_file(tmp_path: Path) -> None:
    """Folders are walked sorted; sockets, pipes, hidden names, dangling links and loops are passed over; each file comes once."""
    for name in ("b/2.json", "b/10.json", "a.json", "c/d/e.json", ".hidden/x.json", "c/.x.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"n":1}\n')
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "c" / "up").symlink_to(tmp_path / "c")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / "z-link.json").symlink_to(tmp_path / "a.json")
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as server:
        try:
            os.chdir(tmp_path)  # the path of a socket may not be long
            server.bind("socket")
        finally:
            os.chdir(here)
    names = [Path(item.name).relative_to(tmp_path).as_posix() for item in plan([tmp_path, tmp_path / "a.json"])]
    assert names == ["a.json", "b/10.json", "b/2.json", "c/d/e.json"]
    assert len(plan([tmp_path], hidden=True)) == 6


def test_plan_says_which_path_does_not_exist(tmp_path: Path) -> None:
    """A path that is not there is the user's mistake, told before anything is read."""
    with pytest.raises(ReadError, match="missing"):
        plan([tmp_path / "missing"])
    with pytest.raises(ReadError):
        plan(["bad\0name"])


def test_plan_guesses_from_content(tmp_path: Path) -> None:
    """Container, packing and encoding are known before reading, and the name plays no part."""
    for name, data in (("x.csv", LINES), ("y.json", gzip.compress(LINES)), ("z.log", as_csv(ROWS).encode("utf-16"))):
        (tmp_path / name).write_bytes(data)
    found = [(item.container, item.packing, item.encoding) for item in plan([tmp_path])]
    assert found == [("ndjson", "", "utf-8"), ("ndjson", "gzip", "utf-8"), ("csv", "", "utf-16-le")]


def test_standard_input() -> None:
    """`-` is read once, as a stream."""
    (item,) = plan(["-", "-"])
    found = list(chunks(item, stdin=io.BytesIO(gzip.compress(LINES))))
    assert sum(len(chunk.lines) for chunk in found) == 1200


def test_a_named_pipe_is_read(tmp_path: Path) -> None:
    """A pipe named by the user is read, and planning takes nothing out of it."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    (item,) = plan([path])
    writer = os.open(path, os.O_RDWR)
    os.write(writer, b'{"n":1}\n{"n":2}\n')
    found: Iterator[Chunk] = chunks(item, end=16)
    assert [line.rstrip(b"\n") for chunk in found for line in chunk.lines] == [b'{"n":1}', b'{"n":2}']
    os.close(writer)


@given(rows=records, parts=st.integers(1, 6), block=st.integers(16, 200), mark=st.booleans())
def test_ranges_together_are_the_file(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], parts: int, block: int, mark: bool
) -> None:
    """Property: the ranges cover the file, begin at line starts, and read the same records with the same offsets."""
    path = tmp_path_factory.mktemp("any") / "log"
    content = (codecs.BOM_UTF8 if mark else b"") + CONTAINERS["lines"](rows).encode()
    path.write_bytes(content)
    (item,) = plan([path])
    ranges = split_ranges(item, parts, least=1)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == len(content)
    assert all(before[1] == after[0] for before, after in pairwise(ranges))
    found: list[Any] = []
    for start, end in ranges:
        done = 0
        for chunk in chunks(item, start, end, block=block):
            assert not chunk.faults
            done = chunk.done
            for index, line in enumerate(chunk.lines):
                assert content[chunk.offset(index) :].startswith(line)
                found.append(json.loads(line))
        assert done == end - start
    assert found == rows


def test_only_plain_lines_are_split(tmp_path: Path) -> None:
    """Compressed and other files are one range."""
    for data in (gzip.compress(LINES), json.dumps(ROWS * 400).encode(), LINES.decode().encode("utf-16")):
        (tmp_path / "log").write_bytes(data)
        (item,) = plan([tmp_path / "log"])
        assert split_ranges(item, 4, least=1) == [(0, len(data))]
