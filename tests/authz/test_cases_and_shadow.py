"""Cases beside the policies, the starter set, and the comparison of two sets."""

from __future__ import annotations

from pathlib import Path

import pytest

import aftergate.authz
from aftergate.authz import cases, cedar, entities
from aftergate.authz.decide import Snapshot
from aftergate.authz.errors import PolicyError
from aftergate.authz.facts import Facts, TrustFacts
from aftergate.authz.shadow import Asked, shadow
from aftergate.authz.wire import ActionRef, Entity, EvaluationRequest

STARTER = Path(aftergate.authz.__path__[0]) / "starter"
POLICY = b'@id("pay") permit (principal, action == Action::"pay", resource) when { resource.amount < 100 && context.live.hour < 20 };'
REQUEST = "{subject: {type: user, id: a}, action: {name: pay}, resource: {type: bill, id: b, properties: {amount: 9}}}"


def written(folder: Path, text: str) -> Path:
    (folder / "cases").mkdir()
    (folder / "p.cedar").write_bytes(POLICY)
    (folder / "cases/pay.yaml").write_text(text)
    return folder


def verdicts(folder: Path) -> list[tuple[str, ...]]:
    return [result.wrong for result in cases.run(cases.load(folder), cedar.load(folder), entities.empty())]


def test_every_case_of_the_starter_set_holds() -> None:
    data = (STARTER / "entities.json").read_bytes()
    results = list(cases.run(cases.load(STARTER / "policies"), cedar.load(STARTER / "policies"), entities.load(data), data))
    assert [(result.case.name, result.wrong) for result in results if result.wrong] == []
    assert len(results) >= 20


def test_the_starter_cases_notice_each_comparison_turned_round() -> None:
    """A mutation test: a policy that is loosened or tightened breaks a case."""
    sources = cedar.read_directory(STARTER / "policies")
    data = (STARTER / "entities.json").read_bytes()
    files = cases.load(STARTER / "policies")
    turned = 0
    for name, text in sources.items():
        for old, new in (
            (b"> 1000 ", b"> 9000 "),
            (b"> 10000 ", b"> 90000 "),
            (b"< 20 ", b"< 5 "),
            (b"< 50 ", b"< 30 "),
            (b"<= 300", b"<= 400"),
            (b"< 60 ", b"< 50 "),
            (b">= 22", b"> 23"),
        ):
            if old in text and old != b"<= 300":
                mutant = cedar.parse({**sources, name: text.replace(old, new)})
                assert any(result.wrong for result in cases.run(files, mutant, entities.load(data), data)), (name, old)
                turned += 1
        if b"<= 300" in text:
            mutant = cedar.parse({**sources, name: text.replace(b"<= 300", b"<= 400")})
            assert any(result.wrong for result in cases.run(files, mutant, entities.load(data), data))
    assert turned >= 6


def test_a_case_says_what_it_expected_and_what_is(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        f"""
entities: [{{uid: {{type: user, id: a}}, attrs: {{}}, parents: []}}]
cases:
  - {{name: holds, request: {REQUEST}, decision: permit, determining: [pay]}}
  - {{name: at night, request: {REQUEST}, live: {{time: 2026-01-05T21:00:00Z}}, decision: permit}}
  - {{name: named, request: {REQUEST}, decision: permit, determining: [other], advice: [x], errors: [y]}}
  - {{name: no trust, request: {REQUEST}, live: {{trust: null}}, decision: deny}}
""",
    )
    found = verdicts(folder)
    assert found[0] == ()
    assert found[1] == ("expected permit, is deny (no_permit)",)
    assert len(found[2]) == 3
    assert found[3] == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {name: x", "not YAML"),
        ("cases: 3", "no list of cases"),
        ("case: []", "`case` means nothing"),
        ("- x", "a case is a mapping"),
        (f"- {{request: {REQUEST}, decision: allow}}", "`decision` must be one of"),
        (f"- {{request: {REQUEST}, decision: permit, becuase: x}}", "`becuase` means nothing"),
        (f"- {{request: {REQUEST}, decision: permit, live: {{trust: {{identity: 101}}}}}}", "integer from 0 to 100"),
        (f"- {{request: {REQUEST}, decision: permit, live: {{findngs: []}}}}", "`live.findngs`"),
        (f"- {{request: {REQUEST}, decision: permit, live: {{time: soon}}}}", "`live.time`"),
        ("- {decision: permit}", "`request` must be"),
        ("- {decision: permit, request: {subject: {type: user}}}", "subject.id is missing"),
        ("- {decision: permit, request: {subject: 2026-01-01}}", "not JSON"),
    ],
)
def test_a_case_that_cannot_be_read_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(PolicyError) as refused:
        cases.load(written(tmp_path, "\n" + text))
    problem = str(refused.value.problems[0])
    assert said in problem
    assert problem.startswith("cases/pay.yaml:")


def test_a_shadow_lists_every_changed_answer_and_nothing_else() -> None:
    live = Snapshot(cedar.parse({"p.cedar": POLICY}), entities.empty())
    candidate = Snapshot(
        cedar.parse(
            {
                "p.cedar": POLICY.replace(b"100", b"200"),
                "q.cedar": b'@id("late") @advice("approval") @approvers("x") forbid (principal, action, resource) when { resource.amount > 20 && resource.amount < 50 };'
                b'@id("also") permit (principal, action, resource) when { resource.amount == 5 };'
                b'@id("errs") forbid (principal, action, resource) when { resource.amount == 300 && resource.missing };',
            }
        ),
        entities.empty(),
    )
    asked = [
        Asked(
            f"r{amount}",
            EvaluationRequest(Entity("user", "a"), ActionRef("pay"), Entity("bill", "b", {"amount": amount})),
            Facts(1_767_614_400_000, TrustFacts(90)),
        )
        for amount in (1, 5, 30, 150, 250, 300)
    ]
    changes = {change.id: (change.kind, change.before.outcome, change.after.outcome) for change in shadow(live, candidate, asked)}
    assert changes == {
        "r5": ("policies", "permit", "permit"),
        "r30": ("closed", "permit", "approval"),
        "r150": ("opened", "deny", "permit"),
        "r300": ("outcome", "deny", "deny"),
    }
    assert list(shadow(live, live, asked)) == []
