"""Decisions on their way into the audit log.

What matters is written before its answer is sent: callers wait for `kept`. The rest waits a moment and goes in together, one `decision.batch`
record for up to 256. When writing fails, or too much waits, nothing more is accepted, so that nothing is answered that cannot be recorded.
"""

from __future__ import annotations

import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
from msgspec import Struct

from aftergate.audit.records import Actor, Emitter, Party, PolicyRef, Record, Risk
from aftergate.authz.decide import Decision
from aftergate.authz.facts import Facts
from aftergate.authz.wire import EvaluationRequest
from aftergate.events.redact import redact, secret_key
from aftergate.stores.errors import StoreUnavailable

if TYPE_CHECKING:
    from aftergate.service.core import Core

log = structlog.get_logger("aftergate.decisions")
BATCH: Final = 256
MOST_WAITING: Final = 20_000
MANY: Final = 1024  # that waiting, the writer does not wait for its time: a transaction costs as much as a hundred decisions in it
CROWD: Final = 4096
MOST_BYTES: Final = 64 << 20
MOST_BYTES_A_RECORD: Final = 1 << 20
MOST_IN_A_LEAF: Final = 48 << 10
LONGEST_REMEMBERED: Final = 2048  # bytes of a request whose masked form is kept for the next time
MOST_NAMED: Final = 64  # policies and the like that a leaf names
WAIT_S: Final = 20.0
_ENCODE = msgspec.json.Encoder().encode
_NAME: Final = re.compile(rb'"([A-Za-z][A-Za-z_. -]{1,40})"\s*:')


class Decided(Struct, frozen=True, gc=False):
    """One decision, with what it rested on. `raw` is the request's JSON."""

    id: str
    at_ms: int
    caller: Actor
    request: EvaluationRequest
    facts: Facts
    decision: Decision
    raw: bytes
    request_id: str = ""


