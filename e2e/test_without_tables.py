"""Topic suite: before `airflow db migrate` has created our tables, Airflow works and remote tasks wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, inspect, text

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.servers.postgres import PostgresServer
from testkit.worker import Worker

DAG = """
from airflow.sdk import dag, task

@dag(schedule=None)
def both():
    @task(executor="LocalExecutor")
    def local() -> str:
        return "here"

    @task(executor="RemoteExecutor")
    def remote() -> str:
        return "there"

    local()
    remote()

both()
"""
MIGRATE = "airflow db migrate"


@pytest.fixture
def bare(tmp_path: Path, postgres_server: PostgresServer) -> Iterator[Airflow]:
    """Start a deployment whose database has Airflow's tables but not ours."""
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "both.py").write_text(DAG)
    url = postgres_server.create_database("airflow_bare")
    deployment = Airflow(tmp_path / "central", database_url=url, dags=dags)
    deployment.cli("db", "migrate", timeout_s=180)
    engine = create_engine(url)
    with engine.begin() as connection:
        for table in inspect(connection).get_table_names():
            if table.startswith("remote_") or table == "alembic_version_remote":
                connection.execute(text(f'DROP TABLE "{table}" CASCADE'))
    engine.dispose()
    try:
        for name in ("scheduler", "dag-processor"):
            deployment.start_process(name)
        deployment.start_api_server()
        yield deployment
    finally:
        deployment.discard()


def test_without_our_tables_other_tasks_run_and_remote_ones_wait(bare: Airflow, tmp_path: Path) -> None:
    run = bare.trigger("both")
    bare.wait_for_task("both", run, "local", "success", timeout_s=180)
    bare.wait_for_task("both", run, "remote", "queued")
    scheduler, scheduler_log = bare.process("scheduler").pid, bare.home / "scheduler.out"
    wait_until(lambda: MIGRATE in scheduler_log.read_text(), timeout_s=30, what="the scheduler names the remedy")

    answer = bare.client().get("/remote/ui/v1/workers")
    assert (answer.status_code, MIGRATE in answer.json()["detail"]) == (503, True), answer.text
    answer = httpx.post(f"{bare.url}/remote/v1/sessions", headers={"authorization": "Bearer arwkr_none"}, json={}, timeout=30)
    assert answer.status_code in (401, 503), answer.text

    with pytest.raises(RuntimeError) as failed:
        bare.cli("remote", "workers", "list")
    lines = [line for line in str(failed.value).splitlines() if line.strip()]
    assert MIGRATE in lines[-1] and "Traceback" not in str(failed.value) and len(lines) <= 4, lines

    bare.cli("db", "migrate", timeout_s=180)
    worker = Worker(
        tmp_path / "worker",
        name="late",
        central=bare.url,
        token=bare.enrolment_token(name_pattern="late"),
        slots=1,
        bundles={"dags-folder": tmp_path / "dags"},
    )
    try:
        worker.start()
        assert bare.wait_for_run("both", run) == "success"
    finally:
        worker.stop()
    assert bare.is_running("scheduler") and bare.process("scheduler").pid == scheduler, "nothing was restarted"
    wait_until(lambda: "works again" in scheduler_log.read_text(), timeout_s=20, what="the scheduler logs that it works again")
    log = scheduler_log.read_text()
    assert log.count("tables of the Remote Executor are not in Airflow's database") <= 2, "once at its begin and once at its end"
    assert "Traceback" not in log
    assert "Traceback" not in (bare.home / "api-server.out").read_text()
