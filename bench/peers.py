"""Who is measured: the executors' names in the figures, in tasks and in `[core] executor`, and what each needs set."""

from __future__ import annotations

from dataclasses import dataclass

SLOTS = 16
"""Of every executor: tasks that it may run at once."""

PARALLELISM = 32
"""`[core] parallelism`, Airflow's default: how many tasks the scheduler may have handed to one executor. More than the slots of a
worker, so that its queue is never empty; LocalExecutor, whose slots this is, is held to the same slots by the Dag."""


@dataclass(frozen=True)
class Peer:
    name: str
    """In figures, Dag ids and file names."""
    setting: str
    """In `[core] executor`."""


OURS = Peer("remote", "RemoteExecutor:airflow_remote_provider.executor.RemoteExecutor")
LOCAL = Peer("local", "LocalExecutor")
CELERY = Peer("celery", "CeleryExecutor")
EDGE = Peer("edge", "EdgeExecutor:airflow.providers.edge3.executors.EdgeExecutor")
