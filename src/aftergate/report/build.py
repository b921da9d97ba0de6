"""Writes the report: one HTML file that needs nothing else. Reads the inputs a second time for the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from aftergate.detections.engine import Engine
from aftergate.errors import ConfigError
from aftergate.lineage.tracking import World
from aftergate.pipeline.lives import Story, gather
from aftergate.pipeline.scan import Options
from aftergate.report.lifeline import lay_out
from aftergate.report.page import Drawn, render
from aftergate.report.picture import legend, life_picture, summary_of
from aftergate.report.text import clean
from aftergate.report.tree import Families, Family, tree_html
from aftergate.risk.incidents import Incident
from aftergate.vocabulary import Event, Finding

MOST_DRAWN: Final = 200  # incidents with a picture: more would make the file too large to open
BESIDE: Final = 200_000  # an identity busier than this is left out of the background of a picture
BACKGROUND: Final = "/background"


def write_report(
    path: Path, options: Options, engine: Engine, findings: Sequence[Finding], incidents: Sequence[Incident], data: dict[str, Any]
) -> None:
    """Write the page. `data` is what `pipeline.outputs.summary` gave. The same input gives the same bytes.

    Raises: ConfigError, if the file cannot be written; ReadError, if an input has gone since the scan.
    """
    stories = draw(options, engine.world, findings, incidents)
    page = render([str(p) for p in options.paths], findings, incidents, stories, data)
    try:
        path.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise ConfigError(f"cannot write the report: {error.strerror or error}", where=str(path), hint="name another file") from None


def draw(options: Options, world: World, findings: Sequence[Finding], incidents: Sequence[Incident]) -> dict[str, Drawn]:
    """What can be drawn of each incident, by its id: the first MOST_DRAWN, which are the most urgent."""
    by_incident: dict[str, list[Finding]] = {}
    for finding in findings:
        by_incident.setdefault(finding.incident, []).append(finding)
    index = Families(world)
    families: dict[str, Family] = {}
    wanted: dict[str, tuple[set[str], set[str]]] = {}
    for incident in incidents[:MOST_DRAWN]:
        accused = {*incident.subject.credential, *incident.subject.session}
        families[incident.id] = index.of(accused)
        wanted[incident.id] = (families[incident.id].near | accused, set())
        wanted[incident.id + BACKGROUND] = (set(), _names(world, incident))
    readable = [p for p in options.paths if str(p) != "-"]
    important = frozenset(e for f in findings for e in f.evidence)
    gathered: dict[str, Story] = gather(options, wanted, important) if readable and wanted else {}
    drawn: dict[str, Drawn] = {}
    for incident in incidents[:MOST_DRAWN]:
        held = sorted(by_incident.get(incident.id, []), key=lambda f: (f.time, f.started, f.id))
        drawn[incident.id] = _one(incident, held, index, families[incident.id], wanted[incident.id][0], gathered)
    return drawn


def _names(world: World, incident: Incident) -> set[str]:
    names: set[str] = set()
    for name in incident.subject.identity[:4]:
        identity = world.identity(name)
        if identity is not None and identity.count <= BESIDE:
            names |= {identity.id, name}
    return names


def _one(
    incident: Incident, findings: Sequence[Finding], index: Families, family: Family, keys: set[str], gathered: dict[str, Story]
) -> Drawn:
    accused = {*incident.subject.credential, *incident.subject.session}
    tree = tree_html(index.grow(family, accused), accused) if family.line else ""
    story = gathered.get(incident.id)
    background = gathered.get(incident.id + BACKGROUND)
    if story is None and background is None:
        return Drawn(tree=tree)
    evidence: dict[str, set[int]] = {}
    for place, finding in enumerate(findings, 1):
        for name in finding.evidence:
            evidence.setdefault(name, set()).add(place)
    events: dict[int, Event] = {}
    left_out = 0
    for part in (story, background):
        if part is not None:
            events.update((id(e), e) for e in part.events)
            left_out += part.left_out
    # what came of the same record is one mark; the sort key is total, so that the order of the inputs does not matter
    ordered = sorted(_once(events.values()), key=lambda e: (e.time, e.source, e.id, e.part))
    about = keys if story is not None and story.events else set()
    life = lay_out(ordered, about, evidence, [(n, f.time, clean(f.title)) for n, f in enumerate(findings, 1)], left_out)
    proof = {e.id: e for e in ordered if e.id in evidence}
    if life is None:
        return Drawn(tree=tree, evidence=proof)
    said = summary_of(life)
    heading = "Life of the credential" if about else "What the identity did"
    return Drawn(
        picture=life_picture(life, f"{heading}: {said}"),
        legend=legend(life.kinds, flags=bool(findings), aside=life.aside),
        heading=heading,
        said=said,
        left_out=left_out,
        cut=any(s.gap for s in life.axis.segments),
        scaled=any(not s.gap for s in life.axis.segments[1:]),
        tree=tree,
        evidence=proof,
    )


def _once(events: Any) -> list[Event]:
    seen: set[tuple[str, str, int]] = set()
    kept: list[Event] = []
    for event in events:
        key = (event.source, event.id, event.part)
        if key not in seen:
            seen.add(key)
            kept.append(event)
    return kept


__all__ = ["MOST_DRAWN", "draw", "write_report"]
