"""A new link, or one link more, in a chain of who acts as whom: role chaining, impersonation, `act` claims."""

from __future__ import annotations

import re
from itertools import pairwise

from msgspec import Struct

from aftergate.detections.api import Meta, Rule, lower, on, raise_to, subject_of
from aftergate.detections.pipelines import ci_subject
from aftergate.detections.reasoning import established, span, strangeness, test_named, when
from aftergate.lineage.state import DAY_MS, HOUR_MS, Identity
from aftergate.lineage.tracking import Facts, plain
from aftergate.vocabulary import Bit, Event, Kind, Severity, Shape, Tag
from aftergate.vocabulary.patterns import regex

_NUMBERS = regex(r"\d{12}|[a-z]{2}-[a-z]+-\d|\d+")
_POWERFUL = regex(
    r"(?:^|[^a-z])(?:[a-z]*admin[a-z]*|root|owner|org|organi[sz]ation[a-z]*|break-?glass|bootstrap|master|super[a-z]*|masters|poweruser[a-z]*|god|emergency|control-?tower[a-z]*)(?:[^a-z]|\Z)"
)
_LIMIT = 100_000
_ACT = ("agent", "oauth.", "okta", "keycloak", "auth0")


class _Chain(Struct):
    """How one credential came about: who, then whom, then whom."""

    path: tuple[str, ...]
    events: tuple[str, ...]
    credentials: tuple[str, ...] = ()


class _Root(Struct):
    """Delegations that one first actor began."""

    first: int
    count: int = 0
    depths: dict[int, int] = {}  # length of a chain -> when first seen
    days: set[int] = set()
    patterns: set[str] = set()  # targets without account numbers, regions and counters
    targets: set[str] = set()
    run: str | None = None  # last session or credential it worked in


