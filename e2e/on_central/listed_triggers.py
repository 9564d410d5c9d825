"""A trigger class that only central's triggerer can import, for an administrator's list of code on central."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent


class OnCentral(BaseTrigger):
    """Fires at once; its constructor refuses unknown names."""

    def __init__(self, name: str) -> None:
        super().__init__()
        if name != "front":
            raise ValueError(f"the name {name!r} is unknown")
        self.name = name

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.OnCentral", {"name": self.name}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield TriggerEvent({"name": self.name, "task": self.task_instance.task_id if self.task_instance else None})
