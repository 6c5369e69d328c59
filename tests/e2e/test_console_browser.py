"""The console as people see it: in a real browser, by keyboard, on a narrow screen."""

from collections.abc import Iterator

import pytest

pytest.importorskip("playwright", reason="no playwright to test the console with")

import browsers
from axe_playwright_python.sync_playwright import Axe
from browsers import Two, sign_in
from playwright.sync_api import Browser, BrowserContext, Page, expect

from parties.console import sessions

pytestmark = pytest.mark.skipif(browsers.program() is None, reason=browsers.MISSING)

# What axe has to find nothing of: WCAG 2.2 at levels A and AA.
_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}


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
    page.keyboard.type("li")  # the name has the focus
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


PAGES = ["/", "/account", "/approvals", "/agreements", "/agreements/offers/1", "/runs", "/verify"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(two: Two, browser: Browser, scheme: str) -> None:
    # Its script is not ours, so our policy would not let it in.
    context = browser.new_context(bypass_csp=True, color_scheme=scheme, locale="en-GB")
    page = context.new_page()
    page.goto(f"{two.address}/sign-in")
    accessible(page)
    sign_in(page, two.address, "li")
    for path in PAGES:
        page.goto(two.address + path)
        accessible(page)
    context.close()


def accessible(page: Page) -> None:
    found = Axe().run(page, options=_RULES)
    assert found.violations_count == 0, f"{page.url}\n{found.generate_report()}"


def test_a_narrow_screen_needs_no_scrolling_sideways(two: Two, browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 640}, locale="zh-CN")
    page = context.new_page()
    page.goto(f"{two.address}/sign-in")
    assert width(page) <= 360
    sign_in(page, two.address, "li")
    for path in PAGES:
        page.goto(two.address + path)
        assert width(page) <= 360, path
    context.close()


def width(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth"))
