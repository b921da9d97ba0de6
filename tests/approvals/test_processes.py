"""Several server processes on PostgreSQL, and processes that die in the middle: never two uses, never a permit that is not recorded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from company import now_s, payment
from remote import Remote, numbered
from serving import Server, free_port, new_database, postgres

pytestmark = [pytest.mark.serving, pytest.mark.slow]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres(tmp_path_factory.mktemp("postgres")) as uri:
        yield new_database(uri)


def test_500_at_once_on_two_processes_and_postgresql_are_one_permit(tmp_path: Path, database: str) -> None:
    port = free_port()
    shared = ("--database", database, "--public-url", f"http://localhost:{port}")
    remote = Remote(tmp_path, *shared)
    remote.server.start(port=port)
    remote.http = remote.client(remote.server)
    other = Server(tmp_path / "server", "--policies", str(tmp_path / "policies"), *shared)
    other.start()
    try:
        remote.person("bob", "finance")
        for n in range(2):
            approval = remote.approved(numbered(n))
            permits = remote.many(approval, numbered(n), 500 if n == 0 else 60, [remote.url, other.url])
            assert sum(permits) == 1
            assert len(remote.uses(approval, database)) == 1
        # What one process was told the other knows: asked here, bound there.
        request = numbered(7)
        body = {**request, "denial": remote.denial(request)}
        with remote.client(other) as http:
            answer = http.post(
                "/access/v1/requests", json=body, headers={"dpop": remote.executor.proof(remote.url + "/access/v1/requests", now_s())}
            )
            assert answer.status_code == 202, answer.text
            id_ = answer.json()["task"]["id"]
        assert remote.task(id_)["task"]["status"] == "pending"
    finally:
        for desk in remote.desks.values():
            desk.close()
        remote.http.close()
        other.__exit__()
        remote.server.__exit__()


def test_killed_in_the_middle_of_a_use_it_is_used_once_and_never_unrecorded(tmp_path: Path) -> None:
    """Round after round the server is killed somewhere within a burst of uses of one approval, and started again."""
    with Remote(tmp_path) as remote:
        port = int(remote.url.rpartition(":")[2])
        remote.person("bob", "finance")
        approvals = [remote.approved(numbered(n)) for n in range(6)]
        seen = {"before": 0, "after": 0}
        for n, approval in enumerate(approvals):
            killer = threading.Timer(0.015 * n, remote.server.kill)
            killer.start()
            permits = remote.many(approval, numbered(n), 40, [remote.url], width=8)
            killer.join()
            remote.server.start(port=port)
            recorded = remote.uses(approval)
            assert sum(permits) <= len(recorded) <= 1, "a permit that was sent is in the log"
            again = remote.use(numbered(n), approval)["decision"]
            assert again is (not recorded), "what the log does not hold was not used, and what it holds is not used again"
            assert len(remote.uses(approval)) == 1
            seen["after" if recorded else "before"] += 1
        assert remote.http.get("/healthz").status_code == 200
        assert seen["before"], "some were killed before the use was written"


def test_when_the_database_is_gone_nothing_is_permitted_and_nothing_is_used(tmp_path: Path) -> None:
    """The disk is full, so to speak: the database refuses to be written. Without a record there is no permit, and the approval is still good."""
    import sqlite3

    with Remote(tmp_path) as remote:
        remote.person("bob", "finance")
        approval = remote.approved(payment())
        with sqlite3.connect(remote.server.data / "aftergate.db", isolation_level=None) as database:
            database.execute("CREATE TRIGGER full BEFORE INSERT ON audit_leaves BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END")
        body = {**payment(), "context": {**payment()["context"], "approval": {"id": approval}}}
        answer = remote.http.post("/access/v1/evaluation", json=body, headers={"dpop": remote.proof(approval)})
        assert answer.status_code in {500, 503}
        assert remote.uses(approval) == []
        with sqlite3.connect(remote.server.data / "aftergate.db", isolation_level=None) as database:
            database.execute("DROP TRIGGER full")
        until = time.monotonic() + 10
        while remote.http.post("/access/v1/evaluation", json=payment()).status_code != 200 and time.monotonic() < until:
            time.sleep(0.1)
        assert remote.use(payment(), approval)["decision"] is True
