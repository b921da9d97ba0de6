"""`aftergate keys`: make, list and revoke callers' API keys."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import App

from aftergate.cli.options import Json, Place, key_option


@dataclass(frozen=True)
class Where(Place):
    key_file: Annotated[Path | None, key_option("scope `admin`")] = None


HERE: Final = Where()
ALL = "decide,request,tasks,findings,audit,admin,metrics"

keys = App(name="keys", help="API keys of callers: made here, shown once, revoked here.", help_format="markdown")


def register(app: App) -> None:
    app.command(keys)


@keys.command
def create(
    name: str,
    /,
    *,
    scopes: str = "decide",
    expires_days: int | None = None,
    place: Where = HERE,
) -> int:
    """Make a key and print it, this one time. Only a keyed hash of it is kept.

    Scopes: `decide` ask for decisions and searches, `request` ask for approvals, `tasks` declare tasks and exchange tokens, `findings` send findings and
    read trust, `audit` read the log, `admin` keys, policies, people, `metrics` metrics and status.

    Examples:

        aftergate keys create payments-api --scopes decide,request

        aftergate keys create siem --scopes findings --expires-days 90 --server https://aftergate.example.org --key-file admin.key

    Parameters
    ----------
    name
        Who will hold it; shown in lists and in the audit log by the key's id.
    scopes
        What it may do, with commas.
    expires_days
        Days until it ends; it lives until it is revoked, if not said.
    """
    from aftergate.cli.places import client, ground, operator

    wanted = [part.strip() for part in scopes.split(",") if part.strip()]
    if place.server is not None:
        with client(place.server, place.key_file) as gate:
            made = gate.create_key(name, wanted, expires_in_days=expires_days)
        clear, key_id, held = made.key, made.entry.id, made.entry.scopes
    else:
        with ground(place.data, place.database, there=False) as opened:
            opened.keys.refresh()
            expires = None if expires_days is None else opened.clock() + expires_days * 86_400_000
            clear, entry = opened.keys.create(name, wanted, by=operator(), expires_ms=expires)
        key_id, held = entry.id, sorted(entry.scopes)
    # The key alone on standard output, so that it can be piped into a secret store.
    print(clear)
    print(f"{key_id}: {name}, may {', '.join(held)}. It is not shown again.", file=sys.stderr)
    return 0


@keys.command(name="list")
def list_(*, json: Json = False, place: Where = HERE) -> int:
    """List all keys: id, name, scopes, when made, last used, ended. The keys themselves are nowhere."""
    import msgspec

    from aftergate.cli.places import client, ground

    rows: list[dict[str, Any]]
    if place.server is not None:
        with client(place.server, place.key_file) as gate:
            rows = [msgspec.to_builtins(each) for each in gate.list_keys()]
    else:
        from aftergate.api.routes.keys import shown

        with ground(place.data, place.database) as opened:
            now = opened.clock()
            rows = [msgspec.to_builtins(shown(each, now)) for each in opened.keys.all()]
    if json:
        sys.stdout.buffer.write(msgspec.json.encode(rows) + b"\n")
        return 0
    from aftergate.cli.tables import print_rows

    print_rows(
        ("id", "name", "scopes", "made", "last used", "ends"),
        [
            (
                row["id"],
                row["name"],
                ", ".join(row["scopes"]),
                row["created"][:16],
                row.get("last_used", "")[:16],
                f"revoked {row['revoked'][:16]}" if row.get("revoked") else row.get("expires", "")[:16],
            )
            for row in rows
        ],
        folded=("name", "scopes"),
        spare=("made", "last used", "ends"),
        dim={number for number, row in enumerate(rows) if not row["usable"]},
    )
    return 0


@keys.command
def revoke(key_id: str, /, *, place: Where = HERE) -> int:
    """Take a key back. Running servers refuse it within `trust_refresh_ms` (half a second, if not set otherwise).

    Exit codes: 0 revoked, 1 there is no such key in use.
    """
    from aftergate.cli.places import client, ground, operator
    from aftergate.errors import ConfigError

    if place.server is not None:
        from aftergate.client import Refused

        try:
            with client(place.server, place.key_file) as gate:
                gate.revoke_key(key_id)
            done = True
        except Refused as error:
            if error.status != 404:
                raise
            done = False
    else:
        with ground(place.data, place.database) as opened:
            done = opened.keys.revoke(key_id, by=operator())
    if not done:
        raise ConfigError("no key with this id is in use", where=key_id, hint="`aftergate keys list` shows them")
    print(f"{key_id}: revoked")
    return 0
