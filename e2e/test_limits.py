"""Topic suite: `[core] parallelism` limits the executor, also if the workers have more slots."""

from collections.abc import Callable

from e2e.conftest import PARALLELISM
from testkit.servers.airflow import Airflow
from testkit.worker import Worker


def test_no_more_than_parallelism_run_at_once(redundant: Airflow, new_worker: Callable[..., Worker]) -> None:
    worker = new_worker(redundant, "wide", queues="wide", slots=8)
    run = redundant.trigger("crowded")
    assert redundant.wait_for_run("crowded", run) == "success"
    results = [redundant.xcom("crowded", run, "be", map_index=index) for index in range(12)]
    assert {result["site"] for result in results} == {"wide"}
    assert max(sum(other["begin"] <= one["begin"] < other["end"] for other in results) for one in results) == PARALLELISM
    worker.stop()
