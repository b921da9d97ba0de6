"""Keys in files and tables, issuers' keys over HTTP, bundles in files, and the file that says who is who."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
import stamina
from workshop import CI, IDP, Shop, new_key

from aftergate.audit.records import Actor
from aftergate.errors import ConfigError
from aftergate.service.clock import Clock
from aftergate.service.core import Core
from aftergate.service.tasks.config import load
from aftergate.service.tasks.issuers import AGAIN_MS, KEEP_MS, STALE_MS, Bundles, IssuerKeys, IssuerUnavailable, discovery_addresses
from aftergate.settings import Settings
from aftergate.stores import tasks as store

BY = Actor("operator", "test")


def test_secret_keys_stay_in_a_file_of_their_own(shop: Shop) -> None:
    path = shop.core.data / "keys" / "tokens.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    shown = json.dumps(shop.tasks.jwks(shop.now))
    (secret,) = [each["private"]["d"] for each in json.loads(path.read_bytes())]
    assert secret not in shown
    assert '"d"' not in shown
    with shop.core.db.read() as connection:
        assert secret not in repr([each.public for each in store.keys(connection)])


def test_two_processes_verify_each_others_tokens(each_shop: Shop, tmp_path: Path) -> None:
    """Two servers with data directories of their own over one database; the pepper is shared, as the docs ask."""
    shop = each_shop
    other_data = tmp_path / "other"
    (other_data / "keys").mkdir(parents=True)
    (other_data / "keys" / "pepper").write_bytes((shop.core.data / "keys" / "pepper").read_bytes())
    settings = msgspec.structs.replace(shop.settings, data=str(other_data), database=shop.settings.database or shop.settings.database_url())
    shutil.copytree(shop.core.data / "audit", other_data / "audit")
    other = Core.open(settings, clock=Clock(wall=shop.hand, steady=shop.hand), url=shop.core.url)
    try:
        token = shop.token(shop.task())
        assert other.tasks.introspect(shop.asking(), token, shop.now)["active"]
        assert len(other.tasks.signing.jwks(shop.now)["keys"]) == 2
        other.tasks.signing.rotate(BY)
        shop.hand.move(3)
        made = other.tasks.signing.signer(shop.now)
        assert made.kid in {key["kid"] for key in shop.tasks.signing.for_kid(made.kid, shop.now)["keys"]}
    finally:
        other.close()


def test_rotation_keeps_old_tokens_alive_and_is_recorded(shop: Shop) -> None:
    old = shop.token(shop.task())
    before = {key["kid"] for key in shop.tasks.signing.jwks(shop.now)["keys"]}
    kid = shop.tasks.signing.rotate(BY)
    assert kid not in before
    assert before < {key["kid"] for key in shop.tasks.signing.jwks(shop.now)["keys"]}
    assert shop.active(old)
    assert shop.tasks.signing.signer(shop.now).kid == kid
    assert [r["detail"]["by_hand"] for r in shop.records("admin.token_key.rotated")] == [False, True]


def test_keys_renew_themselves_with_time(shop: Shop) -> None:
    first = shop.tasks.signing.signer(shop.now).kid
    for _ in range(31):
        shop.hand.move(86_400)
        shop.tasks.signing.tick(shop.now)
    second = shop.tasks.signing.signer(shop.now).kid
    assert second != first
    shop.hand.move(3 * 86_400)
    shop.tasks.signing.tick(shop.now)
    assert first not in {key["kid"] for key in shop.tasks.signing.jwks(shop.now)["keys"]}


def test_a_damaged_key_file_stops_the_start_and_says_so(shop: Shop) -> None:
    path = shop.core.data / "keys" / "tokens.json"
    kept = path.read_bytes()
    shop.core.close()
    path.write_bytes(b"[{]")
    with pytest.raises(ConfigError, match="damaged"):
        shop.opened()
    path.write_bytes(kept)
    shop.core = shop.opened()
    shop.core.close()
    path.unlink()  # lost: another key begins
    shop.core = shop.opened()
    assert len(shop.tasks.signing.jwks(shop.now)["keys"]) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_key_file_stops_the_start(shop: Shop) -> None:
    shop.core.close()
    (shop.core.data / "keys" / "tokens.json").chmod(0)
    with pytest.raises(ConfigError, match="cannot read"):
        shop.opened()


# Issuers


class Web:
    """An issuer's pages; `answer` may be changed."""

    def __init__(self, issuer: str = "https://idp.example") -> None:
        self.issuer = issuer
        self.key = {**new_key().as_dict(private=False), "kid": "k1"}
        self.pages: dict[str, Any] = {
            f"{issuer}/.well-known/openid-configuration": {"issuer": issuer, "jwks_uri": f"{issuer}/keys"},
            f"{issuer}/keys": {"keys": [self.key]},
        }
        self.asked: list[str] = []
        self.down = False

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(str(request.url))
        if self.down:
            raise httpx2.ConnectError("down")
        page = self.pages.get(str(request.url))
        if isinstance(page, httpx2.Response):
            return page
        return (
            httpx2.Response(404)
            if page is None
            else httpx2.Response(200, content=page if isinstance(page, bytes) else json.dumps(page).encode())
        )


