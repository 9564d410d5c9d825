"""Hands Airflow's workloads to the ledger and tells the scheduler how they ended.

It writes in sessions of its own, so that no failure of ours touches the scheduler's transaction. What can heal is tried again;
a workload that can't be handed in fails with the reason. The package's class keeps everything else from Airflow.
What the scheduler's process must not do (stop, expire, lose) is the API's (:mod:`airflow_remote_provider.api.duties.loop`).
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
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
from airflow_remote_provider.ledger import callbacks, heartbeats, jobs, queues
from airflow_remote_provider.ledger.jobs import EndedJob, NewJob
from airflow_remote_provider.settings import BadSetting, settings

if TYPE_CHECKING:
    from airflow.executors.workloads import ExecutorWorkload
    from airflow.executors.workloads.types import WorkloadKey
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy.orm import Session

T = TypeVar("T")

VOUCH_EVERY_S = 10.0
"""Airflow fails a task after 300 s without a heartbeat; 10 s leaves room for a database that is away for minutes."""

CLOCK_SET_S = 5.0
"""By how much the wall clock may differ from the monotonic one between two heartbeats before we vouch at once: when it is set
forward all timers of the scheduler come due, and it looks for tasks without a heartbeat right after ours."""

EVENTS_KEPT = 1000
"""Airflow 3.3.2 takes the events for its log out of our list and then reads them by weak references: kept alive here, they aren't
gone before."""

ORPHANS_EVERY_S = 60.0
"""How often to look for callbacks and connection tests of a scheduler that died."""
ORPHANS_AGAIN_S = 5.0
"""The same, after a look that failed."""

HEAR_AGAIN_AFTER_S = 0.1
"""The scheduler asks for free slots several times within one round; once is enough to ask the ledger."""

BATCH = 500
"""Most jobs handed in by one heartbeat: some 0.1 s of the scheduler's loop. The next heartbeat comes within a second."""

LOCK_WAIT_S = 2.0
"""Longer than this the scheduler's loop must not wait for whoever holds a lock on our rows; the verb is tried again."""


