"""Commands that print: events, timelines, sources, detections."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aftergate.connectors.base import sources
from aftergate.detections.api import catalogue
from aftergate.detections.reasoning import place, who
from aftergate.errors import ConfigError
from aftergate.events.clock import to_iso
from aftergate.events.redact import redact
from aftergate.pipeline.lives import Story, gather, kin
from aftergate.pipeline.outputs import conclude
from aftergate.pipeline.scan import Options, ordered, scan
from aftergate.vocabulary import Event, Finding

_ENCODE = msgspec.json.Encoder(order="deterministic").encode


def event_json(event: Event) -> dict[str, Any]:
    """One normalised event as plain JSON: fields that are empty are left out."""
    shape, origin, agent = event.shape, event.origin, event.agent
    made: dict[str, Any] = {
        "time": to_iso(event.time),
        "id": event.id,
        "source": shape.source,
        "kind": shape.action.kind.value,
        "action": shape.action.name,
        "class": shape.action.klass,
        "tags": sorted(t.value for t in shape.action.tags),
        "actor": {k: v for k, v in shape.actor.fields().items() if v},
        "credential": event.credential,
        "session": event.session,
        "issues": list(event.mints),
        "target": event.target,
        "outcome": "success" if shape.error is None else "failure",
        "error": shape.error,
        "client": shape.client,
        "client_name": shape.client_name,
        "resource": shape.resource,
        "device": shape.device,
        "silent": shape.silent,
        "account": shape.account,
        "origin": {k: v for k, v in origin.fields().items() if v is not None} if origin.ip or origin.net != "unknown" else None,
        "agent": {k: v for k, v in agent.fields().items() if v} if agent.raw else None,
        "size": event.size,
        "known_at": to_iso(event.known_at) if event.known_at else None,
        "detail": msgspec.to_builtins(event.detail) if event.detail is not None else None,
    }
    return {k: v for k, v in made.items() if v not in (None, [], {}, 0)}


def print_events(options: Options, form: Literal["jsonl", "ocsf"]) -> int:
    if not options.paths:
        raise ConfigError("no logs named", hint="give files, folders, or - for standard input")
    from aftergate.pipeline.ocsf_out import event_to_ocsf

    write = sys.stdout.buffer.write
    for batch in ordered(options, stdin=True):
        for event in batch:
            write(_ENCODE(redact(event_json(event) if form == "jsonl" else event_to_ocsf(event))) + b"\n")
    sys.stdout.buffer.flush()
    return 0


def print_timeline(options: Options, level: str, name: str, inventory: Path | None, *, as_json: bool, limit: int) -> int:
    """Two passes: the first tracks and judges, the second gathers what belongs to the one asked for."""
    if not options.paths or "-" in options.paths:
        reason = "standard input can be read only once" if options.paths else "no logs named"
        raise ConfigError(reason, hint="give files and folders; a timeline reads them twice")
    directory = None
    if inventory is not None:
        from aftergate.inventory import Inventory

        directory = Inventory.load(inventory)
    engine, _ = scan(options, directory=directory)
    findings, _ = conclude(engine)
    world = engine.world
    keys: set[str] = set()
    names: set[str] = set()
    if level == "identity":
        identity = world.identity(name)
        if identity is None:
            raise ConfigError(
                f"no identity `{name}` in these logs", hint="ids are matched as the logs write them; e-mail addresses in any case"
            )
        names = {identity.id, *identity.names}
    else:
        if name not in world.lives and name not in world.unused:
            raise ConfigError(f"no {level} `{name}` in these logs", hint="ids are matched as the logs write them")
        keys = kin(world, [name])
    story = gather(options, {"it": (keys, names)}, frozenset(e for f in findings for e in f.evidence))["it"]
    if level != "identity":
        about = [f for f in findings if keys.intersection(f.subject.credential) or keys.intersection(f.subject.session)]
    else:
        about = [f for f in findings if names.intersection(f.subject.identity)]
    if as_json:
        for event in story.events:
            row = redact(event_json(event)) | {"findings": [f.detection for f in about if event.id in f.evidence]}
            sys.stdout.buffer.write(_ENCODE(row) + b"\n")
        sys.stdout.buffer.flush()
        return 0
    _table(Console(), story, about, keys, name, limit)
    return 0


def _table(console: Console, story: Story, findings: list[Finding], keys: set[str], name: str, limit: int) -> None:
    marks: dict[str, list[str]] = {}
    for finding in findings:
        for event_id in finding.evidence:
            marks.setdefault(event_id, []).append(finding.detection)
    table = Table(box=None, pad_edge=False, header_style="bold", title=f"life of {name}", title_justify="left", title_style="bold")
    for title in ("time (UTC)", "what", "by", "from", "with", ""):
        table.add_column(title, overflow="fold", no_wrap=title == "time (UTC)")
    events = story.events
    skipped = 0
    if len(events) > limit:
        skipped = len(events) - limit
        head = events[: limit // 2]
        tail = events[-(limit - limit // 2) :]
        middle = [e for e in events[limit // 2 : -(limit - limit // 2)] if e.id in marks]
        events = head + middle + tail
        skipped -= len(middle)
    for event in events:
        detail = event.d
        what = Text(event.action.name)
        if event.mints:
            what.append(f"  issues {', '.join(i if i in keys else i[:16] for i in event.mints[:2])}", style="green")
        if detail.spent:
            what.append(f"  spends {detail.spent[:16]}", style="green")
        if not event.ok:
            what.append(f"  {event.shape.error}", style="red")
        found = Text(", ".join(marks.get(event.id, [])), style="bold red")
        table.add_row(to_iso(event.time)[:19].replace("T", " "), what, who(event), place(event.origin), event.agent.family, found)
    console.print(table)
    if skipped or story.left_out:
        console.print(f"{skipped + story.left_out} events left out of the middle; --limit shows more, --json all", style="dim")
    for finding in findings:
        console.print(Text.assemble((f"{finding.severity} ", "bold red"), (finding.detection, "bold"), f"  {finding.narrative}"))


def print_sources(*, as_json: bool) -> int:
    if as_json:
        for source in sources().values():
            row = {"slug": source.slug, "title": source.title, "provides": sorted(source.provides), "misleads": list(source.misleads)}
            sys.stdout.buffer.write(_ENCODE(row) + b"\n")
        sys.stdout.buffer.flush()
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 1, 0))
    for title in ("source", "log", "where it misleads"):
        table.add_column(title, overflow="fold", no_wrap=title == "source")
    for source in sources().values():
        table.add_row(Text(source.slug, style="cyan"), source.title, "\n".join(f"- {m}" for m in source.misleads))
    Console().print(table)
    return 0


def print_detections(slug: str | None, *, as_json: bool) -> int:
    known = catalogue()
    if slug is not None and slug not in known:
        raise ConfigError(f"`{slug}` is no detection", hint="aftergate detections lists them")
    chosen = [known[slug].meta] if slug is not None else [rule.meta for rule in known.values()]
    if as_json:
        for meta in chosen:
            sys.stdout.buffer.write(_ENCODE(meta) + b"\n")
        sys.stdout.buffer.flush()
        return 0
    console = Console()
    if slug is not None:
        meta = chosen[0]
        console.print(Text.assemble((meta.slug, "bold cyan"), f"  {meta.severity}\n", (meta.title, "bold"), f"\n\n{meta.about}\n"))
        for title, lines in (("Innocent look-alikes", meta.traps), ("Cannot see", meta.blind), ("First to do", meta.recommended)):
            if lines:
                console.print(Text(title, style="bold"))
                for line in lines:
                    console.print(Text(f"- {line}"))
        console.print(Text(f"\n{', '.join((*meta.attack, *meta.nhi, *meta.csf))}", style="dim"))
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("detection", "severity", "what"):
        table.add_column(title, overflow="fold", no_wrap=title != "what")
    for meta in chosen:
        table.add_row(Text(meta.slug, style="cyan"), meta.severity, meta.title)
    console.print(table)
    return 0