class Time:
    def __init__(self) -> None:
        self.at = 1_700_000_000_000

    def __call__(self) -> int:
        return self.at


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """Retries without their pauses."""
    with stamina.set_testing(True, attempts=2):
        yield


def keys_of(web: Web, clock: Time, addresses: list[str] | None = None) -> IssuerKeys:
    return IssuerKeys(clock, transport=httpx2.MockTransport(web), resolver=lambda *_: addresses or ["93.184.216.34"])


def test_an_issuers_keys_are_kept_and_renewed_when_they_rotate() -> None:
    web, clock = Web(), Time()
    held = keys_of(web, clock)
    assert held.keys(web.issuer, "k1")["keys"] == [web.key]
    held.keys(web.issuer, "k1")
    assert len(web.asked) == 2
    web.pages[f"{web.issuer}/keys"] = {"keys": [{**web.key, "kid": "k2"}]}
    assert held.keys(web.issuer, "k2")["keys"][0]["kid"] == "k1"  # asked a moment ago: an unknown id is no way to make us ask
    clock.at += AGAIN_MS
    assert held.keys(web.issuer, "k2")["keys"][0]["kid"] == "k2"
    clock.at += KEEP_MS
    web.down = True
    assert held.keys(web.issuer, "k2")["keys"][0]["kid"] == "k2"  # for a while the last ones do
    clock.at += STALE_MS + 1
    with pytest.raises(IssuerUnavailable):
        held.keys(web.issuer, "k2")


@pytest.mark.parametrize(
    ("jwks_uri", "addresses"),
    [
        ("http://idp.example/keys", None),
        ("https://inside.example/keys", ["10.0.0.5"]),
        ("https://inside.example/keys", ["93.184.216.34", "127.0.0.1"]),
        ("https://inside.example/keys", ["::1"]),
        ("https://inside.example/keys", ["169.254.169.254"]),
        ("https://user@idp.example/keys", None),
        ("https://idp.example/keys#x", None),
        ("file:///etc/passwd", None),
        ("", None),
    ],
)
def test_discovery_does_not_lead_us_inside(jwks_uri: str, addresses: list[str] | None) -> None:
    web = Web()
    web.pages[f"{web.issuer}/.well-known/openid-configuration"]["jwks_uri"] = jwks_uri
    with pytest.raises(IssuerUnavailable):
        keys_of(web, Time(), addresses).keys(web.issuer, None)
    assert all("inside" not in address for address in web.asked)


@pytest.mark.parametrize(
    "change",
    [
        {"/.well-known/openid-configuration": {"issuer": "https://other.example", "jwks_uri": "https://idp.example/keys"}},
        {"/.well-known/openid-configuration": {"issuer": "https://idp.example"}},
        {"/.well-known/openid-configuration": []},
        {"/.well-known/openid-configuration": b"<html>"},
        {"/.well-known/openid-configuration": b"x" * 1_100_000},
        {"/.well-known/openid-configuration": httpx2.Response(302, headers={"location": "http://127.0.0.1/"})},
        {"/keys": {"nokeys": []}},
        {"/keys": httpx2.Response(500)},
    ],
)
def test_an_issuer_that_answers_wrongly_has_no_keys(change: dict[str, Any]) -> None:
    web = Web()
    web.pages |= {web.issuer + path: page for path, page in change.items()}
    with pytest.raises(IssuerUnavailable):
        keys_of(web, Time()).keys(web.issuer, None)


def test_symmetric_and_secret_keys_of_an_issuer_are_passed_over() -> None:
    web = Web()
    web.pages[f"{web.issuer}/keys"] = {"keys": [{"kty": "oct", "k": "AA"}, {**web.key, "d": "x"}, "x", web.key]}
    assert keys_of(web, Time()).keys(web.issuer, None)["keys"] == [web.key]


