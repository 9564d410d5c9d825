"""A stub of the daemon's side of trigger hosts, and real hosts in the lean runtime."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from airflow_remote_worker.local import boottime, frames, job_files

from ..conftest import CONNECTION, wait_until

KEY = "key-of-this-host"


def answer_calls(call: frames.TriggerCall) -> frames.Answer:
    """Answer as central's gateway would: one connection is granted, one is not."""
    status, body = 404, {"detail": {"reason": "not_found", "message": call.path}}
    if call.path == "connections/vault":
        status, body = 200, CONNECTION
    elif call.path == "connections/secret":
        status, body = 403, {"detail": {"reason": "not_granted", "message": "nothing grants the connection 'secret'"}}
    elif call.path.startswith("variables/"):
        name = call.path.removeprefix("variables/")
        status, body = 200, {"key": name, "value": f"value of {name} for {call.lease[0]}"}
    return frames.Answer(id=call.id, status=status, headers={"content-type": "application/json"}, body=json.dumps(body).encode())


class StubDaemon:
    """Serves one trigger host in threads; can go away and come back, as a restarted daemon does."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path
        self.hellos: list[frames.HostHello] = []
        self.events: dict[frames.LeaseName, list[dict[str, Any]]] = {}
        self.cancelled: list[frames.LeaseName] = []
        self.logs: dict[frames.LeaseName, bytes] = {}
        self.complete: list[frames.LeaseName] = []
        self.calls: list[frames.TriggerCall] = []
        self.blocked: list[frames.Blocked] = []
        self.kept: list[frames.LeaseName] | None = None
        """The triggers that the next connection must keep; None: all that it names."""
        self.acknowledges = True
        self.answer: Callable[[frames.TriggerCall], frames.Answer | None] = answer_calls
        self._connections: list[socket.socket] = []
        self._writing = threading.Lock()
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

    def send(self, frame: msgspec.Struct) -> None:
        with self._writing:
            wait_until(lambda: self._connections)[-1].sendall(frames.pack(frame))

    def log(self, lease: frames.LeaseName) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.logs.get(lease, b"").splitlines()]

    def lines(self, lease: frames.LeaseName) -> str:
        return "\n".join(str(line["event"]) for line in self.log(lease))

    def event(self, lease: frames.LeaseName) -> dict[str, Any]:
        return wait_until(lambda: self.events.get(lease))[0]  # type: ignore[no-any-return]

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, frames.BrokenFrame):
            hello = frames.receive(connection)
            assert isinstance(hello, frames.HostHello)
            kept = hello.leases if self.kept is None else self.kept
            connection.sendall(frames.pack(frames.KeepTriggers(kept)))
            self._connections.append(connection)
            self.hellos.append(hello)
            while (frame := frames.receive(connection)) is not None:
                self._take(frame)

    def _take(self, frame: frames.Frame) -> None:
        if isinstance(frame, frames.Fired):
            self.events.setdefault(frame.lease, []).append(json.loads(frame.event))
            if self.acknowledges:
                self.send(frames.Taken(frame.lease))
        elif isinstance(frame, frames.Cancelled):
            self.cancelled.append(frame.lease)
            self.send(frames.Taken(frame.lease))
        elif isinstance(frame, frames.Lines):
            for lease, text in frame.lines:
                self.logs[lease] = self.logs.get(lease, b"") + text
            self.complete += frame.complete
            if self.acknowledges:
                self.send(frames.LinesTaken(frame.number))
        elif isinstance(frame, frames.TriggerCall):
            self.calls.append(frame)
            if (answer := self.answer(frame)) is not None:
                self.send(answer)
        elif isinstance(frame, frames.Blocked):
            self.blocked.append(frame)


@pytest.fixture
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StubDaemon]:
    # Not under tmp_path, whose length may pass the 108 bytes of a unix socket's path.
    stub = StubDaemon(Path(tmp_path_factory.mktemp("d")) / "g.sock")
    yield stub
    stub.go_away()


class Host:
    """A trigger host and the bundle that it serves."""

    def __init__(self, directory: Path, bundle: Path, daemon: StubDaemon) -> None:
        self.directory = directory
        self.bundle = bundle
        self.daemon = daemon
        self.pid = 0
        self._number = 0

    def write(self, name: str, source: str) -> None:
        (self.bundle / name).write_text(source)

    def start(
        self, classpath: str, kwargs: dict[str, Any] | None = None, *, dag: str = "a_dag.py", **more: Any
    ) -> frames.LeaseName:
        """Start a trigger; *kwargs* are encoded already."""
        self._number += 1
        lease = (f"job{self._number}", 1)
        ti = {
            "id": str(uuid.uuid4()),
            "dag_version_id": str(uuid.uuid4()),
            "task_id": "a_task",
            "dag_id": "a_dag",
            "run_id": "a_run",
            "try_number": 1,
            "map_index": -1,
            "pool_slots": 1,
            "priority_weight": 1,
            "queue": "factory",
        }
        workload = {
            "ti": ti,
            "classpath": classpath,
            "kwargs": kwargs or {},
            "dag_rel_path": dag,
            "bundle": {"name": "dags", "version": None},
        }
        order = frames.StartTrigger(lease, json.dumps(workload).encode(), **{"contact_at": boottime.now(), **more})
        self.daemon.send(order)
        return lease

    def run(self, source: str, kwargs: dict[str, Any] | None = None, name: str = "Trigger") -> frames.LeaseName:
        """Start the class *name* of a module with this source."""
        module = f"module_{uuid.uuid4().hex}"
        self.write(f"{module}.py", source)
        return self.start(f"{module}.{name}", kwargs)

    def worker_log(self) -> str:
        path = self.directory / "shim.log"
        return path.read_text() if path.exists() else ""

    def is_alive(self) -> bool:
        with suppress(psutil.Error):
            return bool(psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE)
        return False


@pytest.fixture
def make_host(tmp_path: Path, daemon: StubDaemon, zygote: Any) -> Iterator[Callable[..., Host]]:
    hosts: list[Host] = []

    def make(**spec: Any) -> Host:
        directory, bundle = tmp_path / f"host-{len(hosts)}", tmp_path / "bundle"
        directory.mkdir()
        bundle.mkdir(exist_ok=True)
        host = Host(directory, bundle, daemon)
        made = job_files.HostSpec(directory.name, KEY, str(daemon.socket_path), "press-7", "dags", str(bundle), **spec)
        (directory / "host.json").write_bytes(msgspec.json.encode(made))
        hosts.append(host)
        zygote.control.sendall(frames.pack(frames.Spawn(job_dir=str(directory))))
        spawned = frames.receive(zygote.control)
        assert isinstance(spawned, frames.Spawned)
        host.pid = spawned.pid
        try:
            wait_until(lambda: daemon.hellos)
        except AssertionError:
            raise AssertionError(f"the host did not connect; its log: {host.own_log()}") from None
        return host

    yield make
    for host in hosts:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            for process in psutil.Process(host.pid).children(recursive=True):
                process.kill()
            os.kill(host.pid, signal.SIGKILL)


@pytest.fixture
def host(make_host: Callable[..., Host]) -> Host:
    return make_host()
