"""Opening, bringing forward, transactions, and what a failing database looks like."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from serving import new_database, postgres
from sqlalchemy import insert, select, text
from sqlalchemy.engine import make_url

from aftergate.errors import ConfigError
from aftergate.stores.database import Database, _private
from aftergate.stores.errors import SchemaTooNew, StoreUnavailable, ValueRefused
from aftergate.stores.tables import all_tables
from aftergate.stores.tables.base import properties


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database.open(database_url)
    yield made
    made.close()


def names(database: Database) -> list[str]:
    with database.read() as connection:
        return sorted(row.name for row in connection.execute(select(properties)))


def put(database: Database, name: str) -> None:
    with database.write() as connection:
        connection.execute(insert(properties).values(name=name, value="v"))


def test_the_migrations_make_exactly_the_tables_that_the_code_uses(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, all_tables()) == []


def test_opening_again_changes_nothing(database: Database, database_url: str) -> None:
    put(database, "kept")
    again = Database.open(database_url)
    assert names(again) == ["kept"]
    again.close()


def test_a_newer_schema_is_refused_and_left_alone(database: Database, database_url: str) -> None:
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999_later'"))
    with pytest.raises(SchemaTooNew, match="9999_later"):
        Database.open(database_url)
    with database.read() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "9999_later"


def test_a_migration_that_fails_leaves_nothing_behind(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic import op

    real = op.create_table

    def failing(name: str, *columns: object, **options: object) -> object:
        if name == "outbox":
            raise RuntimeError("the power went")
        return real(name, *columns, **options)

    monkeypatch.setattr(op, "create_table", failing)
    with pytest.raises(RuntimeError):
        Database.open(database_url)
    monkeypatch.undo()
    made = Database.open(database_url)
    assert names(made) == []
    made.close()


@pytest.mark.serving
def test_of_two_processes_that_start_at_once_both_find_the_tables(database_url: str) -> None:
    code = (
        "import sys; from aftergate.stores.database import Database; d = Database.open(sys.argv[1]);"
        "w = d.write(); c = w.__enter__(); d.touch(c, 'start'); w.__exit__(None, None, None); print(d.versions()['start']); d.close()"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, database_url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    results = [(each.communicate(timeout=60), each.returncode) for each in started]
    assert all(code == 0 for _, code in results), results
    made = Database.open(database_url)
    assert made.versions() == {"start": 3}
    made.close()


def test_a_write_that_raises_is_undone(database: Database) -> None:
    class Stopped(Exception):
        pass

    with pytest.raises(Stopped), database.write() as connection:
        connection.execute(insert(properties).values(name="half", value="v"))
        raise Stopped
    assert names(database) == []
    put(database, "whole")
    assert names(database) == ["whole"]


def test_a_read_sees_one_moment(database: Database) -> None:
    put(database, "before")
    with database.read() as connection:
        first = connection.execute(select(properties)).all()
        put(database, "after")
        assert connection.execute(select(properties)).all() == first
    assert names(database) == ["after", "before"]


def test_of_writers_at_the_same_time_each_sees_what_the_one_before_left(database: Database) -> None:
    def add() -> None:
        for _ in range(10):
            with database.write() as connection:
                database.touch(connection, "topic")

    threads = [threading.Thread(target=add) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert database.versions() == {"topic": 80}


def test_writing_inside_a_write_is_a_defect_that_shows_at_once(tmp_path: Path) -> None:
    made = Database.open(f"sqlite:///{tmp_path / 'a.db'}")
    with pytest.raises(RuntimeError, match="nest"), made.write(), made.write():
        pass
    put(made, "next")
    made.close()


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_text_that_a_database_cannot_hold_is_refused_in_words(database: Database, value: str) -> None:
    if database.dialect == "sqlite" and value == "a\0b":
        pytest.skip("SQLite holds NUL in text")
    with pytest.raises(ValueRefused):
        put(database, value)


def test_durable_before_answering_whatever_the_default(database: Database) -> None:
    with database.read() as connection:
        if database.dialect == "sqlite":
            assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        else:
            assert connection.execute(text("SHOW synchronous_commit")).scalar() == "on"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://root@localhost/x", "not a database that Aftergate uses"),
        ("what is this", "not a database address"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("sqlite:////proc/nothing/here/a.db", "cannot make the data directory"),
        ("postgresql://me@db.example/x", "sslmode=prefer"),
        ("postgresql://me@db.example/x?sslmode=disable", "sslmode=disable"),
        ("postgresql://me@192.0.2.7:5432/x?sslmode=allow", "sslmode=allow"),
        ("postgresql://me@/x?host=127.0.0.1:1&host=db.example:2", "sslmode=prefer"),
        ("postgresql://me@localhost/x?hostaddr=192.0.2.7", "sslmode=prefer"),
        ("postgresql:///x?hostaddr=192.0.2.7", "sslmode=prefer"),
        ("postgresql://me@db.example/x?host=", "sslmode=prefer"),
        ("postgresql:///x?service=prod", "sslmode=prefer"),
        ("postgresql://me@db.example/x?sslmode=verify-full&sslmode=disable", "another machine"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_advice(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        Database.open(url)
    assert refused.value.advice()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me@db.example/x?sslmode=require",
        "postgresql://me@db.example/x?sslmode=verify-full",
        "postgresql://me@localhost/x",
        "postgresql://me@[::1]:5432/x",
        "postgresql://me@127.0.0.1/x?sslmode=disable",
        "postgresql:///x",
        "postgresql:///x?host=/run/postgresql",
        "postgresql:///x?host=@/run/abstract",
        "postgresql://me@LOCALHOST/x",
        "postgresql://me@[::ffff:127.0.0.1]/x",
        "postgresql:///x?service=prod&sslmode=require",
    ],
)
def test_a_private_way_to_postgresql_is_taken(url: str) -> None:
    """Nothing is connected here."""
    _private(make_url(url))


@pytest.mark.parametrize("name", ["PGHOST", "PGHOSTADDR", "PGSERVICE"])
def test_the_environment_does_not_lead_to_another_machine_without_tls(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "192.0.2.7")
    with pytest.raises(ConfigError, match="another machine"):
        _private(make_url("postgresql:///x"))
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    if name == "PGSERVICE":  # the service's own word on it would count more
        with pytest.raises(ConfigError, match="another machine"):
            _private(make_url("postgresql:///x"))
    else:
        _private(make_url("postgresql:///x"))


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"not a database at all, only text" * 100)
    with pytest.raises(StoreUnavailable, match=r"a\.db.*not a database"):
        Database.open(f"sqlite:///{tmp_path / 'a.db'}")


def test_the_database_file_is_its_owners_only(tmp_path: Path) -> None:
    Database.open(f"sqlite:///{tmp_path / 'new' / 'a.db'}").close()
    assert (tmp_path / "new" / "a.db").stat().st_mode & 0o777 == 0o600


def test_a_file_taken_away_stops_reads_and_writes_and_put_back_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    made = Database.open(f"sqlite:///{path}")
    put(made, "first")
    path.rename(tmp_path / "away.db")
    with pytest.raises(StoreUnavailable, match="moved, removed or replaced"):
        put(made, "lost")
    with pytest.raises(StoreUnavailable):
        names(made)
    assert not path.exists()
    (tmp_path / "away.db").rename(path)
    put(made, "second")
    assert names(made) == ["first", "second"]
    made.close()


def test_a_file_taken_away_during_a_write_tells_nobody_that_it_is_durable(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    made = Database.open(f"sqlite:///{path}")
    with pytest.raises(StoreUnavailable), made.write() as connection:
        connection.execute(insert(properties).values(name="gone", value="v"))
        path.unlink()
    made.close()


def test_another_file_in_its_place_is_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    made = Database.open(f"sqlite:///{path}")
    other = Database.open(f"sqlite:///{tmp_path / 'other.db'}")
    other.close()
    (tmp_path / "other.db").replace(path)
    with pytest.raises(StoreUnavailable, match="replaced"):
        put(made, "x")
    made.close()


def test_a_full_disk_refuses_the_write_whole_and_goes_on_once_there_is_room(tmp_path: Path) -> None:
    made = Database.open(f"sqlite:///{tmp_path / 'a.db'}")
    with made.read() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar()
    with made.engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")  # of the pool's one connection, which the next takes
    with pytest.raises(StoreUnavailable, match="full"), made.write() as connection:
        connection.execute(insert(properties).values(name="small", value="v"))
        connection.execute(insert(properties).values(name="large", value="v" * 100_000))
    assert names(made) == []
    with made.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=100000")
    put(made, "small")
    assert names(made) == ["small"]
    made.close()


def test_a_file_without_write_permission_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Database.open(f"sqlite:///{path}").close()
    made = Database.open(f"sqlite:///{path}")
    with made.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only=ON")  # what a read-only mount does to it; root may write to any file
    with pytest.raises(StoreUnavailable, match="readonly"):
        put(made, "x")
    made.close()


@pytest.mark.serving
def test_a_postgresql_that_stops_is_unavailable_and_after_its_return_all_goes_on(tmp_path: Path) -> None:
    with postgres(tmp_path / "data") as uri:
        made = Database.open(new_database(uri))
        put(made, "first")
    with pytest.raises(StoreUnavailable):
        put(made, "lost")
    with pytest.raises(StoreUnavailable):
        names(made)
    with postgres(tmp_path / "data"):
        assert names(made) == ["first"]
        put(made, "second")
        assert names(made) == ["first", "second"]
        made.close()


@pytest.mark.serving
def test_a_connection_cut_in_the_middle_of_a_write_leaves_nothing(postgres_uri: str) -> None:
    made = Database.open(new_database(postgres_uri))
    killer = Database.open(made.engine.url.render_as_string(hide_password=False))
    with pytest.raises(StoreUnavailable), made.write() as connection:
        connection.execute(insert(properties).values(name="half", value="v"))
        own = connection.execute(text("SELECT pg_backend_pid()")).scalar()
        with killer.read() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": own})
        connection.execute(select(properties))
    assert names(made) == []
    made.close()
    killer.close()


def test_neither_password_nor_values_get_into_an_error() -> None:
    with pytest.raises(StoreUnavailable) as raised:
        Database.open("postgresql://me:hunter2secret@127.0.0.1:1/x")
    assert "hunter2secret" not in str(raised.value)
    assert "hunter2secret" not in repr(raised.value)
