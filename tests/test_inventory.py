"""Declared facts answer by any id; without a file everything is None or False."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from aftergate.errors import ConfigError
from aftergate.events.clock import from_iso
from aftergate.inventory import Inventory

ROLE = "arn:aws:iam::111122223333:role/nightly"
FILE = {
    "organisation": "example",
    "accounts": {"aws": {"prod": "111122223333"}, "github": "example", "gcp": ["example-data"]},
    "groups": {"platform@example.com": ["ana@example.com", "bo@example.com"], "gone@example.com": ["cy@example.com"], "empty@example.com": []},
    "identities": [
        {"kind": "human", "name": "ana@example.com", "owner": "ana@example.com", "ids": {"okta_id": "00uAna", "entra_oid": None}},
        {"kind": "human", "name": "bo@example.com", "owner": "bo@example.com", "ids": {}},
        {"kind": "human", "name": "cy@example.com", "owner": "cy@example.com", "leaves": "2026-10-20", "ids": {}},
        {
            "kind": "workload",
            "name": "nightly-export",
            "owner": "platform@example.com",
            "ids": {"role_arn": ROLE},
            "egress": ["203.0.113.16/28", "2001:db8:5::/48", "hetzner", "NAT pool"],
            "automation": [{"tz": "Europe/Berlin", "days": "mon-fri", "at": "23:30", "duration_min": 60}],
            "credentials": [{"type": "access_key", "id": "AKIAEXAMPLE", "hashed": "q83vEjRW", "created": "2026-01-01"}],
            "exceptions": [{"slug": "ni-legacy-flow", "reason": "old printer", "until": "2026-12-31", "owner": "ana@example.com"}],
            "colour": "green",
        },
        {"kind": "workload", "name": "rotator", "owner": "gone@example.com", "ids": {"service_principal_id": "sp-1"}, "registered_rotator": True},
        {"kind": "workload", "name": "deployer", "ids": {}, "registered_deployer": True, "automation": [{"every_min": 60, "days": "sat,sun"}]},
        {"kind": "workload", "name": "quarterly", "owner": "x@elsewhere.example", "ids": {}, "automation": [{"dates": ["2026-10-22"], "at": "06:00"}]},
        {"kind": "third_party_app", "name": "Vendor App", "ids": {"app_id": "app-1"}, "vendor": "Vendor", "contract_end": "2026-10-31"},
    ],
    "changes": [
        {"ticket": "C-2", "kind": "rotation", "from": "2026-10-22T08:00:00Z", "to": "2026-10-22T10:00:00Z", "by": "rotator", "what": "rotate key of nightly-export"},
        {"ticket": "C-1", "kind": "vendor notice", "from": "2026-10-01T00:00:00Z", "to": "2026-10-31", "by": "vendors", "what": "Vendor App: new egress address 198.51.100.7"},
        {"ticket": "C-3", "kind": "leaver", "from": "2026-10-20T00:00:00Z", "to": "2026-10-21T00:00:00Z", "by": "people", "what": "leaves", "target": "cy@example.com"},
        {"ticket": "C-4", "kind": "infrastructure", "from": "2026-10-23T00:00:00Z", "to": "2026-10-24T00:00:00Z", "by": "example/infra:apply.yml", "what": "apply, run 27259803576"},
    ],
}  # fmt: skip
BOOK = Inventory.decode(json.dumps(FILE).encode())


def at(text: str) -> int:
    return from_iso(text)


@pytest.mark.parametrize(
    ("any_id", "name"),
    [
        ("nightly-export", "nightly-export"),
        (ROLE, "nightly-export"),
        ("arn:aws:sts::111122223333:assumed-role/nightly/session-1", "nightly-export"),
        ("arn:aws:sts::999999999999:assumed-role/nightly/session-1", None),
        ("AKIAEXAMPLE", "nightly-export"),
        ("q83vEjRW", "nightly-export"),
        ("Ana@Example.com", "ana@example.com"),
        ("00uAna", "ana@example.com"),
        ("nightly", None),
        ("", None),
        (None, None),
    ],
)
def test_any_id_finds_the_record(any_id: str | None, name: str | None) -> None:
    found = BOOK.identity(any_id)
    assert (found.name if found else None) == name


def test_simple_facts() -> None:
    assert BOOK.kind("AKIAEXAMPLE") == "workload"
    assert BOOK.owner(ROLE) == "platform@example.com"
    assert (BOOK.is_rotator("sp-1"), BOOK.is_rotator("deployer")) == (True, False)
    assert (BOOK.is_deployer("deployer"), BOOK.is_deployer("sp-1")) == (True, False)
    assert BOOK.members("platform@example.com") == ("ana@example.com", "bo@example.com")
    assert [BOOK.own_account(account) for account in ("111122223333", "example", "example-data", "999999999999", None)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    found = BOOK.first([None, "nobody", "app-1"])
    assert found is not None
    assert found.vendor == "Vendor"


@pytest.mark.parametrize(
    ("any_id", "ip", "provider", "ok"),
    [
        (ROLE, "203.0.113.17", None, True),
        (ROLE, "203.0.113.32", None, False),
        (ROLE, "203.0.113.17:4432", None, True),
        (ROLE, "2001:db8:5:1::1", None, True),
        (ROLE, "2001:db8:6::1", None, False),
        (ROLE, "198.51.100.9", "hetzner", True),
        (ROLE, "198.51.100.9", "ovh", False),
        (ROLE, None, None, False),
        (ROLE, "AWS Internal", None, False),
        ("app-1", "198.51.100.7", None, True),  # by ticket
        ("app-1", "198.51.100.70", None, False),
        (ROLE, "198.51.100.7", None, False),  # the ticket names another
        ("ana@example.com", "203.0.113.17", None, False),
        ("nobody", "203.0.113.17", "hetzner", False),
    ],
)
def test_egress(any_id: str, ip: str | None, provider: str | None, ok: bool) -> None:
    assert BOOK.egress_ok(any_id, ip, provider) is ok


def test_a_tickets_address_counts_while_the_ticket_holds() -> None:
    assert BOOK.egress_ok("app-1", "198.51.100.7", at=at("2026-10-31T23:00:00Z"))
    assert not BOOK.egress_ok("app-1", "198.51.100.7", at=at("2026-11-01T00:00:00Z"))


@pytest.mark.parametrize(
    ("ids", "when", "kinds", "ticket"),
    [
        (["sp-1"], "2026-10-22T09:00:00Z", (), "C-2"),  # the doer, by another of its ids
        (["nightly-export"], "2026-10-22T09:00:00Z", (), "C-2"),  # named in the text
        ([ROLE], "2026-10-22T09:00:00Z", (), "C-2"),  # the same by its role
        (["sp-1"], "2026-10-22T10:00:01Z", (), None),
        (["sp-1"], "2026-10-22T07:59:59Z", (), None),
        (["sp-1"], "2026-10-22T09:00:00Z", ("rotation",), "C-2"),
        (["sp-1"], "2026-10-22T09:00:00Z", ("device",), None),
        (["cy@example.com"], "2026-10-20T12:00:00Z", (), "C-3"),
        (["27259803576"], "2026-10-23T12:00:00Z", (), "C-4"),
        (["2725980357"], "2026-10-23T12:00:00Z", (), None),  # part of a run id
        (["example/infra:apply.yml"], "2026-10-23T12:00:00Z", (), "C-4"),
        (["ana@example.com"], "2026-10-22T09:00:00Z", (), None),
        (["key"], "2026-10-22T09:00:00Z", (), None),  # a word of the text, too short to be a name
        ([None, ""], "2026-10-22T09:00:00Z", (), None),
        ([], "2026-10-22T09:00:00Z", (), None),
    ],
)
def test_tickets_speak_for_whom_they_name(ids: list[str | None], when: str, kinds: tuple[str, ...], ticket: str | None) -> None:
    found = BOOK.ticket_for(ids, at(when), kinds)
    assert (found.id if found else None) == ticket


@pytest.mark.parametrize(
    ("any_id", "when", "inside"),
    [
        (ROLE, "2026-10-22T21:30:00Z", True),  # 23:30 in summer
        (ROLE, "2026-10-22T22:35:00Z", True),  # past midnight, within the hour and the slack
        (ROLE, "2026-10-22T22:45:00Z", False),
        (ROLE, "2026-10-23T22:25:00Z", True),  # Friday's window ends on Saturday
        (ROLE, "2026-10-24T21:40:00Z", False),  # Saturday
        (ROLE, "2026-10-26T22:40:00Z", True),  # 23:40 in winter
        (ROLE, "2026-10-26T21:15:00Z", False),  # the summer hour, too early now
        ("deployer", "2026-10-24T13:00:00Z", True),
        ("deployer", "2026-10-26T13:00:00Z", False),
        ("quarterly", "2026-10-22T06:30:00Z", True),
        ("quarterly", "2026-10-23T06:30:00Z", False),
        ("ana@example.com", "2026-10-22T06:30:00Z", False),
        ("nobody", "2026-10-22T06:30:00Z", False),
    ],
)
def test_windows_follow_the_wall_clock_of_their_zone(any_id: str, when: str, inside: bool) -> None:
    assert BOOK.in_window(any_id, at(when)) is inside


@pytest.mark.parametrize(
    ("any_id", "when", "living"),
    [
        (ROLE, "2026-10-25T00:00:00Z", True),
        ("rotator", "2026-10-20T12:00:00Z", True),  # the last day counts
        ("rotator", "2026-10-21T12:00:00Z", False),
        ("quarterly", "2026-10-21T12:00:00Z", None),  # an owner nobody declared is unknown, not gone
        ("deployer", "2026-10-21T12:00:00Z", None),
        ("nobody", "2026-10-21T12:00:00Z", None),
    ],
)
def test_owners_live_until_they_leave(any_id: str, when: str, living: bool | None) -> None:
    assert BOOK.owner_living(any_id, at(when)) is living


def test_dates_include_their_last_day() -> None:
    assert not BOOK.contract_over("app-1", at("2026-10-31T23:59:59Z"))
    assert BOOK.contract_over("app-1", at("2026-11-01T00:00:00Z"))
    assert BOOK.exception(ROLE, "ni-legacy-flow", at("2026-12-31T12:00:00Z")) is not None
    assert BOOK.exception(ROLE, "ni-legacy-flow", at("2027-01-01T00:00:00Z")) is None
    assert BOOK.exception(ROLE, "tok-unminted", at("2026-12-31T12:00:00Z")) is None
    assert BOOK.leaves("cy@example.com") == at("2026-10-21T00:00:00Z") - 1


def test_an_empty_inventory_knows_nothing() -> None:
    book = Inventory()
    assert not book
    assert (book.identity("a"), book.kind("a"), book.owner("a"), book.ticket_for(["a"], 0), book.exception("a", "b", 0)) == (None,) * 5
    assert (book.contract_end("a"), book.leaves("a"), book.owner_living("a", 0)) == (None,) * 3
    answers = [book.egress_ok("a", "198.51.100.1", "aws"), book.in_window("a", 0), book.is_rotator("a"), book.is_deployer("a")]
    answers += [book.own_account("a"), book.contract_over("a", 0), book.egress_declared("a"), book.window_declared("a")]
    assert answers == [False] * 8


@pytest.mark.parametrize("packed", [False, True])
def test_files_may_be_gzip(tmp_path: Path, packed: bool) -> None:
    data = json.dumps(FILE).encode()
    path = tmp_path / "inventory.json"
    path.write_bytes(gzip.compress(data) if packed else data)
    assert Inventory.load(path).owner("nightly-export") == "platform@example.com"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"identities": [{"name": "a"}, {"name": 3}]}', r"\$\.identities\[1\]\.name: Expected `str`, got `int`"),
        ('{"identities": [{"kind": "human"}]}', r"missing required field `name`"),
        (
            '{"identities": [{"name": "a", "automation": [{"tz": "Mars/Olympus"}]}]}',
            r"\$\.identities\[0\] `a`: `Mars/Olympus` is not a time zone",
        ),
        ('{"identities": [{"name": "a", "automation": [{"days": "someday"}]}]}', r"`someday` is not a list of week days"),
        ('{"identities": [{"name": "a", "automation": [{"at": "25:00"}]}]}', r"automation: "),
        ('{"identities": [{"name": "a", "automation": [{"duration_min": 0}]}]}', r"duration_min is 0"),
        ('{"identities": [{"name": "a", "contract_end": "next year"}]}', r"`next year` is not a time"),
        ('{"changes": [{"ticket": "C", "from": "soon", "to": "2026-01-01"}]}', r"\$\.changes\[0\] `C`: `soon` is not a time"),
        ("[]", "Expected `object`"),
        ("{", "is not JSON"),
        ('{"organisation": "\\ud800"', "is not JSON"),
    ],
)
def test_a_malformed_file_says_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "inventory.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        Inventory.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\x1f\x8bbroken", gzip.compress(b"{}", mtime=0)[:-6]])
def test_an_unreadable_file_is_a_setting_to_mend(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "inventory.json.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot read"):
        Inventory.load(path)


def test_the_sample_inventory_loads(data: Path) -> None:
    book = Inventory.load(data / "quiet-week" / "inventory.json.gz")
    assert book
    assert len(book.file.identities) > 100
