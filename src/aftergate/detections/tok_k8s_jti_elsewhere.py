"""A service account's token is used away from the pod or node it was issued for."""

from __future__ import annotations

from msgspec import Struct

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import org_egress, place, when, who
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Bit, Event, Origin, Severity

_PERSON = frozenset({"kubectl", "curl", "helm", "k9s", "oc", "python-requests", "wget"})


class Address(Struct):
    """Who uses a cluster-inner address: the pods of tokens, and nodes."""

    pods: set[str]
    node: str | None = None


class Detection(Rule):
    meta = Meta(
        slug="tok-k8s-jti-elsewhere",
        title="Pod token used away from its pod",
        severity="high",
        about=(
            "A pod's token is issued for that pod on that node. Used from outside the cluster, with another pod's or node's name, or from another "
            "pod's address, it was read out of the pod and carried away."
        ),
        attack=("T1528", "T1552.007", "T1550.001"),
        nhi=("NHI2", "NHI9"),
        needs=(("credential", "origin.ip", "pod"), ("credential", "origin.ip", "token.mint")),
        traps=(
            "Pods on the host's network and pods masqueraded behind their node show a node's address.",
            "A load balancer or gateway before the API server: an address that many service accounts show is the cluster's own way out.",
            "A rescheduled pod gets a new token; another node with another token is no change.",
        ),
        blind=("A second pod behind the same node address.", "Tokens of clusters whose audit policy leaves out credential ids."),
        recommended=(
            "Delete the pod: its bound tokens end with it",
            "Rotate what the service account could read",
            "Look for how the token was read: exec into the pod, a file read, a log line",
        ),
    )
    # addresses are learned only when something about the token or the account is new
    subscriptions = (on(sources=("kubernetes.",), bits=Bit.NEW_LIFE | Bit.LIFE_IP | Bit.IDENTITY_IP | Bit.LIFE_AGENT),)

    def start(self) -> None:
        self.addresses: dict[str, Address] = {}
        self.homes: dict[str, tuple[str | None, str | None, str | None]] = {}  # token -> pod uid, pod, node as first known
        self.inner: set[str] = set()  # accounts that were used from inside the cluster

    def step(self, event: Event, facts: Facts) -> None:
        origin = event.origin
        actor = event.actor.id
        if actor.startswith("system:node:") and origin.ip is not None:
            self.addresses.setdefault(origin.ip, Address(set())).node = actor.removeprefix("system:node:")
            return
        token = event.credential
        if token is None or not token.startswith("JTI=") or not actor.startswith("system:serviceaccount:") or origin.ip is None:
            return
        detail = event.d
        mint = facts.life.mint if facts.life is not None else None
        issued = mint.detail if mint is not None else None
        home = self.homes.get(token)
        if home is None:
            known = issued if issued is not None else detail
            home = self.homes[token] = (known.bound, known.pod, known.node)
        uid, pod, node = home
        if event.ok and (moved := _moved(home, (detail.bound, detail.pod, detail.node))):
            self._tell(event, facts, "critical", f"as {moved}, but it was issued for {pod or uid or node}")
            return
        if not origin.known:
            self.inner.add(actor)
            if origin.network == "private":
                self._inside(event, facts, origin, uid or pod, node)
            return
        if (origin.provider is None and org_egress(self.world, origin, facts.identity)) or self.directory.egress_ok(actor, origin.ip):
            return
        if self.world.shared_net(origin.net, facts.identity) >= 3 or self._usual(facts, origin, event.time):
            return
        if actor in self.inner or (uid or pod) is not None:
            self._tell(event, facts, "high", f"from outside the cluster, {place(origin)}, with {event.agent.family}")

    def _usual(self, facts: Facts, origin: Origin, now: int) -> bool:
        """A cluster whose pods reach the API server through a public address: the account's own first way."""
        first = facts.identity.net_first.get(origin.net)
        return first is not None and first < now and facts.identity.nets()[origin.net].days > 1 and facts.identity.id not in self.inner

    def _inside(self, event: Event, facts: Facts, origin: Origin, pod: str | None, node: str | None) -> None:
        """From another pod's own address, or by a person's program from an address no pod or node has."""
        assert origin.ip is not None
        address = self.addresses.setdefault(origin.ip, Address(set()))
        mine = pod or event.actor.id
        stranger = address.pods - {mine}
        life = facts.life
        if life is not None and life.count > 1 and facts.has(Bit.LIFE_IP) and mine not in address.pods and event.ok:
            others = [s for s in life.uses if s.origin.ip != origin.ip and s.origin.network == "private"]
            tool = facts.has(Bit.LIFE_AGENT) and event.agent.family in _PERSON
            if others and len(stranger) == 1 and not address.node and not origin.ip.endswith(".1"):
                grade: Severity = "high" if tool else "medium"
                self._tell(event, facts, grade, f"from {origin.ip}, the address of another pod, with {event.agent.family}")
            elif others and tool and not stranger and address.node != node:
                where = f"node {address.node}" if address.node else "no pod or node"
                self._tell(event, facts, "high", f"from {origin.ip}, an address of {where}, with {event.agent.family}")
        if len(address.pods) < 8:
            address.pods.add(mine)

    def _tell(self, event: Event, facts: Facts, severity: Severity, how: str) -> None:
        life = facts.life
        since = f" first used {when(life.first)}" if life is not None else ""
        self.report(
            f"{event.credential}",
            event,
            severity=severity,
            narrative=f"A pod token of {who(event)},{since}, was used {how}. Somebody carried it out of its pod.",
            subject=subject_of(facts.identity, event),
        )


def _moved(home: tuple[str | None, ...], now: tuple[str | None, ...]) -> str:
    """What the token says of its place now, where that contradicts what it was issued for."""
    for was, shown in zip(home, now, strict=True):
        if was is not None and shown is not None and was != shown:
            return shown
    return ""
