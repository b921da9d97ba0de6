"""One server and one Chromium for all tests of this folder; each test has pages, people and requests of its own."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from serving import Server
from stage import CHROMIUM, FLAGS, NODE, POLICIES, Seat, Stage


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests need a browser, its driver, and axe."""
    missing = [name for name, there in (("chromium", Path(CHROMIUM).exists()), ("axe-core", (NODE / "axe-core").is_dir())) if not there]
    for item in items:
        if missing and item.get_closest_marker("browser") and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=f"not installed: {', '.join(missing)}"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("console")
    (folder / "policies").mkdir()
    (folder / "policies" / "approvals.cedar").write_text(POLICIES)
    with Server(folder, "--policies", str(folder / "policies")).start() as made:
        yield made


@pytest.fixture
def stage(server: Server) -> Stage:
    return Stage(server.url, server.key, f"sqlite:///{server.data.resolve()}/aftergate.db")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser a module: while its driver runs, no other test could run an event loop."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def seats(chromium: Any, stage: Stage, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Makes seats: a person in front of a browser of their own. What a page must never do is looked for when the test ends."""
    made: list[Seat] = []

    def seat(**about: Any) -> Seat:
        made.append(Seat(chromium, stage, **about))
        return made[-1]

    yield seat
    for each in made:
        each.page.wait_for_timeout(50)  # what the browser tells of violations comes a moment later
        each.close()
    for each in made:
        assert [held for held in each.violations if not each.expected or not re.search(each.expected, held)] == []
        assert bool(each.expected) <= bool(each.violations)
        assert each.elsewhere == []
        assert each.errors == []
