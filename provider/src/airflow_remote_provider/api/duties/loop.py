"""What time asks for: presence written down, stops found, offers expired, silent workers' jobs lost, history purged.

Every API process notes who it heard; the rest is done by the one that holds the duty.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from datetime import datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from airflow_remote_provider import compat, metrics
from airflow_remote_provider.api.duties.gauges import Gauges
from airflow_remote_provider.api.duties.observation import BREAK_S, ObservationWindow
from airflow_remote_provider.api.duties.recorder import EVERY_S as RECORDED_EVERY_S
from airflow_remote_provider.api.duties.recorder import Recorder
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.reports import faults
from airflow_remote_provider.compat import database_now
from airflow_remote_provider.ledger import (
    audit,
    callbacks,
    deferrals,
    duty,
    ended_tasks,
    expired_offers,
    history,
    lost_jobs,
    retention,
    runtimes,
    workers,
)
from airflow_remote_provider.settings import Settings
from airflow_remote_provider.stores.worker_logs import WorkerLogStore

log = logging.getLogger(__name__)

TICK_S = 1.0
"""A person's kill must reach the worker within 1.5 s."""
ROUND_EVERY_S = 10.0
"""Presence, the duty, and whether there is anything to watch: one transaction, all that an idle fleet costs here."""
DUTY_LASTS = timedelta(seconds=BREAK_S)
"""Two rounds may fail before another process takes over."""
PURGE_EVERY_S = 3600.0
WISHES_EVERY_S = 15.0
"""How late a pause may end."""
MISSING_GRACE = timedelta(seconds=15)
"""How long a running job may be missing from what its worker lists before it is lost."""
WAITS_EVERY_S = 30.0
"""How late a wait is mended that an API process left half noted when it ended."""
RETRY_S = 5.0
RECONNECT_S = 55.0
"""What a worker may need beyond its poll until it is back: it gives up a silent poll 15 s late, waits up to 30 s, then connects
for up to 10 s (its own defaults)."""


SWEEP = "sweep (stop, expire, offer again)"


