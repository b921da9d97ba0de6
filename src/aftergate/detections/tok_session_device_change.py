"""A session goes on under another device, with no sign-in there."""

from __future__ import annotations

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import SESSION_SOURCES, org_egress, place, same_place, strangeness, when, who
from aftergate.lineage.state import Life
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Bit, Event, Kind, Severity, Shape


class Detection(Rule):
    meta = Meta(
        slug="tok-session-device-change",
        title="Session continued on another device without a sign-in",
        severity="high",
        about=(
            "A session belongs to the browser or device it was opened on. When its id shows up under another device fingerprint or another "
            "operating system and nobody signed in there, the session cookie or token was copied."
        ),
        attack=("T1539", "T1550.004"),
        nhi=(),
        needs=(("session", "device"), ("session", "agent")),
        traps=(
            "Browser updates keep the device and the system, so versions do not count.",
            "A sign-in on the new device within the session makes it that device's own; a device code is approved on one and redeemed on another.",
            "A device on which the same person signs in at other times, such as a cloud desktop beside the thin client that shows it: low.",
            "The vendor's own calls inside an administrator's session.",
            "A tablet that asks for desktop pages changes its system's name and stays in its place: low.",
            "A new fingerprint in the same place with the same program: low.",
        ),
        blind=("A thief who copies the fingerprint and the program's text and sits in the same network.",),
        recommended=(
            "End this session",
            "Ask the person whether the second device is theirs",
            "Reset the password and factors if it is not, and review what the session did since",
        ),
    )
    # interactive sign-ins are rare and tell which devices are the session's own
    subscriptions = (
        on(sources=SESSION_SOURCES, bits=Bit.SESSION_DEVICE | Bit.SESSION_AGENT | Bit.SESSION_NET),
        on(kinds=[Kind.SIGN_IN, Kind.DEVICE_CODE_APPROVAL]),
    )

    def start(self) -> None:
        self.signed: dict[str, set[str]] = {}  # session -> devices and systems somebody signed in on
        self.owned: set[tuple[str, str]] = set()  # identity, and a device it signed in on in whatever session
        self.redeemed: dict[str, tuple[str | None, str | None]] = {}  # session of a device code -> device and system that got its tokens
        self.told: dict[str, tuple[str | None, str | None]] = {}  # session -> device and system found strange

    def step(self, event: Event, facts: Facts) -> None:
        if event.session is None or not event.ok or not event.source.startswith(SESSION_SOURCES):
            return
        shape = event.shape
        if event.kind in (Kind.SIGN_IN, Kind.DEVICE_CODE_APPROVAL) or self._redeems(event):
            signed = self.signed.setdefault(event.session, set())
            signed.update(x for x in (shape.device, shape.agent.os) if x is not None)
            if event.kind is Kind.SIGN_IN and shape.device is not None:
                self.owned.add((facts.identity.id, shape.device))
            return
        session = facts.session
        if session is None or event.actor.first_party or not shape.origin.trustworthy or shape.agent.kind == "service":
            return
        known = self.told.get(event.session)
        if known is not None and (shape.device, shape.agent.os) == known:
            self._tell(event, facts, session, None, None, "high")
            return
        signed = self.signed.get(event.session, set())
        others = [s for s in session.uses if s is not shape and s.actor is shape.actor and s.origin.trustworthy]
        device = self._device(shape, others, signed)
        system = self._system(shape, others, signed)
        if device is None and system is None:
            return
        before = device or system
        assert before is not None
        if shape.device is not None and (facts.identity.id, shape.device) in self.owned:
            self._tell(event, facts, session, before, "the person signs in on this device too, in other sessions", "low")
            return
        near = any(same_place(shape.origin, s.origin) for s in others if s.device != shape.device or s.agent.os != shape.agent.os)
        near = near or not shape.origin.known or org_egress(self.world, shape.origin, facts.identity)
        if near:
            grade: Severity = "medium" if device is not None and system is not None else "low"
            self._tell(event, facts, session, before, "both devices are in one place", grade)
        elif device is None and strangeness(self.world, facts.identity, event).score < 2:
            self._tell(event, facts, session, before, "only the system's name changed, in a network the person uses", "low")
        else:
            self.told[event.session] = (shape.device, shape.agent.os)
            self._tell(event, facts, session, before, None, "high")

    def _redeems(self, event: Event) -> bool:
        """True for the device that redeems a device code: the session is its own, beside the browser that approved. A second one is not."""
        detail = event.d
        if detail.grant != "device_code" and (detail.transfer != "deviceCodeFlow" or detail.incoming is not None):
            return False
        assert event.session is not None
        device = (event.shape.device, event.shape.agent.os)
        return self.redeemed.setdefault(event.session, device) == device

    @staticmethod
    def _device(shape: Shape, others: list[Shape], signed: set[str]) -> Shape | None:
        """The last use under another device id, if this one's is new to the session and nobody signed in on it."""
        if shape.device is None or shape.device in signed or any(s.device == shape.device for s in others):
            return None
        return next((s for s in reversed(others) if s.device is not None), None)

    @staticmethod
    def _system(shape: Shape, others: list[Shape], signed: set[str]) -> Shape | None:
        """The last browser use under another operating system, if none had this one's."""
        agent = shape.agent
        if agent.os is None or agent.kind != "browser" or agent.os in signed:
            return None
        if any(s.agent.os == agent.os or (shape.device is not None and s.device == shape.device) for s in others):
            return None
        return next((s for s in reversed(others) if s.agent.kind == "browser" and s.agent.os is not None), None)

    def _tell(self, event: Event, facts: Facts, session: Life, before: Shape | None, trap: str | None, severity: Severity) -> None:
        shape = event.shape
        key = f"{session.id}|{shape.device or shape.agent.os}"
        found = self.book.get(self.meta.slug, key)
        if before is None and found is not None:
            narrative = found.narrative
        else:
            was = before if before is not None else shape
            narrative = (
                f"The session of {who(event)}, opened {when(session.first)} on {was.agent.os or was.agent.family} at {place(was.origin)}, "
                f"went on from {place(shape.origin)} on {shape.agent.os or shape.agent.family}"
                + (" under another device id" if was.device is not None and shape.device is not None and was.device != shape.device else "")
                + ", and nobody signed in there."
            )
        self.report(
            key,
            event,
            severity=severity,
            narrative=narrative,
            subject=subject_of(facts.identity, event, lives=[session]),
            traps=[trap] if trap else [],
        )
