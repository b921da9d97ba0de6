"""The order in which records come, how often they come and how they are split into files change nothing in the findings."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftergate.events.enrich import Enricher
from aftergate.events.interning import Interner
from aftergate.pipeline import reading
from aftergate.pipeline import scan as scanning
from aftergate.pipeline.normalising import Normalising
from aftergate.pipeline.ordering import Sequencer
from aftergate.pipeline.outputs import conclude, write_findings
from aftergate.pipeline.scan import Counts, Options, scan
from aftergate.vocabulary import NO_AGENT, NO_ORIGIN, Action, Actor, Event, Kind, Shape

DATA = Path(__file__).parent / "data"
HOUR = 3_600_000
SHORT, LONG = 6 * HOUR, 48 * HOUR


def lines_of(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).split(b"\n")


@cache
def corpus() -> list[tuple[int, bytes]]:
    """(time, record) of attacks and of slices of the quiet week, of many sources, by time."""
    lines: list[bytes] = []
    for path in sorted((DATA / "quiet-week").glob("*.jsonl.gz")):
        lines += lines_of(path)[200:290]
    for slug in sorted((DATA / "scenarios").iterdir()):
        for case in sorted(slug.glob("*"))[:2]:
            for path in sorted(case.glob("*.jsonl*")):
                found = lines_of(path)
                if len(found) < 160:
                    lines += found
    normalising = Normalising(Interner(Enricher(tables=False)))
    timed: list[tuple[int, bytes]] = []
    for line in lines:
        events: list[Event] = []
        normalising.run([line], events)
        if events:
            timed.append((min(e.time for e in events), line))
    timed.sort()
    return timed


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a few records, handed on at once: so that a small log goes through what a big one goes through."""
    monkeypatch.setattr(scanning, "RELEASE_EVERY", 20)
    monkeypatch.setattr(scanning, "chunks", partial(reading.chunks, block=8192))
    monkeypatch.setattr(scanning, "SHARE_BYTES", 256 << 10)
    monkeypatch.setattr(scanning, "split_ranges", partial(reading.split_ranges, least=256 << 10))


def run(paths: list[Path], folder: Path, lateness_ms: int = LONG, jobs: int = 1) -> tuple[bytes, Counts]:
    engine, counts = scan(Options(paths=paths, lateness_ms=lateness_ms, jobs=jobs, tables=False))
    findings, _ = conclude(engine)
    write_findings(findings, folder / "findings.jsonl")
    return (folder / "findings.jsonl").read_bytes(), counts


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Counts]:
    folder = tmp_path_factory.mktemp("sorted")
    whole = folder / "all.jsonl"
    whole.write_bytes(b"\n".join(line for _, line in corpus()))
    return run([whole], folder)


def test_the_corpus_tells_something(expected: tuple[bytes, Counts]) -> None:
    """Otherwise the tests below would compare nothing with nothing."""
    findings, counts = expected
    assert findings.count(b"\n") > 20
    assert len(counts.sources) >= 12
    assert counts.late == 0


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1 << 32),
    files=st.integers(1, 5),
    doubled=st.sampled_from((0.0, 0.05, 0.5)),
    lateness=st.sampled_from((SHORT, LONG)),
    jobs=st.sampled_from((1, 1, 1, 2)),
)
def test_any_shuffle_within_the_lateness_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    expected: tuple[bytes, Counts],
    seed: int,
    files: int,
    doubled: float,
    lateness: int,
    jobs: int,
) -> None:
    """Records that come at most the lateness late, some twice, spread over files named in any order, packed or not."""
    dice = random.Random(seed)
    rows = [row for row in corpus() for _ in range(1 + (dice.random() < doubled))]
    rows.sort(key=lambda row: row[0] + dice.uniform(0, lateness))
    held: list[list[bytes]] = [[] for _ in range(files)]
    for _, line in rows:
        dice.choice(held).append(line)
    folder = tmp_path_factory.mktemp("shuffled")
    paths = []
    for number, lines in enumerate(held):
        data = b"\n".join(lines)
        path = folder / f"{number}.jsonl"
        path.write_bytes(gzip.compress(data, 1) if dice.random() < 0.5 else data)
        paths.append(path)
    dice.shuffle(paths)
    findings, counts = run(paths, folder, lateness, jobs)
    assert findings == expected[0]
    assert counts.late == 0
    assert counts.read == len(rows)
    assert counts.normalised == expected[1].normalised
    assert counts.sources.keys() == expected[1].sources.keys()


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("layout", ["newest first", "one after the other", "newest first in pages", "any order"])
def test_files_that_are_not_in_order_of_time(tmp_path: Path, expected: tuple[bytes, Counts], layout: str, jobs: int) -> None:
    """Exports come newest first, and logs are concatenated: what is far from its place still gets there when its file says so."""
    lines = [line for _, line in corpus()]
    half = len(lines) // 2
    if layout == "newest first":
        files = [lines[::-1]]
    elif layout == "one after the other":
        files = [lines[:half], lines[half:][::-1], []]
    elif layout == "newest first in pages":
        files = [lines[at : at + 200][::-1] for at in range(0, len(lines), 200)][::-1]
    else:
        random.Random(5).shuffle(lines)
        files = [lines]
    paths = []
    for number, held in enumerate(files):
        paths.append(tmp_path / f"{number}.jsonl")
        paths[-1].write_bytes(b"\n".join(held))
    findings, counts = run(paths, tmp_path, SHORT, jobs)
    assert findings == expected[0]
    assert counts.late == 0


