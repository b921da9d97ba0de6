"""Lets the tests of this folder share `people_house.py`, and gives each a house of its own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aftergate.settings import Settings
from aftergate.stores.database import Database
from aftergate.stores.tables import all_tables

sys.path.insert(0, str(Path(__file__).parent))

from people_house import House


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with all tables, to be copied."""
    path = tmp_path_factory.mktemp("people") / "people.db"
    made = Database.open(f"sqlite:///{path}", migrate=False)
    all_tables().create_all(made.engine)
    made.close()
    return path


@pytest.fixture
def database(tmp_path: Path, template: Path) -> Iterator[Database]:
    path = tmp_path / "people.db"
    shutil.copy(template, path)
    made = Database.open(f"sqlite:///{path}", migrate=False)
    yield made
    made.close()


@pytest.fixture
def house(database: Database) -> House:
    return House(database, Settings())
