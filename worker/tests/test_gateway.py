from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from airflow_remote_worker import gateway as gateway_module
from airflow_remote_worker.clock import SystemClock
from airflow_remote_worker.errors import Superseded, Unreachable
from airflow_remote_worker.gateway import Connection, JobAccess, LocalGateway
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.link.client import Executed
from airflow_remote_worker.local import frames

pytestmark = pytest.mark.timeout(30)
LEASE = Lease("job-1", 1)


class FakeLink:
    """Gives the test's answers; raises the errors among them."""

    def __init__(self, *answers: Executed | Exception) -> None:
        self.is_down = False
        self.answers = list(answers)
        self.calls: list[tuple[Lease, str, str]] = []
        self.bodies: list[bytes] = []

    async def execution(self, lease: Lease, method: str, path: str, *, headers: dict[str, str], body: bytes) -> Executed:
        self.calls.append((lease, method, path))
        self.bodies.append(body)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def wait_for_contact(self, at_most_s: float) -> None:
        await anyio.sleep(0.01)


@asynccontextmanager
async def serving(tmp_path: Path, link: FakeLink) -> AsyncIterator[LocalGateway]:
    gateway = LocalGateway(tmp_path / "g.sock", link, SystemClock())  # type: ignore[arg-type]
    async with anyio.create_task_group() as tasks:
        await tasks.start(gateway.serve)
        yield gateway
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def shim(gateway: LocalGateway, key: str = "right") -> AsyncIterator[Connection]:
    async with await anyio.connect_unix(gateway.path) as stream:
        connection = Connection(stream)
        await connection.send(frames.Hello(job_id="job-1", key=key, pid=1))
        yield connection


def run(main: Callable[[], object]) -> None:
    async def timed() -> None:
        with anyio.fail_after(60):
            await main()  # type: ignore[misc]

    anyio.run(timed)


CALL = frames.Call(id=4, method="PATCH", path="task-instances/x/run", headers={}, body=b"{}")


def test_a_call_is_passed_on_and_a_successful_run_accepts_the_offer(tmp_path: Path) -> None:
    accepted: list[int] = []

    async def main() -> None:
        link = FakeLink(Executed(200, {"content-type": "application/json"}, b"{}"))
        async with serving(tmp_path, link) as gateway:
            gateway.open(JobAccess(LEASE, "right", on_accepted=lambda: accepted.append(1)))
            async with shim(gateway) as connection:
                await connection.send(CALL)
                answer = await connection.receive()
                assert answer == frames.Answer(id=4, status=200, headers={"content-type": "application/json"}, body=b"{}")
        assert link.calls == [(LEASE, "PATCH", "task-instances/x/run")]

    run(main)
    assert accepted == [1]


def test_only_this_user_can_open_the_socket(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, FakeLink(Unreachable("x"))) as gateway:
            assert gateway.path.stat().st_mode & 0o077 == 0

    run(main)


def test_a_wrong_key_gets_no_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, FakeLink(Unreachable("x"))) as gateway:
            gateway.open(JobAccess(LEASE, "right"))
            async with shim(gateway, key="wrong") as connection:
                with pytest.raises((anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError)):
                    await connection.receive()

    run(main)


def test_a_shim_whose_job_is_not_held_is_stopped(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, FakeLink(Unreachable("x"))) as gateway, shim(gateway) as connection:
            assert isinstance(await connection.receive(), frames.Stop)

    run(main)


def test_a_call_waits_out_an_outage(tmp_path: Path) -> None:
    async def main() -> None:
        link = FakeLink(Unreachable("a"), Unreachable("b"), Executed(200, {}, b"late"))
        async with serving(tmp_path, link) as gateway:
            gateway.open(JobAccess(LEASE, "right"))
            async with shim(gateway) as connection:
                await connection.send(CALL)
                answer = await connection.receive()
                assert isinstance(answer, frames.Answer)
                assert answer.body == b"late"

    run(main)


