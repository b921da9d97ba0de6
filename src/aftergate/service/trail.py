"""One transaction's story from its records: who asked, who approved, when, under which risk, what ran. At most ten lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct

from aftergate.errors import AftergateError
from aftergate.events.clock import to_iso
from aftergate.stores.audit_reading import Entry, Tables, read_head
from aftergate.stores.database import Database

MAX_LINES: Final = 10
ENDS: Final = {
    "approval.denied": "denied",
    "approval.cancelled": "cancelled",
    "approval.expired": "expired",
    "approval.voided": "voided",
    "approval.consumed": "used",
}


class NoSuchTransaction(AftergateError):
    """The log knows no record of this id."""

    code = "no-such-transaction"
    hint = "give the id of a request for approval, of an approval, of an evaluation that was denied, or of a task"


class Trail(Struct, frozen=True):
    """What the log says about one transaction."""

    id: str
    lines: tuple[str, ...]
    seqs: tuple[int, ...]
    records: tuple[dict[str, Any], ...]  # as recorded, with what still stands beside them


def show(database: Database, ref: str) -> Trail:
    """The story of a transaction, by its own id or that of its approval, evaluation or task.

    Raises: NoSuchTransaction, StoreUnavailable.
    """
    with database.read() as connection:
        tables = Tables(connection)
        # An evaluation or an approval leads to its request; the request to everything that belongs to it.
        refs, seen = {ref}, set[str]()
        entries: list[Entry] = []
        while refs - seen:
            seqs = {e.seq for e in entries} | {seq for each in refs - seen for seq in tables.find(each)}
            seen |= refs
            entries = tables.read(seqs)
            refs |= {str(e.raw[name]) for e in entries if e.raw for name in ("transaction", "evaluation_id") if e.raw.get(name)}
        signed = read_head(connection).signed_size
    if not entries:
        raise NoSuchTransaction(f"the audit log has no record of `{ref}`")
    lines = _lines(ref, entries, signed)
    return Trail(ref, tuple(lines), tuple(e.seq for e in entries), tuple(_record(e) for e in entries))


def latest(database: Database, count: int, *, types: Sequence[str] = (), before: int | None = None) -> list[dict[str, Any]]:
    """The newest records, oldest of them first. Raises: StoreUnavailable."""
    with database.read() as connection:
        return [_record(e) for e in Tables(connection).latest(count, types=types, before=before)]


def _record(entry: Entry) -> dict[str, Any]:
    raw = entry.raw if entry.raw is not None else {"seq": entry.seq, "ts": to_iso(entry.ms), "type": entry.type, "pruned": True}
    beside = {name: value for name, value in (("revealed", entry.personal), ("beside", entry.beside)) if value}
    return {**raw, **beside}


def _lines(ref: str, entries: Sequence[Entry], signed: int) -> list[str]:
    told = [e for e in entries if e.raw is not None]
    head = [_what(ref, told)]
    story = [line for e in told if (line := _line(e))]
    tail = [_outcome(told), _proof(entries, signed)]
    room = MAX_LINES - len(head) - len(tail)
    if len(story) > room:
        # The first is who asked, the last what came of it; approvals in the middle are counted.
        story = [*story[: room - 2], f"... {len(story) - room + 1} more records", story[-1]]
    return [*head, *story, *tail]


def _what(ref: str, told: Sequence[Entry]) -> str:
    for entry in told:
        raw = entry.raw or {}
        if raw.get("action") and raw.get("resource"):
            return f"{ref}: {raw['action']} on {_party(entry, 'resource')} for {_party(entry, 'subject')}"
    subject = next((_party(e, "subject") for e in told if (e.raw or {}).get("subject")), "")
    return f"{ref}" + (f" for {subject}" if subject else "")


def _party(entry: Entry, name: str) -> str:
    party = (entry.raw or {}).get(name) or {}
    found = party.get("id", "")
    if not isinstance(found, str):
        found = entry.personal.get(f"{name}.id", "(erased)")
    return f"{party.get('type', '')} {found}".strip()


def _risk(raw: dict[str, Any]) -> str:
    risk = raw.get("risk") or {}
    if "score" not in risk and not risk.get("band"):
        return ""
    signals = risk.get("signals") or []
    return f", risk {risk.get('score', '')} {risk.get('band', '')}".rstrip() + (f" ({', '.join(signals)})" if signals else "")


def _approver(entry: Entry) -> str:
    approval = (entry.raw or {}).get("approval") or {}
    named = approval.get("approver")
    if isinstance(named, str):
        return named
    return entry.personal.get("approval.approver", "(erased)") if named else _party(entry, "actor")


def _line(entry: Entry) -> str:
    """One line for one record; empty for kinds that tell nobody anything here."""
    raw = entry.raw or {}
    kind, at = entry.type, to_iso(entry.ms)
    because = f": {', '.join(map(str, raw['reasons']))}" if raw.get("reasons") else ""
    policy = (raw.get("policy") or {}).get("id")
    match kind:
        case "decision":
            said = raw.get("decision", "")
            return f"{at}  {'permitted' if said == 'permit' else said} by policy{because or (': ' + policy if policy else '')}{_risk(raw)}"
        case "access_request":
            quorum = (raw.get("approval") or {}).get("quorum")
            needed = f", {quorum} approver{'s' if quorum > 1 else ''} needed" if quorum else ""
            return f"{at}  asked by {_party(entry, 'actor')}{needed}{_risk(raw)}"
        case "approval.granted":
            credential = (raw.get("approval") or {}).get("credential_id")
            form = f" with credential {credential[:12]}" if credential else " (no person's signature)"
            return f"{at}  approved by {_approver(entry)}{form}{_risk(raw)}"
        case "approval.consumed":
            return f"{at}  ran: {raw.get('action') or 'used'} on {_party(entry, 'resource') or 'its resource'}, by {_party(entry, 'actor')}{_risk(raw)}"
        case "breakglass.opened":
            return f"{at}  glass broken by {_approver(entry)}: {entry.personal.get('personal.reason', '(reason erased)')}{_risk(raw)}"
        case _ if kind in ENDS or kind.startswith(("approval.", "breakglass.", "task.", "tool.")):
            return f"{at}  {kind.replace('.', ' ').replace('_', ' ')}{because}, by {_approver(entry)}{_risk(raw)}"
    return ""


def _outcome(told: Sequence[Entry]) -> str:
    given = sum(e.type == "approval.granted" for e in told)
    used = sum(e.type == "approval.consumed" for e in told)
    last = next((ENDS[e.type] for e in reversed(told) if e.type in ENDS), "")
    now = f"used {'once' if used == 1 else f'{used} times'}" if used else last or ("approved, not used" if given else "open")
    return f"outcome: {now}; {given} approval{'' if given == 1 else 's'}"


def _proof(entries: Sequence[Entry], signed: int) -> str:
    seqs = [e.seq for e in entries]
    shown = ", ".join(map(str, seqs[:8])) + (f", ... {len(seqs)} in all" if len(seqs) > 8 else "")
    state = f"under the signed checkpoint of size {signed}" if seqs[-1] < signed else "not yet under a signed checkpoint"
    return f"in the log: record{'' if len(seqs) == 1 else 's'} {shown}, {state}"
