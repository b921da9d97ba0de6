"""A workload that always showed one kind of credential shows another, or another key, from a strange place."""

from __future__ import annotations

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import agent_new, homes, nonhuman, novelty, ours, place, span, when, who
from aftergate.lineage.state import DAY_MS
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Bit, Event, Severity, Shape, Tag

ADDED_MS = 90 * DAY_MS  # how long before its first use an addition may lie
DURABLE = frozenset({"secret", "certificate", "key", "api_key", "access key", "password"})
_NAMES = {
    "session": "session keys",
    "access key": "an access key",
    "secret": "a client secret",
    "certificate": "a certificate",
    "federated": "a federated assertion",
    "key": "a key",
    "impersonation": "impersonation",
    "managed_identity": "the identity of its machine",
    "role by web_identity": "a role taken with a federated token",
    "role by assume_role": "a role taken with another credential",
    "role by saml": "a role taken through single sign-on",
}


class _Added:
    """One credential added to some identity: by whom, when."""

    __slots__ = ("by", "event", "machine", "stranger", "time", "who")

    def __init__(self, event: Event, by: str, machine: bool, stranger: bool) -> None:
        self.time = event.time
        self.event = event.id
        self.by = by
        self.who = who(event)
        self.machine = machine
        self.stranger = stranger


