"""Topic suite: the Remote Executor's parts of Airflow's own pages, a summary on the home page and a tab of each task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

from .conftest import OpenPage, serious_problems

STRIP = "section[aria-label='Remote Workers']"


@pytest.fixture
def waiting(central: Airflow) -> Iterator[str]:
    """Return a run whose job no worker takes; end it after the test."""
    run = central.trigger("unserved")
    wait_until(lambda: central.jobs(run), timeout_s=30, what="a job waits")
    yield run
    central.set_task_state("unserved", run, "wait", "failed")
    central.wait_for_run("unserved", run)


TAB = "section[aria-label='Remote job']"


def _tab(open_page: OpenPage, dag_id: str, run_id: str, task_id: str, **how: str) -> Locator:
    page = open_page("viewer", at=f"/dags/{dag_id}/runs/{run_id.replace('+', '%2B')}/tasks/{task_id}", **how)
    page.get_by_role("link", name="Remote job").click()
    return page.locator(TAB)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_home_page_shows_the_state_of_the_fleet(open_page: OpenPage, worker: Worker, waiting: str, scheme: str) -> None:
    page = open_page("viewer", at="/", scheme=scheme)
    strip = page.locator(STRIP)
    expect(strip).to_contain_text("online")
    expect(strip).to_contain_text("no worker serves nowhere")
    assert serious_problems(page, STRIP) == []
    strip.get_by_role("link", name="no worker serves nowhere").click()
    expect(page.get_by_role("row", name="nowhere")).to_contain_text("no worker serves it")
    page.go_back()
    page.locator(STRIP).get_by_role("link", name="online").click()
    expect(page.get_by_role("button", name=worker.name, exact=True)).to_be_visible()
    assert "presence=online" in page.url


def test_the_home_page_is_unchanged_if_the_summary_fails(open_page: OpenPage, worker: Worker) -> None:
    page = open_page("viewer", at="/", refused="**/remote/ui/v1/summary*")
    with page.expect_response("**/remote/ui/v1/summary*") as asked:
        page.reload()
    assert asked.value.status == 503
    expect(page.get_by_role("heading", name="Welcome")).to_be_visible()
    expect(page.locator(STRIP)).to_have_count(0)


@pytest.fixture(scope="module")
def mapped(central: Airflow, worker: Worker) -> str:
    """Return a run with local and remote tasks, some of them mapped."""
    run = central.trigger("many")
    assert central.wait_for_run("many", run) == "success"
    return run


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_ended_task_shows_its_worker(open_page: OpenPage, worker: Worker, mapped: str, scheme: str) -> None:
    tab = _tab(open_page, "many", mapped, "double_there/mapped/1", scheme=scheme)
    expect(tab).to_contain_text("succeeded")
    expect(tab).to_contain_text("Waited")
    expect(tab.get_by_role("link", name="dags-folder")).to_be_visible()
    expect(tab).not_to_contain_text("Earlier tries")  # other map indices don't count as earlier tries
    assert serious_problems(tab.page, TAB) == []
    tab.get_by_role("link", name=worker.name).click()
    expect(tab.page.get_by_role("heading", name=worker.name)).to_be_visible()


def test_a_retried_task_shows_its_earlier_tries(central: Airflow, open_page: OpenPage, worker: Worker) -> None:
    run = central.trigger("shell_fails")
    assert central.wait_for_run("shell_fails", run) == "failed"
    tab = _tab(open_page, "shell_fails", run, "fail")
    expect(tab).to_contain_text("Earlier tries")
    expect(tab.get_by_text("Try 1:")).to_contain_text("up for retry")


def test_a_running_task_is_followed_to_its_end(central: Airflow, open_page: OpenPage, worker: Worker, tmp_path: Path) -> None:
    run = central.trigger("lingering", {"directory": str(tmp_path)})
    wait_until(lambda: (tmp_path / "pids").exists(), timeout_s=60, what="the task runs")
    tab = _tab(open_page, "lingering", run, "linger")
    expect(tab).to_contain_text(f"It has been running on {worker.name}")
    expect(tab.locator("dl").filter(has_text="Memory")).to_contain_text("busy", timeout=60_000)
    assert central.remote_api("workers", worker.name)["usage"]["memory_total"] > 0
    central.set_task_state("lingering", run, "linger", "failed")
    expect(tab).not_to_contain_text(f"It has been running on {worker.name}")
    expect(tab).to_contain_text("Ran for")


def test_a_waiting_task_shows_why(open_page: OpenPage, worker: Worker, waiting: str) -> None:
    tab = _tab(open_page, "unserved", waiting, "wait")
    expect(tab).to_contain_text("No worker serves the queue 'nowhere'")


def test_a_local_task_is_shown_as_not_remote(open_page: OpenPage, worker: Worker, mapped: str) -> None:
    tab = _tab(open_page, "many", mapped, "numbers_here")
    expect(tab).to_contain_text("This task was not sent to a Remote Worker.")
