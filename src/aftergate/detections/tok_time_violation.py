"""A token is accepted before it was issued or after its end."""

from __future__ import annotations

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.reasoning import place, span, when, who
from aftergate.lineage.state import HOUR_MS, MINUTE_MS, Identity, Life
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Bit, Event, Severity

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
            "A clock that is further off: the issuer's log has the token, for a session that was open at the same place before; then it is medium.",
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

    def start(self) -> None:
        self.early: list[tuple[Event, Identity, Life, int]] = []  # before their issue, in a session that was open there: judged at the end

    def step(self, event: Event, facts: Facts) -> None:
        detail = event.detail
        now = event.time
        life = facts.life
        # a service token's lifetime starts anew at each renewal, and Vault refuses it after: only a batch token's end is fixed
        moves = event.source.startswith("vault") and (detail is None or detail.credential_type != "batch")
        if detail is not None and (detail.token_issued_at is not None or detail.token_expires_at is not None):
            issued, end = detail.token_issued_at, detail.token_expires_at
            if detail.issued or "introspect" in event.action.name:
                return  # the times are of a token being issued, or of one that somebody asks about
            if issued is not None and issued > now + SKEW_MS:
                before = facts.session_previous
                if (
                    life is not None
                    and before is not None
                    and before.origin.known
                    and before.origin.site == event.origin.site
                    and len(self.early) < 10_000
                ):
                    self.early.append((event, facts.identity, life, issued))
                else:
                    self._tell(event, facts.identity, life, "before", issued)
            elif moves:
                return
            elif end is not None and now > end + SKEW_MS:
                self._tell(event, facts.identity, life, "after", end)
            elif end is None and issued is not None and now > issued + LONGEST_MS and event.source.startswith(_ENTRA):
                self._tell(event, facts.identity, life, "old", issued)
            return
        if life is None or moves:
            return
        mint = life.mint
        if mint is None or now - mint.time <= GRACE_MS:
            return
        end = mint.expires_at  # unknown where the request named no duration: services hand out six hours, people twelve
        if end is None or now <= end + GRACE_MS or event.credential is None:
            return
        if mint.klass in _EXACT and end - mint.time != _KUBELET_TTL_MS:
            self._tell(event, facts.identity, life, "after", end)

    def finish(self) -> None:
        for event, identity, life, issued in self.early:
            mint = life.mint
            # the issuer's own log has the token, of that moment and that session, at the same place: it is no forgery, and nobody can hold
            # a token that does not exist yet, so that one of the two clocks is wrong
            real = (
                mint is not None
                and abs(mint.time - issued) <= SKEW_MS
                and mint.session == event.session
                and mint.shape.origin.site == event.origin.site
            )
            self._tell(event, identity, life, "before", issued, "medium" if real else "high")

    def _tell(self, event: Event, identity: Identity, life: Life | None, how: str, moment: int, severity: Severity = "high") -> None:
        if not event.ok:
            return
        far = span(abs(event.time - moment))
        if how == "before":
            told = f"{far} before it was issued ({when(moment)})"
        elif how == "after":
            told = f"{far} after its end ({when(moment)})"
        else:
            told = f"{far} after it was issued ({when(moment)}); tokens of this issuer live 28 hours at most"
        key = life.id if life is not None else f"{identity.id}|{moment}"
        self.report(
            key,
            event,
            severity=severity,
            narrative=f"A token of {who(event)} was accepted from {place(event.origin)} {told}.",
            subject=subject_of(identity, event, lives=[life]),
            traps=("the issuer's log has the token, for the session that was open at that place before: a wrong clock",)
            if severity == "medium"
            else (),
        )
