"""What tasks take in and give back: XCom, templates, params; what happens when they fail."""

from testkit.airflow import Airflow
from testkit.worker import Worker

REMOTE = "RemoteExecutor"


def test_the_demo_dag_runs_to_its_end(central: Airflow, worker: Worker) -> None:
    run = central.trigger("remote_demo", {"numbers_up_to": 3})
    assert central.wait_for_run("remote_demo", run) == "success"
    tasks = central.task_instances("remote_demo", run)
    assert {task["task_id"] for task in tasks if task["state"] != "success"} == {"take_too_long"}
    jobs = [job for job in central.remote_cli("jobs", "list") if job["run_id"] == run]
    assert len(jobs) == len([task for task in tasks if task["executor"] == REMOTE]) == 6
    assert {job["worker"] for job in jobs} == {worker.name}


def test_xcoms_go_from_local_to_remote_and_back(central: Airflow, worker: Worker) -> None:
    run = central.trigger("there_and_back")
    assert central.wait_for_run("there_and_back", run) == "success"
    assert central.xcom("there_and_back", run, "local_again") == 1_000_000


def test_templates_and_params_are_rendered_on_the_worker(central: Airflow, worker: Worker) -> None:
    run = central.trigger("rendered", {"who": "somebody"})
    assert central.wait_for_run("rendered", run) == "success"
    assert central.xcom("rendered", run, "say") == "somebody@rendered/say"
    fields = central.task_instance("rendered", run, "say")["rendered_fields"]
    assert fields["bash_command"] == "echo somebody@rendered/say"


def test_a_failed_try_is_followed_by_the_next(central: Airflow, worker: Worker) -> None:
    run = central.trigger("second_try")
    assert central.wait_for_run("second_try", run) == "success"
    assert central.xcom("second_try", run, "stumble") == 2
    assert "the first try fails on purpose" in central.task_log("second_try", run, "stumble", 1)
    assert "this is try 2" in central.task_log("second_try", run, "stumble", 2)


def test_an_authors_mistake_fails_the_task_and_is_in_its_log(central: Airflow, worker: Worker) -> None:
    run = central.trigger("never_works")
    assert central.wait_for_run("never_works", run) == "failed"
    assert "a mistake in the Dag author's code" in central.task_log("never_works", run, "fail")
