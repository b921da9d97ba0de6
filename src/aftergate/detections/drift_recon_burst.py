"""Fast enumeration: many kinds of things listed within minutes by an identity that does not usually do so."""

from __future__ import annotations

from collections import deque
from typing import Final

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.conduct import IAC
from aftergate.detections.kinds_of_act import category_of
from aftergate.detections.reasoning import agent_new, established, novelty, place, span, strangeness, when, who
from aftergate.lineage.state import HOUR_MS, MINUTE_MS
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Action, Bit, Event, Kind, Severity, Shape
from aftergate.vocabulary.patterns import regex

_WINDOW_MS: Final = 10 * MINUTE_MS
_FEW, _SOME, _MANY = 6, 8, 14  # distinct categories
_SENSITIVE = regex(
    r"iam|role|polic|user|group|account|organi[sz]ation|secret|key|permission|grant|principal|application|directory|credential|trust|domain|identity|binding|selfsubject|calleridentity|token|admin"
)
_NOBODY = frozenset({"unidentified caller", "anonymous", "unknown", "system:anonymous"})
_SILENT: Final = Kind.SILENT_SIGN_IN
_APP = "user.authentication.sso"
_NEW: Final = int(Bit.IDENTITY_ACTION | Bit.NEW_IDENTITY)


class _Seen:
    """One listing."""

    __slots__ = ("category", "denied", "event", "new", "time")

    def __init__(self, time: int, category: str, event: str, denied: bool, new: bool) -> None:
        self.time = time
        self.category = category
        self.event = event
        self.denied = denied
        self.new = new  # to the identity


class _Watch:
    """Listings of one identity in the last minutes, and how broad its listing was before."""

    __slots__ = ("apps", "counts", "key", "now", "past", "recent", "since")

    def __init__(self) -> None:
        self.recent: deque[_Seen] = deque()
        self.counts: dict[str, int] = {}  # categories in `recent`
        self.past = 0  # most categories within ten minutes, up to an hour before the window in hand
        self.now = 0  # the same of the window in hand
        self.since = 0  # when the window in hand began
        self.key = ""
        self.apps: set[str] = set()


