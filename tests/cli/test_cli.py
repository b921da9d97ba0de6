"""The command line from end to end, as a user runs it: in a process of its own, output piped."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

sys.path.insert(0, str(Path(__file__).parents[1]))
from samples import DATA, samples

from aftergate.connectors.base import sources
from aftergate.detections.api import catalogue
from aftergate.pipeline.ocsf_out import SCHEMA

DEMO = Path(__file__).parents[2] / "demo" / "logs"
WEEK = DATA / "quiet-week"
COMMANDS = ("scan", "events", "timeline", "sources", "detections")
SEVERITIES = ("low", "medium", "high", "critical")
FINDING = {
    "id", "detection", "severity", "time", "known_at", "title", "narrative", "subject", "evidence", "sources", "incident", "attack", "frameworks",
    "trust_after", "recommended",
}  # fmt: skip
SUMMARY = {
    "read", "normalised", "duplicates", "set_aside", "sources", "silent_classes", "join_rates", "findings", "seconds", "events_per_second", "cannot_fire",
}  # fmt: skip


def run(*words: str | Path, code: int = 0, stdin: bytes = b"", **env: str) -> tuple[str, str]:
    """What the command printed, on both streams. Its exit code is checked."""
    done = subprocess.run(
        [sys.executable, "-m", "aftergate.cli.main", *map(str, words)],
        input=stdin,
        capture_output=True,
        check=False,
        env={**os.environ, **env},
    )
    assert done.returncode == code, (done.stdout[-500:], done.stderr[-2000:])
    return done.stdout.decode(), done.stderr.decode()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan of the demo logs with every file it can write."""
    folder = tmp_path_factory.mktemp("demo")
    out, _ = run(
        "scan", DEMO, "--findings", folder / "findings.jsonl", "--summary", folder / "summary.json", "--ocsf", folder / "ocsf.jsonl"
    )
    (folder / "printed.txt").write_text(out)
    return folder


# ---------------------------------------------------------------- scan


def test_the_demo_has_findings_of_every_kind_of_field(demo: Path) -> None:
    """Each line has the promised fields, of the promised types, and nothing empty that must not be."""
    found = rows(demo / "findings.jsonl")
    assert len(found) >= 5
    for row in found:
        assert row.keys() >= FINDING
        assert re.fullmatch(r"af-[0-9a-f]{16}", row["id"])
        assert row["detection"] in catalogue()
        assert row["severity"] in SEVERITIES
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", row[field]) for field in ("time", "known_at"))
        assert row["known_at"] >= row["time"]
        assert row["title"]
        assert row["narrative"]
        assert row["evidence"]
        assert row["sources"]
        assert row["attack"]
        assert row["recommended"]
        assert set(row["subject"]) <= {"identity", "credential", "session"}
        assert row["subject"]
        assert row["incident"].startswith("inc-")
        assert 0 <= row["trust_after"] < 100
        assert set(row["sources"]) <= set(sources())
    ranks = [SEVERITIES.index(row["severity"]) for row in found]
    assert ranks == sorted(ranks, reverse=True), "most urgent first"
    assert len({row["id"] for row in found}) == len(found)


def test_the_summary_accounts_for_every_record(demo: Path) -> None:
    data = json.loads((demo / "summary.json").read_bytes())
    assert data.keys() >= SUMMARY
    assert data["read"] == data["normalised"] + data["duplicates"] + data["set_aside"]
    assert data["read"] == sum(source["records"] for source in data["sources"].values()) + data["set_aside"]
    found = rows(demo / "findings.jsonl")
    assert (
        data["findings"]["total"]
        == len(found)
        == sum(data["findings"]["by_severity"].values())
        == sum(data["findings"]["by_detection"].values())
    )
    for severity in SEVERITIES:
        assert data["findings"]["by_severity"][severity] == sum(row["severity"] == severity for row in found)
    assert data["seconds"] > 0
    assert data["events_per_second"] > 0
    for rate in data["join_rates"].values():
        assert 0 <= rate["mint_known"] <= rate["uses"]
    for counts in data["silent_classes"].values():
        assert 0 <= counts["rooted"] <= counts["events"]
    assert set(data["cannot_fire"]) <= set(catalogue())
    assert all(data["cannot_fire"].values()), "each with what it misses"
    assert not set(data["cannot_fire"]) & {row["detection"] for row in found}


def test_findings_are_the_same_in_every_run_and_for_any_number_of_processes(demo: Path, tmp_path: Path) -> None:
    for number, words in enumerate((["--jobs", "1"], ["--jobs", "2"], ["-j", "3"])):
        out = tmp_path / f"{number}.jsonl"
        run("scan", *sorted(DEMO.iterdir(), reverse=True), "-q", "--findings", out, *words, PYTHONHASHSEED=str(number))
        assert out.read_bytes() == (demo / "findings.jsonl").read_bytes()


