"""The pages in a real Chromium with a virtual authenticator: registering, logging in, approving, denying, and what must not happen."""

from __future__ import annotations

import json
import re
from contextlib import closing

import pytest
from stage import invoice

from aftergate.cli.options import Place
from aftergate.cli.peopling import There, desk
from aftergate.client import Refused
from aftergate.client.sending import Sender

pytestmark = [pytest.mark.browser, pytest.mark.serving]


def leaves(held):
    """Every value in a JSON object."""
    if isinstance(held, dict):
        return [leaf for each in held.values() for leaf in leaves(each)]
    if isinstance(held, list):
        return [leaf for each in held for leaf in leaves(each)]
    return [held]


def test_a_link_registers_a_passkey_that_logs_in_and_works_once(seats, stage):
    seat = seats()
    link = stage.person("ada", "finance", display="Ada Aalto")
    seat.page.goto(link)
    seat.page.wait_for_selector("#ready:not([hidden])")
    assert "Ada Aalto (ada)" in seat.page.inner_text("#ready")
    seat.page.fill("#name", "Blue laptop")
    seat.page.click("#form button")
    seat.page.click("#enter")
    seat.page.wait_for_url("**/approvals")
    seat.page.wait_for_selector("#waiting > *")
    assert seat.page.inner_text("#who") == "Ada Aalto"
    (held,) = seat.get("/v1/me/authenticators")
    assert (held["name"], held["opened_this_session"]) == ("Blue laptop", True)
    seat.page.goto(link)
    assert "has expired or was used" in seat.said()


def test_people_are_managed_beside_the_running_server_and_over_it(seats, server, stage):
    with desk(Place(server.data)) as here:
        link = here.ask("POST", "", {"id": "ali", "name": "", "groups": ["finance"], "aliases": []})["link"]
    assert link.startswith(stage.url + "/enrol#")
    seat = seats()
    seat.page.goto(link)
    seat.page.click("#form button")
    seat.page.click("#enter")
    seat.page.wait_for_url("**/approvals")
    seat.page.wait_for_selector("#waiting > *")
    with closing(Sender(stage.url, stage.key)) as sender:
        there = There(sender)
        (held,) = there.ask("GET", "ali/authenticators")
        assert there.ask("PATCH", "ali", {"groups": ["treasury"]})["groups"] == ["treasury"]
        assert seat.get("/v1/me")["groups"] == ["treasury"]
        there.ask("DELETE", f"ali/authenticators/{held['id']}")
        seat.page.reload()
        seat.page.wait_for_url("**/login?onward=*")
        with pytest.raises(Refused):
            there.ask("DELETE", "nobody")


def test_the_secret_of_a_link_is_never_sent_in_an_address(seats, stage):
    seat = seats()
    asked: list[str] = []
    seat.page.on("request", lambda request: asked.append(request.url))
    link = stage.person("abe", "finance")
    seat.page.goto(link)
    seat.page.wait_for_selector("#ready:not([hidden])")
    secret = link.partition("#")[2]
    assert all(secret not in url.partition("#")[0] for url in asked)


def test_the_way_out_and_in_again_with_the_passkey(seats):
    seat = seats().enrol("ben", "finance")
    before = seat.context.cookies()
    seat.page.click("#logout")
    seat.page.wait_for_url("**/login")
    assert [c for c in seat.context.cookies() if c["name"] == "aftergate_session"] == []
    seat.page.click("#passkey")
    seat.page.wait_for_url("**/approvals")
    seat.page.wait_for_selector("#waiting > *")
    after = seat.context.cookies()
    (old,), (new,) = ([c for c in each if c["name"] == "aftergate_session"] for each in (before, after))
    assert old["value"] != new["value"]
    assert (new["httpOnly"], new["sameSite"], new["path"]) == (True, "Strict", "/")


def test_without_a_passkey_nobody_gets_in_and_the_page_says_so(seats):
    seat = seats()
    seat.open("/login", "#passkey")
    seat.page.click("#passkey")
    assert "Nothing was signed" in seat.said()


def test_every_bound_value_is_on_the_page_and_the_approval_holds_for_it(seats, stage):
    seat = seats().enrol("cleo", "finance")
    request = stage.ask(
        invoice("CLEO-1", 12500.5, note="", urgent=True, lines=[{"sku": "A-7", "n": 3}]),
        reason="Third instalment",
        transaction={"run": "friday-7"},
    )
    seat.open(f"/approvals/{request}", "#approve")
    shown = seat.page.inner_text("#bound")
    held = seat.get(f"/v1/approvals/{request}")["object"]
    for leaf in leaves(held):
        wanted = {True: "yes", False: "no"}.get(leaf, str(leaf)) if isinstance(leaf, bool) else str(leaf) or "(empty text)"
        assert wanted in shown, leaf
    seat.page.click("#approve")
    assert "Approved." in seat.said()
    assert stage.status(request) == "approved"
    assert seat.get(f"/v1/approvals/{request}")["votes"][0]["person"] == "cleo"


