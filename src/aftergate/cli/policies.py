"""What `aftergate policy` does: reads sets, runs cases, explains, compares; prints tables or JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aftergate.authz import cases, cedar
from aftergate.authz import entities as storing
from aftergate.authz.answer import context_of
from aftergate.authz.decide import Snapshot, ask, decide, run
from aftergate.authz.entities import ACTION
from aftergate.authz.errors import BadRequest, PolicyError, Problem
from aftergate.authz.facts import Facts
from aftergate.authz.shadow import Asked, Change
from aftergate.authz.shadow import shadow as shadowed
from aftergate.authz.strict_json import decode
from aftergate.authz.values import Unmappable
from aftergate.authz.wire import EvaluationRequest, request_of
from aftergate.cli.options import Directory
from aftergate.errors import ConfigError
from aftergate.service.policy_holder import Sources
from aftergate.service.shadowing import change_json

COLOURS = {"permit": "green", "deny": "red", "step_up": "yellow", "approval": "yellow"}
_WRITE = msgspec.json.Encoder(order="deterministic").encode


def _print(value: Any) -> None:
    sys.stdout.write(_WRITE(value).decode() + "\n")


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def sources(directory: Path | None, entities: Path | None) -> Sources:
    return Sources.of(str(directory) if directory else "", str(entities) if entities else "")


def read(where: Sources) -> tuple[Snapshot, bytes]:
    """A set with its entities, and the entity file's bytes. Raises: PolicyError with every problem of both."""
    problems: list[Problem] = []
    policies: cedar.Policies | None = None
    store: storing.EntityStore | None = None
    data = b"[]"
    try:
        policies = cedar.load(where.policies)
    except PolicyError as error:
        problems.extend(error.problems)
    try:
        if where.entities is not None:
            data = where.entities.read_bytes()
        store = storing.load(data, where.entities.name if where.entities else "entities.json", policies.schema if policies else None)
    except PolicyError as error:
        problems.extend(error.problems)
    except OSError as error:
        problems.append(Problem(str(where.entities), 0, f"cannot be read: {error.strerror or error}"))
    if problems or policies is None or store is None:
        raise PolicyError(problems)
    return Snapshot(policies, store), data


def run_check(directory: Path | None, entities: Path | None, *, as_json: bool) -> bool:
    """Whether something is wrong."""
    where = sources(directory, entities)
    problems: list[Problem] = []
    warnings: tuple[Problem, ...] = ()
    snapshot: Snapshot | None = None
    try:
        snapshot, _ = read(where)
        warnings = snapshot.policies.warnings
    except PolicyError as error:
        problems.extend(error.problems)
    try:
        found = sum(len(file.cases) for file in cases.load(where.policies))
    except PolicyError as error:
        problems.extend(error.problems)
        found = 0
    if as_json:
        made: dict[str, Any] = {"ok": not problems, "problems": [msgspec.to_builtins(each) for each in problems]}
        if snapshot is not None:
            made |= {"version": snapshot.policies.version, "digest": snapshot.policies.digest, "policies": len(snapshot.policies.policies)}
            made |= {"entities": len(snapshot.entities), "schema": snapshot.policies.schema is not None}
        _print({**made, "cases": found, "warnings": [msgspec.to_builtins(each) for each in warnings]})
        return bool(problems)
    console = _console()
    for problem in problems:
        console.print(Text(str(problem), style="red"))
    for warning in warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))
    if snapshot is not None and not problems:
        held = snapshot.policies
        schema = "checked against the schema" if held.schema else "no schema, so types are not checked"
        console.print(f"{len(held.policies)} policies, {len(snapshot.entities)} entities, {found} cases: version {held.version}, {schema}")
    elif problems:
        console.print(
            f"{len(problems)} problem{'s' if len(problems) > 1 else ''}: this set would be refused, and the one before it would stay"
        )
    return bool(problems)


def _all_said(error: PolicyError) -> ConfigError:
    """One error that says every problem, for commands that need a set that works."""
    return ConfigError("the policies cannot be used:\n  " + "\n  ".join(str(problem) for problem in error.problems))


