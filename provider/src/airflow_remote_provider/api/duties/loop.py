"""The periodic work: stores presence, finds stops, expires offers, marks jobs of silent workers as lost, purges history.

Every API process stores the contacts of its workers; the process that holds the duty does the rest.
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
from airflow_remote_provider.api.duties.alerts import EVERY_S as ALERTS_EVERY_S
from airflow_remote_provider.api.duties.alerts import Alerts
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
    ghosts,
    held_runtimes,
    history,
    incidents,
    lost_jobs,
    retention,
    site_runtimes,
    workers,
)
from airflow_remote_provider.settings import Settings
from airflow_remote_provider.stores.worker_logs import WorkerLogStore

log = logging.getLogger(__name__)

TICK_S = 1.0
"""A user's kill must reach the worker within 1.5 s."""
ROUND_EVERY_S = 10.0
"""How often to store presence, renew the duty and look for open jobs, in one transaction: all that an idle fleet costs here."""
DUTY_LASTS = timedelta(seconds=BREAK_S)
"""Two rounds may fail before another process takes over."""
PURGE_EVERY_S = 3600.0
INTENTS_EVERY_S = 15.0
"""How late a pause may end."""
GHOSTS_EVERY_S = 30.0
MISSING_GRACE = timedelta(seconds=15)
"""How long a running job may be missing from its worker's lists before it is marked as lost."""
WAITS_EVERY_S = 30.0
"""How often to repair waits that an API process stored only in part before it ended."""
RETRY_S = 5.0
RECONNECT_S = 55.0
"""How long a worker may need to return, beyond its poll: it gives up a silent poll 15 s late, waits up to 30 s, then connects
for up to 10 s (its own defaults)."""


SWEEP = "sweep (stop, expire, offer again)"


