"""Records that could not be used, kept where a person can look at them: JSON Lines of file, offset, reason, record."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import msgspec

from aftergate.errors import ReadError
from aftergate.events.redact import redact_text

SHORTEN: Final = 64 << 10  # bytes of a record that are kept


class Row(msgspec.Struct):
    """One line of the file."""

    file: str
    offset: int
    reason: str
    record: str


def row(name: str, offset: int, reason: str, record: bytes, shorten: int = SHORTEN) -> Row:
    """A set-aside record as it is written: secrets masked, shortened, bytes that are not UTF-8 as `\\xNN`.

    It is shortened before it is masked, so a secret that the cut goes through is masked too.
    """
    text = redact_text(record[:shorten].decode("utf-8", "backslashreplace"))
    if len(record) > shorten:
        text += f" [{len(record) - shorten} more bytes]"
    return Row(name, offset, redact_text(reason), text)


class SetAside:
    """Appends set-aside records to a file that only its owner may read; without a path it only counts.

    The file is made with the first record, so a clean run leaves none. `count` is how many there were.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, shorten: int = SHORTEN) -> None:
        self.path = None if path is None else Path(path)
        self.count = 0
        self._shorten = shorten
        self._file: IO[bytes] | None = None
        self._encode = msgspec.json.Encoder().encode

    def add(self, name: str, offset: int, reason: str, record: bytes) -> None:
        """Keep one record.

        Raises: ReadError, if the file cannot be written.
        """
        self.count += 1
        if self.path is None:
            return
        try:
            if self._file is None:
                self._file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
            self._file.write(self._encode(row(name, offset, reason, record, self._shorten)) + b"\n")
        except OSError as error:
            raise ReadError(f"cannot write set-aside records: {error.strerror}", where=str(self.path)) from None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
