"""What a scan writes: findings, summary, incidents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from aftergate.connectors.base import sources
from aftergate.detections.api import catalogue
from aftergate.detections.engine import Engine
from aftergate.events.clock import to_iso
from aftergate.events.redact import redact_id, redact_text
from aftergate.pipeline.scan import Counts
from aftergate.risk.incidents import Incident, join
from aftergate.risk.trust import set_trust
from aftergate.vocabulary import RANK, SEVERITIES, Finding


def conclude(engine: Engine) -> tuple[list[Finding], list[Incident]]:
    """Findings, most urgent first, with trust and incident written in; and the incidents."""
    findings = list(engine.book.findings.values())
    for finding in findings:
        _mask(finding)
    set_trust(findings, {slug: rule.meta.half_life_d for slug, rule in catalogue().items()})
    incidents = join(findings)
    findings.sort(key=lambda f: (-RANK[f.severity], f.time, f.detection, f.id))
    return findings, incidents


def _mask(finding: Finding) -> None:
    """Take out what a log let slip of secrets: rules quote paths, settings and policies."""
    finding.title = redact_text(finding.title)
    finding.narrative = redact_text(finding.narrative)
    finding.traps = tuple(map(redact_text, finding.traps))
    subject = finding.subject
    subject.identity, subject.credential, subject.session = (
        [redact_id(name) for name in held] for held in (subject.identity, subject.credential, subject.session)
    )
    finding.evidence = list(map(redact_id, finding.evidence))
    finding.root = redact_id(finding.root) if finding.root else finding.root


def finding_json(finding: Finding) -> dict[str, Any]:
    """The object of one line of `--findings`."""
    subject: dict[str, Any] = {}
    for level in ("identity", "credential", "session"):
        held: list[str] = getattr(finding.subject, level)
        if held:
            subject[level] = held[0] if len(held) == 1 else held
    return {
        "id": finding.id,
        "detection": finding.detection,
        "severity": finding.severity,
        "time": to_iso(finding.time),
        "known_at": to_iso(finding.known_at),
        "started": to_iso(finding.started),
        "title": finding.title,
        "narrative": finding.narrative,
        "subject": subject,
        "evidence": finding.evidence,
        "sources": finding.sources,
        "incident": finding.incident,
        "attack": list(finding.attack),
        "frameworks": list(finding.frameworks),
        "trust_after": finding.trust_after,
        "recommended": list(finding.recommended),
        "traps_weighed": list(finding.traps),
    }


def write_findings(findings: list[Finding], path: Path) -> None:
    """One JSON object a line; the same findings give the same bytes."""
    encode = msgspec.json.Encoder(order="deterministic").encode
    with path.open("wb") as out:
        for finding in findings:
            out.write(encode(finding_json(finding)) + b"\n")


def silent_classes(engine: Engine) -> dict[str, dict[str, int]]:
    """Silent sign-ins and token issues by class, with how many are tied to a known root. What runs at regular gaps is a scheduled workload."""
    world = engine.world
    return {name: {"events": world.silent[name], "rooted": world.silent_rooted.get(name, 0)} for name in sorted(world.silent)}


def cannot_fire(engine: Engine) -> dict[str, list[str]]:
    """Detections that these logs cannot feed, each with the features it misses (the smallest set that would do)."""
    held: dict[str, set[str]] = {}
    for source, feature in engine.world.features:
        held.setdefault(source, set()).add(feature)
    every: set[str] = set().union(*held.values()) if held else set()
    answer: dict[str, list[str]] = {}
    for slug, rule in catalogue().items():
        groups = rule.meta.needs
        if not groups or any(set(group) <= features for group in groups for features in held.values()):
            continue
        if any(set(group) <= every for group in groups):
            continue
        missing = min((sorted(set(group) - every) for group in groups), key=lambda m: (len(m), m))
        answer[slug] = missing
    return answer


def summary(engine: Engine, counts: Counts, findings: list[Finding]) -> dict[str, Any]:
    """The object of `--summary`."""
    world = engine.world
    titles = sources()
    per_severity = {name: sum(f.severity == name for f in findings) for name in SEVERITIES if name != "info"}
    per_detection: dict[str, int] = {}
    for finding in sorted(findings, key=lambda f: f.detection):
        per_detection[finding.detection] = per_detection.get(finding.detection, 0) + 1
    return {
        "read": counts.read,
        "normalised": counts.normalised,
        "duplicates": counts.duplicates,
        "set_aside": counts.set_aside,
        "late": counts.late,
        "events": world.events,
        "files": counts.files,
        "bytes": counts.bytes,
        "sources": {
            slug: {
                "title": titles[slug].title if slug in titles else slug,
                "records": counts.sources[slug],
                "first": to_iso(world.coverage[slug].first) if slug in world.coverage else None,
                "last": to_iso(world.coverage[slug].last) if slug in world.coverage else None,
            }
            for slug in sorted(counts.sources)
        },
        "silent_classes": silent_classes(engine),
        "join_rates": {
            slug: {"uses": c.uses, "mint_known": c.joined_uses, "rate": round(c.rate, 4) if c.rate is not None else None}
            for slug, c in sorted(world.coverage.items())
            if c.uses
        },
        "findings": {"total": len(findings), "by_severity": per_severity, "by_detection": per_detection},
        "cannot_fire": cannot_fire(engine),
        "enrichment": [{"table": name, "date": date} for name, date in counts.tables],
        "seconds": round(counts.seconds, 3),
        "cpu_seconds": round(counts.cpu_seconds, 3),
        "events_per_second": round(counts.read / counts.seconds) if counts.seconds > 0 else 0,
    }


def write_summary(data: dict[str, Any], path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(data), indent=1) + b"\n")
