"""What Prometheus reads: counted where requests pass, and looked up in the parts when somebody asks."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from aftergate import __version__
from aftergate.errors import AftergateError
from aftergate.service import outbox

if TYPE_CHECKING:
    from aftergate.service.core import Core

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
BOUNDS: Final = (*map(str, SECONDS), "+Inf")
OUTCOMES: Final = ("permit", "deny", "step_up", "approval")


class Tally:
    """How often one method, route and status was answered, and in what time."""

    __slots__ = ("buckets", "created", "method", "route", "seconds", "status")

    def __init__(self, method: str, route: str, status: int) -> None:
        self.method = method
        self.route = route
        self.status = status
        self.buckets = [0] * (len(SECONDS) + 1)  # not summed up; the last is what took longer than all of them
        self.seconds = 0.0
        self.created = time.time()  # noqa: TID251  as prometheus_client does: by it a restart is known from a counter that went back


class Metrics(Collector):
    """One server process's numbers. A request costs a look into a table and two additions; Prometheus's own objects are made when it asks."""

    def __init__(self, core: Core) -> None:
        self._registry = CollectorRegistry()
        self._refused = Counter("aftergate_refused", "Callers not let in, by status.", ["status"], registry=self._registry)
        self._held: dict[tuple[str, str, int], Tally] = {}
        self._registry.register(self)
        self._registry.register(Parts(core))

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """`route` is a route's form (`/v1/findings/{id}`), never a path as it came: there are only so many of them."""
        held = self._held.get((method, route, status))
        if held is None:
            held = self._held[method, route, status] = Tally(method, route, status)
        held.buckets[bisect_left(SECONDS, seconds)] += 1
        held.seconds += seconds
        if status in {401, 403, 429}:
            self._refused.labels(str(status)).inc()

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("aftergate_requests", "Requests answered.", labels=["method", "route", "status"])
        routes: dict[str, list[Tally]] = {}
        for held in list(self._held.values()):
            requests.add_metric([held.method, held.route, str(held.status)], sum(held.buckets), held.created)
            routes.setdefault(held.route, []).append(held)
        yield requests
        times = HistogramMetricFamily("aftergate_request_seconds", "Time to answer a request.", labels=["route"])
        for route, tallies in routes.items():
            total = 0
            buckets = []
            for bound, *counts in zip(BOUNDS, *(held.buckets for held in tallies), strict=True):
                total += sum(counts)
                buckets.append((bound, total))
            times.add_metric([route], buckets, sum(held.seconds for held in tallies))
            times.add_sample("aftergate_request_seconds_created", {"route": route}, min(held.created for held in tallies))
        yield times

    def text(self) -> bytes:
        return generate_latest(self._registry)


class Parts(Collector):
    """What the parts know of themselves, read when asked. A part that cannot be asked leaves its numbers out and counts as a problem."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def describe(self) -> Iterator[Metric]:
        return iter(())  # nothing is looked up when this is registered

    def collect(self) -> Iterator[Metric]:
        core = self._core
        info = GaugeMetricFamily("aftergate_info", "This release.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        found = core.health()
        problems = GaugeMetricFamily("aftergate_problem", "1 for each part with a problem; /v1/status has the words.", labels=["part"])
        for name in sorted(found):
            problems.add_metric([name], 1)
        yield problems
        yield _gauge("aftergate_ready", "1 if the server can decide and record.", 0 if found else 1)
        yield _gauge("aftergate_trust_age_seconds", "Since live trust was last compared with the database.", core.trust.age_ms / 1000)
        yield _gauge("aftergate_open_findings", "Findings that live trust rests on.", core.trust.count)
        yield _gauge("aftergate_clock_behind_seconds", "How far the system clock lags behind the server's.", core.clock.behind_ms / 1000)
        yield _gauge("aftergate_keys", "API keys that may be used.", core.keys.usable(core.clock()))
        decisions = CounterMetricFamily("aftergate_decisions", "Decisions by outcome.", labels=["outcome"])
        for outcome in OUTCOMES:
            decisions.add_metric([outcome], core.decider.counts[outcome])
        yield decisions
        yield _gauge("aftergate_decisions_waiting", "Decisions whose record is not written yet.", core.decider.log.waiting)
        try:
            yield from self._stored()
        except AftergateError:
            return

    def _stored(self) -> Iterator[Metric]:
        core = self._core
        messages = GaugeMetricFamily(
            "aftergate_messages", "Messages to people and systems: waiting, or given up.", labels=["kind", "state"]
        )
        with core.db.read() as connection:
            for kind, state, count in outbox.counts(connection):
                messages.add_metric([kind, state], count)
        yield messages
        head = core.audit.head()
        yield _gauge("aftergate_audit_records", "Records in the audit log.", head.size)
        yield _gauge("aftergate_audit_lag_records", "Records that no signed checkpoint covers yet.", head.size - head.signed_size)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)
