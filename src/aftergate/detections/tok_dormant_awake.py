"""A key, service principal or app that slept for weeks acts again."""

from __future__ import annotations

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import agent_new, homes, nonhuman, novelty, ours, place, span, when, who
from aftergate.lineage.state import DAY_MS, Identity
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Bit, Event, Severity, Shape

DORMANT_MS = 45 * DAY_MS  # longer than any monthly job with a late month behind it
MONTH_D = 30.44
SLACK_D = 5.0  # weekends and holidays shift monthly, quarterly and yearly jobs


_GAP = int(Bit.GAP)


class Detection(Rule):
    meta = Meta(
        slug="tok-dormant-awake",
        title="Dormant credential acts again",
        severity="medium",
        about=(
            "A key or service identity that nobody used for weeks is one that nobody watches and nobody would miss. When it acts again, and not with the "
            "rhythm of a quarterly or yearly job, somebody may have found it."
        ),
        attack=("T1078.004",),
        nhi=("NHI1",),
        needs=(("credential",),),
        traps=(
            "Quarterly and yearly jobs: the same place and program after whole months of sleep, or after a sleep as long as an earlier one.",
            "People on leave: only credentials of machines count, and long-lived keys.",
        ),
        blind=("Sleep longer than the log reaches back.", "Records without any credential or session that bring nothing new."),
        recommended=("Ask the owner whether the job is theirs", "Disable the credential if nobody answers", "Delete what is not needed"),
    )
    subscriptions = (on(bits=Bit.GAP | Bit.IDENTITY_NET | Bit.IDENTITY_ACTION | Bit.IDENTITY_AGENT | Bit.LIFE_NET | Bit.LIFE_AGENT),)

    def wants(self, shape: Shape) -> bool:
        return not shape.actor.first_party and shape.actor.kind != "service"

    def start(self) -> None:
        self.gaps: dict[str, list[int]] = {}  # credential or identity -> its earlier sleeps, ms
        self.woken: dict[str, tuple[int, int, int]] = {}  # credential or identity -> when it woke, before which time it slept, the sleep

    def step(self, event: Event, facts: Facts) -> None:
        identity, now = facts.identity, event.time
        life = facts.life if facts.life is not None and not facts.life.is_session else None
        if not facts.mask & _GAP and not self.woken:
            return
        if facts.mask & _GAP and life is not None and facts.gap_ms >= DORMANT_MS:
            if self._counts(identity, event, True):
                self._wake(life.id, event, facts, facts.gap_ms)
            return
        if facts.idle_ms >= DORMANT_MS and identity.count > 3 and self._counts(identity, event, False):
            self._wake(identity.id, event, facts, facts.idle_ms)
            return
        for key in (life.id if life is not None else None, identity.id):
            woken = self.woken.get(key or "")
            if woken is not None and now - woken[0] <= DAY_MS and event.ok:
                self._judge(key or "", event, facts, woken)  # more of what is new on the day it woke
                return

    @staticmethod
    def _counts(identity: Identity, event: Event, key: bool) -> bool:
        if event.actor.first_party or event.actor.kind == "service" or not event.ok:
            return False
        # a caller the log does not identify is many callers
        return key or nonhuman(identity, event) or (event.actor.kind == "unknown" and event.credential is not None)

    def _wake(self, key: str, event: Event, facts: Facts, gap: int) -> None:
        self._judge(key, event, facts, (event.time, event.time - gap, gap))
        self.gaps.setdefault(key, []).append(gap)
        self.woken[key] = (event.time, event.time - gap, gap)

    def _judge(self, key: str, event: Event, facts: Facts, woken: tuple[int, int, int]) -> None:
        woke, slept_at, gap = woken
        identity = facts.identity
        points, reasons = novelty(homes(identity, woke), event.origin)
        if points and (ours(self.world, event.origin, identity) or self.directory.egress_ok(identity.id, event.origin.ip)):
            points, reasons = 0, ()
        if agent_new(identity.agents, event):
            points += 1
            reasons = (*reasons, f"never with {event.agent.family}")
        days = gap / DAY_MS
        months = round(days / MONTH_D)
        earlier = [g for g in self.gaps.get(key, ()) if g != gap or len(self.gaps[key]) > 1]
        rhythm = any(abs(g - gap) <= max(0.1 * gap, SLACK_D * DAY_MS) for g in earlier)
        calendar = months >= 1 and abs(days - months * MONTH_D) <= SLACK_D and months in (2, 3, 4, 6, 12, 24)
        severity: Severity = "medium"
        traps: list[str] = []
        if points >= 2:
            severity = "high"
        elif points == 0 and (rhythm or calendar):
            severity = "low"
            traps.append("slept as long before" if rhythm else "slept whole months, and woke at its usual place with its usual program")
        elif points == 0 and event.actor.kind == "human":
            severity = "low"
            traps.append("a person's key at the person's own place")
        if points < 2 and self.directory.ticket_for((identity.id, key, *identity.names), event.time):
            severity = "low"
            traps.append("a change ticket covers it")
        what = f"A credential of {who(event)}" if key != identity.id else who(event)
        self.report(
            f"{key}|{woke}",
            event,
            severity=severity,
            narrative=(
                f"{what} slept for {span(gap)}, since {when(slept_at)}, and acts again from {place(event.origin)} with {event.agent.family}."
                f"{' ' + '; '.join(reasons).capitalize() + '.' if reasons else ''}"
            ),
            subject=subject_of(identity, event),
            traps=traps,
        )
