"""`aftergate settings`."""

from __future__ import annotations

from cyclopts import App

from aftergate.cli.options import Json


def register(app: App) -> None:
    app.command(settings)


def settings(*, json: Json = False) -> int:
    """List the server's settings: flag, environment variable, unit, default, what it does; and what the environment sets now.

    Exit codes: 0 they could be used together, 1 they could not: the reasons are printed.
    """
    import os
    import sys

    import msgspec
    from rich.console import Console
    from rich.table import Table

    from aftergate.settings import load, rows

    if json:
        sys.stdout.buffer.write(msgspec.json.encode([row._asdict() for row in rows()]) + b"\n")
    else:
        group = ""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("setting", "default", "what it does"):
            table.add_column(title, overflow="fold")
        for row in rows():
            if row.group != group:
                group = row.group
                table.add_row(f"[bold]{group}[/bold]", "", "")
            now = f"\n[green]now from the environment: {os.environ[row.variable]}[/green]" if os.environ.get(row.variable) else ""
            table.add_row(f"{row.flag}\n[dim]{row.variable}[/dim]", f"{row.default} {row.unit}".strip(), row.help.replace("[", r"\[") + now)
        Console(highlight=False).print(table)
    load({})  # raises what is wrong with the environment's settings together
    return 0
