"""Triggers on a whole worker with the real runtime: waits, cancellations, outages and deaths as central sees them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from airflow_remote_protocol.messages import EventKind, IntentMode, JobKind, Outcome, StopReason
from airflow_remote_protocol.states import JobState
from airflow_remote_worker.config import CodeConfig
from airflow_remote_worker.loops import ship_triggers
from airflow_remote_worker.testing.fake_central import FakeCentral

from ..conftest import eventually, is_running
from .conftest import HEAD, TriggerWorker

pytestmark = [pytest.mark.runtime, pytest.mark.timeout(300)]
SLOW_S = 40.0
"""For what takes a second on an idle computer. Less than the worker waits at most for the end of a log (`triggers/keeper.py`)."""
START_S = 120.0
"""For the start of a daemon, of its zygote, which imports Airflow, and of a trigger host."""
MANY_S = 150.0
"""For 300 of it."""
TASK = """
from airflow.sdk import DAG, task
with DAG("a_dag", schedule=None):
    @task
    def a_task():
        print("beside")
    a_task()
"""


def payload(central: FakeCentral, job_id: str) -> object:
    event = central.job(job_id).event
    assert event is not None and event.kind is EventKind.FIRED, event
    return json.loads(bytes(event.payload))


def running(central: FakeCentral, worker: TriggerWorker, name: str) -> str:
    """Start a trigger and wait until its code runs."""
    job_id = worker.wait_for(name)
    eventually(lambda: worker.has_logged(job_id, b"waiting for"), timeout_s=START_S)
    return job_id


def status_of(worker: TriggerWorker) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(worker.state.status_path.read_bytes())
    return found


def test_a_fired_trigger_leaves_nothing_behind(central: FakeCentral, worker: TriggerWorker) -> None:
    worker.start()
    job_id = running(central, worker, "a")
    assert central.job_state(job_id) == "running"
    eventually(lambda: status_of(worker)["triggers"] == {"running": 1, "most": 1000, "hosts": 1}, timeout_s=SLOW_S)
    status = status_of(worker)
    assert status["free_slots"] == 4
    assert status["jobs"] == []
    worker.fire("a", "the end")
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=SLOW_S)
    assert payload(central, job_id) == "the end"
    central.wait_until(
        lambda: b"trigger completed" in central.log_bytes(job_id), what=lambda: repr(central.log_bytes(job_id)), timeout_s=SLOW_S
    )
    eventually(lambda: not worker.held(), timeout_s=SLOW_S)
    assert central.job(job_id).report is None


def test_triggers_of_one_bundle_share_a_host(central: FakeCentral, worker: TriggerWorker) -> None:
    worker.start()
    for name in "abc":
        running(central, worker, name)
    assert len(worker.host_pids()) == 1


def test_changed_code_gets_a_host_of_its_own(central: FakeCentral, worker: TriggerWorker) -> None:
    worker.start()
    old = running(central, worker, "old")
    source = (worker.bundle / "site_triggers.py").read_text()
    (worker.bundle / "site_triggers.py").write_text(source.replace("path.read_text()", "'changed'"))
    time.sleep(3.5)  # the state of the code is checked every three seconds
    new = running(central, worker, "new")
    assert len(worker.host_pids()) == 2
    for name in ("old", "new"):
        worker.fire(name)
    central.wait_for_state(old, JobState.SUCCEEDED, timeout_s=SLOW_S)
    central.wait_for_state(new, JobState.SUCCEEDED, timeout_s=SLOW_S)
    assert (payload(central, old), payload(central, new)) == ("here", "changed")


def test_a_connection_is_read_through_the_gateway(central: FakeCentral, worker: TriggerWorker) -> None:
    central.tasks.connections["vault"] = {"host": "vault.example", "password": "correct-horse-battery"}
    worker.start()
    job_id = worker.defer("Read", conn_id="vault")
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=SLOW_S)
    assert payload(central, job_id) == "vault.example"
    central.wait_until(lambda: b"the password is ***" in central.log_bytes(job_id), timeout_s=SLOW_S)


def test_an_unknown_bundle_fails_the_wait_and_says_why(central: FakeCentral, worker: TriggerWorker) -> None:
    worker.start()
    job_id = central.enqueue("q", kind=JobKind.TRIGGER, workload={"bundle": {"name": "elsewhere", "version": None}})
    central.wait_for_state(job_id, JobState.FAILED, timeout_s=SLOW_S)
    report = central.job(job_id).report
    assert report and report.outcome is Outcome.UNPREPARED
    assert b"bundles.elsewhere.path" in central.log_bytes(job_id)
    eventually(lambda: not worker.held(), timeout_s=SLOW_S)


@pytest.mark.parametrize(("reason", "kills"), [(StopReason.ENDED, True), (StopReason.CLEARED, True), (StopReason.RESUMED, False)])
def test_a_stop_cancels_the_trigger_and_on_kill_runs_only_if_a_user_acted(
    central: FakeCentral, worker: TriggerWorker, reason: StopReason, kills: bool
) -> None:
    worker.start()
    job_id = running(central, worker, "a")
    central.end_task(job_id, reason=reason)
    eventually(lambda: not worker.held(), timeout_s=SLOW_S)
    assert worker.was_killed("a") is kills
    assert central.job(job_id).event is None
    assert b"trigger completed" in central.log_bytes(job_id)


def test_an_event_during_an_outage_is_delivered_afterwards(central: FakeCentral, worker: TriggerWorker) -> None:
    worker.start()
    job_id = running(central, worker, "a")
    central.go_down()
    worker.fire("a", "meanwhile")
    eventually(lambda: list(worker.state.triggers.glob("*/event.json")), timeout_s=SLOW_S)
    central.come_back()
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=SLOW_S)
    assert payload(central, job_id) == "meanwhile"
    central.wait_until(
        lambda: b"trigger completed" in central.log_bytes(job_id), what=lambda: repr(central.log_bytes(job_id)), timeout_s=SLOW_S
    )
    assert central.log_bytes(job_id).count(b"waiting for") == 1


def test_the_log_of_a_fired_trigger_lasts_until_its_code_has_ended(central: FakeCentral, worker: TriggerWorker) -> None:
    worker.start()
    job_id, path = lingering(central, worker)
    central.wait_until(lambda: b"after the event" in central.log_bytes(job_id), timeout_s=SLOW_S)
    shipped = len(central.log_bytes(job_id))
    time.sleep(2 * ship_triggers.URGENT_S)  # the law to break: a log that central has so far is not a complete log
    assert (worker.held(), len(central.log_bytes(job_id))) == ([f"{job_id}.1"], shipped)
    path.touch()
    eventually(lambda: not worker.held(), timeout_s=SLOW_S)
    assert in_order(central.log_bytes(job_id), b"after the event", b"cleaned up", b"trigger completed")


def lingering(central: FakeCentral, worker: TriggerWorker) -> tuple[str, Path]:
    """Run a trigger until central has its event; return its job and the file that lets its code end."""
    job_id = worker.defer("Lingers", path=str(worker.files / "a"))
    eventually(lambda: worker.has_logged(job_id, b"waiting for"), timeout_s=START_S)
    worker.fire("a")
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=SLOW_S)
    return job_id, worker.files / "a.ended"


def in_order(text: bytes, *parts: bytes) -> bool:
    """Return whether the text has each part once, in this order."""
    places = [text.find(part) for part in parts]
    return places == sorted(places) and [text.count(part) for part in parts] == [1] * len(parts)


def test_a_daemon_that_ends_before_the_code_of_a_fired_trigger_leaves_the_log_to_the_next(
    central: FakeCentral, worker: TriggerWorker
) -> None:
    daemon = start_process(worker)
    job_id, path = lingering(central, worker)
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    path.touch()
    worker.start()
    eventually(lambda: not worker.held(), timeout_s=SLOW_S)
    assert in_order(central.log_bytes(job_id), b"waiting for", b"cleaned up", b"trigger completed")
    assert central.job_epoch(job_id) == 1


def test_a_host_that_dies_after_the_event_completes_the_log(central: FakeCentral, worker: TriggerWorker) -> None:
    worker.start()
    lingering(central, worker)
    (host,) = worker.host_pids()
    os.kill(host, signal.SIGKILL)
    eventually(lambda: not worker.held(), timeout_s=SLOW_S)


def test_a_lost_reply_changes_nothing(central: FakeCentral, worker: TriggerWorker) -> None:
    worker.start()
    job_id = running(central, worker, "a")
    central.drop_next_reply("/event")
    central.drop_next_reply("logs")
    worker.fire("a")
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=SLOW_S)
    eventually(lambda: not worker.held(), timeout_s=SLOW_S)
    central.wait_until(
        lambda: b"trigger completed" in central.log_bytes(job_id), what=lambda: repr(central.log_bytes(job_id)), timeout_s=SLOW_S
    )
    assert central.log_bytes(job_id).count(b"trigger completed") == 1


def test_a_killed_daemon_leaves_its_triggers_running_and_the_next_one_delivers_their_events_once(
    central: FakeCentral, worker: TriggerWorker
) -> None:
    daemon = start_process(worker)
    fires, waits = running(central, worker, "fires"), running(central, worker, "waits")
    (host,) = worker.host_pids()
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    worker.fire("fires", "without a daemon")
    time.sleep(1)
    assert is_running(host)
    worker.start()
    central.wait_for_state(fires, JobState.SUCCEEDED, timeout_s=SLOW_S)
    assert payload(central, fires) == "without a daemon"
    assert central.job_epoch(waits) == 1
    assert worker.host_pids() == [host]
    worker.fire("waits")
    central.wait_for_state(waits, JobState.SUCCEEDED, timeout_s=SLOW_S)
    events = [request for request in central.requests_to("/event") if request.status == 204]
    assert len(events) == 2
    for job_id in (fires, waits):
        central.wait_until(lambda job_id=job_id: b"trigger completed" in central.log_bytes(job_id), timeout_s=SLOW_S)  # type: ignore[misc]


def test_a_host_that_died_with_its_daemon_starts_again(central: FakeCentral, worker: TriggerWorker) -> None:
    daemon = start_process(worker)
    job_id = running(central, worker, "a")
    (host,) = worker.host_pids()
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    os.kill(host, signal.SIGKILL)
    eventually(lambda: not is_running(host), timeout_s=SLOW_S)
    worker.start()
    worker.fire("a")
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=SLOW_S)
    assert central.job_epoch(job_id) == 1


def test_a_user_s_stop_while_no_daemon_runs_still_runs_on_kill(central: FakeCentral, worker: TriggerWorker) -> None:
    daemon = start_process(worker)
    job_id = running(central, worker, "a")
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    central.end_task(job_id)
    worker.start()
    eventually(lambda: worker.was_killed("a"), timeout_s=SLOW_S)
    eventually(lambda: not worker.held(), timeout_s=SLOW_S)


def test_the_triggers_of_a_dead_host_go_back_to_the_queue_and_start_again(central: FakeCentral, worker: TriggerWorker) -> None:
    worker.start()
    job_ids = [running(central, worker, name) for name in "ab"]
    (host,) = worker.host_pids()
    os.kill(host, signal.SIGKILL)
    for job_id in job_ids:
        central.wait_until(lambda job_id=job_id: central.job_epoch(job_id) == 2, timeout_s=SLOW_S)  # type: ignore[misc]
        assert [reason.startswith("host-died: ") for reason in central.job(job_id).declines] == [True]
    for name in "ab":
        worker.fire(name)
    for job_id in job_ids:
        central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=SLOW_S)


def test_a_trigger_that_kills_its_hosts_runs_alone_after_the_second_death(central: FakeCentral, worker: TriggerWorker) -> None:
    worker.start()
    neighbours = [running(central, worker, name) for name in "ab"]
    killer = worker.defer("Die")
    central.wait_until(lambda: len(central.job(killer).declines) >= 4, timeout_s=60)
    assert [len(central.job(job_id).declines) for job_id in neighbours] == [2, 2]
    central.end_task(killer)
    for name in "ab":
        worker.fire(name)
    for job_id in neighbours:
        central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=SLOW_S)


def test_a_drain_hands_running_triggers_back_without_on_kill(central: FakeCentral, worker: TriggerWorker) -> None:
    worker.start()
    job_id = running(central, worker, "a")
    assert worker.drain() == 0
    assert central.job_state(job_id) == "queued"
    assert central.job(job_id).declines == ["this worker is draining"]
    assert not worker.was_killed("a")
    assert not worker.held()


def test_an_intent_to_drain_moves_triggers_and_a_pause_does_not(central: FakeCentral, worker: TriggerWorker) -> None:
    worker.start()
    job_id = running(central, worker, "a")
    central.set_intent("w1", IntentMode.PAUSE)
    time.sleep(1)
    assert central.job_state(job_id) == "running"
    refused = worker.wait_for("b")
    central.set_intent("w1", IntentMode.DRAIN)
    central.wait_until(lambda: central.job_state(job_id) == "queued", timeout_s=SLOW_S)
    assert central.job_state(refused) == "queued"
    central.set_intent("w1", IntentMode.SERVE)
    worker.fire("a")
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=SLOW_S)


def test_triggers_beyond_the_limit_wait(central: FakeCentral, worker: TriggerWorker) -> None:
    worker.config = msgspec.structs.replace(worker.config, triggers=1)
    worker.start()
    first = running(central, worker, "a")
    second = worker.wait_for("b")
    time.sleep(1)
    assert central.job_state(second) == "queued"
    worker.fire("a")
    central.wait_for_state(first, JobState.SUCCEEDED, timeout_s=SLOW_S)
    worker.fire("b")
    central.wait_for_state(second, JobState.SUCCEEDED, timeout_s=SLOW_S)


def test_tasks_and_triggers_have_separate_limits(central: FakeCentral, worker: TriggerWorker) -> None:
    worker.start()
    for n in range(6):
        worker.wait_for(f"t{n}")
    (worker.bundle / "task_dag.py").write_text(TASK)
    job_id = central.enqueue("q", workload={"dag_rel_path": "task_dag.py"})
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=SLOW_S)


@pytest.mark.timeout(600)
def test_many_offers_at_once_are_accepted_within_their_deadline(central: FakeCentral, worker: TriggerWorker) -> None:
    job_ids = [worker.wait_for("all") for _ in range(300)]
    worker.start()
    central.wait_until(lambda: all(central.job(job_id).state is JobState.RUNNING for job_id in job_ids), timeout_s=MANY_S)
    worker.fire("all")
    central.wait_until(lambda: all(central.job(job_id).state is JobState.SUCCEEDED for job_id in job_ids), timeout_s=MANY_S)
    eventually(lambda: not worker.held(), timeout_s=MANY_S)
    assert all(central.job_epoch(job_id) == 1 for job_id in job_ids), "an offer that missed its deadline is made again"


def start_process(worker: TriggerWorker) -> subprocess.Popen[bytes]:
    """Start the real command in a process of its own, with the real runtime."""
    argv = [sys.executable, "-m", "airflow_remote_worker", "run", "--state", str(worker.state.root), "--slots", "4"]
    argv += ["--runtime-python", worker.runtime, "--bundle", f"dags-folder={worker.bundle}"]
    started = subprocess.Popen(argv)
    worker._processes.append(started)
    return started


def test_a_trigger_runs_the_code_that_central_sends_and_keeps_it(central: FakeCentral, worker: TriggerWorker) -> None:
    worker.config = msgspec.structs.replace(worker.config, bundles={}, code=CodeConfig(total_mb=0))
    worker.start()
    digest = central.publish({"site_triggers.py": HEAD.encode(), "a_dag.py": b""})
    workload = {"classpath": "site_triggers.Wait", "kwargs": {"path": str(worker.files / "a")}}
    job_id = central.enqueue("q", kind=JobKind.TRIGGER, workload=workload, tree=central.code.ref(digest))
    eventually(lambda: worker.has_logged(job_id, b"waiting for"), timeout_s=SLOW_S)
    other = central.publish({"a_dag.py": TASK.encode()})
    task = central.enqueue("q", tree=central.code.ref(other))
    central.wait_for_state(task, JobState.SUCCEEDED, timeout_s=SLOW_S)
    trees = worker.state.code / "trees"
    assert (trees / digest / "files" / "site_triggers.py").exists(), "its host runs, so its code stays"
    assert b"beside" in central.log_bytes(task)
    worker.fire("a", "the end")
    central.wait_for_state(job_id, JobState.SUCCEEDED, timeout_s=SLOW_S)
    assert payload(central, job_id) == "the end"