class Duties:
    """Runs the sweeps. While no job is open it asks for nothing but that, every few seconds."""

    def __init__(self, pool: LedgerPool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings
        self._own_logs = WorkerLogStore(settings.worker_log_bytes)
        self._holder = str(uuid.uuid4())
        self._heard: set[str] = set()
        self._due: dict[str, float] = {}
        self._busy = False
        silent_after = timedelta(seconds=settings.silent_after_seconds)
        self._gauges = Gauges(silent_after=silent_after) if compat.metrics_are_on() else None
        self._recorder = Recorder(silent_after=silent_after)
        self._observation = ObservationWindow(settings.reconnect_seconds, monotonic=time.monotonic)
        self._offer_deadline = timedelta(seconds=settings.offer_deadline_seconds)

    def mark_busy(self) -> None:
        """Jobs are on the move: sweep every tick from now on, until none is open any more."""
        self._busy = True

    def heard(self, worker_id: str) -> None:
        """Note a contact; written with all others of this round in one statement."""
        self._heard.add(worker_id)

    async def run(self) -> None:
        """Sweep until cancelled. What fails is reported once and tried again."""
        if self._settings.reconnect_seconds < self._settings.poll_seconds + RECONNECT_S:
            log.warning(
                "[remote] reconnect_seconds = %g is less than poll_seconds + %g: after a downtime of central jobs may be called "
                "lost whose workers are still on their way back; raise it",
                self._settings.reconnect_seconds,
                RECONNECT_S,
            )
        on_duty = False
        judged = False
        while True:
            try:
                if not judged:
                    await self._pool.call(runtimes.judge_again)
                    judged = True
                if self._is_due("round", ROUND_EVERY_S):
                    on_duty = await self._round()
                    if not on_duty:
                        self._recorder.forget()
                if on_duty and self._busy:
                    await self._sweep()
                if on_duty and self._gauges and self._is_due("gauges", metrics.EVERY_S):
                    await self._pool.call(self._gauges.tell)
                if on_duty and self._is_due("history", RECORDED_EVERY_S):
                    await self._record()
                if on_duty and self._is_due("wishes", WISHES_EVERY_S):
                    await self._pool.call(workers.end_wishes)
                if on_duty and self._is_due("waits", WAITS_EVERY_S):
                    await self._pool.call(deferrals.rescue)
                if on_duty and self._is_due("purge", PURGE_EVERY_S):
                    await self._pool.call(deferrals.purge)
                    await self._pool.blocking(compat.forget_unused_triggers)
                    await self._pool.call(retention.purge, older_than=timedelta(days=self._settings.history_days))
                    await self._pool.call(audit.purge, older_than=timedelta(days=self._settings.audit_days))
                    await self._pool.call(self._purge_history)
                    await self._pool.call(self._purge_own_logs)
            except (SQLAlchemyError, OSError) as error:
                faults.occurred(SWEEP, error)
                on_duty = False
                if getattr(error, "connection_invalidated", True):  # not merely a lock that somebody held for too long
                    self._observation.end()
                self._due.pop("round", None)
                await asyncio.sleep(RETRY_S)
            except Exception as error:
                # A mistake of ours, or of what we call in Airflow. It must not end the API server; the other duties go on.
                faults.occurred(SWEEP, error)
                await asyncio.sleep(RETRY_S)
            else:
                faults.over(SWEEP)
            await asyncio.sleep(TICK_S)

    async def _sweep(self) -> None:
        await self._pool.call(ended_tasks.stop_ended)
        if self._is_due("offers", 2.0):
            rules = expired_offers.OfferRules(
                self._settings.offer_attempts, timedelta(seconds=self._settings.reoffer_delay_seconds)
            )
            await self._pool.call(self._expire_offers, rules)
        if self._is_due("silent", 10.0):
            await self._pool.call(self._lose)
            await self._pool.call(callbacks.stop_over)

    async def _record(self) -> None:
        """What goes wrong here is no reason to watch less closely."""
        try:
            await self._pool.call(self._recorder.record)
        except SQLAlchemyError as error:
            faults.occurred("write the history of this minute", error)
        else:
            faults.over("write the history of this minute")

    def _purge_own_logs(self, session: Session) -> None:
        here = self._own_logs.worker_ids()  # first: whoever joins meanwhile is not among them
        if here:
            self._own_logs.remove(here - retention.known_workers(session))

    def _purge_history(self, session: Session) -> None:
        history.purge(session, database_now(session))

    def _expire_offers(self, session: Session, rules: expired_offers.OfferRules) -> None:
        self._check_clock(session, database_now(session))
        expired_offers.expire_offers(session, rules)

    def _lose(self, session: Session) -> None:
        self._check_clock(session, database_now(session))
        lost_jobs.lose_missing(session, grace=MISSING_GRACE)
        if self._observation.has_lasted:
            lost_jobs.lose_silent(session)

    def _check_clock(self, session: Session, now: datetime) -> None:
        """Before anything is judged by the database's clock: is it the clock we know?"""
        if not self._observation.look(now):
            lost_jobs.rebase(session, offer_deadline=self._offer_deadline)

    async def _round(self) -> bool:
        """Write down who was heard, take or keep the duty, look whether jobs are open. Return whether the duty is ours."""
        heard, self._heard = self._heard, set()
        self._busy = False  # what stirs meanwhile counts
        try:
            on_duty, is_open = await self._pool.call(self._in_one_transaction, sorted(heard))
        except BaseException:
            self._heard |= heard
            raise
        self._busy = self._busy or is_open
        return on_duty

    def _in_one_transaction(self, session: Session, heard: list[str]) -> tuple[bool, bool]:
        if heard:
            workers.seen(session, heard)
        on_duty = duty.take_duty(session, "sweep", self._holder, lasts=DUTY_LASTS)
        if not on_duty:
            self._observation.end()
            return False, False
        now, is_open = duty.look(session)
        self._check_clock(session, now)
        return True, is_open

    def _is_due(self, what: str, every_s: float) -> bool:
        now = asyncio.get_running_loop().time()
        due = self._due.get(what, now)
        if now < due:
            return False
        self._due[what] = max(now, due + every_s)  # not from now on: what is late once shall not be later each time
        return True
