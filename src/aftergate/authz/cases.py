"""Cases beside the policies: `cases/*.yaml`, each a request and the answer it must get.

entities: [...]              # optional, Cedar JSON, beside those of the entity file
cases:
  - name: a small payment goes through
    request: {subject: {type: user, id: ann}, action: {name: pay}, resource: {type: invoice, id: i-1, properties: {amount: 90}}}
    live: {trust: {identity: 80}, findings: [], time: 2026-01-05T12:00:00Z}
    decision: permit         # permit, deny, step_up, approval
    determining: [pay-small] # optional, exactly these
    advice: []               # optional: the policies whose advice is given
    errors: []               # optional: the policies that err
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml
from msgspec import Struct

from aftergate.authz import entities as storing
from aftergate.authz.cedar import Policies
from aftergate.authz.decide import Decision, Snapshot, decide
from aftergate.authz.entities import EntityStore
from aftergate.authz.errors import BadRequest, PolicyError, Problem
from aftergate.authz.facts import Facts, TrustFacts
from aftergate.authz.strict_json import decode
from aftergate.authz.wire import EvaluationRequest, request_of

NOON_MS: Final = 1_767_614_400_000  # Monday 2026-01-05T12:00:00Z, the time of a case that gives none
_OUTCOMES: Final = ("permit", "deny", "step_up", "approval")
_KEYS: Final = frozenset({"name", "request", "live", "decision", "determining", "advice", "errors"})
_LIVE: Final = frozenset({"trust", "findings", "credential", "auth", "task", "approval", "time"})


class Case(Struct, frozen=True):
    """One case. `determining`, `advice` and `errors` are None where the case does not say."""

    file: str
    line: int
    name: str
    request: EvaluationRequest
    facts: Facts
    outcome: str
    determining: frozenset[str] | None = None
    advice: frozenset[str] | None = None
    errors: frozenset[str] | None = None


class CaseFile(Struct, frozen=True):
    name: str
    cases: tuple[Case, ...]
    entities: list[dict[str, Any]]


class CaseResult(Struct, frozen=True):
    """What a case found. `wrong` is empty if it holds."""

    case: Case
    decision: Decision
    wrong: tuple[str, ...]


def load(directory: Path) -> list[CaseFile]:
    """All case files of a policy directory, none if it has no `cases`. Raises: PolicyError with every problem."""
    problems: list[Problem] = []
    found: list[CaseFile] = []
    for path in sorted((directory / "cases").glob("*.y*ml")):
        name = f"cases/{path.name}"
        try:
            found.append(_file(name, path.read_text(encoding="utf-8"), problems))
        except (OSError, UnicodeDecodeError) as error:
            problems.append(Problem(name, 0, f"cannot be read: {error}"))
    if problems:
        raise PolicyError(problems)
    return found


def _file(name: str, text: str, problems: list[Problem]) -> CaseFile:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problems.append(Problem(name, mark.line + 1 if mark else 0, f"not YAML: {getattr(error, 'problem', None) or error}"))
        return CaseFile(name, (), [])
    entities: list[dict[str, Any]] = []
    if isinstance(value, dict):
        entities = value.get("entities") or []
        node = next((held for key, held in node.value if key.value == "cases"), None)
        strange = sorted(str(key) for key in value.keys() - {"entities", "cases"})
        if strange:
            problems.append(Problem(name, 1, f"`{strange[0]}` means nothing here", "a file has `cases` and may have `entities`"))
        value = value.get("cases")
    if not isinstance(value, list) or node is None or not isinstance(entities, list):
        problems.append(Problem(name, 1, "no list of cases"))
        return CaseFile(name, (), [])
    cases = []
    for item, mark in zip(value, node.value, strict=True):
        try:
            cases.append(_case(name, mark.start_mark.line + 1, item))
        except BadRequest as error:
            problems.append(Problem(name, mark.start_mark.line + 1, error.message))
    return CaseFile(name, tuple(cases), entities)


def _case(file: str, line: int, item: Any) -> Case:
    """Raises: BadRequest, saying what is wrong with the case."""
    if not isinstance(item, dict):
        raise BadRequest("a case is a mapping")
    strange = sorted(str(key) for key in item.keys() - _KEYS)
    if strange:
        raise BadRequest(f"`{strange[0]}` means nothing in a case")
    outcome = item.get("decision")
    if outcome not in _OUTCOMES:
        raise BadRequest("`decision` must be one of " + ", ".join(_OUTCOMES))
    if not isinstance(item.get("request"), dict):
        raise BadRequest("`request` must be an AuthZEN evaluation request")
    request = request_of(decode(_json(item["request"])))
    named = {key: frozenset(map(str, item[key])) for key in ("determining", "advice", "errors") if item.get(key) is not None}
    return Case(
        file, line, str(item.get("name") or f"case at line {line}"), request, facts_of(item.get("live") or {}), str(outcome), **named
    )


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise BadRequest(f"the request is not JSON: {error}; quote dates") from None


def facts_of(live: Any) -> Facts:
    """Facts as a case or a file gives them. Trust is full where it is not given. Raises: BadRequest."""
    if not isinstance(live, dict):
        raise BadRequest("`live` must be a mapping")
    strange = sorted(str(key) for key in live.keys() - _LIVE)
    if strange:
        raise BadRequest(f"`live.{strange[0]}` is not one of " + ", ".join(sorted(_LIVE)))
    trust = live.get("trust", {})
    levels: dict[str, int] = {}
    if trust is not None:
        if not isinstance(trust, dict) or trust.keys() - {"identity", "session", "credential"}:
            raise BadRequest("`live.trust` has identity, session and credential; null stands for trust that is not known")
        for level, held in trust.items():
            if type(held) is not int or not 0 <= held <= 100:
                raise BadRequest(f"`live.trust.{level}` must be an integer from 0 to 100")
            levels[level] = held
    members = {}
    for name in ("credential", "auth", "task", "approval"):
        held = live.get(name)
        if held is not None and not isinstance(held, dict):
            raise BadRequest(f"`live.{name}` must be a mapping")
        members[name] = held
    findings = tuple(map(str, live.get("findings") or ()))
    known = None if trust is None else TrustFacts(levels.get("identity", 100), levels.get("session"), levels.get("credential"), findings)
    return Facts(_time(live.get("time")), known, **members)


def _time(value: Any) -> int:
    """Milliseconds from RFC 3339 text or a YAML date and time; UTC where no offset is given."""
    if value is None:
        return NOON_MS
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise BadRequest("`live.time` must be a time such as 2026-01-05T12:00:00Z") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def run(files: list[CaseFile], policies: Policies, entities: EntityStore, entity_bytes: bytes = b"[]") -> Iterator[CaseResult]:
    """Every case against the set. `entity_bytes` is the entity file, to which a case file's own entities are added.

    Raises: PolicyError, if a file's entities do not go with the others.
    """
    for file in files:
        store = entities
        if file.entities:
            store = storing.load(json.dumps([*json.loads(entity_bytes), *file.entities]).encode(), file.name, policies.schema)
        snapshot = Snapshot(policies, store)
        for case in file.cases:
            yield judged(case, decide(case.request, snapshot, case.facts))


def judged(case: Case, decision: Decision) -> CaseResult:
    wrong = []
    if decision.outcome != case.outcome:
        wrong.append(f"expected {case.outcome}, is {decision.outcome} ({decision.reason})")
    held: Mapping[str, tuple[frozenset[str] | None, frozenset[str]]] = {
        "determining": (case.determining, frozenset(decision.determining)),
        "advice": (case.advice, frozenset(each.policy for each in decision.advice)),
        "errors": (case.errors, frozenset(fault.policy for fault in decision.errors)),
    }
    for name, (expected, is_) in held.items():
        if expected is not None and expected != is_:
            wrong.append(f"{name}: expected {_listed(expected)}, is {_listed(is_)}")
    return CaseResult(case, decision, tuple(wrong))


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "none"
