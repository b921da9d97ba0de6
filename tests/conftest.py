"""What all tests share: no network, and the same examples on every run."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

DATA = Path(__file__).parent / "data"

settings.register_profile("aftergate", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("aftergate")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Aftergate's scan sends nothing anywhere: a test that opens a connection fails. The marks `browser` and `serving` let those to this machine through."""
    local = bool(request.node.get_closest_marker("browser") or request.node.get_closest_marker("serving"))
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def checked(real: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(self: socket.socket, address: Any) -> Any:
            if not local or (isinstance(address, tuple) and address[0] not in {"127.0.0.1", "::1", "localhost"}):
                raise AssertionError(f"a test opened a network connection to {address}")
            return real(self, address)

        return guarded

    monkeypatch.setattr(socket.socket, "connect", checked(connect))
    monkeypatch.setattr(socket.socket, "connect_ex", checked(connect_ex))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of sample logs; each of its folders names source and licence."""
    return DATA


@pytest.fixture(scope="session")
def postgres_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server for all tests of this process."""
    from serving import postgres

    with postgres(tmp_path_factory.mktemp("postgres") / "data") as uri:
        yield uri


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.serving)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database: a test that asks for it runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'aftergate.db'}"
    from serving import new_database

    return new_database(request.getfixturevalue("postgres_uri"))


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from aftergate.stores.database import Database

    path = tmp_path_factory.mktemp("migrated") / "aftergate.db"
    Database.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def migrated_postgresql(postgres_uri: str) -> str:
    from serving import new_database

    from aftergate.stores.database import Database

    uri = new_database(postgres_uri)
    Database.open(uri).close()
    return uri


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.serving)])
def tables_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """As `database_url`, with the tables in it: a copy of one that was brought forward once."""
    if request.param == "sqlite":
        path = tmp_path / "aftergate.db"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
        return f"sqlite:///{path}"
    from serving import new_database

    return new_database(request.getfixturevalue("postgres_uri"), like=request.getfixturevalue("migrated_postgresql"))
