"""A stub of the daemon (its local gateway and its side of the zygote's socket), and a real runtime to run real Dags in."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from airflow_remote_worker import shim
from airflow_remote_worker.local import frames, job_files

LAUNCH = Path(shim.__file__).with_name("launch.py")
KEY = "key-of-this-job"
NOW = "2026-01-01T00:00:00Z"
RUN_CONTEXT = {
    "dag_run": {
        "dag_id": "a_dag",
        "run_id": "a_run",
        "logical_date": NOW,
        "data_interval_start": NOW,
        "data_interval_end": NOW,
        "run_after": NOW,
        "start_date": NOW,
        "end_date": None,
        "run_type": "manual",
        "state": "running",
        "conf": {},
        "consumed_asset_events": [],
        "partition_key": None,
    },
    "max_tries": 0,
    "should_retry": False,
}
CONNECTION = {
    "conn_id": "vault",
    "conn_type": "http",
    "host": "vault.example",
    "schema": None,
    "login": "me",
    "password": "correct-horse-battery",
    "port": None,
    "extra": None,
}


def wait_until(condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """Return the first true value of *condition*."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {timeout_s} s")


def canned(call: frames.Call) -> frames.Answer:
    """Answer as the Execution API would for a task that runs undisturbed."""
    status, body = 404, {"detail": {"reason": "not_found", "message": call.path}}
    if call.path.endswith("/run"):
        status, body = 200, RUN_CONTEXT
    elif call.path == "connections/vault" or call.path.endswith("/connection"):
        status, body = 200, CONNECTION
    elif call.method != "GET":
        status, body = 200, {"message": "ok"}
    return frames.Answer(id=call.id, status=status, headers={"content-type": "application/json"}, body=json.dumps(body).encode())


class StubDaemon:
    """Serves `gateway.sock` in threads; can go away and come back, as a restarted daemon does."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path
        self.hellos: list[frames.Hello] = []
        self.calls: list[frames.Call] = []
        self.spooled = 0
        """How often a shim said that its outbox holds something."""
        self.answer: Callable[[frames.Call], frames.Answer | frames.Spool | None] = canned
        self._connections: list[socket.socket] = []
        self.start()

    def start(self) -> None:
        self.socket_path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.socket_path))
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def go_away(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.socket_path.unlink(missing_ok=True)
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._connections = []

    def stop_job(self, reason: str = "ended", detail: str = "") -> None:
        self._connections[-1].sendall(frames.pack(frames.Stop(reason=reason, detail=detail)))

    def paths(self, ending: str) -> list[frames.Call]:
        return [call for call in self.calls if call.path.endswith(ending)]

    def reported_states(self) -> list[str]:
        return [json.loads(call.body)["state"] for call in self.paths("/state")]

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, frames.BrokenFrame):
            hello = frames.receive(connection)
            assert isinstance(hello, frames.Hello)
            self._connections.append(connection)
            self.hellos.append(hello)
            while (call := frames.receive(connection)) is not None:
                if not isinstance(call, frames.Call):
                    self.spooled += 1
                    continue
                self.calls.append(call)
                if (answer := self.answer(call)) is not None:
                    connection.sendall(frames.pack(answer))


@pytest.fixture
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StubDaemon]:
    # Not under tmp_path, whose length may pass the 108 bytes of a unix socket's path.
    stub = StubDaemon(Path(tmp_path_factory.mktemp("d")) / "g.sock")
    yield stub
    stub.go_away()


@pytest.fixture(scope="session")
def runtime() -> str:
    """The interpreter of the lean task runtime."""
    path = os.environ.get("AIRFLOW_REMOTE_TEST_RUNTIME")
    if not path:
        pytest.skip("AIRFLOW_REMOTE_TEST_RUNTIME names no interpreter of a task runtime")
    return path


@pytest.fixture(scope="session")
def runtime_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON", "COVERAGE"))}
    # With Airflow 3.4 a task that does not obey a stop is killed after this; with 3.3 always after 5 s.
    kept["AIRFLOW__CORE__KILLED_TASK_CLEANUP_TIME"] = "5"
    return {**kept, "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow-home"))}


class Job:
    """A job directory and the shim that works in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pid = 0
        self.spawned_at = 0.0

    def result(self, timeout_s: float = 60.0) -> job_files.Result:
        path = self.directory / "result.json"
        try:
            wait_until(path.exists, timeout_s)
        except AssertionError:
            shim_log = self.directory / "shim.log"
            raise AssertionError(f"no result; shim.log: {shim_log.read_text() if shim_log.exists() else 'none'}") from None
        return msgspec.json.decode(path.read_bytes(), type=job_files.Result)

    def log(self) -> list[dict[str, Any]]:
        path = self.directory / "task.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def events(self) -> str:
        return "\n".join(str(line.get("event")) for line in self.log())

    def wait_for_event(self, text: str) -> None:
        wait_until(lambda: (self.directory / "task.log").exists() and text in (self.directory / "task.log").read_text())

    def stamp(self, text: str) -> float:
        """The moment that a line `TEXT <seconds since the epoch>` in the log gives."""
        return next(float(line["event"].split()[-1]) for line in self.log() if line.get("event", "").startswith(text))


