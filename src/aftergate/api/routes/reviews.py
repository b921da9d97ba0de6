"""Reviews of broken glass: open until somebody else than who broke it closes them with a note."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import get, post
from litestar.params import FromPath, Parameter
from msgspec import Meta, Struct

from aftergate.api.auth import Caller
from aftergate.api.problems import Problem
from aftergate.api.routes.approvals import APPROVE, acting
from aftergate.service.approvals.glass import NotYours

Id = Annotated[FromPath[str], Parameter(max_length=64)]


class Note(Struct):
    """What the review found."""

    note: Annotated[str, Meta(min_length=1, max_length=4000)]


@get("/v1/reviews", opt=APPROVE, sync_to_thread=True, tags=["Approvals"])
def reviews(core: Any, caller: Caller, everything: Annotated[bool, Parameter(query="all")] = False) -> dict[str, Any]:
    """Open reviews of what this person's groups approve, newest first; with `all`, closed ones too."""
    return {"reviews": core.approvals.reviews(acting(caller), open_only=not everything)}


@post("/v1/reviews/{review_id:str}/close", opt=APPROVE, status_code=200, sync_to_thread=True, tags=["Approvals"])
def close(core: Any, caller: Caller, review_id: Id, data: Note) -> dict[str, Any]:
    """Close a review with a note."""
    try:
        made: dict[str, Any] = core.approvals.close_review(acting(caller), review_id, data.note, core.clock())
    except NotYours as why:
        raise Problem(409, why.message) from why
    return made


ROUTES = [reviews, close]
