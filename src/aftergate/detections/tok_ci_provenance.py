"""A role or account that trusts a pipeline is taken by a run that never took it: other repository, branch, pull request, environment or workflow."""

from __future__ import annotations

from msgspec import Struct

from aftergate.detections.api import Meta, Rule, lower, on, raise_to, subject_of
from aftergate.detections.pipelines import DEFAULT_BRANCHES, CiSubject, Runs, may_be_pipeline, pipeline_of
from aftergate.detections.reasoning import test_named, when
from aftergate.lineage.state import DAY_MS
from aftergate.lineage.tracking import Facts
from aftergate.vocabulary import Event, Kind, Severity, Shape, Tag
from aftergate.vocabulary.patterns import regex

_FEDERATED = "the federated credentials"  # Entra names the credential, not the subject behind it
_ENOUGH = 3  # earlier runs that make a habit
_DIGITS = regex(r"\d+")
_UNREVIEWED = frozenset({"pull_request", "pull_request_target", "issue_comment", "fork", "issues", "merge_request_event"})


class _Visit(Struct):
    """One taking of a role by a run."""

    event: Event
    subject: CiSubject
    run: str | None
    uses: list[str] = []


class _Role(Struct):
    visits: list[_Visit] = []
    count: int = 0
    odd: list[tuple[_Visit, int]] = []  # and how many visits there were before
    seen: dict[tuple[str, str, str], int] = {}  # repository, context, value -> visits


