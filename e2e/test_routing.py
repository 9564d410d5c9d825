"""Topic suite: `executor` and `queue` of a task decide where it runs; slots, pools and weights limit and order the tasks."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.worker import Worker

NEXT_WITHIN_S = 3.0
SLOTS = {"north": 1, "south": 2}


@pytest.fixture(scope="module")
def sites(central: Airflow, new_worker: Callable[..., Worker]) -> Iterator[dict[str, Worker]]:
    workers = {name: new_worker(central, name, queues=name, slots=slots) for name, slots in SLOTS.items()}
    yield workers
    for worker in workers.values():
        worker.stop()


def test_two_workers_serve_their_own_queues_within_their_slots(central: Airflow, sites: dict[str, Worker]) -> None:
    run = central.trigger("routed")
    assert central.wait_for_run("routed", run) == "success"
    assert central.xcom("routed", run, "here")["site"] == "central"
    for site, count in (("north", 3), ("south", 4)):
        results = _mapped(central, "routed", run, site, count)
        assert {result["site"] for result in results} == {site}
        assert count_most_at_once(results) == SLOTS[site], results
    names = {worker["name"]: worker for worker in central.remote_api("workers")}
    assert set(SLOTS) <= set(names)
    assert sorted(names["south"]["queues"]) == ["south"]


def test_labels_and_bundles_decide_which_worker_of_a_queue(central: Airflow, new_worker: Callable[..., Worker]) -> None:
    plain, special = (new_worker(central, name, queues="sites") for name in ("plain", "special"))
    try:
        run = central.trigger("labelled")
        wait_until(lambda: len(central.jobs(run)) == 3, timeout_s=60, what="three jobs wait")
        central.remote_change("PUT", "workers", "special", "labels", labels={"gpu": "yes"})
        assert central.wait_for_run("labelled", run) == "success"
        assert {result["site"] for result in _mapped(central, "labelled", run, "needy", 3)} == {"special"}

        central.remote_change("PUT", "workers", "special", "bundles", bundles=["another-*"])
        run = central.trigger("bundled")
        assert central.wait_for_run("bundled", run) == "success"
        assert {result["site"] for result in _mapped(central, "bundled", run, "be", 3)} == {"plain"}
    finally:
        plain.stop()
        special.stop()


def test_pools_and_pool_slots_limit_how_many_run_at_once(central: Airflow, sites: dict[str, Worker], worker: Worker) -> None:
    central.api("POST", "pools", json={"name": "narrow", "slots": 1})
    run = central.trigger("pooled")
    assert central.wait_for_run("pooled", run) == "success"
    # The worker `home` has four slots, the pool one.
    assert count_most_at_once(_mapped(central, "pooled", run, "single", 3)) == 1
    # The pool has many slots, the worker `south` two, and each task takes two.
    assert count_most_at_once(_mapped(central, "pooled", run, "wide", 3)) == 1


def test_the_task_with_the_highest_weight_runs_first_even_if_it_was_queued_last(
    central: Airflow, sites: dict[str, Worker], tmp_path: Path
) -> None:
    holding = central.trigger("holding", {"go": str(tmp_path / "go")})
    central.wait_for_task("holding", holding, "hold", "running")
    weighed = central.trigger("weighed")
    wait_until(lambda: len(central.jobs(weighed)) == 3, timeout_s=30, what="three jobs wait")
    heavy = central.trigger("heavy")
    wait_until(lambda: central.jobs(heavy), timeout_s=30, what="a fourth job waits")
    (tmp_path / "go").touch()
    assert {central.wait_for_run("weighed", weighed), central.wait_for_run("heavy", heavy)} == {"success"}
    begun = {weight: central.xcom("weighed", weighed, f"weight_{weight}")["begin"] for weight in (1, 3, 5)}
    begun[100] = central.xcom("heavy", heavy, "be")["begin"]
    assert sorted(begun, key=begun.__getitem__) == [100, 5, 3, 1]
    # A freed slot is filled at once, not at the dispatcher's next periodic round.
    at = sorted(begun.values())
    assert all(later - earlier < NEXT_WITHIN_S for earlier, later in pairwise(at)), at
    assert central.wait_for_run("holding", holding) == "success"


def count_most_at_once(results: list[dict[str, Any]]) -> int:
    return max(sum(other["begin"] <= one["begin"] < other["end"] for other in results) for one in results)


def _mapped(central: Airflow, dag_id: str, run: str, task: str, count: int) -> list[dict[str, Any]]:
    return [central.xcom(dag_id, run, task, map_index=index) for index in range(count)]
