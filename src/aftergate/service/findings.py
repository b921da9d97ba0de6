"""Findings on their way in, and closed by people: each change is in the log, and live trust follows it at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy.exc import IntegrityError

from aftergate.audit.records import Actor, Record
from aftergate.authz import strict_json
from aftergate.authz.errors import BadRequest
from aftergate.errors import AftergateError
from aftergate.events.redact import redact, redact_id
from aftergate.stores import findings as store
from aftergate.vocabulary import Finding

if TYPE_CHECKING:
    from aftergate.service.core import Ground

MAX_LINE: Final = 256 * 1024
MAX_DEPTH: Final = 16
BATCH: Final = 500  # findings a transaction: a decision's record never waits long behind them
NAMED: Final = 50  # ids that a record of the log names
_ENCODE = msgspec.json.Encoder(order="deterministic").encode


class Refusal(Struct, frozen=True):
    """A line that was not taken, by its number from 1, and why."""

    line: int
    problem: str


class Received(Struct):
    """What became of the lines: `new` includes findings that got worse; `known` changed nothing."""

    received: int = 0
    new: int = 0
    known: int = 0
    set_aside: list[Refusal] = []


def lines_of(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The findings in a body, numbered from 1: JSON lines, or one JSON list.

    Raises: BadRequest, for a list that is no JSON.
    """
    if not body.lstrip().startswith(b"["):
        yield from ((number, line) for number, line in enumerate(body.splitlines(), 1) if line.strip())
        return
    try:
        parts = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not a JSON list of findings: {error}") from None
    yield from ((number, bytes(part)) for number, part in enumerate(parts, 1))


def read(line: bytes) -> tuple[Finding, str]:
    """One finding, and the JSON to keep: secrets masked, as a scan does it.

    Raises: BadRequest, msgspec.MsgspecError, ValueError.
    """
    value = strict_json.decode(line, max_bytes=MAX_LINE, max_depth=MAX_DEPTH)
    if not isinstance(value, dict):
        raise BadRequest("a finding is a JSON object")
    kept: dict[str, Any] = redact({name: held for name, held in value.items() if name not in {"subject", "evidence"}})
    subject = value.get("subject")
    if isinstance(subject, dict):
        kept["subject"] = {level: _ids(names) for level, names in subject.items()}
    if "evidence" in value:
        kept["evidence"] = _ids(value["evidence"])
    body = _ENCODE(kept).decode()
    if "\\u0000" in body:
        raise ValueError("a text with a NUL character")
    return store.read(body), body


def _ids(names: Any) -> Any:
    if isinstance(names, list):
        return [_ids(name) for name in names]
    return redact_id(names) if isinstance(names, str) else names


def receive(ground: Ground, lines: Iterable[tuple[int, bytes]], *, by: Actor) -> Received:
    """Take findings in; what cannot be read is set aside with its number and the rest is taken. The same again changes nothing.

    Raises: StoreUnavailable: then some batches may be in; sending all again does no harm.
    """
    result = Received()
    batch: list[tuple[Finding, str]] = []
    for number, line in lines:
        result.received += 1
        try:
            batch.append(read(line))
        except AftergateError as error:
            result.set_aside.append(Refusal(number, error.message))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            result.set_aside.append(Refusal(number, str(error)[:300]))
        if len(batch) >= BATCH:
            _keep(ground, batch, result, by)
            batch = []
    if batch:
        _keep(ground, batch, result, by)
    return result


def _keep(ground: Ground, batch: list[tuple[Finding, str]], result: Received, by: Actor) -> None:
    try:
        _kept(ground, batch, result, by)
    except IntegrityError:  # another process took one of them in at this moment: now it is known
        _kept(ground, batch, result, by)


def _kept(ground: Ground, batch: list[tuple[Finding, str]], result: Received, by: Actor) -> None:
    with ground.db.write() as connection:
        new = store.add(ground.db, connection, batch, ground.clock())
        if new:
            detail = {
                "count": len(new),
                "findings": [each.id for each in new[:NAMED]],
                "detections": dict(sorted(Counter(each.detection for each in new).items())[:NAMED]),
                "severities": dict(sorted(Counter(each.severity for each in new).items())),
            }
            ground.audit.append(connection, [Record("findings.received", actor=by, detail=detail)])
    result.new += len(new)
    result.known += len(batch) - len(new)


def close(ground: Ground, finding_id: str, reason: str, *, by: Actor) -> bool:
    """Close a finding: trust no longer suffers from it. False, if none of this id is open.

    Raises: StoreUnavailable.
    """
    with ground.db.write() as connection:
        done = store.close(ground.db, connection, finding_id, f"{by.type}:{by.id}", ground.clock())
        if done:
            record = Record("findings.closed", actor=by, detail={"finding": finding_id}, personal={"reason": reason})
            ground.audit.append(connection, [record])
    return done
