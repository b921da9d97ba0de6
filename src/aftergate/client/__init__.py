"""A client for `aftergate serve`.

    with Client("https://aftergate.example.org", key) as gate:
        if gate.permitted("user:alice", "release_payment", "payment:4711", context={"session_id": "s-1"}):
            ...

A denial is a value. Whatever is unclear (no answer, an error, an answer that is not one) raises, and `permitted` is then False.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import quote

import msgspec

from aftergate.client.answers import (
    AccessRequest,
    Action,
    Ask,
    Decision,
    Entity,
    Granted,
    Key,
    NewKey,
    Received,
    SetAside,
    Status,
    Task,
    Token,
    Trust,
    TrustReason,
)
from aftergate.client.dpop import DpopKey
from aftergate.client.sending import Proof, Refused, Sender, Unanswered
from aftergate.errors import AftergateError, ConfigError

__all__ = [
    "AccessRequest", "Action", "Ask", "Client", "Decision", "DpopKey", "Entity", "Granted", "Key", "NewKey", "Received", "Refused", "SetAside",
    "Status", "Task", "Token", "Trust", "TrustReason", "Unanswered",
]  # fmt: skip

EVALUATION: Final = "/access/v1/evaluation"
EVALUATIONS: Final = "/access/v1/evaluations"
REQUESTS: Final = "/access/v1/requests"
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
LINES_B: Final = 512 * 1024  # findings go in parts of this size, under the server's limit on a body
ONCE: Final = frozenset({"approval", "auth", "task_id"})  # what an evaluation may use up: such a request is not repeated blindly
Named = Entity | str
_ENCODE = msgspec.json.Encoder().encode


class _Results(msgspec.Struct):
    results: list[dict[str, Any]]
    page: dict[str, Any] = {}


class _Evaluations(msgspec.Struct):
    evaluations: list[Decision]


class _Keys(msgspec.Struct):
    keys: list[Key]


class _Tasks(msgspec.Struct):
    tasks: list[Task]


def entity(named: Named) -> Entity:
    """`type:id` as an entity; only the first colon counts.

    Raises: ConfigError.
    """
    if isinstance(named, Entity):
        return named
    kind, colon, id_ = named.partition(":")
    if not colon or not kind or not id_:
        raise ConfigError(f"`{named}` is not TYPE:ID", hint="for example user:alice")
    return Entity(kind, id_)


def _action(named: Action | str) -> Action:
    return named if isinstance(named, Action) else Action(named)


class Client:
    """One server, one key. Safe to use from several threads; close it, or use it as a context manager."""

    def __init__(self, url: str, key: str = "", *, timeout_s: float = 10.0, proof: Proof | None = None, verify: Any = True) -> None:
        """`key` is an API key or access token; `proof` (a `DpopKey`) shows the key that approvals and tokens of this client are bound to.

        Raises: ConfigError, for an address that would send the key in clear.
        """
        self._sender = Sender(url, key, timeout_s=timeout_s, proof=proof, verify=verify)
        self.url = self._sender.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._sender.close()

    # Decisions

    def permitted(self, subject: Named, action: Action | str, resource: Named, *, context: Mapping[str, Any] | None = None) -> bool:
        """Whether it may go ahead; False also when that cannot be found out. To learn why, use `evaluate`."""
        try:
            return self.evaluate(subject, action, resource, context=context).decision is True
        except AftergateError:
            return False

    def evaluate(
        self,
        subject: Named,
        action: Action | str,
        resource: Named,
        *,
        context: Mapping[str, Any] | None = None,
        approval: Mapping[str, Any] | str = "",
    ) -> Decision:
        """May this subject do this action on this resource, now? `approval` is one's id, or `Granted.approval`; a permit uses it up.

        Raises: Refused, Unanswered.
        """
        held = dict(context or {})
        if approval:
            held["approval"] = {"id": approval} if isinstance(approval, str) else dict(approval)
        asked = Ask(entity(subject), _action(action), entity(resource), held)
        ath = str(held["approval"]["id"]) if approval else ""  # the proof serves this approval and no other
        return self._sender.ask(Decision, "POST", EVALUATION, safe=not ONCE & held.keys(), prove=True, ath=ath, **_json(asked))

    def evaluations(
        self,
        items: Sequence[Ask],
        *,
        semantic: Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"] = "execute_all",
        context: Mapping[str, Any] | None = None,
    ) -> list[Decision]:
        """Several answers, in order; fewer than asked only where `semantic` stops early. `context` is that of items without their own.

        Raises: Refused, Unanswered.
        """
        if not items:
            return []
        body: dict[str, Any] = {"evaluations": [msgspec.to_builtins(item) for item in items], "options": {"evaluations_semantic": semantic}}
        if context:
            body["context"] = dict(context)
        safe = not any(ONCE & {**item.context, **(context or {})}.keys() for item in items)
        made = self._sender.ask(_Evaluations, "POST", EVALUATIONS, safe=safe, prove=True, **_json(body)).evaluations
        stops = {"execute_all": None, "deny_on_first_deny": False, "permit_on_first_permit": True}[semantic]
        if len(made) > len(items) or (len(made) < len(items) and (stops is None or not made or made[-1].decision is not stops)):
            raise Unanswered(f"{len(made)} answers to {len(items)} questions", where=self.url + EVALUATIONS)
        return made

    def search(
        self,
        kind: Literal["subject", "resource", "action"],
        *,
        subject: Named | str,
        resource: Named | str,
        action: Action | str = "",
        context: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Which subjects, resources or actions complete the request to a permit, page by page. What is looked for is given by its type alone.

        Raises: Refused, Unanswered.
        """
        body: dict[str, Any] = {"context": dict(context)} if context else {}
        for name, named in (("subject", subject), ("resource", resource)):
            body[name] = {"type": named} if name == kind else msgspec.to_builtins(entity(named))
        if kind != "action":
            body["action"] = msgspec.to_builtins(_action(action))
        token = ""
        while True:
            page = {**({"token": token} if token else {}), **({"limit": limit} if limit else {})}
            found = self._sender.ask(
                _Results, "POST", f"/access/v1/search/{kind}", safe=True, **_json({**body, **({"page": page} if page else {})})
            )
            yield from found.results
            token = str(found.page.get("next_token") or "")
            if not token:
                return

    # Approvals

    def request_access(
        self,
        ask: Ask,
        denial: Decision,
        *,
        requested: Mapping[str, Any] | None = None,
        callback: Mapping[str, Any] | None = None,
        key: str = "",
    ) -> Granted:
        """Ask for the approval that a denial offered, for exactly the same request. `key` makes a repetition of one's own safe as well.

        Raises: ConfigError, if the denial offers none; Refused; Unanswered.
        """
        offer = denial.offer
        if offer is None:
            raise ConfigError("no approval would lift this denial", hint="`Decision.offer` says whether one would")
        held = {name: offer[name] for name in ("binding_token", "expires_at", "template") if name in offer}
        body = {**msgspec.to_builtins(ask), "denial": {**held, **({"evaluation_id": denial.id} if denial.id else {})}}
        if requested:
            body["requested_access"] = dict(requested)
        if callback:
            body["callback"] = dict(callback)
        # The Idempotency-Key makes it safe to send again: the same request comes back.
        return self._sender.ask(
            Granted, "POST", REQUESTS, safe=True, prove=True, **_json(body, {"idempotency-key": key or str(uuid.uuid4())})
        )

    def access_request(self, request_id: str) -> Granted:
        return self._sender.ask(Granted, "GET", f"{REQUESTS}/{_part(request_id)}", safe=True)

    def wait(self, request_id: str, *, timeout_s: float, every_s: float = 2.0) -> Granted:
        """Follow a request until it is decided, or the time is over: then as it stands, which is no approval.

        Raises: Refused, Unanswered.
        """
        until = time.monotonic() + timeout_s
        while True:
            held = self.access_request(request_id)
            left = until - time.monotonic()
            if held.task.ended or left <= 0:
                return held
            time.sleep(min(every_s, left))

    def cancel_request(self, request_id: str, reason: str = "") -> Granted:
        body = {"comment": reason} if reason else {}
        return self._sender.ask(Granted, "POST", f"{REQUESTS}/{_part(request_id)}/cancel", safe=False, **_json(body))

    # Tasks

    def create_task(self, purpose: str, **members: Any) -> Task:
        """Declare a task; `members` as in `POST /v1/tasks`. State `proposed` means that it waits for an approval.

        Raises: Refused (403, with what would change it), Unanswered.
        """
        return self._sender.ask(Task, "POST", "/v1/tasks", safe=False, prove=True, **_json({"purpose": purpose, **members}))

    def start_task(self, task_id: str, approval: Mapping[str, Any] | None = None) -> Task:
        """Start a proposed task. `approval` None takes the one that was asked for in the task's name. `proof` must be of the key that it names.

        Raises: Refused, Unanswered.
        """
        given = dict(approval) if approval is not None else self.task(task_id).granted
        body = {"approval": given} if given is not None else {}
        ath = str(given["id"]) if given is not None and "id" in given else ""  # the proof serves this approval and no other
        return self._sender.ask(Task, "POST", f"/v1/tasks/{_part(task_id)}/start", safe=False, prove=True, ath=ath, **_json(body))

    def task(self, task_id: str) -> Task:
        return self._sender.ask(Task, "GET", f"/v1/tasks/{_part(task_id)}", safe=True)

    def tasks(self, **query: Any) -> list[Task]:
        return self._sender.ask(_Tasks, "GET", "/v1/tasks", safe=True, params=query).tasks

    def complete_task(self, task_id: str, reason: str = "") -> Task:
        """The work is done: the task's tokens end."""
        return self._sender.ask(Task, "POST", f"/v1/tasks/{_part(task_id)}/complete", safe=False, **_json({"reason": reason}))

    def cancel_task(self, task_id: str, reason: str = "") -> Task:
        return self._sender.ask(Task, "POST", f"/v1/tasks/{_part(task_id)}/cancel", safe=False, **_json({"reason": reason}))

    def kill_tasks(self, reason: str, **members: Any) -> dict[str, Any]:
        """End tasks by force (scope `admin`); `members` as in `POST /v1/tasks/kill`. `tasks` that ended, or how many `tokens`."""
        return self._sender.ask(dict[str, Any], "POST", "/v1/tasks/kill", safe=True, **_json({"reason": reason, **members}))

    def rotate_token_key(self) -> str:
        """Begin a new signing key now (scope `admin`); its id."""
        return self._sender.ask(dict[str, str], "POST", "/v1/tasks/keys/rotate", safe=False)["kid"]

    def exchange(self, **form: str | Sequence[str]) -> Token:
        """A task's token, by RFC 8693; `form` as in `POST /oauth/token`. It is bound to the key of `proof`, if this client has one.

        Raises: Refused, Unanswered.
        """
        data = {"grant_type": EXCHANGE, **form}
        return self._sender.ask(Token, "POST", "/oauth/token", safe=False, prove=True, data=data)

    def introspect(self, token: str) -> dict[str, Any]:
        """What a token says, if `active`."""
        return self._sender.ask(dict[str, Any], "POST", "/oauth/introspect", safe=True, data={"token": token})

    def revoke(self, token: str) -> None:
        """End a token and everything derived from it."""
        self._sender.send("POST", "/oauth/revoke", safe=True, data={"token": token})

    def tool_call(self, message: Any, **members: Any) -> Decision:
        """Whether an MCP message may go on; `members` as in `POST /v1/mcp/evaluation`."""
        body = {"message": message, **members}
        return self._sender.ask(Decision, "POST", "/v1/mcp/evaluation", safe=False, prove=True, **_json(body))

    # Findings and trust

    def send_findings(self, lines: Iterable[bytes]) -> Received:
        """Send findings, one JSON object a line; what the server sets aside is told by its number among all lines, from 1. Repeating does no harm.

        Raises: Refused, Unanswered.
        """
        total = Received()
        part: list[bytes] = []
        size = 0
        for line in lines:
            if part and size + len(line) > LINES_B:
                self._send_lines(part, total)
                part, size = [], 0
            part.append(line.strip())
            size += len(line) + 1
        if part:
            self._send_lines(part, total)
        return total

    def _send_lines(self, part: list[bytes], total: Received) -> None:
        headers = {"content-type": "application/x-ndjson"}
        try:
            got = self._sender.ask(Received, "POST", "/v1/findings", safe=True, headers=headers, content=b"\n".join(part) + b"\n")
        except Refused as refused:
            if refused.status != 400 or "set_aside" not in refused.body:
                raise
            got = Received(len(part), set_aside=msgspec.convert(refused.body["set_aside"], list[SetAside]))
        total.set_aside += [SetAside(each.line + total.received, each.problem) for each in got.set_aside]
        total.received += len(part)
        total.new += got.new
        total.known += got.known

    def findings(self, subject: str = "", *, closed: bool = False) -> Iterator[dict[str, Any]]:
        """Findings, newest first: `finding` as it came, `received`, `closed`."""
        query: dict[str, Any] = {"open": str(not closed).lower(), **({"subject": subject} if subject else {})}
        while True:
            page = self._sender.ask(dict[str, Any], "GET", "/v1/findings", safe=True, params=query)
            yield from page["findings"]
            if page.get("next") is None:
                return
            query["before"] = page["next"]

    def close_finding(self, finding_id: str, reason: str) -> None:
        self._sender.send("POST", f"/v1/findings/{_part(finding_id)}/close", safe=False, **_json({"reason": reason}))

    def trust(self, *, identity: Sequence[str] = (), session: Sequence[str] = (), credential: Sequence[str] = ()) -> Trust:
        """How an identity, a session and a credential stand now, each under any of its ids."""
        query = {name: list(held) for name, held in (("identity", identity), ("session", session), ("credential", credential)) if held}
        return self._sender.ask(Trust, "GET", "/v1/trust", safe=True, params=query)

    # Keys, policies, audit, health

    def create_key(self, name: str, scopes: Sequence[str], *, expires_in_days: int | None = None) -> NewKey:
        body = {"name": name, "scopes": list(scopes), "expires_in_days": expires_in_days}
        return self._sender.ask(NewKey, "POST", "/v1/keys", safe=False, **_json(body))

    def list_keys(self) -> list[Key]:
        return self._sender.ask(_Keys, "GET", "/v1/keys", safe=True).keys

    def revoke_key(self, key_id: str) -> None:
        self._sender.send("DELETE", f"/v1/keys/{_part(key_id)}", safe=False)

    def policies(self) -> dict[str, Any]:
        return self._sender.ask(dict[str, Any], "GET", "/v1/policies", safe=True)

    def reload_policies(self) -> dict[str, Any]:
        return self._sender.ask(dict[str, Any], "POST", "/v1/policies/reload", safe=True)

    def checkpoint(self) -> str:
        """The newest signed checkpoint of the audit log."""
        return self._sender.send("GET", "/v1/audit/checkpoint", safe=True).text

    def transaction(self, reference: str) -> dict[str, Any]:
        """One transaction's story: who asked, who approved, under which risk, what ran."""
        return self._sender.ask(dict[str, Any], "GET", f"/v1/audit/transactions/{_part(reference)}", safe=True)

    def export_audit(self, target: Path, *, personal: bool = False) -> None:
        """Write the whole log as a bundle that `aftergate audit verify` checks offline. A bundle that breaks off is removed.

        Raises: Refused, Unanswered; OSError, also if there is such a file, which is left as it is.
        """
        query = {"personal": str(personal).lower()}
        begun = False
        try:
            with self._sender.stream("GET", "/v1/audit/export", params=query) as answer, target.open("xb") as out:
                begun = True
                for part in answer.iter_bytes():
                    out.write(part)
        except Unanswered:
            if begun:
                target.unlink(missing_ok=True)
            raise

    def status(self) -> Status:
        """What is wrong with the server now, by part."""
        return self._sender.ask(Status, "GET", "/v1/status", safe=True)

    def ready(self) -> bool:
        """Whether it can decide and record."""
        try:
            self._sender.send("GET", "/readyz", safe=True)
        except AftergateError:
            return False
        return True


def _json(body: Any, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {"content": _ENCODE(body), "headers": {"content-type": "application/json", **(headers or {})}}


def _part(text: str) -> str:
    return quote(text, safe="")
