"""Fixtures of all e2e tests: central on Postgres and one worker, more workers, a deployment for tests that kill processes.

Central's Dag files and the workers' are separate copies, as on separate computers.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from testkit.servers.airflow import Airflow
from testkit.servers.postgres import PostgresServer
from testkit.site import Site
from testkit.worker import Worker

ROOT = Path(__file__).parent.parent
ELSEWHERE = "elsewhere"
"""A bundle that only central has."""

PARALLELISM = 4
"""`[core] parallelism` of the redundant deployment."""

NewWorker = Callable[..., Worker]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="session")
def central(home: Path, postgres_server: PostgresServer) -> Iterator[Airflow]:
    dags = _copy_dags(home / "central-dags")
    elsewhere = Path(shutil.copytree(ROOT / "e2e/dags_elsewhere", home / "central-elsewhere"))
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [
        {"name": name, "classpath": local, "kwargs": {"path": str(path)}}
        for name, path in (("dags-folder", dags), (ELSEWHERE, elsewhere))
    ]
    deployment = Airflow(
        home / "central",
        database_url=postgres_server.create_database("airflow_e2e"),
        dags=dags,
        settings={
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
            "PYTHONPATH": str(ROOT / "e2e/on_central"),
            "AIRFLOW__CORE__PARALLELISM": "16",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
            # Short, so that a test of lost jobs only waits for `lost_after`.
            "AIRFLOW__REMOTE__RECONNECT_SECONDS": "10",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
            # Settings that tasks at a site must receive too (test_task_settings).
            "AIRFLOW__CORE__DEFAULT_TIMEZONE": "Europe/Berlin",
            "AIRFLOW__CORE__DEFAULT_TASK_EXECUTION_TIMEOUT": "3000",
            "AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES": "recipe",
            "AIRFLOW__TRIGGERER__ON_KILL_TIMEOUT": "25",
        },
    )
    try:
        yield deployment.start(triggerer=True)
    finally:
        deployment.stop()


@pytest.fixture(scope="session")
def redundant(home: Path, postgres_server: PostgresServer) -> Iterator[Airflow]:
    """A deployment for tests that kill its schedulers and API servers, or wait for its (short) timeouts."""
    deployment = Airflow(
        home / "redundant",
        database_url=postgres_server.create_database("airflow_redundant"),
        dags=_copy_dags(home / "redundant-dags"),
        settings={
            "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
            "AIRFLOW__REMOTE__GATEWAY_BODY_BYTES": str(1 << 20),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
            # How soon one scheduler detects that another has ended.
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "8",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "2",
            # The longest time that a task can be queued: longer than the replacement of a scheduler takes.
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "40",
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "2",
            "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "0",
            # Without the default's `dag_id=`, ids of 250 characters are valid file names.
            "AIRFLOW__LOGGING__LOG_FILENAME_TEMPLATE": "{{ ti.dag_id }}/{{ ti.run_id }}/{{ ti.task_id }}/"
            "{% if ti.map_index >= 0 %}{{ ti.map_index }}/{% endif %}{{ try_number|default(ti.try_number) }}.log",
        },
    )
    try:
        yield deployment.start()
    finally:
        deployment.stop()


@pytest.fixture(scope="session")
def new_worker(home: Path) -> Iterator[NewWorker]:
    """Return a function that starts a worker; all workers are stopped at the end of the session."""
    workers: list[Worker] = []
    dags = _copy_dags(home / "worker-dags")

    def start(
        central: Airflow,
        name: str,
        *,
        queues: str,
        slots: int = 4,
        variables: Mapping[str, str] | None = None,
        url: str | None = None,
        environment: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Worker:
        """Start a worker with *variables* for its tasks and *environment* for itself; *url* is central's, if not *central*'s own.

        *more* are other arguments of :class:`Worker`.
        """
        worker = Worker(
            home / name,
            name=name,
            central=url or central.url,
            token=central.enrolment_token(queues=queues, name_pattern=name),
            slots=slots,
            bundles={"dags-folder": dags},
            # Airflow 3.4 kills a task that ignores a stop after this time; 3.3 always after 5 s.
            task_variables={"SITE": name, "AIRFLOW__CORE__KILLED_TASK_CLEANUP_TIME": "5", **(variables or {})},
            variables=environment,
            **more,
        )
        workers.append(worker)
        return worker.start()

    yield start
    for worker in workers:
        worker.stop()


@pytest.fixture(scope="session")
def worker(central: Airflow, new_worker: NewWorker) -> Worker:
    """Return the worker that serves the queue `default`."""
    return new_worker(central, "home", queues="default", slots=4)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the processes' logs to the report of a failure; without them it is rarely possible to find the cause."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed and isinstance(item, pytest.Function):
        for name, thing in item.funcargs.items():
            if isinstance(thing, Airflow):
                report.sections.append((name, thing.logs(25)))
            elif isinstance(thing, Worker):
                report.sections.append((name, thing.tail(40)))
            elif isinstance(thing, Site):
                report.sections.append((name, thing.worker.tail(40)))


def _copy_dags(target: Path) -> Path:
    for source in (ROOT / "e2e/dags", ROOT / "demo/dags"):
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return target
