"""Dags for answers whose headers the Task SDK reads, for keys with special characters, and for large values."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, BaseHook, Variable, dag, get_current_context, task, task_group

REMOTE = "RemoteExecutor"

# Without `?`: the Task SDK does not quote a variable's key and sends what follows as a query, which Airflow's own executors
# ignore and central refuses.
KEYS = ["a/b", "/a", "a/", "//", "a//b", "a b", " a ", "100%", "%2F", "%41", "ключ", "💥/é", "x#y", "item/3", "a+b"]
STORE = Asset(name="e2e keys//%", uri="s3://e2e/keys//%20a")


@dag(schedule=None)
def sequences():
    """Lazy sequences of a mapped remote task, used by remote tasks."""

    @task(executor=REMOTE)
    def numbers() -> list[int]:
        return [1, 2, 3]

    @task(executor=REMOTE)
    def double(number: int) -> int:
        return number * 2

    @task(executor=REMOTE)
    def describe(doubled: Any) -> list[Any]:
        return [len(doubled), list(doubled), doubled[-1], list(doubled[1:])]

    @task(executor=REMOTE)
    def text(value: Any) -> str:
        return str(value)

    @task(executor=REMOTE)
    def collect(mapped: Any, zipped: Any, joined: Any, grouped: Any) -> list[list[str]]:
        return [list(mapped), list(zipped), list(joined), list(grouped)]

    @task_group
    def steps(number: int) -> Any:
        return text(double.override(task_id="double_in_group")(number))

    doubled = double.expand(number=numbers())
    describe(doubled)
    mapped = text.override(task_id="mapped").expand(value=doubled.map(lambda number: number + 1))
    zipped = text.override(task_id="zipped").expand(value=doubled.zip(numbers.override(task_id="others")()))
    joined = text.override(task_id="joined").expand(value=doubled.concat(numbers.override(task_id="more")()))
    collect(mapped, zipped, joined, steps.expand(number=doubled))


def _probe() -> dict[str, list[str]]:
    """Return the outcome of writing and reading a value under each key, in each store."""
    context = get_current_context()
    ti, states = context["ti"], context["task_state_store"]
    assets = context["asset_state_store"][STORE]
    return {key: _outcomes(ti, states, assets, key, number) for number, key in enumerate(KEYS)}


def _outcomes(ti: Any, states: Any, assets: Any, key: str, number: int) -> list[str]:
    name = f"{ti.task_id}/{key}"  # tasks must not share a variable
    return [
        _outcome(lambda: ti.xcom_push(key=key, value=number)),
        _outcome(lambda: ti.xcom_pull(task_ids=ti.task_id, key=key)),
        _outcome(lambda: Variable.set(name, str(number))),
        _outcome(lambda: Variable.get(name)),
        _outcome(lambda: Variable.get(key, default="none")),
        _outcome(lambda: BaseHook.get_connection(key)),
        _outcome(lambda: states.set(key, number)),
        _outcome(lambda: states.get(key)),
        _outcome(lambda: states.delete(key)),
        _outcome(lambda: assets.set(name, number)),
        _outcome(lambda: assets.get(name)),
    ]


def _outcome(call: Any) -> str:
    try:
        return repr(call())
    except Exception as error:
        return type(error).__name__


@dag(schedule=None)
def keys():
    everything = {"remote": {"variables": ["*"], "writes": ["*"], "connections": ["*"]}}
    here = task(_probe, outlets=[STORE]).override(task_id="here")
    there = task(_probe, outlets=[STORE], executor=REMOTE, executor_config=everything).override(task_id="there")
    here()
    there()


@dag(schedule=None, params={"megabytes": 70})
def large():
    """Passes a value of many megabytes to the site and back."""

    # Airflow logs what a task returns, and its supervisor takes minutes for a line of that length.
    @task(executor=REMOTE, show_return_value_in_logs=False)
    def write() -> str:
        return "x" * (get_current_context()["params"]["megabytes"] << 20)

    @task(executor=REMOTE)
    def read(value: str) -> int:
        return len(value)

    @task
    def read_here(value: str) -> int:
        return len(value)

    value = write()
    read(value)
    read_here(value)


@dag(schedule=None)
def too_large():
    """For a central whose limit is 1 MiB; values of Airflow's own executors can be larger."""

    @task(show_return_value_in_logs=False)
    def write_here() -> str:
        return "x" * (3 << 20)

    @task(executor=REMOTE, retries=0)
    def read(value: str) -> int:
        return len(value)

    @task(executor=REMOTE, retries=0, show_return_value_in_logs=False)
    def write() -> str:
        return "x" * (3 << 20)

    read(write_here())
    write()


sequences()
keys()
large()
too_large()