class Duties:
    """Runs the sweeps. While no job is open, it only queries for open jobs, every few seconds."""

    def __init__(self, pool: LedgerPool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings
        self._worker_logs = WorkerLogStore(settings.worker_log_bytes)
        self._holder = str(uuid.uuid4())
        self._contacts: set[str] = set()
        """Workers with a contact since the last round."""
        self._due: dict[str, float] = {}
        self._busy = False
        self._judged: tuple[object, ...] | None = None
        """The state by which the runtimes of workers were judged last."""
        silent_after = timedelta(seconds=settings.silent_after_seconds)
        self._gauges = Gauges(silent_after=silent_after) if compat.metrics_are_on() else None
        self._recorder = Recorder(silent_after=silent_after)
        self.alerts = Alerts(pool, settings)
        self._observation = ObservationWindow(settings.reconnect_seconds, monotonic=time.monotonic)
        self._ghosts_after = timedelta(seconds=settings.ephemeral_silent_seconds)
        self._offer_deadline = timedelta(seconds=settings.offer_deadline_seconds)

    def mark_busy(self) -> None:
        """Sweep every tick from now on, until no job is open."""
        self._busy = True

    def note_contact(self, worker_id: str) -> None:
        """Note a contact; it is stored with all others of this round in one statement."""
        self._contacts.add(worker_id)

    async def run(self) -> None:
        """Sweep until cancelled. A failure is reported once and the work is retried."""
        if self._settings.reconnect_seconds < self._settings.poll_seconds + RECONNECT_S:
            log.warning(
                "[remote] reconnect_seconds = %g is less than poll_seconds + %g: after a downtime of central, jobs may be marked "
                "as lost although their workers are still reconnecting; raise it",
                self._settings.reconnect_seconds,
                RECONNECT_S,
            )
        on_duty = False
        judged = False
        while True:
            try:
                if not judged:
                    await self._pool.call(site_runtimes.judge_again)
                    judged = True
                if self._is_due("round", ROUND_EVERY_S):
                    on_duty = await self._run_round()
                    if not on_duty:
                        self._recorder.forget()
                        self.alerts.stand_down()
                if on_duty and self._busy:
                    await self._sweep()
                if on_duty and self._gauges and self._is_due("gauges", metrics.GAUGES_EVERY_S):
                    await self._pool.call(self._gauges.report)
                if on_duty and self._is_due("history", RECORDED_EVERY_S):
                    await self._record()
                if on_duty and self._is_due("alerts", ALERTS_EVERY_S):
                    await self._find_incidents()
                if on_duty and self._is_due("intents", INTENTS_EVERY_S):
                    await self._pool.call(workers.end_intents)
                if on_duty and self._observation.has_lasted and self._is_due("ghosts", GHOSTS_EVERY_S):
                    await self._pool.call(ghosts.remove_ghosts, silent_for=self._ghosts_after)
                if on_duty and self._is_due("runtimes", ROUND_EVERY_S):
                    self._judged = await self._pool.call(held_runtimes.judge_again, self._judged)
                if on_duty and self._is_due("waits", WAITS_EVERY_S):
                    await self._pool.call(deferrals.repair)
                if on_duty and self._is_due("purge", PURGE_EVERY_S):
                    await self._pool.call(deferrals.purge)
                    await self._pool.blocking(compat.forget_unused_triggers)
                    await self._pool.call(retention.purge, older_than=timedelta(days=self._settings.history_days))
                    await self._pool.call(audit.purge, older_than=timedelta(days=self._settings.audit_days))
                    await self._pool.call(incidents.purge, older_than=timedelta(days=self._settings.history_days))
                    await self._pool.call(self._purge_history)
                    await self._pool.call(self._purge_worker_logs)
            except (SQLAlchemyError, OSError) as error:
                faults.report_failure(SWEEP, error)
                on_duty = False
                if getattr(error, "connection_invalidated", True):  # not merely a lock that was held for too long
                    self._observation.end()
                    self.alerts.stand_down()
                self._due.pop("round", None)
                await asyncio.sleep(RETRY_S)
            except Exception as error:
                # A bug in this package, or in the parts of Airflow that it calls. It must not end the API server; the other
                # duties go on.
                faults.report_failure(SWEEP, error)
                await asyncio.sleep(RETRY_S)
            else:
                faults.report_success(SWEEP)
            await asyncio.sleep(TICK_S)

    async def _sweep(self) -> None:
        await self._pool.call(ended_tasks.stop_ended)
        if self._is_due("offers", 2.0):
            rules = expired_offers.OfferRules(
                self._settings.offer_attempts, timedelta(seconds=self._settings.reoffer_delay_seconds)
            )
            await self._pool.call(self._expire_offers, rules)
        if self._is_due("silent", 10.0):
            await self._pool.call(self._mark_lost)
            await self._pool.call(callbacks.stop_ended)

    async def _record(self) -> None:
        """Record this minute's history. A failure must not delay the other duties."""
        try:
            await self._pool.call(self._recorder.record)
        except SQLAlchemyError as error:
            faults.report_failure("write the history of this minute", error)
        else:
            faults.report_success("write the history of this minute")

    async def _find_incidents(self) -> None:
        """Look for incidents. A failure must not delay the other duties."""
        try:
            if await self._pool.call(self.alerts.look):
                self.alerts.wake()
        except Exception as error:
            self.alerts.stand_down()
            faults.report_failure("look for incidents", error)
        else:
            faults.report_success("look for incidents")

    def _purge_worker_logs(self, session: Session) -> None:
        here = self._worker_logs.worker_ids()  # first, so that workers that join meanwhile are not among them
        if here:
            self._worker_logs.remove(here - retention.known_workers(session))

    def _purge_history(self, session: Session) -> None:
        history.purge(session, database_now(session))

    def _expire_offers(self, session: Session, rules: expired_offers.OfferRules) -> None:
        self._check_clock(session, database_now(session))
        expired_offers.expire_offers(session, rules)

    def _mark_lost(self, session: Session) -> None:
        self._check_clock(session, database_now(session))
        lost_jobs.lose_missing(session, grace=MISSING_GRACE)
        if self._observation.has_lasted:
            lost_jobs.lose_silent(session)

    def _check_clock(self, session: Session, now: datetime) -> None:
        """Rebase all deadlines if the database's clock was set, or was not observed, since the last look."""
        if not self._observation.look(now):
            lost_jobs.rebase_times(session, offer_deadline=self._offer_deadline)

    async def _run_round(self) -> bool:
        """Store contacts, take or keep the duty, look for open jobs. Return whether this process has the duty."""
        contacts, self._contacts = self._contacts, set()
        self._busy = False  # mark_busy during the round counts
        try:
            on_duty, is_open = await self._pool.call(self._in_one_transaction, sorted(contacts))
        except BaseException:  # cancelled, too: the next round stores them
            self._contacts |= contacts
            raise
        self._busy = self._busy or is_open
        return on_duty

    def _in_one_transaction(self, session: Session, contacts: list[str]) -> tuple[bool, bool]:
        if contacts:
            workers.note_contact(session, contacts)
        on_duty = duty.take_duty(session, "sweep", self._holder, lasts=DUTY_LASTS)
        if not on_duty:
            self._observation.end()
            return False, False
        now, is_open = duty.check_open_jobs(session)
        self._check_clock(session, now)
        return True, is_open

    def _is_due(self, what: str, every_s: float) -> bool:
        now = asyncio.get_running_loop().time()
        due = self._due.get(what, now)
        if now < due:
            return False
        self._due[what] = max(now, due + every_s)  # not from now on, so that delays do not add up
        return True
