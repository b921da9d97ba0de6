"""Callers' API keys over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Response, delete, get, post
from litestar.exceptions import NotFoundException
from msgspec import Meta, Struct

from aftergate.api.auth import Caller
from aftergate.authz.transactions.objects import rfc3339
from aftergate.service.keys import MOST_NAME, Key

DAY_MS = 86_400_000
ADMIN = {"scope": "admin"}


class NewKey(Struct, forbid_unknown_fields=True):
    """A key to make. Without `expires_in_days` it lives until it is revoked."""

    name: Annotated[str, Meta(min_length=1, max_length=MOST_NAME)]
    scopes: Annotated[list[str], Meta(min_length=1, max_length=20)]
    expires_in_days: Annotated[int, Meta(ge=1, le=3650)] | None = None


class KeyShown(Struct, omit_defaults=True):
    """A key's entry. The key itself is in no answer but the first."""

    id: str
    name: str
    scopes: list[str]
    created: str
    usable: bool
    expires: str = ""
    revoked: str = ""
    last_used: str = ""


class KeyMade(Struct):
    """The one answer that holds the key."""

    key: str
    entry: KeyShown


class Keys(Struct):
    keys: list[KeyShown]


def shown(key: Key, now_ms: int) -> KeyShown:
    """An entry as people and programs see it."""

    def at(ms: int | None) -> str:
        return "" if ms is None else rfc3339(ms)

    return KeyShown(
        key.id,
        key.name,
        sorted(key.scopes),
        rfc3339(key.created_ms),
        key.usable(now_ms),
        at(key.expires_ms),
        at(key.revoked_ms),
        at(key.last_used_ms),
    )


@get("/v1/keys", opt=ADMIN, sync_to_thread=True, tags=["Keys"])
def listed(core: Any) -> Keys:
    """All keys, oldest first, without the keys themselves: the server does not have them."""
    now = core.clock()
    return Keys([shown(each, now) for each in core.keys.all()])


@post("/v1/keys", opt=ADMIN, status_code=201, sync_to_thread=True, tags=["Keys"])
def create(core: Any, caller: Caller, data: NewKey) -> Response[KeyMade]:
    """Make a key. It is in this answer and nowhere else."""
    now = core.clock()
    expires = None if data.expires_in_days is None else now + data.expires_in_days * DAY_MS
    clear, entry = core.keys.create(data.name, data.scopes, by=caller.actor(), expires_ms=expires)
    return Response(KeyMade(clear, shown(entry, now)), status_code=201)


@delete("/v1/keys/{key_id:str}", opt=ADMIN, status_code=204, sync_to_thread=True, tags=["Keys"])
def revoke(core: Any, caller: Caller, key_id: str) -> None:
    """Take a key back: at once here, and on other servers of the same database within `trust_refresh_ms`."""
    if not core.keys.revoke(key_id, by=caller.actor()):
        raise NotFoundException("no key with this id is in use")


ROUTES = [listed, create, revoke]
