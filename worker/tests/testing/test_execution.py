"""The fake's Execution API answers as Airflow does, and remembers the task's writes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow_remote_worker.testing.execution import TaskCalls
from airflow_remote_worker.testing.ledger import Job, make_workload

RUN = {"state": "running", "hostname": "here", "unixname": "me", "pid": 1, "start_date": "2026-01-01T00:00:00Z"}


class Task:
    """One task that calls the fake directly."""

    def __init__(self, calls: TaskCalls) -> None:
        self.calls = calls
        self.job = Job("a-job", "a-queue", 1, 1, make_workload())
        self.at = f"task-instances/{self.job.ti_id}"

    def call(self, method: str, path: str, content: Any = None) -> tuple[int, Any]:
        body = b"" if content is None else json.dumps(content).encode()
        status, _, answer = self.calls(self.job, method, path, {}, body)
        return status, json.loads(answer) if answer else None


@pytest.fixture
def task() -> Task:
    return Task(TaskCalls())


def test_a_task_runs_and_ends_and_both_are_remembered(task: Task) -> None:
    assert task.call("PATCH", f"{task.at}/run", RUN)[0] == 200
    assert task.call("PATCH", f"{task.at}/state", {"state": "success"})[0] == 204
    assert task.calls.states == {task.job.ti_id: ["running", "success"]}


def test_repetitions_succeed_and_are_remembered_once(task: Task) -> None:
    for _ in range(2):
        assert task.call("PATCH", f"{task.at}/run", RUN)[0] == 200
    assert [task.call("PATCH", f"{task.at}/state", {"state": "failed"})[0] for _ in range(2)] == [204, 200]
    assert task.calls.states == {task.job.ti_id: ["running", "failed"]}


def test_a_task_runs_once_and_ends_once(task: Task) -> None:
    assert task.call("PATCH", f"{task.at}/state", {"state": "success"})[0] == 409
    task.call("PATCH", f"{task.at}/run", RUN)
    status, refusal = task.call("PATCH", f"{task.at}/run", RUN | {"pid": 2})
    assert (status, refusal["detail"]["reason"], refusal["detail"]["previous_state"]) == (409, "invalid_state", "running")
    task.call("PATCH", f"{task.at}/state", {"state": "success"})
    assert task.call("PATCH", f"{task.at}/state", {"state": "failed"})[0] == 409
    assert task.call("PATCH", f"{task.at}/run", RUN)[0] == 409


def test_a_variable_that_is_not_granted_is_neither_read_nor_written(task: Task) -> None:
    task.calls.variables["plant"] = "secret"
    task.calls.ungranted.add("plant")
    for method, content in (("GET", None), ("PUT", {"value": "mine"}), ("DELETE", None)):
        status, denial = task.call(method, "variables/plant", content)
        assert (status, denial["detail"]["reason"]) == (403, "not_granted")
    assert task.calls.variables == {"plant": "secret"}


def test_a_deferred_task_runs_again(task: Task) -> None:
    task.call("PATCH", f"{task.at}/run", RUN)
    task.call("PATCH", f"{task.at}/state", {"state": "deferred"})
    assert task.call("PATCH", f"{task.at}/run", RUN | {"pid": 2})[0] == 200


def test_only_a_running_task_has_a_heartbeat(task: Task) -> None:
    assert task.call("PUT", f"{task.at}/heartbeat", {"pid": 1, "hostname": "here"})[0] == 409
    task.call("PATCH", f"{task.at}/run", RUN)
    assert task.call("PUT", f"{task.at}/heartbeat", {"pid": 1, "hostname": "here"})[0] == 204


def test_xcoms_are_kept_by_key_and_map_index(task: Task) -> None:
    at = "xcoms/a_dag/a_run/a_task/a%2Fkey"
    for index in (1, 0):
        assert task.call("POST", f"{at}?map_index={index}", {"index": index})[0] == 201
    assert task.call("GET", f"{at}?map_index=1") == (200, {"key": "a/key", "value": {"index": 1}})
    assert task.call("GET", at)[0] == 404
    assert task.call("GET", f"{at}/item/-1") == (200, {"index": 1})
    assert task.call("GET", f"{at}/item/2")[0] == 404
    assert task.call("GET", f"{at}/slice?stop=1") == (200, [{"index": 0}])
    assert task.calls(task.job, "HEAD", at, {}, b"")[1] == {"content-range": "map_indexes 2"}


def test_variables_and_connections_are_those_that_the_test_set(task: Task) -> None:
    task.calls.variables["site/name"] = "hamburg"
    task.calls.connections["db"] = {"conn_type": "postgres", "host": "db.example", "port": 5432}
    assert task.call("GET", "variables/site/name") == (200, {"key": "site/name", "value": "hamburg"})
    assert task.call("GET", "connections/db")[1]["host"] == "db.example"
    assert [task.call("GET", path)[0] for path in ("variables/no", "connections/no")] == [404, 404]


def test_unknown_routes_are_not_found(task: Task) -> None:
    for method, path in (("GET", "conditions/today"), ("GET", ""), ("DELETE", task.at), ("POST", "xcoms/a_dag")):
        assert task.call(method, path)[0] == 404


@pytest.mark.runtime
def test_the_task_sdk_understands_the_run_context(task: Task) -> None:
    models = pytest.importorskip("airflow.sdk.api.datamodels._generated")
    _, context = task.call("PATCH", f"{task.at}/run", RUN)
    assert models.TIRunContext.model_validate(context).dag_run.dag_id == "a_dag"
