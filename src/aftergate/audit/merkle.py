"""The Merkle tree of RFC 6962 section 2.1 and RFC 9162 section 2.1, SHA-256: roots, inclusion proofs, consistency proofs.

A proof that does not hold is answered False. Hashes are 32 bytes; sizes count leaves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final

HASH_SIZE: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
TILE_HEIGHT: Final = 8

Subtree = Callable[[int, int], bytes]  # (first leaf, one past the last) -> hash of the tree over these leaves; the range is never empty


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(size: int) -> int:
    """Largest power of two smaller than `size`, which is at least 2."""
    return 1 << ((size - 1).bit_length() - 1)


class Frontier:
    """The right edge of a growing tree: hashes of its perfect subtrees, largest first. Adding a leaf costs O(log n) at worst, O(1) on average.

    INVARIANT: `len(peaks)` is the number of one bits of `size`.
    """

    __slots__ = ("peaks", "size")

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self.peaks = list(peaks)
        if size < 0 or len(self.peaks) != size.bit_count() or any(len(p) != HASH_SIZE for p in self.peaks):
            raise ValueError("these hashes are no frontier of a tree of this size")

    @classmethod
    def of(cls, leaves: Iterable[bytes]) -> Frontier:
        made = cls()
        for leaf in leaves:
            made.add(leaf)
        return made

    @classmethod
    def load(cls, size: int, data: bytes) -> Frontier:
        """From what `dump` gave. Raises: ValueError, if the two do not belong together."""
        return cls(size, (data[i : i + HASH_SIZE] for i in range(0, len(data), HASH_SIZE)))

    def dump(self) -> bytes:
        return b"".join(self.peaks)

    def add(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Take the next leaf hash; gives the (tile level, index, hash) that it completed at levels 1 and up: one for every 256th leaf."""
        done: list[tuple[int, int, bytes]] = []
        position, level, made = self.size, 0, leaf
        while position & 1:
            made = node_hash(self.peaks.pop(), made)
            position >>= 1
            level += 1
            if level % TILE_HEIGHT == 0:
                done.append((level // TILE_HEIGHT, position, made))
        self.peaks.append(made)
        self.size += 1
        return done

    def root(self) -> bytes:
        if not self.peaks:
            return EMPTY_ROOT
        made = self.peaks[-1]
        for peak in self.peaks[-2::-1]:
            made = node_hash(peak, made)
        return made


def over(leaves: Sequence[bytes]) -> Subtree:
    """Subtree hashes of leaf hashes held in memory."""
    return lambda lo, hi: Frontier.of(leaves[lo:hi]).root()


def inclusion_proof(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """Audit path of leaf `index` in the tree of `size` leaves, from the leaf's sibling upward (RFC 6962 section 2.1.1).

    Raises: ValueError, if there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError("no such leaf in a tree of this size")
    lo, hi = 0, size
    path: list[bytes] = []
    while hi - lo > 1:
        middle = lo + split(hi - lo)
        if index < middle:
            path.append(subtree(middle, hi))
            hi = middle
        else:
            path.append(subtree(lo, middle))
            lo = middle
    path.reverse()
    return path


def consistency_proof(old: int, new: int, subtree: Subtree) -> list[bytes]:
    """Proof that the tree of `old` leaves is a prefix of that of `new` leaves (RFC 9162 section 2.1.4.1). Empty for 0 and for equal sizes.

    Raises: ValueError, if `old` is larger than `new` or negative.
    """
    if not 0 <= old <= new:
        raise ValueError("a tree is a prefix of larger trees only")
    if old in (0, new):
        return []
    path: list[bytes] = []
    lo, hi, whole = 0, new, True
    while old != hi:
        middle = lo + split(hi - lo)
        if old <= middle:
            path.append(subtree(middle, hi))
            hi = middle
        else:
            path.append(subtree(lo, middle))
            lo, whole = middle, False
    if not whole:
        path.append(subtree(lo, hi))
    path.reverse()
    return path


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows `leaf` (a leaf hash) at `index` of the tree of `size` with this root (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size or len(leaf) != HASH_SIZE or any(len(p) != HASH_SIZE for p in proof):
        return False
    at, last, made = index, size - 1, leaf
    for each in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            made = node_hash(each, made)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            made = node_hash(made, each)
        at >>= 1
        last >>= 1
    return last == 0 and made == root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the new tree extends the old (RFC 9162 section 2.1.4.2).

    The empty tree is a prefix of every tree, with an empty proof and its own root; equal sizes need an empty proof and equal roots.
    """
    if not 0 <= old <= new or any(len(p) != HASH_SIZE for p in proof):
        return False
    if old == new:
        return not proof and old_root == new_root and (new > 0 or new_root == EMPTY_ROOT)
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at >>= 1
        last >>= 1
    made_old = made_new = path[0]
    for each in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            made_old = node_hash(each, made_old)
            made_new = node_hash(each, made_new)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            made_new = node_hash(made_new, each)
        at >>= 1
        last >>= 1
    return last == 0 and made_old == old_root and made_new == new_root
