"""The whole daemon against the fake central, with a fake runtime: jobs, outages and restarts as seen from outside."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import time
from pathlib import Path

import msgspec
import psutil
import pytest
from airflow_remote_protocol.messages import IntentMode, JobPhase, Outcome, StopReason
from airflow_remote_protocol.states import JobState
from airflow_remote_protocol.version import Capability
from airflow_remote_worker import daemon
from airflow_remote_worker.clock import SystemClock
from airflow_remote_worker.config import Config, ConfigError, QueueConfig
from airflow_remote_worker.jobs import breaker, supervisor
from airflow_remote_worker.jobs import runtime as runtime_module
from airflow_remote_worker.lifecycle import EXIT_OK, EXIT_REFUSED
from airflow_remote_worker.local import boottime, job_files
from airflow_remote_worker.testing.fake_central import FakeCentral, Timing

from .conftest import RunningWorker, eventually, is_running

pytestmark = pytest.mark.timeout(90)


def shim_pid(worker: RunningWorker, job_id: str) -> int:
    return int(json.loads((worker.job_dir(job_id) / "shim.json").read_bytes())["pid"])


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


def test_changed_settings_apply_to_new_jobs_but_not_to_running_ones(central: FakeCentral, worker: RunningWorker) -> None:
    def passed() -> str:
        status = json.loads(worker.state.status_path.read_bytes())
        try:
            return psutil.Process(status["runtime"]["pid"]).environ().get(job_files.TASK_SETTINGS, "")
        except (TypeError, psutil.NoSuchProcess):  # there is no zygote now, or the status names the previous one
            return ""

    central.set_task_settings({"core.default_timezone": "Europe/Berlin", "core.hostname_callable": "os.getcwd"})
    worker.start()
    running = worker.enqueue("run\nlog here\nsleep 60")
    central.wait_for_state(running, JobState.RUNNING)
    pid = eventually(lambda: shim_pid(worker, running))
    assert json.loads(eventually(passed)) == {"core.default_timezone": "Europe/Berlin"}

    central.set_task_settings({"core.default_timezone": "Asia/Tokyo"})
    later = worker.enqueue("run\nexit 0")
    central.wait_for_state(later, JobState.SUCCEEDED)

    eventually(lambda: "Asia/Tokyo" in passed())
    assert is_running(pid)
    assert (worker.state.task_settings_path).exists(), "the next start has them at once"


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


def test_a_shim_that_vanishes_is_reported_as_died_and_logged(central: FakeCentral, worker: RunningWorker) -> None:
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


def test_a_user_s_stop_reaches_the_task_at_once(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue("run\nlog here\nsleep 60")
    central.wait_for_state(job_id, JobState.RUNNING)
    pid = eventually(lambda: shim_pid(worker, job_id))

    central.end_task(job_id, reason=StopReason.ENDED)
    eventually(lambda: not is_running(pid), timeout_s=15)  # the answer to the open poll has it, which would else last 20 s
    eventually(lambda: central.job(job_id).report)
    assert central.job(job_id).report.outcome is Outcome.STOPPED  # type: ignore[union-attr]


def test_a_job_that_ends_during_an_outage_is_reported_afterwards(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue("run\nlog one\nsleep 1\nlog two\nbytes 3000000\nexit 0")
    eventually(lambda: b"one" in central.log_bytes(job_id))
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


XCOM = ("dag", "run", "task", "key")
WRITES = """write POST xcoms/dag/run/task/key 1
write POST xcoms/dag/run/task/key 2
write PATCH task-instances/TI/state {"state":"success"}
exit 0"""


def calls_of(central: FakeCentral, job_id: str) -> list[str]:
    """Return the calls about the job that central has answered, in order: the last part of each path."""
    about = [request for request in central.requests_to(f"jobs/{job_id}/") if request.status is not None and request.status < 400]
    return [request.path.rpartition("/")[2].partition("?")[0] for request in about]


def wait_for_begin(worker: RunningWorker, job_id: str) -> None:
    """Wait until the task itself runs. At central it runs as soon as the answer to its `run` call is sent."""
    eventually(lambda: list(worker.state.jobs.glob(f"{job_id}.*/task.log")))
    eventually(lambda: b"begun" in (worker.job_dir(job_id) / "task.log").read_bytes())


def assert_delivered_in_order(central: FakeCentral, job_id: str) -> None:
    assert central.tasks.xcoms[XCOM] == {-1: 2}
    assert central.task_states(job_id) == ["running", "success"]
    calls = [call for call in calls_of(central, job_id) if call in ("key", "state", "report")]
    assert calls == ["key", "key", "state", "report"]


def test_a_task_ends_during_an_outage_and_its_writes_arrive_afterwards(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue(f"run\nlog begun\nsleep 1\n{WRITES}")
    wait_for_begin(worker, job_id)
    central.go_down()
    eventually(lambda: (worker.job_dir(job_id) / "report.json").exists())
    eventually(lambda: json.loads(worker.state.status_path.read_bytes())["free_slots"] == 4)
    assert (worker.job_dir(job_id) / "task.log").read_text().splitlines()[1:] == ["spooled"] * 3
    central.come_back()
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=20)
    assert_delivered_in_order(central, job_id)
    eventually(lambda: (worker.job_dir(job_id) / "closed.json").exists())
    eventually(lambda: not list(worker.job_dir(job_id).glob("outbox*")))


def test_a_task_ends_without_central_and_without_a_daemon(central: FakeCentral, worker: RunningWorker) -> None:
    daemon = worker.start_process()
    job_id = worker.enqueue(f"run\nlog begun\nsleep 1.5\n{WRITES}")
    wait_for_begin(worker, job_id)
    eventually(lambda: (worker.job_dir(job_id) / "shim.json").exists())
    central.go_down()
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    eventually(lambda: (worker.job_dir(job_id) / "result.json").exists())
    central.come_back()
    worker.start()
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=20)
    assert_delivered_in_order(central, job_id)


def test_a_reboot_does_not_lose_the_task_s_writes(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue(f"run\nlog begun\nsleep 1\n{WRITES.removesuffix('exit 0')}sleep 60")
    wait_for_begin(worker, job_id)
    pid = eventually(lambda: shim_pid(worker, job_id))
    central.go_down()
    eventually(lambda: (worker.job_dir(job_id) / "task.log").read_bytes().count(b"spooled") == 3)
    worker.detach()
    os.kill(pid, signal.SIGKILL)
    with (worker.job_dir(job_id) / "outbox").open("ab") as file:
        file.write(b"\0\0")  # the last write was cut off
    central.come_back()
    worker.start()
    central.wait_for_state(job_id, JobState.FAILED, timeout_s=20)
    assert_delivered_in_order(central, job_id)
    report = central.job(job_id).report
    assert report and report.outcome is Outcome.DIED


def test_a_read_sees_earlier_writes(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue(
        "run\nlog begun\nsleep 1\nwrite POST xcoms/dag/run/task/key 7\ncall GET xcoms/dag/run/task/key\n"
        "write PUT task-instances/TI/rtif {}"
    )
    wait_for_begin(worker, job_id)
    central.go_down()
    eventually(lambda: (worker.job_dir(job_id) / "task.log").read_bytes().endswith(b"spooled\n"))
    time.sleep(0.5)
    central.come_back()
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=20)
    _, _, read, write = central.log_bytes(job_id).splitlines()
    assert b'"value": 7' in read
    assert write.startswith(b"201 "), "all is delivered: writes go through again"


def test_a_write_that_central_refuses_later_is_logged_and_the_task_fails(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    state = 'write PATCH task-instances/TI/state {"state": "success", "end_date": "2026-01-01T00:00:00Z"}'
    job_id = worker.enqueue(f"run\nlog begun\nsleep 1\nwrite PATCH no-such-thing/x {{}}\n{state}\nexit 0")
    wait_for_begin(worker, job_id)
    central.go_down()
    eventually(lambda: (worker.job_dir(job_id) / "result.json").exists())
    central.come_back()
    central.wait_for_state(job_id, JobState.FAILED, timeout_s=20)
    assert central.task_states(job_id) == ["running", "failed"]
    assert b"PATCH no-such-thing/x: 404" in central.log_bytes(job_id)
    report = central.job(job_id).report
    assert report is not None
    assert "no-such-thing" in report.reason
    eventually(lambda: (worker.job_dir(job_id) / "closed.json").exists())
    assert central.log_bytes(job_id) == (worker.job_dir(job_id) / "task.log").read_bytes()


def test_the_writes_of_a_lost_job_are_dropped(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue(f"run\nlog begun\nsleep 1\n{WRITES}")
    wait_for_begin(worker, job_id)
    central.go_down()
    eventually(lambda: (worker.job_dir(job_id) / "result.json").exists())
    central.lose_job(job_id)
    central.come_back()
    eventually(lambda: (worker.job_dir(job_id) / "closed.json").exists(), 20)
    assert XCOM not in central.tasks.xcoms
    assert central.job_state(job_id) == "lost"


def test_lost_replies_neither_lose_nor_repeat_spooled_writes(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue(f"run\nlog begun\nsleep 1\n{WRITES}")
    wait_for_begin(worker, job_id)
    central.go_down()
    eventually(lambda: (worker.job_dir(job_id) / "result.json").exists())
    for part in ("/key", "/state", "/report"):
        central.drop_next_reply(part)
        central.drop_next_reply(part)
    central.come_back()
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=20)
    assert central.tasks.xcoms[XCOM] == {-1: 2}
    assert central.task_states(job_id) == ["running", "success"]


def test_a_job_s_input_has_its_limit_without_contact(central: FakeCentral, worker: RunningWorker) -> None:
    before = boottime.now()
    worker.start()
    job_id = worker.enqueue("run\nsleep 60")
    central.wait_for_state(job_id, JobState.RUNNING)
    spec = msgspec.json.decode((worker.job_dir(job_id) / "job.json").read_bytes(), type=job_files.JobSpec)
    assert spec.stop_after_s == Timing().stop_after_s
    assert before < spec.contact_at < boottime.now()
    assert float(Path(spec.contact_path).read_text()) >= spec.contact_at


def test_lost_replies_neither_lose_nor_repeat_log_bytes(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    for part in ("/log", "/report", "/run"):
        central.drop_next_reply(part)
    job_id = worker.enqueue("run\nbytes 2500000\nsleep 0.5\nbytes 10\nexit 0")
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=20)
    eventually(lambda: (worker.job_dir(job_id) / "closed.json").exists())
    assert central.log_bytes(job_id) == (worker.job_dir(job_id) / "task.log").read_bytes()


def test_a_requested_restart_keeps_the_process_and_its_jobs(central: FakeCentral, worker: RunningWorker) -> None:
    process = worker.start_process()
    job_id = worker.enqueue("run\nlog one\nsleep 4\nlog two\nexit 0")
    central.wait_for_state(job_id, JobState.RUNNING)
    shim = worker.job_dir(job_id) / "shim.json"
    before, boot_id = shim.read_bytes(), central.worker("w1").boot_id
    central.ask_to_restart("w1")
    eventually(lambda: central.worker("w1").boot_id != boot_id)
    assert not central.worker("w1").intent.restart, "once for each request"
    assert process.poll() is None and shim.read_bytes() == before and central.job_epoch(job_id) == 1
    eventually(lambda: b"an administrator requested a restart; 1 jobs run on" in central.worker_log("w1"))
    assert central.worker_log("w1").count(b"session open") == 2
    central.wait_for_state(job_id, JobState.SUCCEEDED)
    assert [json.loads(line)["event"] for line in central.log_bytes(job_id).splitlines()] == ["one", "two"]


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


def test_a_job_that_ended_without_a_daemon_is_reported_by_the_next(central: FakeCentral, worker: RunningWorker) -> None:
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


def test_a_shim_killed_without_a_daemon_is_reported_as_died(central: FakeCentral, worker: RunningWorker) -> None:
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


@pytest.mark.parametrize("learns_by", ["sleep 60", "sleep 1\ncall GET variables/colour\nsleep 60"], ids=["poll", "gateway"])
def test_a_lost_job_is_stopped_its_log_is_complete_and_its_report_is_refused(
    learns_by: str, central: FakeCentral, worker: RunningWorker
) -> None:
    worker.start()
    job_id = worker.enqueue(f"run\nlog before\nbytes 3000000\n{learns_by}")
    central.wait_for_state(job_id, JobState.RUNNING)
    pid = eventually(lambda: shim_pid(worker, job_id))
    eventually(lambda: (worker.job_dir(job_id) / "task.log").stat().st_size > 3_000_000)
    central.lose_job(job_id)
    eventually(lambda: not is_running(pid))
    eventually(lambda: (worker.job_dir(job_id) / "closed.json").exists())
    assert central.job_state(job_id) == "lost"
    assert len(central.log_bytes(job_id)) > 3_000_000
    assert central.log_bytes(job_id) == (worker.job_dir(job_id) / "task.log").read_bytes()
    late = central.job(job_id).late_report
    assert late is not None and late.log_size == len(central.log_bytes(job_id))


def test_a_copy_of_this_machine_is_refused_without_harm(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue("run\nlog before\nsleep 2\nlog after\nexit 0")
    central.wait_for_state(job_id, JobState.RUNNING)
    ledger, known = central._ledger, central.worker("w1")
    assert known.session is not None
    first = known.session.boot_id
    with ledger.changed:
        ledger.open_session(known, msgspec.structs.replace(known.session, boot_id="a copy's", jobs=[]))
    eventually(lambda: known.boot_id == first)
    assert known.refused_boot_id == "a copy's"
    central.wait_for_state(job_id, JobState.SUCCEEDED)
    assert central.job_epoch(job_id) == 1
    assert central.log_bytes(job_id).count(b'"after"') == 1


def test_a_lost_session_is_replaced_by_a_new_one(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    job_id = worker.enqueue("run\nsleep 2\nexit 0")
    central.wait_for_state(job_id, JobState.RUNNING)
    known = central.worker("w1")
    with central._ledger.changed:
        known.session_id = known.boot_id = known.previous_boot_id = None
        central._ledger.changed.notify_all()
    central.wait_for_state(job_id, JobState.SUCCEEDED)
    assert (central.job_epoch(job_id), known.clones_seen) == (1, 0)


def test_status_shows_the_clock_s_offset(central: FakeCentral, worker: RunningWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SystemClock, "wall", lambda self: time.time() + 3600)
    worker.start()
    path = worker.state.status_path
    offset = eventually(lambda: path.exists() and json.loads(path.read_bytes())["clock_off_s"])
    assert offset == pytest.approx(3600, abs=5)


def test_draining_takes_no_new_jobs_and_waits_for_running_ones(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    running = worker.enqueue("run\nsleep 1\nexit 0")
    central.wait_for_state(running, JobState.RUNNING)
    assert worker.drain() == EXIT_OK
    assert central.job_state(running) == "succeeded"
    waiting = worker.enqueue("run")
    assert central.job_state(waiting) == "queued"


def test_a_revoked_worker_ends_and_its_jobs_run_on(central: FakeCentral, worker: RunningWorker) -> None:
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


def _configure(worker: RunningWorker, **settings: object) -> None:
    worker.config = msgspec.structs.replace(worker.config, **settings)  # type: ignore[arg-type]


def test_an_ephemeral_worker_takes_its_one_job_and_leaves(central: FakeCentral, worker: RunningWorker) -> None:
    first, second = worker.enqueue("run\nexit 0"), worker.enqueue("run\nexit 0")
    _configure(worker, ephemeral=True, max_jobs=1)
    worker.start()
    assert worker.wait() == EXIT_OK
    assert (central.job_state(first), central.job_state(second)) == ("succeeded", "queued")
    assert central.worker("w1").is_revoked
    assert not (worker.state.root / "credential.json").exists()


def test_an_ephemeral_worker_that_is_idle_leaves(central: FakeCentral, worker: RunningWorker) -> None:
    _configure(worker, ephemeral=True, idle_exit_s=0.2)
    worker.start()
    assert worker.wait() == EXIT_OK
    assert central.worker("w1").is_revoked


def test_a_lasting_worker_ends_after_its_jobs_and_takes_as_many_at_its_next_start(
    central: FakeCentral, worker: RunningWorker
) -> None:
    _configure(worker, max_jobs=2)
    jobs = [worker.enqueue("run\nexit 0") for _ in range(2)]
    worker.start()
    assert worker.wait() == EXIT_OK
    assert {central.job_state(job) for job in jobs} == {"succeeded"}
    assert not central.worker("w1").is_revoked


def test_a_restarted_daemon_of_a_one_job_worker_takes_no_second_job(central: FakeCentral, worker: RunningWorker) -> None:
    _configure(worker, ephemeral=True, max_jobs=1)
    first = worker.enqueue("run\nsleep 1\nexit 0")
    worker.start()
    central.wait_for_state(first, JobState.RUNNING)
    eventually(lambda: shim_pid(worker, first))
    assert worker.detach() == EXIT_OK
    second = worker.enqueue("run\nexit 0")
    worker.start()
    assert worker.wait() == EXIT_OK
    assert (central.job_state(first), central.job_state(second)) == ("succeeded", "queued")


def test_a_paused_worker_takes_work_again_when_its_intent_is_serve(central: FakeCentral, worker: RunningWorker) -> None:
    worker.start()
    eventually(lambda: central.requests_to("poll"))
    central.set_intent("w1", IntentMode.PAUSE)
    job_id = worker.enqueue("run\nexit 0")
    time.sleep(0.5)
    assert central.job_state(job_id) == "queued"
    central.set_intent("w1", IntentMode.SERVE)
    central.wait_for_state(job_id, JobState.SUCCEEDED)


def test_a_job_that_ignores_its_stop_is_killed(
    central: FakeCentral, worker: RunningWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "KILL_AFTER_S", 0.5)
    worker.config = msgspec.structs.replace(worker.config, stop_grace_s=0.3)
    worker.start()
    job_id = worker.enqueue("run\ndeaf 60")
    central.wait_for_state(job_id, JobState.RUNNING)
    pid = eventually(lambda: shim_pid(worker, job_id))
    central.end_task(job_id)
    eventually(lambda: not is_running(pid), timeout_s=25)


def test_without_contact_a_job_is_stopped_after_its_limit(worker: RunningWorker, central: FakeCentral) -> None:
    central._ledger.stop_after_s = 1.5
    worker.start()
    job_id = worker.enqueue("run\nsleep 60")
    central.wait_for_state(job_id, JobState.RUNNING)
    pid = eventually(lambda: shim_pid(worker, job_id))
    central.go_down()
    eventually(lambda: not is_running(pid))


def test_with_an_unusable_runtime_the_worker_takes_no_job_and_reports_why(worker: RunningWorker, central: FakeCentral) -> None:
    worker.config.runtime.env["FAKE_UNABLE"] = "no airflow here; install it"
    worker.start()
    job_id = worker.enqueue("run")
    reported = eventually(lambda: central.runtime("w1"))
    assert "no airflow here; install it" in reported.trouble
    assert central.job_state(job_id) == JobState.QUEUED


def test_after_a_failed_canary_the_worker_takes_no_job_until_the_runtime_is_repaired(
    worker: RunningWorker, central: FakeCentral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "LOOK_EVERY_S", 0.2)
    broken = tmp_path / "broken"
    broken.write_text("ImportError: libfoo.so")
    worker.config.runtime.env["FAKE_CANARY"] = str(broken)
    worker.start()
    job_id = worker.enqueue("run\nexit 0")
    reported = eventually(lambda: central.runtime("w1"))
    assert "failed its canary (a built-in task): ImportError: libfoo.so" in reported.trouble
    assert (reported.airflow, reported.task_sdk) == ("3.3.0", "1.3.0")
    eventually(lambda: worker.daemon_status()["runtime_trouble"] == reported.trouble)
    assert central.job_state(job_id) == JobState.QUEUED
    broken.unlink()
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=20)
    assert eventually(lambda: central.runtime("w1").trouble == "")


def test_after_jobs_that_fail_before_they_begin_the_worker_pauses_and_tries_one(
    worker: RunningWorker, central: FakeCentral, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "FIRST_PAUSE_S", 2.0)
    worker.start()
    failed = [worker.enqueue("run\nunborn 1") for _ in range(3)]
    for job_id in failed:
        central.wait_for_state(job_id, JobState.FAILED)
    waiting = [worker.enqueue("run\nsleep 0.5\nexit 0") for _ in range(2)]
    reported = eventually(lambda: (runtime := central.runtime("w1")) and runtime.trouble)
    assert "the last 3 jobs failed before their own code began" in reported
    assert all(central.job_state(job_id) == JobState.QUEUED for job_id in waiting)
    central.wait_for_state(waiting[0], JobState.RUNNING, timeout_s=20)
    assert central.job_state(waiting[1]) == JobState.QUEUED  # one at a time, until one has begun
    central.wait_for_state(waiting[1], JobState.SUCCEEDED, timeout_s=20)
    assert central.runtime("w1").trouble == ""


def test_without_a_zygote_each_job_gets_a_fresh_interpreter(worker: RunningWorker, central: FakeCentral) -> None:
    worker.config.runtime.env["FAKE_CRASH"] = "1"
    worker.start()
    job_id = worker.enqueue("run\nexit 0")
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=20)


def test_a_zygote_that_dies_while_forking_causes_no_second_copy(worker: RunningWorker, central: FakeCentral) -> None:
    worker.config.runtime.env["FAKE_CRASH_IN_FORK"] = "1"
    worker.start()
    job_id = worker.enqueue("run\nlog once\nexit 0")
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=20)
    assert central.log_bytes(job_id).count(b"once") == 1


def test_an_idle_worker_sends_nothing_but_its_poll(
    worker: RunningWorker, central: FakeCentral, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    worker.start()
    eventually(lambda: central.requests_to("runtime"))
    time.sleep(1.5)
    others = [request.path for request in central.requests if not request.path.startswith("log?")]
    # The first poll requests no job: the runtime is still being tested.
    assert sorted(others) == ["enrol", "inventory", "poll", "poll", "runtime", "session"]
    eventually(lambda: b"session open" in central.worker_log("w1"))
    sent = len(central.requests)
    time.sleep(5)
    assert len(central.requests) == sent, "after its start an idle worker sends nothing more"


def test_status_lists_the_held_jobs(worker: RunningWorker, central: FakeCentral) -> None:
    worker.start()
    job_id = worker.enqueue("run\nsleep 20")
    central.wait_for_state(job_id, JobState.RUNNING)
    eventually(lambda: json.loads(worker.state.status_path.read_bytes())["jobs"])
    status = json.loads(worker.state.status_path.read_bytes())
    assert status["jobs"][0]["job_id"] == job_id
    assert status["jobs"][0]["phase"] in (JobPhase.PREPARING.value, JobPhase.RUNNING.value)
    central.end_task(job_id)
    central.wait_for_state(job_id, JobState.REVOKED)


def test_sigkill_of_the_daemon_loses_nothing(central: FakeCentral, worker: RunningWorker) -> None:
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


def test_a_second_signal_ends_the_daemon_and_its_jobs_run_on(central: FakeCentral, worker: RunningWorker) -> None:
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


def test_the_credential_is_in_no_environment_or_arguments(central: FakeCentral, worker: RunningWorker) -> None:
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


def test_plain_http_to_another_machine_causes_a_warning_at_each_start(
    worker: RunningWorker, caplog: pytest.LogCaptureFixture
) -> None:
    worker.config = msgspec.structs.replace(worker.config, central="http://central.invalid", insecure_http=True)
    worker.start()
    eventually(lambda: "NOT ENCRYPTED: http://central.invalid is plain http" in caplog.text)
    status = eventually(lambda: worker.state.status_path.exists() and json.loads(worker.state.status_path.read_bytes()))
    assert status["warning"].startswith("NOT ENCRYPTED")


def test_run_as_user_disables_connection_tests_and_needs_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = Config(state=tmp_path, run_as_user="nobody")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert Capability.CONNECTION_TEST not in daemon.capabilities(config)
    assert Capability.CONNECTION_TEST in daemon.capabilities(Config(state=tmp_path))
    with pytest.raises(ConfigError, match=r"^run_as_user: there is no user"):
        daemon.capabilities(Config(state=tmp_path, run_as_user="who-is-this"))
    of_queue = {"gpu": QueueConfig(run_as_user="nobody"), "cpu": QueueConfig()}
    assert Capability.CONNECTION_TEST not in daemon.capabilities(Config(state=tmp_path, queues=of_queue))
    with pytest.raises(ConfigError, match=r"^queues\.gpu\.run_as_user: there is no user"):
        daemon.capabilities(Config(state=tmp_path, queues={"gpu": QueueConfig(run_as_user="who-is-this")}))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="run_as_user: only a worker that runs as root"):
        daemon.capabilities(config)
