"""When a daemon ends by itself."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from airflow_remote_protocol.messages import Intent, IntentMode, PollReply
from airflow_remote_worker.clock import SystemClock
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.lifecycle import Lifecycle, Phase
from airflow_remote_worker.loops.end import EndLoop
from airflow_remote_worker.session import WorkerSession

from ..conftest import HandClock, make_offer


def _take(session: WorkerSession, job_id: str = "a") -> Lease:
    session.on_reply(PollReply(poll_s=30, offers=[make_offer(job_id)]))
    return Lease(job_id, 1)


def test_it_ends_after_its_last_job() -> None:
    async def run() -> None:
        session, lifecycle = WorkerSession(slots=4, max_jobs=1), Lifecycle()
        loop = EndLoop(session, lifecycle, SystemClock(), idle_exit_s=None)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(loop.run)
            lease = _take(session)
            loop.note_change()
            await anyio.lowlevel.checkpoint()
            assert lifecycle.phase is Phase.SERVING
            session.release(lease)
            loop.note_change()
        assert "max_jobs" in lifecycle.reason

    anyio.run(run)


def test_it_ends_after_it_was_idle_for_long_enough() -> None:
    lifecycle = Lifecycle()
    anyio.run(EndLoop(WorkerSession(slots=4), lifecycle, SystemClock(), idle_exit_s=0.01).run)
    assert (lifecycle.phase, "idle_exit_s" in lifecycle.reason) == (Phase.DRAINING, True)


def test_only_time_in_which_it_can_take_jobs_counts(clock: HandClock) -> None:
    session = WorkerSession(slots=4)
    loop = EndLoop(session, Lifecycle(), clock, idle_exit_s=60)
    assert loop._left_s(clock.now) == 60
    assert loop._left_s(clock.now + 20) == 40
    session.unfit = "its runtime is not ready"
    assert loop._left_s(clock.now + 30) is None
    session.unfit = ""
    assert loop._left_s(clock.now + 100) == 60, "it counts from the start again"
    lease = _take(session)
    assert loop._left_s(clock.now + 110) is None
    session.release(lease)
    assert loop._left_s(clock.now + 500) == 60
    session.intent = Intent(mode=IntentMode.PAUSE, revision=1)
    assert loop._left_s(clock.now + 510) is None


@pytest.mark.parametrize("idle_s", [0.0, 1e6], ids=["at-once", "for-long"])
def test_without_either_setting_it_never_ends(clock: HandClock, idle_s: float) -> None:
    assert EndLoop(WorkerSession(slots=4), Lifecycle(), clock, idle_exit_s=None)._left_s(clock.now + idle_s) is None