def test_a_list_can_be_approved_in_part(seats, stage):
    seat = seats().enrol("dan", "finance")
    request = stage.ask(invoice("DAN-1", 10), invoice("DAN-2", 20.25), invoice("DAN-3", 30), reason="Friday run")
    seat.open(f"/approvals/{request}", "#approve")
    assert "60.25" in seat.page.inner_text(".totals")
    seat.page.uncheck("#bound li:nth-child(2) input")
    assert seat.page.inner_text("#approve") == "Approve 2 of 3 with passkey"
    seat.page.click("#approve")
    assert "Approved." in seat.said()
    assert seat.get(f"/v1/approvals/{request}")["items"] == ["approved", "denied", "approved"]


def test_several_requests_with_one_signature_show_all_of_what_is_signed(seats, stage):
    seat = seats().enrol("eve", "finance")
    requests = [stage.ask(invoice(f"EVE-{n}", amount)) for n, amount in ((1, 0.1), (2, 0.2), (3, 1000))]
    seat.open("/approvals", ".line")
    for number in (1, 2, 3):
        seat.page.check(f"input[aria-label*='EVE-{number}']")
    seat.page.click("#together")
    seat.page.wait_for_selector("#review-title")
    text = seat.page.inner_text("#waiting")
    assert "1000.3 EUR" in text
    assert all(f"EVE-{n}" in text for n in (1, 2, 3))
    seat.page.click("text=Approve all 3 with passkey")
    assert "3 requests approved." in seat.said()
    assert [stage.status(each) for each in requests] == ["approved"] * 3


def test_a_no_needs_a_reason_and_ends_the_request(seats, stage):
    seat = seats().enrol("fay", "finance")
    request = stage.ask(invoice("FAY-1", 10))
    seat.open(f"/approvals/{request}", "#approve")
    seat.page.click("text=Deny…")
    assert seat.page.evaluate("document.activeElement.id") == "reason"
    seat.page.click("form >> text=Deny")
    assert stage.status(request) == "pending"
    seat.page.fill("#reason", "The payee is unknown")
    seat.page.click("form >> text=Deny")
    assert "Denied." in seat.said()
    assert stage.status(request) == "denied"
    assert "The payee is unknown" in seat.page.inner_text("main")


def test_two_people_are_needed_and_the_page_says_who_is_missing(seats, stage):
    first, second = seats().enrol("gil", "finance"), seats().enrol("hal", "treasury")
    request = stage.ask({"type": "transfer", "id": "GIL-1", "properties": {"amount": 9}}, action="wire")
    first.open(f"/approvals/{request}", "#approve")
    first.page.click("#approve")
    assert "One more approval is needed." in first.said()
    assert stage.status(request) == "pending"
    second.open(f"/approvals/{request}", "#approve")
    assert "1 of 2 given" in second.page.inner_text("main")
    second.page.click("#approve")
    assert "Approved." in second.said()
    assert stage.status(request) == "approved"


def test_nobody_approves_their_own_request_and_the_page_says_so(seats, stage):
    seat = seats().enrol("ida", "finance")
    request = stage.ask(invoice("IDA-1", 10), subject="ida")
    seat.open(f"/approvals/{request}", "#bound")
    assert seat.page.locator("#approve").count() == 0
    assert "You cannot decide this." in seat.page.inner_text(".decide")


def test_an_approval_that_was_not_used_is_taken_back(seats, stage):
    seat = seats().enrol("jan", "finance")
    request = stage.ask(invoice("JAN-1", 10))
    seat.open(f"/approvals/{request}", "#approve")
    seat.page.click("#approve")
    seat.said()
    seat.page.click("text=Take it back…")
    seat.page.fill("#reason", "Wrong invoice")
    seat.page.click("form >> text=Take it back")
    seat.page.wait_for_selector("#messages:has-text('Taken back')")
    assert seat.get(f"/v1/approvals/{request}")["status"] == "voided"


def test_an_authenticator_that_does_not_verify_its_user_approves_nothing(seats, stage):
    seat = seats().enrol("kim", "finance")
    request = stage.ask(invoice("KIM-1", 10))
    seat.open(f"/approvals/{request}", "#approve")
    seat.cdp.send("WebAuthn.setUserVerified", {"authenticatorId": seat.authenticator, "isUserVerified": False})
    seat.page.click("#approve")
    assert "Nothing was signed" in seat.said()
    assert stage.status(request) == "pending"


