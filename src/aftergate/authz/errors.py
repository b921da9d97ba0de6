"""What can be wrong with a request, a policy set or an entity file."""

from __future__ import annotations

from msgspec import Struct

from aftergate.errors import AftergateError, ConfigError


class BadRequest(AftergateError):
    """A request that is not what the standard asks for: HTTP 400. `where` is the member, e.g. `subject.id`."""

    code = "bad-request"


class Problem(Struct, frozen=True):
    """One thing wrong in a policy directory or entity file. `line` counts from 1; 0 means the whole file."""

    file: str
    line: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class PolicyError(ConfigError):
    """A policy set or entity file that cannot be used, with every problem found in it."""

    code = "bad-policies"

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        first = problems[0]
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        super().__init__(
            first.message + more,
            where=f"{first.file}:{first.line}" if first.line else first.file,
            hint=first.hint or "run `aftergate policy check` to see every problem",
        )
