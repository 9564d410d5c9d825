"""Topic suite: many fetchers at once on a real API server, and what a worker can't fetch."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from testkit.hostile_worker import HostileWorker, Taken, enrol_hostile_worker

from .conftest import Pushing, noise

WORKERS = 13
DOWNLOADS = 4
"""At once for each worker, which is as many as central allows one."""
DAG = f"""
from airflow.sdk import dag, task

@dag(schedule=None, max_active_tasks=50)
def fetchers():
    @task(executor="RemoteExecutor", queue="fetchers")
    def hold(number):
        pass

    hold.expand(number=list(range({WORKERS})))

fetchers()
"""


def fetch(worker: HostileWorker, tree: str) -> str:
    """Return the SHA-256 of a pack, or the status of a refusal; one that is only busy is repeated."""
    until = time.monotonic() + 120
    while True:
        answer = worker.client.get(f"trees/{tree}/pack", headers={"accept-encoding": "identity"})
        if answer.status_code != 503 or time.monotonic() > until:
            return hashlib.sha256(answer.content).hexdigest() if answer.status_code == 200 else str(answer.status_code)
        time.sleep(float(answer.headers.get("retry-after", 1)))


def test_fifty_fetchers_at_once_get_the_same_bytes_and_others_get_nothing(pushing: Pushing) -> None:
    pushing.write("fetched.bin", noise(2_000_000))
    pushing.write("fetchers.py", DAG)
    pushing.parse("fetchers")
    run = pushing.airflow.trigger("fetchers")
    with ExitStack() as stack:
        workers = [stack.enter_context(enrol_hostile_worker(pushing.airflow, "fetchers")) for _ in range(WORKERS)]
        stranger = stack.enter_context(enrol_hostile_worker(pushing.airflow, "nothing"))
        jobs: list[Taken] = [worker.take(timeout_s=120) for worker in workers]
        (tree,) = {job.tree for job in jobs}
        assert tree is not None
        with ThreadPoolExecutor(WORKERS * DOWNLOADS) as pool:
            fetching = [pool.submit(fetch, worker, tree) for worker in workers for _ in range(DOWNLOADS)]
            # Meanwhile the API server answers others.
            assert pushing.airflow.api("GET", f"dags/fetchers/dagRuns/{run}")["state"] == "running"
            found = Counter(one.result() for one in fetching)
        assert len(found) == 1, found
        assert sum(found.values()) == WORKERS * DOWNLOADS >= 50
        assert len(next(iter(found))) == 64
        assert fetch(stranger, tree) == "404"
        for worker, job in zip(workers, jobs, strict=True):
            worker.start(job)
            worker.end(job)
            worker.report(job)
        assert fetch(workers[0], tree) == "404"  # its job has ended
    assert pushing.airflow.wait_for_run("fetchers", run) == "success"
