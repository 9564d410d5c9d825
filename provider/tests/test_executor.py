"""The real RemoteExecutor with Airflow's real workloads: hands in, reports ends, adopts, never breaks the scheduler's loop."""

from __future__ import annotations

import gc
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace

import pytest
from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm.attributes import instance_state
from structlog.testing import capture_logs

from testkit.ledger import (  # isort: skip
    Callback,
    ConnectionTest,
    DagRun,
    Enlisted,
    TaskInstance,
    ago,
    change_job,
    change_task,
    claim,
    record_statements,
    enlist,
    job_row,
    set_last_seen,
    substitute,
)

from airflow.executors.workloads import ExecuteCallback, ExecuteTask, TestConnection
from airflow.executors.workloads.base import BundleInfo
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.utils.state import CallbackState
from airflow_remote_protocol.messages import JobKind, Outcome, Report, StopReason
from airflow_remote_protocol.states import JobState
from airflow_remote_provider import compat, workloads
from airflow_remote_provider.executor import RemoteExecutor, ledger_executor
from airflow_remote_provider.executor.ledger_executor import _is_failure
from airflow_remote_provider.executor.unusable import make_unusable_executor
from airflow_remote_provider.ledger import ended_tasks, leases, lost_jobs, queue_policy, queues
from airflow_remote_provider.ledger.fence import WorkerLease
from airflow_remote_provider.ledger.jobs import EndedJob
from airflow_remote_provider.models import Job
from airflow_remote_provider.settings import settings

pytestmark = pytest.mark.usefixtures("database")


def _executor(*, team: str | None = None, parallelism: int = 32, job_id: int = 1) -> RemoteExecutor:
    executor = RemoteExecutor(parallelism=parallelism, team_name=team)
    executor.job_id = job_id  # as the scheduler does
    return executor


def _workload(**ti: object) -> ExecuteTask:
    values: dict[str, object] = {
        "id": uuid.uuid4(),
        "dag_version_id": uuid.uuid4(),
        "dag_id": "dag",
        "run_id": "run",
        "task_id": f"task-{uuid.uuid4()}",
        "try_number": 1,
        "map_index": -1,
        "queue": "q",
        "pool_slots": 1,
        "priority_weight": 1,
        "external_executor_id": str(uuid.uuid4()),
    }
    dto = TaskInstanceDTO(**{**values, **ti})  # type: ignore[arg-type]
    with compat.transaction() as session:
        if session.get(TaskInstance, dto.id) is None:
            session.add(TaskInstance(id=dto.id, state="queued", external_executor_id=dto.external_executor_id))
    return ExecuteTask(
        ti=dto,
        token="a secret token of the scheduler's",
        dag_rel_path="dags/my_dag.py",
        bundle_info=BundleInfo(name="bundle", version="v7"),
        log_path="dag_id=dag/attempt=1.log",
    )


def _key(workload: ExecuteTask) -> object:
    """Return the key of the task's try for executor and scheduler in this version of Airflow."""
    return _executor().task_key(workload.ti)


def _waiting(executor: RemoteExecutor) -> list[object]:
    """Return the keys of the workloads that the executor has not handed in yet."""
    return [key for queue in executor.waiting() for key in queue]


def _queue(executor: RemoteExecutor, workload: ExecuteTask) -> str:
    executor.queue_workload(workload, session=None)
    return str(workload.ti.external_executor_id)


def _all_jobs() -> list[Job]:
    with compat.transaction() as session:
        return list(session.scalars(select(Job)))


def _run(worker: Enlisted, job_id: str) -> WorkerLease:
    claimed = {job.job_id: job for job in claim(worker.claimant())}[job_id]
    with compat.transaction() as session:
        leases.accept(session, worker.lease(claimed))
    change_task(job_row(job_id).ti_id, state="running")
    return worker.lease(claimed)


def _end(lease: WorkerLease, outcome: Outcome = Outcome.SUCCEEDED, *, concluded: bool = True, state: str = "success") -> None:
    """Let the task set its terminal state, then report the job."""
    if concluded:
        with compat.transaction() as session:
            leases.conclude(session, lease, done=True)
        change_task(job_row(lease.job_id).ti_id, state=state)
    with compat.transaction() as session:
        leases.report(session, lease, Report(outcome, reason=f"said {outcome.value}"))


def _row(workload: ExecuteTask, state: str = "queued") -> SimpleNamespace:
    """Return a stand-in for the task instance row that the scheduler passes."""
    ti = workload.ti
    return SimpleNamespace(id=ti.id, key=ti.key, external_executor_id=ti.external_executor_id, state=state)


