"""The same request again: answered from what is known, and never with an answer that has become another one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aftergate.api import limits
from aftergate.api.auth import Refused
from aftergate.audit.records import Actor
from aftergate.authz.errors import BadRequest
from aftergate.authz.wire import parse_evaluation
from aftergate.events.clock import to_iso
from aftergate.service.core import Core
from aftergate.service.decisions import Asker, Known
from aftergate.service.trust import Standing
from aftergate.settings import load
from aftergate.stores import findings

POLICIES = """
@id("all") permit(principal, action, resource);
@id("trusted") forbid(principal, action == Action::"pay", resource) when { context.live.trust.lowest < 60 };
@id("young") forbid(principal, action == Action::"ship", resource) when { context.live.credential.age_s > 100 };
@id("late") forbid(principal, action == Action::"open", resource) when { context.live.time > 2000000000 };
"""
ASKER = Asker("key-1", Actor("api-key", "key-1"), "request-1")


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "a.cedar").write_text(POLICIES)
    made = Core.open(load({"data": str(tmp_path / "data"), "policies": str(tmp_path / "policies"), "reload_s": 0}, {}))
    made.refresh()
    yield made
    made.close()


def known(action: str, **context: Any) -> Known:
    body = {
        "subject": {"type": "user", "id": "ann"},
        "action": {"name": action},
        "resource": {"type": "doc", "id": "1"},
        "context": context,
    }
    raw = json.dumps(body).encode()
    return Known(parse_evaluation(raw), raw)


def told(core: Core, asked: Known) -> dict[str, Any]:
    """The answer, which must be that of a decision made from nothing but the request, save for its id."""
    body, durable = core.decider.told(asked, ASKER)
    if durable is not None:
        durable.result(20)
    answer: dict[str, Any] = json.loads(body)
    fresh = core.decider.evaluate(asked.request, ASKER, asked.raw)
    assert answer["context"].pop("evaluation_id") != fresh.id
    assert answer == {"decision": fresh.allowed, "context": {k: v for k, v in fresh.context.items() if k != "evaluation_id"}}
    return answer


def test_the_same_answer_again_has_an_id_and_a_record_of_its_own(core: Core) -> None:
    asked = known("read", session_id="s")
    before = core.decider.counts["permit"]
    ids = [json.loads(core.decider.told(asked, ASKER)[0])["context"]["evaluation_id"] for _ in range(3)]
    assert asked.last is not None
    assert len(set(ids)) == 3
    assert core.decider.counts["permit"] == before + 3
    assert told(core, asked)["decision"]


def test_lower_trust_changes_it_at_once_and_trust_that_is_not_known_denies(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = known("pay", session_id="s", credential_id="c")
    assert told(core, asked)["decision"]
    monkeypatch.setattr(core.trust, "of", lambda *_: Standing(100, 40, 100, ("a-finding",)))
    core.trust.version += 1
    assert told(core, asked)["context"]["policies"] == ["trusted"]
    monkeypatch.undo()
    core.trust.version += 1
    assert told(core, asked)["decision"]
    monkeypatch.setattr(core.trust, "fresh_at", lambda _: False)
    assert told(core, asked)["context"]["reason"] == "trust_unknown"
    monkeypatch.undo()
    assert told(core, asked)["decision"]


def find(core: Core, subject: dict[str, list[str]], name: str) -> None:
    told = {"id": name, "detection": "tok-family-fork", "severity": "critical", "time": to_iso(core.clock()), "subject": subject}
    body = json.dumps(told)
    with core.db.write() as connection:
        findings.add(core.db, connection, [(findings.read(body), body)], core.clock())
    core.trust.refresh()


@pytest.mark.parametrize("subject", [{"identity": ["ann"]}, {"session": ["s"]}, {"credential": ["c"]}, {"identity": ["a.smith"]}])
def test_that_nothing_was_found_is_remembered_until_something_is(core: Core, subject: dict[str, list[str]]) -> None:
    """Names are learnt in between, too: what is then found on another name of the same person counts."""
    asked = known("pay", session_id="s", credential_id="c")
    for _ in range(2):
        assert told(core, asked)["decision"]
    core.people.add("ann", groups=(), aliases=("a.smith",), by=Actor("operator", "tests"))
    core.decider.identities.refresh()
    assert told(core, asked)["decision"]
    find(core, subject, "f-1")
    assert told(core, asked)["context"]["policies"] == ["trusted"]
    with core.db.write() as connection:
        assert findings.close(core.db, connection, "f-1", "tests", core.clock())
    core.trust.refresh()
    assert told(core, asked)["decision"]


def test_a_name_learnt_later_brings_what_was_found_on_it(core: Core) -> None:
    asked = known("pay")
    find(core, {"identity": ["a.smith"]}, "f-1")
    assert told(core, asked)["decision"]
    core.people.add("ann", groups=(), aliases=("a.smith",), by=Actor("operator", "tests"))
    core.decider.identities.refresh()
    assert told(core, asked)["context"]["policies"] == ["trusted"]


def test_another_set_of_policies_changes_it_at_once(core: Core, tmp_path: Path) -> None:
    asked = known("read")
    assert told(core, asked)["decision"]
    (tmp_path / "policies" / "a.cedar").write_text('@id("none") forbid(principal, action, resource);')
    core.decider.reload()
    assert told(core, asked)["context"]["policies"] == ["none"]


def test_what_depends_on_time_is_decided_each_time(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    now = core.clock()
    clock, credential = known("open"), known("ship", credential={"issued_at": now // 1000})
    assert told(core, clock)["decision"]
    assert told(core, credential)["decision"]
    later = 2_000_000_001_000
    monkeypatch.setattr(core.trust, "fresh_at", lambda _: True)
    monkeypatch.setattr(core, "clock", lambda: later)
    assert not told(core, clock)["decision"]
    assert not told(core, credential)["decision"]


def body_of(messages: list[dict[str, Any]], limit: int = 10) -> bytes:
    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.sleep(60)
        return messages.pop(0)

    return asyncio.run(limits.Patience(0.01).body(receive, limit))


def part(held: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": held, "more_body": more}


def test_a_body_is_read_whole_and_no_further_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert body_of([part(b"ab", more=True), part(b"c", more=False)]) == b"abc"
    with pytest.raises(Refused) as refused:
        body_of([part(b"123456", more=True), part(b"78901", more=True)])
    assert refused.value.status == 413
    with pytest.raises(BadRequest):
        body_of([part(b"1", more=True), {"type": "http.disconnect"}])
    monkeypatch.setattr(limits, "BODY_S", 0.05)
    with pytest.raises(Refused) as refused:
        body_of([part(b"1", more=True)])
    assert refused.value.status == 408