@pytest.mark.parametrize(("before", "expected"), [([Unreachable("cut")], 201), ([], 409)])
def test_a_conflict_is_retried_if_an_earlier_copy_may_be_in_progress(
    before: list[Exception], expected: int, tmp_path: Path
) -> None:
    async def main() -> None:
        link = FakeLink(*before, Executed(409, {}, b"conflict"), Executed(201, {}, b"written"))
        async with serving(tmp_path, link) as gateway:
            gateway.open(JobAccess(LEASE, "right"))
            async with shim(gateway) as connection:
                await connection.send(frames.Call(id=1, method="POST", path="xcoms/d/r/t/k", headers={}, body=b"1"))
                answer = await connection.receive()
                assert isinstance(answer, frames.Answer)
                assert answer.status == expected

    run(main)


def test_a_stop_is_sent_at_once_and_ends_the_wait_for_central(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, FakeLink(Unreachable("cut cable"))) as gateway:
            gateway.open(JobAccess(LEASE, "right"))
            async with shim(gateway) as connection:
                await connection.send(CALL)
                await anyio.sleep(0.05)
                gateway.stop(LEASE, frames.Stop(reason="ended"))
                received = [await connection.receive(), await connection.receive()]
                assert frames.Stop(reason="ended") in received
                assert [frame.status for frame in received if isinstance(frame, frames.Answer)] == [410]

    run(main)


def test_a_stop_is_sent_to_a_shim_that_connects_later(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, FakeLink(Unreachable("x"))) as gateway:
            gateway.open(JobAccess(LEASE, "right"))
            gateway.stop(LEASE, frames.Stop(reason="cleared"))
            async with shim(gateway) as connection:
                assert await connection.receive() == frames.Stop(reason="cleared")

    run(main)


def test_a_superseded_job_gets_gone_and_the_callback_is_called(tmp_path: Path) -> None:
    calls: list[int] = []

    async def main() -> None:
        async with serving(tmp_path, FakeLink(Superseded("moved on"))) as gateway:
            gateway.open(JobAccess(LEASE, "right", on_superseded=lambda: calls.append(1)))
            async with shim(gateway) as connection:
                await connection.send(CALL)
                answer = await connection.receive()
                assert isinstance(answer, frames.Answer)
                assert answer.status == 410

    run(main)
    assert calls == [1]


def test_an_invalid_frame_closes_only_its_connection(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, FakeLink(Executed(200, {}, b""))) as gateway:
            gateway.open(JobAccess(LEASE, "right"))
            async with await anyio.connect_unix(gateway.path) as stream:
                await stream.send(b"GET / HTTP/1.1\r\n\r\n")
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    await stream.receive()
            async with shim(gateway) as connection:
                await connection.send(CALL)
                assert isinstance(await connection.receive(), frames.Answer)

    run(main)


# Writes that may be spooled

WRITE = frames.Call(id=5, method="POST", path="xcoms/d/r/t/k", headers={}, body=b"1", may_spool=True)
READ = frames.Call(id=6, method="GET", path="xcoms/d/r/t/k", headers={})
FINE = Executed(201, {}, b"{}")


class FakeOutbox:
    """Full or empty, as the test sets it."""

    def __init__(self, *, waits: bool = False) -> None:
        self.waits = waits
        self.lost_at: float | None = None
        self.noticed = 0
        self.emptied = anyio.Event()

    def notice(self) -> None:
        self.noticed += 1

    async def until_empty(self) -> None:
        await self.emptied.wait()

    def empty(self) -> None:
        self.waits = False
        self.emptied.set()


async def ask(gateway: LocalGateway, call: frames.Call, outbox: FakeOutbox | None = None) -> frames.Frame:
    gateway.open(JobAccess(LEASE, "right", outbox=outbox))
    async with shim(gateway) as connection:
        await connection.send(call)
        return await connection.receive()


def test_a_write_is_passed_on_while_central_is_reachable(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, FakeLink(FINE)) as gateway:
            assert await ask(gateway, WRITE, FakeOutbox()) == frames.Answer(id=5, status=201, headers={}, body=b"{}")

    run(main)


