"""The tree of RFC 6962 and 9162: every proof of every small tree holds, and nothing next to it does."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftergate.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    over,
    split,
    verify_consistency,
    verify_inclusion,
)
from aftergate.audit.tiles import WIDTH, subtrees

N = 130
LEAVES = [leaf_hash(b"entry %d" % i) for i in range(N + 1)]
SUBTREE = over(LEAVES)


def by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return node_hash(by_definition(leaves[:k]), by_definition(leaves[k:]))


ROOTS = [by_definition(LEAVES[:n]) for n in range(N + 1)]


def flips(data: bytes) -> list[bytes]:
    return [bytes(b ^ (1 << bit) if i == at else b for i, b in enumerate(data)) for at in range(len(data)) for bit in range(8)]


def test_known_answers_of_rfc_6962_implementations() -> None:
    # The eight-leaf tree that Certificate Transparency's implementations share as their test tree.
    entries = [b"", b"\x00", b"\x10", b" !", b"01", b"@ABC", b"PQRSTUVW", b"`abcdefghijklmno"]
    hashed = [leaf_hash(e) for e in entries]
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert Frontier.of(hashed[:1]).root().hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert Frontier.of(hashed[:2]).root().hex() == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    assert Frontier.of(hashed).root().hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def test_the_frontier_gives_the_root_of_every_size() -> None:
    frontier = Frontier()
    assert frontier.root() == EMPTY_ROOT
    for n in range(N):
        frontier.add(LEAVES[n])
        assert frontier.root() == ROOTS[n + 1]
        again = Frontier.load(frontier.size, frontier.dump())
        assert again.root() == ROOTS[n + 1]


@pytest.mark.parametrize(("size", "length"), [(1, 0), (3, 32), (2, 64), (-1, 32), (1, 31)])
def test_a_frontier_that_does_not_fit_its_size_is_refused(size: int, length: int) -> None:
    with pytest.raises(ValueError, match="frontier"):
        Frontier.load(size, b"x" * length)


def test_the_frontier_hands_out_the_tile_hashes_it_completes() -> None:
    frontier = Frontier()
    done = [row for i in range(WIDTH * 2 + 1) for row in frontier.add(leaf_hash(b"%d" % i))]
    assert [(level, index) for level, index, _ in done] == [(1, 0), (1, 1)]
    assert done[0][2] == by_definition([leaf_hash(b"%d" % i) for i in range(WIDTH)])


def test_every_inclusion_proof_of_every_tree_holds() -> None:
    for n in range(1, N + 1):
        for i in range(n):
            proof = inclusion_proof(i, n, SUBTREE)
            assert verify_inclusion(LEAVES[i], i, n, proof, ROOTS[n]), (i, n)


def test_no_inclusion_proof_holds_for_another_place_or_length() -> None:
    for n in range(1, N + 1):
        for i in {0, n // 2, n - 1}:
            proof = inclusion_proof(i, n, SUBTREE)
            for j in range(n + 2):
                assert verify_inclusion(LEAVES[i], j, n, proof, ROOTS[n]) == (i == j), (i, j, n)
            assert not verify_inclusion(LEAVES[i], -1, n, proof, ROOTS[n])
            assert not verify_inclusion(LEAVES[i], i, n, [*proof, LEAVES[0]], ROOTS[n])
            assert not verify_inclusion(LEAVES[i], i, n, [LEAVES[0], *proof], ROOTS[n])
            if proof:
                assert not verify_inclusion(LEAVES[i], i, n, proof[:-1], ROOTS[n])
                assert not verify_inclusion(LEAVES[i], i, n, proof[1:], ROOTS[n])
                assert not verify_inclusion(LEAVES[i], i, n, [*proof[:-1], proof[-1][:31]], ROOTS[n])
            for m in range(N + 1):
                assert not verify_inclusion(LEAVES[i], i, n, proof, ROOTS[m]) or m == n


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 64, 65, 130])
def test_one_flipped_bit_anywhere_refuses_an_inclusion_proof(n: int) -> None:
    i = n * 2 // 3
    proof = inclusion_proof(i, n, SUBTREE)
    assert verify_inclusion(LEAVES[i], i, n, proof, ROOTS[n])
    assert not any(verify_inclusion(leaf, i, n, proof, ROOTS[n]) for leaf in flips(LEAVES[i]))
    assert not any(verify_inclusion(LEAVES[i], i, n, proof, root) for root in flips(ROOTS[n]))
    assert not any(verify_inclusion(LEAVES[i], i ^ (1 << bit), n, proof, ROOTS[n]) for bit in range(40))
    for place, each in enumerate(proof):
        assert not any(verify_inclusion(LEAVES[i], i, n, [*proof[:place], bad, *proof[place + 1 :]], ROOTS[n]) for bad in flips(each))


def test_every_prefix_proves_into_every_later_tree() -> None:
    for n in range(N + 1):
        for m in range(n + 1):
            proof = consistency_proof(m, n, SUBTREE)
            assert verify_consistency(m, n, ROOTS[m], ROOTS[n], proof), (m, n)
            assert proof == [] if m in {0, n} else proof


def test_no_consistency_proof_holds_for_other_sizes_roots_or_lengths() -> None:
    for n in (2, 3, 5, 8, 13, 64, 65, 100, 130):
        for m in (1, n // 2, n - 1):
            proof = consistency_proof(m, n, SUBTREE)
            for k in range(n + 1):
                if k not in {0, m}:
                    assert not verify_consistency(k, n, ROOTS[m], ROOTS[n], proof), (k, m, n)
                if k != m:
                    assert not verify_consistency(m, n, ROOTS[k], ROOTS[n], proof)
            assert not verify_consistency(0, n, ROOTS[m], ROOTS[n], proof)
            assert not verify_consistency(m, n, ROOTS[m], ROOTS[n], [*proof, LEAVES[0]])
            assert not verify_consistency(m, n, ROOTS[m], ROOTS[n], proof[:-1])
            assert not verify_consistency(m, n, ROOTS[m], ROOTS[n], proof[1:])
            assert not verify_consistency(n, m, ROOTS[n], ROOTS[m], proof)


@pytest.mark.parametrize(("m", "n"), [(1, 2), (3, 7), (4, 8), (6, 8), (64, 65), (65, 130)])
def test_one_flipped_bit_anywhere_refuses_a_consistency_proof(m: int, n: int) -> None:
    proof = consistency_proof(m, n, SUBTREE)
    assert not any(verify_consistency(m, n, root, ROOTS[n], proof) for root in flips(ROOTS[m]))
    assert not any(verify_consistency(m, n, ROOTS[m], root, proof) for root in flips(ROOTS[n]))
    for place, each in enumerate(proof):
        assert not any(verify_consistency(m, n, ROOTS[m], ROOTS[n], [*proof[:place], bad, *proof[place + 1 :]]) for bad in flips(each))


def test_the_special_cases_of_consistency() -> None:
    assert verify_consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, [])
    assert verify_consistency(0, 5, EMPTY_ROOT, ROOTS[5], [])
    assert not verify_consistency(0, 5, ROOTS[1], ROOTS[5], [])
    assert not verify_consistency(0, 5, EMPTY_ROOT, ROOTS[5], [LEAVES[0]])
    assert not verify_consistency(0, 0, ROOTS[1], ROOTS[1], [])
    assert verify_consistency(5, 5, ROOTS[5], ROOTS[5], [])
    assert not verify_consistency(5, 5, ROOTS[5], ROOTS[4], [])
    assert not verify_consistency(5, 5, ROOTS[5], ROOTS[5], [LEAVES[0]])
    assert not verify_consistency(6, 5, ROOTS[6], ROOTS[5], [])
    assert not verify_consistency(-1, 5, ROOTS[0], ROOTS[5], [])
    assert not verify_consistency(3, 5, ROOTS[3], ROOTS[5], [])


def test_proofs_of_what_is_not_there_cannot_be_made() -> None:
    for index, size in ((5, 5), (-1, 5), (0, 0)):
        with pytest.raises(ValueError, match="no such leaf"):
            inclusion_proof(index, size, SUBTREE)
    with pytest.raises(ValueError, match="prefix"):
        consistency_proof(6, 5, SUBTREE)


class Tiles:
    """Tile hashes of a list of leaves; counts what is asked."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.rows = [leaves]
        while len(self.rows[-1]) >= WIDTH:
            low = self.rows[-1]
            self.rows.append([Frontier.of(low[i : i + WIDTH]).root() for i in range(0, len(low) - WIDTH + 1, WIDTH)])
        self.asked = 0

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        self.asked += count
        made = self.rows[level][first : first + count]
        assert len(made) == count
        return made


