"""Real Dags in a real runtime, hosted through the zygote and without it; only the daemon is a stub."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import anyio
import psutil
import pytest
from airflow_remote_worker.jobs.outbox_reader import OutboxReader
from airflow_remote_worker.local import boottime, frames, job_files

from .conftest import KEY, Job, StubDaemon, ZygoteUnderTest, canned, wait_until

pytestmark = pytest.mark.runtime

MakeJob = Callable[..., Job]

PYTHON_TASK = """
import time
from airflow.sdk import DAG, task
with DAG("a_dag", schedule=None):
    @task
    def a_task():
        print("user code at", time.time())
        return 42
    a_task()
"""
BASH_TASK = """
from airflow.sdk import DAG
from airflow.providers.standard.operators.bash import BashOperator
with DAG("a_dag", schedule=None):
    BashOperator(task_id="a_task", bash_command="echo hello from bash")
"""
FAILING_TASK = """
from airflow.sdk import DAG, task
with DAG("a_dag", schedule=None):
    @task
    def a_task():
        raise ValueError("the press is jammed")
    a_task()
"""
SECRET_TASK = """
import logging
from airflow.sdk import BaseHook, DAG, task
with DAG("a_dag", schedule=None):
    @task
    def a_task():
        password = BaseHook.get_connection("vault").password
        print("printed", password)
        logging.getLogger("a.b").warning("logged %s", password)
        raise ValueError("raised " + password)
    a_task()
"""
SLEEPING_TASK = """
import subprocess, time
from airflow.sdk import DAG, BaseOperator
class Sleeper(BaseOperator):
    def execute(self, context):
        self.process = subprocess.Popen(["sleep", "120"])
        print("asleep at", time.time(), flush=True)
        raise RuntimeError(f"sleep ended with {self.process.wait()}")
    def on_kill(self):
        print("on_kill ran at", time.time(), flush=True)
        self.process.terminate()
with DAG("a_dag", schedule=None):
    Sleeper(task_id="a_task")
"""
SOCKETS_TASK = """
import os, stat
from airflow.sdk import DAG, task
def sockets():
    for fd in range(256):
        try: status = os.fstat(fd)
        except OSError: continue
        if stat.S_ISSOCK(status.st_mode): yield status.st_ino
with DAG("a_dag", schedule=None):
    @task
    def a_task():
        print("sockets:", len(set(sockets())))
    a_task()
"""
UNRESPONSIVE_TASK = """
import time
from airflow.sdk import DAG, task
with DAG("a_dag", schedule=None):
    @task
    def a_task():
        print("asleep at", time.time(), flush=True)
        time.sleep(120)
    a_task()
"""
PATIENT_TASK = """
import time, pathlib
from airflow.sdk import DAG, Variable, task
with DAG("a_dag", schedule=None):
    @task
    def a_task():
        print("ready", flush=True)
        while not pathlib.Path("{flag}").exists():
            time.sleep(0.02)
        print("variable is", Variable.get("x", default="absent"))
    a_task()
"""
PUSHING_TASK = """
import time, pathlib
from airflow.sdk import DAG, task
with DAG("a_dag", schedule=None):
    @task
    def a_task(ti=None):
        print("ready", flush=True)
        while not pathlib.Path("{flag}").exists():
            time.sleep(0.02)
        ti.xcom_push(key="first", value=[1, "grüße"])
        ti.xcom_push(key="second", value=2)
        print("pushed", flush=True)
        return 3
    a_task()
"""
EXECUTOR_TASK = """
from airflow.sdk import DAG, task
with DAG("a_dag", schedule=None):
    @task(executor="{name}")
    def a_task():
        print("loaded")
    a_task()
    @task(executor="AnotherTeamsExecutor")
    def another(): ...
    another()
"""
READS_AT_ITS_TOP = """
from airflow.sdk import DAG, Variable, task
LIMIT = Variable.get("limit", default=3)
with DAG("a_dag", schedule=None):
    @task
    def a_task(): ...
    a_task()
"""
BROKEN_AT_ITS_TOP = """
raise LookupError("no such module yet")
"""

AFTER_THE_END = """
from airflow.sdk import DAG, BaseOperator, BaseOperatorLink, Variable
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred
from airflow.triggers.base import BaseTrigger
class T(BaseTrigger):
    def serialize(self):
        return "a.T", {{}}
    async def run(self):
        yield None
class Link(BaseOperatorLink):
    name = "a link"
    xcom_key = "a_link"
    def get_link(self, operator, *, ti_key):
        return "https://example.com"
def notify(context):
    print("the callback read", Variable.get("plant"))
    context["ti"].xcom_push(key="said", value="it")
