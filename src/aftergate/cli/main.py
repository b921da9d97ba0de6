"""`aftergate`: sub-commands. Heavy imports live inside the command that needs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

app = App(name="aftergate", help="What happens after login: finds abused tokens, sessions and machine identities in the logs you have.")


@app.command
def scan(
    *paths: str,
    findings: Path | None = None,
    summary: Path | None = None,
    source: str | None = None,
    inventory: Path | None = None,
    jobs: int = 1,
    mmdb: Annotated[tuple[Path, ...], Parameter(negative="")] = (),
    fail_on: str | None = None,
    strict: bool = False,
) -> int:
    """Read logs, report findings."""
    from aftergate.inventory import load_inventory
    from aftergate.pipeline.outputs import conclude, write_findings, write_summary
    from aftergate.pipeline.outputs import summary as summarise
    from aftergate.pipeline.scan import Options
    from aftergate.pipeline.scan import scan as run

    directory = load_inventory(inventory) if inventory is not None else None
    engine, counts = run(Options(paths=paths, source=source, jobs=jobs, mmdb=mmdb, strict=strict), directory=directory)
    found, _ = conclude(engine)
    if findings is not None:
        write_findings(found, findings)
    data = summarise(engine, counts, found)
    if summary is not None:
        write_summary(data, summary)
    for finding in found[:40]:
        print(finding.severity, finding.detection, finding.narrative)  # noqa: T201
    return 0


def main() -> None:
    sys.exit(app())
