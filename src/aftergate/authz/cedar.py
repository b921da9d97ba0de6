"""A policy directory as one immutable set: parsed once, every policy known by its `@id`, every problem found before any is raised.

DIR/*.cedar                 policies
DIR/schema.cedarschema      optional, Cedar's own form; or schema.cedarschema.json
DIR/cases/*.yaml            cases, read by `aftergate.authz.cases`; no part of the digest
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import cedarpy
from msgspec import Struct

from aftergate.authz.advice import KNOWN, Advice, advice_of
from aftergate.authz.errors import PolicyError, Problem
from aftergate.authz.reads import Footprint, footprint
from aftergate.authz.statements import Statement, statements
from aftergate.authz.values import ESCAPES

SCHEMA: Final = "schema.cedarschema"
SCHEMA_JSON: Final = "schema.cedarschema.json"
MAX_FILE: Final = 4 << 20
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}\Z")
_QUOTED: Final = re.compile(r"`([^`]+)`")

# What the server puts into `context.live`, for schemas to name: `context: { live: Aftergate::Live }`.
LIVE_SCHEMA: Final = """
namespace Aftergate {
  type Trust = { identity: Long, session?: Long, credential?: Long, lowest: Long };
  type Credential = { id?: String, class?: String, age_s?: Long, bound?: String, root_kind?: String };
  type Auth = { acr?: String, amr?: Set<String>, age_s?: Long, methods?: Set<String> };
  type Task = { id: String, purpose: String, on_behalf_of?: String, actions: Set<String>, agent?: String };
  type Approval = { id: String, approvers: Set<String>, quorum: Long, batch: Bool, break_glass: Bool };
  type Live = {
    trust: Trust, findings: Set<String>, credential?: Credential, auth?: Auth, task?: Task, approval?: Approval,
    time: Long, hour: Long, weekday: Long
  };
}
"""


class Policy(Struct, frozen=True):
    """One policy. `est` is Cedar's JSON form of it."""

    id: str
    effect: str  # permit or forbid
    file: str
    line: int
    text: str
    reason: str  # `@reason`, for people; may be empty
    high_risk: bool  # `@risk("high")`, or it carries advice
    advice: Advice | None
    annotations: dict[str, str]
    est: dict[str, Any]
    footprint: Footprint


class Policies(Struct, frozen=True):
    """A whole, valid set. `digest` is over file names and bytes; `version` is the short form of it that people read."""

    policies: tuple[Policy, ...]
    by_id: dict[str, Policy]
    digest: str
    schema: str | None
    warnings: tuple[Problem, ...] = ()

    @property
    def version(self) -> str:
        return self.digest.removeprefix("sha256:")[:12]

    def handle(self, ids: Mapping[str, Policy] | None = None) -> cedarpy.PolicySet:
        """A parsed Cedar set of all policies, or of some, whose ids in Cedar are ours."""
        chosen = self.by_id if ids is None else ids
        held = {name: policy.est for name, policy in chosen.items()}
        return cedarpy.PolicySet.from_json_str(json.dumps({"templates": {}, "templateLinks": [], "staticPolicies": held}))


def read_directory(directory: Path) -> dict[str, bytes]:
    """Names and bytes of the files of a set. Raises: PolicyError, if the directory or a file cannot be read."""
    problems: list[Problem] = []
    found: dict[str, bytes] = {}
    try:
        names = sorted(path for path in directory.iterdir() if path.suffix == ".cedar" or path.name in (SCHEMA, SCHEMA_JSON))
    except OSError as error:
        raise PolicyError(
            [Problem(str(directory), 0, f"cannot be read: {error.strerror or error}", "name a directory with *.cedar files")]
        ) from None
    for path in names:
        try:
            with path.open("rb") as file:
                held = file.read(MAX_FILE + 1)
        except OSError as error:
            problems.append(Problem(path.name, 0, f"cannot be read: {error.strerror or error}"))
            continue
        if len(held) > MAX_FILE:
            problems.append(Problem(path.name, 0, f"longer than {MAX_FILE >> 20} MiB"))
        found[path.name] = held
    if problems:
        raise PolicyError(problems)
    return found


