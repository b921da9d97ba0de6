"""Where a command works: on a data directory, or on a running server with a key."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aftergate.cli.options import Directory, Place
from aftergate.errors import ConfigError
from aftergate.settings import PREFIX, Settings, load

if TYPE_CHECKING:
    from aftergate.audit.records import Actor
    from aftergate.client import Client
    from aftergate.client.sending import Proof, Sender
    from aftergate.service.core import Ground

KEY_VARIABLES: Final = ("AFTERGATE_KEY", "AFTERGATE_API_KEY")
# What the database and the log are called; the rest of a server's settings is of no concern to a command.
SHARED: Final = ("data", "database", "public_url", "audit_origin")


def key_of(key_file: Path | None, flag: str = "--key-file") -> str:
    """The first word of the file, else what the environment holds.

    Raises: ConfigError.
    """
    if key_file is not None:
        try:
            words = [word for line in key_file.read_text("utf-8").splitlines() for word in line.split("#", 1)[0].split()]
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigError(f"cannot read the key: {reason}", where=str(key_file), hint=f"give a readable file with {flag}") from None
        if not words:
            raise ConfigError("there is no key in it", where=str(key_file), hint="its first word is the API key")
        return words[0]
    for name in KEY_VARIABLES:
        if os.environ.get(name):
            return os.environ[name]
    raise ConfigError("the server wants a key", where=flag, hint=f"give a file whose first word is an API key, or set {KEY_VARIABLES[0]}")


@contextmanager
def client(url: str, key_file: Path | None, flag: str = "--key-file", *, proof: Proof | None = None) -> Iterator[Client]:
    """A client for a running server. Raises: ConfigError."""
    import stamina

    from aftergate.client import Client

    stamina.instrumentation.set_on_retry_hooks([])  # what is tried again is no news on a terminal; what fails is told
    with Client(url, key_of(key_file, flag), proof=proof) as made:
        yield made


@contextmanager
def sender(place: Place) -> Iterator[Sender]:
    """For what `client` has no method for. Raises: ConfigError."""
    import stamina

    from aftergate.client.sending import Sender

    stamina.instrumentation.set_on_retry_hooks([])
    made = Sender(place.server or "", key_of(place.key_file), timeout_s=60)
    try:
        yield made
    finally:
        made.close()


def settings_of(place: Directory) -> Settings:
    """A server's settings, as options and environment say them. Raises: ConfigError."""
    return load({"data": None if place.data is None else str(place.data), "database": place.database})


@contextmanager
def ground(data: Path | None, database: str | None, *, there: bool = True) -> Iterator[Ground]:
    """Database, keys and log of a data directory, whether a server runs on it or not.

    `there` refuses a directory without a database: a wrong name must not begin a new one.
    Raises: ConfigError, SchemaTooNew, StoreUnavailable.
    """
    import structlog

    from aftergate.service.core import Ground

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))  # errors only: this is a terminal
    given: dict[str, Any] = {name: os.environ[PREFIX + name.upper()] for name in SHARED if os.environ.get(PREFIX + name.upper())}
    if data is not None:
        given["data"] = str(data)
        if database is None:
            given.pop("database", None)  # the directory that was named, not what the environment says beside it
    if database is not None:
        given["database"] = database
    settings = Settings(**given)
    path = Path(settings.data) / "aftergate.db"
    if there and not settings.database and not path.is_file():
        raise ConfigError(
            "no Aftergate database is here", where=settings.data, hint="name the server's data directory, or its URL with --server"
        )
    made = Ground.open(settings)
    try:
        yield made
    finally:
        made.close()


def operator() -> Actor:
    """Who works at this terminal, for the log."""
    from aftergate.audit.records import Actor

    try:
        return Actor("operator", getpass.getuser())
    except (OSError, KeyError):
        return Actor("operator", "unknown")
