"""Authorization code of a trusted public client redeemed at another place than the browser that logged in."""

from __future__ import annotations

from aftergate.detections.api import Meta, Rule, lower, on, subject_of
from aftergate.detections.reasoning import RENTED, SCRIPTED, ours, place, prefix_of, same_place, span, when, who
from aftergate.lineage.state import MINUTE_MS
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Bit, Event, Kind, Origin, Severity

REDEEM_MS = 60 * MINUTE_MS  # a code lives ten minutes; slow logs and a person who pastes it later get more
OTHER_USER = 3  # places of its own that a client needs before its codes count as redeemed where the browser is


class _Leg:
    """The browser's half of a login, waiting for its redemption."""

    __slots__ = ("client", "event", "origin", "time")

    def __init__(self, event: Event) -> None:
        self.event = event.id
        self.time = event.time
        self.origin = event.origin
        self.client = event.shape.client


class Detection(Rule):
    meta = Meta(
        slug="ni-first-party-oauth-phish",
        title="Authorization code redeemed away from the browser that logged in",
        severity="high",
        about=(
            "A person is lured through the real login page of a trusted client such as a code editor or a command line, and hands over the address bar. Whoever "
            "has the code redeems it elsewhere and holds tokens that no consent or new application betrays."
        ),
        attack=("T1528", "T1566.002", "T1550.001"),
        needs=(("session", "client", "origin.ip"),),
        traps=(
            "Remote development containers and forwarded ports: the same program at the same cloud, again and again.",
            "Private relay, carriers and gateways that give a browser another address than the program beside it.",
            "Web applications that redeem on their own server: only clients without a server count.",
        ),
        blind=("A code redeemed in the victim's own network.", "Issuers that do not name the session or client on both halves."),
        recommended=(
            "Revoke the session's refresh tokens",
            "Ask the person what they pasted, and where the link came from",
            "Require a managed device for this client",
        ),
        half_life_d=30.0,
    )
    subscriptions = (
        on(kinds=(Kind.SIGN_IN,)),
        on(
            kinds=(Kind.SILENT_SIGN_IN, Kind.TOKEN_ISSUE),
            bits=Bit.SESSION_NET | Bit.SESSION_AGENT | Bit.SESSION_SWITCH | Bit.LIFE_NET | Bit.LIFE_AGENT | Bit.IDENTITY_NET | Bit.NEW_LIFE,
        ),
    )

    def start(self) -> None:
        self.legs: dict[str, _Leg] = {}
        self.habits: dict[
            tuple[str, str | None], list[tuple[Origin, int]]
        ] = {}  # (identity, client): where its codes were redeemed, and when first
        self.apart: dict[str, list[int]] = {}  # client: redemptions beside the browser, elsewhere

    def step(self, event: Event, facts: Facts) -> None:
        if not event.ok or not event.origin.known:
            return
        session = event.session
        if event.kind is Kind.SIGN_IN:
            if session is not None and event.d.grant in (None, "authorization_code", "login") and event.d.transfer is None:
                self.legs[session] = _Leg(event)
            return
        if (
            session is None
            or event.d.transfer is not None
            or event.d.incoming is not None
            or event.d.grant in ("refresh_token", "device_code")
        ):
            return
        leg = self.legs.get(session)
        if leg is None or event.shape.client != leg.client or event.time - leg.time > REDEEM_MS:
            return
        del self.legs[session]  # a code is redeemed once
        self._redeemed(event, facts, leg)

    def _redeemed(self, event: Event, facts: Facts, leg: _Leg) -> None:
        origin, client = event.origin, event.shape.client
        beside = same_place(origin, leg.origin)
        counts = self.apart.setdefault(client or "", [0, 0])
        usual = counts[0] >= OTHER_USER and counts[1] <= counts[0] // 10
        counts[0 if beside else 1] += 1
        if beside:
            return
        params = event.d.params or {}
        if not (params.get("client_owner") == "microsoft" or usual) or event.d.credential_type not in (None, "none"):
            return  # a client with a server redeems there
        identity = facts.identity
        habit = self.habits.setdefault((identity.id, client), [])
        known = any(same_place(origin, held) for held, first in habit if event.time - first > 12 * 60 * MINUTE_MS)
        if not any(same_place(origin, held) for held, _ in habit):
            habit.append((origin, event.time))
        if known or _seen(identity.net_first, origin, leg.time) or ours(self.world, origin, identity):
            return
        script, rented = event.agent.kind in SCRIPTED, origin.network in RENTED
        abroad = bool(origin.country and leg.origin.country and origin.country != leg.origin.country)
        severity: Severity = "high"
        traps: list[str] = []
        if not script and not rented:
            if origin.network in ("cloud", "mobile", "relay", "proxy") or leg.origin.network in ("relay", "proxy", "mobile", "vpn"):
                severity, traps = "low", ["a remote development container, a relay or a gateway would look like this"]
            elif abroad:
                severity, traps = lower("high"), ["neither a script nor a rented network"]
            else:
                severity, traps = "low", ["two access lines in one country: split tunnels look like this"]
        self.report(
            f"{identity.id}|{event.session}",
            event,
            severity=severity,
            narrative=(
                f"{who(event)} logged in to {event.shape.client_name or client or 'a public client'} in a browser at {place(leg.origin)} at {when(leg.time)}; "
                f"{span(event.time - leg.time)} later the code was redeemed at {place(origin)} with {event.agent.family}."
            ),
            subject=subject_of(identity, event, lives=(facts.session,)),
            evidence=(leg.event,),
            traps=traps,
            root=event.session,
        )


def _seen(nets: dict[str, int], origin: Origin, since: int) -> bool:
    near = prefix_of(origin.ip) if origin.ip is not None else "none"
    return any(first < since and (net == origin.net or net.startswith(near)) for net, first in nets.items())