def test_findings_in_ocsf_are_valid(demo: Path) -> None:
    found = rows(demo / "ocsf.jsonl")
    assert len(found) == len(rows(demo / "findings.jsonl"))
    for row in found:
        assert not faults(row)


def test_nothing_is_coloured_when_piped(demo: Path) -> None:
    printed = (demo / "printed.txt").read_text()
    assert "\x1b" not in printed
    assert "incidents from" in printed
    assert "written: " in printed


@pytest.mark.parametrize(("floor", "code"), [("critical", 3), ("high", 3), ("medium", 3), ("low", 3)])
def test_fail_on_ends_with_three(floor: str, code: int) -> None:
    run("scan", DEMO / "aws-attack", "-q", "--fail-on", floor, code=code)


def test_fail_on_ends_with_zero_where_nothing_is_found(tmp_path: Path) -> None:
    quiet = tmp_path / "quiet.jsonl"
    quiet.write_bytes(b"\n".join(gzip.decompress((WEEK / "okta.jsonl.gz").read_bytes()).split(b"\n")[:30]))
    out, _ = run("scan", quiet, "--fail-on", "low")
    assert "No finding of medium severity or more" in out


def test_quiet_prints_nothing() -> None:
    assert run("scan", DEMO / "okta-other-device", "-q") == ("", "")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["scan", "/nowhere/at/all"], "No such file"),
        (["scan"], "no logs named"),
        (["scan", str(DEMO), "--source", "okto"], "`okto` is no source"),
        (["scan", str(DEMO), "--findings", "/nowhere/at/all/f.jsonl"], "does not exist"),
        (["scan", str(DEMO), "--inventory", "/nowhere/i.json"], "/nowhere/i.json"),
        (["scan", str(DEMO), "--mmdb", "/nowhere/a.mmdb"], "/nowhere/a.mmdb"),
        (["events"], "no logs named"),
        (["events", "/nowhere"], "No such file"),
        (["timeline", str(DEMO), "--credential", "AKIANOBODY"], "no credential `AKIANOBODY`"),
        (["timeline", str(DEMO), "--identity", "nobody@corp.example"], "no identity `nobody@corp.example`"),
        (["timeline", "-", "--identity", "x"], "only once"),
        (["detections", "tok-nothing"], "`tok-nothing` is no detection"),
    ],
)
def test_what_cannot_run_says_why_in_one_line(words: list[str], told: str) -> None:
    out, err = run(*words, code=1)
    assert out == ""
    assert err.startswith("aftergate: ")
    assert told in err
    assert err.count("\n") == 1


def test_strict_names_file_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "logs.jsonl"
    path.write_bytes(samples()["okta"][0] + b"\nnonsense\n")
    _, err = run("scan", path, "--strict", code=1)
    assert f"{path}, byte {len(samples()['okta'][0]) + 1}: " in err


def test_wrong_usage_ends_with_two_or_one_and_says_so() -> None:
    """Unknown options are not silently taken for files."""
    done = subprocess.run([sys.executable, "-m", "aftergate.cli.main", "scan", "--no-such-option"], capture_output=True, check=False)
    assert done.returncode in (1, 2)
    assert b"no-such-option" in done.stdout + done.stderr
    run("timeline", DEMO, code=2)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_standard_input_is_read(jobs: str) -> None:
    data = gzip.decompress((WEEK / "keycloak.jsonl.gz").read_bytes())
    out, _ = run("scan", "-", "--jobs", jobs, stdin=data)
    assert f"{len(data.splitlines())} records" in out
    out, _ = run("events", "-", stdin=data)
    assert out.count("\n") > 200


def test_set_aside_keeps_what_could_not_be_read(tmp_path: Path) -> None:
    path, aside = tmp_path / "logs.jsonl", tmp_path / "aside.jsonl"
    path.write_bytes(samples()["okta"][0] + b'\nnonsense "password": "hunter2hunter2"\n')
    out, _ = run("scan", path, "--set-aside", aside)
    (row,) = rows(aside)
    assert (row["file"], row["offset"]) == (str(path), len(samples()["okta"][0]) + 1)
    assert "nonsense" in row["record"]
    assert "hunter2" not in row["record"]
    assert "1 set aside" in out
    assert aside.stat().st_mode & 0o077 == 0, "for its owner only"


def test_an_inventory_never_makes_it_louder(tmp_path: Path) -> None:
    """The quiet week with the owners' own words about their identities: as quiet, or quieter."""
    counts = []
    for words in ([], ["--inventory", WEEK / "inventory.json.gz"]):
        out = tmp_path / "summary.json"
        run("scan", *sorted(WEEK.glob("*.jsonl.gz")), "-q", "--summary", out, *words)
        found = json.loads(out.read_bytes())["findings"]["by_severity"]
        counts.append([sum(found[s] for s in SEVERITIES[floor:]) for floor in range(4)])
    without, with_it = counts
    assert all(a <= b for a, b in zip(with_it[1:], without[1:], strict=True)), counts


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples(command: str) -> None:
    out, _ = run(command, "--help")
    assert f"aftergate {command}" in out.partition("Examples")[2]
    assert out.count("default: ") or "--json" in out


