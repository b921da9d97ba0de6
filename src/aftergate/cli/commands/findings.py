"""`aftergate findings`: what live trust rests on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import App

from aftergate.cli.options import Flag, Json, Place, Running, key_option


@dataclass(frozen=True)
class Where(Place):
    key_file: Annotated[Path | None, key_option("`findings`; to close one `admin`")] = None


@dataclass(frozen=True)
class Serving(Running):
    key_file: Annotated[Path | None, key_option("scope `findings`")] = None


HERE: Final = Where()
SERVING: Final = Serving()

findings = App(
    name="findings", help="Findings that a server holds: they lower trust until they fade or somebody closes them.", help_format="markdown"
)


def register(app: App) -> None:
    app.command(findings)


@findings.command
def send(path: Path, /, *, place: Where = HERE) -> int:
    """Send findings that `aftergate scan --findings` wrote. Sending them again changes nothing.

    Exit codes: 0 all were taken, 1 some were set aside (their lines are printed) or none could be sent.
    """
    from aftergate.cli.feeding import feed, told
    from aftergate.errors import ConfigError

    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from None
    result = feed(lines, server=place.server, data=place.data, database=place.database, key_file=place.key_file, flag="--key-file")
    print(told(result))
    return 1 if result.set_aside else 0


@findings.command(name="list")
def list_(
    *,
    subject: str = "",
    closed: Flag = False,
    limit: int = 100,
    json: Json = False,
    place: Where = HERE,
) -> int:
    """List findings, newest first.

    Parameters
    ----------
    subject
        Only those that name this identity, session or credential.
    closed
        Closed ones too.
    limit
        At most so many.
    """
    from itertools import islice

    import msgspec

    from aftergate.cli.places import client, ground

    rows: list[dict[str, Any]]
    if place.server is not None:
        with client(place.server, place.key_file) as gate:
            rows = list(islice(gate.findings(subject, closed=closed), limit))
    else:
        from aftergate.api.routes.findings import shown
        from aftergate.stores import findings as store

        with ground(place.data, place.database) as opened, opened.db.read() as connection:
            held = store.listed(connection, subject=subject or None, open_only=not closed, limit=limit)
            rows = [msgspec.to_builtins(shown(one)) for one in held]
    if json:
        sys.stdout.buffer.write(msgspec.json.encode(rows) + b"\n")
        return 0
    from aftergate.cli.tables import print_rows

    cells: list[tuple[str, ...]] = []
    for row in rows:
        finding = row["finding"]
        names = [name for level in finding["subject"].values() for name in (level if isinstance(level, list) else [level])]
        subject, ended = names[0] if names else "", row.get("closed", "")[:16]
        cells.append((finding["id"], finding["severity"], finding["time"][:16], finding["detection"], subject, ended))
    titles = ("id", "severity", "time", "detection", "subject", "closed")
    print_rows(titles, cells, folded=("subject",), spare=("time", "severity", "closed"))
    return 0


@findings.command
def close(finding_id: str, /, reason: str, *, place: Where = HERE) -> int:
    """Close a finding that was looked into, with the reason: trust no longer suffers from it. Recorded.

    Examples:

        aftergate findings close f-3b1c "the new laptop, confirmed with Ada by phone"
    """
    from aftergate.cli.places import client, ground, operator
    from aftergate.errors import ConfigError

    if place.server is not None:
        with client(place.server, place.key_file) as gate:
            gate.close_finding(finding_id, reason)
    else:
        from aftergate.service.findings import close as closing

        with ground(place.data, place.database) as opened:
            if not closing(opened, finding_id, reason, by=operator()):
                raise ConfigError("no finding with this id is open", where=finding_id, hint="`aftergate findings list` shows them")
    print(f"{finding_id}: closed")
    return 0


@findings.command
def trust(
    *,
    identity: tuple[str, ...] = (),
    session: tuple[str, ...] = (),
    credential: tuple[str, ...] = (),
    place: Serving = SERVING,
    json: Json = False,
) -> int:
    """Print how an identity, a session and a credential stand now, 0 to 100, and which findings did it."""
    import msgspec

    from aftergate.cli.places import client

    with client(place.server, place.key_file) as gate:
        held = gate.trust(identity=identity, session=session, credential=credential)
    if json:
        sys.stdout.buffer.write(msgspec.json.encode(held) + b"\n")
        return 0
    for name, given, value in (
        ("identity", identity, held.identity), ("session", session, held.session), ("credential", credential, held.credential),
    ):  # fmt: skip
        if given:
            print(f"{name:<11}{value:>4}  {', '.join(given)}")
    for reason in held.reasons:
        print(f"  -{reason.points:<6g} {reason.detection}  {reason.finding}")
    return 0