def _conclude(lease: WorkerLease) -> None:
    """Let the task set its terminal state; its log and report have not arrived yet."""
    with compat.transaction() as session:
        leases.conclude(session, lease, done=True)


@contextmanager
def _broken_database(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    @contextmanager
    def broken(*_: object, **__: object) -> Iterator[None]:
        raise OperationalError("SELECT 1", {}, Exception("the database is away"))
        yield

    with monkeypatch.context() as patch:
        substitute(patch, "transaction", broken)
        yield


# Handing in


def test_a_heartbeat_hands_in_queued_workloads() -> None:
    executor, workload = _executor(), _workload(queue="edge", pool_slots=3, priority_weight=7, map_index=4, try_number=2)
    job_id = _queue(executor, workload)
    executor.heartbeat()
    row = job_row(job_id)
    assert (row.state, row.queue, row.slots, row.priority, row.owner, row.team) == ("queued", "edge", 3, 7, "1/", None)
    assert (row.ti_id, row.map_index, row.try_number) == (workload.ti.id, 4, 2)
    assert (row.log_path, row.lost_after_s) == ("dag_id=dag/attempt=1.log", settings().lost_after_seconds)
    assert (_waiting(executor), executor.running) == ([], {_key(workload)})


def test_lost_after_of_the_task_overrides_the_queue_which_overrides_the_deployment() -> None:
    with compat.transaction() as session:
        queues.set_queue(session, "ships", lost_after_s=14_400, by="ann")
    executor = _executor()
    config = {"remote": {"lost_after": "30m"}}
    own, of_queue, default = (
        _queue(executor, workload)
        for workload in (_workload(queue="ships", executor_config=config), _workload(queue="ships"), _workload(queue="q"))
    )
    executor.heartbeat()
    found = [job_row(job_id).lost_after_s for job_id in (own, of_queue, default)]
    assert found == [1800, 14_400, settings().lost_after_seconds]


@pytest.mark.parametrize(
    ("option", "reason"), [({"lost_after": "soon"}, "not a duration"), ({"lost_aftr": 60}, "lost_aftr"), ("2h", "must be a dict")]
)
def test_only_the_task_with_an_invalid_option_fails_with_the_reason(option: object, reason: str) -> None:
    executor = _executor()
    bad, good = _workload(executor_config={"remote": option}), _workload()
    _queue(executor, bad)
    job_id = _queue(executor, good)
    executor.heartbeat()
    assert [job.id for job in _all_jobs()] == [job_id]
    (state, info) = executor.get_event_buffer()[_key(bad)]
    assert state == "failed" and reason in info and "executor_config" in info
    events = _saved_events(executor)
    assert len(events) == 1 and reason in events[0]
    assert (_waiting(executor), executor.running) == ([], {_key(good)})


def _saved_events(executor: RemoteExecutor) -> list[str]:
    """Return the events that Airflow would save: it pops each event, and reads it when only weak references are left."""
    states = [instance_state(executor._task_event_logs.popleft()) for _ in range(len(executor._task_event_logs))]
    gc.collect()
    return [state.dict["extra"] for state in states if state.obj() is not None]


def test_a_task_whose_bundle_its_queue_may_not_have_fails_with_the_reason() -> None:
    executor = _executor()
    with compat.transaction() as session:
        queue_policy.set_bundles(session, "plant", ["plant-*"], by="admin")
    bad, good = _workload(queue="plant"), _workload()
    for workload in (bad, good):
        _queue(executor, workload)
    executor.heartbeat()
    state, info = executor.event_buffer[_key(bad)]
    assert state == "failed"
    assert "jobs of the queue 'plant' may not run code of the Dag bundle 'bundle'" in info
    assert [job.queue for job in _all_jobs()] == ["q"]


@pytest.mark.parametrize("publish, waits", [("auto", True), ("off", False)])
def test_before_the_first_publication_a_job_waits_if_api_servers_publish(
    publish: str, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_executor, "settings", lambda: replace(settings(), publish=publish))
    executor = _executor()
    _queue(executor, _workload())
    executor.heartbeat()
    (job,) = _all_jobs()
    assert (job.code_waits, job.code_patience_at is not None) == (waits, waits)
    assert (job.bundle, job.bundle_version, job.dag_file) == ("bundle", "v7", "dags/my_dag.py")
    assert job.dag_version is not None


def test_the_workload_for_the_worker_contains_no_token_and_no_path_on_central() -> None:
    executor, workload = _executor(), _workload()
    job_id = _queue(executor, workload)
    executor.heartbeat()
    stored = job_row(job_id).workload
    assert workload.token not in stored and workload.log_path not in stored
    content = json.loads(stored)
    assert set(content) == {"ti", "dag_rel_path", "bundle", "code_hash"}
    assert (content["ti"]["id"], content["dag_rel_path"]) == (str(workload.ti.id), "dags/my_dag.py")
    assert content["bundle"] == {"name": "bundle", "version": "v7"}


def test_a_heartbeat_is_one_insert_for_all(database: Engine) -> None:
    executor = _executor()
    for _ in range(10):
        _queue(executor, _workload())
    with record_statements(database) as statements:
        executor.heartbeat()
    assert len([statement for statement in statements if statement.startswith("INSERT")]) == 1
    assert len(_all_jobs()) == 10


def test_an_idle_executor_asks_the_database_once_a_minute(database: Engine) -> None:
    executor = _executor()
    with record_statements(database) as statements:
        for _ in range(5):
            executor.heartbeat()
    about_locks = ("set_config", "innodb_lock_wait_timeout")
    assert len([statement for statement in statements if not any(word in statement for word in about_locks)]) == 1


def test_parallelism_bounds_what_is_handed_in() -> None:
    executor, worker = _executor(parallelism=2), enlist(slots=9)
    ids = [_queue(executor, _workload(priority_weight=weight)) for weight in (1, 3, 2)]
    executor.heartbeat()
    assert {job.id for job in _all_jobs()} == {ids[1], ids[2]}, "those with the highest priority"
    _end(_run(worker, ids[1]))
    executor.heartbeat()  # reads the end
    executor.heartbeat()  # and hands in the next
    assert {job.id for job in _all_jobs()} == set(ids)


def test_ids_of_250_characters_work() -> None:
    executor = _executor()
    workload = _workload(dag_id="d" * 250, run_id="r" * 250, task_id="t" * 250)
    job_id = _queue(executor, workload)
    executor.heartbeat()
    _end(_run(enlist(), job_id))
    executor.sync()
    assert executor.get_event_buffer() == {_key(workload): ("success", None)}


def test_a_job_has_the_team_of_its_executor() -> None:
    executor = _executor(team="blue", job_id=5)
    job_id = _queue(executor, _workload())
    executor.heartbeat()
    row = job_row(job_id)
    assert (row.team, row.owner) == ("blue", "5/blue")
    assert claim(enlist("nobodys").claimant()) == []
    assert len(claim(enlist("blues", team="blue").claimant())) == 1


def test_the_executors_of_two_teams_report_only_their_own_ends() -> None:
    blue, red = _executor(team="blue"), _executor(team="red")
    mine, other = _workload(), _workload()
    job_id = _queue(blue, mine)
    _queue(red, other)
    for executor in (blue, red):
        executor.heartbeat()
    _end(_run(enlist("blues", team="blue"), job_id))
    red.sync()
    assert red.get_event_buffer() == {}
    blue.sync()
    assert list(blue.get_event_buffer()) == [_key(mine)]


# A database that does not answer


def test_a_failing_ledger_keeps_the_work_and_hands_it_in_later(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, workload = _executor(), _workload()
    job_id = _queue(executor, workload)
    with _broken_database(monkeypatch):
        executor.heartbeat()
        executor.heartbeat()
    assert _waiting(executor) == [_key(workload)]
    assert executor.running == set()
    executor.heartbeat()
    assert job_row(job_id).state == "queued"
    assert executor.running == {_key(workload)}


def test_a_batch_whose_commit_was_not_confirmed_is_handed_in_again_without_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, workload = _executor(), _workload()
    job_id = _queue(executor, workload)
    real = compat.transaction

    @contextmanager
    def breaks_after_commit(*on: Connection | None, **how: float) -> Iterator[object]:
        with real(*on, **how) as session:
            yield session
        raise OperationalError("COMMIT", {}, Exception("the connection broke after the commit"))

    with monkeypatch.context() as patch:
        substitute(patch, "transaction", breaks_after_commit)
        executor.heartbeat()
    assert _waiting(executor) == [_key(workload)]
    claim(enlist().claimant())
    executor.heartbeat()
    assert (job_row(job_id).state, job_row(job_id).epoch) == ("offered", 1)
    assert (_waiting(executor), executor.running) == ([], {_key(workload)})


def test_nothing_that_the_scheduler_calls_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, workload = _executor(), _workload()
    _queue(executor, workload)
    executor.heartbeat()
    row = _row(workload)
    with _broken_database(monkeypatch):
        executor.sync()
        assert executor.try_adopt_task_instances([row]) == [row]
        assert executor.get_task_log(row, 1)[0] != []
        executor.revoke_task(ti=row)
        executor.end()
        executor.terminate()


def test_an_end_that_could_not_be_read_is_reported_later(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, workload = _executor(), _workload()
    job_id = _queue(executor, workload)
    executor.heartbeat()
    _end(_run(enlist(), job_id))
    with _broken_database(monkeypatch):
        executor.sync()
    assert executor.get_event_buffer() == {}
    executor.sync()
    assert list(executor.get_event_buffer()) == [_key(workload)]


def test_running_tasks_are_adopted_later_if_the_ledger_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    old, running, queued = _executor(job_id=1), _workload(), _workload()
    for workload in (running, queued):
        _queue(old, workload)
    old.heartbeat()
    lease = _run(enlist(), str(running.ti.external_executor_id))
    new, rows = _executor(job_id=2), [_row(running, "running"), _row(queued)]
    with _broken_database(monkeypatch):
        assert new.try_adopt_task_instances(rows) == [rows[1]], "Airflow would clear a running task, and its worker would stop it"
        new.heartbeat()
    new.heartbeat()
    assert new.running == {_key(running)}
    _end(lease)
    new.sync()
    assert list(new.get_event_buffer()) == [_key(running)]


# Reporting ends


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.DIED])
def test_a_task_that_set_its_own_state_is_reported_as_success(outcome: Outcome) -> None:
    """Airflow has its state already; a failure from the executor would be a second one."""
    executor, workload = _executor(), _workload()
    job_id = _queue(executor, workload)
    executor.heartbeat()
    _end(_run(enlist(), job_id), outcome, state="failed")
    executor.sync()
    assert executor.get_event_buffer() == {_key(workload): ("success", None)}
    assert executor.running == set()
    executor.sync()
    assert executor.get_event_buffer() == {}, "once"


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.DIED])
def test_a_task_that_vanished_without_a_state_has_failed(outcome: Outcome) -> None:
    executor, workload = _executor(), _workload()
    job_id = _queue(executor, workload)
    executor.heartbeat()
    _end(_run(enlist(), job_id), outcome, concluded=False)
    executor.sync()
    ((state, info),) = executor.get_event_buffer().values()
    assert state == "failed" and f"said {outcome.value}" in info
    assert executor.running == set()


