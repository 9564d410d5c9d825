"""Callbacks of Dag runs in a real runtime; only the daemon is a stub."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from airflow_remote_worker.local import frames, job_files

from .conftest import Job, StubDaemon, ZygoteUnderTest, canned, wait_until

pytestmark = pytest.mark.runtime

MakeJob = Callable[..., Job]

CALLBACKS = """
import time
from airflow.sdk import BaseHook
def announce(text, **kwargs):
    print("announced:", text)
def show_secret():
    print("secret:", BaseHook.get_connection("vault").password)
def stumble():
    raise ValueError("the horn is broken")
def linger():
    print("asleep at", time.time(), flush=True)
    time.sleep(120)
"""


def callback(name: str, **kwargs: Any) -> dict[str, Any]:
    return {
        "kind": "callback",
        "workload": {
            "callback_id": str(uuid.uuid4()),
            "path": f"a_dag.{name}",
            "kwargs": kwargs,
            "dag_rel_path": "a_dag.py",
            "bundle": {"name": "dags", "version": None},
        },
    }


def test_a_callback_runs_once_its_offer_is_accepted(zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon) -> None:
    job = make_job(CALLBACKS, **callback("announce", text="it is late"))
    zygote.spawn(job)
    assert job.result() == job_files.Result(exit_code=0, final_state="")
    assert "announced: it is late" in job.events()
    assert (daemon.calls[0].method, daemon.calls[0].path) == ("POST", frames.ACCEPT)


def test_a_callback_reads_connections_through_the_gateway(zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon) -> None:
    job = make_job(CALLBACKS, **callback("show_secret"))
    zygote.spawn(job)
    assert job.result().exit_code == 0
    assert "secret: ***" in job.events()
    assert b"correct-horse" not in b"".join(path.read_bytes() for path in job.directory.iterdir())
    assert daemon.paths("connections/vault")


def test_a_failing_callback_fails_and_its_log_says_why(run_host: Callable[[Job], None], make_job: MakeJob) -> None:
    job = make_job(CALLBACKS, **callback("stumble"))
    run_host(job)
    assert job.result().exit_code == 1
    assert "a_dag.stumble" in job.result().error
    assert "the horn is broken" in json.dumps(job.log())


def test_a_revoked_callback_does_not_start(zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon) -> None:
    def refuse(call: frames.Call) -> frames.Answer:
        if call.path == frames.ACCEPT:
            return frames.Answer(id=call.id, status=410, headers={}, body=b"taken back")
        return canned(call)

    daemon.answer = refuse
    job = make_job(CALLBACKS, **callback("announce", text="never"))
    zygote.spawn(job)
    assert job.result().stopped
    assert "announced:" not in job.events()
    assert "taken back" in job.events()


def test_a_stop_ends_a_callback_that_sleeps(zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon) -> None:
    job = make_job(CALLBACKS, **callback("linger"))
    zygote.spawn(job)
    job.wait_for_event("asleep at")
    daemon.stop_job("gone")
    assert job.result(60).stopped, "it would sleep for two minutes"


def test_a_callback_outlives_the_daemon(zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon) -> None:
    job = make_job(CALLBACKS, **callback("linger"))
    zygote.spawn(job)
    job.wait_for_event("asleep at")
    daemon.go_away()
    daemon.start()
    # It reconnects by itself; otherwise a stop could never reach it.
    wait_until(lambda: len(daemon.hellos) > 1, 10)
    daemon.stop_job("gone")
    assert job.result(10).stopped


def test_where_code_must_be_signed_a_callback_of_the_bundle_runs(
    zygote: ZygoteUnderTest, make_job: MakeJob, daemon: StubDaemon
) -> None:
    job = make_job(CALLBACKS, signed=True, **callback("announce", text="it is late"))
    zygote.spawn(job)
    assert job.result() == job_files.Result(exit_code=0, final_state="")
    assert "announced: it is late" in job.events()


@pytest.mark.parametrize("path", ["os.system", "a_dag.time.sleep", "a_dag.BaseHook"])
def test_where_code_must_be_signed_no_other_callback_runs(run_host: Callable[[Job], None], make_job: MakeJob, path: str) -> None:
    asked = callback("announce", command="touch ran")
    asked["workload"]["path"] = path
    job = make_job(CALLBACKS, signed=True, **asked)
    run_host(job)
    assert job.result().exit_code == 1
    assert f"the callback {path} is not run" in json.dumps(job.log())
