"""Detects a trigger that blocks the event loop, and with it all triggers of the host: reports which trigger, and its stack.

Airflow's triggerer can report only that something blocks. A separate thread can find the running task and the loop's stack.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LEAST_THRESHOLD_S = 0.5
"""Airflow's own default is 0.2 s, which a busy machine exceeds without any trigger's fault."""
DEEPEST = 20
"""How many of the innermost stack frames are shown."""


@dataclass(frozen=True)
class Block:
    """A period in which the loop was blocked."""

    seconds: float
    task: Any
    """The asyncio task that ran, or None."""
    stack: str


class Watchdog:
    """A thread that watches the loop of the thread that creates it. Always finds blocks of twice the threshold."""

    def __init__(self, threshold_s: float, report: Callable[[Block], None]) -> None:
        """*report* is called in the loop, once it runs again."""
        self._threshold_s = max(LEAST_THRESHOLD_S, threshold_s)
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._ended = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(self._threshold_s):
            turned = threading.Event()
            asked_at = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(turned.set)
                if turned.wait(self._threshold_s):
                    continue
                task, stack = self._look()
                # At once, and in the host's own log: a loop that stays blocked can't report anything.
                print(f"trigger host: the event loop is blocked by {task!r}:\n{stack}", file=sys.__stderr__, flush=True)
                turned.wait()
                self._loop.call_soon_threadsafe(self._report, Block(time.monotonic() - asked_at, task, stack))
            except RuntimeError:  # the loop is closed
                return

    def _look(self) -> tuple[Any, str]:
        frame = sys._current_frames().get(self._thread_id)
        task = asyncio.current_task(self._loop)
        return task, "".join(traceback.format_stack(frame)[-DEEPEST:]) if frame else ""
