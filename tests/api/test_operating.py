"""Keys, findings, trust, metrics and messages over HTTP, through the client and the sub-commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from serving import KEY, Server
from sqlalchemy import insert

from aftergate.client import Client, Refused, Unanswered
from aftergate.errors import ConfigError
from aftergate.events.clock import to_iso
from aftergate.service.core import Ground
from aftergate.settings import Settings
from aftergate.stores.database import Database
from aftergate.stores.tables.base import outbox

pytestmark = pytest.mark.serving


def finding(id_: str, subject: dict[str, Any], severity: str = "high", hours: float = -1) -> bytes:
    at = to_iso(int(time.time() * 1000 + hours * 3_600_000))
    return json.dumps({"id": id_, "detection": "tok-unminted", "severity": severity, "time": at, "subject": subject}).encode()


def command(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "aftergate.cli.main", *words]
    return subprocess.run(run, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **(env or {})})


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"# mine\n{KEY}\n")
    return path


def test_a_key_lives_from_its_making_to_its_revocation(server: Server, http: httpx2.Client) -> None:
    made = http.post("/v1/keys", json={"name": "reader", "scopes": ["metrics"], "expires_in_days": 1}).json()
    key, entry = made["key"], made["entry"]
    assert entry["usable"] is True
    assert entry["expires"] > entry["created"]

    def status(path: str) -> int:
        return httpx2.get(server.url + path, headers={"authorization": f"Bearer {key}"}, trust_env=False).status_code

    assert status("/metrics") == 200
    assert status("/v1/keys") == 403
    assert entry["id"] in http.get("/v1/keys").text
    assert http.delete(f"/v1/keys/{entry['id']}").status_code == 204
    assert status("/metrics") == 401
    assert http.delete(f"/v1/keys/{entry['id']}").status_code == 404
    shown = next(each for each in http.get("/v1/keys").json()["keys"] if each["id"] == entry["id"])
    assert (shown["usable"], bool(shown["revoked"])) == (False, True)


@pytest.mark.parametrize(
    "body",
    [
        {"name": "a", "scopes": []},
        {"name": "a", "scopes": ["root"]},
        {"name": "a", "scopes": ["approve"]},
        {"name": "", "scopes": ["decide"]},
        {"name": "a\n", "scopes": ["decide"]},
        {"name": "a", "scopes": ["decide"], "expires_in_days": 0},
        {"name": "a", "scopes": ["decide"], "key": "chosen-by-the-caller-0123456789"},
        {"scopes": ["decide"]},
        [],
    ],
)
def test_a_key_that_cannot_be_is_refused(http: httpx2.Client, body: Any) -> None:
    assert http.post("/v1/keys", json=body).status_code == 400


def test_keys_from_the_terminal_on_the_data_directory_work_at_once_at_a_running_server(server: Server) -> None:
    made = command("keys", "create", "terminal", "--scopes", "metrics", "--data", str(server.data))
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert key.startswith("agk_")
    assert key not in made.stderr
    end = time.monotonic() + 10

    def status() -> int:
        return httpx2.get(server.url + "/metrics", headers={"authorization": f"Bearer {key}"}, trust_env=False).status_code

    while status() != 200:
        assert time.monotonic() < end
        time.sleep(0.1)
    listed = json.loads(command("keys", "list", "--json", "--data", str(server.data)).stdout)
    entry = next(each for each in listed if each["name"] == "terminal")
    assert command("keys", "revoke", entry["id"], "--data", str(server.data)).returncode == 0
    end = time.monotonic() + 10
    while status() != 401:
        assert time.monotonic() < end
        time.sleep(0.1)
    again = command("keys", "revoke", entry["id"], "--data", str(server.data))
    assert again.returncode == 1
    assert "no key" in again.stderr


def test_keys_from_the_terminal_over_http(server: Server, key_file: Path) -> None:
    there = ("--server", server.url, "--key-file", str(key_file))
    made = command("keys", "create", "remote", "--scopes", "decide,findings", "--expires-days", "7", *there)
    assert made.returncode == 0, made.stderr
    entry = next(each for each in json.loads(command("keys", "list", "--json", *there).stdout) if each["name"] == "remote")
    assert entry["scopes"] == ["decide", "findings"]
    assert "remote" in command("keys", "list", *there).stdout
    assert command("keys", "revoke", entry["id"], *there).returncode == 0
    wrong = command("keys", "list", "--server", server.url, env={"AFTERGATE_KEY": "wrong-key-000000000000"})
    assert wrong.returncode == 1
    assert "wrong-key" not in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_command_on_a_directory_without_a_database_makes_none(tmp_path: Path) -> None:
    done = command("findings", "list", "--data", str(tmp_path / "typo"))
    assert done.returncode == 1
    assert "no Aftergate database" in done.stderr
    assert not (tmp_path / "typo").exists()


def test_findings_sent_count_at_once_in_trust_and_in_decisions(server: Server, http: httpx2.Client) -> None:
    lines = (
        finding("h-1", {"identity": "ada", "session": "s-1"})
        + b"\n"
        + b"not a finding\n"
        + finding("h-2", {"credential": ["c-1", "c-2"]}, "low")
    )
    got = http.post("/v1/findings", content=lines, headers={"content-type": "application/x-ndjson"}).json()
    assert (got["received"], got["new"], got["known"]) == (3, 2, 0)
    assert [each["line"] for each in got["set_aside"]] == [2]
    trust = http.get("/v1/trust", params={"identity": "ada", "session": "s-1", "credential": "c-2"}).json()
    assert trust["identity"] < 100
    assert trust["session"] < 100
    assert trust["lowest"] == min(trust["identity"], trust["session"], trust["credential"])
    assert trust["detections"] == ["tok-unminted"]
    assert {each["finding"] for each in trust["reasons"]} <= {"h-1", "h-2"}
    assert http.get("/v1/trust", params={"identity": "bob"}).json()["lowest"] == 100
    as_list = http.post("/v1/findings", content=b"[" + finding("h-3", {"identity": "eve"}) + b"]").json()
    assert as_list["new"] == 1
    assert [each["finding"]["id"] for each in http.get("/v1/findings", params={"subject": "eve"}).json()["findings"]] == ["h-3"]
    assert http.post("/v1/findings/h-3/close", json={"reason": "a test"}).status_code == 204
    assert http.post("/v1/findings/h-3/close", json={"reason": "a test"}).status_code == 404
    assert http.get("/v1/trust", params={"identity": "eve"}).json()["lowest"] == 100
    assert http.post("/v1/findings", content=b"nonsense\n").status_code == 400
    assert http.post("/v1/findings", content=b"[1,").status_code == 400
    assert http.post("/v1/findings/h-1/close", json={}).status_code == 400


def test_findings_from_a_scan_go_into_a_server_or_its_directory(server: Server, key_file: Path, tmp_path: Path, data: Path) -> None:
    logs = str(Path(__file__).parents[2] / "demo" / "logs")
    sent = command("scan", logs, "--into", server.url, "--into-key-file", str(key_file), "--findings", str(tmp_path / "f.jsonl"))
    assert sent.returncode == 0, sent.stderr
    count = len((tmp_path / "f.jsonl").read_bytes().splitlines())
    assert f"{count} findings sent: {count} new" in sent.stdout
    again = command("scan", logs, "--into", str(server.data))
    assert f"0 new or worse, {count} known" in again.stdout
    by_file = command("findings", "send", str(tmp_path / "f.jsonl"), "--server", server.url, "--key-file", str(key_file))
    assert f"{count} known" in by_file.stdout
    nowhere = command("scan", logs, "--into", str(tmp_path / "none"))
    assert nowhere.returncode == 1
    assert "neither a server's URL nor a data directory" in nowhere.stderr
    no_key = command("scan", logs, "--into", server.url, env={"AFTERGATE_KEY": "", "AFTERGATE_API_KEY": ""})
    assert no_key.returncode == 1
    assert "wants a key" in no_key.stderr
    silent = command("scan", logs, "--quiet", "--into", "http://127.0.0.1:9", "--into-key-file", str(key_file))
    assert silent.returncode == 1
    assert "no answer" in silent.stderr


def test_findings_from_the_terminal(server: Server, key_file: Path) -> None:
    with Client(server.url, KEY) as gate:
        gate.send_findings([finding("t-1", {"identity": "terminal-ada"})])
    there = ("--server", server.url, "--key-file", str(key_file))
    rows = json.loads(command("findings", "list", "--subject", "terminal-ada", "--json", *there).stdout)
    assert [row["finding"]["id"] for row in rows] == ["t-1"]
    assert "t-1" in command("findings", "list", "--subject", "terminal-ada", "--data", str(server.data)).stdout
    assert "tok-unminted" in command("findings", "trust", "--identity", "terminal-ada", *there).stdout
    assert command("findings", "close", "t-1", "a test", *there).returncode == 0
    assert command("findings", "close", "t-1", "a test", "--data", str(server.data)).returncode == 1


def test_metrics_count_what_happened(server: Server, http: httpx2.Client) -> None:
    body = {"subject": {"type": "user", "id": "a"}, "action": {"name": "read"}, "resource": {"type": "doc", "id": "1"}}

    def number(line: str) -> float:
        text = http.get("/metrics").text
        return next((float(each.rsplit(" ", 1)[1]) for each in text.splitlines() if each.startswith(line + " ")), 0.0)

    line = 'aftergate_requests_total{method="POST",route="/access/v1/evaluation",status="200"}'
    before, permits = number(line), number('aftergate_decisions_total{outcome="permit"}')
    for _ in range(3):
        assert http.post("/access/v1/evaluation", json=body).json()["decision"] is True
    assert number(line) == before + 3
    assert number('aftergate_decisions_total{outcome="permit"}') == permits + 3
    assert number('aftergate_request_seconds_count{route="/access/v1/evaluation"}') >= 3
    for name in (
        "ready",
        "trust_age_seconds",
        "open_findings",
        "audit_records",
        "audit_lag_records",
        "decisions_waiting",
        "clock_behind_seconds",
        "keys",
    ):
        assert f"\naftergate_{name} " in http.get("/metrics").text, name
    assert number("aftergate_ready") == 1
    http.get("/v1/people/some-id-of-somebody")
    assert "some-id-of-somebody" not in http.get("/metrics").text
    assert 'route="/v1/people/{person_id}"' in http.get("/metrics").text


def test_messages_that_were_given_up_are_shown_and_tried_again(server: Server, http: httpx2.Client) -> None:
    database = Database.open(f"sqlite:///{server.data / 'aftergate.db'}")
    now = int(time.time() * 1000)
    with database.write() as connection:
        row = {
            "kind": "callback",
            "body": "{}",
            "created_ms": now,
            "next_ms": now + 10**9,
            "attempts": 6,
            "failed": True,
            "problem": "answered 500",
        }
        connection.execute(insert(outbox).values(**row))
    database.close()
    held = http.get("/v1/messages").json()["messages"]
    assert [(each["attempts"], each["problem"]) for each in held] == [(6, "answered 500")]
    assert 'aftergate_messages{kind="callback",state="failed"} 1.0' in http.get("/metrics").text
    number = held[0]["number"]
    with Ground_of(server) as _:
        pass
    assert http.post(f"/v1/messages/{number}/retry").status_code == 204
    assert http.post(f"/v1/messages/{number}/retry").status_code == 404
    assert http.post("/v1/messages/99999999999999999999999/retry").status_code in {400, 404}


class Ground_of:  # noqa: N801  a helper that reads as a word
    """A second process's hold on a running server's data: opening it changes nothing."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def __enter__(self) -> Ground:
        self.ground = Ground.open(Settings(data=str(self.server.data)))
        return self.ground

    def __exit__(self, *_: object) -> None:
        self.ground.close()


