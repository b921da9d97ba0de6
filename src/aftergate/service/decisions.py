"""Deciding for real: facts gathered, approvals used up, every answer recorded, shadows followed."""

from __future__ import annotations

import hmac
import secrets
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
from msgspec import Struct

from aftergate.audit.records import Actor, PolicyRef, Record
from aftergate.authz.answer import context_of, wire
from aftergate.authz.decide import Decision, Snapshot, decide, reads_time
from aftergate.authz.facts import Facts, TrustFacts, auth_facts, credential_facts
from aftergate.authz.wire import EvaluationRequest
from aftergate.events.clock import to_iso
from aftergate.service.approvals.offering import overruled
from aftergate.service.decision_log import Decided, DecisionLog, record_of
from aftergate.service.identities import Identities
from aftergate.service.policy_holder import Change, PolicyHolder, Sources
from aftergate.service.proofs import LONGEST_MS, depends_on_proof, step_up_age_ms, take
from aftergate.service.shadowing import Shadowing
from aftergate.service.trust import UNTOUCHED, Standing

if TYPE_CHECKING:
    from aftergate.service.core import Core

log = structlog.get_logger("aftergate.decisions")
SERVER: Final = Actor("server", "decisions")
ID: Final = b'"evaluation_id":"'  # the first member of an answer's context
_ENCODE = msgspec.json.Encoder().encode


class Asker(Struct, frozen=True, gc=False):
    """Who asks, and what shows that it may use an approval. `batch` joins the items of one Access Evaluations request."""

    id: str
    actor: Actor
    request_id: str = ""
    method: str = "POST"
    urls: tuple[str, ...] = ()
    proof: str = ""  # DPoP
    x5t: str = ""  # thumbprint of the client's certificate, from a trusted proxy
    batch: str = ""


class Answer(Struct, frozen=True, gc=False):
    """What the caller is told. It may be sent once `durable` has ended well (None: at once)."""

    id: str
    decision: Decision
    context: dict[str, Any]
    durable: Future[None] | None = None

    @property
    def allowed(self) -> bool:
        return self.decision.allowed


class Known:
    """A request that may come again: what is the same each time, and the last answer that rested on nothing but policies, entities and trust."""

    __slots__ = (
        "agent", "credential", "credentials", "found", "last", "named", "plain", "raw", "request", "sessions", "steady", "untouched",
    )  # fmt: skip

    def __init__(self, request: EvaluationRequest, raw: bytes) -> None:
        context = request.context
        session, credential, agent = context.get("session_id"), context.get("credential_id"), context.get("agent")
        self.request = request
        self.raw = raw
        self.plain = is_plain(request)
        self.sessions = (session,) if isinstance(session, str) else ()
        self.credentials = (credential,) if isinstance(credential, str) else ()
        self.agent = agent if isinstance(agent, str) else None
        self.credential = credential_facts(context.get("credential"), credential, 0)
        self.steady = self.credential is None or "age_s" not in self.credential  # else it is older each time
        self.untouched = trust_facts(UNTOUCHED, self)
        self.last: Last | None = None
        self.found = self.named = -1  # versions of findings and names with which nothing was found on anybody here


class Last(Struct, frozen=True, gc=False):
    """An answer that holds as long as snapshot and trust are these. `head` and `tail` are its JSON before and after the id; with no `tail` it has none."""

    mark: object  # the snapshot's
    trust: TrustFacts
    decision: Decision
    head: bytes
    tail: bytes


def is_plain(request: EvaluationRequest) -> bool:
    """Whether nothing but memory is needed to answer: no approval to look up, no task, no proof that may be used once."""
    context = request.context
    return "approval" not in context and "auth" not in context and "task_id" not in context


def trust_facts(held: Standing, known: Known) -> TrustFacts:
    return TrustFacts(
        held.identity, held.session if known.sessions else None, held.credential if known.credentials else None, held.findings
    )


