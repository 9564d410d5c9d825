"""A Dag whose files only central has."""

from airflow.sdk import dag, task


@dag(schedule=None)
def unreachable():
    @task(executor="RemoteExecutor")
    def run() -> None:
        print("this must not run")

    run()


unreachable()
