"""Lets the tests of this folder share `workshop.py`, and the `serving.py` above it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for folder in (Path(__file__).parent, Path(__file__).parent.parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from workshop import Shop  # noqa: E402


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A server's core on SQLite."""
    made = Shop(tmp_path)
    yield made
    made.close()


@pytest.fixture
def each_shop(database_url: str, tmp_path: Path) -> Iterator[Shop]:
    """The same on SQLite and on PostgreSQL."""
    made = Shop(tmp_path, database=database_url)
    yield made
    made.close()