class Detection(Rule):
    meta = Meta(
        slug="ni-cred-type-switch",
        title="Workload authenticates with another kind of credential",
        severity="high",
        about=(
            "An application that always came by federation, certificate or its machine's identity suddenly shows a client secret or key. Adding a credential of "
            "one's own is how a thief keeps access to an application after the stolen session ends."
        ),
        attack=("T1098.001", "T1550.001"),
        nhi=("NHI7",),
        needs=(("credential.type", "credential"), ("credential.type", "origin.ip"), ("credential", "origin.ip")),
        traps=(
            "A planned move to federation or certificates: added by the pipeline that manages it, used from the same place with the same program.",
            "Rotation: another key of the same kind, from the same place.",
            "The first days of an application.",
        ),
        blind=("A thief who adds a credential of the usual kind and uses it from the workload's own network.",),
        recommended=(
            "Delete the new credential",
            "Ask the owner, and review what the adding session did",
            "Forbid secrets on this application by policy",
        ),
        half_life_d=30.0,
    )
    subscriptions = (
        on(tags=(Tag.CREDENTIAL_ADD,)),
        on(bits=Bit.NEW_LIFE | Bit.LIFE_NET | Bit.IDENTITY_IP | Bit.IDENTITY_AGENT | Bit.IDENTITY_NET),
    )

    def wants(self, shape: Shape) -> bool:
        return shape.error is None and (not shape.actor.first_party or Tag.CREDENTIAL_ADD in shape.action.tags)

    def start(self) -> None:
        self.kinds: dict[str, dict[str, tuple[int, set[str]]]] = {}  # identity -> kind -> (first seen, credential ids)
        self.calm: set[tuple[str, str, str | None] | None] = set()  # role, source and grant that are known of it
        self.by_key: dict[str, _Added] = {}
        self.by_target: dict[str, _Added] = {}
        self.managers: dict[str, set[str]] = {}  # target -> who added credentials to it before

    def step(self, event: Event, facts: Facts) -> None:
        if event.shape.action.tags and Tag.CREDENTIAL_ADD in event.shape.action.tags:
            self._added(event, facts)
        if event.shape.actor.first_party:
            return
        life = facts.life
        mint = life.mint if life is not None else None
        known = (facts.identity.id, event.source, mint.grant) if mint is not None else None
        if known in self.calm:
            return
        kind = _kind(event, facts)
        if known is not None and kind is not None and kind.startswith("role by") and kind in self.kinds.get(facts.identity.id, ()):
            self.calm.add(known)
            return
        if kind is None or (kind not in DURABLE and kind in self.kinds.get(facts.identity.id, ())):
            return
        if not (nonhuman(facts.identity, event) or (event.actor.kind == "unknown" and event.source.startswith("aws."))):
            return
        identity, now = facts.identity, event.time
        seen = self.kinds.setdefault(identity.id, {})
        held = seen.get(kind)
        key = event.credential or ""
        if held is not None and (not key or key in held[1]):
            return
        fresh = held is None
        if held is None:
            held = seen[kind] = (now, set())
        if key and len(held[1]) < 64:
            held[1].add(key)
        if (fresh and len(seen) < 2) or identity.count <= 5 or identity.days_seen(now) < 2:
            return
        if not fresh and (kind not in DURABLE or not key or event.source == "github.audit"):
            return  # short-lived credentials change all the time
        self._judge(event, facts, kind, fresh, [k for k in seen if k != kind])

    def _judge(self, event: Event, facts: Facts, kind: str, fresh: bool, usual: list[str]) -> None:
        identity, now = facts.identity, event.time
        before = homes(identity, now)
        points, reasons = novelty(before, event.origin)
        if points and ours(self.world, event.origin, identity):
            points, reasons = 0, ()
        if agent_new(identity.agents, event):
            points += 1
            reasons = (*reasons, f"never with {event.agent.family}")
        added = self._who_added(event, identity.id, identity.names)
        severity: Severity = "low"
        traps: list[str] = []
        stranger = added is not None and added.stranger and not added.machine
        if (points >= 2 and (fresh or stranger or points >= 3)) or (stranger and points >= 1):
            severity = "high"
        elif points >= 2 or (points == 1 and fresh and added is None and event.origin.network != "cloud"):
            severity = "medium"
        if severity == "low" and (not fresh or kind.startswith("role by")):
            return  # a rotation; or a role that two callers share
        if added is not None and (
            self.directory.is_rotator(added.by) or self.directory.is_deployer(added.by) or (added.machine and points < 2)
        ):
            severity = "low"
            traps.append("added by the pipeline or rotator that manages it")
        elif severity == "low":
            traps.append("the same place and program as before: looks like a planned move")
        if self.directory.ticket_for((identity.id, *identity.names), now):
            severity = "low"
            traps.append("a change ticket covers it")
        shown = _NAMES.get(kind, kind)
        was = " or ".join(_NAMES.get(k, k) for k in usual) if fresh else "other keys"
        by = f" It was added by {added.who} at {when(added.time)}." if added is not None else ""
        self.report(
            f"{identity.id}|{kind}|{event.credential or ''}" if not fresh or kind in DURABLE else f"{identity.id}|{kind}",
            event,
            severity=severity,
            narrative=(
                f"{who(event)} used {shown} from {place(event.origin)}; for {span(now - identity.first)} it had used only {was}."
                f"{by}{' ' + '; '.join(reasons).capitalize() + '.' if reasons else ''}"
            ),
            subject=subject_of(identity, event),
            evidence=(added.event,) if added is not None else (),
            traps=traps,
        )

    def _added(self, event: Event, facts: Facts) -> None:
        targets = event.d.targets
        names = [name for t in targets[:1] for name in (t.id, *t.names)]
        known = any(facts.identity.id in self.managers.get(name, ()) for name in names)
        # a person who never managed this target, where the person has no habit of it
        added = _Added(
            event,
            facts.identity.id,
            event.actor.kind in ("workload", "service", "third_party_app"),
            not known and not self._own(facts, names),
        )
        for key in event.d.issued:
            self.by_key[key] = added
        for name in names:
            self.by_target[name] = added
            self.managers.setdefault(name, set()).add(facts.identity.id)

    @staticmethod
    def _own(facts: Facts, names: list[str]) -> bool:
        return any(name == facts.identity.id or name in facts.identity.names for name in names)

    def _who_added(self, event: Event, identity: str, names: set[str]) -> _Added | None:
        if event.credential and (found := self.by_key.get(event.credential)) is not None:
            return found
        for name in (identity, *sorted(names)):
            found = self.by_target.get(name)
            if found is not None and event.time - found.time <= ADDED_MS:
                return found
        return None


def _kind(event: Event, facts: Facts) -> str | None:
    """What kind of credential the caller showed; None where the log does not tell."""
    detail = event.d
    if event.source.startswith("gcp."):
        if event.credential:
            return "key"
        if detail.act:
            return "impersonation"
    if event.source == "aws.cloudtrail":
        key = event.credential or ""
        if key.startswith("AKIA"):
            return "access key"
        if not key.startswith("ASIA"):
            return None
        if ":user/" in event.actor.id:
            return "session"
        mint = facts.life.mint if facts.life is not None else None
        return f"role by {mint.grant}" if mint is not None and mint.grant in ("web_identity", "assume_role", "saml") else None
    kind = detail.credential_type
    if kind is None or kind in ("none", "") or event.source in ("graph.activity", "entra.audit", "vault", "github.secret_scanning"):
        return None
    return kind
