"""GitHub: the enterprise and organisation audit log. Secret scanning alerts are read in alerts.py.

Source: docs.github.com "Audit log events for your enterprise", "Identifying audit log events performed by an access token"
(hashed_token is the base64 of the SHA-256 of the token).
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from aftergate.connectors.base import Source
from aftergate.connectors.github.alerts import ALERTS, Alerts, is_alert
from aftergate.connectors.github.operations import RUNS, operation
from aftergate.connectors.github.records import AuditRecord
from aftergate.connectors.loose import address, content_id, decode, kept, mail, mapping, moment, number, text, texts, unique
from aftergate.errors import NotMine
from aftergate.events.interning import Interner
from aftergate.events.redact import secret_key
from aftergate.vocabulary import NO_ORIGIN, Actor, Change, Detail, Event, Kind, Tag, Target
from aftergate.vocabulary.patterns import regex

AUDIT: Final = "github.audit"

_ROBOT = regex(
    r"(^|[-_.])(bot|ci|cd|svc|service|robot|automation|deploy|deployer|release|releaser|renovate|dependabot|jenkins|buildkite|circleci|builder|sync|runner)([-_.]|$)"
)
_NUMBERS = regex(r"^([0-9]+|[0-9a-f]{20,})$")

_audit = msgspec.json.Decoder(AuditRecord)


class Audit:
    """Audit log lines, streamed or exported."""

    def __init__(self, interner: Interner) -> None:
        self.intern = interner
        self._actors: dict[tuple[str | None, ...], Actor] = {}

    def parse(self, line: bytes) -> Event:
        record = decode(_audit, line)
        action = record.action
        if not action or "." not in action:
            raise NotMine("`action` is not an audit log action")
        intern = self.intern
        time = moment(record.stamp, record.created_at, record.at_sign_timestamp)
        name, error = self._name(action, record)
        operated = intern.action(AUDIT, name, operation)
        repo = text(record.repo) or text(record.repository)
        account = text(record.org) or text(record.business)
        actor = self._actor(record, account)

        token = text(record.hashed_token)
        programmatic = text(record.programmatic_access_type)
        used, issued = token, None
        if operated.kind is Kind.CREDENTIAL_CREATE and programmatic is None:
            used, issued = None, token or text(record.fingerprint) or text(record.token_id)
        elif operated.kind is Kind.CREDENTIAL_CREATE:
            issued = text(record.fingerprint)
        revoked = None
        if (operated.kind is Kind.CREDENTIAL_DELETE or Tag.REVOKE in operated.tags) and programmatic is None:
            used, revoked = None, token or text(record.fingerprint) or text(record.token_id)
        if used is None and issued is None and revoked is None:
            used = text(record.deploy_key_fingerprint) or (text(record.token_id) if programmatic is not None else None)

        targets = self._targets(record, repo, account, actor, revoked, operated.tags)
        run = text(record.workflow_run_id)
        detail = Detail(
            issued=(issued,) if issued else (),
            issued_class=self._class(action) if issued else None,
            scopes=tuple((text(record.token_scopes) or "").replace(",", " ").split()),
            credential_type=programmatic,
            run=run,
            attempt=number(record.run_attempt),
            phase=RUNS.get(action) if run else None,
            repo=repo,
            correlation=text(record.request_id),
            targets=targets,
            changes=self._changes(record),
            params=self._params(record, action),
            status=text(record.conclusion),
        )
        place = text(record.actor_ip)
        country = text(mapping(record.actor_location).get("country_code"))
        shape = intern.shape(
            AUDIT,
            operated,
            actor,
            intern.origin(address(place) or place, country=country) if place else NO_ORIGIN,
            intern.agent(text(record.user_agent)),
            error,
            client=text(record.oauth_application_id) or text(record.application_client_id),
            client_name=text(record.oauth_application_name) or text(record.oauth_application) or text(record.integration),
            account=account,
        )
        return Event(
            time,
            text(record.document_id) or content_id(line),
            shape,
            credential=used,
            target=targets[0].id if targets else None,
            detail=detail,
        )

    @staticmethod
    def _name(action: str, record: AuditRecord) -> tuple[str, str | None]:
        """The stable action name, and the error it ended in."""
        if action == "api.request":
            method = (text(record.request_method) or "GET").upper()[:10]
            route = text(record.route) or text(record.url_path) or "/"
            parts = route.partition("?")[0].split("/")
            templated = [
                "{" + part[1:] + "}"
                if part[:1] == ":"
                else "{id}"
                if _NUMBERS.match(part)
                else "{name}"
                if n in (2, 3) and parts[1:2] == ["repos"]
                else part
                for n, part in enumerate(parts)
            ]
            status = number(record.status_code)
            return f"api {method} {'/'.join(templated)[:120]}", str(status) if status is not None and status >= 400 else None
        if action == "repo.create" and record.visibility == "public":
            return "repo.create:public", None
        return action[:120], "failed" if action == "user.failed_login" else None

    def _actor(self, record: AuditRecord, account: str | None) -> Actor:
        login, number_id, key = text(record.actor), text(record.actor_id), text(record.deploy_key_fingerprint)
        marks = f"{record.actor_is_agent is True}{record.actor_is_bot is True}{record.programmatic_access_type is None}"
        cached = (login, number_id, key, marks, account, text(record.external_identity_nameid), text(record.external_identity_username))
        found = self._actors.get(cached)
        if found is not None:
            return found
        names = unique((number_id, mail(record.external_identity_nameid), mail(record.external_identity_username)), login)
        first_party = login in ("github", "web-flow", "GitHub", "ghost")
        if first_party:
            kind = "service"
        elif record.actor_is_agent is True:
            kind = "agent"
        elif record.actor_is_bot is True or (login or "").endswith("[bot]") or _ROBOT.search((login or "").lower()):
            kind = "workload"
        elif login is None:
            kind = "workload" if key or record.programmatic_access_type else "unknown"
        else:
            kind = "human"
        found = self.intern.actor(login or number_id or key or "unknown", names, kind, account, first_party=first_party)
        if len(self._actors) > 100_000:
            self._actors.clear()
        self._actors[cached] = found
        return found

    @staticmethod
    def _targets(
        record: AuditRecord, repo: str | None, account: str | None, actor: Actor, revoked: str | None, tags: frozenset[Tag]
    ) -> tuple[Target, ...]:
        found: list[Target] = []
        user = text(record.user)
        if user:
            found.append(Target(user, "user", unique((text(record.user_id) if record.user_id else None,))))
        elif Tag.CREDENTIAL_ADD in tags or Tag.CREDENTIAL_REMOVE in tags:
            owner = text(record.user_programmatic_access_name) or text(record.integration) or text(record.oauth_application)
            # a deploy key belongs to its repository, any other key without an owner to whoever added it
            found.append(Target(owner, "application") if owner else Target(repo, "repository") if repo else Target(actor.id, "user"))
        if revoked:
            found.append(Target(revoked, "credential"))
        team = text(record.team)
        if team:
            found.append(Target(team, "team"))
        sequence = number(record.number)
        if repo and Tag.LEAK in tags and sequence is not None:
            found.append(Target(f"{repo}#{sequence}", "alert"))
        if repo and all(target.id != repo for target in found):
            found.append(Target(repo, "repository"))
        if not found and account:
            found.append(Target(account, "organisation"))
        return tuple(found)

    @staticmethod
    def _changes(record: AuditRecord) -> tuple[Change, ...]:
        if record.changes is None and record.visibility is None and record.permission is None:
            return ()
        found = [
            Change(name, text(values.get(f"old_{name}")), text(value))
            for values in (mapping(record.changes),)
            for name, value in values.items()
            if not name.startswith("old_") and not secret_key(name)
        ]
        if record.visibility is not None:
            found.append(Change("visibility", text(record.previous_visibility), text(record.visibility)))
        if record.permission is not None:
            found.append(Change("permission", text(record.old_permission), text(record.permission)))
        return tuple(found[:20])

    @staticmethod
    def _params(record: AuditRecord, action: str) -> dict[str, Any] | None:
        programmatic = text(record.programmatic_access_type)
        token_id = text(record.token_id)
        if action.startswith("git."):  # most of the log, and nothing else in it is read
            return {"programmatic_access_type": programmatic, "token_id": token_id} if programmatic or token_id else None
        if action.startswith("workflows."):
            hosted = record.is_hosted_runner
            return kept(
                {
                    "programmatic_access_type": programmatic,
                    "event": text(record.event),
                    "head_branch": text(record.head_branch),
                    "workflow": text(record.name),
                    "job": text(record.job_name),
                    "job_workflow_ref": text(record.job_workflow_ref),
                    "hosted_runner": hosted if isinstance(hosted, bool) else None,
                    "runner": text(record.runner_name),
                    "secrets_passed": list(texts(record.secrets_passed)) if isinstance(record.secrets_passed, list) else None,
                    "environment": text(record.environment_name) or text(record.environment),
                }
            )
        read_only = record.read_only
        added = record.permissions_added
        return kept(
            {
                "programmatic_access_type": programmatic,
                "token_id": token_id,
                "name": text(record.name),
                "environment": text(record.environment_name) or text(record.environment),
                "secret_name": text(record.key) if action.endswith(("_secret", "_variable")) else None,
                "title": text(record.title),
                "read_only": read_only if isinstance(read_only, bool) else {"true": True, "false": False}.get(text(read_only) or ""),
                "permission": text(record.permission),
                "permissions_added": {name: text(value) for name, value in list(added.items())[:40]} if isinstance(added, dict) else None,
                "visibility": text(record.visibility),
                "previous_visibility": text(record.previous_visibility),
                "integration": text(record.integration),
                "hook_url": _plain_url(text(mapping(record.config).get("url"))),
                "ruleset": text(record.ruleset_name),
                "enforcement": text(record.ruleset_enforcement),
                "number": number(record.number),
            }
        )

    @staticmethod
    def _class(action: str) -> str:
        category = action.partition(".")[0]
        if category in ("public_key", "deploy_key", "gpg_key"):
            return "ssh_key"
        if category == "oauth_access":
            return "access_token"
        return "pat" if category == "personal_access_token" else "client_secret"


def _plain_url(url: str | None) -> str | None:
    """Scheme, host and path: the rest of a hook's address may hold a token."""
    found = re.match(r"^([a-z]+://)(?:[^/@]*@)?([^?#]*)", url or "")
    return found.group(1) + found.group(2) if found else None


