"""A token or key for an identity made by somebody who does not usually make them."""

from __future__ import annotations

from msgspec import Struct, field

from aftergate.detections.api import Meta, Rule, lower, on, subject_of
from aftergate.detections.conduct import IAC, is_person, is_self
from aftergate.detections.pipelines import pipeline_of
from aftergate.detections.reasoning import established, machine_named, place, strangeness, test_named, when, who
from aftergate.lineage.state import DAY_MS, HOUR_MS, Identity
from aftergate.lineage.tracking import Facts, plain
from aftergate.vocabulary import Event, Kind, Severity, Subject, Tag
from aftergate.vocabulary.patterns import regex

_SOURCES = ("kubernetes.", "gcp.", "aws.", "entra.", "vault")
_LIMIT = 20_000
_MACHINE_NAME = regex(
    r"(?:^|[^a-z])(?:svc|service|bot|robot|machine|app|ci|cd|deploy(?:er)?|backup|sync|batch|mailer|exporter|importer|agent|probe|etl|job|worker|api)(?:[^a-z]|\Z)"
)


class _Minter(Struct):
    """What one identity makes for others."""

    first: int
    last: int = 0
    count: int = 0
    targets: set[str] = field(default_factory=set)
    days: set[int] = field(default_factory=set)


class _Odd(Struct):
    """One odd minting, told at the end, when it is known where its product was used."""

    event: Event
    subject: Subject
    severity: Severity
    target: str
    reason: str
    traps: list[str]
    used: list[tuple[str, str]] = field(default_factory=list)  # event, place
    known: bool = True  # the target had minters before


