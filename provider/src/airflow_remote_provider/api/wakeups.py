"""Hears of new work: Postgres LISTEN on the event loop, no thread; elsewhere nothing (the dispatcher then looks by itself)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy import text

from airflow_remote_provider import compat
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.ledger.wakeup import CHANNEL, Topic

log = logging.getLogger(__name__)

RECONNECT_S = 5.0


class Listener:
    """Keeps one connection listening; *heard* is called on the event loop with each topic. Connects anew after a failure."""

    def __init__(self, pool: LedgerPool, heard: Callable[[Topic], None]) -> None:
        self._pool = pool
        self._heard = heard
        self._connection: Any = None

    @property
    def is_listening(self) -> bool:
        return self._connection is not None

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
                for topic in _drain(driver):
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
        self._connection = None
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


def _drain(driver: Any) -> list[Topic]:
    """Return the topics that have arrived. Knows psycopg2 (`poll`, `notifies`) and psycopg 3 (`pgconn`)."""
    if hasattr(driver, "poll"):
        driver.poll()
        payloads = [notify.payload for notify in driver.notifies]
        del driver.notifies[:]
    else:
        driver.pgconn.consume_input()
        payloads = []
        while (notify := driver.pgconn.notifies()) is not None:
            payloads.append(notify.extra.decode())
    known = {topic.value for topic in Topic}
    return [Topic(payload) for payload in dict.fromkeys(payloads) if payload in known]
