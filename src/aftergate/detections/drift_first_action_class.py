"""An identity with settled habits does kinds of things that neither it nor its like ever did."""

from __future__ import annotations

from msgspec import Struct

from aftergate.detections.api import Meta, Rule, on, subject_of
from aftergate.detections.conduct import IAC
from aftergate.detections.kinds_of_act import weight_of
from aftergate.detections.pipelines import CiSubject, ci_subject, pipeline_of
from aftergate.detections.reasoning import agent_new, homes, machine_named, novelty, ours, place, span, when, who
from aftergate.lineage.state import DAY_MS, HOUR_MS, Identity
from aftergate.lineage.tracking import B_IDENTITY_CLASS, Facts, plain
from aftergate.vocabulary import Bit, Event, Kind, Severity, Tag
from aftergate.vocabulary.patterns import regex

_EPISODE_MS = 6 * HOUR_MS
_NOBODY = frozenset({"unidentified caller", "anonymous", "unknown", "system:anonymous", "unidentified role"})
_WORD = regex(r"[a-z][a-z0-9]{3,}")
_COMMON = frozenset(
    {
        "role",
        "prod",
        "production",
        "deploy",
        "service",
        "serviceaccount",
        "system",
        "team",
        "user",
        "aws",
        "arn",
        "iam",
        "default",
        "main",
        "apps",
        "deployment",
        "deployments",
        "gserviceaccount",
    }
)
_CHANGES = frozenset({"write", "delete", "admin", "execute"})
# what setting up a new part of a service needs; rights, keys and people are no part of it
_BUILD_TAGS = frozenset({Tag.SHARE_CHANGE, Tag.REMOTE_EXEC})
_WORKLOADS = ("k8s-deployments:", "k8s-statefulsets:", "k8s-daemonsets:", "k8s-cronjobs:", "k8s-jobs:")


def _key(run: CiSubject | None) -> tuple[str, str, str] | None:
    """What makes two runs the same work: a new tag is."""
    return None if run is None else (run.repo, run.context, "" if run.context == "tag" else run.value)


class _New(Struct):
    event: Event
    klass: str
    weight: float


class _Episode(Struct):
    identity: Identity
    start: int
    habit: int  # classes it had before
    history: int  # milliseconds
    person: bool
    news: list[_New] = []
    away: int = 0
    program: bool = False
    tool: bool = False
    slept: bool = False
    reasons: set[str] = set()


