"""Hosting one job: from `job.json` to `result.json`, with stubs of the Task SDK's supervisors and with a real runtime."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from airflow_remote_worker import shim
from airflow_remote_worker.local import job_files
from airflow_remote_worker.local.seal import unsealed
from airflow_remote_worker.shim import host, lossy, posix, triggers

from .conftest import LAUNCH, Job, ZygoteUnderTest, wait_until

MakeJob = Callable[..., Job]
SUPERVISORS = {
    "task": ("airflow_remote_worker.shim.tasks", "host_task"),
    "callback": ("airflow_remote_worker.shim.callbacks", "host_callback"),
    "connection-test": ("airflow_remote_worker.shim.connection_tests", "host_connection_test"),
}
DAG = """
from airflow.sdk import DAG, task
def call_back():
    print("called back")
with DAG("a_dag", schedule=None):
    @task
    def a_task():
        print("ran")
    a_task()
"""


class Stubs:
    """The functions that host each kind of job. They record their calls and return *result* or raise *error*."""

    def __init__(self) -> None:
        self.result = job_files.Result(exit_code=0, final_state="success")
        self.error: BaseException | None = None
        self.left: list[str] = []
        """The processes that the job left, as `Leftovers.end` returns them."""
        self.steps: list[str] = []
        """In order: the kind that was hosted, `end` of left processes, `note` of lost log lines, `result`."""
        self.jobs: list[job_files.JobSpec] = []
        self.users: list[str] = []

    def host(self, kind: str, job: job_files.JobSpec, log: Path) -> job_files.Result:
        assert log.exists(), "a log that can't be opened must fail the job before it runs"
        self.steps.append(kind)
        self.jobs.append(job)
        if self.error is not None:
            raise self.error
        return self.result

    def end(self) -> list[str]:
        self.steps.append("end")
        return self.left


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> Stubs:
    """Replace everything that needs Airflow or changes the process that runs the tests."""
    stubs = Stubs()
    monkeypatch.setenv(job_files.JOB_MARK, "")  # so that it is restored
    monkeypatch.setattr(lossy, "guard_stdio", lambda: None)
    monkeypatch.setattr(lossy, "use_lossy_log_files", lambda: None)
    monkeypatch.setattr(host, "preload", lambda: None)
    monkeypatch.setattr(host.run_as, "fork_children_as", stubs.users.append)
    monkeypatch.setattr(os, "register_at_fork", lambda *, after_in_child: None)
    monkeypatch.setattr(posix, "leftovers", stubs)
    for kind, (module, function) in SUPERVISORS.items():
        stub = SimpleNamespace(**{function: lambda job, gateway, log, outbox=None, kind=kind: stubs.host(kind, job, log)})
        monkeypatch.setitem(sys.modules, module, stub)  # type: ignore[arg-type]
    for step in ("write_loss_mark", "write_result"):
        monkeypatch.setattr(host, step, _recorded(stubs, step.removeprefix("write_"), getattr(host, step)))
    return stubs


def _recorded(stubs: Stubs, step: str, function: Callable[..., None]) -> Callable[..., None]:
    def call(*arguments: Any) -> None:
        stubs.steps.append(step)
        function(*arguments)

    return call


@pytest.mark.parametrize("kind", SUPERVISORS)
def test_each_kind_of_job_is_hosted_by_its_function(stubs: Stubs, make_job: MakeJob, kind: str) -> None:
    job = make_job(DAG, kind=kind)
    assert host.run(job.directory) == 0
    assert [(spec.kind, spec.job_id) for spec in stubs.jobs] == [(kind, job.directory.name)]
    assert job.result() == stubs.result
    assert os.environ[job_files.JOB_MARK] == job.directory.name


def test_a_kind_that_this_worker_does_not_know_fails_with_the_remedy(stubs: Stubs, make_job: MakeJob) -> None:
    job = make_job(DAG, kind="sensor")
    assert host.run(job.directory) == 0
    assert job.result().exit_code == 1
    assert "can't host jobs of the kind 'sensor'; update it" in job.result().error


@pytest.mark.parametrize("content", [None, "", "{", '{"job_id": 7}', '{"job_id":"x","crc":"00000000"}'])
def test_an_unreadable_job_json_fails_the_job_and_its_log_says_why(stubs: Stubs, make_job: MakeJob, content: str | None) -> None:
    job = make_job(DAG)
    (job.directory / "job.json").unlink()
    if content is not None:
        (job.directory / "job.json").write_text(content)
    assert host.run(job.directory) == 0
    result = job.result()
    assert (result.exit_code, result.begun, stubs.jobs) == (1, False, [])
    [line] = job.log()
    assert line["level"] == "error"
    assert line["event"] == f"The Remote Worker could not host this task to its end: {result.error}"


@pytest.mark.parametrize("error", [RuntimeError("no bundle"), SystemExit(3)])
def test_an_exception_of_the_supervisor_becomes_a_result(stubs: Stubs, make_job: MakeJob, error: BaseException) -> None:
    stubs.error = error
    job = make_job(DAG)
    assert host.run(job.directory) == 0
    assert job.result() == job_files.Result(exit_code=1, final_state="", error=f"{type(error).__name__}: {error}", begun=False)


@pytest.mark.parametrize("exit_code", [0, 1, -9])
def test_the_exit_code_is_0_whatever_the_result(stubs: Stubs, make_job: MakeJob, exit_code: int) -> None:
    stubs.result = job_files.Result(exit_code=exit_code, final_state="")
    job = make_job(DAG)
    assert host.run(job.directory) == 0
    assert job.result().exit_code == exit_code


def test_the_result_is_written_last_after_left_processes_have_ended(stubs: Stubs, make_job: MakeJob) -> None:
    stubs.left = ["tee (7)"]
    job = make_job(DAG)
    assert host.run(job.directory) == 0
    assert stubs.steps == ["task", "end", "loss_mark", "result"]
    assert [line["event"] for line in job.log()] == ["Ended processes that the job left running: tee (7)"]
    assert sorted(path.name for path in job.directory.iterdir()) == ["job.json", "result.json", "task.log"]


def test_the_result_is_sealed_and_readable_only_by_this_user(stubs: Stubs, make_job: MakeJob) -> None:
    job = make_job(DAG)
    host.run(job.directory)
    path = job.directory / "result.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() != unsealed(path.read_bytes()) == msgspec.json.encode(stubs.result)


def test_room_for_the_result_is_reserved_at_the_start(stubs: Stubs, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(DAG)
    reserved: list[int] = []
    monkeypatch.setattr(host, "preload", lambda: reserved.append((job.directory / "result.part").stat().st_size))
    host.run(job.directory)
    assert reserved == [host.RESERVE]


def test_a_result_waits_for_room_on_a_full_disk(stubs: Stubs, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    write = host._write_result

    def write_if_room(path: Path, body: bytes) -> None:
        if len(naps) < 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, body)

    monkeypatch.setattr(host, "_write_result", write_if_room)
    monkeypatch.setattr(host.time, "sleep", naps.append)
    job = make_job(DAG)
    assert host.run(job.directory) == 0
    assert naps == [host.LOOK_AGAIN_S] * 2
    assert job.result() == stubs.result


def test_a_job_that_ended_before_its_code_began_is_explained_by_a_different_dag_file(stubs: Stubs, make_job: MakeJob) -> None:
    stubs.result = job_files.Result(exit_code=1, final_state="failed", begun=False)
    job = make_job(DAG, code_note="The Dag file is not the one that central parsed")
    host.run(job.directory)
    assert "A possible reason: The Dag file is not the one that central parsed." in job.events()


def test_a_job_of_another_user_changes_its_user_before_it_runs(stubs: Stubs, make_job: MakeJob) -> None:
    host.run(make_job(DAG, run_as_user="press").directory)
    assert stubs.users == ["press"] and stubs.steps[0] == "task"


@pytest.mark.parametrize(
    ("spec", "package", "module"), [(job_files.HOST_SPEC, triggers, "program"), (job_files.CANARY_SPEC, shim, "canary")]
)
def test_trigger_hosts_and_canaries_are_known_by_their_file(
    stubs: Stubs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, package: Any, module: str
) -> None:
    stub = SimpleNamespace(run=lambda directory: 7 if directory == tmp_path else 1)
    monkeypatch.setattr(package, module, stub, raising=False)
    (tmp_path / spec).write_bytes(b"{}")
    assert host.run(tmp_path) == 7
    assert stubs.steps == [] and not (tmp_path / "result.part").exists(), "these write their own results"


# In processes of their own


def test_an_interpreter_without_the_task_sdk_leaves_a_result_with_the_remedy(make_job: MakeJob) -> None:
    job = make_job(DAG)
    argv = [sys.executable, "-I", "-S", str(LAUNCH), "host", str(job.directory)]  # -S: without site-packages
    assert subprocess.run(argv, timeout=10).returncode == 1
    assert job.result().exit_code == 1
    assert "requirements/runtime.lock" in job.result().error


@pytest.mark.runtime
def test_the_process_of_an_unreadable_job_exits_with_0(run_host: Callable[[Job], None], make_job: MakeJob) -> None:
    job = make_job(DAG)
    (job.directory / "job.json").write_text("{")
    run_host(job)  # fails if the exit code is not 0
    assert job.result().error.startswith("DecodeError: ")
    assert "DecodeError" in (job.directory / "shim.log").read_text()


@pytest.mark.runtime
@pytest.mark.parametrize(
    ("kind", "workload", "final_state"),
    [
        ("task", {}, "success"),
        (
            "callback",
            {
                "callback_id": str(uuid.uuid4()),
                "path": "a_dag.call_back",
                "kwargs": {},
                "dag_rel_path": "a_dag.py",
                "bundle": {"name": "dags", "version": None},
            },
            "",
        ),
        ("connection-test", {"connection_test_id": str(uuid.uuid4()), "connection_id": "vault", "timeout_s": 5}, "failed"),
    ],
)
def test_each_kind_of_job_leaves_a_result_in_a_real_runtime(
    zygote: ZygoteUnderTest, make_job: MakeJob, kind: str, workload: dict[str, Any], final_state: str
) -> None:
    job = make_job(DAG, kind=kind, **({"workload": workload} if workload else {}))
    zygote.spawn(job)
    assert (job.result().exit_code, job.result().final_state, job.result().error) == (0, final_state, "")


@pytest.mark.runtime
def test_the_canary_leaves_a_result_in_a_real_runtime(zygote: ZygoteUnderTest, tmp_path: Path) -> None:
    job = Job(tmp_path)
    (tmp_path / job_files.CANARY_SPEC).write_bytes(b"{}")
    zygote.spawn(job)
    wait_until((tmp_path / "result.json").exists)
    found = msgspec.json.decode((tmp_path / "result.json").read_bytes(), type=job_files.CanaryResult)
    assert found.trouble == "" and found.task_sdk
    assert json.loads((tmp_path / "task.log").read_text().splitlines()[0])
