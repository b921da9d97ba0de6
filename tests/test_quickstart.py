"""The commands of the quick start run as they stand."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.removeprefix("$ ").startswith("aftergate ")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with the sample logs where the page has them."""
    made = tmp_path_factory.mktemp("quickstart")
    (made / "demo").symlink_to(ROOT / "demo", target_is_directory=True)
    return made


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "aftergate.cli.main", *shlex.split(command)[1:]]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300, env={**os.environ, "COLUMNS": "120"}, check=False)


def test_there_are_commands_to_run() -> None:
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("command", COMMANDS)
def test_command_runs(command: str, folder: Path) -> None:
    done = run(command, folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name in re.findall(r"--(?:report|findings|summary) (\S+)", command):
        assert (folder / name).stat().st_size > 0


def test_files_hold_what_the_format_pages_say(folder: Path) -> None:
    assert run("aftergate scan demo/logs --quiet --findings f.jsonl --summary s.json", folder).returncode == 0
    findings = [json.loads(line) for line in (folder / "f.jsonl").read_text().splitlines()]
    assert findings
    for name, fields in (("findings", set().union(*findings)), ("summary", set(json.loads((folder / "s.json").read_text())))):
        page = (ROOT / "docs" / "formats" / f"{name}.md").read_text(encoding="utf-8")
        told = {word for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for word in re.findall(r"`(\w+)`", row)}
        assert told == fields
