"""A no-op task: `placed` on a worker that has the files, the others on workers that fetch code, `bare…` also their runtime."""

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


for queue in ("pushed", "placed", "bare", "bare_100", "bare_10", "bare_1"):
    add(queue)
