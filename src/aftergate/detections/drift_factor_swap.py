"""A factor reset or added, and then somebody else's place."""

from __future__ import annotations

from msgspec import Struct

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.conduct import NOWHERE, Place, band, place_of
from aftergate.detections.reasoning import established, place, span, when, who
from aftergate.lineage.state import DAY_MS, Identity
from aftergate.lineage.tracking import Facts, plain
from aftergate.vocabulary import Bit, Event, Kind, Tag, Target

_FACTOR = frozenset({Tag.FACTOR_RESET, Tag.FACTOR_ADD, Tag.FACTOR_REMOVE, Tag.PASSWORD_CHANGE})
_CHAIN_MS = DAY_MS
_PASS = ("temporary access pass", "temporaryaccesspass", "recovery-code", "enrollments/ticket")


class _Touched(Struct):
    """What happened to one person's factors within a day."""

    time: int
    event: str
    by: str  # identity id
    what: str
    reset: bool


class Detection(Rule):
    meta = Meta(
        slug="drift-factor-swap",
        title="Sign-in factor changed from a strange place",
        severity="high",
        about=(
            "A second factor, device or passkey is enrolled from a place the person never used, often minutes after the service desk reset the old "
            "ones or issued a temporary pass. Whoever holds the new factor holds the account."
        ),
        attack=("T1098.005", "T1556.006", "T1621"),
        needs=(("factor.add", "origin.ip"), ("factor.reset",)),
        traps=(
            "A new phone or laptop enrolled from the person's own network or device.",
            "First days of a new colleague: nothing is known yet, so nothing is strange.",
            "The service desk resets factors every day; it is not accused.",
        ),
        blind=("Someone who enrols from the victim's own network.", "Logs that do not say where a factor was enrolled from."),
        recommended=(
            "Remove the new factor and end the person's sessions",
            "Reach the person by a known number",
            "Check what the account did since the reset",
        ),
        half_life_d=30.0,
    )
    subscriptions = (on(tags=_FACTOR), on(kinds=[Kind.SIGN_IN], bits=Bit.IDENTITY_NET))

    def start(self) -> None:
        self.touched: dict[str, list[_Touched]] = {}

    def step(self, event: Event, facts: Facts) -> None:
        tags = event.action.tags
        identity = facts.identity
        if not event.ok:
            return
        if not tags & _FACTOR:
            self._signed_in(event, identity)
            return
        target = next((t for t in event.d.targets if t.type.lower() in ("user", "")), None)
        person = self._person(event, identity, target)
        own = person is identity or target is None or plain(target.id) in identity.names
        before = self._recent(person.id if person is not None else plain(target.id) if target is not None else identity.id, event.time)
        if own and tags & {Tag.FACTOR_ADD, Tag.FACTOR_RESET} and event.actor.kind != "service" and not event.actor.first_party:
            self._enrolled(event, identity, before)
        elif not own:
            self._by_another(event, identity, before, target)
        before.append(_Touched(event.time, event.id, identity.id, event.action.name, not own or Tag.FACTOR_RESET in tags))

    def _person(self, event: Event, identity: Identity, target: Target | None) -> Identity | None:
        if target is None:
            return identity
        for name in (target.id, *(n for n in target.names if "@" in n)):
            found = self.world.identity(name)
            if found is not None:
                return found
        return identity if event.actor.id == target.id else None

    def _recent(self, key: str, now: int) -> list[_Touched]:
        held = self.touched.setdefault(key, [])
        held[:] = [t for t in held if now - t.time <= _CHAIN_MS][-20:]
        return held

    def _enrolled(self, event: Event, identity: Identity, before: list[_Touched]) -> None:
        """The person, or who passes for him, adds a factor."""
        where = place_of(self.world, identity, event)
        resets = [t for t in before if t.reset and t.by != identity.id]
        points, reasons = 1, []
        if where.score:
            points += where.score
            reasons.append(where.why)
        if resets and where.score:
            points += 2
            reasons.append(f"{span(event.time - resets[-1].time)} after the old factors were reset by another")
        device = event.shape.device
        known_device = (device is not None and identity.devices.get(device, event.time) < event.time - DAY_MS) or (
            where.score
            and any(
                s.origin.net == event.origin.net and s.device is not None and identity.devices[s.device] < event.time - DAY_MS
                for s in identity.uses
            )
        )
        strange_device = device is not None and not known_device and any(t < event.time - DAY_MS for t in identity.devices.values())
        if where.score and strange_device:
            points += 1
            reasons.append("on a device never seen")
        behaviors = (event.d.params or {}).get("behaviors") or ()
        if where.score == 0 and resets and event.d.risk == "high":
            points += 2
            reasons.append("the vendor rates the session high")
        elif where.score and len(behaviors) >= 3:
            points += 1
        traps = []
        if known_device and where.score:
            points -= 3
            traps.append("the person's known device is at that place")
        severity = band(points)
        if severity is None or not reasons:
            return
        self._say(event, identity, severity_points=points, reasons=reasons, before=before, traps=traps, act="a sign-in factor was added")

    def _by_another(self, event: Event, identity: Identity, before: list[_Touched], target: Target | None) -> None:
        """An administrator changes a colleague's factors. From a strange place that is an attack on the colleague."""
        tags = event.action.tags
        where = place_of(self.world, identity, event) if event.origin.known else NOWHERE
        points = 1
        reasons: list[str] = []
        if where.score:
            points += 1 + where.score
            reasons.append(where.why)
        method = f"{(event.d.params or {}).get('method', '')} {event.action.name}".lower()
        if any(word in method for word in _PASS):
            points += 1
            reasons.append("a temporary pass lets its holder in without the old factors")
        if event.agent.kind == "tool":
            points += 1
        if (
            (target is not None and target.id.endswith(":root"))
            or "suspend" in event.action.name
            or (Tag.DEFENCE_CHANGE in tags and Tag.FACTOR_REMOVE in tags)
        ):
            points += 2 if not established(identity, event.time) else 1
            reasons.append("a second factor was taken off somebody else")
        others = {t.by for t in before}
        if Tag.FACTOR_ADD in tags and where.score and identity.id in others:
            points += 1
        if not reasons or band(points) is None:
            return
        name = (target.names[0] if target.names else target.id) if target is not None else "somebody"
        self._say(event, identity, severity_points=points, reasons=reasons, before=[], traps=[], act=f"{event.action.name} on {name}")

    def _signed_in(self, event: Event, identity: Identity) -> None:
        """A sign-in from a new network within a day of a reset by another."""
        held = self.touched.get(identity.id)
        if not held:
            return
        resets = [t for t in held if t.reset and t.by != identity.id and 0 < event.time - t.time <= _CHAIN_MS]
        if not resets:
            return
        where: Place = place_of(self.world, identity, event)
        if where.score < 2:
            return
        reasons = [where.why, f"{span(event.time - resets[-1].time)} after another reset the factors or password"]
        self._say(event, identity, severity_points=4, reasons=reasons, before=resets, traps=[], act="a sign-in")

    def _say(
        self,
        event: Event,
        identity: Identity,
        *,
        severity_points: int,
        reasons: list[str],
        before: list[_Touched],
        traps: list[str],
        act: str,
    ) -> None:
        severity = band(severity_points)
        if severity is None:
            return
        self.report(
            f"{identity.id}|{event.time // DAY_MS}",
            event,
            severity=severity,
            narrative=f"{who(event)}: {act} at {when(event.time)} from {place(event.origin)}: {'; '.join(r for r in reasons if r)}.",
            subject=subject_of(identity, event),
            evidence=[t.event for t in before],
            traps=traps,
        )
