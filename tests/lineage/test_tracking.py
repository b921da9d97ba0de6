"""What tracking learns from each event: what is new, where a credential comes from, when it should have ended."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "detections"))
from casebook import Builder

from aftergate.events.enrich import Enricher
from aftergate.events.interning import Interner
from aftergate.lineage.state import DAY_MS
from aftergate.lineage.tracking import World
from aftergate.pipeline.normalising import Normalising
from aftergate.pipeline.ordering import Sequencer
from aftergate.vocabulary import GAP_MS, VOLUME_FLOOR, Bit, Event

WEEK = Path(__file__).parents[1] / "data" / "quiet-week"
BASE: dict[str, Any] = {
    "at": "+1m", "actor": "ada@corp.example", "actor_kind": "human", "action": "read", "klass": "files:read", "kind": "data_read", "credential": "k1",
    "session": "s1", "ip": "198.51.100.7", "asn": 64500, "country": "DE", "agent": "aws-cli/2.15.0", "client": "app", "resource": "api",
}  # fmt: skip
START = {"at": "2026-03-02T08:00:00Z"}


def world(*rows: dict[str, Any]) -> tuple[World, list[Bit]]:
    """The world after some events, and the mask of each."""
    made = World()
    masks: list[Bit] = []
    for number, event in enumerate(Builder().events([{**BASE, **(START if not n else {}), **row} for n, row in enumerate(rows)])):
        assert number == len(masks)
        masks.append(Bit(made.step(event).mask))
    return made, masks


LOGIN = {"kind": "sign_in", "action": "login", "klass": "auth:auth", "credential": None}


# ---------------------------------------------------------------- what is new


def test_the_first_event_of_all_is_new_in_every_way() -> None:
    _, (mask,) = world({})
    assert mask == (
        Bit.NEW_IDENTITY | Bit.NEW_LIFE | Bit.UNMINTED | Bit.SESSION_NEW | Bit.NEW_COMBINATION | Bit.IDENTITY_IP | Bit.IDENTITY_NET | Bit.IDENTITY_COUNTRY
        | Bit.IDENTITY_AGENT | Bit.IDENTITY_CLIENT | Bit.IDENTITY_RESOURCE | Bit.IDENTITY_ACTION | Bit.IDENTITY_CLASS
    )  # fmt: skip


def test_a_repeat_is_new_in_no_way() -> None:
    assert world({}, {}, {})[1][1:] == [Bit(0), Bit(0)]


@pytest.mark.parametrize(
    ("change", "bits"),
    [
        ({"ip": "198.51.100.8"}, Bit.LIFE_IP | Bit.IDENTITY_IP | Bit.NEW_COMBINATION),
        (
            {"ip": "203.0.113.9", "asn": 64501},
            Bit.LIFE_IP
            | Bit.LIFE_NET
            | Bit.SESSION_NET
            | Bit.SWITCH
            | Bit.SESSION_SWITCH
            | Bit.IDENTITY_IP
            | Bit.IDENTITY_NET
            | Bit.NEW_COMBINATION,
        ),
        ({"country": "FR"}, Bit.IDENTITY_COUNTRY | Bit.NEW_COMBINATION),
        ({"agent": "curl/8.5.0"}, Bit.LIFE_AGENT | Bit.SESSION_AGENT | Bit.IDENTITY_AGENT | Bit.NEW_COMBINATION),
        ({"agent": "aws-cli/2.16.0"}, Bit.NEW_COMBINATION),
        ({"client": "other"}, Bit.LIFE_CLIENT | Bit.SESSION_CLIENT | Bit.IDENTITY_CLIENT | Bit.NEW_COMBINATION),
        ({"resource": "mail"}, Bit.IDENTITY_RESOURCE | Bit.NEW_COMBINATION),
        ({"action": "list"}, Bit.LIFE_ACTION | Bit.SESSION_ACTION | Bit.IDENTITY_ACTION | Bit.NEW_COMBINATION),
        (
            {"action": "drop", "klass": "files:delete"},
            Bit.LIFE_ACTION | Bit.SESSION_ACTION | Bit.IDENTITY_ACTION | Bit.IDENTITY_CLASS | Bit.NEW_COMBINATION,
        ),
        ({"error": "denied"}, Bit.NEW_COMBINATION),
        ({"ip": None, "asn": None, "country": None}, Bit.NEW_COMBINATION),
        ({"credential": "k2"}, Bit.NEW_LIFE | Bit.UNMINTED),
    ],
)
def test_each_part_has_its_bits(change: dict[str, Any], bits: Bit) -> None:
    """And the same change a second time has none."""
    _, masks = world({}, {}, change, change)
    assert masks[2] == bits
    assert masks[3] == Bit(0)


def test_a_second_device_in_a_session_is_a_change_and_the_first_is_not() -> None:
    _, masks = world({}, {"device": "laptop"}, {"device": "laptop"}, {"device": "phone"})
    assert not any(mask & Bit.SESSION_DEVICE for mask in masks[:3])
    assert masks[3] & Bit.SESSION_DEVICE
    assert masks[3] & Bit.IDENTITY_DEVICE


def test_going_back_and_forth_is_a_switch_each_time() -> None:
    other = {"ip": "203.0.113.9", "asn": 64501}
    _, masks = world({}, other, {}, other)
    assert [bool(mask & Bit.SWITCH) for mask in masks] == [False, True, True, True]


def test_a_session_without_a_credential_has_the_bits_of_both() -> None:
    _, masks = world({"credential": None}, {"credential": None, "ip": "203.0.113.9", "asn": 64501, "agent": "curl/8"})
    assert masks[0] & Bit.SESSION_NEW
    assert masks[0] & Bit.NEW_LIFE
    wanted = Bit.SESSION_NET | Bit.SESSION_AGENT | Bit.SESSION_SWITCH | Bit.SWITCH | Bit.LIFE_NET | Bit.LIFE_AGENT
    assert masks[1] & wanted == wanted


def test_a_gap_is_longer_than_a_fortnight() -> None:
    _, masks = world({}, {"at": f"+{GAP_MS // 1000}s"}, {"at": f"+{GAP_MS // 1000 + 1}s"})
    assert [bool(mask & Bit.GAP) for mask in masks] == [False, False, True]


def test_volume_crosses_powers_of_two_above_a_floor_each_day() -> None:
    step = VOLUME_FLOOR // 2
    _, masks = world(*({"size": step} for _ in range(8)), {"size": step, "at": "+1d"})
    assert [n for n, mask in enumerate(masks) if mask & Bit.VOLUME] == [1, 3, 7]


def test_facts_name_the_use_before() -> None:
    made = World()
    events = Builder().events([{**BASE, **START}, {**BASE, "ip": "203.0.113.9", "asn": 64501, "at": "+2h"}])
    assert made.step(events[0]).previous is None
    facts = made.step(events[1])
    assert facts.previous is events[0].shape
    assert facts.session_previous is events[0].shape
    assert facts.gap_ms == 2 * 3_600_000
    assert facts.life is made.lives["k1"]
    assert facts.session is made.lives["s1"]


# ---------------------------------------------------------------- where a credential comes from


def test_a_mint_before_the_first_use_joins() -> None:
    made, masks = world({**LOGIN, "detail": {"issued": ["k1"], "issued_class": "access_token", "grant": "authorization_code"}}, {})
    assert not masks[1] & Bit.UNMINTED
    mint = made.lives["k1"].mint
    assert mint is not None
    assert (mint.session, mint.grant, mint.klass, mint.event) == ("s1", "authorization_code", "access_token", "e0")


def test_a_mint_that_is_told_after_the_use_joins_too() -> None:
    """Logs of two systems run at different speeds: only the first use says that no mint was known."""
    made, masks = world({}, {**LOGIN, "session": "s9", "detail": {"issued": ["k1"]}}, {})
    assert masks[0] & Bit.UNMINTED
    assert made.lives["k1"].mint is not None


def test_the_first_mint_stays() -> None:
    made, _ = world({**LOGIN, "detail": {"issued": ["k1"]}}, {**LOGIN, "detail": {"issued": ["k1"]}})
    assert made.lives["k1"].mint is not None
    assert made.lives["k1"].mint.event == "e0"


def test_a_refused_request_mints_nothing() -> None:
    made, _ = world({**LOGIN, "error": "denied", "detail": {"issued": ["k1"]}}, {})
    assert made.lives["k1"].mint is None


def test_roots_are_found_through_refresh_and_exchange() -> None:
    """Login, code, refresh, refresh, exchange, use: the session is the root of all."""
    made, _ = world(
        {**LOGIN, "detail": {"issued": ["r1", "a1"], "grant": "authorization_code"}},
        {"kind": "token_refresh", "action": "refresh", "credential": "r1", "detail": {"spent": "r1", "issued": ["r2", "a2"]}},
        {"kind": "token_refresh", "action": "refresh", "credential": "r2", "detail": {"spent": "r2", "issued": ["r3", "a3"]}},
        {"kind": "token_exchange", "action": "exchange", "credential": "a3", "session": None, "detail": {"issued": ["x1"]}},
        {"credential": "x1", "session": None},
    )
    assert made.root(made.lives["x1"]) is made.lives["s1"]
    assert [made.root(made.lives[name]).id for name in ("r1", "a1", "r3", "a2")] == ["s1"] * 4
    assert made.lives["s1"].mint is not None
    assert made.lives["s1"].mint.klass == "session"


def test_a_ring_of_mints_ends() -> None:
    """Damaged logs may say that two tokens issued each other."""
    made, _ = world(
        {"credential": "a", "session": None, "detail": {"issued": ["b"]}}, {"credential": "b", "session": None, "detail": {"issued": ["a"]}}
    )
    assert made.root(made.lives["a"]).id in ("a", "b")


def test_a_session_keeps_its_id_over_many_credentials() -> None:
    made, masks = world(
        {"credential": "k1"}, {"credential": "k2"}, {"credential": "k1"}, {"credential": "k1", "session": "s2"}, {"credential": "k1"}
    )
    assert made.lives["s1"].count == 4
    assert made.lives["s2"].count == 1
    assert made.lives["s1"].is_session
    assert not made.lives["k1"].is_session
    assert masks[3] & Bit.SESSION_NEW
    assert not masks[4] & Bit.SESSION_NEW
    assert made.lives["k1"].session is made.lives["s1"]


def test_one_person_under_two_names_is_one_identity() -> None:
    made, _ = world(
        {"actor": "00u1", "names": ["Ada@Corp.example"]},
        {"actor": "ada@corp.example", "source": "entra.signin"},
        {"actor": "ADA@corp.example"},
    )
    assert len(made.identities) == 1
    assert made.identity("ADA@CORP.EXAMPLE") is made.identity("00u1")
    assert made.identities["00u1"].count == 3


def test_a_shared_role_does_not_make_two_workloads_one() -> None:
    role = "arn:aws:iam::1:role/shared"
    made, _ = world({"actor": "job-a", "role": role, "names": [role]}, {"actor": "job-b", "role": role, "names": [role]})
    assert len(made.identities) == 2


# ---------------------------------------------------------------- when it should have ended


def test_uses_past_the_end_that_the_mint_gave() -> None:
    mint = {**LOGIN, "detail": {"issued": ["k1"], "issued_ttl_s": 3600}}
    _, masks = world(mint, {"at": "+30m"}, {"at": "+30m"}, {"at": "+1s"}, {"at": "+1s", "agent": "curl/8"})
    assert [bool(mask & Bit.PAST_END) for mask in masks] == [False, False, False, True, True]


def test_an_identity_that_was_disabled_is_dead_until_it_is_enabled() -> None:
    end = {"actor": "admin@corp.example", "credential": "adm", "session": None, "kind": "identity_lifecycle", "action": "disable",
           "tags": ["identity.disable"], "detail": {"targets": ["ada@corp.example"]}}  # fmt: skip
    again = {**end, "action": "enable", "tags": ["identity.enable"]}
    made, masks = world({}, end, {}, {"agent": "curl/8"}, again)
    assert [bool(mask & Bit.AFTER_DEATH) for mask in masks[:4]] == [False, False, True, True]
    ada = made.identity("ada@corp.example")
    assert ada is not None
    assert ada.death is not None
    assert (ada.death.reason, ada.death.by, ada.death.event) == ("disabled", "admin@corp.example", "e1")
    assert ada.death.undone is not None


def test_a_failed_disabling_kills_nobody() -> None:
    end = {"actor": "admin@corp.example", "credential": "adm", "session": None, "kind": "identity_lifecycle", "action": "disable", "error": "denied",
           "tags": ["identity.disable"], "detail": {"targets": ["ada@corp.example"]}}  # fmt: skip
    _, masks = world({}, end, {})
    assert not masks[2] & Bit.AFTER_DEATH


@pytest.mark.parametrize(("tag", "kind"), [("revoke", "token_revoke"), ("credential.remove", "credential_delete")])
def test_a_credential_that_was_revoked_or_removed_is_dead(tag: str, kind: str) -> None:
    end = {
        "credential": "adm",
        "session": None,
        "kind": kind,
        "action": "end",
        "tags": [tag],
        "detail": {"targets": ["ada@corp.example", "k1"]},
    }
    made, masks = world({}, end, {})
    assert masks[2] & Bit.AFTER_DEATH
    assert made.lives["k1"].death is not None


# ---------------------------------------------------------------- figures


def test_the_join_rate_counts_uses_whose_mint_is_known() -> None:
    made, _ = world({**LOGIN, "detail": {"issued": ["k1"]}}, {}, {}, {}, {"credential": "unborn"})
    made.settle()
    coverage = made.coverage["okta"]
    assert (coverage.uses, coverage.joined_uses, coverage.rate) == (4, 3, 0.75)


def silent(every: list[str]) -> dict[str, int]:
    row = {
        "actor": "job",
        "actor_kind": "workload",
        "kind": "silent_sign_in",
        "action": "token",
        "silent": "background_service",
        "session": None,
        "klass": "auth:auth",
    }
    made, _ = world(*({**row, "at": at} if n else {**row, **START} for n, at in enumerate(["", *every])))
    made.settle()
    return made.silent


def test_what_signs_in_at_regular_gaps_is_a_scheduled_workload() -> None:
    assert silent(["+1h"] * 12) == {"scheduled_workload": 13}
    assert silent(["+1h", "+63m", "+58m", "+1h"] * 3) == {"scheduled_workload": 13}


def test_what_signs_in_on_demand_is_a_background_service() -> None:
    assert silent(["+1m", "+5h", "+2m", "+9h", "+20m", "+3m", "+1d"]) == {"background_service": 8}
    assert silent(["+1h"] * 3) == {"background_service": 4}, "too few to tell"


def test_days_are_counted_once_each() -> None:
    made, _ = world({}, {"at": "+1h"}, {"at": "+1d"}, {"at": "+1h"}, {"at": "+3d"})
    (use,) = made.lives["k1"].uses.values()
    assert (use.count, use.days) == (5, 3)
    identity = made.identity("ada@corp.example")
    assert identity is not None
    assert identity.days_seen(made.now) == pytest.approx(4 + 2 / 24)


def test_networks_are_counted_by_identity() -> None:
    made, _ = world({}, {"actor": "bob@corp.example", "credential": "k2", "session": "s2"}, {"ip": "203.0.113.9", "asn": 64501})
    net = next(iter(made.identities["ada@corp.example"].net_first))
    assert made.shared_net(net) == 2
    assert made.shared_net(net, made.identity("ada@corp.example")) == 1


def test_a_real_week_adds_up() -> None:
    """Fast path and slow path count alike: each use of a credential or session is there once."""
    normalising = Normalising(Interner(Enricher(tables=False)))
    events: list[Event] = []
    for name in ("cloudtrail", "keycloak", "entra-signin", "okta"):
        normalising.run(gzip.decompress((WEEK / f"{name}.jsonl.gz").read_bytes()).split(b"\n")[:3000], events)
    sequencer = Sequencer()
    sequencer.add(events)
    ordered = sequencer.release(None)
    made = World()
    for event in ordered:
        made.step(event)
    made.settle()
    assert made.events == len(ordered)
    assert sum(i.count for i in made.identities.values()) == len(ordered)
    assert sum(u.count for i in made.identities.values() for u in i.uses.values()) == len(ordered)
    keyed = [e for e in ordered if e.credential or e.session]
    primary = [u for life in made.lives.values() for u in life.uses.values() if u.primary]
    assert sum(u.count for u in primary) == len(keyed)
    for life in made.lives.values():
        if not life.is_session:
            assert sum(u.count for u in life.uses.values()) == life.count
        assert life.first <= life.last
        assert all(u.days <= (u.last - u.first) // DAY_MS + 2 for u in life.uses.values())
