"""BashOperator."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Param, dag

REMOTE = "RemoteExecutor"


@dag(schedule=None, params={"who": Param("nobody", type="string")})
def shell():
    BashOperator(task_id="say", executor=REMOTE, bash_command="echo {{ params.who }}@{{ dag.dag_id }}/{{ ti.task_id }}")
    BashOperator(
        task_id="only_its_own",
        executor=REMOTE,
        env={"WHO": "{{ params.who }} & 'friends'"},
        bash_command='echo "$WHO at ${SITE:-nowhere}"',
    )
    BashOperator(
        task_id="its_own_and_the_workers",
        executor=REMOTE,
        env={"WHO": "{{ params.who }}"},
        append_env=True,
        bash_command='echo "$WHO at ${SITE:-nowhere}"',
    )
    BashOperator(task_id="skip", executor=REMOTE, bash_command="exit 99")


@dag(schedule=None)
def shell_fails():
    BashOperator(
        task_id="fail",
        executor=REMOTE,
        retries=1,
        retry_delay=timedelta(seconds=2),
        bash_command="echo this is try {{ ti.try_number }}; exit 3",
    )


shell()
shell_fails()
