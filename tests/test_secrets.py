"""No secret that a log carries comes out anywhere: findings, summary, OCSF, report, set-aside file, events, timeline, terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from samples import DATA, lines_of, samples

from aftergate.cli.printing import event_json
from aftergate.connectors.base import sources
from aftergate.events.enrich import Enricher
from aftergate.events.interning import Interner
from aftergate.events.redact import redact
from aftergate.pipeline.normalising import Normalising
from aftergate.pipeline.ocsf_out import event_to_ocsf
from aftergate.vocabulary import Event

CANARY = "zQ9canary41kd"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnY2FuYXJ5"
TOLD = re.compile(rb"zq9canary|eyJhbGciOiJIUzI1NiJ9|eyJzdWIiOiJjYW5hcnk|c2lnY2FuYXJ5", re.IGNORECASE)

KEYS = dict.fromkeys(("password", "client_secret", "clientSecret", "secretAccessKey", "sessionToken", "refresh_token", "access_token", "accessToken", "private_key", "secret", "token", "assertion", "apiToken", "code_verifier", "secretString", "SecretText", "otp"), CANARY) | {"Authorization": f"Bearer {CANARY}", "id_token": JWT, "Cookie": f"sid={CANARY}"}  # fmt: skip
FREE = re.compile(r"ur[il]$|path$|agent$|reason|message|description|redirect|error|status|comment|referr", re.IGNORECASE)


def with_keys(value: Any) -> Any:
    """Secrets under their usual keys, in every object of the record; and as name and value in its lists."""
    if isinstance(value, dict):
        for inner in list(value.values()):
            with_keys(inner)
        for key, secret in KEYS.items():
            value.setdefault(key, secret)
    elif isinstance(value, list):
        for inner in value:
            with_keys(inner)
        first = value[0] if value and isinstance(value[0], dict) else {}
        for name, *held in (("name", "value"), ("Name", "Value"), ("displayName", "oldValue", "newValue")):
            if name in first and any(key in first for key in held):
                value.append({name: "Password", **dict.fromkeys(held, json.dumps([CANARY]))})
                value.append({name: "Settings", **dict.fromkeys(held, json.dumps({"password": CANARY}))})
    return value


def in_text(suffix: str) -> Callable[[Any], Any]:
    """Secrets within free text: addresses, paths, programs, reasons, messages."""

    def change(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: change(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [change(inner, key) for inner in value]
        return value + suffix if isinstance(value, str) and FREE.search(key) else value

    return change


WAYS: dict[str, Callable[[Any], Any]] = {
    "under their keys": with_keys,
    "in a query string": in_text(f"?access_token={CANARY}&state=1"),
    "as a bearer token": in_text(f" Authorization: Bearer {CANARY}000000"),
    "as a signed token": in_text(f" {JWT}"),
    "in JSON text": in_text(json.dumps({"client_secret": CANARY, "x": [{"password": CANARY}]})),
    "as a form field": in_text(f" password={CANARY} "),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("slug", sorted(sources()))
def test_no_source_lets_a_secret_through(slug: str, way: str) -> None:
    """Events as they are printed, in both forms."""
    normalising = Normalising(Interner(Enricher(tables=False)), slug)
    events: list[Event] = []
    for line in samples()[slug]:
        normalising.run([json.dumps(WAYS[way](json.loads(line))).encode()], events)
    assert len(events) >= len(samples()[slug]) // 2, "the records are still read"
    for event in events:
        for made in (event_json(event), event_to_ocsf(event)):
            text = json.dumps(redact(made)).encode()
            found = TOLD.search(text)
            assert found is None, text[max(0, found.start() - 200) : found.end() + 50]


SPECIAL: dict[str, list[dict[str, Any]]] = {
    "aws.cloudtrail": [
        {"eventName": "AssumeRole", "eventSource": "sts.amazonaws.com", "responseElements": {"credentials": {
            "accessKeyId": "ASIAEXAMPLEEXAMPLE01", "sessionToken": CANARY, "secretAccessKey": CANARY}}},
        {"eventName": "CreateAccessKey", "eventSource": "iam.amazonaws.com", "requestParameters": {"userName": "svc-a"}, "responseElements": {"accessKey": {
            "accessKeyId": "AKIAEXAMPLEEXAMPLE01", "secretAccessKey": CANARY, "userName": "svc-a", "status": "Active"}}},
        {"eventName": "CreateLoginProfile", "eventSource": "iam.amazonaws.com", "requestParameters": {"userName": "ada", "password": CANARY}},
        {"eventName": "AssumeRoleWithWebIdentity", "eventSource": "sts.amazonaws.com", "requestParameters": {
            "roleArn": "arn:aws:iam::111122223333:role/ci", "roleSessionName": "gha-1", "webIdentityToken": JWT}},
        {"eventName": "PutSecretValue", "eventSource": "secretsmanager.amazonaws.com", "requestParameters": {"secretId": "db", "secretString": CANARY}},
        {"eventName": "RunInstances", "eventSource": "ec2.amazonaws.com", "requestParameters": {"userData": f"export AWS_SECRET_ACCESS_KEY={CANARY}"}},
        {"eventName": "UpdateFunctionConfiguration20150331v2", "eventSource": "lambda.amazonaws.com", "requestParameters": {
            "functionName": "f", "environment": {"variables": {"DB_PASSWORD": CANARY, "password": CANARY}}}},
    ],
    "kubernetes.audit": [
        {"verb": "create", "objectRef": {"resource": "secrets", "namespace": "a", "name": "s"}, "requestObject": {"data": {"k": CANARY}, "stringData": {"k": CANARY}}},
        {"verb": "get", "objectRef": {"resource": "secrets", "namespace": "a", "name": "s"}, "responseObject": {"kind": "Secret", "data": {"k": CANARY}}},
        {"verb": "create", "objectRef": {"resource": "serviceaccounts", "subresource": "token", "namespace": "a", "name": "s"}, "responseObject": {"status": {"token": JWT}}},
        {"verb": "get", "requestURI": f"/api/v1/pods?token={CANARY}", "objectRef": {"resource": "pods"}},
    ],
    "vault.audit": [
        {"type": "response", "response": {"data": {"password": CANARY, "plaintext": CANARY, "data": {"any": CANARY}}, "auth": {"client_token": CANARY}}},
        {"type": "request", "request": {"id": "r9", "operation": "update", "path": "transit/decrypt/k", "data": {"ciphertext": CANARY, "plaintext": CANARY}}},
    ],
    "github.secret_scanning": [{"secret": CANARY, "alert": {"secret": CANARY}}],
    "keycloak": [{"details": {"refresh_token": CANARY, "code": CANARY, "access_token": JWT, "refresh_token_id": "r1"}}],
    "auth0": [{"data": {"details": {"refresh_token": CANARY, "request": {"body": {"client_secret": CANARY, "refresh_token": CANARY}}}}}],
    "okta": [{"debugContext": {"debugData": {"requestUri": f"/oauth2/v1/token?client_secret={CANARY}", "url": f"/x?token={CANARY}", "apiToken": CANARY}}}],
}  # fmt: skip


def merged(base: Any, more: Any) -> Any:
    if isinstance(base, dict) and isinstance(more, dict):
        return {
            key: merged(base[key], more[key]) if key in base and key in more else more.get(key, base.get(key)) for key in {**base, **more}
        }
    return more


@pytest.mark.parametrize("slug", SPECIAL)
def test_where_each_log_really_carries_secrets(slug: str) -> None:
    """Session tokens, new keys, passwords, decrypted values, tokens in addresses: as the vendors write them."""
    normalising = Normalising(Interner(Enricher(tables=False)), slug)
    for more in SPECIAL[slug]:
        events: list[Event] = []
        for line in samples()[slug]:
            normalising.run([json.dumps(merged(json.loads(line), more)).encode()], events)
        assert events
        for event in events:
            text = json.dumps(redact(event_json(event))).encode()
            assert not TOLD.search(text), text
            assert not TOLD.search(repr(event.d.issued).encode() + repr((event.credential, event.session, event.d.spent)).encode()), (
                "not even within"
            )


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Attacks of several sources with secrets planted in every way, and records that cannot be read with secrets in them."""
    folder = tmp_path_factory.mktemp("planted")
    ways = list(WAYS.values())
    number = 0
    for slug in sorted((DATA / "scenarios").iterdir()):
        for path in sorted(slug.rglob("*.jsonl*"))[:3]:
            lines = lines_of(path)
            if len(lines) > 150:
                continue
            number += 1
            way = ways[number % len(ways)]
            made = [json.dumps(way(json.loads(line))) for line in lines]
            (folder / f"{number}.jsonl").write_text("\n".join(made))
    broken = [
        json.dumps(
            {"eventVersion": 7, "eventSource": [], "password": CANARY, "responseElements": {"credentials": {"sessionToken": CANARY}}}
        ),
        json.dumps({"kind": "weather", "note": f"Authorization: Bearer {CANARY}", "url": f"https://u:{CANARY}@h/?access_token={JWT}"}),
        json.dumps({"kind": "weather", "body": json.dumps({"client_secret": CANARY, "items": [{"name": "Password", "value": CANARY}]})}),
        '{"cut": "off", "refresh_token": "' + CANARY,
        f"2026-03-02 not JSON token={CANARY}",
    ]
    (folder / "broken.jsonl").write_text("\n".join([lines_of(DATA / "quiet-week" / "okta.jsonl.gz")[0].decode(), *broken]))
    return folder


