"""Either end goes away while a task runs; the task does not notice."""

import time

from testkit.airflow import Airflow
from testkit.processes import wait_until
from testkit.worker import Worker


def test_a_task_outlives_a_restart_of_the_api_server(central: Airflow, worker: Worker) -> None:
    run = central.trigger("talking", {"lines": 30, "every_s": 0.5})
    central.wait_for_task("talking", run, "talk", "running")
    time.sleep(1)
    central.stop_process("api-server")
    # Long enough for polls, log chunks and heartbeats to meet a closed door.
    time.sleep(3)
    central.start_api_server()
    assert central.wait_for_run("talking", run) == "success"
    _assert_one_try_with_all_lines(central, run, 30)


def test_a_task_that_ends_while_central_is_away_is_a_success(central: Airflow, worker: Worker) -> None:
    run = central.trigger("talking", {"lines": 8, "every_s": 0.5})
    central.wait_for_task("talking", run, "talk", "running")
    central.stop_process("api-server")
    time.sleep(8)
    central.start_api_server()
    assert central.wait_for_run("talking", run) == "success"
    _assert_one_try_with_all_lines(central, run, 8)


def test_a_task_outlives_kill_9_of_the_daemon(central: Airflow, worker: Worker) -> None:
    run = central.trigger("talking", {"lines": 24, "every_s": 0.5})
    central.wait_for_task("talking", run, "talk", "running")
    time.sleep(1)
    worker.kill()
    time.sleep(2)
    worker.start()
    assert central.wait_for_run("talking", run) == "success"
    _assert_one_try_with_all_lines(central, run, 24)


def _assert_one_try_with_all_lines(central: Airflow, run: str, lines: int) -> None:
    assert central.task_instance("talking", run, "talk")["try_number"] == 1
    assert central.xcom("talking", run, "talk") == lines

    def numbers() -> list[int]:
        log = central.task_log("talking", run, "talk")
        return [number for number in range(lines) for _ in range(log.count(f"line {number}: "))]

    wait_until(lambda: numbers() == list(range(lines)), timeout_s=15, what="every line is there once", every_s=0.5)
