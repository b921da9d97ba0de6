"""The generated pages say what the code says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from aftergate.connectors.base import sources
from aftergate.detections.api import catalogue
from aftergate.tools.docs import BITS, FEATURES, differences, feature, main, pages, write
from aftergate.vocabulary import Bit

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    docs = tmp_path_factory.mktemp("project") / "docs"
    write(docs)
    return docs


def test_the_projects_own_pages_are_up_to_date() -> None:
    assert differences(DOCS) == [], "run: python -m aftergate.tools.docs"


def test_writing_twice_gives_the_same_bytes(written: Path) -> None:
    made = pages(written)
    assert {name: (written / name).read_text(encoding="utf-8") for name in made} == made


def test_check_is_content_with_fresh_pages(written: Path) -> None:
    assert main(["--check", "--root", str(written.parent)]) == 0


def test_check_tells_of_changed_missing_and_left_over_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs = tmp_path / "docs"
    write(docs)
    slug = next(iter(catalogue()))
    (docs / "cli.md").write_text("changed", encoding="utf-8")
    (docs / "detections" / f"{slug}.md").unlink()
    (docs / "sources" / "nobody.md").write_text("left", encoding="utf-8")
    assert main(["--check", "--root", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "cli.md differs" in said
    assert f"detections/{slug}.md is missing" in said
    assert "sources/nobody.md is left over" in said
    assert "python -m aftergate.tools.docs" in said
    write(docs)
    assert main(["--check", "--root", str(tmp_path)]) == 0


def test_every_bit_and_every_feature_has_words() -> None:
    assert set(BITS) == set(Bit)
    unknown = {f for source in sources().values() for f in source.provides} - set(FEATURES)
    assert not unknown
    needed = {feature(n) for rule in catalogue().values() for group in rule.meta.needs for n in group} - set(FEATURES)
    assert not needed


def test_every_source_has_set_up_notes() -> None:
    notes = {p.stem for p in (DOCS / "sources" / "_setup").glob("*.md")}
    assert notes == set(sources())


def test_every_detection_is_fed_by_some_source(written: Path) -> None:
    data = json.loads((written / "coverage.json").read_text())
    assert set(data["detections"]) == set(catalogue())
    lonely = [slug for slug, d in data["detections"].items() if not any(s["alone"] for s in d["sources"].values())]
    # those that join two kinds of log need both; their features must at least exist somewhere
    held = {f for s in data["sources"].values() for f in s["provides"]} | {"events"}
    assert all(any(set(group) <= held for group in data["detections"][slug]["needs_any"]) for slug in lonely)


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        if "_setup" in page.parts:
            continue
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in target and not target.endswith(".png") and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []
