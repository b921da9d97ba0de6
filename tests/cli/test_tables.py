"""Lists with ids, in terminals of different widths and into a pipe."""

from __future__ import annotations

import re

import pytest

from aftergate.cli.tables import print_rows

IDS = ("af-bde3876c565fb0c9", "af-e7f7ae4e42de12bd")
TITLES = ("id", "time", "detection", "subject", "closed")
ROWS = (
    (IDS[0], "2026-08-01T13:33", "ni-first-party-oauth-phish", "arn:aws:iam::229654561268:user/christophe-of-the-operations-team", ""),
    (IDS[1], "2026-08-01T13:34", "tok-unminted", "[red]ada[/red]", ""),
)


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    print_rows(TITLES, ROWS, folded=("subject",), spare=("time", "closed"))
    return capsys.readouterr().out


@pytest.mark.parametrize(("columns", "time"), [(40, False), (70, False), (120, True)])
def test_in_a_terminal_ids_are_whole_and_lines_fit(
    columns: int, time: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", printed(capsys)).splitlines()
    assert "closed" not in lines[0]
    assert ("time" in lines[0]) == time
    assert max(map(len, lines)) <= columns
    assert [line.split()[0] for line in lines if line.startswith("af-")] == list(IDS)
    assert ("no room for: time" in lines) == (not time)


def test_into_a_pipe_goes_everything_without_colour(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out = printed(capsys)
    assert "\x1b" not in out
    assert [line.split() for line in out.splitlines()] == [list(TITLES), *([cell for cell in row if cell] for row in ROWS)]
