"""Approvers: what waits for them, one request in full, a challenge over it, and the decision. People only."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from litestar import get, post
from litestar.params import FromPath, Parameter
from msgspec import Meta, Struct

from aftergate.api.auth import Caller
from aftergate.api.problems import Problem
from aftergate.service.approvals import Acting, Undecided

Id = Annotated[FromPath[str], Parameter(max_length=64)]
Ids = Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(min_length=1, max_length=100)]
APPROVE = {"scope": "approve"}


class Choice(Struct):
    """Which items of a batch to approve, counted from 0; left out: all of them."""

    items: Annotated[list[Annotated[int, Meta(ge=0, le=499)]], Meta(max_length=500)] | None = None


class Decision(Struct):
    """A yes carries the challenge's id and the assertion over it (`AuthenticationResponseJSON`); a no carries its reason."""

    decision: Literal["approve", "deny"]
    challenge_id: Annotated[str, Meta(max_length=64)] = ""
    assertion: dict[str, Any] | None = None
    reason: Annotated[str, Meta(max_length=2000)] = ""


class Batch(Struct):
    """The requests of one declared batch, in the order they are shown."""

    requests: Ids


class BatchDecision(Struct):
    """One assertion over one declared batch."""

    requests: Ids
    challenge_id: Annotated[str, Meta(max_length=64)]
    assertion: dict[str, Any]


class Reason(Struct):
    reason: Annotated[str, Meta(min_length=1, max_length=2000)]


def acting(caller: Caller) -> Acting:
    """The person who calls.

    Raises: Problem (403), for any other caller: no key decides in a person's place.
    """
    if caller.kind != "person":
        raise Problem(403, "only people decide", detail="log in with a passkey or at the issuer")
    return Acting(caller.id, caller.session)


def refused(why: Undecided) -> Problem:
    return Problem(why.status, why.message, reason=why.reason)


@get("/v1/approvals", opt=APPROVE, sync_to_thread=True, tags=["Approvals"])
def inbox(core: Any, caller: Caller, everything: Annotated[bool, Parameter(query="all")] = False) -> dict[str, Any]:
    """Requests that wait, oldest first; with `all`, decided ones too, newest first."""
    try:
        return {"requests": core.approvals.inbox(acting(caller), core.clock(), everything=everything)}
    except Undecided as why:
        raise refused(why) from why


@get("/v1/approvals/notices", opt=APPROVE, sync_to_thread=True, tags=["Approvals"])
def notices(core: Any, caller: Caller) -> dict[str, Any]:
    """What this person was told of in the last 30 days, newest first."""
    try:
        return {"notices": core.approvals.notices(acting(caller), core.clock())}
    except Undecided as why:
        raise refused(why) from why


@get("/v1/approvals/{request_id:str}", opt=APPROVE, sync_to_thread=True, tags=["Approvals"])
def view(core: Any, caller: Caller, request_id: Id) -> dict[str, Any]:
    """One request in full: `object` is exactly what an approval binds; risk and why, what else the requester did lately, who decided."""
    try:
        made: dict[str, Any] = core.approvals.view(acting(caller), request_id, core.clock())
    except Undecided as why:
        raise refused(why) from why
    return made


@post("/v1/approvals/{request_id:str}/challenge", opt=APPROVE, status_code=200, sync_to_thread=True, tags=["Approvals"])
def challenge(core: Any, caller: Caller, request_id: Id, data: Choice | None = None) -> dict[str, Any]:
    """What to sign: options for `navigator.credentials.get`, and the object they are over. One use, at most five minutes."""
    try:
        made = core.approvals.ask(acting(caller), [request_id], None if data is None else data.items, core.clock())
    except Undecided as why:
        raise refused(why) from why
    return {"challenge_id": made.challenge_id, "public_key": made.options, "object": made.objects[0]}


@post("/v1/approvals/{request_id:str}/decision", opt=APPROVE, status_code=200, sync_to_thread=True, tags=["Approvals"])
def decide(core: Any, caller: Caller, request_id: Id, data: Decision) -> dict[str, Any]:
    """Decide: `{"decision": "approve", "challenge_id", "assertion"}` or `{"decision": "deny", "reason"}`.

    Whatever is wrong with an assertion, the answer is the same.
    """
    who, now = acting(caller), core.clock()
    try:
        if data.decision == "approve":
            core.approvals.approve(who, [request_id], data.challenge_id, data.assertion, now)
        else:
            core.approvals.deny(who, request_id, data.reason, now)
        made: dict[str, Any] = core.approvals.view(who, request_id, core.clock())
    except Undecided as why:
        raise refused(why) from why
    return made


@post("/v1/approvals/{request_id:str}/revoke", opt=APPROVE, status_code=200, sync_to_thread=True, tags=["Approvals"])
def revoke(core: Any, caller: Caller, request_id: Id, data: Reason) -> dict[str, Any]:
    """Take back an approval that was given and not used yet."""
    try:
        core.approvals.take_back(acting(caller), request_id, data.reason, core.clock())
        made: dict[str, Any] = core.approvals.view(acting(caller), request_id, core.clock())
    except Undecided as why:
        raise refused(why) from why
    return made


@post("/v1/approvals/batch/challenge", opt=APPROVE, status_code=200, sync_to_thread=True, tags=["Approvals"])
def batch_challenge(core: Any, caller: Caller, data: Batch) -> dict[str, Any]:
    """What to sign for several requests at once: the Merkle root over each one's object, all of which are shown."""
    try:
        made = core.approvals.ask(acting(caller), data.requests, None, core.clock())
    except Undecided as why:
        raise refused(why) from why
    return {"challenge_id": made.challenge_id, "public_key": made.options, "objects": made.objects, "batch": made.batch}


@post("/v1/approvals/batch/decision", opt=APPROVE, status_code=200, sync_to_thread=True, tags=["Approvals"])
def batch_decide(core: Any, caller: Caller, data: BatchDecision) -> dict[str, Any]:
    """One assertion over one declared batch: every request in it is approved, or none."""
    who = acting(caller)
    try:
        core.approvals.approve(who, data.requests, data.challenge_id, data.assertion, core.clock())
        return {"requests": [core.approvals.view(who, one, core.clock()) for one in data.requests]}
    except Undecided as why:
        raise refused(why) from why


ROUTES = [inbox, notices, view, challenge, decide, revoke, batch_challenge, batch_decide]
