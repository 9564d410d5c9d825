"""The executor's base class for Airflow 3.4: one queue per type of workload; a task's try is named by its UUID."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow.executors.base_executor import BaseExecutor
from airflow.executors.workloads import WorkloadType
from airflow.executors.workloads.types import TaskInstanceUuid

if TYPE_CHECKING:
    from airflow.executors.workloads import ExecutorWorkload
    from airflow.executors.workloads.types import WorkloadKey


class VersionedExecutor(BaseExecutor):  # type: ignore[misc]
    """Names a task's try by its UUID, which stays the same after a deferral and is new for each try."""

    supported_workload_types = frozenset({WorkloadType.EXECUTE_TASK, WorkloadType.EXECUTE_CALLBACK, WorkloadType.TEST_CONNECTION})
    supports_task_instance_uuid = True

    def task_key(self, ti: Any) -> WorkloadKey:
        """Return the key of a task's try. *ti* has an `id`: a row of Airflow's or a part of a workload."""
        return TaskInstanceUuid(ti.id)

    def key_of(self, workload: ExecutorWorkload) -> WorkloadKey:
        """Return the key by which this executor knows a workload."""
        return self.get_workload_key(workload)

    def waiting(self) -> Iterator[dict[WorkloadKey, ExecutorWorkload]]:
        """Yield the queues of workloads that are not submitted yet, each by key."""
        yield from self.executor_queues.values()
