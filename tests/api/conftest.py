"""Servers for the tests of the interface."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from serving import KEY, NOTHING, Server

PERMIT_ALL = '@id("all") permit(principal, action, resource);'


@pytest.fixture(scope="session")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policies")
    (folder / "all.cedar").write_text(PERMIT_ALL)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, policies: Path) -> Iterator[Server]:
    """One server for the tests of a file that leave it as it was."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "keys.txt").write_text(f"{KEY} test\n{NOTHING} nothing metrics\n")
    with Server(folder, "--policies", str(policies), "--failures-per-minute", "1000000") as made:
        yield made


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx2.Client]:
    """A client with a key of every scope."""
    with httpx2.Client(base_url=server.url, headers={"authorization": f"Bearer {KEY}"}, timeout=20, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def stranger(server: Server) -> Iterator[httpx2.Client]:
    """A client without any key."""
    with httpx2.Client(base_url=server.url, timeout=20, trust_env=False) as client:
        yield client
