"""What the audit sub-commands do."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aftergate.audit.bundle import Bundle, write_folder, write_tar
from aftergate.audit.errors import BadBundle, BadNote
from aftergate.audit.findings import Report, printable
from aftergate.audit.keys import KeyRing, pins
from aftergate.audit.notes import Verifier, parse_note
from aftergate.audit.proof import TlogProof
from aftergate.audit.verify import verify_bundle
from aftergate.cli.options import Directory, Place
from aftergate.cli.places import operator, sender, settings_of
from aftergate.errors import AftergateError, ConfigError
from aftergate.events.clock import to_iso

if TYPE_CHECKING:
    from aftergate.stores.audit_log import AuditLog

MARKS = {"failure": ("FAILED", "bold red"), "warning": ("warning", "yellow"), "note": ("note", "dim")}


# Verifying: none of this opens a database or a connection


def run_verify(
    bundle: Path, *, known: Sequence[Path], keys: Sequence[str], origins: Sequence[str], rp_ids: Sequence[str], strict: bool, as_json: bool
) -> int:
    kept = [(str(path), _bytes(path)) for path in known]
    trusted = _pins(keys)
    with Bundle(bundle) as opened:
        report = verify_bundle(opened, known=kept, pins=trusted, rp_ids=rp_ids, origins=origins, strict=strict)
    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    else:
        _print_report(report)
    return 0 if report.passed else 1


def run_proof(path: Path, record: Path | None, keys: Sequence[str]) -> int:
    trusted = _pins(keys)
    if not trusted:
        raise ConfigError("a proof is only as good as the key it is checked with", hint="give the log's public key with --key")
    entry = _bytes(record or path.with_suffix(".json"))
    try:
        checkpoint = TlogProof.parse(_bytes(path)).verify(entry, trusted, trusted[0].name)
    except BadNote as error:
        print(f"FAILED: {error.message}")
        return 1
    print(f"holds: this record is in the log {checkpoint.origin}, among its first {checkpoint.size} records")
    return 0


def _pins(keys: Sequence[str]) -> list[Verifier]:
    texts = [key if "+" in key and not Path(key).is_file() else _bytes(Path(key)).decode("utf-8", "replace") for key in keys]
    made: list[Verifier] = []
    for text in texts:
        try:
            made += KeyRing.parse(text.encode()).verifiers if text.lstrip().startswith("{") else pins([text])
        except BadNote as error:
            raise ConfigError(f"not a public key: {error.message}", where="--key", hint="`aftergate audit keys` prints them") from None
    return made


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from None


def _print_report(report: Report) -> None:
    console = Console(highlight=False)
    tail = f", {report.size} records" + (f", root {report.root}" if report.root else "")
    console.print(Text.assemble("log ", (report.origin, "bold"), tail), soft_wrap=True)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for step in report.steps:
        verdict = Text("passed", "green") if step.passed else Text("FAILED", "bold red")
        table.add_row(str(step.number), step.title, str(step.checked) if step.checked else "", verdict)
    console.print(table)
    for problem in report.problems:
        mark, style = MARKS[problem.severity]
        console.print(Text.assemble((mark, style), f" [{problem.step}] {problem.message} ({problem.code})"), soft_wrap=True)
    failed = len(report.failures())
    console.print(
        Text("PASSED: all of it holds", "bold green")
        if report.passed
        else Text(f"FAILED: {failed or 'warnings as'} problem{'s' if failed != 1 else ''}", "bold red")
    )


# Everything else works on a data directory or asks a server


@contextmanager
def _log(place: Directory, *, lost: bool = False) -> Iterator[AuditLog]:
    """The log in a data directory. Raises: ConfigError, if there is none."""
    from sqlalchemy.engine import make_url

    from aftergate.stores.audit_log import AuditLog
    from aftergate.stores.database import Database

    settings = settings_of(place)
    url = settings.database_url()
    parsed = make_url(url)
    if parsed.drivername == "sqlite" and not Path(parsed.database or "").is_file():
        raise ConfigError(
            "there is no log here", where=settings.data, hint="give the server's data directory with --data, or its URL with --server"
        )
    opened = Database.open(url, migrate=False)
    try:
        yield AuditLog.at(opened, Path(settings.data) / "audit", "", lambda: int(time.time() * 1000), lost=lost)  # noqa: TID251  the shell reads the clock
    finally:
        opened.close()


def _text(place: Place, path: str, **query: Any) -> bytes:
    """A server's answer. Raises: ConfigError, Refused, Unanswered."""
    with sender(place) as made:
        return bytes(made.send("GET", path, safe=True, params=query).content)


