"""Tasks for a compromised worker: they name nothing, so their jobs have no grants."""

from __future__ import annotations

from airflow.sdk import dag, task

REMOTE = "RemoteExecutor"


@dag(schedule=None)
def prey():
    @task(executor=REMOTE, queue="hostile")
    def one() -> None:
        """Never runs: its worker is hostile."""

    one()


@dag(schedule=None)
def prey_that_retries():
    @task(executor=REMOTE, queue="hostile", retries=3)
    def one() -> None:
        """Never runs: its worker is hostile."""

    one()


prey()
prey_that_retries()
