"""Secrets are planted wherever a caller can put one; none may come out in the server's log, its data directory, its answers to errors or an export."""

from __future__ import annotations

import base64
import gzip
import io
import json
import sqlite3
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from serving import started_in_vain, until

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "approvals"))
from company import now_s, payment
from joserfc import jwk, jwt
from remote import PASSPHRASE, Remote

pytestmark = pytest.mark.serving


def named(where: str) -> str:
    """A value that stands out: its place is in it."""
    return f"zQ9planted{where.replace('-', '')}x7Kd41vR"


HS256 = jwk.import_key({"kty": "oct", "k": base64.urlsafe_b64encode(b"k" * 32).rstrip(b"=").decode()})


def token(where: str) -> str:
    """A JWT whose payload stands out; its signature as well, since nobody else has it."""
    return jwt.encode({"alg": "HS256", "typ": "JWT"}, {"sub": named(where)}, HS256)


class Planted:
    """What was planted where, and the answers to it."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        self.answers: list[tuple[str, bytes]] = []

    def plant(self, where: str, value: str = "") -> str:
        self.secrets[where] = value or named(where)
        return self.secrets[where]

    def token(self, where: str) -> str:
        made = token(where)
        self.secrets[where + "-signature"] = made.rsplit(".", 1)[1]
        self.secrets[where + "-payload"] = made.split(".")[1]
        return made


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory, planted: Planted) -> Iterator[Remote]:
    folder = tmp_path_factory.mktemp("planted")
    environment = {
        "AFTERGATE_LOG_LEVEL": "debug",
        "AFTERGATE_FAILURES_PER_MINUTE": "100000",
        "AFTERGATE_CALLER_ISSUER": "http://127.0.0.1:1",
    }
    with Remote(folder, env=environment) as made:
        planted.plant("caller-key", made.server.key)
        _plant(made, planted)
        made.http.get("/v1/audit/checkpoint")
        yield made


def _plant(remote: Remote, planted: Planted) -> None:
    http = remote.http

    def send(where: str, method: str, path: str, **more: Any) -> httpx2.Response:
        answer = http.request(method, path, **more)
        planted.answers.append((where, b"\n".join(f"{k}: {v}".encode() for k, v in answer.headers.items()) + b"\n\n" + answer.content))
        return answer

    # Keys and tokens of callers.
    bearer = {"authorization": "Bearer " + planted.plant("wrong-key", "agk_" + named("wrong-key"))}
    for path in ("/access/v1/evaluation", "/v1/keys", "/v1/tasks", "/oauth/token", "/metrics", "/v1/audit/export"):
        send("wrong-key", "POST" if path.startswith(("/access", "/oauth")) else "GET", path, headers=bearer)
    send("unknown-token", "GET", "/v1/status", headers={"authorization": "Bearer " + planted.token("unknown-token")})
    send("basic", "GET", "/v1/status", headers={"authorization": "Basic " + planted.plant("basic")})
    login = base64.b64encode(f"planted:{planted.plant('basic-password')}".encode()).decode()
    for where, value in (
        ("basic-login", "Basic " + planted.plant("basic-login", login)),
        ("bare-key", planted.plant("bare-key", "agk_" + named("bare-key"))),
        ("dpop-token", "DPoP " + planted.token("dpop-token")),
    ):
        for method, path in (("GET", "/v1/status"), ("POST", "/v1/tasks"), ("POST", "/access/v1/evaluation")):
            send(where, method, path, headers={"authorization": value})
    send("no-proof", "GET", "/v1/status", headers={"dpop": planted.token("no-proof")})
    send(
        "cookie",
        "GET",
        "/v1/me",
        headers={
            "authorization": "",
            "cookie": "aftergate_session=" + planted.plant("cookie") + "; other=" + planted.plant("other-cookie"),
        },
    )
    send("odd-header", "GET", "/v1/status", headers={"x-api-key": planted.plant("odd-header"), "authorization": ""})

    # In addresses: query strings and paths.
    send("query", "GET", "/v1/findings?access_token=" + planted.plant("query"))
    send("query-route", "GET", "/v1/nothing?api_key=" + planted.plant("query-route"))
    send("path", "GET", "/v1/nothing/" + planted.plant("path"))
    send("path-of-a-person", "GET", f"/v1/people/agk_{planted.plant('person')}?token={planted.token('query-of-a-person')}")
    send("path-of-a-key", "DELETE", "/v1/keys/agk_" + planted.plant("path-of-a-key"))
    send("callback", "GET", f"/v1/login/oidc/callback?code={planted.plant('oidc-code')}&state={planted.plant('oidc-state')}")

    # Bodies that are refused.
    send(
        "bad-json",
        "POST",
        "/v1/keys",
        content=b'{"password": "' + planted.plant("bad-json").encode() + b'"',
        headers={"content-type": "application/json"},
    )
    send("bad-member", "POST", "/v1/people", json={"id": 7, "password": planted.plant("bad-member")})
    send("bad-scope", "POST", "/v1/keys", json={"name": "n", "scopes": ["decide"], "secret": planted.plant("bad-scope")})
    key = planted.plant("name-of-a-key", "agk_" + named("name-of-a-key"))
    send("name-of-a-key", "POST", "/v1/keys", json={"name": key, "scopes": [key]})
    send("name-of-a-member", "POST", "/v1/keys", json={key: planted.token("value-of-a-member")})
    send("findings", "POST", "/v1/findings", content=f'{{"id":"{planted.token("finding")}"}}\n{key}\n'.encode())
    send("bad-evaluation", "POST", "/access/v1/evaluation", json={"subject": {"type": "user"}, "token": planted.token("bad-evaluation")})

    # OAuth: credentials in forms.
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "subject_token": planted.token("subject-token"),
        "actor_token": planted.token("actor-token"),
        "actor_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "client_assertion": planted.token("client-assertion"),
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_secret": planted.plant("client-secret"),
        "code_verifier": planted.plant("code-verifier"),
    }
    send("exchange", "POST", "/oauth/token", data=form)
    send("exchange-anonymous", "POST", "/oauth/token", data=form, headers={"authorization": ""})
    send("introspect", "POST", "/oauth/introspect", data={"token": planted.token("introspected")})
    send("revoke", "POST", "/oauth/revoke", data={"token": planted.token("revoked")})

    # A proof whose header gives the private key away (RFC 9449, section 4.3, must be refused).
    key = jwk.generate_key("EC", "P-256")
    private = key.as_dict(private=True)
    planted.plant("dpop-private", str(private["d"]))
    proof = jwt.encode(
        {"typ": "dpop+jwt", "alg": "ES256", "jwk": private},
        {"jti": "j", "htm": "POST", "htu": remote.url + "/v1/tasks", "iat": int(now_s())},
        key,
    )
    planted.plant("dpop-proof-with-private", proof.rsplit(".", 1)[1])
    for path in ("/access/v1/evaluation", "/access/v1/requests", "/v1/tasks", "/oauth/token"):
        send("dpop-private", "POST", path, json=payment(), headers={"dpop": proof})

    # Sessions and enrolment.
    made = http.post("/v1/people", json={"id": "eve"}).json()
    planted.plant("enrolment-link", made["link"].rpartition("#")[2])
    send("wrong-link", "POST", "/v1/enrol/options", json={"secret": planted.plant("wrong-link")})
    desk = remote.person("bob", "finance")
    for cookie in desk._http.cookies.jar:
        planted.plant("session-" + cookie.name, str(cookie.value))
    planted.plant("passphrase", PASSPHRASE)

    # A key that was made, and one that was revoked.
    answer = http.post("/v1/keys", json={"name": "made", "scopes": ["decide"]}).json()
    planted.plant("made-key", answer["key"])
    with httpx2.Client(base_url=remote.url, headers={"authorization": f"Bearer {answer['key']}"}, trust_env=False) as holder:
        assert holder.post("/access/v1/evaluation", json=payment()).status_code == 200
        http.delete("/v1/keys/" + answer["entry"]["id"])
        assert holder.post("/access/v1/evaluation", json=payment()).status_code == 401

    # A token of ours.
    task = http.post("/v1/tasks", json={"purpose": "mail", "actions": ["read"]})
    planted.answers.append(("task", task.content))
    # What uses an approval up shows a proof.
    approval = remote.approved(payment())
    used = remote.proof(approval)
    planted.plant("used-proof", used.rsplit(".", 1)[1])
    body = {**payment(), "context": {**payment()["context"], "approval": {"id": approval}}}
    assert http.post("/access/v1/evaluation", json=body, headers={"dpop": used}).json()["decision"] is True
    for path in ("/v1/keys", "/v1/audit/records", "/metrics", "/v1/status", "/openapi.json"):
        send("afterwards", "GET", path)


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes()


def _rows(file: Path) -> Iterator[tuple[str, bytes]]:
    """Every value of every table: what is compressed or split over pages in the file is whole here."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                for value in row:
                    if isinstance(value, (str, bytes)):
                        yield f"table {table}", value if isinstance(value, bytes) else value.encode()


