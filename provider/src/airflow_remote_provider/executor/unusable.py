"""Replaces the executor where its code can't be imported: only fails remote tasks with the reason.

Depends only on :mod:`airflow_remote_provider.faults` and on Airflow's base class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.executors.base_executor import BaseExecutor

from airflow_remote_provider.faults import Faults, diagnose


def make_unusable_executor(error: Exception) -> type[BaseExecutor]:
    """Return an executor class whose workloads fail because of *error*."""
    why = f"the Remote Executor can't be loaded here: {diagnose(error)}"

    class UnusableExecutor(BaseExecutor):  # type: ignore[misc]
        supports_multi_team = True
        supports_callbacks = True
        supports_connection_test = True
        is_local = False
        is_production = True
        serve_logs = False
        pre_assigns_external_executor_id = True

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._faults = Faults(self.log, "The Remote Executor")

        def start(self) -> None:
            raise error

        def _process_workloads(self, workload_items: Sequence[Any]) -> None:
            for item in workload_items:
                self._dequeue(item.key)
                self.fail(item.key, why)

        def _dequeue(self, key: Any) -> None:
            for waiting in self._waiting():
                waiting.pop(key, None)

        def _waiting(self) -> list[dict[Any, Any]]:
            """Return the queues of the base class, in any version of Airflow."""
            names = ("queued_tasks", "queued_callbacks", "queued_connection_tests")
            return [getattr(self, name, {}) for name in names] + list(getattr(self, "executor_queues", {}).values())

        def try_adopt_task_instances(self, tis: Sequence[Any]) -> Sequence[Any]:
            """Give back queued tasks. Running tasks stay with their workers."""
            return [ti for ti in tis if ti.state == "queued"]

        def revoke_task(self, *, ti: Any) -> None:
            self._dequeue(ti.key)
            self.running.discard(ti.key)

        def end(self) -> None:
            """Do nothing: there is nothing to wait for."""

        def terminate(self) -> None:
            """Do nothing: there is nothing to kill."""

        def get_task_log(self, ti: Any, try_number: int) -> tuple[list[str], list[str]]:
            return ["Remote Worker"], []

    return UnusableExecutor
