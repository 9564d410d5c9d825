"""XCom, mapped tasks, variables, connections, retries."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import BaseHook, Variable, dag, get_current_context, task

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


@dag(schedule=None)
def many():
    """Tasks that are mapped over a list from the other side, in both directions, and a task with several named outputs."""

    @task
    def numbers_here() -> list[int]:
        return [1, 2, 3]

    @task(executor=REMOTE)
    def double_there(number: int) -> int:
        return number * 2

    @task
    def half_here(number: int) -> float:
        return number / 2

    @task(executor=REMOTE)
    def sum_there(numbers: list[float]) -> float:
        return sum(numbers)

    @task(executor=REMOTE, multiple_outputs=True)
    def several_there(total: float) -> dict[str, object]:
        return {"total": total, "parts": ["a", "b"]}

    @task
    def one_here(total: float, parts: list[str]) -> str:
        return f"{total} {parts}"

    several = several_there(sum_there(half_here.expand(number=double_there.expand(number=numbers_here()))))
    one_here(several["total"], several["parts"])


READS = {"remote": {"connections": ["plant"], "variables": ["e2e_*"]}}
WRITES = {"remote": {"writes": ["e2e_written"]}}


@dag(schedule=None)
def configured():
    @task(executor=REMOTE, executor_config=READS)
    def read() -> dict:
        connection = BaseHook.get_connection("plant")
        print(f"the password is {connection.password}")
        return {
            "text": Variable.get("e2e_text"),
            "json": Variable.get("e2e_json", deserialize_json=True),
            "missing": Variable.get("e2e_missing", default="a default"),
            "host": connection.host,
            "extra": connection.extra_dejson,
            "password_length": len(connection.password),
        }

    @task.bash(executor=REMOTE, executor_config=READS)
    def template() -> str:
        return "echo {{ var.value.e2e_text }} {{ var.json.e2e_json.a[1] }} {{ conn.plant.host }}:{{ conn.plant.port }}"

    @task(executor=REMOTE, executor_config=WRITES)
    def write() -> None:
        Variable.set("e2e_written", "from afar")

    read()
    template()
    write()


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
many()
configured()
second_try()
never_works()
