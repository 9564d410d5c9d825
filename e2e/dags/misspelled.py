"""A Dag that can't be loaded: it uses an option that the Remote Executor does not have."""

from airflow.sdk import dag, task


@dag(schedule=None)
def misspelled():
    @task(executor="RemoteExecutor", executor_config={"remote": {"lost_aftr": "2h"}})
    def never() -> None: ...

    never()


misspelled()
