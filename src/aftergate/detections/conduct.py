"""Judgements about acts that change what others may do: from where, by whom, by which automation, how often before.

Rules that judge a grant, a planted key, a switched-off log or a new trust ask the same questions; the answers are small numbers that
each rule adds to the weight of the act itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from aftergate.detections.reasoning import RENTED, established, org_egress, same_place
from aftergate.lineage.state import DAY_MS, Identity, Life
from aftergate.lineage.tracking import World, plain
from aftergate.vocabulary import Event, Severity, Target
from aftergate.vocabulary.patterns import regex

IAC = frozenset({"terraform", "pulumi", "helm", "cloudformation", "argocd", "flux", "github-actions", "crossplane"})
_RUN = regex(r"(?<!\d)\d{6,19}(?:[-_.]\d{1,3})?(?!\d)")
_CI_NAME = regex(
    r"gha|github|gitlab|(?:^|[-_/])ci(?:[-_/]|$)|run|build|job|pipe|deploy|release|circle|bitbucket|terra|(?:^|[-_/])tf(?:[-_/]|$)|spacelift|atlantis|argo|action|iac|infra",
    re.IGNORECASE,
)
_SDK_NAME = regex(r"^(?:aws-(?:go-)?sdk|botocore|boto|aws-cli|session)", re.IGNORECASE)  # names that SDKs make up
_REFUSED = regex(r"denied|unauthori[sz]ed|forbidden|not.?allowed|403|UnmodifiableEntity", re.IGNORECASE)
_ACCOUNT = regex(r"\d{12}")


class Place(NamedTuple):
    """How strange the place of an act is: 0 known or unknown, 1 new, 2 new and more beside."""

    score: int = 0
    why: str = ""


NOWHERE = Place()


def place_of(world: World, identity: Identity, event: Event, within_ms: int = DAY_MS) -> Place:
    """Compare an act's place with what its identity had used until a day before.

    The session that acts has mostly signed in minutes before from the same place, so what was first seen within the day counts as new.
    Without history nothing is new; only an anonymity network speaks for itself.
    """
    origin = event.origin
    if not origin.known:
        return NOWHERE
    before = event.time - within_ms
    history = established(identity, event.time, days=within_ms / DAY_MS + 1.0)
    if origin.network == "tor":
        return Place(2 if history else 1, "from a Tor exit")
    if not history or identity.net_first.get(origin.net, event.time) < before:
        return NOWHERE
    earlier = [(other, use) for other, use in identity.origins().items() if use.first < before and other.known]
    if not earlier or any(same_place(origin, other) for other, _ in earlier):
        return NOWHERE
    if origin.network in ("relay", "proxy", "mobile") or org_egress(world, origin, identity):
        return NOWHERE
    rented = origin.network in RENTED
    if identity.kind != "human" and not rented and origin.network == "cloud":
        return NOWHERE  # runners and functions roam inside their clouds
    roams = len({other.net for other, _ in earlier}) > 3
    if origin.asn is None and not rented and roams:
        return NOWHERE  # without AS numbers a new prefix of somebody with many prefixes says nothing
    known_country = origin.country is not None and identity.countries.get(origin.country, event.time) < before
    foreign = origin.country is not None and not known_country and any(t < before for t in identity.countries.values())
    where = origin.asn_name or origin.provider or origin.net
    if rented:
        return Place(2, f"from {where}, a {origin.network} network never used before")
    if foreign:
        return Place(2, f"from {where} in {origin.country}, never used before")
    return Place(1, f"from {where}, never used before")


def automation(world: World, event: Event, life: Life | None) -> bool:
    """True for a pipeline or template service at work: a workload that came by federation or a CI run, or with an infrastructure tool.

    Such identities change the control plane by trade; a stolen one shows in where it is used, which other detections judge.
    """
    actor = event.actor
    if event.agent.kind == "tool":
        return False
    if actor.first_party or actor.kind == "service":
        return True
    if event.agent.family in IAC and event.agent.kind != "browser" and actor.kind != "human":
        return True
    if event.agent.family.startswith("cloudformation") and actor.kind == "workload":
        return True
    if actor.kind == "human" or actor.kind == "agent":
        return False
    detail = event.d
    if detail.run is not None or detail.credential_type == "federated":
        return True
    if life is not None and life.mint is not None and life.mint.grant == "web_identity":
        return True
    for held in ((detail.params or {}).get("sessionName"), (event.session or "").rpartition("/")[2]):
        found = _RUN.search(held) if isinstance(held, str) and actor.kind == "workload" else None
        if found is None or not isinstance(held, str):
            continue
        if found.group().partition("-")[0] in world.runs:
            return True  # a run that the forge's own log knows
        if not _SDK_NAME.match(held):
            return bool(_CI_NAME.search(f"{held}/{actor.id.rpartition('/')[2]}"))
    return False


def began(identity: Identity, name: str, now: int) -> bool:
    """True when an identity with history first did an action within the last day."""
    return established(identity, now) and now - identity.actions.get(name, now) < DAY_MS


class Practice:
    """How often each identity did an act, by days. Keys are the rule's own words."""

    def __init__(self) -> None:
        self._days: dict[tuple[str, str], list[int]] = {}  # first time, last day number, distinct days
        self._who: dict[str, dict[str, int]] = {}  # act -> how many acts by people, by automation

    def note(self, identity: Identity, act: str, event: Event, by_machine: bool) -> None:
        day = event.time // DAY_MS
        held = self._days.get((identity.id, act))
        if held is None:
            self._days[identity.id, act] = [event.time, day, 1]
        elif held[1] != day:
            held[1] = day
            held[2] += 1
        counts = self._who.setdefault(act, {})
        name = "machine" if by_machine else "person"
        counts[name] = counts.get(name, 0) + 1

    def habit(self, identity: Identity, act: str, now: int) -> bool:
        """True when the identity did it on two earlier days, the first at least two days ago."""
        held = self._days.get((identity.id, act))
        if held is None or now - held[0] < 2 * DAY_MS:
            return False
        return held[2] - (held[1] == now // DAY_MS) >= 2

    def machines_only(self, act: str) -> bool:
        """True when so far only automation did it, and more than once."""
        counts = self._who.get(act, {})
        return counts.get("machine", 0) >= 2 and not counts.get("person")


def band(points: int, *, medium: int = 3, high: int = 5, critical: int | None = None) -> Severity | None:
    """Points to a severity; None below what is worth a line."""
    if critical is not None and points >= critical:
        return "critical"
    if points >= high:
        return "high"
    if points >= medium:
        return "medium"
    return "low" if points >= medium - 1 else None


def is_self(identity: Identity, event: Event, target: Target | None) -> bool:
    """True when the target of an act is the actor, or the role whose rights it uses."""
    if target is None:
        return False
    mine = identity.names | {plain(identity.id)}
    names = {plain(target.id), *(plain(n) for n in target.names)}
    if mine & names:
        return True
    if event.session is not None and event.session.startswith("arn:aws:sts:") and event.session.rpartition("/")[2] in target.names:
        return True
    role = event.actor.role
    if role:
        short = role.rpartition("/")[2]
        return any(n == plain(role) or n.rpartition("/")[2] == short for n in names)
    return False


def is_person(event: Event) -> bool:
    """True for a person, or an unnamed caller with a person's program or an attack tool: command line, console, browser."""
    actor, agent = event.actor, event.agent
    if actor.kind == "human" or (event.d.params or {}).get("from_console") is True:
        return True
    if actor.kind != "unknown" or agent.family in IAC:
        return False
    return agent.kind in ("cli", "browser", "tool") or (agent.kind == "service" and ":user/" in actor.id)


def refused(event: Event) -> bool:
    """True when an act failed for want of rights: an attempt, where other errors are mishaps."""
    return event.shape.error is not None and bool(_REFUSED.search(event.shape.error))


def session_key(identity: Identity, event: Event) -> str:
    """What keeps one session's acts together in one finding."""
    return f"{identity.id}|{event.session or event.credential or event.time // DAY_MS}"


# -- policy documents -------------------------------------------------------------------------------------------------


class Statement(NamedTuple):
    """One Allow statement of a resource or trust policy."""

    principals: tuple[tuple[str, str], ...]  # (type, value): ("AWS", "*"), ("Federated", "arn:…"), ("Service", "ec2.amazonaws.com")
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: tuple[tuple[str, str, tuple[str, ...]], ...]  # (operator, key, values)
    negated: bool = False


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, (list, tuple)):
        return tuple(v for v in value if isinstance(v, str))
    if isinstance(value, bool):
        return ("true" if value else "false",)
    return ()