class Detection(Rule):
    meta = Meta(
        slug="tok-odd-minter",
        title="Token made by an unusual hand",
        severity="high",
        about=(
            "Tokens of a machine identity are made by its platform, its operator or its rotation job, the same few every day. A person or another workload "
            "that suddenly makes one takes the identity's rights without its secret."
        ),
        attack=("T1098.001", "T1528"),
        nhi=("NHI2", "NHI10"),
        needs=(("token.mint",), ("credential.add",), ("impersonate",)),
        traps=(
            "Nodes and cluster controllers make tokens for the pods they host all day.",
            "Operators and token brokers that serve many identities take on new ones.",
            "Rotation: another token of the same identity is removed in the same run.",
            "Whoever creates an identity makes its first credential; infrastructure tools make them under review.",
            "People who do it again and again, as developers do.",
        ),
        blind=(
            "Who minted is unknown where the log begins later than the habit.",
            "A token made by the usual minter that was itself taken over.",
        ),
        recommended=(
            "Revoke the token, or delete the object it is bound to",
            "Ask the person or workload that made it",
            "Take away the right to make tokens for others (serviceaccounts/token, TokenCreator, CreateAccessKey)",
        ),
    )
    subscriptions = (
        on(kinds=[Kind.TOKEN_ISSUE, Kind.TOKEN_EXCHANGE], sources=("kubernetes.", "gcp.")),  # O(1) for the many that nodes and brokers make
        on(tags=[Tag.CREDENTIAL_ADD, Tag.CREDENTIAL_REMOVE, Tag.IDENTITY_CREATE, Tag.APP_CREATE], sources=_SOURCES),
    )

    def start(self) -> None:
        self.minters: dict[str, _Minter] = {}
        self.of: dict[str, dict[str, int]] = {}  # target -> minter -> how often; the platform is ""
        self.odd: list[_Odd] = []
        self.issued: dict[str, _Odd] = {}
        self.made: dict[str, str] = {}  # new identity -> who created it
        self.removed: dict[tuple[str, str], list[int]] = {}  # minter and target -> when it removed a credential

    def on_watched(self, event: Event, facts: Facts) -> None:  # noqa: ARG002
        odd = self.issued.get(event.credential or "")
        if odd is not None and len(odd.used) < 5:
            odd.used.append((event.id, place(event.origin)))

    def step(self, event: Event, facts: Facts) -> None:
        action, tags, identity = event.action, event.action.tags, facts.identity
        if not event.ok:
            return
        detail = event.d
        if not detail.targets:
            return
        if Tag.IDENTITY_CREATE in tags or Tag.APP_CREATE in tags:
            for target in detail.targets[:4]:
                self.made[plain(target.id)] = identity.id
            if Tag.CREDENTIAL_ADD not in tags:
                return
        target = detail.targets[0]
        name = plain(target.id)
        if Tag.CREDENTIAL_REMOVE in tags:
            self.removed.setdefault((identity.id, name), []).append(event.time)
        minting = Tag.CREDENTIAL_ADD in tags or action.kind is Kind.TOKEN_ISSUE
        if not minting or action.name.startswith("ec2:") or (event.source == "gcp.audit" and action.kind is Kind.TOKEN_EXCHANGE):
            return
        if target.type.lower() in ("token", "access_key", "key") or pipeline_of(event) is not None:
            return
        held = self.of.setdefault(name, {})
        platform = detail.grant == "projected" or event.actor.first_party or event.actor.kind == "service"
        if platform or is_self(identity, event, target):
            held[""] = held.get("", 0) + 1
            return
        minter = self.minters.get(identity.id)
        if minter is None:
            minter = self.minters[identity.id] = _Minter(event.time)
        if identity.id not in held and len(self.odd) < _LIMIT:
            self._judge(event, facts, name, held, minter)
        held[identity.id] = held.get(identity.id, 0) + 1
        minter.count += 1
        minter.last = event.time
        if len(minter.targets) < 50:
            minter.targets.add(name)
        if len(minter.days) < 10:
            minter.days.add(event.time // DAY_MS)

    def _judge(self, event: Event, facts: Facts, name: str, held: dict[str, int], minter: _Minter) -> None:
        identity, detail, now = facts.identity, event.d, event.time
        person = is_person(event)
        others = sum(held.values())
        key = Tag.CREDENTIAL_ADD in event.action.tags
        traps: list[str] = []
        severity: Severity = "high"
        if self.made.get(name) == identity.id:
            return
        known = established(identity, now)
        broker = (minter.count >= 3 and now - minter.first >= DAY_MS / 2) or len(minter.targets) >= 3
        if not person:
            if broker or self.directory.is_rotator(identity.id) or not known or event.agent.family in IAC:
                return  # an operator, or one whose habits are not known
            if key:
                # new rotators and pipelines look the same: without more it is only a note
                severity, reason = "low", "it never made a credential for another identity"
                if strangeness(self.world, identity, event).score >= 2:
                    severity = "medium"
            else:
                reason = "a workload that never made tokens for others"
                severity = "high" if others else "medium"
        else:
            if not self._machine(name, event):
                return  # people's own credentials: a key planted on a colleague is judged by drift-credential-plant
            if key:
                severity = "medium" if (others and "" not in held) or len(held) > 1 else "low"
                reason = "until now others made its credentials" if others else "a person made it by hand"
            elif others >= 3:
                reason = "a person; until now the platform or its operator made its tokens"
            else:
                severity, reason = ("medium" if known or self._busy(name) else "low"), "a person made it by hand"
            habit = len(minter.days - {now // DAY_MS}) >= 2 or machine_named(identity)
            if habit:
                severity, traps = "low", ["this person makes such tokens regularly"]
            elif event.agent.family in IAC:
                severity, traps = lower(severity), ["made with an infrastructure tool"]
        if severity != "low" and test_named(name):
            severity, traps = lower(severity), [*traps, "by its name not production"]
        strange = strangeness(self.world, identity, event)
        if strange.score >= 3 and severity == "medium" and not traps:
            severity = "high"
        if self.directory.ticket_for([name, identity.id], now):
            severity, traps = "low", [*traps, "a change ticket covers it"]
        odd = _Odd(event, subject_of(identity, event, credentials=detail.issued), severity, name, reason, traps, known=others > 0)
        self.odd.append(odd)
        for issued in detail.issued:
            self.issued[issued] = odd
            self.watch(issued)

    def _machine(self, name: str, event: Event) -> bool:
        """True when the target is no person: by its kind, its name, or by the programs that it uses."""
        if name.startswith("system:serviceaccount:") or "gserviceaccount.com" in name or event.source.startswith(("entra.", "vault")):
            return True
        short = name.rpartition("/")[2]
        if event.source != "aws.cloudtrail" or "@" in short:
            return False
        target = self.world.identity(name)
        if target is None or not target.count:
            return bool(_MACHINE_NAME.search(short))
        kinds = {shape.agent.kind for shape in target.uses} - {"unknown"}
        return (bool(kinds) and not kinds & {"browser", "cli", "desktop_app"}) or bool(_MACHINE_NAME.search(short))

    def _busy(self, name: str) -> bool:
        """True for an identity that has been at work for days without this minter."""
        target = self.world.identity(name)
        return target is not None and target.count > 10 and target.days_seen(self.world.now) >= 2

    def finish(self) -> None:
        for odd in self.odd:
            event = odd.event
            by = self._actor(event)
            severity, traps = odd.severity, list(odd.traps)
            if any(abs(gone - event.time) < DAY_MS for gone in self.removed.get((by, odd.target), ())):
                continue  # a rotation
            if self._operator(by, event):
                severity, traps = "low", [*traps, "it goes on making tokens as an operator does"]
            used = f" It was then used from {odd.used[0][1]}." if odd.used else ""
            self.report(
                f"{event.actor.id}|{odd.target}|{event.time // HOUR_MS}", event, severity=severity, traps=traps, subject=odd.subject,
                evidence=[event.id, *(e for e, _ in odd.used)],
                narrative=f"At {when(event.time)} {who(event)} made a {(event.d.issued_class or 'credential').replace('_', ' ')} for {odd.target} from {place(event.origin)}: {odd.reason}.{used}",
            )  # fmt: skip

    def _operator(self, by: str, event: Event) -> bool:
        """True for a workload that from then on makes tokens regularly, from inside, with a program of its own."""
        minter = self.minters.get(by)
        if minter is None or is_person(event) or event.agent.kind in ("cli", "http_library") or event.origin.known:
            return False
        return minter.count >= 5 and minter.last - minter.first >= 6 * HOUR_MS

    def _actor(self, event: Event) -> str:
        found: Identity | None = self.world.identity(event.actor.id)
        return found.id if found is not None else event.actor.id
