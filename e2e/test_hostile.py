"""Topic suite: attacks with a worker's credential on a real central; each succeeded before its fix (docs/explain/security.md)."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from testkit.hostile_worker import HostileWorker, Taken, enrol_hostile_worker
from testkit.processes import free_port, wait_until
from testkit.servers.airflow import Airflow

FILE_DELETE = "airflow.providers.standard.triggers.file.FileDeleteTrigger"
DATE_TIME = "airflow.providers.standard.triggers.temporal.DateTimeTrigger"
TRIGGERER_ROUND_S = 4.0
"""Several rounds of central's triggerer, which looks for triggers every second."""


@pytest.fixture
def hostile(central: Airflow) -> Iterator[HostileWorker]:
    with enrol_hostile_worker(central, "hostile") as hostile:
        yield hostile


@pytest.fixture
def running(central: Airflow, hostile: HostileWorker) -> tuple[str, Taken]:
    """Return a run of a Dag that names nothing and the hostile worker's job of it; the task is running."""
    return _begin(central, hostile)


def _begin(central: Airflow, hostile: HostileWorker, dag_id: str = "prey") -> tuple[str, Taken]:
    run = central.trigger(dag_id)
    job = hostile.take()
    assert job.ti["run_id"] == run, "an earlier test left a job"
    assert hostile.start(job).status_code == 200
    return run, job


def _triggers(central: Airflow) -> list[dict[str, Any]]:
    return central.query("SELECT id, classpath, kwargs, queue FROM trigger ORDER BY id")


@pytest.mark.parametrize(
    ("classpath", "kwargs"),
    [
        (FILE_DELETE, {"filepath": "{victim}", "poke_interval": 0.1}),
        ("airflow.providers.standard.triggers.external_task.WorkflowTrigger", {"external_dag_id": "prey"}),
        ("subprocess.Popen", {"args": ["touch", "{victim}.owned"]}),
        (
            DATE_TIME,
            {"moment": {"__classname__": "datetime.datetime", "__version__": 2, "__data__": {"timestamp": 1.0, "tz": None}}},
        ),
        (DATE_TIME, {"moment": {"__classname__": "os.system", "__version__": 1, "__data__": "touch {victim}.owned"}}),
        (DATE_TIME, {"target_time": "{{ conn.plant.password }}"}),
        ("airflow.triggers.callback.CallbackTrigger", {"callback_path": "os.system", "callback_kwargs": {"command": "true"}}),
    ],
    ids=["deletes files", "another Dag", "any class", "naive moment", "encoded object", "template", "callback"],
)
def test_no_trigger_that_a_worker_names_runs_on_central(
    central: Airflow, hostile: HostileWorker, running: tuple[str, Taken], tmp_path: Path, classpath: str, kwargs: dict[str, Any]
) -> None:
    run, job = running
    victim = tmp_path / "victim"
    victim.write_text("central's")
    trigger_kwargs = json.loads(json.dumps(kwargs).replace("{victim}", str(victim)))
    answer = hostile.defer(job, classpath, trigger_kwargs=trigger_kwargs, next_kwargs={"x": {"__classname__": "os.system"}})
    assert answer.status_code < 300, answer.text
    [row] = [row for row in _triggers(central) if row["queue"] == "airflow-remote-sites"][-1:]
    assert (row["classpath"], row["kwargs"]) == ("airflow_remote_provider.placeholder.RunsAtSite", "{}")
    [task] = central.query("SELECT next_method, next_kwargs FROM task_instance WHERE run_id = :run", run=run)
    assert task["next_method"] == "__fail__" and "__classname__" not in json.dumps(task["next_kwargs"])
    time.sleep(TRIGGERER_ROUND_S)
    assert victim.exists() and not victim.with_name("victim.owned").exists()
    assert central.is_running("triggerer")
    assert central.task_instance("prey", run, "one")["state"] == "deferred", "Airflow can still show the task"
    central.set_task_state("prey", run, "one", "failed")


def test_the_arguments_of_a_task_that_waits_for_input_are_not_decoded_on_central(
    central: Airflow, hostile: HostileWorker
) -> None:
    run, job = _begin(central, hostile)
    body = {"state": "awaiting_input", "next_method": "execute", "next_kwargs": {"x": {"__classname__": "os.system"}}}
    answer = hostile.call(job, "PATCH", f"{job.at}/state", body)
    assert answer.status_code < 300, answer.text
    [task] = central.query("SELECT next_method, next_kwargs FROM task_instance WHERE run_id = :run", run=run)
    assert task["next_method"] == "__fail__" and "__classname__" not in json.dumps(task["next_kwargs"])
    central.set_task_state("prey", run, "one", "failed")


