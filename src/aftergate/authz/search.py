"""Subject, resource and action search: every candidate is asked as an evaluation would ask it, so every result evaluates to true.

Candidates are what is known: entities of the file, entities and actions that policies and the schema name. A page costs at most `budget`
evaluations; what is left then goes on from the page's token.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from msgspec import Struct

from aftergate.authz import decide as deciding
from aftergate.authz.decide import Question, Snapshot
from aftergate.authz.entities import ACTION
from aftergate.authz.facts import Facts
from aftergate.authz.reads import EntityKey, scope_entities
from aftergate.authz.slices import Slice
from aftergate.authz.values import Unmappable
from aftergate.authz.wire import ActionRef, Entity, EvaluationRequest, SearchRequest

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
BUDGET: Final = 5000  # evaluations a page, about a quarter of a second
_BATCH: Final = 64

FactsOf = Callable[[EvaluationRequest], Facts]


class Found(Struct, frozen=True):
    """One page. `after` is the last candidate looked at if there may be more, else None."""

    results: tuple[str, ...]  # ids, or action names
    after: str | None
    evaluated: int
    high_risk: bool = False


def known_ids(snapshot: Snapshot, type_: str) -> list[str]:
    """Ids of a type, sorted: stored entities and those that policies name."""
    stored = snapshot.entities.ids.get(type_, [])
    literals = {key[1] for policy in snapshot.policies.policies for key in policy.footprint.literals if key[0] == type_}
    new = literals.difference(stored) if literals else literals
    return sorted([*stored, *new]) if new else stored


def known_actions(snapshot: Snapshot) -> list[str]:
    """Names of actions, sorted: those policies, schema and entities name, but not the groups that only hold others."""
    named = {key for policy in snapshot.policies.policies for key in policy.footprint.literals if key[0] == ACTION}
    named.update(key for policy in snapshot.policies.policies for key in scope_entities(policy.est["action"]) if key[0] == ACTION)
    named.update(snapshot.entities.action_ancestors)
    return sorted(key[1] for key in named - snapshot.entities.action_groups)


def candidates(search: SearchRequest, snapshot: Snapshot) -> list[str]:
    """All that may be an answer. None if an entity that the search gives is unknown and comes without properties: nothing is known of it."""
    given = {"subject": [search.resource], "resource": [search.subject], "action": [search.subject, search.resource]}[search.kind]
    for entity in given:
        key = (entity.type, entity.id)
        if key not in snapshot.entities.index and not entity.properties and entity.id not in known_ids(snapshot, entity.type):
            return []
    if search.kind == "action":
        return known_actions(snapshot)
    return known_ids(snapshot, search.subject.type if search.kind == "subject" else search.resource.type)


def request_for(search: SearchRequest, candidate: str) -> EvaluationRequest:
    """The evaluation that a result stands for. Properties of what is searched are not carried over: they are no one candidate's."""
    subject, action, resource = search.subject, search.action, search.resource
    if search.kind == "subject":
        subject = Entity(subject.type, candidate)
    elif search.kind == "resource":
        resource = Entity(resource.type, candidate)
    return EvaluationRequest(subject, ActionRef(candidate) if action is None else action, resource, search.context)


def find(search: SearchRequest, snapshot: Snapshot, facts_of: FactsOf, after: str | None, *, budget: int = BUDGET) -> Found:
    """One page of candidates that evaluate to true, in order of id, after the one given."""
    limit = min(MAX_LIMIT, DEFAULT_LIMIT if search.page.limit is None else search.page.limit)
    names = candidates(search, snapshot)
    start = 0 if after is None else bisect_right(names, after)
    if limit == 0:
        # Nothing is asked for; that there may be more is said by a token that goes on from here.
        return Found((), after or "", 0) if start < len(names) else Found((), None, 0)
    results: list[str] = []
    evaluated = 0
    last = after
    high = False
    ahead = iter(names[start : start + budget])
    while batch := list(islice(ahead, min(_BATCH, max(1, limit - len(results))))):
        for name, allowed, risky in _ask(search, batch, snapshot, facts_of):
            evaluated += 1
            last = name
            high = high or risky
            if allowed:
                results.append(name)
        if len(results) >= limit:
            break
    more = start + evaluated < len(names)
    return Found(tuple(results), last if more else None, evaluated, high)


def _ask(search: SearchRequest, batch: list[str], snapshot: Snapshot, facts_of: FactsOf) -> Iterator[tuple[str, bool, bool]]:
    """Each candidate: whether it is a result, and whether it touches a high-risk action. Candidates with one slice are asked at once."""
    groups: dict[tuple[frozenset[str], int], tuple[Slice, list[tuple[str, Question]]]] = {}
    answers: dict[str, tuple[bool, bool]] = {}
    for name in batch:
        request = request_for(search, name)
        facts = facts_of(request)
        held = snapshot.slicer.of(*_keys(request))
        answers[name] = (False, held.high_risk)
        if facts.trust is None:
            continue
        try:
            question = deciding.ask(request, held, snapshot, facts)
        except Unmappable:
            continue
        groups.setdefault((held.ids, id(question.entities)), (held, []))[1].append((name, question))
    for held, asked in groups.values():
        try:
            found = deciding.run_many(held, [question for _, question in asked])
        except Unmappable:
            continue
        for (name, _), (allowed, _, errors) in zip(asked, found, strict=True):
            answers[name] = (allowed and not errors, held.high_risk)
    for name in batch:
        yield name, *answers[name]


def _keys(request: EvaluationRequest) -> tuple[EntityKey, EntityKey, EntityKey]:
    return (request.subject.type, request.subject.id), (ACTION, request.action.name), (request.resource.type, request.resource.id)