def run_export(target: Path, *, personal: bool, place: Place) -> int:
    packed = target.name.endswith((".tar.gz", ".tgz"))
    if place.server is not None:
        if not packed:
            raise ConfigError("a server gives a .tar.gz", where=str(target), hint="name the file so")
        _download(target, personal=personal, place=place)
    else:
        with _log(place) as log:
            if (problem := log.problem()) is not None:
                print(f"aftergate: {problem}\naftergate: exporting the log as it was last signed", file=sys.stderr)
            members = log.exported(by=operator(), personal=personal)
            if packed:
                write_tar(target, members)
            else:
                write_folder(target, members)
    print(f"wrote {target}; `aftergate audit verify {target}` checks it anywhere")
    return 0


def _download(target: Path, *, personal: bool, place: Place) -> None:
    try:
        with (
            target.open("xb") as out,
            sender(place) as made,
            made.stream("GET", "/v1/audit/export", params={"personal": str(personal).lower()}) as answer,
        ):
            for chunk in answer.iter_bytes():
                out.write(chunk)
    except OSError as error:
        raise BadBundle(f"cannot be written: {error.strerror}", where=str(target)) from None
    except AftergateError:
        target.unlink(missing_ok=True)
        raise


def run_show(ref: str, *, as_json: bool, place: Place) -> int:
    if place.server is not None:
        told = msgspec.json.decode(_text(place, f"/v1/audit/transactions/{quote(ref, safe='')}"))
        lines, records = told["lines"], told["records"]
    else:
        from aftergate.service.trail import show

        with _log(place) as log:
            trail = show(log.database, ref)
        lines, records = trail.lines, trail.records
    _print_records(records) if as_json else print("\n".join(map(printable, lines)))
    return 0


def run_last(count: int, *, as_json: bool, place: Place) -> int:
    if place.server is not None:
        records = msgspec.json.decode(_text(place, "/v1/audit/records", limit=count))["records"]
    else:
        from aftergate.service.trail import latest

        with _log(place) as log:
            records = latest(log.database, count)
    if as_json:
        _print_records(records)
        return 0
    for record in records:
        resource = record.get("resource") or {}
        what = " ".join(
            str(each)
            for each in (record.get("decision"), record.get("action"), resource.get("type"), resource.get("id"))
            if isinstance(each, str) and each
        )
        print(printable(f"{record['seq']:>8}  {record['ts']}  {record['type']:<28} {what}".rstrip()))
    return 0


def _print_records(records: Sequence[dict[str, Any]]) -> None:
    for record in records:
        sys.stdout.buffer.write(msgspec.json.encode(record) + b"\n")


def run_checkpoint(place: Place) -> int:
    if place.server is not None:
        note = _text(place, "/v1/audit/checkpoint")
    else:
        with _log(place) as log:
            note = log.checkpoint()
    parse_note(note)
    sys.stdout.buffer.write(note)
    return 0


def run_make_proof(seq: int, out: Path, place: Directory) -> int:
    with _log(place) as log:
        log.checkpoint()
        try:
            made = log.inclusion(seq).encode()
        except ValueError:
            raise ConfigError(f"there is no record {seq}", where="SEQ") from None
        entry = log.entry(seq)
    if not entry:
        raise ConfigError(
            f"the content of record {seq} was pruned", where="SEQ", hint="its hash is still in the tree; an export shows that"
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{seq}.json").write_bytes(entry)
    (out / f"{seq}.tlog-proof").write_bytes(made)
    print(f"wrote {out / f'{seq}.json'} and {out / f'{seq}.tlog-proof'}")
    return 0


def run_keys(*, as_json: bool, place: Place) -> int:
    if place.server is not None:
        ring = KeyRing.parse(_text(place, "/v1/audit/keys"))
    else:
        with _log(place) as log:
            ring = log.signer.ring
    if as_json:
        sys.stdout.buffer.write(ring.encode())
        return 0
    for key in ring.keys:
        print(f"# from {to_iso(key.from_ms)}" + (f" until {to_iso(key.until_ms)}" if key.until_ms is not None else ", in use"))
        print(key.verifier.vkey)
    return 0


def run_rotate(overlap_days: int, *, lost: bool, place: Directory) -> int:
    with _log(place, lost=lost) as log:
        vkey = log.rotate(max(0, overlap_days) * 86_400_000, by=operator(), lost=lost)
    print(f"the new key, give it to your auditors:\n{vkey}")
    return 0


def run_erase(names: Sequence[str], reason: str, *, keep_evidence: bool, place: Directory) -> int:
    from aftergate.service.retention import erase_person

    with _log(place) as log:
        gone = erase_person(log.database, log, names, by=operator(), reason=reason, keep_evidence=keep_evidence)
    print(
        f"erased {gone.personal} values, {gone.request} requests and the evidence of {gone.evidence} approvals; the log's proofs hold as before"
    )
    return 0


def run_restart(reason: str, place: Directory) -> int:
    with _log(place) as log:
        origin = log.restart(reason, by=operator())
        key = log.signer.ring.keys[-1].verifier.vkey
    print(f"the log goes on as {origin}; its key, give it to your auditors:\n{key}")
    return 0
