"""RemoteExecutor: the class that Airflow loads and calls. It lets none of our exceptions into the scheduler (ADR 0029).

What it does is :mod:`.ledger_executor`'s, which raises what it likes. Where that can't even be imported (another Airflow than we
know, a broken installation), :mod:`.unusable` stands in: it fails remote tasks with that reason.
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
        from airflow_remote_provider.executor.unusable import unusable

        LedgerExecutor = unusable(error)

T = TypeVar("T")
D = TypeVar("D")


class RemoteExecutor(LedgerExecutor):
    """Runs tasks on Remote Workers. `queue=` routes; `[core] parallelism` bounds; pools and priorities are the scheduler's.

    A fault is reported once, with its cause and remedy. Meanwhile remote tasks wait, if it can heal, or fail with that reason;
    the tasks of other executors go on.
    """

    _synced = False

    def start(self) -> None:
        self._keep("start", super().start)

    def queue_workload(self, workload: ExecutorWorkload, session: Session) -> None:
        if (
            self._keep("queue a workload", lambda: super(RemoteExecutor, self).queue_workload(workload, session), FAILED)
            is FAILED
        ):
            self._keep(
                "fail a workload",
                lambda: self.fail(self.key_of(workload), "the Remote Executor could not queue it; its log says why"),
            )

    def heartbeat(self) -> None:
        self._synced = False
        self._keep("hand in jobs", super().heartbeat)
        if not self._synced:  # what runs must not lose its heartbeat because something else can't be handed in
            self.sync()

    def sync(self) -> None:
        self._synced = True
        self._keep("read the ledger", super().sync)

    def _process_workloads(self, workload_items: Sequence[ExecutorWorkload]) -> None:
        try:
            super()._process_workloads(workload_items)
        except Exception as error:
            found = self._faults.occurred("hand in a batch of jobs", error)
            if not found.can_heal:
                self._keep(
                    "fail a batch of jobs", lambda: self._fail_all(workload_items, f"the Remote Executor can't run it: {found}")
                )
        else:
            self._faults.over("hand in a batch of jobs")

    def _fail_all(self, items: Sequence[ExecutorWorkload], why: str) -> None:
        for item in items:
            key = self.key_of(item)
            self._dequeue(key)
            self.fail(key, why)

    @property
    def slots_available(self) -> int:
        return int(self._keep("count free slots", lambda: super(RemoteExecutor, self).slots_available, 0))

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """Keep those that run if it can't be said which are ours: Airflow clears what is not adopted, and starts it again."""
        given_back = self._keep("adopt tasks", lambda: super(RemoteExecutor, self).try_adopt_task_instances(tis), FAILED)
        return [ti for ti in tis if ti.state == "queued"] if given_back is FAILED else given_back

    def revoke_task(self, *, ti: TaskInstance) -> None:
        self._keep("revoke a task", lambda: super(RemoteExecutor, self).revoke_task(ti=ti))

    def fail_connection_test(self, key: ConnectionTestKey) -> None:
        self._keep("give up a connection test", lambda: super(RemoteExecutor, self).fail_connection_test(key))

    def get_task_log(self, ti: TaskInstance, try_number: int) -> tuple[list[str], list[str]]:
        call = super().get_task_log
        named: tuple[list[str], list[str]] = self._keep(
            "name a job's worker", lambda: call(ti, try_number), (["Remote Worker"], [])
        )
        return named

    def debug_dump(self) -> None:
        self._keep("dump its state", super().debug_dump)

    def end(self) -> None:
        self._keep("end", super().end)

    def terminate(self) -> None:
        self._keep("terminate", super().terminate)

    def _keep(self, what: str, call: Callable[[], T], otherwise: D | None = None) -> Any:
        """Return what *call* returns; *otherwise* if it raises. No exception leaves this."""
        return self._faults.attempt(what, call, otherwise)


FAILED = object()
