"""Turns queued jobs into offers for parked polls, and central's wishes into their answers. One per API process.

It sleeps until something is worth a look: a NOTIFY, a poll that was parked, or a tick. Where the database can't notify, the tick
is short and runs only while a poll waits; where it can, but nothing is known to arrive, it is a look of one statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import msgspec
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import IntentMode, JobKind, Offer
from sqlalchemy.exc import SQLAlchemyError

from airflow_remote_provider.api.dispatch.waiting_room import News, Parked, WaitingRoom
from airflow_remote_provider.api.dispatch.wakeups import Listener
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.api.registry import Registry, revoked, suspended
from airflow_remote_provider.api.reports import faults
from airflow_remote_provider.definitions.needs import suits
from airflow_remote_provider.ledger import changes, dispatch, leases
from airflow_remote_provider.ledger.dispatch import Claimant, Claimed, Demand
from airflow_remote_provider.ledger.fence import WorkerLease
from airflow_remote_provider.ledger.wakeup import Topic
from airflow_remote_provider.ledger.workers import WorkerRecord
from airflow_remote_provider.settings import Settings

SAFETY_TICK_S = 10.0
"""With notifications: how often to look all the same (delayed re-offers; a NOTIFY that was lost)."""

LOOK_EVERY_S = 1.7
"""While it is not certain that notifications arrive (a pooler may swallow every one): how often to look by one statement
(:func:`..ledger.changes.look`). A revocation must end open polls within 2 s."""

RETRY_S = 5.0

WORKER_TICK_S = 1.5
"""Without notifications: how often to look for changed workers. A revocation must end open polls within 2 s."""

CLAIMANTS = 64
"""Most polls that take part in one claim; bounds its locks."""


class Dispatcher:
    """Owns the waiting room and what wakes it."""

    def __init__(
        self,
        pool: LedgerPool,
        registry: Registry,
        settings: Settings,
        *,
        on_work: Callable[[], None],
        on_stop: Callable[[], None],
    ) -> None:
        self.room = WaitingRoom()
        self._on_work = on_work
        self._on_stop = on_stop
        self._pool = pool
        self._registry = registry
        registry.on_change = self._answer_changed
        self._settings = settings
        self._listener = Listener(pool, self._hear)
        self._woken = asyncio.Event()
        self._topics: set[Topic] = set()
        self._left: list[Demand] = []
        """What the last look found waiting and could not hand out."""
        self._unseen = True
        """Something may wait that no look has seen: nobody was parked who wanted it."""
        self._quiet_s = settings.dispatch_poll_seconds

    def _hear(self, topic: Topic) -> None:
        """Some process has said so: jobs may be open that this one knows nothing of."""
        if topic is Topic.QUEUED:
            self._on_work()
        self.wake(topic)

    def wake(self, topic: Topic) -> None:
        """Look soon. Called on the event loop."""
        if topic is Topic.STOP:
            self._on_stop()
        self._topics.add(topic)
        self._woken.set()

    def park(self, parked: Parked) -> None:
        """Let a poll wait. It is worth a look at the database only if jobs may wait that would fit it."""
        self.room.park(parked)
        if _wants_work(parked) and (self._unseen or any(_fits(parked, need) for need in self._left)):
            self.wake(Topic.QUEUED)
        elif not self._listener.is_listening:
            self._woken.set()

    def freed(self, worker_id: str) -> None:
        """The ledger knows now that this worker has room. Its poll may have said so before, and been passed over."""
        parked = self.room.get(worker_id)
        if parked is not None and any(_fits(parked, need) for need in self._left):
            self.wake(Topic.QUEUED)

    async def listen(self) -> None:
        await self._listener.run()

    async def run(self) -> None:
        """Dispatch until cancelled. A database that fails is reported and asked again later."""
        loop = asyncio.get_running_loop()
        workers_at = full_at = looked_at = loop.time()
        while True:
            tick = loop.call_later(
                self._tick_s(looked_at), self._woken.set
            )  # not wait_for: before Python 3.12 it may swallow our end
            try:
                await self._woken.wait()
            finally:
                tick.cancel()
            self._woken.clear()
            topics, self._topics = self._topics, set()
            now = loop.time()
            polling = not self._listener.is_listening
            try:
                if self._is_unsure:
                    workers_at = now  # the look sees their changes
                    if now - looked_at >= LOOK_EVERY_S:
                        looked_at = now
                        topics |= await self._look()
                        full_at = full_at if self._left else now  # else it knows that nothing waits, or goes on to offer it
                if Topic.WORKER in topics or now - workers_at >= (WORKER_TICK_S if polling else SAFETY_TICK_S):
                    workers_at = now
                    await self._spread_workers()
                if Topic.STOP in topics or polling:
                    await self._spread_stops()
                if Topic.QUEUED in topics or polling or now - full_at >= SAFETY_TICK_S:
                    full_at = now
                    await self._offer()
            except (SQLAlchemyError, OSError) as error:
                faults.occurred("offer jobs", error)
                self._topics |= topics
                await asyncio.sleep(RETRY_S)
                self._woken.set()
            else:
                faults.over("offer jobs")

    def _tick_s(self, looked_at: float) -> float:
        """Return how long to sleep. Without notifications: the longer the less happens, but briefly while jobs run (stops)."""
        if self._listener.is_listening:
            if self._is_unsure:
                return max(0.0, looked_at + LOOK_EVERY_S - asyncio.get_running_loop().time())
            return min(SAFETY_TICK_S, self._listener.certain_s)
        shortest = self._settings.dispatch_poll_seconds
        busy = bool(self._left) or any(parked.stoppable for parked in self.room)
        self._quiet_s = shortest if busy else min(self._quiet_s * 1.5, WORKER_TICK_S)
        return self._quiet_s if len(self.room) else WORKER_TICK_S

    @property
    def _is_unsure(self) -> bool:
        """Whether this process relies on notifications, but can't know that they arrive."""
        return self._listener.is_listening and self._listener.certain_s <= 0

    async def _look(self) -> set[Topic]:
        """Return what notifications would have told, had they arrived."""
        seen = await self._pool.call(changes.look)
        found: set[Topic] = set()
        if self._registry.is_behind(seen.newest_change):
            found.add(Topic.WORKER)
        if seen.jobs_stop:
            self._on_stop()
            found.add(Topic.STOP)
        if not seen.jobs_wait:
            self._left = []
        elif not self._left:  # else they may be the same that no parked poll fitted
            self._on_work()
            found.add(Topic.QUEUED)
        return found

    # Offers

    async def _offer(self) -> None:
        """Claim and hand out until nothing more fits."""
        self._unseen = True
        passed_over: set[str] = set()
        while any(_wants_work(parked) for parked in self.room):
            self._unseen = False
            self._left = await self._pool.call(dispatch.demand)
            if self._left:
                self._on_work()
            claimants = self._claimants(self._left, passed_over)
            if not claimants:
                return
            deadline = timedelta(seconds=self._settings.offer_deadline_seconds)
            claimed = await self._pool.call(dispatch.claim, claimants, self._left, deadline=deadline)
            if not claimed:  # the ledger knows that they have less room than they say; the next ones may have it
                passed_over.update(claimant.worker_id for claimant in claimants)
                continue
            await self._hand_out(claimed)

    def _claimants(self, wanted: list[Demand], passed_over: set[str]) -> list[Claimant]:
        """Choose the polls worth locking for this demand: eligible ones, most free slots first, as many as the demand needs."""
        chosen: dict[str, Claimant] = {}
        willing = (parked for parked in self.room if _wants_work(parked) and parked.worker.id not in passed_over)
        waiting = sorted(willing, key=lambda parked: -parked.free_slots)
        for need in wanted:
            open_jobs = need.jobs
            for parked in waiting:
                if open_jobs <= 0 or len(chosen) >= CLAIMANTS:
                    break
                if _fits(parked, need):
                    worker = parked.worker
                    chosen[worker.id] = Claimant(worker.id, worker.session_id or "", parked.free_slots, parked.free_triggers)
                    open_jobs -= parked.free_triggers if need.triggers else max(1, parked.free_slots // max(1, need.smallest))
        return list(chosen.values())

    async def _hand_out(self, claimed: list[Claimed]) -> None:
        """Answer each winner's poll; what meets nobody any more goes back to the queue at once."""
        by_worker: dict[str, list[Claimed]] = {}
        for job in claimed:
            by_worker.setdefault(job.worker_id, []).append(job)
        missed: list[WorkerLease] = []
        for worker_id, jobs in by_worker.items():
            parked = self.room.get(worker_id)
            if parked is None or not parked.tell(News(offers=[self._as_offer(job) for job in jobs])):
                missed += [WorkerLease(worker_id, job.job_id, job.epoch) for job in jobs]
        if missed:
            await self._pool.call(leases.withdraw, missed)

    def _as_offer(self, job: Claimed) -> Offer:
        margin = self._settings.stop_margin_seconds
        return Offer(
            job_id=job.job_id,
            epoch=job.epoch,
            kind=JobKind(job.kind),
            queue=job.queue,
            slots=job.slots,
            deadline_s=self._settings.offer_deadline_seconds,
            stop_after_s=max(job.lost_after_s - margin, job.lost_after_s / 2),
            workload=msgspec.Raw(job.workload.encode()),
        )

    # Stops and wishes

    async def _spread_stops(self) -> None:
        holding = [parked for parked in self.room if parked.stoppable]
        if not holding:
            return
        stops = await self._pool.call(leases.stops_for, [parked.worker.id for parked in holding])
        for parked in holding:
            news = [stop for stop in stops.get(parked.worker.id, ()) if (stop.job_id, stop.epoch) in parked.stoppable]
            if news:
                parked.tell(News(stops=news))

    async def _spread_workers(self) -> None:
        await self._registry.refresh()

    def _answer_changed(self, record: WorkerRecord) -> None:
        parked = self.room.get(record.id)
        if parked is None:
            return
        if record.revoked:
            parked.tell(revoked(record.name))
        elif record.suspended:
            parked.tell(suspended(record.name))
        elif record.session_id != parked.worker.session_id:
            parked.tell(session_taken())
        elif record.intent.revision > parked.intent_revision:
            parked.tell(News(intent=record.intent))
        else:
            serves_others, parked.worker = record.serves != parked.worker.serves, record
            if serves_others:
                self.wake(Topic.QUEUED)


SESSION_TAKEN = "this is not this worker's session (any more): another start has it, or central forgot it; open a new one"


def session_taken() -> Refusal:
    return Refusal(ProblemCode.SESSION_TAKEN, SESSION_TAKEN)


def _fits(parked: Parked, need: Demand) -> bool:
    worker = parked.worker
    return (
        _wants_work(parked)
        and need.queue in worker.queues
        and need.team == worker.team
        and (parked.free_triggers > 0 if need.triggers else parked.free_slots >= max(1, need.smallest))
        and suits(worker.labels, worker.bundles, needed=need.labels, bundle=need.bundle)
    )


def _wants_work(parked: Parked) -> bool:
    serves = parked.worker.intent.mode is IntentMode.SERVE and not parked.worker.unfit
    return serves and (parked.free_slots > 0 or parked.free_triggers > 0)
