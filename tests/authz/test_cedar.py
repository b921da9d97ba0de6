"""Policy sets: what is refused, where, and that all of it is said at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aftergate.authz import cedar
from aftergate.authz.advice import Advice, advice_of, challenge
from aftergate.authz.errors import PolicyError
from aftergate.authz.statements import statements

SCHEMA = b"""entity user;
entity invoice { amount: Long };
action pay appliesTo { principal: user, resource: invoice, context: { live: Aftergate::Live } };
"""
GOOD = (
    b'@id("small") permit (principal, action == Action::"pay", resource) when { resource.amount < 10 && context.live.trust.lowest > 50 };'
)


def problems(**files: bytes) -> list[str]:
    with pytest.raises(PolicyError) as refused:
        cedar.parse({name.replace("__", "."): text for name, text in files.items()})
    return [str(problem) for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"permit (principal, action, resource);", "x.cedar:1: a policy without @id"),
        (b'\n\n@id("a") permit (principal,\n action resource);', "x.cedar:4: unexpected token `resource`"),
        (b'@id("a") permit (principal, action, resource) when {\n\n foo(1) };', "x.cedar:3: `foo` is not a valid function"),
        (
            b'// one\n@id("a") permit (principal, action, resource); // two\n@id("b") permit (principal, action, resource) when { "open };',
            "x.cedar:3: invalid token",
        ),
        (
            b'@id("a") permit (principal, action, resource);\n@id("a") forbid (principal, action, resource);',
            'x.cedar:2: @id("a") is also at x.cedar:1',
        ),
        (b'@id("a b") permit (principal, action, resource);', "may hold letters"),
        (b'@id("a") permit (principal == ?principal, action, resource);', "a template"),
        (
            b'@id("a") permit (principal, action, resource) when {\n context["__entity"] == 1 };',
            "x.cedar:2: `__entity` is Cedar's own name",
        ),
        (b'@id("a") permit (principal, action, resource) when { resource["__extn"] == 1 };', "Cedar's own name"),
        (b'@id("a")\n@advice("aproval")\nforbid (principal, action, resource);', '@advice("aproval") must be'),
        (b'@id("a") @advice("approval") @approvers("x") permit (principal, action, resource);', "@advice belongs on a forbid"),
        (b'@id("a") @advice("approval") forbid (principal, action, resource);', "needs @approvers"),
        (
            b'@id("a") @advice("approval") @approvers("x") @quorum("0") forbid (principal, action, resource);',
            '@quorum("0") must be a whole number',
        ),
        (b'@id("a") @advice("approval") @approvers("x") @ttl("-1") forbid (principal, action, resource);', '@ttl("-1")'),
        (b'@id("a") @advice("approval") @approvers("x") @device_bound("yes") forbid (principal, action, resource);', '"true" or "false"'),
        (b'@id("a") @advice("approval") @approvers("x") @max_age("3") forbid (principal, action, resource);', "@max_age does not go with"),
        (b'@id("a") @advice("step-up") forbid (principal, action, resource);', "needs @acr_values"),
        (b'@id("a") @advice("step-up") @acr_values("a\\"b") forbid (principal, action, resource);', "cannot be an acr"),
        (b'@id("a") @quorum("2") forbid (principal, action, resource);', "@quorum has no meaning without @advice"),
        (b'@id("a") @risk("higher") permit (principal, action, resource);', '@risk("higher")'),
        (b"// nothing\n", "no policy in it"),
        (b"\xff", "x.cedar:1: not UTF-8"),
    ],
)
def test_a_broken_policy_is_refused_with_its_place(text: bytes, said: str) -> None:
    found = problems(x__cedar=text)
    assert any(said in line for line in found), found


def test_every_problem_of_every_file_is_said() -> None:
    found = problems(x__cedar=b'permit (principal, action, resource);\n@id("b") permit (p);', y__cedar=b'@id("c") forbid;', z__cedar=GOOD)
    assert [line.split(": ")[0] for line in found] == ["x.cedar:1", "x.cedar:2", "y.cedar:1"]


def test_the_schema_is_applied_strictly_and_names_the_policy() -> None:
    cedar.parse({"x.cedar": GOOD, "schema.cedarschema": SCHEMA})
    wrong = GOOD.replace(b"amount", b"amuont").replace(b"trust.lowest", b"\n trust.session")
    found = problems(x__cedar=wrong, schema__cedarschema=SCHEMA)
    assert any("`small`" in line and "`amuont`" in line for line in found)
    assert any("optional attribute" in line for line in found)
    assert problems(x__cedar=GOOD, schema__cedarschema=b"entity user;\nentity user;") == ["schema.cedarschema:1: `user` is declared twice"]
    assert "two" in problems(x__cedar=GOOD, schema__cedarschema=SCHEMA, schema__cedarschema__json=b"{}")[0]


def test_a_json_schema_knows_the_same_live_facts() -> None:
    live = {"type": "Record", "attributes": {"live": {"type": "Aftergate::Live"}}}
    document = {
        "": {
            "entityTypes": {"user": {}, "invoice": {"shape": {"type": "Record", "attributes": {"amount": {"type": "Long"}}}}},
            "actions": {"pay": {"appliesTo": {"principalTypes": ["user"], "resourceTypes": ["invoice"], "context": live}}},
        }
    }
    every = b"""@id("all") permit (principal, action, resource) when { context.live.trust.identity + context.live.trust.lowest > 3
      && context.live.trust has session && context.live.findings.contains("x") && context.live has credential && context.live.credential has age_s
      && context.live.credential.age_s < 3 && context.live has auth && context.live.auth has amr && context.live.auth.amr.contains("hwk")
      && context.live has task && context.live.task.actions.contains("pay") && context.live has approval && context.live.approval.quorum > 1
      && !context.live.approval.break_glass && context.live.hour < 20 && context.live.weekday < 6 && context.live.time > 0
      && context.live.credential has class && context.live.credential.class == "api_key" };"""
    for name, schema in (("schema.cedarschema.json", json.dumps(document).encode()), ("schema.cedarschema", SCHEMA)):
        assert len(cedar.parse({"x.cedar": GOOD + every, name: schema}).policies) == 2


def test_the_digest_is_of_names_and_bytes() -> None:
    first = cedar.parse({"x.cedar": GOOD})
    assert first.digest == cedar.parse({"x.cedar": GOOD}).digest
    assert len({first.digest, cedar.parse({"y.cedar": GOOD}).digest, cedar.parse({"x.cedar": GOOD + b"\n"}).digest}) == 3
    assert first.version == first.digest[7:19]


def test_an_annotation_without_meaning_is_a_warning() -> None:
    made = cedar.parse({"x.cedar": b'@id("a")\n@approver("x") permit (principal, action, resource);'})
    assert [str(each).split(" (")[0] for each in made.warnings] == ["x.cedar:2: @approver means nothing here"]


def test_a_directory_is_read_with_its_schema_and_without_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_bytes(GOOD)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "schema.cedarschema").write_bytes(SCHEMA)
    assert sorted(cedar.read_directory(tmp_path)) == ["a.cedar", "schema.cedarschema"]
    with pytest.raises(PolicyError, match="cannot be read"):
        cedar.load(tmp_path / "none")
    (tmp_path / "b.cedar").mkdir()
    with pytest.raises(PolicyError, match="cannot be read"):
        cedar.load(tmp_path)


def test_statements_keep_strings_and_comments_together() -> None:
    text = '// a; b "\n@id("x;//") permit (principal, action, resource) when { "a\\";" == ";" }; // c\n\nforbid;\n// end'
    found = statements(text)
    assert [(each.line, each.text.split("(")[0]) for each in found] == [(2, "@id"), (4, "forbid;")]


def test_advice_is_read_from_annotations() -> None:
    made, wrong = advice_of(
        "p",
        {"advice": "approval", "approvers": "finance, treasury", "quorum": "2", "ttl": "60", "device_bound": "true", "reason": "why"},
        "forbid",
    )
    assert made == Advice("approval", "p", "why", approvers=("finance", "treasury"), quorum=2, ttl_s=60, device_bound=True)
    assert not wrong


def test_a_challenge_is_what_rfc_9470_writes() -> None:
    one = Advice("step-up", "a", acr_values=("urn:x:2", "urn:x:3"), max_age_s=300)
    two = Advice("step-up", "b", acr_values=("urn:x:3",), max_age_s=60)
    assert challenge((one,)) == (
        'Bearer error="insufficient_user_authentication", error_description="A different authentication level is required", '
        'acr_values="urn:x:2 urn:x:3", max_age="300"'
    )
    assert challenge((one, two)).endswith('acr_values="urn:x:3", max_age="60"')
    assert challenge((Advice("approval", "c", approvers=("x",)),)) == ""
