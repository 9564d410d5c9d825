"""Topic suite: lists of thousands of rows scroll without delay, the page stays small, and the keyboard reaches every row."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect
from sqlalchemy import create_engine, text

from testkit.servers.airflow import Airflow

from .conftest import OpenPage, serious_problems

FLEET = 5000
MOST_DRAWN = 80
"""The highest number of rows in the page: one screen, and some rows above and below it."""
PAGE_ROWS = 250
"""Rows of one request (`ui/src/usePagedList.ts`)."""

ADD = """
    INSERT INTO remote_worker (id, name, credential_hash, queues, labels, facts, alarm, intent, intent_revision, intent_reason,
                               intent_by, slots, created_at, changed_at)
    SELECT 'crowd-' || n, 'crowd-' || lpad(n::text, 4, '0'), 'crowd-' || n, '["crowd"]', ('{"hall": "' || n % 7 || '"}')::json,
           ('{"version": "' || CASE WHEN n % 10 = 0 THEN '9.9' ELSE '9.8' END || '"}')::json,
           CASE WHEN n = 4321 THEN 'two speak as it' ELSE '' END, 'serve', 1, '', '', 4, now(), now()
    FROM generate_series(1, :count) AS n
"""


@pytest.fixture(scope="module")
def crowd(central: Airflow) -> Iterator[None]:
    """Insert FLEET workers directly into the ledger; none has ever connected."""
    engine = create_engine(central.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    with engine.begin() as connection:
        connection.execute(text(ADD), {"count": FLEET})
    yield
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM remote_worker WHERE id LIKE 'crowd-%'"))
    engine.dispose()


def _list(page: Page) -> Locator:
    return page.get_by_role("region", name="Fleet")


def _drawn(page: Page) -> int:
    return int(page.locator("tr[data-row]").count())


def _scroll_to(page: Page, px: int) -> None:
    _list(page).evaluate("(box, px) => { box.scrollTop = px }", px)


def _named(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def test_five_thousand_rows_scroll_to_the_end_with_few_requests_and_few_rows_drawn(open_page: OpenPage, crowd: None) -> None:
    page = open_page("op", "?text=crowd")
    expect(_named(page, "crowd-0001")).to_be_visible()
    table = page.get_by_role("table")
    expect(table).to_have_attribute("aria-rowcount", str(FLEET + 1))
    assert _drawn(page) <= MOST_DRAWN
    page.evaluate(COUNT_DRAWN)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    _scroll_to(page, 10_000_000)
    expect(page.get_by_text(f"{FLEET} of {FLEET} rows loaded")).to_be_visible()
    _scroll_to(page, 10_000_000)
    expect(_named(page, f"crowd-{FLEET}")).to_be_visible()
    _check_pages(asked)
    assert page.evaluate("() => window.rowsDrawn") <= 3 * MOST_DRAWN, "rows that are passed by are not drawn"
    assert _drawn(page) <= MOST_DRAWN
    last = page.locator("tr[data-row]").last
    expect(last).to_have_attribute("aria-rowindex", str(FLEET + 1))
    _scroll_to(page, 0)
    expect(_named(page, "crowd-0001")).to_be_visible()


COUNT_DRAWN = """() => {
    window.rowsDrawn = 0;
    new MutationObserver(changes => {
        const added = changes.flatMap(change => [...change.addedNodes]);
        window.rowsDrawn += added.filter(node => node.matches?.('tr[data-row]')).length;
    }).observe(document.body, { childList: true, subtree: true });
}"""


def _check_pages(asked: list[str]) -> None:
    """Check that each page between the first and the last two, which are in view at times, was read once."""
    queries = [parse_qs(urlsplit(url).query) for url in asked if urlsplit(url).path.endswith("/workers")]
    assert {query["limit"][0] for query in queries} == {str(PAGE_ROWS)}
    pages = [query["after"][0] for query in queries if "after" in query]
    each = dict.fromkeys(pages)
    assert FLEET // PAGE_ROWS - 2 <= len(each) <= FLEET // PAGE_ROWS - 1, "all pages but the first, or the first two"
    between = list(each)[1:-2]
    assert [pages.count(page) for page in between] == [1] * len(between)


def test_scrolling_shows_every_row(open_page: OpenPage, crowd: None) -> None:
    page = open_page("viewer", "?text=crowd-0")
    expect(_named(page, "crowd-0001")).to_be_visible()
    seen: set[str] = set()
    for _ in range(200):
        page.wait_for_function(IS_FILLED)
        seen.update(page.locator("tr[data-row]").evaluate_all("rows => rows.map(row => row.dataset.row)"))
        assert _drawn(page) <= MOST_DRAWN
        if "crowd-0999" in seen:
            break
        _list(page).evaluate("box => { box.scrollTop += box.clientHeight - 80 }")
    assert seen >= {f"crowd-{number:04}" for number in range(1, 1000)}


def test_the_scroll_position_is_in_the_url_and_restored(open_page: OpenPage, crowd: None) -> None:
    page = open_page("op", "?text=crowd")
    expect(_named(page, "crowd-0001")).to_be_visible()
    _scroll_to(page, 50_000)
    page.wait_for_function(IS_NOTED)  # the rows are read page by page, which takes longer on a busy computer
    there = _top_row(page)
    page.reload()
    page.wait_for_function(f"() => ({TOP_ROW})() === '{there}'")
    _list(page).get_by_role("button", name=there, exact=True).click()
    expect(page.get_by_role("heading", name=there)).to_be_visible()
    page.go_back()
    page.wait_for_function(f"() => ({TOP_ROW})() === '{there}'")


IS_FILLED = """() => {
    const box = document.querySelector('[role=region][aria-label=Fleet]').getBoundingClientRect();
    const rowAt = y => document.elementFromPoint(box.left + box.width / 2, y)?.closest('tr[data-row]');
    return rowAt(box.top + box.height / 2) && rowAt(box.bottom - 30);
}"""
"""True when rows fill the visible part: a busy computer draws late."""

TOP_ROW = """() => {
    const box = document.querySelector('[role=region][aria-label=Fleet]');
    const edge = box?.querySelector('thead tr').getBoundingClientRect().bottom;
    const rows = [...(box?.querySelectorAll('tr[data-row]') ?? [])];
    return rows.find(row => row.getBoundingClientRect().bottom > edge + 1)?.dataset.row;
}"""


IS_NOTED = f"""() => {{
    const name = ({TOP_ROW})();
    const place = document.querySelector(`tr[data-row="${{name}}"]`)?.ariaRowIndex;
    return place === String(Number(new URLSearchParams(location.search).get('at')) + 2);
}}"""
"""True when the URL names the row at the top. The header is the first row of the table, and the URL counts from 0."""


def _top_row(page: Page) -> str:
    return str(page.evaluate(TOP_ROW))


def test_the_keyboard_scrolls_and_the_focus_is_kept(open_page: OpenPage, crowd: None) -> None:
    page = open_page("op", "?text=crowd")
    expect(_named(page, "crowd-0001")).to_be_visible()
    _named(page, "crowd-0001").focus()
    for _ in range(60):  # each row has a checkbox and its name
        page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.closest('tr')?.dataset.row") == "crowd-0031"
    _scroll_to(page, 100_000)
    page.wait_for_timeout(300)
    assert page.evaluate("() => document.activeElement.closest('tr')?.dataset.row") == "crowd-0031"
    assert _drawn(page) <= MOST_DRAWN
    _list(page).focus()
    page.keyboard.press("End")
    expect(page.get_by_text(f"{FLEET} of {FLEET} rows loaded")).to_be_visible()


def test_filters_are_in_the_url(open_page: OpenPage, crowd: None) -> None:
    page = open_page("op", "?text=crowd")
    page.get_by_label("Flagged").select_option("true")
    expect(page.get_by_text("1 of 1 rows loaded")).to_be_visible()
    expect(_named(page, "crowd-4321")).to_be_visible()
    page.get_by_label("Flagged").select_option("")
    page.get_by_label("Version").fill("9.9")
    expect(page.get_by_text("250 of 500 rows loaded")).to_be_visible()
    page.get_by_label("Label").fill("hall")  # no request yet: it is not key=value
    page.get_by_label("Label").fill("hall=0")
    expect(_named(page, "crowd-0070")).to_be_visible()
    expect(_named(page, "crowd-0010")).to_have_count(0)
    assert "version=9.9" in page.url and "label=hall%3D0" in page.url and "flagged" not in page.url
    page.reload()
    expect(page.get_by_text("71 of 71 rows loaded")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    page.wait_for_url(lambda url: "version" not in url and "text" not in url)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_long_list_has_no_serious_accessibility_problems(open_page: OpenPage, crowd: None, scheme: str) -> None:
    page = open_page("op", "?text=crowd", scheme=scheme)
    expect(_named(page, "crowd-0001")).to_be_visible()
    _scroll_to(page, 20_000)
    page.wait_for_timeout(500)
    assert serious_problems(page) == []


def test_a_narrow_page_shows_the_most_important_columns(open_page: OpenPage, crowd: None) -> None:
    page = open_page("op", "?text=crowd")
    page.set_viewport_size({"width": 560, "height": 800})
    expect(_named(page, "crowd-0001")).to_be_visible()
    expect(page.get_by_role("columnheader", name="Presence")).to_be_visible()
    expect(page.get_by_role("columnheader", name="Labels")).to_be_hidden()
    assert page.evaluate(
        "() => document.querySelector('[role=region]').scrollWidth <= document.querySelector('[role=region]').clientWidth"
    )
