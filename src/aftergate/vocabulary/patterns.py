"""Regular expressions that are compiled at their first use: there are some 180, compiling them takes half of the start, and a run meets few."""

from __future__ import annotations

import re
from typing import Any, overload


class _Later:
    """Stands for a compiled pattern and is one from its first use on."""

    def __init__(self, text: Any, flags: int) -> None:
        self._said = (text, flags)

    def __getattr__(self, name: str) -> Any:
        made = re.compile(*self._said)
        self.__dict__.update(
            {each: getattr(made, each) for each in ("search", "match", "fullmatch", "finditer", "findall", "sub", "split")}
        )
        return getattr(made, name)


@overload
def regex(text: str, flags: int = 0) -> re.Pattern[str]: ...
@overload
def regex(text: bytes, flags: int = 0) -> re.Pattern[bytes]: ...
def regex(text: Any, flags: int = 0) -> Any:
    """What `re.compile` gives, for calling its methods only: functions of `re` take it for no pattern."""
    return _Later(text, flags)
