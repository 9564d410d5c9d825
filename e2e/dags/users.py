"""Tasks of two queues that the worker runs as two users. They import nothing that only root can read."""

from __future__ import annotations

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Param, dag, task

REMOTE = "RemoteExecutor"


def _try(path: str) -> str:
    try:
        with open(path) as file:  # noqa: PTH123  (this user can't read the module pathlib here)
            return file.read()
    except OSError as error:
        return type(error).__name__


@dag(schedule=None, params={"place": Param("", type="string"), "credential": Param("", type="string")})
def two_users():
    @task(executor=REMOTE, queue="alpha")
    def leave(params: dict | None = None) -> list:
        import os

        file = os.open(f"{params['place']}/alphas", os.O_CREAT | os.O_WRONLY, 0o600)
        os.write(file, b"alpha's own")
        os.close(file)
        return [os.getuid(), _try(f"{params['place']}/alphas"), _try(params["credential"])]

    @task(executor=REMOTE, queue="beta")
    def look(params: dict | None = None) -> list:
        import os

        return [os.getuid(), _try(f"{params['place']}/alphas"), _try(params["credential"])]

    leave() >> look()


@dag(schedule=None, params={"place": Param("", type="string")})
def one_lingers():
    BashOperator(
        task_id="linger",
        executor=REMOTE,
        queue="beta",
        env={"PLACE": "{{ params.place }}"},
        bash_command='sleep 600 & echo "$PPID $$ $!" > $PLACE/writing; mv $PLACE/writing $PLACE/pids; wait',
    )


two_users()
one_lingers()
