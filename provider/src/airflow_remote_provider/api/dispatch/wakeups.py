"""Receives notifications of new work: by Postgres LISTEN on the event loop, without a thread. Elsewhere the dispatcher polls."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import text

from airflow_remote_provider import compat
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.ledger.wakeup import CHANNEL, Topic

log = logging.getLogger(__name__)

RECONNECT_S = 5.0

CERTAIN_FOR_S = 13.0
"""How long notifications are relied upon after one arrived. The heartbeat is sent every 10 s (`duties.ROUND_EVERY_S`), at most a
second late. On a busy machine it may be later: that costs some statements and nothing else."""


class Listener:
    """Keeps one connection listening; calls *notify* on the event loop with each topic. Reconnects after a failure."""

    def __init__(self, pool: LedgerPool, notify: Callable[[Topic], None]) -> None:
        self._pool = pool
        self._notify = notify
        self._connection: Any = None
        self._notified_at: float | None = None

    @property
    def is_listening(self) -> bool:
        return self._connection is not None

    @property
    def certain_s(self) -> float:
        """For how many seconds from now notifications are relied upon; 0 if none arrived recently.

        A connection pooler may accept LISTEN and pass nothing on; a dead connection looks like a quiet one.
        """
        return 0.0 if self._notified_at is None else max(0.0, self._notified_at + CERTAIN_FOR_S - time.monotonic())

    async def run(self) -> None:
        """Listen until cancelled. Returns at once where the database can't notify."""
        if compat.engine().dialect.name != "postgresql":
            return
        try:
            while True:
                try:
                    broken = await self._listen()
                    await broken
                except Exception as error:
                    log.warning("Lost the connection that listens for new jobs (%s); polling the database meanwhile", error)
                await self._drop()
                await asyncio.sleep(RECONNECT_S)
        finally:
            await self._drop()

    async def _listen(self) -> asyncio.Future[None]:
        """Start listening; the future fails when the connection does."""
        driver = await self._pool.blocking(_connect)
        loop = asyncio.get_running_loop()
        broken: asyncio.Future[None] = loop.create_future()
        descriptor = driver.fileno()

        def readable() -> None:
            try:
                payloads = _drain(driver)
                if payloads:
                    self._notified_at = time.monotonic()
                for topic in Topic:
                    if topic.value in payloads:
                        self._notify(topic)
            except Exception as error:
                loop.remove_reader(descriptor)
                if not broken.done():
                    broken.set_exception(error)

        loop.add_reader(descriptor, readable)
        self._connection = (driver, descriptor)
        for topic in Topic:
            self._notify(topic)  # for notifications that were sent before this connection listened
        return broken

    async def _drop(self) -> None:
        if self._connection is None:
            return
        driver, descriptor = self._connection
        self._connection = self._notified_at = None
        asyncio.get_running_loop().remove_reader(descriptor)
        driver.close()


def _connect() -> Any:
    """Return a listening driver connection in autocommit, detached from the pool."""
    connection = compat.engine().connect().execution_options(isolation_level="AUTOCOMMIT")
    connection.execute(text(f"LISTEN {CHANNEL}"))
    connection.detach()
    driver: Any = connection.connection.dbapi_connection
    driver.autocommit = True  # so that closing SQLAlchemy's wrapper has no effect
    return driver


def _drain(driver: Any) -> set[str]:
    """Return the payloads that have arrived. Supports psycopg2 (`poll`, `notifies`) and psycopg 3 (`pgconn`)."""
    if hasattr(driver, "poll"):
        driver.poll()
        payloads = [notify.payload for notify in driver.notifies]
        del driver.notifies[:]
    else:
        driver.pgconn.consume_input()
        payloads = []
        while (notify := driver.pgconn.notifies()) is not None:
            payloads.append(notify.extra.decode())
    return set(payloads)
