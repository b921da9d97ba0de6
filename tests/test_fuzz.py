"""200,000 broken records: none stops a run, whatever was broken about it, and what still reads goes through every rule and every output."""

from __future__ import annotations

import copy
import json
import random
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from samples import DATA, samples

from aftergate.cli.printing import event_json
from aftergate.connectors.base import sources
from aftergate.detections.engine import Engine
from aftergate.events.enrich import Enricher
from aftergate.events.interning import Interner
from aftergate.events.wire import Packer, Unpacker
from aftergate.inventory import Inventory
from aftergate.pipeline.normalising import Normalising
from aftergate.pipeline.ocsf_out import event_to_ocsf, finding_to_ocsf
from aftergate.pipeline.ordering import Sequencer
from aftergate.pipeline.outputs import conclude, write_findings
from aftergate.pipeline.set_aside import row
from aftergate.vocabulary import Event

TOTAL = 200_000
CHUNKS = 40
EACH = TOTAL // CHUNKS

# What takes a value's place: each wrong in another way for code that expects text, a number, a list or an object.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**15, 10**40, "", " ", "\0", "x", "null", "NaN", "-Infinity",
    "1e999", "0x10", "1970-01-01T00:00:00Z", "2026-02-30T25:61:61Z", "9999-12-31T23:59:59.999999999Z", "0001-01-01T00:00:00Z", "2026-03-02T08:00:00+99:99",
    "999.999.999.999", "::1", "::ffff:1.2.3.4", "fe80::1%eth0", "1.2.3.4:443", "[2001:db8::1]:443", "1.2.3.4, 5.6.7.8", "arn:aws:iam::1:role/", "arn:::::", "a@b@c",
    "\u202eevil", "é" * 300, "\U0001f600", "A" * 70_000, "{", '{"a":', "[]", "{}", '{"Statement":{"Principal":"*"}}', "%7B%22", "eyJhbGciOiJub25lIn0.e30.",
    [], [[]], [None], [""], [1, "a", {}], {}, {"": ""}, {"a": {"b": {"c": None}}}, {"name": [], "value": {}}, [{"name": None, "value": [None]}], ["x"] * 500,
)  # fmt: skip
TEXTS = (
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e400",
    b"00",
    b"nul",
    b"'",
    b"\\ud800",
    b"\\u0000",
    b'"\xff\xfe"',
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"//",
    b",",
    b"}{",
)
DEPTHS = (10, 120, 1100, 5000)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a decoded record."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        held = waiting.pop()
        for key, inner in list(held.items() if isinstance(held, dict) else enumerate(held)):
            found.append((held, key))
            if isinstance(inner, dict | list):
                waiting.append(inner)
    return found


def broken(line: bytes, decoded: Any, others: list[Any], dice: random.Random) -> bytes:
    """One record, damaged: as bytes, or with some of its values changed for others."""
    how = dice.random()
    if how < 0.25:
        text = bytearray(line)
        for _ in range(dice.choice((1, 1, 2, 8))):
            at = dice.randrange(len(text))
            which = dice.randrange(5)
            if which == 0:
                text[at] ^= 1 << dice.randrange(8)
            elif which == 1:
                text[at] = dice.randrange(256)
            elif which == 2:
                text[at : at + dice.randrange(1, 40)] = b""
            elif which == 3:
                text[at:at] = dice.choice(TEXTS)
            else:
                del text[max(at, 1) :]
            if not text:
                return b""
        return bytes(text)
    record = copy.deepcopy(decoded)
    spots = places(record)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 6))):
        holder, key = dice.choice(spots)
        which = dice.randrange(12)
        if which < 6:
            value: Any = dice.choice(VALUES)
        elif which < 8:
            other, name = dice.choice(places(dice.choice(others)))
            value = other[name]
        elif which == 8 and isinstance(holder, dict):
            holder.pop(key, None)
            continue
        elif which == 9 and isinstance(holder, dict):
            holder[str(key) * dice.randrange(3)] = dice.choice(VALUES)
            continue
        elif which == 10:
            value = [holder[key]] * dice.randrange(3) if isinstance(holder, list) or key in holder else []
        else:
            value = json.dumps(holder[key] if isinstance(holder, list) or key in holder else None)
        holder[key] = value
    made = json.dumps(record, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    if dice.random() < 0.01:
        depth = dice.choice(DEPTHS)
        at = made.find(b":", dice.randrange(len(made))) + 1
        opened, closed = dice.choice(((b"[", b"]"), (b'{"a":', b"}")))
        made = made[:at] + opened * depth + b"1" + closed * depth + b"," + made[at:] if at else made
    return made


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_broken_record_stops_a_run(chunk: int, tmp_path: Path) -> None:
    """Anything that is not set aside is an event that every rule and every output can take."""
    dice = random.Random(chunk)
    slugs = sorted(samples())
    assert set(slugs) == set(sources()), "every source has samples"
    intern = Interner(Enricher(tables=None if chunk % 8 == 0 else False))
    normalising = {slug: Normalising(intern, slug) for slug in slugs}
    open_minded = Normalising(intern)
    decoded = {slug: [json.loads(line) for line in lines] for slug, lines in samples().items()}
    events: list[Event] = []
    fed = aside = 0
    for number in range(EACH):
        slug = slugs[(number + chunk) % len(slugs)]
        pick = dice.randrange(len(decoded[slug]))
        line = broken(samples()[slug][pick], decoded[slug][pick], decoded[slug], dice)
        before = len(events)
        for refused in (open_minded if number % 10 == 0 else normalising[slug]).run([line], events):
            aside += 1
            assert refused.reason
            if aside % 7 == 0:
                msgspec.json.encode(row("f", 0, refused.reason, refused.record, 4096))
        fed += 1
        for event in events[before:]:
            assert isinstance(event.time, int)
            assert isinstance(event.id, str)
            assert event.size >= 0
    assert fed == EACH
    assert EACH * 0.05 < aside < EACH * 0.8, "some is refused, some is read"
    packed = Packer().pack(events)
    assert len(Unpacker(Interner(Enricher(tables=False))).unpack(packed)) == len(events)
    for event in events[::3]:
        msgspec.json.encode(event_json(event))
        msgspec.json.encode(event_to_ocsf(event))
    sequencer = Sequencer()
    sequencer.add(events)
    ordered = sequencer.release(None)
    engine = Engine(Inventory.load(DATA / "quiet-week" / "inventory.json.gz") if chunk % 4 == 1 else None)
    engine.feed(ordered)
    engine.feed(events[:200])  # and what comes later than allowed
    engine.finish()
    findings, _ = conclude(engine)
    write_findings(findings, tmp_path / "findings.jsonl")
    for finding in findings:
        msgspec.json.encode(finding_to_ocsf(finding))
