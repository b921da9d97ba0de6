"""A scan, and the help, load nothing of the server: it is quick to start, and reads logs with no part of the server in the process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SERVER = {
    "alembic", "cedarpy", "cryptography", "granian", "httpx2", "joserfc", "litestar", "prometheus_client", "psycopg", "sqlalchemy", "stamina",
    "structlog", "webauthn",
}  # fmt: skip
SHOW = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr)"
COMMAND = f"""
import sys
sys.argv = ["aftergate", *sys.argv[1:]]
from aftergate.cli.main import main
try:
    main()
finally:
    {SHOW}
"""


def loaded(program: str, *arguments: str) -> tuple[str, set[str]]:
    """What a fresh interpreter prints, and the packages it holds at the end."""
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("scan", "--help"), ("serve", "--help"), ("policy", "--help"), ("settings",)]
)
def test_help_loads_nothing_of_the_server(arguments: tuple[str, ...]) -> None:
    shown, held = loaded(COMMAND, *arguments)
    assert shown
    assert "aftergate" in held
    assert not held & SERVER


@pytest.mark.parametrize("module", ["aftergate.pipeline.scan", "aftergate.cli.scanning", "aftergate.report.build"])
def test_scanning_loads_nothing_of_the_server(module: str) -> None:
    _, held = loaded(f"import {module}; {SHOW}")
    assert not held & SERVER


def test_a_whole_scan_loads_nothing_of_the_server(tmp_path: Path) -> None:
    log = tmp_path / "trail.jsonl"
    log.write_text('{"eventVersion": "1.08"}\n')
    out = tmp_path / "findings.jsonl"
    _, held = loaded(COMMAND, "scan", str(log), "--findings", str(out), "--report", str(tmp_path / "report.html"))
    assert out.exists()
    assert not held & SERVER


def test_the_look_sees_what_is_loaded() -> None:
    _, held = loaded(f"import aftergate.service.core; {SHOW}")
    assert held >= {"sqlalchemy", "cedarpy"}
