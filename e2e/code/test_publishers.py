"""Topic suite: a publisher beside the Dag processor, for bundles that the API server can't publish; killed, and started again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from testkit.processes import Process, wait_until

from .conftest import NewEmptyWorker, Pushing, dag_source, wait_until_published

COMMAND = "remote publish --watch aside repository"


def start(pushing: Pushing) -> Process:
    return pushing.airflow.start_process(COMMAND, called="publisher")


@pytest.fixture
def publisher(pushing: Pushing) -> Iterator[Process]:
    """Start the command, as a second container of the Dag processor's pod would run it."""
    yield start(pushing)
    pushing.airflow.stop_process("publisher")


def shown(pushing: Pushing, bundle: str) -> Any:
    return pushing.airflow.remote_api("bundles", bundle)["about"]


def write_aside(pushing: Pushing, number: int) -> None:
    (pushing.aside / "word_of_aside.py").write_text(f"WORD = {number}\n")
    (pushing.aside / "aside_dag.py").write_text(
        dag_source("beside", "beside", f"return [WORD, {number}]", head="from word_of_aside import WORD")
    )


def test_a_publisher_is_killed_and_started_again(pushing: Pushing, publisher: Process, new_empty_worker: NewEmptyWorker) -> None:
    """Its jobs wait meanwhile, with the reason, and run the code that central parsed."""
    write_aside(pushing, 1)
    pushing.parse("beside", bundle="aside")
    new_empty_worker("beside")
    run, state = pushing.run("beside")
    assert (state, pushing.airflow.xcom("beside", run, "main")) == ("success", [1, 1])
    about = shown(pushing, "aside")
    assert about["publisher"].endswith(f"(process {publisher.pid})")
    assert not about["trouble"]

    pushing.airflow.kill_process("publisher")
    write_aside(pushing, 2)
    pushing.parse("beside", bundle="aside")
    run = pushing.airflow.trigger("beside")
    jobs = wait_until(lambda: pushing.airflow.jobs(run), timeout_s=30, what="the task has a job")
    assert isinstance(jobs, list)
    why = json.dumps(pushing.airflow.remote_api("jobs", jobs[0]["id"], "waiting"))
    assert "It waits until the newest state of the Dag bundle 'aside' is published" in why
    assert "airflow remote publish on" in why  # who published it last
    assert "To publish it where its files are: airflow remote publish aside" in why

    again = start(pushing)
    assert pushing.airflow.wait_for_run("beside", run) == "success"
    assert pushing.airflow.xcom("beside", run, "main") == [2, 2]
    assert "publish_patience_seconds" not in pushing.airflow.task_log("beside", run, "main")
    assert shown(pushing, "aside")["publisher"].endswith(f"(process {again.pid})")


def test_a_run_of_a_git_bundle_keeps_its_commit(pushing: Pushing, publisher: Process, new_empty_worker: NewEmptyWorker) -> None:
    """Also one that was never the newest while a publisher ran, and one that runs again after later commits."""
    source = dag_source("committed", "committed", "return WORD", head="from word_of_commit import WORD")
    new_empty_worker("committed")
    runs, commits = [], []

    def commit(word: str) -> str:
        commits.append(pushing.repository.commit(committed=source, word_of_commit=f"WORD = {word!r}\n"))
        pushing.parse("committed", bundle="repository")
        return commits[-1]

    first = commit("one")
    run, state = pushing.run("committed")
    assert (state, pushing.airflow.xcom("committed", run, "main")) == ("success", "one")
    assert first in pushing.airflow.task_log("committed", run, "main")
    runs.append(run)

    pushing.airflow.stop_process("publisher")
    for word in ("two", "three"):
        commit(word)
        runs.append(pushing.airflow.trigger("committed"))
    start(pushing)
    for run, word in zip(runs[1:], ("two", "three"), strict=True):
        assert pushing.airflow.wait_for_run("committed", run) == "success"
        assert pushing.airflow.xcom("committed", run, "main") == word

    pushing.airflow.clear_task("committed", runs[0], "main")
    assert pushing.airflow.wait_for_run("committed", runs[0]) == "success"
    assert pushing.airflow.xcom("committed", runs[0], "main") == "one"
    versions = [{job["bundle_version"] for job in pushing.airflow.jobs(run)} for run in runs]
    assert versions == [{commit} for commit in commits]
    assert wait_until_published(pushing, "repository")["versioned"]