def digest_of(sources: Mapping[str, bytes]) -> str:
    """`sha256:` over each name and content with their lengths, in order of name."""
    made = hashlib.sha256()
    for name in sorted(sources):
        for part in (name.encode(), sources[name]):
            made.update(len(part).to_bytes(8, "big"))
            made.update(part)
    return f"sha256:{made.hexdigest()}"


def load(directory: Path) -> Policies:
    """The set in a directory. Raises: PolicyError with every problem."""
    return parse(read_directory(directory))


def parse(sources: Mapping[str, bytes]) -> Policies:
    """A set from names and bytes. Raises: PolicyError with every problem."""
    problems: list[Problem] = []
    warnings: list[Problem] = []
    policies: list[Policy] = []
    first: dict[str, Policy] = {}
    written: list[tuple[str, Statement]] = []
    for name in sorted(sources):
        if not name.endswith(".cedar"):
            continue
        try:
            text = sources[name].decode("utf-8")
        except UnicodeDecodeError as error:
            problems.append(Problem(name, 1 + sources[name].count(b"\n", 0, error.start), "not UTF-8"))
            continue
        for statement in statements(text):
            policy = _policy(name, statement, problems, warnings)
            if policy is None:
                continue
            if policy.id in first:
                other = first[policy.id]
                problems.append(Problem(name, statement.line_of("@id"), f'@id("{policy.id}") is also at {other.file}:{other.line}'))
                continue
            first[policy.id] = policy
            policies.append(policy)
            written.append((name, statement))
    if not policies and not problems:
        problems.append(Problem(next(iter(sorted(sources)), "*.cedar"), 0, "no policy in it", "a set without a permit denies everything"))
    schema = _schema(sources, problems)
    if schema is not None and not problems:
        problems.extend(_validate(policies, written, schema))
    if problems:
        raise PolicyError(problems)
    return Policies(tuple(policies), first, digest_of(sources), schema, tuple(warnings))


def _policy(name: str, statement: Statement, problems: list[Problem], warnings: list[Problem]) -> Policy | None:
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(statement.text))
    except ValueError as error:
        problems.append(Problem(name, _line(statement, str(error)), str(error)))
        return None
    if parsed["templates"]:
        problems.append(Problem(name, statement.line, "a template: nothing links its slots", "write one policy for each case"))
        return None
    est = next(iter(parsed["staticPolicies"].values()))
    annotations = {key: value or "" for key, value in est.get("annotations", {}).items()}
    id_ = annotations.get("id", "")
    if not id_:
        problems.append(Problem(name, statement.line, "a policy without @id", 'write @id("a-name") before it: answers name policies by it'))
        return None
    found = footprint(est)
    complaints = []
    if not _ID.match(id_):
        complaints.append(f'@id("{id_}") may hold letters, digits and `. _ : / -`, and starts with a letter or digit')
    advice, wrong = advice_of(id_, annotations, est["effect"])
    complaints += wrong
    complaints += [f"`{attribute}` is Cedar's own name and never the name of data" for attribute in sorted(_escapes(found))]
    problems.extend(Problem(name, _line(statement, complaint), complaint) for complaint in complaints)
    warnings.extend(
        Problem(
            name,
            statement.line_of(f"@{key}"),
            f"@{key} means nothing here",
            "known are: " + ", ".join(f"@{known}" for known in sorted(KNOWN)),
        )
        for key in sorted(annotations.keys() - KNOWN)
    )
    high = annotations.get("risk") == "high" or advice is not None
    return Policy(
        id_, est["effect"], name, statement.line, statement.text, annotations.get("reason", ""), high, advice, annotations, est, found
    )


def _escapes(found: Footprint) -> set[str]:
    in_context = {name for path in found.context.paths() for name in path}
    return (in_context | found.attributes) & ESCAPES


