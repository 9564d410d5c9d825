"""Tasks that write to central and end once a file exists."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, get_current_context, task
from airflow.sdk.exceptions import DownstreamTasksSkipped

REMOTE = "RemoteExecutor"


@dag(schedule=None, params={"gate": Param("", type="string"), "trail": Param("", type="string")})
def pushing():
    @task(executor=REMOTE)
    def push() -> dict:
        import time
        from pathlib import Path

        context = get_current_context()
        gate, trail = (Path(context["params"][name]) for name in ("gate", "trail"))
        print("at the gate", flush=True)
        while not gate.exists():
            time.sleep(0.05)
        for number in range(3):
            context["ti"].xcom_push(key="count", value=number)
        context["ti"].xcom_push(key="large", value="x" * 1_000_000)
        with trail.open("a") as file:
            file.write(f"pushed {time.time()}\n")
        return {"text": "grüße"}

    @task
    def pull(pushed: dict) -> list:
        ti = get_current_context()["ti"]
        return [pushed, ti.xcom_pull(task_ids="push", key="count"), len(ti.xcom_pull(task_ids="push", key="large"))]

    pull(push())


@dag(schedule=None, params={"gate": Param("", type="string"), "trail": Param("", type="string")})
def stumbling():
    """The first try fails after the gate; the second does not."""

    @task(executor=REMOTE, retries=1, retry_delay=timedelta(seconds=1))
    def stumble() -> int:
        import time
        from pathlib import Path

        context = get_current_context()
        print("at the gate", flush=True)
        while not Path(context["params"]["gate"]).exists():
            time.sleep(0.05)
        context["ti"].xcom_push(key="try", value=context["ti"].try_number)
        if context["ti"].try_number == 1:
            raise RuntimeError("the first try fails on purpose")
        return context["ti"].try_number

    stumble()


@dag(schedule=None, params={"gate": Param("", type="string"), "trail": Param("", type="string")})
def refused_pushes():
    """Writes after the gate: values that the worker refuses itself, then a skip that only central can refuse."""

    @task(executor=REMOTE)
    def push() -> None:
        import time
        from pathlib import Path

        context = get_current_context()
        print("at the gate", flush=True)
        while not Path(context["params"]["gate"]).exists():
            time.sleep(0.05)
        outcomes = []
        for value in ("a\0b", "fine", '{"__classname__": "a.B"}'):
            try:
                context["ti"].xcom_push(key="value", value=value)
                outcomes.append("taken")
            except Exception as error:
                outcomes.append(type(error).__name__)
        context["ti"].xcom_push(key="outcomes", value=outcomes)
        raise DownstreamTasksSkipped(tasks=["beside"])

    @task(trigger_rule="all_done")
    def after() -> list:
        ti = get_current_context()["ti"]
        return [ti.xcom_pull(task_ids="push", key=key) for key in ("outcomes", "value")]

    @task
    def beside() -> str:
        return "not downstream of push, so push can't skip it"

    push() >> after()
    beside()


pushing()
stumbling()
refused_pushes()
