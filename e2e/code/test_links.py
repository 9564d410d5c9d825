"""Topic suite: code arrives over slow and cutting links, through restarts, and never in the way of polls and logs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from testkit.network.fault_proxy import FaultProxy
from testkit.processes import wait_until
from testkit.worker import Worker

from .conftest import PACK, NewEmptyWorker, Pushing, dag_source, noise, wait_until_published

SIZE = 1_000_000
"""Bytes of a file that can't be packed smaller."""


def publish_large(pushing: Pushing, dag_id: str) -> None:
    """Publish a bundle with a Dag on the queue of the same name and a large file."""
    pushing.write("large.bin", noise(SIZE))
    pushing.write(f"{dag_id}.py", dag_source(dag_id, dag_id, "return 'arrived'"))
    pushing.parse(dag_id)
    before = wait_until_published(pushing, "dags-folder")["scanned_at"]
    wait_until(
        lambda: wait_until_published(pushing, "dags-folder")["scanned_at"] != before, timeout_s=30, what="another scan has ended"
    )


def partial(worker: Worker) -> int:
    """Return how many bytes of packs the worker has stored."""
    return sum(file.stat().st_size for file in Path(worker.state / "code/incoming").glob("*.pack"))


def test_cut_at_each_tenth(pushing: Pushing, proxy: FaultProxy, new_empty_worker: NewEmptyWorker) -> None:
    publish_large(pushing, "cut_links")
    new_empty_worker("cut_links")
    for tenth in range(10):
        proxy.cut_replies(SIZE // 10 * (1 if tenth else 0) + 500, "GET", PACK)
    run, state = pushing.run("cut_links")
    assert (state, pushing.airflow.xcom("cut_links", run, "main")) == ("success", "arrived")
    assert proxy.count("GET", PACK) >= 10


def test_a_slow_link(pushing: Pushing, proxy: FaultProxy, new_empty_worker: NewEmptyWorker) -> None:
    """1 Mbit/s and 600 ms: the job says how far its code is, and the worker's other requests go on."""
    publish_large(pushing, "slow_links")
    worker = new_empty_worker("slow_links")
    proxy.slow(latency_s=0.3, bytes_per_s=125_000)
    run = pushing.airflow.trigger("slow_links")
    seen: set[str] = set()

    def has_ended() -> bool:
        for job in pushing.airflow.jobs(run):
            if job["detail"]:
                seen.add(job["detail"])
        preparing: list[dict[str, Any]] = worker.status().get("jobs") or []
        seen.update(str(job.get("detail")) for job in preparing if isinstance(job, dict) and job.get("detail"))
        return pushing.airflow.run_state("slow_links", run) in ("success", "failed")

    began = time.monotonic()
    wait_until(has_ended, timeout_s=90, what="the run ends", every_s=0.5)
    assert pushing.airflow.xcom("slow_links", run, "main") == "arrived"
    assert any(detail.startswith("code ") and detail.endswith(" %") for detail in seen), (seen, time.monotonic() - began)


def test_a_killed_daemon_goes_on_where_it_was(pushing: Pushing, proxy: FaultProxy, new_empty_worker: NewEmptyWorker) -> None:
    publish_large(pushing, "killed_links")
    worker = new_empty_worker("killed_links")
    proxy.slow(bytes_per_s=200_000)
    run = pushing.airflow.trigger("killed_links")
    for part in (0.1, 0.4, 0.7):
        wait_until(lambda part=part: partial(worker) >= SIZE * part, timeout_s=60, what=f"{part:.0%} of the pack is here")
        worker.kill()
        kept = partial(worker)
        worker.start()
        assert partial(worker) >= kept
    proxy.heal()
    assert pushing.airflow.wait_for_run("killed_links", run) == "success"
    assert len(pushing.airflow.jobs(run)) == 1


def test_a_stopped_job_does_not_fetch_on(pushing: Pushing, proxy: FaultProxy, new_empty_worker: NewEmptyWorker) -> None:
    publish_large(pushing, "stopped_links")
    worker = new_empty_worker("stopped_links")
    proxy.slow(bytes_per_s=50_000)
    run = pushing.airflow.trigger("stopped_links")
    wait_until(lambda: partial(worker) > 0, timeout_s=60, what="the fetch has begun")
    pushing.airflow.set_task_state("stopped_links", run, "main", "failed")
    wait_until(lambda: not worker.status().get("jobs"), timeout_s=30, what="the worker holds no job")
    kept = partial(worker)
    time.sleep(2)
    assert partial(worker) == kept