def run(*words: str | Path) -> bytes:
    """Everything the command says, on both streams."""
    command = [sys.executable, "-m", "aftergate.cli.main", *map(str, words)]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_no_output_of_a_scan_tells_a_secret(planted: Path, tmp_path: Path) -> None:
    """Every file that a scan writes, and what it prints."""
    outputs = {name: tmp_path / name for name in ("findings", "summary", "ocsf", "report", "set-aside")}
    words: list[str | Path] = ["scan", planted, "--all"]
    for name, path in outputs.items():
        words += [f"--{name}", path]
    printed = run(*words)
    assert b"incidents" in printed
    for name, text in {"printed": printed, **{name: path.read_bytes() for name, path in outputs.items()}}.items():
        assert len(text) > 100, name
        found = TOLD.search(text)
        assert found is None, (name, text[max(0, found.start() - 200) : found.end() + 50])
    assert outputs["set-aside"].read_bytes().count(b"***") >= 5
    identities = {
        name
        for line in outputs["findings"].read_bytes().splitlines()
        for names in [json.loads(line)["subject"].get("identity", [])]
        for name in ([names] if isinstance(names, str) else names[:1])
    }
    for name in sorted(identities)[:3]:
        for more in ([], ["--json"]):
            assert not TOLD.search(run("timeline", planted, "--identity", name, *more))


@pytest.mark.parametrize("form", ["jsonl", "ocsf"])
def test_no_printed_event_tells_a_secret(planted: Path, form: str) -> None:
    printed = run("events", planted, "--format", form)
    assert printed.count(b"\n") > 500
    found = TOLD.search(printed)
    assert found is None, printed[max(0, found.start() - 200) : found.end() + 50]
