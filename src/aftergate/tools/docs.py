"""Generated documentation: a page for each detection and each source, the command line, the server's settings, and what feeds what.

    python -m aftergate.tools.docs [--check] [--root DIR]

Written below DIR/docs from what the code says of itself. `--check` writes nothing and exits 1 if a page differs, is missing or is left over.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

import aftergate.detections
from aftergate import frameworks
from aftergate.connectors.base import Source, sources
from aftergate.detections.api import On, Rule, catalogue
from aftergate.vocabulary import Bit

NOTE: Final = "<!-- made by python -m aftergate.tools.docs: edit the code it comes from, not this page -->"
WIDTH: Final = 100  # columns of the help screens

# needs name what tracking observes (tags, details); sources name what they provide. Where the words differ:
FEATURE_OF_TAG: Final[dict[str, str]] = {
    "privilege.grant": "privilege",
    "privilege.revoke": "privilege",
    "privilege.activate": "privilege",
    "credential.add": "credential.change",
    "credential.remove": "credential.change",
    "owner.add": "credential.change",
    "owner.remove": "credential.change",
    "redirect.change": "credential.change",
    "app.create": "credential.change",
    "defence.change": "policy",
    "defence.weaken": "policy",
    "trust.change": "trust",
    "factor.reset": "factor",
    "factor.add": "factor",
    "factor.remove": "factor",
    "password.change": "factor",
    "share.change": "share",
    "remote.exec": "remote_exec",
    "ai.discover": "ai",
    "ai.enable": "ai",
    "ai.invoke": "ai",
    "identity.create": "identity.lifecycle",
    "identity.disable": "identity.lifecycle",
    "identity.enable": "identity.lifecycle",
    "revoke": "identity.lifecycle",
    "impersonate": "act",
    "run": "ci.run",
    "silent": "token.mint",
    "credential.type": "token.mint",
    "console.login": "session",
}

FEATURES: Final[dict[str, str]] = {
    "act": "who acts on whose behalf",
    "agent": "client program (user agent)",
    "agent.grant": "what an agent is allowed to do",
    "ai": "use of AI services",
    "binding": "whether a token is bound to a device or key",
    "bytes": "amount of data read or sent",
    "ci.run": "runs of CI jobs",
    "ci.subject": "federated subject of CI and workload tokens",
    "client": "OAuth client or application",
    "consent": "consents and grants to applications",
    "credential": "id of the key or token used",
    "credential.change": "keys, secrets, owners and redirects added or removed",
    "device": "device id",
    "device_code": "device code sign-ins",
    "discovery": "listing and describing",
    "events": "any event",
    "factor": "changes of factors and passwords",
    "identity.lifecycle": "identities made, disabled, removed; tokens revoked",
    "leak": "reports of leaked credentials",
    "mail.read": "mail read",
    "mail.rule": "mail rules, forwarding, delegates",
    "objects": "number of items read",
    "origin.asn": "network (AS number) in the log itself",
    "origin.ip": "caller's address",
    "pod": "pod, node or object a token is bound to",
    "policy": "logging, detection and access policies changed",
    "privilege": "roles and permissions granted or taken",
    "remote_exec": "code run on machines through the control plane",
    "resource": "audience a token is for",
    "scopes": "scopes asked for or granted",
    "secret.read": "stored secrets read",
    "session": "session id",
    "share": "data shared with others",
    "token.mint": "tokens issued, with their ids",
    "token.refresh_chain": "which refresh token begot which",
    "token.times": "issue and expiry time of the token used",
    "tool_call": "tool calls of agents",
    "trust": "issuers, federation and role trust changed",
}

BITS: Final[dict[Bit, str]] = {
    Bit.NEW_IDENTITY: "first event of an identity",
    Bit.NEW_LIFE: "first use of a credential or session",
    Bit.UNMINTED: "first use of a credential whose issue is not known",
    Bit.LIFE_IP: "address new for the credential",
    Bit.LIFE_NET: "network new for the credential",
    Bit.LIFE_AGENT: "program new for the credential",
    Bit.LIFE_ACTION: "operation new for the credential",
    Bit.LIFE_CLIENT: "client new for the credential",
    Bit.SESSION_NEW: "first event of a session",
    Bit.SESSION_NET: "network new for the session",
    Bit.SESSION_AGENT: "program new for the session",
    Bit.SESSION_DEVICE: "device new for the session",
    Bit.SESSION_CLIENT: "client new for the session",
    Bit.SESSION_ACTION: "operation new for the session",
    Bit.IDENTITY_IP: "address new for the identity",
    Bit.IDENTITY_NET: "network new for the identity",
    Bit.IDENTITY_COUNTRY: "country new for the identity",
    Bit.IDENTITY_AGENT: "program new for the identity",
    Bit.IDENTITY_DEVICE: "device new for the identity",
    Bit.IDENTITY_CLIENT: "client new for the identity",
    Bit.IDENTITY_RESOURCE: "audience new for the identity",
    Bit.IDENTITY_ACTION: "operation new for the identity",
    Bit.IDENTITY_CLASS: "kind of operation new for the identity",
    Bit.SWITCH: "credential used from another address than last time",
    Bit.SESSION_SWITCH: "session used from another address than last time",
    Bit.GAP: "credential used again after more than 14 days",
    Bit.VOLUME: "amount of data read in a day doubled",
    Bit.NEW_COMBINATION: "known parts in a combination new for the identity",
    Bit.AFTER_DEATH: "use after the identity or credential was ended",
    Bit.PAST_END: "use after the credential's stated end",
}


def feature(need: str) -> str:
    """The feature a source provides, for the name a detection needs."""
    return FEATURE_OF_TAG.get(need, need)


def words(need: str) -> str:
    return FEATURES.get(feature(need), need)


def _sourced(rule: type[Rule], slug: str) -> bool:
    """Does it listen to this source at all?"""
    return any(not one.sources or slug.startswith(one.sources) for one in rule.subscriptions)


def lacking(rule: type[Rule], source: Source) -> list[str] | None:
    """What the source misses to feed the detection alone: nothing, the fewest features, or None where it never listens to that source."""
    if not _sourced(rule, source.slug):
        return None
    held = source.provides | {"events"}
    groups = [sorted({feature(n) for n in group} - held) for group in rule.meta.needs]
    return min(groups, key=lambda g: (len(g), g), default=[])


# ---------------------------------------------------------------- pages


def _page(*parts: str) -> str:
    return "\n".join([NOTE, "", *parts]).rstrip() + "\n"


def _list(title: str, items: Iterable[str]) -> list[str]:
    items = list(items)
    return [f"## {title}", "", *(f"- {item}" for item in items), ""] if items else []


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    head = list(head)
    made = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    made += ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows]
    return [*made, ""]


def _called(one: On) -> str:
    parts = []
    if one.kinds:
        parts.append("events of the kind " + ", ".join(f"`{k.value}`" for k in sorted(one.kinds)))
    if one.tags:
        parts.append("operations tagged " + ", ".join(f"`{t.value}`" for t in sorted(one.tags)))
    if one.sources:
        parts.append("sources whose name begins with " + ", ".join(f"`{s}`" for s in one.sources))
    if one.bits:
        parts.append("something new: " + ", ".join(text for bit, text in BITS.items() if one.bits & bit))
    return "; ".join(parts)


def _cases(slug: str) -> tuple[list[str], list[str]]:
    """Names of the cases that must be found, and of those that must stay quiet."""
    import yaml  # only the docs read YAML

    path = Path(aftergate.detections.__path__[0]) / f"{slug.replace('-', '_')}.cases.yaml"
    if not path.exists():
        return [], []
    hits: list[str] = []
    misses: list[str] = []
    for case in yaml.safe_load(path.read_text(encoding="utf-8")) or []:
        (hits if case.get("expect") else misses).append(" ".join(str(case["name"]).split()))
    return hits, misses


def detection_page(rule: type[Rule]) -> str:
    meta = rule.meta
    hits, misses = _cases(meta.slug)
    groups = [" and ".join(f"{words(n)} (`{n}`)" for n in group) for group in meta.needs] or ["nothing in particular"]
    fed = [s for s in sources().values() if lacking(rule, s) == []]
    ids = []
    for each in (*meta.attack, *meta.nhi, *meta.csf):
        name = frameworks.framework(each)
        label = {"attack": "MITRE ATT&CK", "atlas": "MITRE ATLAS", "nhi": "OWASP NHI", "csf": "NIST CSF"}.get(name or "", "")
        ids.append((f"{label} {frameworks.VERSIONS[name]}" if name else "", f"`{each}`", frameworks.title(each) or ""))
    return _page(
        f"# {meta.title}",
        "",
        f"`{meta.slug}`, severity {meta.severity}",
        "",
        meta.about,
        "",
        *_list("Needs in the logs, any one line", groups),
        *_list("Fed by", (f"[{s.title}](../sources/{s.slug}.md)" for s in fed)),
        *_list("Looks at", (_called(one) for one in rule.subscriptions)),
        *_list("Innocent look-alikes", meta.traps),
        *_list("Cannot see", meta.blind),
        *([] if not meta.recommended else ["## First to do", "", *(f"{n}. {r}" for n, r in enumerate(meta.recommended, 1)), ""]),
        "## Mapped to",
        "",
        *_table(("framework", "id", "title"), ids),
        f"A finding lowers trust; the part it took halves every {meta.half_life_d:g} days.",
        "",
        *_list("Cases it is tested with: found", hits),
        *_list("Cases it is tested with: stays quiet", misses),
    )


def detection_index() -> str:
    rules = sorted(catalogue().values(), key=lambda r: r.meta.slug)
    return _page(
        "# Detections",
        "",
        f"{len(rules)} detections. The slug is the id that findings carry; it never changes. How well they do: [quality](../quality.md).",
        "",
        *_table(
            ("detection", "severity", "what it finds"),
            ((f"[`{r.meta.slug}`]({r.meta.slug}.md)", r.meta.severity, r.meta.title) for r in rules),
        ),
    )


def source_page(source: Source, setup: Path) -> str:
    note = setup / f"{source.slug}.md"
    fed: list[type[Rule]] = []
    nearly: list[tuple[type[Rule], list[str]]] = []
    for rule in catalogue().values():
        missing = lacking(rule, source)
        if missing == []:
            fed.append(rule)
        elif missing is not None and len(missing) == 1:
            nearly.append((rule, missing))
    return _page(
        f"# {source.title}",
        "",
        f"Recognised by its content; `--source {source.slug}` names it where that fails.",
        "",
        *([note.read_text(encoding="utf-8").strip(), ""] if note.exists() else []),
        *_list("Where this log misleads", source.misleads),
        *_list("What its events can carry", (f"{FEATURES.get(f, f)} (`{f}`)" for f in sorted(source.provides))),
        *_list("Feeds", (f"[`{r.meta.slug}`](../detections/{r.meta.slug}.md) {r.meta.title}" for r in fed)),
        *_list(
            "Feeds together with a log that carries the missing part",
            (f"[`{r.meta.slug}`](../detections/{r.meta.slug}.md): {FEATURES.get(m[0], m[0])}" for r, m in nearly),
        ),
    )


def source_index() -> str:
    known = sorted(sources().values(), key=lambda s: s.slug)
    count = {s.slug: sum(lacking(r, s) == [] for r in catalogue().values()) for s in known}
    return _page(
        "# Sources",
        "",
        "Kinds of log that are recognised. Files may be JSON Lines, JSON, CSV with a JSON column, gzip or zstd; kinds may be mixed in one folder or file.",
        "",
        *_table(
            ("source", "log", "detections it feeds alone"), ((f"[`{s.slug}`]({s.slug}.md)", s.title, str(count[s.slug])) for s in known)
        ),
    )


def cli_page() -> str:
    from rich.console import Console

    from aftergate.cli.main import app

    parts = ["# Command line", ""]
    names = sorted(n for n in app if not n.startswith("-"))
    for tokens in ([], *([n] for n in names)):
        out = io.StringIO()
        app.help_print(
            tokens, console=Console(file=out, width=WIDTH, color_system=None, force_terminal=False, legacy_windows=False, _environ={})
        )
        text = "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())
        parts += [f"## `{' '.join(['aftergate', *tokens])}`", "", "```text", text, "```", ""]
    return _page(*parts)


def settings_page() -> str:
    from itertools import groupby

    from aftergate.settings import rows

    parts = [
        "# Settings of the server",
        "",
        "Each has a flag of `aftergate serve` and an environment variable; a flag goes before the variable, and that before the default. Lists are written",
        "with commas. `aftergate settings` prints them with what the environment sets now, and says whether that can be used together: combinations that",
        "are unsafe do not start ([server](server.md#what-does-not-start)).",
        "",
    ]
    for group, held in groupby(rows(), key=lambda row: row.group):
        parts += [f"## {group}", ""]
        parts += _table(
            ("setting", "environment", "type", "default", "what it does"),
            [
                (
                    f"`{row.flag}`",
                    f"`{row.variable}`",
                    row.type,
                    f"{row.default or 'empty'}{' ' + row.unit if row.unit else ''}",
                    row.help.replace("|", "\\|"),
                )
                for row in held
            ],
        )
    return _page(*parts)


def coverage() -> str:
    """Detection x source x what is needed, for machines."""
    known = sources()
    data: dict[str, Any] = {
        "features": FEATURES,
        "sources": {s.slug: {"title": s.title, "provides": sorted(s.provides)} for s in sorted(known.values(), key=lambda s: s.slug)},
        "detections": {},
    }
    for slug, rule in catalogue().items():
        feeds: dict[str, Any] = {}
        for name in sorted(known):
            missing = lacking(rule, known[name])
            if missing is not None:
                feeds[name] = {"alone": not missing, "lacks": missing}
        data["detections"][slug] = {
            "title": rule.meta.title,
            "severity": rule.meta.severity,
            "attack": list(rule.meta.attack),
            "needs_any": [[feature(n) for n in group] for group in rule.meta.needs],
            "sources": feeds,
        }
    return msgspec.json.format(msgspec.json.encode(data), indent=1).decode() + "\n"


def pages(docs: Path) -> dict[str, str]:
    """Every generated file by its path below `docs`."""
    setup = docs / "sources" / "_setup"
    made = {
        "detections/index.md": detection_index(),
        "sources/index.md": source_index(),
        "cli.md": cli_page(),
        "settings.md": settings_page(),
        "coverage.json": coverage(),
    }
    for slug, rule in catalogue().items():
        made[f"detections/{slug}.md"] = detection_page(rule)
    for slug, source in sources().items():
        made[f"sources/{slug}.md"] = source_page(source, setup)
    return made


def left_over(docs: Path, made: Iterable[str]) -> list[Path]:
    """Pages of detections and sources that are no more."""
    keep = set(made)
    found = [*docs.glob("detections/*.md"), *docs.glob("sources/*.md")]
    return sorted(p for p in found if p.relative_to(docs).as_posix() not in keep)


def differences(docs: Path) -> list[str]:
    """What `--check` complains of: one line each, nothing if all is as the code says."""
    made = pages(docs)
    wrong = [f"{p.relative_to(docs)} is left over" for p in left_over(docs, made)]
    for name, text in sorted(made.items()):
        path = docs / name
        if not path.exists():
            wrong.append(f"{name} is missing")
        elif path.read_text(encoding="utf-8") != text:
            wrong.append(f"{name} differs")
    return wrong


def write(docs: Path) -> int:
    made = pages(docs)
    for path in left_over(docs, made):
        path.unlink()
    for name, text in made.items():
        path = docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return len(made)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m aftergate.tools.docs", description="Write the generated pages below docs/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is not as the code says")
    parser.add_argument("--root", type=Path, default=Path(), help="the project's folder")
    args = parser.parse_args(argv)
    docs = args.root / "docs"
    if args.check:
        wrong = differences(docs)
        for line in wrong:
            sys.stderr.write(f"docs/{line}\n")
        if wrong:
            sys.stderr.write("run: python -m aftergate.tools.docs\n")
        return 1 if wrong else 0
    sys.stdout.write(f"{write(docs)} pages written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
