"""Many secrets read that the reader never read before."""

from __future__ import annotations

from msgspec import Struct

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.conduct import band, is_person, place_of
from aftergate.detections.reasoning import established, span, when, who
from aftergate.lineage.state import HOUR_MS, MINUTE_MS, Identity
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Detail, Event, Severity, Shape, Subject, Tag

_WINDOW_MS = HOUR_MS
_AGAIN_MS = 90 * MINUTE_MS  # read again after this long: the reader's routine
_ENOUGH = 8
_LIST_ALL, _LIST_SOME = 20, 6  # how many secrets a listing that returns values counts for
_KEEP = 4000  # secrets remembered for one reader
_GRAVE = ("show_password", "read_client_secret", "bitlocker", "local administrator password", "sys/raw", "sys/storage", "generate-root")


class _Burst(Struct):
    """New secrets that one reader read within an hour."""

    start: int
    last: Event
    secrets: dict[str, int]  # secret -> how many it stands for
    evidence: list[str]
    subject: Subject
    refused: int
    place: int
    why: str
    known: int  # distinct secrets before
    history: bool
    person: bool
    tool: str
    calls: int = 0


class _Reader(Struct):
    """What one identity has read."""

    identity: Identity
    first: dict[str, int]  # secret -> first read
    last: dict[str, int]
    bursts: list[_Burst]


