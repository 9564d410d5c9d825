"""Which task runs where."""

from __future__ import annotations

from airflow.sdk import dag, task

REMOTE = "RemoteExecutor"


def _where_and_when(seconds: float) -> dict:
    import os
    import time

    begin = time.time()
    time.sleep(seconds)
    return {"site": os.environ.get("SITE", "central"), "begin": begin, "end": time.time()}


@dag(schedule=None)
def routed():
    @task(executor=REMOTE, queue="north")
    def north(number: int) -> dict:
        return _where_and_when(2)

    @task(executor=REMOTE, queue="south")
    def south(number: int) -> dict:
        return _where_and_when(2)

    @task
    def here() -> dict:
        return _where_and_when(0)

    north.expand(number=[0, 1, 2])
    south.expand(number=[0, 1, 2, 3])
    here()


routed()
