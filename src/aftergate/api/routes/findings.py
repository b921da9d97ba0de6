"""Findings in and out, and the trust that they leave."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.concurrency import sync_to_thread
from litestar.exceptions import NotFoundException
from litestar.openapi.spec import OpenAPIType, Schema
from litestar.params import Parameter
from msgspec import Meta, Struct

from aftergate.api.auth import Caller
from aftergate.api.openapi import reads
from aftergate.api.problems import Problem
from aftergate.authz.transactions.objects import rfc3339
from aftergate.service import findings as service
from aftergate.service.findings import Received
from aftergate.stores import findings as store

SCOPE = {"scope": "findings"}
MAX_NAMES = 50
Names = Annotated[list[str], Parameter(max_items=MAX_NAMES)]


class FindingShown(Struct, omit_defaults=True):
    """A finding as it came, when it was received, and whether somebody closed it."""

    finding: dict[str, Any]
    number: int
    received: str
    closed: str = ""
    closed_by: str = ""


class Findings(Struct, omit_defaults=True):
    """A page; `next` is the `before` of the page after it, missing on the last."""

    findings: list[FindingShown]
    next: int | None = None


class Closing(Struct, forbid_unknown_fields=True):
    reason: Annotated[str, Meta(min_length=1, max_length=1000)]


class TrustReason(Struct):
    """What lowers trust: the finding, and by how much at this time."""

    finding: str
    detection: str
    points: float


class Trust(Struct):
    """Trust now, 0 to 100; 100 where no name was given."""

    identity: int
    session: int
    credential: int
    lowest: int
    detections: list[str]
    findings: list[str]
    reasons: list[TrustReason]


_Lines = reads(
    {
        "application/x-ndjson": Schema(
            type=OpenAPIType.STRING, description="One finding a line, as `aftergate scan --findings` writes them."
        ),
        "application/json": Schema(type=OpenAPIType.ARRAY, items=Schema(type=OpenAPIType.OBJECT)),
    },
    "Findings: JSON lines, or one JSON list.",
)


@post("/v1/findings", opt=SCOPE, status_code=200, tags=["Findings and trust"], operation_class=_Lines)
async def receive(core: Any, caller: Caller, request: Request[Any, Any, Any]) -> Received:
    """Take findings in. A line that cannot be read is set aside by its number, the rest counts at once; sending the same again changes nothing."""
    body = await request.body()
    return await sync_to_thread(_receive, core, caller, body)


def _receive(core: Any, caller: Caller, body: bytes) -> Received:
    result = service.receive(core, service.lines_of(body), by=caller.actor())
    if result.new:
        core.trust.refresh()
    if result.set_aside and len(result.set_aside) == result.received:
        raise Problem(400, "none of the lines is a finding", set_aside=msgspec.to_builtins(result.set_aside[:100]))
    return result


def shown(one: store.Kept) -> FindingShown:
    """A finding as people and programs see it."""
    closed = "" if one.closed_ms is None else rfc3339(one.closed_ms)
    return FindingShown(msgspec.json.decode(one.body), one.number, rfc3339(one.received_ms), closed, one.closed_by or "")


@get("/v1/findings", opt=SCOPE, sync_to_thread=True, tags=["Findings and trust"])
def listed(
    core: Any,
    subject: Annotated[str | None, Parameter(max_length=store.MAX_SUBJECT)] = None,
    open: bool = True,  # noqa: A002  the parameter's name on the wire
    limit: Annotated[int, Parameter(ge=1, le=500)] = 100,
    before: Annotated[int | None, Parameter(ge=1, le=2**53)] = None,
) -> Findings:
    """Findings, newest first; with `subject` those that name it, with `open=false` closed ones too."""
    with core.db.read() as connection:
        held = store.listed(connection, subject=subject, open_only=open, limit=limit, before=before)
    return Findings([shown(one) for one in held], held[-1].number if len(held) == limit else None)


@post("/v1/findings/{finding_id:str}/close", opt={"scope": "admin"}, status_code=204, sync_to_thread=True, tags=["Findings and trust"])
def close(core: Any, caller: Caller, finding_id: str, data: Closing) -> None:
    """Close a finding that was looked into: trust no longer suffers from it. The reason goes into the log."""
    if not service.close(core, finding_id, data.reason, by=caller.actor()):
        raise NotFoundException("no finding with this id is open")
    core.trust.refresh()


@get("/v1/trust", opt={"scope": ("findings", "decide")}, sync_to_thread=False, tags=["Findings and trust"])
def trust(core: Any, identity: Names | None = None, session: Names | None = None, credential: Names | None = None) -> Trust:
    """How an identity, a session and a credential stand now, each under any of the ids given, and which findings did it."""
    if not core.trust.fresh:
        raise Problem(503, "live trust could not be refreshed, so it is not known", headers={"retry-after": "2"})
    names = tuple(dict.fromkeys(other for one in identity or () for other in core.decider.identities.of(one)))
    held = core.trust.of(names, session or (), credential or ())
    reasons = [TrustReason(one.finding, one.detection, round(100 * one.penalty, 1)) for one in held.reasons]
    return Trust(held.identity, held.session, held.credential, held.lowest, list(held.findings), list(held.ids), reasons)


ROUTES = [receive, listed, close, trust]
