"""`aftergate serve`."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Final

from cyclopts import App, Group, Parameter

from aftergate.settings import rows

HELP: Final = """Answer, before each sensitive step: may this identity, with this credential, do exactly this, now?

Decisions (OpenID AuthZEN) on live trust, approvals bound to one transaction, tokens that live as long as a task, and a log that proves it.
Without any setting it listens on this machine, keeps SQLite in `aftergate-data`, uses the starter policies, and makes a first key.

Every setting can also be given by the environment variable shown beside it.

Examples:

    aftergate serve

    aftergate serve --policies policies/ --entities entities.json --api-key-file keys.txt

    aftergate serve --listen 0.0.0.0:8443 --public-url https://aftergate.example.org --tls-certificate cert.pem --tls-key key.pem

Exit codes: 0 stopped as asked, 1 could not start or had to stop, 2 wrong usage.
"""


def register(app: App) -> None:
    groups: dict[str, Group] = {}
    parameters: list[inspect.Parameter] = []
    for order, row in enumerate(rows()):
        group = groups.setdefault(row.group, Group(row.group, sort_key=order))
        shown = f"{row.help} [default: {row.default or 'empty'}{' ' + row.unit if row.unit else ''}]"
        how = Parameter(name=row.flag, help=shown, env_var=row.variable, group=group, negative="")
        kind: Any = {"text": str, "number": int, "list": str}[row.type]
        parameters.append(inspect.Parameter(row.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, how]))

    def serve(**given: Any) -> int:
        from aftergate.api.run import run

        return run(given)

    serve.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]  # the settings table is the signature
    serve.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": int}
    serve.__doc__ = HELP
    app.command(serve, name="serve")
