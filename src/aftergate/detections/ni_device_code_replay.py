"""A session opened by a device code is used from a third place."""

from __future__ import annotations

from aftergate.detections.api import Meta, Rule, lower, on, subject_of
from aftergate.detections.reasoning import RENTED, SCRIPTED, ours, place, prefix_of, same_place, span, when, who
from aftergate.lineage.state import MINUTE_MS
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Bit, Event, Kind, Origin, Severity, Shape

CODE_MS = 20 * MINUTE_MS  # a device code lives 15 minutes; the issuer's clock and log get five more
CLIENT_KEPT_MS = 90 * 86_400_000  # life of a refresh token that is in use

_USES = Bit.SESSION_NEW | Bit.SESSION_NET | Bit.SESSION_AGENT | Bit.LIFE_NET | Bit.LIFE_AGENT | Bit.IDENTITY_NET | Bit.IDENTITY_AGENT


class _Grant:
    """One device code: who approved it where, which client took the tokens where."""

    __slots__ = ("approved", "approver", "events", "polled", "poller", "poller_agent", "third")

    def __init__(self) -> None:
        self.approver: Origin | None = None
        self.approved = 0
        self.poller: Origin | None = None
        self.poller_agent = "unknown"
        self.polled = 0
        self.events: list[str] = []
        self.third: list[Origin] = []


_WITHOUT = ("aws.", "gcp.", "kubernetes.", "github.", "vault", "agent", "google.")  # their credentials come by other ways