def test_proofs_from_tiles_are_those_from_leaves_and_cost_little() -> None:
    leaves = [hashlib.sha256(b"%d" % i).digest() for i in range(WIDTH * 300 + 77)]
    tiles = Tiles(leaves)
    size = len(leaves)
    root = Frontier.of(leaves).root()
    chance = random.Random(4)
    for _ in range(20):
        index, old = chance.randrange(size), chance.randrange(1, size)
        tiles.asked = 0
        proof = inclusion_proof(index, size, subtrees(tiles))
        assert tiles.asked < 1200
        assert verify_inclusion(leaves[index], index, size, proof, root)
        consistency = consistency_proof(old, size, subtrees(tiles))
        assert verify_consistency(old, size, Frontier.of(leaves[:old]).root(), root, consistency)


@given(st.integers(1, 2000), st.data())
def test_a_tree_of_any_size_proves_any_leaf_and_any_prefix(n: int, data: st.DataObject) -> None:
    leaves = [leaf_hash(b"%d" % i) for i in range(n)]
    index, old = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n))
    root = Frontier.of(leaves).root()
    assert verify_inclusion(leaves[index], index, n, inclusion_proof(index, n, over(leaves)), root)
    assert verify_consistency(old, n, Frontier.of(leaves[:old]).root(), root, consistency_proof(old, n, over(leaves)))
