"""Tasks that wait to be stopped."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Param, dag, task

REMOTE = "RemoteExecutor"


def _linger(directory: str) -> str:
    """Write our pid, then wait until we are stopped."""
    import os
    import time
    from pathlib import Path

    (Path(directory) / "writing").write_text(str(os.getpid()))
    (Path(directory) / "writing").rename(Path(directory) / "pids")
    for _ in range(600):
        time.sleep(1)
    return "it was not stopped"


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
    """Has no `on_kill`: Airflow's supervisor sends SIGTERM, waits 5 s, and sends SIGKILL."""

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


@dag(schedule=None)
def unserved():
    """No worker serves its queue."""

    @task(executor=REMOTE, queue="nowhere")
    def wait() -> None: ...

    wait()


lingering()
stubborn()
impatient()
unserved()
