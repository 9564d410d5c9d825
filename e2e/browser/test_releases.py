"""Topic suite: the page of releases in a real browser, with a worker that runs one release and fails with the next."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from e2e.conftest import NewWorker
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.wheels import write_wheels
from testkit.worker import Worker

from .conftest import OpenPage, overflowing, serious_problems

NAME = "released"
LABEL = f"worker={NAME}"
"""Only this worker is to change: the deployment has workers of other tests."""
TRY_MS = 180_000
"""To fetch a release, to make it and to test it, on a busy computer."""


@pytest.fixture(scope="module")
def released(central: Airflow, new_worker: NewWorker, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    """Return a worker that runs serial 1; serial 2, which can't be imported, is added only."""
    directory = tmp_path_factory.mktemp("wheels")
    _add(central, directory / "first", "0.2.0", {})
    central.remote_change("POST", "releases", "roll", labels={"worker": NAME})
    worker = new_worker(central, NAME, queues=NAME, environment={"AIRFLOW_REMOTE_WORKER_POLL__MAX_WAIT_S": "2"})
    central.remote_change("PUT", "workers", NAME, "labels", labels={"worker": NAME})
    wait_until(lambda: _phase(central) == "running", timeout_s=TRY_MS / 1000, what="the worker runs the first release")
    _add(central, directory / "second", "0.3.0", {"daemon": "\nimport no_such_module\n"})
    return worker


def _add(central: Airflow, wheels: Path, version: str, changes: dict[str, str]) -> None:
    write_wheels(wheels, version, changes)
    central.cli("remote", "releases", "add", version, "--wheels", str(wheels), timeout_s=240)


def _phase(central: Airflow) -> str:
    return str((central.remote_api("workers", NAME)["release"] or {}).get("phase"))


def _row(page: Page) -> Locator:
    workers = page.get_by_role("table", name="Workers that take releases from central")
    return workers.get_by_role("row").filter(has=page.get_by_role("button", name=NAME, exact=True))


def _confirm(page: Page, action: str) -> None:
    dialog = page.get_by_role("dialog")
    assert serious_problems(page, "[role=dialog]") == []
    dialog.get_by_role("button", name=f"{action}: ").click()
    expect(dialog).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_viewer_sees_the_rollout_and_its_workers(open_page: OpenPage, released: Worker, scheme: str) -> None:
    page = open_page("viewer", "?tab=releases", scheme=scheme)
    page.set_viewport_size({"width": 1280, "height": 800})
    expect(page.get_by_text(f"all workers with {LABEL}")).to_be_visible()
    expect(page.get_by_text("1 running")).to_be_visible()
    expect(page.get_by_role("table", name="Editions").get_by_role("row").filter(has_text="0.2.0")).to_contain_text("1 worker")
    for text in ("running", "(0.2.0)"):
        expect(_row(page)).to_contain_text(text)
    for action in ("Roll out", "Roll back", "Halt", "Resume"):
        expect(page.get_by_role("button", name=action)).to_have_count(0)
    assert serious_problems(page) == []
    assert overflowing(page) == []


def test_a_rollout_is_begun_halted_resumed_and_widened_until_a_worker_fails(
    central: Airflow, open_page: OpenPage, released: Worker
) -> None:
    page = open_page("op", "?tab=releases")
    page.set_viewport_size({"width": 1280, "height": 800})
    page.get_by_role("button", name="Roll out").click()
    page.get_by_label("Share of the workers").fill("0")
    page.get_by_label("Only workers with these labels").fill(LABEL)
    _confirm(page, "Roll out")
    expect(page.get_by_text(f": 0 % of the workers with {LABEL}")).to_be_visible()
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
    expect(_row(page)).to_contain_text("its self-test ended with 1", timeout=TRY_MS)
    expect(_row(page)).to_contain_text("failed")
    expect(page.get_by_text(f"worker {NAME}: ")).to_be_visible()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    assert serious_problems(page) == []
    assert overflowing(page) == []
    _row(page).get_by_role("button", name=NAME, exact=True).click()
    expect(page.get_by_text(re.compile(r"^serial \d+: failed; .*its self-test ended with 1"))).to_be_visible()
    assert overflowing(page) == []
    assert central.remote_api("releases")["about"]["failed"] == 1