def test_a_lost_job_has_failed_with_its_reason() -> None:
    executor, workload, worker = _executor(), _workload(), enlist("edge-1")
    job_id = _queue(executor, workload)
    executor.heartbeat()
    _run(worker, job_id)
    change_job(job_id, lost_after_s=60, accepted_at=ago(hours=2))
    set_last_seen(worker.id, ago(hours=1))
    with compat.transaction() as session:
        lost_jobs.lose_silent(session)
    executor.sync()
    ((state, info),) = executor.get_event_buffer().values()
    assert state == "failed" and "edge-1" in info


@pytest.mark.parametrize("state", ["success", "failed", "skipped", None, "restarting"])
def test_a_task_that_a_user_ended_or_cleared_is_not_reported_as_failed(state: str | None) -> None:
    executor, workload = _executor(), _workload()
    job_id = _queue(executor, workload)
    executor.heartbeat()
    lease = _run(enlist(), job_id)
    change_task(workload.ti.id, state=state)
    with compat.transaction() as session:
        ended_tasks.stop_ended(session)
    _end(lease, Outcome.STOPPED, concluded=False)
    executor.sync()
    assert executor.get_event_buffer() == {_key(workload): ("success", None)}
    assert executor.running == set()


@pytest.mark.parametrize(
    ("state", "concluded", "why", "failure"),
    [
        (JobState.SUCCEEDED, True, None, False),
        (JobState.SUCCEEDED, False, None, False),
        (JobState.FAILED, True, None, False),
        (JobState.FAILED, False, None, True),
        (JobState.LOST, False, None, True),
        (JobState.LOST, True, None, False),
        (JobState.LOST, False, "ended", True),
        (JobState.REVOKED, False, "ended", False),
        (JobState.REVOKED, False, "cleared", False),
        (JobState.REVOKED, False, "gone", False),
        (JobState.REVOKED, False, "revoked", True),
        (JobState.REVOKED, False, None, True),
    ],
)
def test_what_counts_as_a_failure(state: JobState, concluded: bool, why: str | None, failure: bool) -> None:
    assert _is_failure(EndedJob("id", JobKind.TASK, state, concluded, why, "")) is failure
    assert why is None or StopReason(why)