def _found(planted: Planted, places: Iterator[tuple[str, bytes]]) -> set[tuple[str, str]]:
    """(secret, place) of each secret that is there: as it is, or in base64 or hex."""
    forms: list[tuple[str, bytes]] = []
    for where, value in planted.secrets.items():
        raw = value.encode()
        forms += [
            (where, raw),
            (where, raw.hex().encode()),
            (where, base64.b64encode(raw).rstrip(b"=")),
            (where, base64.urlsafe_b64encode(raw).rstrip(b"=")),
        ]
    return {(where, place) for place, held in places for where, form in forms if form in held}


def test_they_were_planted(remote: Remote, planted: Planted) -> None:
    assert len(planted.secrets) > 30
    assert all(len(value) > 8 for value in planted.secrets.values())
    assert _found(planted, iter([("x", planted.secrets["wrong-key"].encode())])) == {("wrong-key", "x")}


def test_none_is_in_the_server_s_log(remote: Remote, planted: Planted) -> None:
    assert '"status": 401' in remote.server.text()
    assert _found(planted, iter([("log", remote.server.log.read_bytes())])) == set()


def test_none_is_in_the_data_directory(remote: Remote, planted: Planted) -> None:
    places = dict(_files(remote.server.data))
    assert any(name.endswith("aftergate.db") for name in places)
    assert _found(planted, iter(places.items())) == set()
    rows = list(_rows(remote.server.data / "aftergate.db"))
    assert len(rows) > 100
    assert _found(planted, iter(rows)) == set()


