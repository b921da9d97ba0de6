"""`aftergate policy`, as it is typed, and the examples of docs/policies.md."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from asking import DATA

from aftergate.authz import cases, cedar, entities
from aftergate.authz.facts import Facts
from aftergate.authz.wire import parse_evaluation
from aftergate.cli.main import app
from aftergate.errors import AftergateError

PAGE = Path(__file__).parents[2] / "docs/policies.md"
SMALL = {
    "subject": {"type": "user", "id": "ann"},
    "action": {"name": "pay"},
    "resource": {"type": "invoice", "id": "i", "properties": {"amount": 90}},
}


def aftergate(*words: str) -> int:
    code: Any = app(["policy", *words], result_action="return_value")
    return int(code)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The set that docs/policies.md shows."""
    blocks = dict(re.findall(r"```(cedar|yaml|cedarschema)\n(.*?)```", PAGE.read_text(), re.DOTALL))
    (tmp_path / "cases").mkdir()
    (tmp_path / "payments.cedar").write_text(blocks["cedar"])
    (tmp_path / "schema.cedarschema").write_text(blocks["cedarschema"])
    (tmp_path / "cases/payments.yaml").write_text(blocks["yaml"])
    (tmp_path / "small.json").write_text(json.dumps(SMALL))
    return tmp_path


def test_the_examples_of_the_documentation_hold(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert aftergate("check", str(folder), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["policies"], told["cases"], told["schema"]) == (True, 4, 5, True)
    assert aftergate("test", str(folder)) == 0
    assert "5 of 5 cases hold" in capsys.readouterr().out
    results = list(cases.run(cases.load(folder), cedar.load(folder), entities.empty(cedar.load(folder).schema)))
    assert all(not result.wrong for result in results)


def test_check_says_every_problem_with_its_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (folder / "payments.cedar").read_text()
    (folder / "payments.cedar").write_text(
        text.replace("resource.amount > 1000 ", "resource.amuont > 1000 ").replace('@id("clerks-pay")\n', "")
    )
    (folder / "cases/payments.yaml").write_text("- {decision: maybe}")
    (folder / "entities.json").write_text("{}")
    assert aftergate("check", str(folder), "--entities", str(folder / "entities.json")) == 3
    out = capsys.readouterr().out
    assert "payments.cedar:3: a policy without @id" in out
    assert "entities.json" in out
    assert "cases/payments.yaml:1" in out
    assert "would be refused" in out
    assert aftergate("check", str(folder), "--json") == 3
    assert len(json.loads(capsys.readouterr().out)["problems"]) >= 2
    with pytest.raises(AftergateError, match="a policy without @id"):
        aftergate("test", str(folder))
    with pytest.raises(AftergateError, match="cannot be read"):
        aftergate("test", str(folder / "none"))


def test_a_case_that_does_not_hold_is_shown_and_counts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "cases/payments.yaml"
    path.write_text(path.read_text().replace("decision: step_up", "decision: permit"))
    assert aftergate("test", str(folder)) == 3
    out = capsys.readouterr().out
    assert re.search(r"cases/payments\.yaml:\d+: a large one asks for a login", out)
    assert "expected permit, is step_up" in out
    assert "4 of 5 cases hold" in out
    assert aftergate("test", str(folder), "--json") == 3
    assert json.loads(capsys.readouterr().out)["wrong"] == 1
    path.unlink()
    with pytest.raises(AftergateError, match="no cases"):
        aftergate("test", str(folder))


def test_explain_shows_what_could_matter_and_what_holds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = [{"uid": {"type": "user", "id": "ann"}, "attrs": {}, "parents": [{"type": "group", "id": "clerks"}]}]
    (folder / "entities.json").write_text(json.dumps(store))
    words = ("explain", str(folder / "small.json"), str(folder), "--entities", str(folder / "entities.json"))
    assert aftergate(*words) == 0
    out = capsys.readouterr().out
    assert "permit (permitted)" in out
    assert "clerks-pay" in out
    assert aftergate(*words, "--json", "--live", '{"trust": {"identity": 10}, "findings": ["x"]}') == 0
    told = json.loads(capsys.readouterr().out)
    assert told["decision"] is False
    assert told["context"]["policies"] == ["no-stolen-sessions"]
    assert {each["id"]: each["holds"] for each in told["policies"]} == {
        "clerks-pay": "yes",
        "no-stolen-sessions": "yes",
        "large-needs-fresh-login": "no",
        "huge-needs-approval": "no",
    }


def test_explain_reads_standard_input_and_names_faults(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without = {**SMALL, "resource": {"type": "invoice", "id": "i"}}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps({"request": without}).encode())))
    assert aftergate("explain", "--", "-", str(folder)) == 0
    out = capsys.readouterr().out
    assert "policy_error" in out
    assert "errs: entity" in out
    (folder / "bad.json").write_text("[1]")
    with pytest.raises(AftergateError, match="evaluation request"):
        aftergate("explain", str(folder / "bad.json"), str(folder))
    with pytest.raises(AftergateError, match="cannot be read"):
        aftergate("explain", str(folder / "none.json"), str(folder))
    with pytest.raises(AftergateError, match=r"live\.trust"):
        aftergate("explain", str(folder / "small.json"), str(folder), "--live", '{"trust": 3}')


def test_shadow_over_a_file_lists_what_changes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    todo = DATA / "todo"
    candidate = tmp_path / "candidate"
    candidate.mkdir()
    text = (todo / "policies/todo.cedar").read_text()
    (candidate / "todo.cedar").write_text(
        text.replace('role::"viewer", action == Action::"can_read_user"', 'role::"editor", action == Action::"can_read_user"')
    )
    requests = tmp_path / "requests.jsonl"
    asked = [case["request"] for case in json.loads((todo / "decisions.json").read_bytes())["evaluation"]]
    lines = [json.dumps({"request": each, "live": {"trust": {"identity": 50}}} if at % 2 else each) for at, each in enumerate(asked)]
    requests.write_text("\n".join(lines) + "\n\n")
    words = ("shadow", str(candidate), str(todo / "policies"), "--entities", str(todo / "entities.json"), "--requests", str(requests))
    assert aftergate(*words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["decisions"], told["changed"], told["kinds"]) == (40, 4, {"closed": 4})
    assert {each["before"]["decision"] for each in told["changes"]} == {"permit"}
    assert aftergate(*words, "--fail-on-change") == 3
    assert "4 of 40 answers would change" in capsys.readouterr().out
    requests.write_text('{"subject": 1}')
    with pytest.raises(AftergateError, match=r"requests\.jsonl:1"):
        aftergate(*words)
    with pytest.raises(AftergateError, match="no recorded decisions"):
        aftergate("shadow", str(candidate), str(todo / "policies"), "--data", str(tmp_path / "nothing"))


def test_the_facts_of_a_record_come_back_as_they_were() -> None:
    import msgspec

    from aftergate.authz.facts import TrustFacts

    facts = Facts(5, TrustFacts(1, 2, None, ("x",)), credential={"class": "a"}, auth={"age_s": 3}, task={"id": "t"}, approval={"id": "a"})
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(facts)), Facts) == facts
    assert parse_evaluation(json.dumps(SMALL).encode()) == parse_evaluation(
        msgspec.json.encode(parse_evaluation(json.dumps(SMALL).encode()))
    )
