"""A person is forgotten, classes go after their time, and what is left still tells the story and verifies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from keeping import DAY, ORIGIN, Clock, add, verified
from making import Authenticator, approval_object, consumed, granted, ordinary, registered

from aftergate.audit.records import Actor, Record
from aftergate.errors import ConfigError
from aftergate.service.retention import erase_person, sweep
from aftergate.service.trail import NoSuchTransaction, show
from aftergate.stores.audit_log import AuditLog
from aftergate.stores.audit_reading import Tables
from aftergate.stores.database import Database
from aftergate.stores.tables.audit import audit_personal

pytestmark = pytest.mark.serving


def test_a_person_is_forgotten_and_every_proof_still_holds(log: AuditLog, tmp_path: Path) -> None:
    key = Authenticator()
    add(log, registered(key), granted(approval_object(), key), consumed(), ordinary(7), ordinary(8))
    kept = log.checkpoint()
    gone = erase_person(log.database, log, ["ANNA"], by=Actor("operator", "cli"), reason="asked to")
    assert (gone.personal, gone.evidence, gone.request) == (2, 1, 0)
    gone = erase_person(log.database, log, ["person-7"], by=Actor("operator", "cli"), reason="asked to")
    assert (gone.personal, gone.evidence, gone.request) == (1, 0, 1)
    assert not erase_person(log.database, log, ["nobody"], by=Actor("operator", "cli"), reason="").any()
    log.checkpoint()
    report = verified(log, tmp_path, known=[("kept", kept)])
    assert report.passed, report.problems
    assert {p.code for p in report.problems} == {"evidence-erased", "erased"}
    files = b"".join(p.read_bytes() for p in tmp_path.rglob("bundle*/**/*") if p.is_file())
    assert b"person-8" in files
    assert b"anna" not in files
    assert b"person-7" not in files
    with pytest.raises(ConfigError, match="whom"):
        erase_person(log.database, log, [" "], by=Actor("operator", "cli"), reason="")


def test_nothing_of_a_forgotten_person_stays_in_the_database_file(tmp_path: Path, clock: Clock) -> None:
    database = Database.open(f"sqlite:///{tmp_path}/a.db")
    log = AuditLog.at(database, tmp_path / "audit", ORIGIN, clock)
    add(log, *[ordinary(n) for n in range(50)])
    on_disk = lambda: b"".join(p.read_bytes() for p in tmp_path.glob("a.db*"))
    assert b"person-17" in on_disk()
    erase_person(database, log, ["person-17"], by=Actor("operator", "cli"), reason="")
    assert b"person-17" not in on_disk()
    assert b"person-18" in on_disk()
    database.close()


def test_evidence_can_be_kept_where_a_duty_says_so(log: AuditLog, tmp_path: Path) -> None:
    key = Authenticator()
    add(log, registered(key), granted(approval_object(), key), consumed())
    gone = erase_person(log.database, log, ["anna", "bea"], by=Actor("operator", "cli"), reason="", keep_evidence=True)
    assert (gone.personal, gone.evidence) == (5, 0)
    log.checkpoint()
    assert "evidence-erased" not in {p.code for p in verified(log, tmp_path).problems}


def test_each_class_goes_after_its_own_time(log: AuditLog, clock: Clock, tmp_path: Path) -> None:
    key = Authenticator()
    add(log, registered(key), granted(approval_object(), key), consumed(), *[ordinary(n) for n in range(300)])
    log.checkpoint()
    days = {"request": 30, "personal": 60, "evidence": 0, "records": 90}
    assert not sweep(log.database, log, days, clock.now + 29 * DAY).any()
    clock.now += 31 * DAY
    assert sweep(log.database, log, days, clock.now).request == 300
    assert not sweep(log.database, log, days, clock.now).any(), "nothing goes twice"
    clock.now += 30 * DAY
    assert sweep(log.database, log, days, clock.now).personal == 305
    clock.now += 30 * DAY
    gone = sweep(log.database, log, days, clock.now)
    assert (gone.records, gone.evidence) == (300, 0)
    log.checkpoint()
    report = verified(log, tmp_path)
    assert report.passed, report.problems
    assert report.counts["approval.granted"] == 1
    assert "decision" not in report.counts
    with log.database.read() as connection:
        assert connection.execute(audit_personal.select()).all() == []
        assert Tables(connection).read([5])[0].raw is None


def test_a_transactions_story_fits_ten_lines(log: AuditLog, tmp_path: Path) -> None:
    from aftergate.audit.records import ApprovalRef, Party, PolicyRef, Risk

    a, b = Authenticator(1), Authenticator(2)
    asked: dict[str, Any] = {"subject": Party("user", "anna"), "action": "release_payment", "resource": Party("payment", "p-17")}
    add(
        log,
        ordinary(1),
        Record("decision", actor=Actor("api-key", "pay"), decision="approval", reasons=("pay-needs-approval",), evaluation_id="ev-1", risk=Risk(12, "low"), **asked),
        registered(a),
        Record("access_request", actor=Actor("api-key", "pay"), approval=ApprovalRef("req-1", quorum=2), transaction="req-1", evaluation_id="ev-1", policy=PolicyRef("pay-needs-approval"), risk=Risk(12, "low"), **asked),
        granted(approval_object("bea", quorum=2), a),
        granted(approval_object("carl", quorum=2, nonce=2), b),
        consumed(risk=Risk(14, "low", ("tok-refresh-reuse",))),
    )  # fmt: skip
    log.checkpoint()
    for ref in ("req-1", "ap-1", "ev-1"):
        trail = show(log.database, ref)
        assert trail.seqs == (1, 3, 4, 5, 6)
        said = "\n".join(trail.lines)
        assert len(trail.lines) <= 10
        for words in ("release_payment on payment p-17 for user anna", "asked by api-key pay, 2 approvers needed, risk 12 low", "approved by bea", "approved by carl",
                      "ran: release_payment on payment p-17, by api-key pay, risk 14 low (tok-refresh-reuse)", "outcome: used once; 2 approvals",
                      "in the log: records 1, 3, 4, 5, 6, under the signed checkpoint of size 7"):  # fmt: skip
            assert words in said, said
    with pytest.raises(NoSuchTransaction, match="no record of `other`"):
        show(log.database, "other")
    erase_person(log.database, log, ["anna", "bea", "carl"], by=Actor("operator", "cli"), reason="")
    said = "\n".join(show(log.database, "req-1").lines)
    assert "for user (erased)" in said
    assert "bea" not in said
    json.dumps(show(log.database, "req-1").records)


def test_a_long_story_still_fits(log: AuditLog) -> None:
    add(
        log,
        *[Record("approval.refused", transaction="t", actor=Actor("person", "bea"), reasons=("signature",)) for _ in range(40)],
        consumed(transaction="t"),
    )
    trail = show(log.database, "t")
    assert len(trail.lines) == 10
    assert "more records" in "\n".join(trail.lines)
    assert any(line.split("  ")[-1].startswith("ran:") for line in trail.lines)
    assert "not yet under a signed checkpoint" in trail.lines[-1]
