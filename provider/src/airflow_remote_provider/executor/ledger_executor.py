"""Stores Airflow's workloads as jobs in the ledger and reports to the scheduler how they ended.

It uses its own database sessions, so that its failures don't affect the scheduler's transaction. After a transient failure it
tries again; a workload that can't be handed in fails with the reason. The class in `__init__` catches all other exceptions.
Duties that don't belong in the scheduler's process (stop, expire, lose) are in :mod:`airflow_remote_provider.api.duties.loop`.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.executors.base_executor import PARALLELISM
from airflow.executors.workloads import ExecuteCallback, ExecuteTask
from airflow.models.connection_test import ConnectionTestKey
from airflow_remote_protocol.messages import JobKind, StopReason
from airflow_remote_protocol.states import JobState

from airflow_remote_provider import compat, metrics, workloads
from airflow_remote_provider.compat.executors import VersionedExecutor
from airflow_remote_provider.definitions.task_options import BadTaskOption
from airflow_remote_provider.faults import Diagnosis, Faults
from airflow_remote_provider.ledger import callbacks, code, heartbeats, jobs, queue_policy, queues
from airflow_remote_provider.ledger.jobs import EndedJob, NewJob
from airflow_remote_provider.ledger.queue_policy import BundleRules
from airflow_remote_provider.settings import BadSetting, settings

if TYPE_CHECKING:
    from airflow.executors.workloads import ExecutorWorkload
    from airflow.executors.workloads.types import WorkloadKey
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy.orm import Session

T = TypeVar("T")

HEARTBEATS_EVERY_S = 10.0
"""How often to refresh the heartbeats of running tasks. Airflow fails a task after 300 s without one; 10 s tolerates a database
that does not answer for minutes."""

CLOCK_SET_S = 5.0
"""If the wall clock moves this far against the monotonic clock between two calls of :meth:`sync`, the heartbeats are refreshed at
once. When the clock is set forward, all timers of the scheduler are due, and right after :meth:`sync` it searches for tasks
without a heartbeat."""

EVENTS_KEPT = 1000
"""How many events for Airflow's log to keep referenced. Airflow 3.3.2 removes the events from the executor's list before it reads
them through weak references."""

ORPHANS_EVERY_S = 60.0
"""How often to look for callbacks and connection tests of a scheduler that died."""
ORPHANS_AGAIN_S = 5.0
"""The same after a failure."""

READ_ENDED_EVERY_S = 0.1
"""The scheduler asks for free slots several times within one round; reading the ledger once is enough."""

BATCH = 500
"""The most jobs handed in by one heartbeat: about 0.1 s of the scheduler's loop. The next heartbeat comes within a second."""

LOCK_WAIT_S = 2.0
"""The longest time that the scheduler's loop waits for a lock on the ledger's rows. Then the transaction is tried again later."""


