"""Two tasks; a worker with an older copy of this file does not have the second one."""

from __future__ import annotations

from airflow.sdk import dag, task

REMOTE = "RemoteExecutor"


@dag(schedule=None)
def site_code():
    @task(executor=REMOTE, queue="site-code")
    def known():
        return "known"

    # Added only on central.
    @task(executor=REMOTE, queue="site-code")
    def added():
        return "added"

    known() >> added()


site_code()
