"""A Dag whose file no worker has: the fixture omits it from their copies."""

from __future__ import annotations

from airflow.sdk import dag, task


@dag(schedule=None)
def nowhere_refused():
    @task(executor="RemoteExecutor", queue="refused")
    def run() -> None:
        print("this must not run")

    run()


nowhere_refused()
