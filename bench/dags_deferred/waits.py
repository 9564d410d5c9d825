"""One task for each executor that defers until a file exists, with the same operator and the same trigger."""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.triggers.file import FileTrigger
from airflow.sdk import BaseOperator, Param, dag

LOOKS_EVERY_S = 0.05


class Waits(BaseOperator):
    """Defers to a trigger that looks for the file *path*."""

    template_fields = ("path",)

    def __init__(self, *, path: str, **options: Any) -> None:
        super().__init__(**options)
        self.path = path

    def execute(self, context: Any) -> None:
        self.defer(trigger=FileTrigger(filepath=self.path, poke_interval=LOOKS_EVERY_S), method_name="go_on")

    def go_on(self, context: Any, event: Any = None) -> None:
        """Return: the wait is over."""


def waits(name: str, executor: str) -> None:
    @dag(dag_id=f"waits_{name}", schedule=None, params={"path": Param("", type="string")}, max_active_runs=100)
    def one() -> None:
        Waits(task_id="wait", path="{{ params.path }}", executor=executor)

    one()


waits("local", "LocalExecutor")
waits("remote", "RemoteExecutor")