def test_what_holds_secrets_is_its_owner_s_alone(remote: Remote) -> None:
    assert (remote.server.data / "keys" / "pepper").stat().st_mode & 0o777 == 0o600
    assert remote.server.data.stat().st_mode & 0o077 == 0


def test_a_defect_shows_nothing_of_the_request() -> None:
    from aftergate.api.run import _masked

    key, bearer = "agk_" + named("defect"), token("defect")
    line = _masked(None, "error", f'{{"exception": "ValueError: {key} and Bearer {bearer}, password=hunter2"}}')
    assert not [secret for secret in (key, bearer, "hunter2") if secret in line]


def test_none_is_in_an_answer(remote: Remote, planted: Planted) -> None:
    assert len(planted.answers) > 20
    assert _found(planted, iter(planted.answers)) == set()


def test_none_is_in_an_export(remote: Remote, planted: Planted) -> None:
    data = remote.http.get("/v1/audit/export?personal=true").content
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = [(member.name, file.read()) for member in archive if (file := archive.extractfile(member)) is not None]
    assert any(b"approval.consumed" in held for _, held in members)
    places = [*members, *((name, gzip.decompress(held)) for name, held in members if held[:2] == b"\x1f\x8b")]
    assert _found(planted, iter(places)) == set()


def test_a_token_within_a_question_s_context_is_not_kept(remote: Remote, planted: Planted) -> None:
    """Callers should not send one there; a careless caller's is masked all the same."""
    mine = Planted()
    context = {
        "session_id": "s-1",
        "authorization": "Bearer " + mine.token("context-bearer"),
        "request": {"access_token": mine.token("context-token"), "client_secret": mine.plant("context-secret")},
        "password": mine.plant("context-password"),
        "headers": {"Cookie": mine.plant("context-cookie")},
    }
    asked = payment(context=context)
    answer = remote.http.post("/access/v1/evaluation", json=asked)
    assert answer.status_code == 200
    mine.answers.append(("evaluation", answer.content))
    remote.http.post("/access/v1/search/action", json={"subject": asked["subject"], "resource": asked["resource"], "context": context})
    remote.http.post("/access/v1/evaluations", json={**asked, "evaluations": [{"action": {"name": "read"}}]})
    until(lambda: any(b"s-1" in held and b"***" in held for _, held in _rows(remote.server.data / "aftergate.db")))
    assert _found(mine, iter([("log", remote.server.log.read_bytes()), *mine.answers])) == set()
    assert _found(mine, _rows(remote.server.data / "aftergate.db")) == set()


def test_a_database_s_password_is_neither_logged_nor_told(tmp_path: Path) -> None:
    secret = named("database-password")
    for address in (
        f"postgresql://u:{secret}@127.0.0.1:1/x",
        f"postgresql://u:{secret}@[::bad/x",
        f"nonsense://u:{secret}@h/x",
        f"postgresql://u@127.0.0.1:1/x?password={secret}",
    ):
        done = started_in_vain(tmp_path, "--database", address)
        assert done.returncode == 1
        assert secret not in done.stdout + done.stderr, address.partition(":")[0]
    places = dict(_files(tmp_path))
    assert not [name for name, held in places.items() if secret.encode() in held]
    assert json.dumps(sorted(places)).count(secret) == 0
