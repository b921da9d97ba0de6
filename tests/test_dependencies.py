"""What is installed with the package: each pinned, and under a licence that goes with Apache-2.0."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ASKED = [Requirement(each) for each in PROJECT["project"]["dependencies"]]
EXTRAS = {name: [Requirement(each) for each in held] for name, held in PROJECT["project"]["optional-dependencies"].items()}
PINS = {
    canonicalize_name(name): version
    for name, version in (
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
}

# Licences, as SPDX names them, that ask nothing of a work that uses the package beyond notices. MPL-2.0 is by file: only changes to its own files fall under it.
ALLOWED = {
    "0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib",
}  # fmt: skip
# An operator adds it with the extra; it is imported as it is, never copied or changed, and anybody may put another build in its place.
ALLOWED_IN_EXTRAS = {"postgres": {"LGPL-3.0-only"}}
# No licence in the metadata: the first line of the licence file that it brings.
BY_FILE = {"cedarpy": ("Apache License", "Apache-2.0")}
CLASSIFIERS = {
    "MIT License": "MIT",
    "BSD License": "BSD",
    "Apache Software License": "Apache-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "ISC License (ISCL)": "ISC",
}
WRITTEN = {
    "MIT": "MIT",
    "MIT License": "MIT",
    "BSD-3-Clause": "BSD-3-Clause",
    "BSD-2-Clause": "BSD-2-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
}


def tree(asked: list[Requirement]) -> set[str]:
    """Everything that is installed for these requirements, by canonical name; what this platform or Python does not need is left out."""
    found: set[str] = set()
    waiting = [(each, "") for each in asked]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            found.add(name)
            waiting += [(Requirement(each), wanted) for each in metadata.distribution(name).requires or []]
    return found


def licences(name: str) -> list[set[str]]:
    """A package's licence: of each set, one may be chosen, and all sets hold. Empty if it says nothing."""
    held = metadata.distribution(name)
    said = held.metadata.get("License-Expression")
    if said:
        return [set(re.findall(r"[A-Za-z0-9.+-]+", part)) - {"OR"} for part in re.split(r"\bAND\b", said)]
    classes = [each.rpartition(" :: ")[2] for each in held.metadata.get_all("Classifier") or [] if each.startswith("License :: ")]
    if classes:
        return [{CLASSIFIERS.get(each, each) for each in classes}]
    short = (held.metadata.get("License") or "").strip()
    if short:
        first = short.partition("\n")[0].strip()
        return [{WRITTEN.get(first, first)}]
    beginning, licence = BY_FILE.get(name, ("", ""))
    texts = [
        each.read_text(encoding="utf-8") for each in held.files or [] if "licenses/" in each.as_posix() and each.name.startswith("LICENSE")
    ]
    return [{licence}] if licence and any(beginning in text[:200] for text in texts) else []


@pytest.mark.parametrize("requirement", [*ASKED, *(each for held in EXTRAS.values() for each in held)], ids=str)
def test_what_is_asked_for_is_pinned_to_a_version_that_will_do(requirement: Requirement) -> None:
    pinned = PINS.get(canonicalize_name(requirement.name))
    assert pinned is not None, f"{requirement.name} is missing in constraints.txt"
    assert requirement.specifier.contains(pinned, prereleases=True)


def test_what_those_need_is_pinned_too() -> None:
    assert tree([*ASKED, *(each for held in EXTRAS.values() for each in held)]) - set(PINS) == set()


def test_nothing_is_pinned_twice() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line]
    assert len(lines) == len(PINS)


def test_the_tests_run_with_the_pinned_versions() -> None:
    other = {name: metadata.version(name) for name in tree(ASKED) if metadata.version(name) != PINS.get(name)}
    assert other == {}


@pytest.mark.parametrize("extra", ["", *sorted(set(EXTRAS) - {"dev"})])
def test_licences_go_with_ours(extra: str) -> None:
    allowed = ALLOWED | ALLOWED_IN_EXTRAS.get(extra, set())
    names = tree(EXTRAS[extra]) - tree(ASKED) if extra else tree(ASKED)
    assert names
    wrong = {name: licences(name) for name in names if not licences(name) or not all(choice & allowed for choice in licences(name))}
    assert wrong == {}


def test_a_licence_that_does_not_go_with_ours_is_seen() -> None:
    assert not all(choice & ALLOWED for choice in licences("psycopg"))
