"""What the audit parts raise. A proof that does not hold is a value, never one of these."""

from __future__ import annotations

from aftergate.errors import AftergateError


class NotCanonical(AftergateError):
    """A value that has no canonical JSON form, or bytes that are not one."""

    code = "not-canonical"


class BadRecord(AftergateError):
    """A record that the log cannot hold: unknown type, too large, a value that JSON has not."""

    code = "bad-record"


class BadNote(AftergateError):
    """A signed note, checkpoint, key or proof file that is malformed or not signed by a known key."""

    code = "bad-note"


class BadBundle(AftergateError):
    """An export that cannot be read at all."""

    code = "bad-bundle"
