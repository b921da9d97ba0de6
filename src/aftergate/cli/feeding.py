"""Findings on their way into a server: over HTTP, or into its data directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aftergate.client import Received

SHOWN: Final = 10


def feed(
    lines: Sequence[bytes], *, server: str | None, data: Path | None, database: str | None, key_file: Path | None, flag: str
) -> Received:
    """Send findings, one JSON object a line.

    Raises: ConfigError, Refused, Unanswered, StoreUnavailable.
    """
    from aftergate.cli.places import client, ground, operator
    from aftergate.client import Received, SetAside

    if server is not None:
        with client(server, key_file, flag) as gate:
            return gate.send_findings(lines)
    from aftergate.service.findings import receive

    with ground(data, database) as opened:
        got = receive(opened, [(number, line) for number, line in enumerate(lines, 1) if line.strip()], by=operator())
    return Received(got.received, got.new, got.known, [SetAside(each.line, each.problem) for each in got.set_aside])


def told(result: Received) -> str:
    """What became of them, for a terminal."""
    words = f"{result.received} findings sent: {result.new} new or worse, {result.known} known"
    if not result.set_aside:
        return words
    lines = [f"  line {each.line}: {each.problem}" for each in result.set_aside[:SHOWN]]
    more = len(result.set_aside) - SHOWN
    return "\n".join([f"{words}, {len(result.set_aside)} set aside", *lines, *([f"  ... and {more} more"] if more > 0 else [])])
