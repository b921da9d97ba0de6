"""A token is used whose id the issuer never logged, while the issuer's log is complete for that time."""

from __future__ import annotations

from itertools import pairwise

from msgspec import Struct

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import place, strangeness, when, who
from aftergate.lineage.state import DAY_MS, HOUR_MS, MINUTE_MS, Life
from aftergate.lineage.tracking import B_UNMINTED, Facts
from aftergate.vocabulary import Bit, Event, Kind, Severity, Shape

# logs whose short-lived tokens have ids both where they are issued and where they are used, and the log that issues
_ISSUERS = {
    "kubernetes.audit": "kubernetes.audit",
    "graph.activity": "entra",
    "m365.audit": "entra",
    "keycloak": "keycloak",
    "oauth.server": "oauth.server",
    "auth0": "auth0",
    "aws.cloudtrail": "aws.cloudtrail",
}
_SURE = frozenset({"kubernetes.audit", "keycloak", "oauth.server"})  # every mint is a row of its own
ENOUGH = 30  # tokens with a known mint, before a missing one means anything
LONGEST_MS = 7 * DAY_MS
SILENCE = 60 * 24  # hours without any mint that are a gap whatever the habit
_MINTS = frozenset(
    {Kind.TOKEN_ISSUE, Kind.TOKEN_REFRESH, Kind.TOKEN_EXCHANGE, Kind.SIGN_IN, Kind.SILENT_SIGN_IN, Kind.DEVICE_CODE_APPROVAL}
)


class Unborn(Struct):
    """A token first used without a known mint."""

    event: Event
    issuer: str
    cohort: str
    group: str  # misses of one identity from one network count as one
    since: int  # when it was minted, by what the record says, else 0
    strange: bool
    owner: str
    later: list[str]


