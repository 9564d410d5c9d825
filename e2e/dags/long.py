"""Tasks that take their time: to be stopped, watched, cut off."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Param, dag, task

REMOTE = "RemoteExecutor"


def _linger(directory: str) -> str:
    """Write our pid, then wait to be stopped."""
    import os
    import time
    from pathlib import Path

    (Path(directory) / "writing").write_text(str(os.getpid()))
    (Path(directory) / "writing").rename(Path(directory) / "pids")
    for _ in range(600):
        time.sleep(1)
    return "nobody stopped it"


@dag(schedule=None, params={"directory": Param("", type="string")})
def lingering():
    """Ends at once when it is stopped: the operator's `on_kill` signals its processes."""
    BashOperator(
        task_id="linger",
        executor=REMOTE,
        cwd="{{ params.directory }}",
        bash_command=(
            'if [ -e pids ]; then echo the second time; exit; fi; sleep 600 & echo "$PPID $$ $!" > writing; mv writing pids; wait'
        ),
    )


@dag(schedule=None, params={"directory": Param("", type="string")})
def stubborn():
    """Has no `on_kill`: Airflow's supervisor asks with SIGTERM, waits 5 s, and kills."""

    @task(executor=REMOTE)
    def linger(params: dict | None = None) -> str:
        return _linger((params or {})["directory"])

    linger()


@dag(schedule=None, params={"directory": Param("", type="string")})
def impatient():
    @task(executor=REMOTE, execution_timeout=timedelta(seconds=4))
    def linger(params: dict | None = None) -> str:
        return _linger((params or {})["directory"])

    linger()


@dag(schedule=None, params={"lines": Param(20, type="integer"), "every_s": Param(0.5, type="number")})
def talking():
    @task(executor=REMOTE)
    def talk(params: dict | None = None) -> int:
        import time

        for number in range(params["lines"]):
            print(f"line {number}: grüße ☃")
            time.sleep(params["every_s"])
        return params["lines"]

    talk()


@dag(schedule=None)
def shouting():
    @task(executor=REMOTE)
    def shout() -> None:
        """Some 3 MB, as fast as it goes."""
        for number in range(15_000):
            print(f"{number:06} " + "ö" * 80)

    shout()


lingering()
stubborn()
impatient()
talking()
shouting()
