"""Topic suite: DockerOperator on a worker, with a real daemon that only the worker can reach."""

from collections.abc import Callable, Iterator

import pytest

from testkit.processes import wait_until
from testkit.servers.airflow import Airflow
from testkit.servers.podman import Podman
from testkit.worker import Worker


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    with Podman() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def worker(central: Airflow, new_worker: Callable[..., Worker], podman: Podman) -> Iterator[Worker]:
    worker = new_worker(central, "harbour", queues="harbour", slots=1, variables={"DOCKER_HOST": podman.url})
    yield worker
    worker.stop()


def test_a_containers_output_is_in_the_log_and_its_last_line_is_the_xcom(
    central: Airflow, worker: Worker, podman: Podman
) -> None:
    run = central.trigger("contained", {"who": "someone"})
    assert central.wait_for_run("contained", run) == "success"
    log = central.task_log("contained", run, "say")
    assert "the first line" in log
    assert "grüße someone, try 1" in log
    assert central.xcom("contained", run, "say") == "grüße someone, try 1"
    assert podman.containers() == []


def test_a_containers_exit_code_fails_the_task(central: Airflow, worker: Worker, podman: Podman) -> None:
    run = central.trigger("contained_failure")
    assert central.wait_for_run("contained_failure", run) == "failed"
    log = central.task_log("contained_failure", run, "fail")
    assert "before the end" in log
    assert "'StatusCode': 7" in log
    assert podman.containers() == []


def test_stopping_the_task_removes_its_container(central: Airflow, worker: Worker, podman: Podman) -> None:
    run = central.trigger("contained_wait", {"name": "lingering"})
    wait_until(lambda: podman.containers() == ["lingering"], timeout_s=60, what="the container runs")
    wait_until(lambda: "it runs" in central.task_log("contained_wait", run, "linger"), timeout_s=30, what="it runs")
    central.set_task_state("contained_wait", run, "linger", "failed")
    # 3 s until the stop arrives, plus the daemon's stop of the container.
    wait_until(lambda: not podman.containers(), timeout_s=60, what="the container is gone", every_s=0.2)
    assert central.wait_for_run("contained_wait", run) == "failed"
