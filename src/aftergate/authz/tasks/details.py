"""Rights as authorization details (RFC 9396), and the one question asked of them: is this narrower than that?

A detail is a JSON object with a `type`; each type says which members it knows and how each one narrows. A member that is absent does not
restrict, so a narrower detail may add a member and never drop one. A list of details is narrower when each of its details lies within a single one
of the wider list: never more than the union, sometimes less, and always clear to read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal

from msgspec import Struct

from aftergate.authz.tasks.answers import Refusal
from aftergate.errors import ConfigError

TASK: Final = "aftergate_task"
INVALID: Final = "invalid_authorization_details"
MAX_DETAILS: Final = 32
MAX_VALUES: Final = 256
MAX_TEXT: Final = 512
SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")  # RFC 6749 section 3.3
_AMOUNT: Final = re.compile(r"(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,6})?")

Kind = Literal["text", "texts", "integer", "amount", "flag"]
Narrowing = Literal["same", "subset", "at_most"]
_DEFAULT_NARROWING: Final[dict[Kind, Narrowing]] = {
    "text": "same",
    "texts": "subset",
    "integer": "at_most",
    "amount": "at_most",
    "flag": "same",
}
_FITTING: Final[dict[Kind, tuple[Narrowing, ...]]] = {
    "text": ("same",),
    "texts": ("subset", "same"),
    "integer": ("at_most", "same"),
    "amount": ("at_most", "same"),
    "flag": ("same",),
}


class Member(Struct, frozen=True):
    """One member of a type: what it holds, whether it must be there, how it narrows. An `amount` is a decimal number in a string."""

    kind: Kind
    required: bool = False
    narrowing: Narrowing = "same"


Types = Mapping[str, Mapping[str, Member]]
Detail = Mapping[str, Any]  # checked by `parse`: `type` first, lists sorted and without doubles

# The common members of RFC 9396 section 2.2, and which resources: `identifiers` are AuthZEN resource ids of type `resource_type`.
TASK_TYPE: Final[dict[str, Member]] = {
    "actions": Member("texts", required=True, narrowing="subset"),
    "locations": Member("texts", narrowing="subset"),
    "datatypes": Member("texts", narrowing="subset"),
    "privileges": Member("texts", narrowing="subset"),
    "identifier": Member("text"),
    "resource_type": Member("text"),
    "identifiers": Member("texts", narrowing="subset"),
}
BUILT_IN: Final[dict[str, Mapping[str, Member]]] = {TASK: TASK_TYPE}


def declared_types(raw: Mapping[str, Any], where: str = "clients_file") -> dict[str, Mapping[str, Member]]:
    """The operator's own types beside the built-in one: `{"payment": {"amount": {"kind": "amount", "required": true}}}`.

    Raises: ConfigError, for a kind or a narrowing that does not exist or does not fit.
    """
    types: dict[str, Mapping[str, Member]] = dict(BUILT_IN)
    for name, members in raw.items():
        if name == TASK or not isinstance(members, Mapping):
            raise ConfigError(f"authorization_details type `{name}` cannot be declared so", where=where)
        made: dict[str, Member] = {}
        for member, spec in members.items():
            kind = spec.get("kind") if isinstance(spec, Mapping) else None
            if member == "type" or kind not in _DEFAULT_NARROWING:
                raise ConfigError(f"`{name}.{member}` needs a kind: {', '.join(_DEFAULT_NARROWING)}", where=where)
            narrowing = spec.get("narrowing", _DEFAULT_NARROWING[kind])
            if narrowing not in _FITTING[kind] or set(spec) - {"kind", "required", "narrowing"}:
                raise ConfigError(f"`{name}.{member}` of kind {kind} can narrow by {' or '.join(_FITTING[kind])} only", where=where)
            made[member] = Member(kind, bool(spec.get("required", False)), narrowing)
        types[name] = made
    return types


def parse(raw: Any, types: Types) -> tuple[Detail, ...] | Refusal:
    """Check an `authorization_details` array: unknown type or member, missing or wrong value is refused (RFC 9396 section 5)."""
    if not isinstance(raw, list) or not raw:
        return Refusal(INVALID, "authorization_details must be an array with at least one object")
    if len(raw) > MAX_DETAILS:
        return Refusal(INVALID, f"authorization_details has more than {MAX_DETAILS} objects")
    made: list[Detail] = []
    for place, each in enumerate(raw):
        found = _parse_one(each, types, f"authorization_details[{place}]")
        if isinstance(found, Refusal):
            return found
        if found not in made:
            made.append(found)
    return tuple(made)


def _parse_one(raw: Any, types: Types, where: str) -> Detail | Refusal:
    name = raw.get("type") if isinstance(raw, dict) else None
    if not isinstance(name, str):
        return Refusal(INVALID, f"{where} must be an object with a type")
    members = types.get(name)
    if members is None:
        return Refusal(INVALID, f"{where}: type `{name[:64]}` is not known here")
    made: dict[str, Any] = {"type": name}
    for key in sorted(raw):
        if key == "type":
            continue
        member = members.get(key)
        if member is None:
            return Refusal(INVALID, f"{where}: type `{name}` has no member `{key[:64]}`")
        value = _value(raw[key], member.kind)
        if value is None:
            return Refusal(INVALID, f"{where}: `{key}` must be of kind {member.kind}")
        made[key] = value
    missing = sorted(key for key, member in members.items() if member.required and key not in made)
    if missing:
        return Refusal(INVALID, f"{where}: `{missing[0]}` is missing")
    return made


def _value(raw: Any, kind: Kind) -> Any:
    """The value in its one form, or None when it is not of this kind."""
    if kind == "text":
        return raw if isinstance(raw, str) and 0 < len(raw) <= MAX_TEXT else None
    if kind == "texts":
        if (
            not isinstance(raw, list)
            or not 0 < len(raw) <= MAX_VALUES
            or not all(isinstance(v, str) and 0 < len(v) <= MAX_TEXT for v in raw)
        ):
            return None
        return sorted(set(raw))
    if kind == "integer":
        return raw if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw < 2**53 else None
    if kind == "amount":
        return raw if isinstance(raw, str) and _AMOUNT.fullmatch(raw) else None
    return raw if isinstance(raw, bool) else None


def within(narrow: Detail, wide: Detail, types: Types) -> bool:
    """True when all that `narrow` allows, `wide` allows too. A type or member that nobody declared is never within anything."""
    members = types.get(narrow.get("type", ""))
    if members is None or narrow["type"] != wide.get("type") or any(key != "type" and key not in members for key in (*narrow, *wide)):
        return False
    for key, member in members.items():
        if key not in wide:
            continue
        if key not in narrow or not _narrower(narrow[key], wide[key], member.narrowing):
            return False
    return True


def _narrower(narrow: Any, wide: Any, how: Narrowing) -> bool:
    if how == "subset":
        return set(narrow) <= set(wide)
    if how == "at_most" and isinstance(narrow, str):
        try:
            return Decimal(narrow) <= Decimal(wide)
        except InvalidOperation:
            return False
    if how == "at_most":
        return bool(narrow <= wide)
    return bool(narrow == wide)


def all_within(narrow: Sequence[Detail], wide: Sequence[Detail], types: Types) -> Refusal | None:
    """None when every detail of `narrow` lies within one of `wide`, else which one does not."""
    for place, each in enumerate(narrow):
        if not any(within(each, other, types) for other in wide):
            return Refusal(INVALID, f"authorization_details[{place}] asks for more than it is derived from")
    return None


def of_actions(actions: Iterable[str], resources: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """The short way of saying it: these actions on these (type, id) resources. No resource at all means any. The caller parses the result."""
    acts = sorted(set(actions))
    by_type: dict[str, list[str]] = {}
    for kind, identifier in resources:
        by_type.setdefault(kind, []).append(identifier)
    if not by_type:
        return [{"type": TASK, "actions": acts}]
    return [
        {"type": TASK, "actions": acts, "resource_type": kind, "identifiers": sorted(set(ids))} for kind, ids in sorted(by_type.items())
    ]


def actions_of(details: Iterable[Detail]) -> frozenset[str]:
    """Every action named in any of them."""
    return frozenset(action for detail in details for action in detail.get("actions", ()))


def permits(details: Iterable[Detail], action: str, resource_type: str, resource_id: str, location: str | None = None) -> bool:
    """Whether built-in details name this action on this resource, as an AuthZEN request names them. Other types are for policies to read."""
    for detail in details:
        if detail["type"] != TASK or action not in detail["actions"]:
            continue
        if "resource_type" in detail and detail["resource_type"] != resource_type:
            continue
        if "identifiers" in detail and resource_id not in detail["identifiers"]:
            continue
        if "identifier" in detail and detail["identifier"] != resource_id:
            continue
        if "locations" in detail and (location is None or location not in detail["locations"]):
            continue
        return True
    return False


def covers(details: Iterable[Detail], types: Types, action: str, values: Mapping[str, Any]) -> bool:
    """Whether a detail of an operator's own type names this action, and every further member of it holds for what the request says of itself.

    A member that the request is silent about does not hold.
    """
    for detail in details:
        members = types.get(detail["type"])
        if detail["type"] == TASK or members is None or action not in detail.get("actions", ()):
            continue
        if all(
            name in values and _held(values[name], detail[name], members[name])
            for name in detail
            if name not in {"type", "actions"} and name in members
        ):
            return True
    return False


def _held(said: Any, wide: Any, member: Member) -> bool:
    """A request's own value, which may be a number where a detail has an amount, within a detail's."""
    if member.kind == "amount" and isinstance(said, int | float | str) and not isinstance(said, bool):
        said = str(said)
    if member.kind == "texts" and isinstance(said, str):
        said = [said]
    value = _value(said, member.kind)
    return value is not None and _narrower(value, wide, member.narrowing)


def parse_scope(raw: str) -> frozenset[str] | Refusal:
    """A scope string as its set of values (RFC 6749 section 3.3)."""
    parts = raw.split(" ")
    if not all(SCOPE_TOKEN.fullmatch(part) for part in parts):
        return Refusal("invalid_scope", "scope must be values parted by single spaces")
    return frozenset(parts)