def test_an_assertion_without_user_verification_is_refused_by_the_server_too(seats, stage):
    """A page that asks the authenticator for less than the server did."""
    seat = seats().enrol("lea", "finance")
    request = stage.ask(invoice("LEA-1", 10))
    seat.page.route("**/challenge", weakened)
    seat.cdp.send("WebAuthn.setUserVerified", {"authenticatorId": seat.authenticator, "isUserVerified": False})
    seat.open(f"/approvals/{request}", "#approve")
    seat.page.click("#approve")
    assert "refused" in seat.said()
    assert stage.status(request) == "pending"


def weakened(route):
    answer = route.fetch()
    held = answer.json()
    held["public_key"]["userVerification"] = "discouraged"
    route.fulfill(response=answer, json=held)


@pytest.mark.parametrize("change", ["amount", "payee", "challenge"])
def test_the_page_signs_nothing_but_what_it_shows(seats, stage, change):
    seat = seats().enrol(f"mia-{change}", "finance")
    request = stage.ask(invoice(f"MIA-{change}", 10))

    def other(route):
        answer = route.fetch()
        held = answer.json()
        if change == "challenge":
            held["public_key"]["challenge"] = "A" * 43
        else:
            held["object"]["resource"]["properties"][change] = "999"
        route.fulfill(response=answer, json=held)

    seat.page.route("**/challenge", other)
    seat.open(f"/approvals/{request}", "#approve")
    seat.page.click("#approve")
    assert "not what this page shows" in seat.said()
    assert stage.status(request) == "pending"


def test_a_finding_while_somebody_looks_is_shown_and_nothing_is_approved(seats, stage):
    seat = seats().enrol("noa", "finance")
    request = stage.ask(invoice("NOA-1", 10), subject="norbert")
    seat.open(f"/approvals/{request}", "#approve")
    stage.finding(id="f-noa", subject={"identity": ["norbert"]})
    seat.page.click("#approve")
    seat.said()
    assert stage.status(request) not in {"approved", "pending"}
    assert "Session cookie used by a script" in seat.page.inner_text("main")


def test_another_origin_gets_nothing(seats, stage):
    seat = seats().enrol("ola", "finance")
    request = stage.ask(invoice("OLA-1", 10))
    other = stage.url.replace("localhost", "127.0.0.1")
    seat.page.goto(other + "/login")
    # The browser will not sign for another host than the one the passkey was made for,
    seat.page.wait_for_selector("#passkey")
    seat.page.click("#passkey")
    assert seat.said()
    # the session's cookie does not go there, and a request that comes from there is refused though it names this server.
    statuses = seat.page.evaluate(
        """async ([there, id]) => {
            const post = { method: "POST", body: "{}", headers: { "content-type": "application/json" }, credentials: "include" };
            const status = (url, how) => fetch(url, how).then((answer) => answer.status, () => "blocked");
            return [await status("/v1/login/passkey/options", post), await status(`/v1/approvals/${id}/challenge`, post),
                await status(`${there}/v1/approvals/${id}/challenge`, post)];
        }""",
        [stage.url, request],
    )  # fmt: skip
    assert statuses == [403, 401, "blocked"]
    seat.expected = "connect-src"


def test_a_session_that_ended_leads_to_the_login_and_back_to_the_same_request(seats, stage):
    seat = seats().enrol("pia", "finance")
    request = stage.ask(invoice("PIA-1", 10))
    seat.open(f"/approvals/{request}", "#approve")
    seat.context.clear_cookies()
    seat.page.click("#approve")
    seat.page.wait_for_url("**/login?onward=*")
    assert "Your session has ended" in seat.said()
    seat.page.click("#passkey")
    seat.page.wait_for_url(f"**/approvals/{request}")


ASTRAY = ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/v1/logout", "/approvals/../v1/me"]


def test_a_login_leads_nowhere_but_to_the_approvals(seats):
    seat = seats().enrol("quin", "finance")
    for onward in ASTRAY:
        seat.page.goto(f"{seat.url}/login?onward={onward}")
        seat.page.click("#passkey")
        seat.page.wait_for_url(re.compile(r"/approvals$"))


def test_what_others_wrote_is_text_and_shows_what_hides(seats, stage):
    seat = seats().enrol("rob", "finance")
    evil = "<img src=x onerror=alert(1)>"
    request = stage.ask(
        invoice(f"ROB {evil}", 10, payee=f"{evil}\u202egnp.exe", note="two\nlines"), reason=f"<script>{evil}</script>", subject="rita <b>"
    )
    seat.open("/approvals", ".line")
    assert evil in seat.page.inner_text("#waiting")
    seat.open(f"/approvals/{request}", "#approve")
    text = seat.page.inner_text("#bound")
    assert f"{evil}⟨U+202E⟩gnp.exe" in text
    assert seat.page.locator("main img, main script, main b").count() == 0


