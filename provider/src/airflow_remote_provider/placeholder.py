"""The trigger classes of this package in Airflow's table, in the rows for triggers of remote tasks.

Airflow decodes a trigger's row to show its deferred task, so the row must not contain anything that a worker encoded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from importlib import import_module
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_remote_provider.placeholder_names import ON_CENTRAL, OURS, PLACEHOLDER


class RunsAtSite(BaseTrigger):  # type: ignore[misc]
    """Waits for ever. The Remote Worker that hosts the real trigger resumes the task.

    Harmless wherever it runs: it takes no arguments and never fires.
    """

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the row that Airflow stores: this class, no arguments."""
        return PLACEHOLDER, {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Never yield."""
        await asyncio.Event().wait()
        yield TriggerEvent(None)


class TriggerNotCreated(Exception):
    """A listed trigger class can't be instantiated with the arguments from a worker; the text says why."""


class RunsOnCentral(BaseTrigger):  # type: ignore[misc]
    """Runs a trigger whose class an administrator has listed as code on central for the task's queue.

    A triggerer of Airflow 3.3 ends when a trigger's constructor raises anything but a TypeError, and a worker chooses the
    arguments. So the instance is created in :meth:`run`, where an exception fails only this trigger and its task.

    Only central's gateway writes rows with this class, after it has checked the queue's policy. The policy can't be checked again
    here: the process in which triggers run has no access to the database.
    """

    def __init__(self, classpath: str, kwargs: Mapping[str, Any]) -> None:
        """*kwargs* are plain values, as checked by :func:`..api.worker_v1.deferral.plain_arguments`."""
        super().__init__()
        self.classpath = classpath
        self.kwargs = dict(kwargs)
        self._made: BaseTrigger | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the row that Airflow stores and shows: this class, the listed class and its arguments."""
        return ON_CENTRAL, {"classpath": self.classpath, "kwargs": self.kwargs}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Create the listed trigger and pass on its events.

        Raises:
            TriggerNotCreated: its class can't be imported or instantiated.
        """
        self._made = self._make()
        async for event in self._made.run():
            yield event

    async def cleanup(self) -> None:
        if self._made is not None:
            await self._made.cleanup()

    async def on_kill(self) -> None:
        if self._made is not None:
            await self._made.on_kill()

    def _make(self) -> BaseTrigger:
        try:
            made = self._class()(**self.kwargs)
        except TriggerNotCreated:
            raise
        except BaseException as error:  # also SystemExit, which must fail this trigger and not end the triggerer
            raise TriggerNotCreated(
                f"{self.classpath} can't be created with the arguments of this task: {type(error).__name__}: {error}"
            ) from error
        for name in ("task_instance", "trigger_id", "triggerer_job_id", "timeout_after", "task_id"):
            if hasattr(self, name):
                setattr(made, name, getattr(self, name))
        return made

    def _class(self) -> type[BaseTrigger]:
        module, _, name = self.classpath.rpartition(".")
        if self.classpath.startswith(OURS) or not module:
            raise TriggerNotCreated(f"{self.classpath} can't be listed as code on central")
        found = getattr(import_module(module), name)
        if not (isinstance(found, type) and issubclass(found, BaseTrigger)):
            raise TriggerNotCreated(f"{self.classpath} is not a trigger class")
        return found
