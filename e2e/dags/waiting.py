"""Tasks that defer or reschedule and then resume on the worker."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, Param, dag, task

REMOTE = "RemoteExecutor"


class DeferOnce(BaseOperator):
    """Defers for two seconds; returns the event and its own argument."""

    def execute(self, context):
        print("before the wait")
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=2)), method_name="resume", kwargs={"kept": "before"})

    def resume(self, context, event=None, kept=None):
        print("after the wait")
        return {"kept": kept, "event": str(event)}


@dag(schedule=None)
def deferred():
    DeferOnce(task_id="wait", executor=REMOTE)
    TimeDeltaSensor(task_id="sensor", delta=timedelta(seconds=1), deferrable=True, executor=REMOTE)


@dag(schedule=None, params={"directory": Param("", type="string")})
def rescheduled():
    @task.sensor(executor=REMOTE, mode="reschedule", poke_interval=2, timeout=60)
    def third_time(params: dict | None = None) -> bool:
        from pathlib import Path

        pokes = Path(params["directory"]) / "pokes"
        count = len(pokes.read_text()) + 1 if pokes.exists() else 1
        pokes.write_text("." * count)
        print(f"poke {count}")
        return count >= 3

    third_time()


deferred()
rescheduled()