def test_a_finding_of_another_process_counts_within_the_refresh_time(server: Server, http: httpx2.Client) -> None:
    from aftergate.audit.records import Actor
    from aftergate.service import findings

    with Ground_of(server) as ground:
        findings.receive(ground, [(1, finding("o-1", {"identity": "other-ada"}))], by=Actor("operator", "test"))
    end = time.monotonic() + 10
    while http.get("/v1/trust", params={"identity": "other-ada"}).json()["identity"] == 100:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_client_asks_and_is_told(server: Server) -> None:
    with Client(server.url, KEY) as gate:
        assert gate.permitted("user:ada", "read", "doc:1")
        decision = gate.evaluate("user:ada", "read", "doc:1", context={"session_id": "s"})
        assert decision
        assert decision.id
        assert gate.status().problems == {}
        assert gate.ready()
        assert gate.policies()
        assert gate.checkpoint().count("\n") > 3
        new = gate.create_key("made by client", ["decide"], expires_in_days=1)
        assert new.key not in repr(new)
        assert any(key.id == new.entry.id for key in gate.list_keys())
        gate.revoke_key(new.entry.id)
        with pytest.raises(Refused) as refused:
            gate.revoke_key(new.entry.id)
        assert refused.value.status == 404
        many = [finding(f"m-{n}", {"identity": f"many-{n}"}) for n in range(300)]
        assert gate.send_findings(many).new == 300
        told = gate.send_findings([b"bad", *many[:2], b"worse"])
        assert [each.line for each in told.set_aside] == [1, 4]
        assert sum(1 for held in gate.findings() if held["finding"]["id"].startswith("m-")) == 300
        gate.close_finding("m-1", "a test")
        assert gate.trust(identity=["many-1"]).lowest == 100
    with Client(server.url, "wrong-key-00000000000000") as gate:
        assert not gate.permitted("user:ada", "read", "doc:1")
        with pytest.raises(Refused):
            gate.evaluate("user:ada", "read", "doc:1")


def test_a_server_that_is_not_there_is_no_permit() -> None:
    with Client("http://127.0.0.1:9", KEY) as gate:
        assert not gate.permitted("user:ada", "read", "doc:1")
        with pytest.raises(Unanswered):
            gate.status()
        assert not gate.ready()


@pytest.mark.parametrize("url", ["http://gate.example", "ftp://gate.example", "gate.example", "https://gate.example/?a=b"])
def test_a_key_is_not_sent_in_clear_or_nowhere(url: str) -> None:
    with pytest.raises(ConfigError):
        Client(url, KEY)
