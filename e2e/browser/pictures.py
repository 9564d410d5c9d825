"""Updates the screenshots in docs/images with a small fleet: `make e2e ARGS=e2e/browser/pictures.py`. Runs only when named."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from e2e.conftest import NewWorker
from testkit.processes import wait_until
from testkit.servers.airflow import Airflow

from .conftest import OpenPage

IMAGES = Path(__file__).parent.parent.parent / "docs/images"
FLEET = {
    "oven-1": ("default,ovens", "site=kiel,hall=1"),
    "oven-2": ("default,ovens", "site=kiel,hall=1"),
    "press-1": ("presses", "site=kiel,hall=2"),
    "ship-07": ("ships", "site=at-sea"),
}


def test_pictures(central: Airflow, new_worker: NewWorker, open_page: OpenPage) -> None:
    workers = {name: new_worker(central, name, queues=queues) for name, (queues, _) in FLEET.items()}
    for name, (_, labels) in FLEET.items():
        central.cli("remote", "workers", "labels", name, labels)
    central.cli("remote", "workers", "pause", "press-1", "--reason", "new hydraulics", "--for", "4h")
    for _ in range(3):
        run = central.trigger("talking", {"lines": 600, "every_s": 0.5})
    central.trigger("unserved")
    central.wait_for_run("many", central.trigger("many"))
    wait_until(lambda: central.jobs(run)[0]["state"] == "running", timeout_s=60, what="the last job runs")
    busy = next(name for name in ("oven-1", "oven-2") if central.jobs(run)[0]["worker_name"] == name)
    workers["ship-07"].kill()

    page = open_page("op")
    expect(page.get_by_role("button", name="oven-1", exact=True)).to_be_visible()
    page.wait_for_timeout(100_000)  # until a worker is silent and the first minutes are recorded
    expect(page.get_by_role("row").filter(has_text="ship-07")).to_contain_text("silent", timeout=60_000)
    _draw(page, "fleet")
    page.get_by_role("tab", name="Queues").click()
    expect(page.get_by_text("no worker serves it").first).to_be_visible()
    _draw(page, "queues")
    page = open_page("op", f"?worker={busy}", scheme="dark")
    expect(page.get_by_role("log")).to_contain_text("session open")
    expect(page.get_by_text("Memory")).to_be_visible()
    _draw(page, "worker-dark")
    page = open_page("op", at="/")
    expect(page.locator("section[aria-label='Remote Workers']")).to_be_visible()
    _draw(page, "home")
    page = open_page("op", at=f"/dags/talking/runs/{run.replace('+', '%2B')}/tasks/talk/plugin/remote-job")
    expect(page.locator("section[aria-label='Remote job']")).to_contain_text("Memory")
    _draw(page, "task")


def _draw(page: Page, name: str) -> None:
    page.wait_for_timeout(1500)  # sparklines and Airflow's cards appear late
    page.screenshot(path=IMAGES / f"{name}.png")
