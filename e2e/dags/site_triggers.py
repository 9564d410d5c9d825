"""Triggers in a module of a site's Dag bundle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent


class Answers(BaseTrigger):
    """Fires with the answer of an HTTP server once it answers."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.Answers", {"url": self.url}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        import httpx

        async with httpx.AsyncClient() as client:
            while True:
                try:
                    answer = await client.get(self.url)
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.2)
        yield TriggerEvent(answer.text)


class Appears(BaseTrigger):
    """Fires with the content of a file once it exists."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.Appears", {"path": self.path}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        self.log.info("waiting for %s", self.path)
        while not Path(self.path).exists():
            await asyncio.sleep(0.1)
        yield TriggerEvent({"read": Path(self.path).read_text()})

    async def on_kill(self) -> None:
        Path(self.path).with_suffix(".killed").touch()


class EndsWhenItAppears(Appears):
    """Ends its task without resuming it when the file exists."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.EndsWhenItAppears", {"path": self.path}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        async for event in super().run():
            yield TaskSuccessEvent(xcoms={"return_value": event.payload})


class Asks(BaseTrigger):
    """Fires with the login of a connection."""

    def __init__(self, conn: str) -> None:
        super().__init__()
        self.conn = conn

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.Asks", {"conn": self.conn}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from airflow.sdk import BaseHook

        yield TriggerEvent((await BaseHook.aget_connection(self.conn)).login)


def settings_seen() -> dict[str, Any]:
    """Return the settings of central's configuration that this process has."""
    from datetime import datetime

    from airflow.sdk import timezone
    from airflow.sdk.configuration import conf

    return {
        "midnight": timezone.convert_to_utc(datetime(2026, 1, 1)).isoformat(),
        "base_url": conf.get("api", "base_url"),
        "on_kill_timeout": conf.get("triggerer", "on_kill_timeout"),
    }


class TellsSettings(BaseTrigger):
    """Fires at once with the settings of its process."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.TellsSettings", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield TriggerEvent(settings_seen())
