"""A file's content as blocks of UTF-8 text: unpacked (gzip, zstd), without byte order mark, decoded from UTF-16. Damage is noted, never raised."""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import Final, Protocol

import msgspec
import zstandard

SHOWN: Final = 64 << 10  # bytes of a bad record that a Fault carries


class Readable(Protocol):
    """What `open(..., "rb")` and `sys.stdin.buffer` answer to."""

    def read(self, size: int = -1, /) -> bytes | None: ...

    def seek(self, offset: int, /) -> int: ...


class Fault(msgspec.Struct, frozen=True):
    """Something that could not be read. `offset` counts like the offsets of lines; `record` is at most SHOWN bytes of it."""

    name: str
    offset: int
    reason: str
    record: bytes = b""


class Content:
    """One reading of one input: how far it is, and what went wrong."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.done = 0  # stored bytes taken
        self.packing = ""  # gzip, zstd, or nothing: known once reading began
        self.encoding = "utf-8"
        self.position = 0  # content bytes handed on
        self.faults: list[Fault] = []

    def fault(self, offset: int, reason: str, record: bytes = b"") -> None:
        self.faults.append(Fault(self.name, offset, reason, bytes(record[:SHOWN])))

    def text(self, file: Readable, length: int | None, block: int, *, plain: bool = False) -> Iterator[bytes]:
        """The content in blocks: unpacked, without byte order mark, as UTF-8. What breaks on the way becomes a fault, and the content ends."""
        raw = self._raw(file, length, block)
        head = next(raw, b"")
        raw = chain([head], raw)
        if plain:
            content: Iterator[bytes] = raw
        elif head.startswith(b"\x1f\x8b"):
            self.packing = "gzip"
            content = self._gzip(raw, block)
        elif head.startswith(b"\x28\xb5\x2f\xfd") or (len(head) > 4 and head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
            self.packing = "zstd"
            content = self._zstd(raw)
        else:
            content = raw
        head = b""
        for piece in content:
            head += piece
            if len(head) >= 4:
                break
        if not plain:
            head = self._mark(head)
        content = chain([head], content)
        if self.encoding != "utf-8":
            content = self._decode(content)
        for piece in content:
            if piece:
                self.position += len(piece)
                yield piece

    def _raw(self, file: Readable, length: int | None, block: int) -> Iterator[bytes]:
        left = length
        while left is None or left > 0:
            try:
                piece = file.read(block if left is None else min(block, left))
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                self.fault(self.position, f"reading stopped: {reason}")
                return
            if not piece:
                return
            self.done += len(piece)
            if left is not None:
                left -= len(piece)
            yield piece

    def _mark(self, head: bytes) -> bytes:
        """Take the byte order mark off, and note the encoding. UTF-16 without a mark shows by the NUL beside its first character."""
        if head.startswith(codecs.BOM_UTF8):
            self.position += 3
            return head[3:]
        for mark, name in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
            if head.startswith(mark):
                self.encoding = name
                return head[2:]
        if len(head) >= 2 and head[0] in b'{["' and head[1] == 0:
            self.encoding = "utf-16-le"
        elif len(head) >= 2 and head[0] == 0 and head[1] in b'{["':
            self.encoding = "utf-16-be"
        return head

    def _decode(self, content: Iterator[bytes]) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(self.encoding)("replace")
        for piece in content:
            yield decoder.decode(piece).encode("utf-8", "replace")
        yield decoder.decode(b"", final=True).encode("utf-8", "replace")

    def _gzip(self, raw: Iterator[bytes], block: int) -> Iterator[bytes]:
        inflater = zlib.decompressobj(31)
        fresh = True  # nothing of the present member was read
        for piece in raw:
            for at in range(0, len(piece), 1 << 16):
                data = piece[at : at + (1 << 16)]
                while data:
                    if fresh and not data.strip(b"\0"):
                        break  # tape and object stores pad with zeros
                    if fresh and not b"\x1f\x8b".startswith(data[:2]):
                        self.fault(self.position, "bytes after the end of the gzip data", data[:256])
                        return
                    fresh = False
                    before = inflater.copy()
                    try:
                        yield inflater.decompress(data, block)
                    except zlib.error as error:
                        yield from _salvage(before, data)
                        self.fault(self.position, f"gzip data is damaged: {error}")
                        return
                    data = inflater.unconsumed_tail
                    if inflater.eof:
                        data = inflater.unused_data
                        inflater = zlib.decompressobj(31)
                        fresh = True
        if not fresh:
            rest = inflater.flush()
            if rest:
                yield rest
            if inflater.eof:
                return
            self.fault(self.position, "gzip data is cut off: what came before the cut was read")

    def _zstd(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        machine = zstandard.ZstdDecompressor(max_window_size=1 << 27)
        frame = machine.decompressobj()
        fresh = True
        for piece in raw:
            for at in range(0, len(piece), 4096):  # small steps: one stored byte can stand for 100,000
                data = piece[at : at + 4096]
                while data:
                    fresh = False
                    try:
                        yield frame.decompress(data)
                    except zstandard.ZstdError as error:
                        self.fault(self.position, f"zstd data is damaged: {error}")
                        return
                    if not frame.eof:
                        break
                    data = frame.unused_data
                    frame = machine.decompressobj()
                    fresh = True
        if not fresh:
            self.fault(self.position, "zstd data is cut off: what came before the cut was read")


def _salvage(inflater: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    """What a damaged stretch still gives before the damage."""
    for at in range(0, len(data), 256):
        try:
            yield inflater.decompress(data[at : at + 256])
        except zlib.error:
            return
