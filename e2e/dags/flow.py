"""Tasks with branches, short circuits, setup, teardown and callbacks."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import Param, dag, setup, task, teardown

REMOTE = "RemoteExecutor"


@dag(schedule=None)
def branching():
    @task.branch(executor=REMOTE)
    def choose() -> str:
        return "left"

    @task(executor=REMOTE)
    def left() -> None: ...

    @task(executor=REMOTE)
    def right() -> None: ...

    choose() >> [left(), right()]


@dag(schedule=None)
def circuit():
    @task.short_circuit(executor=REMOTE)
    def is_open() -> bool:
        return False

    @task.short_circuit(executor=REMOTE)
    def is_closed() -> bool:
        return True

    @task(executor=REMOTE)
    def dark() -> None: ...

    @task(executor=REMOTE)
    def light() -> None: ...

    is_open() >> dark()
    is_closed() >> light()


def note(directory: str, what: str) -> None:
    with (Path(directory) / "notes").open("a") as notes:
        notes.write(f"{what} at {os.environ.get('SITE', 'central')}\n")


@dag(schedule=None, params={"directory": Param("", type="string")})
def surrounded():
    @setup
    @task(executor=REMOTE)
    def build(params: dict | None = None) -> str:
        note(params["directory"], "built")
        return "a thing"

    @task(executor=REMOTE)
    def use(thing: str, params: dict | None = None) -> None:
        note(params["directory"], f"used {thing}")
        raise RuntimeError("it breaks on purpose")

    @teardown
    @task(executor=REMOTE)
    def tidy(thing: str, params: dict | None = None) -> None:
        note(params["directory"], f"tidied {thing}")

    thing = build()
    used, tidied = use(thing), tidy(thing)
    used >> tidied


def make_callback(what: str):
    """Return a callback that records *what*, its site and its try."""

    def callback(context) -> None:
        print(f"the callback {what} runs")
        note(context["params"]["directory"], f"{what} {context['ti'].task_id} try {context['ti'].try_number}")

    return callback


@dag(schedule=None, params={"directory": Param("", type="string")})
def called_back():
    callbacks = {f"on_{what}_callback": make_callback(what) for what in ("execute", "success", "retry", "failure", "skipped")}

    @task(executor=REMOTE, **callbacks)
    def succeed() -> None: ...

    @task(executor=REMOTE, retries=1, retry_delay=timedelta(seconds=0.5), **callbacks)
    def fail() -> None:
        raise RuntimeError("it breaks on purpose")

    @task(executor=REMOTE, **callbacks)
    def skip() -> None:
        from airflow.sdk.exceptions import AirflowSkipException

        raise AirflowSkipException("nothing to do")

    succeed()
    fail()
    skip()


branching()
circuit()
surrounded()
called_back()
