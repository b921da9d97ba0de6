"""Sample records of every source, out of tests/data and a few written here, for tests that walk all sources."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

from aftergate.events.enrich import Enricher
from aftergate.events.interning import Interner
from aftergate.pipeline.normalising import Normalising
from aftergate.pipeline.ocsf_out import event_to_ocsf
from aftergate.pipeline.reading import chunks, plan
from aftergate.vocabulary import Event

DATA = Path(__file__).parent / "data"
PER_SOURCE = 150

CLAIMS = {"jti": "at-2", "sid": "s1", "sub": "u17", "iat": 1_772_352_000, "exp": 1_772_355_600, "aud": ["files"], "azp": "planner"}
OAUTH = tuple(
    {"id": f"o{number}", "time": f"2026-03-02T08:0{number}:00Z", "type": kind, "issuer": "https://as.example", "clientId": "planner", "userId": "u17",
     "sessionId": "s1", "ipAddress": "203.0.113.7", "userAgent": "curl/8.5.0", "details": details, **more}
    for number, (kind, details, more) in enumerate((
        ("login", {}, {}),
        ("code_exchanged", {"token_id": "at-1", "refresh_token_id": "r1", "scope": "openid files"}, {}),
        ("token_refreshed", {"refresh_token_id": "r1", "updated_refresh_token_id": "r2", "token_id": "at-2"}, {"claims": CLAIMS}),
        ("token_introspected", {"token_id": "at-2"}, {"claims": CLAIMS}),
        ("token_exchanged", {"subject_token_id": "at-2", "token_id": "at-3"}, {"claims": {**CLAIMS, "act": {"sub": "agent"}}}),
        ("token_revoked", {"token_id": "at-2"}, {"error": "invalid_token"}),
    ))
)  # fmt: skip


@cache
def samples() -> dict[str, list[bytes]]:
    """Records by source: for each operation the first few that the data has, so that rare ones are there too."""
    normalising = Normalising(Interner(Enricher(tables=False)))
    found: dict[str, list[bytes]] = {}
    seen: dict[tuple[str, str], int] = {}
    first: dict[str, Event] = {}
    folders = [
        DATA / "scenarios",
        *(f for f in sorted(DATA.iterdir()) if f.is_dir() and f.name not in ("scenarios", "scenarios-own", "quiet-week")),
        DATA / "quiet-week",
    ]
    for item in plan([str(f) for f in folders]):
        if not item.name.endswith((".jsonl", ".jsonl.gz", ".json.gz")) or "TRUTH" in item.name or "inventory" in item.name:
            continue
        for chunk in chunks(item):
            for line in chunk.lines[:3000]:
                events: list[Event] = []
                if normalising.run([line], events) or not events:
                    continue
                event = events[0]
                key = (event.source, event.action.name)
                seen[key] = seen.get(key, 0) + 1
                held = found.setdefault(event.source, [])
                if seen[key] <= 8 and len(held) < PER_SOURCE:
                    held.append(bytes(line))
                    first.setdefault(f"{event.source}/{event.kind}", event)
            break
    found["oauth.server"] = [json.dumps(record).encode() for record in OAUTH]
    found["ocsf"] = [json.dumps(event_to_ocsf(event)).encode() for event in first.values()]
    return found


def lines_of(path: Path) -> list[bytes]:
    """The lines of a plain or gzip file."""
    data = path.read_bytes()
    return [line for line in (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).split(b"\n") if line]
