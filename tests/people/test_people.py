"""Persons, links, authenticators."""

from __future__ import annotations

import pytest
from sqlalchemy import text as sql

from aftergate.audit.records import Actor
from aftergate.authz.transactions.canonical import unb64url
from aftergate.authz.transactions.softkey import BE, BS, UP, UV
from aftergate.service.enrolment import MOST, Refused
from aftergate.service.naming import PersonProblem
from aftergate.service.people import origin_of
from aftergate.stores import people as store

OPERATOR = Actor("operator", "test")


def test_a_person_gets_a_link_once_and_nothing_in_the_database_opens_it(house):
    person, link = house.people.add("alice", name="Alice Ames", groups=["finance"], aliases=["alice@example.org"], by=OPERATOR)
    assert (person.groups, person.names) == ({"finance"}, {"alice", "alice@example.org"})
    secret = link.url.removeprefix("https://gate.example.org/enrol#")
    assert len(secret) >= 43
    with house.db.read() as connection:
        for (name,) in connection.execute(sql("SELECT name FROM sqlite_master WHERE type = 'table'")).all():
            for row in connection.execute(sql(f"SELECT * FROM {name}")):
                assert not any(secret in str(value) or (isinstance(value, bytes) and secret.encode() in value) for value in row)


def test_what_is_done_to_people_is_in_the_log_and_their_names_are_not_in_its_leaves(house):
    house.enrolled("alice@example.org", name="Alice Ames", groups=["finance"], aliases=["ames-7"])
    house.people.change("alice@example.org", groups=["treasury"], by=OPERATOR)
    house.people.remove("alice@example.org", by=OPERATOR)
    assert house.audit.types() == [
        "admin.person.added", "admin.enrolment.created", "admin.authenticator.added", "admin.person.changed", "admin.person.removed",
    ]  # fmt: skip
    assert all(name not in leaf for leaf in house.audit.leaves for name in (b"alice", b"Ames", b"ames-7"))
    assert b"treasury" in house.audit.leaves[3]


@pytest.mark.parametrize("given", ["", "   ", "a/b", "a?b", "a#b", "a\nb", "a\u202eb", "x" * 201])
def test_an_id_that_cannot_be_shown_or_addressed_is_refused(house, given):
    with pytest.raises(PersonProblem):
        house.people.add(given, by=OPERATOR)
    assert house.people.everybody() == []


def test_an_id_is_taken_once_in_any_case(house):
    house.people.add("alice", by=OPERATOR)
    for again in ("alice", "Alice", "ALICE"):
        with pytest.raises(PersonProblem):
            house.people.add(again, by=OPERATOR)


def test_nobody_can_be_changed_linked_or_removed_who_is_not_there(house):
    with pytest.raises(PersonProblem):
        house.people.change("nobody", groups=["x"], by=OPERATOR)
    with pytest.raises(PersonProblem):
        house.people.link("nobody", by=OPERATOR)
    assert not house.people.remove("nobody", by=OPERATOR)


def test_members_of_any_of_the_groups_are_found_and_removed_ones_are_not(house):
    for name, groups in (("a", ["finance"]), ("b", ["treasury", "finance"]), ("c", ["other"]), ("d", ["finance"])):
        house.people.add(name, groups=groups, by=OPERATOR)
    house.people.remove("d", by=OPERATOR)
    with house.db.read() as connection:
        assert [p.id for p in store.members(connection, ["finance", "treasury"])] == ["a", "b"]
        assert store.members(connection, []) == []


def test_registration_asks_for_a_discoverable_key_with_user_verification_and_none_that_is_there(house):
    first = house.enrolled()
    begun = house.people.enrolment.begin("alice")
    assert begun.options["authenticatorSelection"] == {
        "residentKey": "required",
        "requireResidentKey": True,
        "userVerification": "required",
    }
    assert begun.options["attestation"] == "none"
    assert [unb64url(each["id"]) for each in begun.options["excludeCredentials"]] == [first.credential_id]
    assert b"alice" not in unb64url(begun.options["user"]["id"])


def test_a_link_works_once(house):
    _, link = house.people.add("alice", by=OPERATOR)
    secret = link.url.partition("#")[2]
    house.register(secret)
    assert house.people.enrolment.begin_with_link(secret) == Refused("link")


def test_of_two_ceremonies_with_one_link_one_registers(house):
    _, link = house.people.add("alice", by=OPERATOR)
    secret = link.url.partition("#")[2]
    one, two = (house.people.enrolment.begin_with_link(secret) for _ in range(2))
    assert not isinstance(house.people.enrolment.finish(one.ticket, house.made(one.options)[1], "", secret=secret), Refused)
    assert house.people.enrolment.finish(two.ticket, house.made(two.options)[1], "", secret=secret) == Refused("link")
    assert len(house.people.passkeys("alice")) == 1


def test_a_link_runs_out_and_a_newer_one_kills_it(house):
    _, first = house.people.add("alice", by=OPERATOR)
    second = house.people.link("alice", by=OPERATOR)
    assert house.people.enrolment.begin_with_link(first.url.partition("#")[2]) == Refused("link")
    house.clock.pass_(house.settings.enrolment_ttl_s)
    assert house.people.enrolment.begin_with_link(second.url.partition("#")[2]) == Refused("link")