# A deferred task that is resumed has the same key


def _deferred_and_queued_again(executor: RemoteExecutor, worker: Enlisted) -> tuple[ExecuteTask, ExecuteTask]:
    first = _workload()
    job_id = _queue(executor, first)
    executor.heartbeat()
    _end(_run(worker, job_id), state="deferred")
    again = _workload(**{**first.ti.model_dump(), "external_executor_id": str(uuid.uuid4())})
    change_task(first.ti.id, state="queued", external_executor_id=again.ti.external_executor_id)
    assert _key(again) == _key(first)
    return first, again


def test_an_old_end_does_not_take_a_resumed_task_out_of_the_queue() -> None:
    executor, worker = _executor(), enlist()
    _, again = _deferred_and_queued_again(executor, worker)
    _queue(executor, again)
    executor.sync()
    assert list(executor.get_event_buffer().values()) == [("success", None)]
    assert executor.has_task(_row(again)), "else the scheduler would fail the resumed task"


def test_an_old_end_does_not_take_a_resumed_task_out_of_running() -> None:
    executor, worker = _executor(), enlist()
    _, again = _deferred_and_queued_again(executor, worker)
    job_id = _queue(executor, again)
    executor.heartbeat()  # hands the new job in, then reads the end of the old one
    assert list(executor.get_event_buffer().values()) == [("success", None)]
    assert executor.running == {_key(again)}
    _end(_run(worker, job_id))
    executor.sync()
    assert list(executor.get_event_buffer().values()) == [("success", None)]
    assert executor.running == set()


