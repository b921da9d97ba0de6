"""Cutting text into lines. Compiled, since it is done for every record."""

from __future__ import annotations


def cut(text: bytes) -> list[bytes]:
    """What `text.split(b"\\n")` gives, for long lines several times as fast: `find` goes by words of the processor, `split` by bytes."""
    lines: list[bytes] = []
    start = 0
    end = text.find(b"\n")
    while end >= 0:
        lines.append(text[start:end])
        start = end + 1
        end = text.find(b"\n", start)
    lines.append(text[start:])
    return lines
