"""A worker's own log reaches people, and a restart that they want is one: both in real Airflow, with a real worker."""

from pathlib import Path
from typing import Any

import httpx
import psutil

from testkit.airflow import Airflow
from testkit.processes import wait_until
from testkit.worker import Worker


def _lines(op: httpx.Client, **query: Any) -> list[str]:
    answer = op.get("/workers/talker/log", params={"most": 1000, **query})
    assert answer.status_code == 200, answer.text
    return [" ".join(line["text"]) for line in answer.json()["items"]]


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
