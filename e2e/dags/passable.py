"""A task for each of the network paths to central in `e2e/networks`."""

from __future__ import annotations

from airflow.sdk import dag, task

WAYS = ("proxied", "inspected", "below-path", "mutual", "exempt")


@dag(schedule=None)
def passable():
    for way in WAYS:

        @task(task_id=way, executor="RemoteExecutor", queue=way)
        def speak() -> str:
            import os

            print(f"spoken in {os.environ['SITE']}")
            return os.environ["SITE"]

        speak()


passable()
