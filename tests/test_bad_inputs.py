"""Inputs that are damaged, strange or gone: one clear reason for each, and everything else is still read."""

from __future__ import annotations

import errno
import gzip
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from samples import DATA, lines_of

from aftergate.errors import ConfigError, ReadError
from aftergate.events.enrich import Enricher
from aftergate.events.interning import Interner
from aftergate.pipeline import scan as scanning
from aftergate.pipeline.normalising import Normalising
from aftergate.pipeline.reading import Fault
from aftergate.pipeline.scan import Counts, Options, scan
from aftergate.pipeline.set_aside import SetAside
from aftergate.vocabulary import Event

GOOD = list(dict.fromkeys(lines_of(DATA / "quiet-week" / "okta.jsonl.gz")))[:40]
OTHER = list(dict.fromkeys(lines_of(DATA / "quiet-week" / "keycloak.jsonl.gz")))[:30]


def read(*paths: Path | str, **more: Any) -> tuple[Counts, list[Fault]]:
    """Scan with both numbers of processes; they must agree. Whatever was read is accounted for."""
    answers = []
    for jobs in (1, 2):
        faults: list[Fault] = []
        _, counts = scan(Options(paths=list(paths), jobs=jobs, tables=False, **more), set_aside=faults.append)
        assert counts.read == counts.normalised + counts.duplicates + counts.set_aside
        assert counts.set_aside == len(faults)
        answers.append((counts, faults))
    (one, first), (two, second) = answers
    assert (one.read, one.normalised, one.duplicates, one.sources) == (two.read, two.normalised, two.duplicates, two.sources)
    assert first == second
    return one, first


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Another file, of another source, that must be read whatever happens to its neighbour."""
    path = tmp_path / "zz-good.jsonl"
    path.write_bytes(b"\n".join(OTHER))
    return path


def deep(record: bytes, depth: int) -> bytes:
    return b'{"deep":' + b"[" * depth + b"]" * depth + b"," + record[1:]


WRONG = json.dumps({**json.loads(GOOD[7]), "published": ["2026"], "actor": 5, "uuid": {}}).encode()

BROKEN: dict[str, tuple[bytes, int, str]] = {
    # name: the line put among good ones, how many records it spoils, a word of the reason
    "no JSON": (b"this is not JSON", 1, "JSON"),
    "cut off": (GOOD[7][:200], 1, "JSON"),
    "a list": (b"[1, 2, 3]", 3, "JSON object"),
    "a number": (b"17", 1, "no source"),
    "an empty object": (b"{}", 1, "no source"),
    "an unknown source": (b'{"kind":"weather","degrees":17}', 1, "no source"),
    "wrong types": (WRONG, 1, ""),
    "not UTF-8": (GOOD[7].replace(b"okta", b"ok\xff\xfeta"), 1, ""),
    "1,000 deep": (deep(b'{"kind":"weather"}', 1000), 1, ""),
    "100,000 deep": (deep(GOOD[7], 100_000), 1, "deep"),
    "NaN": (GOOD[7].replace(b'"severity"', b'"extra":NaN,"severity"'), 1, "JSON"),
    "NUL": (b"\0" * 500, 1, "NUL"),
    "a comma after": (GOOD[7] + b",", 1, "JSON"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_one_bad_record_spoils_no_other(tmp_path: Path, good: Path, name: str) -> None:
    """The bad record is set aside with its reason and place; its neighbours and other files are read."""
    line, spoilt, reason = BROKEN[name]
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n".join([*GOOD[:5], line, *GOOD[10:20]]) + b"\n")
    counts, faults = read(path, good)
    assert (counts.read, counts.set_aside, counts.normalised) == (15 + spoilt + len(OTHER), spoilt, 15 + len(OTHER))
    assert reason in faults[0].reason
    assert faults[0].name == str(path)
    start = sum(len(record) + 1 for record in GOOD[:5])
    assert start <= faults[0].offset < start + len(line)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("name", BROKEN)
def test_strict_stops_at_the_first(tmp_path: Path, good: Path, name: str, jobs: int) -> None:
    """The error names file and byte, and says how to go on without."""
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n".join([*GOOD[:5], BROKEN[name][0], *GOOD[10:20], b"later"]))
    with pytest.raises(ReadError) as error:
        scan(Options(paths=[good, path], strict=True, tables=False, jobs=jobs))
    start = sum(len(record) + 1 for record in GOOD[:5])
    assert str(path) in error.value.where
    assert start <= int(error.value.where.rpartition("byte ")[2]) < start + len(BROKEN[name][0])
    assert "--strict" in str(error.value)


def test_a_long_record_is_read_or_set_aside(tmp_path: Path, good: Path) -> None:
    """50 MB in one field are read like any other; beyond the limit a record is set aside, and shortened where it is kept."""
    path = tmp_path / "long.jsonl"
    record = json.loads(GOOD[7])
    record["debugContext"] = {"debugData": {"blob": "x" * (50 << 20)}}
    path.write_bytes(b"\n".join([GOOD[0], json.dumps(record).encode(), b'{"kind":"' + b"y" * (70 << 20) + b'"}', GOOD[1]]))
    faults: list[Fault] = []
    _, counts = scan(Options(paths=[path, good], tables=False), set_aside=faults.append)
    assert (counts.normalised, counts.set_aside) == (3 + len(OTHER), 1)
    assert "longer than" in faults[0].reason
    with SetAside(tmp_path / "aside.jsonl") as keep:
        keep.add(faults[0].name, faults[0].offset, faults[0].reason, faults[0].record)
    assert (tmp_path / "aside.jsonl").stat().st_size < 200_000


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_gzip_gives_what_it_holds(tmp_path: Path, good: Path, keep: float) -> None:
    """Records before the cut are read, and the cut is reported once."""
    data = gzip.compress(b"\n".join(GOOD) + b"\n")
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(data[: int(len(data) * keep)])
    counts, faults = read(path, good)
    assert len(OTHER) < counts.normalised < len(OTHER) + len(GOOD)
    assert any("gzip" in fault.reason for fault in faults)
    assert all(fault.name == str(path) for fault in faults)


def test_a_damaged_gzip_gives_what_comes_before(tmp_path: Path, good: Path) -> None:
    """One wrong byte in the middle ends that file, not the run."""
    data = bytearray(gzip.compress(b"\n".join(GOOD)))
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / "damaged.jsonl.gz"
    path.write_bytes(data)
    counts, faults = read(path, good)
    assert counts.normalised >= len(OTHER)
    assert any("damaged" in fault.reason or "JSON" in fault.reason for fault in faults)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "picture"),
        (b"PK\x03\x04" + b"x" * 400, "zip"),
        (b"hello\nworld\n" * 30, "not a log"),
        (bytes(range(128, 256)) * 40, "not a log"),
        (b"<xml><a/></xml>", "not a log"),
    ],
)
def test_a_file_that_is_no_log(tmp_path: Path, good: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    counts, faults = read(path, good)
    assert counts.normalised == len(OTHER)
    assert len(faults) == 1
    assert reason in faults[0].reason


def test_an_empty_file_is_no_fault(tmp_path: Path, good: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "blank.jsonl").write_bytes(b"\n\n  \n")
    counts, faults = read(tmp_path)
    assert (counts.normalised, faults) == (len(OTHER), [])


def test_a_file_that_vanishes(tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen when the run began, gone when its turn comes: one line about it, and the rest is read."""
    path = tmp_path / "gone.jsonl"
    path.write_bytes(b"\n".join(GOOD))
    plan = scanning.plan

    def vanish(paths: list[str | Path]) -> Any:
        found = plan(paths)
        path.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(scanning, "plan", vanish)
    faults: list[Fault] = []
    _, counts = scan(Options(paths=[path, good], tables=False), set_aside=faults.append)
    assert counts.normalised == len(OTHER)
    assert [(fault.name, fault.reason) for fault in faults] == [(str(path), "cannot be opened: No such file or directory")]


