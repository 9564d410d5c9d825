"""Fixtures of several worker tests: a clock that tests set, a joined worker, a daemon in its own thread."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import msgspec
import psutil
import pytest
from airflow_remote_protocol.messages import Enrolment, JobKind, Offer
from airflow_remote_worker import daemon as daemon_module
from airflow_remote_worker.clock import SystemClock
from airflow_remote_worker.config import BundleConfig, Config, PollConfig, RuntimeConfig
from airflow_remote_worker.daemon import Daemon, serve
from airflow_remote_worker.jobs import launcher, process
from airflow_remote_worker.lifecycle import Lifecycle
from airflow_remote_worker.link.client import Link
from airflow_remote_worker.link.network import Network
from airflow_remote_worker.state.directory import Membership, State
from airflow_remote_worker.state.spool import ShimRecord
from airflow_remote_worker.testing.fake_central import FakeCentral, Timing

FAKE_RUNTIME = Path(__file__).with_name("fake_runtime.py")


class HandClock:
    """A clock that only tests and sleeping move."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now

    def chance(self) -> float:
        return 0.5

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds
        await anyio.sleep(0)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def state(tmp_path: Path) -> State:
    state = State(tmp_path / "state")
    state.prepare()
    return state


def make_offer(job_id: str = "11111111-0000", epoch: int = 1, **fields: Any) -> Offer:
    workload = {"ti": {"id": "ti-1"}, "dag_rel_path": "a_dag.py", "bundle": {"name": "dags-folder", "version": None}}
    defaults: dict[str, Any] = {
        "kind": JobKind.TASK,
        "queue": "q",
        "slots": 1,
        "deadline_s": 30.0,
        "stop_after_s": 3000.0,
        "workload": msgspec.Raw(msgspec.json.encode(workload)),
    }
    return Offer(job_id=job_id, epoch=epoch, **{**defaults, **fields})


class RunningWorker:
    """A whole daemon against a fake central, in a thread; its runtime is `fake_runtime.py`."""

    def __init__(
        self,
        central: FakeCentral,
        root: Path,
        *,
        slots: int = 4,
        bundles: dict[str, BundleConfig] | None = None,
        runtime: RuntimeConfig | None = None,
        **settings: Any,
    ) -> None:
        """*bundles*: None: the site has the bundle `dags-folder`. *runtime*: None: it has a runtime of its own."""
        env = settings.pop("env", {})
        self.central = central
        self.state = State(root / "state")
        self.bundle = root / "dags"
        self.bundle.mkdir(exist_ok=True)
        self.config = Config(
            state=self.state.root,
            central=central.url,
            slots=slots,
            runtime=runtime or RuntimeConfig(python=Path(sys.executable), env=env),
            bundles={"dags-folder": BundleConfig(path=self.bundle)} if bundles is None else bundles,
            poll=PollConfig(max_wait_s=20, backoff_ceiling_s=0.5),
            **settings,
        )
        self.lifecycle: Lifecycle | None = None
        self.exit_code: int | None = None
        self.daemon: Daemon | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._thread: threading.Thread | None = None
        self._stop: Callable[[str], None] = lambda how: None

    def join(self, name: str = "w1") -> None:
        async def enrol() -> None:
            link = Link(Network(central=self.central.url), credential=self.central.enrolment_token(["q"]), clock=SystemClock())
            got = await link.enrol(Enrolment(name=name))
            await link.close()
            self.state.join(
                Membership(central=self.central.url, worker_id=got.worker_id, name=got.name, credential=got.credential)
            )

        anyio.run(enrol)

    def start(self) -> None:
        ready = threading.Event()

        async def main() -> int:
            self.lifecycle = Lifecycle()
            token = anyio.lowlevel.current_token()
            self._stop = lambda how: anyio.from_thread.run_sync(getattr(self.lifecycle, how), "test", token=token)
            ready.set()
            return await serve(self.config, self.state, lifecycle=self.lifecycle)

        def run() -> None:
            with self.state.locked():
                self.exit_code = anyio.run(main)

        self._thread = threading.Thread(target=run, name="worker", daemon=True)
        self._thread.start()
        assert ready.wait(10)

    def start_process(self, extra_env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start the real command in its own process, with the fake runtime."""
        code = (
            "import sys, pathlib; from airflow_remote_worker import cli; from airflow_remote_worker.jobs import launcher;"
            f" launcher.LAUNCHER = pathlib.Path({str(FAKE_RUNTIME)!r}); sys.exit(cli.main())"
        )
        argv = [sys.executable, "-c", code, "run", "--state", str(self.state.root), "--slots", "4"]
        if self.config.runtime.python is not None:
            argv += ["--runtime-python", sys.executable]
        argv += ["--bundle", f"dags-folder={self.bundle}"]
        own = {f"AIRFLOW_REMOTE_WORKER_RUNTIME__ENV__{name}": value for name, value in self.config.runtime.env.items()}
        return self.keep(subprocess.Popen(argv, env={**os.environ, **own, **(extra_env or {})}))

    def keep(self, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        """Let a daemon end with the test."""
        self._processes.append(process)
        return process

    def detach(self) -> int | None:
        return self._end("detach")

    def drain(self) -> int | None:
        return self._end("drain")

    def wait(self, timeout_s: float = 20) -> int | None:
        assert self._thread is not None
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the daemon did not end"
        return self.exit_code

    def _end(self, how: str) -> int | None:
        if self._thread and self._thread.is_alive():
            self._stop(how)
            self.wait()
        return self.exit_code

    def end_processes(self) -> None:
        for started in self._processes:
            started.kill()
            started.wait()
        # Shims outlive their daemon by design.
        for file in self.state.jobs.glob("*/shim.json"):
            process.kill(msgspec.json.decode(file.read_bytes(), type=ShimRecord))

    def enqueue(self, script: str, **more: Any) -> str:
        name = f"dag_{time.monotonic_ns()}.py"
        (self.bundle / name).write_text(script)
        return self.central.enqueue("q", workload={"dag_rel_path": name}, **more)

    def enqueue_tree(self, script: str, files: dict[str, bytes] | None = None, **more: Any) -> str:
        """Queue a task whose code central sends."""
        digest = self.central.publish({"a_dag.py": script.encode(), **(files or {})})
        return self.central.enqueue("q", tree=self.central.code.ref(digest), **more)

    def daemon_status(self) -> dict[str, Any]:
        return dict(msgspec.json.decode(self.state.status_path.read_bytes()))

    def job_dir(self, job_id: str) -> Path:
        (found,) = self.state.jobs.glob(f"{job_id}.*")
        return found


def eventually(holds: Callable[[], Any], timeout_s: float = 15) -> Any:
    """Wait for a true value of *holds*() and return it."""
    until = time.monotonic() + timeout_s
    while not (value := holds()):
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.02)
    return value


@pytest.fixture
def central() -> Iterator[FakeCentral]:
    with FakeCentral(timing=Timing(redelivery_s=0.3)) as central:
        yield central


@pytest.fixture
def worker(central: FakeCentral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningWorker]:
    monkeypatch.setattr(launcher, "LAUNCHER", FAKE_RUNTIME)
    # A thread can't have signal handlers.
    monkeypatch.setattr(daemon_module, "daemon_signals", no_signals)
    worker = RunningWorker(central, tmp_path)
    worker.join()
    yield worker
    worker.detach()
    worker.end_processes()


def no_signals(lifecycle: Lifecycle) -> Any:
    return contextlib.AsyncExitStack()


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