@pytest.fixture
def make_job(tmp_path: Path, daemon: StubDaemon) -> Iterator[Callable[..., Job]]:
    """Write a Dag file and the directory of a job that runs its `task_id`."""
    jobs: list[Job] = []

    def make(dag_source: str, *, task_id: str = "a_task", queue: str = "factory", **other: Any) -> Job:
        """*other*: `kind` and `workload` of a job that is no task; more fields of `job.json`."""
        name = f"job{len(jobs)}"
        bundle = tmp_path / f"bundle-$HOME-{name}"  # a dollar, because Airflow expands variables in its configuration
        bundle.mkdir()
        (bundle / "a_dag.py").write_text(dag_source)
        directory = tmp_path / name
        directory.mkdir()
        ti = {
            "id": str(uuid.uuid4()),
            "dag_version_id": str(uuid.uuid4()),
            "task_id": task_id,
            "dag_id": "a_dag",
            "run_id": "a_run",
            "try_number": 1,
            "map_index": -1,
            "pool_slots": 1,
            "priority_weight": 1,
            "queue": queue,
        }
        workload = {"ti": ti, "dag_rel_path": "a_dag.py", "bundle": {"name": "dags", "version": "v1"}}
        workload = other.pop("workload", workload)
        spec = job_files.JobSpec(
            job_id=name,
            key=KEY,
            socket_path=str(daemon.socket_path),
            worker_name="press-7",
            queue=queue,
            workload=msgspec.Raw(json.dumps(workload).encode()),
            bundle_path=str(bundle),
            **other,
        )
        (directory / "job.json").write_bytes(msgspec.json.encode(spec))
        job = Job(directory)
        jobs.append(job)
        return job

    yield make
    for job in jobs:
        with suppress(psutil.NoSuchProcess):
            if job.pid and not (job.directory / "result.json").exists():
                shim = psutil.Process(job.pid)
                for process in [*shim.children(recursive=True), shim]:
                    process.send_signal(signal.SIGKILL)


class ZygoteUnderTest:
    """The daemon's end of a real zygote."""

    def __init__(self, interpreter: str, environment: dict[str, str]) -> None:
        self.control, theirs = socket.socketpair()
        with theirs:
            arguments = [interpreter, str(LAUNCH), "zygote", "--control-fd", str(theirs.fileno())]
            self.process = subprocess.Popen(arguments, pass_fds=[theirs.fileno()], env=environment)
        self.first = frames.receive(self.control)

    def spawn(self, job: Job) -> frames.Spawned:
        job.spawned_at = time.time()
        self.control.sendall(frames.pack(frames.Spawn(job_dir=str(job.directory))))
        spawned = frames.receive(self.control)
        assert isinstance(spawned, frames.Spawned)
        job.pid = spawned.pid
        return spawned

    def leave(self) -> int:
        self.control.close()
        return self.process.wait(10)


@pytest.fixture(scope="session")
def zygote(runtime: str, runtime_environment: dict[str, str]) -> Iterator[ZygoteUnderTest]:
    """One for all tests: that it can be used again and again is part of what is tested."""
    one = ZygoteUnderTest(runtime, runtime_environment)
    assert isinstance(one.first, frames.Ready), one.first
    yield one
    one.leave()


@pytest.fixture
def new_zygote(runtime_environment: dict[str, str]) -> Iterator[Callable[[str], ZygoteUnderTest]]:
    made: list[ZygoteUnderTest] = []

    def start(interpreter: str) -> ZygoteUnderTest:
        made.append(ZygoteUnderTest(interpreter, runtime_environment))
        return made[-1]

    yield start
    for one in made:
        one.leave()


@pytest.fixture
def run_host(runtime: str, runtime_environment: dict[str, str]) -> Callable[[Job], None]:
    """Host a job without a zygote."""

    def run(job: Job) -> None:
        job.spawned_at = time.time()
        subprocess.run([runtime, str(LAUNCH), "host", str(job.directory)], env=runtime_environment, check=True, timeout=120)

    return run