@pytest.mark.parametrize("spelling", ["stat%65", "%73tate", "STATE".lower().replace("a", "%61")])
def test_no_spelling_of_state_reaches_a_task_of_another_worker(central: Airflow, hostile: HostileWorker, spelling: str) -> None:
    """With another spelling the call was once passed on without ending the job, so that later calls had an open lease."""
    run, job = _begin(central, hostile)
    assert (
        hostile.call(job, "PATCH", f"{job.at}/{spelling}", {"state": "failed", "end_date": "2026-01-01T00:00:00Z"}).status_code
        < 300
    )
    [row] = central.jobs(run)
    assert row["concluded_at"] is not None, "the rule that matched records that this call ends the task"


def test_no_spelling_of_run_starts_a_task_without_accepting_it(central: Airflow, hostile: HostileWorker) -> None:
    run = central.trigger("prey")
    job = hostile.take()
    body = {"state": "running", "hostname": "x", "unixname": "x", "pid": 1, "start_date": "2026-01-01T00:00:00Z"}
    assert hostile.call(job, "PATCH", f"{job.at}/ru%6e", body).status_code == 200
    [row] = central.jobs(run)
    assert row["state"] == "running"
    hostile.end(job)


def test_a_host_name_from_a_worker_is_never_called(central: Airflow, hostile: HostileWorker) -> None:
    port = free_port()
    # The scheduler uses central's own port for workers' logs: it serves the logs of local tasks.
    settings = {"AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(port)}
    url = central.start_another_api_server(called="looking", settings=settings)
    run = central.trigger("prey")
    job = hostile.take()

    def look() -> None:
        path = f"{url}/api/v2/dags/prey/dagRuns/{run}/taskInstances/one/logs/1"
        assert central.client().get(path, params={"full_content": "true"}).status_code == 200

    try:
        with _listening(port) as calls:
            assert hostile.start(job, hostname="127.0.0.1").status_code == 200
            assert central.task_instance("prey", run, "one")["hostname"] in ("", None)
            look()
            hostile.defer(job, "site.Trigger")
            look()
            central.set_task_state("prey", run, "one", "failed")
            look()
            assert calls == []
    finally:
        central.stop_process("looking")


@contextmanager
def _listening(port: int) -> Iterator[list[object]]:
    """Listen on the port that Airflow calls for a worker's logs; yield the callers."""
    calls: list[object] = []
    with closing(socket.create_server(("127.0.0.1", port))) as server:
        server.settimeout(0.2)
        over = threading.Event()

        def accept() -> None:
            while not over.is_set():
                try:
                    connection, caller = server.accept()
                except TimeoutError:
                    continue
                connection.close()
                calls.append(caller)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield calls
        finally:
            over.set()
            thread.join(5)


@pytest.mark.parametrize("delay", ["1e300", "NaN", "Infinity", "-1", "1e9"])
def test_no_retry_delay_leaves_a_run_that_never_ends(central: Airflow, hostile: HostileWorker, delay: str) -> None:
    run, job = _begin(central, hostile, "prey_that_retries")
    body = f'{{"state": "up_for_retry", "end_date": "2026-01-01T00:00:00Z", "retry_delay_seconds": {delay}}}'.encode()
    answer = hostile.call(job, "PATCH", f"{job.at}/state", body=body)
    assert answer.status_code == 422, answer.text
    assert hostile.end(job).status_code < 300
    assert central.wait_for_run("prey_that_retries", run) == "success"


@pytest.mark.parametrize("date", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "2026-01-01T00:00:00", "+275760-09-13"])
def test_no_date_breaks_the_execution_api(central: Airflow, hostile: HostileWorker, date: str) -> None:
    run, job = _begin(central, hostile)
    assert hostile.end(job, "failed", end_date=date).status_code == 422
    assert hostile.end(job, "failed").status_code < 300
    assert central.wait_for_run("prey", run) == "failed"


