"""`aftergate task` against a real server."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import KEY, Server
from workshop import POLICIES, claims_of

from aftergate.cli.main import main

pytestmark = pytest.mark.serving


class Shell:
    """The command line in this process, talking to a server in its own."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server

    def run(self, *words: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.setenv("AFTERGATE_URL", self.server.url)
            patch.setenv("AFTERGATE_KEY", KEY)
            patch.setenv("COLUMNS", "200")
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", ["aftergate", "task", *words])
            with pytest.raises(SystemExit) as ended:
                main()
        return int(ended.value.code or 0), out.getvalue().strip(), err.getvalue()

    def __call__(self, *words: str, code: int = 0) -> str:
        got, out, err = self.run(*words)
        assert got == code, out + err
        return out

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self(*words, "--json", code=code))


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "policies").mkdir()
    (folder / "policies" / "shop.cedar").write_text(POLICIES)
    with Server(folder / "server", "--policies", str(folder / "policies")) as server:
        yield Shell(folder, server)


def test_a_task_goes_its_way_in_the_terminal(shell: Shell) -> None:
    task = shell("create", "nightly", "--actions", "deploy", "read", "--resources", "env:prod", "env:staging", "--minutes", "5")
    assert task.startswith("task-")
    token = shell("token", task, "--executor-key", "mine.pem", "--scope", "read", "--audience", "https://api.example")
    claims = claims_of(token)
    assert (claims["task"], claims["scope"], claims["aud"]) == (task, "read", "https://api.example")
    assert (shell.folder / "mine.pem").stat().st_mode & 0o777 == 0o600
    assert task in shell("list", "--state", "active")
    assert shell.json("complete", task, "--reason", "all done")["state"] == "completed"
    assert "all done" in shell("show", task)
    assert "not alive" in _failed(shell, "token", task, "--executor-key", "mine.pem")


def _failed(shell: Shell, *words: str) -> str:
    code, _, err = shell.run(*words)
    assert code == 1
    return err


def test_elevation_waits_for_its_approval_and_starts_with_its_key(shell: Shell) -> None:
    waiting = shell("create", "repair", "--actions", "admin", "--request-approval", "--executor-key", "mine.pem", code=5)
    assert "pending" in shell("show", waiting)
    assert "pending" in shell("start", waiting, "--executor-key", "mine.pem", code=5)
    task = shell("create", "repair", "--actions", "root", "--request-approval", "--executor-key", "mine.pem", code=5)
    assert "approv" in _failed(shell, "start", task, "--executor-key", "other.pem")
    assert shell.json("start", task, "--executor-key", "mine.pem")["state"] == "active"


def test_force_and_rotation(shell: Shell) -> None:
    task = shell("create", "mail", "--tools", "search", "--mcp-server", "https://mcp.example", "--on-behalf-of", "user:alice")
    assert shell("kill", "--principal", "user:alice", "--reason", "left") == task
    assert shell("kill", "--task", task, "--reason", "again") == "nothing was alive"
    assert shell("kill", "--issuer", "https://idp.example", "--jti", "x", "--reason", "stolen") == "0 tokens ended"
    assert len(shell("rotate-key")) == 43
