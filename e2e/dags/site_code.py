"""Two tasks; a worker whose copy of this file is older lacks the second one."""

from __future__ import annotations

from airflow.sdk import dag, task

REMOTE = "RemoteExecutor"


@dag(schedule=None)
def site_code():
    @task(executor=REMOTE, queue="site-code")
    def known():
        return "known"

    # Added at central only.
    @task(executor=REMOTE, queue="site-code")
    def added():
        return "added"

    known() >> added()


site_code()
