"""How jobs and the daemon end: signals, drain, leave, a restart of the machine, stray processes. With real processes."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from airflow_remote_protocol.messages import IntentMode, Offer, Outcome, StopReason
from airflow_remote_protocol.states import JobState
from airflow_remote_worker.jobs import preparation, supervisor
from airflow_remote_worker.jobs.site import Site
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.lifecycle import EXIT_OK
from airflow_remote_worker.state.files import store
from airflow_remote_worker.state.spool import Spool
from airflow_remote_worker.testing.fake_central import FakeCentral

from .conftest import RunningWorker, eventually, is_running, make_offer

pytestmark = pytest.mark.timeout(90)


def job_dir(worker: RunningWorker, job_id: str) -> Any:
    return Spool(worker.state.jobs, quarantine=worker.state.quarantine).of(Lease(job_id, 1))


def events(central: FakeCentral, job_id: str) -> list[str]:
    return [json.loads(line)["event"] for line in central.log_bytes(job_id).splitlines()]


def running_job(central: FakeCentral, worker: RunningWorker, script: str) -> tuple[str, int]:
    """Start a job; return it and its shim's pid once it has run its first line."""
    job_id = worker.enqueue(f"run\nlog up\n{script}")
    eventually(lambda: b"up" in central.log_bytes(job_id))
    shim = eventually(lambda: job_dir(worker, job_id).shim())
    return job_id, shim.pid


def settings(worker: RunningWorker, text: str) -> None:
    (worker.state.root / "worker.toml").write_text(text)


# Signals


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_takes_no_new_jobs_and_waits_for_running_ones(central: FakeCentral, worker: RunningWorker, signum: int) -> None:
    process = worker.start_process()
    job_id, _ = running_job(central, worker, "sleep 2\nlog end\nexit 0")
    process.send_signal(signum)
    time.sleep(0.5)
    waiting = worker.enqueue("run\nexit 0")
    assert process.wait(20) == EXIT_OK
    assert central.job_state(job_id) == "succeeded"
    assert events(central, job_id) == ["up", "end"]
    assert central.job_state(waiting) == "queued"


def test_after_the_drain_timeout_jobs_run_on_and_are_adopted(central: FakeCentral, worker: RunningWorker) -> None:
    settings(worker, "drain_timeout_s = 1")
    process = worker.start_process()
    go = worker.bundle / "go"
    job_id, pid = running_job(central, worker, f"await {go}\nlog end\nexit 0")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == EXIT_OK
    assert is_running(pid)
    go.touch()
    worker.start_process()
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=20)
    assert events(central, job_id) == ["up", "end"]


@pytest.mark.parametrize(("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)])
def test_a_second_signal_ends_the_daemon_at_once_and_kills_nothing(
    central: FakeCentral, worker: RunningWorker, first: int, second: int
) -> None:
    process = worker.start_process()
    go = worker.bundle / "go"
    job_id, pid = running_job(central, worker, f"await {go}\nlog end\nexit 0")
    process.send_signal(first)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(second)
    assert process.wait(60) == EXIT_OK
    assert is_running(pid)
    go.touch()
    worker.start_process()
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=20)
    assert events(central, job_id) == ["up", "end"]


# Intents


def test_a_worker_drained_by_central_stays_online_and_serves_again(central: FakeCentral, worker: RunningWorker) -> None:
    process = worker.start_process()
    job_id, _ = running_job(central, worker, "sleep 1\nexit 0")
    central.set_intent("w1", IntentMode.DRAIN, reason="new disk")
    central.wait_for_state(job_id, JobState.SUCCEEDED)
    waiting = worker.enqueue("run\nexit 0")
    status = eventually(lambda: (s := json.loads(worker.state.status_path.read_bytes()))["jobs"] == [] and s)
    assert (status["phase"], status["free_slots"]) == ("serving", 0)
    assert status["intent"] == {"mode": "drain", "reason": "new disk"}
    time.sleep(0.5)
    assert process.poll() is None
    assert central.job_state(waiting) == "queued"
    central.set_intent("w1", IntentMode.SERVE)
    central.wait_for_state(waiting, JobState.SUCCEEDED)


def test_leaving_waits_for_the_jobs_before_it_gives_the_credential_back(central: FakeCentral, worker: RunningWorker) -> None:
    process = worker.start_process()
    job_id, _ = running_job(central, worker, "sleep 1.5\nlog end\nexit 0")
    central.set_intent("w1", IntentMode.LEAVE)
    assert process.wait(20) == EXIT_OK
    assert central.job_state(job_id) == "succeeded"
    assert events(central, job_id) == ["up", "end"]
    assert central.worker("w1").is_revoked
    assert [path.name for path in worker.state.root.glob("credential.json*")] == []


# Restart of the machine


def test_jobs_that_died_with_the_machine_are_reported_once_with_their_log(central: FakeCentral, worker: RunningWorker) -> None:
    first = worker.start_process()
    job_id, pid = running_job(central, worker, "sleep 60\nlog never")
    first.kill()
    first.wait()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_running(pid))
    found = job_dir(worker, job_id)
    store(found.path / "shim.json", type(found.shim())(pid, 1.0, "00000000-an-earlier-boot:77"))

    second = worker.start_process()
    central.wait_for_state(job_id, JobState.FAILED)
    eventually(lambda: found.closed())
    second.kill()
    second.wait()
    worker.start_process()  # nothing is reported again
    eventually(lambda: len(central.requests_to("session")) == 3)
    time.sleep(0.5)

    report = central.job(job_id).report
    assert report and report.outcome is Outcome.DIED
    assert "died with the machine, which was restarted" in report.reason
    assert events(central, job_id)[0] == "up"
    assert "died with the machine" in events(central, job_id)[1]
    assert len(central.requests_to(f"{job_id}/report")) == 1


