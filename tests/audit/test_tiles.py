"""The tile layout of C2SP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftergate.audit.errors import BadBundle
from aftergate.audit.tiles import cut, index_path, layout, pack_entries, parse_path, tile_path, unpack_entries


def test_index_paths() -> None:
    assert index_path(0) == "000"
    assert index_path(999) == "999"
    assert index_path(1000) == "x001/000"
    assert index_path(1234067) == "x001/x234/067"


def test_the_standards_example_of_seventy_thousand_records() -> None:
    tiles = list(layout(70_000))
    assert sum(1 for level, _, width in tiles if level == 0 and width == 256) == 273
    assert tiles[273:] == [(0, 273, 112), (1, 0, 256), (1, 1, 17), (2, 0, 1)]
    assert list(layout(256)) == [(0, 0, 256), (1, 0, 1)]
    assert list(layout(0)) == []


@given(st.sampled_from([None, 0, 1, 7, 63]), st.integers(0, 10**12), st.integers(1, 256))
def test_paths_read_back(level: int | None, index: int, width: int) -> None:
    assert parse_path(tile_path(level, index, width)) == (level, index, width)


@pytest.mark.parametrize(
    "path",
    ["tile/00/000", "tile/0/0", "tile/0/000.p/256", "tile/0/000.p/0", "tile/0/001/000", "tile/64/000", "tile/0/x000/001", "../x", ""],
)
def test_other_paths_are_none(path: str) -> None:
    assert parse_path(path) is None


@given(st.lists(st.binary(max_size=300), max_size=40))
def test_entry_bundles_read_back(entries: list[bytes]) -> None:
    assert unpack_entries(pack_entries(entries)) == entries


def test_bad_bundles_are_refused() -> None:
    for bad in (b"\x00", b"\x00\x05abc", b"\x00\x01a\x00"):
        with pytest.raises(BadBundle):
            unpack_entries(bad)
    with pytest.raises(BadBundle, match="65536 bytes"):
        pack_entries([b"x" * 65_536])
    assert unpack_entries(pack_entries([b"x" * 65_535])) == [b"x" * 65_535]
    with pytest.raises(BadBundle):
        cut(b"x" * 33)