class Detection(Rule):
    meta = Meta(
        slug="tok-delegation-anomaly",
        title="New link in a delegation chain",
        severity="high",
        about=(
            "One identity takes on another: a role assumes a role, an account impersonates an account, an agent acts for an agent. Who follows whom is the "
            "same every day. A new link, a longer chain or a jump into an administrator's role shows somebody climbing."
        ),
        attack=("T1548.005", "T1078.004", "T1134"),
        nhi=("NHI5",),
        needs=(("token.mint", "credential"), ("act",), ("impersonate",)),
        traps=(
            "Platform roles and dispatching agents that fan out by design: the same role in one more account or region, one more agent beside many.",
            "Roles that colleagues take too.",
            "A role created, or a right to impersonate granted, shortly before as part of a rollout.",
        ),
        blind=("The first days of a log: without a habit no link is new.", "Chains that pass through systems whose logs are not read."),
        recommended=(
            "End the session at the end of the chain, then those before it",
            "Remove the trust that allowed the new link",
            "Require a source identity or external id for role chaining",
        ),
    )
    subscriptions = (
        on(kinds=[Kind.TOKEN_EXCHANGE, Kind.TOKEN_ISSUE], sources=("aws.", "gcp.")),  # known links end after two look-ups
        on(sources=("gcp.",), bits=Bit.NEW_COMBINATION | Bit.NEW_LIFE),
        # who acts for whom is no part of a shape: every call is looked at, and a known chain ends after one look-up
        on(kinds=[Kind.TOOL_CALL, Kind.TOKEN_EXCHANGE, Kind.TOKEN_ISSUE], sources=_ACT),
        on(sources=_ACT, bits=Bit.NEW_COMBINATION | Bit.NEW_LIFE),
        on(tags=[Tag.IMPERSONATE], sources=("kubernetes.",)),
        on(tags=[Tag.IDENTITY_CREATE, Tag.PRIVILEGE_GRANT]),
    )

    def wants(self, shape: Shape) -> bool:
        own = shape.actor.kind == "service" or shape.actor.first_party  # what a platform takes for itself
        return not (own and shape.source.startswith("aws.") and not shape.action.tags)

    def start(self) -> None:
        self.links: dict[tuple[str, str], int] = {}  # first seen
        self.reached: dict[str, set[str]] = {}  # target -> who took it, up to a few
        self.roots: dict[str, _Root] = {}
        self.chains: dict[str, _Chain] = {}  # credential -> how it came about
        self.made: dict[str, int] = {}  # role or account -> when it was created
        self.granted: dict[tuple[str, str], int] = {}  # (member, account) -> when it was allowed to impersonate
        self.same: dict[tuple[str, tuple[str, ...]], _Root] = {}  # chain as an event tells it -> its root
        self.odd: dict[str, str] = {}  # credential or path -> finding key

    def step(self, event: Event, facts: Facts) -> None:
        tags = event.action.tags
        if tags:
            if Tag.IDENTITY_CREATE in tags:
                for target in event.d.targets[:3]:
                    self.made[target.id.rpartition("/")[2]] = event.time
                return
            if Tag.PRIVILEGE_GRANT in tags and event.source == "gcp.audit" and event.d.targets:
                for member in event.d.targets[1:]:
                    self.granted[plain(member.id), plain(event.d.targets[0].id)] = event.time
                return
        if not event.ok:
            return
        told = event.detail.act if event.detail is not None else ()
        if not told and event.shape.source.startswith(_ACT):
            return
        if told and (root := self.same.get((event.shape.actor.id, told))) is not None:
            run = event.session or event.credential
            if run != root.run or event.time // DAY_MS not in root.days:
                root.run = run
                self._count(root, event.time)
            return
        if event.credential in self.odd and event.kind not in (Kind.TOKEN_EXCHANGE, Kind.TOKEN_ISSUE):
            return
        path, events, credentials = self._path(event, facts)
        if len(path) >= 2:
            self._walk(path, events, credentials, event, facts)

    def on_watched(self, event: Event, facts: Facts) -> None:  # noqa: ARG002
        key = self.odd.get(event.credential or "")
        if key is not None and event.shape.error is None and event.kind not in (Kind.TOKEN_EXCHANGE, Kind.TOKEN_ISSUE):
            self._more(key, event)

    def _path(self, event: Event, facts: Facts) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """Who acts as whom, first actor first; what told so; the credentials on the way."""
        detail, actor = event.d, event.actor
        nothing: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]] = ((), (), ())
        if event.source.startswith("aws."):
            if detail.grant not in ("assume_role", "web_identity") or actor.kind == "service" or actor.first_party or event.target is None:
                return nothing
            if event.credential is None and detail.linked is not None and detail.grant == "assume_role":
                return nothing  # the same act, told by the other account
            subject = ci_subject(detail.subject) if detail.grant == "web_identity" else None
            before = self.chains.get(event.credential or "")
            start = (subject.repo,) if subject is not None else (facts.identity.id,)
            chain = _Chain(
                (*(before.path if before is not None else start), event.target),
                (*(before.events if before is not None else ()), event.id)[-8:],
                (*(before.credentials if before is not None else ()), *([event.credential] if event.credential else []), *detail.issued)[
                    -16:
                ],
            )
            if len(self.chains) > _LIMIT:
                self.chains.clear()
            for issued in detail.issued:
                self.chains[issued] = chain
            if detail.grant == "web_identity":
                return nothing  # which runs take a role is judged by tok-ci-provenance
            return chain.path, chain.events, chain.credentials
        if event.source == "gcp.audit":
            if event.kind is Kind.TOKEN_ISSUE and event.target is not None and detail.grant == "impersonation":
                held = (detail.params or {}).get("delegates")
                delegates = [d for d in held if isinstance(d, str)] if isinstance(held, list) else []
                return (*reversed(detail.act), facts.identity.id, *delegates, plain(event.target)), (event.id,), ()
            return ((*reversed(detail.act), actor.id), (event.id,), ()) if detail.act else nothing
        if event.source.startswith("kubernetes."):
            whom = (detail.params or {}).get("impersonated")
            return (
                ((facts.identity.id, whom), (event.id,), (event.credential,) if event.credential else ())
                if isinstance(whom, str)
                else nothing
            )
        if detail.act and (len(detail.act) > 1 or event.source.startswith("agent")):
            mine = _short(actor.id)
            acting = [a for a in reversed(detail.act) if a != actor.id and _short(a) != mine]
            return ((*acting, actor.id), (event.id,), (event.credential,) if event.credential else ()) if acting else nothing
        return nothing

    def _walk(self, path: tuple[str, ...], events: tuple[str, ...], credentials: tuple[str, ...], event: Event, facts: Facts) -> None:
        now = event.time
        first = path[0]
        root = self.roots.get(first)
        if root is None:
            root = self.roots[first] = _Root(now)
        fresh = [(a, b) for a, b in pairwise(path) if a != b and (a, b) not in self.links]
        if "|".join(path) in self.odd:
            self._more(self.odd["|".join(path)], event)
        elif fresh or (len(path) not in root.depths and len(path) > _depth(root, now)):
            if (root.count >= 3 and len(root.days) >= 2 and now - root.first >= DAY_MS) or self._old_hand(first, now):
                self._judge(path, fresh, events, credentials, event, facts, root)
        for link in fresh:
            self.links[link] = now
            self.reached.setdefault(link[1], set()).add(first)
        self._count(root, now)
        root.depths.setdefault(len(path), now)
        if event.d.act and event.source.startswith(_ACT) and "|".join(path) not in self.odd and len(self.same) < _LIMIT:
            root.run = event.session or event.credential
            self.same[event.shape.actor.id, event.d.act] = root
        if len(root.targets) < 200:
            root.targets.update(path[1:])
            root.patterns.update(_pattern(p) for p in path[1:])

    @staticmethod
    def _count(root: _Root, now: int) -> None:
        root.count += 1
        if len(root.days) < 30:
            root.days.add(now // DAY_MS)

    def _old_hand(self, name: str, now: int) -> bool:
        """True for an identity with days of work behind it that never acted as anybody else."""
        identity = self.world.identity(name)
        return identity is not None and identity.kind != "human" and established(identity, now, days=3, events=30)

    def _judge(
        self,
        path: tuple[str, ...],
        fresh: list[tuple[str, str]],
        events: tuple[str, ...],
        credentials: tuple[str, ...],
        event: Event,
        facts: Facts,
        root: _Root,
    ) -> None:
        now = event.time
        targets = [b for _, b in fresh] or [path[-1]]
        last = targets[-1]
        depth = _depth(root, now)
        deeper = len(path) > depth > 0
        powerful = any(_POWERFUL.search(t.rpartition("/")[2].partition("@")[0].lower().replace("_", "-")) or _camel(t) for t in targets)
        crossing = len({a for a in map(_account, path) if a}) > len(
            {a for a in map(_account, (path[0], *root.targets)) if a} | {_account(path[1])}
        )
        person = self._human(path[0], event)
        peers = len(self.reached.get(last, set()) - {path[0]})
        points = 1 + (2 if deeper and len(path) - depth > 1 and len(fresh) > 1 else deeper) + 2 * powerful + crossing
        severity: Severity = "high" if points >= 3 else "medium"
        traps: list[str] = []
        if all(_pattern(t) in root.patterns for t in targets):
            severity, traps = "low", ["the same role in another account or region"]
        elif peers >= 2 or (person and peers):
            severity, traps = "low", ["others take this role too"]
        elif not fresh:
            severity, traps = ("medium" if len(path) - depth > 1 else "low"), ["every link is known by itself"]
        elif any(0 <= now - self.made.get(t.rpartition("/")[2], now + 1) < 7 * DAY_MS for t in targets):
            severity, traps = lower(severity, 2 if not powerful else 1), ["the role is new"]
        elif any(0 <= now - self.granted.get((plain(a), plain(b)), now + 1) < DAY_MS for a, b in fresh):
            severity, traps = lower(severity), ["the right to act so was granted shortly before"]
        elif person and not powerful:
            severity, traps = "low", ["people take roles by hand"]
        elif len(root.targets) >= (3 if event.source.startswith("agent") else 8) and not powerful and not deeper:
            severity, traps = "low", ["this identity takes many roles by design"]
        elif not powerful and not deeper and not crossing and root.count < 10:
            severity = "low"
        if person and severity == "high" and strangeness(self.world, facts.identity, event).score < 2:
            severity = "medium"
        if test_named(last.rpartition("/")[2].partition("@")[0]) and severity != "low":
            severity, traps = lower(severity), [*traps, "by its name not production"]
        key = f"{path[0]}|{path[1]}|{now // (6 * HOUR_MS)}"
        for credential in event.d.issued:
            self.odd[credential] = key
            self.watch(credential)
        self.odd["|".join(path)] = key
        assumed = (event.d.params or {}).get("assumed_role")
        subject = subject_of(
            facts.identity, event, credentials=[*event.d.issued, *credentials[-4:]], sessions=[assumed if isinstance(assumed, str) else None],
            identities=[b for _, b in reversed(fresh)] or [path[-1]],
        )  # fmt: skip
        told = " → ".join(_told(p) for p in path)
        why = [
            f"{_told(fresh[-1][0])} never acted as {_told(fresh[-1][1])} before" if fresh else "",
            f"{len(path)} links where there were at most {depth}" if deeper else "",
            "the last one has an administrator's name" if powerful else "",
        ]
        self.report(
            key, event, severity=raise_to(severity, "low"), traps=traps, subject=subject, evidence=[event.id, *events],
            narrative=f"At {when(now)} a chain of delegation went {told}: {'; '.join(w for w in why if w)}. "
            f"Habit of {span(now - root.first)} and {root.count} delegations.",
        )  # fmt: skip

    def _more(self, key: str, event: Event) -> None:
        found = self.book.get(self.meta.slug, key)
        if found is not None and len(found.evidence) < 12 and event.time - found.started < 6 * HOUR_MS:
            self.report(
                key,
                event,
                narrative=found.narrative,
                severity=found.severity,
                subject=subject_of(sessions=[event.session], credentials=[event.credential]),
            )

    def _human(self, name: str, event: Event) -> bool:
        identity: Identity | None = self.world.identity(name)
        return (identity is not None and identity.kind == "human") or (identity is None and event.actor.kind == "human")


def _depth(root: _Root, now: int) -> int:
    """Longest chain of the habit. The last hour is no habit yet: a climb goes step by step."""
    return max((length for length, time in root.depths.items() if time < now - HOUR_MS), default=0)


def _account(name: str) -> str | None:
    """Account or project of a role or service account; None for others."""
    if name.startswith("arn:"):
        parts = name.split(":")
        return parts[4] if len(parts) > 5 else None
    return name.partition("@")[2].partition(".")[0] if "gserviceaccount.com" in name else None


def _short(name: str) -> str:
    """An agent's own name: a gateway writes `agent:booker` where the token's chain has `spiffe://example/agents/booker`."""
    return re.split(r"[/:]", name)[-1].lower()


def _told(name: str) -> str:
    return name.rpartition("/")[2].removeprefix("agent:")


def _pattern(name: str) -> str:
    """A role's name without its account, region and counters."""
    short = name.rpartition("/")[2] if name.startswith("arn:") else name
    return _NUMBERS.sub("#", short)


def _camel(name: str) -> bool:
    """True for `OrganizationAccountAccessRole`, `MyAdminRole`: power words in capitals."""
    return bool(
        re.search(r"(?:^|[a-z/])(?:Admin|Organization|Owner|Root|PowerUser|BreakGlass)", name.rpartition("/")[2] if "/" in name else name)
    )
