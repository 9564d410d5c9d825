"""RemoteExecutor: hands Airflow's workloads to the ledger and tells the scheduler how they ended.

It writes in sessions of its own: a failure of ours is logged and tried again, and never poisons the scheduler's
transaction or loop.
What the scheduler's process must not do (stop, expire, lose) is the API's (:mod:`.api.duties`).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from airflow.executors import workloads
from airflow.executors.base_executor import PARALLELISM, BaseExecutor
from airflow_remote_protocol.messages import Bundle, StopReason, TaskWorkload
from airflow_remote_protocol.states import JobState

from airflow_remote_provider import compat
from airflow_remote_provider.ledger import jobs, sweep
from airflow_remote_provider.ledger.jobs import EndedJob, NewJob
from airflow_remote_provider.settings import settings

if TYPE_CHECKING:
    from airflow.executors.workloads import ExecutorWorkload
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.taskinstancekey import TaskInstanceKey

T = TypeVar("T")

VOUCH_EVERY_S = 10.0
"""Airflow fails a task after 300 s without a heartbeat; 10 s leaves room for a database that is away for minutes."""

HEAR_AGAIN_AFTER_S = 0.1
"""The scheduler asks for free slots several times within one round; once is enough to ask the ledger."""

DEFAULT_QUEUE = "default"


class RemoteExecutor(BaseExecutor):  # type: ignore[misc]
    """Runs tasks on Remote Workers. `queue=` routes; `[core] parallelism` bounds; pools and priorities are the scheduler's."""

    supports_multi_team = True
    is_local = False
    is_production = True
    serve_logs = False
    pre_assigns_external_executor_id = True
    """The scheduler commits the job's id together with the task's queued state, so a crash in between loses nothing."""

    def __init__(self, parallelism: int = PARALLELISM, team_name: str | None = None) -> None:
        super().__init__(parallelism=parallelism, team_name=team_name)
        self._keys: dict[str, TaskInstanceKey] = {}
        """Job id → task of every job whose end the scheduler has not heard yet."""
        self._freed: set[str] = set()
        """Those of them whose task has said its last word: they fill no slot any more, whatever their log still has to travel."""
        self._vouched_at = 0.0
        self._heard_at = 0.0

    @property
    def _owner(self) -> str:
        return f"{self.job_id}/{self.team_name or ''}"

    def start(self) -> None:
        """Check what must be right before the first task: our options and our tables."""
        settings()
        with compat.transaction() as session:
            sweep.any_open(session)

    # Handing in

    def _process_workloads(self, workload_items: Sequence[ExecutorWorkload]) -> None:
        new = {item.ti.key: self._new_job(item) for item in workload_items if isinstance(item, workloads.ExecuteTask)}
        if self._ledger("hand in jobs", lambda session: jobs.enqueue(session, list(new.values()))) is _FAILED:
            return  # they stay in queued_tasks; the next heartbeat hands them in again
        for key, job in new.items():
            self.queued_tasks.pop(key, None)
            self.running.add(key)
            self._keys[job.job_id] = key

    def _new_job(self, workload: workloads.ExecuteTask) -> NewJob:
        ti = workload.ti
        task = TaskWorkload(
            ti=ti.model_dump(mode="json"),
            dag_rel_path=str(workload.dag_rel_path),
            bundle=Bundle(workload.bundle_info.name, workload.bundle_info.version),
        )
        return NewJob(
            job_id=ti.external_executor_id or str(uuid.uuid4()),
            queue=ti.queue or DEFAULT_QUEUE,
            team=self.team_name,
            priority=ti.priority_weight,
            slots=ti.pool_slots,
            owner=self._owner,
            ti_id=ti.id,
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=ti.map_index,
            try_number=ti.try_number,
            workload=msgspec.json.encode(task).decode(),
            log_path=workload.log_path or "",
            lost_after_s=settings().lost_after_seconds,
        )

    # Hearing back

    def sync(self) -> None:
        """Tell the scheduler what ended; keep the heartbeats of what runs fresh. Costs nothing while nothing runs."""
        if not self._keys:
            return
        self._hear()
        if time.monotonic() - self._vouched_at >= VOUCH_EVERY_S and self._ledger("vouch for jobs", sweep.vouch) is not _FAILED:
            self._vouched_at = time.monotonic()

    @property
    def slots_available(self) -> int:
        """How many more workloads fit, as the ledger knows it now.

        The scheduler asks right before it queues, but calls :meth:`sync` after that, and sleeps a second when it queued nothing:
        what ended since the last :meth:`sync` would leave its slot empty for that long.
        """
        if self._keys and time.monotonic() - self._heard_at >= HEAR_AGAIN_AFTER_S:
            self._hear()
        return int(super().slots_available)

    def _hear(self) -> None:
        """Read back what ended, and whose task has ended although its report is still on the way."""
        self._heard_at = time.monotonic()
        heard = self._ledger(
            "read ended jobs", lambda session: (jobs.settle(session, self._owner), jobs.concluded(session, self._owner))
        )
        if isinstance(heard, tuple):
            ended, concluded = heard
            for job_id in concluded - self._freed:
                self._free(job_id)
            for job in ended:
                self._tell(job)

    def _free(self, job_id: str) -> None:
        key = self._keys.get(job_id)
        if key is not None:
            self._freed.add(job_id)
            if list(self._keys.values()).count(key) == 1:  # a resumed task has the key of its old job, and fills a slot again
                self.running.discard(key)

    def _tell(self, job: EndedJob) -> None:
        self._freed.discard(job.job_id)
        key = self._keys.pop(job.job_id, None)
        if key is None:
            return
        resumed = key in self.queued_tasks or key in self._keys.values()
        # A resumed (once deferred) task has the same key; its old job's end must not take the new one out of `running`.
        if not _is_failure(job):
            self.change_state(key, "success", remove_running=not resumed)
        elif not resumed:
            self.change_state(key, "failed", f"{job.state.value} on the Remote Executor: {job.reason or 'no reason was given'}")

    # The scheduler's other duties

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """Adopt what the ledger knows, running or ended meanwhile; give back the rest."""
        named = {ti.external_executor_id: ti for ti in tis if ti.external_executor_id}
        known = self._ledger("adopt jobs", lambda session: jobs.adopt(session, list(named), self._owner))
        if not isinstance(known, set):
            return tis
        for job_id in known:
            key = named[job_id].key
            self._keys[job_id] = key
            self.running.add(key)
        return [ti for ti in tis if ti.external_executor_id not in known]

    def revoke_task(self, *, ti: TaskInstance) -> None:
        """Take the task back, queued or running, without telling the scheduler of an end."""
        self.queued_tasks.pop(ti.key, None)
        self.running.discard(ti.key)
        job_id = ti.external_executor_id
        if job_id:
            self._keys.pop(job_id, None)
            self._freed.discard(job_id)
            self._ledger("revoke a job", lambda session: jobs.revoke(session, job_id))

    def get_task_log(self, ti: TaskInstance, try_number: int) -> tuple[list[str], list[str]]:
        """Name the source; never empty, or Airflow's UI would try to reach the worker over the network."""
        name = self._ledger("find a job's worker", lambda session: jobs.worker_of(session, ti.external_executor_id or ""))
        return [f"Remote Worker {name}" if isinstance(name, str) else "Remote Worker"], []

    def end(self) -> None:
        """Nothing to wait for: remote tasks run on and are adopted by the next scheduler."""

    def terminate(self) -> None:
        """Nothing to kill, for the same reason."""

    def _ledger(self, what: str, verb: Callable[[Any], T]) -> T | object:
        """Run one verb in a transaction of its own; a failure is logged and returned as :data:`_FAILED`, for a later try."""
        try:
            with compat.transaction() as session:
                return verb(session)
        except Exception:
            self.log.exception("The Remote Executor could not %s; it will try again", what)
            return _FAILED


_FAILED = object()


def _is_failure(job: EndedJob) -> bool:
    """Whether Airflow must hear of a failure: it ended neither by itself nor because its task was ended or cleared."""
    if job.concluded or job.state is JobState.SUCCEEDED:
        return False
    return not (job.state is JobState.REVOKED and job.stop_reason in (StopReason.CLEARED, StopReason.ENDED, StopReason.GONE))
