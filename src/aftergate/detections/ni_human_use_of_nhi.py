"""A service account, robot user or workload credential is used in a browser, or from a person's shell."""

from __future__ import annotations

import re

from aftergate.detections.api import Meta, Rule, lower, on, subject_of
from aftergate.detections.reasoning import MACHINE, NONHUMAN, RENTED, homes, machine_named, ours, place, same_place, span, test_named, who
from aftergate.lineage.state import Identity
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Bit, Event, Severity, Tag
from aftergate.vocabulary.patterns import regex

# the single sign-on portal's own call; people's federation brokers use the libraries that GetSigninToken is written for
_PORTAL = regex(r"jersey/|\$\{project\.version\}|sso\.amazonaws|signin\.amazonaws", re.IGNORECASE)
_SHELLS = frozenset({"cli", "tool"})


class Detection(Rule):
    meta = Meta(
        slug="ni-human-use-of-nhi",
        title="Machine identity used by a person",
        severity="high",
        about=(
            "A credential made for a program is used in a browser, a web console or a person's command line. Either somebody took it, or somebody works "
            "around the controls that people have and machines have not."
        ),
        attack=("T1078", "T1550.001"),
        nhi=("NHI10",),
        needs=(("agent", "console.login"), ("agent", "credential", "origin.ip"), ("agent", "session", "origin.ip")),
        traps=(
            "Deploy jobs that run a command line in their pod or runner: the place stays the machine's.",
            "Test accounts that drive a browser from their first day.",
            "Development and test namespaces and accounts: lower.",
            "Emergency runs under a change ticket: recorded only.",
        ),
        blind=("A person who uses the credential with the workload's own program from the workload's own place.",),
        recommended=(
            "End the session and rotate the credential",
            "Ask the owner who used it and why",
            "Forbid interactive sign-in for this identity",
        ),
    )
    subscriptions = (on(tags=(Tag.CONSOLE_LOGIN,)), on(bits=Bit.IDENTITY_AGENT | Bit.LIFE_AGENT | Bit.IDENTITY_NET))

    def start(self) -> None:
        self.told: dict[str, set[str]] = {}  # identity -> networks already told of

    def step(self, event: Event, facts: Facts) -> None:
        identity, now = facts.identity, event.time
        if event.actor.first_party or event.actor.kind == "service" or (not event.ok and Tag.CONSOLE_LOGIN in event.action.tags):
            return
        login = Tag.CONSOLE_LOGIN in event.action.tags
        browser = event.agent.kind in ("browser", "mobile_app")
        shell = event.agent.kind in _SHELLS
        if not (login or browser or shell) or not self._machine(identity, event):
            return
        told = event.origin.net in self.told.get(identity.id, ())
        if not told and _was_human_before(identity, now, login or browser):
            return
        history = identity.count > 5 and now - identity.first >= 24 * 3_600_000
        before = [o for o in homes(identity, now) if not same_place(o, event.origin)] if told else homes(identity, now)
        severity = self._severity(event, identity, login, browser, history, told)
        if severity is None:
            return
        traps: list[str] = []
        if test_named(identity.id, *identity.names, event.shape.account):
            severity = lower(severity)
            traps.append("its name says development or test")
            if not history:
                severity = "low"
        if self.directory.ticket_for((identity.id, *identity.names), now):
            severity = "low"
            traps.append("a change ticket covers it")
        self.told.setdefault(identity.id, set()).add(event.origin.net)
        how = f"{'a console was opened' if login else 'it was used'} with {event.agent.family} from {place(event.origin)}"
        past = f"; for {span(now - identity.first)} only programs had used it" if history else ""
        if history and before:
            past += f", from {place(before[0])}"
        self.report(
            f"{identity.id}|{event.session or event.origin.net}",
            event,
            severity=severity,
            narrative=f"{who(event)} is a machine's identity, and {how}{past}.",
            subject=subject_of(identity, event),
            traps=traps,
        )

    def _machine(self, identity: Identity, event: Event) -> bool:
        """Whether a program owns this identity: by its kind, or by name and habit."""
        if event.actor.kind in NONHUMAN:
            return True
        if event.actor.kind not in ("human", "unknown") or identity.count <= 10 or identity.days_seen(event.time) < 2:
            return False
        kinds: dict[str, int] = {}
        for shape, use in identity.uses.items():
            if use.first < event.time:
                kinds[shape.agent.kind] = kinds.get(shape.agent.kind, 0) + use.count
        total = sum(kinds.values())
        programs = total - kinds.get("browser", 0) - kinds.get("mobile_app", 0) - kinds.get("desktop_app", 0) - kinds.get("cli", 0)
        if programs < 0.9 * total:
            return False
        if machine_named(identity):
            return True
        if kinds.get("sdk", 0) + kinds.get("http_library", 0) + kinds.get("service", 0) < 0.5 * total:
            return False
        # an access key of an account that no person ever logged in with, and that lives in a data centre
        networks = {home.network for home in homes(identity, event.time)}
        return event.actor.kind == "unknown" and bool(networks) and networks <= MACHINE

    def _severity(self, event: Event, identity: Identity, login: bool, browser: bool, history: bool, told: bool) -> Severity | None:
        origin = event.origin
        if login and event.source == "aws.cloudtrail" and not history:
            # alone in the log: a role of a machine that makes a console link is strange in itself, an employee portal is not
            if _PORTAL.search(event.agent.raw) or event.actor.kind not in NONHUMAN:
                return None
            return "medium"
        if not history:
            return None
        if login or browser:
            if login and event.source == "aws.cloudtrail" and _PORTAL.search(event.agent.raw):
                return None
            return "high"
        if origin.network == "private" or not origin.trustworthy or origin.ip is None:
            return None  # a command line inside the cluster or network: a job
        before = homes(identity, event.time)
        inside = any(o.network == "private" for o, first in identity.places.items() if first < event.time)
        if not told and (any(same_place(origin, home) for home in before) or not (before or inside)):
            return None
        if ours(self.world, origin, identity):
            return "low"
        if origin.network in ("isp", "mobile") or origin.network in RENTED or (inside and not before and origin.network != "cloud"):
            return "high"
        return "low"


def _was_human_before(identity: Identity, now: int, browser: bool) -> bool:
    """True when the same was done before this event: then it is the identity's habit."""
    wanted = ("browser", "mobile_app", "headless") if browser else ("cli", "tool")
    for shape, use in identity.uses.items():
        if use.first < now and shape.error is None:
            if shape.agent.kind in wanted or (browser and Tag.CONSOLE_LOGIN in shape.action.tags):
                return True
    return False