class Detection(Rule):
    meta = Meta(
        slug="drift-secret-harvest",
        title="Secrets read in bulk",
        severity="high",
        about=(
            "Within an hour an identity reads many secrets, keys, passwords or start-up scripts that it never read before. Whoever collects secrets "
            "prepares the next steps; a service reads its own few, and reads them again."
        ),
        attack=("T1555.006", "T1552.007", "T1552.005"),
        nhi=("NHI2", "NHI5"),
        needs=(("secret.read",),),
        traps=(
            "Operators that copy secrets into a cluster read all of them, but again and again: what is read again later is routine.",
            "When many replicas start at once each service reads its own few secrets many times; distinct secrets count, not calls.",
            "Cluster components and the vendor's own services list secrets by trade.",
        ),
        blind=(
            "A listing with values names no secrets: it counts as many.",
            "A reader that takes a few secrets a day stays below the line.",
        ),
        recommended=(
            "Revoke the session that read them",
            "Rotate the secrets named in the evidence, most powerful first",
            "Narrow the policy that allowed it",
        ),
    )
    subscriptions = (on(tags=[Tag.SECRET_READ]),)

    def wants(self, shape: Shape) -> bool:
        return not shape.actor.first_party and shape.actor.kind != "service"

    def start(self) -> None:
        self.readers: dict[str, _Reader] = {}
        self.named: dict[Detail, list[tuple[str, int]]] = {}
        self.watchers: set[tuple[str, str | None]] = set()

    def step(self, event: Event, facts: Facts) -> None:
        identity = facts.identity
        if event.shape.action.name == "secrets:watch" and event.shape.error is None:
            self.watchers.add((identity.id, event.target))  # an informer: it lists once, then watches
        detail = event.detail
        names = self.named.get(detail) if detail is not None else None
        if names is None:
            names = _names(event)
            if detail is not None:
                if len(self.named) > 20_000:
                    self.named.clear()
                self.named[detail] = names  # the same request is one Detail in some sources
        if not names:
            return
        reader = self.readers.get(identity.id)
        if reader is None:
            reader = self.readers[identity.id] = _Reader(identity, {}, {}, [])
        now = event.time
        new: dict[str, int] = {}
        for name, count in names:
            if name in reader.last:
                reader.last[name] = now
            elif len(reader.first) < _KEEP:
                reader.first[name] = reader.last[name] = now
                new[name] = count
        burst = reader.bursts[-1] if reader.bursts else None
        if burst is not None and now - burst.start <= _WINDOW_MS:
            burst.calls += 1
            if not new and not any(count > 1 for _, count in names):
                return
        elif not new:
            return
        else:
            history = established(identity, now)
            place = place_of(self.world, identity, event)
            burst = _Burst(
                now,
                event,
                {},
                [],
                subject_of(identity, event),
                0,
                place.score,
                place.why,
                len(reader.first) - len(new),
                history,
                is_person(event),
                "",
                1,
            )
            reader.bursts.append(burst)
            del reader.bursts[:-200]
        burst.secrets.update(new)
        burst.last = event
        burst.refused += not event.ok
        if event.agent.kind == "tool":
            burst.tool = event.agent.family
        if len(burst.evidence) < 100:
            burst.evidence.append(event.id)
        more = subject_of(identity, event)
        for held, found in ((burst.subject.credential, more.credential), (burst.subject.session, more.session)):
            held.extend(f for f in found if f not in held and len(held) < 12)

    def finish(self) -> None:
        for reader in self.readers.values():
            for burst in reader.bursts:
                self._judge(reader, burst)

    def _judge(self, reader: _Reader, burst: _Burst) -> None:
        again = {
            name
            for name in burst.secrets
            if reader.last[name] - reader.first[name] > _AGAIN_MS or (reader.identity.id, name) in self.watchers
        }
        once = sum(count for name, count in burst.secrets.items() if burst.person or name not in again)
        grave = any(word in burst.last.action.name.lower() for word in _GRAVE)
        traps: list[str] = []
        if len(again) * 2 >= len(burst.secrets) and not burst.person:
            return  # read again later, or watched: what this reader does for a living
        points = 0
        if once >= 2 * _ENOUGH:
            points = 3
        elif once >= _ENOUGH or (once >= 5 and burst.history and burst.known <= 2 * len(burst.secrets)):
            points = 2
        elif grave and burst.person:
            points = _foreign(burst)
        elif burst.place == 2 and once and burst.history:
            points = 1
        if not points:
            return
        bulk = once >= 5
        if burst.history and bulk and burst.known < max(3, once // 2):
            points += 1
        if once >= 20 and burst.history:
            points += 1
        points += burst.place
        if burst.tool:
            points += 1
        if bulk and not burst.history and (burst.person or burst.refused):
            points += 1
        severity: Severity | None = band(points)
        if bulk and burst.refused * 10 >= 9 * len(burst.evidence) and severity in ("high", "critical"):
            severity = "medium"
            traps.append("nearly all reads were refused")
        if severity is None:
            return
        event = burst.last
        took = span(event.time - burst.start)
        about = (
            f"{once}{'' if once == len(burst.secrets) else ' or more'} secrets it never read before"
            if bulk
            else f"a secret of somebody else ({next(iter(burst.secrets))[-60:]})"
        )
        before = f"; until then it knew {burst.known}" if burst.history and bulk else ""
        self.report(
            f"{reader.identity.id}|{burst.start}",
            event,
            severity=severity,
            narrative=f"{who(event)} read {about} within {took} at {when(burst.start)}{before}{', ' + burst.why if burst.why else ''}.",
            subject=burst.subject,
            evidence=burst.evidence,
            traps=traps,
        )


def _foreign(burst: _Burst) -> int:
    """A password or client secret of somebody else shown to a person weighs as much as a small harvest."""
    event = burst.last
    users = [t for t in event.d.targets if t.type.lower() in ("user", "appuser")]
    mine = {event.actor.id, *(n.lower() for n in event.actor.names)}
    mails = {n.lower() for t in users for n in t.names if "@" in n}
    if users and (mails <= mine if mails else all(t.id in mine for t in users)):
        return 0
    return 3 if users and "password" in event.action.name else 1


def _names(event: Event) -> list[tuple[str, int]]:
    """The secrets that one read touches, each with how many it stands for."""
    detail, action = event.d, event.action
    params = detail.params or {}
    name = action.name
    if name.startswith("ssm:"):
        if params.get("withDecryption") is not True:
            return []  # plain configuration
        if name.endswith("ByPath"):
            return [(f"ssm:{params.get('path')}", _LIST_SOME)]
    if event.source == "kubernetes.audit":
        if ":watch" in name:
            return []
        target = event.target or ""
        if target.endswith("/*"):
            return [(target, _LIST_ALL if target.count("/") == 1 else _LIST_SOME)]
    if detail.objects and detail.objects > len(detail.targets):
        asked = str(params.get("filters") or params.get("nextToken") or "")[:200]
        return [(f"{name}?{asked}", detail.objects)]
    if not detail.targets:
        return [(event.target or name, 1)] if event.target else []
    if event.source.startswith(("aws.", "okta", "entra", "graph")):
        chosen = [t.id for t in detail.targets if t.type.lower() not in ("user", "appuser")] or [t.id for t in detail.targets]
        return [(f"{action.service}:{t}", 1) for t in chosen[:100]]
    return [(detail.targets[0].id, 1)]