def test_an_old_failure_does_not_fail_a_resumed_task() -> None:
    executor, worker = _executor(), enlist()
    first, again = _deferred_and_queued_again(executor, worker)
    change_job(str(first.ti.external_executor_id), state="failed", concluded_at=None)
    _queue(executor, again)
    executor.heartbeat()
    assert executor.get_event_buffer() == {}
    assert executor.running == {_key(again)}


# Free slots and heartbeats


def test_an_end_frees_its_slot_before_the_next_sync() -> None:
    worker, executor = enlist(), _executor(parallelism=1)
    job_id = _queue(executor, _workload())
    executor.heartbeat()
    assert executor.slots_available == 0
    lease = _run(worker, job_id)
    executor._due.pop("ended", None)
    _end(lease)
    assert executor.slots_available == 1
    assert len(executor.get_event_buffer()) == 1


def test_a_task_that_has_concluded_fills_no_slot_and_ends_with_its_report() -> None:
    worker, executor = enlist(), _executor(parallelism=1)
    job_id = _queue(executor, _workload())
    executor.heartbeat()
    lease = _run(worker, job_id)
    _conclude(lease)
    executor.sync()
    assert (executor.slots_available, executor.get_event_buffer()) == (1, {})
    _end(lease, concluded=False)
    executor.sync()
    assert [state for state, _ in executor.get_event_buffer().values()] == ["success"]


def test_an_old_job_that_has_concluded_does_not_free_the_slot_of_the_resumed_task() -> None:
    worker, executor = enlist(), _executor()
    workload = _workload()
    old = _queue(executor, workload)
    executor.heartbeat()
    lease = _run(worker, old)
    resumed = workload.model_copy(update={"ti": workload.ti.model_copy(update={"external_executor_id": str(uuid.uuid4())})})
    _conclude(lease)
    executor.sync()
    _queue(executor, resumed)
    executor.heartbeat()
    executor.sync()
    assert _key(workload) in executor.running


def test_asking_for_free_slots_again_and_again_asks_the_ledger_once(database: Engine) -> None:
    executor = _executor()
    _queue(executor, _workload())
    executor.heartbeat()
    executor._due.pop("ended", None)
    with record_statements(database) as first:
        _ = executor.slots_available
    with record_statements(database) as again:
        _ = executor.slots_available
    assert first and not again


def test_sync_keeps_the_heartbeats_fresh_and_not_too_often(database: Engine) -> None:
    executor = _executor()
    job_id = _queue(executor, _workload())
    executor.heartbeat()
    _run(enlist(), job_id)
    executor._due.clear()
    with record_statements(database) as statements:
        executor.sync()
        executor.sync()
    refreshed = [statement for statement in statements if "last_heartbeat_at" in statement]
    assert len(refreshed) == 2, "one for running tasks, one for cleared ones"
    with compat.transaction() as session:
        (task,) = session.scalars(select(TaskInstance))
    assert task.last_heartbeat_at is not None and task.last_heartbeat_at > ago(seconds=30)


