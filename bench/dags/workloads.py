"""The measured Dags for the executor that this file is named after: `bench.deployment` copies it to local.py, remote.py, …

There is one file per executor because each task parses the whole file of its Dag, and a runtime refuses unknown executors.
"""

from __future__ import annotations

from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import dag, task

NAME = Path(__file__).stem
EXECUTOR = {"local": "LocalExecutor", "celery": "CeleryExecutor", "edge": "EdgeExecutor", "remote": "RemoteExecutor"}[NAME]


# A worker has sixteen slots and a queue before them. LocalExecutor's slots are [core] parallelism, which is higher.
MOST = 16 if NAME == "local" else 64


@dag(dag_id=f"chain_{NAME}", schedule=None)
def chain():
    """Ten tasks, one after the other; each returns the time at which its code began."""
    previous = None
    for number in range(10):

        @task(task_id=f"step_{number}", executor=EXECUTOR)
        def step() -> float:
            import time

            return time.time()

        this = step()
        if previous is not None:
            previous >> this
        previous = this


@dag(dag_id=f"fifty_{NAME}", schedule=None, max_active_tasks=MOST)
def fifty():
    """Fifty mapped tasks that do nothing; only the slots of the executor limit them."""

    @task(executor=EXECUTOR)
    def nothing(number: int) -> None: ...

    nothing.expand(number=list(range(50)))


@dag(dag_id=f"hold_{NAME}", schedule=None, max_active_tasks=MOST)
def hold():
    """Sixteen Bash tasks that sleep until they are killed: `on_kill` sends SIGTERM to the command's process group."""
    commands = [f"exec -a hold_{NAME}_{number} sleep 900" for number in range(16)]
    BashOperator.partial(task_id="hold", executor=EXECUTOR).expand(bash_command=commands)


chain()
fifty()
hold()
