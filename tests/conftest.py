"""What all tests share: no network, and the same examples on every run."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

DATA = Path(__file__).parent / "data"

settings.register_profile("aftergate", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("aftergate")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Aftergate's scan sends nothing anywhere: a test that opens a connection fails. The mark `browser` lets one through."""
    if request.node.get_closest_marker("browser"):
        return

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a test opened a network connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of sample logs; each of its folders names source and licence."""
    return DATA