def test_metadata_is_looked_for_where_the_standards_put_it() -> None:
    assert discovery_addresses("https://a.example/t/1") == [
        "https://a.example/.well-known/oauth-authorization-server/t/1",
        "https://a.example/.well-known/openid-configuration/t/1",
        "https://a.example/t/1/.well-known/openid-configuration",
    ]
    web = Web("https://a.example/t")
    assert keys_of(web, Time()).keys(web.issuer, None)["keys"] == [web.key]


def test_bundles_are_swapped_and_the_last_good_one_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    bundles = Bundles({"prod.example": path})
    assert bundles.current() == {}
    for number, (content, sequence) in enumerate(
        [
            ({"spiffe_sequence": 1, "keys": []}, 1),
            ({"spiffe_sequence": 3, "keys": []}, 3),
            ("not json", 3),
            ({"spiffe_sequence": 2, "keys": []}, 3),
            ({"x": 1}, 3),
        ]
    ):
        path.write_text(content if isinstance(content, str) else json.dumps(content) + " " * number)
        os.utime(path, ns=(number * 10**9, number * 10**9))
        assert bundles.current()["prod.example"]["spiffe_sequence"] == sequence
    assert "prod.example" in bundles.problems
    path.unlink()
    assert bundles.current() == {}  # a domain that is gone stops validating


# The clients file


def settings(tmp_path: Path, text: str, **more: Any) -> Settings:
    path = tmp_path / "clients.json"
    path.write_text(text)
    return Settings(clients_file=str(path), **more)


KEY = {"kty": "EC", "crv": "P-256", "x": "a", "y": "b"}


@pytest.mark.parametrize(
    "held",
    [
        "[",
        {"unknown": 1},
        {"clients": {"a": {}}},
        {"clients": {"a": {"jwks": {"keys": []}}}},
        {"clients": {"a": {"jwks": {"keys": [{**KEY, "d": "secret"}]}}}},
        {"clients": {"a": {"jwks": {"keys": [KEY]}, "issuer": CI}}},
        {"clients": {"a": {"issuer": CI, "claims": {"x": 1}}}},
        {"clients": {"a": {"issuer": CI}}, "issuers": {CI: {}}},
        {"clients": {"spiffe://a/b": {"jwks": {"keys": [KEY]}}}},
        {"clients": {"": {"jwks": {"keys": [KEY]}}}},
        {"clients": {"a": {"jwks": {"keys": [KEY]}, "secret": "x"}}},
        {"issuers": {CI: {}, IDP: {}}},
        {"issuers": {"http://idp.example": {}}},
        {"issuers": {"https://idp.example?x": {}}},
        {"issuers": {CI: {"scope": "whatever"}}},
        {"authorization_details_types": {"x": {"y": {"kind": "colour"}}}},
    ],
)
def test_a_clients_file_that_cannot_be_right_is_refused(tmp_path: Path, held: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load(settings(tmp_path, held if isinstance(held, str) else json.dumps(held)), "https://a.example")
    assert "secret" not in str(caught.value) or "secret key" in str(caught.value) or "unknown field" in str(caught.value)


def test_the_clients_file_and_the_settings_go_together(tmp_path: Path) -> None:
    held = {"issuers": {IDP: {"prefix": "idp:", "scope": "identity"}}, "clients": {"a": {"issuer": CI, "claims": {"x": 1}}}}
    known = load(
        settings(tmp_path, json.dumps(held), subject_issuers=(CI,), spiffe_trust_domains=("prod.example=/b.json",)), "https://a.example"
    )
    assert set(known.issuers) == {CI, IDP}
    assert not known.issuers[IDP].scope_bounds
    assert known.issuers[CI].audience == {"https://a.example", "https://a.example/oauth/token"}
    assert known.trust_domain == "a.example"
    for wrong in ("prod.example", "PROD=/x", "prod.example="):
        with pytest.raises(ConfigError):
            load(settings(tmp_path, "{}", spiffe_trust_domains=(wrong,)), "https://a.example")
    with pytest.raises(ConfigError, match="cannot read"):
        load(Settings(clients_file=str(tmp_path / "none.json")), "https://a.example")


def test_the_clients_file_of_the_docs_is_one_that_loads(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
    (example,) = [block.removeprefix("json\n") for block in page.split("```")[1::2] if '"clients"' in block]
    known = load(settings(tmp_path, example), "https://aftergate.example.org")
    assert set(known.clients) == {"deployer", "ci-deploy"}
    assert set(known.types) == {"aftergate_task", "payment"}
    assert known.trust_domain == "prod.example.org"
