"""Ends long requests (parked polls, streams) when the server gets a shutdown signal; it would wait for them otherwise."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from typing import Any


def on_shutdown_signal(close: Callable[[], None]) -> Callable[[], None]:
    """Install signal handlers that call *close* on the event loop and then the previous handler (uvicorn's).

    Return a function that restores the previous handlers. Call these functions in reverse order of the installations.
    """
    loop = asyncio.get_running_loop()
    old: dict[signal.Signals, Any] = {}

    def chained(number: int, frame: Any) -> None:
        loop.call_soon_threadsafe(close)
        previous = old[signal.Signals(number)]
        if callable(previous):
            previous(number, frame)

    if threading.current_thread() is threading.main_thread():  # other threads can't (an embedded server)
        for number in (signal.SIGTERM, signal.SIGINT):
            old[number] = signal.getsignal(number)
            signal.signal(number, chained)

    def restore() -> None:
        for number, handler in old.items():
            signal.signal(number, handler)

    return restore
