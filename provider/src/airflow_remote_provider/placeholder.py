"""The trigger classes of ours that stand in Airflow's table for triggers of remote tasks.

Airflow shows a deferred task by decoding its trigger's row, so the row must hold nothing that a worker encoded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from importlib import import_module
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_remote_provider.placeholder_names import ON_CENTRAL, OURS, PLACEHOLDER


class RunsAtSite(BaseTrigger):  # type: ignore[misc]
    """Waits for ever; the Remote Worker that hosts the real trigger resumes the task.

    Harmless wherever it runs: it takes no arguments and never fires.
    """

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores: this class, no arguments."""
        return PLACEHOLDER, {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Never yield."""
        await asyncio.Event().wait()
        yield TriggerEvent(None)


class NotMade(Exception):
    """A listed trigger class can't be made of the arguments that a worker chose; the text says why."""


class RunsOnCentral(BaseTrigger):  # type: ignore[misc]
    """Runs a trigger of a class that an administrator has listed as code on central for the task's queue.

    A triggerer of Airflow 3.3 ends when a trigger's constructor raises anything but a TypeError, and a worker chooses the
    arguments. So the class is made here, in :meth:`run`, where what it raises fails this trigger and its task alone.

    Only central's gateway writes rows with this class, after it has asked the queue's policy. It can't be asked again here: the
    process in which triggers run has no way to the database.
    """

    def __init__(self, classpath: str, kwargs: Mapping[str, Any]) -> None:
        """*kwargs* are plain values, as :func:`..api.deferral.plain_arguments` lets them through."""
        super().__init__()
        self.classpath = classpath
        self.kwargs = dict(kwargs)
        self._made: BaseTrigger | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores and shows: this class, the listed one and its arguments."""
        return ON_CENTRAL, {"classpath": self.classpath, "kwargs": self.kwargs}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Make the listed trigger and pass on its events.

        Raises:
            NotMade: it can't be made.
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
        except NotMade:
            raise
        except BaseException as error:  # SystemExit, too, is this trigger's failure and not the triggerer's end
            raise NotMade(
                f"{self.classpath} can't be made of the arguments of this task: {type(error).__name__}: {error}"
            ) from error
        for name in ("task_instance", "trigger_id", "triggerer_job_id", "timeout_after", "task_id"):
            if hasattr(self, name):
                setattr(made, name, getattr(self, name))
        return made

    def _class(self) -> type[BaseTrigger]:
        module, _, name = self.classpath.rpartition(".")
        if self.classpath.startswith(OURS) or not module:
            raise NotMade(f"{self.classpath} is no class that can be listed as code on central")
        found = getattr(import_module(module), name)
        if not (isinstance(found, type) and issubclass(found, BaseTrigger)):
            raise NotMade(f"{self.classpath} is no trigger class")
        return found
