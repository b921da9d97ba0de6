"""AuthZEN Authorization API 1.0: requests as they come over the wire, checked strictly and no further than the standard asks.

Unknown members are ignored, optional ones may be null or absent, a required one that is missing or of another type is a BadRequest that names it.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from aftergate.authz.errors import BadRequest
from aftergate.authz.strict_json import MAX_BYTES, MAX_DEPTH, decode

MAX_ITEMS: Final = 1000
MAX_NAME: Final = 1024  # characters of a type, id or action name: every decision that mattered is recorded with them

Semantic = Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"]
SEMANTICS: Final = ("execute_all", "deny_on_first_deny", "permit_on_first_permit")
Kind = Literal["subject", "resource", "action"]

_NONE: Final[dict[str, Any]] = {}  # INVARIANT: nobody writes into a request


class Entity(Struct, frozen=True, gc=False):
    """A subject or resource. In a search the entity looked for has an empty id."""

    type: str
    id: str
    properties: dict[str, Any] = _NONE

    def __str__(self) -> str:
        return f'{self.type}::"{self.id}"'


class ActionRef(Struct, frozen=True, gc=False):
    name: str
    properties: dict[str, Any] = _NONE


class EvaluationRequest(Struct, frozen=True, gc=False):
    """May this subject do this action on this resource, in this context?"""

    subject: Entity
    action: ActionRef
    resource: Entity
    context: dict[str, Any] = _NONE


class BoxcarItem(Struct, frozen=True):
    """One of several evaluations: a request, or what is wrong with it."""

    request: EvaluationRequest | None
    error: BadRequest | None = None


class Boxcar(Struct, frozen=True):
    """An Access Evaluations request. Without `evaluations` it is a single one: `items` has one member and `single` says so."""

    items: tuple[BoxcarItem, ...]
    semantic: Semantic = "execute_all"
    single: bool = False


class Page(Struct, frozen=True):
    token: str = ""
    limit: int | None = None


class SearchRequest(Struct, frozen=True):
    """Which subjects, resources or actions complete this request to a permit? What is looked for is None or has an empty id."""

    kind: Kind
    subject: Entity
    action: ActionRef | None
    resource: Entity
    context: dict[str, Any]
    page: Page
    identity: bytes  # canonical bytes of everything but the page token: what a token may be used for


def _object(value: Any, where: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise BadRequest(f"{where} must be an object", where=where)
    return value


def _free(held: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    """An optional object: absent and null are the same."""
    value = held.get(name)
    if value is None:
        return _NONE
    if type(value) is not dict:
        raise BadRequest(f"{where} must be an object", where=where)
    return value


def _text(held: dict[str, Any], name: str, where: str) -> str:
    value = held.get(name)
    if type(value) is not str:
        state = "is missing" if value is None else "must be a string"
        raise BadRequest(f"{where}.{name} {state}", where=f"{where}.{name}")
    if "\x00" in value:
        raise BadRequest(f"{where}.{name} holds a NUL character", where=f"{where}.{name}")
    if len(value) > MAX_NAME:
        raise BadRequest(f"{where}.{name} is longer than {MAX_NAME} characters", where=f"{where}.{name}")
    return value


def entity_of(value: Any, where: str, *, with_id: bool = True) -> Entity:
    """A subject or resource. Raises: BadRequest."""
    if value is None:
        raise BadRequest(f"{where} is missing", where=where)
    held = _object(value, where)
    type_ = _text(held, "type", where)
    if with_id:
        return Entity(type_, _text(held, "id", where), _free(held, "properties", f"{where}.properties"))
    if held.get("id") is not None:
        _text(held, "id", where)  # ignored by a search, yet of its type
    return Entity(type_, "", _free(held, "properties", f"{where}.properties"))


def action_of(value: Any) -> ActionRef:
    """Raises: BadRequest."""
    if value is None:
        raise BadRequest("action is missing", where="action")
    held = _object(value, "action")
    return ActionRef(_text(held, "name", "action"), _free(held, "properties", "action.properties"))


def _request(held: dict[str, Any]) -> EvaluationRequest:
    return EvaluationRequest(
        entity_of(held.get("subject"), "subject"),
        action_of(held.get("action")),
        entity_of(held.get("resource"), "resource"),
        _free(held, "context", "context"),
    )


def body_of(body: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """The object in a body. Raises: BadRequest."""
    value = decode(body, max_bytes=max_bytes, max_depth=max_depth)
    if type(value) is not dict:
        raise BadRequest("the body must be a JSON object")
    return value


def request_of(value: dict[str, Any]) -> EvaluationRequest:
    """An evaluation request from decoded JSON, e.g. one kept in a case or a record. Raises: BadRequest."""
    return _request(value)


def parse_evaluation(body: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> EvaluationRequest:
    """Access Evaluation API. Raises: BadRequest."""
    return _request(body_of(body, max_bytes=max_bytes, max_depth=max_depth))


def parse_evaluations(body: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH, max_items: int = MAX_ITEMS) -> Boxcar:
    """Access Evaluations API ("boxcarring"): top-level entities are defaults, and an item overrides a whole entity, never a member of it.

    A fault in one item is that item's own; a fault of the payload, a mistyped default included, is a BadRequest.
    """
    held = body_of(body, max_bytes=max_bytes, max_depth=max_depth)
    evaluations = held.get("evaluations")
    if evaluations is None or evaluations == []:
        return Boxcar((BoxcarItem(_request(held)),), single=True)
    if type(evaluations) is not list:
        raise BadRequest("evaluations must be an array", where="evaluations")
    if len(evaluations) > max_items:
        raise BadRequest(f"more than {max_items} evaluations in one request", where="evaluations", hint="send several requests")
    semantic: Any = _free(held, "options", "options").get("evaluations_semantic") or "execute_all"
    if semantic not in SEMANTICS:
        raise BadRequest("options.evaluations_semantic must be one of " + ", ".join(SEMANTICS), where="options.evaluations_semantic")
    defaults = {name: held[name] for name in ("subject", "action", "resource", "context") if held.get(name) is not None}
    if "subject" in defaults:
        entity_of(defaults["subject"], "subject")
    if "action" in defaults:
        action_of(defaults["action"])
    if "resource" in defaults:
        entity_of(defaults["resource"], "resource")
    _free(held, "context", "context")
    return Boxcar(tuple(_item(item, defaults) for item in evaluations), semantic)


def _item(item: Any, defaults: dict[str, Any]) -> BoxcarItem:
    try:
        own = {name: value for name, value in _object(item, "an item of evaluations").items() if value is not None}
        return BoxcarItem(_request({**defaults, **own}))
    except BadRequest as error:
        return BoxcarItem(None, error)


def parse_search(body: bytes, kind: Kind, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> SearchRequest:
    """Subject, resource or action search. The id of what is looked for is ignored; every other entity needs its own. Raises: BadRequest."""
    held = body_of(body, max_bytes=max_bytes, max_depth=max_depth)
    subject = entity_of(held.get("subject"), "subject", with_id=kind != "subject")
    resource = entity_of(held.get("resource"), "resource", with_id=kind != "resource")
    action = None if kind == "action" else action_of(held.get("action"))
    context = _free(held, "context", "context")
    page = _free(held, "page", "page")
    token, limit = page.get("token"), page.get("limit")
    if token is not None and type(token) is not str:
        raise BadRequest("page.token must be a string", where="page.token")
    if limit is not None and (type(limit) is not int or limit < 0):
        raise BadRequest("page.limit must be an integer of at least 0", where="page.limit")
    asked = {
        "kind": kind,
        "subject": subject,
        "action": action,
        "resource": resource,
        "context": context,
        "page": {name: value for name, value in page.items() if name != "token"},
    }
    return SearchRequest(kind, subject, action, resource, context, Page(token or "", limit), _IDENTITY(asked))


_IDENTITY = msgspec.json.Encoder(order="deterministic").encode
