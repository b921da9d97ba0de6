"""The audit routes of a real server: export, checkpoint, proofs, stories, erasing; and who may."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from serving import Server

from aftergate.audit.bundle import Bundle
from aftergate.audit.keys import KeyRing
from aftergate.audit.merkle import verify_consistency
from aftergate.audit.notes import open_checkpoint, unb64
from aftergate.audit.proof import TlogProof
from aftergate.audit.verify import verify_bundle
from aftergate.cli.main import main

pytestmark = pytest.mark.serving
FEW = "key-that-decides-only-0123456789"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    made = Server(folder, "--audit-origin", "log.example/served")
    (folder / "keys.txt").write_text(f"{made.key} test\n{FEW} few decide\n")
    with made.start() as running:
        yield running


def ask(server: Server, path: str, *, key: str | None = None, body: Any = None) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {key or server.key}", "Content-Type": "application/json"}
    request = urllib.request.Request(server.url + path, headers=headers, data=None if body is None else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_the_export_of_a_running_server_verifies(server: Server, tmp_path: Path) -> None:
    kept = ask(server, "/v1/audit/checkpoint")[1]
    ring = KeyRing.parse(ask(server, "/v1/audit/keys")[1])
    status, data = ask(server, "/v1/audit/export?personal=true")
    assert status == 200
    (tmp_path / "audit.tar.gz").write_bytes(data)
    with Bundle(tmp_path / "audit.tar.gz") as bundle:
        report = verify_bundle(bundle, known=[("kept", kept)], pins=ring.verifiers, strict=True)
    assert report.passed, report.problems
    assert report.origin == "log.example/served"
    assert report.counts["server.started"] == 1
    assert report.counts["admin.audit.exported"] >= 1


def test_records_are_proven_and_trees_are_consistent(server: Server) -> None:
    ring = KeyRing.parse(ask(server, "/v1/audit/keys")[1])
    old, _, _ = open_checkpoint(ask(server, "/v1/audit/checkpoint")[1], ring.verifiers)
    ask(server, "/v1/audit/export")
    new, _, _ = open_checkpoint(ask(server, "/v1/audit/checkpoint")[1], ring.verifiers)
    assert new.size > old.size
    proof = json.loads(ask(server, f"/v1/audit/consistency?old={old.size}&new={new.size}")[1])["proof"]
    assert verify_consistency(old.size, new.size, old.root, new.root, [unb64(each) for each in proof])
    assert TlogProof.parse(ask(server, "/v1/audit/proofs/0")[1]).index == 0
    assert ask(server, f"/v1/audit/proofs/{new.size + 50}")[0] == 404
    assert ask(server, "/v1/audit/consistency?old=5&new=1")[0] == 400
    assert ask(server, "/v1/audit/consistency?old=-1&new=1")[0] == 400


def test_records_and_stories(server: Server) -> None:
    status, data = ask(server, "/v1/audit/records?limit=2&type=server.started")
    assert (status, [r["type"] for r in json.loads(data)["records"]]) == (200, ["server.started"])
    assert ask(server, "/v1/audit/records?type=gossip")[0] == 400
    assert ask(server, "/v1/audit/transactions/nothing")[0] == 404


def test_a_person_is_erased_by_administrators_only(server: Server) -> None:
    assert ask(server, "/v1/audit/erasures", body={"names": ["nobody"]}) == (200, b'{"personal":0,"requests":0,"evidence":0}')
    assert ask(server, "/v1/audit/erasures", body={"names": []})[0] == 400
    assert ask(server, "/v1/audit/erasures", body={"names": ["nobody"]}, key=FEW)[0] == 403


@pytest.mark.parametrize("path", ["export", "checkpoint", "keys", "proofs/0", "consistency?old=0&new=0", "records", "transactions/x"])
def test_the_log_is_for_those_who_may_audit(server: Server, path: str) -> None:
    assert ask(server, f"/v1/audit/{path}", key=FEW)[0] == 403
    assert ask(server, f"/v1/audit/{path}", key="unknown-key-0123456789")[0] == 401


def test_the_command_line_reads_a_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_text(server.key + " auditor\n")
    at = ["--server", server.url, "--key-file", "key"]

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["aftergate", "audit", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), "".join(capsys.readouterr())

    (tmp_path / "kept").write_text(run("checkpoint", *at)[1])
    (tmp_path / "keys").write_text(run("keys", *at)[1])
    assert run("export", "audit.tar.gz", *at)[0] == 0
    code, said = run("verify", "audit.tar.gz", "--known", "kept", "--key", "keys", "--strict")
    assert code == 0, said
    assert run("show", "--last", "1", *at)[0] == 0
    code, said = run("show", "-t", "nothing", *at)
    assert (code, "404" in said) == (1, True)
    (tmp_path / "key").write_text("wrong-key-0123456789")
    code, said = run("export", "other.tar.gz", *at)
    assert (code, "401" in said, (tmp_path / "other.tar.gz").exists()) == (1, True, False)
    assert "wrong-key" not in said
