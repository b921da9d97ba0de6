"""A refresh, exchange or new consent yields more than the grant before it."""

from __future__ import annotations

import re
from functools import lru_cache

from msgspec import Struct

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import place, when, who
from aftergate.lineage.state import Life
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Bit, Event, Kind, Severity, Subject, Tag
from aftergate.vocabulary.patterns import regex

ANCESTORS = 5000  # generations of a family looked back
HISTORY = 3  # grants of one client before a new scope means growth
SPREAD = 3  # other identities with the same scope through the same client: the application's new version
_ADMIN = regex(
    r"(?:[.:_/-]|^)(?:manage|admin|root|owner|sudo|full_?access|impersonat\w*)(?:$|[.:_/-])|okta\.\w+\.manage|accessasuser\.all|full_access_as"
    r"|(?:directory|rolemanagement|approleassignment|application|policy|user|group|groupmember|organization|domain|files|sites|mail|mailboxsettings"
    r"|privilegedaccess|authenticationmethod|userauthenticationmethod|device\w*|identity\w*|conditionalaccess|synchronization|exchange)\.\w*(?:readwrite|manage|write)"
    r"\w*\.(?:all|directory|ownedby|exchange)|sites\.fullcontrol|mail\.send\b.*all|auth/(?:admin\b|cloud-platform|drive$|gmail\.settings)"
    r"|mail\.google\.com|^(?:cloud-platform|drive$|admin(?:\.|:)|write:org|admin:\w+|delete_repo|site_admin)",
    re.IGNORECASE,
)
_READ_ONLY = regex(r"readonly|\.read(?:$|\.(?!write))|^read:|:read$|_read$|\.read$|\bread\b|view|list|introspect", re.IGNORECASE)
_WRITE = regex(
    r"write|modify|edit|update|create|delete|send|post|publish|deploy|insert|upload|approve|pay|transfer|execute|compose|workflow|^repo$",
    re.IGNORECASE,
)
_CLAIMS = frozenset(
    "openid profile email phone address offline_access offline groups roles web-origins microprofile-jwt acr basic online user.read userinfo.email "
    "userinfo.profile device_sso".split()
)
_CHAINED = frozenset({Kind.TOKEN_REFRESH, Kind.TOKEN_EXCHANGE})
_WORDS = {3: "administrative", 2: "writing", 1: "reading"}


class Grants(Struct):
    """What a client was granted so far."""

    count: int
    first: int
    scopes: set[str]
    weight: int
    event: str
    last: tuple[str, ...] = ()  # the scopes of the last grant
    told: bool = False
    exchanged: set[str] = set()  # scopes that exchanges gave


@lru_cache(maxsize=20_000)
def weight(scope: str) -> int:
    """0 claims about the person, 1 reading, 2 writing, 3 administration or everything."""
    low = scope.lower().rstrip("/")
    short = low.rpartition("/")[2]
    if low in _CLAIMS or short in _CLAIMS or low.endswith(("/.default", ":openid")):
        return 0
    if _ADMIN.search(low) and not _READ_ONLY.search(short):
        return 3
    if _WRITE.search(short):
        return 2
    return 1


