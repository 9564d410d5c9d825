"""A whole daemon with the real runtime against the fake central, for triggers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from airflow_remote_protocol.messages import JobKind
from airflow_remote_worker import daemon as daemon_module
from airflow_remote_worker.config import RuntimeConfig
from airflow_remote_worker.jobs import process
from airflow_remote_worker.state.files import read
from airflow_remote_worker.state.spool import ShimRecord
from airflow_remote_worker.testing.fake_central import FakeCentral

from ..conftest import RunningWorker, no_signals

HEAD = """
import asyncio, os, time
from pathlib import Path
from airflow.triggers.base import BaseTrigger, TriggerEvent

class Base(BaseTrigger):
    def __init__(self, **kwargs):
        super().__init__()
        self.kwargs = kwargs
    def serialize(self):
        return f"{type(self).__module__}.{type(self).__qualname__}", self.kwargs

class Wait(Base):
    '''Waits for a file, then fires its content.'''
    async def run(self):
        path = Path(self.kwargs["path"])
        print("waiting for", path)
        while not path.exists():
            await asyncio.sleep(0.05)
        yield TriggerEvent(path.read_text())
    async def on_kill(self):
        Path(self.kwargs["path"] + ".killed").write_text("")

class Read(Base):
    async def run(self):
        from airflow.sdk.bases.hook import BaseHook
        connection = await BaseHook.aget_connection(self.kwargs["conn_id"])
        print("the password is", connection.password)
        yield TriggerEvent(connection.host)

class Chat(Base):
    '''Logs a line every now and then.'''
    async def run(self):
        n = 0
        while True:
            print("line", n)
            n += 1
            await asyncio.sleep(self.kwargs["every_s"])
        yield TriggerEvent(n)

class Lingers(Wait):
    '''Runs on after its event, and cleans up slowly.'''
    async def run(self):
        async for event in super().run():
            yield event
        print("after the event")
    async def cleanup(self):
        while not Path(self.kwargs["path"] + ".ended").exists():
            await asyncio.sleep(0.05)
        print("cleaned up")

class Die(Base):
    async def run(self):
        await asyncio.sleep(self.kwargs.get("after_s", 0.3))
        os._exit(9)
        yield
"""


class TriggerWorker(RunningWorker):
    """A worker whose bundle holds `site_triggers.py`."""

    def __init__(self, central: FakeCentral, root: Path, runtime: str, **settings: Any) -> None:
        super().__init__(central, root, **settings)
        self.runtime = runtime
        self.config = msgspec.structs.replace(self.config, runtime=RuntimeConfig(python=Path(runtime)))
        (self.bundle / "site_triggers.py").write_text(HEAD)
        (self.bundle / "a_dag.py").write_text("")
        self.files = root / "files"
        self.files.mkdir()

    def defer(self, name: str = "Wait", **kwargs: Any) -> str:
        """Queue a trigger of `site_triggers.py`."""
        workload = {"classpath": f"site_triggers.{name}", "kwargs": kwargs}
        return self.central.enqueue("q", kind=JobKind.TRIGGER, workload=workload)

    def wait_for(self, name: str) -> str:
        """Queue a trigger that waits for :meth:`fire` of the same name."""
        return self.defer(path=str(self.files / name))

    def fire(self, name: str, text: str = "here") -> None:
        (self.files / f".{name}").write_text(text)
        (self.files / f".{name}").rename(self.files / name)

    def was_killed(self, name: str) -> bool:
        return (self.files / f"{name}.killed").exists()

    def host_pids(self) -> list[int]:
        return [read(ShimRecord, path).pid for path in sorted(self.state.hosts.glob("*/shim.json"))]

    def has_logged(self, job_id: str, text: bytes) -> bool:
        """Whether the trigger has logged *text*, here or at central."""
        waiting = b"".join(path.read_bytes() for path in self.state.triggers.glob(f"{job_id}.*/log.*"))
        return text in waiting or text in self.central.log_bytes(job_id)

    def held(self) -> list[str]:
        return sorted(path.name for path in self.state.triggers.iterdir())

    def end_processes(self) -> None:
        super().end_processes()
        for path in self.state.hosts.glob("*/shim.json"):
            process.kill(read(ShimRecord, path))


@pytest.fixture(scope="session")
def runtime() -> str:
    path = os.environ.get("AIRFLOW_REMOTE_TEST_RUNTIME")
    if not path:
        pytest.skip("AIRFLOW_REMOTE_TEST_RUNTIME names no interpreter of a task runtime")
    return path


@pytest.fixture
def worker(central: FakeCentral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str) -> Iterator[TriggerWorker]:
    # A thread can't have signal handlers.
    monkeypatch.setattr(daemon_module, "daemon_signals", no_signals)
    worker = TriggerWorker(central, tmp_path, runtime)
    worker.join()
    yield worker
    worker.detach()
    worker.end_processes()
