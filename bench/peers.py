"""Who is measured: the executors' names in the figures, in tasks and in `[core] executor`, and what each needs set."""

from __future__ import annotations

from dataclasses import dataclass

SLOTS = 16
"""Of every executor: tasks that it may run at once."""


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
