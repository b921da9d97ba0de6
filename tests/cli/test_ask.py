"""`aftergate ask` against a real server: what it prints, and the exit code that a pipeline's step goes by."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "approvals"))
from company import POLICIES
from remote import Remote
from serving import free_port

from aftergate.cli.commands.ask import ask

pytestmark = pytest.mark.serving
READS = '@id("reads") permit (principal is user, action == Action::"read", resource is document);'
PAY: tuple[str, ...] = ("user:alice", "release_payment", "payment:p-1")


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    with Remote(tmp_path_factory.mktemp("ask"), policies=POLICIES + READS) as made:
        made.person("bob", "finance")
        yield made


class Shell:
    """The command as `main` runs it, in this process: its exit code and what it printed."""

    def __init__(self, remote: Remote, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self.capsys = capsys
        self.key = remote.folder / "caller.key"
        self.key.write_text(remote.server.key + " caller\n")
        self.where: dict[str, Any] = {"url": remote.url, "key_file": self.key}
        self.executor = folder / "executor.pem"

    def __call__(self, *words: str, **options: Any) -> tuple[int, str]:
        code = ask(*words, **{**self.where, **options})
        return code, self.capsys.readouterr().out.strip()


@pytest.fixture
def shell(remote: Remote, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    return Shell(remote, capsys, tmp_path)


def run(*words: str, key: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """As a user runs it."""
    held = {name: value for name, value in os.environ.items() if name not in {"AFTERGATE_KEY", "AFTERGATE_URL"}}
    held |= {"AFTERGATE_KEY": key, **env} if key else env
    command = [sys.executable, "-m", "aftergate.cli.main", "ask", *words]
    return subprocess.run(command, capture_output=True, text=True, env=held, timeout=60, check=False)


def test_a_permit_is_0_and_a_denial_4(shell: Shell) -> None:
    code, said = shell("user:alice", "read", "document:d")
    assert code == 0
    assert said.startswith("permit")
    assert "reads" in said
    code, said = shell("user:alice", "burn", "document:d")
    assert code == 4
    assert said.startswith("deny")


def test_as_json_and_as_an_id(shell: Shell) -> None:
    code, said = shell("user:alice", "read", "document:d", json=True)
    assert code == 0
    assert json.loads(said)["answer"]["decision"] is True
    code, said = shell(*PAY, json=True)
    assert code == 4
    assert json.loads(said)["answer"]["decision"] is False
    assert "request" not in json.loads(said)
    code, said = shell("user:alice", "read", "document:d", print_="evaluation")
    assert code == 0
    assert said
    assert " " not in said


def test_asking_for_approval_is_5_until_it_is_given_and_then_0_once(remote: Remote, shell: Shell) -> None:
    words = {"set_": ("amount=900", "currency=EUR"), "transaction": ("reference=0017",), "executor_key": shell.executor}
    code, request = shell(*PAY, **words, request=True, print_="request")
    assert code == 5
    assert request.startswith("arq_")
    assert shell.executor.stat().st_mode & 0o777 == 0o600
    desk = remote.desks["bob"]
    shown = desk.view(request)
    held = shown["object"]
    assert held["resource"]["properties"] == {"amount": 900, "currency": "EUR"}
    assert "0017" in json.dumps(held), "an identifier keeps its zeros"
    desk.approve(shown)
    assert shell(*PAY, **{**words, "set_": ("amount=901", "currency=EUR")}, approval=request)[0] == 4
    assert shell(*PAY, **{**words, "executor_key": shell.executor.with_name("other.pem")}, approval=request)[0] == 4
    code, said = shell(*PAY, **words, approval=request)
    assert (code, said.splitlines()[0]) == (0, "permit")
    assert shell(*PAY, **words, approval=request)[0] == 4, "used up"


def test_waiting_uses_what_people_gave(remote: Remote, shell: Shell) -> None:
    desk = remote.desks["bob"]
    known = {each["id"] for each in desk.inbox()}

    def decide() -> None:
        for _ in range(100):
            new = [each["id"] for each in desk.inbox() if each["id"] not in known]
            if new:
                desk.approve(desk.view(new[0]))
                return
            done.wait(0.1)

    done = threading.Event()
    deciding = threading.Thread(target=decide)
    deciding.start()
    code, said = shell(*PAY, set_=("amount=5",), executor_key=shell.executor, request=True, wait=20, json=True)
    deciding.join()
    assert code == 0, said
    told = json.loads(said)
    assert told["answer"]["decision"] is True
    assert told["request"]["task"]["status"] == "approved"


def test_a_request_that_was_denied_is_4_and_one_undecided_5(remote: Remote, shell: Shell) -> None:
    options = {"set_": ("amount=6",), "executor_key": shell.executor, "request": True}
    code, request = shell(*PAY, **options, print_="request")
    assert code == 5
    code, said = shell(*PAY, **{**options, "set_": ("amount=7",)})
    assert code == 5
    assert "approval needed" in said
    assert "/approvals/arq_" in said
    remote.desks["bob"].deny(request, "not this one")
    done = run(
        *PAY,
        "--set",
        "amount=6",
        "--executor-key",
        str(shell.executor),
        "--approval",
        request,
        "--url",
        remote.url,
        "--key-file",
        str(shell.key),
    )
    assert done.returncode == 1
    assert "the request is denied" in done.stderr


def test_as_a_process(remote: Remote, shell: Shell) -> None:
    """The exit codes that a script sees, with the key from the environment."""
    permitted = run("user:alice", "read", "document:d", key=remote.server.key, AFTERGATE_URL=remote.url)
    assert permitted.returncode == 0, permitted.stderr
    denied = run("user:alice", "burn", "document:d", "--url", remote.url, key=remote.server.key)
    assert denied.returncode == 4, denied.stderr
    assert run("user:alice", "read").returncode == 2
    assert run("user:alice", "read", "document:d", "--print", "nonsense", key="k").returncode == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("alice", "read", "document:d"), "TYPE:ID"),
        (("user:alice", "read", "document:d", "--set", "amount"), "NAME=VALUE"),
        (("user:alice", "read", "document:d", "--context", "{"), "--context"),
        (("user:alice", "read", "document:d", "--context", "[]"), "--context"),
        ((*PAY, "--request"), "--executor-key"),
        (("user:alice", "read", "document:d", "--key-file", "/nonexistent/key"), "key"),
    ],
)
def test_what_cannot_be_asked_is_1_with_advice_and_no_permit(remote: Remote, words: tuple[str, ...], said: str) -> None:
    done = run(*words, "--url", remote.url, key=remote.server.key)
    assert done.returncode == 1, done.stdout
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "permit" not in done.stdout


def test_a_server_that_is_not_there_or_does_not_know_the_key_is_1(remote: Remote) -> None:
    away = run("user:alice", "read", "document:d", "--url", f"http://127.0.0.1:{free_port()}", key="some-key-0123456789")
    assert away.returncode == 1
    assert "unanswered" in away.stderr or "no answer" in away.stderr
    wrong = run("user:alice", "read", "document:d", "--url", remote.url, key="wrong-key-0123456789")
    assert wrong.returncode == 1
    assert "401" in wrong.stderr
    for done in (away, wrong):
        assert "Traceback" not in done.stderr
        assert "key-0123456789" not in done.stdout + done.stderr
        assert done.stdout == ""
