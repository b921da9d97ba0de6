"""One self-contained offline proof that a record is in the log (C2SP tlog-proof v1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from aftergate.audit.errors import BadNote
from aftergate.audit.merkle import HASH_SIZE, leaf_hash, verify_inclusion
from aftergate.audit.notes import Checkpoint, Verifier, b64, open_checkpoint, unb64

HEADER: Final = "c2sp.org/tlog-proof@v1"
_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,18})")


class TlogProof(Struct, frozen=True):
    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes  # the signed note, verbatim
    extra: bytes = b""  # not authenticated by anything: never trust it

    def encode(self) -> bytes:
        extra = f"extra {b64(self.extra)}\n" if self.extra else ""
        return f"{HEADER}\n{extra}index {self.index}\n{''.join(b64(h) + chr(10) for h in self.path)}\n".encode() + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> TlogProof:
        """Raises: BadNote, if it is not such a file."""
        head, gap, checkpoint = data.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            lines = []
        if not gap or not lines or lines.pop(0) != HEADER:
            raise BadNote("not a tlog-proof v1 file")
        extra = unb64(lines.pop(0)[6:]) if lines and lines[0].startswith("extra ") else b""
        matched = _INDEX.fullmatch(lines.pop(0)) if lines else None
        if matched is None:
            raise BadNote("a proof without an index")
        path = tuple(unb64(line) for line in lines)
        if len(path) > 64 or any(len(h) != HASH_SIZE for h in path):
            raise BadNote("a proof whose hashes are not hashes")
        return cls(int(matched.group(1)), path, checkpoint, extra)

    def verify(self, entry: bytes, verifiers: Sequence[Verifier], origin: str) -> Checkpoint:
        """The checkpoint under which `entry` is proven to be in the log `origin`.

        Raises: BadNote, if the checkpoint is not signed by a known key of that log, is another log's, or the path does not lead to its root.
        """
        checkpoint, _, _ = open_checkpoint(self.checkpoint, verifiers)
        if checkpoint.origin != origin:
            raise BadNote(f"a proof from the log `{checkpoint.origin}`, not `{origin}`")
        if not verify_inclusion(leaf_hash(entry), self.index, checkpoint.size, self.path, checkpoint.root):
            raise BadNote("the record is not in the log under this checkpoint")
        return checkpoint
