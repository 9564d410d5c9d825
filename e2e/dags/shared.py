"""Tasks that record each start and wait for a file before they end, for tests that stop and start central's processes."""

from __future__ import annotations

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Param, dag, task

REMOTE = "RemoteExecutor"


@dag(schedule=None, params={"directory": Param("", type="string"), "count": Param(4, type="integer")})
def counted():
    """Tasks that end when a file `go-<number>` or `go` exists."""

    @task(executor=REMOTE, queue="crew")
    def numbers(params: dict | None = None) -> list[int]:
        return list(range(params["count"]))

    @task(executor=REMOTE, queue="crew")
    def count(number: int, params: dict | None = None) -> int:
        import time
        from pathlib import Path

        directory = Path(params["directory"])
        with (directory / "starts").open("a") as starts:
            starts.write(f"{number}\n")
        while not any((directory / name).exists() for name in ("go", f"go-{number}")):
            time.sleep(0.05)
        return number

    count.expand(number=numbers())


@dag(schedule=None, params={"directory": Param("", type="string")})
def both_sides():
    for side in ("east", "west"):
        BashOperator(
            task_id=side,
            executor=REMOTE,
            queue=side,
            cwd="{{ params.directory }}",
            bash_command=f"echo $$ > writing-{side}; mv writing-{side} {side}; exec sleep 600",
        )


counted()
both_sides()
