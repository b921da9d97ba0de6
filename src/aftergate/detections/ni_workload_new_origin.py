"""A workload's credential is used from a network it was never used from."""

from __future__ import annotations

from typing import Final

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import (
    MACHINE,
    RENTED,
    agent_new,
    homes,
    nonhuman,
    novelty,
    ours,
    place,
    same_place,
    span,
    who,
)
from aftergate.lineage.state import DAY_MS, Identity
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Bit, Event, Kind, Origin, Severity, Shape

MOVED_TOGETHER_MS = 2 * DAY_MS
_WIDER: Final = int(Bit.IDENTITY_CLASS | Bit.IDENTITY_RESOURCE)
ROAMING = 4  # places that do not hang together: this workload lives everywhere


class Detection(Rule):
    meta = Meta(
        slug="ni-workload-new-origin",
        title="Workload credential used from a new network",
        severity="medium",
        about=(
            "A service principal, access key, robot user or service account that always worked from its own place authenticates from another kind of "
            "network. Workloads do not travel: either the deployment moved, or somebody else has the credential."
        ),
        attack=("T1078.004", "T1550.001"),
        nhi=("NHI2",),
        needs=(("origin.ip", "credential"), ("origin.ip", "client")),
        traps=(
            "Autoscaled machines and NAT pools: another address of the same provider, network or prefix is the same place.",
            "A roll-out moves several workloads together: lowered when three or more appear in the same network within two days.",
            "CI runners roam by design: federated pipelines are judged by repository and branch instead.",
            "A gateway the organisation uses, and egress the inventory declares.",
            "Rows of web back ends repeat the address of the first issue, and some logs name a service instead of an address.",
        ),
        blind=(
            "A thief in the same cloud provider.",
            "Without network tables two prefixes of an unknown kind are no evidence.",
        ),
        recommended=(
            "Ask the owner whether the workload moved",
            "Rotate the credential and delete the old one",
            "Restrict the credential to its networks",
        ),
    )
    subscriptions = (on(bits=Bit.LIFE_NET | Bit.IDENTITY_NET),)

    def wants(self, shape: Shape) -> bool:
        if not shape.origin.known or shape.actor.first_party or shape.action.kind is Kind.CREDENTIAL_CREATE:
            return False
        return shape.error is None or shape.action.kind not in (
            Kind.SIGN_IN,
            Kind.SILENT_SIGN_IN,
            Kind.TOKEN_ISSUE,
            Kind.TOKEN_REFRESH,
            Kind.TOKEN_EXCHANGE,
        )

    def start(self) -> None:
        self.moves: list[tuple[str, str, Event, Identity]] = []  # key, network, event: roll-outs show at the end
        self.told: set[tuple[str, str]] = set()

    def step(self, event: Event, facts: Facts) -> None:
        origin, identity, now = event.origin, facts.identity, event.time
        access_key = event.actor.kind == "unknown" and (event.credential or "").startswith("AKIA")
        if not (access_key or nonhuman(identity, event)) or _federated(event, facts):
            return
        life = facts.life if facts.life is not None and not facts.life.is_session else None
        durable = life is not None and life.count > 5 and now - life.first >= 2 * DAY_MS
        if not durable and (identity.count <= 5 or identity.days_seen(now) < 2):
            return
        holder = life if durable and life is not None else identity
        before = homes(holder, now)
        if not before or any(same_place(origin, home) for home in before):
            return
        elsewhere = [home for home in homes(identity, now) if home not in before]
        if any(same_place(origin, home) for home in elsewhere):
            return  # this key is new here, its identity is not
        if ours(self.world, origin, identity) or self.directory.egress_ok(identity.id, origin.ip):
            return
        points, reasons = novelty([*before, *elsewhere], origin)
        rented = origin.network in RENTED and not any(home.network in RENTED for home in before)
        if len(_places(before)) >= ROAMING and not rented:
            return
        new_program = agent_new(identity.agents, event)
        if new_program:
            points += 2 if event.agent.kind == "tool" else 1
            reasons = (*reasons, f"never with {event.agent.family}")
        if facts.mask & _WIDER and identity.count > 30:
            points += 1
            reasons = (*reasons, "and does what it never did")
        if points <= 0:
            return
        if origin.network == "vendor":
            points = min(points, 1)  # a vendor's own servers: scanners that test a leaked key, webhooks
        if access_key and not {home.network for home in before} <= MACHINE and not (rented and new_program):
            points = min(points, 1)  # a person's own key travels with the person
        severity: Severity = "low"
        if rented and (new_program or any(klass.endswith(":admin") for klass in identity.klasses)):
            severity = "high"
        elif points >= 2:
            severity = "medium"
        key = f"{holder.id}|{origin.net}"
        if (holder.id, origin.net) not in self.told:
            self.told.add((holder.id, origin.net))
            self.moves.append((key, origin.provider or origin.net, event, identity))
        self.report(
            key,
            event,
            severity=severity,
            narrative=(
                f"{who(event)} was used from {place(origin)} with {event.agent.family}; for {span(now - holder.first)} it was used only from "
                f"{_list(before)}. {'; '.join(reasons).capitalize()}."
            ),
            subject=subject_of(identity, event),
            traps=() if severity != "low" else ("little speaks for another hand: the deployment may have moved",),
        )

    def finish(self) -> None:
        """A roll-out: several workloads appear in one place together, each with its own program."""
        groups: dict[str, list[tuple[str, Event, Identity]]] = {}
        for key, net, event, identity in self.moves:
            groups.setdefault(net, []).append((key, event, identity))
        for group in groups.values():
            for key, event, identity in group:
                if event.origin.network in RENTED or agent_new(identity.agents, event):
                    continue
                near = {other.id for _, e, other in group if abs(e.time - event.time) <= MOVED_TOGETHER_MS}
                found = self.book.get(self.meta.slug, key)
                if len(near) >= 3 and found is not None:
                    found.severity = "low"
                    found.traps = (*found.traps, "several workloads moved here together: a roll-out")


def _federated(event: Event, facts: Facts) -> bool:
    """True for CI and other federated logins, which come from wherever a runner stands."""
    detail = event.d
    if detail.grant in ("web_identity", "token_exchange", "jwt_bearer") or detail.credential_type == "federated" or detail.run is not None:
        return True
    mint = facts.life.mint if facts.life is not None else None
    return mint is not None and (
        mint.grant in ("web_identity", "token_exchange") or (mint.detail is not None and mint.detail.run is not None)
    )


def _places(origins: list[Origin]) -> list[Origin]:
    """One origin for each place."""
    found: list[Origin] = []
    for origin in origins:
        if not any(same_place(origin, other) for other in found):
            found.append(origin)
    return found


def _list(origins: list[Origin]) -> str:
    places = _places(origins)
    said = ", ".join(place(o) for o in places[:3])
    return f"{said} and {len(places) - 3} more" if len(places) > 3 else said
