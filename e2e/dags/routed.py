"""Tasks that return where and when they ran, for queues, pools, slots, priorities and labels."""

from __future__ import annotations

from airflow.sdk import Param, dag, task

REMOTE = "RemoteExecutor"


def _where_and_when(seconds: float) -> dict:
    import os
    import time

    begin = time.time()
    time.sleep(seconds)
    return {"site": os.environ.get("SITE", "central"), "begin": begin, "end": time.time()}


@dag(schedule=None)
def routed():
    @task(executor=REMOTE, queue="north")
    def north(number: int) -> dict:
        return _where_and_when(1)

    @task(executor=REMOTE, queue="south")
    def south(number: int) -> dict:
        return _where_and_when(1)

    @task
    def here() -> dict:
        return _where_and_when(0)

    north.expand(number=[0, 1, 2])
    south.expand(number=[0, 1, 2, 3])
    here()


@dag(schedule=None)
def pooled():
    """The worker has more slots than the pool; a wide task takes two of both."""

    @task(executor=REMOTE, pool="narrow")
    def single(number: int) -> dict:
        return _where_and_when(0.7)

    @task(executor=REMOTE, queue="south", pool_slots=2)
    def wide(number: int) -> dict:
        return _where_and_when(0.7)

    single.expand(number=[0, 1, 2])
    wide.expand(number=[0, 1, 2])


@dag(schedule=None, params={"go": Param("", type="string")})
def holding():
    """Fills the only slot of the queue until the file exists."""

    @task(executor=REMOTE, queue="north")
    def hold(params: dict | None = None) -> None:
        import time
        from pathlib import Path

        while not Path(params["go"]).exists():
            time.sleep(0.05)

    hold()


@dag(schedule=None)
def weighed():
    for weight in (1, 5, 3):

        @task(task_id=f"weight_{weight}", executor=REMOTE, queue="north", priority_weight=weight)
        def be() -> dict:
            return _where_and_when(0)

        be()


@dag(schedule=None)
def heavy():
    @task(executor=REMOTE, queue="north", priority_weight=100)
    def be() -> dict:
        return _where_and_when(0)

    be()


@dag(schedule=None)
def crowded():
    """More tasks than the deployment can run at the same time."""

    @task(executor=REMOTE, queue="wide")
    def be(number: int) -> dict:
        return _where_and_when(1.5)

    be.expand(number=list(range(12)))


@dag(schedule=None)
def labelled():
    """Two workers serve the queue; only one of them has the label."""

    @task(executor=REMOTE, queue="sites", executor_config={"remote": {"labels": {"gpu": "yes"}}})
    def needy(number: int) -> dict:
        return _where_and_when(0)

    needy.expand(number=[0, 1, 2])


@dag(schedule=None)
def bundled():
    @task(executor=REMOTE, queue="sites")
    def be(number: int) -> dict:
        return _where_and_when(0)

    be.expand(number=[0, 1, 2])


labelled()
bundled()
routed()
pooled()
holding()
weighed()
heavy()
crowded()
