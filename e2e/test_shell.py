"""Topic suite: BashOperator with templates, params, environment and exit codes."""

from testkit.servers.airflow import Airflow
from testkit.worker import Worker


def test_templates_params_and_environment_are_those_of_the_worker(central: Airflow, worker: Worker) -> None:
    run = central.trigger("shell", {"who": "someone"})
    assert central.wait_for_run("shell", run) == "success"
    assert central.xcom("shell", run, "say") == "someone@shell/say"
    fields = central.task_instance("shell", run, "say")["rendered_fields"]
    assert fields["bash_command"] == "echo someone@shell/say"
    assert central.xcom("shell", run, "only_its_own") == "someone & 'friends' at nowhere"
    assert central.xcom("shell", run, "its_own_and_the_workers") == f"someone at {worker.name}"
    assert central.task_instance("shell", run, "skip")["state"] == "skipped"


def test_a_failing_exit_code_is_retried_and_then_fails(central: Airflow, worker: Worker) -> None:
    run = central.trigger("shell_fails")
    central.wait_for_task("shell_fails", run, "fail", "up_for_retry")
    assert central.wait_for_run("shell_fails", run) == "failed"
    task = central.task_instance("shell_fails", run, "fail")
    assert (task["state"], task["try_number"]) == ("failed", 2)
    for attempt in (1, 2):
        log = central.task_log("shell_fails", run, "fail", attempt)
        assert f"this is try {attempt}" in log
        assert "exit code 3" in log
