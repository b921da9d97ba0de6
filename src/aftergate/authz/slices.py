"""Which policies can matter to a request, by their scopes alone.

Cedar looks at every policy of the set it is given, a few microseconds each. A policy whose scope cannot match neither permits, forbids nor errs,
so leaving it out changes no answer: `tests/authz/test_slices.py` compares the two. Names in requests come from callers; only
names that some policy mentions enter a key, and what is remembered is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import cedarpy

from aftergate.authz.cedar import Policies, Policy
from aftergate.authz.reads import EntityKey, Footprint, scope_entities

REMEMBERED: Final = 4096
TIME_PATHS: Final = (
    ("live", "time"),
    ("live", "hour"),
    ("live", "weekday"),
    ("live", "credential", "age_s"),
    ("live", "auth", "age_s"),
)


class Slice:
    """Some policies of a set, parsed, with what they see. Shared by all requests that need the same ones."""

    __slots__ = ("attributes", "context", "handle", "high_risk", "ids", "literals", "policies", "reads_time")

    def __init__(self, policies: tuple[Policy, ...], handle: cedarpy.PolicySet | None) -> None:
        seen = Footprint()
        for policy in policies:
            seen.merge(policy.footprint)
        self.policies = policies
        self.ids = frozenset(policy.id for policy in policies)
        self.handle = handle  # None: no policy, so the answer is deny
        self.context = seen.context
        self.attributes = frozenset(seen.attributes)
        self.literals = frozenset(seen.literals)
        self.reads_time = any(seen.context.covers(*path) for path in TIME_PATHS)
        # An action is high-risk if a policy that names it says so.
        self.high_risk = any(policy.high_risk and policy.est["action"]["op"] != "All" for policy in policies)


class Slicer:
    """Slices of one policy set over one entity store's action groups. Threads may share it."""

    def __init__(self, policies: Policies, action_ancestors: Mapping[EntityKey, frozenset[EntityKey]]) -> None:
        self._policies = policies
        self._ancestors = action_ancestors
        ests = [policy.est for policy in policies.policies]
        self._actions = {key for est in ests for key in scope_entities(est["action"])} | set(action_ancestors)
        self._types = tuple({est[slot].get("entity_type") for est in ests} - {None} for slot in ("principal", "resource"))
        self._equal = tuple(
            {key for est in ests if est[slot]["op"] == "==" for key in scope_entities(est[slot])} for slot in ("principal", "resource")
        )
        for types, equal in zip(self._types, self._equal, strict=True):
            types.update(key[0] for key in equal)
        self._by_key = lru_cache(maxsize=REMEMBERED)(self._make)
        self._by_index = lru_cache(maxsize=REMEMBERED)(self._build)

    def of(self, principal: EntityKey, action: EntityKey, resource: EntityKey) -> Slice:
        """The policies whose scope may match. Everything that could ever change the answer is among them."""
        (p_types, r_types), (p_equal, r_equal) = self._types, self._equal
        return self._by_key(
            action if action in self._actions else None,
            principal[0] if principal[0] in p_types else None,
            principal if principal in p_equal else None,
            resource[0] if resource[0] in r_types else None,
            resource if resource in r_equal else None,
        )

    def without(self, held: Slice, left_out: Iterable[str]) -> Slice:
        """The same slice with some policies left out: what the answer would be had they not applied."""
        gone = frozenset(left_out)
        return self._by_index(
            tuple(at for at, policy in enumerate(self._policies.policies) if policy.id in held.ids and policy.id not in gone)
        )

    def whole(self) -> Slice:
        """All policies: the slow, plainly right way, for comparison."""
        return self._by_index(tuple(range(len(self._policies.policies))))

    def _make(
        self, action: EntityKey | None, p_type: str | None, principal: EntityKey | None, r_type: str | None, resource: EntityKey | None
    ) -> Slice:
        groups = frozenset() if action is None else self._ancestors.get(action, frozenset()) | {action}
        return self._by_index(
            tuple(
                at
                for at, policy in enumerate(self._policies.policies)
                if _action_matches(policy.est["action"], action, groups)
                and _entity_matches(policy.est["principal"], p_type, principal)
                and _entity_matches(policy.est["resource"], r_type, resource)
            )
        )

    def _build(self, indices: tuple[int, ...]) -> Slice:
        chosen = tuple(self._policies.policies[at] for at in indices)
        return Slice(chosen, self._policies.handle({policy.id: policy for policy in chosen}) if chosen else None)


def _action_matches(scope: dict[str, Any], action: EntityKey | None, groups: frozenset[EntityKey]) -> bool:
    if scope["op"] == "All":
        return True
    named = set(scope_entities(scope))
    if scope["op"] == "==":
        return action is not None and action in named
    return not groups.isdisjoint(named)


def _entity_matches(scope: dict[str, Any], type_: str | None, entity: EntityKey | None) -> bool:
    """None stands for every name that no policy mentions. `in` can hold for any type."""
    if scope["op"] == "==":
        return entity is not None and entity in set(scope_entities(scope))
    return scope["op"] != "is" or bool(scope["entity_type"] == type_)