class DecisionLog:
    """One thread writes everything that waits, in one transaction at a time."""

    def __init__(self, core: Core, flush_ms: int, emitter: str, on_written: Callable[[list[Decided]], None]) -> None:
        self._core = core
        self._flush_s = flush_ms / 1000
        self._emitter = emitter
        self._on_written = on_written
        self._batches = 0
        self._ordinary: deque[Decided] = deque()
        self._urgent: deque[tuple[Decided, Future[None]]] = deque()
        self._bytes = 0
        self._failed: StoreUnavailable | None = None
        self._wake = threading.Event()
        self._done = threading.Event()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def note(self, decided: Decided) -> None:
        """Take an ordinary decision. Raises: StoreUnavailable: then it must not be answered."""
        self._open()
        if len(self._ordinary) >= MOST_WAITING or self._bytes + len(decided.raw) > MOST_BYTES:
            raise StoreUnavailable("more decisions wait to be recorded than this server keeps in memory")
        self._bytes += len(decided.raw)
        self._ordinary.append(decided)
        if len(self._ordinary) % MANY == 0:
            self._wake.set()

    def kept(self, decided: Decided) -> Future[None]:
        """Take a decision that must be durable before it is answered: the future ends when it is.

        Raises: StoreUnavailable, now or from the future: then it must not be answered.
        """
        self._open()
        if len(self._urgent) >= MOST_WAITING:
            raise StoreUnavailable("more decisions wait to be recorded than this server keeps in memory")
        waiting: Future[None] = Future()
        self._urgent.append((decided, waiting))
        self._wake.set()
        return waiting

    def _open(self) -> None:
        if self._failed is not None:
            raise StoreUnavailable("decisions cannot be recorded at present", where=self._failed.where, hint=self._failed.hint)
        if self._done.is_set():
            raise StoreUnavailable("the server is stopping")
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="decision-log", daemon=True)
                    self._thread.start()

    @property
    def crowded(self) -> bool:
        """Whether so much waits that whoever can should let the writer come to its turn."""
        return self._failed is None and len(self._ordinary) > CROWD

    @property
    def waiting(self) -> int:
        return len(self._ordinary) + len(self._urgent)

    @property
    def problem(self) -> str:
        """Why decisions cannot be recorded now; empty if they can."""
        return "" if self._failed is None else self._failed.message

    def close(self) -> None:
        """Write what waits, then take no more. Raises: StoreUnavailable, if it cannot be written."""
        self._done.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(WAIT_S)
        if self.waiting:
            self._write()

    def flush(self) -> None:
        """Write what waits now. Raises: StoreUnavailable."""
        self._write()

    def _run(self) -> None:
        while not self._done.is_set():
            self._wake.wait(self._flush_s)
            self._wake.clear()
            if not self.waiting and self._failed is None:
                continue
            try:
                self._write()
            except StoreUnavailable as error:
                if self._failed is None:
                    log.error(  # noqa: TRY400  no trace: the database is away, not the code wrong
                        "decisions cannot be recorded, so nothing is answered until they can", problem=error.message, waiting=self.waiting
                    )
                self._failed = error
                self._done.wait(0.25)
            except Exception:
                # A defect. Nobody may be answered on the strength of a record that is not there.
                log.exception("recording failed")
                self._failed = StoreUnavailable("decisions cannot be recorded: an internal error; see the log")
                self._done.wait(0.25)
            else:
                if self._failed is not None:
                    log.info("decisions are recorded again")
                self._failed = None

    def _write(self) -> None:
        """Everything that waits, in one transaction. What was not committed waits on, save for what somebody waits for: that is told.

        Raises: StoreUnavailable.
        """
        with self._writing:
            urgent = [self._urgent.popleft() for _ in range(len(self._urgent))]
            # A caller that goes away cancels its wait, not the decision: it was made, and is recorded.
            urgent = [(decided, waiting if waiting.set_running_or_notify_cancel() else Future()) for decided, waiting in urgent]
            ordinary = list(self._ordinary)
            records = [self._batch(chunk, number) for number, chunk in enumerate(_chunks(ordinary), self._batches)]
            if not records and not urgent and self._failed is not None:
                # Nothing waits because nothing is accepted: find out whether a record can be written again.
                records = [Record(type="heartbeat", detail={"after": "decisions could not be recorded"})]
            try:
                self._commit([*(record_of(decided) for decided, _ in urgent), *records])
            except StoreUnavailable as error:
                _refuse(urgent, error)
                raise
            except Exception:
                # One of them cannot be written, whatever the reason: it must not take the others with it.
                log.exception("a decision cannot be recorded")
                urgent = [pair for pair in urgent if self._alone(*pair)]
                self._commit(records)
            self._batches += sum(record.type == "decision.batch" for record in records)
            for decided in ordinary:
                self._ordinary.popleft()
                self._bytes -= len(decided.raw)
            for _, waiting in urgent:
                waiting.set_result(None)
        self._on_written([*ordinary, *(decided for decided, _ in urgent)])

    def _alone(self, decided: Decided, waiting: Future[None]) -> bool:
        """Write one decision by itself; if that fails, it is not answered."""
        try:
            self._commit([record_of(decided)])
        except Exception as error:  # noqa: BLE001  whatever it was, this one is refused and the others go on
            refusal = (
                error
                if isinstance(error, StoreUnavailable)
                else StoreUnavailable(f"the decision cannot be recorded: {type(error).__name__}")
            )
            _refuse([(decided, waiting)], refusal)
            return False
        return True

    def _commit(self, records: list[Record]) -> None:
        if records:
            with self._core.db.write() as connection:
                self._core.audit.append(connection, records)

    def _batch(self, decided: list[Decided], number: int) -> Record:
        """One record for many: in the leaf who asked how often and what answered; requests and facts beside it, where they can be erased."""
        groups: dict[tuple[str, str, str, tuple[str, ...], str], list[int]] = {}
        for at, each in enumerate(decided):
            made = each.decision
            groups.setdefault((each.caller.type, each.caller.id, made.outcome, made.determining, made.policy_digest), []).append(at)
        digests = sorted({key[4] for key in groups})
        detail: dict[str, Any] = {
            "first": decided[0].id,
            "last": decided[-1].id,
            "count": len(decided),
            "digests": digests,
            "groups": [
                {
                    "actor": {"type": kind, "id": id_},
                    "decision": outcome,
                    "policies": list(policies),
                    "digest": digests.index(digest),
                    "at": at,
                }
                for (kind, id_, outcome, policies, digest), at in groups.items()
            ],
        }
        if len(_ENCODE(detail)) > MOST_IN_A_LEAF:
            # A leaf is small. Which policies answered which decision is then only in the committed details.
            counts = Counter(each.decision.outcome for each in decided)
            detail = {**detail, "groups": [], "digests": digests[:100], "counts": dict(sorted(counts.items()))}
        held = (b"[" + b",".join(line_of(each) for each in decided) + b"]").decode()
        return Record(type="decision.batch", emitter=Emitter(self._emitter, number), detail=detail, request={"decisions": held})


