"""Topic suite: the daemon is killed in each phase of making a tree, and central deletes old code while it publishes new code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from testkit.processes import Process, wait_until
from testkit.worker import Worker

from .conftest import NewEmptyWorker, Pushing, dag_source, noise, wait_until_published

FILES = 1500
"""Enough that making a tree takes longer than noticing it."""
COLLECT = """
import sys, time
from datetime import timedelta

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import sweep as sweeping
from airflow_remote_provider.settings import settings
from airflow_remote_provider.stores.blobs.opened import BlobStores

sweeping.SEEN_KEPT = timedelta()  # protects nothing by its age
sweeping.EDITIONS_KEPT = 0
stores = BlobStores(settings().blob_store)
while True:
    def sweep(session):
        swept = sweeping.sweep(session, compat.database_now(session), tree_days=0)
        for store, places in stores.split(swept.places):
            store.delete(session, places)
        return swept

    swept = compat.in_transaction(sweep)
    print("deleted", swept.trees, "trees and", len(swept.places), "files", flush=True)
    time.sleep(0.2)
"""


def unpacking(worker: Worker) -> bool:
    return any((worker.state / "code/trees").glob(".new-*/files/many"))


def half_unpacked(worker: Worker) -> bool:
    return any(sum(1 for _ in files.iterdir()) > FILES // 2 for files in (worker.state / "code/trees").glob(".new-*/files/many"))


def complete(worker: Worker) -> bool:
    return any((worker.state / "code/trees").glob("[0-9a-f]*/manifest"))


@pytest.mark.parametrize("phase", [unpacking, half_unpacked, complete])
def test_a_daemon_that_is_killed_while_it_makes_a_tree(
    pushing: Pushing, new_empty_worker: NewEmptyWorker, phase: Callable[[Worker], bool]
) -> None:
    dag_id = f"killed_{phase.__name__}"
    for number in range(FILES):
        pushing.write(f"many/file_{number:04}.bin", noise(200))
    pushing.write(f"{dag_id}.py", dag_source(dag_id, dag_id, COUNT))
    pushing.parse(dag_id)
    wait_until_scanned(pushing)
    worker = new_empty_worker(dag_id)
    run = pushing.airflow.trigger(dag_id)
    wait_until(lambda: phase(worker), timeout_s=60, what=phase.__name__, every_s=0.001)
    worker.kill()
    left = phase(worker)
    worker.start()
    assert pushing.airflow.wait_for_run(dag_id, run) == "success"
    assert pushing.airflow.xcom(dag_id, run, "main") == [FILES, FILES * 200]
    assert not list((worker.state / "code/trees").glob(".*"))
    assert left, "the daemon was killed in a later phase"


COUNT = """from pathlib import Path
files = list((Path(__file__).parent / "many").iterdir())
return [len(files), sum(file.stat().st_size for file in files)]"""


def test_code_is_deleted_while_other_code_is_published(pushing: Pushing, new_empty_worker: NewEmptyWorker) -> None:
    """The collector here protects nothing by its age, and sweeps five times a second."""
    new_empty_worker("swept")
    with collecting(pushing) as collector:
        for number in range(6):
            pushing.write("swept_data.bin", noise(300_000))
            pushing.write("swept.py", dag_source("swept", "swept", f"return {number}"))
            pushing.parse("swept")
            run, state = pushing.run("swept")
            assert (state, pushing.airflow.xcom("swept", run, "main")) == ("success", number)
            assert "publish_patience_seconds" not in pushing.airflow.task_log("swept", run, "main")
    log = collector.tail(10_000)
    deleted = sum(int(line.split()[1]) for line in log.splitlines() if line.startswith("deleted"))
    assert deleted >= 5, log
    # Nothing of the newest tree was deleted: a worker without any code gets all of it.
    new_empty_worker("unswept")
    pushing.write("unswept.py", dag_source("unswept", "unswept", "return 'whole'"))
    pushing.parse("unswept")
    run, state = pushing.run("unswept")
    assert (state, pushing.airflow.xcom("unswept", run, "main")) == ("success", "whole")


@contextmanager
def collecting(pushing: Pushing) -> Iterator[Process]:
    home = pushing.airflow.home
    process = Process(
        "collector", [sys.executable, "-c", COLLECT], log=home / "collector.out", env=pushing.airflow.environment, cwd=home
    )
    try:
        wait_until(lambda: "deleted" in process.tail(1), timeout_s=30, what="the collector has begun")
        yield process
        assert process.is_running(), process.tail()
    finally:
        process.stop()


def wait_until_scanned(pushing: Pushing) -> None:
    before = wait_until_published(pushing, "dags-folder")["scanned_at"]
    for _ in range(2):  # a scan that has begun may have missed the last file
        wait_until(
            lambda before=before: wait_until_published(pushing, "dags-folder")["scanned_at"] != before,
            timeout_s=60,
            what="another scan has ended",
        )
        before = wait_until_published(pushing, "dags-folder")["scanned_at"]
