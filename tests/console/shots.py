"""Takes the pictures of docs/images: `python tests/console/shots.py docs/images`, with a server and a browser of its own."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from playwright.sync_api import sync_playwright
from serving import Server
from stage import CHROMIUM, FLAGS, POLICIES, Seat, Stage, invoice


def fill(stage: Stage) -> str:
    """A morning's requests; the id of the one to look at."""
    done = stage.ask(invoice("INV-2240", 310, "Hafenlogistik"), subject="bert", reason="Demurrage")
    stage.call("POST", f"/access/v1/requests/{done}/cancel", {"reason": "paid by card"})
    stage.finding(id="f-100", subject={"identity": ["bert"]})
    shown = stage.ask(invoice("INV-2291", 12500.5), subject="bert", reason="Third instalment, due today")
    stage.ask(
        invoice("INV-2292", 880), invoice("INV-2293", 1249.99, "Holm & Sohn"), invoice("INV-2294", 40, "Café Zuid"), subject="carla", reason="Friday run"
    )  # fmt: skip
    stage.ask(
        {"type": "release", "id": "shop-4.11.0", "properties": {"environment": "production", "digest": "sha256:9f2c1e0ab4d8c7", "service": "checkout"}},
        subject="dora", action="deploy", reason="Fix for the basket",
    )  # fmt: skip
    stage.ask(
        {"type": "transfer", "id": "W-77", "properties": {"amount": 250000, "currency": "USD", "payee": "Delta Shipping Ltd"}},
        subject="carl",
        action="wire",
    )
    stage.ask(invoice("INV-2299", 77, "Parkhaus Mitte"), subject="alice", reason="Parking")
    return shown


def shoot(browser: Any, stage: Stage, folder: Path) -> None:
    shown = fill(stage)
    looks: dict[str, dict[str, Any]] = {
        "light": {},
        "dark": {"color_scheme": "dark"},
        "phone": {"width": 390, "height": 844, "device_scale_factor": 2},
    }
    bob = Seat(browser, stage).enrol("bob", "treasury", display="Bob Bley")
    bob.open("/approvals", "text=W-77")
    bob.page.click("text=W-77")
    bob.page.wait_for_selector("#approve")
    bob.page.click("#approve")
    bob.said()
    for look, about in looks.items():
        seat = Seat(browser, stage, **about)
        if look == "light":
            seat.enrol("alice", "finance", display="Alice Ames")
        else:
            link = stage.call("POST", "/v1/people/alice/link")["link"]
            seat.page.goto(link)
            seat.page.fill("#name", look.capitalize())
            seat.page.click("#form button")
            seat.page.click("#enter")
            seat.page.wait_for_url("**/approvals")
        seat.open("/approvals", "text=INV-2291")
        seat.page.wait_for_selector("#lately-list tr")
        picture(seat, folder / f"approvals-inbox-{look}.png", full=look != "phone")
        seat.open(f"/approvals/{shown}", "#approve")
        seat.page.wait_for_timeout(300)
        picture(seat, folder / f"approvals-request-{look}.png", full=False)
        if look == "light":
            seat.open("/approvals", "text=INV-2291")
            for name in ("INV-2291", "INV-2292", "W-77"):
                seat.page.check(f"input[aria-label*='{name}']")
            seat.page.click("#together")
            seat.page.wait_for_selector("#review-title")
            seat.page.evaluate("scrollTo(0, 0)")
            picture(seat, folder / "approvals-together-light.png", full=False)
            seat.open("/approvals/authenticators", ".key")
            picture(seat, folder / "approvals-authenticators-light.png", full=False)
        seat.close()


def picture(seat: Seat, path: Path, *, full: bool) -> None:
    size = seat.page.viewport_size
    if full:  # a window as high as the page, so that nothing that sticks to an edge stands in the middle
        seat.page.set_viewport_size({**size, "height": seat.page.evaluate("document.documentElement.scrollHeight")})
    seat.page.screenshot(path=str(path))
    seat.page.set_viewport_size(size)


def main() -> None:
    folder = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as place, sync_playwright() as running:
        policies = Path(place) / "policies"
        policies.mkdir()
        (policies / "approvals.cedar").write_text(POLICIES)
        with Server(Path(place), "--policies", str(policies)).start() as server:
            browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            shoot(browser, Stage(server.url, server.key, f"sqlite:///{server.data.resolve()}/aftergate.db"), folder)
            browser.close()


if __name__ == "__main__":
    main()
