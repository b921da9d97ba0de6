"""The walk-through runs as it stands: its commands in one shell, against a server started as it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import free_port

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "walkthrough.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```console\n(.*?)```(?:\s*```text\n(.*?)```)?", re.DOTALL)
STEPS = [(commands, expected.splitlines() if expected else []) for commands, expected in BLOCK.findall(PAGE)]
MARK = "@@@ step"

pytestmark = [pytest.mark.serving, pytest.mark.slow]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """What each step printed."""
    folder = tmp_path_factory.mktemp("walk")
    (folder / "demo").symlink_to(ROOT / "demo", target_is_directory=True)
    programs = folder / "bin"
    programs.mkdir()
    (programs / "aftergate").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m aftergate.cli.main "$@"\n')
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    port = free_port()
    env = {
        **os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "COLUMNS": "200", "NO_COLOR": "1",
        "AFTERGATE_LISTEN": f"127.0.0.1:{port}", "AFTERGATE_URL": f"http://localhost:{port}",
    }  # fmt: skip
    serve = next(line for commands, _ in STEPS for line in commands.splitlines() if line.startswith("aftergate serve "))
    script = "\n".join(f"echo '{MARK}'\n{commands}" for commands, _ in STEPS).replace(serve + "\n", "")
    with (
        (folder / "server.log").open("wb") as log,
        subprocess.Popen([str(programs / "aftergate"), *serve.split()[1:]], cwd=folder, env=env, stdout=log, stderr=log) as server,
    ):
        try:
            until = time.monotonic() + 60
            while not (folder / "gate" / "first-api-key").exists() or b"listening" not in (folder / "server.log").read_bytes():
                assert server.poll() is None, (folder / "server.log").read_text()
                assert time.monotonic() < until, "the server did not start"
                time.sleep(0.1)
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{(folder / 'server.log').read_text()}"
            yield done.stdout.split(MARK + "\n")[1:]
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(20)


def test_every_step_ran(said: list[str]) -> None:
    assert len(said) == len(STEPS) > 10


@pytest.mark.parametrize("number", [n for n, (_, expected) in enumerate(STEPS) if expected])
def test_a_step_prints_what_the_page_shows(number: int, said: list[str]) -> None:
    commands, expected = STEPS[number]
    for line in expected:
        assert line in said[number], f"{commands}\nprinted\n{said[number]}"
