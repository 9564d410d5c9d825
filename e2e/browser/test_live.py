"""Topic suite: pages show changes at once, by server-sent events through Airflow's server, or by polling without them."""

from __future__ import annotations

import signal
import threading
import time

import httpx
from playwright.sync_api import expect

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

from .conftest import OpenPage

WAIT_FOR_CHANGE = """subject => new Promise((resolve, reject) => {
    const stream = new EventSource("remote/ui/v1/live");
    let first = true;
    stream.addEventListener("changed", ({data}) => {
        if (!first && data.split(" ").includes(subject)) { stream.close(); resolve(data); }
        if (first) { first = false; globalThis.isListening = true; }
    });
    setTimeout(() => reject(new Error("no change was received")), 20000);
})"""
"""Resolves with the first change of the subject after the stream has opened."""


def _change(central: Airflow, worker: Worker, mode: str) -> None:
    answer = central.client("op").put(f"/remote/ui/v1/workers/{worker.name}/intent", json={"mode": mode, "reason": "to see it"})
    assert answer.status_code == 200, answer.text


def test_a_page_shows_the_changes_of_other_users(central: Airflow, open_page: OpenPage, worker: Worker) -> None:
    page = open_page("viewer")
    expect(page.get_by_role("button", name=worker.name, exact=True)).to_be_visible()
    page.evaluate(f"() => {{ globalThis.received = ({WAIT_FOR_CHANGE})('workers') }}")
    page.wait_for_function("() => globalThis.isListening")
    try:
        _change(central, worker, "pause")
        assert "workers" in page.evaluate("() => globalThis.received").split(" ")
        expect(page.get_by_role("row").filter(has_text=worker.name)).to_contain_text("paused")
    finally:
        _change(central, worker, "serve")
    expect(page.get_by_role("row").filter(has_text=worker.name)).to_contain_text("serving")


def test_a_page_with_a_stream_polls_rarely(open_page: OpenPage, worker: Worker) -> None:
    page = open_page("viewer", "?tab=queues")
    expect(page.get_by_role("row", name="default")).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(20_000)
    assert len([url for url in asked if url.endswith("/queues")]) <= 2, "every five seconds"


def test_a_page_without_a_stream_polls(central: Airflow, open_page: OpenPage, worker: Worker) -> None:
    page = open_page("viewer", f"?text={worker.name}", refused="**/remote/ui/v1/live*")
    row = page.get_by_role("row").filter(has_text=worker.name)
    expect(row).to_contain_text("serving")
    try:
        _change(central, worker, "pause")
        expect(row).to_contain_text("paused")
    finally:
        _change(central, worker, "serve")


def test_an_api_server_that_ends_does_not_wait_for_its_streams(central: Airflow) -> None:
    url = central.start_another_api_server(called="api-server-live")
    began = threading.Event()
    ended: list[float] = []

    def listen() -> None:
        with httpx.stream("GET", f"{url}/remote/ui/v1/live", headers=central.client("viewer").headers, timeout=60) as answer:
            for _ in answer.iter_lines():
                began.set()
        ended.append(time.monotonic())

    listener = threading.Thread(target=listen)
    listener.start()
    assert began.wait(20)
    central.process("api-server-live").send(signal.SIGTERM)
    stopped = time.monotonic()
    listener.join(90)
    assert ended and ended[0] - stopped < 60, "a stream would last five minutes"
    wait_until(lambda: not central.is_running("api-server-live"), timeout_s=30, what="the API server has ended")
    central.stop_process("api-server-live")
