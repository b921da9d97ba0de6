"""What a verification says: numbered steps, and what each of them found."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct, field

Severity = Literal["failure", "warning", "note"]

STEPS: Final = {
    1: "the bundle is complete and readable",
    2: "its keys are well-formed, and those you trust",
    3: "every checkpoint is signed by a key of the log, within the key's time",
    4: "every record is in the tree, and all checkpoints are of this one tree",
    5: "the checkpoints you kept are of this tree",
    6: "records are numbered without gap, in order of time, in their canonical form",
    7: "the servers' heartbeats leave no silent gap",
    8: "every approval's evidence holds",
    9: "every use had enough approvals, and each was used once",
    10: "what was kept beside the records is what they committed to",
}


class Problem(Struct, frozen=True, omit_defaults=True):
    """One thing found. `code` is stable; `seq` is the record it concerns."""

    step: int
    severity: Severity
    code: str
    message: str
    seq: int | None = None


class Step(Struct, frozen=True):
    number: int
    title: str
    checked: int  # how many things were looked at
    passed: bool


class Report(Struct):
    """The result. `passed` is false if any step failed."""

    origin: str = ""
    size: int = 0
    root: str = ""
    passed: bool = False
    steps: list[Step] = field(default_factory=list)
    records_passed: int = 0
    records_failed: list[int] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)  # record type -> how many

    def failures(self) -> list[Problem]:
        return [p for p in self.problems if p.severity == "failure"]


def printable(text: str) -> str:
    """The same text without what moves a terminal's cursor or turns its writing round: bundles and ids come from strangers."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


class Notebook:
    """Where the steps write. Of one code in one step at most 100 problems are kept word for word; the rest are counted."""

    LIMIT: Final = 100

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.checked: dict[int, int] = dict.fromkeys(STEPS, 0)
        self._failed: set[int] = set()
        self.failed_seqs: set[int] = set()
        self._seen: dict[tuple[int, str], int] = {}

    def check(self, step: int, count: int = 1) -> None:
        self.checked[step] += count

    def fail(self, step: int, code: str, message: str, seq: int | None = None) -> None:
        self._failed.add(step)
        if seq is not None:
            self.failed_seqs.add(seq)
        self._write(step, "failure", code, message, seq)

    def warn(self, step: int, code: str, message: str, seq: int | None = None) -> None:
        self._write(step, "warning", code, message, seq)

    def note(self, step: int, code: str, message: str, seq: int | None = None) -> None:
        self._write(step, "note", code, message, seq)

    def _write(self, step: int, severity: Severity, code: str, message: str, seq: int | None) -> None:
        problem = Problem(step, severity, code, printable(message[:1000]), seq)
        key = (problem.step, problem.code)
        self._seen[key] = self._seen.get(key, 0) + 1
        if self._seen[key] <= self.LIMIT:
            self.problems.append(problem)

    def result(self, *, strict: bool) -> tuple[list[Step], list[Problem], bool]:
        """Steps, problems and the verdict; `strict` lets a warning fail as well."""
        for (step, code), count in self._seen.items():
            if count > self.LIMIT:
                self.problems.append(Problem(step, "note", code, f"and {count - self.LIMIT} more of these"))
        failed = self._failed | ({p.step for p in self.problems if p.severity == "warning"} if strict else set())
        order = {"failure": 0, "warning": 1, "note": 2}
        self.problems.sort(key=lambda p: (p.step, order[p.severity], -1 if p.seq is None else p.seq))
        steps = [Step(number, title, self.checked[number], number not in failed) for number, title in STEPS.items()]
        return steps, self.problems, not failed
