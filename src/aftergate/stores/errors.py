"""What a database may say no with."""

from __future__ import annotations

from aftergate.errors import AftergateError


class StoreUnavailable(AftergateError):
    """The database cannot be reached, is full, or is locked: nothing was written. A caller gets 503, never a permit."""

    code = "store-unavailable"
    hint = "see that the database is up and its disk has room; the server goes on by itself once it is"


class LogRefused(StoreUnavailable):
    """The audit log and what was signed about it no longer agree: nothing may be added, so nothing may be decided."""

    code = "audit-log-refused"
    hint = ""


class SchemaTooNew(AftergateError):
    """The database was written by a newer Aftergate than this one."""

    code = "schema-too-new"
    hint = "start the newer release again, or restore a copy made before it; this one would misread the tables"


class ValueRefused(AftergateError):
    """A value that no column can hold: a text with a NUL character, or a number beyond 64 bits."""

    code = "value-refused"
    hint = "send text without NUL characters, and whole numbers of at most 64 bits"
