"""The settings table, and the combinations that do not start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from aftergate.errors import ConfigError
from aftergate.settings import PREFIX, Settings, listen_address, load, rows

SAFE = {"tls_certificate": "c.pem", "tls_key": "k.pem", "public_url": "https://gate.example"}


def test_every_setting_says_what_it_is() -> None:
    for row in rows():
        assert row.help.endswith("."), row
        assert row.group, row
        assert row.flag.startswith("--"), row
        assert row.variable == PREFIX + row.name.upper(), row
        if row.type == "number" and row.name.rsplit("_", 1)[-1] in {"s", "ms", "days", "b"}:
            assert row.unit in {"seconds", "milliseconds", "days", "bytes"}, row
        assert row.type in {"text", "list"} or row.unit, row


def test_every_setting_does_something() -> None:
    """Each is read somewhere, as an attribute of settings; a table entry that nothing reads would promise what is not kept."""
    source = Path(__file__).parents[1] / "src" / "aftergate"
    text = "\n".join(path.read_text(encoding="utf-8") for path in source.rglob("*.py") if path.name != "settings.py")
    own = (source / "settings.py").read_text(encoding="utf-8")
    held = set(re.findall(r"\b(?:_?settings|ground|self)\.([a-z_]+)\b", text)) | set(re.findall(r"\bself\.([a-z_]+)\b", own))
    assert {row.name for row in rows()} - held == set()


def test_nothing_given_is_safe_to_start() -> None:
    assert load({}, {}) == Settings()


def test_a_flag_goes_before_the_environment_and_that_before_the_default() -> None:
    environment = {"AFTERGATE_RELOAD_S": "7", "AFTERGATE_SUBJECT_ISSUERS": "https://a.example, https://b.example"}
    held = load({"reload_s": None}, environment)
    assert held.reload_s == 7
    assert held.subject_issuers == ("https://a.example", "https://b.example")
    assert load({"reload_s": 9}, environment).reload_s == 9


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"listen": "0.0.0.0:8181"}, "without TLS"),
        ({"listen": "[::]:8181"}, "without TLS"),
        ({"listen": "192.0.2.7:8181"}, "without TLS"),
        ({"listen": ":8181"}, "without TLS"),
        ({"listen": "gate.example:8181"}, "without TLS"),
        ({"listen": "0.0.0.0:8443", "tls_certificate": "c.pem", "tls_key": "k.pem"}, "public_url"),
        ({"listen": "127.0.0.1"}, "not HOST:PORT"),
        ({"listen": "127.0.0.1:99999"}, "not HOST:PORT"),
        ({"tls_certificate": "c.pem"}, "go together"),
        ({"tls_key": "k.pem"}, "go together"),
        ({"trusted_proxies": "0.0.0.0/0", "public_url": "https://gate.example"}, "choose its own address"),
        ({"trusted_proxies": "::/0", "public_url": "https://gate.example"}, "choose its own address"),
        ({"trusted_proxies": "proxy", "public_url": "https://gate.example"}, "not a network"),
        ({"trusted_proxies": "10.0.0.0/8"}, "public_url"),
        ({"public_url": "http://gate.example"}, "https"),
        ({"public_url": "gate.example"}, "not an address"),
        ({"public_url": "https://gate.example/?a=1"}, "not an address"),
        ({"oidc_client_id": "a"}, "needs `oidc_issuer`"),
        ({"oidc_issuer": "https://issuer.example"}, "needs `oidc_client_id`"),
        ({"oidc_issuer": "http://issuer.example", "oidc_client_id": "a"}, "https"),
        ({"caller_issuer": "http://issuer.example"}, "https"),
        ({"subject_issuers": "http://issuer.example"}, "https"),
        ({"log_format": "xml"}, "log_format"),
        ({"log_level": "loud"}, "log_level"),
        ({"client_certificate_header": "X Client"}, "lower case"),
        ({"approval_failures": 6}, "at most 5"),
        ({"approval_failures": 0}, "at least 1"),
        ({"session_idle_s": 3601}, "at most"),
        ({"task_trust_floor": 101}, "at most 100"),
        ({"body_limit_b": 10}, "at least"),
        ({"depth_limit": 1}, "at least"),
        ({"trust_stale_s": 0}, "at least"),
        ({"trust_stale_s": 2, "trust_refresh_ms": 2000}, "must be below"),
        ({"trust_stale_s": 301}, "at most 300"),
        ({"failures_per_minute": 0}, "at least"),
        ({"reload_s": "soon"}, "must be a number"),
        ({"no_such": "x"}, "no setting"),
    ],
)
def test_what_is_unsafe_or_cannot_work_does_not_start(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        load(given, {})
    assert refused.value.advice()


@pytest.mark.parametrize(
    "given",
    [
        {"listen": "127.0.0.1:0"},
        {"listen": "[::1]:8181"},
        {"listen": "localhost:8181"},
        {"listen": "0.0.0.0:8443", **SAFE},
        {"listen": "0.0.0.0:8181", "trusted_proxies": "10.0.0.0/8", "public_url": "https://gate.example"},
        {"caller_issuer": "http://127.0.0.1:9000"},
    ],
)
def test_what_is_safe_starts(given: dict[str, Any]) -> None:
    load(given, {})


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        load({"listen": "0.0.0.0:1", "log_level": "loud", "reload_s": "x"}, {})
    assert all(words in str(refused.value) for words in ("without TLS", "log_level", "reload_s"))


def test_addresses() -> None:
    assert listen_address("[::1]:80") == ("::1", 80)
    assert listen_address(":80") == ("0.0.0.0", 80)
    assert Settings().url(5) == "http://localhost:5"
    assert Settings(public_url="https://gate.example/").url() == "https://gate.example"


def test_the_documentation_is_the_tables() -> None:
    """What an operator reads is made from the same rows."""
    page = Path(__file__).parents[1] / "docs" / "settings.md"
    text = page.read_text()
    for row in rows():
        assert f"`{row.flag}`" in text, f"{row.flag}: run `python -m aftergate.tools.docs`"
        assert f"`{row.variable}`" in text
