"""Sessions and the passkey login that opens them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from aftergate.audit.records import Actor
from aftergate.authz.transactions.canonical import unb64url
from aftergate.authz.transactions.softkey import BE, UP, UV
from aftergate.service.enrolment import Refused
from aftergate.service.people import People

OPERATOR = Actor("operator", "test")


def test_a_passkey_opens_a_session_that_says_who_how_and_when(house):
    key = house.enrolled("alice", groups=["finance"], aliases=["a@example.org"])
    _, done = house.login(key)
    session = house.people.session(done.cookie, house.clock())
    assert (session.id, session.groups, session.aliases, session.scopes) == ("alice", {"finance"}, {"a@example.org"}, {"approve"})
    assert (session.method, session.acr, session.auth_ms) == ("passkey", "phr", house.clock())
    assert session.authenticator == house.people.passkeys("alice")[0].id
    assert house.audit.records[-1].type == "admin.login"
    assert done.cookie.encode() not in b"".join(house.audit.leaves)


def test_the_login_options_name_no_credential_and_ask_for_verification(house):
    options = house.people.logins.passkey_begin().options
    assert options.get("allowCredentials", []) == []
    assert (options["userVerification"], options["rpId"]) == ("required", "gate.example.org")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"flags": UP | BE}, "unverified"),
        ({"flags": UV | BE}, "refused"),
        ({"flags": UP | UV}, "refused"),
        ({"rp_id": "elsewhere.example.org"}, "refused"),
        ({"user_handle": b"somebody else"}, "refused"),
        ({"credential_id": b"never registered"}, "unknown"),
    ],
)
def test_an_assertion_that_does_not_hold_opens_nothing(house, change, code):
    key = house.enrolled("alice")
    _, done = house.login(replace(key, **change))
    assert isinstance(done, Refused)
    assert done.code == code
    assert (house.audit.types()[-1] == "admin.login.refused") == (code != "unknown")


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://gate.example.org", "https://gate.example.org:444", "https://x.gate.example.org"]
)
def test_another_origin_is_refused(house, origin):
    assert house.login(house.enrolled("alice"), origin=origin)[1].code == "refused"


def test_a_counter_that_goes_back_is_refused_and_told_as_a_possible_clone(house):
    key = house.enrolled("alice")
    later, _ = house.login(key)
    assert house.login(key)[1].code == "refused"
    assert house.audit.records[-1].detail["clone_suspected"] is True
    assert not isinstance(house.login(later)[1], Refused)


def test_a_challenge_serves_once_for_five_minutes_and_for_logging_in_only(house):
    key = house.enrolled("alice")
    begun = house.people.logins.passkey_begin()
    key, answer = key.assertion(unb64url(begun.options["challenge"]), house.url)
    assert not isinstance(house.people.logins.passkey_finish(begun.ticket, answer), Refused)
    assert house.people.logins.passkey_finish(begun.ticket, answer).code in {"expired", "refused"}
    key, again = key.assertion(unb64url(begun.options["challenge"]), house.url)
    assert house.people.logins.passkey_finish(begun.ticket, again).code == "expired"

    begun = house.people.logins.passkey_begin()
    house.clock.pass_(300)
    _, late = key.assertion(unb64url(begun.options["challenge"]), house.url)
    assert house.people.logins.passkey_finish(begun.ticket, late).code == "expired"
    registering = house.people.enrolment.begin("alice")
    _, other = key.assertion(unb64url(registering.options["challenge"]), house.url)
    assert house.people.logins.passkey_finish(registering.ticket, other).code == "expired"
    for forged in ("", "x", "AAAA" * 20, registering.ticket[:-2] + "AA"):
        assert house.people.logins.passkey_finish(forged, other).code == "expired"


def test_a_session_id_never_outlives_a_login(house):
    key = house.enrolled("alice")
    key, first = house.login(key)
    assert house.people.session(first.cookie, house.clock()) is not None
    _, second = house.login(key, instead_of=first.cookie)
    assert second.cookie != first.cookie
    assert house.people.session(first.cookie, house.clock()) is None
    assert house.people.session(second.cookie, house.clock()) is not None


def test_a_cookie_that_was_planted_before_the_login_stands_for_nobody(house):
    planted = "A" * 43
    _, done = house.login(house.enrolled("alice"), instead_of=planted)
    assert done.cookie != planted
    assert house.people.session(planted, house.clock()) is None


def test_a_session_ends_after_idleness_and_goes_on_with_activity(house):
    _, done = house.login(house.enrolled("alice"))
    idle = house.settings.session_idle_s
    for _ in range(3):
        house.clock.pass_(idle - 1)
        assert house.people.session(done.cookie, house.clock()) is not None
    house.clock.pass_(idle)
    assert house.people.session(done.cookie, house.clock()) is None


def test_a_page_that_refreshes_itself_does_not_keep_its_session_alive(house):
    _, done = house.login(house.enrolled("alice"))
    for _ in range(9):
        house.clock.pass_(30)
        assert house.people.session(done.cookie, house.clock(), active=False) is not None
    house.clock.pass_(30)
    assert house.people.session(done.cookie, house.clock(), active=False) is None


def test_a_session_ends_after_its_longest_time_whatever_is_done(house):
    _, done = house.login(house.enrolled("alice"))
    for _ in range(house.settings.session_max_s // 250):
        house.clock.pass_(250)
        house.people.session(done.cookie, house.clock())
    house.clock.pass_(250)
    assert house.people.session(done.cookie, house.clock()) is None


def test_a_logout_ends_the_session_here_and_in_another_process(house):
    _, done = house.login(house.enrolled("alice"))
    other = People(house)
    other.tick(house.clock())
    assert other.session(done.cookie, house.clock()) is not None
    session = house.people.session(done.cookie, house.clock())
    house.people.end_session(session.session, "alice", by=OPERATOR)
    assert house.people.session(done.cookie, house.clock()) is None
    other.tick(house.clock())
    assert other.session(done.cookie, house.clock()) is None
    assert house.audit.types()[-1] == "admin.logout"


def test_another_process_knows_of_activity_it_did_not_see(house):
    _, done = house.login(house.enrolled("alice"))
    other = People(house)
    other.tick(house.clock())
    assert other.session(done.cookie, house.clock()) is not None
    for _ in range(4):
        house.clock.pass_(100)
        assert house.people.session(done.cookie, house.clock()) is not None
        house.people.tick(house.clock())
    assert other.session(done.cookie, house.clock()) is not None


def test_groups_that_an_operator_changes_hold_at_once_and_a_removed_person_is_out(house):
    _, done = house.login(house.enrolled("alice", groups=["finance"]))
    other = People(house)
    other.tick(house.clock())
    assert other.session(done.cookie, house.clock()).groups == {"finance"}
    house.people.change("alice", groups=[], by=OPERATOR)
    assert house.people.session(done.cookie, house.clock()).groups == frozenset()
    other.tick(house.clock())
    assert other.session(done.cookie, house.clock()).groups == frozenset()
    house.people.remove("alice", by=OPERATOR)
    other.tick(house.clock())
    assert house.people.session(done.cookie, house.clock()) is None
    assert other.session(done.cookie, house.clock()) is None


def test_the_database_holds_no_cookie(house):
    from sqlalchemy import text

    _, done = house.login(house.enrolled("alice"))
    with house.db.read() as connection:
        rows = connection.execute(text("SELECT * FROM person_sessions")).all()
    assert len(rows) == 1
    assert done.cookie not in str(rows)


@pytest.mark.parametrize("cookie", ["", "x", "A" * 43, "A" * 5000, "\u00e9" * 20, "\ud800"])
def test_a_cookie_that_is_none_of_ours_stands_for_nobody(house, cookie):
    assert house.people.session(cookie, house.clock()) is None


def test_old_sessions_are_swept(house):
    from sqlalchemy import text

    house.login(house.enrolled("alice"))
    house.clock.pass_(400)
    house.people.tick(house.clock())
    with house.db.read() as connection:
        assert connection.execute(text("SELECT ended_ms IS NULL FROM person_sessions")).scalar_one() == 0
    house.clock.pass_(house.settings.keep_sessions_days * 86_400 + 100)
    house.people.tick(house.clock())
    with house.db.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM person_sessions")).scalar_one() == 0
