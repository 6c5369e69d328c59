"""The console as people see it: in a real browser, by keyboard, on a narrow screen."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="no playwright to test the console with")

import browsers
from axe_playwright_python.sync_playwright import Axe
from browsers import Two, sign_in
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect
from ready import paused, run

from parties.config import Home
from parties.console import server, sessions
from parties.node import Node

pytestmark = pytest.mark.skipif(browsers.program() is None, reason=browsers.MISSING)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsers.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    with browsers.two_nodes(tmp_path_factory.mktemp("two")) as two:
        yield two


@pytest.fixture(params=["script", "none"])
def either(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A page with JavaScript, and one without."""
    context = browser.new_context(java_script_enabled=request.param == "script", locale="en-GB")
    yield context.new_page()
    context.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(locale="en-GB")
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page of which the browser may not complain."""
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    assert not said


def test_a_sign_in_that_is_good_and_one_that_is_wrong(two: Two, either: Page) -> None:
    sign_in(either, two.address, "li", "a wrong password")
    expect(either.get_by_role("alert")).to_contain_text("do not belong together")
    sign_in(either, two.address, "li")
    expect(either.get_by_role("heading", level=1)).to_have_text("bank")
    expect(either.get_by_role("banner")).to_contain_text("li")
    either.get_by_role("button", name="Sign out").click()
    expect(either.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_a_sign_in_expires(two: Two, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_in(page, two.address, "li")
    expect(page.get_by_role("heading", level=1)).to_have_text("bank")
    monkeypatch.setattr(sessions, "IDLE_SECONDS", 0.0)
    page.reload()
    expect(page.get_by_role("status")).to_contain_text("You were signed out")


def test_both_languages(two: Two, browser: Browser) -> None:
    context = browser.new_context(locale="zh-CN")
    page = context.new_page()
    sign_in(page, two.address, "li")
    expect(page.get_by_role("link", name="概览")).to_be_visible()
    page.get_by_role("link", name="English").click()
    expect(page.get_by_role("link", name="Overview")).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "en"
    context.close()


def test_by_keyboard_alone(two: Two, page: Page) -> None:
    page.goto(two.address)
    expect(page.locator("#name")).to_be_focused()
    page.keyboard.type("li")
    page.keyboard.press("Tab")
    page.keyboard.type(browsers.PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("bank")
    page.goto(f"{two.address}/account")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    focused = page.locator(":focus")
    assert focused.evaluate("one => one.closest('main') !== null")
    assert focused.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"


PAGES = [
    *("/", "/account", "/approvals", "/people", "/agreements", "/agreements/offers/1", "/runs"),
    *("/verify", "/exports", "/jobs", "/peers", "/errors/E612", "/features"),
]


def pages(two: Two) -> list[str]:
    """With those of a run, and of an agreement's versions."""
    known = [one["id"] for one in two.bank.runs()] or [run(two.bank, "overlap")["run"]]
    return [*PAGES, f"/runs/{known[0]}", "/agreements/offers/compare?old=1&new=1", "/runs/ffffffff"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(two: Two, browser: Browser, scheme: str) -> None:
    # Its script is not ours, so our policy would not let it in.
    context = browser.new_context(bypass_csp=True, color_scheme=scheme, locale="en-GB")
    page = context.new_page()
    page.goto(f"{two.address}/sign-in")
    accessible(page)
    sign_in(page, two.address, "li")
    for path in pages(two) if scheme == "light" else pages(two)[::4]:
        page.goto(two.address + path)
        accessible(page)
    context.close()


def accessible(page: Page) -> None:
    found = Axe().run(page, options=browsers.RULES)
    assert found.violations_count == 0, f"{page.url}\n{found.generate_report()}"


def test_a_narrow_screen_needs_no_scrolling_sideways(two: Two, browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 640}, locale="zh-CN")
    page = context.new_page()
    page.goto(f"{two.address}/sign-in")
    assert width(page) <= 360
    sign_in(page, two.address, "li")
    for path in pages(two):
        page.goto(two.address + path)
        for fold in page.locator("main summary").all():
            fold.click()
        assert width(page) <= 360, path
    context.close()