class Detection(Rule):
    meta = Meta(
        slug="tok-ci-provenance",
        title="Role taken by a pipeline run that never took it before",
        severity="high",
        about=(
            "Cloud roles that trust a CI system are taken by runs of certain repositories, branches and environments. A run from elsewhere, most of all "
            "from a pull request, means that the trust is wider than it looks and somebody found out."
        ),
        attack=("T1677", "T1199", "T1078.004"),
        nhi=("NHI4", "NHI8"),
        needs=(("ci.subject",),),
        traps=(
            "A branch, environment or repository that is renamed: the old name stops, the new one goes on.",
            "Release branches and tags that differ by number only.",
            "Roles that many repositories share.",
            "A pipeline that opened the role's trust shortly before.",
        ),
        blind=(
            "CloudTrail keeps subject and audience only: workflow and trigger are known where the forge's log is read too and the run id stands in the session name.",
        ),
        recommended=(
            "Narrow the role's trust policy to repository and branch or environment",
            "Revoke the session that the run was given",
            "Review the run and what it changed",
        ),
    )
    subscriptions = (
        on(kinds=[Kind.TOKEN_EXCHANGE, Kind.TOKEN_ISSUE], sources=("aws.", "gcp.", "vault")),  # nearly all without a subject: one look
        on(kinds=[Kind.SIGN_IN], sources=("vault",)),
        on(kinds=[Kind.SILENT_SIGN_IN], sources=("entra.serviceprincipal",)),  # the federated ones: one look at the credential's type
        on(tags=[Tag.CI_RUN, Tag.TRUST_CHANGE]),
    )

    def wants(self, shape: Shape) -> bool:
        return bool(shape.action.tags) or may_be_pipeline(shape)

    def start(self) -> None:
        self.roles: dict[str, _Role] = {}
        self.runs = Runs()
        self.keys: dict[str, _Visit] = {}
        self.opened: dict[str, int] = {}  # role -> when automation changed its trust

    def step(self, event: Event, facts: Facts) -> None:  # noqa: ARG002  (the signature of all rules)
        tags = event.action.tags
        if tags and Tag.CI_RUN in tags:
            self.runs.learn(event)
            return
        if tags and Tag.TRUST_CHANGE in tags:
            if event.ok and event.actor.kind == "workload" and event.target:
                self.opened[event.target.rpartition("/")[2]] = event.time
            return
        if event.kind is Kind.SILENT_SIGN_IN:
            if event.ok and event.credential is not None and event.d.credential_type == "federated":
                self._visit(event.actor.id, event, CiSubject(_FEDERATED, "other", event.credential))
            return
        if not event.ok or (event.target is None and not event.d.targets):
            return
        subject = pipeline_of(event)
        if subject is None or (event.kind is Kind.TOKEN_EXCHANGE and event.source == "gcp.audit"):
            return  # Google's exchange gives a token for the pool; which account it is for is told by the next call
        self._visit(event.target or event.d.targets[0].id, event, subject)

    def on_watched(self, event: Event, facts: Facts) -> None:  # noqa: ARG002
        visit = self.keys.get(event.credential or "")
        if visit is not None and len(visit.uses) < 5:
            visit.uses.append(event.id)

    def _visit(self, name: str, event: Event, subject: CiSubject) -> None:
        role = self.roles.get(name)
        if role is None:
            role = self.roles[name] = _Role()
        visit = _Visit(event, subject, event.d.run)
        key = (subject.repo, subject.context, subject.value if subject.repo == _FEDERATED else _DIGITS.sub("#", subject.value))
        role.count += 1
        known = role.seen.get(key, 0)
        role.seen[key] = known + 1
        if len(role.visits) < 2000:
            role.visits.append(visit)
        if not known and len(role.odd) < 50:
            role.odd.append((visit, role.count - 1))
            for issued in event.d.issued:
                self.keys[issued] = visit
                self.watch(issued)

    def finish(self) -> None:
        for name, role in self.roles.items():
            for visit, before in role.odd:
                first = role.visits[0].event.time
                if before >= _ENOUGH and visit.event.time - first >= DAY_MS:
                    self._judge(name, role, visit)
            self._workflows(name, role)

    def _judge(self, name: str, role: _Role, visit: _Visit) -> None:
        now = visit.event.time
        subject = visit.subject
        earlier = [v for v in role.visits if v.event.time < now]
        repos = {v.subject.repo for v in earlier}
        own = [v for v in earlier if v.subject.repo == subject.repo]
        contexts = {(v.subject.context, v.subject.value) for v in own}
        traps: list[str] = []
        severity: Severity = "high"
        wide = subject.context != "pull_request" and self._wide(role, subject)
        if subject.repo not in repos:
            reason = "another repository"
            if len(repos) >= 4 or wide:
                severity, traps = "low", ["many repositories share this role"]
        elif subject.context == "pull_request":
            reason = "a pull request, whose code nobody has approved"
        elif subject.context in ("branch", "tag", "environment"):
            reason = f"another {subject.context}"
            values = {value for _, value in contexts}
            if len(contexts) >= 4 or (subject.context == "tag" and any(kind == "tag" for kind, _ in contexts)):
                severity, traps = "low", ["this repository takes the role from many branches or tags"]
            elif subject.context == "branch" and wide:
                severity, traps = "low", ["many repositories share this role"]
            elif subject.context == "branch" and subject.value in DEFAULT_BRANCHES and values & DEFAULT_BRANCHES:
                severity, traps = "low", ["both are names of a default branch"]
            elif len(own) < 5 or subject.context != "branch":
                severity = "medium"
        else:
            reason, severity = "another trusted issuer or subject" if subject.repo == _FEDERATED else "another kind of run", "medium"
        if severity != "low" and self._renamed(role, visit):
            severity, traps = "low", ["the old name stops and the new one goes on: a rename"]
        opened = self.opened.get(name.rpartition("/")[2])
        if severity != "low" and subject.context != "pull_request" and opened is not None and 0 <= now - opened < 7 * DAY_MS:
            severity, traps = "low", ["a pipeline changed the role's trust shortly before"]
        if test_named(name.rpartition("/")[2].partition("@")[0]) and severity == "high":
            severity, traps = lower(severity), [*traps, "by its name not production"]
        run = self.runs.by_id.get(visit.run or "")
        if run is not None and run.trigger in _UNREVIEWED and subject.context != "pull_request":
            severity, reason = raise_to(severity, "high"), f"{reason}, started by {run.trigger}"
        usual = max(
            ((v.subject.told, sum(1 for o in earlier if o.subject == v.subject)) for v in earlier), key=lambda pair: (pair[1], pair[0])
        )
        self._tell(
            name, visit, severity, traps,
            f"On {when(now)} {name.rpartition('/')[2]} was taken by {subject.told}: {reason}. "
            f"The {len(earlier)} runs before came mostly from {usual[0]}.",
        )  # fmt: skip

    @staticmethod
    def _wide(role: _Role, subject: CiSubject) -> bool:
        """True when three other repositories took the role on several days each, before or after: its trust is meant for many."""
        days: dict[str, set[int]] = {}
        for visit in role.visits:
            if visit.subject.repo != subject.repo and visit.subject.context != "pull_request":
                days.setdefault(visit.subject.repo, set()).add(visit.event.time // DAY_MS)
        return sum(1 for found in days.values() if len(found) >= 2) >= 3

    def _renamed(self, role: _Role, visit: _Visit) -> bool:
        """True when this subject took the place of exactly one other for good: as the forge, or the sequel, shows."""
        now, subject = visit.event.time, visit.subject
        later = [v for v in role.visits if v.event.time > now]
        if subject.context == "pull_request" or sum(1 for v in later if v.subject == subject) < 2:
            return False
        gone = {v.subject for v in role.visits if v.event.time < now} - {v.subject for v in later}
        same_context = any(old.repo != subject.repo and (old.context, old.value) == (subject.context, subject.value) for old in gone)
        same_repo = any(old.repo == subject.repo and old.context == subject.context for old in gone)
        return same_context or same_repo

    def _workflows(self, name: str, role: _Role) -> None:
        """A known subject, but the run belongs to another repository, an unreviewed trigger, or another workflow file."""
        odd = {id(visit) for visit, _ in role.odd}
        known: list[tuple[_Visit, str, str]] = []
        for visit in role.visits:
            run = self.runs.by_id.get(visit.run or "")
            if run is None:
                continue
            triggers = {t for _, _, t in known}
            flows = [w for _, w, _ in known]
            if id(visit) not in odd and len(known) >= 5:
                then = when(visit.event.time)
                if (
                    run.repo
                    and run.repo != visit.subject.repo
                    and all(self.runs.by_id[v.run or ""].repo == v.subject.repo for v, _, _ in known)
                ):
                    self._tell(
                        name,
                        visit,
                        "high",
                        [],
                        f"On {then} {name.rpartition('/')[2]} was taken in the name of {visit.subject.repo}, but run {visit.run} belongs to {run.repo}.",
                    )
                elif run.trigger in _UNREVIEWED and not triggers & _UNREVIEWED:
                    self._tell(
                        name,
                        visit,
                        "high",
                        [],
                        f"On {then} {name.rpartition('/')[2]} was taken by run {visit.run} of {visit.subject.repo}, started by {run.trigger}; the {len(known)} runs before were not.",
                    )
                elif run.workflow and run.workflow not in flows and len(set(flows)) <= 2:
                    after = [
                        self.runs.by_id[v.run or ""].workflow
                        for v in role.visits
                        if v.event.time > visit.event.time and v.run in self.runs.by_id
                    ]
                    renamed = after.count(run.workflow) >= 2 and not set(flows) & set(after)
                    severity: Severity = "low" if renamed else "medium"
                    self._tell(
                        name,
                        visit,
                        severity,
                        ["the workflow was renamed"] if renamed else [],
                        f"On {then} {name.rpartition('/')[2]} was taken by workflow {run.workflow} of {visit.subject.repo}; the {len(known)} runs before were of {flows[-1]}.",
                    )
            known.append((visit, run.workflow, run.trigger))

    def _tell(self, name: str, visit: _Visit, severity: Severity, traps: list[str], narrative: str) -> None:
        event = visit.event
        assumed = (event.d.params or {}).get("assumed_role")
        subject = subject_of(credentials=event.d.issued, sessions=[assumed if isinstance(assumed, str) else None], identities=[name])
        self.report(
            f"{name}|{visit.subject.repo}|{visit.subject.context}|{visit.subject.value}|{severity}", event,
            severity=severity, narrative=narrative, subject=subject, evidence=[event.id, *visit.uses], traps=traps,
        )  # fmt: skip