def statements(document: Any) -> Iterator[Statement]:
    """Allow statements of a policy given as text or as an object. Anything unreadable gives nothing."""
    if isinstance(document, str):
        if "Statement" not in document or len(document) > 20_000:
            return
        try:
            document = json.loads(document)
        except ValueError:
            return
    if not isinstance(document, dict):
        return
    held = document.get("Statement")
    for one in held if isinstance(held, list) else [held]:
        if not isinstance(one, dict) or one.get("Effect") != "Allow":
            continue
        principal = one.get("Principal")
        found: list[tuple[str, str]] = []
        if isinstance(principal, str):
            found.append(("*", principal))
        elif isinstance(principal, dict):
            found.extend((kind, value) for kind, values in principal.items() for value in _texts(values))
        conditions = one.get("Condition")
        rules: list[tuple[str, str, tuple[str, ...]]] = []
        if isinstance(conditions, dict):
            for operator, keys in conditions.items():
                if isinstance(keys, dict):
                    rules.extend((operator, key, _texts(values)) for key, values in keys.items())
        yield Statement(tuple(found), _texts(one.get("Action")), _texts(one.get("Resource")), tuple(rules), "NotPrincipal" in one)


_NARROW = (
    "sourcearn",
    "sourceaccount",
    "sourceip",
    "sourcevpc",
    "principalorgid",
    "principalorgpaths",
    "principalaccount",
    "principalarn",
    "userid",
    "calledvia",
    "viaawsservice",
    "sourceorgid",
)


