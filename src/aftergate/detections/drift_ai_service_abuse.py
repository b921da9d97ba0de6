"""AI services found, opened and used by an identity that has no business with them."""

from __future__ import annotations

from msgspec import Struct, field

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.conduct import automation, band, is_person, place_of
from aftergate.detections.reasoning import established, when, who
from aftergate.lineage.state import DAY_MS, Identity
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Event, Subject, Tag

_PROBES = (
    "GetUseCaseForModelAccess",
    "GetFoundationModelAvailability",
    "ListFoundationModelAgreementOffers",
    "GetModelInvocationLoggingConfiguration",
)
_JUMP, _FLOOR = 10, 200  # calls a day over the busiest earlier day, and at least this many


class _Day(Struct):
    """What one identity did with AI services on one day."""

    start: int
    last: Event
    subject: Subject
    new: bool  # no use of AI services on an earlier day
    known: bool
    place: int
    why: str
    machine: bool
    person: bool
    found: set[str] = field(default_factory=set)
    probed: set[str] = field(default_factory=set)
    opened: set[str] = field(default_factory=set)
    calls: int = 0
    refused: int = 0
    regions: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)
    tool: str = ""
    evidence: list[str] = field(default_factory=list)


class _User(Struct):
    identity: Identity
    first: int
    busiest: int = 0
    regions: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)
    day: _Day | None = None


class Detection(Rule):
    meta = Meta(
        slug="drift-ai-service-abuse",
        title="AI services used by an identity that never did",
        severity="high",
        about=(
            "Stolen cloud keys are used to run models at the owner's cost: the thief looks which models there are, whether calls are logged, opens "
            "access, and invokes. Or an identity that does use models jumps in volume, regions or models."
        ),
        attack=("T1496.004", "T1526", "AML.T0040"),
        nhi=("NHI2", "NHI5"),
        needs=(("ai.discover",), ("ai.enable",), ("ai.invoke",)),
        traps=(
            "A workload in the own cloud that starts to invoke models without looking around first is a new feature.",
            "People who look at the model list in the console.",
        ),
        blind=("Invocations are data events on some clouds and not logged by default.",),
        recommended=("Disable the key", "Take model access back in regions that are not in use", "Set a quota and a budget alarm"),
    )
    # model calls can be many: each costs one dictionary look-up and a counter
    subscriptions = (on(tags=[Tag.AI_DISCOVER, Tag.AI_ENABLE, Tag.AI_INVOKE]),)

    def start(self) -> None:
        self.users: dict[str, _User] = {}

    def step(self, event: Event, facts: Facts) -> None:
        if event.actor.first_party or event.actor.kind == "service" or event.source.startswith("m365"):
            return
        identity = facts.identity
        user = self.users.get(identity.id)
        if user is None:
            user = self.users[identity.id] = _User(identity, event.time)
        day = user.day
        if day is None or event.time - day.start >= DAY_MS:
            if day is not None:
                self._close(user, day)
            where = place_of(self.world, identity, event)
            day = user.day = _Day(
                event.time,
                event,
                subject_of(identity, event),
                user.busiest == 0 and not user.models and event.time - user.first < DAY_MS,
                established(identity, event.time),
                where.score,
                where.why,
                automation(self.world, event, facts.session or facts.life),
                is_person(event),
            )
        day.last = event
        tags, name = event.action.tags, event.action.name.rpartition(":")[2]
        params = event.d.params or {}
        region, model = params.get("region"), params.get("modelId")
        if isinstance(region, str):
            day.regions.add(region)
        if isinstance(model, str) and len(day.models) < 200:
            day.models.add(model.rpartition("/")[2])
        if event.agent.kind == "tool":
            day.tool = event.agent.family
        day.refused += not event.ok
        fresh = False
        if Tag.AI_INVOKE in tags:
            day.calls += 1
            fresh = day.calls <= 40
        elif Tag.AI_ENABLE in tags:
            fresh = True
            day.opened.add(name)
        else:
            held = day.probed if name in _PROBES else day.found
            fresh = name not in held
            held.add(name)
        if fresh and len(day.evidence) < 100:
            day.evidence.append(event.id)

    def finish(self) -> None:
        for user in self.users.values():
            if user.day is not None:
                self._close(user, user.day)

    def _close(self, user: _User, day: _Day) -> None:
        points, reasons = 0, []
        if day.new:
            if day.found:
                points += 1
                reasons.append("looked which models there are")
            if day.probed:
                points += 1
                reasons.append(f"asked {', '.join(sorted(day.probed)[:3])}")
            if day.opened:
                points += 2
                reasons.append(f"opened access ({', '.join(sorted(day.opened)[:3])})")
            if day.calls:
                points += 2 if day.found or day.probed or day.opened else 1
                reasons.append(f"called models {day.calls} times")
            if day.refused >= 2 and day.refused * 2 >= day.calls + len(day.evidence) // 2:
                points += 1
                reasons.append(f"was refused {day.refused} times")
            if day.known:
                points += 1
                reasons.append("it never used AI services before")
            if len(day.regions) >= 3:
                points += 1
                reasons.append(f"in {len(day.regions)} regions")
        else:
            if user.busiest and day.calls >= _FLOOR and day.calls >= _JUMP * user.busiest:
                points += 3
                reasons.append(f"called models {day.calls} times, {day.calls // user.busiest} times its busiest day")
            elif user.busiest == 0 and day.calls and day.known:
                points += 2
                reasons.append(f"called models {day.calls} times for the first time")
            new_regions = day.regions - user.regions if user.regions else set()
            if len(new_regions) >= 2:
                points += 1
                reasons.append(f"in regions never used ({', '.join(sorted(new_regions)[:4])})")
            if len(day.models - user.models) >= 3 and user.models:
                points += 1
                reasons.append("with models it never used")
            if day.opened and day.place:
                points += 1
        if points:
            points += day.place
            if day.place:
                reasons.append(day.why)
            if day.tool:
                points += 1
                reasons.append(f"with {day.tool}")
        user.busiest = max(user.busiest, day.calls)
        user.regions |= day.regions
        user.models |= day.models
        traps: list[str] = []
        if points and not day.place:
            if day.machine:
                points -= 2
                traps.append("a pipeline that changes the control plane by trade")
            elif day.new and day.person and day.last.agent.kind == "browser" and not day.calls:
                points -= 2
                traps.append("a person looking around in the console")
        severity = band(points)
        if severity is None or not reasons:
            return
        self.report(
            f"{user.identity.id}|{day.start}",
            day.last,
            severity=severity,
            narrative=f"{who(day.last)} at {when(day.start)}: {'; '.join(r for r in reasons if r)}.",
            subject=day.subject,
            evidence=day.evidence,
            traps=traps,
        )
