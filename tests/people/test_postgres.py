"""The same on PostgreSQL, with several at once."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from people_house import OPERATOR, House

sys.path.insert(0, str(Path(__file__).parents[1]))
from serving import new_database, postgres

from aftergate.authz.transactions.canonical import unb64url
from aftergate.service.enrolment import Refused
from aftergate.service.people import People
from aftergate.settings import Settings
from aftergate.stores.database import Database
from aftergate.stores.people import Passkey
from aftergate.stores.tables import all_tables

pytestmark = [pytest.mark.serving]


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    with postgres(tmp_path_factory.mktemp("pg")) as made:
        yield made


@pytest.fixture
def house(uri):
    database = Database.open(new_database(uri), migrate=False)
    all_tables().create_all(database.engine)
    yield House(database, Settings())
    database.close()


def test_a_person_enrols_logs_in_is_changed_and_removed(house):
    key = house.enrolled("alice", groups=["finance"], aliases=["a@example.org"])
    key, done = house.login(key)
    other = People(house)
    other.tick(house.clock())
    assert other.session(done.cookie, house.clock()).groups == {"finance"}
    house.people.change("alice", groups=["treasury"], by=OPERATOR)
    other.tick(house.clock())
    assert other.session(done.cookie, house.clock()).groups == {"treasury"}
    house.people.remove("alice", by=OPERATOR)
    other.tick(house.clock())
    assert other.session(done.cookie, house.clock()) is None
    assert isinstance(house.login(key)[1], Refused)


def test_of_many_registrations_with_one_link_one_holds(house):
    _, link = house.people.add("alice", by=OPERATOR)
    secret = link.url.partition("#")[2]
    ready = []
    for _ in range(8):
        begun = house.people.enrolment.begin_with_link(secret)
        ready.append((begun.ticket, house.made(begun.options)[1]))
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda one: house.people.enrolment.finish(one[0], one[1], "", secret=secret), ready))
    assert [type(each) for each in done].count(Passkey) == 1
    assert len(house.people.passkeys("alice")) == 1


def test_of_many_logins_with_one_assertion_one_holds(house):
    key = house.enrolled("alice")
    begun = house.people.logins.passkey_begin()
    _, answer = key.assertion(unb64url(begun.options["challenge"]), house.url)
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: house.people.logins.passkey_finish(begun.ticket, answer), range(8)))
    assert sum(not isinstance(each, Refused) for each in done) == 1
