"""`aftergate audit` on a data directory: export, verify, show, checkpoints, proofs, keys, erasing, restarting."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from making import Authenticator, approval_object, consumed, granted, ordinary, registered

from aftergate.audit.records import Actor, Party, Record
from aftergate.cli.main import main
from aftergate.stores.audit_log import AuditLog
from aftergate.stores.database import Database

Run = Callable[..., tuple[int, str, str]]
ORIGIN = "log.example/cli"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["aftergate", "audit", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory as a server leaves it: one approval with its use, some decisions, a checkpoint."""
    folder = tmp_path / "aftergate-data"
    database = Database.open(f"sqlite:///{folder}/aftergate.db")
    log = AuditLog.at(database, folder / "audit", ORIGIN, lambda: 1_790_000_000_000)
    key = Authenticator()
    with database.write() as connection:
        log.append(connection, [registered(key), granted(approval_object(), key), consumed(), *[ordinary(n) for n in range(5)]])
    log.checkpoint()
    database.close()
    return folder


@pytest.mark.parametrize("target", ["audit.tar.gz", "audit"])
def test_an_export_verifies(run: Run, data: Path, target: str, tmp_path: Path) -> None:
    code, out, _ = run("export", target)
    assert (code, (tmp_path / target).exists()) == (0, True)
    assert "audit verify" in out
    code, out, _ = run("verify", target)
    assert code == 0
    assert f"log {ORIGIN}, 9 records" in out
    assert "PASSED" in out
    assert "--key" in out, "the report says what is left open without a trusted key"
    code, _, err = run("export", target)
    assert code == 1
    assert "not empty" in err or "exists" in err


def test_a_tampered_export_fails_and_json_says_where(run: Run, data: Path, tmp_path: Path) -> None:
    run("export", "bundle")
    entries = tmp_path / "bundle/tile/entries/000.p/9"
    entries.write_bytes(entries.read_bytes().replace(b"release_payment", b"delete_accounts"))
    code, out, _ = run("verify", "bundle")
    assert code == 1
    assert "record 2 is not the one that the tree holds" in out
    assert "FAILED" in out
    code, out, _ = run("verify", "bundle", "--json")
    report = json.loads(out)
    assert (code, report["passed"], report["records_failed"]) == (1, False, [2])
    assert [(p["step"], p["code"], p["seq"]) for p in report["problems"] if p["severity"] == "failure"] == [
        (4, "record-changed", 2),
        (9, "another-thing", 2),
    ]


