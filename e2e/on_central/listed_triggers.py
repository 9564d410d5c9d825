"""Trigger classes that central's triggerer can import, and no worker: what an administrator may list as code on central."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent


class Door(BaseTrigger):
    """Opens at once; its constructor refuses a door that it doesn't know."""

    def __init__(self, name: str) -> None:
        super().__init__()
        if name != "front":
            raise ValueError(f"there is no door {name!r}")
        self.name = name

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.Door", {"name": self.name}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield TriggerEvent({"open": self.name, "task": self.task_instance.task_id if self.task_instance else None})
