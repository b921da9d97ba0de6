"""What is set aside can be looked at, holds no secret, and is the owner's alone."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from aftergate.errors import ReadError
from aftergate.pipeline.set_aside import SetAside, row


def test_one_line_a_record(tmp_path: Path) -> None:
    """Each record is one JSON line with file, offset and reason; bytes that are no text are shown."""
    path = tmp_path / "aside.jsonl"
    with SetAside(path) as aside:
        aside.add("a.json", 7, "not valid JSON", b'{"client_secret":"hush","x":"\xff\n"}')
        aside.add("b.json", 0, "empty", b"")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [
        {"file": "a.json", "offset": 7, "reason": "not valid JSON", "record": '{"client_secret":"***","x":"\\xff\n"}'},
        {"file": "b.json", "offset": 0, "reason": "empty", "record": ""},
    ]
    assert aside.count == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_clean_run_leaves_no_file(tmp_path: Path) -> None:
    """The file appears with the first record; without a path records are only counted."""
    with SetAside(tmp_path / "aside.jsonl"):
        pass
    assert not (tmp_path / "aside.jsonl").exists()
    with SetAside() as aside:
        aside.add("a", 0, "x", b"y")
    assert aside.count == 1


def test_long_records_are_shortened_before_masking() -> None:
    """A secret that the cut goes through does not show."""
    found = row("a", 0, "too long", b'{"password":"' + b"s3cret" * 50_000, shorten=100)
    assert found.record == '{"password":"***" [299913 more bytes]'


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """The error names the file."""
    with pytest.raises(ReadError, match="cannot write"), SetAside(tmp_path / "none" / "aside.jsonl") as aside:
        aside.add("a", 0, "x", b"y")