def test_a_stored_result_counts_after_a_restart_of_the_machine(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id, _ = running_job(central, worker, "sleep 2\nexit 3")
    worker.detach()
    found = job_dir(worker, job_id)
    eventually(found.has_result)
    store(found.path / "shim.json", type(found.shim())(2**22 - 3, 1.0, "00000000-an-earlier-boot:77"))
    worker.start()
    central.wait_for_state(job_id, JobState.FAILED)
    report = central.job(job_id).report
    assert report and (report.outcome, report.exit_code) == (Outcome.FAILED, 3)


def test_a_stored_offer_starts_if_central_still_wants_it(
    central: FakeCentral, worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as cut_off:
        cut_off.setattr(supervisor, "prepare", lambda job, site, **more: anyio.sleep_forever())
        worker.start()
        job_id = worker.enqueue("run\nlog once\nexit 0")
        eventually(lambda: list(worker.state.jobs.glob(f"{job_id}.*/offer.json.copy")))
        worker.detach()
    worker.start()
    central.wait_for_state(job_id, JobState.SUCCEEDED)
    assert events(central, job_id) == ["once"]
    assert central.job_epoch(job_id) == 1


def test_a_stored_offer_that_central_gave_to_another_worker_runs_no_user_code(
    central: FakeCentral, worker: RunningWorker, tmp_path: Path
) -> None:
    (worker.bundle / "a_dag.py").write_text("run\nlog user code")
    worker.state.prepare()
    found = Spool(worker.state.jobs, quarantine=worker.state.quarantine).of(Lease("11111111-0000", 1))
    found.store_offer(make_offer())
    worker.start()
    closed = eventually(found.closed)
    assert closed.how == "superseded"
    assert "user code" not in (found.task_log.read_text() if found.task_log.exists() else "")


# Stray processes


def test_processes_of_a_vanished_shim_are_ended_before_the_job_is_reported(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id, pid = running_job(central, worker, "stray 300\nsleep 60")
    stray = int(eventually(lambda: [e for e in events(central, job_id) if e.startswith("left")])[0].split()[1])
    assert is_running(stray)
    os.kill(pid, signal.SIGKILL)
    central.wait_for_state(job_id, JobState.FAILED)
    assert not is_running(stray)
    assert any(f"ended the processes that it left: sleep ({stray})" in event for event in events(central, job_id))


@pytest.mark.timeout(900)
def test_a_thousand_jobs_leave_no_process_and_no_zombie(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_ids = [worker.enqueue("run\nexit 0") for _ in range(1000)]
    for job_id in job_ids:
        central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=60)
    status = json.loads(worker.state.status_path.read_bytes())
    zygote = psutil.Process(status["runtime"]["pid"])
    eventually(lambda: zygote.children(recursive=True) == [])
    ours = [p for p in psutil.Process().children(recursive=True) if p.pid != zygote.pid]
    assert [p for p in ours if p.status() == psutil.STATUS_ZOMBIE] == []
    assert all(central.job_epoch(job_id) == 1 for job_id in job_ids)


# Fairness


def test_a_hanging_drive_delays_no_other_job_and_is_named(
    central: FakeCentral, worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "PREPARE_WITHIN_S", 300.0)
    answer = threading.Event()
    find = preparation.find_code

    def hang(offer: Offer, site: Site) -> str:
        if b"far_away" in bytes(offer.workload):
            answer.wait(60)
        return find(offer, site)

    monkeypatch.setattr(preparation, "find_code", hang)
    worker.start()
    hangs = central.enqueue("q", workload={"dag_rel_path": "far_away.py"})
    eventually(lambda: central.job_state(hangs) == "offered")
    quick = worker.enqueue("run\nexit 0")
    central.wait_for_state(quick, JobState.SUCCEEDED)
    assert central.job_state(hangs) == "offered"
    monkeypatch.setattr(preparation, "PREPARE_WITHIN_S", 1.0)
    slow = central.enqueue("q", workload={"dag_rel_path": "far_away.py"})
    central.wait_for_state(slow, JobState.FAILED)
    report = central.job(slow).report
    assert report and report.outcome is Outcome.UNPREPARED
    assert "got no answer from its disk" in report.reason
    assert b"network drive" in central.log_bytes(slow)
    answer.set()


def test_a_stop_of_one_job_affects_no_other(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    kept, kept_pid = running_job(central, worker, "sleep 3\nexit 0")
    ended, ended_pid = running_job(central, worker, "sleep 60")
    central.end_task(ended, reason=StopReason.ENDED)
    eventually(lambda: not is_running(ended_pid))
    assert is_running(kept_pid)
    central.wait_for_state(kept, JobState.SUCCEEDED)