class Decider:
    """Decisions of one server process. Reading is lock-free; the log has a thread of its own."""

    def __init__(self, core: Core) -> None:
        """Raises: PolicyError, for a set that cannot be used."""
        self._core = core
        settings = core.settings
        self.live = PolicyHolder(Sources.of(settings.policies, settings.entities))
        self.shadow: Shadowing | None = None
        if settings.shadow_policies:
            sources = Sources.of(settings.policies, settings.entities)
            self.shadow = Shadowing(
                PolicyHolder(Sources(policies=Sources.of(settings.shadow_policies, "").policies, entities=sources.entities), "shadow")
            )
        self.identities = Identities(core)
        self.identities.refresh()
        self._boot = secrets.token_hex(8)
        self._numbers = count(1)
        self._short = settings.answers == "short"
        self._reload_ms = settings.reload_s * 1000
        self._looked_ms = 0
        # Told when the server runs: which set it answers with.
        self._untold: deque[tuple[Change, Actor]] = deque(
            (Change(holder.kind, holder.snapshot, after=holder.state), SERVER) for holder in self.holders
        )
        self._telling = threading.Lock()
        self.counts: Counter[str] = Counter()  # answers by outcome, for the metrics
        self.page_key = hmac.digest(core.pepper, b"aftergate page tokens", "sha256")
        self.log = DecisionLog(core, settings.decision_flush_ms, f"decisions-{self._boot}", self._written)

    @property
    def snapshot(self) -> Snapshot:
        return self.live.snapshot

    def facts(self, request: EvaluationRequest, now_ms: int, *, approval: dict[str, Any] | None = None) -> Facts:
        """What is known about whom a request is about. Reads memory only, unless the request names a task."""
        known = self._facts(Known(request, b""), now_ms)
        context = request.context
        task = context.get("task_id")
        return Facts(
            now_ms,
            known.trust,
            credential=known.credential,
            auth=auth_facts(context.get("auth"), now_ms),
            task=self._core.tasks.live(task, request, now_ms) if isinstance(task, str) and self._core.tasks is not None else None,
            approval=approval,
        )

    def _facts(self, known: Known, now_ms: int) -> Facts:
        """Those of a plain request."""
        trust: TrustFacts | None = None
        view = self._core.trust
        request = known.request
        if view.fresh_at(now_ms):
            # Taken before either is looked into: what is then found of a newer state is found again, never kept as the older one's.
            found, named = view.version, self.identities.version
            if known.found == found and known.named == named:
                trust = known.untouched
            else:
                names = self.identities.of(request.subject.id)
                if known.agent is not None:  # who acts for the subject (COAZ): what either did counts
                    names += self.identities.of(known.agent)
                held = view.of(names, known.sessions, known.credentials, now_ms)
                if held is UNTOUCHED:
                    trust, known.found, known.named = known.untouched, found, named
                else:
                    trust, known.found = trust_facts(held, known), -1
        if known.steady:
            return Facts(now_ms, trust, known.credential)
        context = request.context
        return Facts(now_ms, trust, credential_facts(context.get("credential"), context.get("credential_id"), now_ms))

    def told(self, known: Known, asker: Asker) -> tuple[bytes, Future[None] | None]:
        """The body of the answer to a plain request, and what to wait for before it may be sent (`Answer.durable`). Never blocks.

        Raises: StoreUnavailable: then there is no answer.
        """
        now_ms = self._core.clock()
        snapshot = self.live.snapshot
        request = known.request
        facts = self._facts(known, now_ms)
        last = known.last
        if last is None or last.mark is not snapshot.mark or (last.trust is not facts.trust and last.trust != facts.trust):
            decision = decide(request, snapshot, facts)
            last = known.last = self._last(request, snapshot, facts.trust, decision)
        else:
            decision = last.decision
        made = self._id()
        durable = self._noted(Decided(made, now_ms, asker.actor, request, facts, decision, known.raw, asker.request_id))
        if last is None:
            return _ENCODE(wire(decision.allowed, self._context(made, request, asker, decision, now_ms))), durable
        return (last.head + made.encode() + last.tail if last.tail else last.head), durable

    def _last(self, request: EvaluationRequest, snapshot: Snapshot, trust: TrustFacts | None, decision: Decision) -> Last | None:
        """The answer to keep. None: what decides may be other the next time, or the answer offers to ask for an approval of this moment."""
        if trust is None or decision.outcome == "approval" or reads_time(request, snapshot):
            return None
        if self._short and decision.outcome in {"permit", "deny"}:
            return Last(snapshot.mark, trust, decision, _ENCODE(wire(decision.allowed, {})), b"")
        head, found, tail = _ENCODE(wire(decision.allowed, {"evaluation_id": "", **context_of(decision)})).partition(ID)
        return Last(snapshot.mark, trust, decision, head + found, tail)

    def answer_plain(self, request: EvaluationRequest, asker: Asker, raw: bytes) -> Answer:
        """The answer to a plain request, noted or on its way into the log. Never blocks.

        Raises: StoreUnavailable: then there is no answer.
        """
        now_ms = self._core.clock()
        facts = self.facts(request, now_ms)
        decision = decide(request, self.live.snapshot, facts)
        return self._recorded(request, asker, raw, facts, decision, now_ms)

    def evaluate(self, request: EvaluationRequest, asker: Asker, raw: bytes | None = None) -> Answer:
        """The answer to any request, its record durable where it must be. Blocks; not for the event loop.

        Raises: StoreUnavailable: then there is no answer.
        """
        raw = _ENCODE(request) if raw is None else raw
        if is_plain(request):
            return settled(self.answer_plain(request, asker, raw))
        now_ms = self._core.clock()
        snapshot = self.live.snapshot
        presentation = self._presented(request, asker, now_ms)
        holds = presentation is not None and presentation.holds
        facts = self.facts(request, now_ms, approval=presentation.facts if presentation is not None and holds else None)
        decision = decide(request, snapshot, facts)
        if holds and overruled(decision):
            # Policies judged values of the store, and people approved those of the request: their yes is to something else.
            holds = False
            facts = msgspec.structs.replace(facts, approval=None)
            decision = decide(request, snapshot, facts)
        relies = depends_on_proof(request, snapshot, facts, decision)
        if not decision.allowed or not (holds or relies):
            told = self._recorded(request, asker, raw, facts, decision, now_ms)
            return settled(_with_reason(told, presentation))
        return self._consuming(request, asker, raw, facts, decision, now_ms, presentation if holds else None, relies=relies)

    def _presented(self, request: EvaluationRequest, asker: Asker, now_ms: int) -> Any:
        if "approval" not in request.context:
            return None
        from aftergate.authz.transactions.binding import Presented

        return self._core.approvals.present(request, Presented(asker.id, asker.method, asker.urls, asker.proof, asker.x5t), now_ms)

    def _consuming(
        self,
        request: EvaluationRequest,
        asker: Asker,
        raw: bytes,
        facts: Facts,
        decision: Decision,
        now_ms: int,
        presentation: Any,
        *,
        relies: bool,
    ) -> Answer:
        """A permit that uses something up: the approval, the proof of a login, or both, in the transaction that records it. If either is
        not to be had, nothing is used up and the policies are asked again without it.
        """
        made = self._id()
        decided = Decided(made, now_ms, asker.actor, request, facts, decision, raw, asker.request_id)
        refusal: tuple[str, str] | None = None
        extra: dict[str, Any] = {}
        try:
            with self._core.db.write() as connection:
                records: list[Record] = []
                more: dict[str, Any] = {}
                if presentation is not None:
                    used = self._core.approvals.consume(connection, presentation, now_ms, evaluation_id=made, actor=asker.actor)
                    records, extra = used.records, used.context
                    more = {"approval": used.approval, "transaction": used.transaction}
                    refusal = None if used.taken else (used.reason or "approval_unverifiable", used.detail)
                if refusal is None:
                    keep_ms = step_up_age_ms(request, self.live.snapshot) or LONGEST_MS
                    if relies and not take(self._core.db, connection, request, asker.batch, keep_ms, now_ms):
                        raise _ProofUsed
                    records = [record_of(decided, **more), *records]
                if records:
                    self._core.audit.append(connection, records)
        except _ProofUsed:
            lacking = msgspec.structs.replace(facts, auth=None)
            refusal = ("", "this login was already used for another transaction: log in again")
        else:
            if refusal is None:
                self.counts[decision.outcome] += 1
                self._written([decided])
                return Answer(made, decision, self._context(made, request, asker, decision, now_ms, **extra))
            lacking = msgspec.structs.replace(facts, approval=None)
        again = decide(request, self.live.snapshot, lacking)
        if again.allowed:
            # It holds without what is gone. This caller relied on that all the same, and asks anew without presenting it.
            again = msgspec.structs.replace(again, allowed=False, outcome="deny", reason="forbidden", missing=(refusal[1],))
        told = settled(self._recorded(request, asker, raw, lacking, again, now_ms))
        return Answer(told.id, told.decision, {**told.context, "reason": refusal[0] or again.reason, "reason_admin": {"403": refusal[1]}})

    def _recorded(self, request: EvaluationRequest, asker: Asker, raw: bytes, facts: Facts, decision: Decision, now_ms: int) -> Answer:
        made = self._id()
        durable = self._noted(Decided(made, now_ms, asker.actor, request, facts, decision, raw, asker.request_id))
        return Answer(made, decision, self._context(made, request, asker, decision, now_ms), durable)

    def _noted(self, decided: Decided) -> Future[None] | None:
        """On its way into the log. Raises: StoreUnavailable: then it must not be answered."""
        decision = decided.decision
        self.counts[decision.outcome] += 1
        if decision.high_risk or decision.errors:
            return self.log.kept(decided)
        self.log.note(decided)
        return None

    def _context(self, id_: str, request: EvaluationRequest, asker: Asker, decision: Decision, now_ms: int, **extra: Any) -> dict[str, Any]:
        if self._short and not extra and decision.outcome in {"permit", "deny"}:
            return {}
        made = {"evaluation_id": id_, **context_of(decision), **extra}
        if decision.outcome == "approval":
            offer = self._core.approvals.offer(request, decision, now_ms, evaluation_id=id_, caller=asker.id)
            if offer is not None:
                made["evaluated_at"] = to_iso(now_ms)
                made["access_request"] = offer
        return made

    def _id(self) -> str:
        return f"{self._boot}-{next(self._numbers)}"

    def _written(self, decided: Sequence[Decided]) -> None:
        if self.shadow is not None:
            self.shadow.follow(decided)

    def tick(self, now_ms: int) -> None:
        """Look for changed files when it is time. Raises: StoreUnavailable, if a change cannot be recorded."""
        self.identities.refresh()
        self._tell()
        if not self._reload_ms or now_ms - self._looked_ms < self._reload_ms:
            return
        self._looked_ms = now_ms
        self._take_in(lambda holder: holder.look())

    def reload(self, by: Actor = SERVER) -> tuple[PolicyHolder, ...]:
        """Read the files now. Raises: StoreUnavailable, if a change cannot be recorded."""
        self._take_in(lambda holder: holder.reload(), by)
        return self.holders

    @property
    def holders(self) -> tuple[PolicyHolder, ...]:
        return (self.live,) if self.shadow is None else (self.live, self.shadow.holder)

    def _take_in(self, look: Callable[[PolicyHolder], Change | None], by: Actor = SERVER) -> None:
        for holder in self.holders:
            change = look(holder)
            if change is None:
                continue
            if self.shadow is not None and change.snapshot is not None:
                self.shadow.restart()
            self._untold.append((change, by))
        self._tell()

    def _tell(self) -> None:
        """Record what changed; what cannot be recorded now is at the next turn. Raises: StoreUnavailable."""
        with self._telling:
            while self._untold:
                with self._core.db.write() as connection:
                    self._core.audit.append(connection, [_record_of(*self._untold[0])])
                self._untold.popleft()

    def close(self) -> None:
        """Write what waits. Raises: StoreUnavailable."""
        self.log.close()


