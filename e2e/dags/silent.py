"""Tasks whose worker becomes silent; the task or its queue sets `lost_after`."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, task

REMOTE = "RemoteExecutor"


def _beat(directory: str, try_number: int) -> int:
    """Write beats to disk and to the log. The first try lasts longer than the test waits; the second is short."""
    import os
    import time
    from pathlib import Path

    beats = 240 if try_number == 1 else 4
    with (Path(directory) / f"try-{try_number}").open("a") as file:
        for number in range(beats):
            print(f"beat {number} of try {try_number}")
            file.write(f"{os.getpid()} {time.time()}\n")
            file.flush()
            time.sleep(0.25)
    return try_number


@dag(schedule=None, params={"directory": Param("", type="string")})
def silent_by_task():
    @task(
        executor=REMOTE,
        queue="cable",
        retries=1,
        retry_delay=timedelta(seconds=1),
        executor_config={"remote": {"lost_after": "30s"}},
    )
    def beat(params: dict | None = None, ti=None) -> int:
        return _beat((params or {})["directory"], ti.try_number)

    beat()


@dag(schedule=None, params={"directory": Param("", type="string")})
def silent_by_queue():
    @task(executor=REMOTE, queue="ships", retries=1, retry_delay=timedelta(seconds=1))
    def beat(params: dict | None = None, ti=None) -> int:
        return _beat((params or {})["directory"], ti.try_number)

    beat()


silent_by_task()
silent_by_queue()
