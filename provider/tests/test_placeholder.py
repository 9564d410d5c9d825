"""The trigger classes of ours in Airflow's table: what they store, and that a listed class fails alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from testkit.ledger import TaskInstance  # isort: skip  # noqa: F401  (points Airflow elsewhere)

from airflow.triggers.base import BaseTrigger, TriggerEvent
from airflow_remote_provider.placeholder import NotMade, RunsAtSite, RunsOnCentral
from airflow_remote_provider.placeholder_names import ON_CENTRAL, PLACEHOLDER

HERE = __name__
done: list[str] = []


class Counts(BaseTrigger):
    """A listed trigger."""

    def __init__(self, to: int) -> None:
        super().__init__()
        self.to = to

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{HERE}.Counts", {"to": self.to}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        for number in range(self.to):
            yield TriggerEvent(number)

    async def cleanup(self) -> None:
        done.append(f"cleanup {self.trigger_id}")

    async def on_kill(self) -> None:
        done.append(f"on_kill {self.task_instance.task_id}")


class Refuses(Counts):
    def __init__(self, how: str) -> None:
        raise {"value": ValueError("no such door"), "exit": SystemExit(3), "type": TypeError("no")}[how]


class NoTrigger:
    pass


def _run(trigger: BaseTrigger) -> list[Any]:
    async def events() -> list[Any]:
        found = [event.payload async for event in trigger.run()]
        await trigger.on_kill()
        await trigger.cleanup()
        return found

    return asyncio.run(events())


def test_a_listed_trigger_runs_with_what_the_triggerer_told_it() -> None:
    done.clear()
    trigger = RunsOnCentral(f"{HERE}.Counts", {"to": 3})
    trigger.trigger_id, trigger.task_instance = 7, SimpleNamespace(task_id="task")
    assert _run(trigger) == [0, 1, 2]
    assert done == ["on_kill task", "cleanup 7"]


def test_the_row_of_a_listed_trigger_names_it_and_its_arguments() -> None:
    trigger = RunsOnCentral("company.Door", {"at": 1})
    assert trigger.serialize() == (ON_CENTRAL, {"classpath": "company.Door", "kwargs": {"at": 1}})
    path, kwargs = trigger.serialize()
    again = RunsOnCentral(**kwargs)
    assert (again.serialize(), path.rpartition(".")[2]) == (trigger.serialize(), "RunsOnCentral")
    assert RunsAtSite().serialize() == (PLACEHOLDER, {})


@pytest.mark.parametrize(
    ("how", "told"), [("value", "ValueError: no such door"), ("exit", "SystemExit: 3"), ("type", "TypeError")]
)
def test_what_a_constructor_raises_fails_the_trigger_alone(how: str, told: str) -> None:
    with pytest.raises(NotMade, match=told):
        _run(RunsOnCentral(f"{HERE}.Refuses", {"how": how}))


@pytest.mark.parametrize(
    "classpath", [f"{HERE}.NoTrigger", "os.system", "no.such.module.Trigger", f"{HERE}.Missing", ON_CENTRAL, "Trigger"]
)
def test_what_is_no_trigger_class_is_not_made(classpath: str) -> None:
    with pytest.raises(NotMade):
        _run(RunsOnCentral(classpath, {}))


def test_a_listed_trigger_that_was_never_made_is_cleaned_up_in_silence() -> None:
    trigger = RunsOnCentral("company.Door", {})

    async def end() -> None:
        await trigger.on_kill()
        await trigger.cleanup()

    asyncio.run(end())
