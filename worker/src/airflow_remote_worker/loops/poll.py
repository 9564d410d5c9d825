"""Polls central for work: opens the session, keeps one poll open, receives offers, stops and intents.

:mod:`..session` decides; this loop sends, receives, waits and passes the decisions on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import anyio
import anyio.abc
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import (
    Intent,
    IntentMode,
    Offer,
    Poll,
    PollReply,
    Runtimes,
    Session,
    SessionRequest,
    Stop,
    TaskSettings,
    WantedRelease,
)

from airflow_remote_worker.clock import Clock
from airflow_remote_worker.config import PollConfig
from airflow_remote_worker.errors import Outdated, Refused, Rewind, SessionTaken, Superseded, Unreachable
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.lifecycle import EXIT_REFUSED, Lifecycle
from airflow_remote_worker.link.attempts import Attempts
from airflow_remote_worker.link.client import Link
from airflow_remote_worker.loops.poll_limit import PollLimit
from airflow_remote_worker.session import Actions, WorkerSession

log = logging.getLogger(__name__)

LINGER_S = 3.0
"""How long an older poll may still be answered after a newer one was sent; central normally ends it at once."""
GATHER_S = 0.2
"""Slots that become free within this time cause one new poll, unless the worker was full."""
REOPEN_PAUSE_S = 10.0
"""A lost session is reopened at once, but not more often than this: two copies of a worker must not keep central busy."""
SILENT_AFTER_S = 60.0
"""An outage of central is logged once, when it has lasted this long."""


class Keeper(Protocol):
    """Keeps the jobs and triggers. Implemented by :class:`~..triggers.router.Router`."""

    def take(self, offer: Offer) -> None: ...

    def stop(self, stop: Stop) -> None: ...

    def supersede(self, lease: Lease) -> None: ...


class PollLoop:
    """The worker's side of sessions and polls."""

    def __init__(
        self, *, link: Link, session: WorkerSession, keeper: Keeper, lifecycle: Lifecycle, clock: Clock, config: PollConfig
    ) -> None:
        self.on_session: list[Callable[[Session], None]] = []
        self.on_intent: list[Callable[[Intent], None]] = []
        self.on_task_settings: list[Callable[[TaskSettings], None]] = []
        """Called before the offers of the same reply are taken."""
        self.on_runtimes: list[Callable[[Runtimes], None]] = []
        """Called after *on_task_settings*, before the offers of the same reply are taken."""
        self.on_release: list[Callable[[WantedRelease | None], None]] = []
        self.on_answer: list[Callable[[], None]] = []
        """Called after each answered poll."""
        self.waits = True
        """Whether central may park a poll until there is something for this worker."""
        self.on_contact: list[Callable[[], None]] = []
        """Called after each successful exchange, and when *trouble* changes."""
        self.trouble = ""
        """Why central can't be reached; empty while it can be."""
        self._link = link
        self._session = session
        self._keeper = keeper
        self._lifecycle = lifecycle
        self._clock = clock
        self._config = config
        self._poll_s = config.max_wait_s
        self._limit = PollLimit()
        self._attempts = Attempts(link, clock, floor_s=1.0, ceiling_s=config.backoff_ceiling_s)
        self._was_connected = False
        self._intent_logged = False
        self._silent_since: float | None = None
        self._outage_logged = False
        self._reopened_at: float | None = None
        self._changed = anyio.Event()
        self._listing = Poll(free_slots=0, intent_revision=-1, wait_s=0)
        self._tasks: anyio.abc.TaskGroup | None = None

    def refresh(self) -> None:
        """Send a new poll: the state that the open poll lists has changed (slots are free, the worker drains)."""
        self._changed.set()

    async def run(self, make_request: Callable[[], SessionRequest]) -> None:
        """Keep a session and a poll open, until cancelled; detach the worker when central refuses it."""
        async with anyio.create_task_group() as self._tasks:
            try:
                await self._open(make_request)
                while True:
                    try:
                        await self._ask()
                    except SessionTaken as error:
                        await self._reopen(error, make_request)
            except Refused as error:
                self._lifecycle.detach(_explain(error, self._link.central), exit_code=EXIT_REFUSED)
            except Outdated as error:
                self._lifecycle.detach(f"{error}; update this worker", exit_code=EXIT_REFUSED)
            await anyio.sleep_forever()  # the daemon cancels this task

    # Session

    async def _open(self, make_request: Callable[[], SessionRequest]) -> None:
        while True:
            started = self._clock.monotonic()
            try:
                session = await self._link.open_session(make_request())
            except (Unreachable, Superseded, Rewind) as error:
                await self._wait_out(error)
            else:
                break
        self._poll_s = min(session.poll_s, self._config.max_wait_s)
        self._attempts = Attempts(
            self._link, self._clock, floor_s=max(0.1, session.retry_s), ceiling_s=self._config.backoff_ceiling_s
        )
        for notify in self.on_session:
            notify(session)
        self._note_contact(started)
        self._apply(
            self._session.open(
                session.intent,
                session.stops,
                session.task_settings,
                session.runtimes,
                session.release,
                session.jobs_left,
            )
        )

    async def _reopen(self, error: SessionTaken, make_request: Callable[[], SessionRequest]) -> None:
        """Open a new session. We are the only daemon of this state directory; central detects copies of the worker elsewhere."""
        log.warning("%s; opening a new session", error)
        now = self._clock.monotonic()
        if self._reopened_at is not None and now - self._reopened_at < REOPEN_PAUSE_S:
            await self._clock.sleep(REOPEN_PAUSE_S * (1 + self._clock.chance()))
        self._reopened_at = self._clock.monotonic()
        await self._open(make_request)

    # Poll

    async def _ask(self) -> None:
        """Send one poll; return when it is answered, or when the state that it lists has changed."""
        assert self._tasks is not None
        self._changed = anyio.Event()
        now = self._clock.monotonic()
        # After an outage, ask for an answer at once: the return of central is noticed then, not when a long poll ends, and a poll
        # that is lost on the way times out soon.
        longest_s = 0.0 if self.trouble or not self.waits else self._limit.wait_s(wanted_s=self._poll_s, now_s=now)
        answer = _Answer(self._session.next_poll(longest_s), now)
        self._listing = answer.poll
        self._tasks.start_soon(self._send, answer, name="poll")
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(_cancel_after, answer.done, waiting.cancel_scope)
            await self._changed.wait()
            if self._listing.free_slots:
                await self._clock.sleep(GATHER_S)
            waiting.cancel_scope.cancel()
        if not answer.done.is_set():
            # The newer poll makes central end this one with an empty reply, or with an offer that was already on its way. It is
            # processed too: closing the connection would lose the offer until its deadline, and cost a TLS handshake.
            self._tasks.start_soon(self._linger, answer, name="older poll")
            return
        if answer.error:
            raise answer.error
        if isinstance(answer.trouble, SessionTaken):
            raise answer.trouble
        if answer.trouble:
            await self._wait_out(answer.trouble)
        elif answer.pause_s > 0:
            await self._clock.sleep(answer.pause_s * (1 + 0.2 * self._clock.chance()))

    async def _send(self, answer: _Answer) -> None:
        try:
            with answer.scope:
                reply = await self._link.poll(answer.poll)
                self._receive(reply, answer)
        except (Refused, Outdated) as error:
            answer.error = error
        except (Unreachable, Superseded, Rewind) as error:
            if isinstance(error, Unreachable) and error.was_cut:
                now = self._clock.monotonic()
                self._limit.note_cut(asked_s=answer.poll.wait_s, lasted_s=now - answer.started, now_s=now)
            answer.trouble = error
        finally:
            answer.done.set()

    async def _linger(self, answer: _Answer) -> None:
        with anyio.move_on_after(LINGER_S):
            await answer.done.wait()
        answer.scope.cancel()

    def _receive(self, reply: PollReply, answer: _Answer) -> None:
        self._poll_s = min(reply.poll_s, self._config.max_wait_s) if reply.poll_s > 0 else self._poll_s
        answer.pause_s = reply.pause_s
        self._limit.note_answer(asked_s=answer.poll.wait_s, lasted_s=self._clock.monotonic() - answer.started)
        self._note_contact(answer.started)
        self._apply(self._session.on_reply(reply, self._clock.monotonic()))
        for notify in self.on_answer:
            notify()

    def _apply(self, actions: Actions) -> None:
        assert self._tasks is not None
        if actions.task_settings:
            for apply in self.on_task_settings:
                apply(actions.task_settings)
        if actions.runtimes:
            for receive in self.on_runtimes:
                receive(actions.runtimes)
        if actions.release or actions.is_release_withdrawn:
            for bring in self.on_release:
                bring(actions.release)
        for notify in self.on_intent if actions.intent else ():
            notify(self._session.intent)
        if actions.intent and (actions.intent.mode is not IntentMode.SERVE or self._intent_logged):
            self._intent_logged = actions.intent.mode is not IntentMode.SERVE
            log.info("central's intent for this worker: %s %s", actions.intent.mode.value, actions.intent.reason)
            if actions.intent.mode is IntentMode.LEAVE:
                self._lifecycle.drain("central's intent for this worker is to leave")
        for stop in actions.stop:
            self._keeper.stop(stop)
        for lease in actions.drop:
            self._keeper.supersede(lease)
        for offer in actions.take:
            try:
                self._keeper.take(offer)
            except (OSError, ValueError) as error:
                self._session.note_declined(Lease(offer.job_id, offer.epoch))
                self._session.release(Lease(offer.job_id, offer.epoch))
                actions.decline.append((offer, f"the offer can't be stored: {error}"))
        for offer, reason in actions.decline:
            log.warning("job %s: declined: %s", offer.job_id, reason)
            self.decline(Lease(offer.job_id, offer.epoch), reason)

    def decline(self, lease: Lease, reason: str) -> None:
        """Return an offer to central, which offers the job to another worker, or again later."""
        assert self._tasks is not None, "the poll loop is not running"
        self._tasks.start_soon(self._decline, lease, reason, name=f"decline {lease.job_id}")

    async def _decline(self, lease: Lease, reason: str) -> None:
        try:
            await self._link.decline(lease, reason)
        except (Unreachable, Superseded, Refused, Outdated, Rewind) as error:
            log.warning("job %s: its decline could not be sent (%s); the offer will expire by itself", lease, error)

    # Contact

    def _note_contact(self, started: float) -> None:
        self._session.note_contact(started)
        self._attempts.reset()
        self._was_connected = True
        if self._outage_logged:
            log.warning("central can be reached again")
        self._silent_since, self._outage_logged, self.trouble = None, False, ""
        for notify in self.on_contact:
            notify()

    async def _wait_out(self, error: Exception) -> None:
        now = self._clock.monotonic()
        if self._silent_since is None:
            self._silent_since = now
        is_news, self.trouble = self.trouble != str(error), str(error)
        if not self._outage_logged and (now - self._silent_since >= SILENT_AFTER_S or not self._was_connected):
            log.warning("%s; jobs continue, retrying", error)
            self._outage_logged = True
        if is_news:
            for notify in self.on_contact:
                notify()
        await self._attempts.wait_after(error)


class _Answer:
    """One poll in progress, and its outcome."""

    def __init__(self, poll: Poll, started: float) -> None:
        self.poll = poll
        self.started = started
        self.scope = anyio.CancelScope()
        self.done = anyio.Event()
        self.error: Refused | Outdated | None = None
        self.trouble: Exception | None = None
        self.pause_s = 0.0


async def _cancel_after(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _explain(error: Refused, central: str) -> str:
    if error.code is ProblemCode.CLONED:
        return f"this worker runs twice, and this one is the copy: {error}"
    if error.code in (ProblemCode.REVOKED, ProblemCode.UNAUTHORIZED):
        remedy = f"ask an administrator why, and for a new enrolment token; then: airflow-remote-worker join {central} --force"
        return f"central does not accept this worker's credential: {error}; {remedy}"
    return f"central refuses this worker: {error}"
