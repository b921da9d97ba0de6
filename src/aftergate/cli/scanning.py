"""The `scan` command: progress while it runs, then a table for people and files for machines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from aftergate.errors import ConfigError
from aftergate.events.clock import to_iso
from aftergate.pipeline.outputs import conclude, finding_json, summary, write_findings, write_summary
from aftergate.pipeline.reading import Fault
from aftergate.pipeline.scan import Options, scan
from aftergate.pipeline.set_aside import SetAside
from aftergate.risk.incidents import Incident
from aftergate.vocabulary import RANK, Finding, Severity

STYLE = {"critical": "bold white on red", "high": "bold red", "medium": "yellow", "low": "cyan", "info": "dim"}
MOST_SHOWN = 20


class Outputs(Struct):
    """Where the answers go."""

    findings: Path | None = None
    summary: Path | None = None
    report: Path | None = None
    ocsf: Path | None = None
    set_aside: Path | None = None
    into: str | None = None  # a server's URL, or its data directory
    into_key_file: Path | None = None
    show_all: bool = False
    quiet: bool = False


def run_scan(options: Options, inventory: Path | None, outputs: Outputs) -> Severity | None:
    """Scan and write everything asked for; the answer is the worst severity found, None if nothing was.

    Raises: AftergateError, with what to do, if an input, the inventory or an output cannot be used.
    """
    if not options.paths:
        raise ConfigError("no logs named", hint="give files, folders, or - for standard input; see aftergate scan --help")
    for path in (outputs.findings, outputs.summary, outputs.report, outputs.ocsf, outputs.set_aside):
        if path is not None and not path.parent.exists():
            raise ConfigError(f"folder `{path.parent}` does not exist", where=str(path), hint="make it, or name another place")
    if outputs.into is not None:
        _reachable(outputs)
    directory = None
    if inventory is not None:
        from aftergate.inventory import Inventory

        directory = Inventory.load(inventory)
    keep = None
    if outputs.set_aside is not None:
        keep = SetAside(outputs.set_aside)
    stderr = Console(stderr=True)
    try:
        with _Bar(stderr, shown=not outputs.quiet and stderr.is_terminal) as bar:
            engine, counts = scan(options, directory=directory, set_aside=_keeper(keep), progress=bar.update)
    finally:
        if keep is not None:
            keep.close()
    findings, incidents = conclude(engine)
    data = summary(engine, counts, findings)
    if outputs.findings is not None:
        write_findings(findings, outputs.findings)
    if outputs.summary is not None:
        write_summary(data, outputs.summary)
    if outputs.ocsf is not None:
        import msgspec

        from aftergate.pipeline.ocsf_out import finding_to_ocsf

        with outputs.ocsf.open("wb") as out:
            for finding in findings:
                out.write(msgspec.json.encode(finding_to_ocsf(finding)) + b"\n")
    if outputs.report is not None:
        from aftergate.report.build import write_report

        write_report(outputs.report, options, engine, findings, incidents, data)
    if not outputs.quiet:
        show(Console(), incidents, data, outputs)
    if outputs.into is not None:
        _send(findings, outputs)
    return max((f.severity for f in findings), key=RANK.__getitem__, default=None)


def _is_url(into: str) -> bool:
    return into.startswith(("http://", "https://"))


def _reachable(outputs: Outputs) -> None:
    """What can be seen to be wrong before the logs are read. Raises: ConfigError."""
    assert outputs.into is not None
    if _is_url(outputs.into):
        from aftergate.cli.places import key_of

        key_of(outputs.into_key_file, "--into-key-file")
    elif not Path(outputs.into).is_dir():
        raise ConfigError(
            "neither a server's URL nor a data directory", where=f"--into {outputs.into}", hint="for example http://localhost:8181"
        )


def _send(findings: list[Finding], outputs: Outputs) -> None:
    """Raises: AftergateError, if they could not be sent; what was written stays."""
    import msgspec

    from aftergate.cli.feeding import feed, told

    assert outputs.into is not None
    url = outputs.into if _is_url(outputs.into) else None
    encode = msgspec.json.Encoder(order="deterministic").encode
    lines = [encode(finding_json(finding)) for finding in findings]
    result = feed(
        lines, server=url, data=None if url else Path(outputs.into), database=None, key_file=outputs.into_key_file, flag="--into-key-file"
    )
    if not outputs.quiet or result.set_aside:
        Console(stderr=bool(result.set_aside), highlight=False).print(told(result), soft_wrap=True, markup=False)


def _keeper(keep: SetAside | None) -> Callable[[Fault], None] | None:
    if keep is None:
        return None
    return lambda fault: keep.add(fault.name, fault.offset, fault.reason, fault.record)


class _Bar:
    """Progress with rate and time left, on a terminal only."""

    def __init__(self, console: Console, *, shown: bool) -> None:
        self.progress = (
            Progress(
                TextColumn("reading"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[records]:,} records"),
                TextColumn("{task.fields[rate]:,}/s"), TimeRemainingColumn(), console=console, transient=True,
            )
            if shown
            else None
        )  # fmt: skip
        self.task = self.progress.add_task("reading", total=None, records=0, rate=0) if self.progress is not None else None

    def __enter__(self) -> Self:
        if self.progress is not None:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.progress is not None:
            self.progress.stop()

    def update(self, done: int, total: int, records: int) -> None:
        if self.progress is None or self.task is None:
            return
        elapsed = self.progress.tasks[self.task].elapsed or 0.0
        rate = int(records / elapsed) if elapsed > 0 else 0
        self.progress.update(self.task, completed=done, total=total or None, records=records, rate=rate)


def show(console: Console, incidents: list[Incident], data: dict[str, Any], outputs: Outputs) -> None:
    """Incidents, most urgent first, each with why in a line or two; then what was read and what could not be seen."""
    shown = [i for i in incidents if outputs.show_all or RANK[i.severity] >= RANK["medium"]]
    hidden = len(incidents) - len(shown)
    if shown:
        table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold", padding=(0, 2, 1, 0))
        table.add_column("severity", no_wrap=True)
        table.add_column("when (UTC)", no_wrap=True)
        table.add_column("trust", justify="right", no_wrap=True)
        table.add_column("what, and why", overflow="fold")
        for incident in shown if outputs.show_all else shown[:MOST_SHOWN]:
            subject = next((s[0] for s in (incident.subject.identity, incident.subject.credential, incident.subject.session) if s), "")
            body = Text(incident.title, style="bold")
            body.append(f"\n{incident.narrative}", style="not bold")
            body.append(f"\n{subject}", style="cyan")
            body.append(f"  {', '.join(incident.detections)}", style="dim")
            if incident.recommended:
                body.append(f"\nfirst: {incident.recommended[0]}", style="green")
            table.add_row(
                Text(incident.severity, style=STYLE[incident.severity]),
                to_iso(incident.started)[:16].replace("T", " "),
                str(incident.trust),
                body,
            )
        console.print(table)
        if len(shown) > MOST_SHOWN and not outputs.show_all:
            console.print(f"... and {len(shown) - MOST_SHOWN} more incidents; --all shows them", style="dim")
    else:
        console.print("No finding of medium severity or more.", style="bold green")
    counts = data["findings"]["by_severity"]
    console.print(
        Text.assemble(
            (f"{len(incidents)} incidents", "bold"),
            f" from {data['findings']['total']} findings (",
            ", ".join(f"{counts[s]} {s}" for s in ("critical", "high", "medium", "low") if counts.get(s)) or "none",
            ")" + (f"; {hidden} low not shown, --all shows them" if hidden else ""),
        )
    )
    console.print(
        f"{data['read']:,} records = {data['normalised']:,} normalised + {data['duplicates']:,} duplicates + {data['set_aside']:,} set aside; "
        f"{data['seconds']:.1f} s, {data['events_per_second']:,} a second",
        soft_wrap=True,
    )
    for slug, source in data["sources"].items():
        rate = data["join_rates"].get(slug, {}).get("rate")
        joined = f", mint known for {rate:.0%} of uses" if rate is not None else ""
        console.print(f"  {source['title']}: {source['records']:,} records{joined}", style="dim", soft_wrap=True)
    if data["set_aside"] and outputs.set_aside is None:
        console.print("  --set-aside FILE keeps what could not be read, with file, offset and reason", style="yellow", soft_wrap=True)
    blind = data["cannot_fire"]
    if blind:
        console.print(
            f"  {len(blind)} of the detections cannot fire on these logs; --summary FILE tells which and what they miss",
            style="dim",
            soft_wrap=True,
        )
    written = [str(p) for p in (outputs.report, outputs.findings, outputs.summary, outputs.ocsf, outputs.set_aside) if p is not None]
    if written:
        console.print(f"written: {', '.join(written)}", soft_wrap=True)
