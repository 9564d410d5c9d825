"""Notices a trigger that blocks the event loop, and with it all triggers of the host: says which, and where it stands.

Airflow's triggerer can tell only that something blocks. A thread can see more: the task that runs and the stack of its thread.
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
"""Airflow's own default is 0.2 s, which a busy machine reaches without anyone's fault."""
DEEPEST = 20
"""Frames that are shown: the innermost."""


@dataclass(frozen=True)
class Block:
    """The loop did not turn."""

    seconds: float
    task: Any
    """The asyncio task that ran; None if none did."""
    stack: str


class Watchdog:
    """A thread beside the loop of the thread that makes it. Blocks of twice the threshold are always found."""

    def __init__(self, threshold_s: float, report: Callable[[Block], None]) -> None:
        """*report* is called in the loop, once it turns again."""
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
                # At once, and in the host's own log: a loop that never turns again can't report anything.
                print(f"trigger host: the event loop is blocked by {task!r}:\n{stack}", file=sys.__stderr__, flush=True)
                turned.wait()
                self._loop.call_soon_threadsafe(self._report, Block(time.monotonic() - asked_at, task, stack))
            except RuntimeError:  # the loop is closed
                return

    def _look(self) -> tuple[Any, str]:
        frame = sys._current_frames().get(self._thread_id)
        task = asyncio.current_task(self._loop)
        return task, "".join(traceback.format_stack(frame)[-DEEPEST:]) if frame else ""
