from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest
from airflow_remote_protocol.errors import ProblemCode, make_problem
from airflow_remote_worker.errors import Superseded, Unreachable, from_problem
from airflow_remote_worker.jobs.job import Job
from airflow_remote_worker.jobs.outbox_reader import OutboxReader
from airflow_remote_worker.lease import Lease
from airflow_remote_worker.link.client import Executed
from airflow_remote_worker.local import frames
from airflow_remote_worker.loops.deliver import DeliverLoop
from airflow_remote_worker.shim.outbox_writer import OutboxWriter
from airflow_remote_worker.state.spool import JobDir

from ..conftest import HandClock, make_offer

pytestmark = pytest.mark.timeout(30)
LEASE = Lease("a", 1)
FINE = Executed(201, {}, b"{}")
STATE = "task-instances/0192/state"


class CentralStub:
    """Central's side: gives *answers* in turn, raising errors, then succeeds."""

    def __init__(self, *answers: Executed | Exception) -> None:
        self.answers = list(answers)
        self.poison = ""
        """The path of a call that always fails with a server error."""
        self.tried: list[str] = []
        self.received: list[str] = []
        self.states: list[bytes] = []
        """The bodies of calls that report a state, in order."""

    async def execution(self, lease: Lease, method: str, path: str, *, headers: dict[str, str], body: bytes) -> Executed:
        assert lease == LEASE
        self.tried.append(path)
        if path == STATE:
            self.states.append(body)
        answer = self.answers.pop(0) if self.answers else FINE
        if path == self.poison:
            answer = Executed(500, {}, b"poison")
        if isinstance(answer, Exception):
            raise answer
        if answer.status < 400:
            self.received.append(path)
        return answer

    async def wait_for_contact(self, at_most_s: float) -> None:
        await anyio.sleep(0)


def write(directory: Path, *paths: str) -> None:
    for path in paths:
        OutboxWriter(directory).append(frames.Call(id=0, method="POST", path=path, headers={}, body=b"1"))


def write_state(directory: Path, said: dict[str, object]) -> None:
    OutboxWriter(directory).append(frames.Call(id=0, method="PATCH", path=STATE, headers={}, body=json.dumps(said).encode()))


def follow(
    central: CentralStub, directory: Path, story: Callable[[Job], Awaitable[None]] | None = None, clock: HandClock | None = None
) -> Job:
    """Deliver the job's outbox while *story* runs; then the job ends."""
    job = Job(LEASE, make_offer("a"), JobDir(directory, LEASE))

    async def main() -> None:
        loop = DeliverLoop(central, clock or HandClock(), lambda lease: None)  # type: ignore[arg-type]
        async with anyio.create_task_group() as tasks:
            await tasks.start(loop.run)
            loop.follow(job)
            await anyio.sleep(0.02)
            if story:
                await story(job)
            assert not job.delivered.is_set(), "delivered before its end"
            job.ended.set()
            with anyio.fail_after(60):
                await job.delivered.wait()
            tasks.cancel_scope.cancel()

    anyio.run(main)
    return job


def log_of(directory: Path) -> list[str]:
    file = directory / "task.log"
    return [json.loads(line)["event"] for line in file.read_text().splitlines()] if file.exists() else []


def test_a_job_without_spooled_writes_is_delivered_when_it_has_ended(tmp_path: Path) -> None:
    central = CentralStub()
    follow(central, tmp_path)
    assert central.tried == []
    assert list(tmp_path.iterdir()) == []


def test_writes_are_delivered_in_order(tmp_path: Path) -> None:
    write(tmp_path, "k1", "k2", "state")
    central = CentralStub()
    follow(central, tmp_path)
    assert central.received == ["k1", "k2", "state"]


def test_a_call_is_repeated_until_central_can_be_reached(tmp_path: Path) -> None:
    write(tmp_path, "k1", "k2")
    central = CentralStub(*[Unreachable("away")] * 20)
    follow(central, tmp_path)
    assert central.tried == ["k1"] * 21 + ["k2"]


def test_writes_of_a_running_job_are_delivered_at_once(tmp_path: Path) -> None:
    central = CentralStub()

    async def story(job: Job) -> None:
        write(tmp_path, "k1")
        job.outbox.notice()
        await job.outbox.until_empty()
        assert central.received == ["k1"]

    follow(central, tmp_path, story)


def test_delivered_writes_are_not_repeated_after_a_restart(tmp_path: Path) -> None:
    write(tmp_path, "k1", "k2")
    follow(CentralStub(), tmp_path)
    write(tmp_path, "k3")
    central = CentralStub()
    follow(central, tmp_path)
    assert central.received == ["k3"]


def test_a_refusal_is_written_to_the_log_and_the_rest_is_delivered(tmp_path: Path) -> None:
    write(tmp_path, "k1", "k2", "k3")
    invalid = b'{"detail": [{"msg": "too deep", "input": "the secret"}]}'
    central = CentralStub(Executed(422, {}, invalid), from_problem(make_problem(ProblemCode.TOO_LARGE, "60 MB are too many")))

    async def story(job: Job) -> None:
        await job.outbox.until_empty()
        assert log_of(tmp_path) == [], "the shim still writes its log"

    follow(central, tmp_path, story)
    assert central.received == ["k3"]
    first, second = log_of(tmp_path)
    assert "POST k1: 422 too deep" in first and "the secret" not in first
    assert "POST k2" in second and "60 MB are too many" in second