class Detection(Rule):
    meta = Meta(
        slug="tok-unminted",
        title="Token in use that the issuer never issued",
        severity="critical",
        about=(
            "Every token of this kind was seen being issued, except this one. A token out of nowhere means a stolen signing key, a second issuer "
            "that is trusted, or a way around the issuer. It is reported only for issuers whose mints are complete, with the measured share."
        ),
        attack=("T1606.002", "T1606.001", "T1550.001"),
        nhi=("NHI2", "NHI4"),
        needs=(("token.mint", "credential"),),
        traps=(
            "Tokens older than the log, or born in a gap of the log: unknown, not missing.",
            "Issuers that do not log every mint (console keys, first-party flows, merged rows): several unexplained tokens silence the rule.",
            "Entra merges equal rows: there only a token from a strange network counts.",
        ),
        blind=("Issuers with incomplete logs", "Long-lived keys and offline tokens, which are older than any log"),
        recommended=(
            "Find out which key signed the token and who could read that key",
            "Rotate the issuer's signing key",
            "Revoke what was done with the token and what was issued to it",
        ),
    )
    subscriptions = (
        on(
            kinds=_MINTS, sources=("kubernetes.", "keycloak", "oauth", "auth0", "aws.")
        ),  # marks the hours with mints; Entra's are read off the lives
        on(bits=Bit.UNMINTED),
        on(sources=("kubernetes.", "graph.", "keycloak", "oauth"), bits=Bit.LIFE_IP | Bit.LIFE_ACTION),
    )

    def wants(self, shape: Shape) -> bool:
        return shape.source in _ISSUERS

    def start(self) -> None:
        self.hours: dict[str, set[int]] = {}
        self.gaps: dict[str, list[tuple[int, int]]] = {}
        self.unborn: dict[str, Unborn] = {}
        self.begin: dict[str, int] = {}  # first hour of each issuer

    def step(self, event: Event, facts: Facts) -> None:
        shape = event.shape
        source = shape.source
        issuer = _ISSUERS.get(source, "")
        if shape.action.kind in _MINTS:
            hours = self.hours.get(issuer)
            if hours is None:
                hours = self.hours[issuer] = set()
            hours.add(event.time // HOUR_MS)
        name = event.credential
        if name is None or shape.error is not None or source not in _ISSUERS:
            return
        held = self.unborn.get(name)
        if held is not None:
            if len(held.later) < 40:
                held.later.append(event.id)
            return
        if not facts.mask & B_UNMINTED or facts.life is None or event.actor.first_party or facts.identity.actor.first_party:
            return
        params = event.d.params or {}
        if str(params.get("refresh_token_type", "")).lower() == "offline":
            return
        cohort = _cohort(name, event, facts.identity.id)
        if cohort is None:
            return
        age = params.get("age_of_refresh_token")
        seconds = int(age) if isinstance(age, int | str) and str(age).isdigit() else None
        since = event.d.token_issued_at or (event.time - seconds * 1000 if seconds is not None else 0)
        self.unborn[name] = Unborn(
            event,
            issuer,
            cohort,
            f"{facts.identity.id}|{event.origin.net}",
            since,
            strangeness(self.world, facts.identity, event).score >= 2,
            facts.identity.id,
            [],
        )

    def _mark_hours(self) -> None:
        """The hours in which Entra's sign-in logs show mints."""
        mints = [life.mint for life in self.world.lives.values() if life.mint is not None]
        for mint in (*mints, *self.world.unused.values()):
            if mint.shape.source.startswith("entra."):
                self.hours.setdefault("entra", set()).add(mint.time // HOUR_MS)

    def finish(self) -> None:
        missing = {name: held for name, held in self.unborn.items() if self._without_mint(name)}
        if not missing:
            return
        self._mark_hours()
        wanted = {held.cohort for held in missing.values()}
        joined = dict.fromkeys(wanted, 0)
        longest = dict.fromkeys(wanted, HOUR_MS)
        own: dict[str, int] = {}
        for name, life in self.world.lives.items():
            mint = life.mint
            if mint is None or not life.count or life.is_session or life.identity is None:
                continue
            cohort = _cohort_of(name, life)
            if cohort not in joined:
                continue
            joined[cohort] += 1
            own[life.identity.id] = own.get(life.identity.id, 0) + 1
            span = max(life.last - mint.time, (mint.expires_at or 0) - mint.time)
            if span < LONGEST_MS:
                longest[cohort] = max(longest[cohort], span)
        told = [(name, held) for name, held in missing.items() if self._expected(held, longest[held.cohort])]
        for cohort in sorted(wanted):
            mine = [(name, held) for name, held in told if held.cohort == cohort]
            groups = {held.group for _, held in mine}
            count = joined[cohort]
            if count < ENOUGH or not mine or len(groups) > (2 if count >= 300 else 1):
                continue
            for name, held in mine:
                self._tell(name, held, count, len(mine), own.get(held.owner, 0))

    def _without_mint(self, name: str) -> bool:
        life = self.world.lives.get(name)
        return life is not None and life.mint is None

    def _expected(self, held: Unborn, longest: int) -> bool:
        """True when the mint would be in the log: neither before its start nor in a gap."""
        hours = self.hours.get(held.issuer)
        if not hours:
            return False
        begin = self.begin.get(held.issuer)
        if begin is None:
            begin = self.begin[held.issuer] = min(hours) * HOUR_MS
        start = max(self.world.coverage[held.event.source].first, begin)
        if held.since:
            since, until = held.since - 10 * MINUTE_MS, held.since + 10 * MINUTE_MS
        else:
            since, until = held.event.time - longest * 5 // 4, held.event.time
        if since <= start:
            return False
        gaps = self.gaps.get(held.issuer)
        if gaps is None:
            gaps = self.gaps[held.issuer] = _gaps(hours)
        return not any(first < until and since < last for first, last in gaps)

    def _tell(self, name: str, held: Unborn, joined: int, missing: int, own: int) -> None:
        event = held.event
        severity: Severity = "critical" if joined >= 100 else "high"
        if held.issuer not in _SURE:
            if not held.strange:
                return
            severity = "high"
        if event.source == "kubernetes.audit" and event.d.pod is None:
            if own < 3:
                return  # may be a long-lived token that somebody asked for before the log began
            severity = "high"
        rate = 100 * joined / (joined + missing)
        life = self.world.lives[name]
        self.report(
            name,
            event,
            severity=severity,
            narrative=(
                f"{who(event)} used a token at {when(event.time)} from {place(event.origin)} that the issuer never logged issuing. The mint of "
                f"{joined} other tokens of this kind is known ({rate:.1f} % of those that should be), and the log has no gap at that time."
            ),
            subject=subject_of(self.world.identities.get(held.owner), event, lives=[life]),
            evidence=[event.id, *held.later],
            root=name,
        )


def _cohort(name: str, event: Event, owner: str) -> str | None:
    """Tokens whose mints are logged alike. None for kinds that are not issued one by one."""
    return _named(name, event.source, owner, event.actor.kind)


def _cohort_of(name: str, life: Life) -> str | None:
    assert life.identity is not None
    return _named(name, life.shape.source, life.identity.id, life.shape.actor.kind)


def _named(name: str, source: str, owner: str, kind: str) -> str | None:
    if source == "kubernetes.audit":
        return "kubernetes.audit|JTI" if name.startswith("JTI=") else None
    if source == "aws.cloudtrail":
        return f"aws|{owner}" if name.startswith("ASIA") and kind == "workload" else None
    return source if source in _ISSUERS else None


def _gaps(hours: set[int]) -> list[tuple[int, int]]:
    """Silences of an issuer's log, from and to in milliseconds, that hold two hours in which it usually is not silent, or are longer than SILENCE."""
    ordered = sorted(hours)
    days: dict[tuple[bool, int], list[int]] = {}  # (weekend, hour of the day) -> days seen, days with mints
    for before, after in zip([ordered[0] - 1, *ordered], ordered, strict=False):
        for hour in range(before + 1 if after - before <= SILENCE else after, after + 1):
            count = days.setdefault((_weekend(hour), hour % 24), [0, 0])
            count[0] += 1
            count[1] += hour == after
    found: list[tuple[int, int]] = []
    for before, after in pairwise(ordered):
        busy = 2 if after - before > SILENCE else 0  # not walked through: one record with a wrong clock makes it centuries
        for hour in range(before + 1, after) if not busy else ():
            seen, active = days[_weekend(hour), hour % 24]
            busy += seen >= 2 and active * 2 >= seen - 1
        if busy >= 2:
            found.append((before * HOUR_MS, (after + 1) * HOUR_MS))
    return found


def _weekend(hour: int) -> bool:
    return (hour // 24 + 3) % 7 >= 5  # day 0 was a Thursday
