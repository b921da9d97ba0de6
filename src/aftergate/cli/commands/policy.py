"""`aftergate policy check | test | explain | shadow`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from aftergate.cli.options import Directory, Json

FOUND = 3
HERE: Final = Directory()
DIRECTORY = Annotated[Path | None, Parameter(help="Policy directory; without one, the starter policies.")]
ENTITIES = Annotated[Path | None, Parameter(help="Entities in Cedar's JSON.")]

policy = App(name="policy", help="Check, test and explain policies; see what a change of them would change.")


@policy.command
def check(directory: DIRECTORY = None, /, *, entities: ENTITIES = None, json: Json = False) -> int:
    """Read a policy directory as the server would, and say everything that is wrong with it, by file and line.

    Examples:

        aftergate policy check policies/

        aftergate policy check policies/ --entities entities.json --json

    Exit codes: 0 the set can be used, 1 could not run, 2 wrong usage, 3 something is wrong with it.
    """
    from aftergate.cli.policies import run_check

    return FOUND if run_check(directory, entities, as_json=json) else 0


@policy.command(name="test")
def run_cases(directory: DIRECTORY = None, /, *, entities: ENTITIES = None, json: Json = False) -> int:
    """Run the cases beside the policies: `cases/*.yaml`, each a request and the answer it must get.

    Examples:

        aftergate policy test policies/ --entities entities.json

    Exit codes: 0 every case holds, 1 could not run (a broken set, no cases), 2 wrong usage, 3 a case does not hold.
    """
    from aftergate.cli.policies import run_test

    return FOUND if run_test(directory, entities, as_json=json) else 0


@policy.command
def explain(
    request: Annotated[str, Parameter(help="File with an AuthZEN evaluation request, or `-` for standard input.")],
    directory: DIRECTORY = None,
    /,
    *,
    entities: ENTITIES = None,
    live: Annotated[str, Parameter(help='Facts as JSON, as a case writes them: {"trust": {"identity": 40}, "findings": ["a-slug"]}.')] = "",
    json: Json = False,
) -> int:
    """Decide one request and show why: which policies could matter, which of them hold, and what would change the answer.

    Examples:

        aftergate policy explain request.json policies/ --entities entities.json

        aftergate policy explain - policies/ --live '{"trust": {"identity": 30}}' < request.json

    Exit codes: 0 answered (permit or deny), 1 could not run, 2 wrong usage.
    """
    from aftergate.cli.policies import run_explain

    run_explain(request, directory, entities, live, as_json=json)
    return 0


@policy.command
def shadow(
    candidate: Annotated[Path, Parameter(help="Directory with the candidate set.")],
    directory: DIRECTORY = None,
    /,
    *,
    entities: ENTITIES = None,
    requests: Annotated[Path | None, Parameter(help="Requests to decide with both sets, one JSON object a line.")] = None,
    place: Directory = HERE,
    days: Annotated[float, Parameter(help="How far back recorded decisions are taken.")] = 7.0,
    fail_on_change: Annotated[bool, Parameter(negative="", help="Exit with 3 if an answer changes.")] = False,
    json: Json = False,
) -> int:
    """Decide again what was decided, with the live set and with a candidate, on the facts of then; list every changed answer.

    Without --requests, the decisions that the server recorded are taken. Live traffic is compared by the server itself:
    `aftergate serve --shadow-policies DIR`, then `GET /v1/policies/shadow`.

    Examples:

        aftergate policy shadow candidate/ policies/ --entities entities.json --data aftergate-data

        aftergate policy shadow candidate/ policies/ --requests requests.jsonl --fail-on-change

    Exit codes: 0 done, 1 could not run, 2 wrong usage, 3 with `--fail-on-change` when an answer changes.
    """
    from aftergate.cli.policies import run_shadow

    changed = run_shadow(candidate, directory, entities, requests, place, days, as_json=json)
    return FOUND if changed and fail_on_change else 0


def register(app: App) -> None:
    app.command(policy)