@pytest.mark.parametrize("state", ["success", "skipped", "deferred", "awaiting_input", "up_for_reschedule"])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_task_whose_write_was_refused_does_not_succeed(tmp_path: Path, state: str, restarts: bool) -> None:
    central = CentralStub(Executed(422, {}, b"{}"))
    write(tmp_path, "k1")
    if restarts:
        follow(central, tmp_path)
    write_state(tmp_path, {"state": state, "end_date": "2026-01-01T00:00:00Z", "task_outlets": [], "next_method": "go"})
    follow(central, tmp_path)
    assert [json.loads(body) for body in central.states] == [
        {"state": "failed", "end_date": "2026-01-01T00:00:00Z", "rendered_map_index": None}
    ]
    assert "POST k1: 422" in OutboxReader(tmp_path).lost
    assert "so the task fails" in log_of(tmp_path)[0]


@pytest.mark.parametrize("state", ["failed", "up_for_retry"])
def test_a_task_that_failed_anyway_keeps_its_state(tmp_path: Path, state: str) -> None:
    central = CentralStub(Executed(422, {}, b"{}"))
    write(tmp_path, "k1")
    write_state(tmp_path, {"state": state, "retry_delay_seconds": 5})
    follow(central, tmp_path)
    assert [json.loads(body) for body in central.states] == [{"state": state, "retry_delay_seconds": 5}]


def test_a_repeated_state_after_a_lost_write_has_the_same_bytes(tmp_path: Path) -> None:
    central = CentralStub(Executed(422, {}, b"{}"), Unreachable("away"), Unreachable("away"))
    write(tmp_path, "k1")
    write_state(tmp_path, {"state": "deferred"})
    follow(central, tmp_path)
    assert len(central.states) == 3
    assert len(set(central.states)) == 1


def test_a_refused_state_is_written_to_the_log_and_loses_nothing(tmp_path: Path) -> None:
    """A user has marked the task meanwhile: the user's state counts."""
    write_state(tmp_path, {"state": "success"})
    follow(CentralStub(Executed(409, {}, b"{}")), tmp_path)
    assert OutboxReader(tmp_path).lost == ""
    assert "its state was accepted" in log_of(tmp_path)[0]


def test_a_refusal_before_a_restart_is_written_to_the_log_after_it(tmp_path: Path) -> None:
    OutboxReader(tmp_path).refuse("POST k1: 403", is_lost=True)
    follow(CentralStub(), tmp_path)
    assert log_of(tmp_path) == ["POST k1: 403"]
    follow(CentralStub(), tmp_path)
    assert len(log_of(tmp_path)) == 1


def test_an_error_of_the_execution_api_is_repeated_but_not_for_ever(tmp_path: Path) -> None:
    write(tmp_path, "k1", "k2")
    central = CentralStub(*[Executed(500, {}, b"")] * 5)
    follow(central, tmp_path)
    assert central.received == ["k1", "k2"]
    write(tmp_path, "k3", "k4")
    clock = HandClock()
    begun = clock.now
    central = CentralStub()
    central.poison = "k3"
    follow(central, tmp_path, None, clock)
    assert central.received == ["k4"]
    assert 600 <= clock.now - begun < 1000
    assert "POST k3: 500" in log_of(tmp_path)[0]


def test_a_conflict_with_an_earlier_copy_of_the_same_write_is_resolved(tmp_path: Path) -> None:
    """The earlier copy was sent to a central that hung: when it continues, it runs both at once, and the database accepts one."""
    write(tmp_path, "k1", "k2")
    central = CentralStub(Executed(409, {}, b'{"detail": {"reason": "Unique constraint violation"}}'))
    follow(central, tmp_path)
    assert central.tried == ["k1", "k1", "k2"]
    assert log_of(tmp_path) == []


def test_a_conflict_that_lasts_is_a_refusal(tmp_path: Path) -> None:
    write(tmp_path, "k1", "k2")
    clock = HandClock()
    begun = clock.now
    central = CentralStub(*[Executed(409, {}, b"{}")] * 100)
    follow(central, tmp_path, None, clock)
    assert "POST k1: 409" in log_of(tmp_path)[0]
    assert 30 <= clock.now - begun < 150


def test_the_writes_of_a_superseded_job_are_dropped(tmp_path: Path) -> None:
    write(tmp_path, "k1", "k2")
    central = CentralStub(Superseded("epoch 2 exists"))
    job = follow(central, tmp_path)
    assert central.tried == ["k1"]
    assert job.superseded.is_set()
    assert log_of(tmp_path) == []


def test_damage_is_written_to_the_log(tmp_path: Path) -> None:
    write(tmp_path, "k1")
    body = bytearray((tmp_path / "outbox").read_bytes())
    body[-1] ^= 0xFF
    (tmp_path / "outbox").write_bytes(body)
    follow(CentralStub(), tmp_path)
    assert "are lost" in log_of(tmp_path)[0]
