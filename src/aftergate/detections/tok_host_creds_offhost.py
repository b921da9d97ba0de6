"""Instance, pod or function credentials used outside that host's network."""

from __future__ import annotations

import re

from aftergate.detections.api import Meta, Rule, lower, on, subject_of
from aftergate.lineage.state import DAY_MS
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Bit, Event, Origin, Severity

_INSTANCE = re.compile(r"/i-[0-9a-f]{8,17}\Z")
# roles of managed compute: their sessions are named by the service, so the credential was handed out inside it
_FUNCTION = re.compile(r"(?:aws:ec2-instance|lambda|ecs-tasks|eks-pod-identity|codebuild|/eks-)", re.IGNORECASE)


class _Host:
    """Where the credentials of one host or attached account have been used."""

    __slots__ = ("agents", "origins")

    def __init__(self) -> None:
        self.origins: dict[Origin, tuple[int, str]] = {}  # first seen, event
        self.agents: set[str] = set()


class Detection(Rule):
    meta = Meta(
        slug="tok-host-creds-offhost",
        title="Machine credentials used off the machine",
        severity="high",
        about=(
            "A cloud machine gets short-lived credentials from its metadata service. Used from a network that is not the machine's, they were taken "
            "from it. The machine itself often works on beside the thief."
        ),
        attack=("T1552.005", "T1550.001", "T1078.004"),
        nhi=("NHI2",),
        needs=(("origin.ip", "credential", "session"),),
        traps=(
            "Calls by an AWS service on the machine's behalf name the service instead of an address: never a place.",
            "NAT gateways, VPC endpoints and IPv6 beside IPv4: addresses of the same provider count as the machine's own cloud.",
            "A central egress gateway that other machines use too.",
        ),
        blind=("A thief who works from inside the same cloud account or network looks like the machine.",),
        recommended=(
            "Deny this one session by aws:userid with an inline policy, or delete the pod",
            "Detach the instance profile, then revoke sessions of the role older than now",
            "Isolate and image the machine",
        ),
    )
    subscriptions = (on(sources=("aws.", "gcp."), bits=Bit.LIFE_IP | Bit.SESSION_NET | Bit.IDENTITY_IP | Bit.NEW_LIFE),)

    def start(self) -> None:
        self.hosts: dict[str, _Host] = {}

    def step(self, event: Event, facts: Facts) -> None:
        origin = event.origin
        host = _host_of(event)
        if host is None or not (origin.known or origin.network == "private"):
            return
        held = self.hosts.get(host)
        if held is None:
            held = self.hosts[host] = _Host()
        if origin in held.origins:
            return
        before = dict(held.origins)
        held.origins[origin] = (event.time, event.id)
        known_agent = event.agent.family in held.agents
        held.agents.add(event.agent.family)
        if not before or not origin.known or not event.ok and not event.credential:
            return
        if any(_same_place(origin, other) for other in before) or self.directory.egress_ok(event.actor.id, origin.ip):
            return
        if self.world.shared_net(origin.net, facts.identity) >= 3:
            return  # many identities leave by it: the organisation's own egress
        home = min(before.items(), key=lambda item: item[1])[0]
        severity: Severity = "high"
        traps = []
        if known_agent and origin.provider is not None and origin.provider == home.provider:
            severity, traps = lower("high"), ["same cloud provider and same program as before"]
        place = origin.asn_name or origin.provider or origin.net
        self.report(
            f"{host}|{origin.net}",
            event,
            severity=severity,
            narrative=(
                f"Credentials of {host.rpartition('/')[2]} were used from {origin.ip} ({place}, {event.agent.family}); until then they were used "
                f"only from {home.ip} ({home.provider or home.net}). Somebody took them off the machine."
            ),
            subject=subject_of(facts.identity, event),
            evidence=[e for _, e in list(before.values())[-3:]],
            traps=traps,
        )


def _host_of(event: Event) -> str | None:
    """The machine or attached account whose credentials these are, or None."""
    session = event.session
    if event.source.startswith("aws."):
        if session is not None and (_INSTANCE.search(session) or _FUNCTION.search(session)):
            return session
        return None
    if event.source == "gcp.audit" and event.actor.kind == "workload" and event.credential is None and not event.d.act:
        return event.actor.id  # attached account: no key was shown and nobody impersonated it
    return None


def _same_place(a: Origin, b: Origin) -> bool:
    """One egress, as far as can be told: same network, or the same cloud's addresses."""
    if a.net == b.net:
        return True
    if a.provider is not None and a.provider == b.provider:
        return True
    if a.ip is not None and b.ip is not None and (":" in a.ip) != (":" in b.ip):
        return a.asn is not None and a.asn == b.asn
    return b.network == "private" and a.network == "private"


__all__ = ["DAY_MS", "Detection"]
