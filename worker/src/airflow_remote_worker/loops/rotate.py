"""Replaces this worker's credential well before it expires, or when an administrator requests it.

The new credential is on disk before it is used; the old one stays valid until then. After any failure it is requested again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio
from airflow_remote_protocol.messages import Intent, Session

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.errors import Outdated, Refused, Rewind, Superseded, Unreachable
from airflow_remote_worker.link.attempts import Attempts
from airflow_remote_worker.link.client import Link

log = logging.getLogger(__name__)

EARLIEST, WIDTH = 0.7, 0.2
"""The fraction of its life after which a credential is replaced, and the fraction over which a fleet that joined at once is
spread."""
SPREAD_S = 600.0
"""Replacements that are overdue (after an outage or an upgrade) are overdue for many workers at once: they spread over this."""
LOOK_EVERY_S = 3600.0
"""How soon a suspension of the machine is noticed."""

Store = Callable[[str, str | None], None]
"""Stores the credential and the previous one durably on disk; raises OSError."""


class RotateLoop:
    """Requests, stores, uses and confirms a new credential, in this order."""

    def __init__(self, link: Link, clock: Clock, store: Store) -> None:
        self._link = link
        self._clock = clock
        self._store = store
        self._due: float | None = None
        """When to request one (monotonic); None: never."""
        self._news = anyio.Event()
        self._attempts = Attempts(link, clock, floor_s=1.0, ceiling_s=300.0)
        self._chance = clock.chance()

    def on_session(self, session: Session) -> None:
        """Schedule the replacement by the life and age of the credential that central reports."""
        self._plan(life_s=session.credential_life_s, age_s=session.credential_age_s)
        self.on_intent(session.intent)

    def on_intent(self, intent: Intent) -> None:
        """Replace the credential now if *intent* requests it."""
        if intent.rotate:
            self.rotate_now()

    def rotate_now(self) -> None:
        """Replace the credential now."""
        self._due = self._clock.monotonic()
        self._news.set()

    async def run(self) -> None:
        """Replace the credential when due, until cancelled. If central refuses the worker, the poll loop ends the daemon."""
        while True:
            await self._until_due()
            self._due = None
            try:
                await self._replace()
            except (Refused, Outdated) as error:
                log.warning("the credential can't be replaced: %s", error)
            except (Unreachable, Superseded, Rewind) as error:
                log.debug("the credential was not replaced yet: %s", error)
                await self._try_again(error)
            except OSError as error:
                log.error("the new credential can't be stored (%s); keeping the old one, retrying", error)
                await self._try_again(error)

    async def _replace(self) -> None:
        got = await self._link.next_credential()
        self._store(got.credential, self._link.credential)
        self._link.use_credential(got.credential)
        await self._link.ping()  # its first use makes it the only valid one
        self._store(got.credential, None)
        self._link.forget_previous()
        self._attempts.reset()
        self._chance = self._clock.chance()
        self._plan(life_s=got.life_s, age_s=0.0)
        log.info("this worker has a new credential")

    async def _try_again(self, error: Exception) -> None:
        await self._attempts.wait_after(error)
        self.rotate_now()

    def _plan(self, *, life_s: float, age_s: float) -> None:
        if life_s <= 0:
            self._due = None
        else:
            due_s = life_s * (EARLIEST + WIDTH * self._chance) - age_s
            if due_s <= 0:
                rest_s = life_s - age_s  # below 0: issued before credentials expired
                due_s = min(SPREAD_S, 0.05 * life_s, *([rest_s / 2] if rest_s > 0 else [])) * self._chance
            self._due = self._clock.monotonic() + due_s
        self._news.set()

    async def _until_due(self) -> None:
        while True:
            now = self._clock.monotonic()
            if self._due is not None and self._due <= now:
                return
            self._news = anyio.Event()
            with anyio.move_on_after(LOOK_EVERY_S if self._due is None else min(LOOK_EVERY_S, self._due - now)):
                await self._news.wait()
