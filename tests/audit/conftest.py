"""Logs on both databases."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from keeping import ORIGIN, Clock
from serving import new_database, postgres

from aftergate.stores.audit_log import AuditLog
from aftergate.stores.database import Database


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres(tmp_path_factory.mktemp("pg")) as uri:
        yield uri


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/a.db"
    return new_database(request.getfixturevalue("postgres_server"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    made = Database.open(url)
    yield made
    made.close()


@pytest.fixture
def log(database: Database, tmp_path: Path, clock: Clock) -> AuditLog:
    return AuditLog.at(database, tmp_path / "audit", ORIGIN, clock)
