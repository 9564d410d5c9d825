"""Topic suite: branches, short circuits, setup, teardown and callbacks run where the task runs."""

from pathlib import Path

from testkit.servers.airflow import Airflow
from testkit.worker import Worker


def _states(central: Airflow, dag_id: str, run: str) -> dict[str, str]:
    return {task["task_id"]: task["state"] for task in central.task_instances(dag_id, run)}


def test_a_branch_is_chosen_remotely(central: Airflow, worker: Worker) -> None:
    run = central.trigger("branching")
    assert central.wait_for_run("branching", run) == "success"
    assert _states(central, "branching", run) == {"choose": "success", "left": "success", "right": "skipped"}


def test_a_short_circuit_skips_what_follows_only_when_it_is_false(central: Airflow, worker: Worker) -> None:
    run = central.trigger("circuit")
    assert central.wait_for_run("circuit", run) == "success"
    assert _states(central, "circuit", run) == {
        "is_open": "success",
        "dark": "skipped",
        "is_closed": "success",
        "light": "success",
    }


def test_a_teardown_follows_its_setup_although_the_work_failed(central: Airflow, worker: Worker, tmp_path: Path) -> None:
    run = central.trigger("surrounded", {"directory": str(tmp_path)})
    assert central.wait_for_run("surrounded", run) == "failed"
    assert _states(central, "surrounded", run) == {"build": "success", "use": "failed", "tidy": "success"}
    notes = (tmp_path / "notes").read_text().splitlines()
    assert notes == [f"{what} at {worker.name}" for what in ("built", "used a thing", "tidied a thing")]


def test_callbacks_run_on_the_worker_once_for_each_event(central: Airflow, worker: Worker, tmp_path: Path) -> None:
    run = central.trigger("called_back", {"directory": str(tmp_path)})
    assert central.wait_for_run("called_back", run) == "failed"
    assert _states(central, "called_back", run) == {"succeed": "success", "fail": "failed", "skip": "skipped"}
    expected = [
        "execute succeed try 1",
        "success succeed try 1",
        "execute fail try 1",
        "retry fail try 1",
        "execute fail try 2",
        "failure fail try 2",
        "execute skip try 1",
        "skipped skip try 1",
    ]
    assert sorted((tmp_path / "notes").read_text().splitlines()) == sorted(f"{what} at {worker.name}" for what in expected)
    assert "the callback failure runs" in central.task_log("called_back", run, "fail", 2)
