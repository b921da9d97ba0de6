"""One database, opened and brought forward: SQLite in the data directory by default, PostgreSQL when there is more than one server process."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

import stamina
from sqlalchemy import URL, Connection, Engine, create_engine, event, select, text
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.pool import QueuePool

from aftergate.errors import ConfigError
from aftergate.settings import is_loopback
from aftergate.stores.errors import SchemaTooNew, StoreUnavailable, ValueRefused
from aftergate.stores.tables.base import changes

if TYPE_CHECKING:
    from alembic.config import Config

BUSY_MS: Final = 10_000
ANSWER_MS: Final = 30_000  # the longest that PostgreSQL may take over one statement
TLS_MODES: Final = frozenset({"require", "verify-ca", "verify-full"})
MIGRATION_LOCK: Final = 7_248_113_905  # any number, the same for all releases: who migrates holds it
CONNECTIONS: Final = 8
MORE_CONNECTIONS: Final = 40
Dialect = Literal["sqlite", "postgresql"]


class Database:
    """The tables, in transactions.

    `read()` and `write()` give a SQLAlchemy connection. A read sees one moment of the database, however many queries it makes. `write()` is
    one transaction: everything that must be atomic (an approval's consumption and its audit record) shares it. It commits when the block
    ends well, and otherwise leaves nothing behind; it does not nest.
    Raises: StoreUnavailable, whenever the database can't do what was asked; nothing has been written then, or nobody may rely on it.
    ValueRefused, for a value that no column can hold.
    """

    def __init__(self, engine: Engine, file: SqliteFile | None = None) -> None:
        self.engine = engine
        self.dialect: Dialect = "postgresql" if engine.dialect.name == "postgresql" else "sqlite"
        self._file = file
        self._writing = threading.Lock()
        self._writer = 0  # the thread that holds it

    @classmethod
    def open(cls, url: str, *, migrate: bool = True) -> Database:
        """Open, and bring the tables forward to this release.

        `url` is `sqlite:///PATH` or `postgresql://USER@HOST/NAME`.
        Raises: ConfigError, if the address can't be used; SchemaTooNew; StoreUnavailable.
        """
        engine, file = _engine(url)
        database = cls(engine, file)
        try:
            if migrate:
                database._bring_forward()
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._translated(), self._connected() as connection:
            if self.dialect == "sqlite":
                connection.exec_driver_sql("BEGIN")
            else:
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        if self.dialect == "sqlite":
            with self._translated(), self._queued(), self._connected() as connection, _immediate(connection):
                yield connection
            # INVARIANT: what was committed into a file that has meanwhile been taken away is not durable, so nobody is told that it is.
            self._there()
        else:
            with self._translated(), self._connected() as connection, connection.begin():
                yield connection

    def insert(self, table: Any) -> Any:
        """An INSERT that knows `on_conflict_do_nothing` and `on_conflict_do_update`, which both databases have and SQL has not."""
        return postgresql_insert(table) if self.dialect == "postgresql" else sqlite_insert(table)

    def touch(self, connection: Connection, topic: str) -> None:
        """Tell every process that what `topic` names has changed, once this transaction is committed."""
        statement = self.insert(changes).values(topic=topic, version=1)
        connection.execute(statement.on_conflict_do_update(index_elements=[changes.c.topic], set_={"version": changes.c.version + 1}))

    def versions(self) -> dict[str, int]:
        """How often each topic has changed."""
        with self.read() as connection:
            return {row.topic: row.version for row in connection.execute(select(changes))}

    def close(self) -> None:
        self.engine.dispose()

    def name(self) -> str:
        """The address without its password, which may stand in its parameters too."""
        return self.engine.url.set(query={}).render_as_string(hide_password=True) if self._file is None else f"sqlite:///{self._file.path}"

    def _there(self) -> None:
        if self._file is not None and not self._file.there():
            raise StoreUnavailable(
                "the database file was moved, removed or replaced while the server runs",
                where=str(self._file.path),
                hint="put the same file back and the server goes on; to use another one, start the server again",
            )

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        self._there()
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def _queued(self) -> Iterator[None]:
        """One writer of this process at a time, in order, holding no connection while it waits: SQLite lets waiting writers overtake each other."""
        if self._writer == threading.get_ident():
            raise RuntimeError("write() does not nest: pass the connection on")
        if not self._writing.acquire(timeout=BUSY_MS / 1000):
            raise StoreUnavailable("the database is busy: other writers held it for 10 s", where=self.name())
        self._writer = threading.get_ident()
        try:
            yield
        finally:
            self._writer = 0
            self._writing.release()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The driver's errors in our words; what is a defect of ours stays what it is."""
        try:
            yield
        except IntegrityError:
            raise  # two at the same moment, or a defect: who writes knows which
        except DataError as e:
            raise ValueRefused(f"a value that the database cannot hold: {_first_line(e)}") from e
        except NoConnection as e:
            raise StoreUnavailable("all connections to the database are taken", where=self.name()) from e
        except DBAPIError as e:
            raise StoreUnavailable(f"the database does not answer: {_first_line(e)}", where=self.name()) from e
        except SQLAlchemyError as e:
            if type(e).__name__ in {"PendingRollbackError", "ResourceClosedError"}:
                raise StoreUnavailable(f"the database went away: {_first_line(e)}", where=self.name()) from e
            raise
        except sqlite3.Error as e:  # while a connection is being made
            raise StoreUnavailable(f"the database does not answer: {e}", where=self.name()) from e
        except (UnicodeEncodeError, OverflowError) as e:
            raise ValueRefused(f"a value that the database cannot hold: {type(e).__name__}") from e

    def _bring_forward(self) -> None:
        from alembic import command
        from alembic.runtime.migration import MigrationContext
        from alembic.script import ScriptDirectory

        config = _alembic()
        script = ScriptDirectory.from_config(config)
        known = {revision.revision for revision in script.walk_revisions()}
        with self.write() as connection:
            if self.dialect == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": MIGRATION_LOCK})
            current = MigrationContext.configure(connection).get_current_revision()
            if current is not None and current not in known:
                raise SchemaTooNew(f"the database has schema `{current}`, which this release does not know", where=self.name())
            if current != script.get_current_head():
                config.attributes["connection"] = connection
                command.upgrade(config, "head")


class SqliteFile:
    """One SQLite file, known by its inode: a file that comes in its place is another one, and would silently begin a history of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        held = path.stat()
        self._known = (held.st_dev, held.st_ino)

    def there(self) -> bool:
        try:
            held = self.path.stat()
        except OSError:
            return False
        return (held.st_dev, held.st_ino) == self._known

    def connect(self) -> sqlite3.Connection:
        # `mode=rw`: a file that has gone is not made anew.
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw", uri=True, check_same_thread=False, timeout=BUSY_MS / 1000, isolation_level=None
        )
        try:
            if not self.there():
                raise sqlite3.OperationalError("the database file was replaced")
            for pragma in ("synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_MS}", "trusted_schema=OFF"):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection


def _alembic() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def _engine(url: str) -> tuple[Engine, SqliteFile | None]:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as e:
        raise ConfigError("not a database address", where="--database", hint="give sqlite:///PATH or postgresql://USER@HOST/NAME") from e
    backend = parsed.get_backend_name()
    if parsed.drivername == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigError("SQLite needs a file", where="--database", hint="give sqlite:///PATH")
        file = _sqlite_file(Path(parsed.database))
        # SQLAlchemy's own `creator` takes no arguments; the pool keeps a connection open so that its locks and caches stay.
        return create_engine(
            "sqlite://",
            creator=file.connect,
            poolclass=QueuePool,
            pool_size=CONNECTIONS,
            max_overflow=MORE_CONNECTIONS,
            pool_timeout=BUSY_MS / 1000,
        ), file
    if backend in {"postgresql", "postgres"} and parsed.drivername in {"postgresql", "postgres", "postgresql+psycopg"}:
        _private(parsed)
        arguments = {
            "connect_timeout": 5,
            "application_name": "aftergate",
            "client_encoding": "utf8",
            "keepalives_idle": 30,
            "tcp_user_timeout": ANSWER_MS,
        }
        try:
            engine = create_engine(
                parsed.set(drivername="postgresql+psycopg"),
                pool_size=CONNECTIONS,
                max_overflow=MORE_CONNECTIONS,
                pool_timeout=BUSY_MS / 1000,
                pool_pre_ping=True,
                connect_args=arguments,
            )
        except ModuleNotFoundError as e:
            raise ConfigError("PostgreSQL needs the extra `postgres`", where="--database", hint="pip install 'aftergate[postgres]'") from e
        event.listen(engine, "connect", _on_postgresql_connect)
        return engine, None
    raise ConfigError(
        f"`{parsed.drivername}` is not a database that Aftergate uses", where="--database", hint="give sqlite:///PATH or postgresql://..."
    )


def _private(url: URL) -> None:
    """Raises: ConfigError, if the way to the database could be read or changed by others: it is on another machine, and TLS is not insisted on.

    Looked at is all that libpq may take the address from: `hostaddr` and `host` in the URL or else the environment, and a service file, which may
    say anything.
    """

    def said(name: str, variable: str) -> list[str]:
        given = url.query.get(name, "")
        held = ",".join(given) if isinstance(given, tuple) else given
        return [part for part in (held or os.environ.get(variable, "")).split(",") if part]

    own = (url.host or "").split(",") if url.host else []
    hosts = [*own, *said("host", "" if own else "PGHOST"), *said("hostaddr", "PGHOSTADDR")]
    service = bool(said("service", "PGSERVICE"))
    if not service and all(map(_of_this_machine, hosts)):
        return
    given = url.query.get("sslmode", "")
    mode = given if isinstance(given, str) and given else "" if service else os.environ.get("PGSSLMODE", "")
    if mode not in TLS_MODES:
        raise ConfigError(
            f"PostgreSQL on another machine with `sslmode={mode or 'prefer'}`: requests and approvals would cross the network open to others",
            where="--database",
            hint="add ?sslmode=verify-full (with sslrootcert=FILE for an authority of your own), or at least ?sslmode=require",
        )


def _of_this_machine(host: str) -> bool:
    """A socket of this machine, or its loopback address, with or without a port."""
    if host.startswith(("/", "@")):
        return True
    bracketed = re.fullmatch(r"\[(.*)\](?::\d+)?", host)
    name = bracketed[1] if bracketed else host.partition(":")[0] if host.count(":") == 1 else host
    return is_loopback(name)


def _sqlite_file(path: Path) -> SqliteFile:
    """The file, made if there is none, readable by its owner only, in WAL mode.

    Raises: ConfigError; StoreUnavailable, if it is no database or its disk is full.
    """
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as e:
        raise ConfigError(f"cannot make the data directory: {e.strerror}", where=str(folder), hint="give another with --data") from e
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError("cannot write into the data directory", where=str(folder), hint="give another with --data, or change its owner")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        file = SqliteFile(path)
    except OSError as e:
        raise ConfigError(
            f"cannot open the database file: {e.strerror}", where=str(path), hint="see its owner and mode, or give another with --data"
        ) from e
    try:
        _to_wal(file)
    except sqlite3.Error as e:
        raise StoreUnavailable(f"the database does not open: {e}", where=str(path)) from e
    return file


@stamina.retry(on=sqlite3.OperationalError, attempts=8, timeout=BUSY_MS / 1000, wait_initial=0.05, wait_max=0.5)
def _to_wal(file: SqliteFile) -> None:
    """Readers beside a writer. The change of mode waits for no lock, so that of two servers that start at once one has to try again."""
    connection = file.connect()
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def _on_postgresql_connect(connection: Any, _record: Any) -> None:
    # An answer is sent only after its record is durable, whatever the server's default; and no lock or statement holds a caller for ever.
    durable = "CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT set_config('synchronous_commit', {durable}, false)")
        cursor.execute(f"SET statement_timeout = {ANSWER_MS}")
        cursor.execute(f"SET lock_timeout = {BUSY_MS}")
        cursor.execute(f"SET idle_in_transaction_session_timeout = {ANSWER_MS}")
    connection.commit()


@contextmanager
def _immediate(connection: Connection) -> Iterator[None]:
    # A lock from the start: a reader that turns into a writer half-way could find its snapshot old and fail.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    yield
    # When the block raises, closing the connection rolls back, as it does when the commit itself fails.
    connection.exec_driver_sql("COMMIT")


def _first_line(error: Exception) -> str:
    """The driver's own words, without the statement and its parameters, which may hold what a log must not."""
    origin = getattr(error, "orig", None)
    return str(origin or type(error).__name__).strip().split("\n", 1)[0]
