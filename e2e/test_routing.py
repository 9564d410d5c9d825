"""`executor` and `queue` of a task decide where it runs; a worker's slots decide how many at once."""

from collections.abc import Callable, Iterator

import pytest

from testkit.airflow import Airflow
from testkit.worker import Worker

SLOTS = {"north": 1, "south": 2}


@pytest.fixture
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
        results = [central.xcom("routed", run, site, map_index=index) for index in range(count)]
        assert {result["site"] for result in results} == {site}
        assert _most_at_once(results) <= SLOTS[site], results
    names = {worker["name"]: worker for worker in central.remote_cli("workers", "list")}
    assert set(SLOTS) <= set(names)
    assert sorted(names["south"]["queues"]) == ["south"]


def _most_at_once(results: list[dict[str, float]]) -> int:
    return max(sum(other["begin"] <= one["begin"] < other["end"] for other in results) for one in results)
