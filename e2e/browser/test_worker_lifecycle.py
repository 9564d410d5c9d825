"""Topic suite: what users see of a worker that joins, runs, stops, is rebuilt under its old name, and is removed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from e2e.conftest import NewWorker
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

from .conftest import OpenPage

NAME = "rebuilt"


@pytest.fixture(scope="module")
def rebuilt_worker(central: Airflow, new_worker: NewWorker) -> Worker:
    worker = new_worker(central, NAME, queues=NAME, slots=1)
    worker.stop()
    return worker


def _row(page: Page) -> Locator:
    page.get_by_role("textbox", name="Search").fill(NAME)  # other tests' workers may fill the page
    return page.get_by_role("row").filter(has=page.get_by_role("button", name=NAME, exact=True))


def _presence(central: Airflow, name: str) -> list[str]:
    rows = central.client().get("/remote/ui/v1/workers", params={"text": name}).json()["items"]
    return [row["presence"] for row in rows if row["name"] == name]


def test_a_stopped_worker_is_offline_at_once(central: Airflow, rebuilt_worker: Worker, open_page: OpenPage) -> None:
    assert _presence(central, NAME) == ["offline"]
    expect(_row(open_page("viewer"))).to_contain_text("offline")


def test_a_worker_that_joined_and_never_ran_is_never_connected(
    central: Airflow, rebuilt_worker: Worker, home: Path, open_page: OpenPage
) -> None:
    newcomer = Worker(
        home / "newcomer",
        name="newcomer",
        central=central.url,
        token=central.enrolment_token(queues=NAME),
        bundles={},
    )
    newcomer.join()
    assert _presence(central, "newcomer") == ["never_connected"]
    page = open_page("viewer")
    page.get_by_role("textbox", name="Search").fill("newcomer")  # other tests' workers may fill the page
    row = page.get_by_role("row").filter(has=page.get_by_role("button", name="newcomer", exact=True))
    expect(row).to_contain_text("never connected")
    central.remote_change("DELETE", "workers", "newcomer")
    expect(row).to_have_count(0)


def test_a_rebuilt_worker_replaces_the_old_one(central: Airflow, rebuilt_worker: Worker, open_page: OpenPage) -> None:
    token = central.remote_cli("enrol", "create", "--replaces", NAME)["token"]
    before = central.query("SELECT id FROM remote_worker WHERE name = :name", name=NAME)
    shutil.copy(rebuilt_worker.state / "credential.json", kept := rebuilt_worker.directory / "kept.json")
    for file in rebuilt_worker.state.iterdir():
        if file.name != "worker.toml":
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    assert "joined" in rebuilt_worker.run("join", central.url, "--token", token, "--name", NAME)
    rebuilt_worker.start()
    assert _presence(central, NAME) == ["online"]
    assert central.query("SELECT id FROM remote_worker WHERE name = :name", name=NAME) != before
    assert "serving" in str(rebuilt_worker.status())
    # The restored old credential has no access any more.
    old = Worker(rebuilt_worker.directory / "old", name=NAME, central=central.url, token="", bundles={})
    shutil.copy(kept, old.state / "credential.json")
    output = old.run("check", may_fail=True)
    assert "join" in output and "credential" in output, output


def test_removing_an_online_worker_needs_confirmation(central: Airflow, rebuilt_worker: Worker, open_page: OpenPage) -> None:
    with pytest.raises(RuntimeError, match=r"is online.*--yes"):
        central.cli("remote", "workers", "remove", NAME)
    page = open_page("admin", f"?worker={NAME}")
    page.get_by_role("button", name="Remove").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(NAME)
    dialog.get_by_role("button", name="Remove").click()
    wait_until(lambda: _presence(central, NAME) == [], timeout_s=60, what="it is removed")
    assert rebuilt_worker.wait() != 0
    assert f"new enrolment token; then: airflow-remote-worker join {central.url}" in rebuilt_worker.tail()
