"""The page: header, overview, incidents, coverage. Pure rendering; every value that comes from logs goes through `esc`."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

from msgspec import Struct, field

from aftergate import __version__
from aftergate.connectors.base import sources
from aftergate.detections.api import Meta, catalogue
from aftergate.detections.reasoning import place, who
from aftergate.events.clock import from_iso
from aftergate.frameworks import VERSIONS, framework, title
from aftergate.report.picture import bar, over_time, ring
from aftergate.report.text import esc, lasting, number, plural, short, size, stretch, time_tag
from aftergate.risk.incidents import Incident
from aftergate.vocabulary import RANK, SEVERITIES, Event, Finding, Subject

MOST_LISTED: Final = 1_000
MOST_PROOFS: Final = 10
BY: Final = '<th scope="col">by</th>'
MOST_RANKED: Final = 12
MOST_OPEN: Final = 4  # findings of an incident whose evidence is shown at once
MOST_FINDINGS: Final = 40  # of one incident, told in full

_FRAMEWORK: Final = {"attack": "ATT&CK", "atlas": "ATLAS", "nhi": "OWASP NHI", "csf": "NIST CSF"}
_SILENT: Final = {
    "token_refresh": "Token refresh",
    "delegated_application": "Application acting for a person",
    "background_service": "Background service",
    "scheduled_workload": "Scheduled workload",
    "session_continuation": "Session carried on",
    "agent_tool": "Agent using a tool",
}
_FEATURES: Final = {
    "origin.ip": "caller's address",
    "origin.asn": "caller's network",
    "agent": "user agent",
    "device": "device id",
    "session": "session id",
    "credential": "id of the token or key used",
    "client": "client application",
    "resource": "resource the token is for",
    "token.mint": "issue of tokens",
    "token.refresh_chain": "which refresh token replaced which",
    "token.times": "issue and expiry times of tokens",
    "binding": "whether tokens are bound",
    "scopes": "scopes",
    "bytes": "bytes read",
    "objects": "number of objects read",
    "credential.change": "credentials added and removed",
    "identity.lifecycle": "accounts disabled and deleted",
    "ci.run": "CI runs",
    "ci.subject": "subjects of CI tokens",
    "secret.read": "reads of stored secrets",
    "mail.rule": "mailbox rules",
    "mail.read": "mail read",
    "factor": "sign-in factors changed",
    "act": "who acts for whom",
    "tool_call": "agents' tool calls",
    "agent.grant": "what agents were allowed",
    "remote_exec": "remote execution",
    "device_code": "device code approvals",
    "events": "events of its kind",
    "silent": "silent sign-ins",
    "pod": "pods of tokens",
    "consent": "consent to applications",
    "console.login": "console sign-ins",
    "credential.add": "credentials added",
    "credential.type": "kinds of credential",
    "defence.change": "changes to protection settings",
    "defence.weaken": "protection switched off",
    "factor.add": "sign-in factors added",
    "factor.reset": "sign-in factors reset",
    "identity.disable": "identities disabled",
    "impersonate": "impersonation",
    "owner.add": "owners added",
    "privilege.grant": "rights given",
    "redirect.change": "redirect addresses changed",
    "remote.exec": "remote execution",
    "share.change": "shares opened",
    "trust.change": "changes of trust in issuers",
    "ai.discover": "listing of AI services",
    "ai.enable": "AI services switched on",
    "ai.invoke": "calls of AI services",
}


class Drawn(Struct):
    """What was drawn of one incident: SVG and lists, ready for the page, and the events that findings rest on."""

    picture: str = ""
    legend: str = ""
    heading: str = "Life of the credential"
    said: str = ""
    left_out: int = 0
    cut: bool = False
    scaled: bool = False
    tree: str = ""
    evidence: dict[str, Event] = field(default_factory=dict)


@cache
def _asset(name: str) -> str:
    return files("aftergate.report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def render(
    paths: Sequence[str], findings: Sequence[Finding], incidents: Sequence[Incident], drawn: Mapping[str, Drawn], data: Mapping[str, Any]
) -> str:
    """The whole page. `drawn` is by incident id; an incident that is not in it is listed without a picture."""
    style, script = _asset("style.css"), _asset("script.js")
    policy = f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; base-uri 'none'; form-action 'none'"
    by_incident: dict[str, list[Finding]] = {}
    for finding in findings:
        by_incident.setdefault(finding.incident, []).append(finding)
    worst = incidents[0].severity if incidents else None
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n',
        f'<meta name="referrer" content="no-referrer">\n<meta name="generator" content="Aftergate {esc(__version__)}">\n',
        f"<title>Aftergate report: {esc(plural(len(incidents), 'incident'))}</title>\n<style>{style}</style>\n</head>\n<body>\n",
        _bar(),
        "<main>\n",
        _head(paths, findings, incidents, data, worst),
        _overview(findings, incidents, data),
        _incidents(findings, incidents, by_incident, drawn, paths),
        _coverage(data),
        "</main>\n",
        _foot(data),
        f"<script>{script}</script>\n</body>\n</html>\n",
    ]
    return "".join(parts)


def _bar() -> str:
    return (
        '<a class="skip" href="#incidents">Skip to incidents</a>\n<header class="top"><div class="in">'
        '<a class="brand" href="#top"><svg viewBox="0 0 24 24" aria-hidden="true"><path d="M4 21V10a8 8 0 0 1 16 0v11"/><path d="M9 21V10a3 3 0 0 1 6 0v5"/>'
        '<circle cx="15" cy="19.5" r="1.6"/></svg>Aftergate</a>'
        '<nav aria-label="Sections"><a href="#overview">Overview</a><a href="#incidents">Incidents</a><a href="#coverage">Coverage</a></nav>'
        '<button type="button" id="theme" class="quiet-button" hidden aria-label="Switch between light and dark">'
        '<svg viewBox="0 0 20 20" aria-hidden="true"><circle cx="10" cy="10" r="7"/><path class="half" d="M10 3a7 7 0 0 1 0 14Z"/></svg>'
        "<span>Theme</span></button></div></header>\n"
    )


def _span(data: Mapping[str, Any]) -> tuple[int, int] | None:
    firsts = [from_iso(s["first"]) for s in data["sources"].values() if s.get("first")]
    lasts = [from_iso(s["last"]) for s in data["sources"].values() if s.get("last")]
    return (min(firsts), max(lasts)) if firsts and lasts else None


def _head(
    paths: Sequence[str], findings: Sequence[Finding], incidents: Sequence[Incident], data: Mapping[str, Any], worst: str | None
) -> str:
    span = _span(data)
    urgent = sum(RANK[i.severity] >= RANK["high"] for i in incidents)
    if worst is None:
        lead = "Nothing was found in these logs. What that is worth depends on what the logs can show: see coverage."
    elif urgent:
        lead = f"{plural(urgent, 'incident')} of high or critical severity among {number(len(incidents))}. Start with the first: they are in order of urgency."
    else:
        lead = f"{plural(len(incidents), 'incident')}, none of high or critical severity."
    named = ", ".join(f"<code>{esc(short(p, 60))}</code>" for p in paths[:4]) + (f" and {len(paths) - 4} more" if len(paths) > 4 else "")
    facts = [
        ("Scanned", f"{named or 'nothing'}<small>{plural(data['files'], 'file')}, {size(data['bytes'])}</small>"),
        ("Records", f"{number(data['read'])}<small>{plural(len(data['sources']), 'source')}</small>"),
        (
            "Time span, UTC",
            f"{time_tag(span[0])} –<br>{time_tag(span[1])}<small>{lasting(span[1] - span[0])}</small>" if span else "no times read",
        ),
        ("Findings", f"{number(len(findings))}<small>in {plural(len(incidents), 'incident')}</small>"),
    ]
    tables = (
        ", ".join(f"{esc(t['table'])} {esc(t['date'])}".strip() for t in data.get("enrichment", []))
        or "none: networks are known by prefix only"
    )
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return (
        f'<section id="top" class="head" aria-labelledby="h1"><p class="eyebrow">After-login report</p><h1 id="h1">{_headline(incidents)}</h1>'
        f'<p class="lead">{lead}</p><dl class="facts">{rows}</dl>'
        f'<p class="fine">Aftergate {esc(__version__)}. Network and country tables: {tables}. All times are UTC.</p></section>\n'
    )


def _headline(incidents: Sequence[Incident]) -> str:
    if not incidents:
        return "No abused credential was found"
    counts = {name: sum(i.severity == name for i in incidents) for name in SEVERITIES}
    said = [f"{counts[s]} {s}" for s in reversed(SEVERITIES) if counts[s]]
    return f"{plural(len(incidents), 'incident')}: {', '.join(said)}"


def _overview(findings: Sequence[Finding], incidents: Sequence[Incident], data: Mapping[str, Any]) -> str:
    cards: list[str] = []
    if findings:
        points = sorted((f.time, f.severity) for f in findings)
        label = f"{plural(len(points), 'finding')} over time, by severity"
        cards.append(f'<div class="card wide"><h3>Findings over time</h3><div class="slide">{over_time(points, label)}</div></div>')
        held = [(s, sum(f.severity == s for f in findings), sum(i.severity == s for i in incidents)) for s in reversed(SEVERITIES)]
        most = max(c for _, c, _ in held)
        rows = "".join(
            f'<tr><th scope="row"><span class="sev {s}">{s}</span></th><td class="draw">{bar(c / most, f"sev-{s}")}</td><td class="num">{number(c)}</td>'
            f'<td class="num">{number(i)}</td></tr>'
            for s, c, i in held
            if c or s != "info"
        )
        cards.append(
            f'<div class="card"><h3>By severity</h3><table class="bars"><thead><tr><th></th><th></th><th class="num">findings</th><th class="num">incidents</th></tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )
        counts: dict[str, int] = {}
        for finding in findings:
            counts[finding.detection] = counts.get(finding.detection, 0) + 1
        ranked = sorted(counts, key=lambda d: (-counts[d], d))
        rows = "".join(
            f'<tr><th scope="row"><a class="by" href="#incidents" data-detection="{esc(d)}" title="{esc(_meta_title(d))}">{esc(d)}</a></th>'
            f'<td class="draw">{bar(counts[d] / counts[ranked[0]])}</td><td class="num">{number(counts[d])}</td></tr>'
            for d in ranked[:MOST_RANKED]
        )
        more = f'<p class="fine">and {plural(len(ranked) - MOST_RANKED, "more detection")}</p>' if len(ranked) > MOST_RANKED else ""
        cards.append(f'<div class="card"><h3>By detection</h3><table class="bars"><tbody>{rows}</tbody></table>{more}</div>')
    beside = len(cards)
    rates = data.get("join_rates", {})
    if rates:
        rows = "".join(
            f'<tr><th scope="row">{esc(_source_title(slug, data))}</th><td class="draw">{bar(rate["rate"] or 0, "join")}</td>'
            f'<td class="num">{_percent(rate["rate"])}</td><td class="num dim">{number(rate["uses"])} uses</td></tr>'
            for slug, rate in rates.items()
        )
        cards.append(
            f'<div class="card"><h3>Uses whose issue is known</h3><p class="hint">The share of token and key uses that lineage ties to their issue.</p>'
            f'<table class="bars"><tbody>{rows}</tbody></table></div>'
        )
    silent = data.get("silent_classes", {})
    if silent:
        most = max((c["events"] for c in silent.values()), default=1) or 1
        rows = "".join(
            f'<tr><th scope="row">{esc(_SILENT.get(name, name.replace("_", " ")))}</th>'
            f'<td class="draw">{bar(c["events"] / most, "silent", c["rooted"] / most)}</td><td class="num">{number(c["events"])}</td>'
            f'<td class="num dim">{number(c["rooted"])} rooted</td></tr>'
            for name, c in sorted(silent.items(), key=lambda item: (-item[1]["events"], item[0]))
        )
        cards.append(
            f'<div class="card"><h3>Silent sign-ins by class</h3><p class="hint">Nobody typed a password here. Rooted (darker): tied to a known login or issue.</p>'
            f'<table class="bars"><tbody>{rows}</tbody></table></div>'
        )
    if len(cards) > beside + 1:
        cards[beside:] = [f'<div class="stack">{"".join(cards[beside:])}</div>']
    body = "".join(cards) or '<p class="empty">No findings, and nothing to plot.</p>'
    return (
        f'<section id="overview" aria-labelledby="h-overview"><h2 id="h-overview">Overview</h2><div class="grid">{body}</div></section>\n'
    )


def _source_title(slug: str, data: Mapping[str, Any]) -> str:
    held = data["sources"].get(slug)
    if held is not None:
        return str(held["title"])
    known = sources().get(slug)
    return known.title if known is not None else slug


def _percent(rate: float | None) -> str:
    return f"{rate:.0%}" if rate is not None else "–"


def _meta(slug: str) -> Meta | None:
    rule = catalogue().get(slug)
    return rule.meta if rule is not None else None


def _meta_title(slug: str) -> str:
    meta = _meta(slug)
    return meta.title if meta is not None else slug


def _incidents(
    findings: Sequence[Finding],
    incidents: Sequence[Incident],
    by_incident: Mapping[str, list[Finding]],
    drawn: Mapping[str, Drawn],
    paths: Sequence[str],
) -> str:
    if not incidents:
        return (
            '<section id="incidents" aria-labelledby="h-incidents"><h2 id="h-incidents">Incidents</h2><div class="empty"><p><strong>No incident.</strong> '
            "No credential or session was used in a way that any detection accuses.</p><p>Coverage, below, says which detections could not have fired here.</p>"
            "</div></section>\n"
        )
    listed = incidents[:MOST_LISTED]
    notes: list[str] = []
    if len(incidents) > len(listed):
        notes.append(
            f"The {number(len(listed))} most urgent of {number(len(incidents))} incidents are listed; --findings FILE holds every finding."
        )
    pictured = sum(bool(d.picture) for d in drawn.values())
    if len(incidents) > len(drawn):
        notes.append(f"Pictures and lineage are drawn for the {number(len(drawn))} most urgent incidents.")
    if not pictured:
        why = "standard input cannot be read a second time" if "-" in paths else "the events could not be read a second time"
        notes.append(f"No pictures: {why}.")
    present = {i.severity for i in incidents}
    chips = "".join(
        f'<button type="button" class="pick sev {s}" data-severity="{s}" aria-pressed="true">{s} <span>{sum(i.severity == s for i in incidents)}</span></button>'
        for s in reversed(SEVERITIES)
        if s in present
    )
    options = "".join(f'<option value="{esc(d)}">{esc(d)}</option>' for d in sorted({f.detection for f in findings}))
    controls = (
        f'<div class="filter" id="filter" hidden role="search" aria-label="Filter incidents"><div class="picks" role="group" aria-label="Severity">{chips}</div>'
        f'<label><span>Detection</span><select id="by-detection"><option value="">all</option>{options}</select></label>'
        '<label class="text"><span>Text</span><input id="by-text" type="search" placeholder="identity, address, event id…" autocomplete="off" spellcheck="false"></label>'
        '<button type="button" class="quiet-button" id="toggle-all">Open all</button><output id="shown" aria-live="polite"></output></div>'
    )
    told = "".join(f'<p class="note">{esc(n)}</p>' for n in notes)
    body = "".join(_incident(i, by_incident.get(i.id, []), drawn.get(i.id)) for i in listed)
    return (
        f'<section id="incidents" aria-labelledby="h-incidents"><h2 id="h-incidents">Incidents</h2>{controls}{told}'
        f'<div class="list">{body}</div><p class="empty" id="none" hidden>No incident matches the filter.</p></section>\n'
    )


def _subject(subject: Subject) -> str:
    held = subject.identity or subject.credential or subject.session
    return held[0] if held else "unknown"


def _unbroken(span: str) -> str:
    """A span that breaks between its two times only."""
    return " – ".join(f'<span class="nb">{part}</span>' for part in span.split(" – "))


def _incident(incident: Incident, findings: list[Finding], drawn: Drawn | None) -> str:
    findings = sorted(findings, key=lambda f: (f.time, f.started, f.id))
    detections = "".join(f'<span class="det">{esc(d)}</span>' for d in incident.detections[:4]) + (
        f'<span class="det">+{len(incident.detections) - 4}</span>' if len(incident.detections) > 4 else ""
    )
    summary = (
        f'<summary><span class="sev {incident.severity}">{incident.severity}</span><span class="name"><span class="title">{esc(incident.title)}</span>'
        f'<span class="under"><span class="subject">{esc(short(_subject(incident.subject), 70))}</span><span class="dets">{detections}</span></span></span>'
        f'<span class="span">{_unbroken(stretch(incident.started, incident.time))}</span>{ring(incident.trust)}</summary>'
    )
    told = "".join(f"<p>{esc(part)}</p>" for part in incident.narrative.split(" Then: "))
    parts = [f'<div class="story"><div class="narrative"><h4>What happened</h4>{told}</div>{_steps(incident.recommended)}</div>']
    if drawn is not None and drawn.picture:
        notes = ["Time runs from left to right, one lane for each place and program; events close together are one mark with their number."]
        if drawn.cut:
            notes.append("Quiet stretches are cut out where the axis has a zigzag.")
        if drawn.scaled:
            notes.append("The shaded stretch, around the findings, has a larger scale.")
        if drawn.left_out:
            notes.append(
                f"Busy: {plural(drawn.left_out, 'event')} evenly left out, never one that a finding rests on; the numbers count what is drawn."
            )
        parts.append(
            f'<figure class="picture"><figcaption><h4>{drawn.heading}</h4>{drawn.legend}</figcaption>'
            f'<div class="scroll" tabindex="0" role="region" aria-label="Picture, {esc(drawn.heading.lower())}; scrolls sideways">{drawn.picture}</div>'
            f'<p class="fine">{" ".join(notes)}</p></figure>'
        )
    parts.append(f'<div class="findings"><h4>{"Findings" if len(findings) > 1 else "Finding"}</h4><ol>')
    told_of: set[str] = set()
    for place_, finding in enumerate(findings[:MOST_FINDINGS], 1):
        parts.append(_finding(place_, finding, drawn, first=finding.detection not in told_of))
        told_of.add(finding.detection)
    parts.append("</ol>")
    if len(findings) > MOST_FINDINGS:
        parts.append(f'<p class="fine">{plural(len(findings) - MOST_FINDINGS, "more finding")} of this incident: see --findings FILE.</p>')
    parts.append("</div>")
    if drawn is not None and drawn.tree:
        parts.append(
            f'<div class="lineage"><h4>Lineage</h4><p class="hint">From approval or login to use: what was issued from what.</p>{drawn.tree}</div>'
        )
    parts.append(_ids(incident))
    return (
        f'<details class="incident {incident.severity}" id="{esc(incident.id)}" data-severity="{incident.severity}" data-detections="{esc(" ".join(incident.detections))}">'
        f'{summary}<div class="body">{"".join(parts)}</div></details>\n'
    )


def _steps(steps: Iterable[str]) -> str:
    rows = "".join(f"<li>{esc(step)}</li>" for step in steps)
    return f'<div class="steps"><h4>What to do, smallest step first</h4><ol>{rows}</ol></div>' if rows else ""


def _ids(incident: Incident) -> str:
    rows = []
    for name, held in (
        ("Identity", incident.subject.identity),
        ("Credential", incident.subject.credential),
        ("Session", incident.subject.session),
    ):
        if held:
            shown = " ".join(f"<code>{esc(i)}</code>" for i in held[:12]) + (f" and {len(held) - 12} more" if len(held) > 12 else "")
            rows.append(f"<div><dt>{name}</dt><dd>{shown}</dd></div>")
    known = sources()
    titles = ", ".join(esc(known[s].title if s in known else s) for s in incident.sources)
    rows.append(f"<div><dt>Sources</dt><dd>{titles}</dd></div><div><dt>Incident</dt><dd><code>{esc(incident.id)}</code></dd></div>")
    return f'<dl class="ids">{"".join(rows)}</dl>'


def _chips(names: Iterable[str]) -> str:
    rows = []
    for name in names:
        kind = framework(name) or ""
        label = f"{_FRAMEWORK.get(kind, '')} {name}".strip() if kind in ("nhi", "csf") else name
        told = title(name) or ""
        of = f"{_FRAMEWORK.get(kind, '')} {VERSIONS.get(kind, '')}".strip()
        rows.append(f'<li class="chip {kind}" title="{esc(f"{of}: {told}")}"><b>{esc(label)}</b> {esc(told)}</li>')
    return f'<ul class="chips">{"".join(rows)}</ul>' if rows else ""


def _finding(place_: int, finding: Finding, drawn: Drawn | None, *, first: bool) -> str:
    """One finding. What is true of its detection is told with the first of an incident only."""
    meta = _meta(finding.detection)
    head = (
        f'<li class="finding"><div class="fhead"><span class="no" aria-hidden="true">{place_}</span><span class="sev {finding.severity}">{finding.severity}</span>'
        f"<strong>{esc(finding.title)}</strong></div>"
        f'<p class="meta"><code>{esc(finding.detection)}</code><span>{stretch(finding.started, finding.time)}</span>'
        f"<span>trust after it {finding.trust_after}</span></p><p>{esc(finding.narrative)}</p>"
    )
    parts = [head]
    if finding.traps:
        parts.append(f'<div class="traps"><b>Weighed, and severity lowered for it:</b> {esc("; ".join(finding.traps))}</div>')
    proof = _proof(finding, drawn)
    if place_ > MOST_OPEN and proof:
        proof = f'<details class="more"><summary>Evidence: {plural(len(finding.evidence), "event")}</summary>{proof}</details>'
    parts.append(proof)
    if first and meta is not None and (meta.traps or meta.blind):
        looks = "".join(f"<li>{esc(t)}</li>" for t in meta.traps)
        blind = "".join(f"<li>{esc(t)}</li>" for t in meta.blind)
        parts.append(
            f'<details class="more"><summary>How sure is this?</summary><p>{esc(meta.about)}</p>'
            + (f"<h5>Innocent look-alikes that were weighed</h5><ul>{looks}</ul>" if looks else "")
            + (f"<h5>What this detection cannot see</h5><ul>{blind}</ul>" if blind else "")
            + "</details>"
        )
    if first:
        parts.append(_chips([*finding.attack, *finding.frameworks]))
    parts.append("</li>")
    return "".join(parts)


def _error(event: Event) -> str:
    return "" if event.shape.error is None else f' <span class="err">{esc(short(event.shape.error, 30))}</span>'


def _from(event: Event) -> str:
    origin = event.origin
    return "–" if origin.ip is None and not origin.net.startswith("service:") else esc(place(origin))


def _by(event: Event) -> str:
    return f'<td data-label="by">{esc(short(who(event), 40))}</td>'


def _proof(finding: Finding, drawn: Drawn | None) -> str:
    """The events a finding rests on: told where they were read again, else by id."""
    events = drawn.evidence if drawn is not None else {}
    told = sorted((events[e] for e in finding.evidence if e in events), key=lambda e: (e.time, e.id))
    shown = told if len(told) <= MOST_PROOFS else [*told[:3], *told[-(MOST_PROOFS - 3) :]]
    held = {e.id for e in shown}
    rest = [e for e in finding.evidence if e not in held]
    actors = {who(e) for e in shown}
    alone = f", all by {esc(short(actors.pop(), 60))}" if len(actors) == 1 and len(shown) > 1 else ""
    rows = "".join(
        f'<tr><td class="when">{time_tag(e.time, seconds=True)}</td><td data-label="what">{esc(short(e.action.name, 60))}'
        f"{_error(e)}</td>{'' if alone else _by(e)}"
        f'<td data-label="from">{_from(e)}</td><td data-label="with">{esc(e.agent.family) if e.agent.family != "unknown" else "–"}</td><td data-label="event"><code>{esc(e.id)}</code></td></tr>'
        for e in shown
    )
    out = ""
    if rows:
        out = (
            '<div class="proof"><table><caption>Evidence'
            f'{alone}</caption><thead><tr><th scope="col">time</th><th scope="col">what</th>{"" if alone else BY}'
            f'<th scope="col">from</th><th scope="col">with</th><th scope="col">event id</th></tr></thead><tbody>{rows}</tbody></table></div>'
        )
    if rest:
        codes = " ".join(f"<code>{esc(e)}</code>" for e in rest)
        label = f"{plural(len(rest), 'more event id')}" if rows else f"Evidence: {plural(len(rest), 'event id')}"
        out += f'<details class="more"><summary>{label}</summary><p class="codes">{codes}</p></details>'
    return out


def _coverage(data: Mapping[str, Any]) -> str:
    known = sources()
    rates = data.get("join_rates", {})
    rows = []
    for slug, held in data["sources"].items():
        rate = rates.get(slug, {}).get("rate")
        span = stretch(from_iso(held["first"]), from_iso(held["last"])) if held.get("first") and held.get("last") else "–"
        misleads = known[slug].misleads if slug in known else ()
        told = f'<ul class="misleads">{"".join(f"<li>{esc(m)}</li>" for m in misleads)}</ul>' if misleads else ""
        told = f"<details><summary>{plural(len(misleads), 'caution')}</summary>{told}</details>" if told else "–"
        rows.append(
            f'<tr><th scope="row">{esc(held["title"])}<br><code>{esc(slug)}</code></th><td class="num" data-label="records">{number(held["records"])}</td>'
            f'<td data-label="span">{span}</td><td class="num" data-label="issue known">{_percent(rate)}</td><td data-label="misleads">{told}</td></tr>'
        )
    table = (
        '<table class="wide-table"><thead><tr><th scope="col">source</th><th scope="col" class="num">records</th><th scope="col">first – last, UTC</th>'
        f'<th scope="col" class="num">issue known</th><th scope="col">where this log misleads</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
        if rows
        else '<p class="empty">No source was recognised.</p>'
    )
    sums = (
        f'<dl class="sums"><div><dt>read</dt><dd>{number(data["read"])}</dd></div>'
        f"<div><dt>normalised</dt><dd>{number(data['normalised'])}</dd></div>"
        f"<div><dt>duplicates</dt><dd>{number(data['duplicates'])}</dd></div>"
        f"<div><dt>set aside</dt><dd>{number(data['set_aside'])}</dd></div></dl>"
    )
    notes = []
    if data["set_aside"]:
        notes.append(
            "Records set aside could not be read and were judged by nobody; --set-aside FILE keeps them with file, offset and reason."
        )
    if data["late"]:
        notes.append(f"{plural(data['late'], 'record')} came later than --lateness allows and were judged out of order.")
    missing = data.get("cannot_fire", {})
    every = catalogue()
    counts = data["findings"]["by_detection"]
    blind = "".join(
        f'<tr><th scope="row"><code>{esc(slug)}</code></th><td>{esc(_meta_title(slug))}</td><td data-label="not seen">{", ".join(esc(_FEATURES.get(m, m.replace(".", " ").replace("_", " "))) for m in needs) or "–"}</td></tr>'
        for slug, needs in missing.items()
    )
    able = "".join(
        f'<tr><th scope="row"><code>{esc(slug)}</code></th><td>{esc(rule.meta.title)}</td><td class="num" data-label="findings">{number(counts.get(slug, 0))}</td>'
        f'<td data-label="cannot see">{esc(" ".join(rule.meta.blind)) or "–"}</td></tr>'
        for slug, rule in every.items()
        if slug not in missing
    )
    blind_table = (
        '<p class="hint">Either the logs do not record it, or it did not happen while they were kept: from the logs alone the two cannot be told apart.</p>'
        f'<table class="wide-table"><thead><tr><th scope="col">detection</th><th scope="col">what it would find</th><th scope="col">not seen in these logs</th></tr></thead>'
        f"<tbody>{blind}</tbody></table>"
        if blind
        else '<p class="fine">Every detection had the fields it needs in at least one source.</p>'
    )
    return (
        '<section id="coverage" aria-labelledby="h-coverage"><h2 id="h-coverage">Coverage</h2>'
        '<p class="lead">What these logs could and could not show. Silence from a detection that cannot fire says nothing.</p>'
        f'<div class="card block"><h3>Records</h3>{sums}{"".join(f"<p class=note>{esc(n)}</p>" for n in notes)}</div>'
        f'<div class="card block"><h3>Sources read</h3>{table}</div>'
        f'<div class="card block"><h3>Detections that could not fire on these logs <span class="count-of">{len(missing)} of {len(every)}</span></h3>{blind_table}</div>'
        f'<details class="card block"><summary><h3>Detections that watched, and what each cannot see <span class="count-of">{len(every) - len(missing)} of {len(every)}</span></h3></summary>'
        f'<table class="wide-table"><thead><tr><th scope="col">detection</th><th scope="col">what it finds</th><th scope="col" class="num">findings</th>'
        f'<th scope="col">cannot see</th></tr></thead><tbody>{able}</tbody></table></details></section>\n'
    )


def _foot(data: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{_FRAMEWORK[k]} {v}" for k, v in VERSIONS.items())
    return (
        f'<footer><div class="in"><p>Aftergate {esc(__version__)} wrote this page from {plural(data["read"], "record")}. '
        f"It holds everything it needs and asks nothing of any network.</p><p>{esc(versions)}.</p></div></footer>\n"
    )