class Detection(Rule):
    meta = Meta(
        slug="drift-first-action-class",
        title="Identity does what neither it nor its like ever did",
        severity="medium",
        about=(
            "Machine identities do the same few kinds of things every day. When one with a settled habit starts to read stores, list secrets, run commands "
            "or manage users, and nothing explains it, somebody else is using it."
        ),
        attack=("T1078.004", "T1526"),
        nhi=("NHI5",),
        needs=(("events",),),
        traps=(
            "Release day: the identity's service was deployed, or it was given new rights, shortly before; a pipeline builds in a run of its usual branch.",
            "Its peers do the same, or the whole group starts at once.",
            "New identities and new people: everything is new for them.",
            "Infrastructure tools, whose habit is change.",
            "Tasks that come once a quarter, after a long sleep.",
        ),
        blind=(
            "Misuse within what the identity does anyway.",
            "A class that many identities of the kind use is not told apart from theft.",
        ),
        recommended=(
            "Ask the owner whether the identity has a new task",
            "Take away rights that it never used before",
            "Revoke the session or key; rotate if nobody can explain it",
        ),
        half_life_d=7.0,
    )
    subscriptions = (
        on(bits=Bit.IDENTITY_CLASS),
        on(tags=[Tag.CI_RUN, Tag.PRIVILEGE_GRANT, Tag.CONSENT, Tag.REMOTE_EXEC]),
        on(kinds=[Kind.CONFIG_CHANGE], sources=("kubernetes.",)),  # deployments among them: a look at the class
    )

    def start(self) -> None:
        self.peers: dict[tuple[str, str], dict[str, int]] = {}  # class and kind -> identity -> when first
        self.kinds: dict[str, set[str]] = {}
        self.deployed: dict[str, list[tuple[int, str]]] = {}  # word of a name -> when, by whom
        self.granted: dict[str, tuple[int, str]] = {}  # identity -> when it was given rights, by whom
        self.open: dict[str, _Episode] = {}
        self.episodes: list[_Episode] = []
        self.said: dict[str, dict[tuple[str, str, str], int]] = {}  # identity -> its pipelines by the events' own word, when first
        self.runs: dict[str, dict[tuple[str, str, str], int]] | None = None

    def step(self, event: Event, facts: Facts) -> None:
        action, identity = event.action, facts.identity
        if event.ok:
            self._learn(event, identity)
        if not facts.mask & B_IDENTITY_CLASS or action.kind is Kind.TOOL_CALL or identity.id in _NOBODY:
            return
        if event.d.subject is not None and (run := _key(ci_subject(event.d.subject))) is not None:
            self.said.setdefault(identity.id, {}).setdefault(run, event.time)
        group = f"{event.source} {event.actor.kind}"
        kind = self.kinds.setdefault(group, set())
        if len(kind) < 5000:
            kind.add(identity.id)
        held = self.peers.setdefault((action.klass, group), {})
        others = sum(1 for name in held if name != identity.id)
        if len(held) < 200:
            held.setdefault(identity.id, event.time)
        weight = weight_of(action)
        if not weight or event.actor.first_party or event.actor.kind == "service" or event.origin.network in ("service", "vendor"):
            return  # a vendor's own network: its scanner tries a leaked key, its service works for the identity
        now = event.time
        if now - identity.first < 3 * DAY_MS or identity.count < 20 or len(self.episodes) > 20_000:
            return
        if others >= 3 or (others >= 2 and others * 4 >= len(kind)):
            weight = weight / 2 if weight >= 3 else 0.0
        if not event.ok:
            weight /= 2
        if weight == 2 and action.tags == {Tag.REMOTE_EXEC} and self._deployer(identity, event):
            weight = 0.25  # new code for functions and containers is its trade
        if not weight:
            return
        episode = self.open.get(identity.id)
        if episode is None or now - episode.start > _EPISODE_MS:
            episode = self.open[identity.id] = _Episode(
                identity, now, len(identity.klasses) - 1, now - identity.first, self._person(identity, event)
            )
            self.episodes.append(episode)
            episode.slept = facts.gap_ms > 20 * DAY_MS
        if len(episode.news) < 40:
            episode.news.append(_New(event, action.klass, weight))
        before = [origin for origin in homes(identity, episode.start - HOUR_MS) if origin.known]
        points, reasons = novelty(before, event.origin)
        if points and not ours(self.world, event.origin, identity):
            episode.away = max(episode.away, points)
            episode.reasons.update(reasons)
        started = identity.agents.get(event.agent.family, now)
        episode.program |= event.agent.family not in IAC and (
            agent_new(identity.agents, event) or (event.agent.family != "unknown" and started >= episode.start - HOUR_MS)
        )
        episode.tool |= event.agent.family in IAC

    def _learn(self, event: Event, identity: Identity) -> None:
        """Deploys, and rights that were given."""
        action = event.action
        tags = action.tags
        if Tag.PRIVILEGE_GRANT in tags or Tag.CONSENT in tags:
            for target in event.d.targets[:6]:
                for name in (target.id, *target.names):
                    self.granted[plain(name)] = (event.time, identity.id)
                    self.granted[plain(name).rpartition("/")[2]] = (event.time, identity.id)
        if (
            Tag.CI_RUN in tags
            or (Tag.REMOTE_EXEC in tags and not action.source.startswith("kubernetes."))
            or (action.klass.startswith(_WORKLOADS) and action.verb == "write")
        ):
            params = event.d.params or {}
            text = " ".join(
                str(part) for part in (event.target or "", event.d.repo or "", params.get("family") or "", params.get("functionName") or "")
            )
            for word in set(_WORD.findall(text.lower())) - _COMMON:
                times = self.deployed.setdefault(word, [])
                if not times or times[-1][0] < event.time - HOUR_MS or times[-1][1] != identity.id:
                    times.append((event.time, identity.id))
                    del times[:-20]

    @staticmethod
    def _person(identity: Identity, event: Event) -> bool:
        if event.actor.kind == "human":
            return not machine_named(identity) and not (event.source == "okta" and event.credential is not None)  # an API token
        if event.actor.kind == "unknown":
            return not machine_named(identity) and event.agent.kind in ("browser", "cli", "desktop_app", "mobile_app", "unknown")
        return False

    def finish(self) -> None:
        for episode in self.episodes:
            self._judge(episode)

    def _judge(self, episode: _Episode) -> None:
        identity, news = episode.identity, episode.news
        best: dict[str, float] = {}
        for new in news:
            best[new.klass] = max(best.get(new.klass, 0.0), new.weight)
        turned = self._turned(episode)
        raised = best | {klass: max(1.0, best[klass]) for klass in turned}
        alike = self._alike(episode, raised) if sum(weight >= 1 for weight in raised.values()) >= 2 else 0
        if turned and alike >= 2:
            best = raised  # a reader among readers that starts to change things: what it changes matters less
        total = sum(best.values())
        narrow = episode.habit <= 8 and episode.history >= 4 * DAY_MS
        strange = (2 if episode.away >= 2 else 0) + episode.program
        alone = alike >= 2 and episode.history >= 7 * DAY_MS
        onlooker = alone and self._onlooker(episode)
        if episode.person and strange < 2 and not onlooker:
            return
        score = total + strange + (0.5 if narrow else 0) + (1 if alone else 0) + (1 if onlooker else 0)
        if total < 2 and not (total >= 1 and strange >= 2):
            return
        enough = total >= 3 and score >= 5 if episode.person else total >= 2 and score >= 3
        severity: Severity = "medium" if enough else "low"
        if total >= 5 and episode.away >= 2:
            severity = "high"
        traps: list[str] = []
        last = news[-1].event
        if episode.away < 2:
            explained = self._explained(episode)
            if explained:
                severity, traps = "low", [explained]
        if severity == "low" and score < 2.5:
            return
        decisive = sorted(news, key=lambda new: (-new.weight, new.event.time))
        told = ", ".join(dict.fromkeys(new.event.action.name for new in decisive[:6]))
        subject = subject_of(
            identity, last, credentials=[n.event.credential for n in decisive[:10]], sessions=[n.event.session for n in decisive[:10]]
        )
        why = sorted(episode.reasons) if episode.away >= 2 else []
        if episode.program:
            why.append(f"with {last.agent.family}, never used by it before")
        self.report(
            f"{identity.id}|{episode.start}", last, severity=severity, traps=traps, subject=subject, evidence=[n.event.id for n in decisive],
            narrative=(
                f"From {when(episode.start)} {who(last)} did what neither it nor its peers did in {span(episode.history)}: {told}; from {place(last.origin)}. "
                f"Until then it knew {episode.habit} kinds of action"
                + (f", and {alike} others with the same habit never did this." if alone else ".")
                + (f" Also new: {'; '.join(why)}." if why else "")
            ),
        )  # fmt: skip

    def _explained(self, episode: _Episode) -> str | None:
        """An innocent cause, if there is one."""
        identity, start = episode.identity, episode.start
        klasses = {new.klass for new in episode.news}
        group = f"{episode.news[0].event.source} {episode.news[0].event.actor.kind}"
        for klass in klasses:
            started = [t for name, t in self.peers.get((klass, group), {}).items() if name != identity.id and abs(t - start) <= DAY_MS]
            if len(started) >= 2:
                return "others of its kind started at the same time"
        names = {plain(n) for n in (identity.id, *identity.names)} | {plain(identity.id).rpartition("/")[2]}
        for name in names:
            given = self.granted.get(name)
            if given is not None and 0 <= start - given[0] <= 7 * DAY_MS and given[1] != identity.id:
                return "it was given new rights shortly before"
        words = {word for name in names for word in _WORD.findall(name.lower())} - _COMMON
        if not self._deployer(identity, episode.news[0].event):
            for word in sorted(words):
                if any(0 <= start - t <= DAY_MS and by != identity.id for t, by in self.deployed.get(word, ())):
                    return "its service was deployed shortly before"
        if self._usual_run(episode):
            return "a pipeline that builds in a run of its usual branch"
        if episode.tool and not episode.program:
            return "an infrastructure tool at work"
        if episode.slept:
            return "a task that comes after a long sleep"
        if self.directory.ticket_for(sorted(names), start):
            return "a change ticket covers it"
        return None

    def _alike(self, episode: _Episode, new: dict[str, float]) -> int:
        """How many others of its kind have the same habit, beside signing in, and did none of the new things before."""
        identity, start = episode.identity, episode.start
        first = episode.news[0].event
        group = f"{first.source} {first.actor.kind}"
        habit = [klass for klass, since in identity.klasses.items() if since < start and not klass.endswith(":auth")]
        shared: dict[str, int] = {}
        for klass in habit:
            for name in self.peers.get((klass, group), ()):
                shared[name] = shared.get(name, 0) + 1
        shared.pop(identity.id, None)
        found = 0
        for name, count in shared.items():
            peer = self.world.identities.get(name)
            other = sum(not klass.endswith(":auth") for klass in peer.klasses) if peer is not None else 0
            if peer is None or count * 2 < len(habit) + other - count or peer.count < 20 or peer.last < start - 7 * DAY_MS:
                continue
            if any(peer.klasses.get(klass, start + 1) <= start for klass, weight in new.items() if weight >= 1):
                return 0  # somebody like it does
            found += 1
        return found

    @staticmethod
    def _looked(episode: _Episode) -> bool:
        """True for an identity of few habits that until now only looked."""
        before = [klass for klass, since in episode.identity.klasses.items() if since < episode.start]
        return len(before) <= 12 and not any(klass.rpartition(":")[2] in _CHANGES for klass in before)

    def _onlooker(self, episode: _Episode) -> bool:
        """True for an identity of few habits that until now only looked, and now changes something."""
        return self._looked(episode) and any(
            new.weight >= 1 and new.event.ok and new.klass.rpartition(":")[2] in _CHANGES for new in episode.news
        )

    def _turned(self, episode: _Episode) -> set[str]:
        """The kinds of change, two or more, that a machine begins which for a week only looked; empty for any other."""
        if episode.person or episode.history < 7 * DAY_MS or not self._looked(episode):
            return set()
        changed = {new.klass for new in episode.news if new.event.ok and new.klass.rpartition(":")[2] in _CHANGES}
        return changed if len(changed) >= 2 else set()

    def _usual_run(self, episode: _Episode) -> bool:
        """True when a pipeline sets up and reads only what it also builds, in a run of a repository and branch it has worked for before."""
        built = {new.event.action.service for new in episode.news if new.event.ok and new.klass.rpartition(":")[2] in _CHANGES}
        for new in episode.news:
            action = new.event.action
            if action.service not in built or action.kind in (Kind.SECRET_READ, Kind.DATA_EXPORT) or not action.tags <= _BUILD_TAGS:
                return False
        if ci_subject(episode.identity.id) is not None:
            return True  # it is that pipeline
        known, said = self._pipelines().get(episode.identity.id, {}), self.said.get(episode.identity.id, {})
        for new in episode.news:
            run = self._run_of(new.event)
            if run is None or min(known.get(run, episode.start), said.get(run, episode.start)) > episode.start - DAY_MS:
                return False
        return True

    def _run_of(self, event: Event) -> tuple[str, str, str] | None:
        """Repository and branch of the CI run that an event's credential was minted for."""
        life = self.world.lives.get(event.credential or "")
        mint = life.mint if life is not None else None
        return _key(ci_subject(mint.detail.subject)) if mint is not None and mint.detail is not None else _key(pipeline_of(event))

    def _pipelines(self) -> dict[str, dict[tuple[str, str, str], int]]:
        """Repositories and branches that each identity's credentials were minted for, with when first. One walk, and only if somebody asks."""
        if self.runs is None:
            self.runs = {}
            for life in self.world.lives.values():
                mint = life.mint
                if mint is None or mint.detail is None or life.identity is None or (key := _key(ci_subject(mint.detail.subject))) is None:
                    continue
                held = self.runs.setdefault(life.identity.id, {})
                held[key] = min(mint.time, held.get(key, mint.time))
        return self.runs

    def _deployer(self, identity: Identity, event: Event) -> bool:
        """True for an identity that is itself a pipeline: its runs explain nothing."""
        life = self.world.lives.get(event.credential or "")
        if life is not None and life.mint is not None and life.mint.grant == "web_identity":
            return True
        return any(word in identity.id.lower() for word in ("deploy", "gha-", "github", "pipeline", "-ci", "ci-", "publish", "release"))
