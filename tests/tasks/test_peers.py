"""Real OAuth peers over HTTP: npm `oidc-provider` issues the subject tokens, npm `oauth4webapi` exchanges, introspects and revokes."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from peers import Issuer, run
from serving import Server, free_port
from workshop import POLICIES, new_key, signed

from aftergate.authz.tasks import details as d

pytestmark = pytest.mark.serving


def private(key: Any, kid: str) -> dict[str, Any]:
    return {**key.as_dict(private=True), "kid": kid, "alg": "ES256"}


def public(key: Any, kid: str) -> dict[str, Any]:
    return {"keys": [{**key.as_dict(private=False), "kid": kid, "alg": "ES256", "use": "sig"}]}


@pytest.fixture(scope="module")
def saw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """One pass of the independent client, through both servers."""
    folder: Path = tmp_path_factory.mktemp("peers")
    machine, deployer = new_key(), new_key()
    port = free_port()
    url = f"http://localhost:{port}"
    with Issuer(folder, resources=[url], scope="deploy read", machine_jwks=public(machine, "m1")) as issuer:
        (folder / "policies").mkdir()
        (folder / "policies" / "shop.cedar").write_text(POLICIES)
        clients = {"clients": {"deployer": {"jwks": public(deployer, "d1")}}, "issuers": {issuer.url: {"audience": [url]}}}
        (folder / "clients.json").write_text(json.dumps(clients))
        arguments = ["--policies", str(folder / "policies"), "--clients-file", str(folder / "clients.json"), "--public-url", url]
        server = Server(folder / "server", *arguments)
        server.start(port=port)
        with server, httpx2.Client(base_url=url, headers={"authorization": f"Bearer {server.key}"}, timeout=30) as http:

            def task(**more: Any) -> str:
                body = {"purpose": "nightly", "actions": ["deploy", "read"], **more}
                answer = http.post("/v1/tasks", json=body)
                assert answer.status_code == 201, answer.text
                return str(answer.json()["id"])

            now = int(time.time())
            assertion = {"iss": "deployer", "sub": "deployer", "aud": url, "exp": now + 60, "iat": now, "jti": secrets.token_hex(8)}
            bearer = {"authorization": "Bearer " + signed(assertion, deployer, kid="d1")}
            answer = httpx2.post(url + "/v1/tasks", json={"purpose": "own", "actions": ["deploy"]}, headers=bearer)
            assert answer.status_code == 201, answer.text
            made = run(
                folder,
                "client.mjs",
                {
                    "issuer": issuer.url,
                    "server": url,
                    "api_client": "test",
                    "api_key": server.key,
                    "machine_key": private(machine, "m1"),
                    "deployer_key": private(deployer, "d1"),
                    "task_for_alice": task(on_behalf_of={"type": "user", "id": "alice"}),
                    "task_for_machine": task(on_behalf_of={"type": "user", "id": "machine"}),
                    "task_of_deployer": answer.json()["id"],
                },
            )
            made["url"] = url
            made["log"] = server.text()
            made["issuer"] = issuer.url
            made["key"] = server.key
            yield made


def test_it_finds_us_by_our_metadata(saw: dict[str, Any]) -> None:
    assert saw["metadata"]["issuer"] == saw["url"]
    assert saw["metadata"]["authorization_details_types_supported"] == [d.TASK]
    assert "ES256" in saw["metadata"]["dpop_signing_alg_values_supported"]


def test_a_persons_token_of_the_provider_becomes_a_bound_task_token(saw: dict[str, Any]) -> None:
    answer, claims = saw["alice"]["answer"], saw["alice"]["claims"]
    assert answer["token_type"].lower() == "dpop"
    assert answer["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    assert claims["sub"] == "alice"
    assert claims["act"] == {"sub": "test"}
    assert claims["cnf"] == {"jkt": saw["thumbprint"]}
    assert claims["aud"] == "https://api.example"
    assert claims["acr"] == "urn:example:aal3"
    assert claims["amr"] == ["pwd", "otp"]
    assert claims["auth_time"] <= claims["iat"] + 1
    assert claims["scope"] == "deploy read"


def test_a_machines_token_and_a_private_key_jwt_serve_too(saw: dict[str, Any]) -> None:
    assert saw["machine"]["sub"] == "machine"
    assert saw["own"]["sub"] == "deployer"
    assert "act" not in saw["own"]
    assert saw["own"]["cnf"] == {"jkt": saw["thumbprint"]}


def test_a_transaction_token_is_told_apart(saw: dict[str, Any]) -> None:
    """The client library takes an `N_A` token for nothing that it could use: exactly what that type is for."""
    assert saw["txn"]["failed"] == "UnsupportedOperationError: unsupported `token_type` value"


def test_every_wrong_request_is_refused_with_its_error(saw: dict[str, Any]) -> None:
    assert saw["refused"] == {
        "wider_scope": "invalid_scope",
        "unknown_detail": "invalid_authorization_details",
        "no_key": "invalid_request",
        "wrong_secret": "OAUTH_WWW_AUTHENTICATE_CHALLENGE",  # its way to tell of a 401
        "other_task": "invalid_grant",
        "id_token": "invalid_request",
        "stolen": "invalid_request",
    }


def test_introspection_is_understood_plain_and_signed(saw: dict[str, Any]) -> None:
    for answer in (saw["introspection"], saw["signed"]):
        assert answer["active"] is True
        assert answer["token_type"] == "DPoP"
        assert answer["sub"] == "alice"
        assert answer["cnf"] == {"jkt": saw["thumbprint"]}


def test_revocation_ends_the_token_and_what_came_from_it(saw: dict[str, Any]) -> None:
    assert saw["derived_before"] is True
    assert saw["after"] == {"active": False}
    assert saw["derived_after"] == {"active": False}


def test_no_secret_is_in_the_log(saw: dict[str, Any]) -> None:
    assert saw["key"] not in saw["log"]
    assert "eyJ" not in saw["log"]
