"""A browser session goes on under a script, a headless browser or a command line."""

from __future__ import annotations

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import RENTED, SCRIPTS, SESSION_SOURCES, org_egress, place, same_place, span, strangeness, who
from aftergate.lineage.state import DAY_MS, Life
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Bit, Event, Kind, Severity, Shape

_HYBRID = ("entra.", "graph.", "m365.")  # here one session id joins the browser's login and the command line it was for


class Detection(Rule):
    meta = Meta(
        slug="tok-cookie-to-script",
        title="Browser session continued by a script",
        severity="high",
        about=(
            "A session that a person opened in a browser is used by an HTTP library, a headless browser or a command line from another place: "
            "its cookie was taken and is being replayed. In AWS the same goes for a console session's key."
        ),
        attack=("T1539", "T1185", "T1550.004"),
        nhi=(),
        needs=(("session", "agent"), ("credential", "agent")),
        traps=(
            "Browser extensions, desktop helpers and test automation run where the browser runs: low.",
            "Command lines and editors that sign in through the browser share its session in Entra: only a strange place counts.",
            "The vendor's own calls inside an administrator's session, and the cloud's own shell.",
            "People whose browser sessions had a script beside them for days.",
        ),
        blind=("A thief who sends a browser's program text.",),
        recommended=(
            "End this session",
            "Ask the person whether they run this program",
            "Look for malware or a phishing proxy on the device the session was opened on",
        ),
    )
    subscriptions = (on(bits=Bit.SESSION_AGENT | Bit.LIFE_AGENT), on(sources=SESSION_SOURCES, bits=Bit.SESSION_NET))

    def start(self) -> None:
        self.habits: dict[tuple[str, str], int] = {}  # (identity, script family) -> first seen beside a browser
        self.told: dict[str, str] = {}  # session -> key of its finding

    def step(self, event: Event, facts: Facts) -> None:
        agent = event.agent
        if (
            (agent.kind not in SCRIPTS and not _unlisted(event))
            or event.actor.first_party
            or not event.origin.known
            or not event.ok
            or "CloudShell" in agent.raw
        ):
            return
        life = self._opened(event, facts)
        if life is None or event.kind is Kind.SIGN_IN:
            return
        browsers = [s for s in life.uses if s.agent.kind == "browser" and s.origin.known]
        if not browsers:
            return
        shape = event.shape
        since = self.habits.setdefault((facts.identity.id, agent.family), event.time)
        severity, trap = self._grade(event, facts, browsers, event.time - since)
        if severity is None:
            return
        last = browsers[-1]
        idle = event.time - max(life.uses[s].last for s in browsers)
        self.report(
            f"{life.id}|{agent.family}",
            event,
            severity=severity,
            narrative=(
                f"A session that {who(event)} opened in {last.agent.family} at {place(last.origin)} was used by {agent.family} from "
                f"{place(shape.origin)}" + (f", {span(idle)} after the browser's last use." if idle >= 0 else ".")
            ),
            subject=subject_of(facts.identity, event, lives=[life]),
            evidence=[life.first_event] if life.first_event else [],
            traps=[trap] if trap else [],
        )

    def _opened(self, event: Event, facts: Facts) -> Life | None:
        """The session or console key that a browser opened, or None where the id is no such thing."""
        if event.source.startswith(SESSION_SOURCES):
            return facts.session
        if event.source.startswith("aws.") and event.credential is not None and event.credential.startswith("ASIA"):
            return facts.life
        return None

    def _grade(self, event: Event, facts: Facts, browsers: list[Shape], habit_ms: int) -> tuple[Severity | None, str]:
        origin = event.origin
        if habit_ms >= DAY_MS:
            return None, ""
        if any(same_place(origin, s.origin) for s in browsers):
            return ("low", "the script runs where the browser runs") if not event.source.startswith(_HYBRID) else (None, "")
        if org_egress(self.world, origin, facts.identity):
            return "low", "the script's network is the organisation's"
        score = strangeness(self.world, facts.identity, event).score
        if event.agent.kind not in SCRIPTS and score < 4:
            return None, ""
        if event.source.startswith(_HYBRID):
            if origin.provider == "azure" or (score < 3 and origin.network not in RENTED) or score < 2:
                return None, ""
            if event.agent.kind in ("cli", "sdk") and origin.network not in RENTED:
                return "low", "a command line signed in through the browser"
            return "high", ""
        if event.source.startswith("aws.") and origin.provider == "aws":
            return "low", "the cloud's own network"
        if score < 2:
            return "low", "a network the person uses"
        return "high", ""


def _unlisted(event: Event) -> bool:
    """A named program that no list knows, on a rented server: no browser and no desktop program is at home there."""
    agent = event.agent
    return agent.kind == "unknown" and agent.family != "unknown" and event.origin.network == "hosting"
