"""Fixtures for tests in Debian's Chromium, driven by Playwright; each page has its own context and user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from testkit.servers.airflow import Airflow
from testkit.servers.debian import find_or_install

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

expect.set_options(timeout=60_000)
"""A computer that runs Airflow, workers and a browser at the same time is sometimes slow."""

OpenPage = Callable[..., Page]

AXE = Path(__file__).parent.parent.parent / "ui/node_modules/axe-core/axe.min.js"

SETTLED = """() => Promise.all(
    document.getAnimations()
        .filter(one => one.effect.getComputedTiming().endTime !== Infinity)
        .map(one => one.finished.catch(() => null))
)"""
"""Waits for animations: elements that fade in don't have their final contrast yet."""

OVERFLOWING = """() => [document.documentElement, ...document.querySelectorAll("[role=tabpanel]:not([hidden]) *")]
    .filter(one => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflowX !== "visible")
    .map(one => `${one.tagName} ${one.innerText.slice(0, 80)}: ${one.scrollWidth} of ${one.clientWidth} px`)
"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = find_or_install({"chromium": "chromium"})["chromium"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(central: Airflow, browser: Browser) -> Iterator[OpenPage]:
    """Return a function that opens the dashboard, or the page *at* *url*, as a user of Airflow; *refused* requests fail.

    The test fails if a page sends a request to another server.
    """
    contexts: list[BrowserContext] = []
    foreign: list[str] = []

    def open_page(
        user: str,
        query: str = "",
        *,
        at: str = "/plugin/remote-workers",
        scheme: str = "light",
        url: str = central.url,
        refused: str = "",
    ) -> Page:
        context = browser.new_context(color_scheme=scheme, viewport={"width": 1400, "height": 900})
        contexts.append(context)
        token = central.client(user).headers["authorization"].removeprefix("Bearer ")
        context.add_cookies([{"name": "_token", "value": token, "url": url}])
        page = context.new_page()
        if refused:
            page.route(refused, lambda route: route.fulfill(status=503))
        page.on("request", lambda request: None if _is_ours(request.url, url) else foreign.append(request.url))
        page.goto(f"{url}{at}{query}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert foreign == [], "the page sent requests to another server"


def serious_problems(page: Page, part: str = "[role=tabpanel]:not([hidden])") -> list[tuple[str, str]]:
    """Return the serious accessibility problems (keyboard, screen reader) that axe finds in *part* of the page."""
    if not page.evaluate("() => 'axe' in globalThis"):
        page.add_script_tag(path=AXE)
    page.evaluate(SETTLED)
    found = page.evaluate("part => axe.run(document.querySelector(part))", part)
    return [(one["id"], one["nodes"][0]["html"][:300]) for one in found["violations"] if one["impact"] in ("serious", "critical")]


def overflowing(page: Page) -> list[str]:
    """Return what is wider than its place: the page itself, or a table that scrolls sideways."""
    return list(page.evaluate(OVERFLOWING))


def _is_ours(url: str, ours: str) -> bool:
    return url.startswith((ours, "data:", "blob:"))
