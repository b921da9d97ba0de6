"""A disabled, deleted or removed identity still succeeds after every token it had should have ended."""

from __future__ import annotations

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import place, span, when, who
from aftergate.lineage.state import HOUR_MS, MINUTE_MS, Death, Identity
from aftergate.lineage.tracking import Facts, joinable, plain
from aftergate.vocabulary import Bit, Event, Kind, Severity, Tag, Target

REPLICATION_MS = 20 * MINUTE_MS  # a new sign-in or refresh has no lawful life left; only the issuer's own replication
TOKEN_MS = 75 * MINUTE_MS  # an access token without a stated end: an hour to an hour and a quarter
LONGEST_MS = 28 * HOUR_MS  # tokens for resources with continuous access evaluation
STS_ROLE_MS = 12 * HOUR_MS + 15 * MINUTE_MS
STS_USER_MS = 36 * HOUR_MS + 15 * MINUTE_MS

_ISSUES = frozenset(
    {Kind.SIGN_IN, Kind.SILENT_SIGN_IN, Kind.TOKEN_ISSUE, Kind.TOKEN_REFRESH, Kind.TOKEN_EXCHANGE, Kind.DEVICE_CODE_APPROVAL, Kind.CONSENT}
)
_ENDINGS = frozenset({Kind.SESSION_END, Kind.TOKEN_REVOKE, Kind.CREDENTIAL_DELETE, Kind.IDENTITY_LIFECYCLE})
_CREATE = Tag.IDENTITY_CREATE


class _End:
    """One identity's end, as the log told it."""

    __slots__ = ("account", "by", "event", "names", "reason", "source", "time", "undone")

    def __init__(self, event: Event, names: tuple[str, ...]) -> None:
        self.time = event.time
        self.event = event.id
        self.by = who(event)
        self.reason = event.action.name
        self.source = event.source
        self.account = event.shape.account or event.actor.account
        self.names = names
        self.undone = False


class Detection(Rule):
    meta = Meta(
        slug="ni-alive-after-offboard",
        title="Access goes on after the identity was disabled",
        severity="critical",
        about=(
            "Someone left, or a service account was shut off, and something of theirs still works: a session that refreshes, a key nobody deleted, another "
            "system that was never told. The finding comes only when every lawful life of an old token has passed."
        ),
        attack=("T1078", "T1550.001"),
        nhi=("NHI1",),
        needs=(("identity.disable",),),
        traps=(
            "Access tokens live to their end: 75 minutes where the log states no end, up to 28 hours with continuous evaluation, 12 to 36 hours for session keys.",
            "Accounts that were enabled or created again.",
            "Failed attempts of a leaver's devices, and records that arrive late: the time of the event counts.",
            "Removal from one organisation while the person is still in another.",
        ),
        blind=("Offboarding that no log shows.", "Uses in systems that name the person by an unrelated id."),
        recommended=(
            "Revoke the credential or session that still works",
            "Look up what it did since the offboarding",
            "Find out which system was not told, and add it to the offboarding",
        ),
        half_life_d=60.0,
    )
    subscriptions = (on(tags=(Tag.IDENTITY_DISABLE, Tag.IDENTITY_ENABLE, _CREATE)), on(bits=Bit.AFTER_DEATH))

    def start(self) -> None:
        self.ends: dict[str, _End] = {}  # every name of the ended identity, plain

    def step(self, event: Event, facts: Facts) -> None:
        tags = event.action.tags
        if event.ok and tags & {Tag.IDENTITY_DISABLE, Tag.IDENTITY_ENABLE, _CREATE}:
            self._lifecycle(event, Tag.IDENTITY_DISABLE in tags)
        if facts.mask & Bit.AFTER_DEATH:
            self._used(event, facts)

    def _lifecycle(self, event: Event, ends: bool) -> None:
        target = _subject(event)
        if target is None:
            return
        # display names are not unique: only ids and what joins logs
        shown = [v for k in ("userName", "userPrincipalName", "email") if isinstance(v := (event.d.params or {}).get(k), str) and "@" in v]
        names = tuple(dict.fromkeys(plain(name) for name in (target.id, *target.names, *shown) if name == target.id or joinable(name)))
        if not ends:
            for name in names:
                held = self.ends.get(name)
                if held is not None:
                    held.undone = True
            for name in names:
                self.ends.pop(name, None)
            return
        known = next((held for name in names if (held := self.ends.get(name)) is not None and not held.undone), None)
        made = known if known is not None and known.time <= event.time else _End(event, names)
        for name in names:
            self.ends.setdefault(name, made)
            # the same person under the other names that join logs: without this a leaver of one directory is alive in every other
            self.world.kill_identity(name, Death(event.time, "disabled", event.id, event.actor.id, event.source))

    def _used(self, event: Event, facts: Facts) -> None:
        if not event.ok or event.kind in _ENDINGS or event.actor.first_party or not event.origin.trustworthy:
            return
        identity = facts.identity
        end = self._end_of(identity)
        if end is None or end.undone or (identity.death is not None and identity.death.undone is not None):
            return
        past = event.time - end.time
        if past < REPLICATION_MS:
            return
        if (
            end.source == event.source
            and end.account
            and event.shape.account
            and end.account != event.shape.account
            and event.source.startswith("github")
        ):
            return  # removed from one organisation, still a member of another
        lawful, sure = _lawful(event, facts, end)
        if event.time <= lawful:
            return
        severity: Severity = "critical" if sure else "high"
        what = "signed in or refreshed" if event.kind in _ISSUES else f"used {event.action.name}"
        self.report(
            f"{identity.id}|{end.event}",
            event,
            severity=severity,
            narrative=(
                f"{who(event)} was ended at {when(end.time)} ({end.reason} by {end.by}); {span(past)} later it {what} from {place(event.origin)} "
                f"({event.source}), after every token from before should have ended."
            ),
            subject=subject_of(identity, event, lives=(facts.life, facts.session)),
            evidence=(end.event,),
            root=event.session,
        )

    def _end_of(self, identity: Identity) -> _End | None:
        for name in (identity.id, *sorted(identity.names)):
            found = self.ends.get(plain(name))
            if found is not None:
                return found
        return None