def _is_audit(record: dict[str, Any]) -> bool:
    action = record.get("action")
    return (
        isinstance(action, str)
        and "." in action
        and " " not in action
        and ("@timestamp" in record or "created_at" in record or "at_sign_timestamp" in record)
        and ("_document_id" in record or "actor" in record)
        and not isinstance(record.get("actor"), dict)
    )


SOURCES = (
    Source(
        AUDIT,
        "GitHub audit log",
        _is_audit,
        Audit,
        frozenset(
            [
                "origin.ip",
                "agent",
                "credential",
                "client",
                "token.mint",
                "scopes",
                "credential.change",
                "identity.lifecycle",
                "ci.run",
                "privilege",
                "policy",
            ]
            + ["trust", "factor", "consent", "leak", "share"]
        ),
        (
            "`actor_ip` is there only where address disclosure is switched on, and hosted runners have none.",
            "A robot user with a personal token looks like a person: only apps are marked as bots.",
            "Job tokens and installation tokens are never logged as issued.",
        ),
        priority=45,
    ),
    Source(
        ALERTS,
        "GitHub secret scanning alerts",
        is_alert,
        Alerts,
        frozenset(["credential", "leak"]),
        ("An alert's time is when the scanner saw the secret, not when it was committed.",),
        priority=40,
    ),
)
