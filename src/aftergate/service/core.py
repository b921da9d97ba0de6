"""The server's parts, put together: settings, database, clock, log, trust, decisions, approvals, tasks, people."""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, Self

import structlog
from sqlalchemy import select

from aftergate.errors import AftergateError, ConfigError
from aftergate.service.approvals import Approvals
from aftergate.service.callers import Tokens
from aftergate.service.clock import Clock
from aftergate.service.decisions import Decider
from aftergate.service.housekeeping import Housekeeping
from aftergate.service.keys import ApiKeys, write_secret
from aftergate.service.people import People
from aftergate.service.retention import Retention
from aftergate.service.tasks import Tasks
from aftergate.service.trust import TrustView, half_lives
from aftergate.settings import Settings
from aftergate.stores.audit_log import AuditLog
from aftergate.stores.database import Database
from aftergate.stores.tables.base import properties

log = structlog.get_logger("aftergate")
BLOCKING: Final = frozenset({"store", "trust", "decider", "decisions", "audit"})
BACK_MS: Final = 1_000  # a wall clock that lags more than this has been turned back


class Part(Protocol):
    """What a part may do beside answering. Each is called by the keeper, one thread of the server."""

    def tick(self, now_ms: int) -> None:
        """Do what is due. Raises: StoreUnavailable; the next tick tries again."""


class Ground:
    """What everything else stands on: settings, database, clock, log, keys. Commands that need no decisions open only this."""

    def __init__(self, settings: Settings, database: Database, *, clock: Clock | None = None, url: str = "") -> None:
        self.settings = settings
        self.url = url or settings.url()
        self.data = Path(settings.data)
        self.proxies = settings.proxies()
        self.db = database
        self.clock = clock or Clock()
        self.pepper = key_bytes(self.data / "keys" / "pepper")
        same_pepper(database, self.pepper, self.data / "keys" / "pepper")
        self.audit = AuditLog.open(settings, database, self.clock, self.url)
        self.clock.at_least(self.audit.last_ms())
        self.keys = ApiKeys(self)

    @classmethod
    def open(cls, settings: Settings, *, clock: Clock | None = None, url: str = "") -> Self:
        """Open the database, bring it forward, and read everything that answering needs.

        Raises: ConfigError, SchemaTooNew, StoreUnavailable, PolicyError.
        """
        data = Path(settings.data)
        try:
            data.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as e:
            raise ConfigError(f"cannot make the data directory: {e.strerror}", where=str(data), hint="give another with --data") from e
        database = Database.open(settings.database_url())
        try:
            made = cls(settings, database, clock=clock, url=url)
            made.refresh()
        except BaseException:
            database.close()
            raise
        return made

    def refresh(self) -> None:
        """See what other processes changed.

        Raises: StoreUnavailable.
        """
        self.keys.refresh()

    def close(self) -> None:
        self.db.close()


class Core(Ground):
    """One server process's parts. `open` makes them, `start` begins the timer, `close` ends all of it and loses nothing."""

    def __init__(self, settings: Settings, database: Database, *, clock: Clock | None = None, url: str = "") -> None:
        super().__init__(settings, database, clock=clock, url=url)
        self.problems: dict[str, str] = {}  # part: what is wrong with it now, in words
        self.trust = TrustView(database, self.clock, settings.trust_stale_s * 1000, half_lives())
        self.tokens = Tokens.of(self) if settings.caller_issuer else None
        self.people = People(self)
        self.decider = Decider(self)
        self.approvals = Approvals(self)
        self.tasks = Tasks(self)
        self.retention = Retention(self)
        self.housekeeping = Housekeeping(self)
        self._keeper = Keeper(self, settings.trust_refresh_ms / 1000)
        self._closed = False

    def refresh(self) -> None:
        """See what other processes changed.

        Raises: StoreUnavailable.
        """
        versions = self.db.versions()
        self.keys.refresh(versions.get("keys", 0))
        self.trust.refresh(versions.get("findings", 0))

    def start(self) -> None:
        self._keeper.turn()  # the log tells of the start before it tells of any answer
        self._keeper.start()

    def close(self) -> None:
        """Stop the timer, write what waits, sign a last checkpoint, close the database. Once is enough; twice does no harm."""
        if self._closed:
            return
        self._closed = True
        self._keeper.stop()
        for name, part in (("decisions", self.decider), ("audit", self.audit)):
            try:
                part.close()
            except AftergateError as e:
                log.error("could not finish", part=name, problem=str(e))  # noqa: TRY400  no trace: what is wrong is said
        self.db.close()

    def turned_back(self) -> str:
        """What is wrong with the system clock, in words; empty if nothing is."""
        behind_ms = self.clock.behind_ms
        return (
            f"the system clock was turned back by {behind_ms / 1000:.0f} s: the server goes on with its own" if behind_ms > BACK_MS else ""
        )

    def health(self) -> dict[str, str]:
        """What is wrong now, by part; empty when all is well. `BLOCKING` names the parts without which nothing is decided."""
        found = dict(self.problems)
        if not self.trust.fresh:
            found["trust"] = f"live trust could not be refreshed for {self.settings.trust_stale_s} s: everything is denied until it is"
        if turned_back := self.turned_back():
            found["clock"] = turned_back
        if self.decider.log.problem:
            found["decisions"] = self.decider.log.problem
        for holder in self.decider.holders:
            if holder.problems:
                words = "; ".join(str(each) for each in holder.problems[:3])
                found[f"{holder.kind} policies"] = f"the changed files are refused and the set before them stays: {words}"
        refused = self.audit.problem()
        if refused:
            found["audit"] = refused
        return found


