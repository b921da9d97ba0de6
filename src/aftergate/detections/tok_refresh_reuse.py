"""A refresh token that was already rotated out is presented again."""

from __future__ import annotations

import re

from msgspec import Struct

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import RENTED, place, same_place, same_program, span, strangeness, who
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Agent, Bit, Event, Kind, Origin, Severity
from aftergate.vocabulary.patterns import regex

RETRY_MS = 60_000  # tabs and retries send one token within seconds
_SAID = regex(r"reuse|stale token|already (?:been )?(?:used|rotated|redeemed)", re.IGNORECASE)


class Spend(Struct, gc=False):
    """The first time a refresh token was spent, or the last good refresh of a client."""

    time: int
    event: str
    origin: Origin
    agent: Agent
    device: str | None
    children: tuple[str, ...]
    strange: bool  # its network was new for an identity with history


class Detection(Rule):
    meta = Meta(
        slug="tok-refresh-reuse",
        title="Refresh token presented again after it was rotated",
        severity="high",
        about=(
            "A rotating refresh token is good for one use. When the old one is shown again, two parties hold it: its owner and somebody who copied "
            "it. The issuer's own reuse alarm and repeats found in the refresh chain both count."
        ),
        attack=("T1528", "T1550.001"),
        nhi=("NHI2",),
        needs=(("token.refresh_chain",), ("origin.ip", "client")),
        traps=(
            "Two tabs or a retry send the same token within a minute from one place: nothing is reported.",
            "A device that never got the answer presents its old token later from the same place, or its child was never used: low.",
            "Issuers that do not rotate: a token that is answered with itself or with no new token counts as not spent.",
        ),
        blind=("An issuer that logs neither the presented token nor a reuse alarm shows nothing.",),
        recommended=(
            "Revoke the token family, so that the holder signs in again",
            "Ask the holder whether a second device or restored backup explains it",
            "Look for what the family's access tokens did since the first of the two uses",
        ),
    )
    # every refresh brings a new token and so is never a repeated event; the work is one look-up
    subscriptions = (on(kinds=[Kind.TOKEN_REFRESH]),)

    def start(self) -> None:
        self.spent: dict[str, Spend] = {}
        self.latest: dict[tuple[str, str | None], Spend] = {}  # (identity, client): its last good refresh

    def step(self, event: Event, facts: Facts) -> None:
        detail = event.d
        shape = event.shape
        token = detail.spent
        lanes = [(facts.identity.id, shape.client)]
        users = [t.id for t in detail.targets if t.type.lower() == "user"]
        lanes += [
            (known.id, shape.client) for known in map(self.world.identity, users) if known is not None and known is not facts.identity
        ]
        first = self.spent.get(token) if token is not None else None
        alarm = shape.error is not None and bool(_SAID.search(f"{shape.error} {detail.status or ''} {shape.action.name}"))
        if first is not None or alarm:
            self._judge(event, facts, first, next((s for s in map(self.latest.get, lanes) if s is not None), None), alarm, users)
        if shape.error is not None:
            return
        made = Spend(
            event.time,
            event.id,
            shape.origin,
            shape.agent,
            shape.device,
            detail.issued,
            facts.has(Bit.IDENTITY_NET) and facts.identity.count > 5,
        )
        for lane in lanes:
            self.latest[lane] = made
        if token is not None and first is None and detail.issued_class == "refresh_token" and token not in detail.issued:
            self.spent[token] = made

    def _judge(self, event: Event, facts: Facts, first: Spend | None, latest: Spend | None, alarm: bool, users: list[str]) -> None:
        shape = event.shape
        token = event.d.spent
        if not alarm and shape.error is not None:
            return  # refused for another reason
        severity: Severity = "high"
        traps: list[str] = []
        before = first or latest
        if before is None:
            severity = "medium"
            told = "nothing earlier of this token is in the log"
        else:
            gap = event.time - before.time
            told = (
                f"it had been spent {span(gap)} before from {place(before.origin)}"
                if first
                else (f"the last good refresh was {span(gap)} before from {place(before.origin)}")
            )
            near = same_place(shape.origin, before.origin) or not (shape.origin.known and before.origin.known)
            same_device = shape.device is None or before.device is None or shape.device == before.device
            alike = same_program(shape.agent, before.agent) and same_device
            if near and alike:
                if gap <= RETRY_MS:
                    return
                severity = "low"
                traps.append("same place and program as before: a copy on the same device, a restored backup or a late retry")
            else:
                severity, why = self._apart(event, facts, before, alike, gap)
                if why:
                    traps.append(why)
        key = event.d.family or token or event.session or f"{facts.identity.id}|{shape.client}"
        self.report(
            key,
            event,
            severity=severity,
            narrative=(
                f"A used-up refresh token of {who(event)} was presented from {place(shape.origin)} with {shape.agent.family}; {told}."
                + ("" if shape.error is not None else " The issuer accepted it.")
            ),
            subject=subject_of(facts.identity, event, credentials=[token, event.d.family], identities=users),
            evidence=[before.event] if before is not None else [],
            traps=traps,
        )

    def _apart(self, event: Event, facts: Facts, before: Spend, alike: bool, gap: int) -> tuple[Severity, str]:
        """Two places or two programs: how bad, and what speaks for the holder."""
        origin = event.origin
        rented = origin.network in RENTED or before.origin.network in RENTED
        strange = before.strange or strangeness(self.world, facts.identity, event).score >= 2
        if alike and gap <= RETRY_MS and not rented:
            return "low", "a retry within a minute by the same program from another network: a phone that changed networks"
        used = any(child in self.spent or self._alive(child) for child in before.children)
        if alike and not used and not strange and not rented:
            return "low", "the token's child was never used and both networks are the holder's: the device never got the answer"
        if alike and not strange and not rented:
            return "medium", "both networks are known for the holder"
        return "high", ""

    def _alive(self, child: str) -> bool:
        life = self.world.lives.get(child)
        return life is not None and life.count > 0