class Linked(BaseOperator):
    operator_extra_links = (Link(),)
    def execute(self, context):
        {end}
with DAG("a_dag", schedule=None):
    Linked(task_id="a_task", on_success_callback=notify, on_failure_callback=notify, on_skipped_callback=notify)
"""


@pytest.mark.parametrize(("source", "printed"), [(PYTHON_TASK, "user code at"), (BASH_TASK, "hello from bash")])
def test_a_task_succeeds_through_the_zygote(
    source: str, printed: str, zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon
) -> None:
    job = make_job(source)
    spawned = zygote.spawn(job)
    assert job.result() == job_files.Result(exit_code=0, final_state="success", begun=True)
    assert spawned.pid == job.pid
    assert printed in job.events()
    assert daemon.reported_states() == ["success"]
    assert daemon.hellos[0] == frames.Hello(job_id="job0", key=KEY, pid=job.pid)
    run = json.loads(daemon.paths("/run")[0].body)
    assert run["hostname"] == "press-7"
    assert not daemon.paths("/heartbeat")


def test_a_task_succeeds_without_a_zygote(run_host: Callable[[Job], None], make_job: MakeJob, daemon: StubDaemon) -> None:
    job = make_job(PYTHON_TASK)
    run_host(job)
    assert job.result() == job_files.Result(exit_code=0, final_state="success", begun=True)
    assert daemon.reported_states() == ["success"]
    assert "return_value" in daemon.paths("/return_value")[0].path
    print(f"fresh interpreter to user code: {job.stamp('user code at') - job.spawned_at:.3f} s")


def test_user_code_starts_quickly(zygote: ZygoteUnderTest, make_job: MakeJob) -> None:
    starts, ends = [], []
    for _ in range(10):
        job = make_job(PYTHON_TASK)
        zygote.spawn(job)
        wait_until(lambda job=job: (job.directory / "result.json").exists())
        starts.append(job.stamp("user code at") - job.spawned_at)
        ends.append((job.directory / "result.json").stat().st_mtime - job.stamp("user code at"))
    print(
        f"spawn to user code: {[round(s * 1000) for s in starts]} ms; user code to result: {[round(s * 1000) for s in ends]} ms"
    )


def test_a_dag_file_with_a_denied_top_level_read_fails_its_task_at_once(
    zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon
) -> None:
    def deny(call: frames.Call) -> frames.Answer:
        if call.path != "variables/limit":
            return canned(call)
        body = {"detail": {"reason": "not_granted", "message": "Not granted to this job: variable 'limit'; declare it"}}
        return frames.Answer(call.id, 403, {"content-type": "application/json"}, json.dumps(body).encode())

    daemon.answer = deny
    job = make_job(READS_AT_ITS_TOP)
    zygote.spawn(job)
    assert job.result().final_state == "failed"
    assert daemon.reported_states() == ["failed"]
    assert "Not granted to this job: variable 'limit'" in job.events()
    assert "The task is not rescheduled" in job.events()


def test_a_dag_file_that_does_not_load_for_another_reason_is_rescheduled(
    zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon
) -> None:
    job = make_job(BROKEN_AT_ITS_TOP)
    zygote.spawn(job)
    job.result()
    assert daemon.reported_states() == ["up_for_reschedule"]
    assert "The task is not rescheduled" not in job.events()


@pytest.mark.parametrize(
    "end", ["return", "raise AirflowSkipException", "raise ValueError", "raise TaskDeferred(trigger=T(), method_name='x')"]
)
def test_the_state_is_the_last_call_of_a_task_whatever_code_runs_later(
    end: str, zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon
) -> None:
    """Callbacks and operator links run after the Task SDK has sent a task's state, after which central accepts no call."""
    daemon.answer = _with_the_variable
    job = make_job(AFTER_THE_END.format(end=end))
    zygote.spawn(job)
    job.result()
    made = [call.path.partition("?")[0].rpartition("/")[2] for call in daemon.calls]
    assert "a_link" in made, job.events()
    assert made[-1] == "state" and made.count("state") == 1, made
    if "Deferred" not in end:
        assert "the callback read open" in job.events()
        assert {"plant", "said"} <= set(made)


def _with_the_variable(call: frames.Call) -> frames.Answer:
    if call.path.startswith("variables/plant"):
        body = json.dumps({"key": "plant", "value": "open"}).encode()
        return frames.Answer(id=call.id, status=200, headers={"content-type": "application/json"}, body=body)
    return canned(call)


def test_a_failing_task_fails(zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon) -> None:
    job = make_job(FAILING_TASK)
    zygote.spawn(job)
    assert job.result() == job_files.Result(exit_code=0, final_state="failed", begun=True)
    assert daemon.reported_states() == ["failed"]
    assert "the press is jammed" in json.dumps(job.log())