# Adoption, revocation


def test_a_new_scheduler_adopts_jobs_in_the_ledger_and_reports_their_end() -> None:
    old, workload, stranger = _executor(job_id=1), _workload(), _workload()
    job_id = _queue(old, workload)
    old.heartbeat()
    lease = _run(enlist(), job_id)

    new = _executor(job_id=2)
    rows = [_row(workload), _row(stranger), SimpleNamespace(id=uuid.uuid4(), key="?", external_executor_id=None)]
    assert new.try_adopt_task_instances(rows) == rows[1:]
    assert new.running == {_key(workload)}
    assert job_row(job_id).owner == "2/"
    _end(lease)
    new.sync()
    assert list(new.get_event_buffer()) == [_key(workload)]


@pytest.mark.parametrize("reported", [False, True], ids=["not reported", "reported to the dead scheduler"])
def test_an_end_without_a_scheduler_is_reported_after_adoption(reported: bool) -> None:
    old, workload = _executor(job_id=1), _workload()
    job_id = _queue(old, workload)
    old.heartbeat()
    _end(_run(enlist(), job_id))
    if reported:
        old.sync()
    new = _executor(job_id=2)
    assert new.try_adopt_task_instances([_row(workload)]) == []
    new.sync()
    assert new.get_event_buffer() == {_key(workload): ("success", None)}


def test_adopting_nothing_returns_nothing() -> None:
    assert list(_executor().try_adopt_task_instances([])) == []


def test_the_end_of_a_revoked_task_is_not_reported() -> None:
    executor, workload = _executor(), _workload()
    job_id = _queue(executor, workload)
    executor.heartbeat()
    executor.revoke_task(ti=_row(workload))
    assert job_row(job_id).state == "revoked"
    assert not executor.has_task(_row(workload))
    executor.sync()
    assert executor.get_event_buffer() == {}


def test_a_revoked_task_that_runs_is_stopped() -> None:
    executor, workload, worker = _executor(), _workload(), enlist()
    job_id = _queue(executor, workload)
    executor.heartbeat()
    lease = _run(worker, job_id)
    executor.revoke_task(ti=_row(workload))
    with compat.transaction() as session:
        (stop,) = leases.stops_for(session, [worker.id])[worker.id]
    assert stop.reason is StopReason.REVOKED
    _end(lease, Outcome.STOPPED, concluded=False)
    executor.sync()
    assert executor.get_event_buffer() == {}


def test_a_task_revoked_before_it_was_handed_in_is_only_forgotten() -> None:
    executor, workload = _executor(), _workload()
    _queue(executor, workload)
    executor.revoke_task(ti=_row(workload))
    executor.heartbeat()
    assert _all_jobs() == []


# Logs


def test_the_log_names_its_worker() -> None:
    executor, workload = _executor(), _workload()
    job_id = _queue(executor, workload)
    executor.heartbeat()
    assert executor.get_task_log(_row(workload), 1) == (["Remote Worker"], [])
    _run(enlist("edge-1"), job_id)
    assert executor.get_task_log(_row(workload), 1) == (["Remote Worker edge-1"], [])


def test_the_log_is_never_empty() -> None:
    messages, _ = _executor().get_task_log(SimpleNamespace(external_executor_id=None), 1)
    assert messages != []


# Callbacks and connection tests


def _callback(**data: object) -> ExecuteCallback:
    callback_id = uuid.uuid4()
    with compat.transaction() as session:
        session.add(Callback(id=callback_id, state="queued"))
    values = {"path": "alerts.tell", "kwargs": {"text": "late"}, "dag_id": "dag", **data}
    return ExecuteCallback(
        callback={"id": callback_id, "fetch_method": "import_path", "data": values},
        token="a secret token of the scheduler's",
        dag_rel_path="dags/my_dag.py",
        bundle_info=BundleInfo(name="bundle", version="v7"),
        log_path=f"executor_callbacks/dag/run/{callback_id}",
    )


def _connection_test(**values: object) -> TestConnection:
    test_id = uuid.uuid4()
    with compat.transaction() as session:
        session.add(ConnectionTest(id=test_id, state="queued"))
    return TestConnection(
        **{"connection_test_id": test_id, "connection_id": "vault", "timeout": 60, "queue": "plant", "token": "secret", **values}
    )


