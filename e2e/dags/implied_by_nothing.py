"""Reads a variable at its top level whose name can't be inferred."""

from __future__ import annotations

from airflow.sdk import Variable, dag, task

LIMIT = Variable.get("_".join(["implied", "secret"]), default="no limit yet")


@dag(schedule=None, default_args={"executor": "RemoteExecutor"})
def implied_by_nothing():
    @task(retries=0)
    def never() -> None: ...

    never()


implied_by_nothing()
