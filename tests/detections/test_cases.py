"""Every detection has a rule file and a cases file with hits and near misses, and its metadata names what exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from casebook import load, run

import aftergate.detections as folder
from aftergate.detections.api import catalogue
from aftergate.frameworks import check
from aftergate.vocabulary import RANK

FOLDER = Path(folder.__file__).parent
CASES = [(slug, case) for slug in catalogue() for case in load(FOLDER / f"{slug.replace('-', '_')}.cases.yaml")]


@pytest.mark.parametrize(("slug", "case"), CASES, ids=[f"{slug}: {case['name']}" for slug, case in CASES])
def test_case(slug: str, case: dict[str, Any]) -> None:
    """The findings are just those the case expects."""
    found = run(slug, case["events"])
    if "at_most" in case:
        assert all(RANK[f.severity] <= RANK[case["at_most"]] for f in found), [(f.severity, f.narrative) for f in found]
        return
    wanted = case["expect"]
    assert len(found) == len(wanted), [(f.severity, f.narrative) for f in found]
    for want in wanted:
        assert any(
            f.severity == want.get("severity", f.severity)
            and all(want[level] in getattr(f.subject, level) for level in ("identity", "credential", "session") if level in want)
            for f in found
        ), [(f.severity, f.subject) for f in found]


@pytest.mark.parametrize("slug", list(catalogue()))
def test_detection_is_whole(slug: str) -> None:
    """File name, metadata and both kinds of case are in place."""
    rule = catalogue()[slug]
    assert rule.__module__.rpartition(".")[2] == slug.replace("-", "_")
    meta = rule.meta
    assert all((meta.title, meta.about, meta.traps, meta.needs, meta.recommended))
    for name in (*meta.attack, *meta.nhi, *meta.csf):
        assert check(name), f"{name} is in no shipped framework list"
    cases = load(FOLDER / f"{slug.replace('-', '_')}.cases.yaml")
    assert any(case.get("expect") for case in cases), "no hit"
    assert any(not case.get("expect") for case in cases), "no near miss"
