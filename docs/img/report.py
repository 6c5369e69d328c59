"""Make docs/img/report-insight.png of a report: python docs/img/report.py REPORT.html"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
    context = browser.new_context(offline=True, viewport={"width": 780, "height": 1000})
    page = context.new_page()
    page.goto(Path(sys.argv[1]).absolute().as_uri())
    page.locator("details:not([open])").first.wait_for()
    page.wait_for_timeout(1000)  # until all are drawn
    page.screenshot(path=Path(__file__).with_name("report-insight.png"))
    browser.close()
