"""Reports in a real browser without a network: with JavaScript, without, narrow, and on paper."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="no playwright to test reports with")

import browsers
import every_report
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page
from pypdf import PdfReader

from parties.console import words

pytestmark = pytest.mark.skipif(browsers.program() is None, reason=browsers.MISSING)

KINDS = [f"{name}-{language}" for name in every_report.JOBS for language in words.LANGUAGES]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsers.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return every_report.written(tmp_path_factory.mktemp("reports"))


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(offline=True)
    yield context
    context.close()


def drawn(page: Page, file: Path) -> Page:
    page.goto(file.as_uri())
    page.locator("body[data-drawn]").wait_for(timeout=60_000)
    return page


def test_it_opens_offline_and_asks_for_nothing(
    context: BrowserContext, files: dict[str, Path]
) -> None:
    page, asked, said = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    file = files["insight-en"]
    drawn(page, file)
    assert page.locator(".bars .point").count() >= 2
    assert page.locator(".chart svg.main-svg").count() >= 5
    page.locator("summary").first.click()
    assert page.locator("td").first.is_visible()
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    assert not said


def test_its_figures_are_read_without_javascript(browser: Browser, files: dict[str, Path]) -> None:
    context = browser.new_context(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto(files["insight-en"].as_uri())
    assert page.locator("td").first.is_visible()
    assert page.locator("svg").count() == 0
    context.close()


def test_suppressed_segments_are_drawn_as_such(
    context: BrowserContext, files: dict[str, Path]
) -> None:
    page = drawn(context.new_page(), files["insight-en"])
    title = words.say("en", "report.by_segment", feature="spend")
    heat = page.locator("figure").filter(has=page.get_by_text(title, exact=True))
    assert sorted(heat.locator(".ytick text").all_text_contents()) == ["-29", "30-44", "45-"]
    assert heat.locator(".heatmaplayer image").count() == 1
    texts = heat.locator(".annotation-text").all_text_contents()
    assert texts and set(texts) == {"suppressed"}
    heat.locator("summary").click()
    assert heat.locator("td", has_text="suppressed").count() == len(texts)


def test_the_right_moment_is_a_calendar(context: BrowserContext, files: dict[str, Path]) -> None:
    page = drawn(context.new_page(), files["insight-zh"])
    calendar = page.locator("figure", has_text="最佳时机")
    days = calendar.locator(".xtick text").all_text_contents()
    assert days == words.say("zh", "report.weekdays").split()
    fields = calendar.locator(".heatmap-label text").all_text_contents()
    assert 7 * 8 - 6 <= len(fields) <= 7 * 9, "eight weeks, from today on"
    assert all(field.strip() for field in fields)


def test_a_ratio_is_drawn(context: BrowserContext, files: dict[str, Path]) -> None:
    page = drawn(context.new_page(), files["ratio-en"])
    assert page.locator("figure").count() == 2  # a heat map, and bars
    title = page.locator(".ytitle").all_text_contents()
    assert any("spend / orders" in text for text in title), title
    assert page.locator("th", has_text="Ratio").count() >= 1


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_accessible_prints_on_two_pages_and_fits_a_narrow_screen(
    browser: Browser, files: dict[str, Path], kind: str
) -> None:
    context = browser.new_context(offline=True, bypass_csp=True)  # axe is not ours
    page = drawn(context.new_page(), files[kind])
    found = Axe().run(page, options=browsers.RULES)
    assert found.violations_count == 0, f"{kind}\n{found.generate_report()}"
    printed = PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True)))
    assert 1 <= len(printed.pages) <= 2
    text = "".join(sheet.extract_text() for sheet in printed.pages)
    assert "concordat audit verify" in text, "the footer is printed"
    page.set_viewport_size({"width": 360, "height": 640})
    page.wait_for_function("document.documentElement.scrollWidth <= 360")  # charts follow
    context.close()
