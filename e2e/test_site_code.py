"""Topic suite: code at the site, in another version than central's, in zip archives, and in a plugins folder."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from testkit.servers.airflow import Airflow
from testkit.servers.postgres import PostgresServer

from .conftest import NewWorker

ZIPPED = """
from airflow.sdk import BaseOperator, dag, task
from zipped_waits.triggers import Soon

REMOTE = "RemoteExecutor"

class Wait(BaseOperator):
    def execute(self, context):
        self.defer(trigger=Soon(0.5), method_name="resume")

    def resume(self, context, event=None):
        return event

@dag(schedule=None)
def zipped():
    @task(executor=REMOTE, queue="site-code")
    def packed():
        return {"valve": 7}

    @task(executor=REMOTE, queue="site-code")
    def read(value):
        print("read", value["valve"])

    read(packed()) >> Wait(task_id="wait", executor=REMOTE, queue="site-code")

zipped()
"""
TRIGGER = """
import asyncio
from airflow.triggers.base import BaseTrigger, TriggerEvent

class Soon(BaseTrigger):
    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def serialize(self):
        return "zipped_waits.triggers.Soon", {"seconds": self.seconds}

    async def run(self):
        await asyncio.sleep(self.seconds)
        yield TriggerEvent("came from a zip")
"""
XCOM_BACKEND = """
import json, uuid
from pathlib import Path
from airflow.sdk.bases.xcom import BaseXCom

STORE = Path(__file__).parent.parent / "store"

class SiteXCom(BaseXCom):
    @staticmethod
    def serialize_value(value, **context):
        STORE.mkdir(exist_ok=True)
        name = uuid.uuid4().hex
        (STORE / name).write_text(json.dumps(value))
        return BaseXCom.serialize_value(f"site://{name}")

    @staticmethod
    def deserialize_value(result):
        name = BaseXCom.deserialize_value(result).removeprefix("site://")
        return json.loads((STORE / name).read_text())
"""

BOTH_ENDS = """
from airflow.sdk import dag, task

REMOTE = {"executor": "RemoteExecutor", "queue": "both-ends"}

@dag(schedule=None)
def both_ends():
    @task
    def here():
        return {"valve": 7}

    @task
    def there(value):
        return {"valve": value["valve"] + 1}

    @task
    def back(value):
        return {"valve": value["valve"] + 1}

    back(there.override(**REMOTE)(here()))

both_ends()
"""


def test_code_of_the_site(central: Airflow, new_worker: NewWorker, home: Path) -> None:
    plugins = home / "site-plugins"
    plugins.mkdir()
    (plugins / "site_xcom.py").write_text(XCOM_BACKEND)
    for dags in (home / "central-dags", home / "worker-dags"):
        with zipfile.ZipFile(dags / "zipped.zip", "w") as archive:
            archive.writestr("zipped_dag.py", ZIPPED)
            archive.writestr("zipped_waits/__init__.py", "")
            archive.writestr("zipped_waits/triggers.py", TRIGGER)
    worker = new_worker(
        central,
        "site-code",
        queues="site-code",
        variables={
            "AIRFLOW__WORKERS__MISSING_DAG_RETRIES": "0",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins),
            "AIRFLOW__CORE__XCOM_BACKEND": "site_xcom.SiteXCom",
        },
    )
    ours = home / "worker-dags/site_code.py"
    ours.write_text(ours.read_text().partition("    # Added")[0] + "    known()\n\n\nsite_code()\n")
    central.cli("dags", "reserialize", "--bundle-name", "dags-folder")  # the archive was added after the start

    zipped, differs = central.trigger("zipped"), central.trigger("site_code")
    assert central.wait_for_run("zipped", zipped) == "success"
    assert "read 7" in central.task_log("zipped", zipped, "read")
    # Central has a reference, the value stays at the site.
    assert str(central.xcom("zipped", zipped, "packed")).startswith("site://")

    assert central.wait_for_run("site_code", differs) == "failed"
    known, added = (central.task_log("site_code", differs, name) for name in ("known", "added"))
    for log in (known, added):
        assert "The Dag file site_code.py of bundle 'dags-folder' on worker site-code (version " in log
        assert "is not the one that central parsed (version " in log
    assert "Task not found in Dag during start up" in added
    assert "The task ended before its own code began. A possible reason: The Dag file site_code.py" in added
    jobs = central.remote_api("jobs", run_id=differs)
    assert [len(job["site_code"]) for job in jobs] == [32, 32]

    own = worker.log.read_text()
    assert f"task site_code.known of run {differs}, try 1, succeeded" in own
    assert f"task site_code.added of run {differs}, try 1, failed (exit code 1)" in own
    assert f"task zipped.wait of run {zipped}, try 1, deferred" in own


@pytest.fixture(scope="module")
def backend(home: Path) -> dict[str, str]:
    """Return settings with which both sides find the XCom backend in their plugins folder."""
    plugins = home / "backend-plugins"
    plugins.mkdir()
    (plugins / "site_xcom.py").write_text(XCOM_BACKEND)
    return {"AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins), "AIRFLOW__CORE__XCOM_BACKEND": "site_xcom.SiteXCom"}


@pytest.fixture(scope="module")
def central_with_backend(home: Path, postgres_server: PostgresServer, backend: dict[str, str]) -> Iterator[Airflow]:
    dags = home / "backend-dags"
    dags.mkdir()
    for directory in (dags, home / "worker-dags"):
        (directory / "both_ends.py").write_text(BOTH_ENDS)
    deployment = Airflow(
        home / "backend-central",
        database_url=postgres_server.create_database("airflow_backend"),
        dags=dags,
        settings={"AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3", **backend},
    )
    try:
        yield deployment.start()
    finally:
        deployment.discard()


def test_an_xcom_backend_at_both_ends(new_worker: NewWorker, central_with_backend: Airflow, backend: dict[str, str]) -> None:
    worker = new_worker(central_with_backend, "both-ends", queues="both-ends", variables=backend)
    run = central_with_backend.trigger("both_ends")
    assert central_with_backend.wait_for_run("both_ends", run) == "success"
    for task in ("here", "there", "back"):
        path = f"dags/both_ends/dagRuns/{quote(run)}/taskInstances/{task}/xcomEntries/return_value"
        assert str(central_with_backend.api("GET", path)["value"]).strip('"').startswith("site://")
    assert {job["task_id"] for job in central_with_backend.jobs(run)} == {"there"}
    worker.stop()
