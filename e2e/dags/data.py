"""XCom, templates, params, retries."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Param, dag, get_current_context, task

REMOTE = "RemoteExecutor"
VALUE = {"text": "grüße, 世界 ☃", "number": 2**40, "list": [1, None, True, 2.5], "nested": {"a": {"b": []}}}


@dag(schedule=None)
def there_and_back():
    @task
    def local() -> dict:
        return VALUE

    @task(executor=REMOTE)
    def remote(value: dict) -> dict:
        assert value == VALUE, value
        ti = get_current_context()["ti"]
        ti.xcom_push(key="large", value="x" * 1_000_000)
        return {"back": value}

    @task
    def local_again(value: dict) -> int:
        assert value == {"back": VALUE}, value
        return len(get_current_context()["ti"].xcom_pull(task_ids="remote", key="large"))

    local_again(remote(local()))


@dag(schedule=None, params={"who": Param("nobody", type="string")})
def rendered():
    BashOperator(task_id="say", executor=REMOTE, bash_command="echo {{ params.who }}@{{ dag.dag_id }}/{{ ti.task_id }}")


@dag(schedule=None)
def second_try():
    @task(executor=REMOTE, retries=1, retry_delay=timedelta(seconds=1))
    def stumble() -> int:
        attempt = get_current_context()["ti"].try_number
        print(f"this is try {attempt}")
        if attempt == 1:
            raise RuntimeError("the first try fails on purpose")
        return attempt

    stumble()


@dag(schedule=None)
def never_works():
    @task(executor=REMOTE)
    def fail() -> None:
        raise ValueError("a mistake in the Dag author's code")

    fail()


there_and_back()
rendered()
second_try()
never_works()
