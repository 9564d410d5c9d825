"""Exceptions in methods of the executor don't stop Airflow's scheduler, nor the tasks of other executors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from testkit import scheduler_loop
from testkit.processes import clean_environment

ROOT = Path(__file__).parents[2]
TRANSIENT = {"no tables", "another revision", "database away", "no connection free", "lock timeout"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of each method's Dag runs, from one process that runs Airflow's own loop."""
    home = tmp_path_factory.mktemp("scheduler") / "home"
    command = [sys.executable, "-m", "testkit.scheduler_loop", str(home)]
    environment = clean_environment({"PYTHONPATH": str(ROOT)})
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith(scheduler_loop.RESULT)]
    return [json.loads(line.removeprefix(scheduler_loop.RESULT)) for line in lines]


def test_each_method_was_made_to_raise_each_kind_of_error(results: list[dict[str, Any]]) -> None:
    seen = {(result["method"], kind) for result in results for kind, calls in result["calls"].items() if calls}
    assert seen == {(method, kind) for method in scheduler_loop.METHODS for kind in scheduler_loop.kinds()}


def test_no_error_ends_the_loop(results: list[dict[str, Any]]) -> None:
    assert [result["ended"] for result in results] == [[]] * len(results)


def test_a_task_of_another_executor_runs(results: list[dict[str, Any]]) -> None:
    assert {(result["method"], result["other"]) for result in results} == {
        (method, "success") for method in scheduler_loop.METHODS
    }


def test_a_remote_task_waits_for_transient_faults_and_fails_for_permanent_ones(results: list[dict[str, Any]]) -> None:
    found = {r["kinds"][0]: (r["remote"], r["job"]) for r in results if r["method"] == "_process_workloads"}
    assert found == {kind: ("queued", "queued") if kind in TRANSIENT else ("failed", None) for kind in scheduler_loop.kinds()}, (
        "it is handed in by the first heartbeat that works"
    )


def test_each_reason_is_logged_once_with_its_remedy(results: list[dict[str, Any]]) -> None:
    for result in results:
        assert len(set(result["lines"])) == len(result["lines"]) >= len(result["kinds"]), result["lines"]
    lines = [line for result in results for line in result["lines"]]
    assert all("airflow db migrate" in line for line in lines if "does not exist" in line)
    assert all("Correct it in Airflow's configuration" in line for line in lines if "[remote]" in line)
