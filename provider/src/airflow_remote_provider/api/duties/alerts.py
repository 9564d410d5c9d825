"""Finds incidents and delivers notices of them, in the API process on duty. Its loop of duties calls :meth:`Alerts.look`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from sqlalchemy.orm import Session

from airflow_remote_provider.api.duties.channels import Channel, NotDelivered, channels_of
from airflow_remote_provider.api.duties.observation import ObservationWindow
from airflow_remote_provider.api.duties.publishing import in_daemon_thread
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.reports import faults
from airflow_remote_provider.ledger import conditions, incidents
from airflow_remote_provider.ledger.conditions import OF_THE_REST, OF_WORKERS, Limits
from airflow_remote_provider.ledger.incident_rules import IncidentKind, IncidentRules
from airflow_remote_provider.ledger.incidents import Batch
from airflow_remote_provider.settings import BadSetting, Settings

EVERY_S = 10.0
"""How often to look for silent and flagged workers. With `alert_silent_seconds`, the storing of contacts every 10 s and this, a
silent worker is an incident within two minutes."""
REST_EVERY_S = 60.0
RETURN_S = 55.0
"""How long a worker may need to return, beyond its poll; as in :mod:`.loop`."""
DELIVER_EVERY_S = 5.0
"""How often to look for notices while any wait."""
LONGEST_DELIVERY_S = 60.0
CONFIGURE = "use the channels for incidents"
DELIVER = "deliver incidents"


class Alerts:
    """The incidents of the fleet, in one API process."""

    def __init__(
        self,
        pool: LedgerPool,
        settings: Settings,
        *,
        channels: Callable[[Settings], list[Channel]] = channels_of,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._limits = Limits(
            silent=timedelta(seconds=settings.alert_silent_seconds),
            waiting=timedelta(seconds=settings.alert_waiting_seconds),
            disk_bytes=settings.alert_disk_mb * 1e6,
            credential_life=timedelta(days=settings.credential_days),
            presence=timedelta(seconds=settings.silent_after_seconds),
        )
        self._monotonic = monotonic
        self._observation = ObservationWindow(settings.poll_seconds + RETURN_S, monotonic)
        self._rules = IncidentRules()
        self._rest_at = -REST_EVERY_S
        self._channels: dict[str, Channel] = {}
        self._hung: dict[str, asyncio.Task[None]] = {}
        """By name of the channel: deliveries that take too long. Their channel waits until they end."""
        self._waiting = asyncio.Event()
        self._on_duty = False
        try:
            self._channels = {one.name: one for one in channels(settings)}
        except BadSetting as error:  # incidents are found and shown without channels
            faults.report_failure(CONFIGURE, error)

    def stand_down(self) -> None:
        """Note that another process is on duty, or that the database does not answer."""
        self._on_duty = False
        self._observation.end()

    def look(self, session: Session) -> bool:
        """Find conditions, and store what begins and recovers. Return whether notices wait."""
        is_first, self._on_duty = not self._on_duty, True
        now_s = self._monotonic()
        now, is_any = conditions.is_any(session, self._limits)  # all that an idle fleet costs here
        self._observation.look(now)
        looked_at: frozenset[IncidentKind] = OF_WORKERS
        found = conditions.find_of_workers(session, self._limits) if is_any else []
        if is_rest := now_s - self._rest_at >= REST_EVERY_S:
            self._rest_at = now_s
            looked_at |= OF_THE_REST
            found += conditions.find_the_rest(session, self._limits)
        decision = self._rules.decide(
            found,
            incidents.known(session) if is_any else {},
            looked_at=looked_at,
            now_s=now_s,
            may_begin=self._observation.has_lasted,
        )
        changed = incidents.apply(session, decision, channels=self._channels, note_seen=is_rest)
        return changed or is_first  # the last process on duty may have left some

    def wake(self) -> None:
        """Deliver soon."""
        self._waiting.set()

    async def deliver(self) -> None:
        """Deliver notices until cancelled. A failure is reported once, and the delivery is repeated."""
        while True:
            await self._waiting.wait()
            try:
                if not self._on_duty or not await self.deliver_once():
                    self._waiting.clear()
            except Exception as error:  # also a bug in this package: it must not end the API server
                faults.report_failure(DELIVER, error)
            else:
                faults.report_success(DELIVER)
            await asyncio.sleep(DELIVER_EVERY_S)

    async def deliver_once(self) -> bool:
        """Deliver what is due on every channel at once. Return whether notices still wait."""
        self._hung = {name: task for name, task in self._hung.items() if not task.done()}
        names = [name for name in self._channels if name not in self._hung]
        batches, _ = await self._pool.call(incidents.next_batches, [*self._channels])
        await asyncio.gather(*(self._deliver(batch) for batch in batches if batch.channel in names))
        _, waits = await self._pool.call(incidents.next_batches, [*self._channels])
        return waits

    async def _deliver(self, batch: Batch) -> None:
        """Deliver one batch, and note whether that worked. Raises only what the database raises."""
        channel = self._channels[batch.channel]
        work = in_daemon_thread(partial(channel.deliver, batch.events))
        task = asyncio.create_task(work, name=f"remote-deliver-{batch.channel}")
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # else asyncio logs that nobody read it
        done, _ = await asyncio.wait({task}, timeout=LONGEST_DELIVERY_S)
        action = f"deliver incidents by {batch.channel}"
        if not done:
            self._hung[batch.channel] = task
            trouble = f"no end after {LONGEST_DELIVERY_S:g} s"
        elif (error := task.exception()) is None:
            faults.report_success(action)
            await self._pool.call(incidents.note_delivered, batch)
            return
        else:
            # The text of a notifier's exception may contain a secret; Airflow's own log has it, masked.
            trouble = str(error) if isinstance(error, NotDelivered) else type(error).__name__
        faults.report_failure(action, ConnectionError(trouble))
        await self._pool.call(incidents.note_failed, batch, trouble)
