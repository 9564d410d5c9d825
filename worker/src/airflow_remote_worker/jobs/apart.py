"""One call in a thread of its own, for what may never return: a look at a network drive that has gone.

The daemon's loop goes on meanwhile, and so does its end: the thread is a daemon thread, which `anyio.to_thread`'s are not.
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
        TimeoutError: nothing came of it; its thread stays behind until the call returns.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(how: Callable[[Any], None], what: Any) -> None:
        if not future.done():
            how(what)

    def run() -> None:
        how: Callable[[Any], None]
        try:
            how, what = future.set_result, call()
        except BaseException as error:  # handed to the one who waits
            how, what = future.set_exception, error  # type: ignore[assignment]
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(settle, how, what)

    threading.Thread(target=run, name=name, daemon=True).start()
    with anyio.fail_after(within_s):
        return await future