def test_verifying_opens_no_database_and_no_connection(run: Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("export", "audit.tar.gz")
    shutil.rmtree(data)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("opened something")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(Database, "open", refuse)
    assert run("verify", "audit.tar.gz")[0] == 0


def test_a_checkpoint_kept_and_a_key_trusted_are_held_against_the_export(run: Run, data: Path, tmp_path: Path) -> None:
    kept = run("checkpoint")[1]
    (tmp_path / "kept.txt").write_text(kept, "utf-8")
    keys = run("keys")[1]
    assert keys.startswith("# from 2026-09-21T14:13:20Z, in use\n" + ORIGIN + "+")
    (tmp_path / "keys.txt").write_text(keys, "utf-8")
    vkey = keys.splitlines()[1]
    run("export", "audit.tar.gz")
    for key in (vkey, "keys.txt", "aftergate-data/audit/keys.json"):
        code, out, _ = run("verify", "audit.tar.gz", "--known", "kept.txt", "--key", key, "--strict")
        assert code == 0, out
        assert "trust" in out
    (tmp_path / "kept.txt").write_text(kept.replace("\n8\n", "\n7\n"), "utf-8")
    assert run("verify", "audit.tar.gz", "--known", "kept.txt")[0] == 1
    code, _, err = run("verify", "audit.tar.gz", "--key", "a+b+c")
    assert (code, "not a public key" in err) == (1, True)
    code, _, err = run("verify", "audit.tar.gz", "--known", "missing.txt")
    assert (code, "missing.txt" in err) == (1, True)
    assert run("verify", "audit.tar.gz", "--origin", "https://elsewhere.example")[0] == 1


def test_one_record_is_proven_alone(run: Run, data: Path, tmp_path: Path) -> None:
    vkey = run("keys")[1].splitlines()[1]
    assert run("proof", "2", "--out", "proofs")[0] == 0
    code, out, _ = run("verify", "proofs/2.tlog-proof", "--key", vkey)
    assert code == 0
    assert out.startswith("holds")
    code, _, err = run("verify", "proofs/2.tlog-proof")
    assert (code, "--key" in err) == (1, True)
    record = tmp_path / "proofs/2.json"
    record.write_bytes(record.read_bytes().replace(b"permit", b"deny"))
    code, out, _ = run("verify", "proofs/2.tlog-proof", "--key", vkey)
    assert (code, out.startswith("FAILED")) == (1, True)
    code, _, err = run("proof", "99")
    assert (code, "no record 99" in err) == (1, True)


def test_a_transaction_is_told(run: Run, data: Path) -> None:
    code, out, _ = run("show", "--transaction", "req-1")
    assert code == 0
    assert len(out.splitlines()) <= 10
    assert "ran: release_payment on payment p-17" in out
    code, out, _ = run("show", "-t", "ap-1", "--json")
    assert [json.loads(line)["type"] for line in out.splitlines()] == ["approval.granted", "approval.consumed"]
    code, out, _ = run("show", "--last", "3")
    assert [line.split()[0] for line in out.splitlines()] == ["5", "6", "7"]
    code, _, err = run("show", "-t", "other")
    assert (code, "no record of `other`" in err) == (1, True)
    assert run("show")[0] == 2


def test_what_strangers_wrote_does_not_move_the_terminals_cursor(run: Run, data: Path, tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{data}/aftergate.db")
    log = AuditLog.at(database, data / "audit", ORIGIN, lambda: 1_790_000_000_000)
    evil = "x\x1b[2J\u202ey"
    with database.write() as connection:
        log.append(
            connection,
            [
                Record(
                    "decision",
                    action=evil,
                    resource=Party("doc", evil),
                    decision="deny",
                    evaluation_id="ev-evil",
                    actor=Actor("api-key", evil),
                )
            ],
        )
    database.close()
    run("export", "bundle")
    manifest = tmp_path / "bundle/manifest.json"
    manifest.write_text(manifest.read_text("utf-8").replace(ORIGIN, "\\u001b[2J[bold]"), "utf-8")
    for words in (("show", "-t", "ev-evil"), ("show", "--last", "2"), ("verify", "bundle")):
        _, out, err = run(*words)
        assert out
        assert "\x1b[2J" not in out + err
        assert "\u202e" not in out + err


def test_names_come_along_only_when_asked_for_and_not_once_erased(run: Run, data: Path, tmp_path: Path) -> None:
    everything = lambda folder: b"".join(p.read_bytes() for p in (tmp_path / folder).rglob("*") if p.is_file())
    run("export", "plain")
    assert b"person-3" not in everything("plain")
    run("export", "full", "--personal")
    assert b"person-3" in everything("full")
    code, out, _ = run("erase", "--name", "PERSON-3", "--reason", "asked")
    assert (code, "erased 1 values, 1 requests" in out) == (0, True)
    run("export", "after", "--personal")
    assert b"person-3" not in everything("after")
    code, out, _ = run("verify", "after")
    assert code == 0
    assert "were erased, as the log declares" in out


def test_keys_rotate_and_a_lost_one_can_be_replaced(run: Run, data: Path) -> None:
    first = run("keys")[1].splitlines()[1]
    code, out, _ = run("keys", "--rotate", "--overlap-days", "1")
    assert code == 0
    second = out.splitlines()[1]
    assert second in run("keys")[1]
    for path in (data / "audit").glob("key-*"):
        path.unlink()
    code, _, err = run("checkpoint")
    assert (code, "rotate --lost" in err) == (1, True)
    assert run("keys", "--rotate", "--lost")[0] == 0
    run("export", "audit.tar.gz")
    assert run("verify", "audit.tar.gz", "--key", "aftergate-data/audit/keys.json")[0] == 0
    code, out, _ = run("verify", "audit.tar.gz", "--key", first)
    assert (code, "no known key signed" in out) == (1, True)


def test_a_database_put_back_is_exported_as_signed_and_can_be_restarted(run: Run, data: Path) -> None:
    database = Database.open(f"sqlite:///{data}/aftergate.db")
    with database.read() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    shutil.copy(data / "aftergate.db", data / "copy.db")
    run("keys", "--rotate")
    for each in data.glob("aftergate.db*"):
        each.unlink()
    shutil.move(data / "copy.db", data / "aftergate.db")
    code, _, err = run("checkpoint")
    assert (code, "put back to an older state" in err) == (1, True)
    code, _, err = run("export", "before.tar.gz")
    assert (code, "as it was last signed" in err) == (0, True)
    assert run("verify", "before.tar.gz")[0] == 0
    code, out, _ = run("restart", "--reason", "the disk died")
    assert (code, ORIGIN + "~2" in out) == (0, True)
    run("export", "after.tar.gz")
    assert run("verify", "after.tar.gz")[0] == 0
    code, _, err = run("restart", "--reason", "again")
    assert (code, "nothing to restart" in err) == (1, True)


def test_a_folder_without_a_log_is_told_and_left_alone(run: Run, tmp_path: Path) -> None:
    for words in (("checkpoint",), ("export", "x.tar.gz"), ("show", "--last", "1")):
        code, _, err = run(*words, "--data", str(tmp_path / "nothing"))
        assert (code, "there is no log here" in err) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_not_sent_in_the_clear(run: Run, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret-key", "utf-8")
    code, _, err = run("checkpoint", "--server", "http://log.example", "--key-file", "key")
    assert (code, "in clear" in err) == (1, True)
    code, _, err = run("checkpoint", "--server", "https://log.example")
    assert (code, "wants a key" in err) == (1, True)


def test_every_example_in_the_help_is_a_command_that_exists(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for name in ("verify", "export", "show", "checkpoint", "proof", "keys", "erase", "restart"):
        assert name in out
