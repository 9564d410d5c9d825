"""Topic suite: users read a worker's own log and restart the worker, in real Airflow with a real worker."""

from pathlib import Path
from typing import Any

import httpx
import psutil

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker


def _lines(op: httpx.Client, name: str = "talker", **query: Any) -> list[str]:
    answer = op.get(f"/workers/{name}/log", params={"most": 1000, **query})
    assert answer.status_code == 200, answer.text
    return [" ".join(line["text"]) for line in answer.json()["items"]]


def _lines_on_disk(worker: Worker) -> int:
    """Return the number of lines on the worker's disk."""
    return sum(path.read_bytes().count(b"\n") for path in (worker.state / "own-log").glob("*.log"))


def test_lines_that_are_logged_during_an_outage_arrive_later_once(central: Airflow, tmp_path: Path) -> None:
    op = httpx.Client(base_url=f"{central.url}/remote/ui/v1", headers=central.client("op").headers, timeout=30)
    token = central.enrolment_token(name_pattern="talker-2", queues="talking")
    worker = Worker(tmp_path, name="talker-2", central=central.url, token=token, bundles={}).start()
    try:
        wait_until(lambda: len(_lines(op, "talker-2")) == _lines_on_disk(worker) > 0, timeout_s=30, what="central has its log")
        before = op.get("/workers/talker-2/log").json()
        central.kill_process("api-server")
        worker.kill()
        worker.start(wait=False)
        wait_until(
            lambda: b"can't be reached" in worker.log.read_bytes(), timeout_s=30, what="it logs that central can't be reached"
        )
        central.start_api_server()
        op = httpx.Client(base_url=f"{central.url}/remote/ui/v1", headers=central.client("op").headers, timeout=30)
        wait_until(lambda: len(_lines(op, "talker-2", contains="session open")) >= 2, timeout_s=60, what="it is connected")
        wait_until(lambda: len(_lines(op, "talker-2")) >= _lines_on_disk(worker), timeout_s=20, what="central has the whole log")
        assert len(_lines(op, "talker-2")) == _lines_on_disk(worker), "each line once"
        assert any("can't be reached" in line for line in _lines(op, "talker-2", level="warning"))
        later = [" ".join(line["text"]) for line in op.get(f"/workers/talker-2/log?after={before['next']}").json()["items"]]
        assert later == _lines(op, "talker-2")[len(before["items"]) :], "a reader that follows the log gets each line once"
    finally:
        worker.stop()


def test_the_log_is_complete_after_kills_and_restarts(central: Airflow, tmp_path: Path) -> None:
    op = httpx.Client(base_url=f"{central.url}/remote/ui/v1", headers=central.client("op").headers, timeout=30)
    token = central.enrolment_token(name_pattern="talker", queues="talking")
    worker = Worker(tmp_path, name="talker", central=central.url, token=token, bundles={}).start()
    try:
        wait_until(lambda: any("session open" in line for line in _lines(op)), timeout_s=30, what="central has its log")
        worker.kill()
        worker.start()
        wait_until(lambda: len(_lines(op, contains="SESSION open")) == 2, timeout_s=30, what="the next daemon appends to it")

        pid, started = worker.pid, psutil.Process(worker.pid).create_time()
        answer = op.post("/workers/talker/restart", json={"reason": "new certificate"})
        assert answer.status_code == 202 and answer.json()["restart_asked_by"] == "op"
        wait_until(lambda: len(_lines(op, contains="session open")) == 3, timeout_s=30, what="it has restarted")
        assert worker.is_running() and psutil.Process(pid).create_time() == started, "it is the same process"
        assert op.get("/workers/talker").json()["restart_asked_at"] is None

        on_disk = b"".join(path.read_bytes() for path in sorted((worker.state / "own-log").glob("*.log")))
        local_lines = [line for line in on_disk.splitlines() if line]
        wait_until(lambda: len(_lines(op)) >= len(local_lines), timeout_s=20, what="central has the whole log")
        assert len(_lines(op)) == len(local_lines), "each line once"
        downloaded = op.get("/workers/talker/log/download").text
        assert downloaded.count("session open") == 3 and "an administrator requested a restart" in downloaded
        assert central.cli("remote", "workers", "log", "talker", "--contains", "talker ends").count("requested a restart") == 1
    finally:
        worker.stop()
