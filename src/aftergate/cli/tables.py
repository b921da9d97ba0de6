"""Lists of things with ids, as wide as the terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

ROOM: Final = 12  # columns of a terminal that a folded cell should have
GAP: Final = 2
UNBOUND: Final = 100_000


def print_rows(
    titles: Sequence[str], rows: Sequence[Sequence[str]], *, folded: Collection[str], spare: Sequence[str], dim: Collection[int] = ()
) -> None:
    """Rows under titles, the id first. In a terminal only the columns `folded` are broken within a word; those of `spare` that are empty are left
    out, and as many others, in its order, as it takes to make room.

    Into a pipe goes every column in full, one line a row. `dim` are numbers of rows that count no more.
    """
    console = Console(highlight=False)
    widths = {title: max(map(cell_len, [title, *(word for row in rows for word in row[at].split())])) for at, title in enumerate(titles)}
    kept = list(titles)
    missing: list[str] = []
    tight = False
    if console.is_terminal:
        empty = {title for at, title in enumerate(titles) if title in spare and not any(row[at] for row in rows)}
        kept = [title for title in titles if title not in empty]

        def room() -> int:
            return console.width - sum(widths[each] for each in kept if each not in folded) - GAP * (len(kept) - 1)

        for title in spare:
            if title in kept and room() < ROOM * len(folded):
                kept.remove(title)
                missing.append(title)
        tight = room() < ROOM * len(folded)
    else:
        console.width = UNBOUND
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in kept:
        whole = title == titles[0] or (title not in folded and not tight)
        table.add_column(title, overflow="fold", width=widths[title] if console.is_terminal and whole else None)
    for number, row in enumerate(rows):
        table.add_row(
            *(Text(cell) for title, cell in zip(titles, row, strict=True) if title in kept), style="dim" if number in dim else None
        )
    console.print(table)
    if missing:
        console.print(f"no room for: {', '.join(missing)}", style="dim")
