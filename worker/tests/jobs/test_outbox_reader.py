from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.jobs.outbox_reader import OutboxReader
from airflow_remote_worker.local import frames
from airflow_remote_worker.local.outbox_file import record_of
from airflow_remote_worker.shim.outbox_writer import OutboxWriter


def call(n: int) -> frames.Call:
    return frames.Call(id=0, method="POST", path=f"xcoms/d/r/t/k{n}", headers={}, body=b"x" * n)


def fill(directory: Path, *numbers: int) -> None:
    for n in numbers:
        OutboxWriter(directory).append(call(n))


def test_calls_are_read_in_order_each_until_it_is_acknowledged(tmp_path: Path) -> None:
    fill(tmp_path, 1, 2)

    async def main() -> None:
        outbox = OutboxReader(tmp_path)
        assert outbox.next() == outbox.next() == call(1)
        await outbox.acknowledge()
        assert outbox.next() == call(2)
        assert outbox.waits
        await outbox.acknowledge()
        assert outbox.next() is None
        assert not outbox.waits

    anyio.run(main)


def test_the_next_daemon_continues_where_this_one_stopped(tmp_path: Path) -> None:
    fill(tmp_path, 1, 2)

    async def main() -> None:
        first = OutboxReader(tmp_path)
        first.next()
        await first.acknowledge()
        first.next()  # killed before central's answer
        assert OutboxReader(tmp_path).next() == call(2)

    anyio.run(main)


@pytest.mark.parametrize("kept", [0, 3, 7, 8, 20])
def test_an_incomplete_call_is_ignored(kept: int, tmp_path: Path) -> None:
    fill(tmp_path, 1)
    with (tmp_path / "outbox").open("ab") as file:
        file.write(record_of(call(2))[:kept])

    async def main() -> None:
        outbox = OutboxReader(tmp_path)
        assert outbox.next() == call(1)
        await outbox.acknowledge()
        assert outbox.next() is None
        with (tmp_path / "outbox").open("ab") as file:
            file.write(record_of(call(2))[kept:])
        assert outbox.next() == call(2), "it was read while it was being written"

    anyio.run(main)


@pytest.mark.parametrize("where", [0, 5, 12, -1])
def test_damage_is_reported_and_the_rest_is_skipped(where: int, tmp_path: Path) -> None:
    fill(tmp_path, 1, 2)
    body = bytearray((tmp_path / "outbox").read_bytes())
    end = len(record_of(call(1)))
    body[where if where >= 0 else end - 1] ^= 0xFF
    (tmp_path / "outbox").write_bytes(body)

    async def main() -> None:
        outbox = OutboxReader(tmp_path)
        with pytest.raises(Damaged, match="byte 0"):
            outbox.next()
        await outbox.give_up()
        assert outbox.next() is None
        assert not OutboxReader(tmp_path).waits

    anyio.run(main)


async def read_all(directory: Path) -> list[frames.Call]:
    outbox, calls = OutboxReader(directory), []
    while True:
        try:
            found = outbox.next()
        except Damaged:
            return calls
        if found is None:
            return calls
        calls.append(found)
        await outbox.acknowledge()


def test_truncated_or_garbled_anywhere_it_yields_exactly_the_complete_calls_before(tmp_path: Path) -> None:
    fill(tmp_path, 1, 2, 3)
    whole = (tmp_path / "outbox").read_bytes()
    ends = [len(record_of(call(1))), len(record_of(call(1)) + record_of(call(2))), len(whole)]

    async def main() -> None:
        for at in sorted({*range(0, len(whole), 7), *(end + by for end in ends for by in (-1, 0, 1) if end + by < len(whole))}):
            for body in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :]):
                (tmp_path / "outbox").write_bytes(body)
                (tmp_path / "outbox.done").unlink(missing_ok=True)
                intact = sum(end <= at for end in ends)
                assert await read_all(tmp_path) == [call(1), call(2), call(3)][:intact]

    anyio.run(main)


def test_a_waiter_is_woken_by_the_last_delivery(tmp_path: Path) -> None:
    fill(tmp_path, 1, 2)

    async def main() -> None:
        outbox = OutboxReader(tmp_path)
        woken: list[int] = []

        async def wait() -> None:
            await outbox.until_empty()
            woken.append(1)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            for _ in range(2):
                await anyio.wait_all_tasks_blocked()
                assert not woken
                outbox.next()
                await outbox.acknowledge()
        assert woken

    anyio.run(main)


def test_refusals_are_kept_until_they_are_in_the_task_s_log(tmp_path: Path) -> None:
    async def main() -> None:
        OutboxReader(tmp_path).refuse("a\nb", is_lost=False)
        assert (OutboxReader(tmp_path).lost, OutboxReader(tmp_path).lost_at) == ("", None)
        OutboxReader(tmp_path).refuse("c\nd", is_lost=True)
        lost_at = OutboxReader(tmp_path).lost_at
        OutboxReader(tmp_path).refuse("e", is_lost=True)
        outbox = OutboxReader(tmp_path)
        assert outbox.refused() == ["a b", "c d", "e"]
        outbox.delete_refused()
        assert outbox.refused() == []
        assert lost_at is not None
        assert (outbox.lost, outbox.lost_at) == ("c d", lost_at), "the report still needs it after its lines are in the log"

    anyio.run(main)