def run_test(directory: Path | None, entities: Path | None, *, as_json: bool) -> bool:
    """Whether a case does not hold. Raises: ConfigError."""
    where = sources(directory, entities)
    try:
        snapshot, data = read(where)
        results = list(cases.run(cases.load(where.policies), snapshot.policies, snapshot.entities, data))
    except PolicyError as error:
        raise _all_said(error) from None
    if not results:
        raise ConfigError("no cases", where=str(where.policies / "cases"), hint="write some: docs/policies.md shows how")
    wrong = [result for result in results if result.wrong]
    if as_json:
        listed = [
            {
                "file": r.case.file,
                "line": r.case.line,
                "name": r.case.name,
                "ok": not r.wrong,
                "decision": r.decision.outcome,
                "wrong": list(r.wrong),
            }
            for r in results
        ]
        _print({"cases": len(results), "wrong": len(wrong), "results": listed})
        return bool(wrong)
    console = _console()
    for result in wrong:
        console.print(Text(f"{result.case.file}:{result.case.line}: {result.case.name}", style="red"))
        for line in result.wrong:
            console.print(f"    {line}")
        for line in (*(f"{fault.policy}: {fault.message}" for fault in result.decision.errors), *result.decision.missing):
            console.print(Text(f"    {line}", style="dim"))
    untouched = _untouched(snapshot, results)
    if untouched:
        console.print(Text("no case is determined by: " + ", ".join(untouched), style="dim"))
    console.print(f"{len(results) - len(wrong)} of {len(results)} cases hold")
    return bool(wrong)


def _untouched(snapshot: Snapshot, results: list[cases.CaseResult]) -> list[str]:
    named = {name for result in results for name in result.decision.determining}
    return sorted(policy.id for policy in snapshot.policies.policies if policy.id not in named)


def run_explain(request: str, directory: Path | None, entities: Path | None, live: str, *, as_json: bool) -> None:
    """Raises: ConfigError, BadRequest."""
    try:
        snapshot, _ = read(sources(directory, entities))
    except PolicyError as error:
        raise _all_said(error) from None
    try:
        text = sys.stdin.buffer.read() if request == "-" else Path(request).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", where=request) from None
    asked = _request(text, request)
    facts = cases.facts_of(decode(live.encode()) if live else {})
    decision = decide(asked, snapshot, facts)
    looked = _looked_at(asked, snapshot, facts)
    if as_json:
        listed = [{"id": id_, "effect": effect, "place": place, "holds": holds} for id_, effect, place, holds in looked]
        _print({"decision": decision.allowed, "outcome": decision.outcome, "context": context_of(decision), "policies": listed})
        return
    console = _console()
    console.print(Text(f"{asked.subject} {asked.action.name} {asked.resource}", style="bold"))
    console.print(Text.assemble("answer: ", (decision.outcome, COLOURS[decision.outcome]), f" ({decision.reason})"))
    table = Table("policy", "effect", "at", "holds", box=None, pad_edge=False)
    for id_, effect, place, holds in looked:
        table.add_row(Text(id_, style="bold" if id_ in decision.determining else ""), effect, place, holds)
    console.print(table if looked else "no policy names this action, subject type and resource type")
    left = len(snapshot.policies.policies) - len(looked)
    if left:
        console.print(Text(f"{left} more cannot matter: their scope does not match", style="dim"))
    for line in decision.missing:
        console.print(f"to change it: {line}")
    for name in decision.conflicts:
        console.print(f"not used: {name} of the request, because the server holds another value")


def _request(text: bytes, where: str) -> EvaluationRequest:
    value = decode(text)
    if not isinstance(value, dict):
        raise BadRequest("must be an AuthZEN evaluation request", where=where)
    held = value.get("request", value)
    return request_of(held if isinstance(held, dict) else value)