def test_a_link_of_a_removed_person_is_dead_and_stays_so_when_they_come_back(house):
    _, link = house.people.add("alice", by=OPERATOR)
    house.people.remove("alice", by=OPERATOR)
    assert house.people.enrolment.begin_with_link(link.url.partition("#")[2]) == Refused("link")
    house.people.add("alice", by=OPERATOR)
    assert house.people.enrolment.begin_with_link(link.url.partition("#")[2]) == Refused("link")


def test_a_person_who_comes_back_has_none_of_their_old_authenticators(house):
    key = house.enrolled()
    house.people.remove("alice", by=OPERATOR)
    house.people.add("alice", by=OPERATOR)
    assert house.people.passkeys("alice") == []
    assert isinstance(house.login(key)[1], Refused)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"flags": UP | BE}, "unverified"),
        ({"flags": UV | BE}, "refused"),
        ({"flags": UP | UV | BS}, "refused"),
        ({"rp_id": "elsewhere.example.org"}, "refused"),
        ({"origin": "https://gate.example.org.evil.example"}, "refused"),
        ({"origin": "http://gate.example.org"}, "refused"),
        ({"origin": "https://gate.example.org:8443"}, "refused"),
    ],
)
def test_a_registration_that_does_not_hold_registers_nothing_and_leaves_the_link(house, change, code):
    _, link = house.people.add("alice", by=OPERATOR)
    secret = link.url.partition("#")[2]
    begun = house.people.enrolment.begin_with_link(secret)
    done = house.people.enrolment.finish(begun.ticket, house.made(begun.options, **change)[1], "", secret=secret)
    assert isinstance(done, Refused)
    assert done.code == code
    assert house.people.passkeys("alice") == []
    house.register(secret)


def test_a_ceremony_serves_the_person_and_the_way_it_was_begun_for(house):
    house.enrolled("alice")
    house.enrolled("mallory")
    begun = house.people.enrolment.begin("alice")
    made = house.made(begun.options)[1]
    assert house.people.enrolment.finish(begun.ticket, made, "", person_id="mallory") == Refused("expired")
    link = house.people.link("mallory", by=OPERATOR).url.partition("#")[2]
    assert house.people.enrolment.finish(begun.ticket, made, "", secret=link) == Refused("expired")
    login = house.people.logins.passkey_begin()
    assert house.people.enrolment.finish(login.ticket, made, "", person_id="alice") == Refused("expired")
    house.clock.pass_(301)
    assert house.people.enrolment.finish(begun.ticket, made, "", person_id="alice") == Refused("expired")


def test_a_registration_is_not_taken_twice(house):
    house.enrolled("alice")
    begun = house.people.enrolment.begin("alice")
    made = house.made(begun.options)[1]
    assert not isinstance(house.people.enrolment.finish(begun.ticket, made, "", person_id="alice"), Refused)
    assert house.people.enrolment.finish(begun.ticket, made, "", person_id="alice").code in {"known", "expired"}
    assert len(house.people.passkeys("alice")) == 2


def test_a_credential_belongs_to_one_person(house):
    key = house.enrolled("alice")
    _, link = house.people.add("bob", by=OPERATOR)
    secret = link.url.partition("#")[2]
    begun = house.people.enrolment.begin_with_link(secret)
    _, made = key.register(unb64url(begun.options["challenge"]), house.url)
    assert house.people.enrolment.finish(begun.ticket, made, "", secret=secret).code == "known"
    assert house.people.passkeys("bob") == []


def test_a_person_has_so_many_authenticators_and_no_more(house):
    house.enrolled("alice")
    for _ in range(MOST - 1):
        begun = house.people.enrolment.begin("alice")
        house.people.enrolment.finish(begun.ticket, house.made(begun.options)[1], "key", person_id="alice")
    assert house.people.enrolment.begin("alice").code == "too-many"


def test_a_removed_authenticator_opens_nothing_and_its_sessions_end(house):
    key = house.enrolled("alice")
    key, done = house.login(key)
    assert house.people.session(done.cookie, house.clock()) is not None
    (passkey,) = house.people.passkeys("alice")
    assert not house.people.remove_passkey("bob", passkey.id, by=OPERATOR)
    assert house.people.remove_passkey("alice", passkey.id, by=OPERATOR)
    assert not house.people.remove_passkey("alice", passkey.id, by=OPERATOR)
    assert house.people.session(done.cookie, house.clock()) is None
    assert isinstance(house.login(key)[1], Refused)
    assert house.audit.records[-2].type == "admin.authenticator.removed"


def test_an_authenticator_is_renamed_by_its_owner_alone(house):
    house.enrolled("alice")
    (passkey,) = house.people.passkeys("alice")
    assert not house.people.rename_passkey("bob", passkey.id, "mine")
    assert house.people.rename_passkey("alice", passkey.id, "Laptop")
    assert house.people.passkeys("alice")[0].name == "Laptop"


def test_a_counter_moves_once_for_one_assertion(house):
    key = house.enrolled("alice")
    with house.db.write() as connection:
        assert store.passkey_used(connection, key.credential_id, before=1, now=2, backed_up=False, at_ms=1)
        assert not store.passkey_used(connection, key.credential_id, before=1, now=2, backed_up=False, at_ms=1)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://gate.example.org", "https://gate.example.org"),
        ("https://gate.example.org:443/here", "https://gate.example.org"),
        ("http://localhost:8181", "http://localhost:8181"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
    ],
)
def test_the_origin_of_an_address_is_as_browsers_write_it(url, origin):
    assert origin_of(url) == origin
