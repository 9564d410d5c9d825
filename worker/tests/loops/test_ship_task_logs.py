from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest
from airflow_remote_protocol.errors import ProblemCode, make_problem
from airflow_remote_worker.errors import Rewind, Superseded, Unreachable, from_problem
from airflow_remote_worker.jobs.job import Job
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.loops import ship_task_logs
from airflow_remote_worker.loops.ship_task_logs import ShipLoop
from airflow_remote_worker.state.spool import JobDir

from ..conftest import HandClock, make_offer

pytestmark = pytest.mark.timeout(30)


class LogKeeper:
    """Central's side: appends only at its own size. First raises *trouble* in turn; *unanswered* appends get no answer."""

    def __init__(self, *trouble: Exception, unanswered: int = 0, most: int = 10**9) -> None:
        self.log = b""
        self.trouble = list(trouble)
        self.unanswered = unanswered
        self.most = most

    async def append_log(self, lease: Lease, offset: int, chunk: bytes, *, gzipped: bool) -> int:
        text = gzip.decompress(chunk) if gzipped else chunk
        if self.trouble:
            raise self.trouble.pop(0)
        if len(text) > self.most:
            raise from_problem(make_problem(ProblemCode.TOO_LARGE, "too large"))
        if offset == len(self.log):
            self.log += text
        elif offset + len(text) > len(self.log):
            raise Rewind("elsewhere", size=len(self.log))
        if self.unanswered:
            self.unanswered -= 1
            raise Unreachable("the reply was lost")
        return len(self.log)

    async def wait_for_contact(self, at_most_s: float) -> None:
        await anyio.sleep(0)


def ship_all(keeper: LogKeeper, path: Path, text: bytes, *, gzipped: bool = True) -> Job:
    job = Job(Lease("a", 1), make_offer("a"), JobDir(path, Lease("a", 1)))
    job.dir.task_log.write_bytes(text)

    async def main() -> None:
        loop = ShipLoop(keeper, HandClock())  # type: ignore[arg-type]
        loop.gzip = gzipped
        async with anyio.create_task_group() as tasks:
            await tasks.start(loop.run)
            loop.follow(job)
            job.ended.set()
            job.delivered.set()
            with anyio.fail_after(60):
                await job.shipped.wait()
            tasks.cancel_scope.cancel()

    anyio.run(main)
    return job


@pytest.mark.parametrize("gzipped", [True, False])
def test_the_whole_log_arrives(tmp_path: Path, gzipped: bool) -> None:
    keeper, text = LogKeeper(), bytes(range(256)) * 12_000
    ship_all(keeper, tmp_path, text, gzipped=gzipped)
    assert keeper.log == text


def test_a_lost_reply_repeats_nothing(tmp_path: Path) -> None:
    keeper = LogKeeper(unanswered=2)
    ship_all(keeper, tmp_path, b"x" * 2_500_000)
    assert keeper.log == b"x" * 2_500_000


def test_a_restarted_daemon_continues_at_central_s_position(tmp_path: Path) -> None:
    keeper, text = LogKeeper(), bytes(range(256)) * 8_000
    keeper.log = text[:1_300_000]
    ship_all(keeper, tmp_path, text)
    assert keeper.log == text


def test_outages_are_waited_out(tmp_path: Path) -> None:
    keeper = LogKeeper(*[Unreachable("away")] * 50)
    ship_all(keeper, tmp_path, b"hello")
    assert keeper.log == b"hello"


def test_a_superseded_log_is_dropped(tmp_path: Path) -> None:
    job = ship_all(LogKeeper(Superseded("moved on")), tmp_path, b"hello")
    assert job.superseded.is_set()


def test_a_peer_with_smaller_limits_gets_smaller_chunks(tmp_path: Path) -> None:
    keeper = LogKeeper(most=100_000)
    ship_all(keeper, tmp_path, b"x" * 500_000)
    assert keeper.log == b"x" * 500_000


def test_a_log_that_is_refused_for_good_does_not_delay_the_report(tmp_path: Path) -> None:
    assert ship_all(LogKeeper(most=10), tmp_path, b"x" * 500_000).shipped.is_set()


def test_a_task_without_log_lines_needs_no_request(tmp_path: Path) -> None:
    assert ship_all(LogKeeper(AssertionError()), tmp_path, b"").shipped.is_set()


def test_incompressible_chunks_stay_below_central_s_limit() -> None:
    import os

    assert len(ship_task_logs._pack(os.urandom(ship_task_logs.CHUNK))) <= 1024 * 1024


class Watched(LogKeeper):
    """Keeps the sizes of received chunks."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks: list[int] = []

    async def append_log(self, lease: Lease, offset: int, chunk: bytes, *, gzipped: bool) -> int:
        size = await super().append_log(lease, offset, chunk, gzipped=gzipped)
        self.chunks.append(size - offset)
        return size


def _ship_live(keeper: Watched, path: Path, clock: HandClock, what_happens: Callable[[Job], Awaitable[None]]) -> None:
    """Follow a job that runs during *what_happens*, then ends."""
    job = Job(Lease("a", 1), make_offer("a"), JobDir(path, Lease("a", 1)))
    job.dir.task_log.write_bytes(b"begun\n")

    async def main() -> None:
        loop = ShipLoop(keeper, clock)  # type: ignore[arg-type]
        async with anyio.create_task_group() as tasks:
            await tasks.start(loop.run)
            loop.follow(job)
            with anyio.fail_after(60):
                await what_happens(job)
                job.ended.set()
                job.delivered.set()
                await job.shipped.wait()
            tasks.cancel_scope.cancel()

    anyio.run(main)


def test_a_short_job_s_log_is_one_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship_task_logs, "LOOK_EVERY_S", 0.005)
    keeper = Watched()

    async def lines(job: Job) -> None:
        for _ in range(5):
            await anyio.sleep(0.02)
            with job.dir.task_log.open("ab") as log:
                log.write(b"line\n")

    _ship_live(keeper, tmp_path, HandClock(), lines)
    assert keeper.chunks == [len(b"begun\n" + b"line\n" * 5)]


def test_lines_of_a_running_job_wait_only_briefly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship_task_logs, "LOOK_EVERY_S", 0.005)
    keeper, clock = Watched(), HandClock()

    async def a_moment(job: Job) -> None:
        while not keeper.log:
            clock.now += ship_task_logs.GATHER_S / 4
            await anyio.sleep(0.01)

    _ship_live(keeper, tmp_path, clock, a_moment)
    assert keeper.log == b"begun\n"


def test_many_lines_do_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship_task_logs, "LOOK_EVERY_S", 0.005)
    keeper = Watched()

    async def much(job: Job) -> None:
        job.dir.task_log.write_bytes(b"x" * ship_task_logs.GATHER)
        while not keeper.log:
            await anyio.sleep(0.01)

    _ship_live(keeper, tmp_path, HandClock(), much)
    assert len(keeper.log) == ship_task_logs.GATHER
