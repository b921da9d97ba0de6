"""`aftergate approve`: shows everything that is bound, then signs exactly that."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from company import payment
from remote import PASSPHRASE, Remote, numbered

from aftergate.cli.approving import Desk, Refused
from aftergate.cli.commands.approve import approve, flat
from aftergate.errors import ConfigError

pytestmark = pytest.mark.serving


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    with Remote(tmp_path_factory.mktemp("terminal")) as made:
        yield made


@pytest.fixture(scope="module")
def bob(remote: Remote) -> dict[str, Any]:
    """Bob's key, made and registered by the command itself."""
    secret = remote.folder / "passphrase"
    secret.write_text(PASSPHRASE + "\n")
    made = remote.http.post("/v1/people", json={"id": "bob", "groups": ["finance"]}).json()
    key = remote.folder / "bob.key"
    assert approve(new_key=key, link=made["link"], passphrase_file=secret) == 0
    assert key.stat().st_mode & 0o777 == 0o600
    return {"url": remote.url, "key": key, "passphrase_file": secret}


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_it_lists_shows_in_full_and_approves(
    remote: Remote, bob: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = remote.asked(payment(), context={**payment()["context"], "business_justification": "quarter end"})
    assert approve(**bob) == 0
    assert id_ in capsys.readouterr().out
    typed(monkeypatch, "yes\n")
    assert approve(id_, **bob) == 0
    out = capsys.readouterr().out
    for path, value in (
        flat(payment()["resource"], "resource") + flat(payment()["action"], "action") + flat(payment()["subject"], "subject")
    ):
        assert f"{path}: {value}" in out
    assert "context.transaction.reference: inv-7" in out
    assert "reason: quarter end" in out
    assert f"executor.jkt: {remote.executor.jkt}" in out
    assert "Risk now" in out
    assert f"{id_}: approved" in out
    assert remote.task(id_)["task"]["status"] == "approved"


def test_anything_but_yes_decides_nothing(
    remote: Remote, bob: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = remote.asked(numbered(1))
    for words in ("no\n", "y\n", ""):
        typed(monkeypatch, words)
        assert approve(id_, **bob) == 1
    assert remote.task(id_)["task"]["status"] == "pending"


def test_it_denies_with_a_reason(remote: Remote, bob: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    id_ = remote.asked(numbered(2))
    assert approve(id_, **bob, deny="unknown payee", yes=True) == 0
    assert f"{id_}: denied" in capsys.readouterr().out
    assert remote.task(id_)["task"]["status"] == "denied"
    assert approve(id_, **bob, yes=True) == 1, "what is decided is not decided again"


def test_it_approves_several_with_one_signature(remote: Remote, bob: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    ids = [remote.asked(numbered(n)) for n in (3, 4)]
    assert approve(*ids, **bob, yes=True) == 0
    assert [remote.task(one)["task"]["status"] for one in ids] == ["approved", "approved"]


def test_what_a_request_says_cannot_move_the_terminal(remote: Remote, bob: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    request = numbered(5)
    request["resource"]["properties"]["payee"] = "ACME\x1b[2J\x1b[1;1H\u202eevil\r\n[bold]nobody[/bold]"
    id_ = remote.asked(request)
    assert approve(id_, **bob, yes=True) == 0
    out = capsys.readouterr().out
    assert "\\x1b[2J" in out
    assert "[bold]nobody[/bold]" in out
    assert not any(character in out for character in "\x1b\u202e\r")


def test_without_a_key_it_names_the_page_and_waits(
    remote: Remote, bob: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aftergate.cli.commands.approve.POLL_S", 0.1)
    monkeypatch.setenv("AFTERGATE_API_KEY", remote.server.key)
    good, bad, slow = (remote.asked(numbered(n)) for n in (6, 7, 8))
    desk = Desk(remote.url, bob["key"], PASSPHRASE)
    desk.login()

    def decide() -> None:
        time.sleep(0.3)
        desk.approve(desk.view(good))
        desk.deny(bad, "no")

    thread = threading.Thread(target=decide)
    thread.start()
    assert approve(good, url=remote.url) == 0
    assert approve(bad, url=remote.url) == 4
    thread.join()
    desk.close()
    assert approve(slow, url=remote.url, wait=0.2) == 1
    out = capsys.readouterr().out
    assert f"{remote.url}/approvals#{good}" in out
    assert f"{bad}: denied" in out
    monkeypatch.delenv("AFTERGATE_API_KEY")
    assert approve(good, url=remote.url) == 0


def test_wrong_usage_is_told(remote: Remote, bob: dict[str, Any], tmp_path: Path) -> None:
    assert approve("x", url=remote.url, deny="no", item=(1,)) == 2
    assert approve(new_key=tmp_path / "k") == 2
    short = tmp_path / "short"
    short.write_text("1234567\n")
    with pytest.raises(ConfigError, match="8 characters"):
        approve(new_key=tmp_path / "k", link="x", passphrase_file=short)
    with pytest.raises(ConfigError, match="cannot read"):
        approve(url=remote.url, key=bob["key"], passphrase_file=tmp_path / "none")
    with pytest.raises(Refused, match="cannot reach"):
        approve("x", url="http://localhost:1", key=bob["key"], passphrase_file=bob["passphrase_file"])


def test_a_link_serves_once_and_leaves_no_file_behind(remote: Remote, bob: dict[str, Any], tmp_path: Path) -> None:
    made = remote.http.post("/v1/people", json={"id": "once", "groups": []}).json()
    first, second = tmp_path / "first.key", tmp_path / "second.key"
    assert approve(new_key=first, link=made["link"], passphrase_file=bob["passphrase_file"]) == 0
    with pytest.raises(Refused):
        approve(new_key=second, link=made["link"], passphrase_file=bob["passphrase_file"])
    assert not second.exists()
