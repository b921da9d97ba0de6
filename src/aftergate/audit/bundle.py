"""The export form: one folder, or the same as .tar.gz, that verifies without server or network (docs/formats/audit-bundle.md).

manifest.json           {"format", "origin", "size", "exported_at", "personal"}
keys.json               public keys with their windows
checkpoints.jsonl       {"size", "at", "note"}: every signed checkpoint, by size
tile/L/N[.p/W]          hashes
tile/entries/N[.p/W]    records
attachments/N.jsonl     {"seq", "kind", "salt", "body"}: evidence of approvals, requests
personal/N.jsonl        {"seq", "field", "salt", "value"}: only if asked for
"""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import msgspec

from aftergate.audit.errors import BadBundle
from aftergate.audit.tiles import WIDTH, cut, index_path, tile_path, unpack_entries
from aftergate.errors import AftergateError

FORMAT: Final = "aftergate-audit-bundle/1"
MAX_MEMBER: Final = 64 << 20
MAX_MEMBERS: Final = 10_000_000
_JSON: Final = msgspec.json.Decoder()

Member = tuple[str, bytes]  # name within the bundle, content


class Manifest(msgspec.Struct, forbid_unknown_fields=False):
    format: str
    origin: str
    size: int
    exported_at: str
    personal: bool


class Dated(NamedTuple):
    """A checkpoint with the time at which it was noted down; the time is not signed."""

    size: int
    at: str
    note: bytes


def write_folder(target: Path, members: Iterable[Member]) -> int:
    """Write a bundle as a folder, which must not exist or be empty; gives the number of files. Raises: BadBundle."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise BadBundle("the folder is not empty", where=str(target), hint="export into a new one")
        count = 0
        for name, data in members:
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            count += 1
    except OSError as error:
        raise BadBundle(f"cannot be written: {error.strerror}", where=str(target)) from None
    return count


def tar_chunks(members: Iterable[Member]) -> Iterator[bytes]:
    """A bundle as .tar.gz, piece by piece; the same members give the same bytes."""
    sink = io.BytesIO()
    with gzip.GzipFile(fileobj=sink, mode="wb", mtime=0, compresslevel=6) as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        for name, data in members:
            info = tarfile.TarInfo(f"bundle/{name}")
            info.size = len(data)
            info.mode = 0o644
            tar.addfile(info, io.BytesIO(data))
            if sink.tell() > 1 << 16:
                yield sink.getvalue()
                sink.seek(0)
                sink.truncate()
    yield sink.getvalue()


def write_tar(target: Path, members: Iterable[Member]) -> None:
    """Write a bundle as .tar.gz. Raises: BadBundle."""
    try:
        with target.open("xb") as out:
            for chunk in tar_chunks(members):
                out.write(chunk)
    except OSError as error:
        raise BadBundle(f"cannot be written: {error.strerror}", where=str(target)) from None


class Bundle:
    """A bundle opened for reading; a context manager, since a .tar.gz is unpacked into a temporary folder."""

    def __init__(self, path: Path) -> None:
        """Raises: BadBundle, if there is none at `path`."""
        self._temporary: Path | None = None
        self.folder = path
        if path.is_file():
            self._temporary = Path(tempfile.mkdtemp(prefix="aftergate-bundle-"))
            try:
                self.folder = _unpack(path, self._temporary)
            except BaseException:
                self.close()
                raise
        try:
            self.manifest = msgspec.json.decode(self.read("manifest.json"), type=Manifest)
        except (msgspec.DecodeError, ValueError, RecursionError):
            self.close()
            raise BadBundle("its manifest is not one", where=str(path)) from None
        except AftergateError:
            self.close()
            raise BadBundle(
                "no audit bundle: there is no manifest.json", where=str(path), hint="`aftergate audit export` writes one"
            ) from None
        if self.manifest.format != FORMAT or self.manifest.size < 0:
            self.close()
            raise BadBundle(f"a bundle of another format: `{self.manifest.format}`", where=str(path), hint=f"this program reads {FORMAT}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def read(self, name: str) -> bytes:
        """Raises: BadBundle, if the file is missing or cannot be read."""
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            raise BadBundle("missing from the bundle", where=name) from None
        except OSError as error:
            raise BadBundle(f"cannot be read: {error.strerror}", where=name) from None

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def checkpoints(self) -> list[Dated]:
        """All checkpoints, in the order of the file. Raises: BadBundle."""
        made: list[Dated] = []
        for raw in self._lines("checkpoints.jsonl"):
            size, at, note = raw.get("size"), raw.get("at"), raw.get("note")
            if not isinstance(size, int) or not isinstance(at, str) or not isinstance(note, str):
                raise BadBundle("a line that is no checkpoint", where="checkpoints.jsonl")
            made.append(Dated(size, at, note.encode("utf-8", "surrogatepass")))
        return made

    def entries(self, index: int, width: int) -> list[bytes]:
        return unpack_entries(self.read(tile_path(None, index, width)))

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        """Hashes from tiles: the `HashReader` port. Raises: BadBundle, if a tile is missing or too short."""
        made: list[bytes] = []
        held = self.manifest.size // WIDTH**level
        for index in range(first // WIDTH, (first + count - 1) // WIDTH + 1):
            width = min(WIDTH, held - index * WIDTH)
            tile = cut(self.read(tile_path(level, index, width)))
            lo, hi = max(first - index * WIDTH, 0), min(first + count - index * WIDTH, WIDTH)
            if len(tile) < hi:
                raise BadBundle("a tile with too few hashes", where=tile_path(level, index, width))
            made.extend(tile[lo:hi])
        return made

    def attachments(self, index: int) -> list[dict[str, Any]]:
        return self._beside("attachments", index)

    def personal(self, index: int) -> list[dict[str, Any]]:
        return self._beside("personal", index)

    def _beside(self, folder: str, index: int) -> list[dict[str, Any]]:
        name = f"{folder}/{index_path(index)}.jsonl"
        return list(self._lines(name)) if self.has(name) else []

    def _lines(self, name: str) -> Iterator[dict[str, Any]]:
        for line in self.read(name).splitlines():
            try:
                raw = _JSON.decode(line)
            except (msgspec.DecodeError, RecursionError, ValueError):
                raw = None
            if not isinstance(raw, dict):
                raise BadBundle("a line that is no JSON object", where=name)
            yield raw


def _unpack(path: Path, into: Path) -> Path:
    """Unpack plain files only, within `into`, of bounded size. Raises: BadBundle."""
    try:
        with tarfile.open(path, mode="r|gz") as tar:
            for count, info in enumerate(tar):
                if info.isdir():
                    continue
                if not info.isfile() or info.size > MAX_MEMBER or count > MAX_MEMBERS:
                    raise BadBundle("holds something that no bundle holds", where=f"{path}: {info.name}")
                tar.extract(info, into, filter="data")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise BadBundle(f"not a readable .tar.gz: {error}", where=str(path)) from None
    inner = into / "bundle"
    return inner if inner.is_dir() else into
