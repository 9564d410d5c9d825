"""The measured executors: their names in figures, Dags and `[core] executor`, and their slots."""

from __future__ import annotations

from dataclasses import dataclass

SLOTS = 16
"""The number of tasks that every executor can run at the same time."""

PARALLELISM = 32
"""`[core] parallelism`, Airflow's default: the number of unfinished tasks that the scheduler submits to one executor. It is
higher than the slots of a worker, so that its queue is never empty. It also sets LocalExecutor's slots, so the Dag for
LocalExecutor limits its tasks to the same slots as the others."""


@dataclass(frozen=True)
class Peer:
    name: str
    """The name in figures, Dag ids and file names."""
    setting: str
    """The entry in `[core] executor`."""


OURS = Peer("remote", "RemoteExecutor:airflow_remote_provider.executor.RemoteExecutor")
LOCAL = Peer("local", "LocalExecutor")
CELERY = Peer("celery", "CeleryExecutor")
EDGE = Peer("edge", "EdgeExecutor:airflow.providers.edge3.executors.EdgeExecutor")
