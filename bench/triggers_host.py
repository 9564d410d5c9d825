"""Measures a thousand waiting triggers on one worker: memory, requests and CPU while they wait, and the delay of events.

Central is the fake one, in a process separate from the worker, so that its memory and CPU are not measured::

    .work/dev/bin/python -m bench.triggers_host --runtime .work/runtime/bin/python
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
import psutil
from airflow_remote_protocol.messages import Enrolment, JobKind
from airflow_remote_protocol.states import JobState
from airflow_remote_worker.clock import SystemClock
from airflow_remote_worker.link.client import Link
from airflow_remote_worker.link.network import Network
from airflow_remote_worker.state.directory import Membership, State
from airflow_remote_worker.testing.fake_central import FakeCentral

from bench.effort import pss_mb

TRIGGERS = """
import asyncio
from pathlib import Path
from airflow.triggers.base import BaseTrigger, TriggerEvent

class Wait(BaseTrigger):
    def __init__(self, path, every_s):
        super().__init__()
        self.path, self.every_s = path, every_s
    def serialize(self):
        return "site_triggers.Wait", {"path": self.path, "every_s": self.every_s}
    async def run(self):
        while not Path(self.path).exists():
            self.log.info("still waiting for %s", self.path)
            await asyncio.sleep(self.every_s)
        yield TriggerEvent(self.path)
"""
SETTLE_S = 15.0
"""The wait after the start, in which its logs are shipped."""


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", type=Path, default=Path(".work/runtime/bin/python"))
    parser.add_argument("--triggers", type=int, default=1000)
    parser.add_argument("--every-s", type=float, default=30.0, help="how often each trigger logs")
    parser.add_argument("--measure-s", type=float, default=60.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root, FakeCentral() as central:
        measure(central, Path(root), arguments)


def measure(central: FakeCentral, root: Path, arguments: argparse.Namespace) -> None:
    state, bundle = join(central, root), root / "dags"
    bundle.mkdir()
    (bundle / "site_triggers.py").write_text(TRIGGERS)
    (bundle / "a_dag.py").write_text("")
    argv = [sys.executable, "-m", "airflow_remote_worker", "run", "--state", str(state.root), "--slots", "16"]
    argv += ["--runtime-python", str(arguments.runtime.absolute()), "--bundle", f"dags-folder={bundle}"]
    # Includes the triggers of `fire()`.
    environment = {**os.environ, "AIRFLOW_REMOTE_WORKER_TRIGGERS": str(arguments.triggers + 100)}
    daemon = psutil.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        # One trigger first, so that the memory of an idle host and of the daemon's modules is not counted.
        warm = enqueue(central, root, 1, every_s=3600)
        central.wait_until(lambda: running(central, warm) == 1, timeout_s=120)
        time.sleep(SETTLE_S)
        before = footprint(daemon)
        begun = time.monotonic()
        job_ids = enqueue(central, root, arguments.triggers, every_s=arguments.every_s)
        central.wait_until(lambda: running(central, job_ids) == len(job_ids), timeout_s=300)
        print(f"{len(job_ids)} offers accepted after {time.monotonic() - begun:.1f} s")
        time.sleep(SETTLE_S + arguments.every_s)
        after = footprint(daemon)
        for name in before:
            print(
                f"PSS of the {name}: {before[name]:.1f} MB with 1 trigger, {after[name]:.1f} MB with {len(job_ids) + 1}",
                flush=True,
            )
        print(f"requests while they wait: {rate(central, arguments.measure_s, daemon)}")
        fire(central, root, job_ids)
    finally:
        hosts = [process for process in daemon.children(recursive=True) if process.pid != daemon.pid]
        daemon.terminate()
        daemon.wait(30)
        for process in hosts:
            if process.is_running():
                process.kill()


def join(central: FakeCentral, root: Path) -> State:
    state = State(root / "state")

    async def enrol() -> None:
        link = Link(Network(central=central.url), credential=central.enrolment_token(["q"]), clock=SystemClock())
        got = await link.enrol(Enrolment(name="bench"))
        await link.close()
        state.join(Membership(central=central.url, worker_id=got.worker_id, name=got.name, credential=got.credential))

    anyio.run(enrol)
    return state


def enqueue(central: FakeCentral, root: Path, count: int, *, every_s: float) -> list[str]:
    made = []
    for n in range(count):
        kwargs = {"path": str(root / f"fire-{count}-{n}"), "every_s": every_s}
        workload = {"classpath": "site_triggers.Wait", "kwargs": kwargs}
        made.append(central.enqueue("q", kind=JobKind.TRIGGER, workload=workload))
    return made


def running(central: FakeCentral, job_ids: list[str]) -> int:
    return sum(central.job(job_id).state is JobState.RUNNING for job_id in job_ids)


def footprint(daemon: psutil.Process) -> dict[str, float]:
    """Return the PSS of the daemon and of its trigger host, in MB."""
    zygotes = daemon.children()
    hosts = [host for zygote in zygotes for host in zygote.children()]
    return {"daemon": pss_mb([daemon]), "zygote": pss_mb(zygotes), "trigger host": pss_mb(hosts)}


def rate(central: FakeCentral, seconds: float, daemon: psutil.Process) -> str:
    begun, cpu = len(central.requests), daemon.cpu_times()
    time.sleep(seconds)
    requests = central.requests[begun:]
    kinds: dict[str, int] = {}
    for request in requests:
        kinds[request.path.partition("?")[0]] = kinds.get(request.path.partition("?")[0], 0) + 1
    used = daemon.cpu_times()
    core = (used.user + used.system - cpu.user - cpu.system) / seconds
    return f"{len(requests) / seconds:.2f}/s {kinds}; daemon {core:.1%} of a core"


def fire(central: FakeCentral, root: Path, job_ids: list[str]) -> None:
    """Fire ten triggers one after the other; print the median delay of the event, which includes the trigger's poll of 10 ms."""
    path = root / "fire-now"
    workload = {"classpath": "site_triggers.Wait", "kwargs": {"path": str(path), "every_s": 0.01}}
    taken = []
    for _ in range(10):
        path.unlink(missing_ok=True)
        job_id = central.enqueue("q", kind=JobKind.TRIGGER, workload=workload)
        central.wait_until(lambda job_id=job_id: running(central, [job_id]) == 1, timeout_s=30)  # type: ignore[misc]
        time.sleep(0.5)
        begun = time.monotonic()
        path.write_text("")
        while central.job(job_id).event is None:
            time.sleep(0.001)
        taken.append(time.monotonic() - begun)
    print(f"event at central after {sorted(taken)[len(taken) // 2] * 1000:.0f} ms (median), {len(job_ids)} others waiting")


if __name__ == "__main__":
    main()
