"""Reads NAME.cases.yaml: events in, findings out.

A case:
    - name: token used from a second place
      expect: [{severity: high, identity: ada@corp.example}]     # empty: must stay quiet (a near miss)
      at_most: medium        # optional, instead of an empty expect: findings up to this severity are fine
      events:
        - {at: 2026-03-02T08:00:00Z, action: user.session.start, kind: sign_in, actor: ada@corp.example, session: s1, ip: 198.51.100.7, asn: 64500}
        - {like: 0, at: +1h, ip: 203.0.113.9, repeat: 3, every: 10m}   # copy of an earlier event with changes; `at: +1h` is after the previous event
Fields of an event: at, id, source, action, kind, klass, tags, actor, actor_kind, names, role, first_party, account, credential, session, target, size,
ip, asn, country, network (overrides), trustworthy, agent, error, client, client_name, resource, device, silent, known_at, detail {…}; in detail, targets are
ids or {id, type, names}, changes are {name, old, new}.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from aftergate.detections.engine import Engine
from aftergate.events.clock import from_iso
from aftergate.events.enrich import Enricher
from aftergate.events.interning import Interner
from aftergate.vocabulary import Change, Detail, Event, Finding, Kind, Origin, Tag, Target

_UNIT = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def span(text: str) -> int:
    """`90s`, `10m`, `1h`, `2d` in milliseconds."""
    found = re.fullmatch(r"\+?(\d+(?:\.\d+)?)([smhd])", str(text))
    if found is None:
        raise ValueError(f"`{text}` is no span")
    return int(float(found.group(1)) * _UNIT[found.group(2)])


class Builder:
    def __init__(self) -> None:
        self.intern = Interner(Enricher(tables=False))
        self.origins: dict[tuple[Any, ...], Origin] = {}

    def events(self, rows: list[dict[str, Any]]) -> list[Event]:
        made: list[Event] = []
        bases: list[dict[str, Any]] = []
        clock = 0
        for row in rows:
            row = dict(row)
            if "like" in row:
                row = {**bases[row.pop("like")], **row}
                row.pop("id", None) if "id" not in rows[len(bases)] else None
            bases.append({k: v for k, v in row.items() if k not in ("repeat", "every", "at")})
            at = row.pop("at", "+1m")
            if isinstance(at, datetime):
                clock = int(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1000)
            elif str(at).startswith("+"):
                clock += span(at)
            else:
                clock = from_iso(str(at))
            every, repeat = span(row.pop("every", "1m")), int(row.pop("repeat", 1))
            for turn in range(repeat):
                if turn:
                    clock += every
                made.append(self.event(row, clock, f"e{len(made)}"))
        return made

    def event(self, row: dict[str, Any], time: int, name: str) -> Event:
        row = dict(row)
        kind = Kind(row.pop("kind", "other"))
        tags = [Tag(t) for t in row.pop("tags", [])]
        source = row.pop("source", "okta")
        action_name = row.pop("action", "act")
        klass = row.pop("klass", "svc:write")
        service, _, verb = klass.rpartition(":")
        action = self.intern.action(source, action_name, lambda _: (kind, service, verb, tags))
        actor = self.intern.actor(
            row.pop("actor", "someone"),
            tuple(row.pop("names", ())),
            row.pop("actor_kind", "unknown"),
            row.get("account"),
            None,
            row.pop("role", None),
            row.pop("first_party", False),
        )
        origin = self.intern.origin(
            row.pop("ip", None), row.pop("asn", None), row.pop("country", None), trustworthy=row.pop("trustworthy", True)
        )
        network = row.pop("network", None)
        if network is not None:
            key = (origin, network)
            if key not in self.origins:
                self.origins[key] = Origin(
                    origin.ip,
                    origin.net,
                    origin.asn,
                    origin.asn_name,
                    network,
                    origin.provider,
                    origin.country,
                    origin.trustworthy,
                    "table",
                )
            origin = self.origins[key]
        shape = self.intern.shape(
            source,
            action,
            actor,
            origin,
            self.intern.agent(row.pop("agent", "")),
            row.pop("error", None),
            row.pop("client", None),
            row.pop("client_name", None),
            row.pop("resource", None),
            row.pop("device", None),
            row.pop("silent", None),
            row.pop("account", None),
        )
        detail = row.pop("detail", None)
        made = Detail(**self.detail(detail)) if detail else None
        known = row.pop("known_at", None)
        event = Event(
            time,
            row.pop("id", name),
            shape,
            row.pop("credential", None),
            row.pop("session", None),
            row.pop("target", None),
            row.pop("size", 0),
            from_iso(str(known)) if known else 0,
            0,
            made,
        )
        if row:
            raise ValueError(f"unknown fields in a case: {sorted(row)}")
        return event

    @staticmethod
    def detail(given: dict[str, Any]) -> dict[str, Any]:
        made = dict(given)
        if "targets" in made:
            made["targets"] = tuple(
                Target(t) if isinstance(t, str) else Target(t["id"], t.get("type", ""), tuple(t.get("names", ()))) for t in made["targets"]
            )
        if "changes" in made:
            made["changes"] = tuple(Change(c["name"], c.get("old"), c.get("new")) for c in made["changes"])
        for name in ("issued", "scopes", "act", "audience"):
            if name in made:
                made[name] = tuple(made[name])
        for name in ("token_issued_at", "token_expires_at"):
            if isinstance(made.get(name), (str, datetime)):
                value = made[name]
                made[name] = from_iso(value.isoformat() if isinstance(value, datetime) else value)
        return made


def run(slug: str, rows: list[dict[str, Any]]) -> list[Finding]:
    engine = Engine(only=[slug])
    engine.feed(sorted(Builder().events(rows), key=lambda e: (e.time, e.id)))
    engine.finish()
    return list(engine.book.findings.values())


def load(path: Path) -> list[dict[str, Any]]:
    cases = yaml.safe_load(path.read_text())
    assert isinstance(cases, list)
    return cases