def _able(*queues: str) -> Enlisted:
    return enlist("able", queues, capabilities=["task", "callback", "connection-test"])


def test_a_callback_goes_to_the_configured_queue_and_its_states_are_reported() -> None:
    executor, workload = _executor(), _callback()
    executor.queue_workload(workload, session=None)
    executor.heartbeat()
    row = job_row(workload.callback.id)
    assert (row.kind, row.queue, row.dag_id, row.ti_id) == ("callback", settings().callback_queue, "dag", None)
    assert json.loads(row.workload)["kwargs"] == {"text": "late"}
    assert "secret" not in row.workload
    assert (_waiting(executor), executor.running) == ([], {workload.key})
    worker = _able("default")
    (claimed,) = claim(worker.claimant())
    with compat.transaction() as session:
        leases.accept(session, worker.lease(claimed))
    executor.sync()
    executor.sync()
    assert executor.get_event_buffer() == {workload.key: (CallbackState.RUNNING, None)}
    _end(worker.lease(claimed), concluded=False)
    executor.sync()
    assert executor.get_event_buffer() == {workload.key: (CallbackState.SUCCESS, None)}
    assert executor.running == set()


def test_a_callback_goes_to_the_queue_of_its_runs_tasks() -> None:
    with compat.transaction() as session:
        session.add(DagRun(id=7, dag_id="dag", run_id="run"))
        session.add(TaskInstance(id=uuid.uuid4(), dag_id="dag", run_id="run", queue="plant", executor="RemoteExecutor"))
    executor, workload = _executor(), _callback(dag_run_id=7)
    executor.queue_workload(workload, session=None)
    executor.heartbeat()
    assert job_row(workload.callback.id).queue == "plant"


def test_a_failed_callback_is_reported_with_its_reason() -> None:
    executor, workload = _executor(), _callback()
    executor.queue_workload(workload, session=None)
    executor.heartbeat()
    worker = _able("default")
    (claimed,) = claim(worker.claimant())
    with compat.transaction() as session:
        leases.accept(session, worker.lease(claimed))
    _end(worker.lease(claimed), Outcome.FAILED, concluded=False)
    executor.sync()
    [(state, why)] = executor.get_event_buffer().values()
    assert state == CallbackState.FAILED
    assert "said failed" in str(why)


def test_a_connection_test_goes_to_its_queue_and_a_failed_job_fails_the_test() -> None:
    executor, workload = _executor(), _connection_test()
    executor.queue_workload(workload, session=None)
    executor.heartbeat()
    job_id = str(workload.connection_test_id)
    assert (job_row(job_id).kind, job_row(job_id).queue) == ("connection-test", "plant")
    assert (_waiting(executor), executor.running) == ([], {workload.key})
    worker = _able("plant")
    (claimed,) = claim(worker.claimant())
    with compat.transaction() as session:
        leases.report(session, worker.lease(claimed), Report(Outcome.UNPREPARED, reason="no runtime is set"))
    executor.sync()
    assert executor.running == set()
    with compat.transaction() as session:
        test = session.get(ConnectionTest, workload.connection_test_id)
    assert test is not None and test.state == "failed"
    assert "no runtime is set" in str(test.result_message)


def test_a_connection_test_that_airflow_failed_is_revoked() -> None:
    executor, workload = _executor(), _connection_test()
    executor.queue_workload(workload, session=None)
    executor.heartbeat()
    executor.fail_connection_test(workload.key)
    assert job_row(str(workload.connection_test_id)).state == "revoked"
    assert executor.running == set()