def test_a_concluded_job_can_not_read_or_write(central: Airflow, hostile: HostileWorker) -> None:
    central.api("POST", "variables", json={"key": "after_the_end", "value": "one"})
    central.remote_change("POST", "policies", "hostile", "allow", variables=["after_the_end"])
    run, job = _begin(central, hostile)
    assert hostile.call(job, "GET", "variables/after_the_end").status_code == 200
    xcom = f"xcoms/prey/{run}/one/return_value"
    assert hostile.call(job, "POST", xcom, "honest").status_code < 300
    assert hostile.end(job).status_code < 300
    central.api("PATCH", "variables/after_the_end", json={"key": "after_the_end", "value": "two"})
    assert hostile.call(job, "GET", "variables/after_the_end").status_code in (409, 422)
    assert hostile.call(job, "POST", xcom, "forged").status_code in (409, 422)
    assert hostile.end(job).status_code < 300, "the same state again counts as a repeated request"
    assert hostile.end(job, "failed").status_code in (409, 422)
    assert central.wait_for_run("prey", run) == "success"
    assert central.xcom("prey", run, "one") == "honest"
    central.remote_change("POST", "policies", "hostile", "deny", variables=["after_the_end"])
    central.api("DELETE", "variables/after_the_end")


def test_only_the_worker_that_hosts_a_trigger_can_send_its_event(central: Airflow, hostile: HostileWorker) -> None:
    run, job = _begin(central, hostile)
    assert hostile.defer(job, "site.Trigger").status_code < 300
    [trigger] = [row for row in central.jobs(run) if row["kind"] == "trigger"]
    fired = {"kind": "fired", "payload": "forged"}
    for claimed in (job, Taken(trigger["id"], trigger["epoch"], "trigger", {}), Taken(trigger["id"], 1, "trigger", {})):
        assert hostile.call_protocol(claimed, "event", fired).status_code in (404, 409, 422)
    assert central.task_instance("prey", run, "one")["state"] == "deferred"
    central.set_task_state("prey", run, "one", "failed")
    wait_until(
        lambda: [row["state"] for row in central.jobs(run) if row["kind"] == "trigger"] == ["revoked"],
        timeout_s=60,
        what="the trigger's job is revoked",
    )


ENCODED = {"__classname__": "os.system", "__version__": 1, "__data__": "true"}


def test_values_that_airflow_would_decode_later_are_refused(central: Airflow, hostile: HostileWorker) -> None:
    run, job = _begin(central, hostile)
    xcom = f"xcoms/prey/{run}/one/return_value"
    # The UI parses a text again and decodes the result.
    answer = hostile.call(job, "POST", xcom, json.dumps(ENCODED))
    assert answer.status_code == 422 and "__classname__" in answer.text, answer.text
    assert hostile.call(job, "POST", xcom, json.dumps({"plain": 1})).status_code < 300
    # The API server decodes a user's answer when the task continues with it.
    question = {"ti_id": job.ti["id"], "options": ["yes"], "subject": "go on?"}
    assert hostile.call(job, "POST", f"hitlDetails/{job.ti['id']}", question).status_code < 300
    given = {"ti_id": job.ti["id"], "chosen_options": ["yes"], "params_input": {"x": ENCODED}}
    answer = hostile.call(job, "PATCH", f"hitlDetails/{job.ti['id']}", given)
    assert answer.status_code == 422 and "params_input" in answer.text, answer.text
    assert hostile.end(job).status_code < 300
    assert central.wait_for_run("prey", run) == "success"
    assert central.xcom("prey", run, "one") == {"plain": 1}


def test_old_versions_of_the_execution_api_are_refused(central: Airflow, hostile: HostileWorker) -> None:
    central.trigger("prey")
    job = hostile.take()
    hostile.client.headers["airflow-api-version"] = "2025-04-28"
    answer = hostile.start(job)
    assert answer.status_code == 422 and "airflow-api-version" in answer.text, answer.text
    del hostile.client.headers["airflow-api-version"]
    assert hostile.start(job).status_code == 200
    assert hostile.end(job).status_code < 300


def test_the_lease_of_a_trigger_can_not_change_how_its_task_resumes(central: Airflow) -> None:
    with enrol_hostile_worker(central, "hostile", triggers=1) as hostile:
        run, job = _begin(central, hostile)
        assert hostile.defer(job, "site.Trigger", next_method="resume", next_kwargs={"from": "the task"}).status_code < 300
        assert hostile.report(job).status_code < 300
        trigger = hostile.take()
        assert trigger.kind == "trigger"
        assert hostile.call_protocol(trigger, "accept", {}).status_code < 300
        forged = hostile.defer(trigger, "site.Trigger", next_method="forged", next_kwargs={"from": "the trigger"})
        assert forged.status_code >= 400, forged.text
        assert hostile.fire(trigger, "now").status_code < 300
        resumed = hostile.take()
        answer = hostile.start(resumed).json()
        assert (answer["next_method"], answer["next_kwargs"]) == ("resume", {"from": "the task", "event": "now"})
        assert hostile.end(resumed).status_code < 300
        assert central.wait_for_run("prey", run) == "success"
