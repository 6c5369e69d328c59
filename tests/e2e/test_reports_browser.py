"""Reports in a real browser without a network: with JavaScript, without, and on paper."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="no playwright to test reports with")

import browsers
from playwright.sync_api import Browser
from ready import run

from parties.reports import page as reports

pytestmark = pytest.mark.skipif(browsers.program() is None, reason=browsers.MISSING)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsers.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    with browsers.two_nodes(folder) as two:
        two.shop.home.key("paillier-2048").unlink()  # it makes one
        reports.write(two.bank, run(two.bank, "insight")["run"], folder / "insight.html")
    return folder / "insight.html"


def test_it_opens_offline_and_asks_for_nothing(browser: Browser, file: Path) -> None:
    context = browser.new_context(offline=True)
    page, asked, said = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(file.as_uri())
    page.locator(".chart svg.main-svg").first.wait_for()
    assert page.locator(".bars .point").count() >= 2
    page.locator("details:not([open])").first.wait_for()
    page.locator("summary").first.click()
    assert page.locator("td").first.is_visible()
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    assert not said
    context.close()


def test_its_figures_are_read_without_javascript(browser: Browser, file: Path) -> None:
    context = browser.new_context(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator("td").first.is_visible()
    assert page.locator("svg").count() == 0
    context.close()


def test_it_prints_on_one_or_two_pages(browser: Browser, file: Path) -> None:
    page = browser.new_context(offline=True).new_page()
    page.goto(file.as_uri())
    page.locator("details:not([open])").first.wait_for()
    printed = page.pdf(prefer_css_page_size=True)
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 2
