"""Topic suite: the dashboard in a real browser on real Airflow, with real workers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from e2e.conftest import NewWorker
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

from .conftest import OpenPage, serious_problems

BELOW = "/factory/airflow"


def _row(page: Page, name: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("button", name=name, exact=True))


def test_the_fleet_is_shown_and_found_by_name(open_page: OpenPage, worker: Worker) -> None:
    page = open_page("viewer")
    row = _row(page, worker.name)
    expect(row).to_contain_text("online")
    expect(row).to_contain_text("serving")
    page.get_by_role("textbox", name="Search").fill("no such worker")
    expect(page.get_by_text("No worker matches.")).to_be_visible()
    assert "text=no+such+worker" in page.url
    page.reload()
    expect(page.get_by_text("No worker matches.")).to_be_visible()


@pytest.fixture(scope="module")
def below(central: Airflow) -> Iterator[str]:
    """Return the URL of an API server that serves below a sub-path and shows workers as silent after ten seconds."""
    settings = {
        "AIRFLOW__API__BASE_URL": f"https://localhost{BELOW}",
        "AIRFLOW__REMOTE__POLL_SECONDS": "3",
        "AIRFLOW__REMOTE__SILENT_AFTER_SECONDS": "10",
    }
    yield central.start_another_api_server(called="api-server-below", settings=settings, path=BELOW) + BELOW
    central.stop_process("api-server-below")


def test_it_works_below_a_sub_path(below: str, open_page: OpenPage, worker: Worker) -> None:
    page = open_page("op", url=below)
    row = _row(page, worker.name)
    expect(row).to_contain_text("serving")
    page.get_by_role("button", name=worker.name, exact=True).click()
    expect(page.get_by_role("log")).to_contain_text("session open")
    page.get_by_role("tab", name="Jobs").click()
    expect(page.get_by_label("Run")).to_be_visible()
    assert page.url.startswith(f"{below}/plugin/remote-workers?")
    page.reload()
    expect(page.get_by_role("tab", name="Jobs")).to_have_attribute("aria-selected", "true")


def test_a_killed_worker_is_shown_as_silent(below: str, central: Airflow, open_page: OpenPage, new_worker: NewWorker) -> None:
    killed = new_worker(central, "killed", queues="killed", url=below)
    page = open_page("viewer", "?queue=killed", url=below)
    expect(_row(page, killed.name)).to_contain_text("online")
    killed.kill()
    expect(_row(page, killed.name)).to_contain_text("silent", timeout=60_000)
    expect(page.get_by_text("1 silent")).to_be_visible()


def test_a_viewer_has_no_buttons_for_changes(open_page: OpenPage, worker: Worker) -> None:
    page = open_page("viewer", f"?worker={worker.name}")
    expect(page.get_by_role("heading", name=worker.name)).to_be_visible()
    for name in ("Pause", "Revoke", "Join a worker", "Enrolment", "Publish now"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    expect(page.get_by_role("tab")).to_have_text(["Fleet", "Queues", "Jobs", "Bundles", "Runtimes", "Releases"])


def test_a_worker_is_paused_with_a_reason_and_resumed(central: Airflow, open_page: OpenPage, worker: Worker) -> None:
    page = open_page("op", f"?worker={worker.name}")
    page.get_by_role("button", name="Pause").click()
    page.get_by_label("Reason").fill("patching")
    page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    expect(page.get_by_text("op: patching").first).to_be_visible()
    assert central.remote_api("workers", worker.name)["intent"] == "pause"
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    expect(page.get_by_text("serving").first).to_be_visible()
    assert central.remote_api("workers", worker.name)["intent"] == "serve"


def test_a_workers_log_is_followed_and_searched(open_page: OpenPage, worker: Worker) -> None:
    page = open_page("op", f"?worker={worker.name}")
    log = page.get_by_role("log")
    expect(log).to_contain_text("session open")
    before = log.inner_text().count("requested a restart")
    page.get_by_role("button", name="Restart").click()
    page.get_by_label("Reason").fill("to see it")
    page.get_by_role("dialog").get_by_role("button", name="Restart").click()
    expect(log).to_contain_text("an administrator requested a restart", timeout=20_000)
    wait_until(lambda: log.inner_text().count("requested a restart") > before, timeout_s=20, what="the page follows it")
    page.get_by_role("textbox", name="Search").fill("SESSION OPEN")
    expect(log).not_to_contain_text("requested a restart")
    expect(log).to_contain_text("session open")
    page.get_by_role("textbox", name="Search").fill("never said")
    expect(page.get_by_text("No matching log lines.")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert "session open" in download.value.path().read_text()


def test_the_history_is_drawn(central: Airflow, open_page: OpenPage, worker: Worker) -> None:
    history = f"{central.url}/remote/ui/v1/history/queue"
    client = central.client("viewer")
    wait_until(lambda: client.get(history).json()["items"], timeout_s=90, what="the worker's queue has been measured")
    page = open_page("viewer")
    expect(page.get_by_role("img", name="Online, last 24 h")).to_be_visible()
    page.get_by_role("tab", name="Queues").click()
    expect(page.get_by_role("img", name="Waiting, last 24 h").first).to_be_visible()


def test_a_bulk_action_changes_the_selected_workers(central: Airflow, open_page: OpenPage, worker: Worker) -> None:
    page = open_page("op")
    page.get_by_role("checkbox", name=worker.name).check(force=True)
    expect(page.get_by_text("1 selected")).to_be_visible()
    page.get_by_role("button", name="Rotate credential").click()
    page.get_by_role("dialog").get_by_role("button", name="Rotate credential").click()
    wait_until(
        lambda: central.remote_api("audit", kind="rotated", worker=worker.name),
        timeout_s=30,
        what="the worker has replaced its credential",
    )


def test_a_job_shows_why_it_waits_and_is_stopped(central: Airflow, open_page: OpenPage) -> None:
    run = central.trigger("unserved")
    wait_until(lambda: central.jobs(run), timeout_s=30, what="a job waits")
    page = open_page("op", f"?tab=jobs&run_id={run.replace('+', '%2B')}")
    page.get_by_role("button", name="Why?").click()
    expect(page.get_by_text("No worker serves the queue")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    page.get_by_label("Reason").fill("wrong data")
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(page.get_by_text("stopped by op: wrong data")).to_be_visible()
    assert central.wait_for_run("unserved", run) == "failed"


def test_a_bundle_shows_its_newest_tree_and_is_published_on_request(open_page: OpenPage, worker: Worker) -> None:
    page = open_page("op", "?tab=bundles")
    row = page.get_by_role("row").filter(has=page.get_by_role("button", name="dags-folder", exact=True))
    expect(row).to_contain_text(re.compile(r"[0-9a-f]{12}"), timeout=60_000)
    row.get_by_role("button", name="Publish now").click()
    expect(row).to_contain_text("done: ", timeout=60_000)
    row.get_by_role("button", name="dags-folder", exact=True).click()
    expect(page.get_by_role("heading", name="dags-folder")).to_be_visible()
    expect(page.get_by_role("table", name="Published trees and wanted versions")).to_contain_text("newest")
    assert "bundle=dags-folder" in page.url
    assert serious_problems(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_tabs_have_no_serious_accessibility_problems(open_page: OpenPage, worker: Worker, scheme: str) -> None:
    page = open_page("op", scheme=scheme)
    expect(_row(page, worker.name)).to_be_visible()
    for tab in ("Fleet", "Queues", "Jobs", "Bundles", "Runtimes", "Releases", "Enrolment", "Audit"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(500)
        assert serious_problems(page) == []


def test_a_workers_page_has_no_serious_accessibility_problems(open_page: OpenPage, worker: Worker) -> None:
    page = open_page("op", f"?worker={worker.name}")
    expect(page.get_by_role("log")).to_contain_text("session open")
    assert serious_problems(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_faults_of_a_worker_are_readable(open_page: OpenPage, worker: Worker, scheme: str) -> None:
    def add_faults(route: Route) -> None:
        asked = {name: value for name, value in route.request.headers.items() if name != "if-none-match"}
        answer = route.fetch(headers=asked)  # not "304", which has no body
        found = answer.json()
        for row in found.get("items", [found]):
            row |= {"alarm": "two copies of it call", "unfit": "its runtime has no Task SDK"}
        route.fulfill(response=answer, json=found)

    page = open_page("op", scheme=scheme)
    page.route(re.compile(r"/remote/ui/v1/workers(\?|/[^/]+$)"), add_faults)
    page.reload()
    row = _row(page, worker.name)
    expect(row).to_contain_text("its runtime has no Task SDK · two copies of it call")
    assert serious_problems(page) == []
    row.get_by_role("button", name=worker.name, exact=True).click()
    expect(page.get_by_text("its runtime has no Task SDK", exact=True)).to_be_visible()
    expect(page.get_by_text("two copies of it call", exact=True)).to_be_visible()
    assert serious_problems(page) == []
    page.unroute_all(behavior="wait")  # the page asks again and again
