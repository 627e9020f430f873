"""A real Chromium on a real server: every test ends with no error in the browser's console and no request elsewhere.

The browser is the system's. Where there is none the tests are left out and say so; CI installs one.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from server_process import ServerProcess

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # Pages and processes in reserve, which each of our windows would have prepared and none uses.
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup,SpareRendererForSitePerProcess,PaintHolding",
)
PATIENCE_MS = 30_000
numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CHROMIUM is None:
        for item in items:
            if "tests/console/" in str(item.path):
                item.add_marker(pytest.mark.skip(reason="no Chromium on this machine: apt-get install chromium"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for a module, not for the session: while it is open an event loop runs in this thread, and no other
    module's test could run its own."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class Console:
    """A page of the console, and what the browser complained of."""

    page: Any
    url: str
    complaints: list[str] = field(default_factory=list)

    def open(self, route: str) -> None:
        """Go to ``#/<route>`` and wait until it is there."""
        self.page.goto(f"{self.url}/#/{route}")
        self.page.locator(":is(main h1, main .empty, main article):visible").first.wait_for()

    def type_sql(self, text: str) -> Any:
        """Put a text into the editor of *Query*."""
        editor = self.page.get_by_role("textbox", name="SQL", exact=True)
        editor.fill(text)
        return editor

    def run(self, text: str) -> None:
        """Run a text on *Query* and wait for its results."""
        self.type_sql(text)
        self.page.get_by_role("button", name="Run", exact=True).click()
        self.page.get_by_role("grid", name="Results").wait_for()

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)


def watched(page: Any, console: Console) -> None:
    """Note what the browser logs as an error, and requests to other hosts."""

    def note(message: Any) -> None:
        # What the browser itself logs of an answer of 4xx is no fault of the page.
        if message.type == "error" and "Failed to load resource" not in message.text:
            console.complaints.append(message.text)

    def asked(request: Any) -> None:
        if not request.url.startswith((console.url, "blob:", "data:")):
            console.complaints.append(f"request to {request.url}")

    page.on("console", note)
    page.on("pageerror", lambda error: console.complaints.append(str(error)))
    page.on("request", asked)


@pytest.fixture
def open_console(browser: Any, shared_server: ServerProcess) -> Iterator[Callable[..., Console]]:
    """Open pages: ``open_console(server=…, width=…, theme=…)``."""
    opened: list[tuple[Any, Console]] = []

    def open_one(
        server: ServerProcess | None = None, *, width: int = 1280, height: int = 800, theme: str = "light"
    ) -> Console:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, accept_downloads=True
        )
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        console = Console(page, (server or shared_server).http_url)
        watched(page, console)
        opened.append((context, console))
        return console

    yield open_one
    for context, _ in opened:
        context.close()
    assert [complaint for _, console in opened for complaint in console.complaints] == []


@pytest.fixture
def console(open_console: Callable[..., Console]) -> Console:
    """A page at 1,280 pixels, light."""
    return open_console()


@pytest.fixture
def namespace(shared_server: ServerProcess) -> str:
    """A namespace of the test's own."""
    name = f"c{next(numbers)}"
    shared_server.sql(f"CREATE NAMESPACE {name}")
    return name