def _refuse(urgent: list[tuple[Decided, Future[None]]], error: StoreUnavailable) -> None:
    for _, waiting in urgent:
        waiting.set_exception(error)


def _chunks(decided: list[Decided]) -> list[list[Decided]]:
    """At most 256 together, and not more than a megabyte of requests."""
    made: list[list[Decided]] = []
    size = 0
    for each in decided:
        if not made or len(made[-1]) >= BATCH or size + len(each.raw) > MOST_BYTES_A_RECORD:
            made.append([])
            size = 0
        made[-1].append(each)
        size += len(each.raw)
    return made


def line_of(decided: Decided) -> bytes:
    """A decision with its request and facts, as `aftergate policy shadow` reads it back."""
    return _ENCODE(details_of(decided))


def without_secrets(raw: bytes) -> bytes:
    """A request's JSON with what stands under a secret's name masked: what is kept must not hold it, whoever sent it along."""
    return _without_secrets(raw) if len(raw) > LONGEST_REMEMBERED else _remembered(raw)


def _without_secrets(raw: bytes) -> bytes:
    names = set(_NAME.findall(raw))
    if not any(secret_key(name.decode()) for name in names):
        return raw
    return _ENCODE(redact(msgspec.json.decode(raw)))


_remembered = lru_cache(maxsize=4096)(_without_secrets)  # callers ask the same again and again


class Details(Struct):
    """A decision as it lies beside the leaf."""

    id: str
    at_ms: int
    caller: str
    request: msgspec.Raw
    facts: Facts
    decision: str
    reason: str
    policies: tuple[str, ...]
    errors: list[str]
    digest: str


def details_of(decided: Decided) -> Details:
    decision = decided.decision
    return Details(
        decided.id,
        decided.at_ms,
        decided.caller.id,
        msgspec.Raw(without_secrets(decided.raw)),
        decided.facts,
        decision.outcome,
        decision.reason,
        decision.determining,
        [fault.policy for fault in decision.errors],
        decision.policy_digest,
    )


def record_of(decided: Decided, **more: Any) -> Record:
    """A decision that has a record of its own."""
    decision, request = decided.decision, decided.request
    trust = decided.facts.trust
    detail: dict[str, Any] = {"reason": decision.reason}
    if decision.errors:
        detail["errors"] = [fault.policy for fault in decision.errors[:MOST_NAMED]]
    if decision.conflicts:
        detail["conflicts"] = [name[:200] for name in decision.conflicts[:MOST_NAMED]]
    held: Mapping[str, Any] = msgspec.json.decode(line_of(decided))
    return Record(
        type="decision",
        actor=decided.caller,
        subject=Party(request.subject.type, request.subject.id),
        action=request.action.name,
        resource=Party(request.resource.type, request.resource.id),
        decision=decision.outcome,
        reasons=decision.determining[:MOST_NAMED],
        risk=None if trust is None else Risk(100 - trust.lowest, signals=trust.findings[:MOST_NAMED]),
        policy=PolicyRef(digest=decision.policy_digest),
        request_id=decided.request_id,
        evaluation_id=decided.id,
        detail={**detail, **more.pop("detail", {})},
        request={"request": held["request"], "facts": held["facts"]},
        **more,
    )