class LedgerExecutor(VersionedExecutor):
    """Everything that the Remote Executor does, without the guard around it."""

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
        """Job id → workload of every job whose end the scheduler has not heard yet."""
        self._jobs_of: Counter[WorkloadKey] = Counter()
        """How many of them each workload has: two, while the end of a deferred task's first job is not heard."""
        self._unstarted: set[str] = set()
        """Those of them that are callbacks of which the scheduler has not heard that they run."""
        self._freed: set[str] = set()
        """Those of them whose task has said its last word: they fill no slot any more, whatever their log still has to travel."""
        self._unrevoked: list[str] = []
        """Jobs to take back, which the ledger did not hear yet."""
        self._unadopted: dict[str, WorkloadKey] = {}
        """Job id → task of running jobs of another scheduler, kept while the ledger could not be asked about them."""
        self._due: dict[str, float] = {}
        self._is_unvouched = False
        """The last refresh of heartbeats failed; it is tried again, although nothing may run, to say when it works."""
        self._wall_ahead_s = _wall_ahead_s()
        self._events: deque[Any] = deque(maxlen=EVENTS_KEPT)

    @property
    def _owner(self) -> str:
        return f"{self.job_id}/{self.team_name or ''}"

    def start(self) -> None:
        """Refresh the heartbeats of what runs, and report at once what is wrong with our options or tables.

        However long no scheduler lived: its successor must not find our tasks without a heartbeat.
        """
        self._is_unvouched = self._ledger("refresh heartbeats", heartbeats.refresh_heartbeats) is _FAILED
        self._faults.attempt("read its options", settings, None)

    # Handing in

    def _process_workloads(self, workload_items: Sequence[ExecutorWorkload]) -> None:
        self._hand_in_all(workload_items[:BATCH])

    def _hand_in_all(self, items: Sequence[ExecutorWorkload]) -> None:
        """Hand these in with one transaction. If that fails for good, find those that it fails for; they fail with the reason."""
        try:
            handed_in = compat.in_transaction(lambda session: self._hand_in(session, items), lock_wait_s=LOCK_WAIT_S)
        except Exception as error:
            found = self._faults.occurred("hand in jobs", error)
            if found.can_heal:
                return  # they stay queued here; the next heartbeat hands them in again
            if len(items) > 1 and not isinstance(error, BadSetting):
                self._hand_in_all(items[: len(items) // 2])
                self._hand_in_all(items[len(items) // 2 :])
                return
            for item in items:
                key = self.key_of(item)
                self._dequeue(key)
                self._refuse(key, _in_words(found))
            return
        self._faults.over("hand in jobs")
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
        """Store the items' jobs; what can't be one has its reason in its place."""
        lost_after = {name: rule.lost_after_s for name, rule in queues.rules(session).items()}
        code = compat.code_hashes(session, {item.ti.dag_version_id for item in items if isinstance(item, ExecuteTask)})
        to = workloads.JobDefaults(self._owner, self.team_name, settings().lost_after_seconds, lost_after, code)
        new = [self._as_job(session, item, to) for item in items]
        jobs.enqueue(session, [job for job in new if isinstance(job, NewJob)])
        return new

    def _refuse(self, key: WorkloadKey, why: str) -> None:
        """Fail what can't be handed in; a task's author reads why in Airflow's event log."""
        self.log.error("The Remote Executor can't run %s: %s", key, why)
        self.log_task_event(event="remote executor", extra=why, ti_key=key)
        if self._task_event_logs:
            self._events.append(self._task_event_logs[-1])
        if isinstance(key, ConnectionTestKey):
            self._fail_connection_test_row(key, why)
        self.fail(key, why)

    def _as_job(self, session: Session, item: ExecutorWorkload, to: workloads.JobDefaults) -> NewJob | BadTaskOption:
        try:
            return self._made_job(session, item, to)
        except BadTaskOption as error:
            return error

    def _made_job(self, session: Session, item: ExecutorWorkload, to: workloads.JobDefaults) -> NewJob:
        if isinstance(item, ExecuteTask):
            return workloads.task_job(item, to)
        if isinstance(item, ExecuteCallback):
            run_id = item.callback.data.get("dag_run_id")
            queue = None if run_id is None else callbacks.queue_of_run(session, int(run_id), compat.executor_names(self))
            return workloads.callback_job(item, to, queue or settings().callback_queue)
        return workloads.connection_test_job(item, to)

    def _expect(self, kind: JobKind, job_id: str, key: WorkloadKey) -> None:
        self.running.add(key)
        self._forget(job_id)
        self._keys[job_id] = key
        self._jobs_of[key] += 1
        if kind is JobKind.CALLBACK:
            self._unstarted.add(job_id)

    def _forget(self, job_id: str) -> WorkloadKey | None:
        """Wait for this job's end no more; return its workload's key, if it was waited for."""
        self._unstarted.discard(job_id)
        self._freed.discard(job_id)
        key = self._keys.pop(job_id, None)
        if key is not None:
            self._jobs_of[key] -= 1
            if not self._jobs_of[key]:
                del self._jobs_of[key]
        return key

    # Hearing back

    def sync(self) -> None:
        """Tell the scheduler what started and ended; keep the heartbeats of what runs fresh.

        Costs one statement a minute while nothing runs.
        """
        if self._clock_was_set():
            self._due.pop("vouch", None)
        runs = bool(self._keys or self._unadopted)
        if (runs or self._is_unvouched) and self._is_due("vouch", VOUCH_EVERY_S):
            self._is_unvouched = self._ledger("refresh heartbeats", heartbeats.refresh_heartbeats) is _FAILED
            if self._is_unvouched:
                self._due.pop("vouch")
        if self._unadopted:
            self._faults.attempt("adopt jobs", self._adopt_late, None)
        if self._unrevoked:
            self._revoke_now()
        if self._is_due("orphans", ORPHANS_EVERY_S):
            self._faults.attempt("adopt callbacks", self._adopt_orphans, None)
        if self._unstarted:
            self._faults.attempt("read started callbacks", self._tell_started, None)
        if self._keys:
            self._faults.attempt("read ended jobs", self._hear, None)

    def _clock_was_set(self) -> bool:
        before, self._wall_ahead_s = self._wall_ahead_s, _wall_ahead_s()
        return abs(self._wall_ahead_s - before) > CLOCK_SET_S

    def _tell_started(self) -> None:
        started = self._ledger("read started callbacks", lambda session: callbacks.started(session, sorted(self._unstarted)))
        if isinstance(started, set):
            for job_id in started & self._unstarted:
                self.running_state(self._keys[job_id])
            self._unstarted -= started

    @property
    def slots_available(self) -> int:
        """How many more workloads fit, as the ledger knows it now.

        The scheduler asks right before it queues, but calls :meth:`sync` after that, and sleeps a second when it queued nothing:
        what ended since the last :meth:`sync` would leave its slot empty for that long.
        """
        if self._keys and self._is_due("hear", HEAR_AGAIN_AFTER_S):
            self._faults.attempt("read ended jobs", self._hear, None)
        return int(super().slots_available)

    def _hear(self) -> None:
        """Read back what ended, and whose task has ended although its report is still on the way."""
        self._due["hear"] = time.monotonic() + HEAR_AGAIN_AFTER_S
        heard = self._ledger(
            "read ended jobs", lambda session: (jobs.settle(session, self._owner), jobs.concluded(session, self._owner))
        )
        if isinstance(heard, tuple):
            ended, concluded = heard
            for job_id in concluded - self._freed:
                self._free(job_id)
            for job in ended:
                self._tell_or_fail(job)

    def _free(self, job_id: str) -> None:
        key = self._keys.get(job_id)
        if key is not None:
            self._freed.add(job_id)
            if self._jobs_of[key] == 1:  # a resumed task has the key of its old job, and fills a slot again
                self.running.discard(key)

    def _tell_or_fail(self, job: EndedJob) -> None:
        """The ledger tells an end once: if it can't be passed on, its task fails, and the others' ends are passed on."""
        key = self._keys.get(job.job_id)
        try:
            self._tell(job)
        except Exception as error:
            found = self._faults.occurred("pass on the end of a job", error)
            self._forget(job.job_id)
            if key is not None:
                self.fail(key, _in_words(found))

    def _tell(self, job: EndedJob) -> None:
        metrics.count("remote.job.ended", tag=job.state.value)
        if job.waited is not None:
            metrics.timed("remote.job.wait", job.waited, tag=job.queue)
        if job.took is not None:
            metrics.timed("remote.job.duration", job.took, tag=job.queue)
        key = self._forget(job.job_id)
        if key is None:
            return
        why = f"{job.state.value} on the Remote Executor: {job.reason or 'no reason was given'}"
        if job.kind is JobKind.CALLBACK:
            self.success(key) if job.state is JobState.SUCCEEDED else self.fail(key, why)
        elif job.kind is JobKind.CONNECTION_TEST:
            self._tell_connection_test(job, key, why)
        else:
            self._tell_task(job, key, why)

    def _tell_connection_test(self, job: EndedJob, key: ConnectionTestKey, why: str) -> None:
        """Whoever asked reads Airflow's row, which the worker has written through the gateway if it got that far."""
        if job.state is JobState.SUCCEEDED:
            self.success(key)
            return
        self._fail_connection_test_row(key, why)
        self.fail(key, why)

    def _fail_connection_test_row(self, key: ConnectionTestKey, why: str) -> None:
        self._ledger("fail a connection test", lambda session: compat.fail_connection_test(session, key.id, why))

    def _tell_task(self, job: EndedJob, key: WorkloadKey, why: str) -> None:
        resumed = key in self._jobs_of or any(key in queue for queue in self.waiting())
        # A resumed (once deferred) task has the same key; its old job's end must not take the new one out of `running`.
        if not _is_failure(job):
            self.change_state(key, "success", remove_running=not resumed)
        elif not resumed:
            self.change_state(key, "failed", why)

    # The scheduler's other duties

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """Adopt what the ledger knows, running or ended meanwhile; give back the rest.

        If the ledger doesn't answer, keep what runs for a later heartbeat: Airflow clears what is not adopted, and its worker
        would have to stop it. What is only queued is given back and queued again.
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
        """Adopt what could not be adopted when Airflow asked. Of what the ledger doesn't know, Airflow finds no heartbeat."""
        kept = dict(self._unadopted)
        known = self._ledger("adopt jobs", lambda session: jobs.adopt(session, list(kept), self._owner))
        if isinstance(known, set):
            self._unadopted.clear()
            for job_id in known:
                self._expect(JobKind.TASK, job_id, kept[job_id])
            for job_id in kept.keys() - known:
                if kept[job_id] not in self._jobs_of:  # Airflow 3.4 counts as running what was not given back
                    self.running.discard(kept[job_id])

    def _adopt_orphans(self) -> None:
        orphans = self._ledger("adopt callbacks", lambda session: callbacks.adopt_orphans(session, self._owner))
        if isinstance(orphans, list):
            for kind, job_id in orphans:
                self._expect(kind, job_id, workloads.key_of(kind, job_id))
        else:
            self._due["orphans"] = time.monotonic() + ORPHANS_AGAIN_S

    def revoke_task(self, *, ti: TaskInstance) -> None:
        """Take the task back, queued or running, without telling the scheduler of an end."""
        key = self.task_key(ti)
        self._dequeue(key)
        self.running.discard(key)
        if ti.external_executor_id:
            self._revoke(ti.external_executor_id)

    def fail_connection_test(self, key: ConnectionTestKey) -> None:
        """Take the test back: the scheduler has given up on it."""
        super().fail_connection_test(key)
        self._revoke(key.id)

    def _revoke(self, job_id: str) -> None:
        self._forget(job_id)
        self._unrevoked.append(job_id)
        self._revoke_now()

    def _revoke_now(self) -> None:
        """Take back what is to be taken back; what the database refuses now is taken back by a later heartbeat."""
        self._unrevoked = [
            job_id for job_id in self._unrevoked if self._ledger("revoke a job", partial(jobs.revoke, job_id=job_id)) is _FAILED
        ]

    def get_task_log(self, ti: TaskInstance, try_number: int) -> tuple[list[str], list[str]]:
        """Name the source; never empty, or Airflow's UI would try to reach the worker over the network."""
        name = self._ledger("find a job's worker", lambda session: jobs.worker_of(session, ti.external_executor_id or ""))
        return [f"Remote Worker {name}" if isinstance(name, str) else "Remote Worker"], []

    def debug_dump(self) -> None:
        """Log what this executor waits for and what the ledger holds (SIGUSR2 to the scheduler)."""
        super().debug_dump()
        self.log.info("remote: owner %s waits for %d jobs; %d to be revoked", self._owner, len(self._keys), len(self._unrevoked))
        self.log.info("remote: jobs\n\t%s", "\n\t".join(f"{job_id} {key}" for job_id, key in self._keys.items()))
        depths = self._ledger("list queues", queues.depths)
        if isinstance(depths, list):
            self.log.info("remote: queues\n\t%s", "\n\t".join(map(repr, depths)))

    def end(self) -> None:
        """Nothing to wait for: remote tasks run on and are adopted by the next scheduler."""

    def terminate(self) -> None:
        """Nothing to kill, for the same reason."""

    def _is_due(self, what: str, every_s: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every_s
        return True

    def _ledger(self, what: str, verb: Callable[[Any], T]) -> T | object:
        """Run one verb in a transaction of its own; a failure is reported and returned as :data:`_FAILED`, for a later try."""
        return self._faults.attempt(what, lambda: compat.in_transaction(verb, lock_wait_s=LOCK_WAIT_S), _FAILED)


_FAILED = object()


def _in_words(found: Diagnosis) -> str:
    return f"the Remote Executor could not hand it in or pass on its end: {found}"


def _wall_ahead_s() -> float:
    """By how much the wall clock is ahead of the monotonic one: changes only when somebody sets it."""
    return time.time() - time.monotonic()


def _is_failure(job: EndedJob) -> bool:
    """Whether Airflow must hear of a failure: it ended neither by itself nor because its task was ended or cleared."""
    if job.concluded or job.state is JobState.SUCCEEDED:
        return False
    return not (job.state is JobState.REVOKED and job.stop_reason in (StopReason.CLEARED, StopReason.ENDED, StopReason.GONE))
