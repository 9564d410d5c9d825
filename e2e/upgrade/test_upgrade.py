"""Topic suite: central is upgraded from Airflow 3.3 to 3.4 while remote jobs run; each runtime serves the other central.

Runtimes that central sends follow it by themselves.

Runs with Airflow 3.4 (`AIRFLOW=3.4`) and needs the environments of both versions.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.servers.postgres import PostgresServer
from testkit.versions import AIRFLOW, central_of, runtime_of
from testkit.worker import Worker

DAGS = Path(__file__).parent / "dags"
TASKS = 20
OLD, NEW = "", "3.4"
OLD_AIRFLOW = "3.3"

pytestmark = [
    pytest.mark.timeout(900),  # two builds of a runtime: one before, and one that central makes by itself at a low priority
    pytest.mark.skipif(AIRFLOW != NEW, reason="runs only with Airflow 3.4"),
    pytest.mark.skipif(not central_of(OLD).exists(), reason="needs .work/central and .work/runtime too"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("upgrade")


@pytest.fixture(scope="module")
def central(home: Path, postgres_server: PostgresServer) -> Iterator[Airflow]:
    dags = Path(shutil.copytree(DAGS, home / "central-dags", ignore=shutil.ignore_patterns("__pycache__")))
    deployment = Airflow(
        home / "central",
        database_url=postgres_server.create_database("airflow_upgrade"),
        dags=dags,
        settings={"AIRFLOW__CORE__PARALLELISM": "32", "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3"},
        programs=central_of(OLD),
    )
    try:
        yield deployment.start()
    finally:
        deployment.discard()


@pytest.fixture(scope="module")
def sites(home: Path, central: Airflow) -> Iterator[dict[str, Worker]]:
    """Start a worker whose runtime has Airflow 3.3, one whose runtime has 3.4, and one without: each on its own queue."""
    central.cli("variables", "set", "offset", "1000")
    central.cli("remote", "runtimes", "build", "default", timeout_s=280)
    dags = Path(shutil.copytree(DAGS, home / "site-dags", ignore=shutil.ignore_patterns("__pycache__")))
    workers = {
        name: Worker(
            home / name,
            name=name,
            central=central.url,
            token=central.enrolment_token(queues=name, name_pattern=name),
            slots=slots,
            bundles={"dags-folder": dags},
            runtime=runtime_of(version),
        )
        for name, version, slots in (("old", OLD, TASKS + 4), ("new", NEW, 4))
    }
    token = central.enrolment_token(queues="sent", name_pattern="sent")
    workers["sent"] = Worker(home / "sent", name="sent", central=central.url, token=token, has_runtime=False)
    try:
        yield {name: worker.start() for name, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.stop()


def _begin(central: Airflow, site: str, directory: Path) -> str:
    """Start the Dag that tests a runtime; the file that it waits for exists."""
    file = directory / f"{site}.file"
    file.touch()
    return central.trigger(f"mixed_{site}", {"file": str(file)})


def _assert_success(central: Airflow, site: str, run: str) -> None:
    """Check that the run of that Dag succeeds, with XComs, a variable, a wait and a retry."""
    assert central.wait_for_run(f"mixed_{site}", run, timeout_s=180) == "success"
    assert central.xcom(f"mixed_{site}", run, "read") == 1009


def test_central_is_upgraded_while_jobs_run(central: Airflow, sites: dict[str, Worker], tmp_path: Path) -> None:
    """No job is lost, each runs once and in the same process; each version of the runtime serves each version of central."""
    ahead = _begin(central, "new", tmp_path)
    run = central.trigger("upgraded", {"directory": str(tmp_path)})
    sent = central.trigger("sent", {"directory": str(tmp_path)})
    wait_until(lambda: len(_pids(tmp_path)) == TASKS + 1, timeout_s=300, what="all tasks run", every_s=0.5)
    central.wait_for_task("upgraded", run, "waits", "deferred")
    _assert_success(central, "new", ahead)  # a newer runtime than central
    before = _pids(tmp_path)

    central.upgrade(central_of(NEW))

    assert _pids(tmp_path) == before
    for pids in before.values():
        assert len(pids) == 1, "a task was started twice"
        os.kill(int(pids[0]), 0)
    both = {site: _begin(central, site, tmp_path) for site in ("old", "new")}
    wait_until(lambda: _has_ready(central, "sent", 2), timeout_s=400, what="the runtime has followed central", every_s=0.5)
    os.kill(int(before["sent.pids"][0]), 0)
    later = tmp_path / "later"
    later.mkdir()
    followed = central.trigger("sent", {"directory": str(later)})
    for directory in (tmp_path, later):
        (directory / "go").touch()
    for one, version in ((sent, OLD_AIRFLOW), (followed, NEW)):
        assert central.wait_for_run("sent", one, timeout_s=180) == "success"
        assert central.xcom("sent", one, "hold").startswith(version)
    assert central.wait_for_run("upgraded", run, timeout_s=180) == "success"
    assert central.xcom("upgraded", run, "add") == sum(range(TASKS)) + 100 * TASKS + 100 + 3
    assert _pids(tmp_path) == before
    assert {job["state"] for job in central.jobs(run)} == {"succeeded"}
    for site, begun in both.items():
        _assert_success(central, site, begun)  # "old": an older runtime than central


def _pids(directory: Path) -> dict[str, list[str]]:
    return {file.name: file.read_text().split() for file in sorted(directory.glob("*.pids")) if file.read_text().endswith("\n")}


def _has_ready(central: Airflow, worker: str, serial: int) -> bool:
    """Return whether a worker has this serial of the default runtime ready."""
    rows = central.remote_api("runtimes", "default")["workers"]
    return any((row["worker"], row["serial"], row["phase"]) == (worker, serial, "ready") for row in rows)
