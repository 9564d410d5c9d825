"""The shim's side of the daemon's socket, against a real socket."""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from airflow_remote_worker.local import frames
from airflow_remote_worker.shim import daemon_client as gateway_module
from airflow_remote_worker.shim import posix
from airflow_remote_worker.shim.daemon_client import PATIENCE_AFTER_STOP_S, DaemonClient, Inbox

from .conftest import KEY, StubDaemon, canned, wait_until


@pytest.fixture
def gateway(daemon: StubDaemon) -> Iterator[DaemonClient]:
    one = DaemonClient(str(daemon.socket_path), frames.Hello(job_id="j", key=KEY, pid=os.getpid()))
    yield one
    one.abandon()


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    return thread, results


def test_a_call_sends_hello_first_and_gets_its_answer(daemon: StubDaemon, gateway: DaemonClient) -> None:
    answer = gateway.call("PATCH", "task-instances/x/run", headers={"airflow-api-version": "1"}, body=b"{}")
    assert answer is not None and answer.status == 200
    assert daemon.hellos == [frames.Hello(job_id="j", key=KEY, pid=os.getpid())]
    assert daemon.calls[0].headers == {"airflow-api-version": "1"}


def test_a_call_is_sent_again_to_a_restarted_daemon(daemon: StubDaemon, gateway: DaemonClient) -> None:
    daemon.answer = lambda call: None
    thread, results = in_thread(lambda: gateway.call("GET", "variables/x", headers={}, body=b""))
    wait_until(lambda: daemon.calls)
    daemon.go_away()
    daemon.answer = canned
    time.sleep(0.3)
    daemon.start()
    thread.join(10)
    assert isinstance(results[0], frames.Answer)
    assert daemon.calls[0] == daemon.calls[1]
    assert len(daemon.hellos) == 2


def test_a_stop_is_remembered_and_wakes_a_selector(daemon: StubDaemon, gateway: DaemonClient) -> None:
    gateway.drain()
    wait_until(lambda: daemon.hellos)
    with selectors.DefaultSelector() as selector:
        selector.register(gateway.fileno(), selectors.EVENT_READ)
        assert not selector.select(0)
        daemon.stop_job("cleared")
        assert selector.select(5)
        gateway.drain()
        assert not selector.select(0)
    assert gateway.stop == frames.Stop(reason="cleared")


def test_the_descriptor_outlives_a_reconnect(daemon: StubDaemon, gateway: DaemonClient) -> None:
    descriptor = gateway.fileno()
    gateway.drain()
    wait_until(lambda: daemon.hellos)
    daemon.go_away()
    gateway.drain()  # notices it
    daemon.start()
    gateway.drain()
    wait_until(lambda: len(daemon.hellos) == 2)
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        daemon.stop_job()
        assert selector.select(5)
    assert gateway.fileno() == descriptor


def test_draining_without_a_daemon_does_not_wait(
    daemon: StubDaemon, gateway: DaemonClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[str] = []

    def connect(path: str, *, timeout_s: float) -> socket.socket:
        attempts.append(path)
        return posix.connect(path, timeout_s=timeout_s)

    monkeypatch.setattr(gateway_module, "posix", SimpleNamespace(connect=connect))
    monkeypatch.setattr(gateway_module, "time", SimpleNamespace(monotonic=time.monotonic))  # without `sleep`
    daemon.go_away()
    gateway.drain()
    assert attempts == [str(daemon.socket_path)], "one attempt"


def test_a_stop_ends_a_waiting_call(daemon: StubDaemon, gateway: DaemonClient) -> None:
    daemon.answer = lambda call: None  # an outage: the daemon waits for central
    thread, results = in_thread(lambda: gateway.call("GET", "variables/x", headers={}, body=b""))
    wait_until(lambda: daemon.calls)
    daemon.stop_job()
    thread.join(PATIENCE_AFTER_STOP_S + 5)
    assert results == [None]


def test_a_call_after_a_stop_is_still_answered(daemon: StubDaemon, gateway: DaemonClient) -> None:
    gateway.drain()
    wait_until(lambda: daemon.hellos)
    daemon.stop_job()
    gateway.wait(5)
    assert gateway.stop is not None
    assert gateway.call("GET", "connections/vault", headers={}, body=b"") is not None


def test_an_answer_to_an_earlier_call_is_not_taken_for_this_one(daemon: StubDaemon, gateway: DaemonClient) -> None:
    daemon.answer = lambda call: frames.Answer(id=call.id - 1, status=500, headers={})
    thread, results = in_thread(lambda: gateway.call("GET", "a", headers={}, body=b""))
    wait_until(lambda: daemon.calls)
    daemon.go_away()
    daemon.answer = canned
    daemon.start()
    thread.join(10)
    assert isinstance(results[0], frames.Answer) and results[0].id == 1


def test_an_inbox_assembles_a_frame_from_single_bytes() -> None:
    ours, theirs = socket.socketpair()
    inbox = Inbox()
    stop = frames.Stop(reason="ended")
    received = []
    with ours, theirs:
        for byte in frames.pack(stop) + frames.pack(stop)[:3]:
            ours.sendall(bytes([byte]))
            received += inbox.receive(theirs)
    assert received == [stop]


def test_the_daemon_may_answer_that_central_is_unreachable(daemon: StubDaemon, gateway: DaemonClient) -> None:
    daemon.answer = lambda call: frames.Spool(id=call.id)
    assert gateway.call("POST", "xcoms/d/r/t/k", headers={}, body=b"1", may_spool=True) == frames.Spool(id=1)
    assert daemon.calls[0].may_spool


def test_without_a_daemon_a_write_is_spooled_after_a_moment(
    daemon: StubDaemon, gateway: DaemonClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_module, "PATIENCE_WITHOUT_DAEMON_S", 0.2)
    daemon.go_away()
    assert gateway.call("POST", "xcoms/d/r/t/k", headers={}, body=b"1", may_spool=True) == frames.Spool(id=1)


def test_without_a_daemon_a_job_is_stopped_when_it_is_time(daemon: StubDaemon) -> None:
    due: list[frames.Stop] = []
    gateway = DaemonClient(str(daemon.socket_path), frames.Hello(job_id="j", key=KEY, pid=1), lambda: due[0] if due else None)
    verdict = frames.Stop(reason="superseded", detail="no contact")
    due.append(verdict)
    gateway.drain()
    assert gateway.stop is None, "the daemon is connected: it decides"
    wait_until(lambda: daemon.hellos)  # otherwise the connection may be accepted after the daemon has gone
    due.clear()
    daemon.go_away()
    gateway.drain()
    assert gateway.stop is None, "not yet"
    due.append(verdict)
    gateway.drain()
    assert gateway.stop == verdict
    gateway.abandon()


def test_a_due_stop_ends_a_waiting_read(daemon: StubDaemon) -> None:
    stop = frames.Stop(reason="superseded")
    gateway = DaemonClient(str(daemon.socket_path), frames.Hello(job_id="j", key=KEY, pid=1), lambda: stop)
    daemon.go_away()
    assert gateway.call("GET", "variables/x", headers={}, body=b"") is None
    assert gateway.stop == stop
    gateway.abandon()
