"""The executor's base class for Airflow 3.3: one attribute per queue of workloads; a task's try is named by its coordinates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow.executors.base_executor import BaseExecutor

if TYPE_CHECKING:
    from airflow.executors.workloads import ExecutorWorkload
    from airflow.executors.workloads.types import WorkloadKey


class VersionedExecutor(BaseExecutor):  # type: ignore[misc]
    """Names a task's try by Dag, run, task, map index and try number."""

    supports_callbacks = True
    supports_connection_test = True

    def task_key(self, ti: Any) -> WorkloadKey:
        """Return the key of a task's try. *ti* has a `key`: a row of Airflow's or a part of a workload."""
        return ti.key

    def key_of(self, workload: ExecutorWorkload) -> WorkloadKey:
        """Return the key by which this executor knows a workload."""
        return workload.key

    def waiting(self) -> Iterator[dict[WorkloadKey, ExecutorWorkload]]:
        """Yield the queues of workloads that are not submitted yet, each by key."""
        yield self.queued_tasks
        yield self.queued_callbacks
        yield self.queued_connection_tests
