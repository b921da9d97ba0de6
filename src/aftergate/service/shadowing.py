"""A candidate set beside the live one, on live traffic: asked after the answer has gone out, on the same request and facts."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Final

from aftergate.authz.decide import decide
from aftergate.authz.shadow import Asked, Change, compared
from aftergate.service.decision_log import Decided
from aftergate.service.policy_holder import PolicyHolder

LISTED: Final = 1000


class Shadowing:
    """Counts since the candidate last changed, and the latest changes. In memory: each server process has its own."""

    def __init__(self, holder: PolicyHolder) -> None:
        self.holder = holder
        self._lock = threading.Lock()
        self.restart()

    def restart(self) -> None:
        """Forget what was counted: another set is compared from now on."""
        with self._lock:
            self._asked = 0
            self._kinds: Counter[str] = Counter()
            self._changes: deque[tuple[int, Change]] = deque(maxlen=LISTED)

    def follow(self, decided: Sequence[Decided]) -> None:
        """Ask the candidate what the live set was asked. Decisions of a live set that has gone since count as well: they were given."""
        candidate = self.holder.snapshot
        for each in decided:
            change = compared(Asked(each.id, each.request, each.facts), each.decision, decide(each.request, candidate, each.facts))
            with self._lock:
                self._asked += 1
                if change is not None:
                    self._kinds[change.kind] += 1
                    self._changes.append((each.at_ms, change))

    def report(self) -> dict[str, Any]:
        """What changed so far, latest first."""
        with self._lock:
            changes, asked, kinds = list(self._changes), self._asked, dict(self._kinds)
        return {
            "version": self.holder.snapshot.policies.version,
            "problems": [str(problem) for problem in self.holder.problems],
            "decisions": asked,
            "changed": sum(kinds.values()),
            "kinds": kinds,
            "changes": [{"at_ms": at_ms, **change_json(change)} for at_ms, change in reversed(changes)],
        }


def change_json(change: Change) -> dict[str, Any]:
    """A changed answer as plain JSON."""
    request = change.request
    return {
        "id": change.id,
        "kind": change.kind,
        "subject": str(request.subject),
        "action": request.action.name,
        "resource": str(request.resource),
        "before": {"decision": change.before.outcome, "reason": change.before.reason, "policies": list(change.before.determining)},
        "after": {
            "decision": change.after.outcome,
            "reason": change.after.reason,
            "policies": list(change.after.determining),
            "errors": [fault.policy for fault in change.after.errors],
        },
    }