def _subject(event: Event) -> Target | None:
    """Whose end it is: the main target."""
    targets = event.d.targets
    if not targets:
        return Target(event.target) if event.target else None
    return next((t for t in targets if t.id == event.target), targets[0])


def _lawful(event: Event, facts: Facts, end: _End) -> tuple[int, bool]:
    """Until when the use may be a token from before the end, and whether a use past it is proof."""
    detail = event.d
    key = event.credential or ""
    if event.source == "aws.cloudtrail":
        mint = facts.life.mint if facts.life is not None else None
        if key.startswith("ASIA") or (not key and event.session):
            if mint is not None and mint.time <= end.time:
                return (
                    mint.expires_at or mint.time + (STS_USER_MS if mint.grant == "session_token" else STS_ROLE_MS)
                ) + 5 * MINUTE_MS, True
            if mint is not None:
                return end.time + REPLICATION_MS, end.source == event.source
            # its mint is in no log: it was made at the latest when first used, or when the identity ended
            longest = STS_ROLE_MS if event.session else STS_USER_MS
            made = facts.life.first if facts.life is not None else end.time
            return min(made, end.time) + longest, True
        if event.kind is Kind.SIGN_IN:
            return end.time + REPLICATION_MS, True
        return end.time + HOUR_MS, True
    if event.kind in _ISSUES:
        return end.time + REPLICATION_MS, True
    if detail.token_issued_at is not None:
        if detail.token_issued_at > end.time + REPLICATION_MS:
            return end.time, True
        return end.time + TOKEN_MS + 15 * MINUTE_MS, event.time > detail.token_issued_at + LONGEST_MS
    if detail.token_expires_at is not None and detail.token_expires_at > end.time:
        return detail.token_expires_at + 5 * MINUTE_MS, True
    mint = facts.life.mint if facts.life is not None else None
    if mint is not None and mint.time > end.time + REPLICATION_MS:
        return end.time, True
    if event.source.startswith("github"):
        return end.time + REPLICATION_MS, True
    return end.time + TOKEN_MS + 15 * MINUTE_MS, True
