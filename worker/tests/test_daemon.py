"""The whole daemon against the fake central, with a fake runtime: what a job, an outage and a restart look like from outside."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time

import msgspec
import psutil
import pytest
from airflow_remote_protocol.messages import IntentMode, JobPhase, Outcome, StopReason
from airflow_remote_protocol.states import JobState
from airflow_remote_worker.jobs import supervisor
from airflow_remote_worker.lifecycle import EXIT_OK, EXIT_REFUSED
from airflow_remote_worker.testing.fake_central import FakeCentral

from .conftest import RunningWorker, eventually

pytestmark = pytest.mark.timeout(90)


def shim_pid(worker: RunningWorker, job_id: str) -> int:
    return int(json.loads((worker.job_dir(job_id) / "shim.json").read_bytes())["pid"])


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_job_runs_and_is_reported_with_its_whole_log(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue("run\nlog hello\nexit 0")

    central.wait_for_state(job_id, JobState.SUCCEEDED)

    assert b'"hello"' in central.log_bytes(job_id)
    report = central.job(job_id).report
    assert report and report.outcome is Outcome.SUCCEEDED
    assert report.log_size == len(central.log_bytes(job_id))
    assert report.log_sha256 == hashlib.sha256(central.log_bytes(job_id)).hexdigest()
    eventually(lambda: (worker.job_dir(job_id) / "closed.json").exists())
    assert not (worker.job_dir(job_id) / "job.json").exists()
    assert (worker.job_dir(job_id) / "task.log").read_bytes() == central.log_bytes(job_id)


def test_more_jobs_than_slots_all_run(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_ids = [worker.enqueue("run\nlog x\nexit 0") for _ in range(12)]
    for job_id in job_ids:
        central.wait_for_state(job_id, JobState.SUCCEEDED)
    assert all(central.job_epoch(job_id) == 1 for job_id in job_ids)


def test_a_failing_task_is_reported_as_failed(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue("run\nexit 3")
    central.wait_for_state(job_id, JobState.FAILED)
    report = central.job(job_id).report
    assert report and (report.outcome, report.exit_code) == (Outcome.FAILED, 3)


def test_a_shim_that_vanishes_is_reported_as_died_and_the_log_says_so(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue("run\nlog before\ndie")
    central.wait_for_state(job_id, JobState.FAILED)
    report = central.job(job_id).report
    assert report and report.outcome is Outcome.DIED
    last = json.loads(central.log_bytes(job_id).splitlines()[-1])
    assert last["logger"] == "airflow_remote_worker"
    assert "ended without a result" in last["event"]


def test_an_unknown_bundle_fails_the_job_and_the_task_log_names_the_remedy(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = central.enqueue("q", workload={"bundle": {"name": "elsewhere", "version": None}})
    central.wait_for_state(job_id, JobState.FAILED)
    report = central.job(job_id).report
    assert report and report.outcome is Outcome.UNPREPARED
    assert b"bundles.elsewhere.path" in central.log_bytes(job_id)


def test_a_person_s_kill_reaches_the_task_at_once(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue("run\nlog here\nsleep 60")
    central.wait_for_state(job_id, JobState.RUNNING)
    pid = eventually(lambda: shim_pid(worker, job_id))

    asked = time.monotonic()
    central.end_task(job_id, reason=StopReason.ENDED)
    eventually(lambda: not is_running(pid))

    assert time.monotonic() - asked < 2
    eventually(lambda: central.job(job_id).report)
    assert central.job(job_id).report.outcome is Outcome.STOPPED  # type: ignore[union-attr]


def test_a_job_that_ends_during_an_outage_is_reported_afterwards(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue("run\nlog one\nsleep 1\nlog two\nbytes 3000000\nexit 0")
    central.wait_for_state(job_id, JobState.RUNNING)
    central.go_down()
    eventually(lambda: (worker.job_dir(job_id) / "report.json").exists())
    central.come_back()
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=20)
    assert central.log_bytes(job_id) == (worker.job_dir(job_id) / "task.log").read_bytes()


def test_a_call_made_during_an_outage_waits_for_its_answer(central: FakeCentral, worker: RunningWorker) -> None:
    central.tasks.variables["colour"] = "red"
    worker.start()
    job_id = worker.enqueue("run\nsleep 1\ncall GET variables/colour\nexit 0")
    central.wait_for_state(job_id, JobState.RUNNING)
    central.answer_like_a_proxy(200)
    time.sleep(2)
    assert central.job_state(job_id) == "running"
    central.answer_as_central()
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=20)
    assert b"200 " in central.log_bytes(job_id)
    assert b"red" in central.log_bytes(job_id)


def test_lost_replies_neither_lose_nor_repeat_log_bytes(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    for part in ("/log", "/report", "/run"):
        central.drop_next_reply(part)
    job_id = worker.enqueue("run\nbytes 2500000\nsleep 0.5\nbytes 10\nexit 0")
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=20)
    eventually(lambda: (worker.job_dir(job_id) / "closed.json").exists())
    assert central.log_bytes(job_id) == (worker.job_dir(job_id) / "task.log").read_bytes()


def test_a_restarted_daemon_adopts_its_running_jobs(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue("run\nlog one\nsleep 2\nlog two\nexit 0")
    central.wait_for_state(job_id, JobState.RUNNING)
    pid = eventually(lambda: shim_pid(worker, job_id))

    assert worker.detach() == EXIT_OK
    assert is_running(pid)
    worker.start()

    central.wait_for_state(job_id, JobState.SUCCEEDED)
    assert [json.loads(line)["event"] for line in central.log_bytes(job_id).splitlines()] == ["one", "two"]
    assert central.job_epoch(job_id) == 1


def test_a_job_that_ended_while_no_daemon_lived_is_reported_by_the_next(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue("run\nlog up\nsleep 0.5\nexit 0")
    eventually(lambda: b"up" in central.log_bytes(job_id))  # until then the shim waits for the answer to its `run`
    worker.detach()
    eventually(lambda: (worker.job_dir(job_id) / "result.json").exists())
    worker.start()
    central.wait_for_state(job_id, JobState.SUCCEEDED)


def test_a_shim_that_was_never_recorded_is_found_and_adopted(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue("run\nsleep 2\nexit 0")
    central.wait_for_state(job_id, JobState.RUNNING)
    eventually(lambda: shim_pid(worker, job_id))
    worker.detach()
    (worker.job_dir(job_id) / "shim.json").unlink()
    worker.start()
    central.wait_for_state(job_id, JobState.SUCCEEDED)


def test_a_shim_killed_while_no_daemon_lived_is_reported_as_died(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue("run\nsleep 60")
    central.wait_for_state(job_id, JobState.RUNNING)
    pid = eventually(lambda: shim_pid(worker, job_id))
    worker.detach()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_running(pid))
    worker.start()
    central.wait_for_state(job_id, JobState.FAILED)
    assert central.job(job_id).report.outcome is Outcome.DIED  # type: ignore[union-attr]


def test_a_job_given_to_someone_else_is_stopped_and_not_reported(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue("run\nsleep 60")
    central.wait_for_state(job_id, JobState.RUNNING)
    pid = eventually(lambda: shim_pid(worker, job_id))
    central.lose_job(job_id)
    eventually(lambda: not is_running(pid))
    eventually(lambda: (worker.job_dir(job_id) / "closed.json").exists())
    assert central.job_state(job_id) == "lost"


def test_draining_takes_no_more_and_waits_for_what_runs(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    running = worker.enqueue("run\nsleep 1\nexit 0")
    central.wait_for_state(running, JobState.RUNNING)
    assert worker.drain() == EXIT_OK
    assert central.job_state(running) == "succeeded"
    waiting = worker.enqueue("run")
    assert central.job_state(waiting) == "queued"


def test_a_revoked_worker_ends_and_leaves_its_jobs(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue("run\nsleep 20")
    central.wait_for_state(job_id, JobState.RUNNING)
    pid = eventually(lambda: shim_pid(worker, job_id))
    central.revoke_worker("w1")
    assert worker.wait() == EXIT_REFUSED
    assert is_running(pid)
    os.kill(pid, signal.SIGKILL)


def test_leave_by_intent_gives_the_credential_back(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    eventually(lambda: central.requests_to("poll"))
    central.set_intent("w1", IntentMode.LEAVE, reason="old machine")
    assert worker.wait() == EXIT_OK
    assert central.worker("w1").is_revoked
    assert not (worker.state.root / "credential.json").exists()


def test_a_paused_worker_takes_work_again_once_it_is_to_serve(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    eventually(lambda: central.requests_to("poll"))
    central.set_intent("w1", IntentMode.PAUSE)
    job_id = worker.enqueue("run\nexit 0")
    time.sleep(0.5)
    assert central.job_state(job_id) == "queued"
    central.set_intent("w1", IntentMode.SERVE)
    central.wait_for_state(job_id, JobState.SUCCEEDED)


def test_a_deaf_job_is_ended_from_outside(central: FakeCentral, worker: RunningWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "KILL_AFTER_S", 0.5)
    worker.config = msgspec.structs.replace(worker.config, stop_grace_s=0.3)
    worker.start()
    job_id = worker.enqueue("run\ndeaf 60")
    central.wait_for_state(job_id, JobState.RUNNING)
    pid = eventually(lambda: shim_pid(worker, job_id))
    central.end_task(job_id)
    eventually(lambda: not is_running(pid), timeout_s=25)


def test_without_contact_a_job_is_stopped_after_its_time(worker: RunningWorker, central: FakeCentral) -> None:
    central._ledger.stop_after_s = 1.5
    worker.start()
    job_id = worker.enqueue("run\nsleep 60")
    central.wait_for_state(job_id, JobState.RUNNING)
    pid = eventually(lambda: shim_pid(worker, job_id))
    central.go_down()
    eventually(lambda: not is_running(pid))


def test_a_runtime_that_can_t_host_fails_the_job_with_its_reason(worker: RunningWorker, central: FakeCentral) -> None:
    worker.config.runtime.env["FAKE_UNABLE"] = "no airflow here; install it"
    worker.start()
    job_id = worker.enqueue("run")
    central.wait_for_state(job_id, JobState.FAILED)
    assert b"no airflow here; install it" in central.log_bytes(job_id)


def test_without_a_zygote_each_job_gets_a_fresh_interpreter(worker: RunningWorker, central: FakeCentral) -> None:
    worker.config.runtime.env["FAKE_CRASH"] = "1"
    worker.start()
    job_id = worker.enqueue("run\nexit 0")
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=20)


def test_a_zygote_that_dies_in_the_fork_starts_no_second_copy(worker: RunningWorker, central: FakeCentral) -> None:
    worker.config.runtime.env["FAKE_CRASH_IN_FORK"] = "1"
    worker.start()
    job_id = worker.enqueue("run\nlog once\nexit 0")
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=20)
    assert central.log_bytes(job_id).count(b"once") == 1


def test_an_idle_worker_sends_nothing_but_its_poll(worker: RunningWorker, central: FakeCentral) -> None:
    worker.start()
    eventually(lambda: central.requests_to("poll"))
    time.sleep(1.5)
    assert [request.path for request in central.requests] == ["enrol", "session", "poll"]


def test_status_tells_what_is_held(worker: RunningWorker, central: FakeCentral) -> None:
    worker.start()
    job_id = worker.enqueue("run\nsleep 20")
    central.wait_for_state(job_id, JobState.RUNNING)
    eventually(lambda: json.loads(worker.state.status_path.read_bytes())["jobs"])
    told = json.loads(worker.state.status_path.read_bytes())
    assert told["jobs"][0]["job_id"] == job_id
    assert told["jobs"][0]["phase"] in (JobPhase.PREPARING.value, JobPhase.RUNNING.value)
    central.end_task(job_id)
    central.wait_for_state(job_id, JobState.REVOKED)


def test_kill_minus_nine_of_the_daemon_costs_nothing(central: FakeCentral, worker: RunningWorker) -> None:
    first = worker.start_process()
    job_id = worker.enqueue("run\nlog one\nsleep 2\nlog two\nexit 0")
    eventually(lambda: b"one" in central.log_bytes(job_id))
    first.kill()
    first.wait()
    second = worker.start_process()
    central.wait_for_state(job_id, JobState.SUCCEEDED)
    assert [json.loads(line)["event"] for line in central.log_bytes(job_id).splitlines()] == ["one", "two"]
    second.send_signal(signal.SIGTERM)
    assert second.wait(10) == EXIT_OK


def test_a_second_signal_leaves_running_jobs_behind(central: FakeCentral, worker: RunningWorker) -> None:
    process = worker.start_process()
    job_id = worker.enqueue("run\nlog up\nsleep 20")
    eventually(lambda: b"up" in central.log_bytes(job_id))
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == EXIT_OK
    pid = shim_pid(worker, job_id)
    assert is_running(pid)
    os.kill(pid, signal.SIGKILL)


def test_the_credential_is_in_nobody_s_environment_or_arguments(central: FakeCentral, worker: RunningWorker) -> None:
    daemon = worker.start_process(extra_env={"SITE_SECRET": "hush"})
    job_id = worker.enqueue("run\nlog up\nsleep 20")
    eventually(lambda: b"up" in central.log_bytes(job_id))
    credential = worker.state.membership().credential
    family = [psutil.Process(daemon.pid), *psutil.Process(daemon.pid).children(recursive=True)]
    assert len(family) >= 3
    for process in family:
        assert credential not in str(process.cmdline()) + str(process.environ())
    assert all("SITE_SECRET" not in process.environ() for process in family[1:])
    daemon.kill()
    daemon.wait()
    os.kill(shim_pid(worker, job_id), signal.SIGKILL)


def test_plain_http_to_another_machine_is_warned_of_at_each_start(
    worker: RunningWorker, caplog: pytest.LogCaptureFixture
) -> None:
    worker.config = msgspec.structs.replace(worker.config, central="http://central.invalid", insecure_http=True)
    worker.start()
    eventually(lambda: "NOT ENCRYPTED: http://central.invalid is plain http" in caplog.text)
    told = eventually(lambda: worker.state.status_path.exists() and json.loads(worker.state.status_path.read_bytes()))
    assert told["warning"].startswith("NOT ENCRYPTED")
