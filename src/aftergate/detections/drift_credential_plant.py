"""A key, secret, owner or redirect address added to an identity by somebody else."""

from __future__ import annotations

from msgspec import Struct

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.conduct import NOWHERE, Place, Practice, automation, band, began, is_person, is_self, place_of, session_key
from aftergate.detections.reasoning import established, place, same_place, when, who
from aftergate.lineage.state import DAY_MS, HOUR_MS, Identity
from aftergate.lineage.tracking import Facts, plain
from aftergate.vocabulary import Event, Subject, Tag

_QUIET = frozenset(
    {"github.audit oauth_access.create", "github.audit oauth_access.regenerate", "github.audit gpg_key.create"}
)  # people do it to their own accounts all the time
_LIMIT = 20_000


class _Planted(Struct):
    """One addition, judged at the end, when it is known what became of it."""

    event: Event
    identity: Identity
    subject: Subject
    points: int
    reasons: list[str]
    traps: list[str]
    target: str
    alien: bool  # added to somebody else


class Detection(Rule):
    meta = Meta(
        slug="drift-credential-plant",
        title="Credential added to another identity",
        severity="high",
        about=(
            "A session gives another identity a key, secret, federated subject, password, owner or redirect address: a way back in that survives the "
            "session. Weighed are who managed the identity until now, where the session acts from, and where the new credential is used."
        ),
        attack=("T1098.001", "T1136.003", "T1671"),
        nhi=("NHI2", "NHI7"),
        needs=(("credential.add",), ("owner.add",), ("redirect.change",)),
        traps=(
            "Rotation: the same hand removes the old credential within a day, or the new one is used from where the old one was.",
            "Whoever creates an application or user also gives it its first credential.",
            "Pipelines that add federated subjects as part of a rollout.",
        ),
        blind=(
            "A credential that was planted before the logs begin.",
            "Logs that do not name the new credential cannot show where it is used.",
        ),
        recommended=(
            "Remove the added credential",
            "End the session that added it",
            "Ask the identity's owner whether it was wanted; rotate its other credentials",
        ),
    )
    subscriptions = (on(tags=[Tag.CREDENTIAL_ADD, Tag.OWNER_ADD, Tag.REDIRECT_CHANGE, Tag.IDENTITY_CREATE, Tag.APP_CREATE]),)

    def start(self) -> None:
        self.practice = Practice()
        self.planted: list[_Planted] = []
        self.made: dict[str, tuple[str, int]] = {}  # new identity -> who made it, when

    def step(self, event: Event, facts: Facts) -> None:
        if not event.ok or event.actor.first_party or event.actor.kind == "service":
            return
        identity = facts.identity
        tags = event.action.tags
        if Tag.IDENTITY_CREATE in tags or Tag.APP_CREATE in tags:
            for target in event.d.targets[:4]:
                for name in (target.id, *target.names):
                    self.made[plain(name)] = (identity.id, event.time)
        if not tags & {Tag.CREDENTIAL_ADD, Tag.OWNER_ADD, Tag.REDIRECT_CHANGE} or Tag.APP_CREATE in tags:
            return
        if len(self.planted) >= _LIMIT or f"{event.source} {event.action.name}" in _QUIET:
            return
        machine = automation(self.world, event, facts.session or facts.life)
        habit = self.practice.habit(identity, "add", event.time)
        self.practice.note(identity, "add", event, machine)
        points, alien, reasons = self._base(event, identity)
        if points <= 0:
            return
        where = place_of(self.world, identity, event)
        traps: list[str] = []
        points += self._circumstances(event, identity, alien, machine, habit, where, reasons, traps)
        goal = event.d.targets[0].id if event.d.targets else ""
        self.planted.append(
            _Planted(event, identity, subject_of(identity, event, credentials=event.d.issued), points, reasons, traps, goal, alien)
        )

    def _base(self, event: Event, identity: Identity) -> tuple[int, bool, list[str]]:
        """Weight of the addition itself, and whether it is to somebody else."""
        detail, tags = event.d, event.action.tags
        target = detail.targets[0] if detail.targets else None
        params = detail.params or {}
        if Tag.REDIRECT_CHANGE in tags:
            added = params.get("redirect_added") or [c.new for c in detail.changes if "redirect" in c.name.lower() and c.new]
            if not isinstance(added, list) or not added:
                return 0, False, []
            loose = any(
                isinstance(u, str) and ("*" in u or (u.startswith("http://") and "localhost" not in u and "127.0.0.1" not in u))
                for u in added
            )
            return 3 if loose else 2, True, [f"redirect address {added[0]} was added"]
        if Tag.OWNER_ADD in tags:
            owner = params.get("owner")
            own = isinstance(owner, str) and plain(owner) in identity.names
            return 2 if own else 1, True, ["it made itself an owner" if own else "an owner was added"]
        what = (detail.issued_class or "credential").replace("_", " ")
        name = event.action.name
        token = target is not None and target.type.lower() in ("token", "access_key")
        mine = (
            token
            or is_self(identity, event, target)
            or (target is not None and identity.id.startswith("arn:aws:iam:") and identity.id.rpartition("/")[2] in target.names)
        )
        if identity.id.endswith(":root") and (target is None or target.id == identity.id):
            return 4, False, ["the root user got a long-lived credential"]
        if event.source == "github.audit":
            writes = params.get("read_only") in (False, "false") and name.startswith("deploy_key")
            alien = not mine and target is not None and target.type != "repository"  # who works on a repository gives it keys
            return (2 if writes or "secret" in name else 1), alien, [f"{name.partition('.')[0].replace('_', ' ')} was added"]
        if name.startswith(("ec2:", "auth/approle")) or (event.source.startswith("vault") and "secret-id" in name):
            return 1, False, [f"a {what} was made"]
        if token and event.source == "okta":
            return 2, False, ["an API token with the person's own rights was made"]
        if params.get("passwordResetRequired") is True:
            return 1, not mine, [f"a {what} was set that must be changed"]
        return (1 if mine else 2), not mine, [f"a {what} was added"]

    def _circumstances(
        self, event: Event, identity: Identity, alien: bool, machine: bool, habit: bool, where: Place, reasons: list[str], traps: list[str]
    ) -> int:
        points = 0
        target = event.d.targets[0] if event.d.targets else None
        known = established(identity, event.time)
        if alien and is_person(event):
            points += 1
        if event.agent.kind == "tool":
            points += 1
            reasons.append(f"with {event.agent.family}")
        if where.score:
            points += where.score
            reasons.append(where.why)
        new = began(identity, event.action.name, event.time)
        if new and (alien or where.score):
            points += 1
            reasons.append("it never did this before")
        if target is not None and alien:
            before = [c for c in self.world.changes.get(target.id, ()) if c.added and c.time < event.time - HOUR_MS]
            if before and all(c.by is not identity for c in before):
                points += 1
                reasons.append("others managed this identity until now")
            elif before and where.score < 2:
                points -= 2
                traps.append("it manages this identity's credentials")
            maker = self.made.get(plain(target.id)) or next((self.made[plain(n)] for n in target.names if plain(n) in self.made), None)
            if maker is not None and maker[0] == identity.id and event.time - maker[1] <= DAY_MS and where.score < 2:
                points -= 2
                traps.append("it created this identity the same day")
        if self.directory.is_rotator(identity.id) and where.score < 2:
            points -= 3
            traps.append("registered rotator")
        elif machine and where is NOWHERE:
            points -= 2
            traps.append("a pipeline that changes the control plane by trade")
        elif habit and where.score < 2:
            points -= 1
            traps.append("adds credentials on other days too")
        elif known and where.score == 0 and not new:
            points -= 1
        return points

    def finish(self) -> None:
        near: dict[tuple[str, str], list[_Planted]] = {}
        for one in self.planted:
            near.setdefault((one.identity.id, one.target), []).append(one)
        for one in self.planted:
            points = one.points
            event = one.event
            if self._rotated(one):
                points -= 3
                one.traps.append("the same hand removed the old credential within a day")
            others = [o for o in near[one.identity.id, one.target] if o is not one and abs(o.event.time - event.time) <= HOUR_MS]
            if others and one.alien and any(o.event.action is not event.action for o in others):
                points += 1
                one.reasons.append("more than one way in was added")
            used, evidence = self._use(one)
            points += used
            severity = band(points)
            if severity is None:
                continue
            target = event.d.targets[0] if event.d.targets else None
            name = (target.names[-1] if target.names else target.id.rpartition("/")[2]) if target is not None else "an identity"
            self.report(
                session_key(one.identity, event),
                event,
                severity=severity,
                narrative=f"{who(event)} at {when(event.time)}, on {name}: {'; '.join(r for r in one.reasons if r)}.",
                subject=one.subject,
                evidence=evidence,
                traps=one.traps,
            )

    def _rotated(self, one: _Planted) -> bool:
        if Tag.CREDENTIAL_REMOVE in one.event.action.tags and one.event.d.issued:
            return True
        for change in self.world.changes.get(one.target, ()):
            if (
                not change.added
                and change.by is one.identity
                and abs(change.time - one.event.time) <= DAY_MS
                and change.key not in one.event.d.issued
            ):
                return True
        return False

    def _use(self, one: _Planted) -> tuple[int, list[str]]:
        """What the use of the new credential says: from the identity's own places, or from elsewhere."""
        if not one.alien:
            return 0, []
        for key in one.event.d.issued:
            life = self.world.lives.get(key)
            if life is None or not life.count or life.identity is None:
                continue
            owner = life.identity
            places = [o for o in life.origins() if o.known]
            before = [o for o, use in owner.origins().items() if o.known and use.first < one.event.time]
            if not places:
                continue
            if before and all(any(same_place(o, b) for b in before) for o in places):
                one.traps.append("the new credential is used from where the identity always worked")
                return -2, []
            strange = next((o for o in places if not any(same_place(o, b) for b in before)), None)
            if strange is not None and (before or (same_place(strange, one.event.origin) and is_person(one.event))):
                one.reasons.append(f"the new credential was used from {place(strange)}")
                return 2, [life.first_event]
        return 0, []