@pytest.mark.parametrize("may_spool", [False, True])
def test_a_task_that_lost_a_write_ends_as_failed(tmp_path: Path, may_spool: bool) -> None:
    async def main() -> None:
        outbox, link = FakeOutbox(), FakeLink(FINE)
        outbox.lost_at = 1.0
        body = b'{"state": "success", "end_date": "2026-01-01T00:00:00Z", "rendered_map_index": "a"}'
        state = frames.Call(id=5, method="PATCH", path="task-instances/x/state", headers={}, body=body, may_spool=may_spool)
        async with serving(tmp_path, link) as gateway:
            await ask(gateway, state, outbox)
        (sent,) = link.bodies
        assert json.loads(sent) == {"state": "failed", "end_date": "2026-01-01T00:00:00Z", "rendered_map_index": "a"}

    run(main)


def test_a_write_is_spooled_by_the_shim_while_central_is_unreachable(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, FakeLink(Unreachable("cut cable"))) as gateway:
            assert await ask(gateway, WRITE, FakeOutbox()) == frames.Spool(id=5)

    run(main)


def test_a_write_is_not_sent_while_central_is_known_to_be_unreachable(tmp_path: Path) -> None:
    async def main() -> None:
        link = FakeLink(FINE)
        link.is_down = True
        async with serving(tmp_path, link) as gateway:
            assert await ask(gateway, WRITE, FakeOutbox()) == frames.Spool(id=5)
        assert link.calls == []

    run(main)


def test_a_write_without_an_answer_is_spooled_after_some_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "TRY_BEFORE_SPOOLING_S", 0.05)

    class BlackHole(FakeLink):
        async def execution(self, *call: object, **parts: object) -> Executed:  # type: ignore[override]
            await anyio.sleep_forever()
            raise AssertionError

    async def main() -> None:
        async with serving(tmp_path, BlackHole()) as gateway:
            assert await ask(gateway, WRITE, FakeOutbox()) == frames.Spool(id=5)

    run(main)


def test_a_write_waits_behind_earlier_ones(tmp_path: Path) -> None:
    async def main() -> None:
        link = FakeLink(FINE)
        async with serving(tmp_path, link) as gateway:
            assert await ask(gateway, WRITE, FakeOutbox(waits=True)) == frames.Spool(id=5)
        assert link.calls == []

    run(main)


@pytest.mark.parametrize("call", [READ, frames.Call(id=6, method="POST", path="xcoms/d/r/t/k", headers={})])
def test_a_call_that_can_t_be_spooled_waits_for_earlier_writes(call: frames.Call, tmp_path: Path) -> None:
    async def main() -> None:
        link, outbox = FakeLink(FINE), FakeOutbox(waits=True)
        async with serving(tmp_path, link) as gateway, anyio.create_task_group() as tasks:
            answers: list[frames.Frame] = []

            async def asking() -> None:
                answers.append(await ask(gateway, call, outbox))

            tasks.start_soon(asking)
            await anyio.sleep(0.05)
            assert not link.calls
            outbox.empty()
            with anyio.fail_after(60):
                while not answers:
                    await anyio.sleep(0.01)
        assert isinstance(answers[0], frames.Answer)

    run(main)


def test_a_stop_ends_the_wait_for_earlier_writes(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, FakeLink(FINE)) as gateway:
            gateway.open(JobAccess(LEASE, "right", outbox=FakeOutbox(waits=True)))
            async with shim(gateway) as connection:
                await connection.send(READ)
                await anyio.sleep(0.05)
                gateway.stop(LEASE, frames.Stop(reason="ended"))
                received = [await connection.receive(), await connection.receive()]
                assert [frame.status for frame in received if isinstance(frame, frames.Answer)] == [410]

    run(main)


def test_the_outbox_is_read_when_a_shim_connects_and_when_it_notifies(tmp_path: Path) -> None:
    async def main() -> None:
        outbox = FakeOutbox()
        async with serving(tmp_path, FakeLink(FINE)) as gateway:
            gateway.open(JobAccess(LEASE, "right", outbox=outbox))
            async with shim(gateway) as connection:
                await connection.send(frames.Spooled())
                await connection.send(WRITE)
                await connection.receive()
        assert outbox.noticed == 2

    run(main)
