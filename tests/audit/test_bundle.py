"""The rest of a bundle: form, times, heartbeats, what is kept beside the records, damaged files, and what is no bundle."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import T0, Log, ordinary
from tampering import LOG, REAL, checking, codes, fresh, started

from aftergate.audit.bundle import Bundle, write_folder, write_tar
from aftergate.audit.errors import BadBundle
from aftergate.audit.findings import Report
from aftergate.audit.notes import Verifier
from aftergate.audit.records import Record
from aftergate.audit.tiles import pack_entries, unpack_entries
from aftergate.audit.verify import verify_bundle


@pytest.fixture
def log() -> Log:
    return fresh()


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Report]:
    return checking(tmp_path)


# Form, time, heartbeats, numbers


def signed_over(*records: tuple[Record, int]) -> Log:
    log = Log(REAL)
    for record, at_s in records:
        log.add(record, T0 + at_s * 1000)
    log.sign()
    return log


def beat(instance: str = "srv-1") -> Record:
    return Record("heartbeat", detail={"instance": instance, "interval_ms": 60_000})


def test_a_silent_server_is_told(check: Callable[..., Report]) -> None:
    log = signed_over((started(), 0), (beat(), 60), (beat(), 600))
    report = check(log)
    assert report.passed
    assert [p.code for p in report.problems if p.severity == "warning"] == ["heartbeat-gap"]
    assert not check(log, strict=True).passed


def test_a_server_that_never_said_it_stops_is_told(check: Callable[..., Report]) -> None:
    log = signed_over((started(), 0), (beat(), 60), (ordinary(1), 3600))
    assert "ended-unsaid" in {p.code for p in check(log).problems}
    stop = Record("server.stopped", detail={"instance": "srv-1"})
    log = signed_over((started(), 0), (beat(), 60), (stop, 70), (ordinary(1), 3600), (started(), 4000), (beat(), 4060))
    assert [p.code for p in check(log).problems] == ["keys-not-pinned"]


def test_records_lost_before_the_log_are_told(check: Callable[..., Report]) -> None:
    from aftergate.audit.records import Emitter

    log = signed_over(*[(Record("decision", emitter=Emitter("srv-1", n)), n) for n in (1, 2, 5, 5)])
    told = [(p.code, p.seq) for p in check(log).problems if p.severity == "warning"]
    assert told == [("lost-before-the-log", 2), ("counted-twice", 3)]


def test_a_clock_that_lags_is_told(check: Callable[..., Report]) -> None:
    log = signed_over((Record("decision", detail={"clock_skew_ms": 90_000}), 1))
    assert [p.code for p in check(log).problems if p.severity == "warning"] == ["clock"]


def test_records_out_of_time_are_found_though_signed(check: Callable[..., Report]) -> None:
    assert codes(check(signed_over((ordinary(1), 10), (ordinary(2), 9)))) == {"time"}


def test_a_signed_leaf_that_is_no_record_is_found(check: Callable[..., Report]) -> None:
    log = signed_over((ordinary(1), 1))
    log.leaves.append(b'{"seq": 1}')
    log.sign()
    assert codes(check(log)) == {"unreadable"}


def test_an_upper_tile_that_is_not_of_these_records_is_found(log: Log, check: Callable[..., Report]) -> None:
    members = dict(log.export())
    members["tile/1/000.p/1"] = bytes(32)
    assert codes(check(members)) == {"tile"}


# Beside the records


def test_a_changed_personal_value_is_found(log: Log, check: Callable[..., Report]) -> None:
    members = dict(log.export())
    members["personal/000.jsonl"] = members["personal/000.jsonl"].replace(b'"person-17"', b'"person-18"')
    assert codes(check(members)) == {"commitment"}


def test_a_value_that_no_record_commits_to_is_found(log: Log, check: Callable[..., Report]) -> None:
    members = dict(log.export())
    members["personal/000.jsonl"] += b'{"seq":0,"field":"subject.id","salt":"AAAA","value":"mallory"}\n'
    assert codes(check(members)) == {"not-committed"}


def test_erased_values_are_well_if_the_log_declares_them_and_missing_ones_are_not(log: Log, check: Callable[..., Report]) -> None:
    gone = [row for row in log.kept if row[0] in {10, 11, 12}]
    log.kept = [row for row in log.kept if row[0] not in {10, 11, 12}]
    assert codes(check(log)) == {"missing-undeclared"}
    log.add(Record("erasure", detail={"what": "personal", "count": len(gone)}))
    log.sign()
    report = check(log)
    assert report.passed
    assert "erased" in {p.code for p in report.problems}


def test_pruned_records_are_well_if_the_log_declares_them(log: Log, check: Callable[..., Report]) -> None:
    members_before = dict(log.export())
    log.add(Record("erasure", detail={"what": "records", "count": 2}))
    log.sign()
    members = dict(log.export())
    for name in ("personal/000.jsonl", "attachments/000.jsonl"):
        members[name] = b"".join(line + b"\n" for line in members[name].splitlines() if json.loads(line)["seq"] not in {20, 21, 22})
    entries = unpack_entries(members["tile/entries/000"])
    entries[20] = entries[21] = b""
    members["tile/entries/000"] = pack_entries(entries)
    report = check(members)
    assert "missing-undeclared" in codes(report), "record 22 lost what was kept beside it, and nobody declared that"
    line = [line for line in members_before["personal/000.jsonl"].splitlines() if json.loads(line)["seq"] == 22]
    beside = [line for line in members_before["attachments/000.jsonl"].splitlines() if json.loads(line)["seq"] == 22]
    members["personal/000.jsonl"] += line[0] + b"\n"
    members["attachments/000.jsonl"] += beside[0] + b"\n"
    assert check(members).passed
    entries[22] = b""
    members["tile/entries/000"] = pack_entries(entries)
    assert {"missing-undeclared", "not-committed"} <= codes(check(members))


# What is no bundle at all


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"no tar")
    (tmp_path / "cut.tar.gz").write_bytes(gzip.compress(b"x" * 100))
    for name in ("empty", "file", "cut.tar.gz", "not-there"):
        with pytest.raises(BadBundle):
            Bundle(tmp_path / name)


@pytest.mark.parametrize("manifest", [b"", b"[]", b'{"format": "other", "origin": "x", "size": 1, "exported_at": "", "personal": false}'])
def test_a_bundle_of_another_format_is_refused(tmp_path: Path, manifest: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(manifest)
    with pytest.raises(BadBundle):
        Bundle(tmp_path)


@pytest.mark.parametrize(
    ("name", "kind"), [("../evil", tarfile.REGTYPE), ("/etc/evil", tarfile.REGTYPE), ("link", tarfile.SYMTYPE), ("dev", tarfile.CHRTYPE)]
)
def test_a_tar_cannot_write_elsewhere(tmp_path: Path, name: str, kind: bytes) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.type = kind
        info.linkname = "/etc/passwd"
        tar.addfile(info, io.BytesIO())
    (tmp_path / "b.tar.gz").write_bytes(sink.getvalue())
    with pytest.raises(BadBundle):
        Bundle(tmp_path / "b.tar.gz")
    assert [p.name for p in tmp_path.iterdir()] == ["b.tar.gz"]


@pytest.mark.parametrize("name", ["checkpoints.jsonl", "attachments/000.jsonl", "personal/000.jsonl"])
@pytest.mark.parametrize("line", [b"nonsense\n", b"[1]\n", b"{}\n", b"\xff\n", b"[" * 5000 + b"\n"])
def test_damaged_lines_fail_and_never_crash(log: Log, check: Callable[..., Report], name: str, line: bytes) -> None:
    members = dict(log.export())
    members[name] += line
    assert "unreadable" in codes(check(members))


def test_exporting_over_something_is_refused(log: Log, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("here", "utf-8")
    with pytest.raises(BadBundle, match="not empty"):
        write_folder(tmp_path, log.export())
    with pytest.raises(BadBundle):
        write_tar(tmp_path / "x", log.export())


MEMBERS = dict(LOG.export())
HASHED = sorted(name for name in MEMBERS if name.startswith("tile/"))


@settings(max_examples=250)
@given(name=st.sampled_from(sorted(MEMBERS)), at=st.floats(0, 1, exclude_max=True), new=st.binary(max_size=6), cut=st.integers(0, 40))
def test_whatever_is_done_to_a_file_the_verdict_is_a_verdict(name: str, at: float, new: bytes, cut: int) -> None:
    data = MEMBERS[name]
    place = int(len(data) * at)
    changed = data[:place] + new + data[place + cut :]
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), (MEMBERS | {name: changed}).items())
        try:
            with Bundle(Path(folder)) as bundle:
                report = verify_bundle(bundle, pins=[REAL.verifier], known=[("kept", LOG.checkpoints[2].note)])
        except BadBundle:
            assert name == "manifest.json"
            return
    # Records and hashes: nothing can be done to them that passes. Elsewhere white space and times that nobody signed may differ.
    assert changed == data or name not in HASHED or not report.passed


def test_any_single_damaged_file_is_noticed(log: Log, check: Callable[..., Report]) -> None:
    """Every file of a bundle matters: one changed byte in the middle of any of them fails, or makes it unreadable."""
    members = dict(log.export())
    for name, data in members.items():
        if name == "manifest.json":
            continue
        changed = bytearray(data)
        changed[len(changed) // 2] ^= 0x04
        report = check(members | {name: bytes(changed)}, pins=[Verifier.parse(REAL.verifier.vkey)])
        assert not report.passed, name