def test_a_dag_that_does_not_load_leaves_the_reason_in_its_log(zygote: ZygoteUnderTest, make_job: MakeJob) -> None:
    job = make_job("import a_module_that_nobody_has")
    zygote.spawn(job)
    assert job.result() == job_files.Result(exit_code=0, final_state="up_for_reschedule")  # Airflow 3.3 tries such a start again
    assert "a_module_that_nobody_has" in json.dumps(job.log())


def test_no_file_of_the_job_shows_a_secret(zygote: ZygoteUnderTest, make_job: MakeJob) -> None:
    job = make_job(SECRET_TASK)
    zygote.spawn(job)
    assert job.result().final_state == "failed"
    assert "printed ***" in job.events()
    assert "logged ***" in job.events()
    for path in job.directory.iterdir():
        assert b"correct-horse" not in path.read_bytes(), path.name
        assert path.name == "job.json" or stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path.name


def test_a_stop_ends_a_sleeping_task(zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon) -> None:
    job = make_job(SLEEPING_TASK)
    zygote.spawn(job)
    job.wait_for_event("asleep at")
    daemon.stop_job("ended", "ada marked it failed")
    result = job.result(60)  # it would sleep for two minutes
    assert result.stopped
    assert result.final_state == "SERVER_TERMINATED"
    assert "on_kill ran" in job.events()
    assert "ada marked it failed" in json.dumps(job.log())
    assert daemon.reported_states() == []


def test_a_task_that_ignores_a_stop_is_killed(zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon) -> None:
    job = make_job(UNRESPONSIVE_TASK)
    zygote.spawn(job)
    job.wait_for_event("asleep at")
    daemon.stop_job()
    assert job.result(20) == job_files.Result(
        exit_code=-9, final_state="SERVER_TERMINATED", stopped=True, begun=True
    )  # after Airflow's 5 s


def test_a_stop_before_the_start_starts_nothing(zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon) -> None:
    def stop_then_refuse(call: frames.Call) -> frames.Answer | None:
        daemon.stop_job("superseded")
        return None

    daemon.answer = stop_then_refuse
    job = make_job(PYTHON_TASK)
    zygote.spawn(job)
    result = job.result()
    assert result.stopped
    assert "superseded" in result.error
    assert "user code" not in job.events()


def test_a_refused_start_is_explained_in_result_and_log(zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon) -> None:
    body = {"detail": {"reason": "invalid_state", "message": "TI was not in the queued state", "previous_state": "success"}}
    daemon.answer = lambda call: frames.Answer(
        id=call.id, status=409, headers={"content-type": "application/json"}, body=json.dumps(body).encode()
    )
    job = make_job(PYTHON_TASK)
    zygote.spawn(job)
    result = job.result()
    assert (result.exit_code, result.stopped) == (1, False)
    assert "TI was not in the queued state" in result.error
    assert "TI was not in the queued state" in job.log()[-1]["event"]


