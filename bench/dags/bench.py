"""A chain of ten and fifty at once, for each executor; the tasks do nothing but say when their code began."""

from __future__ import annotations

from airflow.sdk import dag, task

EXECUTORS = {"local": "LocalExecutor", "remote": "RemoteExecutor"}


def _chain(name: str, executor: str):
    @dag(dag_id=f"chain_{name}", schedule=None)
    def chain():
        previous = None
        for number in range(10):

            @task(task_id=f"step_{number}", executor=executor)
            def step() -> float:
                import time

                return time.time()

            this = step()
            if previous is not None:
                previous >> this
            previous = this

    return chain()


def _fan(name: str, executor: str):
    @dag(dag_id=f"fan_{name}", schedule=None, max_active_tasks=16)
    def fan():
        @task(executor=executor)
        def one(number: int) -> float:
            import time

            return time.time()

        one.expand(number=list(range(50)))

    return fan()


for _name, _executor in EXECUTORS.items():
    globals()[f"chain_{_name}"] = _chain(_name, _executor)
    globals()[f"fan_{_name}"] = _fan(_name, _executor)
