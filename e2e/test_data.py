"""Topic suite: XComs, mapped values, variables and connections of tasks, and failures of tasks."""

import secrets

from testkit.servers.airflow import Airflow
from testkit.worker import Worker

REMOTE = "RemoteExecutor"


def test_the_demo_dag_runs_to_its_end(central: Airflow, worker: Worker) -> None:
    run = central.trigger("remote_demo", {"numbers_up_to": 3})
    assert central.wait_for_run("remote_demo", run) == "success"
    tasks = central.task_instances("remote_demo", run)
    assert {task["task_id"] for task in tasks if task["state"] != "success"} == {"take_too_long"}
    jobs = [job for job in central.remote_api("jobs") if job["run_id"] == run]
    assert len(jobs) == len([task for task in tasks if task["executor"] == REMOTE]) == 6
    assert {job["worker"] for job in jobs} == {worker.name}


def test_xcoms_go_from_local_to_remote_and_back(central: Airflow, worker: Worker) -> None:
    run = central.trigger("there_and_back")
    assert central.wait_for_run("there_and_back", run) == "success"
    assert central.xcom("there_and_back", run, "local_again") == 1_000_000


def test_mapped_values_and_several_outputs_work_in_both_directions(central: Airflow, worker: Worker) -> None:
    run = central.trigger("many")
    assert central.wait_for_run("many", run) == "success"
    assert central.xcom("many", run, "one_here") == "6.0 ['a', 'b']"
    assert central.xcom("many", run, "several_there", "parts") == ["a", "b"]
    assert [central.xcom("many", run, "double_there", map_index=index) for index in range(3)] == [2, 4, 6]


def test_variables_and_connections_of_central_are_read_and_a_password_is_masked(central: Airflow, worker: Worker) -> None:
    password = secrets.token_hex(12)
    connection = {"connection_id": "plant", "conn_type": "http", "host": "plant.example", "port": 8080, "password": password}
    central.api("POST", "connections", json={**connection, "extra": '{"region": "north"}'})
    central.api("POST", "variables", json={"key": "e2e_text", "value": "grüße"})
    central.api("POST", "variables", json={"key": "e2e_json", "value": '{"a": [1, 2]}'})
    run = central.trigger("configured")
    assert central.wait_for_run("configured", run) == "success"
    assert central.xcom("configured", run, "read") == {
        "text": "grüße",
        "json": {"a": [1, 2]},
        "missing": "a default",
        "host": "plant.example",
        "extra": {"region": "north"},
        "password_length": len(password),
    }
    assert central.xcom("configured", run, "template") == "grüße 2 plant.example:8080"
    assert central.api("GET", "variables/e2e_written")["value"] == "from afar"
    log = central.task_log("configured", run, "read")
    assert "the password is ***" in log
    assert password not in log
    assert not [path for path in worker.task_logs() if password.encode() in path.read_bytes()]


def test_a_failed_try_is_retried(central: Airflow, worker: Worker) -> None:
    run = central.trigger("second_try")
    assert central.wait_for_run("second_try", run) == "success"
    assert central.xcom("second_try", run, "stumble") == 2
    assert "the first try fails on purpose" in central.task_log("second_try", run, "stumble", 1)
    assert "this is try 2" in central.task_log("second_try", run, "stumble", 2)


def test_an_error_in_the_dags_code_fails_the_task_and_is_in_its_log(central: Airflow, worker: Worker) -> None:
    run = central.trigger("never_works")
    assert central.wait_for_run("never_works", run) == "failed"
    assert "a mistake in the Dag author's code" in central.task_log("never_works", run, "fail")