def open_to_all(statement: Statement) -> bool:
    """True when anybody may use it: principal `*` without a condition that names who or from where."""
    if not any(value == "*" and kind in ("*", "AWS") for kind, value in statement.principals) and not statement.negated:
        return False
    for operator, key, values in statement.conditions:
        if (
            any(word in key.lower().replace(":", "").replace("-", "") for word in _NARROW)
            and "*" not in values
            and "not" not in operator.lower()
        ):
            return False
    return True


def account_of(principal: str) -> str | None:
    """The AWS account in a principal: an ARN, or the bare twelve digits."""
    if _ACCOUNT.fullmatch(principal):
        return principal
    parts = principal.split(":")
    return parts[4] if len(parts) > 5 and _ACCOUNT.fullmatch(parts[4]) else None


def own_accounts(world: World, sources: str = "aws.") -> set[str]:
    """Accounts whose own logs are among the inputs. Walks all shapes: call it once, at the end."""
    return {
        shape.account
        for identity in world.identities.values()
        for shape in identity.uses
        if shape.account and shape.source.startswith(sources)
    }


def own_domains(world: World) -> set[str]:
    """Mail domains of the people who act in the logs, with how they are spelt there: lower case."""
    found: dict[str, int] = {}
    for identity in world.identities.values():
        if identity.kind == "human" and identity.count:
            for name in identity.names:
                if "@" in name and ":" not in name:
                    domain = name.rpartition("@")[2]
                    found[domain] = found.get(domain, 0) + 1
    return set(found)


def first(items: Iterable[str | None]) -> str | None:
    return next((i for i in items if i), None)
