"""A credential that was revoked or deleted is still accepted past its provider's known lag."""

from __future__ import annotations

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import place, span, when, who
from aftergate.lineage.state import HOUR_MS, MINUTE_MS, Death, Life
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Bit, Event, Severity

LAG_MS = 5 * MINUTE_MS  # opaque keys and tokens: caches of the provider
SPREAD_MS = 2 * HOUR_MS  # a deleted or deactivated key may still work here and there for its usual consumer
SELF_CONTAINED_MS = HOUR_MS  # a JWT is checked without asking the issuer, so it lives to its end
CONTINUOUS_MS = 28 * HOUR_MS  # longest access token of Entra; revocation reaches only resources that evaluate continuously
_SELF_CONTAINED = frozenset({"access_token", "id_token", "k8s_token"})


class Detection(Rule):
    meta = Meta(
        slug="tok-works-after-revoke",
        title="Revoked credential still accepted",
        severity="critical",
        about=(
            "Somebody revoked or deleted this credential, and later it was still accepted, past the time its provider needs. Either the revocation "
            "did not reach it, or the resource does not ask: whoever holds it goes on."
        ),
        attack=("T1550.001",),
        nhi=("NHI1",),
        needs=(("revoke", "credential"), ("credential.remove", "credential")),
        traps=(
            "Uses from before the revocation whose records arrive late: event time counts.",
            "The provider's lag: five minutes for keys and opaque tokens, an hour or the token's own end for self-contained ones, 28 hours for Entra.",
            "A key that was switched on again.",
            "A key switched off within the last two hours, used by its usual consumer from its usual place: low.",
        ),
        blind=("Credentials that no log names, and revocations made in systems whose log is not read.",),
        recommended=(
            "Revoke again, one level up: the session, then the grant",
            "Disable the identity until the credential is refused",
            "Open a case with the provider",
        ),
        half_life_d=30.0,
    )
    subscriptions = (on(bits=Bit.AFTER_DEATH),)

    def step(self, event: Event, facts: Facts) -> None:
        if not event.ok:
            return
        for life in (facts.life, facts.session):
            death = life.death if life is not None else None
            if life is not None and death is not None and death.undone is None and event.id != death.event:
                self._judge(event, facts, life, death)
                return

    def _judge(self, event: Event, facts: Facts, life: Life, death: Death) -> None:
        if event.shape.actor.first_party or death.reason not in ("revoked", "removed", "deleted"):
            return
        lag = event.time - death.time
        if lag <= _allowed(life, death):
            return
        severity: Severity = "critical"
        traps: list[str] = []
        known = any(
            shape.origin.net == event.shape.origin.net and shape.agent.family == event.shape.agent.family and use.first < death.time
            for shape, use in life.uses.items()
        )
        if death.reason != "revoked" and lag <= SPREAD_MS and known:
            severity = "low"
            traps.append("a key that was switched off minutes ago, used by its usual consumer: the change may still be spreading")
        self.report(
            life.id,
            event,
            severity=severity,
            traps=traps,
            narrative=(
                f"{'The session' if life.is_session else 'A credential'} of {who(event)}, {death.reason} at {when(death.time)}, was still accepted "
                f"{span(lag)} later, from {place(event.origin)} with {event.agent.family}."
            ),
            subject=subject_of(facts.identity, event, lives=[life]),
            evidence=[death.event],
        )


def _allowed(life: Life, death: Death) -> int:
    """Milliseconds for which use after the revocation is the provider's ordinary lag."""
    mint = life.mint
    if mint is not None and mint.klass in _SELF_CONTAINED:
        if life.source.startswith(("entra.", "graph.", "m365.")):
            return max(CONTINUOUS_MS - max(0, death.time - mint.time), LAG_MS)
        if mint.expires_at is not None:
            return max(mint.expires_at - death.time, LAG_MS)
        return SELF_CONTAINED_MS
    if life.is_session and life.source.startswith("entra."):
        return SELF_CONTAINED_MS
    return LAG_MS
