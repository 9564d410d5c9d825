"""Topic suite: the pages of runtimes from central in a real browser, with a real build and a worker that fetches it."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
from airflow_remote_provider import __version__
from playwright.sync_api import Locator, Page, expect

from e2e.conftest import NewWorker
from testkit.pasted import Machine, is_possible
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

from .conftest import OpenPage, serious_problems

NAME, QUEUE = "shown", "shown-queue"
BUILD_S = 300.0
PREPARE_MS = 180_000
"""To fetch a runtime, to compile it and to start it once, on a busy computer."""


def _build(central: Airflow, variable: str) -> None:
    """Build a serial; each *variable* gives it other files."""
    central.cli("remote", "runtimes", "build", NAME, "--env", variable, timeout_s=BUILD_S)


@pytest.fixture(scope="module")
def sent(central: Airflow, new_worker: NewWorker) -> Worker:
    """Return a worker that has the first serial, which is rolled out, from central; the second is built only."""
    _build(central, "BUILD=first")
    central.remote_change("PUT", "queues", QUEUE, "runtime", runtime=NAME)
    worker = new_worker(central, "sent", queues=QUEUE, has_runtime=False)
    wait_until(lambda: _runtime(central)["ready"] == 1, timeout_s=180, what="the worker has the runtime ready")
    _build(central, "BUILD=second")
    return worker


def _runtime(central: Airflow) -> dict[str, object]:
    about: dict[str, object] = central.remote_api("runtimes", NAME)["about"]
    return about


def _row(page: Page) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("button", name=NAME, exact=True))


def _confirm(page: Page, action: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=f"{action}: {NAME}").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_runtime_is_listed_with_its_rollout_and_its_workers(open_page: OpenPage, sent: Worker, scheme: str) -> None:
    page = open_page("viewer", "?tab=runtimes", scheme=scheme)
    for text in ("not rolled out", "all workers", "1 ready", QUEUE, "Airflow 3."):
        expect(_row(page)).to_contain_text(text)
    assert serious_problems(page) == []
    page.get_by_role("button", name=NAME, exact=True).click()
    assert f"runtime={NAME}" in page.url
    expect(page.get_by_role("table", name="Editions").get_by_role("row")).to_have_count(3)
    expect(page.get_by_role("table", name="Editions")).to_contain_text(f"cp{sysconfig.get_config_var('py_version_nodot')}-")
    expect(page.get_by_role("table", name="Workers that are to have it")).to_contain_text("Task SDK 1.")
    for action in ("Roll out", "Roll back", "Halt", "Resume"):
        expect(page.get_by_role("button", name=action)).to_have_count(0)
    assert serious_problems(page) == []


def test_a_workers_page_shows_its_runtimes(open_page: OpenPage, sent: Worker) -> None:
    page = open_page("viewer", f"?worker={sent.name}")
    held = page.get_by_role("table", name="Runtimes from central")
    expect(held.get_by_role("row").filter(has_text=NAME).first).to_contain_text("ready")
    expect(held).to_contain_text("Airflow 3.")
    assert serious_problems(page) == []


@pytest.mark.skipif(not is_possible(), reason="needs to be another user than root")
def test_the_block_of_the_join_dialog_makes_a_worker_that_runs_a_task(
    central: Airflow, open_page: OpenPage, sent: Worker, tmp_path: Path
) -> None:
    central.remote_change("PUT", "queues", "crew", "runtime", runtime=NAME)
    page = open_page("op")
    page.get_by_role("button", name="Join a worker").click()
    page.get_by_label("Queues").fill("crew")
    page.get_by_label("Worker names that may join").fill("pasted")
    page.get_by_role("button", name="Create token").click()
    machine = Machine(tmp_path / "machine")
    printed = machine.paste(page.get_by_role("dialog").get_by_role("tabpanel").locator("code").inner_text())
    expect(page.get_by_text("pasted has joined")).to_be_visible()
    assert "joined" in printed and "started airflow-remote-worker, now and at every boot" in printed
    (tmp_path / "go").touch()
    with machine.service():
        run = central.trigger("counted", {"directory": str(tmp_path), "count": 1})
        assert central.wait_for_run("counted", run, timeout_s=PREPARE_MS / 1000) == "success"
    assert {job["worker_name"] for job in central.jobs(run)} == {"pasted"}
    (job, *_) = central.client("viewer").get("/remote/ui/v1/jobs", params={"run_id": run}).json()["items"]
    assert (job["runtime"]["name"], job["runtime"]["serial"], job["release"]) == (NAME, 1, __version__)


def test_a_rollout_is_begun_halted_resumed_widened_and_rolled_back(central: Airflow, open_page: OpenPage, sent: Worker) -> None:
    page = open_page("op", f"?tab=runtimes&runtime={NAME}")
    page.get_by_role("button", name="Roll out").click()
    assert serious_problems(page, "[role=dialog]") == []
    page.get_by_label("Share of the workers").fill("0")
    _confirm(page, "Roll out")
    expect(page.get_by_text("serial 2: 0 % of the workers")).to_be_visible()
    page.get_by_role("button", name="Halt").click()
    page.get_by_label("Reason").fill("to see it")
    _confirm(page, "Halt")
    expect(page.get_by_text("by op: to see it")).to_be_visible()
    assert serious_problems(page) == []
    page.get_by_role("button", name="Resume").click()
    _confirm(page, "Resume")
    expect(page.get_by_text("by op: to see it")).to_have_count(0)
    page.get_by_role("button", name="Roll out").click()
    page.get_by_label("Share of the workers").fill("100")
    _confirm(page, "Roll out")
    expect(page.get_by_text("serial 2: all workers")).to_be_visible()
    workers = page.get_by_role("table", name="Workers that are to have it")
    expect(workers.get_by_role("row").filter(has_text=sent.name)).to_contain_text("ready", timeout=PREPARE_MS)
    page.get_by_role("button", name="Roll back").click()
    assert serious_problems(page, "[role=dialog]") == []
    page.get_by_label("Serial").select_option("1")
    _confirm(page, "Roll back")
    expect(page.get_by_text("serial 3: all workers")).to_be_visible()
    assert (_runtime(central)["serial"], _runtime(central)["previous"]) == (3, 2)


def test_a_queues_bundles_and_runtime_are_set_and_reset(central: Airflow, open_page: OpenPage, sent: Worker) -> None:
    page = open_page("op", "?tab=queues&about=ruled")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Dag bundles of its jobs").fill("dags-folder, plant-*")
    dialog.get_by_label("Runtime").select_option(NAME)
    dialog.get_by_role("button", name="Set rules").click()
    expect(dialog.get_by_role("button", name="Reset all rules")).to_be_visible()
    assert serious_problems(page, "[role=dialog]") == []
    rule = central.remote_api("queues", "ruled")
    assert (rule["bundles"], rule["runtime"]) == (["dags-folder", "plant-*"], NAME)
    dialog.get_by_role("button", name="Reset all rules").click()
    expect(dialog.get_by_role("button", name="Reset all rules")).to_have_count(0)
    expect(dialog.get_by_label("Dag bundles of its jobs")).to_have_value("")
