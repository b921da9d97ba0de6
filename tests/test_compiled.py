"""The compiled core finds what the Python it was compiled from finds, byte for byte."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WEEK = ROOT / "tests" / "data" / "quiet-week"
LOGS = (
    ROOT / "demo" / "logs",
    ROOT / "tests" / "data" / "scenarios-own",
    ROOT / "tests" / "data" / "stratus-red-team",
)
_WHERE = "import aftergate.lineage.tracking as t; print(t.__file__)"


def python(*words: str, source: bool) -> str:
    """Runs this Python with the installed package, or with the source tree."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if source:
        env["PYTHONPATH"] = str(ROOT / "src")
    return subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True, env=env).stdout


def compiled() -> bool:
    try:
        return not python("-c", _WHERE, source=False).strip().endswith(".py")
    except subprocess.CalledProcessError:
        return False  # nothing is installed


@pytest.mark.skipif(not compiled(), reason="the installed package is not compiled")
def test_compiled_and_pure_find_the_same(tmp_path: Path) -> None:
    week = []
    for name in ("cloudtrail", "entra-noninteractive"):
        held = tmp_path / f"{name}.jsonl"
        held.write_bytes(b"".join(gzip.decompress((WEEK / f"{name}.jsonl.gz").read_bytes()).splitlines(keepends=True)[:3000]))
        week.append(held)
    assert python("-c", _WHERE, source=True).strip().endswith(".py")
    told: list[bytes] = []
    for source in (False, True):
        out, summary = tmp_path / f"{source}.jsonl", tmp_path / f"{source}.json"
        command = "import sys; from aftergate.cli.main import main; sys.exit(main())"
        scan = ["scan", *map(str, (*LOGS, *week)), "--findings", str(out), "--summary", str(summary), "--quiet", "--no-tables"]
        python("-c", command, *scan, source=source)
        told.append(out.read_bytes())
    assert told[0].count(b"\n") > 50
    assert told[0] == told[1]
