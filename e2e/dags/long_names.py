"""Ids as long as Airflow allows."""

from __future__ import annotations

from airflow.sdk import dag, task

REMOTE = "RemoteExecutor"
LONGEST = 250


def _long(name: str) -> str:
    return name.ljust(LONGEST, "x")


@dag(dag_id=_long("long_dag_"), schedule=None)
def long_names():
    @task(task_id=_long("first_task_"), executor=REMOTE)
    def first() -> str:
        print("a line of the task with the long name")
        return "from a long name"

    @task(task_id=_long("second_task_"), executor=REMOTE)
    def second(value: str) -> str:
        return f"{value} to another"

    second(first())


long_names()
