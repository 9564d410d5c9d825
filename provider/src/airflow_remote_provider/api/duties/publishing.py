"""Publishes local Dag bundles from the API server, in a thread: on one host nobody has to start a publisher.

One process of the fleet publishes each bundle. Scanning gives way to the event loop, whose requests wait for Python's lock.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from sqlalchemy.orm import Session

from airflow_remote_provider import compat
from airflow_remote_provider.api.reports import faults
from airflow_remote_provider.ledger import publishing
from airflow_remote_provider.packing.publish import Publisher
from airflow_remote_provider.packing.scan import Limits
from airflow_remote_provider.packing.watch import EVERY_S, Rounds
from airflow_remote_provider.settings import Settings
from airflow_remote_provider.stores.blobs.opened import BlobStores

T = TypeVar("T")

ACTION = "publish Dag bundles"
SOONEST_S = 1.0
"""How soon a round follows another one on request. Jobs may ask several times a second."""
NOTED_EVERY_S = 60.0
MOST_ROUNDS = 3
"""Rounds that follow each other at once if users ask for more meanwhile."""
UNPUBLISHED = (
    "no process publishes it: the API servers can't read its files. To send its code to workers, run `airflow remote publish "
    "--watch` where the files are, beside the Dag processor. Until then its jobs run with the code that their workers have"
)
WORKED_S = 0.001
"""How long to work before giving way. Another thread waits for Python's lock up to 5 ms (`sys.setswitchinterval`), unless it is
released before."""


class Publishing:
    """The duty of `[remote] publish = auto`."""

    def __init__(self, settings: Settings, *, every_s: float = EVERY_S) -> None:
        self._settings = settings
        self._every_s = every_s
        self._rounds: Rounds | None = None
        self._requested = asyncio.Event()
        self._is_stopping = threading.Event()
        self._configured: frozenset[str] = frozenset()
        self._noted_at = 0.0

    async def run(self) -> None:
        """Publish until cancelled. Return at once if this is switched off."""
        if self._settings.publish == "off":
            return
        try:
            while True:
                try:
                    await in_daemon_thread(self._run_round)
                except Exception as error:  # also a bug in this package: it must not end the API server
                    faults.report_failure(ACTION, error)
                else:
                    faults.report_success(ACTION)
                await self._pause()
        finally:
            self._is_stopping.set()
            if self._rounds is not None:
                leaving = in_daemon_thread(self._leave)
                with suppress(Exception):  # else another process waits until the duty expires
                    await asyncio.wait_for(asyncio.shield(leaving), LEAVE_S)

    def note_request(self) -> None:
        """Begin the next round soon: a user or a job waits for it. Called on the event loop."""
        self._requested.set()

    async def _pause(self) -> None:
        await asyncio.sleep(min(SOONEST_S, self._every_s))
        # Not wait_for: before Python 3.12 it may swallow the cancellation.
        tick = asyncio.get_running_loop().call_later(self._every_s - SOONEST_S, self._requested.set)
        try:
            await self._requested.wait()
        finally:
            tick.cancel()
        self._requested.clear()

    def _run_round(self) -> None:
        with suppress(Stopping):
            if self._rounds is None:  # here, off the event loop: it imports the classes of bundles
                self._rounds = self._open()
            for _ in range(MOST_ROUNDS):
                self._rounds.run()
                if not self._rounds.has_news:
                    break
            if time.monotonic() >= self._noted_at:
                self._noted_at = time.monotonic() + NOTED_EVERY_S
                compat.in_transaction(self._note_unpublished)

    def _note_unpublished(self, session: Session) -> None:
        """Note which of Airflow's bundles nobody publishes, so that their jobs run with the code that their workers have."""
        names = {bundle.name for bundle in compat.known_bundles(session)} | self._configured
        publishing.note_unpublished(session, names - publishing.publishing_now(session, names), UNPUBLISHED)

    def _open(self) -> Rounds:
        sources = compat.bundle_sources()
        self._configured = frozenset(sources)
        options = self._settings
        publisher = Publisher(
            sources,
            BlobStores(options.blob_store).newest,
            Limits(options.tree_files, options.tree_bytes, options.blob_bytes),
            who=f"API server {socket.gethostname()} (process {os.getpid()})",
            has_to_match=True,
            pause=GiveWay(self._is_stopping),
            in_transaction=compat.in_transaction,
        )
        local = [source for source in sources.values() if source.is_local]
        names = lambda: [source.name for source in local if source.is_readable()]  # noqa: E731
        return Rounds(publisher, names, in_transaction=compat.in_transaction)

    def _leave(self) -> None:
        if self._rounds is not None:
            self._rounds.leave()


LEAVE_S = 2.0
"""How long the end of the process waits to give its duties up."""


class Stopping(BaseException):
    """The process ends. Not an `Exception`: no handler of a bundle's failure may take it for one."""


class GiveWay:
    """Called often by the thread that works: releases Python's lock now and then, and ends the work when the process ends."""

    def __init__(self, is_stopping: threading.Event) -> None:
        self._is_stopping = is_stopping
        self._since = time.monotonic()

    def __call__(self) -> None:
        if self._is_stopping.is_set():
            raise Stopping
        worked_s = time.monotonic() - self._since
        if worked_s >= WORKED_S:
            time.sleep(min(worked_s / 4, 0.01))
            self._since = time.monotonic()


async def in_daemon_thread(work: Callable[[], T]) -> T:
    """Return the result of *work*, run in a thread of its own, which does not delay the end of the process."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def finish(outcome: Callable[[], None]) -> None:
        if not done.done():
            outcome()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            failure = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
            outcome: Callable[[], None] = lambda: done.set_exception(failure)  # noqa: E731
        else:
            outcome = lambda: done.set_result(result)  # noqa: E731
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(finish, outcome)

    threading.Thread(target=run, name="remote-publish", daemon=True).start()
    return await done