class Keeper:
    """The timer: sees changes of other processes, writes what waits, ends what expired. A failure is told, and tried again at the next turn."""

    def __init__(self, core: Core, every_s: float) -> None:
        self._core = core
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._turned_back = False

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.turn()

    def turn(self) -> None:
        """Everything that is due, once."""
        core = self._core
        self._tell_clock()
        parts: list[tuple[str, Callable[[], Any]]] = [("store", core.refresh)]
        for name in ("decider", "approvals", "tasks", "people", "audit", "retention", "housekeeping", "keys"):
            part: Part = getattr(core, name)
            parts.append((name, partial(_tick, part, core)))
        for name, work in parts:
            try:
                work()
            except AftergateError as e:
                if core.problems.get(name) != e.message:
                    log.error("not working", part=name, problem=str(e), code=e.code)  # noqa: TRY400  no trace: what is wrong is said
                core.problems[name] = e.message
            except Exception:
                # A defect in one part must not end the timer of the others.
                log.exception("failed", part=name)
                core.problems[name] = "an internal error; see the log"
            else:
                if core.problems.pop(name, None) is not None:
                    log.info("working again", part=name)

    def _tell_clock(self) -> None:
        words = self._core.turned_back()
        if bool(words) != self._turned_back:
            self._turned_back = bool(words)
            if words:
                log.warning("the clock is not right", problem=words)
            else:
                log.info("the clock is right again")


def _tick(part: Part, core: Core) -> None:
    part.tick(core.clock())


def same_pepper(database: Database, pepper: bytes, path: Path) -> None:
    """Several servers on one database share one data directory, or they would not know each other's keys.

    Raises: ConfigError, if this database was begun with another key file; StoreUnavailable.
    """
    mark = hmac.digest(pepper, b"aftergate pepper", "sha256").hex()
    with database.write() as connection:
        connection.execute(
            database.insert(properties).values(name="pepper", value=mark).on_conflict_do_nothing(index_elements=[properties.c.name])
        )
        held = connection.execute(select(properties.c.value).where(properties.c.name == "pepper")).scalar_one()
    if held != mark:
        raise ConfigError(
            "this database was begun with another key file, by which its callers' keys are known",
            where=str(path),
            hint="give the data directory that belongs to this database, or restore its `keys` folder",
        )


def key_bytes(path: Path) -> bytes:
    """32 random bytes kept in a file that only its owner reads; made at the first start.

    Raises: ConfigError, if it is there and can't be used.
    """
    if not path.exists():
        try:
            write_secret(path, secrets.token_hex(32) + "\n")
        except ConfigError:
            if not path.exists():  # else another process was first
                raise
    try:
        made = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError) as e:
        raise ConfigError(
            f"cannot read the key file: {e.strerror if isinstance(e, OSError) else 'it is damaged'}",
            where=str(path),
            hint="restore it from a copy of the data directory: callers' keys are known by it",
        ) from e
    if len(made) != 32:
        raise ConfigError(
            "the key file does not hold 32 bytes in hex", where=str(path), hint="restore it from a copy of the data directory"
        )
    return made
