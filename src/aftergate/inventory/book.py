"""Questions to an inventory. Pure once loaded; times are milliseconds since 1970 UTC and always arguments."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from aftergate.errors import ConfigError, Reject
from aftergate.events import enrich
from aftergate.events.clock import from_iso
from aftergate.inventory.model import DAY_MS, Allowance, File, Identity, Ticket, Window

Network = IPv4Network | IPv6Network

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_ASSUMED: Final = re.compile(r"^arn:(aws[\w-]*):sts::(\d{12}):assumed-role/([^/]+)/.+$")
_WORD: Final = re.compile(r"[a-z0-9]+")
_SLACK_MS: Final = 600_000  # schedulers start late or a little early
_SHORTEST_NAME: Final = 5  # a name this short could stand in a ticket's text by chance


class Inventory:
    """Declared facts by any id. Without a file: None and False to everything."""

    def __init__(self, file: File | None = None, *, where: str = "inventory") -> None:
        """Raises: ConfigError naming the first record that cannot be used."""
        self.file = file if file is not None else File()
        self._by_id: dict[str, Identity] = {}
        self._egress: dict[str, tuple[tuple[Network, ...], frozenset[str]]] = {}
        self._windows: dict[str, tuple[_Plan, ...]] = {}
        for index, item in enumerate(self.file.identities):
            place = f"{where}: $.identities[{index}] `{item.name}`"
            for name in _names_of(item):
                self._by_id.setdefault(_fold(name), item)
            self._egress[item.name] = _egress(item.egress)
            self._windows[item.name] = tuple(_plan(window, place) for window in item.automation)
            for text in (item.contract_end, item.starts, item.leaves, *(allowance.until for allowance in item.exceptions)):
                if text is not None:
                    _instant(text, place)
        for item in self.file.identities:  # after all names, so that no credential id hides one
            for credential in item.credentials:
                for held in (credential.id, credential.hashed):
                    if held:
                        self._by_id.setdefault(_fold(held), item)
        self._tickets: list[tuple[int, int, Ticket]] = []
        for index, ticket in enumerate(self.file.changes):
            place = f"{where}: $.changes[{index}] `{ticket.id}`"
            self._tickets.append((_instant(ticket.start, place), _end(ticket.end, place), ticket))
        self._tickets.sort(key=lambda row: (row[0], row[2].id))

    @classmethod
    def load(cls, path: str | Path) -> Inventory:
        """From a JSON file, plain or gzip. Raises: ConfigError with the file and the place in it."""
        try:
            data = Path(path).read_bytes()
            if data[:2] == b"\x1f\x8b":
                data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ConfigError(f"cannot read: {reason}", where=str(path), hint="name a JSON file, plain or gzip") from None
        return cls.decode(data, where=str(path))

    @classmethod
    def decode(cls, data: bytes, *, where: str = "inventory") -> Inventory:
        try:
            file = msgspec.json.decode(data, type=File)
        except msgspec.ValidationError as error:
            message, _, place = str(error).partition(" - at ")
            raise ConfigError(message, where=f"{where}: {place.strip('`')}" if place else where) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"is not JSON: {error}", where=where) from None
        return cls(file, where=where)

    def __bool__(self) -> bool:
        return bool(self.file.identities or self.file.changes)

    def identity(self, any_id: str | None) -> Identity | None:
        """The record of whoever has this id, name, ARN, e-mail address or credential id."""
        if not any_id or not self._by_id:
            return None
        found = self._by_id.get(_fold(any_id))
        if found is None:
            match = _ASSUMED.match(any_id)
            if match is not None:
                found = self._by_id.get(_fold(f"arn:{match[1]}:iam::{match[2]}:role/{match[3]}"))
        return found

    def first(self, ids: Iterable[str | None]) -> Identity | None:
        """The first record that any of the ids has."""
        for any_id in ids:
            found = self.identity(any_id)
            if found is not None:
                return found
        return None

    def kind(self, any_id: str | None) -> str | None:
        found = self.identity(any_id)
        return found.kind if found is not None and found.kind != "unknown" else None

    def owner(self, any_id: str | None) -> str | None:
        found = self.identity(any_id)
        return found.owner or None if found is not None else None

    def is_rotator(self, any_id: str | None) -> bool:
        found = self.identity(any_id)
        return found is not None and found.registered_rotator

    def is_deployer(self, any_id: str | None) -> bool:
        found = self.identity(any_id)
        return found is not None and found.registered_deployer

    def members(self, group: str) -> tuple[str, ...]:
        return self.file.groups.get(group, ())

    def owner_living(self, any_id: str | None, at: int) -> bool | None:
        """Is there still somebody to ask? None where nothing is declared or the owner is not in the file: unknown is not gone."""
        found = self.identity(any_id)
        if found is None or not found.owner:
            return None
        answers = [self._living(person, at) for person in (found.owner, found.deputy) if person]
        if any(answers):
            return True
        return None if None in answers else False

    def _living(self, name: str, at: int) -> bool | None:
        if name in self.file.groups:
            answers = [self._living(member, at) for member in self.file.groups[name] if member != name]
            return True if any(answers) else None if None in answers else False
        person = self.identity(name)
        if person is None:
            return None
        return person.leaves is None or at < _end(person.leaves, name)

    def contract_end(self, any_id: str | None) -> int | None:
        """Last moment of the vendor's contract."""
        found = self.identity(any_id)
        return _end(found.contract_end, found.name) if found is not None and found.contract_end else None

    def contract_over(self, any_id: str | None, at: int) -> bool:
        end = self.contract_end(any_id)
        return end is not None and at > end

    def leaves(self, any_id: str | None) -> int | None:
        """End of the day on which a person leaves."""
        found = self.identity(any_id)
        return _end(found.leaves, found.name) if found is not None and found.leaves else None

    def exception(self, any_id: str | None, slug: str, at: int) -> Allowance | None:
        """The written exception from detection `slug` that holds at this time."""
        found = self.identity(any_id)
        if found is None:
            return None
        return next((item for item in found.exceptions if item.slug in (slug, "*") and at <= _end(item.until, found.name)), None)

    def egress_declared(self, any_id: str | None) -> bool:
        found = self.identity(any_id)
        return found is not None and bool(found.egress)

    def egress_ok(self, any_id: str | None, ip: str | None, provider: str | None = None, at: int | None = None) -> bool:
        """Is this address where the identity is declared to come from?

        By block, by the provider's name (`hetzner`, `azure westeurope`: regions are not told apart), or by a ticket that names
        the identity and the address and, if `at` is given, holds then. False where nothing is declared.
        """
        found = self.identity(any_id)
        if found is None:
            return False
        blocks, words = self._egress[found.name]
        if provider is not None and provider in words:
            return True
        address = enrich.parse(ip) if ip else None
        if address is None:
            return False
        if any(address in block for block in blocks):
            return True
        names = self._all_names([found.name])
        text = str(address)
        return any(
            _mentions(ticket.what, text) and _speaks_for(ticket, names)
            for start, end, ticket in self._tickets
            if at is None or start <= at <= end
        )

    def ticket_for(self, ids: Iterable[str | None], at: int, kinds: Iterable[str] = ()) -> Ticket | None:
        """The first ticket that holds at this time and speaks for one of `ids` (doer, target, role, run), by any of its names.

        `kinds` limits what sort of ticket counts, as the file spells it (`rotation`, `privileged work`, ...). Without it look at the
        answer's kind before excusing anything.
        """
        if not self._tickets:
            return None
        wanted = frozenset(kinds)
        names: set[str] | None = None
        for start, end, ticket in self._tickets:
            if not start <= at <= end or (wanted and ticket.kind not in wanted):
                continue
            if names is None:
                names = self._all_names(ids)
            if _speaks_for(ticket, names):
                return ticket
        return None

    def window_declared(self, any_id: str | None) -> bool:
        found = self.identity(any_id)
        return found is not None and bool(found.automation)

    def in_window(self, any_id: str | None, at: int) -> bool:
        """Does a declared automation window of the identity hold at this time? False where none is declared."""
        found = self.identity(any_id)
        return found is not None and any(plan.holds(at) for plan in self._windows[found.name])

    def own_account(self, account: str | None) -> bool:
        """Is this account, tenant, project or organisation one of ours?"""
        return account is not None and account in self._accounts

    @cached_property
    def _accounts(self) -> frozenset[str]:
        result: set[str] = set()
        for value in self.file.accounts.values():
            result.update([value] if isinstance(value, str) else value.values() if isinstance(value, dict) else value)
        return frozenset(result)

    def _all_names(self, ids: Iterable[str | None]) -> set[str]:
        result: set[str] = set()
        for any_id in ids:
            if any_id:
                result.add(_fold(any_id))
                found = self.identity(any_id)
                if found is not None:
                    result.update(_fold(name) for name in _names_of(found))
        return result


