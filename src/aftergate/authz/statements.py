"""Cedar text cut into its policies, so that every problem can name file and line: Cedar itself stops at the first and gives no position."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

# One token at a time: a comment, a string (or one that never ends), or the end of a policy.
_TOKEN: Final = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*(?:"|\Z)|;', re.DOTALL)
_FIRST: Final = re.compile(r"(?:\s|//[^\n]*(?:\n|\Z))*")


class Statement(Struct, frozen=True):
    """One policy as written. `line` is where its first token stands, counting from 1."""

    text: str
    line: int

    def line_of(self, fragment: str) -> int:
        """The line where a fragment stands, if it stands once; else that of the policy."""
        if fragment and self.text.count(fragment) == 1:
            return self.line + self.text.count("\n", 0, self.text.index(fragment))
        return self.line


def statements(text: str) -> list[Statement]:
    """Every policy in order. What follows the last `;` counts too, unless it is only space and comments: Cedar says what is wrong with it."""
    found: list[Statement] = []
    start = 0
    for token in _TOKEN.finditer(text):
        if token.group() == ";":
            _add(text, start, token.end(), found)
            start = token.end()
    _add(text, start, len(text), found)
    return found


def _add(text: str, start: int, end: int, found: list[Statement]) -> None:
    first = _FIRST.match(text, start, end)
    begin = first.end() if first else start
    if begin < end:
        found.append(Statement(text[begin:end], 1 + text.count("\n", 0, begin)))
