"""All measurements: what a scan costs beside a bare parse, whether it stays so, what two processes and a million credentials do to it.

    python bench/run.py            # `make bench`; about ten minutes
    python bench/run.py --quick    # smaller logs; shows that it works
Each measurement runs in a process of its own. Writes docs/benchmarks.md; exit code 1 if a limit is missed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
OUT = HERE / "out"
PAGE = HERE.parent / "docs" / "benchmarks.md"
KINDS = ("cloudtrail", "entra")


class Row(NamedTuple):
    """One measured figure and what it may be."""

    what: str
    found: float
    limit: float
    at_most: bool
    aim: float | None = None
    unit: str = ""

    @property
    def kept(self) -> bool:
        return self.found <= self.limit if self.at_most else self.found >= self.limit

    def cells(self) -> tuple[str, str, str, str]:
        form = "{:,.0f}" if self.unit else "{:.2f}"
        sign = "≤" if self.at_most else "≥"
        unit = f" {self.unit}" if self.unit else ""
        limit = f"{sign} {form.format(self.limit)}{unit}" + (f", aim {sign} {form.format(self.aim)}" if self.aim is not None else "")
        return self.what, form.format(self.found) + unit, limit, "kept" if self.kept else "missed"


def measure(what: str, path: Path, *words: str) -> dict[str, float]:
    """One run of measure.py."""
    command = [sys.executable, str(HERE / "measure.py"), what, str(path), *words]
    done = subprocess.run(command, capture_output=True, check=False, text=True)  # noqa: S603
    if done.returncode:
        sys.exit(f"measure.py {what} {path.name}: {done.stderr.strip()[-2000:]}")
    answer: dict[str, float] = json.loads(done.stdout)
    say(f"  {what} {path.name} {' '.join(words)}: {answer['cpu']:.2f} s of CPU, {answer['wall']:.2f} s, {answer['events']:,.0f} records")
    return answer


def generate(kind: str, count: int) -> Path:
    """The log, made if it is not there. A broken-off file never counts: it gets its name last."""
    path = OUT / f"{kind}-{count}.jsonl"
    if not path.exists():
        part = path.with_suffix(".part")
        subprocess.run([sys.executable, str(HERE / "generate.py"), kind, str(count), str(part)], check=True)  # noqa: S603
        part.rename(path)
    return path


def ratio(kind: str, count: int, rounds: int) -> tuple[Row, list[str]]:
    """CPU of the whole scan over CPU of the bare parse. Best of several, taken in turns, so that a busy moment hits both."""
    path = generate(kind, count)
    scans, parses = [], []
    for _ in range(rounds):
        parses.append(measure("orjson", path)["cpu"])
        scans.append(measure("scan", path)["cpu"])
    row = Row(f"CPU of a scan over CPU of `orjson.loads`, {kind}, {count:,} records", min(scans) / min(parses), 2.5, at_most=True, aim=2.0)
    return row, [f"{kind}: each scan cost {', '.join(f'{s / min(parses):.2f}' for s in sorted(scans))} times the best parse."]


def speed_up(kind: str, count: int, rounds: int) -> Row:
    path = generate(kind, count)
    one, two = [], []
    for _ in range(rounds):
        one.append(measure("scan", path)["wall"])
        two.append(measure("scan", path, "--jobs", "2")["wall"])
    return Row(f"time with one process over time with `--jobs 2`, {kind}, {count:,} records", min(one) / min(two), 1.5, at_most=False)


def flatness(kind: str, small: int, large: int, rounds: int) -> Row:
    """What a record costs in a long log over what it costs in a short one."""
    path = generate(kind, small)
    short = min(measure("scan", path)["cpu"] for _ in range(rounds))
    path = generate(kind, large)
    try:
        long = measure("scan", path)["cpu"]
    finally:
        path.unlink()
    return Row(
        f"cost of a record at {large:,} records over its cost at {small:,}, {kind}", (long / large) / (short / small), 1.2, at_most=True
    )


def memory(count: int) -> Row:
    """Each credential is issued once and used once, and all are kept."""
    path = generate("credentials", count)
    try:
        found = measure("scan", path)
    finally:
        path.unlink()
    if found["lives"] < count:
        sys.exit(f"only {found['lives']:,} of {count:,} credentials were tracked: the measurement is wrong")
    return Row(f"peak memory with {count:,} live credentials", found["rss_mib"], 2048, at_most=True, unit="MiB")


def json_of(script: str, *words: str) -> dict[str, Any]:
    """What another script of this folder printed."""
    done = subprocess.run([sys.executable, str(HERE / script), *words], capture_output=True, check=False, text=True)  # noqa: S603
    if not done.stdout.strip():
        sys.exit(f"{script}: {done.stderr.strip()[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def decisions() -> tuple[list[Row], list[str]]:
    """Decisions in this process beside bare `cedarpy`, and over HTTP beside an echo on the same server."""
    inside = json_of("decide.py", "--json")
    rows: list[Row] = []
    for name, words in (("stored", "entities as stored"), ("with_properties", "with properties in the request")):
        row = inside[name]
        rows.append(Row(f"a decision, {words}, 99th percentile", row["p99_us"], 1000, at_most=True, unit="µs"))
        rows.append(Row(f"the same over a bare `cedarpy` call, {words}", row["p99_us"] / row["bare_p99_us"], 2.0, at_most=True))
    say(f"  decisions in process: {inside['stored']['p99_us']} µs, bare {inside['stored']['bare_p99_us']} µs")
    outside = json_of("serve.py")
    rows.append(Row("decisions over HTTP over echoes on the same server", outside["ratio"], 0.5, at_most=False))
    say(f"  decisions over HTTP: {outside['decision']['rate']:,.0f} a second, echoes {outside['echo']['rate']:,.0f}")
    told = [
        f"{name}: {found['rate']:,.0f} a second, 99th percentile {found['p99_ms']:.1f} ms (`wrk`, one thread, 16 connections, on the same cores)."
        for name, found in (
            ("Decisions over HTTP, a thousand requests in turn", outside["decision"]),
            ("Decisions over HTTP, hardly any request twice", outside["fresh"]),
            ("Echoes", outside["echo"]),
            ("Cerbos over HTTP", outside["cerbos"]),
        )
        if found
    ]
    return rows, told


def table(rows: list[Row]) -> list[str]:
    cells = [("figure", "measured", "limit", ""), *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines


def write_page(rows: list[Row], notes: list[str]) -> None:
    import msgspec
    import orjson

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    PAGE.write_text(
        "\n".join(
            [
                "# Benchmarks",
                "",
                "Written by `make bench`. Figures are ratios, so they carry over from one machine to another; seconds do not and are left out.",
                "",
                *table(rows),
                "",
                "## How they are taken",
                "",
                "- A scan is the whole of it: reading, normalising, ordering, tracking, every detection, findings written. The offline address tables are off,",
                "  since loading them is a fixed cost and looking up is cached for each address.",
                "- The bare parse is `orjson.loads` of each line of the same file, lines split beforehand; nothing is done with what it gives.",
                "- The logs are the quiet week's CloudTrail and Entra non-interactive sign-ins, repeated week after week under new ids and dates",
                "  (`bench/generate.py`): so habits stay and credentials come and go. Records that make, change or delete access keys are left out, since long-lived keys keep their ids.",
                "- Every run is a process of its own, and CPU counts all processes it started. Of several runs the best counts; runs that are compared",
                "  take turns.",
                "- With `--jobs 2` one process tracks and judges while two decode; three processes in all, the decoding ones at lower priority; it needs two free cores to show.",
                "- Peak memory is of the process that tracks, at the end of a log in which every credential was issued once and used once.",
                "- Decisions: 100 policies, 100,000 entities. In process every request is another one, and its parsing is counted; the bare call gets the",
                "  same pre-parsed policies and entities, all of them. Over HTTP a thousand requests take turns, so most answers are remembered ones:",
                "  the same question under the same facts and policies. Findings are open on a tenth of the subjects, every decision goes into the log.",
                "- The echo is a raw ASGI route on the same server, which reads the body and sends it back; it has no limits, headers or log of Aftergate's.",
                "- Cerbos: one resource policy of a hundred rules, audit off, over its HTTP API. It is another language with other features: a landmark, no contest.",
                "",
                "## This run",
                "",
                f"Python {platform.python_version()}, msgspec {msgspec.__version__}, orjson {orjson.__version__}, {cores} cores, {platform.machine()}.",
                *notes,
                "",
            ]
        )
    )


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    OUT.mkdir(exist_ok=True)
    count, rounds, large, live = (100_000, 2, 600_000, 200_000) if quick else (300_000, 3, 3_000_000, 1_000_000)
    rows: list[Row] = []
    notes: list[str] = []
    for kind in KINDS:
        row, told = ratio(kind, count, rounds)
        rows.append(row)
        notes += told
    rows += [speed_up(kind, count, 2) for kind in KINDS]
    rows += [flatness(kind, 100_000, large, 2) for kind in KINDS]
    rows.append(memory(live))
    decided, told = decisions()
    rows += decided
    notes += told
    say("")
    for line in table(rows):
        say(line)
    if quick:
        say("\n--quick: docs/benchmarks.md is left as it is, and limits do not count")
        return
    write_page(rows, notes)
    say(f"\nwritten: {PAGE.relative_to(HERE.parent)}")
    sys.exit(0 if all(row.kept for row in rows) else 1)


if __name__ == "__main__":
    main()
