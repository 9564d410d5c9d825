"""Notifications to systemd, received by a real datagram socket."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_remote_worker.lifecycle import EXIT_OK
from airflow_remote_worker.system.systemd import Notifier
from airflow_remote_worker.testing.fake_central import FakeCentral

from ..conftest import RunningWorker, eventually


class Systemd:
    """Receives notifications at *path* and keeps them in order."""

    def __init__(self, path: Path) -> None:
        self.received: list[str] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self._sock.setblocking(False)

    def listen(self) -> list[str]:
        while True:
            try:
                self.received.append(self._sock.recv(4096).decode())
            except BlockingIOError:
                return self.received

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path / "notify")
    yield systemd
    systemd.close()


def test_without_systemd_no_notification_is_sent() -> None:
    notifier = Notifier({})
    notifier.notify_ready()
    notifier.feed_watchdog()
    assert notifier.watchdog_s is None
    assert notifier.longest_poll_s(300) == 300


def test_a_missing_listener_is_ignored(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).notify_ready()


def test_the_abstract_namespace_is_supported() -> None:
    name = f"airflow-remote-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name)
        sock.settimeout(5)
        Notifier({"NOTIFY_SOCKET": "@" + name}).notify_ready()
        assert sock.recv(100) == b"READY=1"


def test_the_watchdog_of_another_process_is_ignored(tmp_path: Path, systemd: Systemd) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"}
    Notifier({**environ, "WATCHDOG_PID": "1"}).feed_watchdog()
    assert systemd.listen() == []
    Notifier({**environ, "WATCHDOG_PID": str(os.getpid())}).feed_watchdog()
    assert systemd.listen() == ["WATCHDOG=1"]


def test_polls_are_short_enough_to_feed_the_watchdog_in_time() -> None:
    notifier = Notifier({"WATCHDOG_USEC": "90000000"})
    assert notifier.longest_poll_s(300) == 30
    assert notifier.longest_poll_s(20) == 20


def test_a_daemon_notifies_ready_watchdog_and_stopping(
    central: FakeCentral, worker: RunningWorker, systemd: Systemd, tmp_path: Path
) -> None:
    daemon = worker.start_process({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"})
    eventually(lambda: systemd.listen().count("WATCHDOG=1") >= 3)
    assert "READY=1" in systemd.received
    assert systemd.received.index("READY=1") < systemd.received.index("WATCHDOG=1")
    assert any(line.startswith("STATUS=w1: serving, 0 jobs") for line in systemd.received)

    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(15) == EXIT_OK
    assert "STOPPING=1" in systemd.listen()


def test_while_central_is_unreachable_a_daemon_is_ready_but_does_not_feed_the_watchdog(
    central: FakeCentral, worker: RunningWorker, systemd: Systemd, tmp_path: Path
) -> None:
    central.go_down()
    worker.start_process({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "900000000"})
    eventually(lambda: any("can't be reached" in line for line in systemd.listen()))
    assert "READY=1" in systemd.received
    assert "WATCHDOG=1" not in systemd.received

    central.come_back()
    eventually(lambda: "WATCHDOG=1" in systemd.listen())


def test_tasks_can_t_notify_systemd(central: FakeCentral, worker: RunningWorker, systemd: Systemd, tmp_path: Path) -> None:
    worker.start_process({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "900000000"})
    job_id = worker.enqueue("run\nlog up\nsleep 20")
    eventually(lambda: b"up" in central.log_bytes(job_id))
    shim = eventually(lambda: next(iter(worker.state.jobs.glob("*/shim.json")), None))
    pid = int(shim.read_text().split('"pid":')[1].split(",")[0])
    assert b"NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_restart_during_an_outage_loses_no_job(
    central: FakeCentral, worker: RunningWorker, systemd: Systemd, tmp_path: Path
) -> None:
    """The watchdog acts during an outage: SIGKILL and a new start."""
    variables = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "900000000"}
    first = worker.start_process(variables)
    job_id = worker.enqueue("run\nlog one\nsleep 1\nlog two\nexit 0")
    eventually(lambda: b"one" in central.log_bytes(job_id))
    central.go_down()
    first.kill()
    first.wait(10)
    worker.start_process(variables)
    eventually(lambda: systemd.listen().count("READY=1") == 2)
    eventually(lambda: list(worker.state.jobs.glob("*/result.json")))
    central.come_back()
    eventually(lambda: central.job_state(job_id) == "succeeded", timeout_s=20)
    assert central.log_bytes(job_id).count(b"one") == 1
