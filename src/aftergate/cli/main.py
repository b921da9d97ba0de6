"""`aftergate`: sub-commands. Heavy imports live inside the command that needs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Group, Parameter

from aftergate import __version__
from aftergate.cli.commands import register_all
from aftergate.errors import AftergateError

EXIT_FINDINGS = 3

app = App(
    name="aftergate",
    version=__version__,
    help=(
        "What happens after login: finds abused tokens, sessions and machine identities in the logs you have.\n\n"
        "Start with `aftergate scan FOLDER --report report.html`."
    ),
    help_format="markdown",
)
app.register_install_completion_command()

READ = Group("Reading", sort_key=1)
OUT = Group("Output", sort_key=2)
RUN = Group("Running", sort_key=3)

FailOn = Literal["low", "medium", "high", "critical"]
Many = Parameter(group=READ, negative="", consume_multiple=True)


@app.command
def scan(
    *paths: Annotated[str, Parameter(help="Files, folders, or `-` for standard input.")],
    source: Annotated[str | None, Parameter(group=READ)] = None,
    inventory: Annotated[Path | None, Parameter(group=READ)] = None,
    mmdb: Annotated[tuple[Path, ...], Many] = (),
    tables: Annotated[bool | None, Parameter(group=READ)] = None,
    lateness: Annotated[float, Parameter(group=READ)] = 48.0,
    strict: Annotated[bool, Parameter(group=READ, negative="")] = False,
    findings: Annotated[Path | None, Parameter(group=OUT)] = None,
    summary: Annotated[Path | None, Parameter(group=OUT)] = None,
    report: Annotated[Path | None, Parameter(group=OUT)] = None,
    ocsf: Annotated[Path | None, Parameter(group=OUT)] = None,
    into: Annotated[str | None, Parameter(group=OUT)] = None,
    into_key_file: Annotated[Path | None, Parameter(group=OUT)] = None,
    set_aside: Annotated[Path | None, Parameter(group=OUT)] = None,
    fail_on: Annotated[FailOn | None, Parameter(group=OUT)] = None,
    all_findings: Annotated[bool, Parameter(name="--all", group=OUT, negative="")] = False,
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"), group=OUT, negative="")] = False,
    jobs: Annotated[int, Parameter(name=("--jobs", "-j"), group=RUN)] = 1,
) -> int:
    """Read logs, find abused tokens, sessions and machine identities.

    The source of each record is recognised from its shape: Entra ID, Microsoft Graph and 365, Azure, Okta, AWS CloudTrail, GitHub, Google, Kubernetes, Auth0,
    Keycloak, Vault, agent gateways, OCSF and more (`aftergate sources`). NDJSON, JSON, CSV with a JSON column, gzip and zstd are read as they are.

    Examples:

        aftergate scan logs/ --report report.html

        aftergate scan cloudtrail/*.json.gz entra/ --findings findings.jsonl --fail-on high

        zcat audit.jsonl.gz | aftergate scan - --source kubernetes.audit

    Exit codes: 0 done, 1 could not run, 2 wrong usage, 3 with `--fail-on` when a finding of that severity or more was made.

    Parameters
    ----------
    source
        Take every record as this source instead of recognising it.
    inventory
        Owners, kinds, egress, tickets of your identities (JSON, may be gzip). Quieter with it, right without.
    mmdb
        MaxMind-format databases of your own for ASN, country or network kind.
    tables
        Use the offline tables of the `enrich` extra; as installed, if not said.
    lateness
        Hours by which a record may be out of order within an input.
    strict
        Stop at the first record that cannot be read.
    findings
        Write findings here, one JSON object a line.
    summary
        Write the run's figures here, as JSON.
    report
        Write one HTML file with incidents and their pictures.
    ocsf
        Write findings as OCSF Detection Finding, one a line.
    into
        Send findings to a running `aftergate serve` (its URL) or into its data directory: they lower live trust at once. Sending again does no harm.
    into_key_file
        File whose first word is an API key with the scope `findings`, for --into URL; the environment variable AFTERGATE_KEY, if not said.
    set_aside
        Write what could not be read here: file, offset, reason, record (secrets masked).
    fail_on
        Exit with 3 if a finding of this severity or more was made.
    all_findings
        Show low findings too, and every one.
    quiet
        No table and no progress on the terminal.
    jobs
        Processes that decode; findings are the same whatever the number.
    """
    from aftergate.cli.scanning import Outputs, run_scan
    from aftergate.pipeline.scan import Options

    options = Options(
        paths=list(paths), source=source, jobs=max(1, jobs), mmdb=mmdb, tables=tables, lateness_ms=int(lateness * 3_600_000), strict=strict
    )
    outputs = Outputs(findings, summary, report, ocsf, set_aside, into, into_key_file, show_all=all_findings, quiet=quiet)
    worst = run_scan(options, inventory, outputs)
    return EXIT_FINDINGS if fail_on is not None and worst is not None and _reaches(worst, fail_on) else 0


@app.command
def events(
    *paths: str,
    format: Annotated[Literal["jsonl", "ocsf"], Parameter(name="--format")] = "jsonl",  # noqa: A002
    source: str | None = None,
    tables: bool | None = None,
) -> int:
    """Print normalised events, one JSON object a line, in order of time.

    Examples:

        aftergate events okta.jsonl | head

        aftergate events logs/ --format ocsf > events.ocsf.jsonl

    Parameters
    ----------
    format
        `jsonl` is Aftergate's own event; `ocsf` validates against OCSF 1.x.
    source
        Take every record as this source instead of recognising it.
    tables
        Use the offline tables of the `enrich` extra.
    """
    from aftergate.cli.printing import print_events
    from aftergate.pipeline.scan import Options

    return print_events(Options(paths=list(paths), source=source, tables=tables), format)


@app.command
def timeline(
    *paths: str,
    credential: str | None = None,
    session: str | None = None,
    identity: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    source: str | None = None,
    inventory: Path | None = None,
    limit: int = 400,
) -> int:
    """Print the life of one credential, session or identity in order: issue, refresh, use, findings.

    Examples:

        aftergate timeline logs/ --credential AKIAIOSFODNN7EXAMPLE

        aftergate timeline logs/ --identity ada@corp.example --json

    Parameters
    ----------
    credential
        Id of a key or token as the logs write it.
    session
        Session id as the logs write it.
    identity
        Any id or name of an identity.
    json
        One JSON object a line instead of a table.
    source
        Take every record as this source instead of recognising it.
    inventory
        As for `scan`.
    limit
        Longest table printed; the middle is left out and counted.
    """
    from aftergate.cli.printing import print_timeline
    from aftergate.pipeline.scan import Options

    chosen = [(k, v) for k, v in (("credential", credential), ("session", session), ("identity", identity)) if v]
    if len(chosen) != 1:
        print("aftergate: name one of --credential, --session and --identity", file=sys.stderr)
        return 2
    return print_timeline(Options(paths=list(paths), source=source), chosen[0][0], chosen[0][1], inventory, as_json=json, limit=limit)


@app.command
def sources(*, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """List the kinds of log that are recognised, and where each misleads.

    Examples of use:

        aftergate sources

        aftergate sources --json | jq -r .slug

    Parameters
    ----------
    json
        One JSON object a line instead of a table.
    """
    from aftergate.cli.printing import print_sources

    return print_sources(as_json=json)


@app.command
def detections(slug: str | None = None, *, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """List the detections, or tell all about one.

    Examples:

        aftergate detections tok-refresh-reuse

    Parameters
    ----------
    slug
        Tell all about this one.
    json
        One JSON object a line instead of a table.
    """
    from aftergate.cli.printing import print_detections

    return print_detections(slug, as_json=json)


register_all(app)


def _reaches(worst: str, floor: str) -> bool:
    from aftergate.vocabulary import RANK

    return RANK[worst] >= RANK[floor]


def _arguments(words: list[str]) -> list[str]:
    """`-` alone stands for standard input, which the parser would take for an option: it goes behind `--`, where order does not matter."""
    if "-" not in words:
        return words
    rest = [word for word in words if word != "-"]
    return [*rest, "-"] if "--" in rest else [*rest, "--", "-"]


def main() -> None:
    """Entry point. Errors of ours end in one line and exit code 1; a closed pipe ends quietly."""
    try:
        code = app(_arguments(sys.argv[1:]), result_action="return_value")
    except AftergateError as error:
        print(f"aftergate: {error}", file=sys.stderr)
        code = 1
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except KeyboardInterrupt:
        print("aftergate: stopped", file=sys.stderr)
        code = 130
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
