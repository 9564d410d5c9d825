"""The daemon's own log reaches central, each byte once, and without new lines there are no requests."""

from __future__ import annotations

import gzip
import logging
import os
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from airflow_remote_protocol.errors import ProblemCode, make_problem
from airflow_remote_worker.errors import Rewind, Superseded, Unreachable, from_problem
from airflow_remote_worker.loops import ship_worker_log
from airflow_remote_worker.loops.ship_worker_log import ShipWorkerLogLoop
from airflow_remote_worker.state import worker_log
from airflow_remote_worker.state.worker_log import WorkerLog

from ..conftest import HandClock

pytestmark = pytest.mark.timeout(30)


class Keeper:
    """Central's side. First raises *trouble* in turn; *unanswered* appends get no answer."""

    def __init__(self, *trouble: Exception, unanswered: int = 0) -> None:
        self.stretches: dict[str, bytes] = {}
        self.calls = 0
        self.trouble = list(trouble)
        self.unanswered = unanswered

    @property
    def text(self) -> bytes:
        return b"".join(self.stretches.values())

    async def append_worker_log(self, stretch: str, offset: int, chunk: bytes, *, gzipped: bool) -> int:
        self.calls += 1
        text = gzip.decompress(chunk) if gzipped else chunk
        if self.trouble:
            raise self.trouble.pop(0)
        held = self.stretches.get(stretch, b"")
        if offset == len(held) and text:
            self.stretches[stretch] = held + text
        elif offset + len(text) > len(held):
            raise Rewind("elsewhere", size=len(held))
        if self.unanswered and text:
            self.unanswered -= 1
            raise Unreachable("the reply was lost")
        return len(self.stretches.get(stretch, b""))

    async def wait_for_contact(self, at_most_s: float) -> None:
        await anyio.sleep(0)


@pytest.fixture
def log(tmp_path: Path) -> WorkerLog:
    return WorkerLog(tmp_path / "own")


def say(log: WorkerLog, *messages: str) -> None:
    for message in messages:
        log.handle(logging.LogRecord("a", logging.INFO, __file__, 1, message, (), None))


def on_disk(log: WorkerLog) -> bytes:
    return b"".join(path.read_bytes() for path in log.files())


def ship(
    keeper: Keeper, log: WorkerLog, until: Callable[[], bool], *, wanted: bool = True, gzipped: bool = True
) -> ShipWorkerLogLoop:
    loops: list[ShipWorkerLogLoop] = []

    async def main() -> None:
        loop = ShipWorkerLogLoop(keeper, HandClock(), log)  # type: ignore[arg-type]
        loops.append(loop)
        loop.gzip = gzipped
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(loop.run)
            await anyio.sleep(0.02)
            loop.set_wanted(wanted=wanted)
            with anyio.fail_after(60):
                while not until():
                    await anyio.sleep(0.01)
            await anyio.sleep(0.05)
            tasks.cancel_scope.cancel()

    anyio.run(main)
    return loops[0]


