"""Deferrable operators: their triggers run on a worker of the task's queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.sensors.filesystem import FileSensor
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import BaseOperator, Param, dag, task
from airflow.triggers.base import BaseTrigger, StartTriggerArgs, TaskSuccessEvent, TriggerEvent
from site_triggers import Answers, Appears, Asks, EndsWhenItAppears

REMOTE = {"executor": "RemoteExecutor"}
DIRECTORY = {"directory": Param("", type="string")}


class Waits(BaseOperator):
    """Defers to a trigger; returns the event."""

    template_fields = ("arguments",)

    def __init__(
        self, *, trigger: type[BaseTrigger], arguments: dict[str, str], within_s: float | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.trigger = trigger
        self.arguments = arguments
        self.within_s = within_s

    def execute(self, context: Any) -> None:
        print("before the wait")
        within = None if self.within_s is None else timedelta(seconds=self.within_s)
        kept = {"kept": ["from", "before"]}
        self.defer(trigger=self.trigger(**self.arguments), method_name="go_on", kwargs=kept, timeout=within)

    def go_on(self, context: Any, event: Any = None, kept: Any = None) -> dict[str, Any]:
        print("after the wait")
        return {"event": event, "kept": kept}


class InTheDagFile(BaseTrigger):
    """A trigger that only this Dag file defines."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{type(self).__module__}.{type(self).__name__}", {"path": self.path}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        while not Path(self.path).exists():
            await asyncio.sleep(0.1)
        yield TriggerEvent("from the Dag file")


class EndsItsTask(BaseTrigger):
    """Ends its task without resuming it."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{type(self).__module__}.{type(self).__name__}", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield TaskSuccessEvent(xcoms={"return_value": {"ended": "by the trigger"}})


class Breaks(BaseTrigger):
    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{type(self).__module__}.{type(self).__name__}", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        raise ValueError("the press is broken")
        yield TriggerEvent(None)


class StartsInTheTrigger(BaseOperator):
    """An operator that the scheduler would defer to central's triggerer."""

    start_trigger_args = StartTriggerArgs(
        trigger_cls="site_triggers.Appears", trigger_kwargs={"path": ""}, next_method="go_on", next_kwargs=None, timeout=None
    )
    start_from_trigger = True
    template_fields = ("path",)

    def __init__(self, *, path: str, **options: Any) -> None:
        super().__init__(**options)
        self.path = path

    def execute(self, context: Any) -> None:
        self.defer(trigger=Appears(self.path), method_name="go_on")

    def go_on(self, context: Any, event: Any = None) -> Any:
        return event


@dag(schedule=None, params=DIRECTORY)
def waits():
    """One task of each kind; all wait for `<directory>/go`, except those that need no file."""
    go = {"path": "{{ params.directory }}/go"}
    TimeDeltaSensor(task_id="moment", delta=1, deferrable=True, **REMOTE)
    FileSensor(task_id="file", filepath="{{ params.directory }}/go", deferrable=True, poke_interval=0.5, **REMOTE)
    Waits(task_id="of_bundle", trigger=Appears, arguments=go, **REMOTE)
    Waits(task_id="of_file", trigger=InTheDagFile, arguments=go, **REMOTE)
    Waits(task_id="ends", trigger=EndsItsTask, arguments={}, **REMOTE)
    StartsInTheTrigger(task_id="starts", path="{{ params.directory }}/go", **REMOTE)
    TriggerDagRunOperator(
        task_id="other_dag",
        trigger_dag_id="waited_for",
        wait_for_completion=True,
        deferrable=True,
        poke_interval=1,
        **REMOTE,
    )


@dag(schedule=None)
def waited_for():
    @task(**REMOTE)
    def one() -> str:
        return "done"

    one()


@dag(schedule=None, params={"url": Param("", type="string")})
def waits_for_server():
    Waits(task_id="wait", trigger=Answers, arguments={"url": "{{ params.url }}"}, **REMOTE)


@dag(schedule=None)
def waits_and_fails():
    Waits(task_id="wait", trigger=Breaks, arguments={}, **REMOTE)


@dag(schedule=None)
def waits_and_asks():
    grant = {"remote": {"connections": ["waits_granted"]}}
    Waits(task_id="granted", trigger=Asks, arguments={"conn": "waits_granted"}, executor_config=grant, **REMOTE)
    Waits(task_id="denied", trigger=Asks, arguments={"conn": "waits_denied"}, **REMOTE)


class OnCentral(BaseTrigger):
    """Serialises as a class that only central can import."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "listed_triggers.OnCentral", {"name": self.name}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        raise ValueError("this runs on central, not here")
        yield TriggerEvent(None)


@dag(schedule=None)
def waits_on_central():
    for name in ("front", "nowhere"):
        Waits(task_id=name, trigger=OnCentral, arguments={"name": name}, **REMOTE)


@dag(schedule=None, params=DIRECTORY)
def waits_once():
    Waits(task_id="wait", trigger=Appears, arguments={"path": "{{ params.directory }}/go"}, queue="waits", **REMOTE)


@dag(schedule=None, params=DIRECTORY)
def waits_too_long():
    Waits(task_id="wait", trigger=Appears, arguments={"path": "{{ params.directory }}/go"}, within_s=4, queue="waits", **REMOTE)


@dag(schedule=None, params=DIRECTORY)
def waits_on_two():
    options = {"remote": {"lost_after": 30}}
    arguments = {"path": "{{ params.directory }}/go"}
    Waits(task_id="wait", trigger=Appears, arguments=arguments, queue="waits-two", executor_config=options, **REMOTE)


@dag(schedule=None, params=DIRECTORY, max_active_tasks=1000)
def waits_together():
    """Five hundred tasks that wait for the same file. Most end with their trigger, since resuming all would take minutes."""
    go = {"path": "{{ params.directory }}/go"}
    Waits.partial(task_id="go_on", trigger=Appears, queue="waits-many", **REMOTE).expand(arguments=[go] * 50)
    Waits.partial(task_id="end", trigger=EndsWhenItAppears, queue="waits-many", **REMOTE).expand(arguments=[go] * 450)


for make in (
    waits,
    waited_for,
    waits_for_server,
    waits_and_fails,
    waits_and_asks,
    waits_on_central,
    waits_once,
    waits_too_long,
    waits_on_two,
    waits_together,
):
    make()
