"""RemoteExecutor: the class that Airflow loads and calls. None of its exceptions reaches the scheduler (ADR 0029).

Owns only this guard. :mod:`.ledger_executor` has the implementation, and may raise. If that can't be imported (an unknown version
of Airflow, a broken installation), :mod:`.unusable` replaces it and fails remote tasks with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from airflow.executors.workloads import ExecutorWorkload
    from airflow.models.connection_test import ConnectionTestKey
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy.orm import Session

    from airflow_remote_provider.executor.ledger_executor import LedgerExecutor
else:
    try:
        from airflow_remote_provider.executor.ledger_executor import LedgerExecutor
    except Exception as error:
        from airflow_remote_provider.executor.unusable import make_unusable_executor

        LedgerExecutor = make_unusable_executor(error)

T = TypeVar("T")
D = TypeVar("D")


class RemoteExecutor(LedgerExecutor):
    """Runs tasks on Remote Workers. `queue=` selects the workers; `[core] parallelism` limits the number of tasks.

    The scheduler applies pools and priorities. A fault is logged once, with its cause and remedy. Meanwhile remote tasks wait if
    the fault is transient, else they fail with the reason. The tasks of other executors are not affected.
    """

    _synced = False

    def start(self) -> None:
        self._guard("start", super().start)

    def queue_workload(self, workload: ExecutorWorkload, session: Session) -> None:
        if (
            self._guard("queue a workload", lambda: super(RemoteExecutor, self).queue_workload(workload, session), FAILED)
            is FAILED
        ):
            self._guard(
                "fail a workload",
                lambda: self.fail(self.key_of(workload), "the Remote Executor could not queue it; its log says why"),
            )

    def heartbeat(self) -> None:
        self._synced = False
        self._guard("hand in jobs", super().heartbeat)
        if not self._synced:  # running tasks need their heartbeats even if other jobs can't be handed in
            self.sync()

    def sync(self) -> None:
        self._synced = True
        self._guard("read the ledger", super().sync)

    def _process_workloads(self, workload_items: Sequence[ExecutorWorkload]) -> None:
        try:
            super()._process_workloads(workload_items)
        except Exception as error:
            found = self._faults.report_failure("hand in a batch of jobs", error)
            if not found.is_transient:
                self._guard(
                    "fail a batch of jobs", lambda: self._fail_all(workload_items, f"the Remote Executor can't run it: {found}")
                )
        else:
            self._faults.report_success("hand in a batch of jobs")

    def _fail_all(self, items: Sequence[ExecutorWorkload], why: str) -> None:
        for item in items:
            key = self.key_of(item)
            self._dequeue(key)
            self.fail(key, why)

    @property
    def slots_available(self) -> int:
        return int(self._guard("count free slots", lambda: super(RemoteExecutor, self).slots_available, 0))

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """Keep all running tasks if the ledger can't be read: Airflow clears and restarts tasks that are not adopted."""
        given_back = self._guard("adopt tasks", lambda: super(RemoteExecutor, self).try_adopt_task_instances(tis), FAILED)
        return [ti for ti in tis if ti.state == "queued"] if given_back is FAILED else given_back

    def revoke_task(self, *, ti: TaskInstance) -> None:
        self._guard("revoke a task", lambda: super(RemoteExecutor, self).revoke_task(ti=ti))

    def fail_connection_test(self, key: ConnectionTestKey) -> None:
        self._guard("give up a connection test", lambda: super(RemoteExecutor, self).fail_connection_test(key))

    def get_task_log(self, ti: TaskInstance, try_number: int) -> tuple[list[str], list[str]]:
        call = super().get_task_log
        named: tuple[list[str], list[str]] = self._guard(
            "name a job's worker", lambda: call(ti, try_number), (["Remote Worker"], [])
        )
        return named

    def debug_dump(self) -> None:
        self._guard("dump its state", super().debug_dump)

    def end(self) -> None:
        self._guard("end", super().end)

    def terminate(self) -> None:
        self._guard("terminate", super().terminate)

    def _guard(self, what: str, call: Callable[[], T], otherwise: D | None = None) -> Any:
        """Return the result of *call*; *otherwise* if it raises. Raises nothing."""
        return self._faults.attempt(what, call, otherwise)


FAILED = object()