def test_a_task_outlives_the_daemon(zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    job = make_job(PATIENT_TASK.format(flag=flag))
    zygote.spawn(job)
    job.wait_for_event("ready")
    daemon.go_away()
    flag.touch()  # now the task reads a variable, without a daemon
    time.sleep(1.5)
    daemon.start()
    assert job.result() == job_files.Result(exit_code=0, final_state="success", begun=True)
    assert "variable is absent" in job.events()
    assert daemon.reported_states() == ["success"]


def test_an_idle_shim_reconnects_to_the_daemon_and_receives_its_stop(
    zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon
) -> None:
    job = make_job(SLEEPING_TASK)
    zygote.spawn(job)
    job.wait_for_event("asleep at")
    daemon.go_away()
    time.sleep(0.2)
    known = len(daemon.hellos)
    daemon.start()
    wait_until(lambda: len(daemon.hellos) > known, 5)
    daemon.stop_job("cleared")
    assert job.result(10).stopped


def test_a_stop_is_received_while_central_is_unreachable(
    zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    job = make_job(PATIENT_TASK.format(flag=flag))
    zygote.spawn(job)
    job.wait_for_event("ready")
    daemon.answer = lambda call: None if "variables" in call.path else canned(call)
    flag.touch()
    wait_until(lambda: [call for call in daemon.calls if "variables" in call.path])
    daemon.stop_job("superseded")
    job.result(10)


@pytest.mark.parametrize("name", ["RemoteExecutor", "some.module.NobodyHas", "CeleryExecutor"])
def test_a_dag_may_name_any_executor(name: str, zygote: ZygoteUnderTest, make_job: MakeJob) -> None:
    job = make_job(EXECUTOR_TASK.format(name=name))
    zygote.spawn(job)
    assert job.result().final_state == "success"
    assert "loaded" in job.events()


def test_a_shim_outlives_its_zygote(
    new_zygote: Callable[[str], ZygoteUnderTest], runtime: str, make_job: MakeJob, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    zygote = new_zygote(runtime)
    job = make_job(PATIENT_TASK.format(flag=flag))
    spawned = zygote.spawn(job)
    job.wait_for_event("ready")
    assert psutil.Process(job.pid).create_time() == spawned.start_time
    assert os.getsid(job.pid) == job.pid
    assert zygote.leave() == 0
    flag.touch()
    assert job.result() == job_files.Result(exit_code=0, final_state="success", begun=True)


def test_the_zygote_reaps_its_shims(zygote: ZygoteUnderTest, make_job: MakeJob) -> None:
    job = make_job(PYTHON_TASK)
    zygote.spawn(job)
    job.result()
    wait_until(lambda: not psutil.pid_exists(job.pid), 10)


def test_a_task_does_not_hold_the_daemons_socket(zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon) -> None:
    job = make_job(SOCKETS_TASK)
    zygote.spawn(job)
    assert job.result().final_state == "success"
    assert "sockets: 4" in job.events()  # requests, stdout, stderr, logs


def test_a_spec_that_cannot_be_read_leaves_a_result(zygote: ZygoteUnderTest, make_job: MakeJob) -> None:
    job = make_job(PYTHON_TASK)
    (job.directory / "job.json").write_text("{")
    zygote.spawn(job)
    result = job.result()
    assert result.exit_code == 1
    assert result.error
    assert job.log()[-1]["level"] == "error"


# Without central, without a daemon


def spooled(job: Job) -> list[frames.Call]:
    """Return the calls in the job's outbox."""
    calls: list[frames.Call] = []

    async def read() -> None:
        outbox = OutboxReader(job.directory)
        while (call := outbox.next()) is not None:
            calls.append(call)
            await outbox.acknowledge()

    anyio.run(read)
    return calls


def assert_that_all_was_kept(job: Job) -> None:
    first, second, returned, state = spooled(job)
    assert [first.path.split("/")[-1], second.path.split("/")[-1]] == ["first", "second"]
    assert json.loads(first.body) == [1, "grüße"]
    assert "return_value" in returned.path and json.loads(returned.body) == 3
    assert (state.method, state.path.split("/")[-1]) == ("PATCH", "state")
    content = json.loads(state.body)
    ended = datetime.fromisoformat(content["end_date"].replace("Z", "+00:00")).timestamp()
    assert content["state"] == "success"
    assert job.spawned_at < ended < time.time(), "the state has the time at which the task ended"
    assert {"airflow-api-version", "content-type"} <= set(state.headers)


def test_a_task_ends_while_central_is_unreachable(
    zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    job = make_job(PUSHING_TASK.format(flag=flag))
    zygote.spawn(job)
    job.wait_for_event("ready")
    daemon.answer = lambda call: frames.Spool(id=call.id) if call.may_spool else None
    flag.touch()
    assert job.result() == job_files.Result(exit_code=0, final_state="success", begun=True)
    assert_that_all_was_kept(job)
    assert daemon.spooled == 4
    assert [call.path.split("/")[-1] for call in daemon.calls if call.may_spool][-1] == "first", "later writes follow it unasked"


def test_a_task_ends_without_a_daemon(zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    job = make_job(PUSHING_TASK.format(flag=flag))
    zygote.spawn(job)
    job.wait_for_event("ready")
    daemon.go_away()
    flag.touch()
    assert job.result(20) == job_files.Result(exit_code=0, final_state="success", begun=True)
    assert_that_all_was_kept(job)


def test_a_shim_without_a_daemon_stops_its_task_in_time(
    zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon, tmp_path: Path
) -> None:
    contact = tmp_path / "contact"
    job = make_job(SLEEPING_TASK, stop_after_s=4.0, contact_at=boottime.now(), contact_path=str(contact))
    zygote.spawn(job)
    job.wait_for_event("asleep at")
    last_contact = boottime.now()
    contact.write_text(repr(last_contact))
    time.sleep(4.5)
    assert not (job.directory / "result.json").exists(), "while the daemon is connected, the shim does not enforce the limit"
    contact.write_text(repr(last_contact := boottime.now()))
    daemon.go_away()
    result = job.result(60)  # it would sleep for two minutes
    assert (result.stopped, result.final_state) == (True, "SERVER_TERMINATED")
    assert "no contact with central for 4 s" in json.dumps(job.log())
    assert "on_kill ran" in job.events()
    assert boottime.now() - last_contact > 4
