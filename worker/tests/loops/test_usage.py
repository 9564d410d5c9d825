"""The usage of jobs is reported while there are jobs, at central's interval. An idle worker reports nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
from airflow_remote_protocol.errors import ProblemCode, make_problem
from airflow_remote_protocol.messages import MachineUsage, Usage
from airflow_remote_worker.errors import Unreachable, from_problem
from airflow_remote_worker.jobs.usage import Meter
from airflow_remote_worker.loops.usage import FIRST_S, REFUSED_PAUSE_S, UsageLoop

from ..conftest import HandClock

pytestmark = pytest.mark.timeout(30)

MB = 1 << 20
MACHINE = MachineUsage(cpus=0, cpu_count=1, memory=0, memory_total=1, disk_free=0)


class CentralStub:
    """Central's side. First raises *trouble* in turn."""

    def __init__(self, *trouble: Exception, every_s: float = 30.0) -> None:
        self.received: list[Usage] = []
        self.calls = 0
        self.every_s = every_s
        self.trouble = list(trouble)

    async def report_usage(self, usage: Usage) -> float:
        self.calls += 1
        if self.trouble:
            raise self.trouble.pop(0)
        self.received.append(usage)
        return self.every_s

    async def wait_for_contact(self, at_most_s: float) -> None:
        await anyio.sleep(0)


class Still:
    """A meter that reads nothing."""

    def read(self, shims: dict[str, int]) -> tuple[MachineUsage, dict[str, object]]:
        return MACHINE, {}


def run_loop(
    central: CentralStub, jobs: dict[str, int], *, wanted: bool = True, until: Callable[[], bool] = lambda: True
) -> list[float]:
    """Run the loop with jobs that begin after a moment, until *until* is true; return the durations for which it slept."""
    clock = HandClock()

    async def main() -> None:
        begun: dict[str, int] = {}
        loop = UsageLoop(central, clock, meter=Still(), shims=lambda: begun)  # type: ignore[arg-type]
        loop.set_wanted(wanted=wanted)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(loop.run)
            await anyio.sleep(0.05)
            assert central.calls == 0, "an idle worker reports nothing"
            begun.update(jobs)
            loop.on_job_held()
            with anyio.fail_after(60):
                while not until():
                    await anyio.sleep(0.005)
            tasks.cancel_scope.cancel()

    anyio.run(main)
    return clock.naps


def test_usage_is_reported_while_there_are_jobs_at_central_s_interval() -> None:
    central = CentralStub()
    naps = run_loop(central, {"a": 1}, until=lambda: len(central.received) >= 3)
    assert naps[:3] == [FIRST_S, 30.0, 30.0]


def test_nothing_is_reported_to_a_central_that_does_not_accept_it() -> None:
    central = CentralStub()
    run_loop(central, {"a": 1}, wanted=False, until=lambda: True)
    assert central.calls == 0


def test_neither_a_refusal_nor_an_outage_ends_the_reports() -> None:
    central = CentralStub(Unreachable("away"), from_problem(make_problem(ProblemCode.INVALID, "no")), every_s=0.0)
    naps = run_loop(central, {"a": 1}, until=lambda: len(central.received) >= 1)
    assert REFUSED_PAUSE_S in naps and central.calls >= 3
    assert min(naps) >= FIRST_S, "there is a pause even if central answers 0"


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """A process in its own session, like a shim, whose child uses a processor and 64 MB."""
    child = "held = bytearray(b'x') * (64 << 20)\nimport time\nend = time.monotonic() + 120\nwhile time.monotonic() < end: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    yield process
    os.killpg(process.pid, 9)
    process.wait()


def test_a_jobs_processes_are_measured_and_no_others(busy: subprocess.Popen[bytes], tmp_path: Path) -> None:
    meter = Meter(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], start_new_session=True) as idle:
        shims = {"busy": busy.pid, "idle": idle.pid, "gone": 2**22 - 1}
        deadline = time.monotonic() + 60
        while True:
            time.sleep(0.5)
            machine, jobs = meter.read(shims)
            if jobs["busy"].memory > 64 * MB and jobs["busy"].cpus > 0.02:
                break
            assert time.monotonic() < deadline, jobs
        idle.kill()
    assert jobs["busy"].cpus < 2 and jobs["busy"].memory < 512 * MB
    assert jobs["idle"].cpus < 0.1 and jobs["idle"].memory < 64 * MB
    assert (jobs["gone"].cpus, jobs["gone"].memory) == (0, 0)
    assert 0.1 < machine.cpus <= machine.cpu_count + 1
    assert 64 * MB < machine.memory < machine.memory_total and machine.disk_free > 0
