"""`aftergate audit`: export the log, verify an export anywhere, tell a transaction's story, keep checkpoints, forget a person."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Group, Parameter

from aftergate.cli.options import Directory, Flag, Json, Place, key_option


@dataclass(frozen=True)
class Where(Place):
    key_file: Annotated[Path | None, key_option("scope `audit`")] = None


HERE: Final = Where()
TRUST: Final = Group("What you trust", sort_key=2)
Trusted: Final = Parameter(group=TRUST, negative="", consume_multiple=True)

audit = App(name="audit", help="The log that proves what was decided, approved and done.", help_format="markdown")


def register(app: App) -> None:
    app.command(audit)


@audit.command
def verify(
    bundle: Path,
    /,
    *,
    known: Annotated[tuple[Path, ...], Trusted] = (),
    key: Annotated[tuple[str, ...], Trusted] = (),
    record: Annotated[Path | None, Parameter(group=TRUST)] = None,
    origin: Annotated[tuple[str, ...], Trusted] = (),
    rp_id: Annotated[tuple[str, ...], Trusted] = (),
    strict: Flag = False,
    json: Json = False,
) -> int:
    """Verify an export: no server, no network, no database.

    Every record's inclusion, consistency of all checkpoints, gaps in the numbers, key windows, heartbeats, and every approval's WebAuthn evidence anew.
    What was edited, deleted, inserted, moved, cut off, forked, rolled back or signed by a wrong key is found; the last four only against something
    you kept yourself: a checkpoint (`--known`) or a key (`--key`).

    Examples:

        aftergate audit verify audit.tar.gz --known checkpoint-january.txt

        aftergate audit verify 17.tlog-proof --record 17.json --key 'log.example/a+1a2b3c4d+AZ...'

    Exit codes: 0 all holds, 1 something does not, 2 wrong usage.

    Parameters
    ----------
    bundle
        A folder or .tar.gz that `aftergate audit export` wrote, or one record's .tlog-proof.
    known
        Checkpoints you kept; each must be a head of this very log.
    key
        Public keys you trust, as `aftergate audit keys` prints them, or files that hold them.
    record
        With a .tlog-proof: the record it proves.
    origin
        Sites where approvals may have been made, such as `https://approve.example`.
    rp_id
        WebAuthn relying parties that approvals may belong to.
    strict
        Let warnings fail too.
    """
    from aftergate.cli.auditing import run_proof, run_verify

    if bundle.suffix == ".tlog-proof":
        return run_proof(bundle, record, key)
    return run_verify(bundle, known=known, keys=key, origins=origin, rp_ids=rp_id, strict=strict, as_json=json)


@audit.command
def export(
    target: Path,
    /,
    *,
    personal: Flag = False,
    place: Where = HERE,
) -> int:
    """Write the whole log as one bundle that verifies offline.

    A name that ends in .tar.gz makes one file, any other a folder. Evidence of approvals is always in it. The export is itself recorded.

    Examples:

        aftergate audit export audit.tar.gz

        aftergate audit export audit.tar.gz --server https://aftergate.example --key-file auditor.key

    Parameters
    ----------
    target
        File or folder to write; it must not exist.
    personal
        Names of people and requests too, as far as they were not erased.
    """
    from aftergate.cli.auditing import run_export

    return run_export(target, personal=personal, place=place)


@audit.command
def show(
    transaction: Annotated[str | None, Parameter(name=("--transaction", "-t"))] = None,
    *,
    last: Annotated[int | None, Parameter(help="The newest so many records instead.")] = None,
    json: Json = False,
    place: Where = HERE,
) -> int:
    """Tell one transaction in ten lines: who asked, who approved, when, under which risk, what ran.

    Examples:

        aftergate audit show --transaction req_Zk3v...

        aftergate audit show --last 20

    Parameters
    ----------
    transaction
        Id of a request for approval, of an approval, of an evaluation that was denied, or of a task.
    json
        The records themselves.
    """
    from aftergate.cli.auditing import run_last, run_show

    if (transaction is None) == (last is None):
        print("aftergate: name one of --transaction and --last", file=sys.stderr)
        return 2
    return run_show(transaction, as_json=json, place=place) if transaction is not None else run_last(last or 0, as_json=json, place=place)


@audit.command
def checkpoint(*, place: Where = HERE) -> int:
    """Print the newest signed checkpoint. Keep it outside this machine: with it, a log that is later cut off or rewritten is found.

    Examples:

        aftergate audit checkpoint > checkpoint-2026-01.txt
    """
    from aftergate.cli.auditing import run_checkpoint

    return run_checkpoint(place)


@audit.command
def proof(seq: int, /, *, out: Path = Path(), place: Directory = HERE) -> int:
    """Write one record and the proof that it is in the log: SEQ.json and SEQ.tlog-proof, which verify alone.

    Examples:

        aftergate audit proof 17

    Parameters
    ----------
    seq
        The record's number.
    out
        Folder to write into.
    """
    from aftergate.cli.auditing import run_make_proof

    return run_make_proof(seq, out, place)


@audit.command
def keys(
    *,
    rotate: Flag = False,
    overlap_days: int = 7,
    lost: Flag = False,
    json: Json = False,
    place: Where = HERE,
) -> int:
    """Print the log's public keys and when each is in use; or begin a new one.

    Examples:

        aftergate audit keys

        aftergate audit keys --rotate --overlap-days 30

    Parameters
    ----------
    rotate
        Begin a new signing key. The log records it, and heads are signed by both for a while.
    overlap_days
        How long the old key goes on beside the new one.
    lost
        With --rotate: the old key is gone; it ends now.
    """
    from aftergate.cli.auditing import run_keys, run_rotate

    if rotate and place.server is not None:
        print("aftergate: a key is rotated where its files are: give --data", file=sys.stderr)
        return 2
    return run_rotate(overlap_days, lost=lost, place=place) if rotate else run_keys(as_json=json, place=place)


@audit.command
def erase(
    names: Annotated[tuple[str, ...], Parameter(name="--name", negative="", consume_multiple=True)],
    *,
    reason: str = "",
    keep_evidence: Flag = False,
    place: Directory = HERE,
) -> int:
    """Forget a person in the log: their ids and aliases, and the requests and approvals' evidence that tell of them. Proofs still hold.

    Examples:

        aftergate audit erase --name anna anna@acme.example --reason "request of 3 March"

    Parameters
    ----------
    names
        Every id and alias under which the person was recorded; case does not matter.
    reason
        Why; kept beside the record, and erasable like it.
    keep_evidence
        Keep approvals verifiable, where a duty to keep them goes before. The person's id stays in them.
    """
    from aftergate.cli.auditing import run_erase

    return run_erase(names, reason, keep_evidence=keep_evidence, place=place)


@audit.command
def restart(*, reason: str, place: Directory = HERE) -> int:
    """Go on under a new name after records were lost for good, such as when the database had to be put back to an older copy.

    The server refuses to decide while database and signed checkpoints disagree. Put the newer database back if there is one. If not, this ends the
    old log where it was last signed, keeps its checkpoints aside, and begins another over what is left.

    Parameters
    ----------
    reason
        What happened.
    """
    from aftergate.cli.auditing import run_restart

    return run_restart(reason, place)
