"""A real browser, and two nodes of whose consoles it sees the bank's."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from consoles import PASSWORD, cheap_passwords, staff
from playwright.sync_api import Browser, Page, sync_playwright
from ready import make_ready

from parties import server
from parties.config import Home
from parties.console import server as consoles
from parties.console.visit import Console
from parties.node import Node

# What axe has to find nothing of: WCAG 2.2 at levels A and AA.
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}

MISSING = "no Chromium to test the console with: apt install chromium"


def program() -> str | None:
    """Debian's Chromium, or another of its kind."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Without a sandbox of its own, which root may not have; it sees our pages only.
        browser = playwright.chromium.launch(executable_path=program(), args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Two:
    """Bank and shop serving, an agreement between them, and the bank's console."""

    bank: Node
    shop: Node
    console: Console

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.console.port}"


@contextmanager
def two_nodes(folder: Path) -> Iterator[Two]:
    bank = Node.create(Home(folder / "bank"), "bank", "bank", None)
    shop = Node.create(Home(folder / "shop"), "shop", "ecommerce", None)
    with ExitStack() as open_:
        open_.enter_context(cheap_passwords())
        for node in (bank, shop):
            open_.enter_context(server.serving(node))
        make_ready(bank, shop, b"")
        staff(bank)
        console = open_.enter_context(consoles.serving(Node.open(bank.home), 0))
        yield Two(bank, shop, console)


def sign_in(page: Page, address: str, name: str, password: str = PASSWORD) -> None:
    page.goto(f"{address}/sign-in")
    page.locator("#name").fill(name)
    page.locator("#password").fill(password)
    page.locator("form[action='/sign-in/password'] button").click()
