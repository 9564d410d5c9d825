"""A worker's own log reaches people, and a restart that they want is one: both in real Airflow, with a real worker."""

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


def _said(worker: Worker) -> int:
    """Return how many lines are on the worker's disk."""
    return sum(path.read_bytes().count(b"\n") for path in (worker.state / "own-log").glob("*.log"))


def test_what_it_says_while_central_is_away_comes_later_and_each_line_once(central: Airflow, tmp_path: Path) -> None:
    op = httpx.Client(base_url=f"{central.url}/remote/ui/v1", headers=central.client("op").headers, timeout=30)
    token = central.enrolment_token(name_pattern="talker-2", queues="talking")
    worker = Worker(tmp_path, name="talker-2", central=central.url, token=token, bundles={}).start()
    try:
        wait_until(lambda: len(_lines(op, "talker-2")) == _said(worker) > 0, timeout_s=30, what="its log is at central")
        before = op.get("/workers/talker-2/log").json()
        central.kill_process("api-server")
        worker.kill()
        worker.start(wait=False)
        wait_until(lambda: b"can't be reached" in worker.log.read_bytes(), timeout_s=30, what="it says that central is away")
        central.start_api_server()
        op = httpx.Client(base_url=f"{central.url}/remote/ui/v1", headers=central.client("op").headers, timeout=30)
        wait_until(lambda: len(_lines(op, "talker-2", contains="session open")) >= 2, timeout_s=60, what="it is back")
        wait_until(lambda: len(_lines(op, "talker-2")) >= _said(worker), timeout_s=20, what="all of it is at central")
        assert len(_lines(op, "talker-2")) == _said(worker), "each line once"
        assert any("can't be reached" in line for line in _lines(op, "talker-2", level="warning"))
        later = [" ".join(line["text"]) for line in op.get(f"/workers/talker-2/log?after={before['next']}").json()["items"]]
        assert later == _lines(op, "talker-2")[len(before["items"]) :], "a follower misses and repeats nothing"
    finally:
        worker.stop()


def test_its_log_is_read_grows_over_kills_and_restarts_and_loses_nothing(central: Airflow, tmp_path: Path) -> None:
    op = httpx.Client(base_url=f"{central.url}/remote/ui/v1", headers=central.client("op").headers, timeout=30)
    token = central.enrolment_token(name_pattern="talker", queues="talking")
    worker = Worker(tmp_path, name="talker", central=central.url, token=token, bundles={}).start()
    try:
        wait_until(lambda: any("session open" in line for line in _lines(op)), timeout_s=30, what="its log is at central")
        worker.kill()
        worker.start()
        wait_until(lambda: len(_lines(op, contains="SESSION open")) == 2, timeout_s=30, what="the next daemon goes on with it")

        pid, started = worker.pid, psutil.Process(worker.pid).create_time()
        answer = op.post("/workers/talker/restart", json={"reason": "new certificate"})
        assert answer.status_code == 202 and answer.json()["restart_asked_by"] == "op"
        wait_until(lambda: len(_lines(op, contains="session open")) == 3, timeout_s=30, what="it has started anew")
        assert worker.is_running() and psutil.Process(pid).create_time() == started, "it is the same process"
        assert op.get("/workers/talker").json()["restart_asked_at"] is None

        on_disk = b"".join(path.read_bytes() for path in sorted((worker.state / "own-log").glob("*.log")))
        said = [line for line in on_disk.splitlines() if line]
        wait_until(lambda: len(_lines(op)) >= len(said), timeout_s=20, what="all of it is at central")
        assert len(_lines(op)) == len(said), "each line once"
        told = op.get("/workers/talker/log/download").text
        assert told.count("session open") == 3 and "central wants it to start anew" in told
        assert central.cli("remote", "workers", "log", "talker", "--contains", "talker ends").count("start anew") == 1
    finally:
        worker.stop()
