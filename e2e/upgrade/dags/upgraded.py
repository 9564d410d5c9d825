"""A Dag with running tasks and a waiting one for an upgrade of central, and Dags that test a runtime of another version."""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.triggers.file import FileTrigger
from airflow.sdk import BaseOperator, Param, dag, task

REMOTE = "RemoteExecutor"
TASKS = 20


class WaitsForFile(BaseOperator):
    """Defers until a file exists; its trigger runs at the site."""

    template_fields = ("path",)

    def __init__(self, *, path: str, **options: Any) -> None:
        super().__init__(**options)
        self.path = path

    def execute(self, context: Any) -> None:
        self.defer(trigger=FileTrigger(filepath=self.path, poke_interval=0.5), method_name="go_on", kwargs={"kept": [1, 2]})

    def go_on(self, context: Any, event: Any = None, kept: Any = None) -> list[int]:
        return kept


@dag(schedule=None, max_active_tasks=TASKS + 4, params={"directory": Param("", type="string")})
def upgraded():
    @task(executor=REMOTE, queue="old")
    def begin() -> dict[str, int]:
        return {"offset": 100}

    @task(executor=REMOTE, queue="old")
    def hold(number: int, before: dict[str, int], params: dict | None = None) -> int:
        """Write our pid, then wait until the file `go` exists."""
        import os
        import time
        from pathlib import Path

        directory = Path(params["directory"])
        with (directory / f"{number}.pids").open("a") as pids:
            pids.write(f"{os.getpid()}\n")
        while not (directory / "go").exists():
            time.sleep(0.2)
        return before["offset"] + number

    @task(executor=REMOTE, queue="old")
    def add(numbers: Any, before: dict[str, int], kept: list[int]) -> int:
        return sum(numbers) + before["offset"] + sum(kept)

    before = begin()
    waits = WaitsForFile(task_id="waits", path="{{ params.directory }}/go", executor=REMOTE, queue="old")
    before >> waits
    add(hold.partial(before=before).expand(number=list(range(TASKS))), before, waits.output)


def _mixed(site: str) -> None:
    @dag(dag_id=f"mixed_{site}", schedule=None, params={"file": Param("", type="string")})
    def mixed():
        @task(executor=REMOTE, queue=site)
        def write() -> dict[str, Any]:
            return {"text": "grüße", "numbers": [1, 2, 3]}

        @task(executor=REMOTE, queue=site, retries=1, retry_delay=0, executor_config={"remote": {"variables": ["offset"]}})
        def read(written: dict[str, Any], kept: list[int], ti: Any = None) -> int:
            from airflow.sdk import Variable

            if ti.try_number == 1:
                raise RuntimeError("the first try fails")
            return sum(written["numbers"]) + sum(kept) + int(Variable.get("offset"))

        waits = WaitsForFile(task_id="waits", path="{{ params.file }}", executor=REMOTE, queue=site)
        read(write(), waits.output)

    mixed()


@dag(schedule=None, params={"directory": Param("", type="string")})
def sent():
    """Runs in a runtime that central sends."""

    @task(executor=REMOTE, queue="sent")
    def hold(params: dict | None = None) -> str:
        """Write our pid, then wait until the file `go` exists; return the version of Airflow."""
        import os
        import time
        from pathlib import Path

        import airflow

        directory = Path(params["directory"])
        (directory / "sent.pids").write_text(f"{os.getpid()}\n")
        while not (directory / "go").exists():
            time.sleep(0.2)
        return airflow.__version__

    hold()


upgraded()
sent()
for _site in ("old", "new"):
    _mixed(_site)
