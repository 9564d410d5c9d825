"""The current trigger: a context variable, set in each trigger's asyncio task and copied into the threads that it uses."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from airflow_remote_worker.local import frames

DEFAULT_THREADS = 32
"""Threads of the loop's default executor (`asyncio.to_thread`); Python's own number on a machine with many cores."""


@dataclass(eq=False)
class Running:
    """One trigger in this host."""

    lease: frames.LeaseName
    ti: Any = None
    """The task instance as the Task SDK models it; None until the workload has been read."""
    stop_after_s: float = 0.0
    contact_at: float = 0.0
    task: asyncio.Task[None] | None = None
    is_cancelled: bool = False
    runs_on_kill: bool = False
    """Whether a user caused the cancellation."""
    has_fired: bool = False
    denials: set[str] = field(default_factory=set)
    """Central's reasons for denials, each logged once."""


current: contextvars.ContextVar[Running | None] = contextvars.ContextVar("current_trigger", default=None)


class ContextThreads(ThreadPoolExecutor):
    """Threads that run each call in the context of its caller, which `loop.run_in_executor` does not copy."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(contextvars.copy_context().run, fn, *args, **kwargs)
