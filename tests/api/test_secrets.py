"""No secret rests or is told: planted in every place that takes text, and looked for in the log, the database and every answer."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import httpx2
import pytest
from serving import KEY, Server

pytestmark = pytest.mark.serving

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.cGxhbnRlZC1zaWduYXR1cmU"
WRONG = "agk_planted-wrong-key-0123456789abcdefgh"


def test_secrets_planted_everywhere_are_found_nowhere(tmp_path: Path, policies: Path) -> None:
    answers: list[httpx2.Response] = []
    with Server(tmp_path / "s", "--policies", str(policies), "--log-level", "debug", "--caller-issuer", "http://127.0.0.1:1") as made:
        plain = httpx2.Client(base_url=made.url, trust_env=False, timeout=20)
        with plain, httpx2.Client(base_url=made.url, headers={"authorization": f"Bearer {KEY}"}, trust_env=False, timeout=20) as http:
            # As credentials: wrong keys, tokens, cookies, basic passwords, in every header that could carry one.
            for value in (f"Bearer {WRONG}", f"Bearer {JWT}", f"DPoP {JWT}", "Basic cGxhbnRlZDpwbGFudGVkLXBhc3N3b3Jk", WRONG):
                answers += [
                    plain.get("/v1/status", headers={"authorization": value}),
                    plain.post("/v1/tasks", headers={"authorization": value}, json={}),
                ]
                answers.append(plain.post("/access/v1/evaluation", headers={"authorization": value}, json={}))
            answers.append(plain.get("/v1/status", headers={"cookie": f"aftergate_session={WRONG}", "dpop": JWT, "x-api-key": WRONG}))
            # In paths and queries, which other logs keep for ever.
            answers += [
                plain.get(f"/v1/status?access_token={WRONG}"),
                plain.get(f"/no/{WRONG}"),
                http.get(f"/v1/people/{WRONG}?token={JWT}"),
            ]
            answers.append(http.delete(f"/v1/keys/{WRONG}"))
            # In forms and bodies.
            answers += [
                plain.post("/oauth/token", data={"grant_type": "client_credentials", "client_secret": WRONG, "client_assertion": JWT}),
                plain.post("/oauth/introspect", data={"token": JWT}, headers={"authorization": f"Bearer {KEY}"}),
                plain.post("/oauth/revoke", data={"token": JWT}, headers={"authorization": f"Bearer {KEY}"}),
                http.post("/v1/keys", json={"name": WRONG, "scopes": [WRONG]}),
                http.post("/v1/keys", json={WRONG: JWT}),
                http.post("/v1/findings", content=f'{{"id":"{JWT}"}}\n{WRONG}\n'.encode()),
                http.post(
                    "/access/v1/evaluation", content=f'{{"subject":{{"type":"{JWT}'.encode(), headers={"content-type": "application/json"}
                ),
                http.post("/v1/enrol/options", json={"link": WRONG, "token": JWT}),
            ]
            made_key = http.post("/v1/keys", json={"name": "new", "scopes": ["decide"]}).json()
            listed = http.get("/v1/keys")
            answers += [listed, http.get("/v1/audit/records"), http.get("/metrics"), http.get("/v1/status"), http.get("/openapi.json")]
            assert made_key["key"] not in listed.text
        log = made.text()
        assert made.stop() == 0
        log += made.text()
    with sqlite3.connect(made.data / "aftergate.db") as connection:
        rest = "\n".join(connection.iterdump())
    files = "".join(path.read_bytes().decode("latin-1") for path in made.data.rglob("*") if path.is_file() and "pepper" not in path.name)
    for secret in (KEY, made_key["key"], WRONG, JWT, "planted-wrong-key", "planted-password", "cGxhbnRlZC1zaWduYXR1cmU"):
        assert secret not in log, secret
        assert secret not in rest, secret
        assert secret not in files, secret
        assert not [answer.text for answer in answers if secret in answer.text + repr(answer.headers)], secret
    assert "request" in log
    assert (made.data / "keys" / "pepper").stat().st_mode & 0o777 == 0o600
    assert made.data.stat().st_mode & 0o077 == 0


def test_a_defect_shows_nothing_of_the_request() -> None:
    from aftergate.api.run import _masked

    line = _masked(None, "error", f'{{"exception": "ValueError: {WRONG} and Bearer {JWT}, password=hunter2"}}')
    assert WRONG not in line
    assert JWT not in line
    assert "hunter2" not in line
