"""`aftergate people`, beside a server's data directory and at a server."""

from __future__ import annotations

import json

import pytest

from aftergate.cli.main import app
from aftergate.cli.options import Place
from aftergate.cli.peopling import There, desk
from aftergate.errors import ConfigError
from aftergate.service.core import Core
from aftergate.service.naming import PersonProblem
from aftergate.settings import Settings


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AFTERGATE_DATA", str(tmp_path / "data"))

    def go(*words: str) -> str:
        code = app(["people", *words], result_action="return_value", exit_on_error=False)
        assert code == 0
        return capsys.readouterr().out

    return go


def test_a_person_is_added_listed_changed_and_removed(run):
    assert "Nobody yet" in run("list")
    assert "/enrol#" in run("add", "alice", "--name", "Alice Ames", "--groups", "finance", "treasury", "--aliases", "alice@example.org")
    assert "Alice Ames" in run("list")
    assert run("groups", "alice", "finance") == "alice: groups finance; aliases alice@example.org\n"
    assert run("groups", "alice") == "alice: groups none; aliases alice@example.org\n"
    assert run("aliases", "alice", "ames-7").endswith("aliases ames-7\n")
    assert "has none" in run("authenticators", "alice")
    assert "alice is out" in run("remove", "alice")
    assert "Nobody yet" in run("list")


def test_a_link_is_new_each_time_and_leads_to_where_the_server_says_it_is(run, tmp_path):
    with_server = Core.open(Settings(data=str(tmp_path / "data")), url="https://gate.example.org")
    with_server.people.tick(with_server.clock())
    with_server.close()
    first = json.loads(run("add", "alice", "--json"))["link"]
    second = json.loads(run("link", "alice", "--json"))["link"]
    assert first != second
    assert first.startswith("https://gate.example.org/enrol#")


def test_what_cannot_be_done_is_said(run):
    for words in (["groups", "nobody", "x"], ["link", "nobody"], ["add", "a/b"], ["authenticators", "nobody"]):
        with pytest.raises(PersonProblem):
            run(*words)


def test_a_key_is_sent_over_https_or_to_this_machine_only(tmp_path):
    (tmp_path / "key").write_text("# an administrator's\nagk_test admin\n")
    for place in (Place(server="http://gate.example.org", key_file=tmp_path / "key"), Place(server="https://gate.example.org")):
        with pytest.raises(ConfigError), desk(place):
            raise AssertionError
    with desk(Place(server="https://gate.example.org", key_file=tmp_path / "key")) as held:
        assert isinstance(held, There)