def _line(statement: Statement, message: str) -> int:
    """The line of what a message quotes or starts with, if that is in the policy once."""
    for fragment in (*_QUOTED.findall(message), message.partition("(")[0].strip() if message.startswith("@") else ""):
        line = statement.line_of(fragment)
        if line != statement.line:
            return line
    return statement.line


def _schema(sources: Mapping[str, bytes], problems: list[Problem]) -> str | None:
    """The schema text with the types of `context.live` added, in Cedar's own form."""
    if SCHEMA in sources and SCHEMA_JSON in sources:
        problems.append(Problem(SCHEMA_JSON, 0, f"there is also {SCHEMA}", "keep one of the two"))
        return None
    name = SCHEMA if SCHEMA in sources else SCHEMA_JSON
    if name not in sources:
        return None
    try:
        text = sources[name].decode("utf-8")
        if name == SCHEMA_JSON:
            document = json.loads(text)
            if isinstance(document, dict):
                document.setdefault("Aftergate", json.loads(_live_json()))
            return str(cedarpy.Schema.from_json_str(json.dumps(document)))
        if "namespace Aftergate" not in text:
            text += LIVE_SCHEMA
        return str(cedarpy.Schema.from_str(text))
    except UnicodeDecodeError:
        problems.append(Problem(name, 0, "not UTF-8"))
    except ValueError as error:
        message = str(error).removeprefix("error parsing schema: ")
        problems.append(Problem(name, _schema_line(sources[name], message), message))
    return None


def _schema_line(text: bytes, message: str) -> int:
    for fragment in (*_QUOTED.findall(message), message.rpartition(" ")[2]):
        at = -1
        with contextlib.suppress(UnicodeEncodeError):
            at = text.find(fragment.encode())
        if fragment and at >= 0:
            return 1 + text.count(b"\n", 0, at)
    return 0


def _validate(policies: list[Policy], written: list[tuple[str, Statement]], schema: str) -> Iterator[Problem]:
    """Strict validation of each policy against the schema. Every error names the policy."""
    result = cedarpy.validate_policies("\n".join(statement.text for _, statement in written), schema)
    for error in result.errors:
        index = int(error.policy_id.removeprefix("policy")) if error.policy_id.removeprefix("policy").isdigit() else -1
        message = re.sub(r"^for policy `[^`]*`, ", "", error.error)
        if 0 <= index < len(policies):
            name, statement = written[index]
            yield Problem(name, _line(statement, message), f"`{policies[index].id}`: {message}")
        else:
            yield Problem(SCHEMA, 0, message)
    if not result.validation_passed and not result.errors:
        yield Problem(SCHEMA, 0, "the policies do not fit the schema")


def _live_json() -> str:
    """The types of `context.live` in the JSON form of a schema."""

    def record(**members: Any) -> dict[str, Any]:
        attributes = {name.removesuffix("_"): dict(value) for name, value in members.items()}
        return {"type": "Record", "attributes": attributes}

    def maybe(value: dict[str, Any]) -> dict[str, Any]:
        return {**value, "required": False}

    long, text, flag = {"type": "Long"}, {"type": "String"}, {"type": "Boolean"}
    texts = {"type": "Set", "element": text}
    live = record(
        trust=record(identity=long, session=maybe(long), credential=maybe(long), lowest=long),
        findings=texts,
        credential=maybe(record(id=maybe(text), class_=maybe(text), age_s=maybe(long), bound=maybe(text), root_kind=maybe(text))),
        auth=maybe(record(acr=maybe(text), amr=maybe(texts), age_s=maybe(long), methods=maybe(texts))),
        task=maybe(record(id=text, purpose=text, on_behalf_of=maybe(text), actions=texts, agent=maybe(text))),
        approval=maybe(record(id=text, approvers=texts, quorum=long, batch=flag, break_glass=flag)),
        time=long,
        hour=long,
        weekday=long,
    )
    return json.dumps({"entityTypes": {}, "actions": {}, "commonTypes": {"Live": live}})
