"""The trigger classes in Airflow's table: their rows, and that a failure of a listed class stays within its trigger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from testkit.ledger import TaskInstance  # isort: skip  # noqa: F401  (points Airflow elsewhere)

from airflow.triggers.base import BaseTrigger, TriggerEvent
from airflow_remote_provider.placeholder import RunsAtSite, RunsOnCentral, TriggerNotCreated
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
        raise {"value": ValueError("no such valve"), "exit": SystemExit(3), "type": TypeError("no")}[how]


class NoTrigger:
    pass


def _run(trigger: BaseTrigger) -> list[Any]:
    async def events() -> list[Any]:
        found = [event.payload async for event in trigger.run()]
        await trigger.on_kill()
        await trigger.cleanup()
        return found

    return asyncio.run(events())


def test_a_listed_trigger_gets_the_triggerers_attributes() -> None:
    done.clear()
    trigger = RunsOnCentral(f"{HERE}.Counts", {"to": 3})
    trigger.trigger_id, trigger.task_instance = 7, SimpleNamespace(task_id="task")
    assert _run(trigger) == [0, 1, 2]
    assert done == ["on_kill task", "cleanup 7"]


def test_the_row_of_a_listed_trigger_names_it_and_its_arguments() -> None:
    trigger = RunsOnCentral("company.Valve", {"at": 1})
    assert trigger.serialize() == (ON_CENTRAL, {"classpath": "company.Valve", "kwargs": {"at": 1}})
    path, kwargs = trigger.serialize()
    again = RunsOnCentral(**kwargs)
    assert (again.serialize(), path.rpartition(".")[2]) == (trigger.serialize(), "RunsOnCentral")
    assert RunsAtSite().serialize() == (PLACEHOLDER, {})


@pytest.mark.parametrize(
    ("how", "expected"), [("value", "ValueError: no such valve"), ("exit", "SystemExit: 3"), ("type", "TypeError")]
)
def test_an_exception_of_a_constructor_fails_only_its_trigger(how: str, expected: str) -> None:
    with pytest.raises(TriggerNotCreated, match=expected):
        _run(RunsOnCentral(f"{HERE}.Refuses", {"how": how}))


@pytest.mark.parametrize(
    "classpath", [f"{HERE}.NoTrigger", "os.system", "no.such.module.Trigger", f"{HERE}.Missing", ON_CENTRAL, "Trigger"]
)
def test_a_path_that_is_not_a_trigger_class_is_refused(classpath: str) -> None:
    with pytest.raises(TriggerNotCreated):
        _run(RunsOnCentral(classpath, {}))


def test_a_listed_trigger_that_was_never_created_can_be_cleaned_up() -> None:
    trigger = RunsOnCentral("company.Valve", {})

    async def end() -> None:
        await trigger.on_kill()
        await trigger.cleanup()

    asyncio.run(end())
