"""Data opened to everybody or to somebody outside."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.conduct import (
    Practice,
    account_of,
    automation,
    band,
    began,
    open_to_all,
    own_accounts,
    own_domains,
    place_of,
    session_key,
    statements,
)
from aftergate.detections.reasoning import established, when, who
from aftergate.lineage.state import DAY_MS, Identity
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Event, Subject, Tag
from aftergate.vocabulary.patterns import regex

_EVERYBODY = regex(
    r"\ball(?:users|authenticatedusers)\b|/groups/global/|people_with_link|public_on_the_web|^anyone$|anonymous|^everyone$|^public$",
    re.IGNORECASE,
)
_MAIL = regex(r"(?:[a-z]+:)?[^\s@]+@([a-z0-9.-]+\.[a-z]{2,})", re.IGNORECASE)
_FREE = frozenset(
    "gmail.com googlemail.com outlook.com hotmail.com live.com yahoo.com proton.me protonmail.com icloud.com gmx.com gmx.net mail.ru yandex.ru tutanota.com".split()
)
_MANY = 15  # objects opened to outsiders by one identity in a day
_SETTLED_MS = 2 * DAY_MS  # how long ago an account must have been known to be a partner rather than news


class _Opened(Struct):
    event: Event
    identity: Identity
    subject: Subject
    points: int
    reasons: list[str]
    traps: list[str]
    accounts: list[str]
    domains: list[str]
    office: bool  # one document of an office suite
    early: bool  # done before the log told what the identity does
    strange: bool  # from a place that is new for the identity


class Detection(Rule):
    meta = Meta(
        slug="drift-external-share",
        title="Data opened to outsiders",
        severity="high",
        about=(
            "A session shares a snapshot, image or backup with a foreign account, opens a bucket, function, key, queue or repository to everybody, or "
            "shares many documents outside. It moves data out without a single download."
        ),
        attack=("T1537", "T1567"),
        nhi=("NHI5",),
        needs=(("share.change",),),
        traps=(
            "Sharing between accounts and domains whose own logs are among the inputs.",
            "Nightly copies for one partner: an account that got shares from the same identity on other days, or that has worked here for days.",
            "Policies that name everybody but are limited to an organisation, network or source.",
            "Single documents shared with a partner: only many in a day, or a strange place, count.",
        ),
        blind=(
            "Whether a foreign account belongs to a partner is not in the logs.",
            "A public website looks like any other public bucket.",
        ),
        recommended=("Take the share back", "See in the access logs who used it", "End the session that opened it"),
    )
    subscriptions = (on(tags=[Tag.SHARE_CHANGE]),)

    def start(self) -> None:
        self.practice = Practice()
        self.opened: list[_Opened] = []
        self.day: dict[tuple[str, int], set[str]] = {}  # identity and day -> documents opened outside
        self.given: dict[tuple[str, str], list[int]] = {}  # identity and account -> days on which it shared with it

    def step(self, event: Event, facts: Facts) -> None:
        if not event.ok or event.actor.first_party or event.actor.kind == "service" or len(self.opened) > 50_000:
            return
        weight, what, accounts, domains = _weight(event)
        if weight == 0 and not accounts and not domains:
            return
        identity = facts.identity
        machine = automation(self.world, event, facts.session or facts.life)
        act = event.action.name
        habit = self.practice.habit(identity, act, event.time)
        self.practice.note(identity, act, event, machine)
        points, reasons, traps = weight, [what] if what else [], []
        place = place_of(self.world, identity, event)
        if place.score:
            points += place.score
            reasons.append(place.why)
        if event.agent.kind == "tool":
            points += 1
            reasons.append(f"with {event.agent.family}")
        if began(identity, act, event.time):
            points += 1
            reasons.append("it never did this before")
        if (machine or self.directory.is_deployer(identity.id)) and not place.score:
            points -= 2
            traps.append("a pipeline that changes the control plane by trade")
        elif habit and place.score < 2:
            points -= 2
            traps.append("shares on other days too")
        for account in accounts:
            days = self.given.setdefault((identity.id, account), [])
            if not days or days[-1] != event.time // DAY_MS:
                days.append(event.time // DAY_MS)
        office = event.source.startswith(("google", "m365", "graph"))
        early = not established(identity, event.time)
        self.opened.append(
            _Opened(
                event, identity, subject_of(identity, event), points, reasons, traps, accounts, domains, office, early, bool(place.score)
            )
        )

    def finish(self) -> None:
        own = own_accounts(self.world) if any(o.accounts for o in self.opened) else set()
        guests = self._guests() if any(o.accounts for o in self.opened) else {}
        home = own_domains(self.world) if any(o.domains for o in self.opened) else set()
        for one in self.opened:
            event = one.event
            accounts = [a for a in one.accounts if a not in own and a not in (event.actor.account, event.shape.account)]
            domains = [d for d in one.domains if d not in home and not any(d.endswith("." + h) or h.endswith("." + d) for h in home)]
            points = one.points
            if accounts:
                points += 3
                one.reasons.append(f"shared with the foreign account {', '.join(accounts[:3])}")
                if all(self._partner(one, account, guests) for account in accounts) and not one.strange:
                    points -= 2
                    one.traps.append("the account is a partner of long standing")
            if domains:
                points += 1 if one.office else 2 if any(d in _FREE for d in domains) else 1
                one.reasons.append(f"shared with {', '.join(domains[:3])}")
            if one.office and (domains or one.points > 0):
                seen = self.day.setdefault((one.identity.id, event.time // DAY_MS), set())
                seen.add(event.target or event.id)
                if len(seen) >= _MANY:
                    points += 2
                    one.reasons.append(f"{len(seen)} objects opened to outsiders that day")
            if (not accounts and not domains and not one.reasons) or not (accounts or domains or one.points > 0):
                continue
            if not domains and one.domains and "ownership" in event.action.name.lower():
                continue  # a colleague
            severity = band(points)
            if severity is None:
                continue
            target = f" on {event.target.rpartition('/')[2]}" if event.target else ""
            self.report(
                session_key(one.identity, event),
                event,
                severity=severity,
                narrative=f"{who(event)}{target} at {when(event.time)}: {'; '.join(r for r in one.reasons if r)}.",
                subject=one.subject,
                traps=one.traps,
            )

    def _guests(self) -> dict[str, int]:
        """Accounts of others whose identities act in our logs, and since when. One walk over the identities."""
        found: dict[str, int] = {}
        for identity in self.world.identities.values():
            account = identity.actor.account
            if account is not None and identity.count > 2 and identity.days_seen(identity.last) >= 1:
                found[account] = min(identity.first, found.get(account, identity.first))
        return found

    def _partner(self, one: _Opened, account: str, guests: dict[str, int]) -> bool:
        """True when sharing with an account is nothing new.

        Either the identity shared with it on two days before, or the account's own people and machines had worked here for days. Where the log
        begins with such a share, nothing can be new yet, and the days after it decide.
        """
        time = one.event.time
        if guests.get(account, time) <= time - _SETTLED_MS:
            return True
        days = self.given[one.identity.id, account]
        today = time // DAY_MS
        earlier = [d for d in days if d < today]
        if len(earlier) >= 2 and today - earlier[0] >= 2:
            return True
        return one.early and len(days) >= 5 and days[-1] - days[0] >= 5


def _values(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict) and depth < 6:
        for inner in value.values():
            yield from _values(inner, depth + 1)
    elif isinstance(value, (list, tuple)) and depth < 6:
        for inner in value:
            yield from _values(inner, depth + 1)


def _policy(params: Mapping[str, Any]) -> tuple[int, str, list[str]]:
    """What resource policies among the parameters open, to whom."""
    accounts: list[str] = []
    for value in params.values():
        for document in [value, *(value.values() if isinstance(value, dict) else ())]:
            for statement in statements(document):
                if open_to_all(statement):
                    return 4, "a policy opens it to everybody", []
                limited = any("externalid" in key.lower() or "principalorg" in key.lower() for _, key, _ in statement.conditions)
                accounts += [a for kind, p in statement.principals if kind == "AWS" and (a := account_of(p)) and not limited]
    return 0, "", list(dict.fromkeys(accounts))


def _weight(event: Event) -> tuple[int, str, list[str], list[str]]:
    """How far something was opened, a phrase, and the accounts and domains it was opened to."""
    params: Mapping[str, Any] = event.d.params or {}
    name, source = event.action.name, event.source
    if source.startswith("aws."):
        return (*_aws(name, params), [])
    if source == "gcp.audit":
        domains = [
            m.group(1).lower()
            for v in params.get("members") or ()
            if isinstance(v, str) and "gserviceaccount" not in v and (m := _MAIL.fullmatch(v))
        ]
        domains += [v.partition(":")[2].lower() for v in params.get("members") or () if isinstance(v, str) and v.startswith("domain:")]
        owner = "ownership" in name.lower()
        return (
            (4, "opened to everybody", [], [])
            if params.get("public")
            else (2 if owner and domains else 0, "somebody was asked to own it" if owner else "", [], list(dict.fromkeys(domains)))
        )
    if source == "github.audit":
        seen = {c.new for c in event.d.changes if c.name == "visibility"} | {params.get("visibility")}
        if "public" in seen or name.endswith(":public"):
            return (4 if name == "repo.access" else 3), "a repository is public now", [], []
        if name == "repo.access" and seen <= {None}:
            return 3, "the visibility of a repository was changed", [], []
        return (2 if "transfer" in name else 0), "a repository left the organisation" if "transfer" in name else "", [], []
    words = [v for key, value in params.items() if key != "old_visibility" for v in _values(value)]
    changed = [c.new for c in event.d.changes if c.new]
    if source.startswith("azure"):
        if name.endswith("/begingetaccess/action"):
            machine = event.actor.kind == "workload"  # backup tools copy disks and snapshots each night
            return (2 if machine else 3), "a link was made that anybody may copy the disk with", [], []
        return (3 if "[opened]" in name else 0), "storage is open to everybody", [], []
    public = any(_EVERYBODY.search(w) for w in words) or any(w in name.lower() for w in ("anonymouslink", "anonymous_link"))
    shared = [
        m.group(1).lower()
        for key in ("target_user", "shared_with", "new_owner", "target", "recipient")
        for v in _values(params.get(key))
        if (m := _MAIL.fullmatch(v))
    ]
    guest = str(params.get("shared_with_type", "")).lower() == "guest" or "#ext#" in str(params.get("shared_with", "")).lower()
    if source.startswith("google") and not name.startswith("drive/"):
        broad = re.search(
            r"read_only_access|read_write|manage|external|public|share_outside|all_information|\byes\b|true",
            " ".join(w.lower() for w in changed),
        )
        return (3 if broad and ":sharing" in name else 2 if broad else 0), f"{name}: {changed[0] if changed else ''}", [], []
    if source.startswith(("google", "m365", "graph")):
        return (
            (1 if public or guest else 0),
            "opened to anybody with the link" if public else "shared with a guest" if guest else "",
            [],
            shared,
        )
    return (3 if public else 0), "opened to everybody" if public else "", [], []


def _aws(name: str, params: Mapping[str, Any]) -> tuple[int, str, list[str]]:
    call = name.partition(":")[2]
    if call in ("ModifySnapshotAttribute", "ModifyImageAttribute", "ModifyFpgaImageAttribute"):
        text = json.dumps(
            {k: v for k, v in params.items() if "ermission" in k or k in ("userIds", "groupNames", "userGroups", "operationType")}
        )
        added = text if '"remove"' not in text else text.partition('"remove"')[0]
        if params.get("operationType") == "remove" or ('"add"' not in added and "operationType" not in added):
            return 0, "", []
        if re.search(r'"all"', added):
            return 5, "an image or snapshot is public now", []
        return 0, "", re.findall(r'"(\d{12})"', added)
    if call in ("ModifyDBSnapshotAttribute", "ModifyDBClusterSnapshotAttribute"):
        added_to = list(_values(params.get("valuesToAdd")))
        return (5, "a database snapshot is public now", []) if "all" in added_to else (0, "", [v for v in added_to if v.isdigit()])
    if call == "ModifyDBInstance":
        return (3, "a database instance is reachable from everywhere", []) if params.get("publiclyAccessible") is True else (0, "", [])
    if call in ("CreateFunctionUrlConfig", "UpdateFunctionUrlConfig"):
        return (3, "a function answers anybody", []) if params.get("authType") == "NONE" else (0, "", [])
    if call in ("AddPermission", "AddLayerVersionPermission"):
        principal = str(params.get("principal") or params.get("aWSAccountIds") or params.get("actionName") or "")
        limited = params.get("sourceArn") or params.get("sourceAccount") or params.get("principalOrgID") or params.get("organizationId")
        if principal == "*" or '"*"' in json.dumps(params.get("aWSAccountId")):
            return (1 if limited else 4), "anybody may call it", []
        return 0, "", [account_of(p) or "" for p in _values([principal, params.get("aWSAccountIds")]) if account_of(p)]
    if "PublicAccessBlock" in call or "BlockPublicAccess" in call:
        config = params.get("PublicAccessBlockConfiguration")
        off = call.startswith(("Delete", "Disable")) or (
            isinstance(config, dict) and any(str(v).lower() == "false" for v in config.values())
        )
        return (3, "the block on public access was taken off", []) if off else (0, "", [])
    if call in ("PutBucketAcl", "PutObjectAcl"):
        text = json.dumps(params)
        canned = str(params.get("x-amz-acl") or "")
        return (
            (4, "an access list opens it to everybody", [])
            if "/groups/global/" in text or "public-read" in canned or "authenticated-read" in canned
            else (0, "", [])
        )
    if call == "CreateGrant":
        account = account_of(str(params.get("granteePrincipal") or ""))
        return 0, "", [account] if account else []
    if call in (
        "AuthorizeSnapshotAccess",
        "ModifyDocumentPermission",
        "CreateResourceShare",
        "AssociateResourceShare",
        "AuthorizeDataShare",
    ):
        values = [
            v
            for key in ("accountWithRestoreAccess", "accountIdsToAdd", "principals", "consumerIdentifier")
            for v in _values(params.get(key))
        ]
        return (
            (4, "shared with everybody", [])
            if any(v.lower() == "all" or v == "*" for v in values)
            else (0, "", [a for v in values if (a := account_of(v))])
        )
    if call == "UpdateProjectVisibility":
        return (4, "builds are public", []) if params.get("projectVisibility") == "PUBLIC_READ" else (0, "", [])
    if name == "ecr-public:CreateRepository":
        return 1, "a public image repository was made", []
    return _policy(params)
