"""Write docs/img/console-*.png: python tests/e2e/write_screenshots.py [FOLDER]

The console of a bank that shares customers with a shop, as its officer sees it; some pages in
Chinese, one on a phone. Looked at by people; no test compares them.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "parties"))

import browsers
from browsers import Two, sign_in
from consoles import as_user
from playwright.sync_api import Browser, Page
from ready import AGREEMENT, paused, phones, run, withdraw

from parties import agreements, people

IMAGES = Path(__file__).parents[2] / "docs" / "img"
LARGEST = 150 << 10  # bytes
WIDE, PHONE = {"width": 1040, "height": 650}, {"width": 360, "height": 720}
PERSON = "13900000100"


def write(folder: Path) -> None:
    """Every page, from nodes made for it."""
    with (
        tempfile.TemporaryDirectory() as nodes,
        browsers.two_nodes(Path(nodes)) as two,
        browsers.chromium() as browser,
    ):
        live(two, Path(nodes))
        for page in visiting(two, browser, "li", "en-GB"):
            shoot(page, folder, "overview", two.address)
            for name in (
                "approvals",
                "people",
                "agreements",
                "runs",
                "exports",
                "peers",
                "features",
            ):
                shoot(page, folder, name, f"{two.address}/{name}")
            shoot(page, folder, "agreement", f"{two.address}/agreements/offers/1")
            shoot(
                page, folder, "comparison", f"{two.address}/agreements/offers/compare?old=1&new=2"
            )
            shoot(page, folder, "run", f"{two.address}/runs/{two.bank.runs()[0]['id']}")
            page.goto(f"{two.address}/verify")
            page.locator("main button").click()
            page.locator("main .good").wait_for(timeout=60_000)
            shoot(page, folder, "verify")
            look_up(page, two)
            shoot(page, folder, "person")
            page.locator("a[href$='/runs'] >> nth=-1").click()
            shoot(page, folder, "person-runs")
        for page in visiting(two, browser, "wang", "en-GB"):
            with paused(two.bank, "overlap", "gate"):
                shoot(page, folder, "jobs", f"{two.address}/jobs")
        for page in visiting(two, browser, "li", "zh-CN"):
            shoot(page, folder, "overview-zh", two.address)
            shoot(page, folder, "run-zh", f"{two.address}/runs/{two.bank.runs()[0]['id']}")
            look_up(page, two)
            shoot(page, folder, "person-zh")
        for page in visiting(two, browser, "li", "zh-CN", PHONE):
            shoot(page, folder, "phone", two.address)
        context = browser.new_context(viewport=WIDE, locale="en-GB", color_scheme="dark")
        shoot(context.new_page(), folder, "sign-in", two.address)


def live(two: Two, folder: Path) -> None:
    """What there is to see: runs, a version that waits for approval, somebody who withdrew."""
    run(two.bank, "overlap")
    run(two.bank, "intersect")
    path = folder / "two.yaml"
    path.write_text(
        AGREEMENT.format(version=2, partner_learns="ids").replace("none made", "PIA-2026-014")
    )
    li = as_user(two.bank, "li")
    agreements.propose(as_user(two.bank, "wang"), path)
    people.approve(li, people.proposals(li)[0].id)
    agreements.sign(two.shop, "offers", 2)
    people.set_role(as_user(two.bank, "he"), "wang", "officer")
    withdraw(two.shop, phones(70, 71), "bank", "purchases")


def visiting(
    two: Two, browser: Browser, name: str, locale: str, size: dict[str, int] = WIDE
) -> list[Page]:
    page = browser.new_context(viewport=size, locale=locale).new_page()
    sign_in(page, two.address, name)
    return [page]


def look_up(page: Page, two: Two) -> None:
    page.goto(f"{two.address}/people")
    page.locator("#identifier").fill(PERSON)
    page.locator("main button").click()


def shoot(page: Page, folder: Path, name: str, address: str = "") -> None:
    if address:
        page.goto(address)
    path = folder / f"console-{name}.png"
    page.screenshot(path=path)
    assert path.stat().st_size <= LARGEST, f"{path} is too large"


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