class _Plan(msgspec.Struct, frozen=True):
    """A checked Window."""

    zone: ZoneInfo
    weekdays: frozenset[int]
    dates: frozenset[date]
    at: time | None
    length_ms: int

    def holds(self, moment: int) -> bool:
        if not -62_000_000_000_000 < moment < 253_000_000_000_000:
            return False  # a wrong clock, in the year 5 or 9987: days around it cannot be told
        local = datetime.fromtimestamp(moment / 1000, UTC).astimezone(self.zone)
        if self.at is None:
            return self._on(local.date())
        for day in (local.date(), local.date() - timedelta(days=1), local.date() + timedelta(days=1)):
            if self._on(day):
                start = int(datetime.combine(day, self.at, self.zone).timestamp() * 1000)
                if start - _SLACK_MS <= moment <= start + self.length_ms + _SLACK_MS:
                    return True
        return False

    def _on(self, day: date) -> bool:
        return day in self.dates or day.weekday() in self.weekdays


def _plan(window: Window, place: str) -> _Plan:
    try:
        zone = ZoneInfo(window.tz)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"`{window.tz}` is not a time zone", where=place, hint="use a name such as Europe/Berlin") from None
    try:
        dates = frozenset(date.fromisoformat(text) for text in window.dates)
        at = time.fromisoformat(window.at) if window.at is not None and window.every_min is None else None
    except ValueError as error:
        raise ConfigError(f"automation: {error}", where=place) from None
    days = _weekdays(window.days, place) if window.days is not None else frozenset() if dates else frozenset(range(7))
    if window.duration_min <= 0:
        raise ConfigError(f"duration_min is {window.duration_min}, but must be positive", where=place)
    return _Plan(zone, days, dates, at, window.duration_min * 60_000)