def test_the_number_of_processes_changes_nothing_even_for_late_records(tmp_path: Path) -> None:
    """Beyond the lateness the order is not promised, but it is the same for any number of processes, and late records are counted."""
    lines = [line for _, line in corpus()]
    late = lines[5:40:7]
    lines[1500:1500] = late
    path = tmp_path / "late.jsonl"
    path.write_bytes(b"\n".join(lines))
    one, counts = run([path], tmp_path, SHORT, 1)
    two, others = run([path], tmp_path, SHORT, 2)
    assert one == two
    assert counts.late == others.late == len(late)
    assert counts.read == counts.normalised + counts.duplicates + counts.set_aside == len(lines)


def test_one_wrong_clock_does_not_push_everything_out(tmp_path: Path, expected: tuple[bytes, Counts]) -> None:
    """A record from the far future moves no other record."""
    lines = [line for _, line in corpus()]
    odd = next(line for line in lines if b'"eventTime":"20' in line)
    lines.insert(300, odd.replace(b'"eventTime":"20', b'"eventTime":"29').replace(b'"eventID":"', b'"eventID":"f'))
    path = tmp_path / "clock.jsonl"
    path.write_bytes(b"\n".join(lines))
    _, counts = run([path], tmp_path, SHORT)
    assert counts.late == 0


def shape(name: str) -> Shape:
    action = Action("test", name, Kind.OTHER, "test", "test:read")
    return Shape("test", action, Actor("ada"), NO_ORIGIN, NO_AGENT)


@given(st.permutations([0, 0, 1, 2, 3]))
def test_records_under_one_id_are_chosen_by_content(order: list[int]) -> None:
    """Two records with one time and id that say different things: the same one is kept whichever came first."""
    shapes = [shape("c"), shape("a"), shape("b"), shape("a")]
    made = [Event(5, "same", shapes[n], known_at=7 if n == 3 else 6, target=str(n)) for n in order]
    sequencer = Sequencer()
    sequencer.add(made)
    (kept,) = sequencer.release(None)
    assert kept.target == "1"
    assert sequencer.duplicates == 4


def test_the_hash_seed_changes_nothing(tmp_path: Path) -> None:
    """Sets of text are walked in another order in each process: no output may depend on it."""
    path = tmp_path / "all.jsonl"
    path.write_bytes(b"\n".join(line for _, line in corpus()))
    made = []
    for seed in ("1", "2"):
        out, ocsf = tmp_path / f"{seed}.jsonl", tmp_path / f"{seed}.ocsf"
        command = [sys.executable, "-m", "aftergate.cli.main", "scan", str(path), "-q", "--findings", str(out), "--ocsf", str(ocsf)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        made.append((out.read_bytes(), ocsf.read_bytes()))
    assert made[0] == made[1]