def test_help_names_every_command() -> None:
    out, _ = run("--help")
    assert all(command in out for command in COMMANDS)
    assert re.match(r"\d+\.\d+", run("--version")[0])


# ---------------------------------------------------------------- events


@cache
def schema() -> OcsfJsonSchemaEmbedded:
    return OcsfJsonSchemaEmbedded(get_ocsf_schema(version=SCHEMA))


@cache
def validator(class_uid: int) -> Draft202012Validator:
    name = schema().lookup_class_name_from_uid(class_uid=class_uid)
    return Draft202012Validator(schema().get_class_schema(class_name=name, profiles=[]))


def faults(row: dict[str, Any]) -> list[str]:
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:150]}" for error in validator(row["class_uid"]).iter_errors(row)]


@pytest.mark.parametrize("slug", sorted(sources()))
def test_events_of_every_source_are_valid_ocsf(slug: str, tmp_path: Path) -> None:
    """Each sample that the source's data holds, printed and held against the published schema."""
    path = tmp_path / "logs.jsonl"
    path.write_bytes(b"\n".join(samples()[slug][:60]))
    out, _ = run("events", path, "--format", "ocsf", "--source", slug)
    found = [json.loads(line) for line in out.splitlines()]
    assert found
    assert not [(row["metadata"]["event_code"], fault) for row in found for fault in faults(row)][:5]
    assert [row["time"] for row in found] == sorted(row["time"] for row in found)


def test_events_are_printed_in_order_with_their_fields() -> None:
    out, _ = run("events", DEMO / "okta-other-device")
    found = [json.loads(line) for line in out.splitlines()]
    assert [row["time"] for row in found] == sorted(row["time"] for row in found)
    for row in found:
        assert row.keys() >= {"time", "id", "source", "kind", "action", "class", "actor", "outcome"}


# ---------------------------------------------------------------- timeline, sources, detections


def one_of_each() -> list[tuple[str, str]]:
    """A credential, a session and an identity that the findings of the demo accuse."""
    out = subprocess.run(
        [sys.executable, "-m", "aftergate.cli.main", "scan", str(DEMO), "-q", "--findings", "/dev/stdout"], capture_output=True, check=True
    ).stdout
    found: dict[str, str] = {}
    for line in out.splitlines():
        for level, names in json.loads(line)["subject"].items():
            found.setdefault(level, names if isinstance(names, str) else names[0])
    return sorted(found.items())


def test_a_timeline_of_each_level() -> None:
    """In order, as a table and as JSON, with the findings marked."""
    chosen = one_of_each()
    assert [level for level, _ in chosen] == ["credential", "identity", "session"]
    for level, name in chosen:
        out, _ = run("timeline", DEMO, f"--{level}", name, COLUMNS="220")
        assert f"life of {name}" in out
        assert "\x1b" not in out
        out, _ = run("timeline", DEMO, f"--{level}", name, "--json")
        found = [json.loads(line) for line in out.splitlines()]
        assert found
        assert [row["time"] for row in found] == sorted(row["time"] for row in found)
        assert any(row["findings"] for row in found)


def test_a_long_timeline_leaves_the_middle_out() -> None:
    out, _ = run("timeline", WEEK / "keycloak.jsonl.gz", "--identity", busiest(), "--limit", "6")
    assert "events left out of the middle" in out


def busiest() -> str:
    counts: dict[str, int] = {}
    for line in gzip.decompress((WEEK / "keycloak.jsonl.gz").read_bytes()).splitlines():
        user = json.loads(line).get("userId")
        if user:
            counts[user] = counts.get(user, 0) + 1
    return max(counts, key=lambda user: (counts[user], user))


def test_sources_are_listed() -> None:
    out, _ = run("sources", "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert {row["slug"] for row in found} == set(sources())
    assert all(row["title"] and row["provides"] for row in found)
    out, _ = run("sources", COLUMNS="160")
    assert all(slug in out for slug in sources())


def test_detections_are_listed_and_explained() -> None:
    out, _ = run("detections", "--json")
    assert [json.loads(line)["slug"] for line in out.splitlines()] == list(catalogue())
    out, _ = run("detections", COLUMNS="160")
    assert all(slug in out for slug in catalogue())
    slug, rule = next(iter(catalogue().items()))
    out, _ = run("detections", slug, COLUMNS="300")
    assert rule.meta.title in out
    assert "Innocent look-alikes" in out