class Detection(Rule):
    meta = Meta(
        slug="ni-device-code-replay",
        title="Session of a device code used from a third place",
        severity="high",
        about=(
            "A device code is approved in a person's browser and redeemed by a client elsewhere: two places. Whoever sent the code to the person can carry "
            "the tokens to any third place and refresh them there silently for weeks, without another prompt."
        ),
        attack=("T1528", "T1550.001", "T1566.002"),
        needs=(("device_code", "session", "origin.ip"), ("device_code", "client", "origin.ip")),
        traps=(
            "Approved at the desk, polled and used on one jump host, television or container: two places, no third.",
            "The same laptop carried home: a place the person knows, or an access line with the polling client's own program.",
            "Microsoft's services that refresh first-party clients from their own network.",
            "A gateway that many colleagues leave by.",
        ),
        blind=(
            "Tokens that stay on the machine that polled; then only a rented network together with a script tells.",
            "Refreshes that name neither session nor client.",
        ),
        recommended=(
            "Revoke the session's refresh tokens",
            "Ask the person whether they approved the code, and where it came from",
            "Block the device code flow for users who do not need it",
        ),
        half_life_d=30.0,
    )
    subscriptions = (
        on(kinds=(Kind.DEVICE_CODE_APPROVAL,)),
        on(
            kinds=(Kind.SILENT_SIGN_IN, Kind.TOKEN_ISSUE, Kind.TOKEN_REFRESH, Kind.TOKEN_EXCHANGE, Kind.DATA_READ, Kind.DISCOVERY, Kind.OTHER,
                   Kind.DATA_EXPORT, Kind.CONFIG_CHANGE, Kind.SECRET_READ, Kind.CONSENT, Kind.CREDENTIAL_CREATE),
            bits=_USES,
        ),
    )  # fmt: skip

    def wants(self, shape: Shape) -> bool:
        return shape.error is None and not shape.source.startswith(_WITHOUT)

    def start(self) -> None:
        self.grants: dict[tuple[str, ...], _Grant] = {}
        self.pending: dict[tuple[str, str], _Grant] = {}  # approvals by person and client, where the redemption names another session
        self.habits: dict[tuple[str, str], dict[str, int]] = {}  # (identity, network) of pollers: when last

    def step(self, event: Event, facts: Facts) -> None:
        if not event.ok:
            return
        detail = event.d
        keys = _keys(event)
        pair = (facts.identity.id, event.shape.client or "")
        if event.kind is Kind.DEVICE_CODE_APPROVAL:
            made = _Grant()
            made.approver, made.approved = event.origin, event.time
            made.events.append(event.id)
            for key in keys:
                self.grants[key] = made
            self.pending[pair] = made
            return
        grant = next((found for key in keys if (found := self.grants.get(key)) is not None), None)
        if grant is None and not keys and not event.source.startswith(("entra.", "graph.", "m365")):
            grant = self.grants.get(("c", *pair))
        started = detail.grant == "device_code" or (detail.transfer == "deviceCodeFlow" and detail.incoming is None)
        if grant is None or (started and grant.poller is not None and event.time - grant.polled > CODE_MS):
            if not (started or detail.transfer == "deviceCodeFlow"):
                return
            waiting = self.pending.get(pair) or self.pending.get((pair[0], ""))
            fits = waiting is not None and started and waiting.poller is None and event.time - waiting.approved <= CODE_MS
            grant = waiting if waiting is not None and fits else _Grant()
            for key in keys:
                self.grants[key] = grant
            if pair[1]:
                self.grants["c", *pair] = grant
        begun = max(grant.approved, grant.polled)
        if begun and not event.session and event.time - begun > CLIENT_KEPT_MS:
            return
        if not event.origin.known:
            return
        if grant.poller is None:
            if started or event.time - grant.approved <= CODE_MS or not grant.approved:
                self._polled(event, facts, grant)
                return
        self._used(event, facts, grant)

    def _polled(self, event: Event, facts: Facts, grant: _Grant) -> None:
        """The first use of the tokens: the polling client. By itself it accuses nobody but a script in a rented network."""
        origin = event.origin
        grant.poller, grant.polled, grant.poller_agent = origin, event.time, event.agent.family
        grant.events.append(event.id)
        identity = facts.identity
        key = (identity.id, origin.provider or origin.net)
        habit = self.habits.setdefault(key, {})
        known = bool(habit) or _knew(identity.net_first, origin, event.time) or ours(self.world, origin, identity)
        habit[origin.net] = event.time
        if known or grant.approver is None or not grant.approver.known or same_place(origin, grant.approver):
            return
        if origin.network not in RENTED or event.agent.kind not in SCRIPTED:
            return
        self._report(
            event, facts, grant, "high", f"redeemed {span(event.time - grant.approved)} later by {event.agent.family} at {place(origin)}"
        )

    def _used(self, event: Event, facts: Facts, grant: _Grant) -> None:
        origin = event.origin
        ends = [o for o in (grant.approver, grant.poller) if o is not None]
        if any(same_place(origin, o) for o in ends):
            return
        identity = facts.identity
        since = grant.approved or grant.polled
        if _knew(identity.net_first, origin, since) or ours(self.world, origin, identity):
            return
        if not any(same_place(origin, o) for o in grant.third):
            grant.third.append(origin)
        script = event.agent.kind in SCRIPTED
        rented = origin.network in RENTED
        first_party = origin.provider == "azure" and (event.d.params or {}).get("client_owner") == "microsoft"
        ends_countries = {o.country for o in ends if o.country}
        abroad = bool(origin.country and ends_countries and origin.country not in ends_countries)
        other_program = event.agent.family not in ("unknown", grant.poller_agent)
        severity: Severity = "high"
        traps: list[str] = []
        if first_party and not script:
            severity, traps = "low", ["Microsoft's own network refreshes first-party clients"]
        elif not (script or rented or len(grant.third) > 1):
            if abroad and other_program:
                severity, traps = lower("high"), ["neither a script nor a rented network"]
            else:
                severity, traps = "low", ["an access line and the polling client's own program: the device may have moved"]
        self._report(event, facts, grant, severity, f"used from {place(origin)} with {event.agent.family}", traps)

    def _report(self, event: Event, facts: Facts, grant: _Grant, severity: Severity, what: str, traps: list[str] | None = None) -> None:
        approved = (
            f"approved from {place(grant.approver)} at {when(grant.approved)}"
            if grant.approver is not None
            else "approved before this log begins"
        )
        polled = f", redeemed at {place(grant.poller)}" if grant.poller is not None and grant.poller is not event.origin else ""
        subject = subject_of(facts.identity, event, lives=(facts.session,))
        self.report(
            f"{facts.identity.id}|{event.session or event.shape.client}|{grant.approved or grant.polled}",
            event,
            severity=severity,
            narrative=f"A device code of {who(event)} was {approved}{polled}; the same session was then {what}.",
            subject=subject,
            evidence=grant.events,
            traps=traps or (),
            root=event.session,
        )


def _keys(event: Event) -> list[tuple[str, ...]]:
    """What joins approval, redemption and use: the session or the refresh family."""
    keys: list[tuple[str, ...]] = []
    if event.session:
        keys.append(("s", event.session))
    if event.d.family:
        keys.append(("f", event.d.family))
    return keys


def _knew(nets: dict[str, int], origin: Origin, since: int) -> bool:
    first = nets.get(origin.net)
    if first is not None and first < since:
        return True
    if origin.ip is None:
        return False
    near = prefix_of(origin.ip)
    return any(t < since and net.startswith(near) for net, t in nets.items())
