"""Who may vouch for identities was changed: issuers, keys, federated subjects, role trust."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.conduct import (
    Practice,
    account_of,
    automation,
    band,
    began,
    is_person,
    open_to_all,
    own_accounts,
    place_of,
    session_key,
    statements,
)
from aftergate.detections.reasoning import established, when, who
from aftergate.lineage.state import Identity
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Event, Subject, Tag
from aftergate.vocabulary.patterns import regex

_WIDE_SUBJECT = regex(r"\*|repo:\*.*|repo:[^/]+/\*.*|project_path:\*.*|system:serviceaccount:\*.*|organization:\*.*|.*:\*:\*")
_MADE = regex(r"create|add|enable|activate|establish|import|associate|upload|configure|verify|set", re.IGNORECASE)
_GONE = regex(r"delete|remove|disable|deactivate|disassociate", re.IGNORECASE)


class _Held(Struct):
    event: Event
    identity: Identity
    subject: Subject
    points: int
    reasons: list[str]
    traps: list[str]
    foreign: list[str]  # accounts trusted


class Detection(Rule):
    meta = Meta(
        slug="tok-trust-anchor-change",
        title="Trust in an issuer, key or foreign identity was added or widened",
        severity="critical",
        about=(
            "Whoever may vouch for identities may become any of them: a domain turned over to a foreign issuer, a new identity provider or signing key, a "
            "role that a foreign account or every repository may take. The change itself mints nothing and outlives every reset of passwords."
        ),
        attack=("T1484.002", "T1606.002", "T1098"),
        nhi=("NHI4", "NHI5"),
        needs=(("trust.change",),),
        traps=(
            "Pipelines that move federated subjects to the next branch: issuer and organisation stay, the subject is exact.",
            "Role trust that names a service or an own account.",
            "Removing trust.",
        ),
        blind=(
            "Whether a foreign account belongs to a partner is not in the logs.",
            "Logs that do not show the policy are weighed by the operation.",
        ),
        recommended=(
            "Put the former trust policy, issuer or key back",
            "End sessions that came in by the new trust",
            "End the session that changed it",
        ),
        half_life_d=60.0,
    )
    subscriptions = (on(tags=[Tag.TRUST_CHANGE]),)

    def start(self) -> None:
        self.practice = Practice()
        self.held: list[_Held] = []
        self.issuers: dict[str, set[str]] = {}  # tenant -> issuer and organisation seen in federated subjects

    def step(self, event: Event, facts: Facts) -> None:
        if not event.ok or event.actor.first_party or event.actor.kind == "service":
            return
        identity = facts.identity
        machine = automation(self.world, event, facts.session or facts.life)
        act = event.action.name
        habit = self.practice.habit(identity, act, event.time)
        by_hand = not machine and self.practice.machines_only(act)
        self.practice.note(identity, act, event, machine or event.actor.kind == "workload")
        weight, what, foreign = self._weight(event)
        if weight <= 0 and not foreign:
            return
        points, reasons, traps = weight, [what] if what else [], []
        place = place_of(self.world, identity, event)
        if place.score:
            points += place.score
            reasons.append(place.why)
        if by_hand and is_person(event):
            points += 1
            reasons.append("until now only automation changed this")
        if event.agent.kind == "tool":
            points += 1
            reasons.append(f"with {event.agent.family}")
        update = "update" in act.lower() and weight <= 3  # a certificate renewed, a condition changed
        if began(identity, act, event.time) and ((weight >= 3 and not update) or foreign or place.score):
            points += 1
            reasons.append("it never did this before")
        if (machine or self.directory.is_deployer(identity.id)) and not place.score:
            points -= 2
            traps.append("a pipeline that changes the control plane by trade")
        elif habit and place.score < 2:
            points -= 2
            traps.append("does this on other days too")
        elif (weight <= 2 or update) and established(identity, event.time) and not place.score:
            points -= 1
        self.held.append(_Held(event, identity, subject_of(identity, event), points, reasons, traps, foreign))

    def finish(self) -> None:
        own = own_accounts(self.world) if any(one.foreign for one in self.held) else set()
        for one in self.held:
            event = one.event
            outside = [a for a in one.foreign if a not in own and a != event.actor.account and a != event.shape.account]
            points = one.points
            if outside:
                points += 4
                one.reasons.append(f"a foreign account may take the role: {', '.join(outside[:3])}")
            severity = band(points, high=4, critical=6)
            if severity is None:
                continue
            target = event.d.targets[0] if event.d.targets else None
            name = f" on {target.names[-1] if target.names else target.id.rpartition('/')[2]}" if target is not None else ""
            self.report(
                session_key(one.identity, event),
                event,
                severity=severity,
                narrative=f"{who(event)}{name} at {when(event.time)}: {'; '.join(r for r in one.reasons if r)}.",
                subject=one.subject,
                traps=one.traps,
            )

    def _weight(self, event: Event) -> tuple[int, str, list[str]]:
        """How much trust an act adds, a phrase, and the foreign accounts it names."""
        name, detail = event.action.name, event.d
        params: Mapping[str, Any] = detail.params or {}
        if name == "iam:UpdateAssumeRolePolicy":
            return _role_trust(params.get("policyDocument"))
        if event.source.startswith(("entra", "graph")):
            return self._entra(event, name)
        verb = name.rpartition(":")[2] if event.source.startswith("aws.") else name
        if _GONE.search(verb) and not re.search(r"deactivated_|disabled_", verb):
            return (1 if Tag.DEFENCE_WEAKEN not in event.action.tags else 2), f"{verb}: trust was taken away", []
        if event.source.startswith("aws."):
            weight = {"CreateOpenIDConnectProvider": 3, "CreateSAMLProvider": 3, "CreateTrustAnchor": 3, "UpdateTrustAnchor": 3,
                      "ConfigureExternalIdP": 3, "EnableExternalIdPConfigurationForDirectory": 3, "CreateTrustedTokenIssuer": 3}.get(verb, 2)  # fmt: skip
            if verb in (
                "CreateProfile",
                "UpdateProfile",
                "EnableProfile",
                "CreateInstance",
                "CreateIdentityProvider",
                "UpdateIdentityProvider",
            ):
                weight = 1
            return (
                weight,
                f"{verb}{' ' + str(params.get('url') or params.get('name') or '') if params.get('url') or params.get('name') else ''}",
                [],
            )
        if event.source in ("okta", "gcp.audit", "github.audit", "google.admin"):
            lower = name.lower()
            strong = any(w in lower for w in ("idp", "pool", "sso", "saml", "identity_provider", "oidc", "ssh_certificate"))
            return (
                (3 if strong and "sensitive" not in lower else 2 if strong else 1),
                f"{name}: who may vouch for identities was changed",
                [],
            )
        return (
            (2 if re.search(r"post|create|put|update|/config|sys/auth|keys", name, re.IGNORECASE) and "patch" not in name.lower() else 1),
            name,
            [],
        )

    def _entra(self, event: Event, name: str) -> tuple[int, str, list[str]]:
        lower, detail = name.lower(), event.d
        changed = {c.name: (c.old or "", c.new or "") for c in detail.changes}
        if "federated credential" in lower or "federated identity" in lower:
            if "removed" in lower:
                return 0, "", []
            seen = self.issuers.setdefault(event.shape.account or "", set())
            issuer, subject = (detail.issuer or "").rstrip("/"), detail.subject or ""
            organisation = f"{issuer}|{subject.split('/')[0] if subject.startswith('repo:') else ''}"
            new = bool(issuer) and bool(seen) and organisation not in seen
            if issuer:
                seen.add(organisation)
            if _WIDE_SUBJECT.fullmatch(subject):
                return 4, f"any workload of {issuer} may become the application ({subject})", []
            return (
                (3 if new else 1 if issuer else 2),
                f"federated subject {subject or 'unknown'} of {'an issuer or organisation never seen' if new else issuer or 'an unknown issuer'}",
                [],
            )
        if "federation settings" in lower:
            old, new_issuer = changed.get("IssuerUri", ("", ""))
            same = (bool(old) and old == new_issuer) or ("IssuerUri" not in changed and bool(changed))
            return (2 if same else 4), f"federation settings of a domain were set, issuer {new_issuer or 'not shown'}", []
        if "domain authentication" in lower:
            now = changed.get("LiveType", ("", ""))[1]
            return (4 if "Federated" in now or not now else 1), f"sign-in of a domain is now {now or 'changed'}", []
        if "federationconfiguration" in lower:
            return 4, "federation of a domain was configured", []
        if "root certificate" in lower:
            return 3, "a root certificate was uploaded: who has its key can sign in as anybody", []
        if "identity provider" in lower or "identityproviders" in lower:
            return (0 if _GONE.match(lower) else 3), name, []
        return (1 if _MADE.match(lower) else 0), name, []


def _role_trust(document: Any) -> tuple[int, str, list[str]]:
    """Weight of a role's trust policy; other accounts it names are judged when all own accounts are known."""
    weight, what, accounts = 0, "", []
    for statement in statements(document):
        if open_to_all(statement):
            return 5, "anybody may take the role", []
        for kind, value in statement.principals:
            if kind == "Federated":
                subjects = [v for _, key, values in statement.conditions if key.endswith(":sub") for v in values]
                claims = [
                    key
                    for _, key, _ in statement.conditions
                    if ":" in key and not key.lower().startswith(("aws:", "sts:")) and not key.endswith(":aud")
                ]
                workload = "oidc-provider" in value
                if workload and not claims:
                    return 4, f"every identity of {value.rpartition('oidc-provider/')[2]} may take the role", []
                if any(_WIDE_SUBJECT.fullmatch(s) for s in subjects):
                    broad = any(re.match(r"repo:[^/*]+/\*", s) for s in subjects)
                    if not broad:
                        return 4, f"the trust was widened to {subjects[0]}", []
                    weight, what = max(weight, 3), f"the trust was widened to {subjects[0]}"
                elif weight < 2:
                    weight, what = 2, f"the trust names {subjects[0] if subjects else value.rpartition('/')[2]}"
            elif kind == "AWS" and (account := account_of(value)):
                limited = any("externalid" in key.lower() or "principalorgid" in key.lower() for _, key, _ in statement.conditions)
                if not limited:
                    accounts.append(account)
                weight = max(weight, 1)
    return weight or 1, what, list(dict.fromkeys(accounts))
