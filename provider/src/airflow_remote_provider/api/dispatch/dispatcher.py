"""Answers parked polls with offers of queued jobs, stops, and changed intents, runtimes and releases. One per API process.

It sleeps until it is woken by a NOTIFY, a new parked poll or a tick. Where the database can't notify, the tick is short and runs
only while a poll waits. Where it can, but notifications are not known to arrive, the tick asks by one statement.
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
from airflow_remote_provider.api.planned_runtimes import PlannedRuntimes
from airflow_remote_provider.api.pool import LedgerPool
from airflow_remote_provider.api.problems import Refusal
from airflow_remote_provider.api.registry import Registry, revoked, suspended
from airflow_remote_provider.api.reports import faults
from airflow_remote_provider.definitions.needs import suits
from airflow_remote_provider.ledger import changes, dispatch, leases
from airflow_remote_provider.ledger.capacity import Claimant
from airflow_remote_provider.ledger.dispatch import Claimed, Demand
from airflow_remote_provider.ledger.fence import WorkerLease
from airflow_remote_provider.ledger.wakeup import Topic
from airflow_remote_provider.ledger.workers import WorkerRecord
from airflow_remote_provider.settings import Settings

SAFETY_TICK_S = 10.0
"""With notifications: how often to query the database anyway (delayed re-offers; a lost NOTIFY)."""

LOOK_EVERY_S = 1.7
"""While it is uncertain whether notifications arrive (a connection pooler may drop them): how often to query for changes
(:func:`..ledger.changes.read_snapshot`). A revocation must end open polls within 2 s."""

RETRY_S = 5.0

WORKER_TICK_S = 1.5
"""Without notifications: how often to query for changed workers. A revocation must end open polls within 2 s."""

CLAIMANTS = 64
"""The most polls that take part in one claim; limits its locks."""


class Dispatcher:
    """Owns the parked polls and the listener for notifications."""

    def __init__(
        self,
        pool: LedgerPool,
        registry: Registry,
        runtimes: PlannedRuntimes,
        settings: Settings,
        *,
        on_work: Callable[[], None],
        on_stop: Callable[[], None],
        on_publish: Callable[[], None] = lambda: None,
    ) -> None:
        self.room = WaitingRoom()
        self._on_work = on_work
        self._on_stop = on_stop
        self._on_publish = on_publish
        self._pool = pool
        self._registry = registry
        registry.on_change = self._answer_changed
        self._runtimes = runtimes
        runtimes.on_change = self._answer_planned
        self._settings = settings
        self._listener = Listener(pool, self._on_notification)
        self._woken = asyncio.Event()
        self._topics: set[Topic] = set()
        self._left: list[Demand] = []
        """Waiting jobs that the last query found and no poll could take."""
        self._unseen = True
        """Whether jobs may wait that no query has seen, because no parked poll wanted any."""
        self._quiet_s = settings.dispatch_poll_seconds

    def _on_notification(self, topic: Topic) -> None:
        """Handle a notification of any process. For queued jobs, the duties must sweep, too."""
        if topic is Topic.PUBLISH:
            self._on_publish()
            return
        if topic is Topic.QUEUED:
            self._on_work()
        self.wake(topic)

    def wake(self, topic: Topic) -> None:
        """Have the loop handle *topic* soon. Called on the event loop."""
        if topic is Topic.STOP:
            self._on_stop()
        self._topics.add(topic)
        self._woken.set()

    def park(self, parked: Parked) -> None:
        """Park a poll. Query the database only if a waiting job may fit it."""
        self.room.park(parked)
        if _wants_work(parked) and (self._unseen or any(self._fits(parked, need) for need in self._left)):
            self.wake(Topic.QUEUED)
        elif not self._listener.is_listening:
            self._woken.set()

    def note_free_slots(self, worker_id: str) -> None:
        """Offer again to a worker whose job has ended in the ledger: its poll may have been passed over before that."""
        parked = self.room.get(worker_id)
        if parked is not None and any(self._fits(parked, need) for need in self._left):
            self.wake(Topic.QUEUED)

    async def listen(self) -> None:
        await self._listener.run()

    async def run(self) -> None:
        """Dispatch until cancelled. A database failure is reported, and the query is repeated later."""
        loop = asyncio.get_running_loop()
        workers_at = full_at = looked_at = loop.time()
        while True:
            # Not wait_for: before Python 3.12 it may swallow the cancellation.
            tick = loop.call_later(self._tick_s(looked_at), self._woken.set)
            try:
                await self._woken.wait()
            finally:
                tick.cancel()
            self._woken.clear()
            topics, self._topics = self._topics, set()
            now = loop.time()
            polling = not self._listener.is_listening
            try:
                if self._is_uncertain:
                    workers_at = now  # the query covers them
                    if now - looked_at >= LOOK_EVERY_S:
                        looked_at = now
                        topics |= await self._look_for_changes()
                        topics.add(Topic.RUNTIME)
                        full_at = full_at if self._left else now  # else nothing waits, or it is offered below
                if Topic.WORKER in topics or now - workers_at >= (WORKER_TICK_S if polling else SAFETY_TICK_S):
                    workers_at = now
                    topics.add(Topic.RUNTIME)
                    await self._refresh_workers()
                if Topic.RUNTIME in topics:
                    await self._runtimes.refresh()
                if Topic.STOP in topics or polling:
                    await self._send_stops()
                if Topic.QUEUED in topics or polling or now - full_at >= SAFETY_TICK_S:
                    full_at = now
                    await self._offer()
            except (SQLAlchemyError, OSError) as error:
                faults.report_failure("offer jobs", error)
                self._topics |= topics
                await asyncio.sleep(RETRY_S)
                self._woken.set()
            else:
                faults.report_success("offer jobs")

    def _tick_s(self, looked_at: float) -> float:
        """Return how long to sleep. Without notifications, longer and longer while nothing happens, and briefly while jobs run,
        so that their stops arrive in time.
        """
        if self._listener.is_listening:
            if self._is_uncertain:
                return max(0.0, looked_at + LOOK_EVERY_S - asyncio.get_running_loop().time())
            return min(SAFETY_TICK_S, self._listener.certain_s)
        shortest = self._settings.dispatch_poll_seconds
        busy = bool(self._left) or any(parked.stoppable for parked in self.room)
        self._quiet_s = shortest if busy else min(self._quiet_s * 1.5, WORKER_TICK_S)
        return self._quiet_s if len(self.room) else WORKER_TICK_S

    @property
    def _is_uncertain(self) -> bool:
        """Whether this process listens for notifications, but does not know that they arrive."""
        return self._listener.is_listening and self._listener.certain_s <= 0

    async def _look_for_changes(self) -> set[Topic]:
        """Query for changes; return the topics that notifications would have had."""
        seen = await self._pool.call(changes.read_snapshot)
        found: set[Topic] = set()
        if self._registry.is_behind(seen.newest_change):
            found.add(Topic.WORKER)
        if seen.jobs_stop:
            self._on_stop()
            found.add(Topic.STOP)
        if not seen.jobs_wait:
            self._left = []
        elif not self._left:  # else they may be the ones that no parked poll could take
            self._on_work()
            found.add(Topic.QUEUED)
        return found

    # Offers

    async def _offer(self) -> None:
        """Claim jobs and hand them out until no more fit."""
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
            patience = timedelta(seconds=self._settings.publish_patience_seconds)
            plan = self._runtimes.plan
            claimed = await self._pool.call(
                dispatch.claim, claimants, self._left, deadline=deadline, patience=patience, plan=plan
            )
            if not claimed:  # the ledger knows that they have fewer free slots than they say; try the next ones
                passed_over.update(claimant.worker_id for claimant in claimants)
                continue
            await self._hand_out(claimed)

    def _claimants(self, wanted: list[Demand], passed_over: set[str]) -> list[Claimant]:
        """Choose the polls to lock for this demand: eligible ones, most free slots first, as many as the demand needs."""
        chosen: dict[str, Claimant] = {}
        willing = (parked for parked in self.room if _wants_work(parked) and parked.worker.id not in passed_over)
        waiting = sorted(willing, key=lambda parked: -parked.free_slots)
        for need in wanted:
            open_jobs = need.jobs
            for parked in waiting:
                if open_jobs <= 0 or len(chosen) >= CLAIMANTS:
                    break
                if self._fits(parked, need):
                    worker = parked.worker
                    chosen[worker.id] = Claimant(worker.id, worker.session_id or "", parked.free_slots, parked.free_triggers)
                    open_jobs -= parked.free_triggers if need.triggers else max(1, parked.free_slots // max(1, need.smallest))
        return list(chosen.values())

    def _fits(self, parked: Parked, need: Demand) -> bool:
        worker = parked.worker
        return (
            _wants_work(parked)
            and need.queue in worker.queues
            and need.team == worker.team
            and (parked.free_triggers > 0 if need.triggers else parked.free_slots >= max(1, need.smallest))
            and suits(worker.labels, worker.bundles, needed=need.labels, bundle=need.bundle)
            and self._runtimes.serves(worker.host, need.queue)
        )

    async def _hand_out(self, claimed: list[Claimed]) -> None:
        """Answer the poll of each chosen worker; requeue the jobs whose poll is gone at once."""
        by_worker: dict[str, list[Claimed]] = {}
        for job in claimed:
            by_worker.setdefault(job.worker_id, []).append(job)
        missed: list[WorkerLease] = []
        for worker_id, jobs in by_worker.items():
            parked = self.room.get(worker_id)
            if parked is None or not parked.reply(News(offers=[self._as_offer(job) for job in jobs])):
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
            tree=job.tree,
            runtime=job.runtime,
        )

    # Stops and intents

    async def _send_stops(self) -> None:
        holding = [parked for parked in self.room if parked.stoppable]
        if not holding:
            return
        stops = await self._pool.call(leases.stops_for, [parked.worker.id for parked in holding])
        for parked in holding:
            news = [stop for stop in stops.get(parked.worker.id, ()) if (stop.job_id, stop.epoch) in parked.stoppable]
            if news:
                parked.reply(News(stops=news))

    async def _refresh_workers(self) -> None:
        await self._registry.refresh()

    def _answer_changed(self, record: WorkerRecord) -> None:
        parked = self.room.get(record.id)
        if parked is None:
            return
        if record.revoked:
            parked.reply(revoked(record.name))
        elif record.suspended:
            parked.reply(suspended(record.name))
        elif record.session_id != parked.worker.session_id:
            parked.reply(session_taken())
        elif record.intent.revision > parked.intent_revision:
            parked.reply(News(intent=record.intent))
        else:
            serves_others, parked.worker = record.serves != parked.worker.serves, record
            self._send_planned(parked)
            if serves_others:
                self.wake(Topic.QUEUED)

    # Runtimes and releases

    def _answer_planned(self) -> None:
        """Answer the polls of workers that are to have other runtimes or another release; jobs may run elsewhere now."""
        for parked in self.room:
            self._send_planned(parked)
        self.wake(Topic.QUEUED)

    def _send_planned(self, parked: Parked) -> None:
        runtimes, release = self._runtimes.news_for(parked.worker, parked.runtimes_revision, parked.release_serial)
        if runtimes is not None or release is not None:
            parked.reply(News(runtimes=runtimes, release=release))


SESSION_TAKEN = (
    "this is not this worker's current session: the worker was started again, or central forgot the session; open a new one"
)


def session_taken() -> Refusal:
    return Refusal(ProblemCode.SESSION_TAKEN, SESSION_TAKEN)


def _wants_work(parked: Parked) -> bool:
    serves = parked.worker.intent.mode is IntentMode.SERVE and not parked.worker.unfit
    return serves and (parked.free_slots > 0 or parked.free_triggers > 0)
