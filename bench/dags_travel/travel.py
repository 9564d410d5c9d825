"""A no-op task: `pushed` on a worker that fetches code from central, `placed` on one that has the files."""

from __future__ import annotations

from airflow.sdk import dag, task


def add(queue: str) -> None:
    @dag(dag_id=f"travel_{queue}", schedule=None)
    def travel() -> None:
        @task(executor="RemoteExecutor", queue=queue)
        def noop() -> None:
            pass

        noop()

    travel()


for queue in ("pushed", "placed"):
    add(queue)