def _looked_at(asked: EvaluationRequest, snapshot: Snapshot, facts: Facts) -> list[tuple[str, str, str, str]]:
    """Each policy whose scope may match, asked by itself: id, effect, place, and whether it holds."""
    keys = (asked.subject.type, asked.subject.id), (ACTION, asked.action.name), (asked.resource.type, asked.resource.id)
    held = snapshot.slicer.of(*keys)
    found = []
    for policy in held.policies:
        alone = snapshot.slicer.without(held, held.ids - {policy.id})
        try:
            _, determining, errors = run(alone, ask(asked, alone, snapshot, facts))
        except Unmappable as error:
            holds = str(error)
        else:
            holds = f"errs: {errors[0].message}" if errors else "yes" if determining else "no"
        found.append((policy.id, policy.effect, f"{policy.file}:{policy.line}", holds))
    return found


def run_shadow(
    candidate: Path,
    directory: Path | None,
    entities: Path | None,
    requests: Path | None,
    place: Directory,
    days: float,
    *,
    as_json: bool,
) -> int:
    """How many answers change. Raises: ConfigError, StoreUnavailable."""
    where = sources(directory, entities)
    try:
        live, _ = read(where)
        other, _ = read(Sources(candidate, where.entities))
    except PolicyError as error:
        raise _all_said(error) from None
    count = [0]
    asked = _from_file(requests, count) if requests is not None else _from_records(place, days, count)
    changes = list(shadowed(live, other, asked))
    if as_json:
        kinds: dict[str, int] = {}
        for change in changes:
            kinds[change.kind] = kinds.get(change.kind, 0) + 1
        made = {
            "live": live.policies.version,
            "candidate": other.policies.version,
            "decisions": count[0],
            "changed": len(changes),
            "kinds": kinds,
        }
        _print({**made, "changes": [change_json(change) for change in changes]})
    else:
        _print_changes(changes, count[0], live, other)
    return len(changes)


def _print_changes(changes: list[Change], count: int, live: Snapshot, other: Snapshot) -> None:
    console = _console()
    if changes:
        table = Table("change", "request", "was", "would be", "because of", box=None, pad_edge=False)
        for change in changes:
            request = change.request
            before, after = set(change.before.determining), set(change.after.determining)
            erring = [f"{fault.policy} errs" for fault in change.after.errors]
            why = ", ".join([*erring, *(f"+{name}" for name in sorted(after - before)), *(f"-{name}" for name in sorted(before - after))])
            table.add_row(
                Text(change.kind, style="red" if change.kind == "opened" else "yellow"),
                f"{request.subject} {request.action.name} {request.resource}",
                change.before.outcome,
                change.after.outcome,
                why,
            )
        console.print(table)
    console.print(f"{len(changes)} of {count} answers would change from version {live.policies.version} to {other.policies.version}")


def _from_file(path: Path, count: list[int]) -> Iterator[Asked]:
    """One request a line, alone or as `{"request": ..., "live": ...}` with facts as a case writes them."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = decode(line)
            facts = cases.facts_of(value.get("live") or {} if isinstance(value, dict) and "request" in value else {})
            asked = Asked(f"{path.name}:{number}", _request(line, str(path)), facts)
        except BadRequest as error:
            raise ConfigError(error.message, where=f"{path}:{number}") from None
        count[0] += 1
        yield asked


def _from_records(place: Directory, days: float, count: list[int]) -> Iterator[Asked]:
    from aftergate.stores.database import Database
    from aftergate.stores.decisions import recorded

    data = place.data or Path("aftergate-data")
    file = data / "aftergate.db"
    if not place.database and not file.exists():
        raise ConfigError(
            "no recorded decisions here", where=str(data), hint="name the server's data directory with --data, or give --requests"
        )
    store = Database.open(place.database or f"sqlite:///{file.resolve()}", migrate=False)
    try:
        with store.read() as connection:
            for id_, request, facts in recorded(connection, since_ms=int((time.time() - days * 86_400) * 1000)):  # noqa: TID251  what is asked is how long ago
                count[0] += 1
                yield Asked(id_, request_of(request), msgspec.convert(facts, Facts))
    finally:
        store.close()