def test_the_policy_lets_no_foreign_script_style_or_markup_in(seats):
    seat = seats().enrol("sam", "finance")
    blocked = seat.page.evaluate(
        """() => {
            const tries = [];
            const script = document.createElement("script");
            try { script.textContent = "window.ran = 1"; document.body.append(script); } catch { tries.push("script"); }
            try { document.body.innerHTML = "<p>x</p>"; } catch { tries.push("markup"); }
            document.querySelector("h1").setAttribute("style", "color: red");
            return [tries, window.ran ?? 0, getComputedStyle(document.querySelector("h1")).color];
        }"""
    )
    assert blocked[0] == ["script", "markup"]
    assert blocked[1] == 0
    assert blocked[2] != "rgb(255, 0, 0)"
    seat.expected = "script-src|style-src|require-trusted-types-for"


def test_new_requests_appear_by_themselves_and_are_told(seats, stage):
    seat = seats().enrol("tea", "finance")
    stage.ask(invoice("TEA-1", 10))
    seat.page.wait_for_selector("text=TEA-1", timeout=12_000)
    assert "new request" in seat.page.inner_text("#told")


def test_authenticators_are_added_renamed_and_removed(seats):
    seat = seats().enrol("uma", "finance")
    seat.open("/approvals/authenticators", ".key")
    seat.page.click("#add button")
    assert "was" in seat.said() or "already" in seat.said()
    seat.cdp.send("WebAuthn.removeVirtualAuthenticator", {"authenticatorId": seat.authenticator})
    seat.plug(transport="usb")
    seat.page.fill("#name", "Blue key")
    seat.page.click("#add button")
    seat.page.wait_for_selector("#messages:has-text('is registered')")
    assert [each["name"] for each in seat.get("/v1/me/authenticators")] == ["Laptop", "Blue key"]
    seat.page.click("[aria-label='Rename Blue key']")
    seat.page.fill(".key form:not([hidden]) input", "Green key")
    seat.page.keyboard.press("Enter")
    seat.page.wait_for_selector("[aria-label='Remove Green key']")
    seat.page.click("[aria-label='Remove Green key']")
    seat.page.click("button:has-text('Remove it') >> visible=true")
    seat.page.wait_for_selector("#messages:has-text('is removed')")
    assert [each["name"] for each in seat.get("/v1/me/authenticators")] == ["Laptop"]
    seat.page.click("[aria-label='Remove Laptop']")
    assert "only one" in seat.page.inner_text(".say[role=group]")
    seat.page.click("button:has-text('Remove it') >> visible=true")
    seat.page.wait_for_url("**/login")


def test_everything_works_from_the_keyboard_alone(seats, stage):
    seat = seats().enrol("vera", "finance")
    request = stage.ask(invoice("VERA-1", 10))
    seat.page.click("#logout")
    seat.page.wait_for_url("**/login")

    def tab_to(selector: str, most: int = 80) -> None:
        for _ in range(most):
            seat.page.keyboard.press("Tab")
            if seat.page.evaluate("wanted => document.activeElement?.matches(wanted) ?? false", selector):
                outline = seat.page.evaluate(
                    "[getComputedStyle(document.activeElement).outlineStyle, document.activeElement.matches(':focus-visible')]"
                )
                assert outline[1]
                return
        raise AssertionError(f"the keyboard does not reach {selector}")

    tab_to("#passkey")
    seat.page.keyboard.press("Enter")
    seat.page.wait_for_url("**/approvals")
    seat.page.wait_for_selector(".line")
    tab_to(f"a[href='/approvals/{request}']")
    seat.page.keyboard.press("Enter")
    seat.page.wait_for_selector("#approve")
    tab_to("#approve")
    seat.page.keyboard.press("Enter")
    assert "Approved." in seat.said()
    assert stage.status(request) == "approved"


def test_nothing_is_asked_of_other_hosts_and_answers_have_their_headers(seats, stage):
    seat = seats()
    for path in (
        "/login",
        "/enrol",
        "/approvals",
        "/approvals/authenticators",
        "/approvals/x",
        "/console/inbox.js",
        "/console/console.css",
    ):
        answer = seat.context.request.get(stage.url + path)
        assert answer.status == 200
        policy = answer.headers["content-security-policy"]
        for part in (
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "form-action 'self'",
            "require-trusted-types-for 'script'",
        ):
            assert part in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert seat.context.request.get(stage.url + "/console/inbox.html").status == 404
    assert seat.context.request.get(stage.url + "/console/..%2froutes%2flogin.py").status in {400, 404}
    assert json.loads(seat.context.request.get(stage.url + "/console/none.js").text())["status"] == 404
