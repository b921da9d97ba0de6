"""An address becomes a network: what the log says first, then operator files, then tables, then the prefix."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from aftergate.errors import ConfigError
from aftergate.events import networks
from aftergate.events.countries import alpha2
from aftergate.events.enrich import Enricher, parse
from aftergate.vocabulary import Origin

PLAIN = Enricher(tables=False)


def look(
    ip: str, asn: int | None = None, country: str | None = None, name: str | None = None, proxy: bool = False, by: Enricher = PLAIN
) -> Origin:
    return by.origin(ip, asn, country, name, proxy, True)


@pytest.fixture(scope="module")
def tabled() -> Enricher:
    pytest.importorskip("iporigin")
    pytest.importorskip("geoip2fast")
    return Enricher(tables=True)


@pytest.mark.parametrize(
    ("text", "ip"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("198.51.100.7:5678", "198.51.100.7"),
        (" 198.51.100.7 ", "198.51.100.7"),
        ("[2001:DB8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("[::ffff:198.51.100.7]:80", "198.51.100.7"),
        ("253.252.51.07", "253.252.51.7"),
        ("198.51.100.7, 10.0.0.1", "198.51.100.7"),
        ("ec2.amazonaws.com", None),
        ("cafe.example", None),
        ("1.1.1.1.1", None),
        ("256.1.1.1", None),
        ("0.0.0.0", None),
        ("::", None),
        ("", None),
    ],
)
def test_an_address_is_found_in_every_spelling_logs_use(text: str, ip: str | None) -> None:
    found = parse(text)
    assert (str(found) if found else None) == ip


@pytest.mark.parametrize(
    ("ip", "net", "network"),
    [
        ("198.51.100.7", "198.51.100.0/24", "unknown"),
        ("203.0.113.200", "203.0.113.0/24", "unknown"),
        ("192.0.2.1", "192.0.2.0/24", "unknown"),
        ("2001:db8:12:34::9", "2001:db8:12::/48", "unknown"),
        ("10.1.2.3", "private", "private"),
        ("172.31.0.9:4000", "private", "private"),
        ("100.64.3.4", "private", "private"),
        ("169.254.169.254", "private", "private"),
        ("127.0.0.1", "private", "private"),
        ("::1", "private", "private"),
        ("fd00::5", "private", "private"),
        ("fe80::1%en0", "private", "private"),
        ("::ffff:10.0.0.1", "private", "private"),
    ],
)
def test_without_any_knowledge_the_prefix_is_the_network(ip: str, net: str, network: str) -> None:
    origin = look(ip)
    assert (origin.net, origin.network, origin.basis) == (net, network, "prefix")
    assert origin.ip is not None


@pytest.mark.parametrize("text", ["ec2.amazonaws.com", "AWS Internal", "gce-internal-ip", "private"])
def test_a_service_name_is_no_caller(text: str) -> None:
    origin = look(text)
    assert (origin.ip, origin.net, origin.network, origin.known) == (None, f"service:{text}", "service", False)


@pytest.mark.parametrize("text", ["", "-", "<null>", "null", "redacted", "...", "0.0.0.0"])
def test_nothing_is_unknown(text: str) -> None:
    origin = look(text)
    assert (origin.ip, origin.net, origin.network, origin.basis) == (None, "unknown", "unknown", "none")


@pytest.mark.parametrize(
    ("asn", "name", "ip", "network", "provider"),
    [
        (16509, None, "198.51.100.7", "cloud", "aws"),
        (8075, None, "198.51.100.7", "cloud", "azure"),
        (24940, "Hetzner Online GmbH", "198.51.100.7", "hosting", "hetzner"),
        (62044, None, "198.51.100.7", "proxy", "zscaler"),
        (212238, None, "198.51.100.7", "vpn", "datacamp"),
        (60729, None, "198.51.100.7", "tor", "tor"),
        (36183, None, "198.51.100.7", "relay", "apple-relay"),
        (14593, None, "198.51.100.7", "isp", "starlink"),
        (21928, None, "198.51.100.7", "mobile", None),
        (3320, "Deutsche Telekom AG", "198.51.100.7", "isp", None),
        (64500, "Brightwater Instruments", "198.51.100.7", "unknown", None),
        (64501, "Sunny VPS Hosting Ltd", "198.51.100.7", "hosting", None),
        (64501, "Example Mobile", "198.51.100.7", "mobile", None),
        (15169, "Google LLC", "34.76.1.1", "cloud", "gcp"),  # the number is shared, the block tells
        (15169, "Google LLC", "8.8.8.8", "vendor", "google"),
        (13335, "Cloudflare, Inc.", "104.28.1.1", "relay", "apple-relay"),
    ],
)
def test_the_number_in_the_log_decides(asn: int, name: str | None, ip: str, network: str, provider: str | None) -> None:
    origin = look(ip, asn, "Germany", name)
    assert (origin.net, origin.asn, origin.network, origin.provider, origin.country, origin.basis) == (
        f"AS{asn}",
        asn,
        network,
        provider,
        "DE",
        "log",
    )


def test_an_organisation_name_alone_gives_its_number() -> None:
    origin = look("198.51.100.7", name="DEUTSCHE TELEKOM AG")
    assert (origin.net, origin.network, origin.basis) == ("AS3320", "isp", "log")


@pytest.mark.parametrize(
    ("asn", "network"), [(7922, "vpn"), (16509, "vpn"), (62044, "proxy"), (36183, "relay"), (60729, "tor"), (64500, "vpn")]
)
def test_what_the_vendor_calls_a_proxy_is_one_unless_we_know_better(asn: int, network: str) -> None:
    assert look("198.51.100.7", asn, proxy=True).network == network


COMMON = [
    ("54.147.97.128", "cloud", "aws"),
    ("3.121.112.152", "cloud", "aws"),
    ("2600:1f18::1", "cloud", "aws"),
    ("20.54.26.235", "cloud", "azure"),
    ("13.64.151.161", "cloud", "azure"),
    ("52.176.1.1", "cloud", "azure"),
    ("34.72.217.225", "cloud", "gcp"),
    ("35.184.1.1", "cloud", "gcp"),
    ("167.99.25.196", "hosting", "digitalocean"),
    ("45.33.32.156", "hosting", "linode"),
    ("149.28.228.11", "hosting", "vultr"),
    ("78.46.116.80", "hosting", "hetzner"),
    ("2a01:4f8:1::1", "hosting", "hetzner"),
    ("51.38.113.209", "hosting", "ovh"),
    ("51.15.1.1", "hosting", "scaleway"),
    ("129.146.1.1", "cloud", "oracle"),
    ("165.225.122.118", "proxy", "zscaler"),
    ("136.226.252.238", "proxy", "zscaler"),
    ("172.225.174.27", "relay", "apple-relay"),
    ("140.82.113.5", "vendor", "github"),
]


@pytest.mark.parametrize(("ip", "network", "provider"), COMMON)
def test_common_clouds_are_known_without_tables(ip: str, network: str, provider: str) -> None:
    origin = look(ip)
    assert (origin.network, origin.provider, origin.asn, origin.basis) == (network, provider, None, "table")
    assert "/" in origin.net


@pytest.mark.parametrize(("ip", "network", "provider"), COMMON)
def test_tables_give_the_same_class_on_common_clouds(tabled: Enricher, ip: str, network: str, provider: str) -> None:
    origin = look(ip, by=tabled)
    assert (origin.network, origin.provider) == (network, provider)


def test_tables_add_numbers_and_countries_and_say_how_old_they_are(tabled: Enricher) -> None:
    origin = look("91.13.9.136", by=tabled)
    assert (origin.net, origin.network, origin.country, origin.basis) == ("AS3320", "isp", "DE", "table")
    assert {name for name, _ in tabled.tables} == {"aftergate networks", "iporigin", "geoip2fast"}
    assert all(date.startswith("20") for _, date in tabled.tables)


def test_tables_do_not_contradict_the_log(tabled: Enricher) -> None:
    origin = look("91.13.9.136", 64500, "FR", "Brightwater", by=tabled)
    assert (origin.net, origin.country, origin.basis) == ("AS64500", "FR", "log")


def test_tables_leave_documentation_ranges_alone(tabled: Enricher) -> None:
    assert look("203.0.113.9", by=tabled).net == "203.0.113.0/24"


def test_without_tables_only_our_own_list_is_named() -> None:
    assert PLAIN.tables == [("aftergate networks", networks.WRITTEN)]


def test_every_listed_number_has_one_kind_and_every_name_a_listed_number() -> None:
    kinds = {"cloud", "hosting", "vpn", "tor", "relay", "isp", "mobile", "proxy", "vendor"}
    assert {kind for kind, _ in networks.asns().values()} <= kinds
    unlisted = {name for name, number in networks.names().items() if number not in networks.asns()}
    assert len(unlisted) < 5, unlisted


@pytest.mark.parametrize(
    ("text", "code"),
    [("Germany", "DE"), ("united states", "US"), ("gb", "GB"), ("UK", "GB"), ("Mordor", None), ("", None), (None, None), ("--", None)],
)
def test_country_names_become_codes(text: str | None, code: str | None) -> None:
    assert alpha2(text) == code


# A database of one network, written by hand: the format is public and small.


def _encode(value: object) -> bytes:
    if isinstance(value, bytes):  # encoded already
        return value
    if isinstance(value, dict):
        return _head(7, len(value)) + b"".join(_encode(key) + _encode(item) for key, item in value.items())
    if isinstance(value, list):
        return _head(11, len(value)) + b"".join(_encode(item) for item in value)
    if isinstance(value, bool):
        return _head(14, int(value))
    if isinstance(value, int):
        return _head(6, 4) + struct.pack(">I", value)
    text = str(value).encode()
    return _head(2, len(text)) + text


def _head(kind: int, size: int) -> bytes:
    extended = b"" if kind <= 7 else bytes([kind - 7])
    first = (kind << 5) if kind <= 7 else 0
    return bytes([first | size]) + extended if size < 29 else bytes([first | 29]) + extended + bytes([size - 29])


def _short(value: int) -> bytes:
    return _head(5, 2) + struct.pack(">H", value)


def _database(folder: Path, record: dict[str, Any], kind: str = "Test-ASN") -> Path:
    """An mmdb file that holds `record` for 203.0.113.0/24 and nothing else."""
    bits = f"{(203 << 16) | (0 << 8) | 113:024b}"
    count = len(bits)
    tree = b""
    for depth, bit in enumerate(bits):
        onward = depth + 1 if depth + 1 < count else count + 16
        pair = (onward, count) if bit == "0" else (count, onward)
        tree += b"".join(struct.pack(">I", node)[1:] for node in pair)
    meta = {
        "node_count": count,
        "record_size": _short(24),
        "ip_version": _short(4),
        "database_type": kind,
        "languages": ["en"],
        "binary_format_major_version": _short(2),
        "binary_format_minor_version": _short(0),
        "build_epoch": _head(9, 8) + struct.pack(">Q", 1_760_000_000),
        "description": {"en": "invented"},
    }
    path = folder / f"{kind}.mmdb"
    path.write_bytes(tree + bytes(16) + _encode(record) + b"\xab\xcd\xefMaxMind.com" + _encode(meta))
    return path


def test_operator_files_answer_before_tables_and_after_the_log(tmp_path: Path) -> None:
    asn = _database(tmp_path, {"autonomous_system_number": 64500, "autonomous_system_organization": "Brightwater"})
    country = _database(tmp_path, {"country": {"iso_code": "CH"}}, "Test-Country")
    enrich = Enricher(mmdb=[asn, country], tables=False)
    found = look("203.0.113.9", by=enrich)
    assert (found.net, found.asn_name, found.country, found.basis) == ("AS64500", "Brightwater", "CH", "mmdb")
    said = look("203.0.113.9", 3320, "DE", by=enrich)
    assert (said.net, said.country, said.basis) == ("AS3320", "DE", "log")
    assert look("198.51.100.9", by=enrich).basis == "prefix"
    assert look("2001:db8::1", by=enrich).basis == "prefix"
    assert sorted(enrich.tables) == sorted(
        [("aftergate networks", networks.WRITTEN), (str(asn), "2025-10-09"), (str(country), "2025-10-09")]
    )


@pytest.mark.parametrize(
    ("record", "network"),
    [
        ({"is_anonymous": True, "is_tor_exit_node": True}, "tor"),
        ({"is_anonymous": True, "is_anonymous_vpn": True}, "vpn"),
        ({"is_anonymous": True, "is_residential_proxy": True}, "vpn"),
        ({"is_hosting_provider": True}, "hosting"),
        ({"traits": {"is_anonymous_proxy": True}}, "vpn"),
        ({"asn": "AS24940", "as_name": "Hetzner Online GmbH", "country_code": "DE"}, "hosting"),
    ],
)
def test_operator_files_tell_anonymisers(tmp_path: Path, record: dict[str, Any], network: str) -> None:
    enrich = Enricher(mmdb=[_database(tmp_path, record)], tables=False)
    found = look("203.0.113.9", by=enrich)
    assert (found.network, found.basis) == (network, "mmdb")


def test_a_file_that_is_missing_or_no_database_is_a_setting_to_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.mmdb: cannot read"):
        Enricher(mmdb=[tmp_path / "gone.mmdb"])
    (tmp_path / "bad.mmdb").write_text("not a database")
    with pytest.raises(ConfigError, match=r"bad\.mmdb: is no mmdb database"):
        Enricher(mmdb=[tmp_path / "bad.mmdb"])


def test_untrustworthy_stays_so() -> None:
    assert PLAIN.origin("198.51.100.7", None, None, None, False, False).known is False
