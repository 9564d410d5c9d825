"""Dag runs that miss their deadline; the callbacks of the deadline run on a Remote Worker."""

from __future__ import annotations

import time
from datetime import timedelta

from airflow.sdk import BaseHook, DeadlineAlert, DeadlineReference, Param, SyncCallback, dag, task

REMOTE = "RemoteExecutor"


def notify(text: str, host_conn_id: str, **_: object) -> None:
    """Print the site and the host of a connection, which the callback has a grant for."""
    import os

    print(f"{text}: sent from {os.environ.get('SITE')} to {BaseHook.get_connection(host_conn_id).host}")


def stumble(**_: object) -> None:
    raise RuntimeError("the horn is broken")


def _late(dag_id: str, callback: object, **kwargs: object):
    alert = DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(seconds=1),
        callback=SyncCallback(callback, kwargs=kwargs, executor=REMOTE),  # type: ignore[arg-type]
    )

    @dag(dag_id=dag_id, schedule=None, deadline=alert, params={"seconds": Param(4, type="integer")})
    def late():
        @task(executor=REMOTE)
        def work(params: dict | None = None) -> None:
            time.sleep((params or {})["seconds"])

        work()

    return late()


_late("late", notify, text="it is late", host_conn_id="deadline_host")
_late("late_and_failing", stumble)