class LedgerExecutor(VersionedExecutor):
    """The implementation of the Remote Executor, without the guard against exceptions."""

    supports_multi_team = True
    is_local = False
    is_production = True
    serve_logs = False
    pre_assigns_external_executor_id = True
    """The scheduler commits the job's id together with the task's queued state, so a crash in between loses nothing."""

    def __init__(self, parallelism: int = PARALLELISM, team_name: str | None = None) -> None:
        super().__init__(parallelism=parallelism, team_name=team_name)
        self._faults = Faults(self.log, "The Remote Executor")
        self._keys: dict[str, WorkloadKey] = {}
        """Job id → workload of every job whose end was not reported to the scheduler yet."""
        self._jobs_of: Counter[WorkloadKey] = Counter()
        """How many of these jobs each workload has: two, while the end of a deferred task's first job is not reported."""
        self._unstarted: set[str] = set()
        """Ids of callbacks among these jobs whose start was not reported to the scheduler yet."""
        self._freed: set[str] = set()
        """Ids of these jobs whose task has ended: they fill no slot any more, although their log may still be in transit."""
        self._unrevoked: list[str] = []
        """Ids of jobs to revoke that are not revoked in the ledger yet."""
        self._unadopted: dict[str, WorkloadKey] = {}
        """Job id → task of running jobs of another scheduler, kept while the ledger can't be read."""
        self._due: dict[str, float] = {}
        self._has_failed_refresh = False
        """The last refresh of heartbeats failed. It is tried again, even if nothing runs, to report when it works."""
        self._wall_ahead_s = _measure_wall_ahead_s()
        self._events: deque[Any] = deque(maxlen=EVENTS_KEPT)

    @property
    def _owner(self) -> str:
        return f"{self.job_id}/{self.team_name or ''}"

    def start(self) -> None:
        """Refresh the heartbeats of running tasks, and report invalid options or tables at once.

        After a time without a scheduler, the first one must not find remote tasks without a heartbeat.
        """
        self._has_failed_refresh = self._ledger("refresh heartbeats", heartbeats.refresh_heartbeats) is _FAILED
        self._faults.attempt("read its options", settings, None)

    # Handing in

    def _process_workloads(self, workload_items: Sequence[ExecutorWorkload]) -> None:
        self._hand_in_all(workload_items[:BATCH])

    def _hand_in_all(self, items: Sequence[ExecutorWorkload]) -> None:
        """Hand these in with one transaction. After a permanent failure, find the items that cause it and fail them."""
        try:
            handed_in = compat.in_transaction(lambda session: self._hand_in(session, items), lock_wait_s=LOCK_WAIT_S)
        except Exception as error:
            found = self._faults.report_failure("hand in jobs", error)
            if found.is_transient:
                return  # they stay queued; the next heartbeat hands them in again
            if len(items) > 1 and not isinstance(error, BadSetting):
                self._hand_in_all(items[: len(items) // 2])
                self._hand_in_all(items[len(items) // 2 :])
                return
            for item in items:
                key = self.key_of(item)
                self._dequeue(key)
                self._refuse(key, _explain(found))
            return
        self._faults.report_success("hand in jobs")
        for item, job in zip(items, handed_in, strict=True):
            key = self.key_of(item)
            self._dequeue(key)
            if isinstance(job, BadTaskOption):
                self._refuse(key, str(job))
            else:
                self._expect(job.kind, job.job_id, key)

    def _dequeue(self, key: WorkloadKey) -> None:
        for queue in self.waiting():
            queue.pop(key, None)

    def _hand_in(self, session: Session, items: Sequence[ExecutorWorkload]) -> list[NewJob | BadTaskOption]:
        """Store the items' jobs. Return the jobs, with the error in place of an item that has no valid job."""
        lost_after = {name: rule.lost_after_s for name, rule in queues.rules(session).items()}
        sources = compat.parsed_sources(session, {item.ti.dag_version_id for item in items if isinstance(item, ExecuteTask)})
        hashes = {version: source.digest for version, source in sources.items()}
        defaults = workloads.JobDefaults(self._owner, self.team_name, settings().lost_after_seconds, lost_after, hashes)
        rules = queue_policy.bundle_rules(session)
        new = [self._make_job_or_error(session, item, defaults, rules) for item in items]
        patience = timedelta(seconds=settings().publish_patience_seconds)
        good = [job for job in new if isinstance(job, NewJob)]
        is_awaited = settings().publish == "auto"
        jobs.enqueue(session, code.set_code(session, good, sources, patience=patience, is_awaited=is_awaited))
        return new

    def _refuse(self, key: WorkloadKey, why: str) -> None:
        """Fail a workload that can't be handed in, and write the reason into Airflow's event log for the task's author."""
        self.log.error("The Remote Executor can't run %s: %s", key, why)
        self.log_task_event(event="remote executor", extra=why, ti_key=key)
        if self._task_event_logs:
            self._events.append(self._task_event_logs[-1])
        if isinstance(key, ConnectionTestKey):
            self._fail_connection_test_row(key, why)
        self.fail(key, why)

    def _make_job_or_error(
        self, session: Session, item: ExecutorWorkload, defaults: workloads.JobDefaults, rules: BundleRules
    ) -> NewJob | BadTaskOption:
        try:
            job = self._make_job(session, item, defaults)
        except BadTaskOption as error:
            return error
        forbidden = rules.refusal(job.queue, job.bundle)
        return job if forbidden is None else BadTaskOption(forbidden)

    def _make_job(self, session: Session, item: ExecutorWorkload, defaults: workloads.JobDefaults) -> NewJob:
        if isinstance(item, ExecuteTask):
            return workloads.make_task_job(item, defaults)
        if isinstance(item, ExecuteCallback):
            run_id = item.callback.data.get("dag_run_id")
            queue = None if run_id is None else callbacks.find_queue_of_run(session, int(run_id), compat.executor_names(self))
            return workloads.make_callback_job(item, defaults, queue or settings().callback_queue)
        return workloads.make_connection_test_job(item, defaults)

    def _expect(self, kind: JobKind, job_id: str, key: WorkloadKey) -> None:
        self.running.add(key)
        self._forget(job_id)
        self._keys[job_id] = key
        self._jobs_of[key] += 1
        if kind is JobKind.CALLBACK:
            self._unstarted.add(job_id)

    def _forget(self, job_id: str) -> WorkloadKey | None:
        """Stop tracking this job. Return its workload's key; None if it was not tracked."""
        self._unstarted.discard(job_id)
        self._freed.discard(job_id)
        key = self._keys.pop(job_id, None)
        if key is not None:
            self._jobs_of[key] -= 1
            if not self._jobs_of[key]:
                del self._jobs_of[key]
        return key

    # Reporting to the scheduler

    def sync(self) -> None:
        """Report to the scheduler which jobs started and ended; refresh the heartbeats of running tasks.

        Executes one statement a minute while nothing runs.
        """
        if self._clock_was_set():
            self._due.pop("heartbeats", None)
        runs = bool(self._keys or self._unadopted)
        if (runs or self._has_failed_refresh) and self._is_due("heartbeats", HEARTBEATS_EVERY_S):
            self._has_failed_refresh = self._ledger("refresh heartbeats", heartbeats.refresh_heartbeats) is _FAILED
            if self._has_failed_refresh:
                self._due.pop("heartbeats")
        if self._unadopted:
            self._faults.attempt("adopt jobs", self._adopt_late, None)
        if self._unrevoked:
            self._revoke_now()
        if self._is_due("orphans", ORPHANS_EVERY_S):
            self._faults.attempt("adopt callbacks", self._adopt_orphans, None)
        if self._unstarted:
            self._faults.attempt("read started callbacks", self._report_started, None)
        if self._keys:
            self._faults.attempt("read ended jobs", self._read_ended, None)

    def _clock_was_set(self) -> bool:
        before, self._wall_ahead_s = self._wall_ahead_s, _measure_wall_ahead_s()
        return abs(self._wall_ahead_s - before) > CLOCK_SET_S

    def _report_started(self) -> None:
        started = self._ledger("read started callbacks", lambda session: callbacks.find_started(session, sorted(self._unstarted)))
        if isinstance(started, set):
            for job_id in started & self._unstarted:
                self.running_state(self._keys[job_id])
            self._unstarted -= started

    @property
    def slots_available(self) -> int:
        """How many more workloads fit, as the ledger knows it now.

        The scheduler asks right before it queues, calls :meth:`sync` only after that, and sleeps a second when it has queued
        nothing. The slots of jobs that ended since the last :meth:`sync` would stay empty for that time.
        """
        if self._keys and self._is_due("ended", READ_ENDED_EVERY_S):
            self._faults.attempt("read ended jobs", self._read_ended, None)
        return int(super().slots_available)

    def _read_ended(self) -> None:
        """Read which jobs have ended, and whose tasks have ended although their reports have not arrived yet."""
        self._due["ended"] = time.monotonic() + READ_ENDED_EVERY_S
        found = self._ledger(
            "read ended jobs", lambda session: (jobs.settle(session, self._owner), jobs.concluded(session, self._owner))
        )
        if isinstance(found, tuple):
            ended, concluded = found
            for job_id in concluded - self._freed:
                self._free(job_id)
            for job in ended:
                self._report_end_or_fail(job)

    def _free(self, job_id: str) -> None:
        key = self._keys.get(job_id)
        if key is not None:
            self._freed.add(job_id)
            if self._jobs_of[key] == 1:  # a resumed task has the key of its old job, and fills a slot again
                self.running.discard(key)

    def _report_end_or_fail(self, job: EndedJob) -> None:
        """Report an end. If that raises, fail the task, because the ledger returns each end only once."""
        key = self._keys.get(job.job_id)
        try:
            self._report_end(job)
        except Exception as error:
            found = self._faults.report_failure("report the end of a job", error)
            self._forget(job.job_id)
            if key is not None:
                self.fail(key, _explain(found))

    def _report_end(self, job: EndedJob) -> None:
        metrics.count("remote.job.ended", tag=job.state.value)
        if job.waited is not None:
            metrics.record_duration("remote.job.wait", job.waited, tag=job.queue)
        if job.took is not None:
            metrics.record_duration("remote.job.duration", job.took, tag=job.queue)
        key = self._forget(job.job_id)
        if key is None:
            return
        why = f"{job.state.value} on the Remote Executor: {job.reason or 'no reason was given'}"
        if job.kind is JobKind.CALLBACK:
            self.success(key) if job.state is JobState.SUCCEEDED else self.fail(key, why)
        elif job.kind is JobKind.CONNECTION_TEST:
            self._report_connection_test(job, key, why)
        else:
            self._report_task(job, key, why)

    def _report_connection_test(self, job: EndedJob, key: ConnectionTestKey, why: str) -> None:
        """Report the end of a connection test. Its result is in Airflow's row, unless the worker could not write it."""
        if job.state is JobState.SUCCEEDED:
            self.success(key)
            return
        self._fail_connection_test_row(key, why)
        self.fail(key, why)

    def _fail_connection_test_row(self, key: ConnectionTestKey, why: str) -> None:
        self._ledger("fail a connection test", lambda session: compat.fail_connection_test(session, key.id, why))

    def _report_task(self, job: EndedJob, key: WorkloadKey, why: str) -> None:
        resumed = key in self._jobs_of or any(key in queue for queue in self.waiting())
        # A resumed (once deferred) task has the same key. Its old job's end must not remove the new one from `running`.
        if not _is_failure(job):
            self.change_state(key, "success", remove_running=not resumed)
        elif not resumed:
            self.change_state(key, "failed", why)

    # Other calls of the scheduler

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """Adopt tasks whose jobs are in the ledger, running or already ended. Return the rest.

        If the ledger can't be read, keep running tasks for a later heartbeat: Airflow clears tasks that are not adopted, and
        their workers would have to stop them. Queued tasks are returned, and Airflow queues them again.
        """
        named = {ti.external_executor_id: ti for ti in tis if ti.external_executor_id}
        known = self._ledger("adopt jobs", lambda session: jobs.adopt(session, list(named), self._owner))
        if not isinstance(known, set):
            kept = {job_id: self.task_key(ti) for job_id, ti in named.items() if ti.state != "queued"}
            self._unadopted |= kept
            return [ti for ti in tis if ti.external_executor_id not in kept]
        for job_id in known:
            self._expect(JobKind.TASK, job_id, self.task_key(named[job_id]))
        return [ti for ti in tis if ti.external_executor_id not in known]

    def _adopt_late(self) -> None:
        """Adopt tasks that could not be adopted when Airflow asked. Airflow fails those without a job for lack of a heartbeat."""
        kept = dict(self._unadopted)
        known = self._ledger("adopt jobs", lambda session: jobs.adopt(session, list(kept), self._owner))
        if isinstance(known, set):
            self._unadopted.clear()
            for job_id in known:
                self._expect(JobKind.TASK, job_id, kept[job_id])
            for job_id in kept.keys() - known:
                if kept[job_id] not in self._jobs_of:  # Airflow 3.4 counts tasks as running that were not returned
                    self.running.discard(kept[job_id])

    def _adopt_orphans(self) -> None:
        orphans = self._ledger("adopt callbacks", lambda session: callbacks.adopt_orphans(session, self._owner))
        if isinstance(orphans, list):
            for kind, job_id in orphans:
                self._expect(kind, job_id, workloads.make_key(kind, job_id))
        else:
            self._due["orphans"] = time.monotonic() + ORPHANS_AGAIN_S

    def revoke_task(self, *, ti: TaskInstance) -> None:
        """Revoke the task's job, queued or running, without reporting an end to the scheduler."""
        key = self.task_key(ti)
        self._dequeue(key)
        self.running.discard(key)
        if ti.external_executor_id:
            self._revoke(ti.external_executor_id)

    def fail_connection_test(self, key: ConnectionTestKey) -> None:
        """Revoke the test's job, because the scheduler has failed the test."""
        super().fail_connection_test(key)
        self._revoke(key.id)

    def _revoke(self, job_id: str) -> None:
        self._forget(job_id)
        self._unrevoked.append(job_id)
        self._revoke_now()

    def _revoke_now(self) -> None:
        """Revoke the jobs that are waiting for it. After a failure a later heartbeat tries again."""
        self._unrevoked = [
            job_id for job_id in self._unrevoked if self._ledger("revoke a job", partial(jobs.revoke, job_id=job_id)) is _FAILED
        ]

    def get_task_log(self, ti: TaskInstance, try_number: int) -> tuple[list[str], list[str]]:
        """Return the name of the worker. Never empty, because Airflow's UI would then request the log from the worker."""
        name = self._ledger("find a job's worker", lambda session: jobs.worker_of(session, ti.external_executor_id or ""))
        return [f"Remote Worker {name}" if isinstance(name, str) else "Remote Worker"], []

    def debug_dump(self) -> None:
        """Log the tracked jobs and the queues in the ledger (on SIGUSR2 to the scheduler)."""
        super().debug_dump()
        self.log.info("remote: owner %s waits for %d jobs; %d to be revoked", self._owner, len(self._keys), len(self._unrevoked))
        self.log.info("remote: jobs\n\t%s", "\n\t".join(f"{job_id} {key}" for job_id, key in self._keys.items()))
        depths = self._ledger("list queues", queues.depths)
        if isinstance(depths, list):
            self.log.info("remote: queues\n\t%s", "\n\t".join(map(repr, depths)))

    def end(self) -> None:
        """Do nothing: remote tasks keep running, and the next scheduler adopts them."""

    def terminate(self) -> None:
        """Do nothing, for the same reason."""

    def _is_due(self, what: str, every_s: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every_s
        return True

    def _ledger(self, what: str, verb: Callable[[Any], T]) -> T | object:
        """Run *verb* in its own transaction. If it raises, report that and return :data:`_FAILED`. The caller tries later."""
        return self._faults.attempt(what, lambda: compat.in_transaction(verb, lock_wait_s=LOCK_WAIT_S), _FAILED)


_FAILED = object()


def _explain(found: Diagnosis) -> str:
    return f"the Remote Executor could not hand it in or report its end: {found}"


def _measure_wall_ahead_s() -> float:
    """Return by how much the wall clock is ahead of the monotonic clock. This changes only when the wall clock is set."""
    return time.time() - time.monotonic()


def _is_failure(job: EndedJob) -> bool:
    """Return whether to report a failure: the task did not end by itself, and was not ended, cleared or deleted."""
    if job.concluded or job.state is JobState.SUCCEEDED:
        return False
    return not (job.state is JobState.REVOKED and job.stop_reason in (StopReason.CLEARED, StopReason.ENDED, StopReason.GONE))
