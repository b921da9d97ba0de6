"""Approvals: a denied caller asks, people or policies say yes to exactly one transaction, and the yes is used once.

    offer      a denial tells its caller that it may ask                    offering.py
    submit     the caller asks                                              submitting.py
    look       it follows its request; `cancel` ends it                     following.py
    ask        a person is given a challenge over what they are shown
    approve    an assertion over it is a yes; `deny` is a no                deciding.py
    present    an evaluation brings the approval                            using.py
    consume    its one use, in the transaction that records the permit      using.py

Each is one database transaction, with its audit records. `present` and `consume` are the decider's to call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from aftergate.audit.records import Actor
from aftergate.authz.decide import Decision
from aftergate.authz.transactions.binding import Presented
from aftergate.authz.wire import EvaluationRequest
from aftergate.service.approvals import deciding, following, glass, offering, submitting, using, viewing
from aftergate.service.approvals.deciding import Acting, Undecided
from aftergate.service.approvals.following import Fault
from aftergate.service.approvals.submitting import Submission
from aftergate.service.approvals.using import Consumption, Presentation
from aftergate.service.callbacks import Callbacks
from aftergate.stores import approvals as store
from aftergate.stores.approvals import Approval

if TYPE_CHECKING:
    from aftergate.service.core import Core

__all__ = ["Acting", "Approvals", "Consumption", "Fault", "Presentation", "Presented", "Submission", "Undecided"]


class Approvals:
    """The use cases, over one core."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.keys = offering.Keys(core)
        self.callbacks = Callbacks(core, self.keys)
        self._sweep_ms = 0

    @property
    def rp_id(self) -> str:
        """The relying party whose authenticators approve."""
        made: str = self._core.people.rp_id
        return made

    @property
    def origins(self) -> frozenset[str]:
        """Pages whose assertions count."""
        made: frozenset[str] = self._core.people.origins
        return made

    def offer(
        self, request: EvaluationRequest, decision: Decision, now_ms: int, *, evaluation_id: str, caller: str, behind: Sequence[str] = ()
    ) -> dict[str, Any] | None:
        """`context.access_request` for a denial that an approval would lift; None if none would. `caller` is the caller's id."""
        return offering.offer(self._core, self.keys, request, decision, now_ms, evaluation_id=evaluation_id, caller=caller, behind=behind)

    def present(self, request: EvaluationRequest, presented: Presented, now_ms: int) -> Presentation | None:
        """What the approval in a request's context is worth; None if it brings none."""
        return using.present(self._core, request, presented, now_ms)

    def consume(self, connection: Connection, presentation: Presentation, now_ms: int, *, evaluation_id: str, actor: Actor) -> Consumption:
        """Use it up, in the transaction that records the permit. If it is not taken, the answer must be a denial."""
        return using.consume(self._core, connection, presentation, now_ms, evaluation_id=evaluation_id, actor=actor)

    def submit(self, given: Submission, now_ms: int) -> Approval:
        return submitting.submit(self._core, self.keys, given, now_ms)

    def look(self, id_: str, caller: str, now_ms: int) -> Approval:
        return following.look(self._core, id_, caller, now_ms)

    def cancel(self, id_: str, caller: str, actor: Actor, reason: str, now_ms: int) -> Approval:
        return following.cancel(self._core, id_, caller, actor, reason, now_ms)

    def task(self, approval: Approval) -> dict[str, Any]:
        """A request as the profile shows it."""
        return following.task_wire(self._core, approval)

    def inbox(self, acting: Acting, now_ms: int, *, everything: bool = False) -> list[dict[str, Any]]:
        return viewing.inbox(self._core, acting, now_ms, everything=everything)

    def view(self, acting: Acting, id_: str, now_ms: int) -> dict[str, Any]:
        return viewing.view(self._core, acting, id_, now_ms)

    def notices(self, acting: Acting, now_ms: int) -> list[dict[str, Any]]:
        return viewing.notices(self._core, acting, now_ms)

    def ask(self, acting: Acting, ids: Sequence[str], items: Sequence[int] | None, now_ms: int) -> deciding.Asked:
        return deciding.ask(self._core, acting, ids, items, now_ms)

    def approve(self, acting: Acting, ids: Sequence[str] | None, challenge_id: str, assertion: Any, now_ms: int) -> list[Approval]:
        return deciding.approve(self._core, acting, ids, challenge_id, assertion, now_ms)

    def deny(self, acting: Acting, id_: str, reason: str, now_ms: int) -> Approval:
        return deciding.deny(self._core, acting, id_, reason, now_ms)

    def take_back(self, acting: Acting, id_: str, reason: str, now_ms: int) -> Approval:
        return deciding.take_back(self._core, acting, id_, reason, now_ms)

    def reviews(self, acting: Acting, *, open_only: bool) -> list[dict[str, Any]]:
        return glass.listed(self._core, self._core.people.person(acting.person), open_only=open_only)

    def close_review(self, acting: Acting, review_id: str, note: str, now_ms: int) -> dict[str, Any]:
        return glass.close(self._core, review_id, self._core.people.person(acting.person), note, now_ms)

    def tick(self, now_ms: int) -> None:
        """Expire what nobody decided, send what waits, and once an hour drop what is spent. Raises: StoreUnavailable."""
        with self._core.db.read() as connection:
            numbers = store.overdue(connection, now_ms)
            late = [found for number in numbers if (found := store.by_number(connection, number)) is not None]
        for approval in late:
            following.expire(self._core, approval, now_ms)
        self.callbacks.start(now_ms)
        if now_ms >= self._sweep_ms:
            with self._core.db.write() as connection:
                store.forget(connection, now_ms - self._core.settings.keep_sessions_days * 86_400_000)
            self._sweep_ms = now_ms + 3_600_000

    def forget(self, connection: Connection, before_ms: int) -> int:
        """Retention: drop closed requests made before then, never one whose review is open."""
        return store.forget(connection, before_ms)
