"""Reports how triggers ended (event, hand-back, could not start) to central: at once, and repeatedly until acknowledged.

The oldest first, a few at a time: after an outage a thousand may be pending.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio
import anyio.abc
import msgspec
from airflow_remote_protocol.messages import Decline, EventKind, Report, TriggerEvent

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.errors import Refused, Superseded
from airflow_remote_worker.link.attempts import RETRIED, Attempts
from airflow_remote_worker.link.client import Link
from airflow_remote_worker.triggers.trigger import Trigger

log = logging.getLogger(__name__)

AT_ONCE = 8


class EndTriggersLoop:
    """*on_delivered* is called when central has acknowledged the ending or does not accept it."""

    def __init__(self, link: Link, clock: Clock, on_delivered: Callable[[Trigger], None]) -> None:
        self._link = link
        self._clock = clock
        self._on_delivered = on_delivered
        self._slots = anyio.CapacityLimiter(AT_ONCE)
        self._tasks: anyio.abc.TaskGroup | None = None

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run all deliveries, until cancelled."""
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            await anyio.sleep_forever()

    def report_end(self, trigger: Trigger) -> None:
        """Report the ending of this trigger to central."""
        assert self._tasks is not None, "the loop that reports how triggers ended is not running"
        self._tasks.start_soon(self._report_end, trigger, name=f"end of trigger {trigger.lease}")

    async def _report_end(self, trigger: Trigger) -> None:
        async with self._slots:
            await self._deliver(trigger)
        self._on_delivered(trigger)

    async def _deliver(self, trigger: Trigger) -> None:
        attempts = Attempts(self._link, self._clock, floor_s=0.2)
        while trigger.ending is not None:  # None once it is superseded
            try:
                await self._send(trigger)
            except Superseded as error:
                log.info("trigger %s: its end is not needed any more (%s)", trigger.lease, error)
                return
            except Refused as error:
                if error.concerns_one_request and not self._replace(trigger, str(error)):
                    log.error("trigger %s: central refuses its end for good: %s", trigger.lease, error)
                    return
                if not error.concerns_one_request:
                    await attempts.wait_after(error)
            except RETRIED as error:
                await attempts.wait_after(error)
            else:
                return

    async def _send(self, trigger: Trigger) -> None:
        ending = trigger.ending
        if isinstance(ending, TriggerEvent):
            await self._link.event(trigger.lease, ending)
        elif isinstance(ending, Decline):
            await self._link.decline(trigger.lease, ending.reason)
        elif isinstance(ending, Report):
            # Central has its whole log by now (`triggers/keeper.py`).
            await self._link.report(trigger.lease, msgspec.structs.replace(ending, log_size=trigger.log.base))

    def _replace(self, trigger: Trigger, reason: str) -> bool:
        """Replace a refused event by a failure, so that the task does not wait for ever; return False if it is one already."""
        ending = trigger.ending
        if not isinstance(ending, TriggerEvent) or ending.kind is EventKind.FAILED:
            return False
        text = f"central refuses the event of the trigger: {reason}"
        log.error("trigger %s: %s", trigger.lease, text)
        trigger.ending = TriggerEvent(kind=EventKind.FAILED, traceback=[text[:2000]])
        return True