@pytest.mark.parametrize("gzipped", [True, False])
def test_the_whole_log_arrives_and_then_no_requests_are_made(log: WorkerLog, gzipped: bool) -> None:
    say(log, *(f"line {number} " + "x" * 100 for number in range(5000)))
    keeper, sent = Keeper(), on_disk(log)
    ship(keeper, log, lambda: keeper.text == sent, gzipped=gzipped)
    assert keeper.calls == 1 + -(-len(sent) // 256_000)


def test_later_lines_are_sent_at_once(log: WorkerLog) -> None:
    keeper = Keeper()
    say(log, "one")
    asked: list[int] = []

    def done() -> bool:
        if keeper.text.count(b"\n") == 1 and not asked:
            asked.append(keeper.calls)
            say(log, "two")
        return keeper.text.count(b"\n") == 2

    ship(keeper, log, done)
    assert keeper.calls == asked[0] + 1


@pytest.mark.parametrize(
    "trouble",
    [
        Unreachable("away"),
        Superseded("taken"),
        from_problem(make_problem(ProblemCode.INVALID, "no")),
        from_problem(make_problem(ProblemCode.OUTDATED, "old")),
    ],
)
def test_trouble_is_waited_out(log: WorkerLog, trouble: Exception) -> None:
    say(log, "one")
    keeper = Keeper(trouble, trouble)
    ship(keeper, log, lambda: keeper.text == on_disk(log))


def test_a_lost_reply_repeats_nothing(log: WorkerLog) -> None:
    say(log, "one", "two")
    keeper = Keeper(unanswered=2)
    ship(keeper, log, lambda: keeper.text == on_disk(log) and not keeper.unanswered)


def test_the_next_daemon_continues_at_central_s_position(log: WorkerLog, tmp_path: Path) -> None:
    say(log, "one")
    keeper = Keeper()
    ship(keeper, log, lambda: keeper.text == on_disk(log))
    again = WorkerLog(tmp_path / "own")
    say(again, "two")
    ship(keeper, again, lambda: keeper.text == on_disk(again))
    assert list(keeper.stretches) == [log.files()[0].stem]


def test_lines_lost_by_a_restored_disk_hide_no_new_line(log: WorkerLog, tmp_path: Path) -> None:
    say(log, "one", "two", "three")
    keeper = Keeper()
    ship(keeper, log, lambda: keeper.text == on_disk(log))
    snapshot = on_disk(log).splitlines(keepends=True)[0]
    log.files()[0].write_bytes(snapshot)
    again = WorkerLog(tmp_path / "own")
    say(again, "new")
    ship(keeper, again, lambda: keeper.text.endswith(on_disk(again)))
    assert keeper.text.count(b"new") == 1 and keeper.text.count(b"one") == 2, "a restored line is there twice, none is missing"


def test_central_has_only_lines_that_are_synced_to_disk(log: WorkerLog, monkeypatch: pytest.MonkeyPatch) -> None:
    durable = [0]
    monkeypatch.setattr(os, "fsync", lambda fd: durable.append(os.fstat(fd).st_size))

    class Watching(Keeper):
        async def append_worker_log(self, stretch: str, offset: int, chunk: bytes, *, gzipped: bool) -> int:
            size = await super().append_worker_log(stretch, offset, chunk, gzipped=gzipped)
            assert size <= durable[-1]
            return size

    say(log, "one", "two")
    keeper = Watching()
    ship(keeper, log, lambda: keeper.text == on_disk(log))
    assert len(durable) == 2


def test_a_chunk_ends_with_a_line(log: WorkerLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship_worker_log, "CHUNK", 250)
    say(log, *(f"line {number}" for number in range(9)))

    class Watching(Keeper):
        async def append_worker_log(self, stretch: str, offset: int, chunk: bytes, *, gzipped: bool) -> int:
            size = await super().append_worker_log(stretch, offset, chunk, gzipped=gzipped)
            assert self.text.endswith(b"\n") or not size
            return size

    keeper = Watching()
    ship(keeper, log, lambda: keeper.text == on_disk(log))
    assert keeper.calls > 4


def test_a_central_that_accepts_nothing_is_given_time(log: WorkerLog) -> None:
    class Still(Keeper):
        async def append_worker_log(self, stretch: str, offset: int, chunk: bytes, *, gzipped: bool) -> int:
            self.calls += 1
            return 0

        async def wait_for_contact(self, at_most_s: float) -> None:
            waited.append(at_most_s)
            await anyio.sleep(0)

    waited: list[float] = []
    say(log, "one")
    ship(Still(), log, lambda: len(waited) >= 5)
    assert waited[4] > waited[0]


def test_finished_files_are_removed_once_central_has_them(log: WorkerLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_log, "FILE_BYTES", 500)
    say(log, *(f"line {number}" for number in range(12)))
    sent = on_disk(log)
    assert len(log.files()) == 3
    keeper = Keeper()
    ship(keeper, log, lambda: keeper.text == sent and len(log.files()) == 1)


def test_nothing_is_sent_to_a_central_that_does_not_accept_the_log(log: WorkerLog) -> None:
    say(log, "one")
    keeper = Keeper()
    ship(keeper, log, lambda: True, wanted=False)
    assert keeper.calls == 0