class Detection(Rule):
    meta = Meta(
        slug="tok-scope-growth",
        title="Token with more rights than the client ever asked for",
        severity="medium",
        about=(
            "A refresh, an exchange or a renewed consent gave a client rights that its grants never had, and of a heavier kind: writing where it "
            "read, administration where it wrote. Rights are weighed, not counted."
        ),
        attack=("T1098.003", "T1550.001"),
        nhi=("NHI5",),
        needs=(("scopes",),),
        traps=(
            "An exchange for another service, which has scopes of its own and gives them each time.",
            "A refresh that asks for less, and a later one for the whole grant again.",
            "New claims about the person (profile, phone) and further reading rights weigh nothing.",
            "A new version of an application: other people have granted it the same right, so it is the application's growth, not this grant's.",
            "A suite's incremental consent by a person, below administration: low.",
        ),
        blind=("The first grant of a client has nothing to compare with; consent rules judge it.",),
        recommended=(
            "Remove the added right from the grant or the client",
            "Ask the client's owner who requested it",
            "Revoke the tokens issued with it",
        ),
    )
    # token issues and consents bring something new each; of Graph calls only the first with a token
    subscriptions = (
        on(kinds=[Kind.TOKEN_ISSUE, Kind.TOKEN_REFRESH, Kind.TOKEN_EXCHANGE, Kind.CONSENT]),
        on(tags=[Tag.CONSENT]),
        on(sources=("graph.",), bits=Bit.NEW_LIFE),
    )

    def start(self) -> None:
        self.grants: dict[tuple[str, str], Grants] = {}
        self.holders: dict[tuple[str, str], set[str]] = {}  # (client, scope) -> identities, of heavy scopes
        self.raised: dict[str, tuple[str, ...]] = {}  # finding -> the scopes it is about

    def step(self, event: Event, facts: Facts) -> None:
        detail = event.detail
        if detail is None or not detail.scopes or event.shape.error is not None:
            return
        consent = event.kind is Kind.CONSENT or Tag.CONSENT in event.action.tags
        client = event.shape.client or (event.target if consent else None) or ""
        owner = facts.identity.id if not consent else client or facts.identity.id
        key = (owner, client)
        held = self.grants.get(key)
        if held is not None and held.last == detail.scopes and not held.told and event.kind not in _CHAINED:
            held.count += 1
            held.event = event.id
            return
        scopes = set(detail.scopes)
        heavy = max(weight(s) for s in scopes)
        if held is not None:
            self._judge(event, facts, held, scopes, client, consent)
        if heavy >= 2:
            for scope in scopes:
                if weight(scope) >= 2:
                    self.holders.setdefault((client, scope), set()).add(facts.identity.id)
        if held is None:
            held = self.grants[key] = Grants(1, event.time, scopes, heavy, event.id, detail.scopes)
        else:
            held.count += 1
            held.last = detail.scopes
            held.event = event.id
            held.weight = max(held.weight, heavy)
            if len(held.scopes) < 400:
                held.scopes |= scopes
        if event.kind is Kind.TOKEN_EXCHANGE and len(held.exchanged) < 400:
            held.exchanged |= scopes

    def _judge(self, event: Event, facts: Facts, held: Grants, scopes: set[str], client: str, consent: bool) -> None:
        parent = facts.life.mint.detail if facts.life is not None and facts.life.mint is not None else None
        beyond = False
        fresh = sorted(s for s in scopes - held.scopes if weight(s) > held.weight)
        if parent is not None and parent.scopes and event.kind in _CHAINED:
            most = max(weight(s) for s in parent.scopes)
            more = sorted(s for s in scopes - set(parent.scopes) if weight(s) > max(most, 1))
            if event.kind is Kind.TOKEN_EXCHANGE:
                more = [s for s in more if s not in held.exchanged]  # another audience has other scopes, and the client gets them each time
            elif more:
                more = self._never(more, facts.life)
            beyond = bool(more) and (event.kind is Kind.TOKEN_REFRESH or most > 0)
            fresh = more if beyond else fresh
        found = self.book.get(self.meta.slug, self._key(facts, client, consent))
        if not fresh:
            if found is not None and found.severity != "low" and scopes & set(self.raised.get(found.id, ())):
                self._again(event, facts, found.subject, client, consent)
            return
        grew = max(weight(s) for s in fresh)
        if grew < 2 or (held.count < HISTORY and not beyond and not consent):
            return
        person = facts.identity.kind == "human" and not consent
        severity: Severity = "high" if grew >= 3 else "medium"
        traps: list[str] = []
        others = max(len(self.holders.get((client, s), set()) - {facts.identity.id}) for s in fresh)
        if others >= SPREAD and not beyond:
            severity = "low"
            traps.append(f"{others} other identities granted the same right to this client before")
        elif person and grew < 3 and not beyond:
            severity = "low"
            traps.append("incremental consent by a person")
        named = event.shape.client_name or client or who(event)
        made = self.report(
            self._key(facts, client, consent),
            event,
            severity=severity,
            narrative=(
                f"{named} got {_WORDS[grew]} rights ({', '.join(fresh[:4])}) at {when(event.time)} from {place(event.origin)}; its {held.count} "
                f"grants since {when(held.first)} held at most {_WORDS.get(held.weight, 'identity')} ones."
                + (" A refresh or exchange cannot go beyond the token it is for." if beyond else "")
            ),
            subject=subject_of(facts.identity, event, identities=[client or None], credentials=event.d.issued),
            evidence=[event.id, held.event],
            traps=traps,
        )
        self.raised[made.id] = tuple(fresh)
        held.told = True

    def _never(self, scopes: list[str], life: Life | None) -> list[str]:
        """Those that no token before it in its family had. A refresh may ask for less and for all again: the grant stays whole (RFC 6749, 6)."""
        for _ in range(ANCESTORS):
            mint = life.mint if life is not None else None
            if mint is None or not scopes:
                break
            if mint.detail is not None:
                scopes = [s for s in scopes if s not in mint.detail.scopes]
            life = self.world.lives.get(mint.parent or "")
        return scopes

    def _key(self, facts: Facts, client: str, consent: bool) -> str:
        return f"{client or facts.identity.id}|{'consent' if consent else facts.identity.id}"

    def _again(self, event: Event, facts: Facts, subject: Subject, client: str, consent: bool) -> None:
        """Further tokens with the added rights belong to the same finding."""
        found = self.book.findings[self.meta.slug, self._key(facts, client, consent)]
        subject.credential.extend(c for c in event.d.issued if c not in subject.credential and len(subject.credential) < 24)
        self.report(self._key(facts, client, consent), event, severity=found.severity, narrative=found.narrative, subject=subject)