def _record_of(change: Change, by: Actor) -> Record:
    detail: dict[str, Any] = {"set": change.kind, "before": change.before, "after": change.after}
    if change.snapshot is None:
        detail = {"set": change.kind, "stays": change.before, "problems": [str(problem)[:300] for problem in change.problems[:50]]}
        return Record(type="policy.refused", actor=by, detail=detail)
    policies = change.snapshot.policies
    return Record(type="policy.changed", actor=by, policy=PolicyRef(version=policies.version, digest=policies.digest), detail=detail)


class _ProofUsed(Exception):
    """The login was used for something else before."""


def settled(answer: Answer) -> Answer:
    """Wait until the answer may be sent. Raises: StoreUnavailable: then it must not be."""
    if answer.durable is not None:
        answer.durable.result()
    return answer


def _with_reason(answer: Answer, presentation: Any) -> Answer:
    """A denial after an approval was presented says why the approval did not help (ARAP, Re-evaluation)."""
    if presentation is None or answer.allowed:
        return answer
    reason = presentation.reason or "policy_denied"
    detail = presentation.detail or answer.context.get("reason_admin", {}).get("403", "the policies deny it")
    return Answer(answer.id, answer.decision, {**answer.context, "reason": reason, "reason_admin": {"403": detail}}, answer.durable)
