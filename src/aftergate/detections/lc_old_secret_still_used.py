"""After a rotation the old key still authenticates: a consumer was missed, or somebody else has it."""

from __future__ import annotations

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import agent_new, homes, novelty, ours, place, same_place, span, when, who
from aftergate.lineage.state import DAY_MS, HOUR_MS, Life
from aftergate.lineage.tracking import B_AFTER_DEATH, B_NEW_LIFE, Facts
from aftergate.vocabulary import Bit, Event, Kind, Severity, Shape, Tag

REMOVED_MS = 2 * HOUR_MS  # until a removed key is refused everywhere
_CREATE = Kind.CREDENTIAL_CREATE
OVERLAP_MS = DAY_MS  # both keys in use: a normal rotation
IDLE_MS = 2 * DAY_MS  # an old key that nobody used for so long has been given up
_SHORT = frozenset({"access_token", "refresh_token", "session_key", "k8s_token", "cookie", "session", "id_token"})
_PASSING = ("graph.", "m365", "kubernetes", "google.", "keycloak", "auth0", "agents", "entra.noninteractive", "entra.signin", "oauth")


class _Rotation:
    """The newest key of an identity that replaces one of its older ones."""

    __slots__ = ("event", "new", "time")

    def __init__(self, new: str, time: int, event: str) -> None:
        self.new = new
        self.time = time
        self.event = event