def width(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth"))


# What officers do


@pytest.fixture
def officers(two: Two, browser: Browser) -> Iterator[tuple[Page, Page]]:
    """li and he, each in a browser of their own, without JavaScript."""
    contexts = [browser.new_context(java_script_enabled=False, locale="en-GB") for _ in range(2)]
    pages = [context.new_page() for context in contexts]
    for page, name in zip(pages, ("li", "he"), strict=True):
        sign_in(page, two.address, name)
    yield pages[0], pages[1]
    for context in contexts:
        context.close()


def heading(page: Page) -> Locator:
    return page.get_by_role("heading", level=1)


def test_a_person_is_looked_up_and_restricted_by_two(two: Two, officers: tuple[Page, Page]) -> None:
    li, he = officers
    li.get_by_role("link", name="People").click()
    li.get_by_label("Identifier", exact=True).fill("139 0000 0100")
    li.get_by_role("button", name="Search").click()
    expect(heading(li)).to_contain_text("One person")
    assert "139" not in li.url
    expect(li.get_by_role("table", name="As they are now")).to_contain_text("credit-offer")
    li.get_by_label("Until when the law wants it").fill("2034-01-01")
    li.get_by_role("button", name="Restrict").click()
    expect(li.get_by_role("status")).to_contain_text("waits for another officer")
    he.get_by_role("link", name="Approvals").click()
    he.get_by_label("Whom it is about").fill("13900000100")
    he.get_by_role("button", name="Approve").click()
    expect(he.get_by_role("status")).to_have_text("Approved and carried out.")
    li.reload()
    expect(li.locator("main")).to_contain_text("Restricted until 2034-01-01")


def test_an_agreement_is_suspended_and_resumed_by_two(
    two: Two, officers: tuple[Page, Page]
) -> None:
    li, he = officers
    li.goto(f"{two.address}/agreements")
    li.get_by_role("link", name="offers").click()
    li.get_by_label("Reason, which the partner reads too").fill("an audit")
    li.get_by_role("button", name="Suspend at once").click()
    expect(li.get_by_role("status")).to_contain_text("acknowledged")
    li.get_by_role("button", name="Propose to resume").click()
    expect(li.get_by_role("button", name="Approve")).to_have_count(0)
    he.goto(f"{two.address}/agreements/offers/1")
    he.get_by_role("button", name="Approve").click()
    expect(he.get_by_role("status")).to_have_text("Approved and carried out.")
    expect(he.locator("main > p .state")).to_have_text("signed by both")


def test_a_run_shows_that_both_receipts_agree(two: Two, page: Page) -> None:
    report = run(two.bank, "overlap")
    sign_in(page, two.address, "audra")
    page.goto(f"{two.address}/runs/{report['run']}")
    expect(page.locator("main")).to_contain_text("both signatures hold")
    theirs = two.shop.home.run_folder(report["run"]) / "receipt.json"
    page.get_by_label("The partner's receipt.json").set_input_files(theirs)
    page.get_by_role("button", name="Compare with ours").click()
    expect(page.get_by_role("status")).to_contain_text("say the same, signed by both")


def test_what_is_signed_is_read_in_chinese_and_unfolds_as_signed(
    two: Two, browser: Browser
) -> None:
    report = run(two.bank, "overlap")
    context = browser.new_context(locale="zh-CN", java_script_enabled=False)
    page = context.new_page()
    sign_in(page, two.address, "audra")
    page.goto(f"{two.address}/runs/{report['run']}")
    expect(page.get_by_text("与 shop 有多少共同客户")).to_be_visible()
    signed = page.get_by_text("how many customers it shares with shop")
    expect(signed).not_to_be_visible()
    page.get_by_text("所签原文（英文）").first.click()
    expect(signed).to_be_visible()
    context.close()


def test_a_report_is_saved(two: Two, page: Page) -> None:
    report = run(two.bank, "overlap")
    sign_in(page, two.address, "audra")
    page.goto(f"{two.address}/runs/{report['run']}")
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Save the report").click()
    saved = Path(waiting.value.path()).read_text("utf-8")
    assert report["run"] in saved and "Who is whose customer" in saved


def test_a_good_log_is_verified(two: Two, either: Page) -> None:
    sign_in(either, two.address, "audra")
    either.get_by_role("link", name="Verify", exact=True).click()
    either.get_by_role("button", name="Verify now").click()
    expect(either.locator("main .good")).to_contain_text("is whole", timeout=30_000)


def test_a_tampered_log_is_not(two: Two, page: Page, tmp_path: Path) -> None:
    home = Home(tmp_path / "copy")
    shutil.copytree(two.bank.home.path, home.path, ignore=shutil.ignore_patterns("running.json"))
    node = Node.open(home)
    with node.writing() as conn:
        conn.exec_driver_sql("UPDATE consents SET expires_at = expires_at + 1 WHERE id = 7")
    with server.serving(node, 0) as console:
        address = f"http://127.0.0.1:{console.port}"
        sign_in(page, address, "li")
        page.goto(f"{address}/verify")
        page.get_by_role("button", name="Verify now").click()
        expect(page.locator("main .failure")).to_contain_text("does not hold", timeout=30_000)
        expect(page.locator("main")).to_contain_text("consent 7")


def test_a_register_and_evidence_are_saved(two: Two, officers: tuple[Page, Page]) -> None:
    li, _ = officers
    li.get_by_role("link", name="Exports").click()
    li.locator("select[name=form]").first.select_option("pdf")
    for button, start in ((1, b"%PDF"), (0, b"PK")):
        with li.expect_download() as waiting:
            li.get_by_role("button", name="Download").nth(button).click()
        assert Path(waiting.value.path()).read_bytes().startswith(start)


def test_a_job_under_way_is_followed(two: Two, page: Page) -> None:
    sign_in(page, two.address, "wang")
    with paused(two.bank, "overlap", "gate"):
        page.goto(f"{two.address}/jobs")
        expect(page.get_by_role("progressbar")).to_be_visible()
        expect(page.locator("article")).to_contain_text("gate")
    expect(page.locator("[data-live=off]")).to_be_visible(timeout=20_000)  # by itself
    expect(page.get_by_role("table")).to_contain_text("completed")
