"""The pages for every eye, hand and window: axe finds nothing, nothing is wider than a phone, colours follow the system."""

from __future__ import annotations

import pytest
from stage import invoice

pytestmark = [pytest.mark.browser, pytest.mark.serving]


@pytest.mark.parametrize("look", ["light", "dark", "narrow"])
def test_axe_finds_nothing_on_any_page_in_any_state(seats, stage, look):
    narrow = look == "narrow"
    seat = seats(width=320 if narrow else 1280, color_scheme="dark" if look == "dark" else "light", reduced_motion="reduce")
    name = f"wim-{look}"
    found: dict[str, list[str]] = {}

    def check(state: str) -> None:
        problems = seat.axe()
        if seat.wide():
            problems.append("wider than the window")
        if problems:
            found[state] = problems

    seat.open("/login", "#passkey")
    check("login")
    seat.page.goto(stage.url + "/enrol")
    seat.said()
    check("broken link")
    seat.page.goto(stage.person(name, "finance", "oncall"))
    seat.page.wait_for_selector("#ready:not([hidden])")
    check("enrol")
    seat.page.click("#form button")
    seat.page.click("#enter")
    seat.page.wait_for_url("**/approvals")
    seat.page.wait_for_selector("#waiting > *")
    one = stage.ask(
        invoice(f"{name}-1", 1250000, "A payee with a very long name that goes on and on, Gesellschaft mit beschraenkter Haftung"),
        subject=f"{name}-bert",
        reason="Due today",
    )
    many = stage.ask(invoice(f"{name}-2", 10), invoice(f"{name}-3", 20.5), invoice("x" * 90, 30))
    stage.ask({"type": "transfer", "id": f"{name}-4", "properties": {"amount": 7}}, action="wire", subject=name)
    seat.open("/approvals", f"text={name}-1")
    check("inbox")
    seat.page.check(f"input[aria-label*='{name}-1']")
    seat.page.check(f"input[aria-label*='{name}-2']")
    check("chosen")
    seat.page.click("#together")
    seat.page.wait_for_selector("#review-title")
    check("together")
    stage.finding(id=f"f-{name}", subject={"identity": [f"{name}-bert"]})
    seat.open(f"/approvals/{one}", "#bound")
    check("one")
    seat.open(f"/approvals/{many}", "#approve")
    check("list")
    seat.page.click("text=Deny…")
    check("deny")
    seat.page.fill("#reason", "No")
    seat.page.click("form >> text=Deny")
    seat.said()
    check("denied")
    seat.open("/approvals", "#lately-list tr")
    check("inbox with decided ones")
    seat.open("/approvals/authenticators", ".key")
    check("authenticators")
    seat.page.click(".key button[aria-label^='Remove']")
    check("remove")
    seat.page.click(".key button[aria-label^='Rename']")
    check("rename")
    seat.open("/approvals/none", "h1")
    seat.page.wait_for_selector("text=No such request")
    check("none")
    assert found == {}


def test_axe_would_find_something(seats):
    seat = seats()
    seat.open("/login", "#passkey")
    assert seat.axe() == []
    seat.page.evaluate("document.querySelector('#passkey').replaceChildren(); document.documentElement.removeAttribute('lang')")
    assert {each.split(":")[0] for each in seat.axe()} >= {"button-name", "html-has-lang"}


def test_the_theme_follows_the_system_and_can_be_chosen(seats):
    seat = seats(color_scheme="dark")
    seat.open("/login", "#passkey")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = seat.page.evaluate(ground)
    seat.page.click("#theme")
    light = seat.page.evaluate(ground)
    assert light != dark
    seat.page.reload()
    assert seat.page.evaluate(ground) == light


def test_text_can_be_twice_as_large_without_anything_being_cut(seats, stage):
    seat = seats(width=640).enrol("xena", "finance")
    request = stage.ask(invoice("XENA-1", 10))
    seat.open(f"/approvals/{request}", "#approve")
    # Zooming to 200 % makes the window half as wide in CSS pixels.
    seat.page.set_viewport_size({"width": 320, "height": 450})
    assert not seat.wide()
    seat.page.locator("#approve").scroll_into_view_if_needed()
    seat.page.click("#approve")
    assert "Approved." in seat.said()


def test_headings_landmarks_and_the_page_title_tell_the_place(seats, stage):
    seat = seats().enrol("yves", "finance")
    request = stage.ask(invoice("YVES-1", 10))
    seat.open(f"/approvals/{request}", "#approve")
    assert "YVES-1" in seat.page.title()
    assert seat.page.locator("h1").count() == 1
    assert seat.page.locator("main").count() == 1
    assert seat.page.locator("[role=timer]").count() == 1
    seat.page.keyboard.press("Tab")
    assert seat.page.evaluate("document.activeElement.textContent") == "Skip to the content"