def test_callbacks_of_a_dead_scheduler_are_adopted(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, workload = _executor(job_id=1), _callback()
    executor.queue_workload(workload, session=None)
    executor.heartbeat()
    monkeypatch.setattr(compat, "living_schedulers", lambda _session, _ids: set())
    other = _executor(job_id=2)
    other.sync()
    assert other.running == {workload.key}
    assert job_row(workload.callback.id).owner == "2/"


# Failures


def test_a_revocation_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, workload = _executor(), _workload()
    job_id = _queue(executor, workload)
    executor.heartbeat()
    with _broken_database(monkeypatch):
        executor.revoke_task(ti=_row(workload))
    assert job_row(job_id).state == "queued"
    executor.heartbeat()
    assert job_row(job_id).state == "revoked"


def test_a_large_backlog_is_handed_in_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_remote_provider.executor.ledger_executor.BATCH", 3)
    executor = _executor(parallelism=100)
    for _ in range(7):
        _queue(executor, _workload())
    for handed_in in (3, 6, 7):
        executor.heartbeat()
        assert (len(_all_jobs()), len(executor.running), len(_waiting(executor))) == (handed_in, handed_in, 7 - handed_in)


def test_a_lock_of_another_transaction_does_not_block_the_scheduler(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    if database.dialect.name == "sqlite":
        pytest.skip("SQLite's connections wait as long as Airflow has configured")
    monkeypatch.setattr("airflow_remote_provider.executor.ledger_executor.LOCK_WAIT_S", 0.2)
    executor, workload = _executor(), _workload()
    job_id = _queue(executor, workload)
    executor.heartbeat()
    with database.connect() as other, other.begin():
        other.execute(select(Job).where(Job.id == job_id).with_for_update())
        begin = time.monotonic()
        executor.revoke_task(ti=_row(workload))
        assert time.monotonic() - begin < 20, "MySQL itself waits for 50 s, Postgres for ever"
    executor.heartbeat()
    assert job_row(job_id).state == "revoked"


def test_a_dump_names_the_tracked_jobs() -> None:
    executor, workload = _executor(), _workload()
    job_id = _queue(executor, workload)
    executor.heartbeat()
    with capture_logs() as logs:
        executor.debug_dump()
    logged = json.dumps(logs, default=repr)
    assert job_id in logged
    assert "QueueDepth(queue='q', queued=1" in logged


def test_a_starting_scheduler_refreshes_heartbeats_before_it_checks_them() -> None:
    executor, workload = _executor(), _workload()
    job_id = _queue(executor, workload)
    executor.heartbeat()
    _run(enlist(), job_id)
    change_task(workload.ti.id, last_heartbeat_at=ago(hours=3))
    _executor(job_id=2).start()
    assert _heartbeat(workload) > ago(seconds=30)


@pytest.mark.parametrize("jump_s", [86_400, -86_400, 600, -600])
def test_a_scheduler_whose_clock_is_set_refreshes_heartbeats_at_once(jump_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    executor, workload = _executor(), _workload()
    job_id = _queue(executor, workload)
    executor.heartbeat()
    _run(enlist(), job_id)
    executor.heartbeat()
    change_task(workload.ti.id, last_heartbeat_at=ago(hours=3))
    executor.heartbeat()
    assert _heartbeat(workload) < ago(hours=2), "not due yet"
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + jump_s)
    executor.heartbeat()
    assert _heartbeat(workload) > ago(seconds=30)


def _heartbeat(workload: ExecuteTask) -> datetime:
    with compat.transaction() as session:
        task = session.get(TaskInstance, workload.ti.id)
    assert task is not None and task.last_heartbeat_at is not None
    return task.last_heartbeat_at


def test_the_class_has_the_attributes_that_airflow_reads() -> None:
    assert RemoteExecutor.supports_multi_team and RemoteExecutor.pre_assigns_external_executor_id
    assert not RemoteExecutor.is_local and not RemoteExecutor.serve_logs


def test_without_importable_code_queued_tasks_fail_with_the_reason_and_running_ones_are_kept() -> None:
    executor = make_unusable_executor(ImportError("No module named 'airflow_remote_protocol'"))(parallelism=4)
    queued, running = _workload(), _workload()
    executor.queue_workload(queued, session=None)
    executor.heartbeat()
    (state, info) = executor.get_event_buffer()[queued.ti.key]
    assert state == "failed" and "can't be loaded here: ImportError: No module named 'airflow_remote_protocol'" in info
    assert executor.queued_tasks == {}
    rows = [_row(queued), _row(running, "running")]
    assert executor.try_adopt_task_instances(rows) == rows[:1]


def test_only_the_task_that_cannot_be_handed_in_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug with one workload must not block the others of its batch, nor the scheduler."""
    executor, bad, good = _executor(), _workload(), [_workload() for _ in range(4)]
    for workload in (*good[:2], bad, *good[2:]):
        _queue(executor, workload)
    real = workloads.make_task_job

    def job(item: ExecuteTask, defaults: workloads.JobDefaults) -> object:
        return 1 / 0 if item.ti.id == bad.ti.id else real(item, defaults)

    monkeypatch.setattr(workloads, "make_task_job", job)
    executor.heartbeat()
    (state, info) = executor.get_event_buffer()[_key(bad)]
    assert state == "failed" and "ZeroDivisionError" in info
    assert executor.running == {_key(workload) for workload in good} and _waiting(executor) == []
