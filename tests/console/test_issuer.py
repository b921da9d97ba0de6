"""Login at a real issuer, the npm package `oidc-provider`, through its own pages."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from peers import PACKAGES, Issuer
from serving import Server, free_port
from stage import POLICIES, Seat, Stage, invoice

pytestmark = [pytest.mark.browser, pytest.mark.serving]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A server whose people log in at the issuer, and the issuer."""
    if shutil.which("node") is None or not (PACKAGES / "oidc-provider").is_dir():
        pytest.skip("not installed: oidc-provider")
    folder: Path = tmp_path_factory.mktemp("issuer")
    (folder / "policies").mkdir()
    (folder / "policies" / "approvals.cedar").write_text(POLICIES)
    (folder / "secret").write_text("web-secret\n")
    own = free_port()
    users = {
        "olga": {"name": "Olga of the issuer", "email": "olga@example.org", "groups": ["finance"]},
        "otto": {"name": "Otto of the issuer", "email": "otto@example.org"},
    }
    with Issuer(folder, pages=True, users=users, redirect_uris=[f"http://localhost:{own}/v1/login/oidc/callback"]) as issuer:
        arguments = ["--policies", str(folder / "policies"), "--oidc-issuer", issuer.url, "--oidc-client-id", "web"]
        server = Server(folder, *arguments, "--oidc-client-secret-file", str(folder / "secret"))
        with server.start(port=own) as running:
            yield Stage(running.url, running.key, f"sqlite:///{running.data.resolve()}/aftergate.db"), issuer.url, running


@pytest.fixture
def seat(chromium, house):
    stage, issuer, _ = house
    made = Seat(chromium, stage, also=issuer)
    yield made
    made.page.wait_for_timeout(50)
    made.close()
    assert (made.violations, made.elsewhere, made.errors) == ([], [], [])


def sign_in(seat: Seat, name: str) -> None:
    """The issuer's own pages: name, then consent where it asks."""
    seat.page.fill("input[name=login]", name)
    seat.page.fill("input[name=password]", "any")
    seat.page.click("button[type=submit]")
    seat.page.wait_for_load_state()
    if "/interaction/" in seat.page.url:
        seat.page.click("button[type=submit]")
    seat.page.wait_for_url("**/approvals**")


def test_a_person_logs_in_at_the_issuer_registers_a_passkey_and_approves(seat, house):
    stage, _, server = house
    request = stage.ask(invoice("OLGA-1", 10))
    seat.open(f"/approvals/{request}", "#issuer:not([hidden])")
    seat.page.click("#oidc")
    sign_in(seat, "olga")
    assert seat.page.url == f"{stage.url}/approvals/{request}"
    seat.page.wait_for_selector("#bound")
    me = seat.get("/v1/me")
    assert (me["id"], me["name"], me["groups"], me["method"]) == ("olga@example.org", "Olga of the issuer", ["finance"], "oidc")
    assert me["aliases"] == ["olga", "olga@example.org"]
    assert "Register an authenticator first." in seat.page.inner_text(".decide")

    # The session at the issuer may be old: authenticators are added after a fresh login only.
    seat.page.goto(f"{stage.url}/v1/login/oidc?onward=/approvals/authenticators&fresh=true")
    sign_in(seat, "olga")
    seat.page.wait_for_selector("#add")
    assert seat.get("/v1/me")["fresh"] is True
    seat.page.click("#add button")
    seat.page.wait_for_selector("#messages:has-text('is registered')")
    seat.open(f"/approvals/{request}", "#approve")
    seat.page.click("#approve")
    assert "Approved." in seat.said()
    assert stage.status(request) == "approved"
    log = server.text()
    assert not any(secret in log for secret in ("web-secret", "code=", "code_verifier", "id_token", "eyJ"))


def test_somebody_without_groups_sees_nothing_and_decides_nothing(seat, house):
    stage, _, _ = house
    request = stage.ask(invoice("OTTO-1", 10))
    seat.page.goto(f"{stage.url}/v1/login/oidc")
    sign_in(seat, "otto")
    seat.page.wait_for_selector("#waiting .empty")
    seat.page.goto(f"{stage.url}/approvals/{request}")
    seat.page.wait_for_selector("text=No such request")


def test_who_turns_back_at_the_issuer_is_told_so(seat, house):
    stage, _, _ = house
    seat.page.goto(f"{stage.url}/v1/login/oidc")
    seat.page.click("a:has-text('Cancel')")
    seat.page.wait_for_url("**/login?problem=declined")
    assert "did not let you in" in seat.said()


def test_an_answer_that_nobody_here_asked_for_is_refused(seat, house):
    """Login CSRF: somebody else's code and state, in this browser."""
    stage, issuer, _ = house
    seat.page.goto(f"{stage.url}/v1/login/oidc/callback?code=stolen&state=theirs&iss={issuer}")
    seat.page.wait_for_url("**/login?problem=expired")
    assert seat.context.cookies() == [] or all("session" not in each["name"] for each in seat.context.cookies())


def test_the_cookie_of_the_way_to_the_issuer_is_sealed_and_gone_afterwards(seat, house):
    stage, _, _ = house
    seat.page.goto(f"{stage.url}/v1/login/oidc")
    (ticket,) = [each for each in seat.context.cookies(stage.url) if each["name"] == "aftergate_issuer"]
    assert (ticket["httpOnly"], ticket["sameSite"]) == (True, "Lax")
    assert "verifier" not in ticket["value"]
    sign_in(seat, "olga")
    names = {each["name"] for each in seat.context.cookies(stage.url)}
    assert "aftergate_issuer" not in names
    assert "aftergate_session" in names
