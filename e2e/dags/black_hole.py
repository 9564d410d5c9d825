"""Twenty small tasks for a queue that a healthy and a broken worker serve."""

from __future__ import annotations

from airflow.sdk import dag, task


@dag(schedule=None)
def black_hole():
    @task(executor="RemoteExecutor", queue="black-hole")
    def small(number):
        return number

    small.expand(number=list(range(20)))


black_hole()
