"""Topic suite: sites and central are updated at different times; a worker and central of adjacent releases run the demo's Dag."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit import previous
from testkit.servers.airflow import Airflow
from testkit.servers.postgres import PostgresServer
from testkit.versions import AIRFLOW
from testkit.worker import Worker

from .conftest import ROOT, NewWorker

DAG = "remote_demo"
pytestmark = [previous.NEEDED, pytest.mark.skipif(bool(AIRFLOW), reason="the previous release supports only Airflow 3.3")]


@pytest.fixture(scope="module")
def previous_central(home: Path, postgres_server: PostgresServer) -> Iterator[Airflow]:
    deployment = Airflow(
        home / "previous-central",
        database_url=postgres_server.create_database("airflow_previous"),
        dags=Path(shutil.copytree(ROOT / "demo/dags", home / "previous-dags")),
        settings={"AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3", **previous.central_settings()},
    )
    try:
        deployment.start()
        assert str(previous.sources()) in deployment.provider_path()
        yield deployment
    finally:
        deployment.discard()


def test_this_worker_works_for_a_central_of_the_previous_release(previous_central: Airflow, new_worker: NewWorker) -> None:
    worker = new_worker(previous_central, "updated-worker", queues="default")
    _assert_runs_the_demo(previous_central, worker)
    worker.stop()


def test_a_worker_of_the_previous_release_survives_an_update_of_central(previous_central: Airflow, new_worker: NewWorker) -> None:
    worker = new_worker(previous_central, "previous-worker", queues="default", program=previous.worker_program())
    previous_central.stop()
    for name in previous.central_settings():
        del previous_central.environment[name]
    central = previous_central.start()
    _assert_runs_the_demo(central, worker)
    assert worker.is_running()


def _assert_runs_the_demo(central: Airflow, worker: Worker) -> None:
    run = central.trigger(DAG)
    assert central.wait_for_run(DAG, run) == "success"
    assert {task["task_id"] for task in central.task_instances(DAG, run) if task["state"] != "success"} == {"take_too_long"}
    jobs = central.query("SELECT worker_name, state FROM remote_job WHERE run_id = :run", run=run)
    assert {job["worker_name"] for job in jobs} == {worker.name}
    assert len(jobs) == 7
    assert "Hello number 3" in central.task_log(DAG, run, "greet")
