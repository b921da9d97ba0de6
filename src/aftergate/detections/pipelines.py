"""CI pipelines as logs of other systems show them: whose run a federated subject names, and what the forge says of that run.

Subjects are documented by the forges: GitHub "OpenID Connect reference", GitLab "OpenID Connect", Azure DevOps "workload identity federation",
HCP Terraform "dynamic credentials", CircleCI "OIDC tokens", Buildkite "OIDC". Google puts the subject behind `principal://…/subject/`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from msgspec import Struct

from aftergate.vocabulary import Event, Shape, Tag
from aftergate.vocabulary.patterns import regex

_GITHUB = regex(r"(?:^|:)repo(?:sitory)?:([^:@/]+)(?:@\d+)?/([^:@]+)(?:@\d+)?(?::(.*))?\Z")
_GITLAB = regex(r"project_path:([^:]+)(?::ref_type:([^:]+):ref:(.+))?\Z")
_TERRAFORM = regex(r"organization:([^:]+):project:([^:]+):workspace:([^:]+)(?::run_phase:(\w+))?")
_BUILDKITE = regex(r"organization:([^:]+):pipeline:([^:]+)(?::ref:([^:]+))?")
_CIRCLE = regex(r"org/([0-9a-f-]+)/project/([0-9a-f-]+)(?:/|\Z)")
_AZURE = regex(r"(?:sc|p)://([^/]+/[^/]+(?:/.+)?)\Z")
DEFAULT_BRANCHES = frozenset({"main", "master", "trunk", "default", "develop"})


class CiSubject(NamedTuple):
    """Whose run a subject names."""

    repo: str  # lower case, without the numbers of immutable subjects
    context: str  # branch, tag, pull_request, environment, other
    value: str = ""

    @property
    def told(self) -> str:
        """`branch main of acme/web`."""
        if self.context == "pull_request":
            return f"a pull request of {self.repo}"
        if self.context == "other":
            return f"{self.value} of {self.repo}" if self.value else self.repo
        return f"{self.context} {self.value} of {self.repo}"


@lru_cache(maxsize=10_000)
def ci_subject(subject: str | None) -> CiSubject | None:
    """The pipeline that a federated subject names; None when it is none."""
    if not subject:
        return None
    if subject.startswith("principal"):
        subject = subject.partition("/subject/")[2] or subject.partition("/attribute.repository/")[2]
        if subject and ":" not in subject and subject.count("/") == 1:
            return CiSubject(subject.lower(), "other")
    found = _GITHUB.search(subject)
    if found:
        return CiSubject(f"{found[1]}/{found[2]}".lower(), *_github_context(found[3] or ""))
    found = _GITLAB.search(subject)
    if found:
        kind = {"branch": "branch", "tag": "tag", "merge_request": "pull_request"}.get(found[2] or "", "other")
        return CiSubject(found[1].lower(), kind, found[3] or "")
    found = _TERRAFORM.match(subject)
    if found:
        return CiSubject(f"{found[1]}/{found[2]}/{found[3]}".lower(), "other", found[4] or "")
    found = _BUILDKITE.match(subject)
    if found:
        return CiSubject(f"{found[1]}/{found[2]}".lower(), *_github_context(f"ref:{found[3]}" if found[3] else ""))
    found = _CIRCLE.match(subject)
    if found:
        return CiSubject(f"{found[1]}/{found[2]}", "other")
    found = _AZURE.match(subject)
    return CiSubject(found[1].lower(), "other") if found else None


def _github_context(text: str) -> tuple[str, str]:
    if text.startswith("pull_request"):
        return "pull_request", ""
    kind, _, value = text.partition(":")
    if kind == "ref":
        value = value.partition(":")[0]
        if value.startswith("refs/tags/"):
            return "tag", value.removeprefix("refs/tags/")
        if value.startswith("refs/pull/"):
            return "pull_request", ""
        return "branch", value.removeprefix("refs/heads/")
    if kind == "environment":
        return "environment", value.partition(":")[0]
    return "other", text[:80]


def may_be_pipeline(shape: Shape) -> bool:
    """False for AWS callers that are a service, a person, a role or a user: a federated subject acts in its own name."""
    actor = shape.actor
    if not shape.source.startswith("aws."):
        return True
    return actor.kind not in ("service", "human") and actor.role is None and not actor.id.startswith("arn:")


def pipeline_of(event: Event) -> CiSubject | None:
    """The pipeline that an event's federated subject, or its actor, names."""
    return ci_subject(event.d.subject) or ci_subject(event.actor.id if ":" in event.actor.id else None)


class RunFacts(Struct):
    """What the forge says of one run."""

    repo: str = ""
    trigger: str = ""
    branch: str = ""
    workflow: str = ""


class Runs:
    """Runs of the forge's log. Feed it every event with the CI tag."""

    def __init__(self) -> None:
        self.by_id: dict[str, RunFacts] = {}

    def learn(self, event: Event) -> None:
        detail = event.d
        if Tag.CI_RUN not in event.action.tags or detail.run is None:
            return
        run = self.by_id.get(detail.run)
        if run is None:
            run = self.by_id[detail.run] = RunFacts()
        params = detail.params or {}
        run.repo = run.repo or (detail.repo or "").lower()
        run.trigger = run.trigger or str(params.get("trigger") or params.get("event") or "")
        run.branch = run.branch or str(params.get("head_branch") or params.get("ref") or "").removeprefix("refs/heads/")
        run.workflow = run.workflow or str(params.get("workflow") or "")
