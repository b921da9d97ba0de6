"""Errors a person can act on: what, where, what to do."""

from __future__ import annotations


class AftergateError(Exception):
    """Base of all errors that Aftergate raises on purpose.

    `code` is stable across releases; `where` names the file and offset, event id or field; `advice()` is the sentence an operator needs.
    """

    code = "aftergate"
    hint = ""

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        if hint:
            self.hint = hint

    def advice(self) -> str:
        return self.hint

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        tail = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.message}{tail}"


class Reject(AftergateError):
    """A record that cannot be normalised: the pipeline sets it aside, counts it, and goes on."""

    code = "record-rejected"


class NotMine(Reject):
    """The record belongs to another source than the one asked."""

    code = "record-of-other-source"


class ReadError(AftergateError):
    """A file, or the rest of one, that cannot be read."""

    code = "unreadable-input"


class ConfigError(AftergateError):
    """A setting, option or side file that cannot be used."""

    code = "bad-configuration"