def _weekdays(text: str, place: str) -> frozenset[int]:
    result: set[int] = set()
    for part in text.lower().replace(" ", "").split(","):
        if part in ("daily", "*"):
            return frozenset(range(7))
        first, _, last = part.partition("-")
        if first[:3] not in _DAYS or (last and last[:3] not in _DAYS):
            raise ConfigError(f"`{text}` is not a list of week days", where=place, hint="write daily, mon-fri or mon,wed,sun")
        low, high = _DAYS.index(first[:3]), _DAYS.index(last[:3] if last else first[:3])
        result.update(range(low, high + 1) if low <= high else (*range(low, 7), *range(high + 1)))
    return frozenset(result)


def _egress(entries: tuple[str, ...]) -> tuple[tuple[Network, ...], frozenset[str]]:
    blocks: list[Network] = []
    words: set[str] = set()
    for entry in entries:
        try:
            blocks.append(ip_network(entry.strip(), strict=False))
        except ValueError:
            words.update(_WORD.findall(entry.lower()))
    return tuple(blocks), frozenset(words)


def _names_of(item: Identity) -> list[str]:
    return [item.name, *(value for value in item.ids.values() if value)]


def _fold(name: str) -> str:
    return name.lower()


def _speaks_for(ticket: Ticket, names: set[str]) -> bool:
    if _fold(ticket.by) in names or (ticket.target and _fold(ticket.target) in names):
        return True
    what = ticket.what
    return bool(what) and any(len(name) >= _SHORTEST_NAME and _mentions(what, name) for name in names)


def _mentions(text: str, name: str) -> bool:
    """Does the name stand in the text as a word of its own?"""
    folded, name = text.lower(), name.lower()
    start = folded.find(name)
    while start >= 0:
        end = start + len(name)
        before = folded[start - 1] if start else " "
        after = folded[end] if end < len(folded) else " "
        joined = after in "-_@/" or (after in ".:" and end + 1 < len(folded) and folded[end + 1].isalnum())
        if not (before.isalnum() or before in "-_@/.") and not (after.isalnum() or joined):
            return True
        start = folded.find(name, start + 1)
    return False


def _instant(text: str, place: str) -> int:
    try:
        return from_iso(text)
    except Reject as error:
        raise ConfigError(error.message, where=place) from None


def _end(text: str, place: str) -> int:
    """The time itself, or the last millisecond of a bare date."""
    moment = _instant(text, place)
    return moment + DAY_MS - 1 if len(text) == 10 else moment
