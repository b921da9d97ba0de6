"""A token is accepted before it was issued or after its end."""

from __future__ import annotations

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import place, span, when, who
from aftergate.lineage.state import HOUR_MS, MINUTE_MS, Life
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Bit, Event

SKEW_MS = 5 * MINUTE_MS
LONGEST_MS = 29 * HOUR_MS  # Entra's longest access token lives 28 hours (continuous access evaluation)
GRACE_MS = 15 * MINUTE_MS  # after an end that is computed from the mint: long transfers, rounding
_ENTRA = ("graph.", "m365.")
_EXACT = frozenset({"access_token", "session_key", "k8s_token"})
_KUBELET_TTL_MS = 3_607_000  # such tokens are accepted for a year; the hour is only when the pod should fetch a new one


class Detection(Rule):
    meta = Meta(
        slug="tok-time-violation",
        title="Token accepted outside its lifetime",
        severity="high",
        about=(
            "A resource answered a token before its time of issue or after its end. Either the token's times were forged, or the resource does not "
            "check them: both let a thief go on for as long as he likes."
        ),
        attack=("T1550.001", "T1606.001"),
        nhi=("NHI2", "NHI7"),
        needs=(("token.times", "credential"), ("token.mint", "credential")),
        traps=(
            "Clocks that differ by up to five minutes.",
            "Entra tokens with continuous access evaluation live up to 28 hours.",
            "Vault service tokens, whose end every renewal moves.",
            "Records that arrive late: only the event's own time counts.",
            "Pod tokens that kubelet fetches hourly are accepted for a year by design.",
        ),
        blind=("Tokens whose end no log tells, other than Entra's.", "Refused uses are not reported."),
        recommended=(
            "Revoke the session the token belongs to",
            "Find out why the resource accepts the token: validation switched off, a clock far off, or a forged token",
            "Review what was read with the token outside its lifetime",
        ),
    )
    # whether a token is past its end does not show in anything new, so every use is compared; it is two look-ups
    subscriptions = (
        on(sources=("graph.", "m365.", "oauth.", "okta", "keycloak", "auth0", "vault", "agent")),
        on(bits=Bit.PAST_END),
    )

    def step(self, event: Event, facts: Facts) -> None:
        detail = event.detail
        now = event.time
        # a service token's lifetime starts anew at each renewal, and Vault refuses it after: only a batch token's end is fixed
        moves = event.source.startswith("vault") and (detail is None or detail.credential_type != "batch")
        if detail is not None and (detail.token_issued_at is not None or detail.token_expires_at is not None):
            issued, end = detail.token_issued_at, detail.token_expires_at
            if detail.issued or "introspect" in event.action.name:
                return  # the times are of a token being issued, or of one that somebody asks about
            if issued is not None and issued > now + SKEW_MS:
                self._tell(event, facts, "before", issued)
            elif moves:
                return
            elif end is not None and now > end + SKEW_MS:
                self._tell(event, facts, "after", end)
            elif end is None and issued is not None and now > issued + LONGEST_MS and event.source.startswith(_ENTRA):
                self._tell(event, facts, "old", issued)
            return
        life = facts.life
        if life is None or moves:
            return
        mint = life.mint
        if mint is None or now - mint.time <= GRACE_MS:
            return
        end = mint.expires_at  # unknown where the request named no duration: services hand out six hours, people twelve
        if end is None or now <= end + GRACE_MS or event.credential is None:
            return
        if mint.klass in _EXACT and end - mint.time != _KUBELET_TTL_MS:
            self._tell(event, facts, "after", end)

    def _tell(self, event: Event, facts: Facts, how: str, moment: int) -> None:
        life: Life | None = facts.life
        if not event.ok:
            return
        far = span(abs(event.time - moment))
        if how == "before":
            told = f"{far} before it was issued ({when(moment)})"
        elif how == "after":
            told = f"{far} after its end ({when(moment)})"
        else:
            told = f"{far} after it was issued ({when(moment)}); tokens of this issuer live 28 hours at most"
        key = life.id if life is not None else f"{facts.identity.id}|{moment}"
        self.report(
            key,
            event,
            narrative=f"A token of {who(event)} was accepted from {place(event.origin)} {told}.",
            subject=subject_of(facts.identity, event, lives=[life]),
        )
