"""From a real server with people, software keys and an executor to an export that verifies: the whole of it, over HTTP."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "approvals"))
from company import payment
from remote import Remote

from aftergate.audit.bundle import Bundle
from aftergate.audit.findings import Report
from aftergate.audit.keys import KeyRing
from aftergate.audit.verify import verify_bundle

pytestmark = pytest.mark.serving


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    with Remote(tmp_path_factory.mktemp("remote")) as made:
        made.person("bob", "finance")
        made.person("dave", "finance", "treasury")
        yield made


def exported(remote: Remote, folder: Path, *, personal: bool = True) -> Report:
    ring = KeyRing.parse(remote.http.get("/v1/audit/keys").content)
    (folder / "audit.tar.gz").write_bytes(remote.http.get("/v1/audit/export", params={"personal": str(personal).lower()}).content)
    with Bundle(folder / "audit.tar.gz") as bundle:
        return verify_bundle(bundle, pins=ring.verifiers, strict=True, origins=[remote.url], rp_ids=["localhost"])


def test_an_approval_that_was_used_verifies_and_is_told_in_ten_lines(remote: Remote, tmp_path: Path) -> None:
    approval = remote.approved(payment())
    assert remote.use(payment(), approval)["decision"] is True
    assert remote.use(payment(), approval)["decision"] is False
    report = exported(remote, tmp_path)
    assert report.passed, report.problems
    checked = {step.number: step.checked for step in report.steps}
    assert checked[8] >= 1
    assert checked[9] >= 1
    assert report.counts["approval.consumed"] == 1
    told = remote.http.get(f"/v1/audit/transactions/{approval}").json()
    assert len(told["lines"]) <= 10
    said = "\n".join(told["lines"])
    for words in ("payment p", "approved by bob with credential", "ran: ", "outcome: used once", "in the log: records"):
        assert words in said, said
    types = [record["type"] for record in told["records"]]
    assert types[0] == "decision"
    assert {"access_request", "approval.granted", "approval.consumed"} <= set(types)


def test_without_personal_data_it_verifies_as_well(remote: Remote, tmp_path: Path) -> None:
    assert exported(remote, tmp_path, personal=False).passed


def test_a_finding_that_voids_an_approval_is_in_the_trail(remote: Remote, tmp_path: Path) -> None:
    request = payment(resource={"type": "payment", "id": "p-void", "properties": {"amount": 7, "currency": "EUR"}})
    approval = remote.approved(request)
    remote.found(identity=request["subject"]["id"])
    assert remote.use(request, approval)["decision"] is False
    told = remote.http.get(f"/v1/audit/transactions/{approval}").json()
    assert "voided" in "\n".join(told["lines"]), json.dumps(told, indent=1)
    report = exported(remote, tmp_path)
    assert report.passed, report.problems