def test_a_file_without_permission(tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, who reads everything: so opening is made to fail."""
    path = tmp_path / "secret.jsonl"
    path.write_bytes(b"\n".join(GOOD))
    opened = Path.open

    def refuse(self: Path, *args: Any, **more: Any) -> Any:
        if self == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(self, *args, **more)

    monkeypatch.setattr(Path, "open", refuse)
    counts, faults = read(path, good)
    assert counts.normalised == len(OTHER)
    assert [fault.reason for fault in faults] == ["cannot be opened: Permission denied"]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no such file here")
def test_a_file_that_cannot_be_read(good: Path) -> None:
    """Opening works, reading does not: as with a bad disk."""
    counts, faults = read("/proc/self/mem", good)
    assert counts.normalised == len(OTHER)
    assert "reading stopped" in faults[0].reason


def test_an_unknown_path_stops_before_anything_is_read(good: Path) -> None:
    with pytest.raises(ReadError, match=r"nowhere.*No such file.*give files, folders"):
        scan(Options(paths=[good, "nowhere"]))


def test_an_unknown_source_names_the_known_ones(good: Path) -> None:
    with pytest.raises(ConfigError, match=r"`okto` is no source.*okta"):
        scan(Options(paths=[good], source="okto", tables=False))


def test_a_named_source_sets_other_records_aside(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_bytes(b"\n".join([GOOD[0], OTHER[0], GOOD[1], b"{}"]))
    counts, faults = read(path, source="okta")
    assert (counts.normalised, counts.set_aside, counts.sources) == (2, 2, {"okta": 2})
    assert all(fault.reason for fault in faults)


def test_duplicates_are_counted_once_each(tmp_path: Path, good: Path) -> None:
    """Vault answers, several events out of one record and plain records alike."""
    lines = [line for folder in ("quiet-week", "scenarios", "google-workspace") for path in sorted((DATA / folder).rglob("*.jsonl*"))
             if "TRUTH" not in path.name for line in lines_of(path)[:6]]  # fmt: skip
    path = tmp_path / "once.jsonl"
    path.write_bytes(b"\n".join(lines))
    once, _ = read(path)
    again = tmp_path / "again.jsonl"
    again.write_bytes(path.read_bytes())
    twice, _ = read(path, again)
    assert twice.read == 2 * once.read
    assert twice.set_aside == 2 * once.set_aside
    normalising = Normalising(Interner(Enricher(tables=False)))
    silent = 0  # records that tell nothing, as the first stage of a Kubernetes request: each counts as read
    for line in lines:
        events: list[Event] = []
        normalising.run([line], events)
        silent += not events
    assert twice.normalised == once.normalised + silent
