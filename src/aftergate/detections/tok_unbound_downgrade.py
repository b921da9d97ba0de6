"""A client that always used bound tokens succeeds with one that anybody could carry."""

from __future__ import annotations

from msgspec import Struct

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import RENTED, org_egress, place, strangeness, when, who
from aftergate.lineage.state import Identity
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Bit, Event, Kind, Severity, Shape

ENOUGH = 3  # bound tokens before an unbound one means anything


class Bound(Struct):
    """What one client of one identity showed so far."""

    shapes: set[Shape] = set()  # with which bound tokens were shown; how often, tracking counts
    first: int = 0
    last_event: str = ""
    unbound: int = 0
    said: bool = False  # the log says `unbound`, so silence is not it
    before: set[str] = set()  # devices, networks and systems with unbound tokens while nothing was bound yet
    actions: set[str] = set()
    devices: set[str] = set()


class Detection(Rule):
    meta = Meta(
        slug="tok-unbound-downgrade",
        title="Bound client succeeds with an unbound token",
        severity="high",
        about=(
            "This client tied its tokens to the device or to a key (token protection, DPoP, mutual TLS) and now gets on with a plain bearer token. "
            "A stolen refresh token or cookie looks like this, because the thief does not hold the key."
        ),
        attack=("T1550.001", "T1528"),
        nhi=("NHI4",),
        needs=(("binding", "client"),),
        traps=(
            "An application that cannot bind comes into use: it has no bound history of its own.",
            "A client rolled back to a version that does not bind, on the same device in a known network: low.",
            "The same client on a phone, which cannot bind: low, and quiet where it was there from the start.",
        ),
        blind=("Issuers that do not log how a token is bound.",),
        recommended=(
            "Revoke the user's refresh tokens for this client",
            "Ask whether the client was downgraded on the person's device",
            "Require bound tokens for this client by policy",
        ),
    )
    # an unbound token from the same place, program and device as the bound ones is no finding: so only new combinations are looked at
    subscriptions = (
        on(kinds=[Kind.SIGN_IN, Kind.SILENT_SIGN_IN, Kind.TOKEN_ISSUE, Kind.TOKEN_REFRESH, Kind.TOKEN_EXCHANGE], bits=Bit.NEW_COMBINATION),
    )

    def start(self) -> None:
        self.held: dict[tuple[str, str], Bound] = {}

    def step(self, event: Event, facts: Facts) -> None:
        detail = event.detail
        shape = event.shape
        if detail is None or shape.error is not None:
            return
        binding = detail.binding
        key = (facts.identity.id, shape.client or "")
        held = self.held.get(key)
        if binding == "unbound" and (held is None or _count(held, facts.identity) < ENOUGH):
            if held is None:
                held = self.held[key] = Bound(first=event.time)
            if len(held.before) < 50:
                held.before.update(x for x in (shape.device, shape.origin.net, shape.agent.os) if x is not None)
            held.said = True
            return
        if binding == "bound":
            if held is None:
                held = self.held[key] = Bound(first=event.time)
            held.shapes.add(shape)
            held.last_event = event.id
            held.actions.add(shape.action.name)
            if shape.device is not None:
                held.devices.add(shape.device)
            return
        if held is None:
            return
        if binding == "unbound":
            held.said = True
        elif held.said or shape.source.startswith("entra.") or shape.action.name not in held.actions:
            return  # silence means an unbound token only where bound ones of the same operation were marked
        self._judge(event, facts, held)

    def _judge(self, event: Event, facts: Facts, held: Bound) -> None:
        held.unbound += 1
        shape = event.shape
        count = _count(held, facts.identity)
        if count < ENOUGH or held.unbound > count or {shape.device, shape.origin.net} & held.before:
            return
        severity: Severity = "high"
        traps: list[str] = []
        same_device = shape.device is not None and shape.device in held.devices
        odd = strangeness(self.world, facts.identity, event).score >= 2 or shape.origin.network in RENTED
        if not odd or org_egress(self.world, shape.origin, facts.identity):
            severity = "low"
            traps.append("same device in a known network: the client may have been rolled back" if same_device else "a known network")
        elif shape.agent.os in ("ios", "android") and shape.origin.network not in RENTED:
            severity = "low"
            traps.append("a phone or tablet, where this client cannot bind its tokens")
        self.report(
            f"{facts.identity.id}|{shape.client}|{shape.origin.net}",
            event,
            severity=severity,
            narrative=(
                f"{shape.client_name or shape.client or 'A client'} of {who(event)} had used only bound tokens since {when(held.first)} "
                f"({count} times) and succeeded with an unbound one from {place(shape.origin)}."
            ),
            subject=subject_of(facts.identity, event, credentials=event.mints[:1]),
            evidence=[event.id, held.last_event],
            traps=traps,
        )


def _count(held: Bound, identity: Identity) -> int:
    """How often the identity showed a bound token of this client."""
    return sum(use.count for shape in held.shapes if (use := identity.uses.get(shape)) is not None)
