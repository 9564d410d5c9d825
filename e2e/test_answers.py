"""Topic suite: sites receive everything that the Task SDK reads of an answer, and keys arrive unchanged."""

from collections.abc import Callable

from testkit.network.fault_proxy import FaultProxy
from testkit.servers.airflow import Airflow
from testkit.worker import Worker


def test_lazy_sequences_of_mapped_remote_tasks_are_counted_mapped_zipped_and_joined(central: Airflow, worker: Worker) -> None:
    runs = {dag: central.trigger(dag) for dag in ("sequences", "keys")}
    _assert_keys_work_the_same_locally_and_remotely(central, runs["keys"])
    run = runs["sequences"]
    assert central.wait_for_run("sequences", run) == "success"
    assert central.xcom("sequences", run, "describe") == [3, [2, 4, 6], 6, [4, 6]]
    assert central.xcom("sequences", run, "collect") == [
        ["3", "5", "7"],
        ["(2, 1)", "(4, 2)", "(6, 3)"],
        ["2", "4", "6", "1", "2", "3"],
        ["4", "8", "12"],
    ]


def _assert_keys_work_the_same_locally_and_remotely(central: Airflow, run: str) -> None:
    assert central.wait_for_run("keys", run) == "success"
    here, there = (central.xcom("keys", run, task) for task in ("here", "there"))
    assert there == here
    assert here["a//b"][:5] == ["None", "4", "None", "'4'", "'none'"], "the task reads what it wrote"


def test_values_of_70_megabytes_are_transferred(central: Airflow, worker: Worker) -> None:
    run = central.trigger("large", {"megabytes": 70})
    assert central.wait_for_run("large", run) == "success"
    assert central.xcom("large", run, "read") == 70 << 20
    assert central.xcom("large", run, "read_here") == 70 << 20


def test_a_value_that_is_too_large_is_refused_at_once_and_the_log_names_the_limit(
    redundant: Airflow, new_worker: Callable[..., Worker]
) -> None:
    with FaultProxy(redundant.url) as cable:
        worker = new_worker(redundant, "small-values", queues="default", slots=2, url=cable.url)
        run = redundant.trigger("too_large")
        assert redundant.wait_for_run("too_large", run) == "failed"
        assert cable.count("*", "/execution/xcoms/.*/return_value") <= 2, "each is refused once, not asked for again"
        worker.stop()
    states = {task["task_id"]: task for task in redundant.task_instances("too_large", run)}
    assert {name: task["state"] for name, task in states.items()} == {
        "write_here": "success",
        "read": "failed",
        "write": "failed",
    }
    for task, size in (("read", "3145"), ("write", "3145730")):
        log = redundant.task_log("too_large", run, task)
        assert "the limit is 1048576 bytes ([remote] gateway_body_bytes)" in log, task
        assert f"has {size}" in log, task
