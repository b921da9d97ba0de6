"""Credentials that a CI run got, used from another place than its runner, or after the run was over."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from aftergate.detections.api import Meta, Rule, lower, on, subject_of
from aftergate.detections.pipelines import may_be_pipeline, pipeline_of
from aftergate.detections.reasoning import novelty, ours, place, same_place, span, when
from aftergate.lineage.state import HOUR_MS, MINUTE_MS
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import RANK, Bit, Event, Kind, Origin, Severity, Shape

_GRACE_MS = 10 * MINUTE_MS  # logs of two systems, clean-up steps
_LIMIT = 200_000


class _Grant(Struct):
    """What one run was given: one key, or the keys taken with it one after another."""

    role: str
    run: str | None
    time: int
    event: str
    pipeline: str
    homes: list[Origin] = []
    credentials: list[str] = []
    late: bool = False  # used from its own place after the end
    during: set[Origin] = set()  # places already looked at while the run went on
    told: bool = False


_NEW: Final = int(Bit.LIFE_IP | Bit.LIFE_AGENT | Bit.LIFE_ACTION | Bit.SWITCH | Bit.NEW_LIFE | Bit.IDENTITY_IP)
_MINTS = frozenset({Kind.TOKEN_EXCHANGE, Kind.TOKEN_ISSUE, Kind.SIGN_IN})


class Detection(Rule):
    meta = Meta(
        slug="tok-ci-creds-off-ci",
        title="CI credentials used outside the CI run",
        severity="high",
        about=(
            "A CI run gets short-lived cloud credentials for itself. Used from another network than its runner's, or when the run is over, they were "
            "taken out of it: by a poisoned dependency, a leaked log or a changed workflow."
        ),
        attack=("T1552", "T1550.001", "T1677"),
        nhi=("NHI2", "NHI8"),
        needs=(("ci.subject", "origin.ip", "credential"), ("ci.subject", "origin.ip", "act")),
        traps=(
            "Deploy tools that get the run's session for a second stage, as they do in every run.",
            "Self-hosted runners, which sit anywhere: a run is compared with its own runner.",
            "Clean-up within minutes after the end, and re-runs, which open the run again.",
        ),
        blind=("Use from the runner itself, during the run.", "Without the forge's log the end of a run is unknown: only the place tells."),
        recommended=(
            "Revoke this one session (deny by aws:userid or by token issue time)",
            "Read the run's log and its dependencies for what took the key",
            "Shorten the role's session to the length of a run",
        ),
    )
    subscriptions = (
        on(kinds=[Kind.TOKEN_EXCHANGE, Kind.TOKEN_ISSUE, Kind.SIGN_IN], sources=("aws.", "gcp.", "vault")),  # one look each
        on(sources=("gcp.",), bits=Bit(_NEW)),  # whose tokens have no id; others are watched from their mint on
    )

    def wants(self, shape: Shape) -> bool:
        if shape.action.kind in _MINTS:
            return may_be_pipeline(shape)
        return shape.origin.known

    def start(self) -> None:
        self.grants: dict[str, _Grant] = {}  # credential -> what its run was given
        self.by_pipeline: dict[str, _Grant] = {}  # federated actor -> latest, for logs whose tokens have no id
        self.habits: dict[tuple[str, str], set[str]] = {}  # role and place -> runs that used it there

    def step(self, event: Event, facts: Facts) -> None:
        shape = event.shape
        grant = self.grants.get(event.credential) if event.credential is not None else None
        if grant is None and shape.source == "gcp.audit":
            grant = self._by_actor(event)
            if grant is not None:
                self._judge(event, facts, grant)
        if shape.error is None and shape.action.kind in _MINTS:
            self._learn(event, grant)

    def on_watched(self, event: Event, facts: Facts) -> None:
        grant = self.grants.get(event.credential or "")
        origin = event.shape.origin
        if grant is None:
            return
        if event.shape.error is None and event.shape.action.kind in _MINTS:
            self._learn(event, grant)
        if not origin.known:
            return
        run = self.world.runs.get(grant.run) if grant.run is not None else None
        if run is None or run.end is None or event.time <= run.end + _GRACE_MS:
            if origin in grant.during and not grant.told:
                return  # one look at each place while the run goes on
            grant.during.add(origin)
        self._judge(event, facts, grant)

    def _learn(self, event: Event, parent: _Grant | None) -> None:
        if len(self.grants) > _LIMIT:
            self.grants.clear()
        if parent is not None:  # a key got with the run's key is the run's too
            for issued in event.d.issued:
                self.grants.setdefault(issued, parent)
                self.watch(issued)
                if len(parent.credentials) < 10 and issued not in parent.credentials:
                    parent.credentials.append(issued)
            return
        subject = pipeline_of(event)
        if subject is None:
            return
        role = event.target or event.actor.id
        made = _Grant(
            role, event.d.run, event.time, event.id, subject.told, [event.origin] if event.origin.known else [], list(event.d.issued)
        )
        for issued in event.d.issued:
            self.grants[issued] = made
            self.watch(issued)
        if event.source == "gcp.audit":
            held = self.by_pipeline.get(event.actor.id)
            if (
                held is not None
                and event.time - held.time < HOUR_MS
                and held.homes
                and event.origin.known
                and not self._at_home(held, event.origin)
            ):
                if self._learned_elsewhere(held, event):
                    return
            self.by_pipeline[event.actor.id] = made
            if event.d.subject:
                self.by_pipeline[event.d.subject] = made

    def _by_actor(self, event: Event) -> _Grant | None:
        for name in (event.actor.id, *event.d.act):
            grant = self.by_pipeline.get(name)
            if (
                grant is not None
                and 0 <= event.time - grant.time <= HOUR_MS + _GRACE_MS
                and event.kind not in (Kind.TOKEN_EXCHANGE, Kind.TOKEN_ISSUE)
            ):
                return grant
        return None

    def _learned_elsewhere(self, held: _Grant, event: Event) -> bool:
        """A new exchange from a rented place within the hour is no new runner."""
        return novelty(held.homes, event.origin)[0] >= 2

    @staticmethod
    def _at_home(grant: _Grant, origin: Origin) -> bool:
        return any(origin is home or origin.ip == home.ip for home in grant.homes)

    def _judge(self, event: Event, facts: Facts, grant: _Grant) -> None:
        origin, now = event.origin, event.time
        run = self.world.runs.get(grant.run) if grant.run is not None else None
        end = run.end if run is not None else None
        over = end is not None and now > end + _GRACE_MS
        if not origin.known:
            return  # services and inner addresses have no place; the end alone is judged where there is one
        if not grant.homes:
            grant.homes.append(origin)
        near = any(same_place(origin, home) for home in grant.homes)
        home = grant.homes[0]
        spot = origin.provider or origin.net
        name = grant.run or grant.event
        habit = self.habits.setdefault((grant.role, f"{spot}|{over}"), set())
        anywhere = self.habits.setdefault(("", f"{spot}|{over}"), set())  # one deploy tool serves many roles
        usual = len(habit - {name}) >= 2 or (origin.network == "cloud" and len(anywhere - {name}) >= 3)
        for runs in (habit, anywhere):
            if len(runs) < 5:
                runs.add(name)
        if usual or (near and not over) or self.directory.egress_ok(event.actor.id, origin.ip):
            return
        points, reasons = novelty(grant.homes, origin)
        traps: list[str] = []
        severity: Severity = "high"
        if points < 2 and ours(self.world, origin, facts.identity):
            if not over:
                return  # a second stage inside the organisation's own network
            severity, traps = "low", ["a network that the organisation uses"]
        elif over and near:
            same_ip = self._at_home(grant, origin)
            severity, traps = ("low", ["from the runner's own address"]) if same_ip else ("medium", ["from the runner's own network"])
        elif over:
            severity = "high" if points >= 2 or origin.provider is None else lower("high")
        elif points >= 2:
            severity = "high"
        elif origin.network == "cloud" or (end is None and now - grant.time < HOUR_MS) or origin.network == "unknown":
            severity, traps = "low", ["during the run, from a place that could be a second stage"]
        else:
            severity = "medium"
        key = f"{name}|{grant.role}"
        grant.told = True
        found = self.book.get(self.meta.slug, key)
        if found is not None and RANK[found.severity] > RANK[severity]:
            severity = found.severity
        ended = f", {span(now - end)} after the run ended" if over and end is not None else ""
        self.report(
            key, event, severity=severity, traps=traps if severity == "low" else (),
            narrative=(
                f"The credentials that {grant.pipeline} got for {grant.role.rpartition('/')[2]} at {when(grant.time)} were used from {place(origin)} "
                f"with {event.agent.family}{ended}; its runner was at {place(home)}."
                + (f" This is {', '.join(reasons)}." if reasons else "")
            ),
            subject=subject_of(facts.identity, event, credentials=grant.credentials),
            evidence=[event.id, grant.event],
        )  # fmt: skip
