"""Lets the tests of this folder share `company.py` and `remote.py`, and the `serving.py` above: pytest's importlib mode puts no test folder on the path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for folder in (Path(__file__).parent, Path(__file__).parent.parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from company import Company  # noqa: E402
from serving import new_database, postgres  # noqa: E402


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real PostgreSQL server."""
    import psycopg

    with postgres(tmp_path_factory.mktemp("postgres")) as uri:
        with psycopg.connect(uri, autocommit=True) as connection:
            # A database for each test: nothing here has to outlive the machine.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield uri


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def company(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Company]:
    """A core on either database, with one approver of each group."""
    made = Company(tmp_path, database=new_database(request.getfixturevalue("postgresql")) if request.param == "postgresql" else "")
    made.person("bob", "finance")
    made.person("dave", "treasury", aliases=("dave@example.com",))
    yield made
    made.core.close()
