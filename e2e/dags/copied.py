"""A task for each worker that is copied or killed while the task runs: it waits until a file exists."""

from __future__ import annotations

from airflow.sdk import Param, dag, task

REMOTE = "RemoteExecutor"


def _waiting_on(queue: str):
    @dag(dag_id=f"waiting_on_{queue}", schedule=None, params={"go": Param("", type="string")})
    def waiting():
        @task(executor=REMOTE, queue=queue)
        def hold(params: dict | None = None) -> None:
            import time
            from pathlib import Path

            while not Path((params or {})["go"]).exists():
                time.sleep(0.05)

        hold()

    waiting()


for queue in ("same_machine", "another_machine", "phoenix"):
    _waiting_on(queue)
