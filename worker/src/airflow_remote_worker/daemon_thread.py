"""Runs a call that may never return, such as `stat` on an unreachable network drive, in a daemon thread of its own.

Such a call blocks neither the daemon's event loop nor its exit. The threads of `anyio.to_thread` would block the exit: they are
not daemon threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


async def run_in_daemon_thread(call: Callable[[], T], *, within_s: float, name: str) -> T:
    """Return what *call* returns, or raise what it raises.

    Raises:
        TimeoutError: the call has not returned within *within_s* seconds; its thread stays behind until it returns.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(set_outcome: Callable[[Any], None], outcome: Any) -> None:
        if not future.done():
            set_outcome(outcome)

    def run() -> None:
        set_outcome: Callable[[Any], None]
        try:
            set_outcome, outcome = future.set_result, call()
        except BaseException as error:  # raised in the caller
            set_outcome, outcome = future.set_exception, error  # type: ignore[assignment]
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the caller
            loop.call_soon_threadsafe(settle, set_outcome, outcome)

    threading.Thread(target=run, name=name, daemon=True).start()
    with anyio.fail_after(within_s):
        return await future