class Detection(Rule):
    meta = Meta(
        slug="lc-old-secret-still-used",
        title="Old key still used after its rotation",
        severity="high",
        about=(
            "A key was rotated, its users moved to the new one, and the old one still signs in. From a known place it is a consumer that was forgotten; from an unknown place it is "
            "the reason why keys are rotated at all."
        ),
        attack=("T1550.001", "T1078.004"),
        nhi=("NHI7", "NHI9"),
        needs=(("credential", "origin.ip", "credential.add"), ("credential", "origin.ip")),
        traps=(
            "The overlap of a rotation: old and new key from known places for some days are normal, later ones a note.",
            "A key that was switched off and on again.",
            "Two keys for two consumers: without an addition in the log, the old key must have been given up first.",
        ),
        blind=("A thief who uses the old key from the consumer's own network.", "Logs that do not name the key."),
        recommended=(
            "Delete the old key",
            "Find the consumer that still holds it, by address and program",
            "Review what the old key did since the rotation",
        ),
        half_life_d=30.0,
    )
    subscriptions = (
        on(kinds=(Kind.CREDENTIAL_CREATE, Kind.TRUST_CHANGE)),
        on(bits=Bit.NEW_LIFE | Bit.LIFE_IP | Bit.LIFE_NET | Bit.LIFE_AGENT | Bit.GAP | Bit.AFTER_DEATH),
        # one look-up in a small dict for each workload sign-in: the only way to see a forgotten consumer, which brings nothing new
        on(kinds=(Kind.SILENT_SIGN_IN,), sources=("entra.serviceprincipal",)),
    )

    def wants(self, shape: Shape) -> bool:
        actor = shape.actor  # a role has session keys only, which nobody rotates
        return shape.error is None and not (
            shape.source.startswith("aws.") and (actor.role is not None or ":role/" in actor.id) and not shape.action.tags
        )

    def start(self) -> None:
        self.keys: dict[str, list[Life]] = {}  # identity -> its long-lived credentials, oldest first
        self.added: dict[str, tuple[int, str]] = {}  # key, or name of its owner -> when and by which event a key was added
        self.revived: dict[str, int] = {}
        self.late: dict[str, _Rotation] = {}  # old key -> what replaced it
        self.noted: dict[str, int] = {}
        self.strange: dict[str, set[str]] = {}  # old key -> networks that are no known consumer's

    def step(self, event: Event, facts: Facts) -> None:
        action = event.shape.action
        if action.kind is _CREATE or (action.tags and Tag.CREDENTIAL_ADD in action.tags):
            self._added(event)
        life = facts.life
        if life is None or life.is_session or event.credential is None or life.id.startswith("ASIA"):
            return
        if not facts.mask:
            rotation = self.late.get(life.id)
            if rotation is not None and event.time - rotation.time > OVERLAP_MS:
                self._known(event, facts, life, rotation)
            return
        if not _durable(life, event):
            return
        identity = facts.identity
        if facts.mask & B_AFTER_DEATH and life.death is not None:
            self._removed(event, facts, life)
            return
        held = self.keys.setdefault(identity.id, [])
        if facts.mask & B_NEW_LIFE:
            self._new(event, life, held)
            return
        rotation = self._rotation(event, facts, life, held)
        if rotation is not None:
            self._used(event, facts, life, rotation)

    def _added(self, event: Event) -> None:
        targets = event.d.targets
        names = [name for t in targets[:1] for name in (t.id, *t.names)]
        if Tag.CREDENTIAL_ADD in event.action.tags:
            for key in event.d.issued:
                self.added[key] = (event.time, event.id)
            for name in names:
                self.added[name] = (event.time, event.id)
        for target in targets[1:]:
            self.revived[target.id] = event.time
        shown = (event.d.params or {}).get("access_key")
        if isinstance(shown, str):
            self.revived[shown] = event.time

    def _new(self, event: Event, life: Life, held: list[Life]) -> None:
        added = self.added.get(life.id)
        if added is not None:
            for old in held[-3:]:
                if event.time - old.first >= DAY_MS and old.uses and _same_kind(old, life):
                    self.late[old.id] = _Rotation(life.id, event.time, added[1])
        if len(held) < 32:
            held.append(life)

    def _rotation(self, event: Event, facts: Facts, life: Life, held: list[Life]) -> _Rotation | None:
        known = self.late.get(life.id)
        if known is not None:
            return known
        for new in held:
            if new is life or new.first <= life.first or not _same_kind(life, new):
                continue
            # a person's keys come and go with machines and repositories: only a logged addition makes one a rotation
            given_up = (
                event.actor.kind != "human"
                and facts.gap_ms >= IDLE_MS
                and event.time - facts.gap_ms < new.first + 3 * DAY_MS
                and new.count > 2
            )
            if given_up:
                return _Rotation(new.id, new.first, new.first_event)
        identity = facts.identity
        for name in (identity.id, *sorted(identity.names)):
            added = self.added.get(name)
            if added is not None and life.first < added[0] - DAY_MS and event.time - added[0] >= OVERLAP_MS:
                return _Rotation("", added[0], added[1])  # a new key exists, its use is in a log we do not have
        return None

    def _used(self, event: Event, facts: Facts, life: Life, rotation: _Rotation) -> None:
        identity, now = facts.identity, event.time
        before = homes(identity, now)
        points, reasons = novelty(before, event.origin)
        if points and (ours(self.world, event.origin, identity) or self.directory.egress_ok(identity.id, event.origin.ip)):
            points, reasons = 0, ()
        strange = bool(before) and event.origin.known and not any(same_place(event.origin, home) for home in before)
        if agent_new(identity.agents, event):
            points += 1
            reasons = (*reasons, f"never with {event.agent.family}")
        if strange and points and facts.gap_ms >= IDLE_MS:
            points += 1
            reasons = (*reasons, f"after {span(facts.gap_ms)} without use")
        if points == 0:
            if event.time - rotation.time > OVERLAP_MS and not strange:
                self._known(event, facts, life, rotation)
            elif event.time - rotation.time > OVERLAP_MS:
                what = f"{span(now - rotation.time)} later the old key was used from {place(event.origin)}, an address that tells nothing."
                self._report(event, facts, life, rotation, "low", what, ("a consumer may have changed its address",))
            return
        if strange:
            self.strange.setdefault(life.id, set()).add(event.origin.net)
        severity: Severity = "high" if points >= 2 and strange else "medium" if strange else "low"
        self._report(
            event, facts, life, rotation, severity,
            f"{span(now - rotation.time)} later the old key was used from {place(event.origin)} with {event.agent.family}. {'; '.join(reasons).capitalize()}.",
            () if severity != "low" else ("a place this identity already had",),
        )  # fmt: skip

    def _known(self, event: Event, facts: Facts, life: Life, rotation: _Rotation) -> None:
        if event.origin.net in self.strange.get(life.id, ()):
            return
        day = event.time - event.time % DAY_MS
        if self.noted.get(life.id) == day:
            return
        self.noted[life.id] = day
        self._report(
            event, facts, life, rotation, "low",
            f"{span(event.time - rotation.time)} later a known consumer still uses the old key, from {place(event.origin)} with {event.agent.family}.",
            ("a known consumer that has not moved yet",),
        )  # fmt: skip

    def _removed(self, event: Event, facts: Facts, life: Life) -> None:
        death = life.death
        assert death is not None
        if (
            death.reason not in ("removed", "rotated")
            or event.time - death.time <= REMOVED_MS
            or self.revived.get(life.id, 0) >= death.time
        ):
            return
        self._report(
            event, facts, life, _Rotation("", death.time, death.event), "high",
            f"{span(event.time - death.time)} after it was removed the key still worked, from {place(event.origin)} with {event.agent.family}.", (),
        )  # fmt: skip

    def _report(
        self, event: Event, facts: Facts, life: Life, rotation: _Rotation, severity: Severity, what: str, traps: tuple[str, ...]
    ) -> None:
        self.report(
            f"{life.id}|{severity == 'low'}",
            event,
            severity=severity,
            narrative=f"A key of {who(event)} was rotated at {when(rotation.time)}; {what}",
            subject=subject_of(facts.identity, event),
            evidence=(rotation.event,) if severity != "low" else (),
            traps=traps,
            root=life.id,
        )


def _durable(life: Life, event: Event) -> bool:
    """True for keys that live until somebody rotates them."""
    if event.source.startswith(_PASSING) or life.id.startswith("ASIA"):
        return False
    return life.mint is None or life.mint.klass not in _SHORT


def _same_kind(a: Life, b: Life) -> bool:
    """A rotation replaces a key by one of its kind; between sources keys are not compared."""
    return a.source.partition(".")[0] == b.source.partition(".")[0]


__all__ = ["Detection"]
