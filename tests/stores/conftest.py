"""Stores on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aftergate.service.core import Ground
from aftergate.settings import Settings


@pytest.fixture
def ground(tables_url: str, tmp_path: Path) -> Iterator[Ground]:
    """Database, clock, log and keys, on SQLite and on PostgreSQL."""
    made = Ground.open(Settings(data=str(tmp_path / "data"), database=tables_url))
    yield made
    made.close()


@pytest.fixture
def other(ground: Ground) -> Iterator[Ground]:
    """A second process's hold on the same database and data directory, as far as one test process can have it."""
    made = Ground.open(ground.settings)
    yield made
    made.close()
