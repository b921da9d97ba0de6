"""Scenarios of ten detections, chosen by a fixed seed, judged as `make quality` judges all of them; and the lists it reads fit the data."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import aftergate.pipeline.scan as scanning
from aftergate.detections.api import catalogue

ROOT = Path(__file__).resolve().parent.parent
SCENARIOS = ROOT / "tests" / "data" / "scenarios"
BUILT = sorted(folder.name for folder in SCENARIOS.iterdir() if folder.is_dir() and folder.name in catalogue())
CHOSEN = sorted(random.Random(20260302).sample(BUILT, 10))


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program `quality/run.py` as a module. It puts its own enricher into the scan: taken back after the test."""
    monkeypatch.setattr(scanning, "make_enricher", scanning.make_enricher)
    spec = importlib.util.spec_from_file_location("quality_run", ROOT / "quality" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "quality_run", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("slug", CHOSEN)
def test_scenarios_are_judged_right(quality: ModuleType, slug: str) -> None:
    """Every attack is found and nothing else is raised, without the address tables."""
    names = sorted(case.parent.relative_to(SCENARIOS.parent).as_posix() for case in (SCENARIOS / slug).rglob("case.json"))
    assert names
    for name in names:
        result: dict[str, Any] = quality.scenario(name, False)
        assert (result["missed"], result["raised"]) == ([], []), name
        assert result["normalised"] > 0, name


def test_the_steps_of_the_attack_simulation_are_all_found(quality: ModuleType) -> None:
    """Each row of the publisher's table, and nothing about the person who only worked."""
    result = quality.attack_simulation(False)
    assert [row["what"] for row in result["rows"] if not row["found"]] == []
    assert result["trap"] == []


def test_the_map_of_rules_names_rules_and_detections_that_exist() -> None:
    mapping = yaml.safe_load((ROOT / "tests" / "data" / "panther-map.yaml").read_text())
    rules: set[str] = set()
    for path in (ROOT / "tests" / "data" / "panther-tests" / "events").glob("*.jsonl"):
        rules.update(json.loads(line)["rule_id"] for line in path.read_text().splitlines())
    packed = any((ROOT / "tests" / "data" / "panther-tests" / "events").glob("*.jsonl.gz"))
    assert packed or not set(mapping) - rules
    assert {slug for slugs in mapping.values() for slug in slugs} <= set(catalogue())
