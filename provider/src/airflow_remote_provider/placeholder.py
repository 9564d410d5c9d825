"""The trigger class that stands in Airflow's table for every trigger that runs at a site.

Airflow shows a deferred task by decoding its trigger's row, so the row must hold nothing that a worker sent. This class is
harmless wherever it runs: it takes no arguments and never fires.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_remote_provider.placeholder_names import PLACEHOLDER


class RunsAtSite(BaseTrigger):  # type: ignore[misc]
    """Waits for ever; the Remote Worker that hosts the real trigger resumes the task."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores: this class, no arguments."""
        return PLACEHOLDER, {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Never yield."""
        await asyncio.Event().wait()
        yield TriggerEvent(None)
