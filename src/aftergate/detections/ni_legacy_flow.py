"""A sign-in by a flow in which no second factor is possible, or a console login without one."""

from __future__ import annotations

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import established, org_egress, place, strangeness, when, who
from aftergate.lineage.state import DAY_MS
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Bit, Event, Kind, Severity

_FLOWS = {"password": "password grant (ROPC or basic authentication)", "implicit": "implicit grant"}


class Detection(Rule):
    meta = Meta(
        slug="ni-legacy-flow",
        title="Signed in by a flow without a second factor",
        severity="medium",
        about=(
            "The password grant, basic authentication, the implicit grant and a console login without a second factor prove no more than a "
            "password. Thieves of passwords look for just these doors."
        ),
        attack=("T1078.004",),
        nhi=("NHI4",),
        csf=("PR.AA-03", "DE.CM-03"),
        needs=(("client", "silent"), ("session", "client"), ("console.login",)),
        traps=(
            "Printers, scanners and migration tools that have always signed in this way, from the same place: known after their first days.",
            "Several identities that start together from the organisation's own network: a roll-out.",
        ),
        blind=("Entra names the flow only in recent log schemas.", "A federated console login says nothing of the factor."),
        recommended=(
            "Ask the owner whether the sign-in was theirs",
            "Reset the password",
            "Forbid the flow by policy, with a dated exception for what still needs it",
        ),
    )
    subscriptions = (
        on(kinds=[Kind.SIGN_IN], sources=("entra.", "okta", "auth0", "keycloak", "oauth", "aws.")),
        # a flow new to an identity comes with another program, place or class of sign-in
        on(
            kinds=[Kind.SILENT_SIGN_IN, Kind.TOKEN_ISSUE],
            sources=("entra.", "okta", "auth0", "keycloak", "oauth"),
            bits=Bit.NEW_COMBINATION,
        ),
    )

    def start(self) -> None:
        self.known: dict[tuple[str, str | None], int] = {}  # identity and client -> first sign-in of this kind
        self.starters: dict[tuple[str | None, str], set[str]] = {}  # client and network -> identities that began there

    def step(self, event: Event, facts: Facts) -> None:
        detail = event.detail
        if detail is None or event.shape.error is not None:
            return
        if event.shape.action.name == "signin:ConsoleLogin":
            if detail.mfa is False and facts.identity.actor.role is None and (detail.params or {}).get("outcome", "Success") == "Success":
                self._console(event, facts)
            return
        flow = _FLOWS.get(detail.grant or "")
        if flow is None:
            return
        identity, client = facts.identity, event.shape.client
        key = (identity.id, client)
        first = self.known.setdefault(key, event.time)
        others = self.starters.setdefault((client, event.origin.net), set())
        others.add(identity.id)
        if first != event.time or not established(identity, event.time, days=2.0, events=5):
            return
        strange = strangeness(self.world, identity, event)
        severity: Severity = "medium"
        traps: list[str] = []
        if strange.score >= 2:
            severity = "high"
        elif strange.score == 0 or org_egress(self.world, event.origin, identity) or len(others) >= 3:
            severity = "low"
            traps.append("from a place the identity or the organisation uses")
        self.report(
            f"{identity.id}|{client}",
            event,
            severity=severity,
            narrative=(
                f"{who(event)} signed in by {flow} for the first time, to {event.shape.client_name or client or 'an application'}, from {place(event.origin)} "
                f"at {when(event.time)}{': ' + '; '.join(strange.reasons) if strange.reasons else ''}."
            ),
            subject=subject_of(identity, event),
            traps=traps,
        )

    def _console(self, event: Event, facts: Facts) -> None:
        identity = facts.identity
        known = self.known.setdefault((identity.id, "console"), event.time)
        if event.time - known > DAY_MS:
            return
        strange = strangeness(self.world, identity, event)
        severity: Severity = "medium" if strange.score >= 2 and established(identity, event.time, days=2.0, events=5) else "low"
        self.report(
            f"{identity.id}|console",
            event,
            severity=severity,
            narrative=f"{who(event)} opened the console from {place(event.origin)} at {when(event.time)} with a password alone: no second factor was asked.",
            subject=subject_of(identity, event),
        )
