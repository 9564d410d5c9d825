"""Hears of new work: Postgres LISTEN on the event loop, no thread; elsewhere nothing (the dispatcher then looks by itself)."""

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
"""How long after NOTIFY arrived it is relied upon. The heartbeat comes every 10 s (`duties.ROUND_EVERY_S`), a second late at
most. On a busy machine it may be later: that costs some statements and nothing else."""


class Listener:
    """Keeps one connection listening; *heard* is called on the event loop with each topic. Connects anew after a failure."""

    def __init__(self, pool: LedgerPool, heard: Callable[[Topic], None]) -> None:
        self._pool = pool
        self._heard = heard
        self._connection: Any = None
        self._heard_at: float | None = None

    @property
    def is_listening(self) -> bool:
        return self._connection is not None

    @property
    def certain_s(self) -> float:
        """For how long from now on NOTIFY is relied upon, in seconds; 0 if it has not arrived lately.

        A pooler takes LISTEN and passes on nothing; a dead connection looks like a quiet one.
        """
        return 0.0 if self._heard_at is None else max(0.0, self._heard_at + CERTAIN_FOR_S - time.monotonic())

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
                    log.warning("Lost the connection that listens for new jobs (%s); looking by itself meanwhile", error)
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
                    self._heard_at = time.monotonic()
                for topic in Topic:
                    if topic.value in payloads:
                        self._heard(topic)
            except Exception as error:
                loop.remove_reader(descriptor)
                if not broken.done():
                    broken.set_exception(error)

        loop.add_reader(descriptor, readable)
        self._connection = (driver, descriptor)
        for topic in Topic:
            self._heard(topic)  # whatever was said while nobody listened
        return broken

    async def _drop(self) -> None:
        if self._connection is None:
            return
        driver, descriptor = self._connection
        self._connection = self._heard_at = None
        asyncio.get_running_loop().remove_reader(descriptor)
        driver.close()


def _connect() -> Any:
    """Return a driver's connection of our own, out of the pool's hands, in autocommit, listening."""
    connection = compat.engine().connect().execution_options(isolation_level="AUTOCOMMIT")
    connection.execute(text(f"LISTEN {CHANNEL}"))
    connection.detach()
    driver: Any = connection.connection.dbapi_connection
    driver.autocommit = True  # closing SQLAlchemy's wrapper must not matter any more
    return driver


def _drain(driver: Any) -> set[str]:
    """Return the payloads that have arrived. Knows psycopg2 (`poll`, `notifies`) and psycopg 3 (`pgconn`)."""
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
