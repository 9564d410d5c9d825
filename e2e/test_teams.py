"""Topic suite: several teams in one Airflow; each team's tasks run on its own workers although the queues have the same name."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from testkit.servers.airflow import EXECUTORS, Airflow
from testkit.servers.postgres import PostgresServer
from testkit.worker import Worker

REMOTE = EXECUTORS.split(",")[1]
WHERE = """
import os
from airflow.sdk import dag, task

@dag(dag_id="where_{name}", schedule=None)
def where():
    @task({executor}queue="shared")
    def here() -> str:
        return os.environ["SITE"]

    here()

where()
"""


@pytest.fixture(scope="module")
def teams(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer) -> Iterator[Airflow]:
    """Start central with a team `red`, and a worker and a bundle of no team."""
    home = tmp_path_factory.mktemp("teams")
    bundles = []
    for name, team in (("common", None), ("red", "red")):
        directory = home / name
        directory.mkdir()
        # Airflow would use the first executor of that name, which is the common one; so a team's tasks use the team's default.
        executor = "" if team else 'executor="RemoteExecutor", '
        (directory / "where.py").write_text(WHERE.format(name=name, executor=executor))
        local = "airflow.dag_processing.bundles.local.LocalDagBundle"
        bundle = {"name": name, "classpath": local, "kwargs": {"path": str(directory)}}
        bundles.append(bundle | ({"team_name": team} if team else {}))
    central = Airflow(
        home / "central",
        database_url=postgres_server.create_database("airflow_teams"),
        dags=home / "common",
        settings={
            "AIRFLOW__CORE__MULTI_TEAM": "True",
            "AIRFLOW__CORE__EXECUTOR": f"{EXECUTORS};red={REMOTE}",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        },
    )
    central.cli("db", "migrate", timeout_s=180)
    central.cli("teams", "create", "red")
    workers = []
    try:
        central.start()
        for name, team in (("common_worker", None), ("red_worker", "red")):
            token = central.enrolment_token(queues="shared", name_pattern=name, team=team)
            code = {bundle: home / bundle for bundle in ("common", "red")}
            worker = Worker(home / name, name=name, central=central.url, token=token, bundles=code, task_variables={"SITE": name})
            workers.append(worker.start())
        yield central
    finally:
        for worker in workers:
            worker.stop()
        central.discard()


def test_each_teams_tasks_run_on_its_own_workers(teams: Airflow) -> None:
    runs = {dag_id: teams.trigger(dag_id) for dag_id in ("where_common", "where_red")}
    for dag_id, run in runs.items():
        assert teams.wait_for_run(dag_id, run) == "success"
    found = {dag_id: teams.xcom(dag_id, run, "here") for dag_id, run in runs.items()}
    assert found == {"where_common": "common_worker", "where_red": "red_worker"}
