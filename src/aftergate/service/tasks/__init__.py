"""Tasks and their tokens: the use cases, over one core.

    authenticate  who asks: API key, client assertion, JWT-SVID, CI token, task token   asking.py
    create        declare a task; `start` it with its approval; `finish`, `kill`       life.py
    exchange      a token for a task                                                  exchange.py, subjects.py
    introspect    is a token alive; `revoke` it                                        introspection.py
    judge         an agent's MCP message; `downstream` a token for one tool call       tools.py
    live          the facts that a decision gets about a task

Each is one or two database transactions with their audit records.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import Connection

from aftergate.audit.records import Actor
from aftergate.authz.tasks import machine as m
from aftergate.authz.tasks.answers import Refusal
from aftergate.authz.tasks.tokens import Verified
from aftergate.authz.wire import EvaluationRequest
from aftergate.service.tasks import asking as who
from aftergate.service.tasks import exchange, introspection, life, subjects, tools
from aftergate.service.tasks.asking import Asking, Presented
from aftergate.service.tasks.config import load
from aftergate.service.tasks.issuers import Bundles, IssuerKeys
from aftergate.service.tasks.signing import Signing
from aftergate.stores import tasks as store

if TYPE_CHECKING:
    from aftergate.service.core import Core

__all__ = ["Asking", "Presented", "Tasks"]
COAZ_SUBJECT: Final = "identity"  # the type under which MCP's mapping names whoever the token is about
SWEEP_MS: Final = 1_000
TIDY_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000


class Tasks:
    """One server process's tasks."""

    def __init__(self, core: Core) -> None:
        """Raises: ConfigError, for a clients file or key file that can't be used; StoreUnavailable."""
        self.core = core
        settings = core.settings
        self.known = load(settings, core.url)
        self.limits = m.Limits(settings.task_ttl_max_s * 1000, settings.token_ttl_s * 1000, settings.act_depth, settings.task_trust_floor)
        self.issuer_keys = IssuerKeys(core.clock, self.known.static_keys)
        self.bundles = Bundles(self.known.bundles)
        self.signing = Signing(core)
        self._trust_seen = -1
        self._swept_ms = 0
        self._tidy_ms = 0

    def digest(self, jti: str) -> bytes:
        """What a token is known by."""
        return hmac.digest(self.core.pepper, b"token\0" + jti.encode(), "sha256")

    def authenticate(self, presented: Presented, now_ms: int) -> Asking | Refusal:
        return who.authenticate(self, presented, now_ms)

    def use_up(self, presented: Presented, now_ms: int) -> Refusal | None:
        """Use up the DPoP proof of a request that was authenticated with `spend` off."""
        found = who.proof_of(self, msgspec.structs.replace(presented, spend=True), now_ms)
        return found if isinstance(found, Refusal) else None

    def create(self, asking: Asking, wanted: life.Wanted, presented: Presented, now_ms: int) -> life.Made | life.Denied | Refusal:
        return life.create(self, asking, wanted, presented, now_ms)

    def start(
        self, asking: Asking, task_id: str, approval: dict[str, Any] | None, presented: Presented, now_ms: int
    ) -> life.Made | life.Denied | Refusal:
        return life.start(self, asking, task_id, approval, presented, now_ms)

    def approval_state(self, asking: Asking, task: m.Task, now_ms: int) -> dict[str, Any]:
        """How the approval stands that was asked for in a task's name; empty if the caller is not told."""
        return life.approval_state(self, asking, task, now_ms)

    def finish(self, asking: Asking, task_id: str, state: m.State, reason: str, now_ms: int) -> m.Task | Refusal:
        return life.finish(self, asking, task_id, state, reason, now_ms)

    def find(self, asking: Asking, task_id: str, now_ms: int) -> m.Task | None:
        """A task that the caller may see, as it is now."""
        life.pulse(self, task_id, now_ms)
        with self.core.db.read() as connection:
            chain = store.chain(connection, task_id)
        if not chain or not (asking.admin or asking.task == task_id or asking.principal in {task.who for task in chain}):
            return None
        return chain[0]

    def listed(self, asking: Asking, *, everything: bool, state: str | None, before_ms: int | None, limit: int) -> list[m.Task]:
        """Tasks, newest first: the caller's own, or everybody's for an administrator."""
        with self.core.db.read() as connection:
            return store.listed(connection, who=None if everything else asking.principal, state=state, before_ms=before_ms, limit=limit)

    def kill(self, actor: Actor, *, task_id: str = "", principal: m.Principal | None = None, reason: str, now_ms: int) -> list[str]:
        """Kill one task, or all of and for one principal; ids of those that died."""
        with self.core.db.read() as connection:
            one = store.find(connection, task_id) if task_id else None
            found = [one] if one is not None else []
            if principal is not None:
                found += store.of_people(connection, principal)
        return life.kill(self, actor, found, reason, now_ms)

    def kill_subject(self, actor: Actor, issuer: str, jti: str, now_ms: int) -> int:
        """Revoke every token that comes from one foreign subject token, known by its issuer and `jti`; how many were alive."""
        family = subjects.family_of(self, issuer, {"jti": jti}, "")
        with self.core.db.read() as connection:
            roots = store.of_subject(connection, family)
        return introspection.revoke_all(self, actor, roots, now_ms) if roots else 0

    def exchange(self, asking: Asking, presented: Presented, now_ms: int) -> exchange.Issued | exchange.Refused:
        return exchange.exchange(self, asking, presented, now_ms)

    def verified(self, token: str, now_ms: int) -> Verified | Refusal:
        return introspection.verified(self, token, now_ms)

    def death_of(self, claims: Mapping[str, Any], now_ms: int) -> str | None:
        return introspection.death_of(self, claims, now_ms)

    def introspect(self, asking: Asking, token: str, now_ms: int) -> dict[str, Any]:
        return introspection.introspect(self, asking, token, now_ms)

    def introspection_jwt(self, asking: Asking, answer: dict[str, Any], now_ms: int) -> str:
        return introspection.as_jwt(self, asking, answer, now_ms)

    def revoke(self, asking: Asking, token: str, now_ms: int) -> None:
        introspection.revoke(self, asking, token, now_ms)

    def live(self, task_id: str, request: EvaluationRequest, now_ms: int) -> dict[str, Any] | None:
        """`context.live.task` for a decision: only while the task and all above it live, only for its own people, only for what it names.

        Raises: StoreUnavailable.
        """
        if "\0" in task_id:  # nobody's, and PostgreSQL has no such text to look for
            return None
        chain = life.pulse(self, task_id, now_ms)
        if not chain:
            return None
        task = chain[0]
        people = [task.who] + ([task.on_behalf_of] if task.on_behalf_of is not None else [])
        subject = request.subject
        if not any(one.id == subject.id and subject.type in {one.type, COAZ_SUBJECT} for one in people) or not tools.within(
            self, task, request
        ):
            return None
        made: dict[str, Any] = {"id": task.id, "purpose": task.purpose, "actions": sorted(task.scope)}
        if task.on_behalf_of is not None:
            made |= {"on_behalf_of": task.on_behalf_of.id, "agent": task.who.id}
        return made

    def jwks(self, now_ms: int) -> dict[str, Any]:
        """Every public key of this server: they verify its tokens, and what it signs for approvals."""
        return self.signing.jwks(now_ms)

    def counts(self) -> dict[str, int]:
        """Tasks by state, for the metrics. Raises: StoreUnavailable."""
        with self.core.db.read() as connection:
            return store.counts(connection)

    def tick(self, now_ms: int) -> None:
        """End what is over, kill what lost its trust, renew keys. Raises: StoreUnavailable, ConfigError."""
        self.signing.tick(now_ms)
        version = self.core.trust.version
        changed = version != self._trust_seen
        if changed or now_ms - self._swept_ms >= SWEEP_MS:
            life.sweep(self, now_ms, trust=changed)
            self._trust_seen, self._swept_ms = version, now_ms
        if now_ms >= self._tidy_ms:
            self.bundles.current()
            with self.core.db.write() as connection:
                self.forget(connection, now_ms - self.core.settings.keep_sessions_days * DAY_MS)
            self._tidy_ms = now_ms + TIDY_MS
        if self.bundles.problems:
            self.core.problems["workloads"] = "; ".join(
                f"trust domain {domain}: {problem}" for domain, problem in sorted(self.bundles.problems.items())
            )
        else:
            self.core.problems.pop("workloads", None)

    def forget(self, connection: Connection, before_ms: int) -> int:
        """Retention: drop tasks and tokens that ended before then."""
        return store.forget(connection, before_ms)
