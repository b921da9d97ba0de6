"""Several processes decode; what comes of it is what one would have made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from samples import samples

from aftergate.errors import ReadError
from aftergate.pipeline import parallel, scan
from aftergate.pipeline.parallel import Workers
from aftergate.pipeline.reading import plan
from aftergate.pipeline.scan import Inline, Options, Part


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A file for each source, and one of all in turn, in many units of a few records."""
    monkeypatch.setattr(scan, "SHARE_BYTES", 4_000)
    made = samples()
    paths = [tmp_path / f"{slug}.jsonl" for slug in made]
    for path, lines in zip(paths, made.values(), strict=True):
        path.write_bytes(b"\n".join(line.rstrip(b"\n") for line in lines) + b"\n")
    every = tmp_path / "every.jsonl"
    every.write_bytes(b"".join(path.read_bytes() for path in paths) + b"no record\n")
    return [*paths, every]


def flat(parts: list[Part]) -> tuple[list[tuple[int, str, int, str]], dict[str, int], int]:
    events = [(e.time, e.id, e.part, e.shape.action.name) for part in parts for e in part.events]
    records: dict[str, int] = {}
    for part in parts:
        for slug, count in part.records.items():
            records[slug] = records.get(slug, 0) + count
    return events, records, sum(len(part.faults) for part in parts)


@pytest.mark.parametrize("jobs", [2, 3, 7])
def test_parts_come_in_the_order_of_the_units(logs: list[Path], jobs: int) -> None:
    options = Options(paths=list(logs), jobs=jobs, tables=False)
    inputs = plan(list(logs))
    order = list(range(len(inputs)))
    workers = Workers(inputs, options)
    try:
        found = flat(list(workers.parts(order)))
    finally:
        workers.close()
    expected = flat(list(Inline(inputs, options).parts(order)))
    assert len(expected[0]) > 1000
    assert expected[2] >= 1
    assert found == expected


@pytest.mark.parametrize("slot", [parallel.SLOT, 1])
@pytest.mark.parametrize("when", [0, 5])
def test_a_worker_that_is_killed_ends_the_scan_with_an_error(
    logs: list[Path], when: int, slot: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is reported that rests on part of the logs. With a tiny slot events go through the pipe, and it breaks within a message."""
    monkeypatch.setattr(parallel, "SLOT", slot)
    inputs = plan(list(logs))
    workers = Workers(inputs, Options(paths=list(logs), jobs=2, tables=False))
    try:
        parts = workers.parts(list(range(len(inputs))))
        for _ in range(when):
            next(parts)
        for process in workers._processes:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        with pytest.raises(ReadError, match="ended early"):
            list(parts)
    finally:
        workers.close()


ORPHANS = """
import os, sys
from aftergate.pipeline import scan
from aftergate.pipeline.parallel import Workers
from aftergate.pipeline.reading import plan
scan.SHARE_BYTES = 4_000
inputs = plan(sys.argv[1:])
workers = Workers(inputs, scan.Options(paths=sys.argv[1:], jobs=2, tables=False))
next(workers.parts(list(range(len(inputs)))))
print(*(process.pid for process in workers._processes), flush=True)
os._exit(1)
"""


def test_workers_do_not_outlive_the_process_that_tracks(logs: list[Path]) -> None:
    done = subprocess.run([sys.executable, "-c", ORPHANS, *map(str, logs)], capture_output=True, text=True, check=False)
    left = {int(number) for number in done.stdout.split()}
    assert len(left) == 2, done.stderr
    while left := {number for number in left if Path(f"/proc/{number}/stat").exists() and not gone(number)}:
        time.sleep(0.2)


def gone(number: int) -> bool:
    """Ended, though nobody has asked how."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