class Detection(Rule):
    meta = Meta(
        slug="drift-recon-burst",
        title="Burst of enumeration",
        severity="medium",
        about=(
            "Whoever holds a stolen session looks around first: who am I, which users, roles, policies, secrets and stores are there. Many kinds of things "
            "listed within ten minutes by an identity that never did so are that look around."
        ),
        attack=("T1087.004", "T1580", "T1526", "T1069.003"),
        nhi=("NHI5",),
        needs=(("discovery",),),
        traps=(
            "Inventory and posture scanners list everything, at the same breadth each day.",
            "A cloud console's pages list a dozen things for one click: browsers count less.",
            "Infrastructure tools read the state of a whole stack; controllers list what they watch when they start.",
            "New identities: in their first days everything is new.",
        ),
        blind=("Slow enumeration, a few calls an hour.", "Administrators who list everything every day."),
        recommended=(
            "Ask the person whether this was them",
            "End the session or revoke the credential it used",
            "Look at what was read or changed in the hours after",
        ),
    )
    subscriptions = (
        on(
            kinds=[Kind.DISCOVERY, Kind.SECRET_READ, Kind.DATA_READ],
            bits=Bit.IDENTITY_ACTION | Bit.LIFE_ACTION | Bit.SESSION_ACTION | Bit.NEW_LIFE,
        ),
        on(kinds=[Kind.OTHER], sources=("gcp.",), bits=Bit.IDENTITY_ACTION | Bit.LIFE_ACTION),
        on(kinds=[Kind.SILENT_SIGN_IN], sources=("okta",)),  # which application is opened is no part of the action: one look-up each
    )

    def wants(self, shape: Shape) -> bool:
        if shape.actor.first_party or shape.actor.kind == "service" or shape.origin.net.startswith("service:"):
            return False
        return shape.action.kind is not Kind.OTHER or shape.action.verb in ("read", "discover")

    def start(self) -> None:
        self.watched: dict[str, _Watch] = {}
        self.categories: dict[Action, str] = {}

    def step(self, event: Event, facts: Facts) -> None:
        action, identity = event.shape.action, facts.identity
        if identity.id in _NOBODY:
            return
        watch = self.watched.get(identity.id)
        if watch is None:
            watch = self.watched[identity.id] = _Watch()
        if action.kind is _SILENT:
            target = event.target
            if action.name != _APP or target is None or target in watch.apps:
                return
            watch.apps.add(target)
            category, new = f"application {target}", True
        else:
            known = self.categories.get(action)
            if known is None:
                known = self.categories[action] = category_of(action)
            category, new = known, bool(facts.mask & _NEW)
        now = event.time
        recent = watch.recent
        counts = watch.counts
        recent.append(_Seen(now, category, event.id, event.shape.error is not None, new))
        counts[category] = counts.get(category, 0) + 1
        while recent[0].time < now - _WINDOW_MS or len(recent) > 400:
            gone = recent.popleft().category
            counts[gone] -= 1
            if not counts[gone]:
                del counts[gone]
        if now - watch.since > HOUR_MS + _WINDOW_MS:
            watch.past, watch.now, watch.since, watch.key = max(watch.past, watch.now), 0, now, ""
        broad = len(counts)
        watch.now = max(watch.now, broad)
        if broad >= _FEW and broad > 1.5 * watch.past:
            self._judge(event, facts, watch, set(counts))

    def _judge(self, event: Event, facts: Facts, watch: _Watch, categories: set[str]) -> None:
        identity, now = facts.identity, event.time
        count = len(categories)
        fresh = {seen.category for seen in watch.recent if seen.new}
        if len(fresh) * 2 < count:
            return
        denied = sum(seen.denied for seen in watch.recent)
        sensitive = sum(bool(_SENSITIVE.search(c.lower())) for c in categories)
        began = watch.recent[0].time
        known = identity.days_seen(began) >= 2 and identity.count - len(watch.recent) > 10 and established(identity, now)
        strange = strangeness(self.world, identity, event)
        program = agent_new(identity.agents, event) or identity.agents.get(event.agent.family, 0) >= began
        tool = event.agent.kind == "tool"
        by_hand = program and identity.kind != "human" and event.agent.kind in ("cli", "http_library") and event.agent.family not in IAC
        browser = event.agent.kind == "browser" or event.agent.family == "aws-console" or "console" in event.agent.raw.lower()[:40]
        recent_net = identity.net_first.get(event.origin.net, 0) >= began - HOUR_MS
        traps: list[str] = []
        if known:
            away = strange.score if strange.score >= 2 else self._away(event, facts, began) if recent_net else 0
            points = (
                (count >= _SOME)
                + (count >= _MANY)
                + (sensitive >= 3)
                + min(away, 3)
                - (away > 1)
                + program
                + by_hand
                + (denied >= 3)
                + 2 * tool
            )
            if count < _SOME and away < 2 and not program and denied < 3:
                return
            if event.agent.family in IAC:
                points, traps = points - 2, ["an infrastructure tool reading its state"]
            elif browser:
                points, traps = points - 2, ["pages of a console list many things at once"]
            elif event.source.startswith("kubernetes.") and event.origin.network == "private" and not program:
                points, traps = points - 2, ["a controller that starts lists what it watches"]
            elif identity.kind != "human" and away < 2 and not program and denied < 3:
                points, traps = points - 1, ["the usual program from the usual place"]
        else:
            rented = event.origin.network in ("hosting", "vpn", "tor")
            signs = rented + 2 * tool + (denied >= 3) + (denied >= count / 2) + (event.agent.kind in ("cli", "headless"))
            if signs < 2 or sensitive < 3 or browser:
                return
            points, traps = (3 if signs >= 3 else 2), ["no history to compare with"]
        if points < 2:
            return
        severity: Severity = "low" if points < 3 else "medium" if points < 6 or browser or not known else "high"
        watch.key = watch.key or f"{identity.id}|{began}"
        self.report(
            watch.key, event, severity=severity, traps=traps, subject=subject_of(identity, event), evidence=[seen.event for seen in watch.recent],
            narrative=(
                f"Within {span(max(now - began, 1000))} from {when(began)} {who(event)} asked for {count} kinds of things, {len(fresh)} of them never before "
                f"({', '.join(sorted(fresh)[:6])} …), from {place(event.origin)} with {event.agent.family}"
                + (f"; {denied} calls were denied" if denied else "")
                + (f". At most {watch.past} kinds within ten minutes until then." if watch.past else ".")
            ),
        )  # fmt: skip

    def _away(self, event: Event, facts: Facts, began: int) -> int:
        """How strange the place is, where the session itself came from there minutes ago."""
        before = [origin for origin, first in facts.identity.places.items() if first < began - HOUR_MS and origin.known]
        points, _ = novelty(before, event.origin)
        return 0 if self.world.shared_net(event.origin.net, facts.identity) >= 3 else points
