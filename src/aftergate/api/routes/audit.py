"""The audit log over HTTP: export, checkpoints, proofs, one transaction's story, and forgetting a person."""

from __future__ import annotations

from typing import Annotated, Any, Final

from litestar import MediaType, Response, get, post
from litestar.params import FromPath, Parameter
from litestar.response import Stream
from msgspec import Meta, Struct

from aftergate.api.auth import Caller
from aftergate.api.problems import Problem
from aftergate.audit.bundle import tar_chunks
from aftergate.audit.notes import b64
from aftergate.audit.records import RECORD_TYPES
from aftergate.service.retention import erase_person
from aftergate.service.trail import NoSuchTransaction, latest, show

AUDIT: Final = {"scope": "audit"}
Text = Annotated[str, Meta(min_length=1, max_length=300)]


class Whom(Struct):
    """A person to forget, under every id and alias that was recorded."""

    names: Annotated[list[Text], Meta(min_length=1, max_length=100)]
    reason: Annotated[str, Meta(max_length=1000)] = ""
    keep_evidence: bool = False


@get("/v1/audit/export", opt=AUDIT, sync_to_thread=True, media_type="application/gzip", tags=["Audit"])
def export(core: Any, caller: Caller, personal: bool = False) -> Stream:
    """The whole log as a bundle (.tar.gz) that `aftergate audit verify` checks offline; with `personal`, names and requests too. Recorded."""
    chunks = tar_chunks(core.audit.exported(by=caller.actor(), personal=personal))
    return Stream(chunks, media_type="application/gzip", headers={"content-disposition": 'attachment; filename="audit.tar.gz"'})


@get("/v1/audit/checkpoint", opt=AUDIT, sync_to_thread=True, media_type=MediaType.TEXT, tags=["Audit"])
def checkpoint(core: Any) -> str:
    """The newest signed checkpoint: keep it, and a log cut off, rolled back or rewritten later is found."""
    note: bytes = core.audit.latest() or core.audit.checkpoint()
    return note.decode()


@get("/v1/audit/keys", opt=AUDIT, sync_to_thread=True, tags=["Audit"])
def keys(core: Any) -> Response[Any]:
    """Public keys of the log, with the time each is in use."""
    core.audit.signer.load(secret=False)
    return Response(core.audit.signer.ring.encode(), media_type=MediaType.JSON)


@get("/v1/audit/proofs/{seq:int}", opt=AUDIT, sync_to_thread=True, media_type=MediaType.TEXT, tags=["Audit"])
def proof(core: Any, seq: Annotated[FromPath[int], Parameter(ge=0, le=2**53 - 1)]) -> str:
    """A self-contained proof (C2SP tlog-proof v1) that a record is in the log."""
    try:
        data: bytes = core.audit.inclusion(seq).encode()
    except ValueError as error:
        raise Problem(404, "there is no such record under a signed checkpoint", detail=str(error)) from None
    return data.decode()


@get("/v1/audit/consistency", opt=AUDIT, sync_to_thread=True, tags=["Audit"])
def consistency(
    core: Any, old: Annotated[int, Parameter(ge=0, le=2**53 - 1)], new: Annotated[int, Parameter(ge=0, le=2**53 - 1)]
) -> dict[str, list[str]]:
    """Proof (RFC 9162 section 2.1.4) that the log of `new` records begins with that of `old`."""
    try:
        return {"proof": [b64(each) for each in core.audit.consistency(old, new)]}
    except ValueError as error:
        raise Problem(400, "there is no such proof", detail=str(error)) from None


@get("/v1/audit/records", opt=AUDIT, sync_to_thread=True, tags=["Audit"])
def records(
    core: Any,
    limit: Annotated[int, Parameter(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Parameter(ge=0, le=2**53 - 1)] = None,
    of_type: Annotated[str | None, Parameter(query="type", max_length=40)] = None,
) -> dict[str, Any]:
    """The newest records, oldest of them first; before one, and of one type, if said."""
    if of_type is not None and of_type not in RECORD_TYPES:
        raise Problem(400, "there is no such type of record", types=sorted(RECORD_TYPES))
    return {"records": latest(core.db, limit, types=[of_type] if of_type else [], before=before)}


@get("/v1/audit/transactions/{ref:str}", opt=AUDIT, sync_to_thread=True, tags=["Audit"])
def transaction(core: Any, ref: Annotated[FromPath[str], Parameter(max_length=200)]) -> dict[str, Any]:
    """One transaction's story: who asked, who approved, when, under which risk, what ran."""
    try:
        trail = show(core.db, ref)
    except NoSuchTransaction as error:
        raise Problem(404, error.message, detail=error.advice()) from None
    return {"id": trail.id, "lines": trail.lines, "records": trail.records}


@post("/v1/audit/erasures", opt={"scope": "admin"}, status_code=200, sync_to_thread=True, tags=["Audit"])
def erase(core: Any, caller: Caller, data: Whom) -> dict[str, int]:
    """Forget a person in the trail. Records and proofs stay whole; how much went is recorded, not whose."""
    gone = erase_person(core.db, core.audit, data.names, by=caller.actor(), reason=data.reason, keep_evidence=data.keep_evidence)
    return {"personal": gone.personal, "requests": gone.request, "evidence": gone.evidence}


ROUTES = [export, checkpoint, keys, proof, consistency, records, transaction, erase]
