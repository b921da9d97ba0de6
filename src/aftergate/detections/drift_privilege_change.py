"""Rights given by a session that is not the one who gives rights."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.conduct import Practice, automation, band, began, is_person, is_self, place_of, refused, session_key, statements
from aftergate.detections.reasoning import established, span, when, who
from aftergate.lineage.state import HOUR_MS, Identity
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Event, Kind, Tag
from aftergate.vocabulary.patterns import regex

_TOP = regex(
    r"administratoraccess|iamfullaccess|poweruseraccess|organizationsfullaccess|clusteradminpolicy|eksadminpolicy|global administrator|company administrator|"
    r"privileged role admin|privileged authentication admin|application administrator|hybrid identity admin|conditional access administrator|"
    r"security administrator|user access administrator|^owner$|roles/owner|roles/editor|securityadmin|organizationadmin|roleadmin|serviceaccounttokencreator|"
    r"serviceaccountkeyadmin|serviceaccountadmin|workloadidentitypooladmin|projectiamadmin|cluster-admin|system:masters|super[ _-]?admin|"
    r"org(?:anization)?[ _-]?admin|rolemanagement\.readwrite|approleassignment\.readwrite|application\.readwrite\.all|directory\.readwrite\.all|full_access_as_app|"
    r"realm-admin|manage-users|^root$|_seed_admin",
    re.IGNORECASE,
)
_SMALL = regex(
    r"read[-_ ]?only|readonlyaccess|view(?:er|only)|\bread(?:er)?\b|list(?:er)?\b|auditor|report admin|guest|monitor", re.IGNORECASE
)
_BROAD = regex(r"full ?access|admin|\bwrite\b|maintain|manage", re.IGNORECASE)
_ESCALATE = regex(
    r"\*|iam:\*|iam:(?:put|attach|create|update|setdefault|add|pass)\w*|sts:\*|sts:assumerole|lambda:\*|organizations:\*|kms:\*|secretsmanager:\*",
    re.IGNORECASE,
)
_READS = regex(r"[\w-]+:(?:get|list|describe|head|view|query|batchget)", re.IGNORECASE)
_AZURE = {  # built-in roles, https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
    "8e3af657-a8ff-443c-a75c-2fe8c4bcb635": (3, "Owner"),
    "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9": (3, "User Access Administrator"),
    "f58310d9-a9f6-439a-9e8d-f62e7b41a168": (3, "Role Based Access Control Administrator"),
    "b24988ac-6180-42a0-ab88-20f7382dd24c": (3, "Contributor"),
    "00482a5a-887f-4fb3-b363-3b7fe8e74483": (3, "Key Vault Administrator"),
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": (3, "Storage Blob Data Owner"),
    "acdd72a7-3385-48ef-bd42-f606fba81ae7": (1, "Reader"),
}
_ATTEMPTS_MS = 2 * HOUR_MS
_TAKEN_MS = HOUR_MS  # a role taken this soon after its rights were given was strengthened for the taker


class _Given(Struct):
    """Rights that an identity gave to a role."""

    event: Event
    key: str
    points: int  # without what a pipeline takes off: whoever takes the role by hand is none
    reasons: list[str]


class Detection(Rule):
    meta = Meta(
        slug="drift-privilege-change",
        title="Rights given by an unlikely hand",
        severity="high",
        about=(
            "A session attaches policies, binds roles or adds members to administrative groups. Weighed are the rights given, whether the giver "
            "ever did such a thing, where it acts from, whether it gives to itself, and whether it was refused before."
        ),
        attack=("T1098.003", "T1098.006", "T1548.005"),
        nhi=("NHI5",),
        needs=(("privilege.grant",),),
        traps=(
            "Infrastructure pipelines and access-governance robots give rights every day: a habit or a pipeline lowers the weight.",
            "Activating an eligible role for some hours is no grant.",
            "Read-only rights weigh little.",
        ),
        blind=(
            "A stolen pipeline that gives rights as it always does looks like the pipeline.",
            "Custom roles are weighed by their names when the log shows no content.",
        ),
        recommended=(
            "Take back the rights that were given",
            "End the session that gave them",
            "Ask the giver by another channel, then reset the credential",
        ),
    )
    subscriptions = (
        on(tags=[Tag.PRIVILEGE_GRANT]),
        on(kinds=[Kind.TOKEN_EXCHANGE, Kind.TOKEN_ISSUE], sources=("aws.",)),  # one look-up each
    )

    def start(self) -> None:
        self.practice = Practice()
        self.refused: dict[str, list[tuple[int, str]]] = {}
        self.given: dict[tuple[str, str], _Given] = {}  # giver and role

    def step(self, event: Event, facts: Facts) -> None:
        identity = facts.identity
        if not event.shape.action.tags or Tag.PRIVILEGE_GRANT not in event.shape.action.tags:
            if not self.given:
                return
            self._taken(event, facts)
            return
        if event.actor.first_party or event.actor.kind == "service":
            return
        weight, what = _weight(event)
        if not event.ok:
            if weight >= 2 and refused(event):
                held = self.refused.setdefault(identity.id, [])
                held.append((event.time, event.id))
                del held[:-20]
            return
        machine = automation(self.world, event, facts.session or facts.life)
        act = event.action.service
        habit = self.practice.habit(identity, act, event.time)
        by_hand = not machine and self.practice.machines_only(act)
        self.practice.note(identity, act, event, machine)
        if weight == 0:
            return
        points, reasons = weight, [what]
        place = place_of(self.world, identity, event)
        target = event.d.targets[0] if event.d.targets else None
        if _to_itself(identity, event):
            points += 1
            reasons.append("the actor gains them itself")
        if place.score:
            points += place.score
            reasons.append(place.why)
        if began(identity, event.action.name, event.time):
            points += 1
            reasons.append("it never did this before")
        if by_hand and is_person(event):
            points += 1
            reasons.append("until now only automation did this")
        tries = [e for t, e in self.refused.get(identity.id, ()) if event.time - t <= _ATTEMPTS_MS]
        if tries:
            points += 1
            reasons.append("after a refused try")
        if event.agent.kind == "tool":
            points += 1
            reasons.append(f"with {event.agent.family}")
        traps: list[str] = []
        if machine and not place.score:
            points -= 2
            traps.append("a pipeline that changes the control plane by trade")
        elif habit and place.score < 2:
            points -= 2
            traps.append("gives rights on other days too")
        elif weight < 3 and not tries and established(identity, event.time) and not place.score:
            points -= 1
        if event.source.startswith("aws.") and target is not None and ":role/" in target.id and not habit and event.agent.kind != "service":
            self.given[identity.id, target.id] = _Given(
                event, session_key(identity, event), points + (2 if machine and not place.score else 0), reasons
            )
        severity = band(points)
        if severity is None:
            return
        session = facts.life or facts.session
        since = f", {span(event.time - session.first)} into the session" if session is not None and session.count > 1 else ""
        name = f" to {target.names[-1] if target.names else target.id.rpartition('/')[2]}" if target is not None else ""
        self.report(
            session_key(identity, event),
            event,
            severity=severity,
            narrative=f"{who(event)} gave rights{name} at {when(event.time)}{since}: {'; '.join(r for r in reasons if r)}.",
            subject=subject_of(identity, event),
            evidence=tries,
            traps=traps,
        )

    def _taken(self, event: Event, facts: Facts) -> None:
        """A role is taken: by the one who has just given it rights?"""
        given = self.given.pop((facts.identity.id, event.target or ""), None) if self.given and event.ok else None
        if given is None or event.time - given.event.time > _TAKEN_MS or automation(self.world, event, facts.session or facts.life):
            return
        severity = band(given.points + 1 + (event.agent.kind == "tool"))
        if severity is None or event.target is None:
            return
        later = span(event.time - given.event.time)
        self.report(
            given.key,
            event,
            severity=severity,
            narrative=(
                f"{who(event)} gave rights to {event.target.rpartition('/')[2]} at {when(given.event.time)} and took the role itself {later} later: "
                f"{'; '.join(r for r in given.reasons if r)}."
            ),
            subject=subject_of(facts.identity, event, credentials=event.d.issued),
            evidence=[given.event.id],
        )


def _to_itself(identity: Identity, event: Event) -> bool:
    members = (event.d.params or {}).get("members")
    if isinstance(members, (list, tuple)):
        own = {*identity.names, identity.id}
        return any(isinstance(m, str) and (m in own or m.partition(":")[2].lower() in own) for m in members)
    return any(is_self(identity, event, target) for target in event.d.targets if target.type != "access_key")


def _named(names: list[str]) -> int:
    """Weight of rights by their names: 3 all power or power over rights, 2 some, 1 looking."""
    if any(_TOP.search(n) for n in names):
        return 3
    if names and all(_SMALL.search(n) and not _BROAD.search(n) for n in names):
        return 1
    return 2


def _documented(document: Any) -> int:
    weight = 0
    for statement in statements(document):
        wide = "*" in statement.resources or any(r.endswith(":*") for r in statement.resources) or not statement.resources
        if wide and any(_ESCALATE.fullmatch(a) for a in statement.actions):
            return 3
        weight = max(weight, 1 if statement.actions and all(_READS.match(a) for a in statement.actions) else 2)
    return weight


def _weight(event: Event) -> tuple[int, str]:
    """How much power an act gives, and a phrase for it."""
    params = event.d.params or {}
    source, name = event.source, event.action.name
    if source.startswith("aws."):
        document = params.get("policyDocument") or params.get("inlinePolicy")
        if document is not None and (found := _documented(document)):
            return found, "a policy that allows everything or changes of rights" if found == 3 else "an inline policy"
        if "PermissionsBoundary" in name:
            return 3, "the limit of its rights was removed"
        named = [str(params[k]) for k in ("policyArn", "managedPolicyArn", "groupName", "policyName") if isinstance(params.get(k), str)]
        groups = params.get("kubernetesGroups")
        if isinstance(groups, list):
            named += [g for g in groups if isinstance(g, str)]
        if not named:
            return (2, name) if name != "eks:CreateAccessEntry" else (1, name)
        short = [n.rpartition("/")[2] for n in named]
        return (3 if "admin" in short[0].lower() and name == "iam:AddUserToGroup" else _named(short)), " and ".join(short)
    if source == "gcp.audit" and isinstance(params.get("roles"), list):
        roles = [r for r in params["roles"] if isinstance(r, str)]
        weight = _named(roles) if roles else 1
        if params.get("public") and weight > 1:
            weight = 3
        return weight, ", ".join(roles[:4])
    if source == "kubernetes.audit":
        role, verbs, resources = params.get("role"), params.get("verbs") or (), params.get("resources") or ()
        if isinstance(role, str):
            named = [
                role,
                *(m for m in params.get("members") or () if m in ("system:masters", "system:anonymous", "system:unauthenticated")),
            ]
            return (
                3 if len(named) > 1 or (role in ("cluster-admin", "admin", "edit") and name.startswith("cluster")) else _named([role])
            ), role
        if verbs or resources:
            top = ("*" in verbs and ("*" in resources or "secrets" in resources)) or any(
                v in verbs for v in ("escalate", "bind", "impersonate")
            )
            run = any(r in resources for r in ("pods/exec", "pods/attach", "pods/ephemeralcontainers", "serviceaccounts/token"))
            return (
                3 if top or (run and ("create" in verbs or "*" in verbs or "get" in verbs)) else 1
            ), "a role with wide rules" if top else "a role"
        if _TOP.search((event.target or "").rpartition("/")[2]):
            return 3, event.target or name
        return (2, name) if name.startswith("clusterrolebindings") else (1, name)
    if source.startswith("entra") and Tag.CONSENT in event.action.tags:
        scopes = list(event.d.scopes)
        return (3, ", ".join(scopes[:4])) if any(_TOP.search(s) for s in scopes) else (1, ", ".join(scopes[:4]))
    if source == "github.audit":
        level = str(
            params.get("permission") or next((c.new for c in event.d.changes if c.name in ("permission", "role") and c.new), "") or ""
        )
        if name in ("business.add_admin", "user.promote") or (
            name in ("org.update_member", "org.invite_member", "org.add_member") and level in ("admin", "owner")
        ):
            return 3, "owner of the organisation"
        if name.startswith(("team.", "org.invite", "org.add_billing")):
            return 1, name
        return (2 if level in ("admin", "maintain", "") else 1), f"{name} {level}".strip()
    if source.startswith("vault"):
        path = str(params.get("path") or "")
        if "generate-root" in path:
            return 3, "a root token"
        return (2 if "polic" in path else 1), path
    if source.startswith("azure") and (built_in := _AZURE.get(str(params.get("role") or "").lower())):
        return built_in
    words = [str(params[k]) for k in ("role", "privilege", "role_name", "ROLE_NAME") if isinstance(params.get(k), str)]
    words += [
        c.new
        for c in event.d.changes
        if c.new and ("role" in c.name.lower() or "privilege" in c.name.lower()) and c.name != "Role.ObjectID"
    ]
    if words:
        return _named([w for w in words if len(w) != 36]), words[0]
    if "elevate" in name.lower() or "user access administrator" in name.lower():
        return 3, "user access administrator over all subscriptions"
    admin = (source == "okta" and name.endswith("privilege.grant")) or name.endswith(":admin")
    return (3, "an administrator role") if admin else (2, name)
