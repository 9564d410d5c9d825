"""Ends what is open for long (parked polls, streams) when the server is told to end: it would wait for them otherwise."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from typing import Any


def on_shutdown_signal(close: Callable[[], None]) -> Callable[[], None]:
    """Have *close* called on the event loop at the first signal. Chains to whatever handler is there (uvicorn's).

    Return what puts the old handlers back; whoever came last goes first.
    """
    loop = asyncio.get_running_loop()
    old: dict[signal.Signals, Any] = {}

    def chained(number: int, frame: Any) -> None:
        loop.call_soon_threadsafe(close)
        previous = old[signal.Signals(number)]
        if callable(previous):
            previous(number, frame)

    if threading.current_thread() is threading.main_thread():  # elsewhere nobody can (an embedded server)
        for number in (signal.SIGTERM, signal.SIGINT):
            old[number] = signal.getsignal(number)
            signal.signal(number, chained)

    def restore() -> None:
        for number, handler in old.items():
            signal.signal(number, handler)

    return restore
